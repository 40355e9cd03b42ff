package state

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/ad"
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
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing")} {
		s := openReadOnly(t, dir)
		if !s.IsReadOnly() || result(s.Size())(t) != 0 || len(result(s.Runs())(t)) != 0 || s.FileSize() != 0 {
			t.Error("something is in it")
		}
		if _, there, err := s.Lookup(guidOf(1)); there || err != nil {
			t.Errorf("lookup: %v, %v", there, err)
		}
		if err := s.SetConnector(Connector{State: "SCHEDULED"}); err == nil || !strings.Contains(err.Error(), "opened to look at it only") {
			t.Errorf("write: %v", err)
		}
		must(t, s.Close())
		if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// TestReadOnly: everything can be read, open batches included, and nothing written.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, send(s, objects(0, 10, 1)))
	d := result(s.Begin(reader, began))(t)
	must(t, d.Announce([]Batch{{0, objects(5, 7, 2)}}))
	must(t, s.SetConnector(Connector{State: "PROCESSING", RunID: "r"}))
	must(t, s.Hold([]ad.GUID{guidOf(1), guidOf(2), guidOf(99)}, time.Unix(60, 0)))
	must(t, s.Close())
	before := contents(t, dir)

	look := openReadOnly(t, dir)
	other := openReadOnly(t, dir) // two may look at once
	expect(t, look, objects(0, 10, 1)[3])
	expectAnyValue(t, look, objects(0, 10, 1)[5])
	if n := result(other.Size())(t); n != 10 {
		t.Errorf("size %d", n)
	}
	if c := result(look.Connector())(t); c.State != "PROCESSING" || look.FileSize() == 0 || look.Path() != filepath.Join(dir, fileName) {
		t.Errorf("connector %+v", c)
	}
	held, total, err := look.FirstHeld(2)
	if err != nil || total != 3 || len(held) != 2 || held[0].GUID != guidOf(1) || held[0].SID.String() == "" || held[0].Since.Unix() != 60 {
		t.Errorf("held %+v of %d: %v", held, total, err)
	}
	for name, write := range map[string]func() error{
		"run": func() error { return look.AddRun(Run{}) }, "limit": func() error { return look.SetRateLimit(time.Now()) },
		"target": func() error { return look.Retarget("x") }, "hold": func() error { return look.Hold(nil, time.Now()) },
	} {
		if err := write(); err == nil || !strings.Contains(err.Error(), "opened to look at it only") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, look.Close())
	must(t, other.Close())
	if after := contents(t, dir); len(after) != len(before) || after[fileName] != before[fileName] {
		t.Errorf("changed: %v", len(after))
	}
}

func TestFirstRejections(t *testing.T) {
	s := openStore(t, t.TempDir())
	d := result(s.Begin(reader, began))(t)
	all := objects(0, 5, 1)
	must(t, d.Announce([]Batch{{0, all}}))
	receipt := Receipt{Batch: 0, Complete: true}
	for _, o := range all {
		receipt.Rejected = append(receipt.Rejected, Rejected{Object: o, Reason: "no"})
	}
	must(t, d.Settle([]Receipt{receipt}))
	first, total, err := s.FirstRejections(3)
	if err != nil || total != 5 || len(first) != 3 || !slices.Equal([]ad.GUID{first[0].GUID, first[1].GUID, first[2].GUID}, guidsOf(all[:3])) {
		t.Errorf("%+v of %d: %v", first, total, err)
	}
}

// TestReadOnlyBesideAWriter: who writes excludes who looks.
func TestReadOnlyBesideAWriter(t *testing.T) {
	dir := t.TempDir()
	openStore(t, dir)
	if _, err := unsynced.OpenReadOnly(dir); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "process ") {
		t.Errorf("got %v", err)
	}
}

// TestReadOnlyOfDamage: it is told, and left for the next run to set aside.
func TestReadOnlyOfDamage(t *testing.T) {
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
			if _, err := unsynced.OpenReadOnly(dir); err == nil || !strings.Contains(err.Error(), "the next run sets the file aside and sends everything anew") {
				t.Errorf("got %v", err)
			}
			if after := contents(t, dir); !maps.Equal(after, before) {
				t.Error("it was changed")
			}
		})
	}
}

// TestWriterBesideAReader: who looks has left no name, and is told of all the same.
func TestWriterBesideAReader(t *testing.T) {
	dir := t.TempDir()
	must(t, openStore(t, dir).Close())
	openReadOnly(t, dir)
	if _, err := unsynced.Open(dir); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "perhaps a sync --dry-run or a status that reads it") {
		t.Errorf("got %v", err)
	}
}

// TestReadOnlyWithoutTheRight: to look at a file one need not write it.
func TestReadOnlyWithoutTheRight(t *testing.T) {
	refused := &fs.PathError{Op: "open", Path: "/state/" + fileName, Err: syscall.EACCES}
	for needed, err := range map[string]error{"readable": explainLook("/state/"+fileName, refused), "writable": explainOpen("/state/"+fileName, refused)} {
		if !errors.Is(err, ErrUnusable) || !strings.Contains(err.Error(), "make it "+needed+" for user ") {
			t.Errorf("%s: %v", needed, err)
		}
	}
}
