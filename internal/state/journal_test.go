package state

import (
	"errors"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/identity"
)

// reopen closes and opens the file, as a restart does.
func reopen(t testing.TB, s *Store, dir string) *Store {
	t.Helper()
	must(t, s.Close())
	return openStore(t, dir)
}

// TestInFlightWithoutResult checks that the value of an object is unknown after it was marked
// in flight without a result, also after a restart.
func TestInFlightWithoutResult(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	old, updated := objects(0, 10, 1), objects(0, 10, 2)
	added := objects(10, 20, 2)
	must(t, send(s, old))
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, updated[:5]}, {1, added[:5]}}))
	check := func() {
		t.Helper()
		for i := range 5 {
			expectUnknownValue(t, s, updated[i])
			expect(t, s, old[5+i])
			expectUnknownValue(t, s, added[i])
			expectAbsent(t, s, added[5+i])
		}
		if guids := result(s.InFlightObjects())(t); !slices.Equal(guids, guidsOf(slices.Concat(updated[:5], added[:5]))) {
			t.Fatalf("in flight: %v", guids)
		}
		if n := result(s.IndexSize())(t); n != 15 {
			t.Fatalf("size %d", n)
		}
	}
	check()
	s = reopen(t, s, dir)
	check()
	j = result(s.OpenJournal(testView, testStart))(t) // a new run, whose batch 0 is another batch
	check()
	must(t, j.MarkInFlight([]Batch{{0, added[5:]}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: added[5:]}}))
	for i := range 5 {
		expectUnknownValue(t, s, updated[i])
		expectUnknownValue(t, s, added[i])
		expect(t, s, added[5+i])
	}
	must(t, send(s, slices.Concat(updated, added)))
	for _, o := range slices.Concat(updated, added) {
		expect(t, s, o)
	}
	if guids := result(s.InFlightObjects())(t); len(guids) != 0 {
		t.Errorf("in flight: %v", guids)
	}
}

// TestInFlightBeforeVisible checks that a batch is in flight before its records can be read. Otherwise
// a concurrent lookup would return a value that was not acknowledged.
func TestInFlightBeforeVisible(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	j := result(s.OpenJournal(testView, testStart))(t)
	var inFlight []bool
	s.options.generationWritten = func() error { // in both transactions; the second one writes the records
		inFlight = append(inFlight, s.isInFlight(j.batchID(7)))
		return nil
	}
	must(t, j.MarkInFlight([]Batch{{7, objects(0, 3, 1)}}))
	if !slices.Equal(inFlight, []bool{false, true}) {
		t.Errorf("in flight in the transactions: %v", inFlight)
	}
}

// TestAdvanceAfterError checks that the first batches that are marked after an error advance the
// generation twice, as if there had been no error.
func TestAdvanceAfterError(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	j := result(s.OpenJournal(testView, testStart))(t)
	advances, failing := 0, 2
	s.options.generationWritten = func() error {
		if advances++; advances == failing {
			return errCrash
		}
		return nil
	}
	batches := []Batch{{0, objects(0, 3, 1)}}
	if err := j.MarkInFlight(batches); !errors.Is(err, errCrash) || advances != 2 {
		t.Fatalf("%d advances, error %v", advances, err)
	}
	for range 2 { // the second time, the generation is advanced already
		must(t, j.MarkInFlight(batches))
		if advances != 4 {
			t.Errorf("%d advances", advances)
		}
	}
}

// TestObsoleteBatches checks that a batch in flight is deleted once all its objects were sent
// again.
func TestObsoleteBatches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 6, 1)
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:3]}, {1, all[3:]}}))
	count := func() (n int) {
		must(t, s.db.View(func(tx *bbolt.Tx) error {
			n = tx.Bucket(bucketInFlight).Stats().KeyN
			return nil
		}))
		if len(s.inFlight) != n {
			t.Errorf("%d batches in memory, %d on disk", len(s.inFlight), n)
		}
		return n
	}
	must(t, send(s, all[:3]))
	_ = result(s.OpenJournal(testView, testStart))(t)
	if n := count(); n != 1 {
		t.Errorf("%d batches in flight, want the second", n)
	}
	s = reopen(t, s, dir)
	must(t, send(s, all[3:5]))
	_ = result(s.OpenJournal(testView, testStart))(t)
	if n := count(); n != 1 {
		t.Errorf("%d batches in flight, want one with a remaining object", n)
	}
	expectUnknownValue(t, s, all[5])
	must(t, send(s, all[5:]))
	_ = result(s.OpenJournal(testView, testStart))(t)
	if n := count(); n != 0 {
		t.Errorf("%d batches in flight", n)
	}
	for _, o := range all {
		expect(t, s, o)
	}
}

