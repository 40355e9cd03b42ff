package syncrun

import (
	"time"

	"adconnector/internal/directory"
)

// maxClockLead is how far the directory's clock may be ahead of this host's, or be set back,
// without consequences. It is the default tolerance of Kerberos. For as long, an expiry may be
// found too early.
const maxClockLead = 5 * time.Minute

// maxRecheckDelay is for how long after its recheck time each run searches an object that the
// server does not show.
const maxRecheckDelay = time.Hour

// directoryNow returns the clock of a directory server, or that of this host if the server has
// none.
func directoryNow(root directory.RootDSE, host time.Time) time.Time {
	if root.CurrentTime.IsZero() {
		return host
	}
	return root.CurrentTime
}

// isClockLeading reports whether the directory's clock is far ahead of this host's. If it is
// wrong, the run delivers expiries that are not due, and finds no such object again after the
// clock is corrected: no update sequence number changes, and no recheck time is left.
func isClockLeading(s Snapshot) bool { return s.DirectoryNow.Sub(s.Now) > maxClockLead }

// isClockSetBack reports whether the directory's clock was set back after a run with a leading
// clock.
func isClockSetBack(s Snapshot) bool { return s.LeadingClock.Sub(s.DirectoryNow) > maxClockLead }

// recordLeadingClock records a leading clock before anything is delivered.
func (r *Runner) recordLeadingClock(s Snapshot) error {
	if !isClockLeading(s) || !s.DirectoryNow.After(s.LeadingClock) {
		return nil
	}
	return r.Store.SetLeadingClock(s.DirectoryNow)
}

// forgetLeadingClock forgets the leading clocks of earlier runs after a full sync, which has
// delivered every object by the present clock.
func (r *Runner) forgetLeadingClock(s Snapshot, p Plan) error {
	if p.Mode != full || s.LeadingClock.IsZero() {
		return nil
	}
	if isClockLeading(s) {
		return r.Store.SetLeadingClock(s.DirectoryNow)
	}
	return r.Store.SetLeadingClock(time.Time{})
}
