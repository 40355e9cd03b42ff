package ad

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// AccessMask is a set of access rights (MS-ADTS 5.1.3.2).
type AccessMask uint32

// The rights that the connector evaluates.
const (
	RightControlAccess AccessMask = 0x100
	RightListContents  AccessMask = 0x4

	rightGenericAll AccessMask = 0x10000000
)

// Has reports whether the mask includes a right, by itself or by all generic rights. The directory
// maps generic rights to specific ones in the descriptors of objects, but not in those that are
// values of other attributes.
func (m AccessMask) Has(right AccessMask) bool { return m&(right|rightGenericAll) != 0 }

// EntryType is the type of an access control entry (MS-DTYP 2.4.4.1).
type EntryType byte

// The types of entries that decide about access. The conditional types have a condition after the
// SID, which is not parsed.
const (
	EntryAllow                  EntryType = 0x00
	EntryDeny                   EntryType = 0x01
	EntryAllowObject            EntryType = 0x05
	EntryDenyObject             EntryType = 0x06
	EntryAllowConditional       EntryType = 0x09
	EntryDenyConditional        EntryType = 0x0a
	EntryAllowConditionalObject EntryType = 0x0b
	EntryDenyConditionalObject  EntryType = 0x0c
)

// EntryFlags are the flags of an access control entry (MS-DTYP 2.4.4.1).
type EntryFlags byte

// EntryInheritOnly marks an entry that applies to child objects only.
const EntryInheritOnly EntryFlags = 0x8

// AccessEntry is an access control entry (MS-DTYP 2.4.4).
type AccessEntry struct {
	Type  EntryType
	Flags EntryFlags
	Mask  AccessMask
	// ObjectType limits the entry to a property, a property set, an extended right or a class of
	// child objects, and InheritedObjectType to a class of objects that inherit it. Zero: no limit.
	ObjectType, InheritedObjectType GUID
	Trustee                         SID // nil: the entry has another type than those above
}

// Descriptor is a self-relative security descriptor (MS-DTYP 2.4.6). It can be parsed into again
// without allocations.
type Descriptor struct {
	Owner, Group SID // nil: none
	// HasDACL is false if there is no discretionary access control list: everyone is allowed
	// everything. An empty list allows nothing.
	HasDACL bool
	DACL    []AccessEntry // in the stored order, in which the directory evaluates them
}

// Sizes, offsets and flags of security descriptors, ACLs and ACEs (MS-DTYP 2.4.4 to 2.4.6).
const (
	descriptorHeader   = 20 // revision, padding, control, four offsets
	descriptorRevision = 1
	ownerOffset        = 4
	groupOffset        = 8
	daclOffset         = 16
	aclHeader          = 8 // revision, padding, size, count, padding
	entryHeader        = 4 // type, flags, size
	entryMask          = 4

	controlDACL = 0x4 // control flag: the descriptor has a DACL

	objectTypePresent    = 0x1 // flags of an object entry: which GUIDs it has
	inheritedTypePresent = 0x2
)

// Parse parses a descriptor. It returns false for a malformed one, which is then empty. The SIDs
// share memory with value. The size of a list has 16 bits, so a list has at most 8,191 entries.
func (d *Descriptor) Parse(value []byte) bool {
	*d = Descriptor{DACL: d.DACL[:0]}
	if !d.parse(value) {
		*d = Descriptor{DACL: d.DACL[:0]}
		return false
	}
	return true
}

func (d *Descriptor) parse(value []byte) (ok bool) {
	if len(value) < descriptorHeader || value[0] != descriptorRevision {
		return false
	}
	if d.Owner, ok = sidAt(value, ownerOffset); !ok {
		return false
	}
	if d.Group, ok = sidAt(value, groupOffset); !ok {
		return false
	}
	offset := binary.LittleEndian.Uint32(value[daclOffset:])
	if offset == 0 || binary.LittleEndian.Uint16(value[2:])&controlDACL == 0 {
		return true
	}
	if uint64(offset)+aclHeader > uint64(len(value)) {
		return false
	}
	d.HasDACL = true
	return d.parseList(value[offset:])
}

