package state

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestSynced checks what is synced to the disk, and when. Without it, a power failure can undo a
// write although its method has returned.
func TestSynced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	var events []string
	content := func(path string) []byte {
		text, _ := os.ReadFile(path) // nil if it does not exist
		return text
	}
	next := content(path) // of the generation file, once it is written
	options := Options{
		synced: func(name string) {
			switch name {
			case dir:
				events = append(events, "directory")
				if !bytes.Equal(content(generationPath(path)), next) {
					t.Error("directory synced before the rename")
				}
			case newGenerationPath(path):
				events = append(events, "generation")
				next = content(name)
				if len(next) == 0 || bytes.Equal(content(generationPath(path)), next) {
					t.Error("generation file synced before it was written, or after the rename")
				}
			default:
				t.Errorf("%s synced", name)
			}
		},
		generationWritten: func() error {
			events = append(events, "commit")
			return nil
		},
	}
	expect := func(step string, want ...string) {
		t.Helper()
		if !slices.Equal(events, want) {
			t.Errorf("%s: %q, want %q", step, events, want)
		}
		events = nil
	}
	s := result(options.Open(dir))(t)
	expect("new file", "directory")
	advance := []string{"generation", "directory", "commit"}
	must(t, send(s, objects(0, 3, 1)))
	expect("delivery", slices.Concat(advance, advance)...)
	if s.db.NoSync || s.db.NoGrowSync {
		t.Error("bbolt does not sync")
	}
	must(t, s.Close())

	options.compactAbove = 1
	s = result(options.Open(dir))(t)
	expect("file without free pages")
	must(t, s.update("", func(c change) error { return c.put(bucketMeta, []byte("large"), make([]byte, 1<<20)) }))
	must(t, s.update("", func(c change) error { return c.delete(bucketMeta, []byte("large")) }))
	must(t, s.Close())
	s = result(options.Open(dir))(t)
	expect("compacted file", "directory")
	if s.db.NoSync || s.db.NoGrowSync {
		t.Error("bbolt does not sync a compacted file")
	}
	must(t, s.Close())

	must(t, os.WriteFile(path, []byte("damaged"), 0o600))
	s = result(options.Open(dir))(t)
	expect("damaged file", "directory") // of the new one
	must(t, s.Close())
}
