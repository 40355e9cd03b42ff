package state

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// heldGUIDs returns the objects of all held deletions.
func heldGUIDs(t testing.TB, s *Store) (guids []ad.GUID) {
	t.Helper()
	deletions, total, err := s.HeldDeletions(-1)
	if must(t, err); total != len(deletions) {
		t.Errorf("total %d of %d held deletions", total, len(deletions))
	}
	for _, held := range deletions {
		guids = append(guids, held.GUID)
	}
	return guids
}

// TestSetHeldDeletions checks that a deletion that stays held keeps its time.
func TestSetHeldDeletions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	since := func(n int) (text string) {
		guid := guidOf(n)
		must(t, s.db.View(func(tx *bbolt.Tx) error {
			text = string(tx.Bucket(bucketHeld).Get(guid[:]))
			return nil
		}))
		return text
	}
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(1), guidOf(2)}, time.Unix(0, 0)))
	s = reopen(t, s, dir)
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(3), guidOf(2)}, time.Unix(60, 0)))
	if held := heldGUIDs(t, s); !slices.Equal(held, []ad.GUID{guidOf(2), guidOf(3)}) {
		t.Errorf("held %v", held)
	}
	if since(1) != "" || since(2) != "1970-01-01T00:00:00Z" || since(3) != "1970-01-01T00:01:00Z" {
		t.Errorf("since %q, %q, %q", since(1), since(2), since(3))
	}
	must(t, s.SetHeldDeletions(nil, time.Unix(90, 0)))
	if held := heldGUIDs(t, s); len(held) != 0 {
		t.Errorf("held %v", held)
	}
	must(t, s.SetHeldDeletions([]ad.GUID{guidOf(2)}, time.Unix(120, 0)))
	if since(2) != "1970-01-01T00:02:00Z" { // was not held in between
		t.Errorf("since %q", since(2))
	}
}
