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
	s.mergeMu.Lock()
	defer s.mergeMu.Unlock()
	err := s.update("change target", func(c change) error {
		c.index.committed = func(u *unmerged) { *u = newUnmerged() }
		for _, name := range append(optionalBuckets, bucketIndex, bucketInFlight, bucketRecheck, bucketRejections, bucketHeld,
			bucketViews, bucketDeleted, bucketControllers, bucketUnseen) {
			if err := c.empty(name); err != nil {
				return err
			}
		}
		for _, key := range [][]byte{keyFullSync, keyReadable, keyGraph, keyRemedies, keyKnownFrom, keyResend, keyLeadingClock, keyLogonSweep, keyContainers, keyUnreadable, keyUnreadableContainers} {
			if err := c.delete(bucketMeta, key); err != nil {
				return err
			}
		}
		if err := c.setVersion(currentVersion); err != nil { // there is no journal
			return err
		}
		return c.put(bucketMeta, keyTarget, []byte(target))
	})
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.inFlight)
		s.knownFrom.Store(0) // run numbers begin again
	}
	return err
}

// AdoptTarget records another name of the same upload target.
func (s *Store) AdoptTarget(target string) error {
	return s.update("record target", func(c change) error { return c.put(bucketMeta, keyTarget, []byte(target)) })
}

// RateLimit is a rate limit of the gateway, as recorded for a restarted process.
type RateLimit struct {
	Target  string    `json:"target"` // to which it applies, as in ChangeTarget
	NotedAt time.Time `json:"noted_at"`
	Until   time.Time `json:"until"`
}

// End returns the end of a rate limit that still applies to a target, or else the zero time.
// A limit noted in the future does not apply: the clock was ahead then, so its end is unknown.
func (l RateLimit) End(target string, now time.Time) time.Time {
	if l.Target != target || l.NotedAt.After(now) || !l.Until.After(now) {
		return time.Time{}
	}
	return l.Until
}

// RateLimit returns the last recorded rate limit, or the zero value. It ignores the limits of
// version 1.0.0, whose target and time are unknown.
func (s *Store) RateLimit() (RateLimit, error) {
	return readMeta[RateLimit](s, "read rate limit", keyLimit)
}

// SetRateLimit records a rate limit of the gateway.
func (s *Store) SetRateLimit(limit RateLimit) error {
	return s.update("record rate limit", func(c change) error {
		if err := c.delete(bucketMeta, keyLimitV1); err != nil {
			return err
		}
		return c.putJSON(bucketMeta, keyLimit, limit)
	})
}

// ConcurrencyLimit is a limit of the gateway on concurrent calls, as recorded for a restarted
// process.
type ConcurrencyLimit struct {
	Target  string    `json:"target"`   // to which it applies, as in ChangeTarget
	NotedAt time.Time `json:"noted_at"` // time of the last refusal, or of the last raise
	Calls   int       `json:"calls"`    // maximum number of concurrent calls; 0: no limit
}

// CallsTo returns the maximum number of concurrent calls to a target, or 0 if there is no limit.
// A limit noted in the future does not apply, as with RateLimit.
func (l ConcurrencyLimit) CallsTo(target string, now time.Time) int {
	if l.Target != target || l.NotedAt.After(now) {
		return 0
	}
	return l.Calls
}

// ConcurrencyLimit returns the last recorded limit on concurrent calls, or the zero value.
func (s *Store) ConcurrencyLimit() (ConcurrencyLimit, error) {
	return readMeta[ConcurrencyLimit](s, "read concurrency limit", keyWorkers)
}

// SetConcurrencyLimit records a limit on concurrent calls.
func (s *Store) SetConcurrencyLimit(limit ConcurrencyLimit) error {
	return s.update("record concurrency limit", func(c change) error { return c.putJSON(bucketMeta, keyWorkers, limit) })
}
