package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// observe returns what all methods return that use the index.
func observe(t testing.TB, s *Store) string {
	t.Helper()
	var text strings.Builder
	show := func(name string, values ...any) { fmt.Fprintf(&text, "%s: %+v\n", name, values) }
	all := result(s.missing(nil))(t)
	guids := guidsOf(all)
	keys, counts := map[identity.Key]struct{}{}, map[identity.Key]int{}
	for _, o := range all {
		keys[o.Key()], counts[o.Key()] = struct{}{}, 0
		record, found, err := s.Lookup(o.GUID, o.SID)
		show("lookup", record, found, err)
	}
	must(t, s.CountOwners(counts, guids[:min(1, len(guids))]))
	owners := result(s.Owners(keys))(t)
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(a, b identity.Key) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		show("owners", key, owners[key], counts[key])
	}
	some := append(slices.Clone(guids[:len(guids)/2]), ad.GUID{0: 0xff})
	held, heldTotal, err := s.HeldDeletions(-1)
	must(t, err)
	undecided, undecidedTotal, err := s.UndecidedDeletions(-1)
	must(t, err)
	show("objects", all)
	show("missing", result(s.missing(some))(t))
	show("some", result(s.Objects(some))(t), result(s.Indexed(some))(t))
	show("in flight", result(s.InFlightObjects())(t))
	show("recheck", result(s.DueForRecheck(time.Unix(1<<40, 0)))(t), result(s.DueForRecheck(time.Unix(5, 0)))(t))
	show("failed logons", result(s.AccountsWithFailedLogons())(t))
	show("delivered", result(s.DeliveredSince(0, View{Scope: "other"}))(t))
	sightings := result(s.Sightings(testView, guids))(t)
	for _, sighting := range sightings {
		slices.SortFunc(sighting.Elsewhere, func(a, b ad.InvocationID) int { return bytes.Compare(a[:], b[:]) })
	}
	show("sightings", sightings)
	show("moved in", result(s.MovedIn())(t))
	show("deletions", held, heldTotal, undecided, undecidedTotal)
	show("counts", result(s.IndexSize())(t), result(s.NeverAcknowledged())(t))
	return text.String()
}

// expectObserved fails the test unless two results of observe are equal.
func expectObserved(t testing.TB, when, got, want string) {
	t.Helper()
	wanted := strings.Split(want, "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(wanted) || line != wanted[i] {
			t.Fatalf("%s:\n%s\nwant:\n%s", when, line, strings.Join(wanted[min(i, len(wanted)):min(i+1, len(wanted))], ""))
		}
	}
}

// copyState copies the state of an open store, as a process leaves it that is killed now.
func copyState(t testing.TB, s *Store) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, path := range []string{s.Path(), generationPath(s.Path())} {
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, filepath.Base(path)), content, 0o600))
	}
	return dir
}

// expectSameAfterKill checks that the index is the same if the process is killed now: for a reader
// that changes nothing, and after the next Open has merged the journal.
func expectSameAfterKill(t testing.TB, s *Store) {
	t.Helper()
	expectLoaded(t, s)
	want, dir := observe(t, s), copyState(t, s)
	readOnly := result(unsynced.OpenReadOnly(dir))(t)
	expectObserved(t, "read-only", observe(t, readOnly), want)
	must(t, readOnly.Close())
	opened := result(unsynced.Open(dir))(t)
	if opened.DamagedFile != nil {
		t.Fatal(opened.DamagedFile.Damage)
	}
	expectObserved(t, "opened", observe(t, opened), want)
	if n := journalSize(t, opened); n != 0 || len(opened.unmerged.chunks) != 0 || opened.unmerged.bytes != 0 {
		t.Fatalf("%d chunks, %d objects, %d bytes after Open", n, len(opened.unmerged.chunks), opened.unmerged.bytes)
	}
	must(t, opened.verify(time.Time{}))
	must(t, opened.Close())
}

