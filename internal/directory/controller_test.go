package directory

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
)

// refuseSearch returns a search handler that returns a result code.
func refuseSearch(code int) func(p *fakeldap.Peer, r fakeldap.Request) bool {
	return func(p *fakeldap.Peer, r fakeldap.Request) bool {
		return p.Send(fakeldap.Result(r.ID, ldap.ApplicationSearchResultDone, code, "CN=Sites", ""))
	}
}

// invocationID returns the invocation ID that consists of one byte.
func invocationID(b byte) ad.InvocationID {
	return ad.InvocationID([]byte(strings.Repeat(string(rune(b)), 16)))
}

// controller returns the n-th controller of the domain.
func controller(n int) fakeldap.Controller {
	id := invocationID(byte(n))
	return fakeldap.Controller{
		DNSHostName: fmt.Sprintf("dc%d.corp.test", n), ServiceName: fmt.Sprintf("CN=NTDS Settings,CN=DC%d,CN=Servers,CN=Site", n),
		InvocationID: string(id[:]),
	}
}

// TestIdentify checks which results of the read of the invocation ID are a missing right, and
// which ones end the connect.
func TestIdentify(t *testing.T) {
	t.Parallel()
	const readable = -1
	for _, test := range []struct {
		name         string
		code         int
		invocation   ad.InvocationID
		unreadable   bool        // InvocationErr
		class        fault.Class // of the failed connect; "": it succeeds
		noSuchObject bool
	}{
		{name: "readable", code: readable, invocation: invocationID(1)},
		{name: "no such object", code: ldap.LDAPResultNoSuchObject, unreadable: true, noSuchObject: true},
		{name: "insufficient rights", code: ldap.LDAPResultInsufficientAccessRights, unreadable: true},
		{name: "no value", code: ldap.LDAPResultSuccess, unreadable: true},
		{name: "busy", code: ldap.LDAPResultBusy, class: fault.Transient},
		{name: "unavailable", code: ldap.LDAPResultUnavailable, class: fault.Transient},
		{name: "other", code: ldap.LDAPResultOther, class: fault.Transient},
		{name: "administrative limit exceeded", code: ldap.LDAPResultAdminLimitExceeded, class: fault.Incomplete},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			first := controller(1)
			script := first.Script(nil)
			if test.code != readable {
				script = func(p *fakeldap.Peer) {
					for r, ok := p.Receive(); ok; r, ok = p.Receive() {
						switch {
						case r.Operation == fakeldap.Bind:
							p.Send(fakeldap.Result(r.ID, ldap.ApplicationBindResponse, 0, "", ""))
						case r.ReadsInvocationID():
							refuseSearch(test.code)(p, r)
						default:
							p.Send(first.EncodeRootDSE(r.ID), fakeldap.Done(r.ID, 0))
						}
					}
				}
			}
			server := fakeldap.Serve(t, nil, script)
			session, err := Connect(t.Context(), options(server))
			want := fault.Error{Class: test.class, Op: "read", Object: "invocation ID on " + address(server)}
			if test.class != "" {
				wantFailure(t, err, want, nil, faulttest.AnyRemedy)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			wantController := Controller{Host: "127.0.0.1", Address: address(server), DNSHostName: first.DNSHostName, ServiceName: first.ServiceName, InvocationID: test.invocation}
			if session.Controller != wantController {
				t.Errorf("controller %+v, want %+v", session.Controller, wantController)
			}
			if !test.unreadable {
				if session.InvocationErr != nil {
					t.Errorf("error %v", session.InvocationErr)
				}
				return
			}
			want.Class = fault.Refused
			wantFailure(t, session.InvocationErr, want, nil, faulttest.AnyRemedy)
			if errors.Is(session.InvocationErr, ErrNoSuchObject) != test.noSuchObject {
				t.Errorf("error %v", session.InvocationErr)
			}
			if test.noSuchObject && !strings.Contains(fault.Remedy(session.InvocationErr), first.ServiceName) {
				t.Errorf("remedy %q", fault.Remedy(session.InvocationErr))
			}
		})
	}
}

