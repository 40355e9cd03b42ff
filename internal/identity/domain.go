package identity

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/access"
	"adconnector/internal/ad"
)

// collection is the JSON of one part of the domain's asset.
type collection struct {
	items  [][]byte
	isList bool // all items are sent as a list; otherwise the last one is sent
}

// Collector collects the parts of the domain's asset that are read from other entries than
// the domain's own. It is for use by one goroutine.
type Collector struct {
	Policies, Trusts, Controllers *Part // any number of entries
	Krbtgt, RecycleBin, Names     *Part // one entry
	EntraSSO, Heuristics          *Part // one entry

	parts       map[string]*Part
	forestLevel string
	laps        []byte // JSON; nil: unknown
	unreadable  []string
	mentions    []mention
	hosts       *ControllerHosts
	size        int // bytes of all items and mentions

	descriptors bool                // see UseDescriptors
	domains     access.Domains      // see UseDescriptors
	controlled  map[string][][]byte // items from security descriptors
	unparsed    int                 // malformed security descriptors

	containerSize int // bytes of the containers
}

// Part maps the entries of one part. Its search must request Attributes, in that order, with
// extended DNs.
type Part struct {
	Attributes []string
	Unparsed   int

	collector *Collector
	mapper    *Mapper
	name      string
	target    string // in the domain's asset
	isList    bool
	items     [][]byte
}

// requiredOfParts has the attributes that every entry of a part has, so that a missing one is not
// readable by the account. An entry of krbtgt or of the recycle bin has no others.
var requiredOfParts = map[string][]string{
	collectedTrusts:      {"trustPartner", "trustDirection", "trustType", "trustAttributes"},
	collectedControllers: {"name", "objectSid", "pwdLastSet"},
	collectedNames:       {"dnsRoot", "nETBIOSName"},
	collectedPolicies: {
		"name", "msDS-PasswordSettingsPrecedence", "msDS-MinimumPasswordLength", "msDS-PasswordHistoryLength", "msDS-PasswordComplexityEnabled",
		"msDS-PasswordReversibleEncryptionEnabled", "msDS-MinimumPasswordAge", "msDS-MaximumPasswordAge",
		"msDS-LockoutThreshold", "msDS-LockoutDuration", "msDS-LockoutObservationWindow",
	},
}

// targetsOf returns the targets of the rows that have an attribute as a source, without a prefix.
func targetsOf(rows []row, attribute, prefix string) (targets []string) {
	for _, row := range rows {
		if slices.Contains(strings.Split(row.source, ", "), attribute) {
			targets = append(targets, strings.TrimPrefix(row.target, prefix))
		}
	}
	return targets
}

// NewCollector returns an empty collector.
func NewCollector() *Collector {
	c := &Collector{parts: map[string]*Part{}, controlled: map[string][][]byte{}, hosts: &ControllerHosts{names: map[string]struct{}{}, complete: true}}
	part := func(name string, isList bool) *Part {
		m := &Mapper{}
		for _, row := range parts[name] {
			m.add(row)
		}
		p := &Part{Attributes: m.Attributes, collector: c, mapper: m, name: name, target: targetsOf(posture[Domain], name, domain)[0], isList: isList}
		c.parts[name] = p
		return p
	}
	c.Policies, c.Trusts, c.Controllers = part(collectedPolicies, true), part(collectedTrusts, true), part(collectedControllers, true)
	c.Krbtgt, c.RecycleBin, c.Names = part(collectedKrbtgt, false), part(collectedRecycleBin, false), part(collectedNames, false)
	c.EntraSSO, c.Heuristics = part(collectedEntraSSO, false), part(collectedHeuristics, false)
	return c
}

// itemOverhead is the memory of an item besides its JSON.
const itemOverhead = 32

// Add maps one entry. It reports whether the entry had any of the attributes: an entry
// without read access has none.
func (p *Part) Add(entry *ad.Entry, now time.Time) bool {
	src := source{entry: entry, now: now, descriptors: p.collector.descriptors, domains: p.collector.domains}
	json, ok := p.mapper.root.append(nil, &src)
	p.Unparsed += src.unparsed
	if ok {
		p.addUnreadable(entry)
		if slot := slices.Index(p.Attributes, ad.AttributeDescriptor); slot >= 0 && src.lacksDescriptor(slot) {
			p.collector.AddUnreadable(p.target + ".controlledBy")
		}
	}
	if ok && p.collector.size <= MaxAssetBytes { // otherwise the domain's asset is too large
		p.items = append(p.items, json)
		p.collector.size += len(json) + itemOverhead
		p.collector.addMentions(src.mentions)
		if p.name == collectedControllers {
			p.collector.hosts.add(p.first(entry, "name"), p.first(entry, "dNSHostName"))
		}
	}
	return hasAny(entry)
}

// first returns the first value of an attribute.
func (p *Part) first(entry *ad.Entry, attribute string) []byte {
	return entry.First(slices.Index(p.Attributes, attribute))
}

