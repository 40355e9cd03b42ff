package domaincontroller

import (
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// rdn is a relative distinguished name. Only one attribute is ever in it: Active
// Directory has no others.
type rdn struct {
	attribute string // CN, OU, DC
	value     string // not escaped
}

// key is the form in which two spellings of one name are equal.
func (r rdn) key() string { return strings.ToLower(r.attribute + "=" + r.value) }

func (r rdn) append(dst []byte) []byte {
	dst = append(dst, r.attribute...)
	dst = append(dst, '=')
	for i := range len(r.value) {
		switch c := r.value[i]; c {
		case ',', '+', '"', '\\', '<', '>', ';':
			dst = append(dst, '\\', c)
		case '#':
			if i == 0 {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
		case ' ':
			if i == 0 || i == len(r.value)-1 {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
		case '\n':
			dst = append(dst, `\0A`...)
		case '\r':
			dst = append(dst, `\0D`...)
		case 0:
			dst = append(dst, `\00`...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func rdnOf(parsed *ldap.RelativeDN) rdn {
	first := parsed.Attributes[0]
	return rdn{strings.ToUpper(first.Type), first.Value}
}

// joinRDNs writes a name as this directory writes all of them.
func joinRDNs(rdns []*ldap.RelativeDN) string {
	var dn []byte
	for i, parsed := range rdns {
		if i > 0 {
			dn = append(dn, ',')
		}
		dn = rdnOf(parsed).append(dn)
	}
	return string(dn)
}

// canonicalDN writes a name as this directory writes all of them.
func canonicalDN(text string) (string, bool) {
	dn, err := ldap.ParseDN(text)
	if err != nil || len(dn.RDNs) == 0 {
		return "", false
	}
	return joinRDNs(dn.RDNs), true
}

// locate walks from the domain down to the object with this name. Where there is
// none it returns the lowest of those above it, or nil when the name belongs to
// another domain.
func (d *Server) locate(dn *ldap.DN) (found, above *object) {
	suffix := d.root.suffix
	rest := len(dn.RDNs) - len(suffix)
	if rest < 0 {
		return nil, nil
	}
	for i, want := range suffix {
		if rdnOf(dn.RDNs[rest+i]).key() != want.key() {
			return nil, nil
		}
	}
	at := d.root
	for i := rest - 1; i >= 0; i-- {
		child := at.children[rdnOf(dn.RDNs[i]).key()]
		if child == nil {
			return nil, at
		}
		at = child
	}
	return at, at
}

// lookup returns the object with this name, or nil.
func (d *Server) lookup(text string) *object {
	dn, err := ldap.ParseDN(text)
	if err != nil {
		return nil
	}
	found, _ := d.locate(dn)
	return found
}