// TestUnsynchronized checks that a controller whose initial replication is not complete is not
// read, and that another one is.
func TestUnsynchronized(t *testing.T) {
	t.Parallel()
	first, second := controller(1), controller(2)
	first.RootDSE = [][]string{{"isSynchronized", "FALSE"}}
	second.RootDSE = [][]string{{"isSynchronized", "TRUE"}}
	early, ready := fakeldap.Serve(t, nil, first.Script(nil)), fakeldap.Serve(t, nil, second.Script(nil))
	_, err := Connect(t.Context(), options(early))
	wantFailure(t, err, connectFault(early, LDAP, fault.Transient), errUnsynchronized, "replication")

	o := options(early)
	o.Hosts, o.Port = []string{"corp.test"}, 0
	o.lookupSRV = records(t, early.Port, ready.Port)
	if session := connect(t, o); session.Controller.ServiceName != second.ServiceName {
		t.Errorf("controller %+v", session.Controller)
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		attributes [][]string
		want       RootDSE // only the capabilities
	}{
		{"none", nil, RootDSE{}},
		{"others", [][]string{{"supportedCapabilities", "1.2.840.113556.1.4.800"}, {"supportedControl", controlShowDeleted}}, RootDSE{}},
		{"read-only", [][]string{{"supportedCapabilities", "1.2.840.113556.1.4.800", capabilityReadOnly}}, RootDSE{ReadOnly: true}},
		{"LDS", [][]string{{"SUPPORTEDCAPABILITIES", capabilityLDS}}, RootDSE{LDS: true}},
		{"recycled objects", [][]string{{"supportedControl", controlShowDeleted, controlShowRecycled}}, RootDSE{ShowRecycled: true}},
		{"extended DNs", [][]string{{"supportedControl", controlShowDeleted, controlExtendedDN}}, RootDSE{ExtendedDN: true}},
		{"descriptors", [][]string{{"supportedControl", controlShowDeleted, controlSDFlags}}, RootDSE{Descriptors: true}},
	} {
		c := controller(1)
		c.RootDSE = test.attributes
		root := connect(t, options(fakeldap.Serve(t, nil, c.Script(nil)))).RootDSE
		got := RootDSE{ReadOnly: root.ReadOnly, LDS: root.LDS, ShowRecycled: root.ShowRecycled, ExtendedDN: root.ExtendedDN, Descriptors: root.Descriptors}
		if got != test.want {
			t.Errorf("%s: %+v", test.name, got)
		}
	}
}

func TestCurrentTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		attributes [][]string
		want       time.Time
	}{
		{"missing", nil, time.Time{}},
		{"whole seconds", [][]string{{"currentTime", "20261122072306.0Z"}}, time.Date(2026, 11, 22, 7, 23, 6, 0, time.UTC)},
		{"with an offset", [][]string{{"currenttime", "20261122072306+0100"}}, time.Date(2026, 11, 22, 6, 23, 6, 0, time.UTC)},
		{"not a time", [][]string{{"currentTime", "noon"}}, time.Time{}},
		{"without a value", [][]string{{"currentTime"}}, time.Time{}},
		{"before 1970", [][]string{{"currentTime", "16010101000000.0Z"}}, time.Time{}},
	} {
		c := controller(1)
		c.RootDSE = test.attributes
		if got := connect(t, options(fakeldap.Serve(t, nil, c.Script(nil)))).RootDSE.CurrentTime; !got.Equal(test.want) {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// TestShowRecycled checks that searches of tombstones show recycled objects where the server
// offers that, and that other searches do not.
func TestShowRecycled(t *testing.T) {
	t.Parallel()
	for _, offered := range []bool{true, false} {
		c := controller(1)
		if offered {
			c.RootDSE = [][]string{{"supportedControl", controlShowRecycled}}
		}
		var controls []string
		session := connect(t, options(fakeldap.Serve(t, nil, c.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			controls = r.Controls
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}))))
		for _, showDeleted := range []bool{true, false} {
			if _, err := session.Search(t.Context(), Search{Base: "DC=corp", Filter: "(a=b)", ShowDeleted: showDeleted}, collect(new(string))); err != nil {
				t.Fatal(err)
			}
			if slices.Contains(controls, controlShowDeleted) != showDeleted || slices.Contains(controls, controlShowRecycled) != (offered && showDeleted) {
				t.Errorf("offered %t, deleted %t: controls %v", offered, showDeleted, controls)
			}
		}
	}
}

