package syncrun

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
)

// A group whose member attribute the account may not read looks like a group without members. The
// attribute memberOf of its members is a right of its own. So for groups without visible members, a
// search checks whether any object of the domain has one of them there. If so, the members come from
// memberOf, and those of the stored graph stay unless they have other groups only.

const attributeMember = "member"

// emptyChecks limits how many groups a run checks for unreadable members. A domain controller answers such
// a search from its table of links, and another server (Samba) compares all objects. So the first
// groups are always checked, and others as long as the checks take a small part of the time. Later runs
// check the rest.
type emptyChecks struct{ min, max int }

var defaultEmptyChecks = emptyChecks{min: 100, max: 10_000}

// checkShare is the part of the time that further checks may take.
const checkShare = 10

// groupsPerCheck is how many groups one search checks. Nearly all groups without visible members are
// empty, and a server without an index compares all objects once for each search.
const groupsPerCheck = 50

// remaining returns how many further groups may be checked. checks is the duration of the checks so
// far, and reading that of the rest of the reading.
func (l emptyChecks) remaining(checked int, checks, reading time.Duration) int {
	switch {
	case checked < l.min:
		return l.min - checked
	case checks*checkShare < reading:
		return max(0, l.max-checked)
	}
	return 0
}

// defaultMaxLocated limits the objects that a run searches one by one, because no other search finds
// them: former members of groups, and accounts and groups of the stored graph. It is one limit for
// all. Beyond it, an object counts as existing until a later run has searched it.
const defaultMaxLocated = 500

// emptyGroups are the groups that were found to be empty shortly before the watermark, with their
// uSNChanged. The overlap of delta syncs includes these groups again. The process keeps them, because
// they only save searches.
type emptyGroups struct {
	invocationID ad.InvocationID
	usns         map[ad.GUID]ad.USN
}

// begin drops the groups of another domain controller, all of them if emptySince is 0, and those that
// changed before emptySince.
func (e *emptyGroups) begin(id ad.InvocationID, emptySince ad.USN) {
	if e.invocationID != id || emptySince == 0 {
		*e = emptyGroups{invocationID: id, usns: map[ad.GUID]ad.USN{}}
	}
	maps.DeleteFunc(e.usns, func(_ ad.GUID, usn ad.USN) bool { return usn < emptySince })
}

// memberlessGroup is a group that shows no members.
type memberlessGroup struct {
	groupInfo
	dn            string
	usnChanged    ad.USN // 0: unreadable
	hadBefore     bool   // the stored graph has members
	wasUnreadable bool   // the stored graph has its members as unreadable
}

// mayHaveMembers reports whether a group without visible members may have some. A group that was known
// to be empty, and has not changed since, is empty: a new member changes the group.
func (r *graphReader) mayHaveMembers(info groupInfo, usnChanged []byte) bool {
	node, found := r.graph.Find(info.guid)
	if !r.checksEmpty || r.contradicted[info.guid] || !found || !r.graph.KnownEmpty(node) {
		return r.checksEmpty
	}
	changed, ok := ad.ParseUSN(usnChanged)
	return !ok || changed >= r.emptySince && r.emptyGroups.usns[info.guid] != changed
}

func (r *graphReader) newMemberless(info groupInfo, dn, usnChanged []byte) memberlessGroup {
	info.sid, info.name = slices.Clone(info.sid), slices.Clone(info.name)
	node, found := r.graph.Find(info.guid)
	changed, _ := ad.ParseUSN(usnChanged)
	group := memberlessGroup{info, string(dn), changed, found && len(r.graph.Members(node)) > 0, found && r.graph.MembersUnreadable(node)}
	r.otherSize += group.size()
	return group
}

func (g memberlessGroup) size() int { return listSize + len(g.dn) }

