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

// TestCheckDir checks that CheckDir returns the same errors as Open, and that neither CheckDir nor
// CheckSpace leaves a file.
func TestCheckDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, CheckDir(dir))
	must(t, CheckDir(filepath.Join(dir, "not", "yet")))
	must(t, os.WriteFile(filepath.Join(dir, checkName), nil, 0o600)) // of a killed process
	must(t, unsynced.CheckSpace(dir))
	must(t, unsynced.CheckSpace(filepath.Join(dir, "not", "yet")))
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("created %v, error %v", entries, err)
	}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, invalid := range []string{file, filepath.Join(file, "below")} {
		_, openErr := unsynced.Open(invalid)
		for _, err := range []error{openErr, CheckDir(invalid)} {
			faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + filepath.Join(invalid, fileName)}, ErrUnusable, "service.state-dir")
			if pathErr, is := errors.AsType[*fs.PathError](err); !is || !strings.HasPrefix(pathErr.Path, file) {
				t.Errorf("%s: error %v does not contain %s", invalid, err, file)
			}
		}
	}
	store := result(unsynced.Open(dir))(t)
	must(t, CheckDir(dir)) // also while it is open
	must(t, unsynced.CheckSpace(dir))
	must(t, store.CheckRemoved())
	must(t, store.Close())
}

// TestPermissionRemedy checks that the remedy names an existing file or directory.
func TestPermissionRemedy(t *testing.T) {
	t.Parallel()
	dir := file(t, nil)
	path := filepath.Join(dir, fileName)
	visible := filepath.Join(dir, "file") // the system call for a path below it fails, as in a directory without the right to search it
	must(t, os.WriteFile(visible, nil, 0o600))
	cases := map[string]struct {
		denied string
		errno  syscall.Errno
		named  string
	}{
		"file":                  {path, syscall.EACCES, path},
		"missing lock file":     {lockPath(path), syscall.EACCES, dir},
		"invisible file":        {filepath.Join(visible, "invisible"), syscall.EACCES, visible},
		"missing directories":   {filepath.Join(dir, "a", "b"), syscall.EACCES, dir},
		"read-only file system": {path, syscall.EROFS, dir},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := dirError(path, &fs.PathError{Op: "open", Path: c.denied, Err: c.errno})
			faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + path}, ErrUnusable, c.named+" writable", "service.state-dir")
			if readOnly := strings.Contains(fault.Remedy(err), "mount"); readOnly != (c.errno == syscall.EROFS) {
				t.Errorf("remedy %q", fault.Remedy(err))
			}
		})
	}
}

// TestCheckSpaceThroughLink checks that a link with the name of the temporary file is not followed.
func TestCheckSpaceThroughLink(t *testing.T) {
	t.Parallel()
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("content"), 0o600))
	must(t, os.Symlink(victim, filepath.Join(dir, checkName)))
	must(t, unsynced.CheckSpace(dir))
	if content := result(os.ReadFile(victim))(t); string(content) != "content" {
		t.Errorf("%d bytes written through the link", len(content))
	}
}
