package state

import (
	"bytes"
	"encoding/json"

	"go.etcd.io/bbolt"
)

// keyUnreadableContainers is the key of bucketMeta for UnreadableContainers. Its name is part of the
// format of the state file.
var keyUnreadableContainers = []byte("hidden containers")

// maxUnreadableContainers limits the containers in each list of UnreadableContainers.
const maxUnreadableContainers = 1000

// UnreadableContainers are containers whose objects the account cannot list. The lists contain hashes
// of their DNs, sorted.
type UnreadableContainers struct {
	Seen     []string `json:"seen,omitempty"`     // at the last search
	Accepted []string `json:"accepted,omitempty"` // by an operator, who released deletions
}

// UnreadableContainers returns the recorded containers, or the zero value.
func (s *Store) UnreadableContainers() (UnreadableContainers, error) {
	return readMeta[UnreadableContainers](s, "read unreadable containers", keyUnreadableContainers)
}

// SetUnreadableContainers replaces the recorded containers. It writes nothing if nothing has changed.
// Of each list, it keeps the first maxUnreadableContainers.
func (s *Store) SetUnreadableContainers(u UnreadableContainers) error {
	u.Seen, u.Accepted = u.Seen[:min(len(u.Seen), maxUnreadableContainers)], u.Accepted[:min(len(u.Accepted), maxUnreadableContainers)]
	var value []byte // nil deletes the record
	if len(u.Seen)+len(u.Accepted) > 0 {
		var err error
		if value, err = json.Marshal(u); err != nil {
			return err
		}
	}
	const op = "record unreadable containers"
	changed := true
	err := s.view(op, func(tx *bbolt.Tx) error {
		changed = !bytes.Equal(get(tx, bucketMeta, keyUnreadableContainers), value)
		return nil
	})
	if err != nil || !changed {
		return err
	}
	return s.update(op, func(c change) error { return c.write(bucketMeta, keyUnreadableContainers, value) })
}
