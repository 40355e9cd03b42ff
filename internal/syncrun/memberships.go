package syncrun

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
	"adconnector/internal/state"
)

// Security posture starts with the membership graph of the whole domain, because a group
// outside the profile's base also grants its members privileges. A full sync reads all
// memberships, a delta sync those that changed. Objects whose memberships differ between the
// stored graph and the new one are read again. So a changed group reaches every affected
// object in the run that reads the group.

// defaultMaxAffected is the maximum number of objects to read again individually because of
// changed memberships. For more objects, a full sync is faster.
const defaultMaxAffected = 10_000

// storedMemberships are the memberships of the last run.
type storedMemberships struct {
	graph      *membership.Graph
	digests    []uint64
	source     state.GraphSource
	exist      bool // the state file contains readable memberships
	unreadable bool // the state file contains unreadable memberships
	affected   []ad.GUID
	rereadAll  bool
}

// size returns the memory of the memberships in bytes, or 0 if there are none.
func (m storedMemberships) size() int {
	if !m.exist {
		return 0
	}
	return m.graph.Size()
}

// loadMemberships loads the stored memberships, if the source includes security posture.
func loadMemberships(store *state.Store, source Source, log zerolog.Logger) (m storedMemberships, err error) {
	if !source.Posture {
		return m, nil
	}
	m.graph = membership.New()
	m.source, m.exist, err = store.ReadGraph(m.graph.RestoreObject, m.graph.RestoreGroup)
	if errors.Is(err, membership.ErrInvalidRecord) {
		log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgMembershipsUnreadable)
		m.graph, m.exist, m.unreadable, err = membership.New(), false, true, nil
	}
	if err != nil {
		return m, err
	}
	m.graph.FinishRestore()
	m.graph.Compute()
	m.digests = m.graph.Fingerprints()
	m.affected, m.rereadAll, err = store.StaleObjects()
	return m, err
}

// memberships are the memberships of this run.
type memberships struct {
	graph    *membership.Graph
	partial  bool      // the server returns members without identifiers
	affected []ad.GUID // objects to read again
	// rolesWithoutSID are the roles of groups whose SID is unreadable. They still exist.
	rolesWithoutSID  []ad.GUID
	unreadableGroups int // groups whose members are unreadable, of those that were read
}

// membershipSync updates the memberships in a run. Its fields do not change.
type membershipSync struct {
	runInfo
	source      Source
	base        string // of the domain
	session     *session
	stored      storedMemberships
	snapshot    Snapshot
	store       *state.Store
	maxAffected int

	maxGraphSize    maxGraphSize
	storedSize      int // of the stored memberships in bytes; 0: none
	maxExpiring     int
	maxLocated      int
	emptyChecks     emptyChecks
	emptyGroups     *emptyGroups // the runner's
	loggedExpiring  *bool        // the runner's
	loggedUnchecked *bool        // the runner's
}

func (r *Runner) newMembershipSync(info runInfo, source Source, session *session, stored storedMemberships, s Snapshot) *membershipSync {
	return &membershipSync{
		runInfo: info, source: source, base: domainBase(session.RootDSE, source), session: session, stored: stored, snapshot: s,
		store: r.Store, maxAffected: r.maxAffected, maxGraphSize: r.maxGraphSize, storedSize: stored.size(),
		maxExpiring: r.maxExpiring, maxLocated: r.maxLocated, emptyChecks: r.emptyChecks, emptyGroups: &r.emptyGroups,
		loggedExpiring: &r.loggedExpiring, loggedUnchecked: &r.loggedUnchecked,
	}
}

