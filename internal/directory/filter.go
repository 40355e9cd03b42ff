package directory

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/input"
)

// CheckFilter returns an error if a filter has invalid syntax (RFC 4515).
func CheckFilter(filter string) error {
	_, err := ldap.CompileFilter(filter)
	if syntax, ok := errors.AsType[*ldap.Error](err); ok {
		return errors.New(strings.TrimPrefix(syntax.Err.Error(), "ldap: ")) // without go-ldap's error name and number
	}
	return err
}

// The probable mistakes in a filter with invalid syntax. A DN in a filter needs the escapes of filters.
var (
	FilterBackslash   = input.NewMistake("has a backslash without two hexadecimal digits", `write a backslash as \5c, for example CN=Smith\5c, Bob for the DN CN=Smith\, Bob`)
	FilterParenthesis = input.NewMistake("has a parenthesis in a value", `write parentheses in a value as \28 and \29`)
)

var (
	hexEscape        = regexp.MustCompile(`\\[0-9A-Fa-f]{2}`)
	innerParenthesis = regexp.MustCompile(`[^\s()&|!]\s*\(`)
)

// FilterMistake returns the probable mistake in a filter with invalid syntax; nil without one.
func FilterMistake(filter string) *input.Mistake {
	switch {
	case strings.Contains(hexEscape.ReplaceAllString(filter, ""), `\`):
		return FilterBackslash
	case innerParenthesis.MatchString(filter):
		return FilterParenthesis
	}
	return nil
}

// Assertion is an attribute that a filter compares.
type Assertion struct {
	Attribute string // without options
	Rule      string // OID of the matching rule; "": the attribute's own
}

// FilterAssertions returns the attributes that a filter compares, in the order of the filter. It
// returns an error if the filter has invalid syntax.
func FilterAssertions(filter string) ([]Assertion, error) {
	if err := CheckFilter(filter); err != nil {
		return nil, err
	}
	compiled, err := ldap.CompileFilter(filter)
	if err != nil {
		return nil, err
	}
	return appendAssertions(nil, compiled), nil
}

// appendAssertions appends the assertions of a filter that go-ldap has compiled (RFC 4511
// 4.5.1.7).
func appendAssertions(list []Assertion, filter *ber.Packet) []Assertion {
	var a Assertion
	switch filter.Tag {
	case ldap.FilterAnd, ldap.FilterOr, ldap.FilterNot:
		for _, child := range filter.Children {
			list = appendAssertions(list, child)
		}
		return list
	case ldap.FilterPresent:
		a.Attribute = filter.Data.String()
	case ldap.FilterExtensibleMatch:
		for _, child := range filter.Children {
			switch child.Tag {
			case ldap.MatchingRuleAssertionMatchingRule:
				a.Rule = child.Data.String()
			case ldap.MatchingRuleAssertionType:
				a.Attribute = child.Data.String()
			}
		}
	default: // a comparison, which begins with the attribute
		a.Attribute = filter.Children[0].Data.String()
	}
	a.Attribute, _, _ = strings.Cut(a.Attribute, ";")
	a.Attribute = strings.TrimSpace(a.Attribute)
	return append(list, a)
}

// FilterByGUID returns a filter for the objects with these GUIDs.
func FilterByGUID(guids []ad.GUID) string {
	filter := []byte("(|")
	for _, guid := range guids {
		filter = append(filter, "(objectGUID="...)
		for _, b := range guid {
			filter = fmt.Appendf(filter, `\%02x`, b)
		}
		filter = append(filter, ')')
	}
	return string(append(filter, ')'))
}

// FilterByValue returns a filter for the objects whose attribute equals the value.
func FilterByValue(attribute, value string) string {
	return "(" + attribute + "=" + ldap.EscapeFilter(value) + ")"
}

// FilterByMember returns a filter for the groups of an object, direct and nested
// (LDAP_MATCHING_RULE_TRANSITIVE_EVAL, MS-ADTS 3.1.1.3.4.4.3).
func FilterByMember(dn string) string {
	return "(member:" + ad.MatchingRuleInChain + ":=" + ldap.EscapeFilter(dn) + ")"
}
