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
	Now time.Time // of this host: for schedules and for the ages of what is recorded
	// DirectoryNow is the directory server's clock at the beginning of the run: for everything
	// that the server computes from its clock, such as an expiry. It is Now if it is unknown.
	DirectoryNow time.Time
	LeadingClock time.Time         // see state.Store.LeadingClock
	Full         bool              // requested
	Resend       state.ResendCause // why every object must be sent again; "": not required
	ReleaseHeld  bool              // requested: release held deletions
	FullInterval time.Duration
	Posture      bool

	View state.View // what the run reads

	DeltaSupported bool // the server is a domain controller with a known invocation ID
	HighestUSN     ad.USN
	// Reinstalled is whether the last run read the same domain controller under another invocation ID.
	Reinstalled bool
	// USNDecreased is whether the domain controller's highestCommittedUSN is lower than in an
	// earlier run. The controller was put back to a snapshot: it shows old values, and does not
	// have objects that still exist on others.
	USNDecreased bool

	SameTarget bool             // the state file belongs to this target
	IndexSize  int              // objects
	LastFull   state.FullSync   // with any server; zero: none
	Controller state.Controller // the progress with this server; zero: none
	Unseen     []ad.GUID        // objects that this server had not shown before, sorted
	MovedIn    []ad.GUID        // objects that moved into the scope and are to be sent again, sorted

	OtherViews     []ad.GUID                       // objects that later runs delivered or deleted under another view
	Unacknowledged []ad.GUID                       // objects of batches without a recorded response
	Rejected       map[ad.GUID]state.Rejection     // objects that the gateway rejected
	Held           []ad.GUID                       // objects whose deletion is held, sorted
	Undecided      map[ad.GUID]state.UndecidedMark // objects whose deletion is undecided

	PDCEmulator    ad.InvocationID // at the last full sync that asked for logons; zero: unknown
	LogonsNotAsked bool            // the other domain controllers are to be asked for logons, and never were

	MembershipsStored bool // the state file contains the memberships
	RereadAll         bool // changed memberships require that all objects are read again
}

// takeSnapshot collects the input of the plan.
func (r *Runner) takeSnapshot(info runInfo, source Source, session *session, stored storedMemberships) (s Snapshot, err error) {
	root := session.RootDSE
	s = Snapshot{
		Now: info.start, DirectoryNow: directoryNow(root, info.start), Full: info.options.Full, ReleaseHeld: info.options.AllowDeletes, FullInterval: r.FullInterval,
		Posture: source.Posture, HighestUSN: root.HighestCommittedUSN,
		View:              state.View{InvocationID: session.Controller.InvocationID, Unknown: session.InvocationErr != nil, Scope: scopeID(r.Search, source, root)},
		MembershipsStored: stored.exist, RereadAll: stored.rereadAll,
	}
	s.DeltaSupported = root.IsDomainController() && !s.View.Unknown
	if s.View.Unknown {
		info.log.Warn().EmbedObject(fault.Fields(session.InvocationErr)).Msg(MsgInvocationIDUnreadable)
	}
	target, err := r.Store.Target()
	if err != nil {
		return s, err
	}
	if s.Resend, err = r.pendingResend(info); err != nil {
		return s, err
	}
	if s.LeadingClock, err = r.Store.LeadingClock(); err != nil {
		return s, err
	}
	if s.SameTarget = target == r.recordedTarget() || target == r.Target; s.SameTarget {
		if s.IndexSize, err = r.Store.IndexSize(); err != nil {
			return s, err
		}
	}
	if s.MovedIn, err = r.Store.MovedIn(); err != nil {
		return s, err
	}
	if r.LastLogon == LastLogonAllControllers {
		sweep, err := r.Store.LogonSweep()
		if err != nil {
			return s, err
		}
		s.LogonsNotAsked, s.PDCEmulator = sweep.At.IsZero(), sweep.PDCEmulator
	}
	if err := r.addController(&s, session); err != nil {
		return s, err
	}
	if err := r.addDeletions(&s); err != nil {
		return s, err
	}
	if s.DeltaSupported {
		err = r.addDeltaInput(&s)
	}
	return s, err
}

// addController adds the progress with the server.
func (r *Runner) addController(s *Snapshot, session *session) (err error) {
	if s.LastFull, err = r.Store.LastFullSync(); err != nil || s.View.Unknown {
		return err
	}
	if s.Controller, err = r.Store.Controller(s.View.InvocationID); err != nil {
		return err
	}
	if s.Controller.Watermark.USN == 0 {
		last, _, err := r.Store.LastServers()
		if err != nil {
			return err
		}
		s.Reinstalled = last.ServiceName != "" && last.ServiceName == session.Controller.ServiceName && last.InvocationID != s.View.InvocationID
	}
	s.View.Rollbacks = s.Controller.Rollbacks
	if s.USNDecreased = s.Controller.Watermark.USN > s.HighestUSN; s.USNDecreased {
		s.View.Rollbacks++
	}
	s.Unseen, err = r.Store.Unseen(s.View.InvocationID)
	return err
}

// movedIn reports whether an object that is not in the index existed when this connector last
// read the scope. It moved into the scope since, or was restored. Another connection that had it
// in its scope reports it as deleted, at its next full sync at the latest. created is the
// object's whenCreated.
//
// A full sync of another scope proves nothing: the object may have been outside of it.
func (s Snapshot) movedIn(created []byte) bool {
	if s.LastFull.Scope != s.View.Scope {
		return false
	}
	lastRead := s.LastFull.At
	if watermark := s.Controller.Watermark; watermark.Scope == s.View.Scope && watermark.At.After(lastRead) {
		lastRead = watermark.At
	}
	if ahead := s.DirectoryNow.Sub(s.Now); ahead > 0 { // created is by the directory's clock
		lastRead = lastRead.Add(ahead)
	}
	at, ok := ad.ParseGeneralizedTime(created) // in whole seconds, rounded down
	return ok && !at.Add(time.Second).After(lastRead)
}

// addDeletions adds the held and the undecided deletions.
func (r *Runner) addDeletions(s *Snapshot) error {
	held, _, err := r.Store.HeldDeletions(-1) // sorted
	if err != nil {
		return err
	}
	for _, deletion := range held {
		s.Held = append(s.Held, deletion.GUID)
	}
	s.Undecided, err = r.Store.UndecidedMarks()
	return err
}

// addDeltaInput adds the input that only delta syncs need.
func (r *Runner) addDeltaInput(s *Snapshot) (err error) {
	if s.OtherViews, err = r.Store.DeliveredSince(s.Controller.Watermark.Run, s.View); err != nil {
		return err
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

// scopeID returns an identifier of what is read from a server and how it is mapped. On a domain
// controller, all forms of a base DN have the same one: names of objects there ignore case.
func scopeID(search SearchOptions, source Source, root directory.RootDSE) string {
	base := source.Base
	if root.IsDomainController() {
		base = directory.NormalizeDN(base)
	}
	parts := []any{
		identity.Version, base, source.Scope, source.Posture,
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
