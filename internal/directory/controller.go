package directory

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/input"
)

// Controller identifies a directory server. Servers that are no domain controllers have no
// ServiceName and no InvocationID.
type Controller struct {
	Host         string          `json:"host"`          // name or address that was dialed
	Address      string          `json:"address"`       // IP:port of the connection
	DNSHostName  string          `json:"dns_host_name"` // rootDSE attribute
	ServiceName  string          `json:"service_name"`  // rootDSE attribute dsServiceName
	InvocationID ad.InvocationID `json:"invocation_id"` // zero: unknown, or not a domain controller
}

// same reports whether two controllers are the same version of the same database. An unknown
// invocation ID is not compared. Servers that are no domain controllers have only an address.
func (c Controller) same(other Controller) bool {
	zero := ad.InvocationID{}
	switch {
	case c.InvocationID != zero && other.InvocationID != zero:
		return c.InvocationID == other.InvocationID
	case c.ServiceName != "" || other.ServiceName != "":
		return strings.EqualFold(c.ServiceName, other.ServiceName)
	default:
		return c.Address == other.Address
	}
}

// RootDSE has attributes of a server's rootDSE (MS-ADTS 3.1.1.3.2). Servers that are no
// domain controllers lack most of them.
type RootDSE struct {
	DefaultNamingContext string
	DNSHostName          string
	DSServiceName        string
	HighestCommittedUSN  ad.USN
	ConfigurationContext string // configurationNamingContext
	ForestRoot           string // rootDomainNamingContext
	ForestLevel          string // forestFunctionality, a decimal number
	// CurrentTime is the server's clock when it answered, in whole seconds. Zero: unknown.
	CurrentTime time.Time

	ReadOnly       bool // a read-only domain controller, which lacks some attributes
	LDS            bool // Active Directory Lightweight Directory Services, which has no domain
	ShowRecycled   bool // the server offers the show-recycled control
	ExtendedDN     bool // the server offers extended DNs
	Descriptors    bool // the server offers the security descriptors of objects by their parts
	Unsynchronized bool // isSynchronized is FALSE: the initial replication is not complete
}

// Capabilities in the rootDSE (MS-ADTS 3.1.1.3.4.3).
const (
	capabilityLDS      = "1.2.840.113556.1.4.1851"
	capabilityReadOnly = "1.2.840.113556.1.4.1920"
)

// IsDomainController reports whether the server is an Active Directory domain controller,
// which supports delta syncs by update sequence number. AD LDS has USNs too, but no domain: its
// objects lack the attributes that every object of a domain has.
func (r RootDSE) IsDomainController() bool {
	return r.DSServiceName != "" && r.HighestCommittedUSN > 0 && !r.LDS
}

// DeletedObjects returns the DN of the container of the naming context's tombstones.
func (r RootDSE) DeletedObjects() string { return "CN=Deleted Objects," + r.DefaultNamingContext }

func (s *Session) readRootDSE(ctx context.Context) (RootDSE, error) {
	values, err := s.Read(ctx, "", "defaultNamingContext", "configurationNamingContext", "rootDomainNamingContext", "forestFunctionality", "dnsHostName", "dsServiceName",
		"highestCommittedUSN", "currentTime", "isSynchronized", "supportedCapabilities", "supportedControl")
	usn, _ := ad.ParseUSN(values.First("highestCommittedUSN"))
	return RootDSE{
		DefaultNamingContext: values.name("defaultNamingContext"),
		ConfigurationContext: values.name("configurationNamingContext"),
		ForestRoot:           values.name("rootDomainNamingContext"),
		ForestLevel:          values.name("forestFunctionality"),
		DNSHostName:          values.name("dnsHostName"),
		DSServiceName:        values.name("dsServiceName"),
		HighestCommittedUSN:  usn,
		CurrentTime:          parseClock(values.First("currentTime")),
		ReadOnly:             values.contains("supportedCapabilities", capabilityReadOnly),
		LDS:                  values.contains("supportedCapabilities", capabilityLDS),
		ShowRecycled:         values.contains("supportedControl", controlShowRecycled),
		ExtendedDN:           values.contains("supportedControl", controlExtendedDN),
		Descriptors:          values.contains("supportedControl", controlSDFlags),
		Unsynchronized:       strings.EqualFold(string(values.First("isSynchronized")), "FALSE"),
	}, err
}

// name returns the first value of an attribute that contains a name. It returns "" for a value larger
// than maxName, because names are in the log and in the record of each run.
func (a Attributes) name(attribute string) string {
	if value := a.First(attribute); len(value) <= maxName {
		return string(value)
	}
	return ""
}

// maxName limits the names in the rootDSE, in bytes.
const maxName = 2 << 10

// parseClock parses a server's clock. It returns the zero time for a malformed value, and for
// one before 1970, which no server that is in use can have.
func parseClock(value []byte) time.Time {
	clock, ok := ad.ParseGeneralizedTime(value)
	if !ok || clock.Unix() <= 0 {
		return time.Time{}
	}
	return clock
}

