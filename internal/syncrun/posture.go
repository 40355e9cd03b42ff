package syncrun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
	"adconnector/internal/state"
)

// posture is what a pass needs besides when security posture is asked for.
//
// It begins with the graph of memberships, of the whole domain: a group outside the
// profile's base makes its members what they are all the same. A full pass reads all
// of it, a delta what has changed. Of whomever the graph then says something else
// than the one before, that object is read again, so that a change of a group
// reaches all that it affects in the run that sees it.
type posture struct {
	readings      []reading // users, groups, service accounts
	roles, domain reading

	graph    *membership.Graph
	before   []uint64 // digests of the graph as it was kept
	kept     state.GraphSource
	known    bool      // there was a graph
	anew     bool      // there was one that cannot be read
	partial  bool      // it does not know all memberships
	affected []ad.GUID // by changes of memberships: to be read again
	readAll  bool      // everything is, since they are too many
}

// defaultAffectedAtMost is up to how many objects are read again one by one because of
// what has changed around them. Beyond, reading everything is faster.
const defaultAffectedAtMost = 10_000

const tooMuchAffected = "changed memberships affect too many objects"

func newPosture(users, groups search) posture {
	of := func(kind identity.Kind, like search) reading {
		like.kind, like.mapper = kind, identity.NewPostureMapper(kind)
		return reading{like, &tally{}}
	}
	return posture{
		readings: []reading{of(identity.User, users), of(identity.Group, groups), of(identity.ServiceAccount, search{})},
		roles:    of(identity.Role, search{anywhere: true}),
		domain:   of(identity.Domain, search{anywhere: true}),
	}
}

// domainBase is where the domain begins; on a server that is no domain controller
// where the profile does.
func (p *pass) domainBase() string {
	if base := p.session.RootDSE.DefaultNamingContext; base != "" {
		return base
	}
	return p.source.Base
}

// recall takes the kept graph up.
func (p *pass) recall() error {
	p.posture = newPosture(p.searches[0], p.searches[1])
	x := &p.posture
	x.graph = membership.New()
	var err error
	x.kept, x.known, err = p.Store.Graph(x.graph.RestoreObject, x.graph.RestoreGroup)
	if errors.Is(err, membership.ErrRecord) {
		p.log.Warn().Err(err).Msg("the kept memberships cannot be read: they are read from the directory anew")
		x.graph, x.known, x.anew, err = membership.New(), false, true, nil
	}
	if err != nil {
		return err
	}
	x.graph.Restored()
	x.graph.Compute()
	x.before = x.graph.Digests()
	x.affected, x.readAll, err = p.Store.Again()
	return err
}

// learn brings the graph up to date and finds out whom that affects.
func (p *pass) learn(ctx context.Context) error {
	start := time.Now()
	x := &p.posture
	source := state.GraphSource{Base: p.domainBase(), InvocationID: p.invocation}
	whole := p.kind == full || x.kept != source // another controller may know other groups
	if err := p.readGraph(ctx, whole); err != nil {
		return err
	}
	x.graph.Compute()
	if !whole {
		affected, err := p.Store.Indexed(x.graph.Affected(x.before))
		if err != nil {
			return err
		}
		if len(affected)+len(x.affected) > p.affectedAtMost {
			p.turnFull(len(affected))
			// A full pass knows of those, too, who were deleted unseen.
			whole = true
			if err := p.readGraph(ctx, whole); err != nil {
				return err
			}
			x.graph.Compute()
		}
	}
	if err := p.findAffected(source); err != nil {
		return err
	}
	for _, r := range append(slices.Clip(x.readings), x.roles, x.domain) {
		if x.partial {
			r.mapper.UsePart(x.graph)
		} else {
			r.mapper.Use(x.graph)
		}
	}
	groups, memberships := x.graph.Len()
	p.log.Info().Str("base_dn", source.Base).Bool("whole", whole).Int("groups", groups).Int("memberships", memberships).
		Int("affected", len(x.affected)).Int64("duration_ms", time.Since(start).Milliseconds()).Msg("memberships read")
	return nil
}

// findAffected compares the graph with the one that was kept, and keeps the new one
// together with what follows from it.
func (p *pass) findAffected(source state.GraphSource) error {
	x := &p.posture
	change := state.GraphChange{Source: source, Anew: x.anew}
	switch affected, err := p.Store.Indexed(x.graph.Affected(x.before)); {
	case err != nil:
		return err
	case !x.known:
		change.AgainAll = true // nobody knows what was sent under which graph
	case len(affected)+len(x.affected) > p.affectedAtMost:
		change.AgainAll = true
		if p.kind == delta {
			p.turnFull(len(affected))
		}
	default:
		change.Again = affected
		x.affected = append(x.affected, affected...)
	}
	if p.mode.DryRun {
		return nil
	}
	objects, groups := x.graph.Changes()
	for _, record := range objects {
		change.Objects = append(change.Objects, state.GraphRecord(record))
	}
	for _, record := range groups {
		change.Groups = append(change.Groups, state.GraphRecord(record))
	}
	return p.Store.ChangeGraph(change)
}

