package syncrun

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
)

// The searches of the graph. Whatever has a primary group is an account: computers and
// service accounts are members of groups, too. A delta reads every principal that changed:
// it may have no primary group any more.
const (
	graphGroups     = "(objectClass=group)"
	graphAccounts   = "(primaryGroupID=*)"
	graphPrincipals = "(objectSid=*)"
)

// read updates the graph with all memberships, or with those that changed, and computes what
// follows from them.
func (s *membershipSync) read(ctx context.Context, m *memberships, p Plan, whole bool, tombstones *tombstones) error {
	r := &graphReader{base: s.base, graph: m.graph}
	condition := ""
	if whole {
		r.graph.ReadAll()
	} else {
		r.memberOf = map[ad.GUID][]ad.GUID{}
		condition = changedSince(p.Since)
	}
	err := s.session.concurrently(ctx,
		func(ctx context.Context, s *session) error { return r.groups(ctx, s, condition) },
		func(ctx context.Context, s *session) error { return r.accounts(ctx, s, condition) })
	if err != nil {
		return err
	}
	if whole {
		err = r.finishAll(ctx, s.session)
	} else {
		err = r.finishChanges(ctx, s.session, tombstones)
	}
	if err != nil {
		return err
	}
	if r.plain > 0 {
		m.partial = true
		s.log.Warn().Int("values", r.plain).Str("remedy", "use a server that offers extended DNs (1.2.840.113556.1.4.529)").Msg(MsgMembersUnidentified)
	}
	m.unidentified = append(m.unidentified, r.unidentified...)
	m.graph.Compute()
	return nil
}

// finishAll reads again what was not seen, and drops the rest: reading page by page may miss
// an object that changes at that moment.
func (r *graphReader) finishAll(ctx context.Context, s *session) error {
	for some := range slices.Chunk(r.graph.Unseen(), guidsAtOnce) {
		condition := directory.FilterByGUID(some)
		if err := r.groups(ctx, s, condition); err != nil {
			return err
		}
		if err := r.accounts(ctx, s, condition); err != nil {
			return err
		}
	}
	r.graph.DropUnseen()
	return nil
}

// finishChanges removes what was deleted, which leaves its groups without a change of them,
// and corrects groups that contradict their members.
func (r *graphReader) finishChanges(ctx context.Context, s *session, tombstones *tombstones) error {
	deleted, err := tombstones.find(ctx)
	if err != nil {
		return err
	}
	for _, guid := range deleted {
		r.graph.Remove(guid)
	}
	return r.correct(ctx, s)
}

// graphReader updates a graph from two sessions.
type graphReader struct {
	base string

	mu           sync.Mutex // guards what follows
	graph        *membership.Graph
	plain        int       // members without identifiers
	unidentified []ad.GUID // roles of groups without a readable SID

	// In a delta: the groups that changed objects have by their own memberOf, and whether
	// any of them has one.
	memberOf map[ad.GUID][]ad.GUID
	said     bool
}

// note keeps the groups of an object by its memberOf, if all of them were sent.
func (r *graphReader) note(of ad.GUID, entry *ad.Entry, slot int) {
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
	r.memberOf[of] = groups
	r.said = r.said || len(groups) > 0
}

// correct reads the groups again that contradict objects which changed. An object that is
// deleted and restored loses its groups or gets them back, and only the object itself
// changes by that (MS-ADTS 3.1.1.5.3.7). An account that may not read memberOf sees nothing
// but contradictions, which then mean nothing.
func (r *graphReader) correct(ctx context.Context, s *session) error {
	r.graph.Compute()
	wrong := map[ad.GUID]bool{}
	for of, groups := range r.memberOf {
		n, there := r.graph.Find(of)
		if !there {
			continue
		}
		said := map[ad.GUID]bool{}
		for _, guid := range groups {
			said[guid] = true
		}
		for _, group := range r.graph.GroupsOf(n) {
			if guid := r.graph.GUID(group); said[guid] {
				delete(said, guid)
			} else {
				wrong[guid] = true
			}
		}
		for guid := range said {
			if r.graph.HasGroup(guid) { // else it is another domain's
				wrong[guid] = true
			}
		}
	}
	again := slices.SortedFunc(maps.Keys(wrong), byBytes)
	if readable, err := r.readsMemberOf(ctx, s, again); err != nil || !readable {
		return err
	}
	for some := range slices.Chunk(again, guidsAtOnce) {
		if err := r.groups(ctx, s, directory.FilterByGUID(some)); err != nil {
			return err
		}
	}
	return nil
}