// TestCanReadDeletedResults checks that only a refusal means a missing right.
func TestCanReadDeletedResults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code  int
		class fault.Class // "": a refusal
	}{
		{ldap.LDAPResultNoSuchObject, ""},
		{ldap.LDAPResultInsufficientAccessRights, ""},
		{ldap.LDAPResultUnavailableCriticalExtension, ""},
		{ldap.LDAPResultBusy, fault.Transient},
		{ldap.LDAPResultUnavailable, fault.Transient},
		{ldap.LDAPResultOther, fault.Transient},
		{ldap.LDAPResultOperationsError, fault.Transient},
		{ldap.LDAPResultUnwillingToPerform, fault.Transient},
		{ldap.LDAPResultTimeLimitExceeded, fault.Incomplete},
		{ldap.LDAPResultAdminLimitExceeded, fault.Incomplete},
	} {
		server := fakeldap.Serve(t, nil, fakeldap.Directory(refuseSearch(test.code)))
		readable, err := connect(t, options(server)).CanReadDeleted(t.Context())
		if readable {
			t.Errorf("result %d: readable", test.code)
		}
		if test.class == "" {
			if err != nil {
				t.Errorf("result %d: %v", test.code, err)
			}
			continue
		}
		wantFailure(t, err, fault.Error{Class: test.class, Op: "read", Object: "CN=Deleted Objects,DC=corp,DC=example,DC=com on " + address(server)}, nil, faulttest.AnyRemedy)
		wantResult(t, err, test.code)
	}
}

