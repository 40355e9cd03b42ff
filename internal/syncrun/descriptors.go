package syncrun

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"adconnector/internal/access"
	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// Security descriptors are read of privileged objects only. A search for all objects does not
// request them: it collects the GUIDs of privileged objects, which are then read once more with
// their descriptors, so that each is sent once.
//
// A changed descriptor raises the update sequence number of its object, but not those of the
// objects that inherit from it (MS-ADTS 6.1.3): the domain controller changes their descriptors
// without a change of their metadata. So each run reads the containers of privileged objects, up to the
// domain. If a descriptor of one of them differs from that of the last run, a delta sync reads all
// privileged objects again.

const (
	// maxContainers limits the containers of privileged objects, and maxContainerBytes their
	// descriptors. Those that are nearest to the domain come first. Domains have a few dozen.
	maxContainers     = 1000
	maxContainerBytes = 8 << 20
	// maxParents limits the containers that are remembered.
	maxParents = 10 * maxContainers
	// propagationTime is how long after a change of a container a delta sync reads all privileged
	// objects for the last time: a domain controller changes the objects below in the background.
	propagationTime = time.Hour
)

// container is a container of privileged objects.
type container struct {
	dn         string
	guid       ad.GUID // zero: unreadable
	descriptor []byte  // nil: unreadable
}

// hash returns a hash of the descriptor, or 0 if it is unreadable.
func (c container) hash() uint64 {
	if c.descriptor == nil {
		return 0
	}
	sum := sha256.Sum256(c.descriptor)
	return max(1, binary.BigEndian.Uint64(sum[:8]))
}

// descriptorReading is what a run reads of security descriptors.
type descriptorReading struct {
	base    string // of the domain
	domains access.Domains
	refused bool // the server refuses searches that request descriptors, although it offers them
	stored  state.Containers

	mu         sync.Mutex        // guards the following fields
	parents    map[string]string // the containers of privileged objects: lower-case DN → DN
	containers []container       // those that were read
	size       int               // of their descriptors
	incomplete bool              // not all containers were read
	unreadable unreadableDescriptors
}

// newDescriptorReading returns nil if the server has no security descriptors, or does not offer
// parts of them.
func newDescriptorReading(root directory.RootDSE) *descriptorReading {
	if !root.IsDomainController() || !root.Descriptors || root.DefaultNamingContext == "" {
		return nil
	}
	return &descriptorReading{base: root.DefaultNamingContext, parents: map[string]string{}, unreadable: newUnreadableDescriptors()}
}

// addParents adds the containers of an object, up to the domain.
func (d *descriptorReading) addParents(dn []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for parent := directory.ParentDN(string(dn)); parent != ""; parent = directory.ParentDN(parent) {
		key := strings.ToLower(parent)
		if _, found := d.parents[key]; found {
			return
		}
		if len(d.parents) == maxParents {
			d.incomplete = true
			return
		}
		if d.parents[key] = parent; strings.EqualFold(parent, d.base) {
			return
		}
	}
}

// begin reads what the reading of objects depends on. In a delta sync, it also reads the recorded
// containers.
func (d *descriptorReading) begin(ctx context.Context, r *reader) (err error) {
	if d.stored, err = r.store.Containers(); err != nil {
		return err
	}
	if err = d.probe(ctx, r.session); err != nil {
		return err
	}
	if d.domains, err = readDomains(ctx, r.session); err != nil || r.plan.Mode == full {
		return err
	}
	d.incomplete = d.stored.Incomplete // a delta sync does not read the containers of objects that did not change
	var guids []ad.GUID
	for _, c := range d.stored.List {
		guids = append(guids, c.GUID)
	}
	for chunk := range slices.Chunk(guids, guidsPerFilter) {
		if _, err := d.readContainers(ctx, r.session, directory.Search{Base: d.base, Scope: directory.Subtree, Filter: directory.FilterByGUID(chunk)}); err != nil {
			return err
		}
	}
	return d.addUnreadable(ctx, r.session, guids)
}

// probe finds out whether the server refuses searches that request descriptors, as a proxy in front of
// a domain controller does that passes on its rootDSE only. They are then unreadable.
func (d *descriptorReading) probe(ctx context.Context, s *session) error {
	head := directory.Search{Base: d.base, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: []string{ad.AttributeDescriptor}, Descriptors: true}
	err := s.searchOnce(ctx, head, func(*ad.Entry) error { return nil })
	if d.refused = fault.ClassOf(err) == fault.Refused; d.refused {
		return nil
	}
	return err
}

