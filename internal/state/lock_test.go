package state

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestLocked: whoever wants the lock too is told who holds it, and what to do.
func TestLocked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	start := time.Now()
	_, err := unsynced.Open(dir)
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("error %v", err)
	}
	for _, words := range []string{dir, "service.state-dir", fmt.Sprintf("process %d on ", os.Getpid())} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("%q is not in %v", words, err)
		}
	}
	if waited := time.Since(start); waited > 2*defaultLockWait {
		t.Errorf("waited %s", waited)
	}
	must(t, s.SetConnector(Connector{State: "SCHEDULED"})) // the holder goes on
	must(t, s.Close())
	if left, err := filepath.Glob(holderOf(filepath.Join(dir, fileName))); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLockedByAnotherProcess also shows that the lock ends with its holder.
func TestLockedByAnotherProcess(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_HOLD"); dir != "" {
		if _, err := unsynced.Open(dir); err != nil {
			t.Fatal(err)
		}
		fmt.Println("held")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0) // without closing
	}
	t.Parallel()
	dir := t.TempDir()
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockedByAnotherProcess$")
	holder.Env = append(os.Environ(), "STATE_TEST_HOLD="+dir)
	stdin, _ := holder.StdinPipe()
	stdout, _ := holder.StdoutPipe()
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if _, err := unsynced.Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	stdin.Close()
	if err := holder.Wait(); err != nil {
		t.Error(err)
	}
	openStore(t, dir)
}

// TestOneOfTwo: of two that open a directory at the same moment one gets it, also
// while it sets a damaged file aside, or writes a large one anew, and the other never
// gets the file that has lost its name by that.
func TestOneOfTwo(t *testing.T) {
	damaged := func(t *testing.T, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("x", 1<<20)), 0o600))
	}
	mostlyFree := func(t *testing.T, dir string) {
		s := openStore(t, dir)
		for n := range 12 {
			must(t, send(s, objects(n*20_000, (n+1)*20_000, 1)))
		}
		must(t, s.Retarget("another"))
		must(t, s.Close())
		if info := result(os.Stat(filepath.Join(dir, fileName)))(t); info.Size() < compactAbove {
			t.Fatalf("%d bytes will not be compacted", info.Size())
		}
	}
	for name, prepare := range map[string]func(*testing.T, string){"damaged": damaged, "mostly free": mostlyFree, "new": func(*testing.T, string) {}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			prepare(t, dir)
			var opening sync.WaitGroup
			stores, errs := make([]*Store, 2), make([]error, 2)
			for n := range stores {
				opening.Go(func() { stores[n], errs[n] = unsynced.Open(dir) })
			}
			opening.Wait()
			for _, s := range stores {
				if s != nil {
					defer s.Close()
				}
			}
			if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), ErrLocked) {
				t.Errorf("errors %v", errs)
			}
		})
	}
}

// TestLockComesFirst: whoever does not get the lock does not touch the file, not even
// while it has no name.
func TestLockComesFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	held := result(hold(path, unsynced.lockWait()))(t)
	if _, err := unsynced.Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file: %v", err)
	}
	must(t, held.Close())
	openStore(t, dir)
}

// TestLockIsLast: the lock is held until the file is closed, and its own file stays:
// whoever waits for it would get that of a file that has lost its name.
func TestLockIsLast(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	s := openStore(t, dir)
	look := result(s.db.Begin(false))(t) // the closing waits for it
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	if _, err := hold(path, unsynced.lockWait()); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	must(t, look.Rollback())
	must(t, <-closed)
	if _, err := os.Stat(lockOf(path)); err != nil {
		t.Error(err)
	}
	openStore(t, dir)
}
