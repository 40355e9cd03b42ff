package syncrun

import (
	"context"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
)

// A group whose member attribute the account may not read looks like a group without members. The
// attribute memberOf of its members is a right of its own. So for a group that shows no members, a
// question asks whether any object of the domain names it there. If so, the members come from
// memberOf, and those of the stored graph stay unless they show other groups only.

const attributeMember = "member"

// askedGroups limits the questions whether groups hide their members. A domain controller answers one
// from its table of links, and another server (Samba) compares all objects. So the first groups are
// always asked for, and others as long as the questions take a small part of the time. Later runs ask
// for the rest.
type askedGroups struct{ min, max int }

var defaultAskedGroups = askedGroups{min: 100, max: 10_000}

// askedShare is the part of the time that further questions may take.
const askedShare = 10

// mayAsk reports whether a further group may be asked for. questions is the duration of those so far,
// and reading that of the rest of the reading.
func (l askedGroups) mayAsk(asked int, questions, reading time.Duration) bool {
	return asked < l.min || asked < l.max && questions*askedShare < reading
}

// maxLocated limits the objects that are searched one by one: the former members of a group, or the
// accounts and groups that a full sync does not find.
const maxLocated = 500

// unlistedGroup is a group that shows no members.
type unlistedGroup struct {
	groupInfo
	dn        string
	hadBefore bool // the stored graph has members
	wasHidden bool // the stored graph has its members as unreadable
}

// isAsked reports whether a group without visible members may hide some. A group that was known to be
// empty, and has not changed since, is empty: a new member changes the group.
func (r *graphReader) isAsked(info groupInfo, usnChanged []byte) bool {
	node, found := r.graph.Find(info.guid)
	changed, ok := ad.ParseUSN(usnChanged)
	return r.asksMembers && (!found || !r.graph.KnownEmpty(node) || !ok || changed >= r.emptySince || r.contradicted[info.guid])
}

func (r *graphReader) newUnlisted(info groupInfo, dn []byte) unlistedGroup {
	info.sid, info.name = slices.Clone(info.sid), slices.Clone(info.name)
	node, found := r.graph.Find(info.guid)
	r.otherSize += listSize + len(dn)
	return unlistedGroup{info, string(dn), found && len(r.graph.Members(node)) > 0, found && r.graph.MembersUnreadable(node)}
}