// contains reports whether an attribute has a value.
func (a Attributes) contains(attribute, value string) bool {
	return slices.ContainsFunc(a[attribute], func(v []byte) bool { return string(v) == value })
}

// identify reads the rootDSE and the invocation ID. Only a refusal to read the invocation ID
// is InvocationErr. Any other failure ends the connect: it would make the controller look like
// another one.
func (s *Session) identify(ctx context.Context) (err error) {
	if s.RootDSE, err = s.readRootDSE(ctx); err != nil {
		return err
	}
	if err := s.checkSynchronized(); err != nil {
		return err
	}
	s.setController()
	if !s.RootDSE.IsDomainController() {
		return nil
	}
	s.Controller.InvocationID, err = s.readInvocationID(ctx)
	if err != nil && fault.ClassOf(err) == fault.Refused {
		s.InvocationErr = err
		return nil
	}
	return err
}

// checkSynchronized returns an error if the controller's initial replication is not complete.
func (s *Session) checkSynchronized() error {
	if !s.RootDSE.Unsynchronized {
		return nil
	}
	return s.options.connectOperation(s.server).Failed(fault.Transient, errUnsynchronized,
		"wait until its initial replication is complete, or connect to another domain controller")
}

// setController sets the controller as far as the rootDSE identifies it.
func (s *Session) setController() {
	s.Controller = Controller{
		Host: s.server.host, Address: s.transport.RemoteAddr().String(), DNSHostName: s.RootDSE.DNSHostName, ServiceName: s.RootDSE.DSServiceName,
	}
}

// readInvocationID reads the invocation ID of the domain controller's database. Update
// sequence numbers are valid only together with it (MS-ADTS 3.1.1.1.9).
func (s *Session) readInvocationID(ctx context.Context) (ad.InvocationID, error) {
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
	if !ok || guid == (ad.GUID{}) {
		return ad.InvocationID{}, operation.Failed(fault.Refused, errNoReadAccess, remedy)
	}
	return ad.InvocationID(guid), nil
}

const (
	// maxControllers limits the controllers of a domain. The largest documented domains have
	// about 1200.
	maxControllers = 10_000

	classReadOnly = "nTDSDSARO"
)

// DomainController is a domain controller as the configuration partition describes it.
type DomainController struct {
	Host         string          // DNS name; "": not readable
	ServiceName  string          // DN of its NTDS Settings
	InvocationID ad.InvocationID // zero: not readable
	ReadOnly     bool
	PDCEmulator  bool // set by FindPDCEmulator
}

// Name returns the DNS name, or else the DN.
func (c DomainController) Name() string { return cmp.Or(c.Host, printable(c.ServiceName)) }

