package state

import (
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// HeldRemedy is what to do about held deletions.
const HeldRemedy = "review the deletions in the directory (adconnector status, sync --dry-run); " +
	"to release them, run adconnector sync --allow-deletes"

// HeldDeletion is an object of the index whose deletion is held.
type HeldDeletion struct {
	identity.Object
	Since time.Time
}

// HeldDeletions returns up to limit held deletions, in the order of their GUIDs, and their
// total number. A negative limit means no limit.
func (s *Store) HeldDeletions(limit int) (deletions []HeldDeletion, total int, err error) {
	err = s.view("read held deletions", func(tx *bbolt.Tx) error {
		if isEmpty(tx.Bucket(bucketHeld)) {
			return nil
		}
		index, err := newIndexView(tx)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketHeld).ForEach(func(key, since []byte) (err error) {
			if total++; limit >= 0 && total > limit {
				return nil
			}
			var held HeldDeletion
			held.Object, _ = decodeRecord(key, index.get(key))
			held.GUID = ad.GUID(key)
			held.Since, err = time.Parse(time.RFC3339, string(since))
			deletions = append(deletions, held)
			return err
		})
	})
	return deletions, total, err
}

// SetHeldDeletions replaces the held deletions. Deletions that were held before keep
// their time.
func (s *Store) SetHeldDeletions(guids []ad.GUID, now time.Time) error {
	return s.update("record held deletions", func(c change) error {
		before := c.Bucket(bucketHeld)
		since := make([][]byte, len(guids))
		for i, guid := range guids {
			if since[i] = slices.Clone(before.Get(guid[:])); len(since[i]) == 0 {
				since[i] = now.UTC().AppendFormat(nil, time.RFC3339)
			}
		}
		if err := c.empty(bucketHeld); err != nil {
			return err
		}
		for i, guid := range guids {
			if err := c.put(bucketHeld, guid[:], since[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
