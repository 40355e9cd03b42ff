package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// TestUsable: it says what Open would, and leaves nothing behind.
func TestUsable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, CheckDir(dir))
	must(t, CheckDir(filepath.Join(dir, "not", "yet")))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, error %v", left, err)
	}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, wrong := range []string{file, filepath.Join(file, "below")} {
		_, open := unsynced.Open(wrong)
		for _, err := range []error{open, CheckDir(wrong)} {
			faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + filepath.Join(wrong, fileName)}, ErrUnusable, "service.state-dir")
			if at, is := errors.AsType[*fs.PathError](err); !is || !strings.HasPrefix(at.Path, file) {
				t.Errorf("%s: error %v does not name %s", wrong, err, file)
			}
		}
	}
	store := result(unsynced.Open(dir))(t)
	must(t, CheckDir(dir)) // that it is open is another matter
	must(t, store.Close())
}

// TestRefusedPlace checks that the remedy names a file or directory that exists.
func TestRefusedPlace(t *testing.T) {
	t.Parallel()
	dir := file(t, nil)
	path := filepath.Join(dir, fileName)
	cases := map[string]struct {
		refused string
		errno   syscall.Errno
		place   string
	}{
		"file":                     {path, syscall.EACCES, path},
		"lock that does not exist": {lockOf(path), syscall.EACCES, dir},
		"directories do not exist": {filepath.Join(dir, "a", "b"), syscall.EACCES, dir},
		"file system is read-only": {path, syscall.EROFS, dir},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := explainDir(path, &fs.PathError{Op: "open", Path: c.refused, Err: c.errno})
			faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, "make "+c.place+" writable", "service.state-dir")
		})
	}
}
