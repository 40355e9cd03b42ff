// Package sddl reads security descriptors in the security descriptor definition language (MS-DTYP
// 2.5.1), and finds the principals that control an object. It is a second implementation of
// package access: it works on the text that `samba-tool dsacl get` prints, and makes a separate
// access check for each principal and right.
package sddl

import (
	"fmt"
	"strconv"
	"strings"
)

// Descriptor is a security descriptor. SIDs have their text form.
type Descriptor struct {
	Owner, Group string
	HasDACL      bool
	DACL         []Entry
}

// Entry is an access control entry. GUIDs are in lower case, or empty.
type Entry struct {
	Type              string // such as OA
	Flags             []string
	Mask              uint32
	Object, Inherited string
	Trustee           string
}

// names has the SIDs of principals. Those of the domain begin with a hyphen.
var names = map[string]string{
	"WD": "S-1-1-0", "CO": "S-1-3-0", "CG": "S-1-3-1", "OW": "S-1-3-4", "NU": "S-1-5-2", "IU": "S-1-5-4", "AN": "S-1-5-7", "ED": "S-1-5-9",
	"PS": "S-1-5-10", "AU": "S-1-5-11", "SY": "S-1-5-18", "LS": "S-1-5-19", "NS": "S-1-5-20",
	"BA": "S-1-5-32-544", "BU": "S-1-5-32-545", "BG": "S-1-5-32-546", "PU": "S-1-5-32-547", "AO": "S-1-5-32-548", "SO": "S-1-5-32-549", "PO": "S-1-5-32-550",
	"BO": "S-1-5-32-551", "RE": "S-1-5-32-552", "RU": "S-1-5-32-554", "RD": "S-1-5-32-555", "NO": "S-1-5-32-556",
	"RO": "-498", "LA": "-500", "LG": "-501", "DA": "-512", "DU": "-513", "DG": "-514", "DC": "-515", "DD": "-516", "CA": "-517", "SA": "-518", "EA": "-519",
	"PA": "-520", "CN": "-522", "AP": "-525", "KA": "-526", "EK": "-527", "RS": "-553",
}

// bits has the rights of an access mask.
var bits = map[string]uint32{
	"CC": 0x1, "DC": 0x2, "LC": 0x4, "SW": 0x8, "RP": 0x10, "WP": 0x20, "DT": 0x40, "LO": 0x80, "CR": 0x100,
	"SD": 0x10000, "RC": 0x20000, "WD": 0x40000, "WO": 0x80000,
	"GA": 0x10000000, "GX": 0x20000000, "GW": 0x40000000, "GR": 0x80000000,
}

// Parse reads a descriptor. domain is the SID of the domain. The system ACL is ignored.
func Parse(text, domain string) (d Descriptor, err error) {
	for text = strings.TrimSpace(text); text != ""; {
		if len(text) < 2 || text[1] != ':' {
			return d, fmt.Errorf("no part at %q", text)
		}
		part, rest := text[0], text[2:]
		end := partEnd(rest)
		value := rest[:end]
		text = rest[end:]
		switch part {
		case 'O':
			d.Owner, err = principal(value, domain)
		case 'G':
			d.Group, err = principal(value, domain)
		case 'D':
			d.HasDACL = !strings.HasPrefix(value, "NO_ACCESS_CONTROL")
			d.DACL, err = entries(value, domain)
		case 'S':
		default:
			err = fmt.Errorf("unknown part %q", part)
		}
		if err != nil {
			return d, err
		}
	}
	return d, nil
}

// partEnd returns where the next part begins. A colon in parentheses is part of a condition.
func partEnd(text string) int {
	depth := 0
	for i := range len(text) {
		switch c := text[i]; {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ':' && depth == 0:
			return i - 1
		}
	}
	return len(text)
}

func principal(text, domain string) (string, error) {
	if strings.HasPrefix(text, "S-1-") {
		return text, nil
	}
	sid, found := names[text]
	if !found {
		return "", fmt.Errorf("unknown principal %q", text)
	}
	if sid[0] == '-' {
		return domain + sid, nil
	}
	return sid, nil
}

// entries reads the entries of an ACL, after its flags.
func entries(text, domain string) (list []Entry, err error) {
	for {
		start := strings.IndexByte(text, '(')
		if start < 0 {
			return list, nil
		}
		depth, end := 0, 0
		for i := start; i < len(text) && end == 0; i++ {
			switch text[i] {
			case '(':
				depth++
			case ')':
				if depth--; depth == 0 {
					end = i
				}
			}
		}
		if end == 0 {
			return nil, fmt.Errorf("entry without end in %q", text)
		}
		entry, err := parseEntry(text[start+1:end], domain)
		if err != nil {
			return nil, err
		}
		list = append(list, entry)
		text = text[end+1:]
	}
}

func parseEntry(text, domain string) (e Entry, err error) {
	fields := strings.SplitN(text, ";", 7) // the last is a condition
	if len(fields) < 6 {
		return e, fmt.Errorf("entry %q: %d fields", text, len(fields))
	}
	e.Type, e.Object, e.Inherited = fields[0], strings.ToLower(fields[3]), strings.ToLower(fields[4])
	for flags := fields[1]; len(flags) >= 2; flags = flags[2:] {
		e.Flags = append(e.Flags, flags[:2])
	}
	if strings.HasPrefix(fields[2], "0x") {
		mask, err := strconv.ParseUint(fields[2][2:], 16, 32)
		if err != nil {
			return e, fmt.Errorf("entry %q: %w", text, err)
		}
		e.Mask = uint32(mask)
	} else {
		for rights := fields[2]; rights != ""; rights = rights[2:] {
			if len(rights) < 2 || bits[rights[:2]] == 0 {
				return e, fmt.Errorf("entry %q: unknown right %q", text, rights)
			}
			e.Mask |= bits[rights[:2]]
		}
	}
	e.Trustee, err = principal(fields[5], domain)
	return e, err
}
