package syncrun

import (
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/state"
)

const (
	// overlap is how many USNs below the watermark a delta sync reads again. A USN is
	// assigned when a change begins, so lower USNs may become visible later.
	overlap = 200
	// watermarkLife is how long a watermark is valid. Tombstones may expire after 60 days
	// (MS-ADTS 6.1.1.2.4.1.1).
	watermarkLife = 30 * 24 * time.Hour
	// maxReread is the maximum number of objects that a run reads again by their GUIDs, for
	// example because a later run delivered them under another view. For more objects, a full
	// sync is faster.
	maxReread = 10_000
)

// Plan is what a run reads.
type Plan struct {
	Mode     string // full, delta
	Reason   string // of a full sync
	SinceUSN ad.USN // of a delta sync
	// Doubt is why the absence of an object proves nothing; "": it does if the server has shown
	// the object before.
	Doubt state.UndecidedReason
	// TrackSeen is whether to keep the GUIDs of the objects read, to find deleted objects.
	TrackSeen bool
}

// MakePlan chooses between a full sync and a delta sync.
func MakePlan(s Snapshot) Plan {
	p := Plan{Mode: full, Reason: reasonForFull(s), Doubt: doubt(s)}
	if p.Reason == "" {
		p.Mode, p.SinceUSN = delta, max(s.Controller.Watermark.USN+1-overlap, 0)
	}
	p.TrackSeen = p.Mode == delta || s.IndexSize > 0
	return p
}

// doubt returns why the absence of objects from the server proves nothing.
func doubt(s Snapshot) state.UndecidedReason {
	switch {
	case s.View.Unknown:
		return UndecidedInvocationID
	case s.USNDecreased:
		return UndecidedRollback
	}
	return ""
}

// withFullSync returns the plan changed from a delta sync to a full sync.
func (p Plan) withFullSync(reason string) Plan {
	p.Mode, p.Reason, p.SinceUSN = full, reason, 0
	return p
}

// reasonForFull returns why a full sync is required; "" if a delta sync is sufficient.
func reasonForFull(s Snapshot) string {
	watermark := s.Controller.Watermark
	switch {
	case s.Resend == state.ResendRestored:
		return ReasonRestored
	case s.Resend != "":
		return ReasonResend
	case s.View.Unknown:
		return ReasonInvocationID
	case !s.DeltaSupported:
		return ReasonDeltaUnsupported
	case s.Full:
		return ReasonRequested
	case s.ReleaseHeld:
		return ReasonRelease
	case !s.SameTarget:
		return ReasonNewTarget
	case watermark.USN == 0:
		return reasonWithoutWatermark(s)
	case watermark.Scope != s.View.Scope || s.LastFull.Scope != s.View.Scope:
		return ReasonScope
	case s.USNDecreased:
		return ReasonUSN
	case s.Now.Sub(watermark.At) > watermarkLife || s.Now.Before(watermark.At):
		return ReasonWatermark
	case s.Now.Sub(s.LastFull.At) >= s.FullInterval || s.Now.Before(s.LastFull.At):
		return ReasonFullInterval
	case s.LogonsNotAsked:
		return ReasonLogons
	case isClockSetBack(s):
		return ReasonClock
	case s.Posture && !s.MembershipsStored:
		return ReasonMemberships
	case s.Posture && s.RereadAll:
		return ReasonAffected
	case len(s.OtherViews) > maxReread:
		return ReasonOtherViews
	}
	return ""
}

// reasonWithoutWatermark returns why the domain controller has no watermark.
func reasonWithoutWatermark(s Snapshot) string {
	switch {
	case s.LastFull.At.IsZero():
		return ReasonFirst
	case s.Controller.Rollbacks > 0:
		return ReasonUSN
	case s.Reinstalled:
		return ReasonReinstalled
	}
	return ReasonNewController
}

// progress returns the progress to record after everything was delivered.
func (p Plan) progress(s Snapshot) state.Progress {
	progress := state.Progress{View: s.View, At: s.Now, FullSync: p.Mode == full, ClearStale: s.Posture, DropGraph: p.Mode == full && !s.Posture}
	if s.DeltaSupported {
		progress.USN = s.HighestUSN
	}
	return progress
}

func logPlan(log zerolog.Logger, s Snapshot, p Plan) {
	event := log.Info().Str("mode", p.Mode)
	if p.Reason != "" {
		event.Str("reason", p.Reason)
	}
	if s.DeltaSupported {
		event.Stringer("invocation_id", s.View.InvocationID).Int64("usn", int64(s.HighestUSN))
	}
	if p.Mode == delta {
		event.Int64("since", int64(p.SinceUSN))
	}
	event.Msg(MsgSyncPlanned)
}

// retryDelay returns how long delta syncs wait before they send an unchanged rejected object
// again: an hour, doubled after each attempt, up to a day.
func retryDelay(attempts int) time.Duration {
	return min(time.Hour<<min(attempts-1, 5), 24*time.Hour)
}
