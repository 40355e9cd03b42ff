package state

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// isHeldByUs reports whether an error names this process as the one that holds a lock.
func isHeldByUs(err error) bool {
	locked, is := errors.AsType[*lockedError](err)
	return is && strings.HasPrefix(locked.holder, fmt.Sprintf("process %d on ", os.Getpid()))
}

// TestLocked: to open a directory that another process holds waits for the default time,
// and returns an error that names the holder.
func TestLocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir)
		start := time.Now()
		_, err := Open(dir)
		faulttest.Check(t, err, fault.Error{Class: fault.Locked, Op: "lock", Object: "state directory " + dir}, ErrLocked, "service.state-dir")
		if !isHeldByUs(err) {
			t.Errorf("the holder is not in %v", err)
		}
		if waited := time.Since(start); waited < defaultLockWait || waited > defaultLockWait+2*lockEvery {
			t.Errorf("waited %s", waited)
		}
		must(t, s.SetConnector(Connector{State: "SCHEDULED"})) // the holder goes on
		must(t, s.Close())
		if _, err := os.Stat(holderOf(filepath.Join(dir, fileName))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the holder's name is left behind: %v", err)
		}
	})
}

// TestLockIsReleased: who waits for the lock gets it once its holder is closed.
func TestLockIsReleased(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir)
		opened := make(chan error)
		go func() {
			next, err := unsynced.Open(dir)
			if err == nil {
				err = next.Close()
			}
			opened <- err
		}()
		synctest.Wait() // until it waits for the lock
		must(t, s.Close())
		must(t, <-opened)
	})
}

// TestLockedByAnotherProcess also shows that the lock ends with its holder, even one
// that is killed. It is not parallel: until a new process runs its program, it holds
// copies of this one's locks.
func TestLockedByAnotherProcess(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_HOLD"); dir != "" {
		if _, err := unsynced.Open(dir); err != nil {
			t.Fatal(err)
		}
		fmt.Println("held")
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	dir := t.TempDir()
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockedByAnotherProcess$")
	holder.Env = append(os.Environ(), "STATE_TEST_HOLD="+dir)
	_ = result(holder.StdinPipe())(t) // stays open
	stdout := result(holder.StdoutPipe())(t)
	must(t, holder.Start())
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "held\n" {
		t.Fatalf("the holder wrote %q, %v", line, err)
	}
	if _, err := tryOnce.Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	must(t, holder.Process.Kill())
	if err := holder.Wait(); holder.ProcessState == nil {
		t.Fatal(err)
	}
	openStore(t, dir)
}

// TestOneOfTwo: of two that open a directory at the same moment one gets it, also
// while it sets a damaged file aside, or compacts a large one, and the other never
// gets the file that has lost its name by that.
func TestOneOfTwo(t *testing.T) {
	t.Parallel()
	// The loser looks for the lock again and again while the winner works.
	options := Options{NoSync: true, LockWait: 5 * lockEvery, compactAbove: 1 << 20}
	for name, prepare := range map[string]func(*testing.T, string){
		"new": func(*testing.T, string) {},
		"damaged": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("x", 1<<20)), 0o600))
		},
		"mostly free": func(t *testing.T, dir string) {
			s := openStore(t, dir)
			must(t, send(s, objects(0, 10_000, 1)))
			must(t, s.ChangeTarget("another"))
			must(t, s.Close())
			if info := result(os.Stat(filepath.Join(dir, fileName)))(t); info.Size() < options.compactAbove {
				t.Fatalf("%d bytes will not be compacted", info.Size())
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			prepare(t, dir)
			var opening sync.WaitGroup
			stores, errs := make([]*Store, 2), make([]error, 2)
			for n := range stores {
				opening.Go(func() { stores[n], errs[n] = options.Open(dir) })
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
	if _, err := tryOnce.Open(dir); !errors.Is(err, ErrLocked) {
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
	const several = 10 * lockEvery // for the closing to go as far as it does
	if _, err := hold(path, several); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	must(t, look.Rollback())
	must(t, <-closed)
	if _, err := os.Stat(lockOf(path)); err != nil {
		t.Error(err)
	}
	openStore(t, dir)
}
