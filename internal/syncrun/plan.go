package syncrun

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// The kinds of a pass.
const (
	full  = "full"  // reads everything and settles what is missing
	delta = "delta" // reads what has changed
)

const (
	// overlap is how many sequence numbers below the watermark are read again: a
	// number is taken when a change begins, and nothing promises that all lower
	// ones are visible by then.
	overlap = 200
	// watermarkLife is how long a watermark is good for. Tombstones may be gone
	// after 60 days (MS-ADTS 6.1.1.2.4.1.1).
	watermarkLife = 30 * 24 * time.Hour
)

// astrayAtMost is up to how many objects are read again one by one because another
// domain controller's value of them was sent. It may have lagged behind this one,
// whose watermark is beyond the changes that it did not know.
const astrayAtMost = 10_000

// plan is what a pass is to do, and what was known before it.
type plan struct {
	kind        string // full, delta
	scope       string
	comparable  bool // the index was complete under this scope: what is missing has gone
	otherTarget bool // the index is of another target: a dry run looks past it
	size        int  // of the index

	followed   bool // the server's changes can be followed
	invocation ad.InvocationID
	since      ad.USN // of a delta

	unsettled []ad.GUID // of earlier runs: nobody knows what the gateway holds of them
	astray    []ad.GUID // what another domain controller has sent since this one was read
	rejected  map[ad.GUID]state.Rejection
	wasHeld   []ad.GUID // sorted
}

// decide chooses between a full pass and a delta. The update sequence number to be
// saved was read with the rootDSE, before any search.
func (p *pass) decide(ctx context.Context) error {
	p.kind = full
	p.scope = p.scopeName()
	last, err := p.Store.LastFullPass()
	if err != nil {
		return err
	}
	target, err := p.Store.Target()
	if err != nil {
		return err
	}
	p.otherTarget = target != p.Target
	if p.size, err = p.Store.Size(); err != nil {
		return err
	}
	root := p.session.RootDSE
	if root.IsDomainController() {
		p.invocation, err = p.session.InvocationID(ctx)
		if ctx.Err() != nil {
			return err
		}
		if p.followed = err == nil; !p.followed {
			p.log.Warn().Err(err).Msg(MsgInvocationIDUnreadable)
		}
	}
	if p.source.Posture {
		if err := p.recall(); err != nil {
			return err
		}
	}
	if p.wasHeld, err = p.Store.Held(); err != nil {
		return err
	}
	slices.SortFunc(p.wasHeld, byBytes)
	before, err := p.Store.LastRead()
	if err != nil {
		return err
	}
	// A controller may lag behind the one that was read before it: what it does not
	// show has not gone for that.
	switched := before != p.invocation
	p.comparable = last.Scope == p.scope && !p.otherTarget && !switched
	if !p.followed {
		return nil
	}
	if switched {
		if p.astray, err = p.Store.ReadFromOthers(p.invocation); err != nil {
			return err
		}
	}
	mark, err := p.Store.Watermark(p.invocation)
	if err != nil {
		return err
	}
	rejections, err := p.Store.Rejections()
	if err != nil {
		return err
	}
	p.rejected = map[ad.GUID]state.Rejection{}
	for _, r := range rejections {
		p.rejected[r.GUID] = r
	}
	why := p.whyFull(mark, last)
	if why == "" {
		p.kind, p.since = delta, max(mark.USN+1-overlap, 0)
		if p.unsettled, err = p.Store.Unsettled(); err != nil {
			return err
		}
	}
	event := p.log.Info().Str("mode", p.kind)
	if why != "" {
		event = event.Str("reason", why)
	}
	event.Stringer("invocation_id", p.invocation).
		Int64("usn", int64(root.HighestCommittedUSN)).Int64("since", int64(p.since)).Msg(MsgSyncPlanned)
	return nil
}

// whyFull says why a delta would not do; "" when it does.
func (p *pass) whyFull(mark state.Watermark, last state.FullPass) string {
	switch {
	case p.mode.Full:
		return ReasonRequested
	case p.mode.AllowDeletes:
		return ReasonRelease
	case p.otherTarget:
		return ReasonNewTarget
	case mark.At.IsZero():
		return ReasonNewController
	case mark.Scope != p.scope || last.Scope != p.scope:
		return ReasonScope
	case mark.USN > p.session.RootDSE.HighestCommittedUSN:
		return ReasonUSN
	case p.now.Sub(mark.At) > watermarkLife || p.now.Before(mark.At):
		return ReasonWatermark
	case p.now.Sub(last.At) >= p.FullInterval || p.now.Before(last.At):
		return ReasonFullInterval
	case p.source.Posture && !p.posture.known:
		return ReasonMemberships
	case p.source.Posture && p.posture.readAll:
		return ReasonAffected
	case len(p.astray) > astrayAtMost:
		return ReasonOtherController
	}
	return ""
}

// scopeName identifies what is read, and how it is mapped.
func (p *pass) scopeName() string {
	of := []any{
		identity.Version, p.source.Base, p.source.Scope, p.source.Posture,
		p.searches[0].filterOn(p.session.RootDSE), p.searches[1].filterOn(p.session.RootDSE), p.session.RootDSE.DefaultNamingContext,
	}
	if p.source.Posture {
		of = append(of, identity.PostureVersion)
	}
	encoded, err := json.Marshal(of)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:16])
}

// progress is what the pass has reached once everything is delivered.
func (p *pass) progress() state.Progress {
	reached := state.Progress{ReadAgain: p.source.Posture}
	if p.kind == full {
		reached.FullPass = &state.FullPass{Scope: p.scope, At: p.now.UTC()}
	}
	if p.followed {
		reached.InvocationID = p.invocation
		reached.Watermark = &state.Watermark{USN: p.session.RootDSE.HighestCommittedUSN, Scope: p.scope, At: p.now.UTC()}
	}
	return reached
}

// retryAfter is how long a rejected object is left alone by deltas, unless it
// changes: an hour, then twice as long each time, up to a day.
func retryAfter(attempts int) time.Duration {
	return min(time.Hour<<min(attempts-1, 5), 24*time.Hour)
}

// again lists the objects that a delta reads although they have not changed: their
// status has, by the clock, or the gateway may take them now, or its answer to an
// earlier run never came, or another domain controller's value was sent.
func (p *pass) again() ([]ad.GUID, error) {
	guids, err := p.Store.Due(p.now)
	if err != nil {
		return nil, err
	}
	for guid, r := range p.rejected {
		if p.now.Sub(r.At) >= retryAfter(r.Attempts) {
			guids = append(guids, guid)
		}
	}
	return slices.Concat(guids, p.unsettled, p.astray, p.posture.affected), nil
}
