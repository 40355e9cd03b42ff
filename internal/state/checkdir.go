package state

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

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
	return nil
}
