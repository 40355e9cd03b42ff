package directory

import (
	"context"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// Location is where an object is, and those of the requested attributes that the account can
// read.
type Location struct {
	DN         string
	Attributes Attributes
}

// BaseOfGUID returns a search base that names an object by its GUID (MS-ADTS 3.1.1.3.1.2.4).
func BaseOfGUID(guid ad.GUID) string { return "<GUID=" + guid.String() + ">" }

// BaseOfSID returns a search base that names an object by its SID (MS-ADTS 3.1.1.3.1.2.4).
func BaseOfSID(sid ad.SID) string { return "<SID=" + sid.String() + ">" }

// Locate finds one object by a base search. Unlike any other search, it also finds an object
// whose attributes the account cannot read: in a filter, such an attribute does not exist. It
// does not find an object that the account cannot list. If the server refuses to show an object
// that it has found, the location is empty. An object of another domain, to which the server refers,
// is not found. base is a DN, or names the object by an identifier.
func (s *Session) Locate(ctx context.Context, base string, attributes ...string) (l Location, found bool, err error) {
	operation := s.operation("read", base)
	request := ldap.NewSearchRequest(base, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, anyObject, attributes, s.controls(Search{}))
	err = s.call(ctx, "read", operation, func() error {
		result, err := s.conn.Search(request)
		if isAny(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultReferral) {
			return nil
		}
		if isAny(err, ldap.LDAPResultInsufficientAccessRights) {
			found = true
			return nil
		}
		if err != nil || len(result.Entries) == 0 {
			return err
		}
		found = true
		l = Location{DN: result.Entries[0].DN, Attributes: attributesOf(result.Entries[0], attributes)}
		return nil
	})
	return l, found, searchError(operation, err)
}