// turnFull makes a full pass of a delta that would read too much one by one.
func (p *pass) turnFull(affected int) {
	p.kind = full
	p.log.Info().Str("mode", full).Str("reason", tooMuchAffected).Int("objects", affected).Msg("pass planned")
}

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
		p.log.Warn().Int("values", r.plain).
			Msg("the directory shows members without identifiers, so that nothing is said of memberships: it must offer extended DNs (1.2.840.113556.1.4.529)")
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

// readRoles reads the groups that are roles, in every run: whom they have may have
// changed without them, and they are few.
func (p *pass) readRoles(ctx context.Context, add addFunc) error {
	var groups []ad.GUID
	for _, h := range p.posture.graph.Holders() {
		groups = append(groups, p.posture.graph.GUID(h.Group))
	}
	if len(groups) == 0 {
		return nil
	}
	return p.read(ctx, p.line, p.posture.roles, directory.FilterByGUID(groups), add)
}

// readDomain reads the domain's own entry and what belongs to it, in every run.
func (p *pass) readDomain(ctx context.Context, add addFunc) error {
	base := p.session.RootDSE.DefaultNamingContext
	if base == "" { // a server that has no domain
		return nil
	}
	if err := p.line.renew(ctx, p.patience); err != nil {
		return err
	}
	c := identity.NewCollector()
	if err := p.collect(ctx, c, base); err != nil {
		return err
	}
	r := p.posture.domain
	query := directory.Search{Base: base, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: r.mapper.Attributes, ExtendedDN: true}
	_, err := p.line.Search(ctx, query, func(entry *ad.Entry) error {
		asset, err := r.mapper.MapDomain(nil, entry, c, p.now)
		if err != nil {
			p.skip(r, entry, err)
			return nil
		}
		_, err = p.take(asset, r.tally, add)
		return err
	})
	return err
}

// collect reads what stands elsewhere than in the domain's own entry. What the
// account may not read there is named in the asset, and stops nothing.
func (p *pass) collect(ctx context.Context, c *identity.Collector, base string) error {
	root := p.session.RootDSE
	c.ForestLevel(root.ForestLevel)
	if root.ForestLevel == "" {
		c.Unreadable("forestFunctionalLevel")
	}
	const system = "CN=System,"
	const policies = "CN=Password Settings Container,CN=System,"
	const recycleBin = "CN=Recycle Bin Feature,CN=Optional Features,CN=Directory Service,CN=Windows NT,CN=Services,"
	for _, part := range []struct {
		name      string
		container string // that must be there and readable, or nothing is proven by finding nothing
		query     directory.Search
		part      *identity.Part
		one       bool // there must be one
	}{
		{"krbtgtPasswordLastChangedAt", "", directory.Search{Base: base, Scope: directory.Subtree, Filter: "(&(objectClass=user)(sAMAccountName=krbtgt))"}, c.Krbtgt, true},
		{"recycleBin", "", directory.Search{Base: recycleBin + root.ConfigurationContext, Scope: directory.Base, Filter: "(objectClass=*)"}, c.RecycleBin, true},
		{"fineGrainedPasswordPolicies", policies + base, directory.Search{Base: policies + base, Scope: directory.OneLevel, Filter: "(objectClass=msDS-PasswordSettings)"}, c.Policies, false},
		{"trusts", system + base, directory.Search{Base: system + base, Scope: directory.OneLevel, Filter: "(objectClass=trustedDomain)"}, c.Trusts, false},
		{"domainControllers", "", directory.Search{Base: base, Scope: directory.Subtree, Filter: "(&(objectClass=computer)(|(primaryGroupID=516)(primaryGroupID=521)))"}, c.Controllers, true},
	} {
		readable := true
		if part.container != "" {
			var err error
			if readable, err = p.isReadable(ctx, part.container); err != nil {
				return err
			}
		}
		found := 0
		part.query.Attributes, part.query.ExtendedDN = part.part.Attributes, true
		_, err := p.line.Search(ctx, part.query, func(entry *ad.Entry) error {
			if part.part.Add(entry, p.now) {
				found++
			} else {
				readable = false // it can be seen, and nothing of it read
			}
			return nil
		})
		switch {
		case fault.Of(err) == fault.Refused:
			readable = false
		case err != nil:
			return fmt.Errorf("read the domain's %s: %w", part.name, err)
		}
		if !readable || part.one && found == 0 {
			c.Unreadable(part.name)
		}
	}
	return nil
}

// isReadable reports whether a container shows itself to the account, with what it is.
func (p *pass) isReadable(ctx context.Context, container string) (bool, error) {
	readable := false
	query := directory.Search{Base: container, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: []string{"objectClass"}}
	_, err := p.line.Search(ctx, query, func(entry *ad.Entry) error {
		readable = len(entry.First(0)) > 0
		return nil
	})
	if fault.Of(err) == fault.Refused {
		return false, nil
	}
	return readable, err
}