// readUnlisted adds groups without visible members: with those that name them in memberOf, or without
// members. It begins with the groups of roles and those whose members were readable before, and goes
// on with the groups in the former. The last ones are those whose members were unreadable before: they
// keep them without a question.
func (r *graphReader) readUnlisted(ctx context.Context, s *session, groups []unlistedGroup) error {
	var first, others []unlistedGroup
	for _, group := range groups {
		if group.role != 0 || group.hadBefore && !group.wasHidden {
			first = append(first, group)
		} else {
			others = append(others, group)
		}
	}
	for _, group := range first {
		if err := r.readUnlistedGroup(ctx, s, group); err != nil {
			return err
		}
	}
	inRoles := map[ad.GUID]bool{}
	r.locked(func() {
		for _, node := range r.graph.InRoles() {
			inRoles[r.graph.GUID(node)] = true
		}
	})
	rank := func(group unlistedGroup) int {
		switch {
		case inRoles[group.guid]:
			return 0
		case !group.wasHidden:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(others, func(a, b unlistedGroup) int { return rank(a) - rank(b) })
	for _, group := range others {
		if err := r.readUnlistedGroup(ctx, s, group); err != nil {
			return err
		}
	}
	return nil
}

func (r *graphReader) readUnlistedGroup(ctx context.Context, s *session, group unlistedGroup) error {
	if !r.limits.mayAsk(r.asked, r.questions, time.Since(r.started)-r.questions) {
		r.unasked++
		r.keepAll(s, group)
		return nil
	}
	before := time.Now()
	named, err := s.exists(ctx, directory.Search{Base: r.base, Scope: directory.Subtree, Filter: directory.FilterByValue("memberOf", group.dn)})
	if err != nil {
		return baseContextError(err)
	}
	r.asked++
	r.questions += time.Since(before)
	if named {
		return r.readHiddenMembers(ctx, s, group)
	}
	r.locked(func() { r.graph.SetKnownEmpty(r.setGroup(group.groupInfo)) })
	return nil
}

// keepAll adds a group that was not asked for with its former members. It is unknown whether it has
// lost them, or hides them.
func (r *graphReader) keepAll(s *session, group unlistedGroup) {
	r.locked(func() {
		former := r.formerMembers(group)
		node := r.setGroup(group.groupInfo)
		for _, guid := range former {
			r.graph.AddMember(node, guid, nil)
		}
		if group.hadBefore || group.wasHidden {
			r.graph.SetMembersUnreadable(node)
		}
	})
	if group.hadBefore || group.wasHidden {
		r.addUnreadableGroup(s, group.guid, group.dn)
	}
}

// formerMembers returns the members of a group in the graph. mu must be held.
func (r *graphReader) formerMembers(group unlistedGroup) (former []ad.GUID) {
	if n, found := r.graph.Find(group.guid); found {
		for _, member := range r.graph.Members(n) {
			former = append(former, r.graph.GUID(member))
		}
	}
	return former
}

// readHiddenMembers adds a group with the members that name it in memberOf, and with the former
// ones whose memberOf may be unreadable.
func (r *graphReader) readHiddenMembers(ctx context.Context, s *session, group unlistedGroup) error {
	var former []ad.GUID
	var node membership.Node
	r.locked(func() {
		former = r.formerMembers(group)
		r.otherSize += guidSize * len(former)
		node = r.setGroup(group.groupInfo)
		r.graph.SetMembersUnreadable(node)
	})
	members := map[ad.GUID]bool{}
	var dn ad.ExtendedDN
	err := r.search(ctx, s, directory.FilterByValue("memberOf", group.dn), "", []string{"objectGUID"}, func(entry *ad.Entry) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		err := r.addMember(node, &dn, entry.ExtendedDN)
		members[dn.GUID] = true
		r.otherSize += guidSize
		return err
	})
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

// keptMembers returns the former members that exist and show no memberOf at all: it may be
// unreadable. Those that show other groups are no members any more.
func (r *graphReader) keptMembers(ctx context.Context, s *session, former []ad.GUID) (kept []ad.GUID, err error) {
	var dn ad.ExtendedDN
	shown := map[ad.GUID]bool{}
	for chunk := range slices.Chunk(former, guidsPerFilter) {
		err := r.search(ctx, s, directory.FilterByGUID(chunk), "", []string{"memberOf"}, func(entry *ad.Entry) error {
			if dn.Parse(entry.ExtendedDN) {
				shown[dn.GUID] = true
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
	for i, guid := range slices.DeleteFunc(former, func(guid ad.GUID) bool { return shown[guid] }) {
		exists := i >= maxLocated
		if !exists {
			if _, exists, err = s.locate(ctx, directory.BaseOfGUID(guid), "1.1"); err != nil {
				return nil, err
			}
		}
		if exists {
			kept = append(kept, guid)
		}
	}
	return kept, nil
}

// keepExisting keeps the accounts and groups of the graph that no search finds but that exist: the
// account can only list them. It keeps no more than maxLocated.
func (r *graphReader) keepExisting(ctx context.Context, s *session, unseen []ad.GUID) error {
	if !r.checksRights {
		return nil
	}
	isGroup := func(guid ad.GUID) bool { return r.graph.HasGroup(guid) }
	slices.SortStableFunc(unseen, func(a, b ad.GUID) int {
		switch {
		case isGroup(a) == isGroup(b):
			return 0
		case isGroup(a):
			return -1
		}
		return 1
	})
	for _, guid := range unseen[:min(len(unseen), maxLocated)] {
		if _, err := r.keepIfExists(ctx, s, guid); err != nil {
			return err
		}
	}
	return nil
}

// keepIfExists keeps an account or a group of the graph that no search finds, if it exists. A group
// below the profile's base, or of a role, is counted with its own asset.
func (r *graphReader) keepIfExists(ctx context.Context, s *session, guid ad.GUID) (exists bool, err error) {
	l, exists, err := s.locate(ctx, directory.BaseOfGUID(guid), "1.1")
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

// withFormer returns the groups of roles and those in them, also those that were among these before the
// run and have left: a group may have been deleted.
func (r *graphReader) withFormer(groups []ad.GUID) []ad.GUID {
	isListed := map[membership.Node]bool{}
	for _, node := range r.graph.RoleGroups() {
		isListed[node] = true
	}
	former := slices.DeleteFunc(r.roleGroups, func(node membership.Node) bool { return isListed[node] || !r.graph.IsGroup(node) })
	for _, node := range former[:min(len(former), maxLocated)] {
		groups = append(groups, r.graph.GUID(node))
	}
	return groups
}

// removeGone removes the groups of roles, and those in them, that a delta sync did not find and that do
// not exist any more. Without the right to read Deleted Objects, nothing else shows it.
func (r *graphReader) removeGone(ctx context.Context, s *session, groups []ad.GUID) error {
	missing := slices.DeleteFunc(groups, func(guid ad.GUID) bool { return r.found[guid] || !r.graph.HasGroup(guid) })
	if !r.checksRights {
		return nil
	}
	for _, guid := range missing[:min(len(missing), maxLocated)] {
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

// addUnreadableGroup records a group whose members are unreadable.
func (r *graphReader) addUnreadableGroup(s *session, guid ad.GUID, dn string) {
	if r.unreadable[guid] {
		return
	}
	r.unreadable[guid] = true
	s.log.Debug().Stringer("guid", guid).Str("dn_hash", hashDN([]byte(dn))).Str("base_dn", directory.ParentDN(dn)).Msg(MsgMembersUnreadable)
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
