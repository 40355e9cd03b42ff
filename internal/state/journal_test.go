package state

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/identity"
)

// reopen stands for the end of one process and the start of the next.
func reopen(t testing.TB, s *Store, dir string) *Store {
	t.Helper()
	must(t, s.Close())
	return openStore(t, dir)
}

// TestNeverSettled: after an announcement without an answer the gateway may hold
// anything, for this process and every later one.
func TestNeverSettled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	old, renewed := objects(0, 10, 1), objects(0, 10, 2)
	fresh := objects(10, 20, 2)
	must(t, send(s, old))
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, renewed[:5]}, {1, fresh[:5]}}))
	check := func() {
		t.Helper()
		for i := range 5 {
			expectAnyValue(t, s, renewed[i])
			expect(t, s, old[5+i])
			expectAnyValue(t, s, fresh[i])
			expectAbsent(t, s, fresh[5+i])
		}
		if guids := result(s.InFlightObjects())(t); !slices.Equal(guids, guidsOf(slices.Concat(renewed[:5], fresh[:5]))) {
			t.Fatalf("unsettled %v", guids)
		}
		if n := result(s.IndexSize())(t); n != 15 {
			t.Fatalf("size %d", n)
		}
	}
	check()
	s = reopen(t, s, dir)
	check()
	d = result(s.OpenJournal(reader, began))(t) // of another run: its first batch is not the lost one
	check()
	must(t, d.MarkInFlight([]Batch{{0, fresh[5:]}}))
	must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: fresh[5:]}}))
	for i := range 5 {
		expectAnyValue(t, s, renewed[i])
		expectAnyValue(t, s, fresh[i])
		expect(t, s, fresh[5+i])
	}
	must(t, send(s, slices.Concat(renewed, fresh)))
	for _, o := range slices.Concat(renewed, fresh) {
		expect(t, s, o)
	}
	if guids := result(s.InFlightObjects())(t); len(guids) != 0 {
		t.Errorf("unsettled %v", guids)
	}
}

// TestOpenBatchesAreForgotten once all their objects were sent again.
func TestOpenBatchesAreForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 6, 1)
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[:3]}, {1, all[3:]}}))
	count := func() (n int) {
		must(t, s.db.View(func(tx *bbolt.Tx) error {
			n = tx.Bucket(bucketOpen).Stats().KeyN
			return nil
		}))
		if len(s.open) != n {
			t.Errorf("%d in memory, %d on disk", len(s.open), n)
		}
		return n
	}
	must(t, send(s, all[:3]))
	_ = result(s.OpenJournal(reader, began))(t)
	if n := count(); n != 1 {
		t.Errorf("%d open batches, want the second", n)
	}
	s = reopen(t, s, dir)
	must(t, send(s, all[3:5]))
	_ = result(s.OpenJournal(reader, began))(t)
	if n := count(); n != 1 {
		t.Errorf("%d open batches, one object is left of it", n)
	}
	expectAnyValue(t, s, all[5])
	must(t, send(s, all[5:]))
	_ = result(s.OpenJournal(reader, began))(t)
	if n := count(); n != 0 {
		t.Errorf("%d open batches", n)
	}
	for _, o := range all {
		expect(t, s, o)
	}
}

// TestSettled: the batches of one run settle one by one, in any order.
func TestSettled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 9, 1)
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[:3]}, {1, all[3:6]}}))
	must(t, d.MarkInFlight([]Batch{{2, all[6:]}}))
	must(t, d.Commit([]BatchResult{{Batch: 2, Complete: true, Acknowledged: all[6:]}, {Batch: 0, Complete: true, Acknowledged: all[:3]}}))
	for range 2 {
		for i, o := range all {
			if 3 <= i && i < 6 {
				expectAnyValue(t, s, o)
			} else {
				expect(t, s, o)
			}
		}
		s = reopen(t, s, dir)
	}
}

// TestIncompleteSettlement: of an incomplete batch only what it names is known.
func TestIncompleteSettlement(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 6, 1)
	all[0].RecheckAt, all[3].RecheckAt = time.Unix(1000, 0), time.Unix(2000, 0)
	must(t, send(s, all[4:5]))
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all}}))
	must(t, d.Commit([]BatchResult{{Batch: 0, Acknowledged: append(slices.Clone(all[:2]), deleted(all[4])), Rejected: []RejectedObject{{Object: all[2], Reason: "no"}}}}))
	for range 2 {
		expect(t, s, all[0])
		expect(t, s, all[1])
		expectAnyValue(t, s, all[2])
		expectAnyValue(t, s, all[3])
		expectAbsent(t, s, all[4])
		expectAnyValue(t, s, all[5])
		if due := result(s.DueForRecheck(time.Unix(5000, 0)))(t); !slices.Equal(due, guidsOf([]identity.Object{all[0], all[3]})) {
			t.Errorf("due %v", due)
		}
		if guids := result(s.InFlightObjects())(t); !slices.Equal(guids, guidsOf([]identity.Object{all[3], all[5]})) {
			t.Errorf("unsettled %v", guids)
		}
		s = reopen(t, s, dir)
	}
}

