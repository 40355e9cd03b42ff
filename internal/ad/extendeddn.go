package ad

import (
	"bytes"
	"encoding/hex"
)

// ExtendedDN is a DN with the GUID and SID of its object, as LDAP_SERVER_EXTENDED_DN_OID returns
// it: <GUID=…>;<SID=…>;CN=…, with hexadecimal identifiers (MS-ADTS 3.1.1.3.4.1.5). It can be
// reused for many values without allocations.
type ExtendedDN struct {
	GUID GUID
	DN   []byte // shares memory with the parsed value

	sid     [sidHeader + 4*maxSubAuthorities]byte
	sidSize int // 0: the object has no SID
}

var (
	guidPrefix       = []byte("<GUID=")
	sidPrefix        = []byte("<SID=")
	identifierSuffix = []byte(">;")
)

// Parse parses one value. It returns false if there is no GUID, as in a plain DN.
func (d *ExtendedDN) Parse(value []byte) bool {
	d.sidSize = 0
	text, rest, ok := cutIdentifier(value, guidPrefix)
	if !ok || len(text) != 2*len(d.GUID) {
		return false
	}
	if _, err := hex.Decode(d.GUID[:], text); err != nil {
		return false
	}
	d.DN = rest
	if text, rest, ok = cutIdentifier(rest, sidPrefix); !ok {
		return !bytes.HasPrefix(rest, sidPrefix)
	}
	if len(text) > 2*len(d.sid) {
		return false
	}
	n, err := hex.Decode(d.sid[:], text)
	if err != nil {
		return false
	}
	if _, ok := ParseSID(d.sid[:n]); !ok {
		return false
	}
	d.sidSize, d.DN = n, rest
	return true
}

// SID returns the object's SID, or false if it has none. It is valid until the next Parse.
func (d *ExtendedDN) SID() (SID, bool) { return SID(d.sid[:d.sidSize]), d.sidSize > 0 }

// cutIdentifier splits value after an identifier with the given prefix.
func cutIdentifier(value, prefix []byte) (text, rest []byte, ok bool) {
	if !bytes.HasPrefix(value, prefix) {
		return nil, value, false
	}
	if text, rest, ok = bytes.Cut(value[len(prefix):], identifierSuffix); !ok {
		return nil, value, false
	}
	return text, rest, true
}

// PlainDN returns an extended DN without its identifiers. It returns a plain DN unchanged.
func PlainDN(value []byte) []byte {
	for _, prefix := range [][]byte{guidPrefix, sidPrefix} {
		if _, rest, ok := cutIdentifier(value, prefix); ok {
			value = rest
		}
	}
	return value
}

// AppendDNSName appends the DNS name of the domain of a DN, from the DC parts at its end:
// corp.example.com of CN=Alice,DC=corp,DC=example,DC=com. Without such parts, it appends nothing.
func AppendDNSName(dst, dn []byte) []byte {
	domain := dn[len(dn):] // its DC parts
	for rest := dn; len(rest) > 0; {
		comma := bytes.LastIndexByte(rest, ',')
		if !hasPrefixDC(rest[comma+1:]) || isEscaped(rest, comma) {
			break
		}
		domain = dn[comma+1:]
		rest = rest[:max(comma, 0)]
	}
	separator := ""
	for part := range bytes.SplitSeq(domain, []byte{','}) {
		if hasPrefixDC(part) { // domain can be empty
			dst = append(append(dst, separator...), part[len("DC="):]...)
			separator = "."
		}
	}
	return dst
}

// isEscaped reports whether an odd number of backslashes is before a character.
func isEscaped(text []byte, index int) bool {
	start := max(index, 0)
	for start > 0 && text[start-1] == '\\' {
		start--
	}
	return (index-start)%2 == 1
}

func hasPrefixDC(part []byte) bool {
	return len(part) > 3 && part[0]|0x20 == 'd' && part[1]|0x20 == 'c' && part[2] == '='
}

// RelativeName returns the value of the first part of a DN (RFC 4514), such as Alice of
// CN=Alice,DC=corp. It shares memory with dn, unless it has escaped characters.
func RelativeName(dn []byte) []byte {
	_, value, found := bytes.Cut(dn, []byte{'='})
	if !found {
		return nil
	}
	end := bytes.IndexAny(value, `,+\`)
	switch {
	case end < 0:
		return value
	case value[end] != '\\':
		return value[:end]
	}
	name := append(make([]byte, 0, len(value)), value[:end]...)
	for rest := value[end:]; len(rest) > 0 && rest[0] != ',' && rest[0] != '+'; {
		c, size := unescape(rest)
		name, rest = append(name, c), rest[size:]
	}
	return name
}

// unescape returns the first character of text, which is not empty, and its size in text.
func unescape(text []byte) (c byte, size int) {
	if text[0] != '\\' || len(text) == 1 {
		return text[0], 1
	}
	var decoded [1]byte
	if len(text) > 2 {
		if _, err := hex.Decode(decoded[:], text[1:3]); err == nil {
			return decoded[0], 3
		}
	}
	return text[1], 2
}
