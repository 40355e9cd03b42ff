package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"adconnector/internal/fault"
	"adconnector/test/faulttest"
)

// smallDisk mounts a file system of one megabyte and returns its path.
func smallDisk(t *testing.T) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill fills the file system and leaves free bytes.
func fill(t *testing.T, dir string, free int64) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, max(0, int64(disk.Bavail)*disk.Bsize-free)), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func expectFull(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, syscall.ENOSPC) || fault.ClassOf(err) != fault.Transient || fault.Remedy(err) != remedySpace {
		t.Fatalf("error %v, class %s, remedy %q", err, fault.ClassOf(err), fault.Remedy(err))
	}
}

func TestFullDisk(t *testing.T) {
	dir := smallDisk(t)
	s := openStore(t, dir)
	first := objects(0, 1000, 1)
	if err := send(s, first); err != nil {
		t.Fatal(err)
	}
	remove := fill(t, dir, 40<<10)
	second := objects(0, 5000, 2)
	expectFull(t, send(s, second))
	for _, o := range first { // the failed transaction has no effect
		expect(t, s, o)
	}
	expectAbsent(t, s, second[4000])
	remove()
	if err := send(s, second[:3000]); err != nil {
		t.Fatalf("after space was freed: %v", err)
	}
	s.Close()
	s = openStore(t, dir)
	for _, o := range second[:3000] {
		expect(t, s, o)
	}
}

// TestGenerationOnFullDisk checks that a run fails before it marks a batch in flight if the
// generation file cannot be written, and that nothing is lost.
func TestGenerationOnFullDisk(t *testing.T) {
	dir := smallDisk(t)
	s := openStore(t, dir)
	batch := objects(0, 10, 1)
	must(t, send(s, batch))
	remove := fill(t, dir, 0)
	err := send(s, objects(0, 10, 2))
	faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "write", Object: "generation file " + generationPath(s.Path())}, syscall.ENOSPC, remedySpace)
	must(t, s.Close())
	s = openStore(t, dir)
	expectRestored(t, s, false)
	for _, o := range batch {
		expect(t, s, o)
	}
	remove()
	must(t, send(s, objects(0, 10, 2)))
	expect(t, s, objects(0, 10, 2)[0])
}

func TestOpenOnFullDisk(t *testing.T) {
	for name, free := range map[string]int64{"no space": 0, "one page": 4096, "three pages": 3 * 4096, "size of an empty file": 4 * 4096} {
		t.Run(name, func(t *testing.T) {
			dir := smallDisk(t)
			remove := fill(t, dir, free)
			_, err := unsynced.Open(dir)
			expectFull(t, err)
			err = unsynced.CheckSpace(filepath.Join(dir, "state")) // does not exist
			if expectFull(t, err); strings.Contains(err.Error(), checkName) {
				t.Errorf("error %v names the temporary file", err)
			}
			remove()
			if left := result(filepath.Glob(filepath.Join(dir, checkName)))(t); len(left) > 0 {
				t.Errorf("left %v", left)
			}
			must(t, unsynced.CheckSpace(dir))
			openStore(t, dir)
		})
	}
}

// TestCheckSpace checks that a disk with the space that CheckSpace requires has space for a new state
// file.
func TestCheckSpace(t *testing.T) {
	dir := smallDisk(t)
	fill(t, dir, checkSize)
	must(t, unsynced.CheckSpace(dir))
	openStore(t, dir)
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := smallDisk(t)
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := unsynced.Open(filepath.Join(dir, "state"))
	expectReadOnly(t, filepath.Join(dir, "state"), err)
	if _, err = unsynced.Open(dir); !errors.Is(err, ErrUnusable) {
		t.Errorf("error %v", err)
	}
	for _, dir := range []string{dir, filepath.Join(dir, "state")} {
		expectReadOnly(t, dir, CheckDir(dir))
	}
}

func expectReadOnly(t *testing.T, dir string, err error) {
	t.Helper()
	faulttest.Check(t, err, fault.Error{Class: fault.Invalid, Op: "open", Object: "state file " + filepath.Join(dir, fileName)}, ErrUnusable, "mount the file system of ", " writable", "service.state-dir")
}

// TestMergeOnFullDisk checks that a merge that fails for lack of space loses nothing: for the open
// store, after a restart on the full disk, and after space was freed.
func TestMergeOnFullDisk(t *testing.T) {
	dir := smallDisk(t)
	options := unsynced
	options.mergeRecords = 50
	steps, merging := 0, false
	remove := func() {}
	options.merging = func() error {
		if steps++; merging && steps == 3 { // in the middle
			remove = fill(t, dir, 0)
		}
		return nil
	}
	s := result(options.Open(dir))(t)
	must(t, send(s, objects(0, 2000, 1)))
	want := observe(t, s)
	steps, merging = 0, true
	expectFull(t, s.merge())
	if steps < 3 {
		t.Fatalf("failed in step %d", steps)
	}
	expectObserved(t, "full", observe(t, s), want)
	must(t, s.Close())
	readOnly := result(unsynced.OpenReadOnly(dir))(t)
	expectObserved(t, "read-only", observe(t, readOnly), want)
	must(t, readOnly.Close())
	remove()
	s = openStore(t, dir)
	expectObserved(t, "after space was freed", observe(t, s), want)
	if n := journalSize(t, s); n != 0 || s.DamagedFile != nil {
		t.Errorf("%d chunks, damaged %v", n, s.DamagedFile)
	}
}
