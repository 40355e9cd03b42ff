package state

import "time"

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
func (s *Store) Connector() (connector Connector, err error) {
	err = s.readMeta("read connector state", keyConnector, &connector)
	return connector, err
}

// SetConnector records the connector's state.
func (s *Store) SetConnector(connector Connector) error {
	return s.update("record connector state", func(c change) error {
		return c.putJSON(bucketMeta, keyConnector, connector)
	})
}
