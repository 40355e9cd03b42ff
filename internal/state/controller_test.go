package state

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"adconnector/internal/ad"
)

var (
	viewA = View{InvocationID: ad.InvocationID{0xa}, Scope: "s"}
	viewB = View{InvocationID: ad.InvocationID{0xb}, Scope: "s"}
)

// sendAs records objects as acknowledged in a run with a view, and returns the run.
func sendAs(t *testing.T, s *Store, view View, from, to int) uint64 {
	t.Helper()
	j := result(s.OpenJournal(view, testStart))(t)
	batch := objects(from, to, byte(j.run))
	must(t, j.MarkInFlight([]Batch{{0, batch}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: batch}}))
	return j.Run()
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
	check := func(wantA, wantB Controller, wantFull FullSync) {
		t.Helper()
		a, b, full := result(s.Controller(viewA.InvocationID))(t), result(s.Controller(viewB.InvocationID))(t), result(s.LastFullSync())(t)
		if a != wantA || b != wantB || full != wantFull {
			t.Errorf("%+v, %+v, %+v", a, b, full)
		}
	}
	must(t, s.Advance(Progress{View: viewA, Run: 1, At: at(10), USN: 100, FullSync: true}))
	first := FullSync{Scope: "s", At: at(10)}
	check(Controller{Watermark: Watermark{100, "s", at(10), 1}, LastFull: first}, Controller{}, first)
	must(t, s.Advance(Progress{View: viewA, Run: 2, At: at(20), USN: 200}))
	a := Controller{Watermark: Watermark{200, "s", at(20), 2}, LastFull: first}
	check(a, Controller{}, first)
	must(t, s.Advance(Progress{View: viewB, Run: 3, At: at(30), USN: 5, FullSync: true, Unseen: []ad.GUID{guidOf(7)}}))
	second := FullSync{Scope: "s", At: at(30)}
	b := Controller{Watermark: Watermark{5, "s", at(30), 3}, LastFull: second}
	s = reopen(t, s, dir)
	check(a, b, second)
	if unseen := result(s.Unseen(viewB.InvocationID))(t); !slices.Equal(unseen, []ad.GUID{guidOf(7)}) {
		t.Errorf("unseen %v", unseen)
	}
	must(t, s.Advance(Progress{View: View{Unknown: true, Scope: "s"}, Run: 4, At: at(40), FullSync: true}))
	check(a, b, FullSync{Scope: "s", At: at(40)})
	must(t, s.RecordRollback(viewB.InvocationID))
	check(a, Controller{Rollbacks: 1}, FullSync{Scope: "s", At: at(40)})
	if unseen := result(s.Unseen(viewB.InvocationID))(t); len(unseen) != 0 {
		t.Errorf("unseen after the rollback: %v", unseen)
	}
	a = Controller{Watermark: Watermark{300, "s", at(50), 5}, LastFull: first}
	must(t, s.Advance(Progress{View: viewA, Run: 5, At: at(50), USN: 300, Unseen: []ad.GUID{guidOf(8)}})) // does not forget the rollback
	check(a, Controller{Rollbacks: 1}, FullSync{Scope: "s", At: at(40)})
	must(t, s.Advance(Progress{View: viewB, Run: 6, At: at(50).Add(controllerLife + time.Second), USN: 5, FullSync: true}))
	if a := result(s.Controller(viewA.InvocationID))(t); a != (Controller{}) {
		t.Errorf("not forgotten: %+v", a)
	}
	if unseen := result(s.Unseen(viewA.InvocationID))(t); len(unseen) != 0 {
		t.Errorf("unseen objects not forgotten: %v", unseen)
	}
}

