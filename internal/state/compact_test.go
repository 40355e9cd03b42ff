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

// TestCampaignCompact checks that Open compacts a file that is mostly free, and that the
// content stays the same.
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
	j := result(s.OpenJournal(testView, testStart))(t)
	must(t, j.MarkInFlight([]Batch{batch}))
	must(t, j.Commit([]BatchResult{{Complete: true, Acknowledged: batch.Objects}}))
	must(t, s.Close())
	large := result(os.Stat(path))(t).Size()
	if large < cmp.Or(options.compactAbove, defaultCompactAbove) {
		t.Fatalf("file size %d is too small for the test", large)
	}
	must(t, os.WriteFile(compactPath(path), []byte("interrupted"), 0o600))

	s = result(options.Open(dir))(t)
	defer s.Close()
	if small := result(os.Stat(path))(t).Size(); small > large/5 {
		t.Errorf("compacted from %d to %d bytes", large, small)
	}
	for _, o := range batch.Objects[:kept] {
		expect(t, s, o)
	}
	if size := result(s.IndexSize())(t); size != kept {
		t.Errorf("%d objects, want %d", size, kept)
	}
	if next := result(s.OpenJournal(testView, testStart))(t); next.run <= j.run {
		t.Errorf("run number %d after %d", next.run, j.run)
	}
	if _, err := os.Stat(compactPath(path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the copy was not removed: %v", err)
	}
}

// TestNotCompacted checks that a small file, and one that is mostly in use, are not compacted.
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
		deletions := all[c.kept:]
		for i := range deletions {
			deletions[i] = deleted(deletions[i])
		}
		must(t, send(s, deletions))
		must(t, s.Close())
		before := result(os.Stat(filepath.Join(dir, fileName)))(t)
		s = result(options.Open(dir))(t)
		if after := result(os.Stat(s.Path()))(t); !os.SameFile(before, after) {
			t.Errorf("%s: the file was compacted", name)
		}
		must(t, s.Close())
	}
}
