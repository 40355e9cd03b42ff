package request

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"adconnector/internal/state"
)

// The reasons not to use a file or the directory.
var (
	errNotPrivate   = errors.New("accessible to other users")
	errNotRegular   = errors.New("is not a regular file with one name")
	errNotDirectory = errors.New("is not a directory")
	errForeignOwner = errors.New("belongs to another user")
	errTooLarge     = errors.New("is too large")
)

const othersMode = 0o077 // all permissions of group and others

// openDir opens the directory of requests, which only its owner can use.
func openDir(path string) (*os.Root, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.IsDir() { // also a symbolic link
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotDirectory}
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	switch {
	case err != nil:
	case !os.SameFile(before, info):
		err = &fs.PathError{Op: "open", Path: path, Err: errNotDirectory}
	case info.Mode().Perm()&othersMode != 0:
		err = &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w: mode %#o", errNotPrivate, info.Mode().Perm())}
	}
	if err != nil {
		_ = root.Close() // err is more relevant
		return nil, err
	}
	return root, nil
}

// ownerOf returns the user ID of the owner of a file.
func ownerOf(info fs.FileInfo) int {
	stat, is := info.Sys().(*syscall.Stat_t)
	if !is {
		return os.Geteuid()
	}
	return int(stat.Uid)
}

// openPrivate opens a file that only root and the owner of the directory can have written.
func openPrivate(root *os.Root, name string) (*os.File, error) {
	// O_NONBLOCK: opening a named pipe must not wait for its other end. Regular files ignore it.
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(root, file); err != nil {
		_ = file.Close() // err is more relevant
		return nil, &fs.PathError{Op: "open", Path: file.Name(), Err: err}
	}
	return file, nil
}

// checkPrivate returns an error unless only root and the owner of the directory can use a file.
func checkPrivate(root *os.Root, file *os.File) error {
	if err := checkOwner(root, file); err != nil {
		return err
	}
	info, err := file.Stat()
	if err == nil && info.Mode().Perm()&othersMode != 0 {
		err = fmt.Errorf("%w: mode %#o", errNotPrivate, info.Mode().Perm())
	}
	return err
}

// checkOwner returns an error unless a file is a regular one with one name that belongs to root or the
// owner of the directory.
func checkOwner(root *os.Root, file *os.File) error {
	dir, err := root.Stat(".")
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	stat, is := info.Sys().(*syscall.Stat_t)
	switch owner := ownerOf(info); {
	case !info.Mode().IsRegular() || is && stat.Nlink > 1:
		return errNotRegular
	case owner != 0 && owner != ownerOf(dir):
		return fmt.Errorf("%w: user %d", errForeignOwner, owner)
	}
	return nil
}

// readJSON decodes a file with at most limit bytes.
func readJSON(file *os.File, limit int64, value any) error {
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return err
	}
	if int64(len(content)) > limit {
		return &fs.PathError{Op: "read", Path: file.Name(), Err: errTooLarge}
	}
	return json.Unmarshal(content, value)
}

// readFile decodes the file with a name.
func readFile(root *os.Root, name string, limit int64, value any) error {
	file, err := openPrivate(root, name)
	if err != nil {
		return err
	}
	defer file.Close()
	return readJSON(file, limit, value)
}

// createPrivate creates a file that the owner of the directory can use. locked also locks it. The
// caller closes the file.
func createPrivate(root *os.Root, name string, locked bool, value any) (file *os.File, err error) {
	content, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	file, err = root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = file.Close() // err is more relevant
			_ = root.Remove(name)
		}
	}()
	if locked {
		if err = lock(file); err != nil {
			return nil, err
		}
	}
	if _, err = file.Write(content); err != nil {
		return nil, err
	}
	return file, adopt(root, file)
}

// adopt gives a file that was created in root to the owner of the directory, who could not read it
// otherwise.
func adopt(root *os.Root, file *os.File) error {
	dir, err := root.Stat(".")
	if err != nil {
		return err
	}
	return state.InheritOwner(file, dir)
}

// makePrivateDir creates a directory that the owner of root can use, and opens it.
func makePrivateDir(root *os.Root, name string) (*os.Root, error) {
	if err := root.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	dir, err := root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = errors.Join(adopt(root, dir), dir.Close())
	if err != nil {
		return nil, err
	}
	return root.OpenRoot(name)
}

// replaceFile writes a file. Readers see the old or the new content.
func replaceFile(root *os.Root, id, suffix string, value any) error {
	temporary := id + suffixNew
	if err := root.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := createPrivate(root, temporary, false, value)
	if err != nil {
		return err
	}
	if err = file.Close(); err == nil {
		err = root.Rename(temporary, id+suffix)
	}
	if err != nil {
		_ = root.Remove(temporary) // err is more relevant
	}
	return err
}

// lock locks a file until it is closed. It fails if another process has locked it.
func lock(file *os.File) error { return flock(file, syscall.LOCK_EX) }

// isLocked reports whether another process has locked a file.
func isLocked(file *os.File) bool {
	if err := flock(file, syscall.LOCK_SH); err != nil {
		return errors.Is(err, syscall.EWOULDBLOCK)
	}
	_ = flock(file, syscall.LOCK_UN) // so that others can lock it at once
	return false
}

func flock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}

// isServed reports whether a daemon accepts requests.
func isServed(root *os.Root) bool {
	marker, err := openPrivate(root, markerName)
	if err != nil {
		return false
	}
	defer marker.Close()
	return isLocked(marker)
}
