package directory

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// CheckFilter returns an error if a filter has invalid syntax (RFC 4515).
func CheckFilter(filter string) error {
	_, err := ldap.CompileFilter(filter)
	if syntax, ok := errors.AsType[*ldap.Error](err); ok {
		return errors.New(strings.TrimPrefix(syntax.Err.Error(), "ldap: ")) // without go-ldap's error name and number
	}
	return err
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
	return "(member:1.2.840.113556.1.4.1941:=" + ldap.EscapeFilter(dn) + ")"
}
