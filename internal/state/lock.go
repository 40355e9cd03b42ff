package state

import (
	"errors"
	"os"
	"syscall"
	"time"

	bolterrors "go.etcd.io/bbolt/errors"
)

// bbolt locks the very file that it opens. That does not do while the file is set
// aside or compacted: who waits for the lock gets that of a file that has lost its
// name, and two processes would go on. So who writes holds a file beside it first, which
// is never removed.

// lockOf is the file that is held by whoever writes the state file.
func lockOf(path string) string { return path + ".lock" }

// lockEvery is how often a lock is tried that somebody else has.
const lockEvery = 20 * time.Millisecond

// hold waits for the lock and takes it. It ends when the file is closed, or the
// process ends.
func hold(path string, wait time.Duration) (*os.File, error) {
	file, err := os.OpenFile(lockOf(path), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, explainDir(path, err)
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(lockEvery) {
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
	return nil, explainOpen(path, err)
}
