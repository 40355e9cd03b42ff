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

// contents tells whether anything in a directory has changed.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, entry := range result(os.ReadDir(dir))(t) {
		all[entry.Name()] = string(result(os.ReadFile(filepath.Join(dir, entry.Name())))(t))
	}
	return all
}

// TestReadOnlyOfNothing: a directory, or a file, that is not there is none that is made.
func TestReadOnlyOfNothing(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		s := openReadOnly(t, dir)
		if !s.IsReadOnly() || result(s.IndexSize())(t) != 0 || len(result(s.Runs())(t)) != 0 || s.FileSize() != 0 {
			t.Error("something is in it")
		}
		if _, there, err := s.Lookup(guidOf(1)); there || err != nil {
			t.Errorf("lookup: %v, %v", there, err)
		}
		err := s.SetConnector(Connector{State: "SCHEDULED"})
		faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "record connector state", Object: "state file " + s.Path()}, errReadOnly)
		must(t, s.Close())
		if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// TestReadOnly: everything can be read, open batches included, and nothing written.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, send(s, objects(0, 10, 1)))
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{{0, objects(5, 7, 2)}}))
	must(t, s.SetConnector(Connector{State: "PROCESSING", RunID: "r"}))
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(1), guidOf(2), guidOf(99)}, time.Unix(60, 0)))
	must(t, s.Close())
	before := contents(t, dir)

	look := openReadOnly(t, dir)
	other := openReadOnly(t, dir) // two may look at once
	expect(t, look, objects(0, 10, 1)[3])
	expectAnyValue(t, look, objects(0, 10, 1)[5])
	if n := result(other.IndexSize())(t); n != 10 {
		t.Errorf("size %d", n)
	}
	if c := result(look.Connector())(t); c.State != "PROCESSING" || look.FileSize() == 0 || look.Path() != filepath.Join(dir, fileName) {
		t.Errorf("connector %+v", c)
	}
	held, total, err := look.FirstHeldDeletions(2)
	if err != nil || total != 3 || len(held) != 2 || held[0].GUID != guidOf(1) || held[0].SID.String() == "" || held[0].Since.Unix() != 60 {
		t.Errorf("held %+v of %d: %v", held, total, err)
	}
	for op, write := range map[string]func() error{
		"record run": func() error { return look.RecordRun(Run{}, Connector{}) }, "record rate limit": func() error { return look.SetRateLimit(time.Now()) },
		"change target": func() error { return look.ChangeTarget("x") }, "record held deletions": func() error { return look.SetHeldDeletions(nil, time.Now()) },
	} {
		faulttest.Check(t, write(), fault.Error{Class: fault.Transient, Op: op, Object: "state file " + look.Path()}, errReadOnly)
	}
	must(t, look.Close())
	must(t, other.Close())
	if after := contents(t, dir); len(after) != len(before) || after[fileName] != before[fileName] {
		t.Errorf("changed: %v", len(after))
	}
}

func TestFirstRejections(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	d := result(s.OpenJournal(reader, began))(t)
	all := objects(0, 5, 1)
	must(t, d.MarkInFlight([]Batch{{0, all}}))
	receipt := BatchResult{Batch: 0, Complete: true}
	for _, o := range all {
		receipt.Rejected = append(receipt.Rejected, RejectedObject{Object: o, Reason: "no"})
	}
	must(t, d.Commit([]BatchResult{receipt}))
	first, total, err := s.FirstRejections(3)
	if err != nil || total != 5 || len(first) != 3 || !slices.Equal([]ad.GUID{first[0].GUID, first[1].GUID, first[2].GUID}, guidsOf(all[:3])) {
		t.Errorf("%+v of %d: %v", first, total, err)
	}
}

// TestReadOnlyBesideAWriter: who writes excludes who looks.
func TestReadOnlyBesideAWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		openStore(t, dir)
		start := time.Now()
		_, err := OpenReadOnly(dir)
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

// TestReadOnlyOfDamage: it is told, and left for the next run to set aside.
func TestReadOnlyOfDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func([]byte) []byte{
		"no database": func([]byte) []byte { return []byte(strings.Repeat("x", 70000)) },
		"both heads":  func(content []byte) []byte { clear(content[:8192]); return content },
		"cut off":     func(content []byte) []byte { return content[:100] },
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
				t.Error("it was changed")
			}
		})
	}
}

// TestWriterBesideAReader: a reader, which leaves no name, locks the file, too.
func TestWriterBesideAReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, openStore(t, dir).Close())
	openReadOnly(t, dir)
	_, err := tryOnce.Open(dir)
	faulttest.Check(t, err, fault.Error{Class: fault.Locked, Op: "lock", Object: "state directory " + dir}, ErrLocked, "service.state-dir")
}

// TestReadOnlyWithoutTheRight: to look at a file one need not write it.
func TestReadOnlyWithoutTheRight(t *testing.T) {
	t.Parallel()
	path := filepath.Join(file(t, nil), fileName)
	refused := &fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}
	for needed, err := range map[string]error{"readable": explainRead(path, refused), "writable": explainOpen(path, refused)} {
		faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, path+" "+needed, "service.state-dir")
	}
}
