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

// The limits of the questions whether groups hide their members. A domain controller answers one from
// its table of links, and another server (Samba) compares all objects. So the first groups are always
// asked for, and others as long as the questions take a small part of the time. Later runs ask for the
// rest.
const (
	minAskedGroups = 100
	maxAskedGroups = 10_000
	askedShare     = 10 // of the time
)

// mayAsk reports whether a further group may be asked for. questions is the duration of those so far,
// and reading that of the rest of the reading.
func mayAsk(asked int, questions, reading time.Duration) bool {
	return asked < minAskedGroups || asked < maxAskedGroups && questions*askedShare < reading
}

// maxLocatedMembers limits the former members of a group that are searched one by one.
const maxLocatedMembers = 100

// unlistedGroup is a group that shows no members.
type unlistedGroup struct {
	groupInfo
	dn        string
	hadBefore bool // the stored graph has members
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
	return unlistedGroup{info, string(dn), found && len(r.graph.Members(node)) > 0}
}

// readUnlisted adds groups without visible members: with those that name them in memberOf, or without
// members. It begins with the groups that had members before and those of roles, and goes on with the
// groups in the latter.
func (r *graphReader) readUnlisted(ctx context.Context, s *session, groups []unlistedGroup) error {
	var first, others []unlistedGroup
	for _, group := range groups {
		if group.hadBefore || group.role != 0 {
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
	slices.SortStableFunc(others, func(a, b unlistedGroup) int {
		switch {
		case inRoles[a.guid] == inRoles[b.guid]:
			return 0
		case inRoles[a.guid]:
			return -1
		}
		return 1
	})
	for _, group := range others {
		if err := r.readUnlistedGroup(ctx, s, group); err != nil {
			return err
		}
	}
	return nil
}

func (r *graphReader) readUnlistedGroup(ctx context.Context, s *session, group unlistedGroup) error {
	asks, named := mayAsk(r.asked, r.questions, time.Since(r.started)-r.questions), false
	if asks {
		before := time.Now()
		var err error
		named, err = s.exists(ctx, directory.Search{Base: r.base, Scope: directory.Subtree, Filter: directory.FilterByValue("memberOf", group.dn)})
		if err != nil {
			return baseContextError(err)
		}
		r.asked++
		r.questions += time.Since(before)
	} else {
		r.unasked++
	}
	if named {
		return r.readHiddenMembers(ctx, s, group)
	}
	r.locked(func() {
		node := r.setGroup(group.groupInfo)
		if asks {
			r.graph.SetKnownEmpty(node)
		}
	})
	return nil
}

// readHiddenMembers adds a group with the members that name it in memberOf, and with the former
// ones whose memberOf may be unreadable.
func (r *graphReader) readHiddenMembers(ctx context.Context, s *session, group unlistedGroup) error {
	var former []ad.GUID
	var node membership.Node
	r.locked(func() {
		if n, found := r.graph.Find(group.guid); found {
			for _, member := range r.graph.Members(n) {
				former = append(former, r.graph.GUID(member))
			}
		}
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
	r.addUnreadableGroup(s, group)
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
	former = slices.DeleteFunc(former, func(guid ad.GUID) bool { return shown[guid] })
	existing, err := s.existing(ctx, former, maxLocatedMembers)
	return append(kept, existing...), err
}

// existing returns the objects that exist, as a base search finds them. Beyond the limit, all count as
// existing.
func (s *session) existing(ctx context.Context, guids []ad.GUID, limit int) (existing []ad.GUID, err error) {
	for i, guid := range guids {
		exists := i >= limit
		if !exists {
			if _, exists, err = s.locate(ctx, directory.BaseOfGUID(guid), "1.1"); err != nil {
				return nil, err
			}
		}
		if exists {
			existing = append(existing, guid)
		}
	}
	return existing, nil
}

// addUnreadableGroup records a group whose members are unreadable.
func (r *graphReader) addUnreadableGroup(s *session, group unlistedGroup) {
	if r.unreadable[group.guid] {
		return
	}
	r.unreadable[group.guid] = true
	s.log.Debug().Stringer("sid", group.sid).Stringer("guid", group.guid).Str("dn_hash", hashDN([]byte(group.dn))).
		Str("base_dn", directory.ParentDN(group.dn)).Msg(MsgMembersUnreadable)
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
