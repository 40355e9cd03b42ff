package directory

import (
	"context"
	"fmt"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// InvocationID reads which life of the domain controller's database this is: its
// update sequence numbers mean something only together with it.
func (s *Session) InvocationID(ctx context.Context) (ad.InvocationID, error) {
	what := "read the invocation ID of " + s.Address
	var raw []byte
	err := s.call(ctx, "read", what, func() error {
		result, err := s.conn.Search(ldap.NewSearchRequest(s.RootDSE.DSServiceName, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
			"(objectClass=*)", []string{"invocationId"}, nil))
		if err == nil && len(result.Entries) == 1 {
			raw = result.Entries[0].GetEqualFoldRawAttributeValue("invocationId")
		}
		return err
	})
	if err != nil {
		return ad.InvocationID{}, explainSearch(what, err)
	}
	guid, ok := ad.ParseGUID(raw)
	if !ok {
		return ad.InvocationID{}, fault.Errorf(fault.Refused, "%s: the account may not read it: grant it Read Property on %s", what, s.RootDSE.DSServiceName)
	}
	return ad.InvocationID(guid), nil
}

// DeletedObjects is the container of the naming context's tombstones.
func (r RootDSE) DeletedObjects() string { return "CN=Deleted Objects," + r.DefaultNamingContext }

// SeesDeleted reports whether the account may see tombstones. Without the right,
// the container shows itself but none of its attributes, and a search below it
// succeeds and finds nothing.
func (s *Session) SeesDeleted(ctx context.Context) (bool, error) {
	sees := false
	what := "look at " + s.RootDSE.DeletedObjects()
	err := s.call(ctx, "read", what, func() error {
		result, err := s.conn.Search(ldap.NewSearchRequest(s.RootDSE.DeletedObjects(), ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
			"(objectClass=*)", []string{"isDeleted"}, []ldap.Control{ldap.NewControlString(controlShowDeleted, true, "")}))
		if err == nil {
			sees = len(result.Entries) == 1 && result.Entries[0].GetEqualFoldAttributeValue("isDeleted") != ""
		}
		return err
	})
	if isAnswer(err) {
		return false, nil // it may not even see the container
	}
	return sees, err
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
