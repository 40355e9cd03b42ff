package directory

import "github.com/go-ldap/ldap/v3"

// InScope reports whether a search with this base and scope can find the entry with a DN. It
// compares DNs without regard to case, spaces around separators, and the form of escapes. ok is
// false if one of the DNs is invalid or empty.
func InScope(dn, base string, scope Scope) (in, ok bool) {
	entry, err := ldap.ParseDN(dn)
	if err != nil || len(entry.RDNs) == 0 {
		return false, false
	}
	top, err := ldap.ParseDN(base)
	if err != nil || len(top.RDNs) == 0 {
		return false, false
	}
	switch depth := len(entry.RDNs) - len(top.RDNs); {
	case depth == 0:
		return scope != OneLevel && top.EqualFold(entry), true
	case scope == Base || scope == OneLevel && depth != 1:
		return false, true
	}
	return top.AncestorOfFold(entry), true
}

// ParentDN returns the DN of the container of an entry, as it is written in the entry's DN; "" if
// there is none.
func ParentDN(dn string) string {
	for i := 0; i < len(dn); i++ {
		switch dn[i] {
		case '\\':
			i++ // the next character is escaped, or the first digit of a hexadecimal pair
		case ',', ';':
			return dn[i+1:]
		}
	}
	return ""
}
