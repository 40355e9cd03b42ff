package syncrun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
)

// The search filters of the membership graph. Every object with a primary group is an
// account: computers and service accounts are members of groups, too. A delta sync reads all
// changed principals, because an object may have lost its primary group.
const (
	groupFilter     = "(objectClass=group)"
	accountFilter   = "(primaryGroupID=*)"
	principalFilter = "(objectSid=*)"
)

// otherAccountFilter finds the accounts that are no users.
var otherAccountFilter = "(&" + accountFilter + "(!" + identity.Filter[identity.User] + "))"

// newGraphReader returns a reader that updates the graph of a run.
func (s *membershipSync) newGraphReader(graph *membership.Graph, tombstones *tombstoneSearch) *graphReader {
	isController := s.session.RootDSE.IsDomainController()
	r := &graphReader{base: s.base, graph: graph, maxSize: s.maxGraphSize.limit(s.storedSize), maxExpiring: s.maxExpiring,
		source: s.source, limits: s.emptyChecks, maxLocated: s.maxLocated, checksRights: isController,
		checksEmpty: isController && s.session.RootDSE.ExtendedDN, emptySince: s.emptySince(), emptyGroups: s.emptyGroups,
		highestUSN: s.snapshot.HighestUSN, sameDomain: s.stored.source.Base == s.base, tombstones: tombstones, started: time.Now(), unreadable: map[ad.GUID]bool{}}
	r.emptyGroups.begin(s.snapshot.View.InvocationID, r.emptySince)
	return r
}

// readWhole updates the graph with all memberships, and computes the derived data.
func (s *membershipSync) readWhole(ctx context.Context, m *memberships, tombstones *tombstoneSearch) error {
	r := s.newGraphReader(m.graph, tombstones)
	r.graph.BeginFullRead()
	if err := r.readGroupsAndAccounts(ctx, s.session, "", accountFilter); err != nil {
		return err
	}
	return s.endWhole(ctx, m, r)
}

// readWithoutUsers updates the graph with all groups and the accounts that are no users, and computes
// the derived data.
func (s *membershipSync) readWithoutUsers(ctx context.Context, m *memberships, tombstones *tombstoneSearch) (*graphReader, error) {
	r := s.newGraphReader(m.graph, tombstones)
	r.graph.BeginFullRead()
	if err := r.readGroupsAndAccounts(ctx, s.session, "", otherAccountFilter); err != nil {
		return r, err
	}
	if err := r.dropMissing(ctx, s.session, r.graph.UnseenGroups); err != nil {
		return r, err
	}
	r.graph.RemoveUnseenGroups()
	s.finish(m, r)
	return r, nil
}

// endWhole removes what a read of the whole graph did not find, and computes the derived data.
func (s *membershipSync) endWhole(ctx context.Context, m *memberships, r *graphReader) error {
	if err := r.dropMissing(ctx, s.session, r.graph.Unseen); err != nil {
		return err
	}
	r.graph.RemoveUnseen()
	s.finish(m, r)
	return nil
}

// readChanged updates the graph with the changed memberships, and computes the derived data.
func (s *membershipSync) readChanged(ctx context.Context, m *memberships, p Plan, tombstones *tombstoneSearch) error {
	r := s.newGraphReader(m.graph, tombstones)
	r.memberOf = map[ad.GUID][]ad.GUID{}
	r.roleGroups = r.graph.RoleGroups()
	if err := r.readGroupsAndAccounts(ctx, s.session, changedSince(p.SinceUSN), principalFilter); err != nil {
		return err
	}
	if err := r.finishDelta(ctx, s.session, tombstones); err != nil {
		return err
	}
	s.finish(m, r)
	return nil
}

// finish computes the derived data, and logs what was incomplete.
func (s *membershipSync) finish(m *memberships, r *graphReader) {
	if r.skippedGroups > 0 && !*s.loggedExpiring {
		*s.loggedExpiring = true
		s.log.Info().Int("groups", r.skippedGroups).Msg(MsgExpiringGroupsSkipped)
	}
	if r.unchecked > 0 && !*s.loggedUnchecked {
		*s.loggedUnchecked = true
		s.log.Info().Int("groups", r.unchecked).Msg(MsgEmptyGroupsUnchecked)
	}
	if r.unidentifiedMembers > 0 && !m.partial {
		m.partial = true
		s.log.Warn().Int("values", r.unidentifiedMembers).Str("remedy", "use a server that supports extended DNs (1.2.840.113556.1.4.529)").Msg(MsgMembersUnidentified)
	}
	m.unreadableGroups = r.unreadable
	m.rolesWithoutSID = r.rolesWithoutSID
	m.graph.Compute()
}

