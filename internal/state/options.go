package state

import (
	"cmp"
	"errors"
	"os"
	"time"

	"go.etcd.io/bbolt"
)

// Options configure how a state file is opened. [Open] and [OpenReadOnly] use the zero
// value. Only tests use other values.
type Options struct {
	// LockWait is the maximum time to wait for a lock. 0 means two seconds: a terminating
	// process may hold the lock for a moment.
	LockWait time.Duration
	// NoSync disables syncs to the disk. Committed data then survives the end of the
	// process, but not a power failure.
	NoSync bool

	// compactAbove is the minimum size in bytes of a file that is compacted. 0 means 32 MiB.
	compactAbove int64
}

const (
	defaultLockWait     = 2 * time.Second
	defaultCompactAbove = 32 << 20
)

func (o Options) lockWait() time.Duration { return cmp.Or(o.LockWait, defaultLockWait) }

func (o Options) bolt() *bbolt.Options {
	return &bbolt.Options{Timeout: o.lockWait(), NoSync: o.NoSync, NoGrowSync: o.NoSync}
}

// syncDir syncs a directory unless NoSync is set. Otherwise, a new or renamed file may be
// missing after a power failure, even if its content was synced.
func (o Options) syncDir(dir string) error {
	if o.NoSync {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
