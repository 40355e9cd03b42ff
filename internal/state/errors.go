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

var (
	// ErrLocked means that another process has opened the file.
	ErrLocked = errors.New("another instance holds the state directory")
	// ErrUnusable means that the directory or the file cannot be used without intervention.
	ErrUnusable = errors.New("unusable state directory")
	// ErrDamaged means that the content of the file is corrupt. Open sets such a file aside.
	ErrDamaged = errors.New("damaged")

	// ErrRemoved means that the open file, or its lock, no longer has its name. Its content ends with
	// this process, and another process can open a new file at the same time.
	ErrRemoved = errors.New("removed or replaced while it was open")

	// errReadOnly is the cause of an error of a write to a file that is open for reading.
	errReadOnly = errors.New("opened read-only")
)

// The remedies.
const (
	remedySpace   = "free or add space; nothing is lost, the next run repeats the work"
	remedyDamaged = "let the next run set the file aside and send everything again, or restore a copy of the file"
	remedyDir     = "set service.state-dir to a directory that can be created and written"
	remedyDisk    = "check the disk of the state file"
	remedyRemoved = "stop the process before you remove or replace files of the state directory"
	remedyLocal   = "set service.state-dir to a local file system, or to one that locks files and maps them into memory (not NFS without a lock service, and not a folder that a virtual machine shares with its host)"
)

// isNoSpace reports whether the cause is lack of space: on the disk, in a quota, or under a
// file size limit. bbolt returns some errors as text only.
func isNoSpace(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, errno) || err != nil && strings.HasSuffix(err.Error(), errno.Error()) {
			return true
		}
	}
	return false
}

// isUnsupported reports whether a file system lacks what the state file needs: locks, mapping into
// memory, or syncs to the disk.
func isUnsupported(err error) bool {
	for _, errno := range []syscall.Errno{syscall.ENOLCK, syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ENODEV, syscall.EINVAL} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// operationError returns the error of an operation on the open file. An error that names its own
// operation, such as that of the generation file, stays as it is.
func (s *Store) operationError(op string, err error) error {
	if failed, is := errors.AsType[*fault.Error](err); err == nil || errors.Is(err, ErrUnusable) || is && failed.Op != "" {
		return err
	}
	operation := fault.Operation{Op: op, Object: "state file " + s.path}
	switch {
	case isNoSpace(err):
		return operation.Failed(fault.Transient, err, remedySpace)
	case errors.Is(err, ErrDamaged):
		return operation.Failed(fault.Transient, err, remedyDamaged)
	case fault.TooManyFiles(err):
		return operation.Failed(fault.Transient, err, fault.RemedyOpenFiles)
	case isUnsupported(err):
		return operation.Failed(fault.Invalid, fmt.Errorf("%w: %w", ErrUnusable, err), remedyLocal)
	case errors.Is(err, errReadOnly):
		return operation.Failed(fault.Transient, err, "")
	default:
		return operation.Failed(fault.Transient, err, remedyDisk)
	}
}

// lockedError is ErrLocked with a description of the holder.
type lockedError struct{ holder string }

func (e *lockedError) Error() string { return fmt.Sprintf("%v (%s)", ErrLocked, e.holder) }

func (e *lockedError) Unwrap() error { return ErrLocked }

// openError returns the error of opening the file.
func openError(path string, err error) error {
	open := fault.Operation{Op: "open", Object: "state file " + path}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		holder, err := readSmallFile(holderPath(path), maxHolderSize)
		if err != nil { // a reader does not write a holder file
			holder = []byte("another process, perhaps a short sync --dry-run or status")
		}
		lock := fault.Operation{Op: "lock", Object: "state directory " + filepath.Dir(path)}
		return lock.Failed(fault.Locked, &lockedError{string(holder)}, "stop the other instance, or set another service.state-dir for this one")
	case errors.Is(err, ErrDamaged):
		return open.Failed(fault.Transient, err, remedyDamaged)
	case !isSystemError(err): // other errors of bbolt describe the content of the file
		return open.Failed(fault.Transient, fmt.Errorf("%w: %w", ErrDamaged, err), remedyDamaged)
	default:
		return dirError(path, err)
	}
}

// isSystemError reports whether the operating system returned the error.
func isSystemError(err error) bool {
	var path *fs.PathError
	var call *os.SyscallError
	var number syscall.Errno
	return errors.As(err, &path) || errors.As(err, &call) || errors.As(err, &number)
}