// readMemberless adds groups without visible members: with those that have them in memberOf, or without
// members. It begins with the groups of roles, then those whose members were readable before, and goes
// on with the groups in the former. The last ones are those whose members were unreadable before: they
// keep them without a check.
func (r *graphReader) readMemberless(ctx context.Context, s *session, groups []memberlessGroup) error {
	var first, others []memberlessGroup
	for _, group := range groups {
		if group.role != 0 || group.hadBefore && !group.wasUnreadable {
			first = append(first, group)
		} else {
			others = append(others, group)
		}
	}
	slices.SortStableFunc(first, func(a, b memberlessGroup) int { return compareBools(b.role != 0, a.role != 0) })
	if err := r.checkGroups(ctx, s, first); err != nil {
		return err
	}
	inRoles := map[ad.GUID]bool{}
	r.locked(func() {
		for _, node := range r.graph.InRoles() {
			inRoles[r.graph.GUID(node)] = true
		}
	})
	slices.SortStableFunc(others, func(a, b memberlessGroup) int {
		return cmp.Or(compareBools(inRoles[b.guid], inRoles[a.guid]), compareBools(a.wasUnreadable, b.wasUnreadable))
	})
	err := r.checkGroups(ctx, s, others)
	r.locked(func() {
		for _, group := range groups {
			r.otherSize -= group.size()
		}
	})
	return err
}

// compareBools orders false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// checkGroups adds groups without visible members. Those beyond the limit keep their former members.
func (r *graphReader) checkGroups(ctx context.Context, s *session, groups []memberlessGroup) error {
	for len(groups) > 0 {
		n := min(len(groups), groupsPerCheck, r.limits.remaining(r.checked, r.checkTime, time.Since(r.started)-r.checkTime))
		if n == 0 {
			for _, group := range groups {
				r.unchecked++
				r.keepAll(s, group)
			}
			return nil
		}
		start := time.Now()
		withMembers, err := r.findWithMembers(ctx, s, groups[:n], false)
		if err != nil {
			return err
		}
		r.checked += n
		r.checkTime += time.Since(start)
		for _, group := range groups[:n] {
			if !withMembers[group.guid] {
				r.setEmpty(group)
			} else if err := r.readFromMemberOf(ctx, s, group); err != nil {
				return err
			}
		}
		groups = groups[n:]
	}
	return nil
}

// findWithMembers returns the groups that an object of the domain has in memberOf. Mostly there are none,
// and one search shows it. Otherwise it searches for each half of the groups. some is whether it is
// known that there are some.
func (r *graphReader) findWithMembers(ctx context.Context, s *session, groups []memberlessGroup, some bool) (map[ad.GUID]bool, error) {
	if !some {
		var filter strings.Builder
		for _, group := range groups {
			filter.WriteString(directory.FilterByValue("memberOf", group.dn))
		}
		found, err := s.exists(ctx, directory.Search{Base: r.base, Scope: directory.Subtree, Filter: "(|" + filter.String() + ")"})
		if err != nil || !found {
			return nil, baseContextError(err)
		}
	}
	if len(groups) == 1 {
		return map[ad.GUID]bool{groups[0].guid: true}, nil
	}
	half := len(groups) / 2
	withMembers, err := r.findWithMembers(ctx, s, groups[:half], false)
	if err != nil {
		return nil, err
	}
	others, err := r.findWithMembers(ctx, s, groups[half:], len(withMembers) == 0)
	if withMembers == nil {
		return others, err
	}
	maps.Copy(withMembers, others)
	return withMembers, err
}

// setEmpty adds a group that has no members.
func (r *graphReader) setEmpty(group memberlessGroup) {
	r.locked(func() { r.graph.SetKnownEmpty(r.setGroup(group.groupInfo)) })
	if group.usnChanged > r.highestUSN-overlap {
		r.emptyGroups.usns[group.guid] = group.usnChanged
	}
}

// keepAll adds a group that was not checked, with its former members. It is unknown whether it has
// lost them, or they are unreadable.
func (r *graphReader) keepAll(s *session, group memberlessGroup) {
	r.locked(func() {
		former := r.formerMembers(group)
		node := r.setGroup(group.groupInfo)
		for _, guid := range former {
			r.graph.AddMember(node, guid, nil)
		}
		if group.hadBefore || group.wasUnreadable {
			r.graph.SetMembersUnreadable(node)
		}
	})
	if group.hadBefore || group.wasUnreadable {
		r.addUnreadableGroup(s, group.guid, group.dn)
	}
}

