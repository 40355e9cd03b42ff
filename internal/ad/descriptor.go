package ad

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Sizes, offsets and flags of security descriptors, ACLs and ACEs (MS-DTYP 2.4.4 to 2.4.6).
const (
	descriptorHeader   = 20 // revision, padding, control, four offsets
	descriptorRevision = 1
	daclOffset         = 16
	aclHeader          = 8 // revision, padding, size, count, padding
	aceHeader          = 4 // type, flags, size
	aceMask            = 4

	controlDACL = 0x4 // control flag: the descriptor has a DACL

	aceAllowed               = 0x00
	aceAllowedObject         = 0x05
	aceAllowedCallback       = 0x09 // with a condition
	aceAllowedCallbackObject = 0x0b
	aceInheritOnly           = 0x8 // ACE flag: applies to child objects only
	aceObjectType            = 0x1 // flags of an object ACE: which GUIDs it has
	aceInheritedType         = 0x2
)

// AllowedSIDs returns the SIDs of the allow ACEs in the DACL of a self-relative security
// descriptor (MS-DTYP 2.4.6), without duplicates, in the order of the ACL. It ignores deny ACEs,
// conditions and inherit-only ACEs. Without a DACL everyone is allowed: S-1-1-0. An empty DACL
// allows no one.
func AllowedSIDs(descriptor []byte) (sids []SID, ok bool) {
	if len(descriptor) < descriptorHeader || descriptor[0] != descriptorRevision {
		return nil, false
	}
	offset := binary.LittleEndian.Uint32(descriptor[daclOffset:])
	if offset == 0 || binary.LittleEndian.Uint16(descriptor[2:])&controlDACL == 0 {
		return []SID{SID("\x01\x01\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00")}, true
	}
	if uint64(offset)+aclHeader > uint64(len(descriptor)) {
		return nil, false
	}
	acl := descriptor[offset:]
	size, count := int(binary.LittleEndian.Uint16(acl[2:])), int(binary.LittleEndian.Uint16(acl[4:]))
	if size < aclHeader || size > len(acl) {
		return nil, false
	}
	rest := acl[aclHeader:size]
	for range count {
		if len(rest) < aceHeader+aceMask {
			return nil, false
		}
		length := int(binary.LittleEndian.Uint16(rest[2:]))
		if length < aceHeader+aceMask || length > len(rest) {
			return nil, false
		}
		if sid, allows, ok := parseAllowACE(rest[0], rest[aceHeader+aceMask:length]); !ok {
			return nil, false
		} else if allows && rest[1]&aceInheritOnly == 0 && !slices.ContainsFunc(sids, func(other SID) bool { return bytes.Equal(other, sid) }) {
			sids = append(sids, sid)
		}
		rest = rest[length:]
	}
	return sids, true
}

// parseAllowACE parses the part of an ACE after its mask. allows is false for other types of
// ACEs. Data after the SID, as in callback ACEs, is ignored.
func parseAllowACE(aceType byte, body []byte) (sid SID, allows, ok bool) {
	switch aceType {
	case aceAllowed, aceAllowedCallback:
	case aceAllowedObject, aceAllowedCallbackObject:
		if len(body) < 4 {
			return nil, false, false
		}
		flags := binary.LittleEndian.Uint32(body)
		skip := 4
		for _, flag := range []uint32{aceObjectType, aceInheritedType} {
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
