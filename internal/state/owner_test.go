package state

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// The owner of the state directory in tests: no user of the system.
const (
	ownerUID = 65532
	ownerGID = 65533
)

// foreignDir returns a directory of another user. It skips the test unless it runs as root.
func foreignDir(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can create files for another user")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, ownerUID, ownerGID); err != nil {
		t.Skipf("owners cannot be changed here: %v", err)
	}
	return dir
}

// expectOwner checks the owner and the group of everything in a directory, and returns the names.
func expectOwner(t *testing.T, dir string) (found map[string]bool) {
	t.Helper()
	found = map[string]bool{}
	must(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		found[filepath.Base(path)] = true
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != ownerUID || stat.Gid != ownerGID {
			t.Errorf("%s has owner %d:%d", path, stat.Uid, stat.Gid)
		}
		return nil
	}))
	return found
}

// TestOwner checks that the owner of the state directory owns every file that root creates there: at
// the first run, by a delivery, by a compaction, and after damage.
func TestOwner(t *testing.T) {
	t.Parallel()
	dir := foreignDir(t)
	below := filepath.Join(dir, "new", "state")
	options := unsynced
	options.compactAbove = 1
	s := result(options.Open(below))(t)
	must(t, send(s, objects(0, 3000, 1)))
	path := s.Path()
	expected := []string{fileName, "adconnector.db.lock", "adconnector.db.holder", "adconnector.generation"}
	found := expectOwner(t, dir)
	for _, name := range expected {
		if !found[name] {
			t.Errorf("no file %s", name)
		}
	}
	must(t, s.Close())
	s = result(options.Open(below))(t) // merges the journal
	must(t, s.update("free pages", func(c change) error { return c.empty(bucketIndex) }))
	must(t, s.Close())
	before := result(os.Stat(path))(t)
	s = result(options.Open(below))(t)
	if after := result(os.Stat(path))(t); os.SameFile(before, after) {
		t.Error("not compacted")
	}
	expectOwner(t, dir)
	must(t, s.Close())
	must(t, os.WriteFile(path, []byte("damaged"), 0o600))
	s = result(options.Open(below))(t)
	if s.DamagedFile == nil {
		t.Error("not set aside")
	}
	must(t, s.Close())
	expectOwner(t, dir)
}

// TestOwnerOfExistingFile checks that a file that root has not created keeps its owner: the owner of
// the directory could have moved a secret of root there.
func TestOwnerOfExistingFile(t *testing.T) {
	t.Parallel()
	dir := foreignDir(t)
	for _, name := range []string{"adconnector.db.lock", fileName} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	openStore(t, dir)
	for name, want := range map[string]uint32{"adconnector.db.lock": 0, fileName: 0, "adconnector.db.holder": ownerUID} {
		if stat := result(os.Lstat(filepath.Join(dir, name)))(t).Sys().(*syscall.Stat_t); stat.Uid != want {
			t.Errorf("%s has owner %d, want %d", name, stat.Uid, want)
		}
	}
}

// TestOpenFileCreates checks that openFile creates a file or opens it, and that createFile only creates it.
func TestOpenFileCreates(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	for range 2 {
		must(t, result(openFile(path, os.O_RDWR|os.O_CREATE, 0o600))(t).Close())
	}
	if _, err := createFile(path, os.O_RDWR, 0o600); !os.IsExist(err) {
		t.Errorf("error %v", err)
	}
}
