package state

import (
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// Watermark says that every change that a domain controller made up to a USN was
// delivered, or is recorded as rejected or held. It means something only with the
// invocation ID under which it is kept, and for the scope it was taken under.
type Watermark struct {
	USN   ad.USN    `json:"usn"`
	Scope string    `json:"scope"`
	At    time.Time `json:"at"`
}

// FullSync is the last complete reading of everything in a scope. What the index
// holds and a later full pass of the same scope does not find has gone.
type FullSync struct {
	Scope string    `json:"scope"`
	At    time.Time `json:"at"`
}

// Watermark returns the watermark of a domain controller; the zero value when
// there is none.
func (s *Store) Watermark(of ad.InvocationID) (w Watermark, err error) {
	err = s.view("read watermark", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketWatermarks), of[:], &w)
	})
	return w, err
}

// LastFullPass returns the last full pass; the zero value when there was none.
func (s *Store) LastFullSync() (f FullSync, err error) {
	err = s.view("read full pass", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketMeta), keyFullPass, &f)
	})
	return f, err
}

// Progress is what a run has reached when everything is delivered.
type Progress struct {
	FullSync     *FullSync // nil: the run was none
	InvocationID ad.InvocationID
	Watermark    *Watermark // nil: the server's changes cannot be followed
	ClearStale   bool       // what was to be read again, Again, was
}

// Advance records a run's progress, whole or not at all.
func (s *Store) Advance(p Progress) error {
	return s.update("advance watermark", func(c change) error {
		if p.FullSync != nil {
			if err := c.putJSON(bucketMeta, keyFullPass, p.FullSync); err != nil {
				return err
			}
		}
		if err := c.put(bucketMeta, keyLastRead, p.InvocationID[:]); err != nil {
			return err
		}
		if p.ClearStale {
			if err := readAgain(c); err != nil {
				return err
			}
		}
		if p.Watermark != nil {
			return c.putJSON(bucketWatermarks, p.InvocationID[:], p.Watermark)
		}
		return nil
	})
}

// LastController returns the domain controller of the last run that delivered everything;
// the zero value when there was none, or its changes cannot be followed.
func (s *Store) LastController() (id ad.InvocationID, err error) {
	err = s.view("read last controller", func(tx *bbolt.Tx) error {
		copy(id[:], tx.Bucket(bucketMeta).Get(keyLastRead))
		return nil
	})
	return id, err
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

// HeldDeletion is an object whose deletion is held, as the index knows it.
type HeldDeletion struct {
	identity.Object
	Since time.Time
}

// FirstHeldDeletions returns at most so many of the objects whose deletion is held, and how
// many there are.
func (s *Store) FirstHeldDeletions(most int) (first []HeldDeletion, total int, err error) {
	err = s.view("read held deletions", func(tx *bbolt.Tx) error {
		index := tx.Bucket(bucketIndex)
		return tx.Bucket(bucketHeld).ForEach(func(key, since []byte) (err error) {
			if total++; total > most {
				return nil
			}
			var h HeldDeletion
			h.Object, _ = decode(key, index.Get(key))
			h.GUID = ad.GUID(key)
			h.Since, err = time.Parse(time.RFC3339, string(since))
			first = append(first, h)
			return err
		})
	})
	return first, total, err
}

// Hold makes these the objects whose deletion is held. Those that were held
// before keep the time since when.
func (s *Store) SetHeldDeletions(guids []ad.GUID, now time.Time) error {
	return s.update("record held deletions", func(c change) error {
		before := c.Bucket(bucketHeld)
		since := make([][]byte, len(guids))
		for i, guid := range guids {
			if since[i] = append([]byte(nil), before.Get(guid[:])...); len(since[i]) == 0 {
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