// CheckDir returns the error with which Open would fail to create or write its file in
// dir, or nil. It changes nothing and does not read the file.
func CheckDir(dir string) error {
	file := filepath.Join(dir, fileName)
	existing, info, err := nearestExisting(dir)
	switch {
	case err != nil:
		return dirError(file, err)
	case !info.IsDir():
		return dirError(file, &fs.PathError{Op: "stat", Path: existing, Err: syscall.ENOTDIR})
	}
	const write, search = 0o2, 0o1 // W_OK and X_OK of access(2)
	if err := syscall.Access(existing, write|search); err != nil {
		return dirError(file, &fs.PathError{Op: "write to", Path: existing, Err: err})
	}
	if err := syscall.Access(file, write); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return dirError(file, &fs.PathError{Op: "write to", Path: file, Err: err})
	}
	if err := checkFiles(file); err != nil {
		return dirError(file, err)
	}
	return nil
}

// nearestExisting returns path or its nearest existing parent, whose permissions an
// operator can change.
func nearestExisting(path string) (existing string, info fs.FileInfo, err error) {
	for existing = path; ; existing = filepath.Dir(existing) {
		info, err = os.Stat(existing)
		if !errors.Is(err, fs.ErrNotExist) || existing == filepath.Dir(existing) {
			return existing, info, err
		}
	}
}

// nearestVisible returns path or its nearest parent that this user can see. What is in a directory
// without the right to search it is not visible.
func nearestVisible(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// refusedRemedy returns the remedy for a file that checkFile refuses.
func refusedRemedy(err error, path string) string {
	if errors.Is(err, errHardLink) { // both names are the same file, which can be the index
		return fmt.Sprintf("remove the other link of %[1]s, or replace the file by a copy of itself (cp -p %[1]s %[1]s.new && mv %[1]s.new %[1]s); do not remove the state file", path)
	}
	return "find out who created " + path + " and remove it; to keep the state elsewhere, set service.state-dir"
}

// CheckSpace returns the error with which a run would fail to write a few pages to dir, or nil. It
// writes and syncs a temporary file in dir, or in its nearest existing parent, and removes it.
func (o Options) CheckSpace(dir string) error {
	existing, _, err := nearestExisting(dir)
	if err != nil {
		return dirError(filepath.Join(dir, fileName), err)
	}
	path := filepath.Join(existing, checkName)
	if err := o.writeTemporary(path); err != nil {
		return writeError("write to", "state directory "+existing, path, err)
	}
	return nil
}

// dirError returns the error of a file or directory that cannot be written.
func dirError(path string, err error) error { return accessError(path, err, "writable") }

// writeError returns the error of writing a file. It has no path, because the operation has it.
func writeError(op, object, path string, err error) error {
	if failed, is := errors.AsType[*fs.PathError](err); is && !isRefusedFile(err) {
		err = failed.Err
	} else if failed, is := errors.AsType[*os.LinkError](err); is {
		err = failed.Err
	}
	return classify(fault.Operation{Op: op, Object: object}, path, err, "writable")
}

// accessError returns the error of a file or directory that is not readable or writable.
func accessError(path string, err error, required string) error {
	return classify(fault.Operation{Op: "open", Object: "state file " + path}, path, err, required)
}

// classify returns the error of an operation on a file that is not readable or writable, with its class
// and remedy.
func classify(operation fault.Operation, path string, err error, required string) error {
	unusable := fmt.Errorf("%w: %w", ErrUnusable, err)
	switch {
	case isNoSpace(err):
		return operation.Failed(fault.Transient, err, remedySpace)
	case isRefusedFile(err):
		refused := path
		if pathError, is := errors.AsType[*fs.PathError](err); is {
			refused = pathError.Path
		}
		return operation.Failed(fault.Invalid, unusable, refusedRemedy(err, refused))
	case fault.TooManyFiles(err):
		return operation.Failed(fault.Transient, err, fault.RemedyOpenFiles)
	case errors.Is(err, syscall.EIO):
		return operation.Failed(fault.Transient, err, remedyDisk)
	case isUnsupported(err):
		return operation.Failed(fault.Invalid, unusable, remedyLocal)
	case errors.Is(err, syscall.EROFS):
		return operation.Failed(fault.Invalid, unusable, fmt.Sprintf("mount the file system of %s writable, or set service.state-dir", nearestVisible(filepath.Dir(path))))
	case errors.Is(err, fs.ErrPermission):
		existing := filepath.Dir(path)
		if denied, is := errors.AsType[*fs.PathError](err); is {
			existing = denied.Path
		}
		existing = nearestVisible(existing)
		return operation.Failed(fault.Invalid, unusable, fmt.Sprintf("make %s %s for user %d, or set service.state-dir", existing, required, os.Getuid()))
	default:
		return operation.Failed(fault.Invalid, unusable, remedyDir)
	}
}
