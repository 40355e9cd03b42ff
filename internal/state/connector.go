package state

import (
	"time"

	"go.etcd.io/bbolt"
)

// Connector is the connector's state and its cause.
type Connector struct {
	State   string    `json:"state"`
	RunID   string    `json:"run_id,omitempty"`
	At      time.Time `json:"at"`
	NextRun time.Time `json:"next_run,omitzero"`
	Error   string    `json:"error,omitempty"`
	Remedy  string    `json:"remedy,omitempty"` // of the error
}

// Connector returns the last recorded state, or the zero value.
func (s *Store) Connector() (Connector, error) {
	var connector Connector
	err := s.view("read connector state", func(tx *bbolt.Tx) error {
		return getJSON(tx.Bucket(bucketMeta), keyConnector, &connector)
	})
	return connector, err
}

// SetConnector records the connector's state.
func (s *Store) SetConnector(connector Connector) error {
	return s.update("record connector state", func(c change) error {
		return c.putJSON(bucketMeta, keyConnector, connector)
	})
}