// TestCommitOrder checks that results can be committed in any order.
func TestCommitOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 9, 1)
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:3]}, {1, all[3:6]}}))
	must(t, j.MarkInFlight([]Batch{{2, all[6:]}}))
	must(t, j.Commit([]BatchResult{{Batch: 2, Complete: true, Acknowledged: all[6:]}, {Batch: 0, Complete: true, Acknowledged: all[:3]}}))
	for range 2 {
		for i, o := range all {
			if 3 <= i && i < 6 {
				expectUnknownValue(t, s, o)
			} else {
				expect(t, s, o)
			}
		}
		s = reopen(t, s, dir)
	}
}

// TestIncompleteResult checks that only the objects of an incomplete result are committed.
func TestIncompleteResult(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 6, 1)
	all[0].RecheckAt, all[3].RecheckAt = time.Unix(1000, 0), time.Unix(2000, 0)
	must(t, send(s, all[4:5]))
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Acknowledged: append(slices.Clone(all[:2]), deleted(all[4])), Rejected: []RejectedObject{{Object: all[2], Reason: "no"}}}}))
	for range 2 {
		expect(t, s, all[0])
		expect(t, s, all[1])
		expectUnknownValue(t, s, all[2])
		expectUnknownValue(t, s, all[3])
		expectAbsent(t, s, all[4])
		expectUnknownValue(t, s, all[5])
		if due := result(s.DueForRecheck(time.Unix(5000, 0)))(t); !slices.Equal(due, guidsOf([]identity.Object{all[0], all[3]})) {
			t.Errorf("due for recheck: %v", due)
		}
		if guids := result(s.InFlightObjects())(t); !slices.Equal(guids, guidsOf([]identity.Object{all[3], all[5]})) {
			t.Errorf("in flight: %v", guids)
		}
		s = reopen(t, s, dir)
	}
}

// deleted returns the deletion of an object.
func deleted(o identity.Object) identity.Object { return o.DeletedAsset(nil).Object() }

// TestAcknowledgedDeletion checks that an acknowledged deletion removes all state of the
// object.
func TestAcknowledgedDeletion(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 3, 1)
	for i := range all {
		all[i].RecheckAt = time.Unix(1000, 0)
	}
	must(t, send(s, all))
	must(t, s.SetHeldDeletions(guidsOf(all), time.Unix(1, 0)))
	must(t, s.SetUndecidedDeletions(undecided("lag", 0, 3), time.Unix(1, 0)))
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:2]}}))
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Rejected: []RejectedObject{{Object: all[0]}, {Object: all[1]}}}}))
	if held, undecided := heldGUIDs(t, s), undecidedTexts(t, s); len(held) != 3 || len(undecided) != 3 {
		t.Errorf("after a rejection: held %v, undecided %v", held, undecided)
	}

	deletions := []identity.Object{deleted(all[0]), deleted(all[1])}
	j = result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, deletions}}))
	if found := result(s.Objects(guidsOf(deletions)))(t); len(found) != 2 || found[0].Name != "user0" || !slices.Equal(found[0].SID, deletions[0].SID) {
		t.Errorf("while the deletion is in flight: %+v", found)
	}
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: deletions}}))
	for _, o := range deletions {
		expectAbsent(t, s, o)
	}
	expect(t, s, all[2])
	due, held, rejections := result(s.DueForRecheck(time.Unix(5000, 0)))(t), heldGUIDs(t, s), rejectionsOf(t, s)
	if rest := guidsOf(all[2:]); !slices.Equal(due, rest) || !slices.Equal(held, rest) || len(rejections) != 0 {
		t.Errorf("due %v, held %v, rejections %v", due, held, rejections)
	}
	if undecided := undecidedTexts(t, s); !slices.Equal(undecided, []string{"2 lag 1"}) {
		t.Errorf("undecided %v", undecided)
	}
	if n := result(s.IndexSize())(t); n != 1 {
		t.Errorf("size %d", n)
	}
}