// readGroupsAndAccounts reads the groups and the accounts that match a condition, concurrently.
func (r *graphReader) readGroupsAndAccounts(ctx context.Context, s *session, condition, filter string) error {
	return s.runConcurrently(ctx,
		func(ctx context.Context, s *session) error { return r.readGroups(ctx, s, condition) },
		func(ctx context.Context, s *session) error { return r.readAccounts(ctx, s, filter, condition) })
}

// dropMissing reads the objects again that were not found, and keeps those that exist. A paged search
// may miss an object that changes during the search.
func (r *graphReader) dropMissing(ctx context.Context, s *session, unseen func() []ad.GUID) error {
	for chunk := range slices.Chunk(unseen(), guidsPerFilter) {
		condition := directory.FilterByGUID(chunk)
		if err := r.readGroups(ctx, s, condition); err != nil {
			return err
		}
		filter := accountFilter
		if r.checksRights { // every account has a primary group: without one, it is unreadable
			filter = principalFilter
		}
		if err := r.readAccounts(ctx, s, filter, condition); err != nil {
			return err
		}
	}
	return r.keepExisting(ctx, s, unseen())
}

// finishDelta removes deleted objects, whose groups do not change by the deletion. It then
// corrects groups that contradict their members, and those whose members may have expired.
func (r *graphReader) finishDelta(ctx context.Context, s *session, tombstones *tombstoneSearch) error {
	deleted, err := tombstones.deletedGUIDs(ctx)
	if err != nil {
		return err
	}
	for _, guid := range deleted {
		r.graph.Remove(guid)
	}
	r.graph.Compute()
	roleGroups := r.addFormerRoleGroups(r.expiringGroups())
	if err := r.rereadContradictedGroups(ctx, s); err != nil {
		return err
	}
	r.found = map[ad.GUID]bool{}
	if err := r.readGroupsByGUID(ctx, s, roleGroups); err != nil {
		return err
	}
	return r.removeGone(ctx, s, roleGroups)
}

// maxExpiringMembers limits the groups that each delta sync reads because their members may
// expire: the number of groups and members. With an index on objectGUID, slapd returns as many
// in 4 ms from a directory of 100,000 users. Each 1,500 members of a group take another request.
const maxExpiringMembers = 10_000

// expiringGroups returns the groups of roles and the groups in them, the smallest first, up to
// the limit. A membership can be time-bound (Windows Server 2016), and its end changes no update
// sequence number. In other groups, and in larger ones, a full sync finds it.
func (r *graphReader) expiringGroups() (guids []ad.GUID) {
	nodes := r.graph.RoleGroups()
	size := func(n membership.Node) int { return 1 + len(r.graph.Members(n)) }
	slices.SortFunc(nodes, func(a, b membership.Node) int { return cmp.Or(cmp.Compare(size(a), size(b)), cmp.Compare(a, b)) })
	total := 0
	for i, n := range nodes {
		if total += size(n); total > r.maxExpiring {
			r.skippedGroups = len(nodes) - i
			break
		}
		guids = append(guids, r.graph.GUID(n))
	}
	return guids
}

func (r *graphReader) readGroupsByGUID(ctx context.Context, s *session, guids []ad.GUID) error {
	for chunk := range slices.Chunk(guids, guidsPerFilter) {
		if err := r.readGroups(ctx, s, directory.FilterByGUID(chunk)); err != nil {
			return err
		}
	}
	return nil
}

