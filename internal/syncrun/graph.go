package syncrun

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
)

// The searches of the graph. Whatever has a primary group is an account: computers
// and service accounts are in groups, too. A delta looks at every principal that has
// changed: it may have no primary group any more.
const (
	graphGroups     = "(objectClass=group)"
	graphAccounts   = "(primaryGroupID=*)"
	graphPrincipals = "(objectSid=*)"
)

// readGraph tells the graph of everything, or of what has changed.
func (p *pass) readGraph(ctx context.Context, whole bool) error {
	r := &graphReader{pass: p, graph: p.posture.graph}
	condition := ""
	if whole {
		r.graph.ReadAll()
	} else {
		r.memberOf = map[ad.GUID][]ad.GUID{}
		condition = "(uSNChanged>=" + strconv.FormatInt(int64(p.since), 10) + ")"
	}
	err := p.beside(ctx,
		func(ctx context.Context, l *line) error { return r.groups(ctx, l, condition) },
		func(ctx context.Context, l *line) error { return r.accounts(ctx, l, condition) })
	if err != nil {
		return err
	}
	if r.plain > 0 {
		p.posture.partial = true
		p.log.Warn().Int("values", r.plain).Str("remedy", "use a server that supports extended DNs (1.2.840.113556.1.4.529)").
			Msg(MsgMembersUnidentified)
	}
	if !whole {
		// Whoever is deleted vanishes from his groups, which do not change by that.
		gone, err := p.tombstones(ctx)
		if err != nil {
			return err
		}
		for _, guid := range gone {
			r.graph.Remove(guid)
		}
		return r.correct(ctx)
	}
	// Reading page by page may pass by an object that is changed at that moment.
	for some := range slices.Chunk(r.graph.Unseen(), guidsAtOnce) {
		condition := directory.FilterByGUID(some)
		if err := r.groups(ctx, p.line, condition); err != nil {
			return err
		}
		if err := r.accounts(ctx, p.line, condition); err != nil {
			return err
		}
	}
	r.graph.DropUnseen()
	return nil
}

// graphReader tells a graph of what two sessions read.
type graphReader struct {
	*pass
	mu    sync.Mutex // guards the graph
	graph *membership.Graph
	plain int // members without identifiers

	// Of a delta: what the objects that have changed say of their groups, and
	// whether any of them says something.
	memberOf map[ad.GUID][]ad.GUID
	said     bool
}

// note keeps what an object says of its groups, if it says all of it.
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

// correct reads the groups again that objects which have changed contradict. Whoever
// is deleted and brought back has lost his groups, or has got them back, and only he
// shows a change by that (MS-ADTS 3.1.1.5.3.7). An account that may not read memberOf
// sees contradictions only, and they mean nothing.
func (r *graphReader) correct(ctx context.Context) error {
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
	if readable, err := r.readsMemberOf(ctx, again); err != nil || !readable {
		return err
	}
	for some := range slices.Chunk(again, guidsAtOnce) {
		if err := r.groups(ctx, r.line, directory.FilterByGUID(some)); err != nil {
			return err
		}
	}
	return nil
}

// readsMemberOf reports whether memberOf shows the account anything: of the objects
// that have changed or, since those may all have lost their groups, of some others in
// these groups. Groups without others are read at little cost.
func (r *graphReader) readsMemberOf(ctx context.Context, groups []ad.GUID) (readable bool, err error) {
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
	err = r.search(ctx, r.line, condition, "", []string{"memberOf"}, func(entry *ad.Entry) error {
		there = true
		readable = readable || len(entry.First(0)) > 0
		return nil
	})
	return readable || !there, err
}

func (r *graphReader) search(ctx context.Context, l *line, filter, condition string, attributes []string, each func(*ad.Entry) error) error {
	if condition != "" {
		filter = "(&" + filter + condition + ")"
	}
	query := directory.Search{Base: r.domainBase(), Scope: directory.Subtree, Filter: filter, Attributes: attributes, ExtendedDN: true}
	_, err := l.Search(ctx, query, each)
	l.used = time.Now()
	return err
}

func (r *graphReader) accounts(ctx context.Context, l *line, condition string) error {
	const memberOf = 3
	attributes := []string{"objectGUID", "objectSid", "primaryGroupID", "memberOf"}
	filter := graphPrincipals
	if r.memberOf == nil {
		filter, attributes = graphAccounts, attributes[:memberOf]
	}
	return r.search(ctx, l, filter, condition, attributes, func(entry *ad.Entry) error {
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

func (r *graphReader) groups(ctx context.Context, l *line, condition string) error {
	const members, memberOf = 4, 5
	attributes := []string{"objectGUID", "objectSid", "sAMAccountName", "groupType", "member", "memberOf"}
	if r.memberOf == nil {
		attributes = attributes[:memberOf]
	}
	var long []groupHead // that have more members than the server gives at once
	var dn ad.ExtendedDN
	err := r.search(ctx, l, graphGroups, condition, attributes, func(entry *ad.Entry) error {
		guid, ok := ad.ParseGUID(entry.First(0))
		sid, ok2 := ad.ParseSID(entry.First(1))
		if !ok || !ok2 { // told when the groups themselves are read
			if ok {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.saw(r.posture.roles.tally, identity.RoleGUID(guid)) // it has not gone, whatever it is
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
		if err := r.long(ctx, l, head); err != nil {
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

// longTries bounds how often a group is read that is changed all the time.
const longTries = 5

// long reads a group whose members do not come at once.
func (r *graphReader) long(ctx context.Context, l *line, head groupHead) error {
	var dn ad.ExtendedDN
	for try := 1; ; try++ {
		group := r.locked(func() membership.Node { return r.set(head) })
		found, err := l.Values(ctx, r.domainBase(), head.guid, "member", func(value []byte) error {
			r.locked(func() membership.Node { r.member(group, &dn, value); return group })
			return nil
		})
		switch {
		case errors.Is(err, directory.ErrChanged) && try < longTries:
			continue
		case err == nil && !found: // deleted since
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