// readsMemberOf reports whether the account can read memberOf: of the objects that changed
// or, since those may all have lost their groups, of some others in these groups. Groups
// without others are cheap to read.
func (r *graphReader) readsMemberOf(ctx context.Context, s *session, groups []ad.GUID) (readable bool, err error) {
	if r.said || len(groups) == 0 {
		return true, nil
	}
	others := map[ad.GUID]bool{}
	for _, guid := range groups {
		group, _ := r.graph.Find(guid)
		for _, n := range r.graph.Members(group) {
			other := r.graph.GUID(n)
			if _, changed := r.memberOf[other]; !changed && len(others) < guidsAtOnce {
				others[other] = true
			}
		}
	}
	if len(others) == 0 {
		return true, nil
	}
	condition := directory.FilterByGUID(slices.SortedFunc(maps.Keys(others), byBytes))
	there := false
	err = r.search(ctx, s, condition, "", []string{"memberOf"}, func(entry *ad.Entry) error {
		there = true
		readable = readable || len(entry.First(0)) > 0
		return nil
	})
	return readable || !there, err
}

func (r *graphReader) search(ctx context.Context, s *session, filter, condition string, attributes []string, each func(*ad.Entry) error) error {
	if condition != "" {
		filter = "(&" + filter + condition + ")"
	}
	return baseContextError(s.once(ctx, directory.Search{Base: r.base, Scope: directory.Subtree, Filter: filter, Attributes: attributes, ExtendedDN: true}, each))
}

func (r *graphReader) accounts(ctx context.Context, s *session, condition string) error {
	const memberOf = 3
	attributes := []string{"objectGUID", "objectSid", "primaryGroupID", "memberOf"}
	filter := graphPrincipals
	if r.memberOf == nil {
		filter, attributes = graphAccounts, attributes[:memberOf]
	}
	return r.search(ctx, s, filter, condition, attributes, func(entry *ad.Entry) error {
		guid, ok := ad.ParseGUID(entry.First(0))
		sid, ok2 := ad.ParseSID(entry.First(1))
		primary, _ := ad.ParseRID(entry.First(2)) // 0 where there is none
		if ok && ok2 {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.graph.SetAccount(guid, sid, primary)
			r.note(guid, entry, memberOf)
		}
		return nil
	})
}

// groupHead is what is known of a group besides its members.
type groupHead struct {
	guid     ad.GUID
	sid      ad.SID
	security bool
	role     membership.Role
}

func (r *graphReader) groups(ctx context.Context, s *session, condition string) error {
	const members, memberOf = 4, 5
	attributes := []string{"objectGUID", "objectSid", "sAMAccountName", "groupType", "member", "memberOf"}
	if r.memberOf == nil {
		attributes = attributes[:memberOf]
	}
	var long []groupHead // with more members than the server sends at once
	var dn ad.ExtendedDN
	err := r.search(ctx, s, graphGroups, condition, attributes, func(entry *ad.Entry) error {
		guid, ok := ad.ParseGUID(entry.First(0))
		sid, ok2 := ad.ParseSID(entry.First(1))
		if !ok || !ok2 { // logged when the groups themselves are read
			if ok {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.unidentified = append(r.unidentified, identity.RoleGUID(guid))
			}
			return nil
		}
		groupType, _ := ad.ParseGroupType(entry.First(3))
		head := groupHead{guid, sid, groupType&ad.GroupSecurity != 0, membership.RoleOf(sid, entry.First(2))}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.note(guid, entry, memberOf)
		if slices.Contains(entry.Partial, members) {
			head.sid = slices.Clone(sid)
			long = append(long, head)
			return nil
		}
		group := r.set(head)
		for _, value := range entry.Values[members] {
			r.member(group, &dn, value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, head := range long {
		if err := r.long(ctx, s, head); err != nil {
			return err
		}
	}
	return nil
}

func (r *graphReader) set(head groupHead) membership.Node {
	return r.graph.SetGroup(head.guid, head.sid, head.security, head.role)
}

func (r *graphReader) member(group membership.Node, dn *ad.ExtendedDN, value []byte) {
	if !dn.Parse(value) {
		r.plain++
		return
	}
	sid, _ := dn.SID()
	r.graph.AddMember(group, dn.GUID, sid)
}

// longTries bounds how often a group is read that keeps changing.
const longTries = 5

// long reads a group whose members come in several ranges.
func (r *graphReader) long(ctx context.Context, s *session, head groupHead) error {
	var dn ad.ExtendedDN
	for try := 1; ; try++ {
		group := r.locked(func() membership.Node { return r.set(head) })
		found, err := s.Values(ctx, r.base, head.guid, "member", func(value []byte) error {
			r.locked(func() membership.Node { r.member(group, &dn, value); return group })
			return nil
		})
		s.used = time.Now()
		switch {
		case errors.Is(err, directory.ErrChanged) && try < longTries:
			continue
		case err == nil && !found: // deleted meanwhile
			r.locked(func() membership.Node { r.graph.Remove(head.guid); return group })
		}
		return err
	}
}

func (r *graphReader) locked(do func() membership.Node) membership.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	return do()
}
