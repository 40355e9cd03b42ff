package state

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

func guidsOf(objects []identity.Object) []ad.GUID {
	guids := make([]ad.GUID, len(objects))
	for i, o := range objects {
		guids[i] = o.GUID
	}
	return guids
}

func TestMissing(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(10, 20, 1)
	must(t, send(s, all))
	for _, c := range []struct {
		name string
		seen []ad.GUID
		want []identity.Object
	}{
		{"nothing seen", nil, all},
		{"all seen", guidsOf(all), nil},
		{"first seen", guidsOf(all[:1]), all[1:]},
		{"last seen", guidsOf(all[9:]), all[:9]},
		{"all but one seen", guidsOf(slices.Concat(all[:4], all[5:])), all[4:5]},
		{"duplicates", guidsOf([]identity.Object{all[0], all[0], all[3], all[3], all[3]}), slices.Concat(all[1:3], all[4:])},
		{"objects not in the index before, between and after", []ad.GUID{guidOf(1), guidOf(2), all[0].GUID, {5}, {6}, {7}}, all[1:]},
		{"only objects not in the index", []ad.GUID{guidOf(1), guidOf(9), guidOf(20), {1}}, all},
		{"all and objects not in the index", append(append([]ad.GUID{guidOf(0)}, guidsOf(all)...), guidOf(99)), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			even, odd := []ad.GUID{}, []ad.GUID{} // in two lists
			for i, guid := range c.seen {
				if i%2 == 0 {
					even = append(even, guid)
				} else {
					odd = append(odd, guid)
				}
			}
			for _, lists := range [][][]ad.GUID{{c.seen}, {even, odd}, {odd, nil, even}} {
				missing, err := s.Missing(lists...)
				if err != nil || !slices.EqualFunc(missing, c.want, same) {
					t.Errorf("%d lists: missing %v, error %v", len(lists), missing, err)
				}
			}
		})
	}
}

// same compares the stored fields of two objects.
func same(a, b identity.Object) bool {
	return a.GUID == b.GUID && a.Kind == b.Kind && a.Fingerprint == b.Fingerprint && bytes.Equal(a.SID, b.SID) && a.Name == b.Name && a.FormerSID == b.FormerSID &&
		RoundRecheck(a.RecheckAt).Equal(RoundRecheck(b.RecheckAt))
}

// TestObjects checks that stored objects are unchanged.
func TestObjects(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 4, 1)
	all[0].Name, all[0].SID = "", nil
	all[1].Name, all[1].Kind = "Zoë 東京", 2
	all[2].RecheckAt = time.Unix(1_700_000_000, 1)
	all[3].SID = bytes.Repeat([]byte{9}, 68) // maximum length
	must(t, send(s, all))
	found, err := s.Objects([]ad.GUID{all[2].GUID, guidOf(99), all[0].GUID, all[1].GUID, all[3].GUID})
	if err != nil || !slices.EqualFunc(found, []identity.Object{all[2], all[0], all[1], all[3]}, same) {
		t.Errorf("found %+v, error %v", found, err)
	}
}

// TestRecheckKeyOrder checks that the order of keys is the order of times.
func TestRecheckKeyOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	randomTime := func() time.Time {
		if random.IntN(2) == 0 {
			return time.Unix(1_700_000_000, random.Int64N(3_000_000_000)) // close together
		}
		return time.Unix(1+random.Int64N(910_000_000_000), random.Int64N(1_000_000_000)) // up to the maximum FILETIME
	}
	for range 100_000 {
		a, b := randomTime(), randomTime()
		if order, want := bytes.Compare(recheckKey(a), recheckKey(b)), RoundRecheck(a).Compare(RoundRecheck(b)); order != want {
			t.Fatalf("%s and %s: order %d, want %d", a, b, order, want)
		}
		if a.Before(b) && bytes.Compare(recheckKey(a), recheckKey(b)) > 0 {
			t.Fatalf("%s is before %s, but its key is not", a, b)
		}
		if second := RoundRecheck(a); second.Before(a) || second.Sub(a) >= time.Second || !RoundRecheck(second).Equal(second) {
			t.Fatalf("%s rounded to %s", a, second)
		}
	}
	if !RoundRecheck(time.Time{}).IsZero() {
		t.Error("zero time not preserved")
	}
}