// requested reports whether searches for privileged objects request their descriptors.
func (d *descriptorReading) requested() bool { return d != nil && !d.refused }

// readDomains reads the SIDs of the domain and of the root of the forest. Those that are unreadable
// are nil.
func readDomains(ctx context.Context, s *session) (domains access.Domains, err error) {
	base, root := s.RootDSE.DefaultNamingContext, s.RootDSE.ForestRoot
	read := func(search directory.Search, parse func([]byte) (ad.SID, bool)) (sid ad.SID, err error) {
		err = s.searchOnce(ctx, search, func(entry *ad.Entry) error {
			if parsed, ok := parse(entry.First(0)); ok {
				sid = slices.Clone(parsed)
			}
			return nil
		})
		if fault.ClassOf(err) == fault.Refused {
			return nil, nil
		}
		return sid, err
	}
	head := directory.Search{Base: base, Scope: directory.Base, Filter: "(objectClass=*)", Attributes: []string{"objectSid"}}
	if domains.Own, err = read(head, ad.ParseSID); err != nil || root == "" || strings.EqualFold(root, base) {
		return domains, err
	}
	// The cross-reference object of each domain of the forest has a reference to the head of the
	// domain, with its SID (MS-ADTS 6.1.1.2.1.1).
	reference := crossReferences(s.RootDSE, root)
	reference.Attributes, reference.ExtendedDN = []string{"nCName"}, true
	if domains.ForestRoot, err = read(reference, linkedSID); err != nil || domains.ForestRoot != nil {
		return domains, err
	}
	trust := directory.Search{
		Base: systemContainer + base, Scope: directory.OneLevel, Attributes: []string{"securityIdentifier"},
		Filter: "(&(objectClass=trustedDomain)(trustAttributes:" + ad.MatchingRuleBitAnd + ":=" + trustWithinForest + ")" +
			directory.FilterByValue("trustPartner", string(ad.AppendDNSName(nil, []byte(root)))) + ")",
	}
	domains.ForestRoot, err = read(trust, ad.ParseSID)
	return domains, err
}

// trustWithinForest is TRUST_ATTRIBUTE_WITHIN_FOREST (MS-ADTS 6.1.6.7.9).
const trustWithinForest = "32"

// linkedSID returns the SID in an extended DN.
func linkedSID(value []byte) (ad.SID, bool) {
	var dn ad.ExtendedDN
	if !dn.Parse(value) {
		return nil, false
	}
	sid, ok := dn.SID()
	return slices.Clone(sid), ok
}

// addUnreadable adds the containers that exist, but that the account cannot read any more.
func (d *descriptorReading) addUnreadable(ctx context.Context, s *session, guids []ad.GUID) error {
	for _, guid := range guids {
		if slices.ContainsFunc(d.containers, func(c container) bool { return c.guid == guid }) {
			continue
		}
		if err := s.reconnectIfIdle(ctx); err != nil {
			return err
		}
		located, found, err := s.Locate(ctx, directory.BaseOfGUID(guid), "1.1")
		s.lastUsed = time.Now()
		if err != nil {
			return err
		}
		if found {
			d.containers = append(d.containers, container{dn: located.DN, guid: guid})
			d.noteInvisible(s.log, located.DN)
		}
	}
	return nil
}

// readContainers adds the containers that a search finds. It returns how many there are.
func (d *descriptorReading) readContainers(ctx context.Context, s *session, search directory.Search) (found int, err error) {
	search.Attributes, search.Descriptors = []string{"objectGUID", ad.AttributeDescriptor}, d.requested()
	err = s.searchOnce(ctx, search, func(entry *ad.Entry) error {
		found++
		guid, _ := ad.ParseGUID(entry.First(0))
		descriptor := slices.Clone(entry.First(1))
		if !strings.EqualFold(string(entry.DN), d.base) { // of which readDomain takes note
			d.note(s.log, identity.Domain, guid, entry.DN, descriptor)
		}
		if len(d.containers) == maxContainers || d.size+len(descriptor) > maxContainerBytes {
			d.incomplete = true
			return nil
		}
		d.size += len(descriptor)
		d.containers = append(d.containers, container{string(entry.DN), guid, descriptor})
		return nil
	})
	return found, err
}