// ControllerHosts returns the host names of the domain controllers that were added. complete is whether
// these are all of them. It does not share memory with entries.
func (c *Collector) ControllerHosts(complete bool) *ControllerHosts {
	return &ControllerHosts{names: c.hosts.names, complete: complete && c.hosts.complete && c.size <= MaxAssetBytes}
}

// addMentions keeps copies of the mentions, which share memory with an entry.
func (c *Collector) addMentions(mentions []mention) {
	for _, m := range mentions {
		m.sid, m.name = slices.Clone(m.sid), slices.Clone(m.name)
		c.mentions = append(c.mentions, m)
		c.size += len(m.sid) + len(m.name) + itemOverhead
	}
}

// addUnreadable adds the targets of the attributes that an entry must have and lacks.
func (p *Part) addUnreadable(entry *ad.Entry) {
	for _, attribute := range requiredOfParts[p.name] {
		if len(entry.First(slices.Index(p.Attributes, attribute))) > 0 {
			continue
		}
		for _, target := range targetsOf(parts[p.name], attribute, "") {
			p.collector.AddUnreadable(p.target + "." + target)
		}
	}
}

// SetForestLevel sets the forest functional level, forestFunctionality of the rootDSE. It
// ignores values other than a number.
func (c *Collector) SetForestLevel(level string) {
	if _, err := strconv.ParseUint(level, 10, 31); err == nil {
		c.forestLevel = level
	}
}

// SetLAPS sets whether the schema has the attributes of the legacy Microsoft LAPS and of Windows LAPS.
func (c *Collector) SetLAPS(legacy, windows bool) {
	c.laps = strconv.AppendBool([]byte(`{"legacy":`), legacy)
	c.laps = append(strconv.AppendBool(append(c.laps, `,"windows":`...), windows), '}')
}

// AddUnreadable adds the target, in the domain's asset, of an attribute or part that the account may
// not read.
func (c *Collector) AddUnreadable(name string) { c.unreadable = append(c.unreadable, name) }

// requiredAttributes exist in every domain, so a missing one is not readable by the account.
var requiredAttributes = []string{
	"minPwdLength", "pwdHistoryLength", "pwdProperties", "minPwdAge", "maxPwdAge",
	"lockoutThreshold", "lockoutDuration", "lockOutObservationWindow", "ms-DS-MachineAccountQuota", "msDS-Behavior-Version",
}

// MapDomain maps the domain's own entry and the collected parts to the domain's asset.
func (m *Mapper) MapDomain(buf []byte, entry *ad.Entry, c *Collector, now time.Time) (Asset, error) {
	m.addUnreadable(entry, c)
	m.UseDescriptors(c.descriptors, c.domains)
	if src := (source{entry: entry, descriptors: m.descriptors}); src.lacksDescriptor(m.slot(ad.AttributeDescriptor)) {
		c.AddUnreadable("controlledBy")
	}
	m.collected = map[string]collection{}
	for name, part := range c.parts {
		// Sorted, because the order of search results may change between searches.
		slices.SortFunc(part.items, func(a, b []byte) int { return slices.Compare(a, b) })
		m.collected[name] = collection{part.items, part.isList}
	}
	if c.laps != nil {
		m.collected[collectedLAPS] = collection{items: [][]byte{c.laps}}
	}
	m.addControlled(c)
	if c.forestLevel != "" {
		m.collected[collectedForestLevel] = collection{items: [][]byte{[]byte(c.forestLevel)}}
	}
	slices.Sort(c.unreadable)
	c.unreadable = slices.Compact(c.unreadable)
	var names [][]byte
	for _, name := range c.unreadable {
		names = append(names, appendString(nil, []byte(name)))
	}
	m.collected[collectedUnreadable] = collection{names, true}
	m.overflow, m.collectedMentions = c.size > MaxAssetBytes, c.mentions
	asset, err := m.Map(buf, entry, now, Logons{})
	asset.Unparsed += c.unparsed
	for _, part := range c.parts {
		asset.Unparsed += part.Unparsed
	}
	return asset, err
}

// addUnreadable adds the targets of the domain's own entry and of the graph that are unreadable.
func (m *Mapper) addUnreadable(entry *ad.Entry, c *Collector) {
	for _, attribute := range requiredAttributes {
		if len(entry.First(m.slot(attribute))) > 0 {
			continue
		}
		for _, target := range targetsOf(posture[Domain], attribute, domain) {
			if target != smartCardPasswordsExpire || len(entry.First(m.slot(attributeExpirePasswords))) == 0 {
				c.AddUnreadable(target)
			}
		}
	}
	if m.graph != nil && m.graph.PrivilegedUsersUncertain() {
		c.AddUnreadable("privilegedUsers")
	}
}

// collectedFrom appends the collection with this name.
func collectedFrom(name string) value {
	return func(dst []byte, src *source, _ []int) []byte {
		part := src.collected[name]
		if !part.isList {
			if len(part.items) > 0 {
				return append(dst, part.items[len(part.items)-1]...)
			}
			return dst
		}
		l := list{dst: dst}
		for _, item := range part.items {
			if l.next() {
				l.dst = append(l.dst, item...)
			}
		}
		return l.end()
	}
}
