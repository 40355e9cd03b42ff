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
// memberships, a delta sync those that changed. A delta sync reads objects again whose memberships
// differ between the stored graph and the new one. So a changed group reaches every affected
// object in the run that reads the group.
//
// If the profile's scope is the whole domain, a full sync reads users once: their entries update the
// graph while they are sent. See accountReader.

// defaultMaxAffected is the maximum number of objects to read again individually because of
// changed memberships. For more objects, a full sync is faster.
const defaultMaxAffected = 10_000

// storedMemberships are the memberships of the last run.
type storedMemberships struct {
	graph      *membership.Graph
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
	m.affected, m.rereadAll, err = store.StaleObjects()
	return m, err
}

// memberships are the memberships of this run.
type memberships struct {
	graph    *membership.Graph
	partial  bool      // the server returns members without identifiers
	affected []ad.GUID // objects that a delta sync reads again
	// rolesWithoutSID are the roles of groups whose SID is unreadable. They still exist.
	rolesWithoutSID  []ad.GUID
	unreadableGroups map[ad.GUID]bool // groups whose members are unreadable, of those that were read
	// accounts is set if the users are still to be added to the graph.
	accounts *accountReader
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
	userFilter  string // of the search for users
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
		store: r.Store, userFilter: r.Search.Filter(identity.User, session.RootDSE), maxAffected: r.maxAffected, maxGraphSize: r.maxGraphSize, storedSize: stored.size(),
		maxExpiring: r.maxExpiring, maxLocated: r.maxLocated, emptyChecks: r.emptyChecks, emptyGroups: &r.emptyGroups,
		loggedExpiring: &r.loggedExpiring, loggedUnchecked: &r.loggedUnchecked,
	}
}

// run reads the memberships, records them, and finds the affected objects of a delta sync. If they
// are too many, it returns a plan for a full sync instead.
func (s *membershipSync) run(ctx context.Context, p Plan, tombstones *tombstoneSearch) (memberships, Plan, error) {
	start := time.Now()
	m := memberships{graph: s.stored.graph, affected: s.stored.affected}
	if err := s.checkReadable(ctx, m.graph); err != nil {
		return m, p, err
	}
	if p.Mode == full {
		m, err := s.readAll(ctx, m, start, tombstones)
		return m, p, err
	}
	digests, roles := m.graph.Fingerprints(), m.graph.RoleGroupGUIDs()
	otherSource := s.stored.source != s.graphSource() // another controller may have other groups
	var err error
	if otherSource {
		err = s.readWhole(ctx, &m, tombstones)
	} else {
		err = s.readChanged(ctx, &m, p, tombstones)
	}
	if err != nil {
		return m, p, err
	}
	affected, err := s.store.Indexed(m.graph.Affected(digests))
	if err != nil {
		return m, p, err
	}
	tooMany := len(affected)+len(m.affected) > s.maxAffected
	switch {
	case tooMany && !otherSource:
		p = s.switchToFull(p)
		m, err = s.readAll(ctx, m, start, nil) // also finds objects whose deletion was not visible
		return m, p, err
	case tooMany:
		p = s.switchToFull(p)
		return m, p, s.record(m, state.GraphChange{AllStale: true}, start, true)
	}
	stale := append(affected, m.endedRoles(roles)...)
	m.affected = append(m.affected, stale...)
	return m, p, s.record(m, state.GraphChange{Stale: stale}, start, otherSource)
}

// readAll reads all memberships for a full sync. It leaves the users to the returned accountReader if
// the full sync reads all of them anyway.
func (s *membershipSync) readAll(ctx context.Context, m memberships, start time.Time, tombstones *tombstoneSearch) (memberships, error) {
	if !s.readsUsersOnce() {
		if err := s.readWhole(ctx, &m, tombstones); err != nil {
			return m, err
		}
		return m, s.record(m, state.GraphChange{AllStale: true}, start, true)
	}
	r, err := s.readWithoutUsers(ctx, &m, tombstones)
	if err == nil && !s.options.DryRun {
		err = s.store.MarkAllStale()
	}
	m.accounts = &accountReader{sync: s, reader: r, start: start}
	return m, err
}

// graphSource returns where this run reads the memberships.
func (s *membershipSync) graphSource() state.GraphSource {
	return state.GraphSource{Base: s.base, InvocationID: s.snapshot.View.InvocationID}
}

// record records the memberships and logs them.
func (s *membershipSync) record(m memberships, change state.GraphChange, start time.Time, whole bool) error {
	if !s.options.DryRun {
		change.Source, change.Replace = s.graphSource(), !s.stored.exist
		change.Objects, change.Groups = m.graph.ChangedRecords()
		if err := s.store.UpdateGraph(change); err != nil {
			return err
		}
	}
	groups, members := m.graph.Len()
	event := s.log.WithLevel(levelOf(whole || len(m.affected) > 0)).Str("base_dn", s.base).Bool("whole", whole).Int("groups", groups).Int("memberships", members)
	if !change.AllStale {
		event.Int("affected", len(m.affected))
	}
	event.Int64("duration_ms", time.Since(start).Milliseconds()).Msg(MsgMembershipsRead)
	return nil
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
		s.session.grantRemedy(ctx, s.base)+"; if the memberships were removed from the directory, run adconnector sync --full --allow-deletes once")
}

// emptySince returns the update sequence number of the last run that read the same groups: those that
// were empty then, and have not changed since, are empty. 0: unknown, or all groups are to be checked.
func (s *membershipSync) emptySince() ad.USN {
	watermark := s.snapshot.Controller.Watermark
	if s.options.Full || s.snapshot.USNDecreased || s.stored.source != s.graphSource() || watermark.Scope != s.snapshot.View.Scope {
		return 0
	}
	return max(watermark.USN+1-overlap, 0)
}

func (s *membershipSync) switchToFull(p Plan) Plan {
	p = p.withFullSync(ReasonAffected)
	logPlan(s.log, s.snapshot, p)
	return p
}