func TestDomainControllers(t *testing.T) {
	t.Parallel()
	const domain, other, configuration = "DC=corp,DC=example,DC=com", "DC=other,DC=example,DC=com", "CN=Configuration,DC=example,DC=com"
	const servers = ",CN=Servers,CN=Pune,CN=Sites," + configuration
	host := func(n int) fakeldap.RawEntry {
		return fakeldap.NewEntry(fmt.Sprintf("CN=DC%d%s", n, servers), []string{"dNSHostName", fmt.Sprintf("dc%d.corp.test", n)})
	}
	service := func(n int) string { return fmt.Sprintf("CN=NTDS Settings,CN=DC%d%s", n, strings.ToUpper(servers)) }
	settings := func(n int, attributes ...[]string) fakeldap.RawEntry {
		id := invocationID(byte(n))
		return fakeldap.NewEntry(service(n), append(attributes, []string{"invocationId", string(id[:])})...)
	}
	all := []fakeldap.RawEntry{
		settings(1, []string{"objectClass", "top", "nTDSDSA"}, []string{"msDS-HasMasterNCs", configuration, strings.ToLower(domain)}),
		settings(2, []string{"hasMasterNCs", configuration, domain}),
		settings(3, []string{"objectClass", "top", "nTDSDSA", "nTDSDSARO"}, []string{"msDS-hasFullReplicaNCs", domain}),
		settings(4, []string{"msDS-HasMasterNCs", configuration, other}, []string{"hasPartialReplicaNCs", domain}), // global catalog of another domain
		fakeldap.NewEntry("CN=NTDS Settings,CN=DC5"+servers, []string{"msDS-HasMasterNCs", domain}),                // not readable completely
	}
	hosts := []fakeldap.RawEntry{host(1), host(2), host(3), host(4)}
	// What cannot be the name of a host is not connected to, and takes no memory.
	var noHosts []fakeldap.RawEntry
	for n, name := range []string{strings.Repeat("x", 100_000), "dc2.corp.test:389", "a/b"} {
		noHosts = append(noHosts, fakeldap.NewEntry(fmt.Sprintf("CN=DC%d%s", n+1, servers), []string{"dNSHostName", name}))
	}
	want := []DomainController{
		{Host: "dc1.corp.test", ServiceName: service(1), InvocationID: invocationID(1)}, {Host: "dc2.corp.test", ServiceName: service(2), InvocationID: invocationID(2)},
		{Host: "dc3.corp.test", ServiceName: service(3), InvocationID: invocationID(3), ReadOnly: true}, {ServiceName: "CN=NTDS Settings,CN=DC5" + servers},
	}
	for _, test := range []struct {
		name          string
		configuration string
		settings      []fakeldap.RawEntry
		hosts         []fakeldap.RawEntry
		result        int
		want          []DomainController
		class         fault.Class
		cause         error
	}{
		{"all", configuration, all, hosts, 0, want, "", nil},
		{"no names of hosts", configuration, all[:2], noHosts, 0, []DomainController{{ServiceName: service(1), InvocationID: invocationID(1)}, {ServiceName: service(2), InvocationID: invocationID(2)}}, "", nil},
		{"own controller not among them", configuration, all[1:], hosts, 0, nil, fault.Refused, errNoReadAccess},
		{"none", configuration, nil, hosts, 0, nil, fault.Refused, errNoReadAccess},
		{"no configuration partition", "", all, hosts, 0, nil, fault.Refused, errNoDomainController},
		{"busy", configuration, nil, hosts, ldap.LDAPResultBusy, nil, fault.Transient, nil},
		{"too many", configuration, slices.Repeat(all[:1], maxControllers+1), hosts, 0, nil, fault.Incomplete, errTooManyEntries},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := controller(1)
			c.ServiceName = "CN=NTDS Settings,CN=DC1" + servers
			if test.configuration != "" {
				c.RootDSE = [][]string{{"configurationNamingContext", test.configuration}}
			}
			session := connect(t, options(fakeldap.Serve(t, nil, c.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				switch {
				case r.Base != "CN=Sites,"+configuration:
					t.Errorf("base %q", r.Base)
				case test.result != 0:
					return p.Send(fakeldap.Done(r.ID, test.result))
				case strings.Contains(r.Filter, "server"):
					return fakeldap.Pages(test.hosts)(p, r)
				}
				return fakeldap.Pages(test.settings)(p, r)
			}))))
			got, err := session.DomainControllers(t.Context())
			if fault.ClassOf(err) != cmp.Or(test.class, fault.Done) || !errors.Is(err, test.cause) && test.cause != nil {
				t.Errorf("error %v", err)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

// configuration is the DN of the configuration partition of a controller with a schema.
const configuration = "CN=Configuration,DC=example,DC=com"

// schemaAttribute returns the entry of an attribute in the schema.
func schemaAttribute(name string) fakeldap.RawEntry {
	return fakeldap.NewEntry("CN="+name+",CN=Schema,"+configuration, []string{"lDAPDisplayName", name})
}

// connectToSchema connects to a controller that expects searches of its schema with a part of a filter.
// It returns a result without entries, or 0 and the entries.
func connectToSchema(t *testing.T, c fakeldap.Controller, filter string, result int, entries []fakeldap.RawEntry) *Session {
	t.Helper()
	return connect(t, options(fakeldap.Serve(t, nil, c.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if r.Base != "CN=Schema,"+configuration || !strings.Contains(r.Filter, filter) {
			t.Errorf("base %q, filter %q", r.Base, r.Filter)
		}
		if result != 0 {
			return p.Send(fakeldap.Done(r.ID, result))
		}
		return fakeldap.Pages(entries)(p, r)
	}))))
}

