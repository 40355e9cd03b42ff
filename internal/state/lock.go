package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"

	"adconnector/internal/fault"
)

// bbolt locks the file that it opens. That lock is not sufficient when the file is renamed
// or compacted: a waiting process would get the lock of a file that no longer has the
// name, and two processes would continue. A writer therefore first locks a separate
// file, which is never removed.

// lockPath returns the path of the file that a writer locks.
func lockPath(path string) string { return path + ".lock" }

// holderPath returns the path of the file that describes the holder of the lock.
func holderPath(path string) string { return path + ".holder" }

// newHolderPath returns the path under which the file of holderPath is written.
func newHolderPath(path string) string { return holderPath(path) + ".new" }

// maxHolderSize limits how many bytes of the file of holderPath an error text contains.
const maxHolderSize = 512

// lockRetryInterval is the time between two attempts to lock.
const lockRetryInterval = 20 * time.Millisecond

// acquireLock locks the lock file and returns it. Closing the file, or the end of the
// process, releases the lock.
func acquireLock(path string, wait time.Duration) (*os.File, error) {
	file, err := openFile(lockPath(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, dirError(path, err)
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(lockRetryInterval) {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			err = os.NewSyscallError("flock "+file.Name(), err)
			break
		}
		if time.Now().After(deadline) {
			err = bolterrors.ErrTimeout
			break
		}
	}
	_ = file.Close()
	return nil, openError(path, err)
}

// CheckRemoved returns an error of class fault.Transient that is ErrRemoved if the file or its lock no
// longer has its name. Open then opens a new file, unless another process already has. It returns nil
// for a file that was opened for reading.
func (s *Store) CheckRemoved() error {
	if s.lockFile == nil {
		return nil
	}
	lock, err := s.lockFile.Stat()
	if err != nil {
		return s.operationError("check", err)
	}
	for _, file := range []struct {
		path   string
		opened fs.FileInfo
	}{{s.path, s.opened}, {lockPath(s.path), lock}} {
		current, err := os.Lstat(file.path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(current, file.opened) {
			return fault.Operation{Op: "check", Object: "state file " + file.path}.Failed(fault.Transient, ErrRemoved, remedyRemoved)
		}
	}
	return nil
}

// writeHolder writes the description of the holder for the errors of other processes.
func (s *Store) writeHolder() {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	text := fmt.Sprintf("process %d on %s since %s", os.Getpid(), host, time.Now().UTC().Format(time.RFC3339))
	_ = replaceFile(holderPath(s.path), newHolderPath(s.path), []byte(text), nil) // only improves an error text
}
