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

// errReadOnly is the cause of a write to a file that is open for reading.
var errReadOnly = errors.New("it is open for reading only")

// The remedies.
const (
	remedySpace   = "free or add space; nothing is lost, the next run repeats the work"
	remedyDamaged = "let the next run set the file aside and send everything again, or put a copy of the file back"
	remedyDir     = "set service.state-dir to a directory that can be created and written"
	remedyDisk    = "check the disk of the state file"
)

// explain returns the error of an operation on the open file.
func (s *Store) explain(op string, err error) error {
	file := fault.Operation{Op: op, Object: "state file " + s.path}
	switch {
	case err == nil || errors.Is(err, ErrUnusable):
		return err
	case isFull(err):
		return file.Failed(fault.Transient, err, remedySpace)
	case errors.Is(err, ErrDamaged):
		return file.Failed(fault.Transient, err, remedyDamaged)
	case errors.Is(err, errReadOnly):
		return file.Failed(fault.Transient, err, "")
	default:
		return file.Failed(fault.Transient, err, remedyDisk)
	}
}

// lockedError is ErrLocked with its holder: a process, a host and a time.
type lockedError struct{ holder string }

func (e *lockedError) Error() string { return fmt.Sprintf("%v (%s)", ErrLocked, e.holder) }

func (e *lockedError) Unwrap() error { return ErrLocked }

// explainOpen returns the error of opening the file.
func explainOpen(path string, err error) error {
	open := fault.Operation{Op: "open", Object: "state file " + path}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		holder, err := os.ReadFile(holderOf(path))
		if err != nil { // a reader leaves no name
			holder = []byte("another process, perhaps sync --dry-run or status, which end soon")
		}
		lock := fault.Operation{Op: "lock", Object: "state directory " + filepath.Dir(path)}
		return lock.Failed(fault.Locked, &lockedError{string(holder)}, "stop the other instance, or give this one its own service.state-dir")
	case errors.Is(err, ErrDamaged):
		return open.Failed(fault.Transient, err, remedyDamaged)
	case !isSystem(err): // bbolt describes what is in the file
		return open.Failed(fault.Transient, fmt.Errorf("%w: %w", ErrDamaged, err), remedyDamaged)
	default:
		return explainDir(path, err)
	}
}

// isSystem reports whether the error is the operating system's: the file is not at fault.
func isSystem(err error) bool {
	var path *fs.PathError
	var call *os.SyscallError
	var number syscall.Errno
	return errors.As(err, &path) || errors.As(err, &call) || errors.As(err, &number)
}

// nearest returns path, or its nearest parent where it does not exist: what a person can
// make writable.
func nearest(path string) (place string, info fs.FileInfo, err error) {
	for place = path; ; place = filepath.Dir(place) {
		info, err = os.Stat(place)
		if !errors.Is(err, fs.ErrNotExist) || place == filepath.Dir(place) {
			return place, info, err
		}
	}
}

// explainDir returns the error of a file that cannot be written, or of its directory.
func explainDir(path string, err error) error { return explainAccess(path, err, "writable") }

// explainAccess returns the error of a file that must be readable or writable, or of its
// directory.
func explainAccess(path string, err error, needed string) error {
	open := fault.Operation{Op: "open", Object: "state file " + path}
	unusable := fmt.Errorf("%w: %w", ErrUnusable, err)
	switch {
	case isFull(err):
		return open.Failed(fault.Transient, err, remedySpace)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		place := filepath.Dir(path)
		if refused, is := errors.AsType[*fs.PathError](err); is && !errors.Is(err, syscall.EROFS) {
			place = refused.Path
		}
		place, _, _ = nearest(place)
		return open.Failed(fault.Invalid, unusable, fmt.Sprintf("make %s %s for user %d, or set service.state-dir", place, needed, os.Getuid()))
	default:
		return open.Failed(fault.Invalid, unusable, remedyDir)
	}
}
