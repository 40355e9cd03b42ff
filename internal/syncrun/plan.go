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
	// maxFromOtherController is the maximum number of objects that a delta sync reads again
	// because another domain controller was their last source. That controller may have
	// lagged behind this one, and this one's watermark is past the changes it lacked.
	maxFromOtherController = 10_000
)

// Plan is what a run reads.
type Plan struct {
	Mode     string // full, delta
	Reason   string // of a full sync
	SinceUSN ad.USN // of a delta sync
	// AbsenceProvesDeletion is whether an indexed object that a full sync does not find is
	// deleted. That requires an index that was complete for this scope and controller.
	AbsenceProvesDeletion bool
	// TrackSeen is whether to keep the GUIDs of the objects read, to find deleted objects.
	TrackSeen bool
}

// MakePlan chooses between a full sync and a delta sync.
func MakePlan(s Snapshot) Plan {
	p := Plan{
		Mode:   full,
		Reason: reasonForFull(s),
		// A controller may lag behind the one read before it. An object that it does not
		// have may not be replicated yet.
		AbsenceProvesDeletion: s.LastFull.Scope == s.Scope && s.SameTarget && s.SameController,
	}
	if p.Reason == "" {
		p.Mode, p.SinceUSN = delta, max(s.Watermark.USN+1-overlap, 0)
	}
	p.TrackSeen = p.Mode == delta || p.AbsenceProvesDeletion || len(s.Held) > 0
	return p
}

// withFullSync returns the plan changed from a delta sync to a full sync.
func (p Plan) withFullSync(reason string) Plan {
	p.Mode, p.Reason, p.SinceUSN = full, reason, 0
	return p
}

// reasonForFull returns why a full sync is required; "" if a delta sync is sufficient.
func reasonForFull(s Snapshot) string {
	switch {
	case !s.DeltaSupported:
		return ReasonDeltaUnsupported
	case s.Full:
		return ReasonRequested
	case s.ReleaseHeld:
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
	case s.Posture && !s.MembershipsStored:
		return ReasonMemberships
	case s.Posture && s.RereadAll:
		return ReasonAffected
	case len(s.FromOtherController) > maxFromOtherController:
		return ReasonOtherController
	}
	return ""
}

// progress returns the progress to record after everything was delivered.
func (p Plan) progress(s Snapshot) state.Progress {
	progress := state.Progress{ClearStale: s.Posture}
	if p.Mode == full {
		progress.FullSync = &state.FullSync{Scope: s.Scope, At: s.Now}
	}
	if s.DeltaSupported {
		progress.InvocationID = s.InvocationID
		progress.Watermark = &state.Watermark{USN: s.HighestUSN, Scope: s.Scope, At: s.Now}
	}
	return progress
}

func logPlan(log zerolog.Logger, s Snapshot, p Plan) {
	event := log.Info().Str("mode", p.Mode)
	if p.Reason != "" {
		event.Str("reason", p.Reason)
	}
	if s.DeltaSupported {
		event.Stringer("invocation_id", s.InvocationID).Int64("usn", int64(s.HighestUSN))
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
