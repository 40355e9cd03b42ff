package sddl

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// types has the types of entries that decide about access (MS-DTYP 2.4.4.1).
var types = map[string]byte{"A": 0, "D": 1, "OA": 5, "OD": 6, "XA": 9, "XD": 10, "ZA": 11, "ZD": 12}

var flags = map[string]byte{"OI": 0x1, "CI": 0x2, "NP": 0x4, "IO": 0x8, "ID": 0x10}

// Binary returns the self-relative form (MS-DTYP 2.4.6), as the attribute nTSecurityDescriptor has
// it. It leaves out the conditions of entries, and panics for what is not in this form.
func (d Descriptor) Binary() []byte {
	const selfRelative, daclPresent = 0x8000, 0x4
	header := []byte{1, 0, 0, 0x80, 19: 0}
	var body []byte
	put := func(offset int, part []byte) {
		binary.LittleEndian.PutUint32(header[offset:], uint32(len(header)+len(body)))
		body = append(body, part...)
	}
	if d.Owner != "" {
		put(4, binarySID(d.Owner))
	}
	if d.Group != "" {
		put(8, binarySID(d.Group))
	}
	if d.HasDACL {
		binary.LittleEndian.PutUint16(header[2:], selfRelative|daclPresent)
		list := []byte{4, 0, 0, 0, 0, 0, 0, 0}
		for _, e := range d.DACL {
			list = append(list, e.binary()...)
		}
		binary.LittleEndian.PutUint16(list[2:], uint16(len(list)))
		binary.LittleEndian.PutUint16(list[4:], uint16(len(d.DACL)))
		put(16, list)
	}
	return append(header, body...)
}

func (e Entry) binary() []byte {
	number, found := types[e.Type]
	if !found {
		panic("unknown type " + e.Type)
	}
	entry := []byte{number, 0, 0, 0}
	for _, flag := range e.Flags {
		entry[1] |= flags[flag]
	}
	entry = binary.LittleEndian.AppendUint32(entry, e.Mask)
	if strings.HasPrefix(e.Type, "O") || strings.HasPrefix(e.Type, "Z") {
		present := len(entry)
		entry = append(entry, 0, 0, 0, 0)
		for bit, text := range []string{e.Object, e.Inherited} {
			if text != "" {
				entry[present] |= 1 << bit
				entry = append(entry, binaryGUID(text)...)
			}
		}
	}
	entry = append(entry, binarySID(e.Trustee)...)
	binary.LittleEndian.PutUint16(entry[2:], uint16(len(entry)))
	return entry
}

// binarySID returns the binary form of a SID (MS-DTYP 2.4.2.2).
func binarySID(text string) []byte {
	var numbers []uint32
	for field := range strings.SplitSeq(strings.TrimPrefix(text, "S-1-"), "-") {
		n, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			panic(fmt.Sprintf("SID %s: %v", text, err))
		}
		numbers = append(numbers, uint32(n))
	}
	sid := []byte{1, byte(len(numbers) - 1), 0, 0}
	sid = binary.BigEndian.AppendUint32(sid, numbers[0])
	for _, n := range numbers[1:] {
		sid = binary.LittleEndian.AppendUint32(sid, n)
	}
	return sid
}

// binaryGUID returns the binary form of a GUID (MS-DTYP 2.3.4.2).
func binaryGUID(text string) []byte {
	guid, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(guid) != 16 {
		panic("malformed GUID " + text)
	}
	for _, part := range [][]byte{guid[:4], guid[4:6], guid[6:8]} {
		slices.Reverse(part)
	}
	return guid
}
