package state

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Usable returns why Open cannot create or write its file in dir; nil when it can. It
// creates and changes nothing, and does not read the file.
func CheckDir(dir string) error {
	file := filepath.Join(dir, fileName)
	there, info, err := nearest(dir)
	switch {
	case err != nil:
		return explainDir(file, err)
	case !info.IsDir():
		return explainDir(file, &fs.PathError{Op: "stat", Path: there, Err: syscall.ENOTDIR})
	}
	const write, enter = 0o2, 0o1 // W_OK and X_OK of access(2)
	if err := syscall.Access(there, write|enter); err != nil {
		return explainDir(file, &fs.PathError{Op: "write to", Path: there, Err: err})
	}
	if err := syscall.Access(file, write); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explainDir(file, &fs.PathError{Op: "write to", Path: file, Err: err})
	}
	return nil
}
