package directory

import "fmt"

// Tags that are decoded here and not by go-ldap (RFC 4511 appendix B).
const (
	tagInteger          = 0x02
	tagOctetString      = 0x04
	tagEnumerated       = 0x0a
	tagSequence         = 0x30
	tagSet              = 0x31
	tagSearchRequest    = 0x63
	tagSearchEntry      = 0x64
	tagSearchDone       = 0x65
	tagSearchReference  = 0x73
	tagExtendedResponse = 0x78
)

// parseHeader parses the tag and the length at the start of b. It returns the size of the
// header and the length of the content. known is false while bytes are missing.
func parseHeader(b []byte) (headerSize, length int, known, ok bool) {
	if len(b) < 2 {
		return 0, 0, false, true
	}
	if b[1] < 0x80 {
		return 2, int(b[1]), true, true
	}
	n := int(b[1] & 0x7f)
	if n == 0 || n > 4 { // LDAP has no indefinite lengths (RFC 4511 5.1)
		return 0, 0, false, false
	}
	if len(b) < 2+n {
		return 0, 0, false, true
	}
	for _, c := range b[2 : 2+n] {
		length = length<<8 | int(c)
	}
	if length < 0 { // overflow of a 32-bit int
		return 0, 0, false, false
	}
	return 2 + n, length, true, true
}

// cutElement splits b after its first element, which must have the given tag.
func cutElement(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != tag {
		return nil, nil, false
	}
	headerSize, length, known, ok := parseHeader(b)
	if !ok || !known || length > len(b)-headerSize {
		return nil, nil, false
	}
	return b[headerSize : headerSize+length], b[headerSize+length:], true
}

// messageSize returns the size of the LDAP message at the start of b. known is false while
// bytes of its header are missing.
func messageSize(b []byte) (size int, known bool, err error) {
	if len(b) > 0 && b[0] != tagSequence {
		return 0, false, errMalformed
	}
	headerSize, length, known, ok := parseHeader(b)
	if !ok {
		return 0, false, errMalformed
	}
	if length > maxEntryMessage {
		return 0, false, fmt.Errorf("%w: %d bytes announced", errTooLarge, length)
	}
	return headerSize + length, known, nil
}

// parseMessageHead returns the ID of a complete message and the tag of its operation.
func parseMessageHead(message []byte) (id int64, tag byte, ok bool) {
	body, _, ok := cutElement(message, tagSequence)
	if !ok {
		return 0, 0, false
	}
	number, rest, ok := cutElement(body, tagInteger)
	if !ok || len(number) == 0 || len(number) > 4 || len(rest) == 0 { // at most 2^31-1 (RFC 4511 4.1.1)
		return 0, 0, false
	}
	for _, c := range number {
		id = id<<8 | int64(c)
	}
	return id, rest[0], true
}

// parsePartialHead is parseMessageHead for a message of which only the beginning has arrived.
// known is false while bytes are missing.
func parsePartialHead(b []byte) (id int64, tag byte, known, ok bool) {
	headerSize, _, known, ok := parseHeader(b)
	if !known || !ok {
		return 0, 0, known, ok
	}
	body := b[headerSize:]
	if len(body) == 0 {
		return 0, 0, false, true
	}
	headerSize, length, known, ok := parseHeader(body)
	if !ok || body[0] != tagInteger || known && (length == 0 || length > 4) {
		return 0, 0, false, false
	}
	if !known || len(body) <= headerSize+length {
		return 0, 0, false, true
	}
	for _, c := range body[headerSize : headerSize+length] {
		id = id<<8 | int64(c)
	}
	return id, body[headerSize+length], true, true
}

// entryDN returns the DN of a complete SearchResultEntry, or nil if it is malformed.
func entryDN(message []byte) []byte {
	body, _, _ := cutElement(message, tagSequence)
	_, rest, _ := cutElement(body, tagInteger)
	entry, _, _ := cutElement(rest, tagSearchEntry)
	dn, _, _ := cutElement(entry, tagOctetString)
	return dn
}

// resultCode returns the LDAP result code of a complete message whose operation has the
// given tag.
func resultCode(message []byte, tag byte) (code byte, ok bool) {
	body, _, ok := cutElement(message, tagSequence)
	_, rest, ok2 := cutElement(body, tagInteger)
	operation, _, ok3 := cutElement(rest, tag)
	value, _, ok4 := cutElement(operation, tagEnumerated)
	if !ok || !ok2 || !ok3 || !ok4 || len(value) != 1 {
		return 0, false
	}
	return value[0], true
}
