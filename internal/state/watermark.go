package state

import (
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
)

// Watermark means that every change of a domain controller up to a USN is acknowledged,
// or recorded as rejected or held. It is valid only for the invocation ID under which it
// is stored, and for its scope.
type Watermark struct {
	USN   ad.USN    `json:"usn"`
	Scope string    `json:"scope"`
	At    time.Time `json:"at"`
}

// FullSync is the last complete full sync of a scope. Objects of the index that a later
// full sync of the same scope does not find are deleted.
type FullSync struct {
	Scope string    `json:"scope"`
	At    time.Time `json:"at"`
}

// Watermark returns the watermark of a domain controller, or the zero value.
func (s *Store) Watermark(invocationID ad.InvocationID) (w Watermark, err error) {
	err = s.view("read watermark", func(tx *bbolt.Tx) error {
		return getJSON(tx.Bucket(bucketWatermarks), invocationID[:], &w)
	})
	return w, err
}

// LastFullSync returns the last full sync, or the zero value.
func (s *Store) LastFullSync() (FullSync, error) {
	return readMeta[FullSync](s, "read last full sync", keyFullSync)
}

// Progress is the result of a run whose objects are all acknowledged, rejected or held.
type Progress struct {
	FullSync     *FullSync // nil: not a full sync
	InvocationID ad.InvocationID
	Watermark    *Watermark // nil: the domain controller does not support delta syncs
	ClearStale   bool       // the run has read and sent all stale objects
}

// Advance records the progress of a run in one transaction.
func (s *Store) Advance(p Progress) error {
	return s.update("advance watermark", func(c change) error {
		if p.FullSync != nil {
			if err := c.putJSON(bucketMeta, keyFullSync, p.FullSync); err != nil {
				return err
			}
		}
		if err := c.put(bucketMeta, keyLastController, p.InvocationID[:]); err != nil {
			return err
		}
		if p.ClearStale {
			if err := clearStale(c); err != nil {
				return err
			}
		}
		if p.Watermark != nil {
			return c.putJSON(bucketWatermarks, p.InvocationID[:], p.Watermark)
		}
		return nil
	})
}

// LastController returns the domain controller of the last run that recorded progress.
// It returns the zero value if there is none, or if that one does not support delta syncs.
func (s *Store) LastController() (id ad.InvocationID, err error) {
	err = s.view("read last domain controller", func(tx *bbolt.Tx) error {
		copy(id[:], tx.Bucket(bucketMeta).Get(keyLastController))
		return nil
	})
	return id, err
}