// graphReader reads memberships into a graph. Two sessions may use it concurrently.
type graphReader struct {
	base    string
	maxSize int // of the graph and the following fields

	maxExpiring   int // see maxExpiringMembers
	skippedGroups int // by expiringGroups

	source       Source
	checksRights bool   // the server is a domain controller: what every object has is unreadable if it is missing
	sameDomain   bool   // the stored memberships are of this domain
	checksEmpty  bool   // groups without visible members are checked
	emptySince   ad.USN // groups that were empty and have not changed since are still empty; 0: unknown
	emptyGroups  *emptyGroups
	highestUSN   ad.USN // before the read
	started      time.Time
	limits       emptyChecks
	checked      int           // groups without visible members; see emptyChecks
	unchecked    int           // others of them
	checkTime    time.Duration // of the checked ones
	maxLocated   int           // see defaultMaxLocated
	located      int
	tombstones   *tombstoneSearch  // nil: not available
	unreadable   map[ad.GUID]bool  // groups whose members are unreadable
	roleGroups   []membership.Node // before a delta sync: the groups of roles and those in them
	found        map[ad.GUID]bool  // groups that were read since it was set; nil: not recorded
	contradicted map[ad.GUID]bool  // groups to read again, see rereadContradictedGroups

	mu                  sync.Mutex // guards the following fields
	graph               *membership.Graph
	unidentifiedMembers int       // member values without identifiers
	rolesWithoutSID     []ad.GUID // roles of groups without a readable SID

	// In a delta sync: the groups of the changed objects by their memberOf, and whether any
	// of them has a group. Otherwise nil.
	memberOf     map[ad.GUID][]ad.GUID
	memberOfSeen bool

	otherSize int // memory of the fields besides the graph
}

// maxGraphSize limits the memory of the memberships in bytes: a server could invent members
// without end. first applies to a read without stored memberships, when the size of the
// domain is unknown. By membership.Graph.Size, it is enough for 1,300,000 objects, of them 65,000
// groups, with 13,000,000 memberships if the names have 28 bytes on average, or for one group with
// 2,600,000 members whose names have 24 bytes. A longer average name takes 1.25 bytes more for each
// byte and object. Later reads may add growth to twice the stored memberships, up
// to total: during a full read, the stored memberships are in memory too.
type maxGraphSize struct{ first, growth, total int }

var defaultMaxGraphSize = maxGraphSize{first: 320 << 20, growth: 96 << 20, total: 384 << 20}

// limit returns the limit of a read. stored is the size of the stored memberships, or 0.
func (m maxGraphSize) limit(stored int) int {
	if stored == 0 {
		return m.first
	}
	return max(stored, min(m.total, m.growth+2*stored))
}

// guidSize is the memory of a GUID in a list, and listSize that of a small list or group in a
// list or map.
const (
	guidSize = 16
	listSize = 128
)

var errTooManyMemberships = errors.New("too many memberships")

// checkSize returns an error if the memberships take too much memory. mu must be held.
func (r *graphReader) checkSize() error {
	if r.graph.Size()+r.otherSize <= r.maxSize {
		return nil
	}
	groups, _ := r.graph.Len()
	return fault.Operation{Op: "read", Object: "memberships of " + r.base}.Failed(fault.Incomplete,
		fmt.Errorf("%w: more than %d MiB, with %d groups", errTooManyMemberships, r.maxSize>>20, groups),
		"check the size of the groups in the directory, or select IDENTITIES_ONLY in the profile in the console")
}

// recordMemberOf records the groups of an object by its memberOf, if the server returned all
// values.
func (r *graphReader) recordMemberOf(object ad.GUID, entry *ad.Entry, slot int) {
	if r.memberOf == nil || slices.Contains(entry.Partial, slot) {
		return
	}
	groups := []ad.GUID{}
	var dn ad.ExtendedDN
	for _, value := range entry.Values[slot] {
		if dn.Parse(value) {
			groups = append(groups, dn.GUID)
		}
	}
	r.otherSize += listSize + guidSize*len(groups)
	r.memberOf[object] = groups
	r.memberOfSeen = r.memberOfSeen || len(groups) > 0
}

// rereadContradictedGroups reads the groups again whose members contradict the memberOf of
// changed objects. An object that is deleted and restored loses its groups or gets them back,
// but only the object itself changes (MS-ADTS 3.1.1.5.3.7). If the account cannot read
// memberOf, all groups seem contradicted, and none is read again.
func (r *graphReader) rereadContradictedGroups(ctx context.Context, s *session) error {
	r.contradicted = map[ad.GUID]bool{}
	for object, memberOf := range r.memberOf {
		if node, found := r.graph.Find(object); found {
			r.addContradicted(r.contradicted, node, memberOf)
		}
	}
	guids := slices.SortedFunc(maps.Keys(r.contradicted), compareGUIDs)
	if readable, err := r.canReadMemberOf(ctx, s, guids); err != nil || !readable {
		return err
	}
	return r.readGroupsByGUID(ctx, s, guids)
}

