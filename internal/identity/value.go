package identity

import (
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"adconnector/internal/access"
	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// source is the input of one asset's values, with the state of its mapping.
type source struct {
	entry      *ad.Entry
	attributes []string  // of the entry, by slot
	now        time.Time // the server's clock
	unparsed   int
	recheckAt  time.Time // next time when the status may change
	activity   []span    // activity values in the JSON
	// logons are those from other sources, and then also those of the entry.
	logons          Logons
	replicatedLogon ad.FileTime
	latestLogon     ad.FileTime // as in Mapper

	// For the posture.
	kind         Kind
	controllers  *ControllerHosts
	factsUnknown bool // facts may hold that are left out

	guid        ad.GUID
	sid         ad.SID
	graph       *membership.Graph
	node        membership.Node
	inGraph     bool
	partial     bool                   // the graph lacks memberships
	pending     bool                   // as in Asset
	roleMembers membership.RoleMembers // for roles
	collected   map[string]collection  // for the domain
	values      [][]byte               // reused for sorting
	descriptor  ad.Descriptor          // reused
	hasPrimary  bool                   // primary is the primary group, which the graph has
	primary     [1]membership.Node
	descriptors bool           // as in Mapper
	domains     access.Domains // as in Mapper

	mentions      []mention // reused
	mentionedSIDs []byte    // memory of the SIDs of mentionNode; reused
}

// span is a member of the JSON, including the comma before it.
type span struct{ start, end int }

// recheckBy sets recheckAt to t, unless t is past or recheckAt is earlier.
func (src *source) recheckBy(t time.Time) {
	if t.After(src.now) && (src.recheckAt.IsZero() || t.Before(src.recheckAt)) {
		src.recheckAt = t
	}
}

// maxReused is the length above which a slice is not reused for the next entry.
const maxReused = 1 << 10

// releaseValues drops the references to the entry's values, which may keep a message of many
// megabytes in memory.
func (src *source) releaseValues() {
	src.releaseMentions()
	if cap(src.values) > maxReused {
		src.values = nil
	}
	clear(src.values[:cap(src.values)])
	if cap(src.descriptor.DACL) > maxReused {
		src.descriptor.DACL = nil
	}
	src.descriptor.Parse(nil)
	clear(src.descriptor.DACL[:cap(src.descriptor.DACL)])
}

// value appends the JSON of a target from the attributes in slots. It appends nothing if the
// source is absent, empty or a "none" value. It counts malformed values in unparsed.
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
	id, _ := ad.ParseSID(src.entry.First(slots[0])) // validated by Map
	return appendQuoted(dst, id)
}

func guid(dst []byte, src *source, slots []int) []byte {
	id, _ := ad.ParseGUID(src.entry.First(slots[0]))
	return appendQuoted(dst, id)
}

func number(dst []byte, src *source, slots []int) []byte {
	if n, ok := parseFirst(src, slots[0], parseNumber); ok {
		return strconv.AppendUint(dst, n, 10)
	}
	return dst
}

func parseNumber(v []byte) (uint64, bool) {
	n, err := strconv.ParseUint(string(v), 10, 31)
	return n, err == nil
}

func fileTime(dst []byte, src *source, slots []int) []byte {
	t, ok := parseFirst(src, slots[0], ad.ParseFileTime)
	if !ok || t.IsNone() {
		return dst
	}
	return t.Time().AppendFormat(dst, timeFormat)
}

// lastLogon appends the latest of lastLogon, its replicated copy lastLogonTimestamp, and the logons
// that other sources show.
func lastLogon(dst []byte, src *source, slots []int) []byte {
	own := src.logon(slots[0])
	src.replicatedLogon = src.logon(slots[1])
	return appendLatest(dst, &src.logons.Last, own, src.replicatedLogon)
}

// lastFailedLogon appends the latest of the entry's time and that of other sources.
func lastFailedLogon(dst []byte, src *source, slots []int) []byte {
	return appendLatest(dst, &src.logons.LastFailed, src.logon(slots[0]))
}

// logon returns the time of a logon in a slot; 0: none.
func (src *source) logon(slot int) ad.FileTime {
	t, ok := parseFirst(src, slot, ad.ParseFileTime)
	if !ok || t.IsNone() || src.latestLogon != 0 && t > src.latestLogon {
		return 0
	}
	return t
}