// formerMembers returns the members of a group in the graph. mu must be held.
func (r *graphReader) formerMembers(group memberlessGroup) (former []ad.GUID) {
	if n, found := r.graph.Find(group.guid); found {
		for _, member := range r.graph.Members(n) {
			former = append(former, r.graph.GUID(member))
		}
	}
	return former
}

// readFromMemberOf adds a group with the members that have it in memberOf, and with the former
// ones whose memberOf may be unreadable.
func (r *graphReader) readFromMemberOf(ctx context.Context, s *session, group memberlessGroup) error {
	var former []ad.GUID
	var node membership.Node
	r.locked(func() {
		former = r.formerMembers(group)
		r.otherSize += guidSize * len(former)
		node = r.setGroup(group.groupInfo)
		r.graph.SetMembersUnreadable(node)
	})
	size := guidSize * len(former)
	members := map[ad.GUID]bool{}
	var dn ad.ExtendedDN
	err := r.search(ctx, s, directory.FilterByValue("memberOf", group.dn), "", []string{"objectGUID"}, func(entry *ad.Entry) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		err := r.addMembers(node, [][]byte{entry.ExtendedDN})
		if dn.Parse(entry.ExtendedDN) {
			members[dn.GUID] = true
		}
		r.otherSize += guidSize
		size += guidSize
		return err
	})
	defer r.locked(func() { r.otherSize -= size })
	if err != nil {
		return err
	}
	former = slices.DeleteFunc(former, func(guid ad.GUID) bool { return members[guid] })
	kept, err := r.keptMembers(ctx, s, former)
	if err != nil {
		return err
	}
	r.locked(func() {
		for _, guid := range kept {
			r.graph.AddMember(node, guid, nil)
		}
	})
	r.addUnreadableGroup(s, group.guid, group.dn)
	return nil
}