// expectLoaded checks that the memory has what the next Open would read from the journal.
func expectLoaded(t testing.TB, s *Store) {
	t.Helper()
	var loaded unmerged
	must(t, s.db.View(loaded.load))
	if got := s.unmerged; got.bytes != loaded.bytes || got.added != loaded.added || !maps.Equal(got.chunks, loaded.chunks) || got.noIndex && !loaded.noIndex {
		t.Fatalf("%d objects, %d bytes, no index %v; the file has %d, %d, %v", len(got.chunks), got.bytes, got.noIndex, len(loaded.chunks), loaded.bytes, loaded.noIndex)
	}
	expectFormat(t, s)
}

// expectFormat checks that a program that does not know the journal refuses the file unless the journal
// is empty.
func expectFormat(t testing.TB, s *Store) {
	t.Helper()
	want := version
	if journalSize(t, s) > 0 {
		want = journalVersion
	}
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		if got := versionText(tx.Bucket(bucketMeta).Get(keyVersion)); got != fmt.Sprint(want) {
			t.Fatalf("format %s, want %d", got, want)
		}
		return nil
	}))
}

// TestFormatOfJournal checks the format of the file before, with and after a journal.
func TestFormatOfJournal(t *testing.T) {
	t.Parallel()
	for name, empty := range map[string]func(s *Store) error{
		"start of a run":      func(s *Store) error { _, err := s.OpenJournal(testView, testStart); return err },
		"end of a run":        func(s *Store) error { return s.Advance(Progress{View: testView, Run: 3, At: testStart}) },
		"end of a failed run": func(s *Store) error { return s.RecordRun(Run{Error: "failed"}, Connector{}) },
		"other target":        func(s *Store) error { return s.ChangeTarget("other") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir())
			expectFormat(t, s)
			writeJournal(t, s)
			if journalSize(t, s) == 0 {
				t.Fatal("no journal")
			}
			expectFormat(t, s)
			must(t, empty(s))
			if n := journalSize(t, s); n != 0 {
				t.Errorf("%d chunks", n)
			}
			expectFormat(t, s)
		})
	}
}

// journalSize returns the number of chunks in the journal.
func journalSize(t testing.TB, s *Store) (size int) {
	t.Helper()
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		size = tx.Bucket(bucketJournal).Stats().KeyN
		return nil
	}))
	return size
}

// mixedObjects returns objects with and without recheck times and logons.
func mixedObjects(from, to int, mark byte) []identity.Object {
	all := objects(from, to, mark)
	for i := range all {
		if i%3 == 0 {
			all[i].RecheckAt = time.Unix(int64(1+i%10), 0)
		}
		if i%5 == 0 {
			all[i].Logons = identity.Logons{Last: 1, HasFailed: true, Failed: uint32(i % 2)}
		}
		all[i].MovedIn = i%7 == 0
	}
	return all
}

// writeJournal gives every kind of change a place in the index and in the journal.
func writeJournal(t testing.TB, s *Store) {
	t.Helper()
	first := mixedObjects(0, 60, 1)
	must(t, send(s, first))
	must(t, s.merge())
	must(t, s.SetHeldDeletions(guidsOf(first[:2]), testStart))
	changed, added := mixedObjects(0, 40, 2), mixedObjects(60, 80, 2)
	for i := 20; i < 30; i++ {
		changed[i] = deleted(changed[i])
	}
	changed[31].FormerSID = true
	changed[32].RecheckAt = time.Time{}
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, changed[:20]}, {1, changed[20:]}, {2, added[:10]}, {3, added[10:]}}))
	must(t, j.Commit([]BatchResult{
		{Batch: 1, Complete: true, Acknowledged: changed[20:39], Rejected: []RejectedObject{{changed[39], "no"}}},
		{Batch: 2, Acknowledged: added[:5], Rejected: []RejectedObject{{added[5], "no"}}},
		{Batch: 3, Complete: true, Acknowledged: append(slices.Clone(added[10:19]), deleted(added[19]))},
	}))
	must(t, s.SetRecheckTimes(map[ad.GUID]time.Time{guidOf(0): {}, guidOf(45): time.Unix(3, 0), guidOf(61): time.Unix(4, 0), guidOf(25): time.Unix(4, 0)}))
	must(t, s.SetLogons(map[ad.GUID]identity.Logons{guidOf(50): {Last: 9}, guidOf(62): {Last: 9}}))
	must(t, j.Drop([]ad.GUID{guidOf(55), guidOf(63)}))
	must(t, j.MarkInFlight([]Batch{{4, changed[28:30]}})) // objects that the journal has as deleted
}

