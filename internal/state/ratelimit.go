package state

import (
	"time"

	"go.etcd.io/bbolt"
)

// RateLimit returns the end of the gateway's rate limit, or the zero time.
func (s *Store) RateLimit() (until time.Time, err error) {
	err = s.view("read rate limit", func(tx *bbolt.Tx) error {
		return getJSON(tx.Bucket(bucketMeta), keyLimit, &until)
	})
	return until, err
}

// SetRateLimit records the end of the gateway's rate limit, which a restarted process
// must respect.
func (s *Store) SetRateLimit(until time.Time) error {
	return s.update("record rate limit", func(c change) error {
		return c.putJSON(bucketMeta, keyLimit, until)
	})
}
