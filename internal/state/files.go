package state

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"adconnector/internal/fault"
)

// Others may be able to create files in the state directory, as in a volume that several
// users share. A symbolic or hard link there must not make this process read, overwrite or
// truncate a file elsewhere. So every file is opened without following links, is used only
// if it is a regular file with one name, and is created under a new name.
//
// The path of the directory itself may contain symbolic links: systemd's DynamicUser= makes
// /var/lib/adconnector one.

// The reasons to refuse a file in the state directory.
var (
	errSymbolicLink = errors.New("is a symbolic link")
	errHardLink     = errors.New("has more than one hard link")
	errNotRegular   = errors.New("is not a regular file")
)

// isRefusedFile reports whether the cause is a file that checkFile refuses.
func isRefusedFile(err error) bool {
	return errors.Is(err, errSymbolicLink) || errors.Is(err, errHardLink) || errors.Is(err, errNotRegular)
}

// checkFile returns an error unless info describes a regular file with one hard link. Files
// of other owners are accepted: network file systems, user namespaces and volumes that a
// pod with another user ID wrote show such owners. [SharedAccess] reports them.
func checkFile(path string, info fs.FileInfo) error {
	var reason error
	switch stat, is := info.Sys().(*syscall.Stat_t); {
	case info.Mode()&fs.ModeSymlink != 0:
		reason = errSymbolicLink
	case !info.Mode().IsRegular():
		reason = errNotRegular
	case is && stat.Nlink > 1:
		reason = errHardLink
	default:
		return nil
	}
	return &fs.PathError{Op: "open", Path: path, Err: reason}
}

// checkFiles returns an error if a file of the state directory exists and cannot be used.
func checkFiles(path string) error {
	for _, name := range []string{path, lockPath(path), holderPath(path), newHolderPath(path), compactPath(path), generationPath(path), newGenerationPath(path)} {
		info, err := os.Lstat(name)
		if err != nil {
			continue // the operation that needs the file returns the error
		}
		if err := checkFile(name, info); err != nil {
			return err
		}
	}
	return nil
}

// openFile opens a file of the state directory. It does not follow a symbolic link, and
// returns an error for files that [checkFile] refuses. A file that it creates gets the owner of the
// directory: see [InheritOwner]. It has the signature of [bbolt.Options.OpenFile].
func openFile(path string, flags int, mode fs.FileMode) (*os.File, error) {
	if flags&os.O_CREATE == 0 {
		return openRegular(path, flags, mode)
	}
	if flags&os.O_EXCL == 0 { // O_EXCL shows whether this process creates the file
		file, err := openRegular(path, flags&^os.O_CREATE, mode)
		if !errors.Is(err, fs.ErrNotExist) {
			return file, err
		}
	}
	file, err := openRegular(path, flags|os.O_EXCL, mode)
	switch {
	case err == nil:
		inheritOwner(file, path)
	case errors.Is(err, fs.ErrExist) && flags&os.O_EXCL == 0: // another process was faster
		return openRegular(path, flags&^os.O_CREATE, mode)
	}
	return file, err
}

// openRegular is openFile without the change of the owner.
func openRegular(path string, flags int, mode fs.FileMode) (*os.File, error) {
	// O_NONBLOCK: opening a named pipe must not wait for its other end. Regular files ignore it.
	file, err := os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, mode)
	if err != nil {
		if info, statErr := os.Lstat(path); statErr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return nil, checkFile(path, info) // instead of ELOOP
		}
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = checkFile(path, info)
	}
	if err != nil {
		_ = file.Close() // err is more relevant
		return nil, err
	}
	return file, nil
}

// createFile is like openFile, but fails if the file exists.
func createFile(path string, flags int, mode fs.FileMode) (*os.File, error) {
	return openFile(path, flags|os.O_CREATE|os.O_EXCL, mode)
}

// readSmallFile returns the first bytes of a file, at most limit.
func readSmallFile(path string, limit int64) ([]byte, error) {
	file, err := openFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, limit))
}

// replaceFile writes a small file. Readers see the old or the new content. With sync, which syncs
// the new content, that also applies after a power failure; nil: without a sync. The caller holds
// the lock, so that temporary can be a fixed name.
func replaceFile(path, temporary string, content []byte, sync func(*os.File) error) error {
	if err := os.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := createFile(temporary, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil && sync != nil {
		err = sync(file)
	}
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = os.Remove(temporary)
	}
	return err
}

const (
	// checkName is the name of the temporary file of CheckSpace.
	checkName = "adconnector.check"
	// checkSize is its size in bytes: a new state file and the files beside it need about as much.
	checkSize = 64 << 10
)

// writeTemporary writes and syncs a file of checkSize bytes, and removes it.
func (o Options) writeTemporary(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a killed process
		return err
	}
	file, err := createFile(path, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	content := make([]byte, checkSize)
	_, _ = rand.Read(content) // so that it is not compressed; never fails
	_, err = file.Write(content)
	if err == nil {
		err = o.sync(file)
	}
	return errors.Join(err, file.Close(), os.Remove(path))
}

// unusedPath returns path, or path with the first suffix that makes a name that does not
// exist.
func unusedPath(path string) string {
	unused := path
	for n := 2; ; n++ {
		if _, err := os.Lstat(unused); err != nil {
			return unused
		}
		unused = fmt.Sprintf("%s-%d", path, n)
	}
}

// errShared is the cause of a state directory that other users can change.
var errShared = errors.New("other users can change it")

const othersCanWrite = 0o022 // group and others

// SharedAccess returns an error if users other than this one and root can change the state
// directory or the state file, as far as modes and owners show. It is a warning: shared
// volumes, such as a Kubernetes volume with fsGroup, are group-writable by design. Who can
// write the state can make the connector omit objects or send all again.
func SharedAccess(dir string) error {
	for _, path := range []string{dir, filepath.Join(dir, fileName)} {
		info, err := os.Stat(path)
		if err != nil {
			continue // Open returns the error
		}
		stat, is := info.Sys().(*syscall.Stat_t)
		shared := fault.Operation{Op: "check", Object: path}
		switch {
		case info.Mode().Perm()&othersCanWrite != 0:
			return shared.Failed(fault.Invalid, fmt.Errorf("%w: mode %#o", errShared, info.Mode().Perm()),
				"remove the write permission of group and others from "+path+", unless it is a shared volume by design, such as one with fsGroup")
		case is && stat.Uid != 0 && int(stat.Uid) != os.Geteuid():
			return shared.Failed(fault.Invalid, fmt.Errorf("%w: user %d owns it", errShared, stat.Uid),
				fmt.Sprintf("change the owner of %s to user %d, unless the volume sets the owner", path, os.Geteuid()))
		}
	}
	return nil
}
