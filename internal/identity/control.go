package identity

import (
	"fmt"
	"slices"

	"adconnector/internal/access"
	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// Security descriptors say who controls an object. Only those of privileged objects are read: of
// all objects, they would be most of what a full sync transfers. So a search for all objects leaves
// them out, and the caller reads the entries for which IsPrivileged is true once more with them.

// UseDescriptors sets whether the entries to map are those of privileged objects, from searches
// that request security descriptors.
func (m *Mapper) UseDescriptors(use bool, domains access.Domains) {
	m.descriptors, m.domains = use, domains
}

// IsPrivileged reports whether an entry is of an object whose security descriptor is to be read: a
// group with a role, an object with the privileges of a role, krbtgt, or an object that is or was
// protected by AdminSDHolder (MS-ADTS 3.1.1.6.1). It does not count the entry's attributes.
func (m *Mapper) IsPrivileged(entry *ad.Entry) bool {
	guid, ok := ad.ParseGUID(entry.First(m.guid))
	sid, ok2 := ad.ParseSID(entry.First(m.sid))
	if !ok || !ok2 || m.adminCount < 0 {
		return false
	}
	if v := entry.First(m.adminCount); len(v) > 0 && string(v) != "0" {
		return true
	}
	if _, rid, ok := sid.Split(); ok && rid == ridKrbtgt && m.kind == User {
		return true
	}
	if m.graph == nil {
		return false
	}
	src := &m.source // Map sets all of it
	src.entry = entry
	m.findMemberships(guid, sid)
	if src.inGraph && src.graph.HasRole(src.node) {
		return true
	}
	return !src.graph.Privileges(src.groups()).IsEmpty()
}

// RoleFilter returns the filter for the groups of roles in a domain. Without the SID of the domain, it
// matches the built-in groups, and those with a well-known name.
func RoleFilter(domain ad.SID) string {
	sids, accounts := membership.RoleGroups(domain)
	filter := []byte("(&(objectClass=group)(|")
	for _, sid := range sids {
		filter = append(filter, "(objectSid="...)
		for _, b := range sid {
			filter = fmt.Appendf(filter, `\%02x`, b)
		}
		filter = append(filter, ')')
	}
	for _, account := range accounts {
		filter = fmt.Appendf(filter, "(sAMAccountName=%s)", account)
	}
	return string(append(filter, "))"...))
}

// controlledBy appends the principals that control an object, by right. A descriptor that was not
// requested, or that is unreadable, has none: see lacksDescriptor.
func controlledBy(class access.Class) value {
	return func(dst []byte, src *source, slots []int) []byte {
		if !src.descriptors || !src.parseDescriptor(slots[0]) {
			return dst
		}
		class := class
		if src.kind == ServiceAccount { // which has the rows of users
			class = access.ServiceAccount
		}
		holders := access.Evaluate(&src.descriptor, class, src.domains)
		return appendHolders(dst, src, &holders)
	}
}

// parseDescriptor parses the security descriptor in a slot. It returns false if there is none, or
// a malformed one, which it counts.
func (src *source) parseDescriptor(slot int) bool {
	v := src.entry.First(slot)
	if len(v) == 0 {
		return false
	}
	if !src.descriptor.Parse(v) {
		src.unparsed++
		return false
	}
	return true
}

// lacksDescriptor reports whether the security descriptor in a slot was requested, but is
// unreadable. An account without the right to read it gets an entry without it.
func (src *source) lacksDescriptor(slot int) bool {
	return src.descriptors && !src.descriptor.Parse(src.entry.First(slot))
}

// LacksDescriptor reports whether an entry, from a search that requests security descriptors, has
// none: the account may not read it. A malformed one counts as unparsed instead.
func (m *Mapper) LacksDescriptor(entry *ad.Entry) bool {
	return m.descriptors && len(entry.First(m.slot(ad.AttributeDescriptor))) == 0
}

// appendHolders appends and mentions the principals of each right that has any.
func appendHolders(dst []byte, src *source, holders *access.Holders) []byte {
	start := len(dst)
	dst = append(dst, '{')
	for right, sids := range holders.All() {
		if len(sids) == 0 {
			continue
		}
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		dst = append(appendEnum(dst, right.String()), ':')
		l := list{dst: dst}
		for _, id := range sids {
			l.sid(id)
			src.mention(id, nil, membership.KindUnknown)
		}
		dst = l.end()
	}
	if len(dst) == start+1 {
		return dst[:start]
	}
	return append(dst, '}')
}

// UseDescriptors sets that the security descriptors of the domain's parts are read.
func (c *Collector) UseDescriptors(domains access.Domains) { c.descriptors, c.domains = true, domains }

// AddAdminSDHolder adds the security descriptor of AdminSDHolder; nil: unreadable.
func (c *Collector) AddAdminSDHolder(descriptor []byte) {
	c.addControlled(collectedAdminSDHolder, access.AdminSDHolder, descriptor)
}

// AddKrbtgt adds the security descriptor of krbtgt; nil: unreadable.
func (c *Collector) AddKrbtgt(descriptor []byte) {
	c.addControlled(collectedKrbtgtControl, access.User, descriptor)
}

// addControlled adds the principals that control an object.
func (c *Collector) addControlled(name string, class access.Class, descriptor []byte) {
	src, ok := c.parseDescriptor(descriptor)
	if !ok {
		c.AddUnreadable(targetsOf(posture[Domain], name, domain)[0])
		return
	}
	holders := access.Evaluate(&src.descriptor, class, c.domains)
	c.addItem(name, appendHolders(nil, src, &holders), src)
}

// AddContainer adds a container of privileged objects with its security descriptor; nil:
// unreadable. A container that no other principal controls than administrators is left out, and so
// are those beyond maxContainerBytes: then the list is incomplete.
func (c *Collector) AddContainer(dn string, descriptor []byte) {
	src, ok := c.parseDescriptor(descriptor)
	if !ok {
		c.AddUnreadable(targetsOf(posture[Domain], collectedContainers, domain)[0])
		return
	}
	holders := access.Evaluate(&src.descriptor, access.Container, c.domains)
	controlled := appendHolders(nil, src, &holders)
	if len(controlled) == 0 {
		return
	}
	if c.containerSize += len(controlled) + len(dn) + len(src.mentions)*itemOverhead; c.containerSize > maxContainerBytes {
		c.AddMoreContainers()
		return
	}
	json := appendString([]byte(`{"distinguishedName":`), []byte(dn))
	json = append(append(append(json, `,"controlledBy":`...), controlled...), '}')
	c.addItem(collectedContainers, json, src)
}

// maxContainerBytes limits the containers in the asset of the domain, so that large descriptors cannot
// make the asset too large to be sent.
const maxContainerBytes = MaxAssetBytes / 4

// AddMoreContainers records that not all containers of privileged objects were added.
func (c *Collector) AddMoreContainers() {
	c.AddUnreadable(targetsOf(posture[Domain], collectedContainers, domain)[0])
}

func (c *Collector) parseDescriptor(descriptor []byte) (*source, bool) {
	src := &source{}
	if len(descriptor) == 0 {
		return src, false
	}
	if !src.descriptor.Parse(descriptor) {
		c.unparsed++
		return src, false
	}
	return src, true
}

// addItem adds the JSON of an item with what it mentions.
func (c *Collector) addItem(name string, json []byte, src *source) {
	if len(json) == 0 || c.size > MaxAssetBytes { // then the domain's asset is too large
		return
	}
	c.controlled[name] = append(c.controlled[name], json)
	c.size += len(json) + itemOverhead
	c.addMentions(src.mentions)
}

// addControlled adds the collected principals to the parts of the domain's asset.
func (m *Mapper) addControlled(c *Collector) {
	for name, items := range c.controlled {
		slices.SortFunc(items, slices.Compare)
		m.collected[name] = collection{items, name == collectedContainers}
	}
}