// TestMerge checks that a merge in several transactions changes no result, and that at each of
// them a kill changes none.
func TestMerge(t *testing.T) {
	t.Parallel()
	options := unsynced
	options.mergeRecords = 7
	steps := 0
	var s *Store
	want := ""
	options.merging = func() error {
		if want != "" {
			steps++
			expectObserved(t, fmt.Sprint("step ", steps), observe(t, s), want)
			expectSameAfterKill(t, s)
		}
		return nil
	}
	s = result(options.Open(t.TempDir()))(t)
	defer s.Close()
	writeJournal(t, s)
	expectSameAfterKill(t, s)
	want = observe(t, s)
	must(t, s.merge())
	if steps < 5 {
		t.Errorf("%d steps", steps)
	}
	expectObserved(t, "after the merge", observe(t, s), want)
	if n := journalSize(t, s); n > 0 {
		t.Errorf("%d chunks", n)
	}
	expectSameAfterKill(t, s)
}

// TestInterruptedMerge checks that a merge that fails between two transactions is repeated, by
// the same process and after a restart.
func TestInterruptedMerge(t *testing.T) {
	t.Parallel()
	errStop := errors.New("stop")
	for steps := range 12 {
		options := unsynced
		options.mergeRecords = 7
		left := 1 << 20
		options.merging = func() error {
			if left--; left < 0 {
				return errStop
			}
			return nil
		}
		s := result(options.Open(t.TempDir()))(t)
		writeJournal(t, s)
		want := observe(t, s)
		left = steps
		if err := s.merge(); !errors.Is(err, errStop) && steps < 9 {
			t.Fatalf("error %v after %d steps", err, steps)
		}
		expectObserved(t, fmt.Sprint("after step ", steps), observe(t, s), want)
		must(t, s.SetLogons(map[ad.GUID]identity.Logons{guidOf(1): {Last: 77}})) // one that may be merged
		expectSameAfterKill(t, s)
		want = observe(t, s)
		left = 1 << 20
		_ = result(s.OpenJournal(testView, testStart))(t)
		expectObserved(t, fmt.Sprint("repeated after step ", steps), observe(t, s), want)
		if n := journalSize(t, s); n > 0 {
			t.Errorf("repeated after step %d: %d chunks", steps, n)
		}
		must(t, s.verify(time.Time{}))
		must(t, s.Close())
	}
}

// TestChangesDuringMerge checks that entries that are appended during a merge stay in the journal.
func TestChangesDuringMerge(t *testing.T) {
	t.Parallel()
	options := unsynced
	options.mergeRecords = 7
	var s *Store
	step, merging := 0, false
	options.merging = func() error {
		if step++; merging {
			return s.SetLogons(map[ad.GUID]identity.Logons{guidOf(step): {Last: ad.FileTime(100 + step)}, guidOf(50): {Last: ad.FileTime(100 + step)}})
		}
		return nil
	}
	s = result(options.Open(t.TempDir()))(t)
	defer s.Close()
	writeJournal(t, s)
	step, merging = 0, true
	must(t, s.merge())
	merging = false
	if step < 5 || journalSize(t, s) != step || len(s.unmerged.chunks) == 0 || s.unmerged.bytes == 0 {
		t.Errorf("%d steps, %d chunks, %d objects, %d bytes", step, journalSize(t, s), len(s.unmerged.chunks), s.unmerged.bytes)
	}
	for n := 1; n <= step; n++ {
		if found := result(s.Objects([]ad.GUID{guidOf(n)}))(t); len(found) == 1 && found[0].Logons.Last != ad.FileTime(100+n) {
			t.Errorf("logons of object %d: %+v", n, found[0].Logons)
		}
	}
	// A later entry of an object that has entries from the time of the merge replaces them.
	must(t, s.SetLogons(map[ad.GUID]identity.Logons{guidOf(50): {Last: 1000}}))
	if found := result(s.Objects([]ad.GUID{guidOf(50)}))(t); len(found) != 1 || found[0].Logons.Last != 1000 {
		t.Errorf("after the merge: %+v", found)
	}
	expectSameAfterKill(t, s)
	want := observe(t, s)
	must(t, s.merge())
	expectObserved(t, "after the second merge", observe(t, s), want)
	if n := journalSize(t, s); n > 0 {
		t.Errorf("%d chunks after the second merge", n)
	}
}