// TestAdvanceMovesWatermarkLast checks that the watermark is not recorded before the recheck times
// and the merge of the journal, and not if one of these fails.
func TestAdvanceMovesWatermarkLast(t *testing.T) {
	t.Parallel()
	errFull := errors.New("disk full")
	for name, test := range map[string]struct {
		options Options
		failAt  int // transaction of a merge; 0: none
	}{
		"complete":                {},
		"merge fails":             {failAt: 1},
		"merge fails midway":      {options: Options{mergeRecords: 2}, failAt: 2},
		"recheck times fail":      {options: Options{mergeAbove: 1}, failAt: 1}, // they merge a large journal first
		"complete, large journal": {options: Options{mergeAbove: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			sent := objects(0, 5, 1)
			must(t, send(s, sent))
			moved := func() bool { return result(s.Controller(viewA.InvocationID))(t) != (Controller{}) }
			recheckAt := testStart.Add(time.Hour)
			merges := 0
			s.options.mergeAbove, s.options.mergeRecords = test.options.mergeAbove, test.options.mergeRecords
			s.options.merging = func() error {
				merges++
				if moved() {
					t.Error("the watermark moved before the merge")
				}
				if due := result(s.DueForRecheck(recheckAt))(t); len(due) == 0 && test.options.mergeAbove == 0 {
					t.Error("merge before the recheck times")
				}
				if merges == test.failAt {
					return errFull
				}
				return nil
			}
			err := s.Advance(Progress{View: viewA, Run: 1, At: testStart, USN: 100, RecheckTimes: map[ad.GUID]time.Time{sent[3].GUID: recheckAt}})
			succeeds := test.failAt == 0
			if (err == nil) != succeeds || moved() != succeeds || merges < max(test.failAt, 1) {
				t.Errorf("watermark moved: %t, %d transactions, error %v", moved(), merges, err)
			}
		})
	}
}

func TestDeliveredSince(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	check := func(name string, run uint64, view View, want ...int) {
		t.Helper()
		got := result(s.DeliveredSince(run, view))(t)
		slices.SortFunc(got, func(a, b ad.GUID) int { return bytes.Compare(a[:], b[:]) })
		var guids []ad.GUID
		for _, n := range want {
			guids = append(guids, guidOf(n))
		}
		if !slices.Equal(slices.Compact(got), guids) {
			t.Errorf("%s: %v, want %v", name, got, guids)
		}
	}
	one := sendAs(t, s, viewA, 0, 4)
	check("same view", 0, viewA)
	two := sendAs(t, s, viewB, 0, 2)
	check("later run of another controller", one, viewA, 0, 1)
	check("own run", one, viewB)
	check("earlier run of another controller", 0, viewB, 2, 3)
	three := sendAs(t, s, View{InvocationID: viewA.InvocationID, Scope: "t"}, 3, 4)
	check("another scope", one, viewA, 0, 1, 3)
	check("since the run before", two, viewA, 3)
	check("since the run itself", three, viewA)

	// A deletion, an individual acknowledgement and a rejection count as deliveries, too.
	j := result(s.OpenJournal(viewB, testStart))(t)
	batch := objects(4, 8, 1)
	must(t, j.MarkInFlight([]Batch{{0, batch}}))
	batch[0].Deleted = true
	must(t, j.Commit([]BatchResult{{Batch: 0, Acknowledged: batch[:2], Rejected: []RejectedObject{{Object: batch[2]}}}}))
	check("deleted, acknowledged, rejected and in flight", three, viewA, 4, 5, 6, 7)
}

// TestIsOther checks which runs had another view. A run whose view is not recorded any more can have
// had any.
func TestIsOther(t *testing.T) {
	t.Parallel()
	recorded := views{{first: 5, View: viewA}, {first: 8, View: viewB}}
	for run, want := range map[uint64]bool{1: true, 4: true, 5: false, 7: false, 8: true, 100: true} {
		if got := recorded.isOther(run, viewA); got != want {
			t.Errorf("run %d: %t, want %t", run, got, want)
		}
	}
}

func TestPruneViews(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for n, view := range []View{viewA, viewB, viewA, viewB, viewA} {
		run := sendAs(t, s, view, n, n+1)
		must(t, s.Advance(Progress{View: view, Run: run, At: testStart, FullSync: n < 2}))
	}
	check := func(want int, first uint64) {
		t.Helper()
		var recorded views
		must(t, s.update("", func(c change) (err error) {
			recorded, err = readViews(c.Tx)
			return err
		}))
		if len(recorded) != want || recorded[0].first != first {
			t.Errorf("views %+v", recorded)
		}
	}
	check(2, 4) // the oldest watermark is that of run 4
	must(t, s.Advance(Progress{View: viewA, Run: 6, At: testStart.Add(deletionLife + time.Second)}))
	check(1, 5) // that watermark is too old
}

