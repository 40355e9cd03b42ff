package ad

import "encoding/binary"

const (
	descriptorHeader   = 20 // revision, padding, control, four offsets
	descriptorRevision = 1
	daclOffset         = 16
	listHeader         = 8 // revision, padding, size, count, padding
	entryHeader        = 4 // type, flags, size
	entryMask          = 4

	controlDACL = 0x4 // control flag: there is a discretionary list

	entryAllowed               = 0x00
	entryAllowedObject         = 0x05
	entryAllowedCallback       = 0x09 // under a condition
	entryAllowedCallbackObject = 0x0b
	entryInheritOnly           = 0x8 // flag of an entry: it is for what is below
	entryObjectType            = 0x1 // flags of an object entry: which GUIDs it has
	entryInheritedType         = 0x2
)

// AllowedBy lists whom a security descriptor (MS-DTYP 2.4.6, self-relative) allows
// something: the SIDs of the entries of its discretionary list that allow, each
// once, in the list's order. Entries that deny are not weighed against them, nor are
// the conditions of those that have one; what is only inherited from here allows
// nothing here. A descriptor without a list allows everybody: S-1-1-0, while an
// empty list allows nobody.
func AllowedBy(descriptor []byte) (sids []SID, ok bool) {
	if len(descriptor) < descriptorHeader || descriptor[0] != descriptorRevision {
		return nil, false
	}
	at := binary.LittleEndian.Uint32(descriptor[daclOffset:])
	if at == 0 || binary.LittleEndian.Uint16(descriptor[2:])&controlDACL == 0 {
		return []SID{SID("\x01\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00")}, true
	}
	if uint64(at)+listHeader > uint64(len(descriptor)) {
		return nil, false
	}
	list := descriptor[at:]
	size, count := int(binary.LittleEndian.Uint16(list[2:])), int(binary.LittleEndian.Uint16(list[4:]))
	if size < listHeader || size > len(list) {
		return nil, false
	}
	rest := list[listHeader:size]
	for range count {
		if len(rest) < entryHeader+entryMask {
			return nil, false
		}
		length := int(binary.LittleEndian.Uint16(rest[2:]))
		if length < entryHeader+entryMask || length > len(rest) {
			return nil, false
		}
		if sid, allows, ok := allowedBy(rest[0], rest[entryHeader+entryMask:length]); !ok {
			return nil, false
		} else if allows && rest[1]&entryInheritOnly == 0 && !containsSID(sids, sid) {
			sids = append(sids, sid)
		}
		rest = rest[length:]
	}
	return sids, true
}

// allowedBy reads what follows an entry's mask. What is behind the SID, as a
// callback's data, is not looked at.
func allowedBy(kind byte, body []byte) (sid SID, allows, ok bool) {
	switch kind {
	case entryAllowed, entryAllowedCallback:
	case entryAllowedObject, entryAllowedCallbackObject:
		if len(body) < 4 {
			return nil, false, false
		}
		flags := binary.LittleEndian.Uint32(body)
		skip := 4
		for _, flag := range []uint32{entryObjectType, entryInheritedType} {
			if flags&flag != 0 {
				skip += len(GUID{})
			}
		}
		if len(body) < skip {
			return nil, false, false
		}
		body = body[skip:]
	default:
		return nil, false, true
	}
	if len(body) < sidHeader {
		return nil, false, false
	}
	length := sidHeader + 4*int(body[1])
	if length > len(body) {
		return nil, false, false
	}
	sid, ok = ParseSID(body[:length])
	return sid, true, ok
}

func containsSID(list []SID, sid SID) bool {
	for _, other := range list {
		if string(other) == string(sid) {
			return true
		}
	}
	return false
}
