package syncrun

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// Snapshot is what is known before a run reads: what was asked for, what the domain
// controller says of itself, and what the state file holds.
type Snapshot struct {
	Now          time.Time
	Full         bool // requested
	Release      bool // of held deletions, requested
	FullInterval time.Duration
	Posture      bool
	Scope        string // identifies what is read and how it is mapped

	Followed     bool // the server's changes can be followed: it has an invocation ID
	InvocationID ad.InvocationID
	HighestUSN   ad.USN

	SameTarget bool            // the state file is of deliveries to this target
	IndexSize  int             // objects
	LastFull   state.FullSync  // zero: none
	LastRead   bool            // this server was the last one to be read
	Watermark  state.Watermark // of this server; zero: none

	FromOthers []ad.GUID                   // objects last sent from another server, unless LastRead
	Unanswered []ad.GUID                   // objects of batches whose answer never came
	Rejected   map[ad.GUID]state.Rejection // objects that the gateway rejects
	Held       []ad.GUID                   // objects whose deletion is held, sorted

	MembershipsKnown bool // the state file has the memberships
	EverythingStale  bool // everything must be read again since memberships changed
}

// takeSnapshot gathers what a plan is made of.
func (r *Runner) takeSnapshot(ctx context.Context, t task, source Source, session *session, stored storedMemberships) (s Snapshot, err error) {
	root := session.RootDSE
	s = Snapshot{
		Now: t.start, Full: t.mode.Full, Release: t.mode.AllowDeletes, FullInterval: r.FullInterval,
		Posture: source.Posture, Scope: scopeOf(r.Search, source, root), HighestUSN: root.HighestCommittedUSN,
		MembershipsKnown: stored.known, EverythingStale: stored.everythingStale,
	}
	if s.InvocationID, s.Followed, err = readInvocationID(ctx, session); err != nil {
		return s, err
	}
	target, err := r.Store.Target()
	if err != nil {
		return s, err
	}
	s.SameTarget = target == r.Target
	last, err := r.Store.LastController()
	if err != nil {
		return s, err
	}
	s.LastRead = last == s.InvocationID
	if s.IndexSize, err = r.Store.IndexSize(); err != nil {
		return s, err
	}
	if s.LastFull, err = r.Store.LastFullSync(); err != nil {
		return s, err
	}
	if s.Held, err = r.Store.HeldDeletions(); err != nil {
		return s, err
	}
	slices.SortFunc(s.Held, byBytes)
	if s.Followed {
		err = r.addChanges(&s)
	}
	return s, err
}

// addChanges adds what matters only where changes can be followed.
func (r *Runner) addChanges(s *Snapshot) (err error) {
	if s.Watermark, err = r.Store.Watermark(s.InvocationID); err != nil {
		return err
	}
	if !s.LastRead {
		if s.FromOthers, err = r.Store.ReadFromOtherControllers(s.InvocationID); err != nil {
			return err
		}
	}
	if s.Unanswered, err = r.Store.InFlightObjects(); err != nil {
		return err
	}
	rejections, err := r.Store.Rejections()
	s.Rejected = make(map[ad.GUID]state.Rejection, len(rejections))
	for _, rejection := range rejections {
		s.Rejected[rejection.GUID] = rejection
	}
	return err
}

// readInvocationID returns false where the server's changes cannot be followed.
func readInvocationID(ctx context.Context, session *session) (id ad.InvocationID, followed bool, err error) {
	if !session.RootDSE.IsDomainController() {
		return id, false, nil
	}
	id, err = session.InvocationID(ctx)
	switch {
	case err == nil:
		return id, true, nil
	case ctx.Err() != nil:
		return id, false, err
	}
	session.log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgInvocationIDUnreadable)
	return ad.InvocationID{}, false, nil
}

// scopeOf identifies what is read from a server, and how it is mapped.
func scopeOf(search Search, source Source, root directory.RootDSE) string {
	parts := []any{
		identity.Version, source.Base, source.Scope, source.Posture,
		search.Filter(identity.User, root), search.Filter(identity.Group, root), root.DefaultNamingContext,
	}
	if source.Posture {
		parts = append(parts, identity.PostureVersion)
	}
	encoded, err := json.Marshal(parts)
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:16])
}