// TestOpenWithoutSpaceForMerge checks that a file whose journal cannot be merged when it is opened keeps
// the journal, and the format that older programs refuse.
func TestOpenWithoutSpaceForMerge(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	writeJournal(t, s)
	want, chunks, dir := observe(t, s), journalSize(t, s), copyState(t, s)
	options := unsynced
	options.merging = func() error { return syscall.ENOSPC }
	s = result(options.Open(dir))(t)
	defer s.Close()
	expectObserved(t, "not merged", observe(t, s), want)
	must(t, s.view("read version", func(tx *bbolt.Tx) error {
		if version := tx.Bucket(bucketMeta).Get(keyVersion); !bytes.Equal(version, unmergedVersion) {
			t.Errorf("version %x", version)
		}
		return nil
	}))
	if n := journalSize(t, s); n != chunks {
		t.Errorf("%d chunks, want %d", n, chunks)
	}
}

// TestMissingMerges checks that the search for missing objects merges the journal, except for a
// reader.
func TestMissingMerges(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	writeJournal(t, s)
	want, dir := result(s.missing(nil))(t), copyState(t, s)
	if got := result(s.Missing(nil))(t); !slices.EqualFunc(got, want, same) || journalSize(t, s) > 0 {
		t.Errorf("%d chunks, %d of %d objects", journalSize(t, s), len(got), len(want))
	}
	readOnly := result(unsynced.OpenReadOnly(dir))(t)
	defer readOnly.Close()
	if got := result(readOnly.Missing(nil))(t); !slices.EqualFunc(got, want, same) {
		t.Errorf("read-only: %d of %d objects", len(got), len(want))
	}
}

// TestMergeWhenLarge checks that marking batches in flight bounds the journal.
func TestMergeWhenLarge(t *testing.T) {
	t.Parallel()
	options := unsynced
	options.mergeAbove = 10_000
	s := result(options.Open(t.TempDir()))(t)
	defer s.Close()
	all := objects(0, 2000, 1)
	j := result(s.OpenJournal(testView, testStart))(t)
	number, peak := 0, int64(0)
	for batch := range slices.Chunk(all, 50) {
		must(t, j.MarkInFlight([]Batch{{number, batch}}))
		must(t, j.Commit([]BatchResult{{Batch: number, Complete: true, Acknowledged: batch}}))
		number, peak = number+1, max(peak, s.unmerged.bytes)
	}
	if peak < options.mergeAbove || peak > 2*options.mergeAbove {
		t.Errorf("journal of up to %d bytes", peak)
	}
	for _, o := range all {
		expect(t, s, o)
	}
	expectSameAfterKill(t, s)
	must(t, s.Advance(Progress{Run: j.Run()}))
	if n := journalSize(t, s); n != 0 {
		t.Errorf("%d chunks after the run", n)
	}
}

