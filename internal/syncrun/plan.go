package syncrun

import (
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/state"
)

const (
	// overlap is how many sequence numbers below the watermark are read again: a number
	// is assigned when a change begins, and nothing promises that all lower ones are
	// visible by then.
	overlap = 200
	// watermarkLife is how long a watermark is valid. Tombstones may be gone after 60 days
	// (MS-ADTS 6.1.1.2.4.1.1).
	watermarkLife = 30 * 24 * time.Hour
	// fromOthersAtMost is up to how many objects are read again one by one because they
	// were last sent as another domain controller shows them. It may lag behind this one,
	// whose watermark is beyond the changes that the other one did not have.
	fromOthersAtMost = 10_000
)

// Plan is what a run reads.
type Plan struct {
	Mode   string // full, delta
	Reason string // of a full sync
	Since  ad.USN // of a delta
	// ProvesAbsence is whether an object of the index that a full sync does not show is
	// deleted: the index was complete under this scope, on this server.
	ProvesAbsence bool
	// NoteSeen is whether the objects that are read have to be remembered, since that
	// can tell what is deleted.
	NoteSeen bool
}

// MakePlan chooses between a full sync and a delta.
func MakePlan(s Snapshot) Plan {
	p := Plan{
		Mode:   full,
		Reason: reasonForFull(s),
		// A server may lag behind the one that was read before it: what it does not show is
		// not deleted for that.
		ProvesAbsence: s.LastFull.Scope == s.Scope && s.SameTarget && s.LastRead,
	}
	if p.Reason == "" {
		p.Mode, p.Since = delta, max(s.Watermark.USN+1-overlap, 0)
	}
	p.NoteSeen = p.Mode == delta || p.ProvesAbsence || len(s.Held) > 0
	return p
}

// asFull returns the plan of a full sync in place of a delta.
func (p Plan) asFull(reason string) Plan {
	p.Mode, p.Reason, p.Since = full, reason, 0
	return p
}

// reasonForFull returns why a delta is not enough; "" where it is.
func reasonForFull(s Snapshot) string {
	switch {
	case !s.Followed:
		return ReasonNotFollowed
	case s.Full:
		return ReasonRequested
	case s.Release:
		return ReasonRelease
	case !s.SameTarget:
		return ReasonNewTarget
	case s.Watermark.At.IsZero():
		return ReasonNewController
	case s.Watermark.Scope != s.Scope || s.LastFull.Scope != s.Scope:
		return ReasonScope
	case s.Watermark.USN > s.HighestUSN:
		return ReasonUSN
	case s.Now.Sub(s.Watermark.At) > watermarkLife || s.Now.Before(s.Watermark.At):
		return ReasonWatermark
	case s.Now.Sub(s.LastFull.At) >= s.FullInterval || s.Now.Before(s.LastFull.At):
		return ReasonFullInterval
	case s.Posture && !s.MembershipsKnown:
		return ReasonMemberships
	case s.Posture && s.EverythingStale:
		return ReasonAffected
	case len(s.FromOthers) > fromOthersAtMost:
		return ReasonOtherController
	}
	return ""
}

// progress is how far a run got, once everything is delivered.
func (p Plan) progress(s Snapshot) state.Progress {
	reached := state.Progress{ClearStale: s.Posture}
	if p.Mode == full {
		reached.FullSync = &state.FullSync{Scope: s.Scope, At: s.Now}
	}
	if s.Followed {
		reached.InvocationID = s.InvocationID
		reached.Watermark = &state.Watermark{USN: s.HighestUSN, Scope: s.Scope, At: s.Now}
	}
	return reached
}

func logPlan(log zerolog.Logger, s Snapshot, p Plan) {
	event := log.Info().Str("mode", p.Mode)
	if p.Reason != "" {
		event.Str("reason", p.Reason)
	}
	if s.Followed {
		event.Stringer("invocation_id", s.InvocationID).Int64("usn", int64(s.HighestUSN))
	}
	if p.Mode == delta {
		event.Int64("since", int64(p.Since))
	}
	event.Msg(MsgSyncPlanned)
}

// retryAfter is how long a delta leaves a rejected object that does not change: an hour,
// then twice as long each time, up to a day.
func retryAfter(attempts int) time.Duration {
	return min(time.Hour<<min(attempts-1, 5), 24*time.Hour)
}
