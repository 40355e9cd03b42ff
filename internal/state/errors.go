package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	bolterrors "go.etcd.io/bbolt/errors"

	"adconnector/internal/fault"
)

// isFull reports whether there is no room: on the disk, in a quota, or under a limit
// on the size of files. Of some errors bbolt keeps no more than the text.
func isFull(err error) bool {
	for _, full := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, full) || err != nil && strings.HasSuffix(err.Error(), full.Error()) {
			return true
		}
	}
	return false
}

func (s *Store) explain(what string, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrUnusable):
		return err
	case isFull(err):
		return fault.Errorf(fault.Transient, "state file %s: %s: %w: free or add space; nothing was lost, the next run repeats it", s.path, what, err)
	case errors.Is(err, ErrDamaged) && s.IsReadOnly():
		return fault.Errorf(fault.Transient, "state file %s: %s: %w: the next run sets the file aside, and sends everything anew", s.path, what, err)
	case errors.Is(err, ErrDamaged):
		return fault.Errorf(fault.Transient, "state file %s: %s: %w: the file is set aside, and the next run sends everything anew", s.path, what, err)
	default:
		return fault.Errorf(fault.Transient, "state file %s: %s: %w: check the disk that it lies on", s.path, what, err)
	}
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		holder, err := os.ReadFile(holderOf(path))
		if err != nil { // who only looks leaves no name
			holder = []byte("another process, perhaps a sync --dry-run or a status that reads it and is soon done")
		}
		return fmt.Errorf("%w %s (%s): stop the other one, or give this one its own service.state-dir", ErrLocked, filepath.Dir(path), holder)
	case errors.Is(err, ErrDamaged):
		return err
	case !isOfPlace(err): // bbolt's own words on what is in the file
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		return explainDir(err)
	}
}

// isOfPlace reports whether the operating system says it: the file is not at fault.
func isOfPlace(err error) bool {
	var path *fs.PathError
	var call *os.SyscallError
	var number syscall.Errno
	return errors.As(err, &path) || errors.As(err, &call) || errors.As(err, &number)
}

// explainDir tells what is wrong with the place of the file.
func explainDir(err error) error { return explainPlace(err, "writable") }

// explainPlace is explainDir for who needs it to be writable, or readable.
func explainPlace(err error, needed string) error {
	switch {
	case isFull(err):
		return fault.Errorf(fault.Transient, "open state file: %w: free or add space", err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w: make it %s for user %d, or set service.state-dir", ErrUnusable, err, needed, os.Getuid())
	default:
		return fmt.Errorf("%w: %w: set service.state-dir to a directory that can be made and written", ErrUnusable, err)
	}
}
