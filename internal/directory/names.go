package directory

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/input"
)

// ErrNotDN is the fault of a search base without the form of a DN.
var ErrNotDN = errors.New("is not a DN")

// Probable mistakes in the names of the base and of the account.
var (
	DomainInComponent = input.NewMistake("has a DC component that is not a single label", "write each label as its own component, like DC=corp,DC=example,DC=com")
	CommaNotEscaped   = input.NewMistake("is not a valid DN", `write a comma in a name as \, and enter the DN as the directory shows it`)
	DoubleBackslash   = input.NewMistake("has two backslashes", `write DOMAIN\user with one backslash`)
	SlashForBackslash = input.NewMistake("has a slash where DOMAIN\\user has a backslash", `write DOMAIN\user`)
	NoAccountForm     = input.NewMistake("is neither a DN, nor user@domain, nor DOMAIN\\user", "enter one of these forms, unless the directory accepts this name")
)

var attributeType = regexp.MustCompile(`^(?i:oid\.)?([A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)*)$`)

// isDomainName reports whether a text has the form of a DNS domain of several labels.
func isDomainName(text string) bool {
	labels := strings.Split(text, ".")
	return len(labels) > 1 && !slices.ContainsFunc(labels, func(label string) bool { return !input.IsLabel(label) })
}

// CheckBase checks that a search base has the form of a DN, or of an identifier in angle
// brackets (MS-ADTS 3.1.1.3.1.2.4). The directory validates it. The error is an
// input.ValueError.
func CheckBase(base string) error {
	if !strings.ContainsFunc(base, unicode.IsControl) && strings.Contains(base, "=") {
		if strings.HasPrefix(base, "<") && strings.HasSuffix(base, ">") {
			return nil
		}
		if _, ok := parseDN(base); ok || strings.Contains(base, `="`) { // a quoted value (RFC 1779), which go-ldap does not parse
			return nil
		}
	}
	return &input.ValueError{Text: base, Err: ErrNotDN, Allowed: "a DN like " + baseOfDomain(base)}
}

// baseOfDomain returns the base of a DNS domain, and an example for any other text.
func baseOfDomain(text string) string {
	name := strings.TrimSuffix(strings.TrimSpace(text), ".")
	if !isDomainName(name) {
		name = "corp.example.com"
	}
	return "DC=" + strings.ReplaceAll(name, ".", ",DC=")
}

// parseDN parses a DN. ok is false if it is invalid.
func parseDN(text string) (dn *ldap.DN, ok bool) {
	dn, err := ldap.ParseDN(text)
	if err != nil || len(dn.RDNs) == 0 {
		return nil, false
	}
	for _, rdn := range dn.RDNs {
		for _, a := range rdn.Attributes {
			if !attributeType.MatchString(strings.TrimSpace(a.Type)) {
				return nil, false
			}
		}
	}
	return dn, true
}

// BaseMistakes returns the probable mistakes in a search base that CheckBase accepts.
func BaseMistakes(base string) []error {
	mistakes := input.Mistakes(base)
	if dn, ok := parseDN(base); ok && len(mistakes) == 0 && hasDomainInComponent(dn) {
		mistakes = append(mistakes, DomainInComponent)
	}
	return mistakes
}

// hasDomainInComponent reports whether a DC component is not a single label, as in
// DC=corp.example.com or DC=corp DC=example.
func hasDomainInComponent(dn *ldap.DN) bool {
	for _, rdn := range dn.RDNs {
		for _, a := range rdn.Attributes {
			if strings.EqualFold(a.Type, "DC") && !input.IsLabel(strings.TrimSpace(a.Value)) {
				return true
			}
		}
	}
	return false
}

// AccountMistakes returns the probable mistakes in the name of an account. Active Directory
// accepts a DN, a user principal name, DOMAIN\user, and other forms (MS-ADTS 5.1.1.1.1).
func AccountMistakes(name string) []error {
	mistakes := input.Mistakes(name)
	inner := strings.TrimSpace(name)
	switch {
	case inner == "" || len(mistakes) > 0:
		// the form is a consequence
	case strings.Contains(inner, "="):
		if dn, ok := parseDN(inner); !ok && !strings.HasPrefix(inner, "<") && !strings.Contains(inner, `="`) {
			mistakes = append(mistakes, CommaNotEscaped)
		} else if ok && hasDomainInComponent(dn) {
			mistakes = append(mistakes, DomainInComponent)
		}
	case strings.Contains(inner, `\\`):
		mistakes = append(mistakes, DoubleBackslash)
	case strings.ContainsAny(inner, `@\`):
	case strings.Contains(inner, "/"):
		mistakes = append(mistakes, SlashForBackslash)
	default:
		mistakes = append(mistakes, NoAccountForm)
	}
	return mistakes
}
