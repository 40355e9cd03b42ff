package domaincontroller

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// maxMessageSize is the maximum length of a request in bytes.
const maxMessageSize = 1 << 20

var errMalformed = errors.New("malformed LDAP message")

// element is a decoded BER element (X.690).
type element struct {
	tag      byte
	content  []byte
	children []element // of a constructed element
}

func newElement(p *ber.Packet) element {
	e := element{tag: byte(p.ClassType) | byte(p.TagType) | byte(p.Tag), content: p.Data.Bytes()}
	for _, child := range p.Children {
		e.children = append(e.children, newElement(child))
	}
	return e
}

// decode decodes the value of a control.
func decode(value []byte) (element, error) {
	packet, err := ber.DecodePacketErr(value)
	if err != nil {
		return element{}, err
	}
	return newElement(packet), nil
}

func (e element) text() string { return string(e.content) }

// number returns the value of an integer, or 0 for an integer of more than 64 bits.
func (e element) number() int64 {
	n, _ := ber.ParseInt64(e.content)
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
	controlPaging       = "1.2.840.113556.1.4.319"
	controlShowDeleted  = "1.2.840.113556.1.4.417"
	controlShowRecycled = "1.2.840.113556.1.4.2064" // without the Recycle Bin, the same as controlShowDeleted
	controlDomainScope  = "1.2.840.113556.1.4.1339"
	controlManageDSAIT  = "2.16.840.1.113730.3.4.2"
	controlExtendedDN   = "1.2.840.113556.1.4.529"
	controlSDFlags      = "1.2.840.113556.1.4.801"
)

func readRequest(from io.Reader) (request, error) {
	packet, err := ber.ReadPacket(io.LimitReader(from, maxMessageSize))
	if err != nil {
		return request{}, err
	}
	message := newElement(packet)
	if message.tag != tagSequence || len(message.children) < 2 || message.children[0].tag != tagInteger {
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
