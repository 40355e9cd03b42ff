package state

import (
	"cmp"
	"slices"
	"time"
)

// The subjects of an Expiry.
const (
	DirectoryCertificate = "directory certificate"
	GatewayCertificate   = "gateway certificate"
	BindPassword         = "bind password"
)

// Expiry is when a certificate or a password expires on which the connector depends.
type Expiry struct {
	Subject string `json:"subject"`
	// Name is the address of the certificate's server. Of a password, it is a hash of the account's
	// name, because the connection is not written to disk.
	Name     string    `json:"name"`
	Issuer   string    `json:"issuer,omitempty"` // of a certificate
	At       time.Time `json:"at,omitzero"`      // zero: never, or unknown
	Remedy   string    `json:"remedy"`
	NotedAt  time.Time `json:"noted_at"`           // when it was read
	LoggedAt time.Time `json:"logged_at,omitzero"` // when it was last logged as urgent
}

// Urgency is how urgent an Expiry is.
type Urgency int

// The urgencies.
const (
	NotUrgent Urgency = iota
	ExpiryNotice
	ExpiryWarning
)

const (
	expiryNotice  = 30 * 24 * time.Hour
	expiryWarning = 14 * 24 * time.Hour
	// ExpiryInterval is the time after which an expiry is read and logged again.
	ExpiryInterval = 24 * time.Hour
	// expiryMemory is how long the certificate of a directory server counts that was not seen since.
	expiryMemory = 7 * 24 * time.Hour
	maxExpiries  = 50
)

// UrgencyOf returns the urgency of an expiry: a notice from 30 days before it, and a warning from 14
// days before it. The zero time is not urgent.
func UrgencyOf(at, now time.Time) Urgency {
	switch remaining := at.Sub(now); {
	case at.IsZero() || remaining > expiryNotice:
		return NotUrgent
	case remaining > expiryWarning:
		return ExpiryNotice
	}
	return ExpiryWarning
}

// MergeExpiries returns the recorded expiries with those that a run has read, in a fixed order, and
// whether they are to be recorded: because one of them has changed, or was recorded a day ago. Of the
// gateway and the account there is one, of directory servers those of the last week.
func MergeExpiries(recorded, read []Expiry, now time.Time) (merged []Expiry, changed bool) {
	for _, r := range read {
		at := slices.IndexFunc(recorded, func(e Expiry) bool { return e.Subject == r.Subject && e.Name == r.Name })
		if at < 0 {
			changed, merged = true, append(merged, r)
			continue
		}
		before := recorded[at]
		if before.At.Equal(r.At) {
			r.LoggedAt = before.LoggedAt
		}
		changed = changed || !before.At.Equal(r.At) || before.Issuer != r.Issuer || before.Remedy != r.Remedy || r.NotedAt.Sub(before.NotedAt).Abs() >= ExpiryInterval
		merged = append(merged, r)
	}
	for _, e := range recorded {
		isRead := func(r Expiry) bool {
			return r.Subject == e.Subject && (r.Name == e.Name || e.Subject != DirectoryCertificate)
		}
		switch {
		case slices.ContainsFunc(read, isRead):
		case e.Subject == DirectoryCertificate && now.Sub(e.NotedAt) > expiryMemory:
			changed = true
		default:
			merged = append(merged, e)
		}
	}
	// The earliest come first, so that they stay if there are too many.
	slices.SortStableFunc(merged, func(a, b Expiry) int {
		return cmp.Or(cmp.Compare(boolInt(a.At.IsZero()), boolInt(b.At.IsZero())), a.At.Compare(b.At), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Name, b.Name))
	})
	return merged[:min(len(merged), maxExpiries)], changed
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Expiries returns the recorded expiries, the earliest first.
func (s *Store) Expiries() ([]Expiry, error) {
	return readMeta[[]Expiry](s, "read expiries", keyExpiries)
}

// SetExpiries records the expiries.
func (s *Store) SetExpiries(expiries []Expiry) error {
	return s.update("record expiries", func(c change) error { return c.putJSON(bucketMeta, keyExpiries, expiries) })
}
