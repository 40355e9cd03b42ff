package domaincontroller

import (
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// rdn is a relative distinguished name. Active Directory has no multivalued RDNs.
type rdn struct {
	attribute string // CN, OU, DC
	value     string // unescaped
}

// key returns a normalized form for comparisons.
func (r rdn) key() string { return strings.ToLower(r.attribute + "=" + r.value) }

// lineBreaks escapes line breaks as Active Directory does. RFC 4514 does not require it.
var lineBreaks = strings.NewReplacer("\n", `\0A`, "\r", `\0D`)

func (r rdn) append(dst []byte) []byte {
	dst = append(dst, r.attribute...)
	dst = append(dst, '=')
	return append(dst, lineBreaks.Replace(ldap.EscapeDN(r.value))...)
}

func newRDN(parsed *ldap.RelativeDN) rdn {
	first := parsed.Attributes[0]
	return rdn{strings.ToUpper(first.Type), first.Value}
}

// formatDN returns a DN with this server's escaping and upper-case attribute names.
func formatDN(rdns []*ldap.RelativeDN) string {
	var dn []byte
	for i, parsed := range rdns {
		if i > 0 {
			dn = append(dn, ',')
		}
		dn = newRDN(parsed).append(dn)
	}
	return string(dn)
}

// canonicalDN returns a DN in the form of formatDN. It reports false for an invalid DN.
func canonicalDN(text string) (string, bool) {
	dn, err := ldap.ParseDN(text)
	if err != nil || len(dn.RDNs) == 0 {
		return "", false
	}
	return formatDN(dn.RDNs), true
}

// locate returns the object with a DN and its nearest existing ancestor, which is the
// object itself if it exists. Both are nil for a DN outside of the domain.
func (d *Server) locate(dn *ldap.DN) (found, nearest *object) {
	depth := len(dn.RDNs) - len(d.suffix)
	if depth < 0 {
		return nil, nil
	}
	for i, want := range d.suffix {
		if newRDN(dn.RDNs[depth+i]).key() != want.key() {
			return nil, nil
		}
	}
	nearest = d.root
	for i := depth - 1; i >= 0; i-- {
		child := nearest.children[newRDN(dn.RDNs[i]).key()]
		if child == nil {
			return nil, nearest
		}
		nearest = child
	}
	return nearest, nearest
}

// lookup returns the object with a DN, or nil.
func (d *Server) lookup(text string) *object {
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return nil
	}
	found, _ := d.locate(dn)
	return found
}
