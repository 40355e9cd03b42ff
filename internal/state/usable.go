package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Usable tells why Open could not make or write its file in dir; nil when it could.
// It makes and changes nothing, and does not look into the file.
func Usable(dir string) error {
	there := dir // or what of it is there
	info, err := os.Stat(there)
	for errors.Is(err, fs.ErrNotExist) && there != filepath.Dir(there) {
		there = filepath.Dir(there)
		info, err = os.Stat(there)
	}
	switch {
	case err != nil:
		return explainDir(err)
	case !info.IsDir():
		return explainDir(&fs.PathError{Op: "stat", Path: there, Err: syscall.ENOTDIR})
	}
	const write, enter = 0o2, 0o1 // W_OK and X_OK of access(2)
	if err := syscall.Access(there, write|enter); err != nil {
		return explainDir(&fs.PathError{Op: "write to", Path: there, Err: err})
	}
	file := filepath.Join(dir, fileName)
	if err := syscall.Access(file, write); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explainDir(&fs.PathError{Op: "write to", Path: file, Err: err})
	}
	return nil
}