func TestFilteredAttributes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		configuration string
		entries       []fakeldap.RawEntry
		result        int
		want          []string
		class         fault.Class
	}{
		{"some", configuration, []fakeldap.RawEntry{schemaAttribute("mobile"), fakeldap.NewEntry("CN=unreadable,CN=Schema," + configuration), schemaAttribute("title")}, 0, []string{"mobile", "title"}, fault.Done},
		{"none", configuration, nil, 0, nil, fault.Done},
		{"no configuration partition", "", nil, ldap.LDAPResultBusy, nil, fault.Done},
		{"no right", configuration, nil, ldap.LDAPResultInsufficientAccessRights, nil, fault.Done},
		{"not visible", configuration, nil, ldap.LDAPResultNoSuchObject, nil, fault.Done},
		{"busy", configuration, nil, ldap.LDAPResultBusy, nil, fault.Transient},
		{"too many", configuration, slices.Repeat([]fakeldap.RawEntry{schemaAttribute("a")}, maxFilteredAttributes+1), 0, nil, fault.Incomplete},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := controller(1)
			c.RootDSE = [][]string{{"configurationNamingContext", test.configuration}, {"supportedCapabilities", capabilityReadOnly}}
			session := connectToSchema(t, c, "1.2.840.113556.1.4.803:=512", test.result, test.entries)
			if !session.RootDSE.ReadOnly || !session.RootDSE.IsDomainController() {
				t.Errorf("%+v", session.RootDSE)
			}
			got, err := session.FilteredAttributes(t.Context())
			if fault.ClassOf(err) != test.class || err == nil && !slices.Equal(got, test.want) {
				t.Errorf("%v, error %v", got, err)
			}
		})
	}
}

// TestLDSIsNoDomainController checks that AD LDS, which has USNs and an NTDS Settings object, does
// not count as a domain controller.
func TestLDSIsNoDomainController(t *testing.T) {
	t.Parallel()
	c := controller(1)
	c.RootDSE = [][]string{{"supportedCapabilities", capabilityLDS}}
	session := connect(t, options(fakeldap.Serve(t, nil, c.Script(nil))))
	if !session.RootDSE.LDS || session.RootDSE.IsDomainController() || session.Controller.InvocationID != (ad.InvocationID{}) {
		t.Errorf("%+v, %+v", session.RootDSE, session.Controller)
	}
}

func TestUnknownAttributes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		configuration string
		entries       []fakeldap.RawEntry
		result        int
		want          []string
		class         fault.Class
	}{
		{"one unknown", configuration, []fakeldap.RawEntry{schemaAttribute("cn"), schemaAttribute("title")}, 0, []string{"mobil"}, fault.Done},
		{"all known", configuration, []fakeldap.RawEntry{schemaAttribute("cn"), schemaAttribute("mobil"), schemaAttribute("title")}, 0, nil, fault.Done},
		{"schema not visible", configuration, nil, 0, nil, fault.Done},
		{"no configuration partition", "", nil, ldap.LDAPResultBusy, nil, fault.Done},
		{"no right", configuration, nil, ldap.LDAPResultInsufficientAccessRights, nil, fault.Done},
		{"busy", configuration, nil, ldap.LDAPResultBusy, nil, fault.Transient},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := controller(1)
			c.RootDSE = [][]string{{"configurationNamingContext", test.configuration}}
			session := connectToSchema(t, c, "(lDAPDisplayName=Title)", test.result, test.entries)
			got, err := session.UnknownAttributes(t.Context(), []string{"Title", "mobil", "2.5.4.4", "OID.2.5.4.4"})
			if fault.ClassOf(err) != test.class || err == nil && !slices.Equal(got, test.want) {
				t.Errorf("%v, error %v", got, err)
			}
		})
	}
}

// TestSchemaAttributesOfServer checks that attributes that were not requested are ignored: a server could
// return them without end.
func TestSchemaAttributesOfServer(t *testing.T) {
	t.Parallel()
	const configuration = "CN=Configuration,DC=example,DC=com"
	var entries []fakeldap.RawEntry
	for _, name := range []string{"cn", "other", "Title", "another"} {
		entries = append(entries, fakeldap.NewEntry("CN="+name+",CN=Schema,"+configuration, []string{"lDAPDisplayName", name}))
	}
	c := controller(1)
	c.RootDSE = [][]string{{"configurationNamingContext", configuration}}
	session := connect(t, options(fakeldap.Serve(t, nil, c.Script(fakeldap.Pages(entries)))))
	known, readable, err := session.SchemaAttributes(t.Context(), []string{"title", "mobil"})
	if want := map[string]bool{"cn": true, "title": true}; err != nil || !readable || !maps.Equal(known, want) {
		t.Errorf("known %v, readable %t, error %v", known, readable, err)
	}
}