// readParents reads the containers of the privileged objects that were read, unless the run has
// read them.
func (d *descriptorReading) readParents(ctx context.Context, s *session) error {
	for _, c := range d.containers {
		delete(d.parents, strings.ToLower(c.dn))
	}
	keys := slices.SortedFunc(maps.Keys(d.parents), compareDepths)
	for _, key := range keys {
		if len(d.containers) == maxContainers {
			d.incomplete = true
			break
		}
		found, err := d.readContainers(ctx, s, directory.Search{Base: d.parents[key], Scope: directory.Base, Filter: "(objectClass=*)"})
		if err != nil && fault.ClassOf(err) != fault.Refused {
			return err
		}
		if found == 0 { // not visible to the account, or deleted in the meantime
			d.incomplete = true
			d.noteInvisible(s.log, d.parents[key])
		}
	}
	clear(d.parents)
	return nil
}

// compareDepths compares two DNs, by the number of containers above them first.
func compareDepths(a, b string) int {
	return cmp.Or(cmp.Compare(depth(a), depth(b)), cmp.Compare(a, b))
}

// depth returns the number of containers above an object.
func depth(dn string) (n int) {
	for dn = directory.ParentDN(dn); dn != ""; dn = directory.ParentDN(dn) {
		n++
	}
	return n
}

// inherits reports whether the descriptors of privileged objects may have changed by inheritance.
func (d *descriptorReading) inherits() bool { return d.changed() || !d.stored.InheritedAt.IsZero() }

// changed reports whether the descriptor of a container differs from that of the last run.
func (d *descriptorReading) changed() bool {
	before := map[ad.GUID]uint64{}
	for _, c := range d.stored.List {
		before[c.GUID] = c.Descriptor
	}
	return slices.ContainsFunc(d.containers, func(c container) bool {
		hash, found := before[c.guid]
		return found && hash != c.hash()
	})
}

// result returns the containers to record after a run, or nil on a server without security
// descriptors.
func (d *descriptorReading) result(now time.Time) *state.Containers {
	if d == nil {
		return nil
	}
	result := &state.Containers{InheritedAt: d.stored.InheritedAt, Incomplete: d.incomplete}
	switch {
	case d.changed():
		result.InheritedAt = now
	case now.Sub(d.stored.InheritedAt).Abs() >= propagationTime:
		result.InheritedAt = time.Time{} // this run has read the objects late enough, however rare runs are
	}
	for _, c := range d.containers {
		if c.guid != (ad.GUID{}) {
			result.List = append(result.List, state.Container{GUID: c.guid, Descriptor: c.hash()})
		}
	}
	slices.SortFunc(result.List, func(a, b state.Container) int { return compareGUIDs(a.GUID, b.GUID) })
	return result
}

// collect adds the descriptors of the domain's parts to the collector.
func (d *descriptorReading) collect(ctx context.Context, s *session, c *identity.Collector) error {
	for _, part := range []struct {
		dn     string // in a new domain
		search directory.Search
		add    func(descriptor []byte)
	}{
		{directory.AdminSDHolder(d.base), directory.Search{Base: directory.AdminSDHolder(d.base), Scope: directory.Base, Filter: "(objectClass=*)"}, c.AddAdminSDHolder},
		{"CN=krbtgt,CN=Users," + d.base, directory.Search{Base: d.base, Scope: directory.Subtree, Filter: krbtgtFilter}, c.AddKrbtgt},
	} {
		var descriptor []byte
		found := false
		part.search.Attributes, part.search.Descriptors = []string{ad.AttributeDescriptor, "objectGUID"}, d.requested()
		err := s.searchOnce(ctx, part.search, func(entry *ad.Entry) error {
			found = true
			d.addParents(entry.DN)
			descriptor = slices.Clone(entry.First(0))
			guid, _ := ad.ParseGUID(entry.First(1))
			d.note(s.log, identity.Domain, guid, entry.DN, descriptor)
			return nil
		})
		if err != nil && fault.ClassOf(err) != fault.Refused {
			return err
		}
		if !found { // every domain has one
			d.noteInvisible(s.log, part.dn)
		}
		part.add(descriptor)
	}
	if err := d.readParents(ctx, s); err != nil {
		return err
	}
	// In one order in full and delta syncs: if there are too many, the same ones are left out.
	slices.SortFunc(d.containers, func(a, b container) int { return compareDepths(a.dn, b.dn) })
	for _, container := range d.containers {
		if !strings.EqualFold(container.dn, d.base) { // the domain's own principals are not those of a container
			c.AddContainer(container.dn, container.descriptor)
		}
	}
	if d.incomplete {
		c.AddMoreContainers()
	}
	return nil
}

