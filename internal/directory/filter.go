package directory

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// CheckFilter tells what is wrong with a filter (RFC 4515).
func CheckFilter(filter string) error {
	_, err := ldap.CompileFilter(filter)
	if wrong, ok := errors.AsType[*ldap.Error](err); ok {
		return errors.New(strings.TrimPrefix(wrong.Err.Error(), "ldap: ")) // less the name and the number that go-ldap gives it
	}
	return err
}

// FilterByGUID matches the objects with these GUIDs.
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

// FilterByValue matches the objects that have exactly this value in an attribute.
func FilterByValue(attribute, value string) string {
	return "(" + attribute + "=" + ldap.EscapeFilter(value) + ")"
}

// FilterByMember matches the groups that an object is in, directly or by way of
// other groups (LDAP_MATCHING_RULE_TRANSITIVE_EVAL, MS-ADTS 3.1.1.3.4.4.3).
func FilterByMember(dn string) string {
	return "(member:1.2.840.113556.1.4.1941:=" + ldap.EscapeFilter(dn) + ")"
}
