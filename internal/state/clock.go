package state

import "time"

// LeadingClock returns the latest clock of a directory server that was far ahead of this
// host's in a run since the last full sync. It is zero if there was none.
func (s *Store) LeadingClock() (time.Time, error) {
	return readMeta[time.Time](s, "read leading clock", keyLeadingClock)
}

// SetLeadingClock records a leading clock. The zero time deletes it.
func (s *Store) SetLeadingClock(clock time.Time) error {
	return s.update("record leading clock", func(c change) error {
		if clock.IsZero() {
			return c.delete(bucketMeta, keyLeadingClock)
		}
		return c.putJSON(bucketMeta, keyLeadingClock, clock.UTC())
	})
}
