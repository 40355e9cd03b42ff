package identity

import (
	"slices"
	"strconv"
	"time"

	"adconnector/internal/ad"
)

// collection is what was found of one part of the domain, as JSON.
type collection struct {
	items [][]byte
	whole bool // a list, of which every item counts; else the last one does
}

// Collector makes the parts of the domain's asset that stand in other entries than
// the domain's own. It serves one goroutine.
type Collector struct {
	Policies, Trusts, Controllers *Part // any number of entries
	Krbtgt, RecycleBin            *Part // one entry

	parts      map[string]*Part
	forest     string
	unreadable []string
}

// Part maps the entries of one part. Its search must ask for Attributes, in that
// order, and for extended DNs.
type Part struct {
	Attributes []string
	Unparsed   int

	mapper *Mapper
	name   string
	items  [][]byte
}

// NewCollector returns one that has found nothing yet.
func NewCollector() *Collector {
	c := &Collector{parts: map[string]*Part{}}
	part := func(name string) *Part {
		m := &Mapper{}
		for _, row := range parts[name] {
			m.add(row)
		}
		p := &Part{Attributes: m.Attributes, mapper: m, name: name}
		c.parts[name] = p
		return p
	}
	c.Policies, c.Trusts, c.Controllers = part(collectedPolicies), part(collectedTrusts), part(collectedControllers)
	c.Krbtgt, c.RecycleBin = part(collectedKrbtgt), part(collectedRecycleBin)
	return c
}

// Add maps one entry. It reports whether there was anything in it: an entry that
// may be seen and not read shows nothing.
func (p *Part) Add(entry *ad.Entry, now time.Time) bool {
	src := source{entry: entry, now: now}
	json, ok := p.mapper.root.append(nil, &src)
	p.Unparsed += src.unparsed
	if ok {
		p.items = append(p.items, json)
	}
	return ok
}

// ForestLevel notes the rootDSE's forestFunctionality.
func (c *Collector) ForestLevel(level string) {
	if _, err := strconv.ParseUint(level, 10, 31); err == nil {
		c.forest = level
	}
}

// Unreadable names something that the account may not read.
func (c *Collector) Unreadable(name string) { c.unreadable = append(c.unreadable, name) }

// required are the attributes that every domain has and shows to whoever may read it.
var required = []string{
	"minPwdLength", "pwdHistoryLength", "pwdProperties", "minPwdAge", "maxPwdAge",
	"lockoutThreshold", "lockoutDuration", "lockOutObservationWindow", "ms-DS-MachineAccountQuota", "msDS-Behavior-Version",
}

// MapDomain maps the domain's own entry, with what was collected.
func (m *Mapper) MapDomain(buf []byte, entry *ad.Entry, c *Collector, now time.Time) (Asset, error) {
	for _, attribute := range required {
		if len(entry.First(m.slot(attribute))) == 0 {
			c.Unreadable(attribute)
		}
	}
	m.collected = map[string]collection{}
	for name, part := range c.parts {
		// The order in which a search finds them is no property of the domain.
		slices.SortFunc(part.items, func(a, b []byte) int { return slices.Compare(a, b) })
		m.collected[name] = collection{part.items, part != c.Krbtgt && part != c.RecycleBin}
	}
	if c.forest != "" {
		m.collected[collectedForestLevel] = collection{items: [][]byte{[]byte(c.forest)}}
	}
	slices.Sort(c.unreadable)
	var names [][]byte
	for _, name := range slices.Compact(c.unreadable) {
		names = append(names, appendString(nil, []byte(name)))
	}
	m.collected[collectedUnreadable] = collection{names, true}
	asset, err := m.Map(buf, entry, now)
	for _, part := range c.parts {
		asset.Unparsed += part.Unparsed
	}
	return asset, err
}

// collectedFrom appends what was collected under a row's source.
func collectedFrom(name string) value {
	return func(dst []byte, src *source, _ []int) []byte {
		found := src.collected[name]
		if !found.whole {
			if len(found.items) > 0 {
				return append(dst, found.items[len(found.items)-1]...)
			}
			return dst
		}
		l := list{dst: dst}
		for _, item := range found.items {
			l.next()
			l.dst = append(l.dst, item...)
		}
		return l.end()
	}
}