// addContradicted adds the groups that either the graph or memberOf has for an object, but
// not both. Groups of other domains are not in the graph and are ignored.
func (r *graphReader) addContradicted(contradicted map[ad.GUID]bool, object membership.Node, memberOf []ad.GUID) {
	missing := map[ad.GUID]bool{}
	for _, guid := range memberOf {
		missing[guid] = true
	}
	for _, group := range r.graph.GroupsOf(object) {
		if guid := r.graph.GUID(group); missing[guid] {
			delete(missing, guid)
		} else {
			contradicted[guid] = true
		}
	}
	for guid := range missing {
		if r.graph.HasGroup(guid) {
			contradicted[guid] = true
		}
	}
}

// canReadMemberOf reports whether the account can read memberOf. The changed objects may all
// have lost their groups. If none has a memberOf, it checks other members of these groups. If
// there are none, it returns true, because such groups are cheap to read.
func (r *graphReader) canReadMemberOf(ctx context.Context, s *session, groups []ad.GUID) (readable bool, err error) {
	if r.memberOfSeen || len(groups) == 0 {
		return true, nil
	}
	others := map[ad.GUID]bool{}
	for _, guid := range groups {
		group, _ := r.graph.Find(guid)
		for _, member := range r.graph.Members(group) {
			other := r.graph.GUID(member)
			if _, changed := r.memberOf[other]; !changed && len(others) < guidsPerFilter {
				others[other] = true
			}
		}
	}
	if len(others) == 0 {
		return true, nil
	}
	filter := directory.FilterByGUID(slices.SortedFunc(maps.Keys(others), compareGUIDs))
	found := false
	err = r.search(ctx, s, filter, "", []string{"memberOf"}, func(entry *ad.Entry) error {
		found = true
		readable = readable || len(entry.First(0)) > 0
		return nil
	})
	return readable || !found, err
}

func (r *graphReader) search(ctx context.Context, s *session, filter, condition string, attributes []string, each func(*ad.Entry) error) error {
	if condition != "" {
		filter = "(&" + filter + condition + ")"
	}
	return baseContextError(s.searchOnce(ctx, directory.Search{Base: r.base, Scope: directory.Subtree, Filter: filter, Attributes: attributes, ExtendedDN: true}, each))
}

// readAccounts reads the accounts that match a filter and a condition, with their primary groups. One
// whose primary group is unreadable keeps it.
func (r *graphReader) readAccounts(ctx context.Context, s *session, filter, condition string) error {
	const memberOf = 4
	attributes := []string{"objectGUID", "objectSid", "primaryGroupID", "objectClass", "memberOf"}
	if r.memberOf == nil {
		attributes = attributes[:memberOf]
	}
	slots := accountSlots{0, 1, 2, 3}
	return r.search(ctx, s, filter, condition, attributes, func(entry *ad.Entry) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if guid, ok := r.addAccount(entry, slots); ok {
			r.recordMemberOf(guid, entry, memberOf)
		}
		return r.checkSize()
	})
}

// accountSlots are the positions of attributes in the entries of accounts.
type accountSlots struct{ guid, sid, primaryGroup, objectClass int }

// addAccount adds an account with its primary group, and returns its GUID. One whose primary group is
// unreadable keeps it. ok is false if the entry lacks an identity. mu must be held.
func (r *graphReader) addAccount(entry *ad.Entry, slots accountSlots) (guid ad.GUID, ok bool) {
	guid, hasGUID := ad.ParseGUID(entry.First(slots.guid))
	sid, hasSID := ad.ParseSID(entry.First(slots.sid))
	if !hasGUID || !hasSID {
		return guid, false
	}
	primary, _ := ad.ParseRID(entry.First(slots.primaryGroup)) // 0 if there is none
	if primary == 0 && r.checksRights {
		primary = r.graph.PrimaryRID(guid)
	}
	account := r.graph.SetAccount(guid, sid, primary)
	r.graph.SetName(account, ad.RelativeName(entry.DN))
	r.graph.SetKind(account, membership.AccountKind(entry.Values[slots.objectClass]))
	return guid, true
}

// groupInfo describes a group without its members.
type groupInfo struct {
	guid     ad.GUID
	sid      ad.SID
	security bool
	role     membership.Role
	name     []byte
}