// TestDueForRecheck checks that the recheck times are consistent with the index.
func TestDueForRecheck(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
	all := objects(0, 5, 1)
	all[0].RecheckAt, all[1].RecheckAt, all[2].RecheckAt, all[3].RecheckAt = at(300), at(100), at(200), at(200).Add(time.Millisecond)
	must(t, send(s, all))
	check := func(now int64, want ...identity.Object) {
		t.Helper()
		if due := result(s.DueForRecheck(at(now)))(t); !slices.Equal(due, guidsOf(want)) {
			t.Errorf("due for recheck at %d: %v", now, due)
		}
	}
	check(99)
	check(100, all[1])
	check(200, all[1], all[2])
	check(201, all[1], all[2], all[3]) // rounded up to the next second
	check(300, all[1], all[2], all[3], all[0])

	all[1].RecheckAt = time.Time{} // no recheck time any more
	all[2].RecheckAt = at(50)
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[1:3]}}))
	check(300, all[2], all[3], all[0]) // from being marked in flight
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all[1:3]}}))
	check(50, all[2])
	check(300, all[2], all[3], all[0])
	expect(t, s, all[1])

	all[4].RecheckAt, all[0].RecheckAt = at(10), time.Time{}
	must(t, s.SetRecheckTimes(map[ad.GUID]time.Time{all[4].GUID: at(10), all[0].GUID: {}, guidOf(99): at(1)}))
	check(300, all[4], all[2], all[3])
	s = reopen(t, s, dir)
	check(300, all[4], all[2], all[3])
	for _, o := range all {
		expect(t, s, o)
	}
	expectAbsent(t, s, objects(99, 100, 0)[0])
	must(t, s.SetRecheckTimes(nil))
}

// TestSetRecheckTimesInFlight checks that an object in flight stays in flight.
func TestSetRecheckTimesInFlight(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	o := objects(0, 1, 1)
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{7, o}}))
	o[0].RecheckAt = time.Unix(1000, 0)
	must(t, s.SetRecheckTimes(map[ad.GUID]time.Time{o[0].GUID: o[0].RecheckAt}))
	expectUnknownValue(t, s, o[0])
	s = reopen(t, s, dir)
	expectUnknownValue(t, s, o[0])
}

// TestSIDChanged checks which SIDs count as changed: not after the gateway has acknowledged the
// deletion under the former one.
func TestSIDChanged(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	o := objects(0, 1, 1)[0]
	other := bytes.Clone(o.SID)
	other[len(other)-1]++
	expectChanged := func(when string, sid ad.SID, want bool) {
		t.Helper()
		if record, found, err := s.Lookup(o.GUID, sid); err != nil || !found || record.SIDChanged != want {
			t.Errorf("%s: %+v, found %t, error %v, want %t", when, record, found, err, want)
		}
	}
	must(t, send(s, []identity.Object{o}))
	expectChanged("same SID", o.SID, false)
	expectChanged("no SID", nil, false)
	expectChanged("other SID", other, true)

	former := deleted(o)
	former.FormerSID = true
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, []identity.Object{former}}}))
	expectChanged("deletion in flight", other, true)
	must(t, j.Commit([]BatchResult{{Complete: true, Rejected: []RejectedObject{{Object: former}}}}))
	expectChanged("deletion rejected", other, true)
	must(t, j.MarkInFlight([]Batch{{1, []identity.Object{former}}}))
	must(t, j.Commit([]BatchResult{{Batch: 1, Complete: true, Acknowledged: []identity.Object{former}}}))
	expectChanged("deletion acknowledged", other, false)
	if rejections := rejectionsOf(t, s); len(rejections) > 0 {
		t.Errorf("rejections %v", rejections)
	}
	if record, _, err := s.Lookup(o.GUID, nil); err != nil || record.Fingerprint != (identity.Fingerprint{}) {
		t.Errorf("record %+v, error %v", record, err)
	}
	o.SID = other
	must(t, send(s, []identity.Object{o}))
	expectChanged("sent with the other SID", other, false)
	expectChanged("first SID again", former.SID, true)
}

// TestCountOwners checks that an object counts once its value may be at the gateway, unless only
// its deletion is.
func TestCountOwners(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 6, 1)
	all[1].SID, all[2].SID = all[0].SID, all[0].SID
	all[3].Kind, all[3].SID = identity.Role, all[0].SID
	must(t, send(s, all))
	former := deleted(all[4])
	former.FormerSID = true
	must(t, send(s, []identity.Object{former}))

	counts := map[identity.Key]int{all[0].Key(): 0, all[3].Key(): 0, all[4].Key(): 0, {SID: "unknown"}: 7}
	must(t, s.CountOwners(counts, guidsOf(all[1:2])))
	want := map[identity.Key]int{all[0].Key(): 2, all[3].Key(): 1, all[4].Key(): 0, {SID: "unknown"}: 7}
	if !maps.Equal(counts, want) {
		t.Errorf("%v, want %v", counts, want)
	}
}

// BenchmarkCountOwners counts the owners of 1,000 keys among 1,000,000 objects.
func BenchmarkCountOwners(b *testing.B) {
	const size, step = 1_000_000, 1000
	s := openStore(b, b.TempDir())
	counts := map[identity.Key]int{}
	for from := 0; from < size; from += 10 * step {
		some := objects(from, from+10*step, 1)
		must(b, send(s, some))
		for n := 0; n < len(some); n += step {
			counts[some[n].Key()] = 0
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		must(b, s.CountOwners(counts, nil))
	}
}
