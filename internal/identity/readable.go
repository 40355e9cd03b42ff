package identity

import (
	"errors"
	"fmt"
	"slices"

	"adconnector/internal/ad"
)

var (
	// ErrNoIdentity is returned for an entry without an objectSid or objectGUID, or with a
	// malformed one.
	ErrNoIdentity = errors.New("no identity: objectSid or objectGUID is missing or malformed")
	// ErrUnreadable is returned for an entry of a domain controller that lacks an attribute that
	// every object of its kind has. The account may not read it. Its value at the gateway must not
	// change, so the object is not sent.
	ErrUnreadable = errors.New("attributes not readable by the account")

	errUnreadableIdentity = fmt.Errorf("%w: %w", ErrNoIdentity, ErrUnreadable)
)

// required has the attributes that every object of a kind has on a domain controller, as far as
// the map contains them. AD LDS has no userAccountControl.
var required = map[Kind][]string{
	User:           {"objectSid", "objectGUID", "name", "whenCreated", "userAccountControl"},
	ServiceAccount: {"objectSid", "objectGUID", "name", "whenCreated", "userAccountControl"},
	Group:          {"objectSid", "objectGUID", "name", "whenCreated", "groupType"},
	Role:           {"objectSid", "objectGUID", "name"},
	Domain:         {"objectSid", "objectGUID", "name", "whenCreated"},
}

// requiredPosture has the attributes that the map of security posture adds to required.
var requiredPosture = map[Kind][]string{User: {"primaryGroupID"}, ServiceAccount: {"primaryGroupID"}}

// RequiredAttributes returns the attributes that every object of a kind has on a domain
// controller: those without which Mapper.Map returns ErrUnreadable, and sAMAccountType for
// users. The map does not contain that one: Filter finds only users that show it.
func RequiredAttributes(kind Kind, withPosture bool) (attributes []string) {
	if kind == User {
		attributes = append(attributes, "sAMAccountType")
	}
	attributes = append(attributes, required[kind]...)
	if withPosture {
		attributes = append(attributes, requiredPosture[kind]...)
	}
	return attributes
}

// ClassFilter has the LDAP filters of users and groups by their object class alone. They also
// find objects whose other attributes are unreadable. That of users also finds the accounts of
// trusts.
var ClassFilter = map[Kind]string{
	User:  "(&(objectClass=user)(!(objectClass=computer)))",
	Group: "(objectClass=group)",
}

// attributeCounts counts the attributes of entries, by position in the lists of slots.
type attributeCounts struct {
	required, optional    []int // slots
	isMissing, isReadable []int // number of entries without a required attribute, and with an optional one
}

// newCounts returns the counts of a kind's attributes. The optional ones are those of the map
// that are replicated and stored, so that they can be searched on any domain controller. A security
// descriptor cannot be searched.
func (m *Mapper) newCounts(withPosture bool) (c attributeCounts) {
	for _, attribute := range RequiredAttributes(m.kind, withPosture) {
		if attribute != "sAMAccountType" {
			c.required = append(c.required, m.slot(attribute))
		}
	}
	isRequired := map[int]bool{}
	for _, slot := range c.required {
		isRequired[slot] = true
	}
	for slot, attribute := range m.Attributes {
		if !isRequired[slot] && !ad.IsUntracked(attribute) && attribute != ad.AttributeDescriptor {
			c.optional = append(c.optional, slot)
		}
	}
	c.isMissing, c.isReadable = make([]int, len(c.required)), make([]int, len(c.optional))
	return c
}

func (c *attributeCounts) countOptional(entry *ad.Entry) {
	for i, slot := range c.optional {
		if len(entry.Values[slot]) > 0 {
			c.isReadable[i]++
		}
	}
}

// count counts the attributes of an entry. It reports whether the entry has all required ones.
func (c *attributeCounts) count(entry *ad.Entry) (complete bool) {
	c.countOptional(entry)
	complete = true
	for i, slot := range c.required {
		if len(entry.Values[slot]) == 0 {
			c.isMissing[i]++
			complete = false
		}
	}
	return complete
}

// CountReadable counts the optional attributes of an entry that is mapped by another search, for
// Readable.
func (m *Mapper) CountReadable(entry *ad.Entry) { m.counts.countOptional(entry) }

// Counts are the counts of Readable and Missing.
type Counts struct{ isMissing, isReadable []int }

// Counts returns a copy of the counts of Readable and Missing.
func (m *Mapper) Counts() Counts {
	return Counts{slices.Clone(m.counts.isMissing), slices.Clone(m.counts.isReadable)}
}

// SetCounts sets the counts of Readable and Missing.
func (m *Mapper) SetCounts(c Counts) {
	copy(m.counts.isMissing, c.isMissing)
	copy(m.counts.isReadable, c.isReadable)
}

// ResetCounts sets the counts of Readable and Missing to zero.
func (m *Mapper) ResetCounts() {
	clear(m.counts.isReadable)
	clear(m.counts.isMissing)
}

// Readable returns how many of the mapped entries had each optional attribute of the map, except
// for those that are not replicated, or that the server computes. Attributes of no entry are
// left out.
func (m *Mapper) Readable() map[string]int {
	return m.byName(m.counts.optional, m.counts.isReadable)
}

// Missing returns how many of the mapped entries lacked each attribute that every object of the
// kind has on a domain controller. Attributes that no entry lacked are left out.
func (m *Mapper) Missing() map[string]int { return m.byName(m.counts.required, m.counts.isMissing) }

func (m *Mapper) byName(slots, counts []int) map[string]int {
	named := map[string]int{}
	for i, slot := range slots {
		if counts[i] > 0 {
			named[m.Attributes[slot]] = counts[i]
		}
	}
	return named
}
