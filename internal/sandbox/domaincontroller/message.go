package domaincontroller

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/go-ldap/ldap/v3"
)

// element is one piece of BER (X.690). It is read here and not by asn1-ber, whose
// bounds are variables of the package: the connector sets them for itself while
// this server, in the same process, reads.
type element struct {
	tag      byte
	content  []byte
	children []element // of a constructed one
}

const (
	maxRequest     = 1 << 20
	maxElementNest = 100
)

var errMessage = errors.New("not an LDAP message")

// parseElement takes the element at the front of b off.
func parseElement(b []byte, depth int) (e element, rest []byte, err error) {
	if len(b) < 2 || b[0]&0x1f == 0x1f || depth > maxElementNest {
		return element{}, nil, errMessage
	}
	head, length := 2, int(b[1])
	if length >= 0x80 {
		n := length & 0x7f
		if n == 0 || n > 4 || len(b) < 2+n {
			return element{}, nil, errMessage
		}
		length = 0
		for _, c := range b[2 : 2+n] {
			length = length<<8 | int(c)
		}
		head += n
	}
	if length < 0 || length > len(b)-head {
		return element{}, nil, errMessage
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

// ldapRequest is one LDAP message from a client.
type ldapRequest struct {
	id        int64
	operation element
	controls  []control
}

type control struct {
	oid      string
	critical bool
	value    []byte
}

// The controls that are taken. Permissive ones among them change nothing here.
const (
	controlPaging      = "1.2.840.113556.1.4.319"
	controlShowDeleted = "1.2.840.113556.1.4.417"
	controlDomainScope = "1.2.840.113556.1.4.1339"
	controlManageDSAIT = "2.16.840.1.113730.3.4.2"
	controlExtendedDN  = "1.2.840.113556.1.4.529"
)

// readMessage reads one message, its header included.
func readMessage(from *bufio.Reader) ([]byte, error) {
	head, err := from.Peek(2)
	if err != nil {
		return nil, err
	}
	size, length := 2, int(head[1])
	if length >= 0x80 {
		if size += length & 0x7f; size > 6 {
			return nil, errMessage
		}
		if head, err = from.Peek(size); err != nil {
			return nil, err
		}
		length = 0
		for _, c := range head[2:] {
			length = length<<8 | int(c)
		}
	}
	if head[0] != tagSequence || length > maxRequest {
		return nil, errMessage
	}
	message := make([]byte, size+length)
	_, err = io.ReadFull(from, message)
	return message, err
}

func readRequest(from *bufio.Reader) (ldapRequest, error) {
	raw, err := readMessage(from)
	if err != nil {
		return ldapRequest{}, err
	}
	message, _, err := parseElement(raw, 0)
	if err != nil || len(message.children) < 2 || message.children[0].tag != tagInteger {
		return ldapRequest{}, errMessage
	}
	r := ldapRequest{id: message.children[0].number(), operation: message.children[1]}
	if len(message.children) > 2 {
		for _, child := range message.children[2].children {
			if len(child.children) == 0 {
				return ldapRequest{}, errMessage
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

func (r ldapRequest) has(oid string) bool {
	return slices.ContainsFunc(r.controls, func(c control) bool { return c.oid == oid })
}

// part returns a part of the operation, an empty element when it is not there.
func (r ldapRequest) part(n int) element {
	if n >= len(r.operation.children) {
		return element{}
	}
	return r.operation.children[n]
}

// result is how an operation ended.
type result struct {
	code     int
	matched  string
	text     string
	referral string
}

// The results carry a zero byte at the end of their texts, as Active Directory's do.
func refusal(code int, text string) result { return result{code: code, text: text + "\x00"} }

// encoder writes messages one after the other. Lengths take five bytes, as Active
// Directory writes them, so that they can be filled in afterwards.
type encoder struct{ out []byte }

const (
	tagBoolean    = 0x01
	tagInteger    = 0x02
	tagOctets     = 0x04
	tagEnumerated = 0x0a
	tagSequence   = 0x30
	tagSet        = 0x31
	tagChoice     = 0x80 // primitive, of the context
	tagContext    = 0xa0 // constructed, of the context
)

// begin opens an element that holds others; end closes it.
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

// message opens a message and its operation; close ends both.
func (e *encoder) message(id int64, operation byte) (close func()) {
	message := e.begin(tagSequence)
	e.number(tagInteger, id)
	body := e.begin(operation)
	return func() {
		e.end(body)
		e.end(message)
	}
}

// result writes the answer that ends an operation. A paging control goes with it
// when paged is set.
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
		e.octets(0x80|10, oidStartTLS)
	}
	e.end(body)
	if paged {
		controls := e.begin(tagContext)
		control := e.begin(tagSequence)
		e.octets(tagOctets, controlPaging)
		value := e.begin(tagOctets)
		sequence := e.begin(tagSequence)
		e.number(tagInteger, 0) // the server makes no estimate
		e.octets(tagOctets, string(cookie))
		e.end(sequence)
		e.end(value)
		e.end(control)
		e.end(controls)
	}
	e.end(message)
}
