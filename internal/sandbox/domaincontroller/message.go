package domaincontroller

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// element is a BER element (X.690). This package does not use asn1-ber, whose limits are
// package variables: the connector sets them, possibly in the same process, while this
// server reads.
type element struct {
	tag      byte
	content  []byte
	children []element // of a constructed element
}

const (
	maxMessageSize = 1 << 20
	maxNesting     = 100
)

var errMalformed = errors.New("not an LDAP message")

// parseElement parses the first element of b. It returns the rest of b.
func parseElement(b []byte, depth int) (e element, rest []byte, err error) {
	if len(b) < 2 || b[0]&0x1f == 0x1f || depth > maxNesting {
		return element{}, nil, errMalformed
	}
	head, length := 2, int(b[1])
	if length >= 0x80 {
		n := length & 0x7f
		if n == 0 || n > 4 || len(b) < 2+n {
			return element{}, nil, errMalformed
		}
		length = 0
		for _, c := range b[2 : 2+n] {
			length = length<<8 | int(c)
		}
		head += n
	}
	if length < 0 || length > len(b)-head {
		return element{}, nil, errMalformed
	}
	e = element{tag: b[0], content: b[head : head+length]}
	if e.tag&0x20 != 0 {
		for inside := e.content; len(inside) > 0; {
			var child element
			if child, inside, err = parseElement(inside, depth+1); err != nil {
				return element{}, nil, err
			}
			e.children = append(e.children, child)
		}
	}
	return e, b[head+length:], nil
}

func (e element) text() string { return string(e.content) }

func (e element) number() int64 {
	var n int64
	for i, c := range e.content {
		if i == 0 {
			n = int64(int8(c))
			continue
		}
		n = n<<8 | int64(c)
	}
	return n
}

func (e element) flag() bool { return len(e.content) == 1 && e.content[0] != 0 }

// request is an LDAP message from a client.
type request struct {
	id        int64
	operation element
	controls  []control
}

type control struct {
	oid      string
	critical bool
	value    []byte
}

// Supported controls. The server accepts ManageDsaIT and ignores it.
const (
	controlPaging      = "1.2.840.113556.1.4.319"
	controlShowDeleted = "1.2.840.113556.1.4.417"
	controlDomainScope = "1.2.840.113556.1.4.1339"
	controlManageDSAIT = "2.16.840.1.113730.3.4.2"
	controlExtendedDN  = "1.2.840.113556.1.4.529"
)

// readMessage reads one message with its header.
func readMessage(from *bufio.Reader) ([]byte, error) {
	head, err := from.Peek(2)
	if err != nil {
		return nil, err
	}
	size, length := 2, int(head[1])
	if length >= 0x80 {
		if size += length & 0x7f; size > 6 {
			return nil, errMalformed
		}
		if head, err = from.Peek(size); err != nil {
			return nil, err
		}
		length = 0
		for _, c := range head[2:] {
			length = length<<8 | int(c)
		}
	}
	if head[0] != tagSequence || length > maxMessageSize {
		return nil, errMalformed
	}
	message := make([]byte, size+length)
	_, err = io.ReadFull(from, message)
	return message, err
}

func readRequest(from *bufio.Reader) (request, error) {
	raw, err := readMessage(from)
	if err != nil {
		return request{}, err
	}
	message, _, err := parseElement(raw, 0)
	if err != nil || len(message.children) < 2 || message.children[0].tag != tagInteger {
		return request{}, errMalformed
	}
	r := request{id: message.children[0].number(), operation: message.children[1]}
	if len(message.children) > 2 {
		for _, child := range message.children[2].children {
			if len(child.children) == 0 {
				return request{}, errMalformed
			}
			c := control{oid: child.children[0].text()}
			for _, part := range child.children[1:] {
				if part.tag == tagBoolean {
					c.critical = part.flag()
				} else {
					c.value = part.content
				}
			}
			r.controls = append(r.controls, c)
		}
	}
	return r, nil
}

func (r request) has(oid string) bool {
	return slices.ContainsFunc(r.controls, func(c control) bool { return c.oid == oid })
}

// part returns a part of the operation, or an empty element.
func (r request) part(n int) element {
	if n >= len(r.operation.children) {
		return element{}
	}
	return r.operation.children[n]
}

// result is the result of an operation.
type result struct {
	code     int
	matched  string
	text     string
	referral string
}

// errorResult returns a result whose text ends with a zero byte, as Active Directory
// sends it.
func errorResult(code int, text string) result { return result{code: code, text: text + "\x00"} }

// encoder appends messages to out. Lengths of constructed elements take five bytes, as in
// Active Directory, so that they can be written last.
type encoder struct{ out []byte }

const (
	tagBoolean    = 0x01
	tagInteger    = 0x02
	tagOctets     = 0x04
	tagEnumerated = 0x0a
	tagSequence   = 0x30
	tagSet        = 0x31
	tagPrimitive  = 0x80 // context-specific
	tagContext    = 0xa0 // context-specific, constructed
)

// begin begins a constructed element and returns the argument for end.
func (e *encoder) begin(tag byte) int {
	e.out = append(e.out, tag, 0x84, 0, 0, 0, 0)
	return len(e.out)
}

func (e *encoder) end(start int) {
	binary.BigEndian.PutUint32(e.out[start-4:], uint32(len(e.out)-start))
}

func (e *encoder) number(tag byte, n int64) {
	length := 1
	for n > 1<<(8*length-1)-1 || n < -1<<(8*length-1) {
		length++
	}
	e.out = append(e.out, tag, byte(length))
	for i := length - 1; i >= 0; i-- {
		e.out = append(e.out, byte(n>>(8*i)))
	}
}

func (e *encoder) octets(tag byte, value string) {
	e.out = append(e.out, tag)
	if n := len(value); n < 0x80 {
		e.out = append(e.out, byte(n))
	} else {
		e.out = append(e.out, 0x84)
		e.out = binary.BigEndian.AppendUint32(e.out, uint32(n))
	}
	e.out = append(e.out, value...)
}

// message begins a message and its operation. The returned function ends both.
func (e *encoder) message(id int64, operation byte) (end func()) {
	message := e.begin(tagSequence)
	e.number(tagInteger, id)
	body := e.begin(operation)
	return func() {
		e.end(body)
		e.end(message)
	}
}

// result writes the message that ends an operation, with a paging control if paged is
// set.
func (e *encoder) result(id int64, operation byte, r result, paged bool, cookie []byte) {
	message := e.begin(tagSequence)
	e.number(tagInteger, id)
	body := e.begin(operation)
	e.number(tagEnumerated, int64(r.code))
	e.octets(tagOctets, r.matched)
	e.octets(tagOctets, r.text)
	if r.referral != "" {
		referral := e.begin(tagContext | 3)
		e.octets(tagOctets, r.referral)
		e.end(referral)
	}
	if operation == tagExtendedResponse && r.code == ldap.LDAPResultSuccess {
		e.octets(tagPrimitive|10, oidStartTLS)
	}
	e.end(body)
	if paged {
		controls := e.begin(tagContext)
		control := e.begin(tagSequence)
		e.octets(tagOctets, controlPaging)
		value := e.begin(tagOctets)
		sequence := e.begin(tagSequence)
		e.number(tagInteger, 0) // no estimate of the total
		e.octets(tagOctets, string(cookie))
		e.end(sequence)
		e.end(value)
		e.end(control)
		e.end(controls)
	}
	e.end(message)
}
