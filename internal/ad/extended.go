package ad

import (
	"bytes"
	"encoding/hex"
)

// ExtendedDN is a DN with the identifiers of the object that it names: the form
// <GUID=…>;<SID=…>;CN=… that LDAP_SERVER_EXTENDED_DN_OID asks for, with its
// identifiers in hexadecimal (MS-ADTS 3.1.1.3.4.1.5). It is parsed into room of
// its own, so that many values need but one.
type ExtendedDN struct {
	GUID GUID
	DN   []byte // part of the value

	sid    [sidHeader + 4*maxSubAuthorities]byte
	length int // of the SID; 0: the object has none
}

var (
	extendedGUID = []byte("<GUID=")
	extendedSID  = []byte("<SID=")
	extendedEnd  = []byte(">;")
)

// Parse reads one value. It reports false for what has no GUID: a plain DN too.
func (d *ExtendedDN) Parse(value []byte) bool {
	d.length = 0
	text, rest, ok := cutExtended(value, extendedGUID)
	if !ok || len(text) != 2*len(d.GUID) {
		return false
	}
	if _, err := hex.Decode(d.GUID[:], text); err != nil {
		return false
	}
	d.DN = rest
	if text, rest, ok = cutExtended(rest, extendedSID); !ok {
		return !bytes.HasPrefix(rest, extendedSID)
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
	d.length, d.DN = n, rest
	return true
}

// SID returns the object's SID, if it has one. It is valid until the next Parse.
func (d *ExtendedDN) SID() (SID, bool) { return SID(d.sid[:d.length]), d.length > 0 }

func cutExtended(value, name []byte) (text, rest []byte, ok bool) {
	if !bytes.HasPrefix(value, name) {
		return nil, value, false
	}
	if text, rest, ok = bytes.Cut(value[len(name):], extendedEnd); !ok {
		return nil, value, false
	}
	return text, rest, true
}

// PlainDN is an extended DN without its identifiers; a plain one stays as it is.
func PlainDN(value []byte) []byte {
	for _, name := range [][]byte{extendedGUID, extendedSID} {
		if _, rest, ok := cutExtended(value, name); ok {
			value = rest
		}
	}
	return value
}
