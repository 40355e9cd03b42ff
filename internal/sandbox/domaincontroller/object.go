package domaincontroller

import (
	"encoding/binary"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
)

// object is one entry of the directory. A large directory has many: what the
// server keeps itself stands in fields, the rest in the record.
type object struct {
	guid       ad.GUID
	sid        string // in binary; "": none
	class      *class
	parent     *object
	rdn        rdn
	suffix     []rdn // of the domain alone: its whole name
	partition  bool  // begins a naming context
	deleted    bool
	created    int64 // Unix seconds, as changed
	changed    int64
	usnCreated ad.USN
	usnChanged ad.USN
	attributes record
	children   map[string]*object // by rdn.key
	members    []*object
	memberOf   []*object
}

func (o *object) dn() string { return string(o.appendDN(nil)) }

func (o *object) appendDN(dst []byte) []byte {
	for at := o; at != nil; at = at.parent {
		if at != o {
			dst = append(dst, ',')
		}
		if at.suffix == nil {
			dst = at.rdn.append(dst)
			continue
		}
		for i, part := range at.suffix {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = part.append(dst)
		}
	}
	return dst
}

// isBelow reports whether o is in the subtree of base, base itself included, and
// in the same naming context.
func (o *object) isBelow(base *object) bool {
	for at := o; at != nil; at = at.parent {
		if at == base {
			return true
		}
		if at.partition {
			return false
		}
	}
	return false
}

// is reports whether o is of a class or of one that inherits from it.
func (o *object) is(class string) bool { return slices.Contains(o.class.ancestors, class) }

func (o *object) attach(parent *object) {
	o.parent = parent
	if parent.children == nil {
		parent.children = map[string]*object{}
	}
	parent.children[o.rdn.key()] = o
}

func (o *object) detach() { delete(o.parent.children, o.rdn.key()) }

// values gives the values of one attribute of an object, none where it has none.
// Those of constructed attributes are as of now.
func (d *Server) values(o *object, id attributeID, now time.Time) iter.Seq[string] {
	return func(yield func(string) bool) {
		one := func(value string, there bool) {
			if there {
				yield(value)
			}
		}
		switch id {
		case attributeObjectClass:
			for _, name := range o.class.ancestors {
				if !yield(name) {
					return
				}
			}
		case attributeCN, attributeOU, attributeDC:
			one(o.rdn.value, o.class.rdn == id)
		case attributeName:
			one(o.rdn.value, true)
		case attributeDistinguishedName:
			one(o.dn(), true)
		case attributeInstanceType:
			if o.partition {
				one("5", true) // writable, and the head of its naming context
				return
			}
			one("4", true)
		case attributeWhenCreated:
			one(generalizedTimeOf(o.created), true)
		case attributeWhenChanged:
			one(generalizedTimeOf(o.changed), true)
		case attributeUSNCreated:
			one(strconv.FormatInt(int64(o.usnCreated), 10), true)
		case attributeUSNChanged:
			one(strconv.FormatInt(int64(o.usnChanged), 10), true)
		case attributeObjectGUID:
			one(string(o.guid[:]), true)
		case attributeObjectSID:
			one(o.sid, o.sid != "")
		case attributeObjectCategory:
			if !o.deleted || o == d.deleted { // a tombstone loses it
				one(d.categoryDN(o.class.category), true)
			}
		case attributeIsDeleted:
			one("TRUE", o.deleted)
		case attributeMember:
			for _, member := range o.members {
				if !yield(member.dn()) {
					return
				}
			}
		case attributeMemberOf:
			for _, group := range o.memberOf {
				if !yield(group.dn()) {
					return
				}
			}
		case attributeInvocationID:
			one(string(d.invocationID[:]), o == d.settings)
		case attributeComputedControl:
			one(d.computedControl(o, now))
		case attributePasswordExpiry:
			one(d.passwordExpiry(o))
		case attributeResultantPSO:
			if pso := d.resultantPSO(o); pso != nil {
				one(pso.dn(), true)
			}
		case attributeCanonicalName:
			one(d.canonicalName(o), true)
		default:
			for value := range o.attributes.values(id) {
				if !yield(value) {
					return
				}
			}
		}
	}
}

