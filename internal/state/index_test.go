package state

import (
	"bytes"
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
		{"the first", guidsOf(all[:1]), all[1:]},
		{"the last", guidsOf(all[9:]), all[:9]},
		{"all but one", guidsOf(slices.Concat(all[:4], all[5:])), all[4:5]},
		{"some twice", guidsOf([]identity.Object{all[0], all[0], all[3], all[3], all[3]}), slices.Concat(all[1:3], all[4:])},
		{"strangers before, between and behind", []ad.GUID{guidOf(1), guidOf(2), all[0].GUID, {5}, {6}, {7}}, all[1:]},
		{"strangers only", []ad.GUID{guidOf(1), guidOf(9), guidOf(20), {1}}, all},
		{"all and strangers", append(append([]ad.GUID{guidOf(0)}, guidsOf(all)...), guidOf(99)), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			missing, err := s.Missing(c.seen)
			if err != nil || !slices.EqualFunc(missing, c.want, same) {
				t.Errorf("missing %v, error %v", missing, err)
			}
		})
	}
}

// same compares what the index keeps, with times in its precision.
func same(a, b identity.Object) bool {
	return a.GUID == b.GUID && a.Kind == b.Kind && a.Fingerprint == b.Fingerprint && bytes.Equal(a.SID, b.SID) && a.Name == b.Name &&
		RoundRecheck(a.RecheckAt).Equal(RoundRecheck(b.RecheckAt))
}

// TestObjects come back as they were sent.
func TestObjects(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 4, 1)
	all[0].Name, all[0].SID = "", nil
	all[1].Name, all[1].Kind = "Zoë 東京", 2
	all[2].RecheckAt = time.Unix(1_700_000_000, 1)
	all[3].SID = bytes.Repeat([]byte{9}, 68) // the longest
	must(t, send(s, all))
	found, err := s.Objects([]ad.GUID{all[2].GUID, guidOf(99), all[0].GUID, all[1].GUID, all[3].GUID})
	if err != nil || !slices.EqualFunc(found, []identity.Object{all[2], all[0], all[1], all[3]}, same) {
		t.Errorf("found %+v, error %v", found, err)
	}
}

// TestDueKeyOrder: the order of keys is that of times.
func TestDueKeyOrder(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	at := func() time.Time {
		if random.IntN(2) == 0 {
			return time.Unix(1_700_000_000, random.Int64N(3_000_000_000)) // close together
		}
		return time.Unix(1+random.Int64N(910_000_000_000), random.Int64N(1_000_000_000)) // to the end of file times
	}
	for range 100_000 {
		a, b := at(), at()
		if order, want := bytes.Compare(dueKey(a), dueKey(b)), RoundRecheck(a).Compare(RoundRecheck(b)); order != want {
			t.Fatalf("%s and %s: order %d, want %d", a, b, order, want)
		}
		if a.Before(b) && bytes.Compare(dueKey(a), dueKey(b)) > 0 {
			t.Fatalf("%s is before %s, and its key behind", a, b)
		}
		if second := RoundRecheck(a); second.Before(a) || second.Sub(a) >= time.Second || !RoundRecheck(second).Equal(second) {
			t.Fatalf("%s becomes %s", a, second)
		}
	}
	if !RoundRecheck(time.Time{}).IsZero() {
		t.Error("no time becomes one")
	}
}

// TestDue: the list of due objects stays in step with the index.
func TestDue(t *testing.T) {
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
			t.Errorf("due at %d: %v", now, due)
		}
	}
	check(99)
	check(100, all[1])
	check(200, all[1], all[2])
	check(201, all[1], all[2], all[3]) // rounded up: by then it has changed
	check(300, all[1], all[2], all[3], all[0])

	all[1].RecheckAt = time.Time{} // is sent again, and is not due any more
	all[2].RecheckAt = at(50)
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[1:3]}}))
	check(300, all[2], all[3], all[0]) // the announcement counts
	must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all[1:3]}}))
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

// TestRescheduleKeepsDoubt: an unsettled object stays one.
func TestRescheduleKeepsDoubt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	o := objects(0, 1, 1)
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{7, o}}))
	o[0].RecheckAt = time.Unix(1000, 0)
	must(t, s.SetRecheckTimes(map[ad.GUID]time.Time{o[0].GUID: o[0].RecheckAt}))
	expectAnyValue(t, s, o[0])
	s = reopen(t, s, dir)
	expectAnyValue(t, s, o[0])
}
