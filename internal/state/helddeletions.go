package state

import (
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// HeldDeletion is an object of the index whose deletion is held.
type HeldDeletion struct {
	identity.Object
	Since time.Time
}

// HeldDeletions returns the objects whose deletion is held.
func (s *Store) HeldDeletions() (guids []ad.GUID, err error) {
	err = s.view("read held deletions", func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketHeld).ForEach(func(key, _ []byte) error {
			guids = append(guids, ad.GUID(key))
			return nil
		})
	})
	return guids, err
}

// FirstHeldDeletions returns up to limit held deletions and their total number.
func (s *Store) FirstHeldDeletions(limit int) (first []HeldDeletion, total int, err error) {
	err = s.view("read held deletions", func(tx *bbolt.Tx) error {
		index := tx.Bucket(bucketIndex)
		return tx.Bucket(bucketHeld).ForEach(func(key, since []byte) (err error) {
			if total++; total > limit {
				return nil
			}
			var held HeldDeletion
			held.Object, _ = decodeRecord(key, index.Get(key))
			held.GUID = ad.GUID(key)
			held.Since, err = time.Parse(time.RFC3339, string(since))
			first = append(first, held)
			return err
		})
	})
	return first, total, err
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
