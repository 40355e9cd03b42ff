package state

import (
	"time"

	"go.etcd.io/bbolt"
)

// Target returns the ID of the upload target whose state the file contains, or "".
func (s *Store) Target() (target string, err error) {
	err = s.view("read target", func(tx *bbolt.Tx) error {
		target = string(tx.Bucket(bucketMeta).Get(keyTarget))
		return nil
	})
	return target, err
}

// ChangeTarget records a new upload target and deletes all state of the previous one: the
// new target has received nothing.
func (s *Store) ChangeTarget(target string) error {
	err := s.update("change target", func(c change) error {
		for _, name := range append(graphBuckets, bucketIndex, bucketInFlight, bucketRecheck, bucketRejections, bucketHeld, bucketWatermarks) {
			if err := c.empty(name); err != nil {
				return err
			}
		}
		for _, key := range [][]byte{keyFullSync, keyGraph} {
			if err := c.delete(bucketMeta, key); err != nil {
				return err
			}
		}
		return c.put(bucketMeta, keyTarget, []byte(target))
	})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.inFlight)
	}
	return err
}

// RateLimit returns the end of the gateway's rate limit, or the zero time.
func (s *Store) RateLimit() (time.Time, error) {
	return readMeta[time.Time](s, "read rate limit", keyLimit)
}

// SetRateLimit records the end of the gateway's rate limit, which a restarted process
// must respect.
func (s *Store) SetRateLimit(until time.Time) error {
	return s.update("record rate limit", func(c change) error {
		return c.putJSON(bucketMeta, keyLimit, until)
	})
}
