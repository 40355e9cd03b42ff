package directory

import (
	"context"
	"errors"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
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
			"(objectClass=*)", attributes, controls))
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
	return values, err
}

// RootDSE has attributes of a server's rootDSE (MS-ADTS 3.1.1.3.2). Servers that are no
// domain controllers lack most of them.
type RootDSE struct {
	DefaultNamingContext string
	DNSHostName          string
	DSServiceName        string
	HighestCommittedUSN  ad.USN
	ConfigurationContext string // configurationNamingContext
	ForestLevel          string // forestFunctionality, a decimal number
}

// IsDomainController reports whether the server is an Active Directory domain controller,
// which supports delta syncs by update sequence number.
func (r RootDSE) IsDomainController() bool {
	return r.DSServiceName != "" && r.HighestCommittedUSN > 0
}

// DeletedObjects returns the DN of the container of the naming context's tombstones.
func (r RootDSE) DeletedObjects() string { return "CN=Deleted Objects," + r.DefaultNamingContext }

func (s *Session) readRootDSE(ctx context.Context) (RootDSE, error) {
	values, err := s.Read(ctx, "", "defaultNamingContext", "configurationNamingContext", "forestFunctionality", "dnsHostName", "dsServiceName", "highestCommittedUSN")
	usn, _ := ad.ParseUSN(values.First("highestCommittedUSN"))
	return RootDSE{
		DefaultNamingContext: string(values.First("defaultNamingContext")),
		ConfigurationContext: string(values.First("configurationNamingContext")),
		ForestLevel:          string(values.First("forestFunctionality")),
		DNSHostName:          string(values.First("dnsHostName")),
		DSServiceName:        string(values.First("dsServiceName")),
		HighestCommittedUSN:  usn,
	}, err
}

// InvocationID reads the invocation ID of the domain controller's database. Update
// sequence numbers are valid only together with it (MS-ADTS 3.1.1.1.9).
func (s *Session) InvocationID(ctx context.Context) (ad.InvocationID, error) {
	remedy := "grant the account Read Property on " + printable(s.RootDSE.DSServiceName)
	operation := s.operation("read", "invocation ID")
	values, err := s.read(ctx, operation, s.RootDSE.DSServiceName, []string{"invocationId"})
	if err != nil {
		err = searchError(operation, err)
		var failed *fault.Error
		if errors.As(err, &failed) && errors.Is(err, ErrNoSuchObject) {
			return ad.InvocationID{}, operation.Failed(failed.Class, failed.Err, remedy)
		}
		return ad.InvocationID{}, err
	}
	guid, ok := ad.ParseGUID(values.First("invocationId"))
	if !ok {
		return ad.InvocationID{}, operation.Failed(fault.Refused, errNoReadAccess, remedy)
	}
	return ad.InvocationID(guid), nil
}

// CanReadDeleted reports whether the account may read tombstones. Without the right, the
// container is visible without attributes, and a search below it succeeds but finds nothing.
func (s *Session) CanReadDeleted(ctx context.Context) (bool, error) {
	container := s.RootDSE.DeletedObjects()
	values, err := s.read(ctx, s.operation("read", container), container, []string{"isDeleted"}, ldap.NewControlString(controlShowDeleted, true, ""))
	if isResult(err) {
		return false, nil // not even the container is visible
	}
	return len(values) > 0, err
}
