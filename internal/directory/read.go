package directory

import (
	"context"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
)

// Attributes maps requested attribute names to the values of one object.
type Attributes map[string][][]byte

// First returns the first value of an attribute, or nil.
func (a Attributes) First(attribute string) []byte {
	if len(a[attribute]) == 0 {
		return nil
	}
	return a[attribute][0]
}

// Read reads attributes of one object; dn "" is the rootDSE. Attributes that are absent or
// not readable by the account are missing in the result. Read holds the whole object in
// memory; use Search for large objects.
func (s *Session) Read(ctx context.Context, dn string, attributes ...string) (Attributes, error) {
	operation := s.operation("read", dn)
	if dn == "" {
		operation = s.operation("read", "rootDSE")
	}
	values, err := s.read(ctx, operation, dn, attributes)
	return values, searchError(operation, err)
}

// read is Read, but returns an unsuccessful result as *ldap.Error.
func (s *Session) read(ctx context.Context, o fault.Operation, dn string, attributes []string, controls ...ldap.Control) (Attributes, error) {
	values := Attributes{}
	err := s.call(ctx, "read", o, func() error {
		result, err := s.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
			anyObject, attributes, controls))
		if err != nil || len(result.Entries) == 0 {
			return err
		}
		values = attributesOf(result.Entries[0], attributes)
		return nil
	})
	return values, err
}

// anyObject is a filter that every object matches, also one whose objectClass is unreadable.
const anyObject = "(objectClass=*)"

// attributesOf returns those of the requested attributes that an entry has.
func attributesOf(entry *ldap.Entry, requested []string) Attributes {
	values := Attributes{}
	for _, name := range requested {
		if found := entry.GetEqualFoldRawAttributeValues(name); len(found) > 0 {
			values[name] = found
		}
	}
	return values
}

// CanReadDeleted reports whether the account may read tombstones. Without the right, the
// container is visible without attributes, or not at all, and a search below it succeeds but
// finds nothing. Only a refusal by the server means false. Other results, such as busy, are
// errors: they say nothing about rights.
func (s *Session) CanReadDeleted(ctx context.Context) (bool, error) {
	container := s.RootDSE.DeletedObjects()
	operation := s.operation("read", container)
	values, err := s.read(ctx, operation, container, []string{"isDeleted"}, ldap.NewControlString(controlShowDeleted, true, ""))
	if isAny(err, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultUnavailableCriticalExtension) {
		return false, nil
	}
	return len(values) > 0, searchError(operation, err)
}