// sidAt parses the SID whose offset is stored at a position. The offset 0 means that there is none.
func sidAt(value []byte, position int) (SID, bool) {
	offset := binary.LittleEndian.Uint32(value[position:])
	switch {
	case offset == 0:
		return nil, true
	case uint64(offset) > uint64(len(value)):
		return nil, false
	}
	return leadingSID(value[offset:])
}

// leadingSID parses the SID at the beginning of data.
func leadingSID(data []byte) (SID, bool) {
	if len(data) < sidHeader {
		return nil, false
	}
	size := sidHeader + 4*int(data[1])
	if size > len(data) {
		return nil, false
	}
	return ParseSID(data[:size])
}

func (d *Descriptor) parseList(list []byte) bool {
	size, count := int(binary.LittleEndian.Uint16(list[2:])), int(binary.LittleEndian.Uint16(list[4:]))
	if size < aclHeader || size > len(list) {
		return false
	}
	rest := list[aclHeader:size]
	for range count {
		if len(rest) < entryHeader {
			return false
		}
		length := int(binary.LittleEndian.Uint16(rest[2:]))
		if length < entryHeader || length > len(rest) {
			return false
		}
		entry, ok := parseEntry(rest[:length])
		if !ok {
			return false
		}
		d.DACL = append(d.DACL, entry)
		rest = rest[length:]
	}
	return true
}

// parseEntry parses one entry. Data after the SID, such as a condition, is ignored.
func parseEntry(data []byte) (entry AccessEntry, ok bool) {
	entry = AccessEntry{Type: EntryType(data[0]), Flags: EntryFlags(data[1])}
	_, limited, known := entry.Type.split()
	if !known {
		return entry, true
	}
	body := data[entryHeader:]
	if len(body) < entryMask {
		return entry, false
	}
	entry.Mask = AccessMask(binary.LittleEndian.Uint32(body))
	body = body[entryMask:]
	if limited {
		if body, ok = entry.parseTypes(body); !ok {
			return entry, false
		}
	}
	entry.Trustee, ok = leadingSID(body)
	return entry, ok
}

// parseTypes parses the GUIDs of an object entry. It returns the rest of body.
func (e *AccessEntry) parseTypes(body []byte) (rest []byte, ok bool) {
	if len(body) < 4 {
		return nil, false
	}
	flags := binary.LittleEndian.Uint32(body)
	body = body[4:]
	for _, part := range []struct {
		flag uint32
		guid *GUID
	}{{objectTypePresent, &e.ObjectType}, {inheritedTypePresent, &e.InheritedObjectType}} {
		if flags&part.flag == 0 {
			continue
		}
		if len(body) < len(part.guid) {
			return nil, false
		}
		copy(part.guid[:], body)
		body = body[len(part.guid):]
	}
	return body, true
}

// split returns whether entries of a type allow or deny, and whether they have GUIDs. known is
// false for the other types.
func (t EntryType) split() (allows, limited, known bool) {
	switch t {
	case EntryAllow, EntryAllowConditional:
		return true, false, true
	case EntryAllowObject, EntryAllowConditionalObject:
		return true, true, true
	case EntryDeny, EntryDenyConditional:
		return false, false, true
	case EntryDenyObject, EntryDenyConditionalObject:
		return false, true, true
	}
	return false, false, false
}

// Weighed returns whether the entry allows or denies. ok is false if the entry has no part in the
// access check of the object: it has another type than those above, applies to child objects
// only, or denies under a condition. The condition of an entry that allows is assumed to hold.
func (e *AccessEntry) Weighed() (allows, ok bool) {
	allows, _, known := e.Type.split()
	return allows, known && e.Flags&EntryInheritOnly == 0 && (allows || !e.Type.isConditional())
}

