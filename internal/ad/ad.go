// Package ad defines the data types of Active Directory's attributes: identifiers, times and
// flags.
//
// Parsers return the zero value and false for malformed input, and never panic. The package
// does no I/O, reads no clock and has no state.
package ad

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// USN is an update sequence number of a domain controller (MS-ADTS 3.1.1.1.9). It is valid only
// together with the controller's invocation ID.
type USN int64

// ParseUSN parses a decimal update sequence number.
func ParseUSN(value []byte) (USN, bool) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	return USN(n), true
}

// GUID is an objectGUID in wire byte order (MS-DTYP 2.3.4.2).
type GUID [16]byte

// ParseGUID parses the 16 bytes of an objectGUID.
func ParseGUID(value []byte) (GUID, bool) {
	if len(value) != len(GUID{}) {
		return GUID{}, false
	}
	return GUID(value), true
}

// AppendText appends the text form, in lower case and without braces. The first three fields
// of the wire form are little-endian.
func (g GUID) AppendText(dst []byte) []byte {
	dst = hex.AppendEncode(dst, []byte{g[3], g[2], g[1], g[0]})
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, []byte{g[5], g[4]})
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, []byte{g[7], g[6]})
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, g[8:10])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, g[10:])
}

func (g GUID) String() string { return string(g.AppendText(nil)) }

// InvocationID identifies a version of a domain controller's database. It changes when the
// controller is restored from a backup (MS-ADTS 3.1.1.1.9).
type InvocationID GUID

func (id InvocationID) String() string { return GUID(id).String() }

// SID is a security identifier in binary form (MS-DTYP 2.4.2.2). It must come from ParseSID,
// JoinSID or Child.
type SID []byte

const (
	sidRevision       = 1
	sidHeader         = 8 // revision, count, 6-byte authority
	maxSubAuthorities = 15
)

// ParseSID parses an objectSid. The SID shares memory with value.
func ParseSID(value []byte) (SID, bool) {
	if len(value) < sidHeader || value[0] != sidRevision || value[1] > maxSubAuthorities ||
		len(value) != sidHeader+4*int(value[1]) {
		return nil, false
	}
	return SID(value), true
}

// AppendText appends the S-1-… form. Authorities of 2^32 and above are hexadecimal (MS-DTYP
// 2.4.2.1).
func (s SID) AppendText(dst []byte) []byte {
	dst = append(dst, "S-1-"...)
	var authority uint64
	for _, b := range s[2:sidHeader] {
		authority = authority<<8 | uint64(b)
	}
	if authority>>32 == 0 {
		dst = strconv.AppendUint(dst, authority, 10)
	} else {
		dst = append(dst, "0x"...)
		dst = hex.AppendEncode(dst, s[2:sidHeader])
	}
	for sub := s[sidHeader:]; len(sub) > 0; sub = sub[4:] {
		dst = append(dst, '-')
		dst = strconv.AppendUint(dst, uint64(sub[0])|uint64(sub[1])<<8|uint64(sub[2])<<16|uint64(sub[3])<<24, 10)
	}
	return dst
}

func (s SID) String() string { return string(s.AppendText(nil)) }

// Split returns the SID without its last sub-authority, and the last sub-authority, the RID.
// authority is not a valid SID. Split returns false for a SID without sub-authorities.
func (s SID) Split() (authority []byte, rid RID, ok bool) {
	if len(s) <= sidHeader {
		return nil, 0, false
	}
	last := s[len(s)-4:]
	return s[:len(s)-4], RID(binary.LittleEndian.Uint32(last)), true
}

// Compare orders SIDs by authority and then by RID. This is the order of all lists of SIDs.
func (s SID) Compare(other SID) int {
	a, rid, _ := s.Split()
	b, otherRID, _ := other.Split()
	return cmp.Or(bytes.Compare(a, b), cmp.Compare(rid, otherRID), bytes.Compare(s, other)) // the last without sub-authorities
}

// Child returns the SID of an object of the domain s.
func (s SID) Child(rid RID) SID {
	child := JoinSID(s, rid)
	child[1]++ // the number of sub-authorities
	return child
}

// JoinSID is the inverse of Split.
func JoinSID(authority []byte, rid RID) SID {
	return binary.LittleEndian.AppendUint32(append(make(SID, 0, len(authority)+4), authority...), uint32(rid))
}