func TestPruneDeletions(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	j := result(s.OpenJournal(viewB, testStart))(t)
	batch := objects(0, 1, 1)
	batch[0].Deleted = true
	must(t, j.MarkInFlight([]Batch{{0, batch}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: batch}}))
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{deletionLife, 1}, {deletionLife + 2*time.Second, 0}} {
		must(t, s.Advance(Progress{View: viewB, Run: j.Run(), At: testStart.Add(c.after), FullSync: true}))
		if got := result(s.DeliveredSince(0, viewA))(t); len(got) != c.want {
			t.Errorf("after %s: %v", c.after, got)
		}
	}
}

func TestSightings(t *testing.T) {
	t.Parallel()
	a, b := viewA.InvocationID, viewB.InvocationID
	rolledBack := viewA
	rolledBack.Rollbacks = 1
	cases := map[string]struct {
		prepare func(t *testing.T, s *Store)
		view    View
		want    Sighting
	}{
		"not indexed":                             {func(*testing.T, *Store) {}, viewA, Sighting{}},
		"delivered in a failed run":               {func(t *testing.T, s *Store) { sendAs(t, s, viewA, 0, 1) }, viewA, Sighting{Here: true, HereInScope: true}},
		"delivered in a failed run, by another":   {func(t *testing.T, s *Store) { sendAs(t, s, viewB, 0, 1) }, viewA, Sighting{Elsewhere: []ad.InvocationID{b}}},
		"delivered in a failed run, other scope":  {func(t *testing.T, s *Store) { sendAs(t, s, View{InvocationID: a, Scope: "t"}, 0, 1) }, viewA, Sighting{Here: true}},
		"delivered with an unknown invocation ID": {func(t *testing.T, s *Store) { sendAs(t, s, View{Unknown: true, Scope: "s"}, 0, 1) }, viewA, Sighting{Unknown: true}},
		"found in a full sync": {func(t *testing.T, s *Store) {
			run := sendAs(t, s, viewB, 0, 1)
			must(t, s.Advance(Progress{View: viewA, Run: run + 1, At: testStart, FullSync: true}))
		}, viewA, Sighting{Here: true, HereInScope: true, Elsewhere: []ad.InvocationID{b}}},
		"missing in a full sync": {func(t *testing.T, s *Store) {
			run := sendAs(t, s, viewB, 0, 1)
			must(t, s.Advance(Progress{View: viewA, Run: run + 1, At: testStart, FullSync: true, Unseen: []ad.GUID{guidOf(0)}}))
		}, viewA, Sighting{Elsewhere: []ad.InvocationID{b}}},
		"delivered after the full sync": {func(t *testing.T, s *Store) {
			must(t, s.Advance(Progress{View: viewA, Run: 0, At: testStart, FullSync: true}))
			sendAs(t, s, viewB, 0, 1)
		}, viewA, Sighting{Elsewhere: []ad.InvocationID{b}}},
		"found in a full sync, delivered by another later": {func(t *testing.T, s *Store) {
			run := sendAs(t, s, viewA, 0, 1)
			must(t, s.Advance(Progress{View: viewA, Run: run, At: testStart, FullSync: true}))
			sendAs(t, s, viewB, 0, 1)
		}, viewA, Sighting{Here: true, HereInScope: true, Elsewhere: []ad.InvocationID{b}}},
		"brought into the index, delivered by another later": {func(t *testing.T, s *Store) {
			sendAs(t, s, viewA, 0, 1)
			sendAs(t, s, viewB, 0, 1)
		}, viewA, Sighting{Here: true, HereInScope: true, Elsewhere: []ad.InvocationID{b}}},
		"deletion not acknowledged": {func(t *testing.T, s *Store) {
			sendAs(t, s, viewA, 0, 1)
			j := result(s.OpenJournal(viewB, testStart))(t)
			batch := objects(0, 1, 1)
			batch[0].Deleted = true
			must(t, j.MarkInFlight([]Batch{{0, batch}}))
		}, viewB, Sighting{Elsewhere: []ad.InvocationID{a}}},
		"deletion rejected": {func(t *testing.T, s *Store) {
			sendAs(t, s, viewA, 0, 1)
			j := result(s.OpenJournal(viewB, testStart))(t)
			batch := objects(0, 1, 1)
			batch[0].Deleted = true
			must(t, j.MarkInFlight([]Batch{{0, batch}}))
			must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Rejected: []RejectedObject{{Object: batch[0]}}}}))
		}, viewB, Sighting{Elsewhere: []ad.InvocationID{a}}},
		"delivered, put back": {func(t *testing.T, s *Store) {
			run := sendAs(t, s, viewA, 0, 1)
			must(t, s.Advance(Progress{View: viewA, Run: run, At: testStart, FullSync: true}))
			must(t, s.RecordRollback(a))
		}, rolledBack, Sighting{BeforeRollback: true}},
		"delivered, put back, missing": {func(t *testing.T, s *Store) {
			run := sendAs(t, s, viewA, 0, 1)
			must(t, s.RecordRollback(a))
			must(t, s.Advance(Progress{View: rolledBack, Run: run + 1, At: testStart, FullSync: true, Unseen: []ad.GUID{guidOf(0)}}))
		}, rolledBack, Sighting{BeforeRollback: true}},
		"reported as deleted, delivered by another": {func(t *testing.T, s *Store) {
			j := result(s.OpenJournal(viewA, testStart))(t)
			batch := objects(0, 1, 1)
			batch[0].Deleted = true
			must(t, j.MarkInFlight([]Batch{{0, batch}}))
			must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: batch}}))
			sendAs(t, s, viewB, 0, 1)
		}, viewA, Sighting{Here: true, HereInScope: true, Elsewhere: []ad.InvocationID{b}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			c.prepare(t, s)
			got := result(s.Sightings(c.view, []ad.GUID{guidOf(0)}))(t)
			if len(got) != 1 || !reflect.DeepEqual(got[0], c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestLastServers(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	one, two := Server{Host: "dc1", InvocationID: ad.InvocationID{1}}, Server{Host: "dc2", InvocationID: ad.InvocationID{2}}
	check := func(wantLast, wantFailed Server) {
		t.Helper()
		if last, failed, err := s.LastServers(); err != nil || last != wantLast || failed != wantFailed {
			t.Errorf("last %+v, failed %+v, error %v", last, failed, err)
		}
	}
	check(Server{}, Server{})
	must(t, s.Advance(Progress{View: viewA, At: testStart, Server: one}))
	must(t, s.SetFailedServer(two))
	check(one, two)
	must(t, s.Advance(Progress{View: viewA, At: testStart, Server: one}))
	check(one, Server{})
}

// TestReadableAttributes checks that only full syncs record the counts of attributes, and only if
// they have some.
func TestReadableAttributes(t *testing.T) {
	t.Parallel()
	store := openStore(t, t.TempDir())
	expect := func(want int) {
		t.Helper()
		got, err := store.ReadableAttributes()
		if err != nil || got.Objects["user"]["mail"] != want || (got.Scope == "scope") != (want > 0) {
			t.Errorf("recorded %+v, error %v, want %d", got, err, want)
		}
	}
	counts := func(n int) *ReadableAttributes {
		return &ReadableAttributes{Scope: "scope", Objects: map[string]map[string]int{"user": {"mail": n}}}
	}
	expect(0)
	for _, step := range []struct {
		progress Progress
		want     int
	}{
		{Progress{FullSync: true, Readable: counts(30)}, 30},
		{Progress{FullSync: true}, 30},
		{Progress{Readable: counts(5)}, 30},
		{Progress{FullSync: true, Readable: counts(2)}, 2},
	} {
		if err := store.Advance(step.progress); err != nil {
			t.Fatal(err)
		}
		expect(step.want)
	}
}
