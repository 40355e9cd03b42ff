package syncrun

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/membership"
	"adconnector/internal/state"
)

// Security posture begins with the graph of memberships, of the whole domain: a group
// outside the profile's base gives its members privileges, too. A full sync reads all of it,
// a delta what changed. Each object of which the new graph says something else than the
// stored one is read again, so that a change of a group reaches everything that it affects
// in the run that reads it.

// defaultAffectedAtMost is up to how many objects are read again one by one because of
// changed memberships. Beyond, reading everything is faster.
const defaultAffectedAtMost = 10_000

// storedMemberships are the memberships of the last run.
type storedMemberships struct {
	graph           *membership.Graph
	digests         []uint64
	source          state.GraphSource
	known           bool // there were some
	unreadable      bool // there were some that cannot be read
	affected        []ad.GUID
	everythingStale bool
}

// loadMemberships reads the stored memberships, with posture.
func loadMemberships(store *state.Store, source Source, log zerolog.Logger) (m storedMemberships, err error) {
	if !source.Posture {
		return m, nil
	}
	m.graph = membership.New()
	m.source, m.known, err = store.ReadGraph(m.graph.RestoreObject, m.graph.RestoreGroup)
	if errors.Is(err, membership.ErrRecord) {
		log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgMembershipsUnreadable)
		m.graph, m.known, m.unreadable, err = membership.New(), false, true, nil
	}
	if err != nil {
		return m, err
	}
	m.graph.Restored()
	m.graph.Compute()
	m.digests = m.graph.Digests()
	m.affected, m.everythingStale, err = store.StaleObjects()
	return m, err
}

// memberships are those of this run.
type memberships struct {
	graph    *membership.Graph
	partial  bool      // the server shows members without identifiers
	affected []ad.GUID // objects to read again
	// unidentified are the roles of groups whose SID cannot be read: they still exist.
	unidentified []ad.GUID
}

// membershipSync brings the memberships of a run up to date. Its fields do not change.
type membershipSync struct {
	task
	base           string // of the domain
	session        *session
	stored         storedMemberships
	snapshot       Snapshot
	store          *state.Store
	affectedAtMost int
}

func (r *Runner) membershipSync(t task, source Source, session *session, stored storedMemberships, s Snapshot) *membershipSync {
	return &membershipSync{
		task: t, base: domainBase(session.RootDSE, source), session: session, stored: stored, snapshot: s,
		store: r.Store, affectedAtMost: r.affectedAtMost,
	}
}

// run reads the memberships, records them, and finds the objects that they affect. A delta
// that affects too many becomes a full sync.
func (s *membershipSync) run(ctx context.Context, p Plan, tombstones *tombstones) (memberships, Plan, error) {
	began := time.Now()
	m := memberships{graph: s.stored.graph, affected: s.stored.affected}
	source := state.GraphSource{Base: s.base, InvocationID: s.snapshot.InvocationID}
	whole := p.Mode == full || s.stored.source != source // another server may have other groups
	if err := s.read(ctx, &m, p, whole, tombstones); err != nil {
		return m, p, err
	}
	if !whole {
		tooMany, err := s.affectsTooMany(m)
		if err != nil {
			return m, p, err
		}
		if tooMany {
			p = s.fullInstead(p)
			whole = true // finds objects that were deleted unseen, too
			if err := s.read(ctx, &m, p, whole, nil); err != nil {
				return m, p, err
			}
		}
	}
	change, err := s.change(m, source)
	if err != nil {
		return m, p, err
	}
	if change.AllStale && p.Mode == delta {
		p = s.fullInstead(p)
	}
	m.affected = append(m.affected, change.Stale...)
	if !s.mode.DryRun {
		change.Objects, change.Groups = m.graph.Changes()
		if err := s.store.UpdateGraph(change); err != nil {
			return m, p, err
		}
	}
	groups, members := m.graph.Len()
	s.log.Info().Str("base_dn", s.base).Bool("whole", whole).Int("groups", groups).Int("memberships", members).
		Int("affected", len(m.affected)).Int64("duration_ms", time.Since(began).Milliseconds()).Msg(MsgMembershipsRead)
	return m, p, nil
}

func (s *membershipSync) fullInstead(p Plan) Plan {
	p = p.asFull(ReasonAffected)
	logPlan(s.log, s.snapshot, p)
	return p
}

// affectsTooMany reports whether the changed memberships affect more objects than are read
// one by one.
func (s *membershipSync) affectsTooMany(m memberships) (bool, error) {
	affected, err := s.store.Indexed(m.graph.Affected(s.stored.digests))
	return len(affected)+len(m.affected) > s.affectedAtMost, err
}

// change returns the change of the stored memberships, without their records.
func (s *membershipSync) change(m memberships, source state.GraphSource) (state.GraphChange, error) {
	change := state.GraphChange{Source: source, Replace: s.stored.unreadable}
	affected, err := s.store.Indexed(m.graph.Affected(s.stored.digests))
	switch {
	case err != nil:
		return change, err
	case !s.stored.known, len(affected)+len(m.affected) > s.affectedAtMost:
		change.AllStale = true // for all that is known, everything was sent under another graph
	default:
		change.Stale = affected
	}
	return change, nil
}
