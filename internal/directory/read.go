package directory

import (
	"context"
	"errors"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// Attributes are the values of one object, by the names asked for.
type Attributes map[string][][]byte

// First is the first value of an attribute; nil: it has none.
func (a Attributes) First(attribute string) []byte {
	if len(a[attribute]) == 0 {
		return nil
	}
	return a[attribute][0]
}

// Read reads some attributes of one object by its name, and gives their values by
// the names asked for; absent ones, and those that the account may not read, are
// left out. The empty name is rootDSE's. It is for single small objects: Search is
// for entries.
func (s *Session) Read(ctx context.Context, dn string, attributes ...string) (Attributes, error) {
	operation := s.operation("read", dn)
	if dn == "" {
		operation = s.operation("read", "rootDSE")
	}
	values, err := s.read(ctx, operation, dn, attributes)
	return values, explainSearch(operation, err)
}

// read is Read with a server's refusal as it is.
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

// RootDSE is what a server says of itself (MS-ADTS 3.1.1.3.2). Servers that are
// no domain controllers leave most of it out.
type RootDSE struct {
	DefaultNamingContext string
	DNSHostName          string
	DSServiceName        string
	HighestCommittedUSN  ad.USN
	ConfigurationContext string // naming context of the forest's configuration
	ForestLevel          string // functional level of the forest, a number
}

// IsDomainController reports whether the server is an Active Directory domain
// controller, whose update sequence numbers can be followed.
func (r RootDSE) IsDomainController() bool {
	return r.DSServiceName != "" && r.HighestCommittedUSN > 0
}

// DeletedObjects is the container of the naming context's tombstones.
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

// InvocationID reads which life of the domain controller's database this is: its
// update sequence numbers mean something only together with it.
func (s *Session) InvocationID(ctx context.Context) (ad.InvocationID, error) {
	grant := "grant the account Read Property on " + s.RootDSE.DSServiceName
	operation := s.operation("read", "the invocation ID")
	values, err := s.read(ctx, operation, s.RootDSE.DSServiceName, []string{"invocationId"})
	if err != nil {
		err = explainSearch(operation, err)
		var failed *fault.Error
		if errors.As(err, &failed) && errors.Is(err, ErrNoObject) {
			return ad.InvocationID{}, operation.Failed(failed.Class, failed.Err, grant)
		}
		return ad.InvocationID{}, err
	}
	guid, ok := ad.ParseGUID(values.First("invocationId"))
	if !ok {
		return ad.InvocationID{}, operation.Failed(fault.Refused, errUnreadable, grant)
	}
	return ad.InvocationID(guid), nil
}

// SeesDeleted reports whether the account may see tombstones. Without the right,
// the container shows itself but none of its attributes, and a search below it
// succeeds and finds nothing.
func (s *Session) SeesDeleted(ctx context.Context) (bool, error) {
	container := s.RootDSE.DeletedObjects()
	values, err := s.read(ctx, s.operation("read", container), container, []string{"isDeleted"}, ldap.NewControlString(controlShowDeleted, true, ""))
	if isAnswer(err) {
		return false, nil // it may not even see the container
	}
	return len(values) > 0, err
}
