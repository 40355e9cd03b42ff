package domaincontroller

import (
	"encoding/binary"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
)

// object is an object of the directory. Attributes that the server maintains are fields.
type object struct {
	guid       ad.GUID
	sid        string // binary; empty: none
	class      *class
	parent     *object // nil: the domain
	rdn        rdn
	partition  bool // root of a naming context
	deleted    bool
	created    int64 // Unix seconds
	changed    int64 // Unix seconds
	usnCreated ad.USN
	usnChanged ad.USN
	attributes attributeSet
	children   map[string]*object // by rdn.key
	members    []*object
	memberOf   []*object
	memberEnds map[*object]time.Time // when time-bound memberships end
}

func (o *object) dn() string { return string(o.appendDN(nil)) }

func (o *object) appendDN(dst []byte) []byte {
	for ancestor := o; ancestor.parent != nil; ancestor = ancestor.parent {
		dst = append(ancestor.rdn.append(dst), ',')
	}
	return append(dst, domainDN...)
}

// isBelow reports whether o is base or below it in the same naming context.
func (o *object) isBelow(base *object) bool {
	for ancestor := o; ancestor != nil; ancestor = ancestor.parent {
		if ancestor == base {
			return true
		}
		if ancestor.partition {
			return false
		}
	}
	return false
}

// is reports whether o has a class or a subclass of it.
func (o *object) is(class string) bool { return slices.Contains(o.class.Ancestors, class) }

func (o *object) attach(parent *object) {
	o.parent = parent
	if parent.children == nil {
		parent.children = map[string]*object{}
	}
	parent.children[o.rdn.key()] = o
}

func (o *object) detach() { delete(o.parent.children, o.rdn.key()) }

// set sets a stored attribute. No value removes it.
func (o *object) set(name string, values ...string) {
	o.attributes = o.attributes.with(name, values...)
}

// values returns the values of an attribute. Constructed attributes are computed for now.
func (d *Server) values(o *object, name string, now time.Time) iter.Seq[string] {
	switch name {
	case "objectClass":
		return slices.Values(o.class.Ancestors)
	case "member":
		return dnPlain.formatAll(o.members)
	case "memberOf":
		return dnPlain.formatAll(o.memberOf)
	}
	value, computed := d.computedValue(o, name, now)
	if !computed {
		return o.attributes.values(name)
	}
	return func(yield func(string) bool) {
		if value != "" {
			yield(value)
		}
	}
}

// computedValue returns the value of an attribute that is not stored, or "". It reports
// false for a stored attribute.
func (d *Server) computedValue(o *object, name string, now time.Time) (value string, computed bool) {
	switch name {
	case "name":
		return o.rdn.value, true
	case "cn", "ou", "dc":
		if strings.EqualFold(name, o.class.RDNAttribute) {
			return o.rdn.value, true
		}
	case "distinguishedName":
		return o.dn(), true
	case "instanceType":
		if o.partition {
			return "5", true // writable, head of a naming context
		}
		return "4", true
	case "whenCreated":
		return formatGeneralizedTime(o.created), true
	case "whenChanged":
		return formatGeneralizedTime(o.changed), true
	case "uSNCreated":
		return strconv.FormatInt(int64(o.usnCreated), 10), true
	case "uSNChanged":
		return strconv.FormatInt(int64(o.usnChanged), 10), true
	case "objectGUID":
		return string(o.guid[:]), true
	case "objectSid":
		return o.sid, true
	case "objectCategory":
		if !o.deleted || o == d.deleted { // tombstones have none
			return d.categoryDN(o.class.Category), true
		}
	case "isDeleted":
		if o.deleted {
			return "TRUE", true
		}
	case "canonicalName":
		return d.canonicalName(o), true
	case ad.AttributeDescriptor:
		return d.descriptor(o), true
	case "msDS-ResultantPSO":
		if pso := d.resultantPSO(o); pso != nil {
			return pso.dn(), true
		}
	case "msDS-User-Account-Control-Computed":
		return d.computedAccountControl(o, now), true
	case "msDS-UserPasswordExpiryTimeComputed":
		return d.passwordExpiry(o), true
	default:
		return "", false
	}
	return "", true
}

func (d *Server) categoryDN(category string) string {
	return "CN=" + category + ",CN=Schema,CN=Configuration," + d.root.dn()
}

var canonicalEscapes = strings.NewReplacer("/", `\/`, "\n", `\0A`)

// canonicalName returns the DN as a path: corp.example.com/Berlin/Anna Schmidt.
func (d *Server) canonicalName(o *object) string {
	if o == d.root {
		return domainName + "/"
	}
	path := ""
	for ancestor := o; ancestor.parent != nil; ancestor = ancestor.parent {
		path = "/" + canonicalEscapes.Replace(ancestor.rdn.value) + path
	}
	return domainName + path
}

// attributeSet is the stored attributes of an object, ordered by name. It is immutable. It
// takes a fraction of the memory of a map.
type attributeSet []attributeValue

type attributeValue struct{ name, value string }

func (s attributeSet) values(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, a := range s {
			if a.name > name || a.name == name && !yield(a.value) {
				return
			}
		}
	}
}

// first returns the first value of an attribute, or "".
func (s attributeSet) first(name string) string {
	for value := range s.values(name) {
		return value
	}
	return ""
}

// integer returns the value of an integer attribute, or 0.
func (s attributeSet) integer(name string) int64 {
	n, _ := strconv.ParseInt(s.first(name), 10, 64)
	return n
}

// with returns the set with other values of one attribute. No value removes it.
func (s attributeSet) with(name string, values ...string) attributeSet {
	start, _ := slices.BinarySearchFunc(s, name, func(a attributeValue, name string) int { return strings.Compare(a.name, name) })
	changed := slices.Clip(s[:start])
	for _, value := range values {
		changed = append(changed, attributeValue{name, value})
	}
	rest := s[start:]
	for len(rest) > 0 && rest[0].name == name {
		rest = rest[1:]
	}
	return append(changed, rest...)
}

// fileTime returns the number of 100 ns intervals since 1601.
func fileTime(t time.Time) int64 {
	const epoch = 11_644_473_600 // seconds from 1601 to 1970
	return (t.Unix()+epoch)*10_000_000 + int64(t.Nanosecond())/100
}

func formatFileTime(t time.Time) string { return strconv.FormatInt(fileTime(t), 10) }

const generalizedTime = "20060102150405.0Z"

func formatGeneralizedTime(unix int64) string {
	return time.Unix(unix, 0).UTC().Format(generalizedTime)
}

// newSID returns a binary SID of the NT authority.
func newSID(subAuthorities ...uint32) string {
	sid := []byte{1, byte(len(subAuthorities)), 0, 0, 0, 0, 0, 5}
	for _, sub := range subAuthorities {
		sid = binary.LittleEndian.AppendUint32(sid, sub)
	}
	return string(sid)
}

// accountSID returns the SID of an account of the domain.
func (d *Server) accountSID(rid uint32) string {
	sid := []byte(d.domainSID)
	sid[1]++
	return string(binary.LittleEndian.AppendUint32(sid, rid))
}
