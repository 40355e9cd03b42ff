package state

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// isHeldByUs reports whether an error names this process as the holder of the lock.
func isHeldByUs(err error) bool {
	locked, is := errors.AsType[*lockedError](err)
	return is && strings.HasPrefix(locked.holder, fmt.Sprintf("process %d on ", os.Getpid()))
}

// TestLocked checks that Open waits for the default time for a lock, and then returns an
// error that names the holder.
func TestLocked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, dir)
		start := time.Now()
		_, err := Options{}.Open(dir)
		faulttest.Check(t, err, fault.Error{Class: fault.Locked, Op: "lock", Object: "state directory " + dir}, ErrLocked, "service.state-dir")
		if !isHeldByUs(err) {
			t.Errorf("error without the holder: %v", err)
		}
		if waited := time.Since(start); waited < defaultLockWait || waited > defaultLockWait+2*lockRetryInterval {
			t.Errorf("waited %s", waited)
		}
		must(t, s.SetConnector(Connector{State: "SCHEDULED"})) // the holder is not affected
		must(t, s.Close())
		if _, err := os.Stat(holderPath(filepath.Join(dir, fileName))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("holder file not removed: %v", err)
		}
	})
}

// TestLockIsReleased checks that a waiting Open gets the lock when the holder closes.
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

// TestLockedByAnotherProcess also checks that killing the holder releases the lock. It is not
// parallel: between fork and exec, a new process holds copies of the locks of this process.
func TestLockedByAnotherProcess(t *testing.T) {
	if dir := os.Getenv("STATE_TEST_LOCK"); dir != "" {
		if _, err := unsynced.Open(dir); err != nil {
			t.Fatal(err)
		}
		fmt.Println("locked")
		_, _ = os.Stdin.Read(make([]byte, 1))
		return
	}
	dir := t.TempDir()
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLockedByAnotherProcess$")
	holder.Env = append(os.Environ(), "STATE_TEST_LOCK="+dir)
	_ = result(holder.StdinPipe())(t) // stays open
	stdout := result(holder.StdoutPipe())(t)
	must(t, holder.Start())
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "locked\n" {
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

// TestConcurrentOpen checks that only one of two concurrent calls of Open succeeds, also
// while it sets a damaged file aside or compacts a large one.
func TestConcurrentOpen(t *testing.T) {
	t.Parallel()
	// One call retries the lock several times while the other opens the file.
	options := Options{NoSync: true, LockWait: 5 * lockRetryInterval, compactAbove: 1 << 20}
	for name, prepare := range map[string]func(*testing.T, string){
		"new": func(*testing.T, string) {},
		"damaged": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("x", 1<<20)), 0o600))
		},
		"mostly free": func(t *testing.T, dir string) {
			s := openStore(t, dir)
			must(t, send(s, objects(0, 20_000, 1)))
			must(t, s.ChangeTarget("another"))
			must(t, s.Close())
			if info := result(os.Stat(filepath.Join(dir, fileName)))(t); info.Size() < options.compactAbove {
				t.Fatalf("file size %d is too small for compaction", info.Size())
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

// TestLockBeforeOpen checks that Open does not create the file without the lock.
func TestLockBeforeOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	held := result(acquireLock(path, unsynced.lockWait()))(t)
	if _, err := tryOnce.Open(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state file: %v", err)
	}
	must(t, held.Close())
	openStore(t, dir)
}

// TestUnlockAfterClose checks that the lock is held until the file is closed, and that the
// lock file is not removed.
func TestUnlockAfterClose(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	s := openStore(t, dir)
	reading := result(s.db.Begin(false))(t) // Close waits for this transaction
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	const several = 10 * lockRetryInterval // until Close blocks
	if _, err := acquireLock(path, several); !errors.Is(err, ErrLocked) {
		t.Errorf("error %v", err)
	}
	must(t, reading.Rollback())
	must(t, <-closed)
	if _, err := os.Stat(lockPath(path)); err != nil {
		t.Error(err)
	}
	openStore(t, dir)
}

// TestCheckRemoved checks that the loss of each name is detected, but not what Open and the program
// itself do with the files.
func TestCheckRemoved(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		change  func(t *testing.T, path string)
		removed bool
	}{
		{"unchanged", func(*testing.T, string) {}, false},
		{"state file removed", func(t *testing.T, path string) { must(t, os.Remove(path)) }, true},
		{"state file replaced", func(t *testing.T, path string) {
			must(t, os.WriteFile(path+".copy", nil, 0o600))
			must(t, os.Rename(path+".copy", path))
		}, true},
		{"lock removed", func(t *testing.T, path string) { must(t, os.Remove(lockPath(path))) }, true},
		{"holder removed", func(t *testing.T, path string) { must(t, os.Remove(holderPath(path))) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openStore(t, dir)
			must(t, s.SetConnector(Connector{State: "SCHEDULED"}))
			test.change(t, filepath.Join(dir, fileName))
			if err := s.CheckRemoved(); errors.Is(err, ErrRemoved) != test.removed || !test.removed && err != nil {
				t.Errorf("%v", err)
			}
		})
	}
	t.Run("read-only", func(t *testing.T) {
		dir := t.TempDir()
		must(t, openStore(t, dir).Close())
		s, err := unsynced.OpenReadOnly(dir)
		must(t, err)
		defer s.Close()
		must(t, os.RemoveAll(dir))
		must(t, s.CheckRemoved())
	})
}

// TestUnsupportedFileSystem checks the errors of system calls that some file systems lack.
func TestUnsupportedFileSystem(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	for _, number := range []syscall.Errno{syscall.ENOLCK, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ENODEV, syscall.EINVAL} {
		err := openError(path, os.NewSyscallError("flock", number))
		faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, "service.state-dir", "local file system")
	}
	for number, remedy := range map[syscall.Errno]string{syscall.EIO: "disk", syscall.EMFILE: "ulimit -n", syscall.ENFILE: "ulimit -n"} {
		err := openError(path, &fs.PathError{Op: "open", Path: path, Err: number})
		faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "open", Object: "state file " + path}, number, remedy)
	}
}