// deleted is what is sent of an object that has gone.
func deleted(o identity.Object) identity.Object { return o.AsDeleted(nil).Object() }

// TestDeleted: it is gone from everywhere.
func TestDeleted(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 3, 1)
	for i := range all {
		all[i].RecheckAt = time.Unix(1000, 0)
	}
	must(t, send(s, all))
	must(t, s.SetHeldDeletions(guidsOf(all), time.Unix(1, 0)))
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[:2]}}))
	must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Rejected: []RejectedObject{{Object: all[0]}, {Object: all[1]}}}}))
	if held := result(s.HeldDeletions())(t); len(held) != 3 {
		t.Errorf("a rejection releases: held %v", held)
	}

	gone := []identity.Object{deleted(all[0]), deleted(all[1])}
	d = result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, gone}}))
	if found := result(s.Objects(guidsOf(gone)))(t); len(found) != 2 || found[0].Name != "user0" || !slices.Equal(found[0].SID, gone[0].SID) {
		t.Errorf("while it is under way: %+v", found)
	}
	must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: gone}}))
	for _, o := range gone {
		expectAbsent(t, s, o)
	}
	expect(t, s, all[2])
	due, held, rejections := result(s.DueForRecheck(time.Unix(5000, 0)))(t), result(s.HeldDeletions())(t), result(s.Rejections())(t)
	if rest := guidsOf(all[2:]); !slices.Equal(due, rest) || !slices.Equal(held, rest) || len(rejections) != 0 {
		t.Errorf("due %v, held %v, rejections %v", due, held, rejections)
	}
	if n := result(s.IndexSize())(t); n != 1 {
		t.Errorf("size %d", n)
	}
}

// TestRejected: what was acknowledged of a rejected object before is not its value
// any more, but the gateway still has it.
func TestRejected(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	all := objects(0, 3, 7)
	must(t, send(s, all[:2]))
	reject := func(reason string, at time.Time) {
		t.Helper()
		d := result(s.OpenJournal(reader, at))(t)
		must(t, d.MarkInFlight([]Batch{{0, all[1:]}}))
		must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Rejected: []RejectedObject{{all[1], reason}, {all[2], reason}}}}))
	}
	for n := range 3 {
		at := time.Unix(int64(n), 0).UTC()
		reject([]string{"a", "b", "c"}[n], at)
		expect(t, s, all[0])
		expectAnyValue(t, s, all[1])
		expectAnyValue(t, s, all[2])
		list := result(s.Rejections())(t)
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
		t.Errorf("a rejected object has lost its name: %+v", found)
	}
	must(t, send(s, all[1:2]))
	expect(t, s, all[1])
	if list := result(s.Rejections())(t); len(list) != 1 || list[0].GUID != all[2].GUID {
		t.Errorf("rejections %+v", list)
	}
	must(t, send(s, all[2:]))
	reject("d", time.Time{})
	if list := result(s.Rejections())(t); len(list) != 2 || list[1].Attempts != 1 {
		t.Errorf("what was taken in between starts anew: %+v", list)
	}
}

// TestUntried: only an acknowledged value proves that the gateway takes anything.
func TestUntried(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 3, 1)
	check := func(want bool) {
		t.Helper()
		if untried := result(s.NeverAcknowledged())(t); untried != want {
			t.Errorf("untried %v", untried)
		}
	}
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, all[:2]}, {1, all[2:]}}))
	check(true)
	must(t, d.Commit([]BatchResult{{Batch: 1, Complete: true, Rejected: []RejectedObject{{Object: all[2]}}}}))
	check(true)
	if size := result(s.IndexSize())(t); size == 0 {
		t.Error("it is empty")
	}
	must(t, d.Commit([]BatchResult{{Batch: 0, Complete: true, Acknowledged: all[:2]}}))
	check(false)
}

// TestBatchNumbers of different runs never meet, whatever their numbers within.
func TestBatchNumbers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	seen := map[batchNumber]bool{0: true} // which is none
	for run := range 20 {
		d := result(s.OpenJournal(reader, began))(t)
		for _, batch := range []int{0, 1, 2, 1 << 20, 1<<32 - 1} {
			if number := d.number(batch); seen[number] {
				t.Fatalf("batch %d of run %d: number %x is taken", batch, run, uint64(number))
			} else {
				seen[number] = true
			}
		}
		if run%5 == 4 {
			s = reopen(t, s, dir)
		}
	}
}