func (t EntryType) isConditional() bool {
	return t == EntryAllowConditional || t == EntryDenyConditional || t == EntryAllowConditionalObject || t == EntryDenyConditionalObject
}

// Well-known SIDs that are in the access tokens of others (MS-DTYP 2.4.2.4).
var (
	Everyone           = SID("\x01\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00")
	AuthenticatedUsers = SID("\x01\x01\x00\x00\x00\x00\x00\x05\x0b\x00\x00\x00")
	AnonymousLogon     = SID("\x01\x01\x00\x00\x00\x00\x00\x05\x07\x00\x00\x00")
)

// Allows reports whether the descriptor grants a right to an account with these SIDs in its access
// token (MS-DTYP 2.5.3.2): the first entry that has the right and one of the SIDs decides. Entries for
// object types do not apply. See [AccessEntry.Weighed] for the others that do not.
func (d *Descriptor) Allows(token []SID, right AccessMask) bool {
	for i := range d.DACL {
		entry := &d.DACL[i]
		allows, weighed := entry.Weighed()
		if weighed && entry.ObjectType == (GUID{}) && entry.Mask.Has(right) && slices.ContainsFunc(token, func(sid SID) bool { return bytes.Equal(sid, entry.Trustee) }) {
			return allows
		}
	}
	return !d.HasDACL
}

// Granted returns the principals that the descriptor grants a right, without duplicates, in the
// order of their entries. Without a DACL, that is Everyone.
//
// It evaluates the entries as an access check without object types does (MS-DTYP 2.5.3.2): the
// first entry that has the right and applies to a principal decides. An entry for an object type
// does not apply, nor does an inherit-only one. A conditional entry is assumed to apply if it
// allows, and not to apply if it denies. A deny entry for Everyone or Authenticated Users applies
// to the principals that are in them. Other groups that a principal is in are not considered.
func (d *Descriptor) Granted(right AccessMask) []SID {
	if !d.HasDACL {
		return []SID{Everyone}
	}
	granted := make([]SID, 0, min(len(d.DACL), maxList))
	decided := sidSet{list: make([]SID, 0, min(len(d.DACL), maxList)+1)}
	everyoneDenied, authenticatedDenied := false, false
	for _, entry := range d.DACL {
		allows, weighed := entry.Weighed()
		if !weighed || entry.ObjectType != (GUID{}) || !entry.Mask.Has(right) {
			continue
		}
		if !decided.add(entry.Trustee) {
			continue
		}
		switch {
		case !allows:
			everyoneDenied = everyoneDenied || bytes.Equal(entry.Trustee, Everyone)
			authenticatedDenied = authenticatedDenied || bytes.Equal(entry.Trustee, AuthenticatedUsers)
		case everyoneDenied, authenticatedDenied && !bytes.Equal(entry.Trustee, Everyone) && !bytes.Equal(entry.Trustee, AnonymousLogon):
		default:
			granted = append(granted, entry.Trustee)
		}
	}
	return granted
}

// sidSet is a set of SIDs. Sets of descriptors are mostly small.
type sidSet struct {
	list  []SID
	large map[string]struct{} // instead of list, from maxList on
}

// maxList is the size up to which a comparison with each element is faster than a map.
const maxList = 32

// add adds a SID. It returns false if the set has it already.
func (s *sidSet) add(sid SID) bool {
	if s.large == nil {
		for _, other := range s.list {
			if bytes.Equal(other, sid) {
				return false
			}
		}
		if s.list = append(s.list, sid); len(s.list) <= maxList {
			return true
		}
		s.large = make(map[string]struct{}, 2*maxList)
		for _, other := range s.list {
			s.large[string(other)] = struct{}{}
		}
		return true
	}
	if _, found := s.large[string(sid)]; found {
		return false
	}
	s.large[string(sid)] = struct{}{}
	return true
}
