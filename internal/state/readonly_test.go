package state

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

func openReadOnly(t *testing.T, dir string) *Store {
	t.Helper()
	s := result(unsynced.OpenReadOnly(dir))(t)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// contents returns the content of all files in a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, entry := range result(os.ReadDir(dir))(t) {
		all[entry.Name()] = string(result(os.ReadFile(filepath.Join(dir, entry.Name())))(t))
	}
	return all
}

// TestReadOnlyMissing checks that a missing directory or file is not created.
func TestReadOnlyMissing(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		s := openReadOnly(t, dir)
		if !s.IsReadOnly() || result(s.IndexSize())(t) != 0 || len(result(s.Runs())(t)) != 0 || s.FileSize() != 0 {
			t.Error("the store is not empty")
		}
		if _, found, err := s.Lookup(guidOf(1), nil); found || err != nil {
			t.Errorf("lookup: %v, %v", found, err)
		}
		err := s.SetConnector(Connector{State: "SCHEDULED"})
		faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "record connector state", Object: "state file " + s.Path()}, errReadOnly)
		must(t, s.Close())
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
			t.Errorf("created %v", entries)
		}
	}
}

// TestReadOnly checks that all state can be read, including batches in flight, and that all
// writes fail.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, send(s, objects(0, 10, 1)))
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{{0, objects(5, 7, 2)}}))
	must(t, s.SetConnector(Connector{State: "PROCESSING", RunID: "r"}))
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(1), guidOf(2), guidOf(99)}, time.Unix(60, 0)))
	must(t, s.SetUndecidedDeletions([]Undecided{{GUID: guidOf(3), Reason: "lag", Remedy: "wait"}, {GUID: guidOf(4), Reason: "rights", Remedy: "grant"}, {GUID: guidOf(98), Reason: "lag", Remedy: "wait"}}, time.Unix(60, 0)))
	must(t, s.Close())
	before := contents(t, dir)

	readOnly := openReadOnly(t, dir)
	other := openReadOnly(t, dir) // concurrent readers are allowed
	expect(t, readOnly, objects(0, 10, 1)[3])
	expectUnknownValue(t, readOnly, objects(0, 10, 1)[5])
	if n := result(other.IndexSize())(t); n != 10 {
		t.Errorf("size %d", n)
	}
	if c := result(readOnly.Connector())(t); c.State != "PROCESSING" || readOnly.FileSize() == 0 || readOnly.Path() != filepath.Join(dir, fileName) {
		t.Errorf("connector %+v", c)
	}
	held, total, err := readOnly.HeldDeletions(2)
	if err != nil || total != 3 || len(held) != 2 || held[0].GUID != guidOf(1) || held[0].SID.String() == "" || held[0].Since.Unix() != 60 {
		t.Errorf("held %+v of %d: %v", held, total, err)
	}
	undecided, total, err := readOnly.UndecidedDeletions(1)
	if err != nil || total != 3 || len(undecided) != 1 || undecided[0].GUID != guidOf(3) || undecided[0].SID.String() == "" ||
		undecided[0].Reason != "lag" || undecided[0].Remedy != "wait" || undecided[0].Since.Unix() != 60 {
		t.Errorf("undecided %+v of %d: %v", undecided, total, err)
	}
	for op, write := range map[string]func() error{
		"record run": func() error { return readOnly.RecordRun(Run{}, Connector{}) }, "record rate limit": func() error { return readOnly.SetRateLimit(RateLimit{}) },
		"record undecided deletions": func() error { return readOnly.SetUndecidedDeletions(nil, time.Now()) },
		"change target":              func() error { return readOnly.ChangeTarget("x") }, "record held deletions": func() error { return readOnly.SetHeldDeletions(nil, time.Now()) },
	} {
		faulttest.Check(t, write(), fault.Error{Class: fault.Transient, Op: op, Object: "state file " + readOnly.Path()}, errReadOnly)
	}
	must(t, readOnly.Close())
	must(t, other.Close())
	if after := contents(t, dir); len(after) != len(before) || after[fileName] != before[fileName] {
		t.Errorf("directory changed: %d files", len(after))
	}
}

func TestRejectionsLimit(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	j := result(s.OpenJournal(testView, testStart))(t)
	all := objects(0, 5, 1)
	must(t, j.MarkInFlight([]Batch{{0, all}}))
	batchResult := BatchResult{Batch: 0, Complete: true}
	for _, o := range all {
		batchResult.Rejected = append(batchResult.Rejected, RejectedObject{Object: o, Reason: "no"})
	}
	must(t, j.Commit([]BatchResult{batchResult}))
	first, total, err := s.Rejections(3)
	if err != nil || total != 5 || len(first) != 3 || !slices.Equal([]ad.GUID{first[0].GUID, first[1].GUID, first[2].GUID}, guidsOf(all[:3])) {
		t.Errorf("%+v of %d: %v", first, total, err)
	}
}

// TestReaderWaitsForWriter checks that OpenReadOnly fails while a writer has the file open.
func TestReaderWaitsForWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		openStore(t, dir)
		start := time.Now()
		_, err := Options{}.OpenReadOnly(dir)
		faulttest.Check(t, err, fault.Error{Class: fault.Locked, Op: "lock", Object: "state directory " + dir}, ErrLocked, "service.state-dir")
		if !isHeldByUs(err) {
			t.Errorf("the holder is not in %v", err)
		}
		const retry = 50 * time.Millisecond // of bbolt
		if waited := time.Since(start); waited < defaultLockWait-retry || waited > defaultLockWait+retry {
			t.Errorf("waited %s", waited)
		}
	})
}

// TestReadOnlyDamaged checks that OpenReadOnly returns an error for a damaged file and does
// not change it.
func TestReadOnlyDamaged(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"not a database":  func([]byte) []byte { return []byte(strings.Repeat("x", 70000)) },
		"both meta pages": func(content []byte) []byte { clear(content[:8192]); return content },
		"truncated":       func(content []byte) []byte { return content[:100] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			must(t, send(s, objects(0, 10, 1)))
			must(t, s.Close())
			path := filepath.Join(dir, fileName)
			must(t, os.WriteFile(path, damage(result(os.ReadFile(path))(t)), 0o600))
			before := contents(t, dir)
			_, err := unsynced.OpenReadOnly(dir)
			faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "open", Object: "state file " + path}, ErrDamaged, remedyDamaged)
			if after := contents(t, dir); !maps.Equal(after, before) {
				t.Error("the directory was changed")
			}
		})
	}
}

// TestWriterWaitsForReader checks that Open fails while a reader has the file open.
func TestWriterWaitsForReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, openStore(t, dir).Close())
	openReadOnly(t, dir)
	_, err := tryOnce.Open(dir)
	faulttest.Check(t, err, fault.Error{Class: fault.Locked, Op: "lock", Object: "state directory " + dir}, ErrLocked, "service.state-dir")
}

// TestReadOnlyPermission checks that the remedy of a reader does not require write permission.
func TestReadOnlyPermission(t *testing.T) {
	t.Parallel()
	path := filepath.Join(file(t, nil), fileName)
	denied := &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
	for needed, err := range map[string]error{"readable": readError(path, denied), "writable": openError(path, denied)} {
		faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, path+" "+needed, "service.state-dir")
	}
}
