package state

import (
	"bytes"
	"encoding/json"

	"go.etcd.io/bbolt"
)

// keyHiddenContainers is the key of bucketMeta for HiddenContainers.
var keyHiddenContainers = []byte("hidden containers")

// maxHiddenContainers limits the containers in each list of HiddenContainers.
const maxHiddenContainers = 1000

// HiddenContainers are containers whose objects the account cannot list. The lists contain hashes
// of their DNs, sorted.
type HiddenContainers struct {
	Seen     []string `json:"seen,omitempty"`     // at the last search
	Accepted []string `json:"accepted,omitempty"` // by an operator, who released deletions
}

// HiddenContainers returns the recorded containers, or the zero value.
func (s *Store) HiddenContainers() (HiddenContainers, error) {
	return readMeta[HiddenContainers](s, "read hidden containers", keyHiddenContainers)
}

// SetHiddenContainers replaces the recorded containers. It writes nothing if nothing has changed.
// Of each list, it keeps the first maxHiddenContainers.
func (s *Store) SetHiddenContainers(h HiddenContainers) error {
	h.Seen, h.Accepted = h.Seen[:min(len(h.Seen), maxHiddenContainers)], h.Accepted[:min(len(h.Accepted), maxHiddenContainers)]
	var value []byte // nil deletes the record
	if len(h.Seen)+len(h.Accepted) > 0 {
		var err error
		if value, err = json.Marshal(h); err != nil {
			return err
		}
	}
	const op = "record hidden containers"
	changed := true
	err := s.view(op, func(tx *bbolt.Tx) error {
		changed = !bytes.Equal(get(tx, bucketMeta, keyHiddenContainers), value)
		return nil
	})
	if err != nil || !changed {
		return err
	}
	return s.update(op, func(c change) error { return c.write(bucketMeta, keyHiddenContainers, value) })
}
