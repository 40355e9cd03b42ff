package directory

import (
	"context"

	"github.com/go-ldap/ldap/v3"
)

// Read reads some attributes of one object by its name, and gives their values by
// the names asked for; absent ones, and those that the account may not read, are
// left out. The empty name is rootDSE's. It is for single small objects: Search is
// for entries.
func (s *Session) Read(ctx context.Context, dn string, attributes ...string) (map[string][][]byte, error) {
	values := map[string][][]byte{}
	what := "read " + dn + " on " + s.Address
	if dn == "" {
		what = "read rootDSE of " + s.Address
	}
	err := s.call(ctx, "read", what, func() error {
		result, err := s.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
			"(objectClass=*)", attributes, nil))
		if err != nil || len(result.Entries) == 0 {
			return err
		}
		for _, name := range attributes {
			if found := result.Entries[0].GetEqualFoldRawAttributeValues(name); len(found) > 0 {
				values[name] = found
			}
		}
		return nil
	})
	return values, explainSearch(what, err)
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