// TestRejectedObject checks that a rejected object stays in the index without its previously
// acknowledged value.
func TestRejectedObject(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 3, 7)
	must(t, send(s, all[:2]))
	reject := func(reason string, at time.Time) {
		t.Helper()
		j := result(s.OpenJournal(testView, at))(t)
		must(t, j.MarkInFlight([]Batch{{0, all[1:]}}))
		must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Rejected: []RejectedObject{{all[1], reason}, {all[2], reason}}}}))
	}
	for n := range 3 {
		at := time.Unix(int64(n), 0).UTC()
		reject([]string{"a", "b", "c"}[n], at)
		expect(t, s, all[0])
		expectUnknownValue(t, s, all[1])
		expectUnknownValue(t, s, all[2])
		list := rejectionsOf(t, s)
		if len(list) != 2 || list[0].GUID != all[1].GUID || list[1].GUID != all[2].GUID {
			t.Fatalf("rejections %+v", list)
		}
		r := list[1]
		if r.Attempts != n+1 || r.Reason != []string{"a", "b", "c"}[n] || !r.At.Equal(at) || r.Kind != 1 || r.SID != all[2].SID.String() {
			t.Errorf("rejection %+v", r)
		}
		s = reopen(t, s, dir)
	}
	if found := result(s.Objects(guidsOf(all)))(t); len(found) != 3 || found[2].Name != "user2" {
		t.Errorf("rejected object without a name: %+v", found)
	}
	must(t, send(s, all[1:2]))
	expect(t, s, all[1])
	if list := rejectionsOf(t, s); len(list) != 1 || list[0].GUID != all[2].GUID {
		t.Errorf("rejections %+v", list)
	}
	must(t, send(s, all[2:]))
	reject("d", time.Time{})
	if list := rejectionsOf(t, s); len(list) != 2 || list[1].Attempts != 1 {
		t.Errorf("attempts after an acknowledgement: %+v", list)
	}
}

func TestNeverAcknowledged(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 3, 1)
	check := func(want bool) {
		t.Helper()
		if never := result(s.NeverAcknowledged())(t); never != want {
			t.Errorf("never acknowledged: %v", never)
		}
	}
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, all[:2]}, {1, all[2:]}}))
	check(true)
	must(t, j.Commit([]BatchResult{{Batch: 1, Complete: true, Rejected: []RejectedObject{{Object: all[2]}}}}))
	check(true)
	if size := result(s.IndexSize())(t); size == 0 {
		t.Error("the index is empty")
	}
	must(t, j.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all[:2]}}))
	check(false)
}

// TestBatchIDs checks that batches of different runs have different IDs.
func TestBatchIDs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	seen := map[batchID]bool{0: true} // no batch
	for run := range 20 {
		j := result(s.OpenJournal(testView, testStart))(t)
		for _, batch := range []int{0, 1, 2, 1 << 20, 1<<32 - 1} {
			id := j.batchID(batch)
			if seen[id] {
				t.Fatalf("batch %d of run %d: duplicate ID %x", batch, run, uint64(id))
			}
			seen[id] = true
		}
		if run%5 == 4 {
			s = reopen(t, s, dir)
		}
	}
}

// TestDrop checks that dropped objects leave no state but that they are remembered.
func TestDrop(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 3, 1)
	for i := range all {
		all[i].RecheckAt, all[i].MovedIn = time.Unix(1000, 0), true
	}
	must(t, send(s, all))
	must(t, s.SetHeldDeletions(guidsOf(all[:1]), time.Unix(1, 0)))
	must(t, s.SetUndecidedDeletions([]Undecided{{GUID: all[1].GUID, Reason: "lag"}}, time.Unix(1, 0)))
	j, err := s.OpenJournal(View{Scope: "other"}, testStart)
	must(t, err)
	must(t, j.Drop(append(guidsOf(all[:2]), guidOf(99))))
	if got := result(s.Missing(nil))(t); !slices.EqualFunc(got, all[2:], same) {
		t.Errorf("index %v", got)
	}
	if due := result(s.DueForRecheck(time.Unix(2000, 0)))(t); len(due) != 1 {
		t.Errorf("due for recheck: %v", due)
	}
	if movedIn := result(s.MovedIn())(t); len(movedIn) != 1 {
		t.Errorf("moved in: %v", movedIn)
	}
	if len(heldGUIDs(t, s)) > 0 || len(undecidedTexts(t, s)) > 0 {
		t.Error("held or undecided")
	}
	if got := result(s.DeliveredSince(0, testView))(t); !slices.Contains(got, all[0].GUID) || !slices.Contains(got, all[1].GUID) {
		t.Errorf("delivered under another view: %v", got)
	}
}
