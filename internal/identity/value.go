package identity

import (
	"strconv"
	"time"
	"unicode/utf8"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// source is what the values of one asset are made from.
type source struct {
	entry    *ad.Entry
	now      time.Time
	unparsed int
	due      time.Time // when the status changes by the clock alone
	activity []span    // where in the JSON it stands

	// Of the posture.
	guid      ad.GUID
	sid       ad.SID
	graph     *membership.Graph
	node      membership.Node
	inGraph   bool
	partial   bool                  // the graph does not know all memberships
	held      membership.Holders    // of a role
	collected map[string]collection // of the domain
	values    [][]byte              // room for sorting
}

// span is a part of the JSON, with the comma before it.
type span struct{ from, to int }

// changesAt notes a moment to come at which the status may change.
func (src *source) changesAt(t time.Time) {
	if t.After(src.now) && (src.due.IsZero() || t.Before(src.due)) {
		src.due = t
	}
}

// value appends the JSON of a target made from the attributes in slots. It
// appends nothing where the source is absent, empty or means none; where the
// source cannot be read it also counts.
type value func(dst []byte, src *source, slots []int) []byte

const timeFormat = `"2006-01-02T15:04:05.000Z"`

func text(dst []byte, src *source, slots []int) []byte {
	for _, slot := range slots {
		if v := src.entry.First(slot); len(v) > 0 {
			return appendString(dst, v)
		}
	}
	return dst
}

func sid(dst []byte, src *source, slots []int) []byte {
	id, _ := ad.ParseSID(src.entry.First(slots[0])) // Map has parsed it before
	return quoted(dst, id)
}

func guid(dst []byte, src *source, slots []int) []byte {
	id, _ := ad.ParseGUID(src.entry.First(slots[0]))
	return quoted(dst, id)
}

func number(dst []byte, src *source, slots []int) []byte {
	if n, ok := read(src, slots[0], parseNumber); ok {
		return strconv.AppendUint(dst, n, 10)
	}
	return dst
}

func parseNumber(v []byte) (uint64, bool) {
	n, err := strconv.ParseUint(string(v), 10, 31)
	return n, err == nil
}

func fileTime(dst []byte, src *source, slots []int) []byte {
	t, ok := read(src, slots[0], ad.ParseFileTime)
	if !ok || t.IsNone() {
		return dst
	}
	return t.Time().AppendFormat(dst, timeFormat)
}

func generalizedTime(dst []byte, src *source, slots []int) []byte {
	if t, ok := read(src, slots[0], ad.ParseGeneralizedTime); ok {
		return t.AppendFormat(dst, timeFormat)
	}
	return dst
}

// lockRecheck is how soon a locked account is looked at again.
const lockRecheck = time.Minute

// userStatus picks the first that applies. Only the computed attribute proves a
// lock or an expired password. An account whose flags cannot be read counts as
// active: the inventory must not play it down.
func userStatus(dst []byte, src *source, slots []int) []byte {
	control, _ := read(src, slots[0], ad.ParseAccountControl)
	expires, ok := ad.ParseFileTime(src.entry.First(slots[1])) // a bad one was counted at its own target
	computed, _ := read(src, slots[2], ad.ParseAccountControl)
	if ok && !expires.IsNone() {
		src.changesAt(expires.Time())
	}
	if computed&ad.AccountLocked != 0 {
		src.changesAt(src.now.Add(lockRecheck)) // nothing readable tells when a lock ends
	}
	status := statusActive
	switch {
	case control&ad.AccountDisabled != 0:
		status = statusDisabled
	case ok && !expires.IsNone() && !expires.Time().After(src.now):
		status = statusExpired
	case computed&ad.AccountLocked != 0:
		status = statusLocked
	case computed&ad.AccountPasswordExpired != 0:
		status = statusPasswordExpired
	}
	return appendEnum(dst, status)
}

func groupPurpose(dst []byte, src *source, slots []int) []byte {
	groupType, ok := read(src, slots[0], ad.ParseGroupType)
	switch {
	case !ok:
		return dst
	case groupType&ad.GroupSecurity != 0:
		return appendEnum(dst, groupSecurity)
	default:
		return appendEnum(dst, groupDistribution)
	}
}

func groupVisibility(dst []byte, src *source, slots []int) []byte {
	groupType, ok := ad.ParseGroupType(src.entry.First(slots[0])) // a bad one was counted by groupPurpose
	if !ok {
		return dst
	}
	if visibility, ok := visibilityOf[groupScope(groupType)]; ok {
		return appendEnum(dst, visibility)
	}
	return dst
}

func groupScope(groupType ad.GroupType) string {
	switch {
	case groupType&ad.GroupSystem != 0:
		return scopeBuiltinLocal
	case groupType&ad.GroupDomainLocal != 0:
		return scopeDomainLocal
	case groupType&ad.GroupGlobal != 0:
		return scopeGlobal
	case groupType&ad.GroupUniversal != 0:
		return scopeUniversal
	default:
		return ""
	}
}

// read reads the first value in a slot. One that is there and cannot be read counts.
func read[T any](src *source, slot int, parse func([]byte) (T, bool)) (value T, ok bool) {
	v := src.entry.First(slot)
	if len(v) == 0 {
		return value, false
	}
	if value, ok = parse(v); !ok {
		src.unparsed++
	}
	return value, ok
}

// quoted appends an identifier, whose text needs no escapes.
func quoted[T interface{ AppendText([]byte) []byte }](dst []byte, id T) []byte {
	return append(id.AppendText(append(dst, '"')), '"')
}

func appendEnum(dst []byte, name string) []byte {
	dst = append(append(dst, '"'), name...)
	return append(dst, '"')
}

// appendString appends v as a JSON string. What is not UTF-8 becomes U+FFFD, as
// encoding/json does it.
func appendString(dst, v []byte) []byte {
	const hexDigits = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0 // of what has not been copied
	for i := 0; i < len(v); {
		c := v[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(v[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, v[start:i]...), "\uFFFD"...)
				start = i + size
			}
			i += size
			continue
		}
		i++
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, v[start:i-1]...)
		start = i
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		}
	}
	dst = append(dst, v[start:]...)
	return append(dst, '"')
}