// DomainControllers returns the controllers of the session's domain, from the configuration
// partition. It fails if the session's own controller is not among them: then the account
// cannot read the others either, and their absence means nothing.
func (s *Session) DomainControllers(ctx context.Context) ([]DomainController, error) {
	sites := "CN=Sites," + s.RootDSE.ConfigurationContext
	operation := s.operation("read", "domain controllers below "+sites)
	if !s.RootDSE.IsDomainController() || s.RootDSE.ConfigurationContext == "" {
		return nil, operation.Failed(fault.Refused, errNoDomainController, "connect to a domain controller")
	}
	hosts, servers := map[string]string{}, 0
	collectHosts := func(entry *ad.Entry) error {
		if host, err := input.ParseHost(string(entry.First(0))); err == nil {
			hosts[strings.ToLower(string(entry.DN))] = host
		}
		servers++
		return boundControllers(operation, servers)
	}
	if _, err := s.Search(ctx, Search{Base: sites, Scope: Subtree, Filter: "(objectClass=server)", Attributes: []string{"dNSHostName"}}, collectHosts); err != nil {
		return nil, err
	}
	var list []DomainController
	settings, own := 0, false
	search := Search{
		Base: sites, Scope: Subtree, Filter: "(|(objectClass=nTDSDSA)(objectClass=" + classReadOnly + "))",
		Attributes: []string{"objectClass", "invocationId", "msDS-HasMasterNCs", "hasMasterNCs", "msDS-hasFullReplicaNCs"},
	}
	_, err := s.Search(ctx, search, func(entry *ad.Entry) error {
		settings++
		// Without a readable naming context, it may be a controller of the domain. It counts as one
		// with an unknown invocation ID.
		unknown := !slices.ContainsFunc(entry.Values[2:], func(values [][]byte) bool { return len(values) > 0 })
		if unknown || hasNamingContext(entry.Values[2:], s.RootDSE.DefaultNamingContext) {
			_, parent, _ := strings.Cut(strings.ToLower(string(entry.DN)), ",")
			id, _ := ad.ParseGUID(entry.First(1))
			if unknown {
				id = ad.GUID{}
			}
			readOnly := slices.ContainsFunc(entry.Values[0], func(class []byte) bool { return strings.EqualFold(string(class), classReadOnly) })
			list = append(list, DomainController{Host: hosts[parent], ServiceName: string(entry.DN), InvocationID: ad.InvocationID(id), ReadOnly: readOnly})
			own = own || strings.EqualFold(string(entry.DN), s.RootDSE.DSServiceName)
		}
		return boundControllers(operation, settings)
	})
	if err == nil && !own {
		err = operation.Failed(fault.Refused, errNoReadAccess, "grant the account read access to "+printable(sites))
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// FilteredAttributes returns the attributes that are not replicated to read-only domain
// controllers, as the schema defines them: those with the flag fRODCFilteredAttribute in their
// searchFlags (MS-ADTS 2.2.9). On such a controller they are missing, not empty. Without access to
// the schema, which every account has by default, it returns none.
func (s *Session) FilteredAttributes(ctx context.Context) (names []string, err error) {
	if s.RootDSE.ConfigurationContext == "" {
		return nil, nil
	}
	schema := "CN=Schema," + s.RootDSE.ConfigurationContext
	operation := s.operation("read", "attributes in "+schema)
	search := Search{
		Base: schema, Scope: OneLevel, Filter: "(&(objectClass=attributeSchema)(searchFlags:1.2.840.113556.1.4.803:=512))",
		Attributes: []string{"lDAPDisplayName"},
	}
	_, err = s.Search(ctx, search, func(entry *ad.Entry) error {
		if name := entry.First(0); len(name) > 0 && len(name) <= maxAttributeName {
			names = append(names, string(name))
		}
		if len(names) > maxFilteredAttributes {
			return operation.Failed(fault.Incomplete, errTooManyEntries, serverRemedy)
		}
		return nil
	})
	if fault.ClassOf(err) == fault.Refused {
		return nil, nil
	}
	return names, err
}

// maxFilteredAttributes limits the attributes that are not replicated to read-only domain
// controllers. The schema of Windows Server 2016 has 18.
const maxFilteredAttributes = 10_000

// maxAttributeName limits the name of an attribute (MS-ADA2, rangeUpper of lDAPDisplayName).
const maxAttributeName = 256

// UnknownAttributes returns the names that are not attributes of the schema, in their order. Such a
// name in a filter is no error: no object matches it (MS-ADTS 3.1.1.3.1.3.1). It does not examine
// OIDs. Without access to the schema, it returns none.
func (s *Session) UnknownAttributes(ctx context.Context, names []string) (unknown []string, err error) {
	known, readable, err := s.SchemaAttributes(ctx, names)
	if err != nil || !readable {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return known[strings.ToLower(name)] || isOID(name) }), nil
}

// SchemaAttributes returns which of the names, in lower case, are attributes of the schema, and whether
// the account can read the schema.
func (s *Session) SchemaAttributes(ctx context.Context, names []string) (known map[string]bool, readable bool, err error) {
	if s.RootDSE.ConfigurationContext == "" || len(names) == 0 {
		return nil, false, nil
	}
	const present = "cn" // each schema has it: without it, the account cannot read the schema
	filter, known, requested := "(|(lDAPDisplayName="+present+")", map[string]bool{}, map[string]bool{present: true}
	for _, name := range names {
		requested[strings.ToLower(name)] = true
		filter += "(lDAPDisplayName=" + ldap.EscapeFilter(name) + ")"
	}
	search := Search{
		Base: "CN=Schema," + s.RootDSE.ConfigurationContext, Scope: OneLevel, Filter: "(&(objectClass=attributeSchema)" + filter + "))",
		Attributes: []string{"lDAPDisplayName"},
	}
	_, err = s.Search(ctx, search, func(entry *ad.Entry) error {
		if name := strings.ToLower(string(entry.First(0))); requested[name] { // a server can return others without end
			known[name] = true
		}
		return nil
	})
	if fault.ClassOf(err) == fault.Refused {
		return nil, false, nil
	}
	return known, known[present], err
}

// isOID reports whether an attribute in a filter is an OID instead of a name.
func isOID(attribute string) bool {
	number := strings.TrimPrefix(strings.ToLower(attribute), "oid.")
	return number != "" && '0' <= number[0] && number[0] <= '9'
}

// hasNamingContext reports whether one of the attributes names the naming context. Full
// replicas are those of read-only controllers. hasPartialReplicaNCs is not among them: a
// global catalog has such replicas of other domains.
func hasNamingContext(attributes [][][]byte, context string) bool {
	for _, values := range attributes {
		if slices.ContainsFunc(values, func(dn []byte) bool { return strings.EqualFold(string(dn), context) }) {
			return true
		}
	}
	return false
}

func boundControllers(operation fault.Operation, n int) error {
	if n > maxControllers {
		return operation.Failed(fault.Incomplete, errTooManyEntries, serverRemedy)
	}
	return nil
}

// isAny reports whether err is a result with one of these codes.
func isAny(err error, codes ...uint16) bool {
	var result *ldap.Error
	return errors.As(err, &result) && slices.Contains(codes, result.ResultCode)
}