// appendLatest sets latest to the latest of all times, and appends it.
func appendLatest(dst []byte, latest *ad.FileTime, times ...ad.FileTime) []byte {
	for _, t := range times {
		*latest = max(*latest, t)
	}
	if latest.IsNone() {
		return dst
	}
	return latest.Time().AppendFormat(dst, timeFormat)
}

// failedLogons appends the number of failed attempts of the PDC emulator, or else that of the entry.
func failedLogons(dst []byte, src *source, slots []int) []byte {
	if !src.logons.HasFailed {
		n, ok := parseFirst(src, slots[0], parseNumber)
		if !ok {
			return dst
		}
		src.logons.Failed = uint32(n)
	}
	return strconv.AppendUint(dst, uint64(src.logons.Failed), 10)
}

func generalizedTime(dst []byte, src *source, slots []int) []byte {
	if t, ok := parseFirst(src, slots[0], ad.ParseGeneralizedTime); ok {
		return t.AppendFormat(dst, timeFormat)
	}
	return dst
}

// userStatus appends the first status that applies. Only the computed attribute is reliable
// for locked accounts and expired passwords. An account without userAccountControl is active: only
// servers that are no domain controllers have such accounts, because Map does not map those of a
// domain controller. Flags that are malformed leave the status out, unless an earlier one applies: a
// disabled account would otherwise be sent as active.
func userStatus(dst []byte, src *source, slots []int) []byte {
	unparsed := src.unparsed
	control, _ := parseFirst(src, slots[0], ad.ParseAccountControl)
	isControlMalformed := src.unparsed > unparsed
	computed, _ := parseFirst(src, slots[2], ad.ParseAccountControl)
	isMalformed := src.unparsed > unparsed
	expires, ok := ad.ParseFileTime(src.entry.First(slots[1])) // a malformed value is counted at its own target
	if ok && !expires.IsNone() {
		src.recheckBy(expires.Time())
	}
	status := statusActive
	switch {
	case (control|computed)&ad.AccountDisabled != 0: // AD LDS has this flag in the computed attribute only
		status = statusDisabled
	case isControlMalformed:
		return dst
	case ok && !expires.IsNone() && !expires.Time().After(src.now):
		status = statusExpired
	case isMalformed:
		return dst
	case computed&ad.AccountLocked != 0:
		status = statusLocked
	case computed&ad.AccountPasswordExpired != 0:
		status = statusPasswordExpired
	}
	return appendEnum(dst, status)
}

func groupPurpose(dst []byte, src *source, slots []int) []byte {
	groupType, ok := parseFirst(src, slots[0], ad.ParseGroupType)
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
	groupType, ok := ad.ParseGroupType(src.entry.First(slots[0])) // a malformed value is counted by groupPurpose
	if !ok {
		return dst
	}
	if visibility, ok := scopeVisibility[groupScope(groupType)]; ok {
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

// parseFirst parses the first value in a slot. It counts a malformed value in unparsed.
func parseFirst[T any](src *source, slot int, parse func([]byte) (T, bool)) (value T, ok bool) {
	v := src.entry.First(slot)
	if len(v) == 0 {
		return value, false
	}
	if value, ok = parse(v); !ok {
		src.unparsed++
	}
	return value, ok
}

// appendQuoted appends an identifier as a JSON string. Its text needs no escapes.
func appendQuoted[T interface{ AppendText([]byte) []byte }](dst []byte, id T) []byte {
	return append(id.AppendText(append(dst, '"')), '"')
}

func appendEnum(dst []byte, name string) []byte {
	dst = append(append(dst, '"'), name...)
	return append(dst, '"')
}

// appendString appends v as a JSON string. Like encoding/json, it replaces invalid UTF-8
// with U+FFFD. It stops when dst exceeds MaxAssetBytes: escapes are six times as long as the
// characters.
func appendString(dst, v []byte) []byte {
	const hexDigits = "0123456789abcdef"
	if len(dst)+len(v) > MaxAssetBytes {
		return overflow(dst)
	}
	dst = append(dst, '"')
	start := 0 // of the bytes that are not copied yet
	for i := 0; i < len(v) && len(dst) <= MaxAssetBytes; {
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

// overflow extends dst to more than MaxAssetBytes, which marks an asset as too large. All
// following values append nothing.
func overflow(dst []byte) []byte {
	if missing := MaxAssetBytes + 1 - len(dst); missing > 0 {
		dst = slices.Grow(dst, missing)[:MaxAssetBytes+1]
	}
	return dst
}
