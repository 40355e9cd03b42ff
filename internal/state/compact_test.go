package state

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// TestCampaignCompact: a file that is mostly free is small after the next opening, and
// holds the same.
func TestCampaignCompact(t *testing.T) {
	t.Parallel()
	options, count := unsynced, 150_000
	if testing.Short() {
		options.compactAbove, count = 1<<20, 8000
	}
	const kept = 100
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	s := result(options.Open(dir))(t)
	random := rand.NewChaCha8([32]byte{1})
	batch := Batch{Number: 0}
	for n := range count {
		o := identity.Object{Kind: 1, Fingerprint: identity.Fingerprint{1}, Name: strings.Repeat("n", 200), SID: make(ad.SID, 28)}
		random.Read(o.GUID[:])
		binary.BigEndian.PutUint32(o.GUID[:], uint32(n))
		o.Deleted = n >= kept
		batch.Objects = append(batch.Objects, o)
	}
	d := result(s.OpenJournal(reader, began))(t)
	must(t, d.MarkInFlight([]Batch{batch}))
	must(t, d.Commit([]BatchResult{{Complete: true, Acknowledged: batch.Objects}}))
	must(t, s.Close())
	large := result(os.Stat(path))(t).Size()
	if large < cmp.Or(options.compactAbove, defaultCompactAbove) {
		t.Fatalf("the file has %d bytes, which is too few for the test", large)
	}
	must(t, os.WriteFile(path+compactTo, []byte("cut off"), 0o600))

	s = result(options.Open(dir))(t)
	defer s.Close()
	if small := result(os.Stat(path))(t).Size(); small > large/10 {
		t.Errorf("%d bytes, before %d", small, large)
	}
	for _, o := range batch.Objects[:kept] {
		expect(t, s, o)
	}
	if size := result(s.IndexSize())(t); size != kept {
		t.Errorf("%d objects, want %d", size, kept)
	}
	if again := result(s.OpenJournal(reader, began))(t); again.run <= d.run {
		t.Errorf("the run's number went from %d to %d", d.run, again.run)
	}
	if _, err := os.Stat(path + compactTo); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy was left behind: %v", err)
	}
}

// TestNotCompacted: a file below the size, and one that is mostly in use, stay as they are.
func TestNotCompacted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		above int64
		kept  int
	}{"small": {1 << 30, 10}, "mostly in use": {1, 1900}} {
		options := unsynced
		options.compactAbove = c.above
		dir := t.TempDir()
		s := result(options.Open(dir))(t)
		all := objects(0, 2000, 1)
		must(t, send(s, all))
		gone := all[c.kept:]
		for i := range gone {
			gone[i] = deleted(gone[i])
		}
		must(t, send(s, gone))
		must(t, s.Close())
		before := result(os.Stat(filepath.Join(dir, fileName)))(t)
		s = result(options.Open(dir))(t)
		if after := result(os.Stat(s.Path()))(t); !os.SameFile(before, after) {
			t.Errorf("%s: the file was compacted", name)
		}
		must(t, s.Close())
	}
}
