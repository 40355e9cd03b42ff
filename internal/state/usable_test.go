package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUsable: it says what Open would, and leaves nothing behind.
func TestUsable(t *testing.T) {
	dir := t.TempDir()
	must(t, Usable(dir))
	must(t, Usable(filepath.Join(dir, "not", "yet")))
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left %v, error %v", left, err)
	}
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, wrong := range []string{file, filepath.Join(file, "below")} {
		_, open := unsynced.Open(wrong)
		if err := Usable(wrong); err == nil || !strings.Contains(err.Error(), ": stat "+file) {
			t.Errorf("%s: error %v", wrong, err)
		}
		if err := Usable(wrong); !errors.Is(err, ErrUnusable) || !errors.Is(open, ErrUnusable) || !strings.Contains(err.Error(), "set service.state-dir to a directory") {
			t.Errorf("%s: error %v, to open it %v", wrong, err, open)
		}
	}
	store := result(unsynced.Open(dir))(t)
	must(t, Usable(dir)) // that it is open is another matter
	must(t, store.Close())
}