// TestKilledMerge kills a process with SIGKILL at each transaction of a merge. It is not parallel:
// see TestLockedByAnotherProcess.
func TestKilledMerge(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_MERGE"); dir != "" {
		options, left := Options{mergeRecords: 7}, 1<<20
		options.merging = func() error {
			if left--; left < 0 {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		}
		s := result(options.Open(dir))(t)
		writeJournal(t, s)
		must(t, os.WriteFile(filepath.Join(dir, "observed"), []byte(observe(t, s)), 0o600))
		_, err := fmt.Sscan(os.Getenv("STATE_TEST_STEPS"), &left)
		must(t, err)
		must(t, s.merge())
		return
	}
	killed := 0
	for steps := range 12 {
		dir := t.TempDir()
		process := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledMerge$")
		process.Env = append(os.Environ(), "STATE_TEST_MERGE="+dir, fmt.Sprint("STATE_TEST_STEPS=", steps))
		output, err := process.CombinedOutput()
		status, is := process.ProcessState.Sys().(syscall.WaitStatus)
		if killedNow := is && status.Signaled() && status.Signal() == syscall.SIGKILL; killedNow {
			killed++
		} else if err != nil {
			t.Fatalf("%v: %s", err, output)
		}
		want := string(result(os.ReadFile(filepath.Join(dir, "observed")))(t))
		s := openStore(t, dir)
		if s.DamagedFile != nil {
			t.Fatal(s.DamagedFile.Damage)
		}
		expectObserved(t, fmt.Sprint("killed after step ", steps), observe(t, s), want)
		if n := journalSize(t, s); n != 0 {
			t.Errorf("killed after %d steps: %d chunks", steps, n)
		}
		must(t, s.Close())
	}
	if killed < 9 {
		t.Errorf("killed at %d of 12 points", killed)
	}
}

// TestDamagedJournal checks that a file with an invalid journal is set aside. The checksum covers
// changes by others, so the entries are written.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	valid := appendEntry(nil, guidOf(1), []byte("record"))
	for name, chunk := range map[string][]byte{
		"empty GUID": {1}, "GUID only": valid[:16], "short record": valid[:len(valid)-1], "short second entry": append(bytes.Clone(valid), 0),
		"size out of range": append(valid[:16:16], bytes.Repeat([]byte{0xff}, 12)...), "huge size": append(valid[:16:16], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
	} {
		dir := t.TempDir()
		s := openStore(t, dir)
		must(t, s.update("write", func(c change) error { return c.put(bucketJournal, chunkKey(1), chunk) }))
		must(t, s.Close())
		if _, err := unsynced.OpenReadOnly(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: read-only: error %v", name, err)
		}
		if s = openStore(t, dir); s.DamagedFile == nil || !errors.Is(s.DamagedFile.Damage, errJournalEntry) {
			t.Errorf("%s: damage %+v", name, s.DamagedFile)
		}
	}
}

// TestRecordsOfOneTransaction checks that the last record of an object counts, within the
// transaction and after it.
func TestRecordsOfOneTransaction(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	o, long := objects(0, 1, 1)[0], strings.Repeat("n", maxChunk/2)
	records := map[string][]byte{}
	for _, name := range []string{"first", "second", long + "third", long + "fourth"} {
		o.Name = name
		records[name] = appendRecord(nil, o, 1<<32, 1)
	}
	for i, names := range [][]string{{"first", "second"}, {"second", "", "first"}, {long + "third", long + "fourth", "first"}, {"first", ""}, {"second", long + "third"}} {
		must(t, s.update("write", func(c change) error {
			for _, name := range names {
				must(t, c.putRecord(o.GUID, c.record(o.GUID), records[name]))
				if got := c.record(o.GUID); !bytes.Equal(got, records[name]) {
					t.Errorf("%d: record %q, want %q", i, got, records[name])
				}
			}
			return nil
		}))
		last := names[len(names)-1]
		if got := result(s.Objects([]ad.GUID{o.GUID}))(t); last != "" && (len(got) != 1 || got[0].Name != last) || last == "" && len(got) > 0 {
			t.Errorf("%d: %+v", i, got)
		}
		expectSameAfterKill(t, s)
	}
}

// TestLargeRecord checks records that are larger than a chunk.
func TestLargeRecord(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 6, 1)
	for i, size := range []int{0, 1900, 3000, 70_000, 10, 200_000} {
		all[i].Name = strings.Repeat("n", size)
	}
	must(t, send(s, all))
	for range 2 {
		if got := result(s.Objects(guidsOf(all)))(t); !slices.EqualFunc(got, all, same) {
			t.Errorf("%d objects", len(got))
		}
		expectSameAfterKill(t, s)
		must(t, s.merge())
	}
}
