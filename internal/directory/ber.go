package directory

import "fmt"

// The tags of RFC 4511 that we read ourselves.
const (
	tagInteger          = 0x02
	tagOctetString      = 0x04
	tagEnumerated       = 0x0a
	tagSequence         = 0x30
	tagSet              = 0x31
	tagSearchRequest    = 0x63
	tagSearchEntry      = 0x64
	tagSearchReference  = 0x73
	tagExtendedResponse = 0x78
)

// header reads the length that follows a tag. It returns the size of tag and
// length together, and the length; known is false while bytes are missing.
func header(b []byte) (head, length int, known, ok bool) {
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
	if length < 0 { // where int has 32 bits
		return 0, 0, false, false
	}
	return 2 + n, length, true, true
}

// element takes the element with the given tag off the front of b.
func element(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != tag {
		return nil, nil, false
	}
	head, length, known, ok := header(b)
	if !ok || !known || length > len(b)-head {
		return nil, nil, false
	}
	return b[head : head+length], b[head+length:], true
}

// messageSize returns the size of the LDAP message at the front of b, once known.
func messageSize(b []byte) (size int, known bool, err error) {
	if len(b) > 0 && b[0] != tagSequence {
		return 0, false, errMalformed
	}
	head, length, known, ok := header(b)
	if !ok {
		return 0, false, errMalformed
	}
	if length > maxEntryMessage {
		return 0, false, fmt.Errorf("%w: %d bytes announced", errTooLarge, length)
	}
	return head + length, known, nil
}

// messageHead returns the ID of a whole message and the tag of its operation.
func messageHead(message []byte) (id int64, tag byte, ok bool) {
	body, _, ok := element(message, tagSequence)
	if !ok {
		return 0, 0, false
	}
	number, rest, ok := element(body, tagInteger)
	if !ok || len(number) == 0 || len(number) > 4 || len(rest) == 0 { // at most 2^31-1 (RFC 4511 4.1.1)
		return 0, 0, false
	}
	for _, c := range number {
		id = id<<8 | int64(c)
	}
	return id, rest[0], true
}

// resultCode returns the LDAP result in a whole message with the given operation.
func resultCode(message []byte, tag byte) (code byte, ok bool) {
	body, _, ok := element(message, tagSequence)
	_, rest, ok2 := element(body, tagInteger)
	operation, _, ok3 := element(rest, tag)
	value, _, ok4 := element(operation, tagEnumerated)
	if !ok || !ok2 || !ok3 || !ok4 || len(value) != 1 {
		return 0, false
	}
	return value[0], true
}