func (d *Server) categoryDN(category string) string {
	return "CN=" + category + ",CN=Schema,CN=Configuration," + d.root.dn()
}

// canonicalName is the name as a path: corp.example.com/Berlin/Anna Schmidt.
func (d *Server) canonicalName(o *object) string {
	if o == d.root {
		return domainName + "/"
	}
	path := ""
	for at := o; at.parent != nil; at = at.parent {
		path = "/" + strings.NewReplacer("/", `\/`, "\n", `\0A`).Replace(at.rdn.value) + path
	}
	return domainName + path
}

// computedControl is msDS-User-Account-Control-Computed (MS-ADTS 3.1.1.4.5.17).
func (d *Server) computedControl(o *object, now time.Time) (string, bool) {
	text := o.attributes.first(attributeUserAccountControl)
	if text == "" || o.deleted {
		return "", false
	}
	control, _ := ad.ParseAccountControl([]byte(text))
	var computed ad.AccountControl
	if d.isLocked(o, now) {
		computed |= ad.AccountLocked
	}
	if d.passwordEnds(o, control) < fileTime(now) {
		computed |= ad.AccountPasswordExpired
	}
	return strconv.FormatUint(uint64(computed), 10), true
}

// passwordExpiry is msDS-UserPasswordExpiryTimeComputed (MS-ADTS 3.1.1.4.5.33).
func (d *Server) passwordExpiry(o *object) (string, bool) {
	control, ok := ad.ParseAccountControl([]byte(o.attributes.first(attributeUserAccountControl)))
	if !ok || o.deleted {
		return "", false
	}
	return strconv.FormatInt(d.passwordEnds(o, control), 10), true
}

// passwordEnds is the file time at which a password expires: 0 when it must be
// changed, the greatest of all when it never does.
func (d *Server) passwordEnds(o *object, control ad.AccountControl) int64 {
	set := o.attributes.integer(attributePwdLastSet)
	maxAge := -d.root.attributes.integer(attributeMaxPwdAge)
	if pso := d.resultantPSO(o); pso != nil {
		maxAge = -pso.attributes.integer(attributePSOMaximumAge)
	}
	switch {
	case control&(controlPasswordNeverExpires|controlSmartcardRequired|controlMachines) != 0:
		return math.MaxInt64
	case set == 0:
		return 0
	case maxAge <= 0: // it is the least of all numbers when there is no such age
		return math.MaxInt64
	}
	return set + maxAge
}

// resultantPSO is the fine-grained policy in force for a user: of those that name
// him, else of those that name a global group of his, the one of the lowest
// precedence (MS-ADTS 3.1.1.4.5.33).
func (d *Server) resultantPSO(o *object) *object {
	if len(d.policies.children) == 0 || !o.is("user") || o.is("computer") || o.deleted {
		return nil
	}
	of := d.globalGroups(o)
	var found *object
	direct := false
	for _, pso := range d.policies.children {
		for dn := range pso.attributes.values(attributePSOAppliesTo) {
			target := d.lookup(dn)
			if target != o && !of[target] || direct && target != o {
				continue
			}
			better := found == nil || target == o && !direct ||
				pso.attributes.integer(attributePSOPrecedence) < found.attributes.integer(attributePSOPrecedence)
			if better {
				found, direct = pso, target == o
			}
		}
	}
	return found
}

