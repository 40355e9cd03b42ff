package state

import (
	"cmp"
	"time"

	"go.etcd.io/bbolt"
)

// Options say how to open a state file. The zero value is what [Open] and
// [OpenReadOnly] use; everything else is for tests.
type Options struct {
	// LockWait is how long to wait for a lock that another process holds; 0 means
	// two seconds, because a process that ends may hold the lock a moment longer.
	LockWait time.Duration
	// NoSync leaves it to the operating system when to write to the disk. What was
	// written outlives the process, but not a power cut.
	NoSync bool
}

const defaultLockWait = 2 * time.Second

func (o Options) lockWait() time.Duration { return cmp.Or(o.LockWait, defaultLockWait) }

// bolt returns the options of bbolt.
func (o Options) bolt() *bbolt.Options {
	return &bbolt.Options{Timeout: o.lockWait(), NoSync: o.NoSync, NoGrowSync: o.NoSync}
}

// syncDir is syncDir unless NoSync is set.
func (o Options) syncDir(dir string) error {
	if o.NoSync {
		return nil
	}
	return syncDir(dir)
}