// inheritingObjects returns the privileged objects that a delta sync reads again because what they
// inherit may have changed: those of the memberships, and those with adminCount in the scope.
func (r *reader) inheritingObjects(ctx context.Context) (guids []ad.GUID, err error) {
	if r.descriptors == nil || !r.descriptors.inherits() {
		return nil, nil
	}
	if guids, err = r.store.Indexed(r.privilegedObjects()); err != nil {
		return nil, err
	}
	search := directory.Search{Filter: "(adminCount>=1)", Attributes: []string{"objectGUID"}}
	search.Base, search.Scope = r.scopeOf(false)
	err = r.session.searchOnce(ctx, search, func(entry *ad.Entry) error {
		if guid, ok := ad.ParseGUID(entry.First(0)); ok && len(guids) < maxInheriting {
			guids = append(guids, guid)
		}
		return nil
	})
	if len(guids) >= maxInheriting { // the others are read by the next full sync
		guids = guids[:maxInheriting]
	}
	return guids, baseContextError(err)
}

// maxInheriting limits the objects that a delta sync reads again because of inheritance, and
// maxPrivileged those whose containers a full sync finds by their memberships.
const (
	maxInheriting = 10_000
	maxPrivileged = 10_000
)

// privilegedObjects returns the groups with a role, and the objects with a privileged role.
func (r *reader) privilegedObjects() (guids []ad.GUID) {
	graph := r.posture.memberships.graph
	for _, role := range graph.RoleMembers() {
		guids = append(guids, graph.GUID(role.Group))
		if !role.Role.IsPrivileged() {
			continue
		}
		for _, node := range slices.Concat(role.Groups, role.Members) {
			guids = append(guids, graph.GUID(node))
		}
	}
	slices.SortFunc(guids, compareGUIDs)
	return slices.Compact(guids)
}

// addPrivilegedParents adds the containers of all objects with a privileged role in a full sync.
// Those of computers, and of objects outside of the scope, are not read otherwise.
func (r *reader) addPrivilegedParents(ctx context.Context) error {
	if r.descriptors == nil || r.plan.Mode != full {
		return nil
	}
	guids := r.privilegedObjects()
	if len(guids) > maxPrivileged {
		guids, r.descriptors.incomplete = guids[:maxPrivileged], true
	}
	search := directory.Search{Base: r.descriptors.base, Scope: directory.Subtree, Attributes: []string{"objectGUID"}}
	for chunk := range slices.Chunk(guids, guidsPerFilter) {
		search.Filter = directory.FilterByGUID(chunk)
		err := r.session.searchOnce(ctx, search, func(entry *ad.Entry) error {
			r.descriptors.addParents(entry.DN)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// useDescriptors sets whether the entries of the next search have their security descriptors.
func (e *entryReader) useDescriptors(use bool) {
	if e.withDescriptors = use; e.descriptors != nil {
		e.query.mapper.UseDescriptors(use, e.descriptors.domains)
	}
}

// readPostponed reads the objects that the search has postponed once more, with their security
// descriptors.
func (e *entryReader) readPostponed(ctx context.Context, s *session, search directory.Search) error {
	e.useDescriptors(true)
	search.Descriptors = e.descriptors.requested()
	e.comparer.counted = true
	for chunk := range slices.Chunk(e.comparer.postponed, guidsPerFilter) {
		e.comparer.kept = e.comparer.result
		counts := e.query.mapper.Counts()
		restart := func() error {
			e.query.mapper.SetCounts(counts)
			return e.comparer.reset()
		}
		search.Filter = "(&" + e.query.filter + directory.FilterByGUID(chunk) + ")"
		if _, err := s.search(ctx, search, e.each, e.to.flush, restart); err != nil {
			return err
		}
	}
	return nil
}
