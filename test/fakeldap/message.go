package fakeldap

import (
	"strconv"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// Message encodes an LDAP message.
func Message(id int64, operation *ber.Packet, controls ...ldap.Control) []byte {
	m := ber.NewSequence("")
	m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	m.AppendChild(operation)
	if len(controls) > 0 {
		list := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		for _, c := range controls {
			list.AppendChild(c.Encode())
		}
		m.AppendChild(list)
	}
	return m.Bytes()
}

// Result encodes the result of an operation. The tag is that of the response.
func Result(id int64, tag ber.Tag, code int, matchedDN, text string, controls ...ldap.Control) []byte {
	r := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	r.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(code), ""))
	r.AppendChild(OctetString(matchedDN))
	r.AppendChild(OctetString(text))
	return Message(id, r, controls...)
}

// Done encodes the end of a search.
func Done(id int64, code int, controls ...ldap.Control) []byte {
	return Result(id, ldap.ApplicationSearchResultDone, code, "", "", controls...)
}

// Paging returns the control of a page's result. The cookie of the last page is empty.
func Paging(cookie string) ldap.Control {
	c := ldap.NewControlPaging(0)
	c.SetCookie([]byte(cookie))
	return c
}

// OctetString encodes a string.
func OctetString(value string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, value, "")
}

// RawEntry is an entry whose attributes are sent in this order. Each one is a name followed by
// its values.
type RawEntry struct {
	DN         string
	Attributes [][]string
}

// NewEntry returns an entry with these attributes, each one a name followed by its values.
func NewEntry(dn string, attributes ...[]string) RawEntry {
	return RawEntry{DN: dn, Attributes: attributes}
}

// Message encodes the entry as a response to the request with this message ID.
func (e RawEntry) Message(id int64) []byte {
	list := ber.NewSequence("")
	for _, a := range e.Attributes {
		attribute := ber.NewSequence("")
		attribute.AppendChild(OctetString(a[0]))
		set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range a[1:] {
			set.AppendChild(OctetString(v))
		}
		attribute.AppendChild(set)
		list.AppendChild(attribute)
	}
	operation := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	operation.AppendChild(OctetString(e.DN))
	operation.AppendChild(list)
	return Message(id, operation)
}

// RootDSE encodes the rootDSE of a domain controller.
func RootDSE(id int64) []byte { return DC1.EncodeRootDSE(id) }

// EncodeRootDSE encodes the rootDSE.
func (c Controller) EncodeRootDSE(id int64) []byte {
	return NewEntry("", append([][]string{
		{"dnsHostName", c.DNSHostName},
		{"HIGHESTCOMMITTEDUSN", "4711"},
		{"defaultNamingContext", "DC=corp,DC=example,DC=com"},
		{"dsServiceName", c.ServiceName},
	}, c.RootDSE...)...).Message(id)
}

// settings encodes the object with the invocation ID, or nothing.
func (c Controller) settings(id int64) []byte {
	if c.InvocationID == "" {
		return nil
	}
	return NewEntry(c.ServiceName, []string{"invocationId", c.InvocationID}).Message(id)
}

// Pages returns a search handler that returns these pages, regardless of the requested page
// size. Its cookies contain a zero byte.
func Pages(pages ...[]RawEntry) func(p *Peer, r Request) bool {
	return func(p *Peer, r Request) bool {
		n := 0
		if len(r.Cookie) > 0 {
			var err error
			if n, err = strconv.Atoi(strings.TrimPrefix(string(r.Cookie), "page\x00")); err != nil || n >= len(pages) {
				return p.Send(Done(r.ID, ldap.LDAPResultUnwillingToPerform))
			}
		}
		cookie := ""
		if n+1 < len(pages) {
			cookie = "page\x00" + strconv.Itoa(n+1)
		}
		for _, e := range pages[n] {
			if !p.Send(e.Message(r.ID)) {
				return false
			}
		}
		return p.Send(Done(r.ID, 0, ldap.NewControlString("1.2.3", false, ""), Paging(cookie)))
	}
}