// readGroups reads the groups that match a condition, with their members.
func (r *graphReader) readGroups(ctx context.Context, s *session, condition string) error {
	const members, usnChanged, memberOf = 4, 5, 6
	attributes := []string{"objectGUID", "objectSid", "sAMAccountName", "groupType", attributeMember, "uSNChanged", "memberOf"}
	if r.memberOf == nil {
		attributes = attributes[:memberOf]
	}
	var large []groupInfo // with more members than the server returns at once
	var memberless []memberlessGroup
	err := r.search(ctx, s, groupFilter, condition, attributes, func(entry *ad.Entry) error {
		guid, hasGUID := ad.ParseGUID(entry.First(0))
		sid, hasSID := ad.ParseSID(entry.First(1))
		if !hasGUID || !hasSID { // logged when the groups themselves are read
			if hasGUID {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.rolesWithoutSID = append(r.rolesWithoutSID, identity.RoleGUID(guid))
				r.otherSize += guidSize
				return r.checkSize()
			}
			return nil
		}
		r.addFound(guid)
		groupType, _ := ad.ParseGroupType(entry.First(3))
		info := groupInfo{guid, sid, groupType&ad.GroupSecurity != 0, membership.RoleOf(sid, entry.First(2)), ad.RelativeName(entry.DN)}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.recordMemberOf(guid, entry, memberOf)
		if slices.Contains(entry.Partial, members) {
			info.sid, info.name = slices.Clone(sid), slices.Clone(info.name)
			large = append(large, info)
			r.otherSize += listSize
			return r.checkSize()
		}
		if len(entry.Values[members]) == 0 && r.mayHaveMembers(info, entry.First(usnChanged)) {
			memberless = append(memberless, r.newMemberless(info, entry.DN, entry.First(usnChanged)))
			return r.checkSize()
		}
		return r.addGroup(info, entry.Values[members])
	})
	if err != nil {
		return err
	}
	if err := r.readLargeGroups(ctx, s, large); err != nil {
		return err
	}
	r.locked(func() { r.otherSize -= listSize * len(large) })
	return r.readMemberless(ctx, s, memberless)
}

// addGroup adds a group with its visible members. One without members that need not be checked is known
// to be empty. mu must be held.
func (r *graphReader) addGroup(info groupInfo, members [][]byte) error {
	group := r.setGroup(info)
	if len(members) == 0 && r.checksEmpty {
		r.graph.SetKnownEmpty(group)
	}
	return r.addMembers(group, members)
}

func (r *graphReader) addFound(group ad.GUID) {
	if r.found != nil {
		r.found[group] = true
	}
}

func (r *graphReader) readLargeGroups(ctx context.Context, s *session, groups []groupInfo) error {
	for _, info := range groups {
		if err := r.readLargeGroup(ctx, s, info); err != nil {
			return err
		}
	}
	return nil
}

func (r *graphReader) setGroup(info groupInfo) membership.Node {
	group := r.graph.SetGroup(info.guid, info.sid, info.security, info.role)
	r.graph.SetName(group, info.name)
	return group
}

// membersPerCheck is the number of members after which addMembers checks the size of the graph.
const membersPerCheck = 1024

// addMembers adds the values of member to the group of the last setGroup. mu must be held.
func (r *graphReader) addMembers(group membership.Node, values [][]byte) error {
	for chunk := range slices.Chunk(values, membersPerCheck) {
		r.unidentifiedMembers += r.graph.AddMembers(group, chunk)
		if err := r.checkSize(); err != nil {
			return err
		}
	}
	return r.checkSize()
}

// largeGroupAttempts limits how often a large group is read again because it changed.
const largeGroupAttempts = 5

// readLargeGroup reads a group whose members come in several ranges.
func (r *graphReader) readLargeGroup(ctx context.Context, s *session, info groupInfo) error {
	for attempt := 1; ; attempt++ {
		var group membership.Node
		r.locked(func() { group = r.setGroup(info) })
		found, err := s.ReadValues(ctx, r.base, info.guid, attributeMember, func(values [][]byte) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.addMembers(group, values)
		})
		s.lastUsed = time.Now()
		switch {
		case errors.Is(err, directory.ErrObjectChanged) && attempt < largeGroupAttempts:
			continue
		case err == nil && !found: // deleted in the meantime
			r.locked(func() { r.graph.Remove(info.guid) })
		}
		return err
	}
}

func (r *graphReader) locked(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}
