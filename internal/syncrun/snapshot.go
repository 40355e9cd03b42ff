package syncrun

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// Snapshot is the input of the plan: the options of the run, the directory server's
// identity, and the content of the state file.
type Snapshot struct {
	Now          time.Time
	Full         bool // requested
	ReleaseHeld  bool // requested: release held deletions
	FullInterval time.Duration
	Posture      bool
	Scope        string // identifies what is read and how it is mapped

	DeltaSupported bool // the server has an invocation ID
	InvocationID   ad.InvocationID
	HighestUSN     ad.USN

	SameTarget     bool            // the state file belongs to this target
	SameController bool            // the last run read this server
	IndexSize      int             // objects
	LastFull       state.FullSync  // zero: none
	Watermark      state.Watermark // of this server; zero: none

	FromOtherController []ad.GUID                   // objects last read from another server; empty if SameController
	Unacknowledged      []ad.GUID                   // objects of batches without a recorded response
	Rejected            map[ad.GUID]state.Rejection // objects that the gateway rejected
	Held                []ad.GUID                   // objects whose deletion is held, sorted

	MembershipsStored bool // the state file contains the memberships
	RereadAll         bool // changed memberships require that all objects are read again
}

// takeSnapshot collects the input of the plan.
func (r *Runner) takeSnapshot(info runInfo, source Source, session *session, stored storedMemberships) (s Snapshot, err error) {
	root := session.RootDSE
	s = Snapshot{
		Now: info.start, Full: info.options.Full, ReleaseHeld: info.options.AllowDeletes, FullInterval: r.FullInterval,
		Posture: source.Posture, Scope: scopeID(r.Search, source, root), HighestUSN: root.HighestCommittedUSN,
		MembershipsStored: stored.exist, RereadAll: stored.rereadAll,
	}
	s.InvocationID, s.DeltaSupported = readInvocationID(session)
	target, err := r.Store.Target()
	if err != nil {
		return s, err
	}
	s.SameTarget = target == r.Target
	last, err := r.Store.LastController()
	if err != nil {
		return s, err
	}
	s.SameController = last == s.InvocationID
	if s.IndexSize, err = r.Store.IndexSize(); err != nil {
		return s, err
	}
	if s.LastFull, err = r.Store.LastFullSync(); err != nil {
		return s, err
	}
	held, _, err := r.Store.HeldDeletions(-1) // sorted
	if err != nil {
		return s, err
	}
	for _, deletion := range held {
		s.Held = append(s.Held, deletion.GUID)
	}
	if s.DeltaSupported {
		err = r.addDeltaInput(&s)
	}
	return s, err
}

// addDeltaInput adds the input that only delta syncs need.
func (r *Runner) addDeltaInput(s *Snapshot) (err error) {
	if s.Watermark, err = r.Store.Watermark(s.InvocationID); err != nil {
		return err
	}
	if !s.SameController {
		if s.FromOtherController, err = r.Store.ReadFromOtherControllers(s.InvocationID); err != nil {
			return err
		}
	}
	if s.Unacknowledged, err = r.Store.InFlightObjects(); err != nil {
		return err
	}
	rejections, _, err := r.Store.Rejections(-1)
	s.Rejected = make(map[ad.GUID]state.Rejection, len(rejections))
	for _, rejection := range rejections {
		s.Rejected[rejection.GUID] = rejection
	}
	return err
}

// readInvocationID returns the server's invocation ID. ok is false if the server does not
// support delta syncs.
func readInvocationID(session *session) (id ad.InvocationID, ok bool) {
	if !session.RootDSE.IsDomainController() {
		return id, false
	}
	if err := session.InvocationErr; err != nil {
		session.log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgInvocationIDUnreadable)
		return id, false
	}
	return session.Controller.InvocationID, true
}

// scopeID returns an identifier of what is read from a server and how it is mapped.
func scopeID(search SearchOptions, source Source, root directory.RootDSE) string {
	parts := []any{
		identity.Version, source.Base, source.Scope, source.Posture,
		search.Filter(identity.User, root), search.Filter(identity.Group, root), root.DefaultNamingContext,
	}
	if source.Posture {
		parts = append(parts, identity.PostureVersion)
	}
	encoded, err := json.Marshal(parts)
	if err != nil {
		panic(err) // cannot happen: strings, numbers and booleans are always encodable
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:16])
}