// run reads the memberships, records them, and finds the affected objects. If they are too
// many, it returns a plan for a full sync instead of a delta sync.
func (s *membershipSync) run(ctx context.Context, p Plan, tombstones *tombstoneSearch) (memberships, Plan, error) {
	start := time.Now()
	m := memberships{graph: s.stored.graph, affected: s.stored.affected}
	if err := s.checkReadable(ctx, m.graph); err != nil {
		return m, p, err
	}
	source := state.GraphSource{Base: s.base, InvocationID: s.snapshot.View.InvocationID}
	roles := m.graph.RoleGroupGUIDs()
	readAll := p.Mode == full || s.stored.source != source // another controller may have other groups
	if err := s.read(ctx, &m, p, readAll, tombstones); err != nil {
		return m, p, err
	}
	if !readAll {
		tooMany, err := s.tooManyAffected(m)
		if err != nil {
			return m, p, err
		}
		if tooMany {
			p = s.switchToFull(p)
			readAll = true // also finds objects whose deletion was not visible
			if err := s.read(ctx, &m, p, readAll, nil); err != nil {
				return m, p, err
			}
		}
	}
	change, err := s.graphChange(m, source)
	if err != nil {
		return m, p, err
	}
	change.Stale = append(change.Stale, m.endedRoles(roles)...)
	if change.AllStale && p.Mode == delta {
		p = s.switchToFull(p)
	}
	m.affected = append(m.affected, change.Stale...)
	if !s.options.DryRun {
		change.Objects, change.Groups = m.graph.ChangedRecords()
		if err := s.store.UpdateGraph(change); err != nil {
			return m, p, err
		}
	}
	groups, members := m.graph.Len()
	s.log.Info().Str("base_dn", s.base).Bool("whole", readAll).Int("groups", groups).Int("memberships", members).
		Int("affected", len(m.affected)).Int64("duration_ms", time.Since(start).Milliseconds()).Msg(MsgMembershipsRead)
	return m, p, nil
}

// endedRoles returns the roles of groups that exist but have no role any more: DnsAdmins is known by its
// name, and a distribution group grants nothing.
func (m *memberships) endedRoles(before []ad.GUID) (roles []ad.GUID) {
	now := m.graph.RoleGroupGUIDs()
	for _, guid := range before {
		if m.graph.HasGroup(guid) && !slices.Contains(now, guid) {
			roles = append(roles, identity.RoleGUID(guid))
		}
	}
	return roles
}

// checkReadable returns an error of class fault.Refused if no group of the domain shows a member
// any more, or no account its primary group, although the stored graph has some. All groups that
// are read would become empty, and all roles with them. An operator can confirm that the
// memberships were removed. A right that is lost for a part of the groups is not detected.
func (s *membershipSync) checkReadable(ctx context.Context, stored *membership.Graph) error {
	if !s.session.RootDSE.IsDomainController() || s.options.Full && s.options.AllowDeletes {
		return nil
	}
	var lost []string
	listed, primary := stored.HasMembers()
	for _, question := range []struct {
		asked        bool
		filter, name string
	}{
		{listed, "(&" + groupFilter + "(member=*))", "member of groups"},
		{primary, accountFilter, "primaryGroupID of accounts"},
	} {
		if !question.asked {
			continue
		}
		found, err := s.session.exists(ctx, directory.Search{Base: s.base, Scope: directory.Subtree, Filter: question.filter})
		if err != nil {
			return err
		}
		if !found {
			lost = append(lost, question.name)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	return fault.Operation{Op: "read", Object: strings.Join(lost, "; ") + " below " + s.base}.Failed(fault.Refused, errLostRight,
		s.session.grantRemedy(ctx, s.base)+"; if the memberships were removed from the directory, stop the daemon and run adconnector sync --full --allow-deletes once")
}

// emptySince returns the update sequence number of the last run that read the same groups: those that
// were empty then, and have not changed since, are empty. 0: unknown, or all groups are to be checked.
func (s *membershipSync) emptySince() ad.USN {
	watermark := s.snapshot.Controller.Watermark
	source := state.GraphSource{Base: s.base, InvocationID: s.snapshot.View.InvocationID}
	if s.options.Full || s.snapshot.USNDecreased || s.stored.source != source || watermark.Scope != s.snapshot.View.Scope {
		return 0
	}
	return max(watermark.USN+1-overlap, 0)
}

func (s *membershipSync) switchToFull(p Plan) Plan {
	p = p.withFullSync(ReasonAffected)
	logPlan(s.log, s.snapshot, p)
	return p
}

// tooManyAffected reports whether the changed memberships affect more objects than may be
// read individually.
func (s *membershipSync) tooManyAffected(m memberships) (bool, error) {
	affected, err := s.store.Indexed(m.graph.Affected(s.stored.digests))
	return len(affected)+len(m.affected) > s.maxAffected, err
}

// graphChange returns the change of the stored memberships, without its records.
func (s *membershipSync) graphChange(m memberships, source state.GraphSource) (state.GraphChange, error) {
	change := state.GraphChange{Source: source, Replace: s.stored.unreadable}
	affected, err := s.store.Indexed(m.graph.Affected(s.stored.digests))
	switch {
	case err != nil:
		return change, err
	case !s.stored.exist, len(affected)+len(m.affected) > s.maxAffected:
		change.AllStale = true // without a stored graph, every object may have been sent with another one
	default:
		change.Stale = affected
	}
	return change, nil
}