// globalGroups are the global security groups that an account is in, by way of
// others too, its primary one included.
func (d *Server) globalGroups(o *object) map[*object]bool {
	all := map[*object]bool{}
	next := slices.Clone(o.memberOf)
	if rid := o.attributes.integer(attributePrimaryGroupID); rid != 0 {
		if group := d.bySID[d.account(uint32(rid))]; group != nil {
			next = append(next, group)
		}
	}
	for len(next) > 0 {
		group := next[0]
		next = next[1:]
		kind := ad.GroupType(group.attributes.integer(attributeGroupType))
		if all[group] || kind&ad.GroupSecurity == 0 || kind&ad.GroupGlobal == 0 {
			continue
		}
		all[group] = true
		next = append(next, group.memberOf...)
	}
	return all
}

// Flags of userAccountControl that decide about its computed sister.
const (
	controlPasswordNeverExpires = 0x10000
	controlSmartcardRequired    = 0x40000
	controlMachines             = 0x800 | 0x1000 | 0x2000
)

func (d *Server) isLocked(o *object, now time.Time) bool {
	locked := o.attributes.integer(attributeLockoutTime)
	if locked == 0 {
		return false
	}
	duration := -d.root.attributes.integer(attributeLockoutDuration)
	return duration == 0 || fileTime(now) < locked+duration
}

// record is the attributes of an object that are no fields of it, in one string:
// for each value an attributeID, the length as a varint, and the bytes, ordered by
// attributeID. It is a tenth of what a map would be.
type record string

// cut takes the first value off.
func (r record) cut() (id attributeID, value string, rest record) {
	length, head := 0, 1
	for shift := 0; ; shift += 7 {
		c := r[head]
		head++
		length |= int(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	return attributeID(r[0]), string(r[head : head+length]), r[head+length:]
}

func (r record) values(id attributeID) iter.Seq[string] {
	return func(yield func(string) bool) {
		for rest := r; len(rest) > 0 && attributeID(rest[0]) <= id; {
			var at attributeID
			var value string
			at, value, rest = rest.cut()
			if at == id && !yield(value) {
				return
			}
		}
	}
}

func (r record) first(id attributeID) string {
	for value := range r.values(id) {
		return value
	}
	return ""
}

func (r record) integer(id attributeID) int64 {
	n, _ := strconv.ParseInt(r.first(id), 10, 64)
	return n
}

// with returns the record with other values of one attribute; none removes it.
func (r record) with(id attributeID, values ...string) record {
	changed := make([]byte, 0, len(r)+16)
	rest := r
	for len(rest) > 0 && attributeID(rest[0]) < id {
		_, _, after := rest.cut()
		changed = append(changed, rest[:len(rest)-len(after)]...)
		rest = after
	}
	for _, value := range values {
		changed = appendValue(changed, id, value)
	}
	for len(rest) > 0 && attributeID(rest[0]) == id {
		_, _, rest = rest.cut()
	}
	return record(append(changed, rest...))
}

func appendValue(dst []byte, id attributeID, value string) []byte {
	dst = append(dst, byte(id))
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// fileTime counts 100 ns since 1601.
func fileTime(t time.Time) int64 {
	const epoch = 11_644_473_600 // seconds from 1601 to 1970
	return (t.Unix()+epoch)*10_000_000 + int64(t.Nanosecond())/100
}

func fileTimeOf(t time.Time) string { return strconv.FormatInt(fileTime(t), 10) }

func generalizedTimeOf(unix int64) string {
	return time.Unix(unix, 0).UTC().Format("20060102150405.0Z")
}

// sidOf is a security identifier of the NT authority, in binary.
func sidOf(subAuthorities ...uint32) string {
	sid := []byte{1, byte(len(subAuthorities)), 0, 0, 0, 0, 0, 5}
	for _, sub := range subAuthorities {
		sid = binary.LittleEndian.AppendUint32(sid, sub)
	}
	return string(sid)
}

// account is the SID of an account of this domain.
func (d *Server) account(rid uint32) string {
	sid := []byte(d.domainSID)
	sid[1]++
	return string(binary.LittleEndian.AppendUint32(sid, rid))
}
