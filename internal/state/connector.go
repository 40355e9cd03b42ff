package state

import (
	"time"

	"go.etcd.io/bbolt"
)

// Connector is the connector's state, and how it came to be.
type Connector struct {
	State   string    `json:"state"`
	RunID   string    `json:"run_id,omitempty"`
	At      time.Time `json:"at"`
	NextRun time.Time `json:"next_run,omitzero"`
	Error   string    `json:"error,omitempty"`
	Remedy  string    `json:"remedy,omitempty"` // of the error
}

// Connector returns the last recorded state; the zero value when there is none.
func (s *Store) Connector() (Connector, error) {
	var c Connector
	err := s.view("read connector state", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketMeta), keyConnector, &c)
	})
	return c, err
}

// SetConnector records the connector's state.
func (s *Store) SetConnector(now Connector) error {
	return s.update("record connector state", func(c change) error {
		return c.putJSON(bucketMeta, keyConnector, now)
	})
}

// RateLimit returns until when the gateway wants to be left alone; zero when it has
// not said so.
func (s *Store) RateLimit() (until time.Time, err error) {
	err = s.view("read rate limit", func(tx *bbolt.Tx) error {
		return get(tx.Bucket(bucketMeta), keyLimit, &until)
	})
	return until, err
}

// SetRateLimit records until when the gateway wants to be left alone, so that a
// restart does not ask it sooner.
func (s *Store) SetRateLimit(until time.Time) error {
	return s.update("record rate limit", func(c change) error {
		return c.putJSON(bucketMeta, keyLimit, until)
	})
}
