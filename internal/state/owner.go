package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// A command of root, such as adconnector sync, can create files in the state directory of a daemon
// that runs as another user. Their mode is 0600, so that the daemon could not open files of root. So
// root gives everything that it creates to the owner of the directory that contains it.

// InheritOwner gives a file or directory that this process has created to the owner and the group of
// the directory that contains it. It does nothing unless this process runs as root and the owners
// differ.
//
// It must not be called for a file that existed before: the owner of the directory can have moved a
// file of root there, which is not to become readable.
//
// An error means that the file keeps its owner. A user namespace returns one for an owner without a
// mapping, and network file systems do not let root of a client change owners.
func InheritOwner(created *os.File, dir fs.FileInfo) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := created.Stat()
	if err != nil {
		return err
	}
	is, isStat := info.Sys().(*syscall.Stat_t)
	want, wantStat := dir.Sys().(*syscall.Stat_t)
	if !isStat || !wantStat || is.Uid == want.Uid {
		return nil
	}
	return created.Chown(int(want.Uid), int(want.Gid))
}

// inheritOwner is InheritOwner for a file or directory with a path. It ignores errors: a process of
// root, and every process if the file system shows other owners than it stores, can use the file.
func inheritOwner(created *os.File, path string) {
	if dir, err := os.Stat(filepath.Dir(path)); err == nil {
		_ = InheritOwner(created, dir)
	}
}

// MakeDir creates a directory and its missing parents, which only their owner can use.
func MakeDir(dir string) error {
	var missing []string
	for path := filepath.Clean(dir); ; path = filepath.Dir(path) {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
			break
		}
		missing = append(missing, path)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, path := range slices.Backward(missing) {
		created, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue // the directory keeps its owner
		}
		inheritOwner(created, path)
		_ = created.Close()
	}
	return nil
}