// keptMembers returns the former members that exist and have no visible memberOf at all: it may be
// unreadable. Those with other groups are no members any more.
func (r *graphReader) keptMembers(ctx context.Context, s *session, former []ad.GUID) (kept []ad.GUID, err error) {
	var dn ad.ExtendedDN
	found := map[ad.GUID]bool{}
	for chunk := range slices.Chunk(former, guidsPerFilter) {
		err := r.search(ctx, s, directory.FilterByGUID(chunk), "", []string{"memberOf"}, func(entry *ad.Entry) error {
			if dn.Parse(entry.ExtendedDN) {
				found[dn.GUID] = true
				if len(entry.Values[0]) == 0 && len(entry.Partial) == 0 {
					kept = append(kept, dn.GUID)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, guid := range former {
		if found[guid] {
			continue
		}
		_, exists, err := r.mayExist(ctx, s, guid)
		if err != nil {
			return nil, err
		}
		if exists {
			kept = append(kept, guid)
		}
	}
	return kept, nil
}

// keepExisting keeps the accounts and groups of the graph that no search finds but that exist: the
// account can only list them. Memberships of another domain are not kept.
func (r *graphReader) keepExisting(ctx context.Context, s *session, unseen []ad.GUID) (err error) {
	if !r.checksRights || !r.sameDomain {
		return nil
	}
	if unseen, err = r.withoutTombstones(ctx, unseen); err != nil {
		return err
	}
	rank := func(guid ad.GUID) int {
		switch {
		case r.graph.HasGroup(guid):
			return 0
		case !slices.Contains(defaultPrimaryGroups, r.graph.PrimaryRID(guid)):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(unseen, func(a, b ad.GUID) int { return rank(a) - rank(b) })
	for _, guid := range unseen {
		if _, err := r.keepIfExists(ctx, s, guid); err != nil {
			return err
		}
	}
	return nil
}

// defaultPrimaryGroups are the RIDs of Domain Users, Domain Guests and Domain Computers. Other primary
// groups can be those of roles.
var defaultPrimaryGroups = []ad.RID{513, 514, 515}

// withoutTombstones returns objects without those that have a tombstone, if there are more than may be
// searched one by one.
func (r *graphReader) withoutTombstones(ctx context.Context, guids []ad.GUID) ([]ad.GUID, error) {
	if r.tombstones == nil || len(guids) <= r.maxLocated {
		return guids, nil
	}
	deleted, err := r.tombstones.find(ctx, guids[:min(len(guids), r.tombstones.maxLookup)])
	if err != nil {
		return nil, err
	}
	isDeleted := map[ad.GUID]bool{}
	for _, guid := range deleted {
		isDeleted[guid] = true
	}
	return slices.DeleteFunc(guids, func(guid ad.GUID) bool { return isDeleted[guid] }), nil
}

// mayExist reports whether an object exists that no search finds, and where. Beyond the limit it
// returns true, without a location.
func (r *graphReader) mayExist(ctx context.Context, s *session, guid ad.GUID) (l directory.Location, exists bool, err error) {
	if r.located >= r.maxLocated {
		return l, true, nil
	}
	r.located++
	return s.locate(ctx, directory.BaseOfGUID(guid), "1.1")
}

// keepIfExists keeps an account or a group of the graph that no search finds, unless it does not exist.
// A group below the profile's base, or of a role, is counted with its own asset.
func (r *graphReader) keepIfExists(ctx context.Context, s *session, guid ad.GUID) (exists bool, err error) {
	l, exists, err := r.mayExist(ctx, s, guid)
	if err != nil || !exists {
		return false, err
	}
	r.graph.Keep(guid)
	inScope, ok := directory.InScope(l.DN, r.source.Base, r.source.Scope)
	if r.graph.HasGroup(guid) && !slices.Contains(r.graph.RoleGroupGUIDs(), guid) && !(inScope && ok) {
		r.addUnreadableGroup(s, guid, l.DN)
	}
	return true, nil
}

// addFormerRoleGroups adds the groups that were among those of roles, or in them, before the run and
// have left: a group may have been deleted.
func (r *graphReader) addFormerRoleGroups(groups []ad.GUID) []ad.GUID {
	isListed := map[membership.Node]bool{}
	for _, node := range r.graph.RoleGroups() {
		isListed[node] = true
	}
	former := slices.DeleteFunc(r.roleGroups, func(node membership.Node) bool { return isListed[node] || !r.graph.IsGroup(node) })
	for _, node := range former[:min(len(former), r.maxLocated)] {
		groups = append(groups, r.graph.GUID(node))
	}
	return groups
}

// removeGone removes the groups of roles, and those in them, that a delta sync did not find and that do
// not exist any more. Without the right to read Deleted Objects, nothing else shows it.
func (r *graphReader) removeGone(ctx context.Context, s *session, groups []ad.GUID) error {
	if !r.checksRights {
		return nil
	}
	for _, guid := range slices.DeleteFunc(groups, func(guid ad.GUID) bool { return r.found[guid] || !r.graph.HasGroup(guid) }) {
		exists, err := r.keepIfExists(ctx, s, guid)
		if err != nil {
			return err
		}
		if !exists {
			r.graph.Remove(guid)
		}
	}
	return nil
}

// addUnreadableGroup records a group whose members are unreadable. dn is empty if it was not located.
func (r *graphReader) addUnreadableGroup(s *session, guid ad.GUID, dn string) {
	if r.unreadable[guid] {
		return
	}
	r.unreadable[guid] = true
	l := s.log.Debug().Stringer("guid", guid)
	if dn == "" {
		l.Str("base_dn", r.base).Msg(MsgMembersUnreadable)
		return
	}
	l.Str("dn_hash", hashDN([]byte(dn))).Str("base_dn", directory.ParentDN(dn)).Msg(MsgMembersUnreadable)
}

// unreadableMembers returns the result for groups whose members are unreadable.
func unreadableMembers(groups int) readResult {
	if groups == 0 {
		return readResult{}
	}
	return readResult{counters: map[identity.Kind]counters{identity.Group: {unreadable: groups}}, missing: map[string]int{attributeMember: groups}}
}

// locate is directory.Session.Locate with a session that was not idle.
func (s *session) locate(ctx context.Context, base string, attributes ...string) (l directory.Location, found bool, err error) {
	if err := s.reconnectIfIdle(ctx); err != nil {
		return l, false, err
	}
	return s.Locate(ctx, base, attributes...)
}
