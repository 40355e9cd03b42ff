package domaincontroller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

const testPassword = "c0rrect horse"

// testNow is the time of servers under test.
var testNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// testServer is a server that listens on loopback.
type testServer struct {
	*Server
	plain, secure string // addresses
	stop          func() // ends Serve
}

func (d testServer) highestUSN() ad.USN {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.highest
}

func newTestServer(t *testing.T, o Options) testServer {
	t.Helper()
	o.Password = testPassword
	if o.Now == nil {
		o.Now = func() time.Time { return testNow }
	}
	return serveTest(t, New(o))
}

// serveTest serves a controller until the test ends.
func serveTest(t *testing.T, d *Server) testServer {
	t.Helper()
	plain, secure := listenLoopback(t), listenLoopback(t)
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := d.Serve(ctx, plain, secure); err != nil {
			t.Error(err)
		}
	})
	stop := func() {
		cancel()
		serving.Wait()
	}
	t.Cleanup(stop)
	return testServer{d, plain.Addr().String(), secure.Addr().String(), stop}
}

func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

func (d testServer) dial(t *testing.T) *ldap.Conn {
	t.Helper()
	conn, err := ldap.DialURL("ldap://" + d.plain)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (d testServer) bound(t *testing.T) *ldap.Conn {
	t.Helper()
	conn := d.dial(t)
	if err := conn.Bind(d.BindDN(), testPassword); err != nil {
		t.Fatal(err)
	}
	return conn
}

func (d testServer) trust() *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(d.certificate)
	return &tls.Config{RootCAs: roots, ServerName: "dc1.corp.example.com"}
}

func (d testServer) find(t *testing.T, conn *ldap.Conn, base string, scope int, filter string, attributes ...string) *ldap.SearchResult {
	t.Helper()
	found, err := conn.Search(ldap.NewSearchRequest(base, scope, 0, 0, 0, false, filter, attributes, []ldap.Control{ldap.NewControlString(controlDomainScope, false, "")}))
	if err != nil {
		t.Fatalf("%s: %v", filter, err)
	}
	return found
}

// addUser adds a user to OU=Service and returns its DN.
func addUser(t *testing.T, d testServer, name string) (dn string) {
	t.Helper()
	dn = "CN=" + name + ",OU=Service," + d.Base()
	must(t, d.Add(Object{dn, map[string][]string{"objectClass": {"top", "person", "organizationalPerson", "user"}}}))
	return dn
}

func byGUID(guid ad.GUID) string { return fmt.Sprintf("<GUID=%x>", guid[:]) }

func (d testServer) guid(t *testing.T, conn *ldap.Conn, dn string) ad.GUID {
	t.Helper()
	return ad.GUID(d.find(t, conn, dn, 0, "(objectClass=*)", "objectGUID").Entries[0].GetRawAttributeValue("objectGUID"))
}

// usn returns uSNChanged of an object.
func (d testServer) usn(t *testing.T, conn *ldap.Conn, guid ad.GUID) ad.USN {
	t.Helper()
	n, err := strconv.ParseInt(d.find(t, conn, byGUID(guid), 0, "(objectClass=*)", "uSNChanged").Entries[0].GetAttributeValue("uSNChanged"), 10, 64)
	must(t, err)
	return ad.USN(n)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// checkError checks the code of an LDAP error and a part of its text.
func checkError(t *testing.T, err error, code uint16, text string) {
	t.Helper()
	var answer *ldap.Error
	if !errors.As(err, &answer) || answer.ResultCode != code || !strings.Contains(answer.Err.Error(), text) {
		t.Errorf("got %v, want %d with %q", err, code, text)
	}
}

func TestBind(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	account := func(name string, pairs ...string) {
		t.Helper()
		dn := "CN=" + name + ",OU=Service," + d.Base()
		attributes := map[string][]string{"objectClass": {"user"}}
		must(t, d.Add(Object{dn, attributes}))
		must(t, d.SetPassword(dn, testPassword))
		for i := 0; i < len(pairs); i += 2 {
			must(t, d.Modify(dn, pairs[i], pairs[i+1]))
		}
	}
	account("good", "userPrincipalName", "someone@example.net")
	account("disabled", "userAccountControl", "514")
	account("locked", "lockoutTime", formatFileTime(testNow.Add(-29*time.Minute)))
	account("unlocked", "lockoutTime", formatFileTime(testNow.Add(-31*time.Minute)))
	account("expired", "accountExpires", formatFileTime(testNow.Add(-time.Second)))
	account("over", "pwdLastSet", formatFileTime(testNow.Add(-43*24*time.Hour)))
	account("change", "pwdLastSet", "0")
	account("attacked")
	attacker := d.dial(t)
	for range 10 {
		checkError(t, attacker.Bind(`CORP\attacked`, "wrong"), 49, "data 52e,")
	}
	for _, test := range []struct{ name, bind, password, data string }{
		{"distinguished name", d.BindDN(), testPassword, ""},
		{"distinguished name, other case and spaces", "cn=SVC-Qualys, ou=service, dc=corp, dc=example, dc=com", testPassword, ""},
		{"principal name", "svc-qualys@corp.example.com", testPassword, ""},
		{"explicit principal name", "SOMEONE@example.net", testPassword, ""},
		{"domain and account", `CORP\svc-qualys`, testPassword, ""},
		{"DNS domain and account", `corp.example.com\svc-qualys`, testPassword, ""},
		{"ended lockout", `CORP\unlocked`, testPassword, ""},
		{"wrong password", d.BindDN(), "wrong", "52e"},
		{"unknown DN", "CN=nobody," + d.Base(), testPassword, "52e"},
		{"unknown account", `CORP\nobody`, testPassword, "52e"},
		{"another domain", `OTHER\svc-qualys`, testPassword, "52e"},
		{"bare account name", "svc-qualys", testPassword, "52e"},
		{"account without a password", `CORP\Administrator`, "x", "52e"},
		{"disabled", `CORP\disabled`, testPassword, "533"},
		{"disabled, wrong password", `CORP\disabled`, "wrong", "52e"},
		{"locked", `CORP\locked`, testPassword, "775"},
		{"locked by wrong passwords", `CORP\attacked`, testPassword, "775"},
		{"expired", `CORP\expired`, testPassword, "701"},
		{"password expired", `CORP\over`, testPassword, "532"},
		{"must change", `CORP\change`, testPassword, "773"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := d.dial(t).Bind(test.bind, test.password)
			if test.data == "" {
				must(t, err)
				return
			}
			checkError(t, err, 49, "80090308: LdapErr: DSID-0C090569, comment: AcceptSecurityContext error, data "+test.data+", v4f7c")
		})
	}
	if n := d.Counters(); n.Binds != 7 || n.FailedBinds != 10+13 {
		t.Errorf("counters %+v", n)
	}
}

func TestRootDSE(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.dial(t)
	root := d.find(t, conn, "", ldap.ScopeBaseObject, "(objectClass=*)").Entries[0]
	for name, want := range map[string]string{
		"defaultNamingContext": "DC=corp,DC=example,DC=com", "dnsHostName": "dc1.corp.example.com", "currentTime": "20261122120000.0Z",
		"highestCommittedUSN":        strconv.FormatInt(int64(d.highestUSN()), 10),
		"rootDomainNamingContext":    "DC=corp,DC=example,DC=com",
		"configurationNamingContext": "CN=Configuration,DC=corp,DC=example,DC=com",
		"dsServiceName":              "CN=NTDS Settings,CN=DC1,CN=Servers,CN=Default-First-Site-Name,CN=Sites,CN=Configuration,DC=corp,DC=example,DC=com",
	} {
		if got := root.GetAttributeValue(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !slices.Contains(root.GetAttributeValues("supportedControl"), controlPaging) || !slices.Contains(root.GetAttributeValues("supportedLDAPVersion"), "3") ||
		!slices.Contains(root.GetAttributeValues("supportedCapabilities"), "1.2.840.113556.1.4.800") {
		t.Errorf("rootDSE: %v", root.Attributes)
	}
	if one := d.find(t, conn, "", ldap.ScopeBaseObject, "(objectClass=*)", "DNSHOSTNAME").Entries[0]; len(one.Attributes) != 1 {
		t.Errorf("requested one attribute, got %v", one.Attributes)
	}
}

// TestUnbound: a connection whose last bind failed can read only rootDSE, and change
// nothing.
func TestUnbound(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.dial(t)
	settings := d.find(t, conn, "", ldap.ScopeBaseObject, "(objectClass=*)").Entries[0].GetAttributeValue("dsServiceName")
	_, err := conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", nil, nil))
	checkError(t, err, 1, "000004DC: LdapErr: DSID-0C090A5C, comment: In order to perform this operation a successful bind must be completed on the connection., data 0, v4f7c")
	must(t, conn.UnauthenticatedBind(d.BindDN())) // anonymous
	_, err = conn.Search(ldap.NewSearchRequest(settings, ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", nil, nil))
	checkError(t, err, 1, "a successful bind must be completed")

	must(t, conn.Bind(d.BindDN(), testPassword))
	entry := d.find(t, conn, settings, ldap.ScopeBaseObject, "(objectClass=*)", "invocationId").Entries[0]
	if id := d.invocationID; entry.DN != settings || string(entry.GetRawAttributeValue("invocationId")) != string(id[:]) {
		t.Errorf("NTDS Settings: %v", entry)
	}
	checkError(t, conn.Bind(d.BindDN(), "wrong"), 49, "52e")
	_, err = conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", nil, nil))
	checkError(t, err, 1, "a successful bind must be completed") // a failed bind ends the previous one
	checkError(t, conn.Del(ldap.NewDelRequest(d.BindDN(), nil)), 1, "a successful bind")
	must(t, conn.Bind(d.BindDN(), testPassword))
	checkError(t, conn.Del(ldap.NewDelRequest(d.BindDN(), nil)), 50, "INSUFF_ACCESS_RIGHTS")
}

func TestTLS(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.dial(t)
	must(t, conn.Bind(d.BindDN(), testPassword))
	must(t, conn.StartTLS(d.trust()))
	_, err := conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", nil, nil))
	checkError(t, err, 1, "a successful bind")
	must(t, conn.Bind(d.BindDN(), testPassword))
	if n := len(d.find(t, conn, d.Base(), ldap.ScopeSingleLevel, "(objectClass=container)").Entries); n < 3 {
		t.Errorf("%d containers", n)
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "corp.example.com"} {
		config := d.trust()
		config.ServerName = name
		secure, err := ldap.DialURL("ldaps://"+d.secure, ldap.DialWithTLSConfig(config))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		must(t, secure.Bind(d.BindDN(), testPassword))
		if err := secure.StartTLS(config); err == nil {
			t.Error("StartTLS within TLS succeeded")
		}
		secure.Close()
	}
	if _, err := ldap.DialURL("ldaps://"+d.secure, ldap.DialWithTLSConfig(&tls.Config{ServerName: "localhost"})); err == nil {
		t.Error("client trusts the certificate without the server's CA")
	}
}

func TestPaging(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{Users: 1200})
	conn := d.bound(t)
	want := 0
	for _, o := range d.Objects() {
		if o.First("sAMAccountType") == samUser {
			want++
		}
	}
	if want != 1204 { // Administrator, Guest, krbtgt and the account that binds
		t.Errorf("%d users", want)
	}
	for _, test := range []struct{ size, pages int }{{1000, 2}, {5000, 2}, {999, 2}, {100, 13}} {
		before := d.Counters()
		found, err := conn.SearchWithPaging(ldap.NewSearchRequest(d.Base(), ldap.ScopeWholeSubtree, 0, 0, 0, false,
			"(sAMAccountType=805306368)", []string{"objectGUID"}, nil), uint32(test.size))
		must(t, err)
		distinct := map[string]bool{}
		for _, entry := range found.Entries {
			distinct[string(entry.GetRawAttributeValue("objectGUID"))] = true
		}
		pages := d.Counters().Pages - before.Pages
		if len(found.Entries) != want || len(distinct) != want || pages != test.pages {
			t.Errorf("size %d: %d entries, %d distinct, %d pages; want %d entries, %d pages", test.size, len(found.Entries), len(distinct), pages, want, test.pages)
		}
	}
	found, err := conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeWholeSubtree, 0, 0, 0, false, "(objectClass=user)", []string{"1.1"}, nil))
	checkError(t, err, 4, "")
	if len(found.Entries) != 1000 || len(found.Entries[0].Attributes) != 0 {
		t.Errorf("%d entries without paging", len(found.Entries))
	}
	found, err = conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeWholeSubtree, 0, 7, 0, false, "(objectClass=user)", nil, nil))
	checkError(t, err, 4, "")
	if len(found.Entries) != 7 {
		t.Errorf("%d entries, want 7", len(found.Entries))
	}
}

func TestCookies(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{Users: 50})
	conn, other := d.bound(t), d.bound(t)
	page := func(conn *ldap.Conn, filter string, cookie []byte) (*ldap.SearchResult, []byte, error) {
		paging := ldap.NewControlPaging(20)
		paging.SetCookie(cookie)
		found, err := conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeWholeSubtree, 0, 0, 0, false, filter, []string{"cn"}, []ldap.Control{paging}))
		if err != nil {
			return nil, nil, err
		}
		return found, ldap.FindControl(found.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging).Cookie, nil
	}
	const users = "(sAMAccountType=805306368)"
	first, cookie, err := page(conn, users, nil)
	must(t, err)
	const text = "problem 5010 (UNAVAIL_EXTENSION)"
	_, _, err = page(other, users, cookie)
	checkError(t, err, 12, text)
	_, _, err = page(conn, "(objectClass=user)", cookie)
	checkError(t, err, 12, text)

	// A page reflects changes since the previous page.
	deleted, changed := "", ""
	for _, o := range slices.Backward(d.Objects()) {
		if o.First("sAMAccountType") == samUser && deleted == "" {
			deleted = o.DN
		} else if o.First("sAMAccountType") == samUser {
			changed = o.DN
			break
		}
	}
	must(t, d.Delete(deleted))
	must(t, d.Rename(changed, "Renamed"))
	second, next, err := page(conn, users, cookie)
	must(t, err)
	third, end, err := page(conn, users, next)
	must(t, err)
	if n := len(first.Entries) + len(second.Entries) + len(third.Entries); n != 53 || len(end) != 0 {
		t.Errorf("%d entries, last cookie %x", n, end)
	}
	if last := third.Entries[len(third.Entries)-1]; last.GetAttributeValue("cn") != "Renamed" {
		t.Errorf("last entry %s, want Renamed", last.DN)
	}
	_, _, err = page(conn, users, cookie)
	checkError(t, err, 12, text)

	_, err = conn.Search(ldap.NewSearchRequest(d.Base(), 0, 0, 0, 0, false, users, nil, []ldap.Control{ldap.NewControlString("1.2.3.4", true, "")}))
	checkError(t, err, 12, text)
	_, err = conn.Search(ldap.NewSearchRequest(d.Base(), 0, 0, 0, 0, false, users, nil, []ldap.Control{ldap.NewControlString("1.2.3.4", false, "")}))
	must(t, err)
}

func TestBases(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{Users: 30, Groups: 5})
	conn := d.bound(t)
	object := func(dn, class string) {
		must(t, d.Add(Object{dn, map[string][]string{"objectClass": {class}}}))
	}
	object("OU=A,"+d.Base(), "organizationalUnit")
	object("OU=B,OU=A,"+d.Base(), "organizationalUnit")
	object(`CN=Smith\, \"Joe\" \+ 1,OU=A,`+d.Base(), "user")
	object("CN=Zoë Ångström,OU=B,OU=A,"+d.Base(), "user")
	guid := d.find(t, conn, "OU=A,"+d.Base(), 0, "(objectClass=*)", "objectGUID").Entries[0].GetRawAttributeValue("objectGUID")
	for _, test := range []struct {
		name, base string
		scope      int
		want       []string
	}{
		{"base", "ou=a," + d.Base(), ldap.ScopeBaseObject, []string{"A"}},
		{"one level", "OU=A," + d.Base(), ldap.ScopeSingleLevel, []string{"B", `Smith, "Joe" + 1`}},
		{"subtree", "OU=A," + d.Base(), ldap.ScopeWholeSubtree, []string{"A", "B", `Smith, "Joe" + 1`, "Zoë Ångström"}},
		{"escaped", `cn=smith\2c \22joe\22 \2b 1, ou=A, ` + d.Base(), ldap.ScopeBaseObject, []string{`Smith, "Joe" + 1`}},
		{"other case", "CN=ZOË ÅNGSTRÖM,OU=B,OU=A," + d.Base(), ldap.ScopeWholeSubtree, []string{"Zoë Ångström"}},
		{"GUID", "<GUID=" + ad.GUID(guid).String() + ">", ldap.ScopeBaseObject, []string{"A"}},
		{"SID", "<SID=" + sidText(t, d.find(t, conn, "CN=Zoë Ångström,OU=B,OU=A,"+d.Base(), 0, "(objectClass=*)", "objectSid").Entries[0].GetRawAttributeValue("objectSid")) + ">", ldap.ScopeBaseObject, []string{"Zoë Ångström"}},
		{"SID in hexadecimal", "<sid=01020000000000052000000020020000>", ldap.ScopeBaseObject, []string{"Administrators"}},
		{"GUID in hexadecimal", fmt.Sprintf("<guid=%x>", guid), ldap.ScopeBaseObject, []string{"A"}},
		{"configuration", "CN=Sites,CN=Configuration," + d.Base(), ldap.ScopeSingleLevel, []string{"Default-First-Site-Name"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, entry := range d.find(t, conn, test.base, test.scope, "(objectClass=*)", "name").Entries {
				got = append(got, entry.GetAttributeValue("name"))
				if found := d.find(t, conn, entry.DN, 0, "(objectClass=*)").Entries; len(found) != 1 || found[0].DN != entry.DN {
					t.Errorf("search for %s: %v", entry.DN, found)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	configuration := d.find(t, conn, d.Base(), ldap.ScopeWholeSubtree, "(objectClass=nTDSDSA)").Entries
	if len(configuration) != 0 {
		t.Error("search of the domain returned the configuration")
	}
	found, err := conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeWholeSubtree, 0, 0, 0, false, "(cn=svc-qualys)", nil, nil))
	if err != nil || len(found.Referrals) != 1 {
		t.Errorf("without the domain-scope control: %v, %v", found, err)
	}
	for _, test := range []struct {
		name, base    string
		code          uint16
		text, matched string
	}{
		{"unknown object", "CN=x,OU=y,OU=A," + d.Base(), 32, "problem 2001 (NO_OBJECT), data 0, best match of:\n\t'OU=A," + d.Base() + "'", "OU=A," + d.Base()},
		{"invalid DN", "somewhere", 34, "problem 2006 (BAD_NAME)", ""},
		{"empty", "", 32, "NO_OBJECT", ""},
		{"another domain", "OU=A,DC=other,DC=net", 10, "ref 1: 'other.net'", ""},
		{"unknown GUID", "<GUID=00000000-0000-0000-0000-000000000000>", 32, "NO_OBJECT", ""},
		{"invalid GUID", "<GUID=0>", 34, "BAD_NAME", ""},
		{"unknown SID", "<SID=S-1-5-21-1>", 32, "NO_OBJECT", ""},
		{"invalid SID", "<SID=S-2>", 34, "BAD_NAME", ""},
		{"hidden", "CN=Deleted Objects," + d.Base(), 32, "NO_OBJECT", d.Base()},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := conn.Search(ldap.NewSearchRequest(test.base, ldap.ScopeWholeSubtree, 0, 0, 0, false, "(objectClass=*)", nil, nil))
			checkError(t, err, test.code, test.text)
			if answer := (*ldap.Error)(nil); errors.As(err, &answer) && answer.MatchedDN != test.matched {
				t.Errorf("matchedDN %q, want %q", answer.MatchedDN, test.matched)
			}
		})
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{Users: 1600, Groups: 1})
	conn := d.bound(t)
	entry := func(filter string, attributes ...string) *ldap.Entry {
		t.Helper()
		found := d.find(t, conn, d.Base(), ldap.ScopeWholeSubtree, filter, attributes...).Entries
		if len(found) != 1 {
			t.Fatalf("%s: %d entries", filter, len(found))
		}
		return found[0]
	}
	all := entry("(sAMAccountName=svc-qualys)")
	for _, name := range []string{"objectClass", "cn", "distinguishedName", "name", "objectGUID", "objectSid", "whenCreated", "uSNChanged", "objectCategory", "userAccountControl"} {
		if all.GetAttributeValue(name) == "" {
			t.Errorf("%s is missing", name)
		}
	}
	if all.GetAttributeValue("msDS-User-Account-Control-Computed") != "" {
		t.Error("constructed attribute without a request")
	}
	named := entry("(sAMAccountName=svc-qualys)", "MSDS-USER-ACCOUNT-CONTROL-COMPUTED", "objectsid", "OBJECTSID", "mail", "nosuch")
	if len(named.Attributes) != 2 || named.GetAttributeValue("msDS-User-Account-Control-Computed") != "0" {
		t.Errorf("got %v", named.Attributes)
	}
	if sid, ok := ad.ParseSID(named.GetRawAttributeValue("objectSid")); !ok || !strings.HasPrefix(sid.String(), "S-1-5-21-") {
		t.Errorf("objectSid %v", sid)
	}
	both := entry("(sAMAccountName=svc-qualys)", "*", "msDS-User-Account-Control-Computed")
	if len(both.Attributes) != len(all.Attributes)+1 {
		t.Errorf("%d attributes, want %d", len(both.Attributes), len(all.Attributes)+1)
	}

	ranged := entry("(cn=All employees)", "member")
	if len(ranged.GetAttributeValues("member")) != 0 || len(ranged.GetAttributeValues("member;range=0-1499")) != 1500 {
		t.Errorf("range 0-1499: %d members", len(ranged.GetAttributeValues("member;range=0-1499")))
	}
	if n := len(entry("(cn=All employees)", "member;range=1500-*").GetAttributeValues("member;range=1500-*")); n != 100 {
		t.Errorf("range 1500-*: %d members", n)
	}
	if n := len(entry("(cn=All employees)", "member;range=0-0").GetAttributeValues("member;range=0-0")); n != 1 {
		t.Errorf("range 0-0: %d members", n)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	now := testNow
	var mu sync.Mutex
	d := newTestServer(t, Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }})
	conn := d.bound(t)
	dn := "CN=User,OU=Service," + d.Base()
	must(t, d.Add(Object{dn, map[string][]string{"objectClass": {"user"}, "pwdLastSet": {formatFileTime(testNow.Add(-42*24*time.Hour + time.Hour))},
		"lockoutTime": {formatFileTime(testNow)}}}))
	read := func(attribute string) string {
		return d.find(t, conn, dn, 0, "(objectClass=*)", attribute).Entries[0].GetAttributeValue(attribute)
	}
	computed := func() string { return read("msDS-User-Account-Control-Computed") }
	highest := d.highestUSN()
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{0, "16"}, {30 * time.Minute, "0"}, {time.Hour + time.Second, "8388608"}} {
		mu.Lock()
		now = testNow.Add(step.after)
		mu.Unlock()
		if got := computed(); got != step.want {
			t.Errorf("after %s: %s, want %s", step.after, got, step.want)
		}
	}
	if got, want := read("msDS-UserPasswordExpiryTimeComputed"), formatFileTime(testNow.Add(time.Hour)); got != want {
		t.Errorf("password expires at %s, want %s", got, want)
	}
	must(t, d.Modify(dn, "pwdLastSet", "0"))
	if got := read("msDS-UserPasswordExpiryTimeComputed"); got != "0" {
		t.Errorf("password that must change expires at %s, want 0", got)
	}
	highest++
	must(t, d.Modify(d.Base(), "maxPwdAge", "-9223372036854775808"))
	must(t, d.Modify(dn, "pwdLastSet", "1"))
	if got := read("msDS-UserPasswordExpiryTimeComputed"); got != neverExpires || computed() != "0" {
		t.Errorf("password expires at %s in a domain without a maximum age", got)
	}
	highest += 2
	if d.highestUSN() != highest {
		t.Errorf("highest USN %d, want %d", d.highestUSN(), highest)
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{Users: 5, Groups: 2})
	conn := d.bound(t)
	base, dn := "OU=Service,"+d.Base(), addUser(t, d, "One")
	guid := d.guid(t, conn, dn)
	usn := func() ad.USN { return d.usn(t, conn, guid) }
	for _, step := range []struct {
		name   string
		change func() error
		want   string // a filter that matches after the change
	}{
		{"modify", func() error { return d.Modify(dn, "TITLE", "Chief") }, "(title=chief)"},
		{"clear", func() error { return d.Modify(dn, "title") }, "(!(title=*))"},
		{"disable", func() error { return d.Disable(dn) }, "(userAccountControl:" + ruleBitAnd + ":=2)"},
		{"enable", func() error { return d.Modify(dn, "userAccountControl", "512") }, "(!(userAccountControl:" + ruleBitAnd + ":=2))"},
		{"password", func() error { return d.SetPassword(dn, "secret") }, "(pwdLastSet=" + formatFileTime(testNow) + ")"},
		{"rename", func() error { return d.Rename(dn, "Two, the 2nd") }, `(&(cn=Two, the 2nd)(distinguishedName=CN=Two\5c, the 2nd,` + base + "))"},
		{"move", func() error { return d.Move(`CN=Two\, the 2nd,`+base, "CN=Users,"+d.Base()) }, `(distinguishedName=CN=Two\5c, the 2nd,CN=Users,` + d.Base() + ")"},
	} {
		before, highest := usn(), d.highestUSN()
		must(t, step.change())
		if after := usn(); after <= before || d.highestUSN() <= highest || after > d.highestUSN() {
			t.Errorf("%s: %d to %d, highest %d to %d", step.name, before, after, highest, d.highestUSN())
		}
		if found := d.find(t, conn, d.Base(), 2, fmt.Sprintf("(&(uSNChanged>=%d)%s)", highest+1, step.want)).Entries; len(found) != 1 {
			t.Errorf("%s: %d objects match %s", step.name, len(found), step.want)
		}
	}
}

// TestUnchangedUSN: a change of an attribute that is not replicated, or of the name of a
// container, does not change uSNChanged of an object.
func TestUnchangedUSN(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.bound(t)
	dn := addUser(t, d, "One")
	guid := d.guid(t, conn, dn)
	for _, step := range []struct {
		name   string
		change func() error
	}{
		{"last logon", func() error { return d.Modify(dn, "lastLogon", formatFileTime(testNow)) }},
		{"bad passwords", func() error { return d.Modify(dn, "badPwdCount", "3") }},
		{"name of the container", func() error { return d.Rename("OU=Service,"+d.Base(), "Services") }},
	} {
		before := d.usn(t, conn, guid)
		must(t, step.change())
		if after := d.usn(t, conn, guid); after != before {
			t.Errorf("%s: %d to %d", step.name, before, after)
		}
	}
	if got, want := d.find(t, conn, byGUID(guid), 0, "(objectClass=*)").Entries[0].DN, "CN=One,OU=Services,"+d.Base(); got != want {
		t.Errorf("DN %s, want %s", got, want)
	}
}

// TestMovedMember: member has the new DN of a moved object.
func TestMovedMember(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.bound(t)
	dn, group := addUser(t, d, "One"), "CN=Team,OU=Service,"+d.Base()
	must(t, d.Add(Object{group, map[string][]string{"objectClass": {"group"}, "groupType": {"-2147483644"}, "member": {dn}}}))
	must(t, d.Move(dn, "CN=Users,"+d.Base()))
	if got := d.find(t, conn, group, 0, "(sAMAccountType=536870912)", "member").Entries[0].GetAttributeValues("member"); !slices.Equal(got, []string{"CN=One,CN=Users," + d.Base()}) {
		t.Errorf("members %q", got)
	}
}

func TestSetRID(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	first, second := addUser(t, d, "One"), addUser(t, d, "Two")
	highest := d.highestUSN()
	must(t, d.SetRID(first, 5000))
	must(t, d.SetRID(second, 5000))
	third := addUser(t, d, "Three")
	for dn, rid := range map[string]uint32{first: 5000, second: 5000, third: 5001} {
		if o, err := d.Object(dn, "objectSid"); err != nil || o.First("objectSid") != d.accountSID(rid) {
			t.Errorf("%s: SID %x, error %v", dn, o.First("objectSid"), err)
		}
	}
	if d.highestUSN() != highest+3 {
		t.Errorf("highest USN %d, before %d", d.highestUSN(), highest)
	}
}

func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	dn, base := addUser(t, d, "One"), "OU=Service,"+d.Base()
	must(t, d.Add(Object{"CN=Team," + base, map[string][]string{"objectClass": {"group"}, "groupType": {"-2147483644"}}}))
	guid, highest := d.guid(t, d.bound(t), dn), d.highestUSN()
	for name, err := range map[string]error{
		"existing":                d.Add(Object{dn, map[string][]string{"objectClass": {"user"}}}),
		"no container":            d.Add(Object{"CN=x,OU=nowhere," + d.Base(), map[string][]string{"objectClass": {"user"}}}),
		"other domain":            d.Add(Object{"CN=x,DC=other", map[string][]string{"objectClass": {"user"}}}),
		"unknown class":           d.Add(Object{"CN=x," + base, map[string][]string{"objectClass": {"unicorn"}}}),
		"existing account":        d.Add(Object{"CN=x," + base, map[string][]string{"objectClass": {"user"}, "sAMAccountName": {"SVC-QUALYS"}}}),
		"wrong RDN":               d.Add(Object{"CN=x," + base, map[string][]string{"objectClass": {"organizationalUnit"}}}),
		"system attribute":        d.Modify(dn, "objectGUID", "x"),
		"unknown attribute":       d.Modify(dn, "shoeSize", "43"),
		"empty value":             d.Modify(dn, "title", ""),
		"two values":              d.Modify(dn, "title", "a", "b"),
		"not an integer":          d.Modify(dn, "accountExpires", "soon"),
		"unknown member":          d.Modify("CN=Team,"+base, "member", "CN=nobody,"+base),
		"unknown object":          d.Disable("CN=nobody," + base),
		"disable a container":     d.Disable(base),
		"existing name":           d.Rename(dn, "Team"),
		"below itself":            d.Move(base, base),
		"with children":           d.Delete(base),
		"the domain":              d.Delete(d.Base()),
		"undelete a live object":  d.Undelete(guid),
		"password of a container": d.SetPassword(base, "x"),
		"RID of a container":      d.SetRID(base, 5000),
		"RID of the domain":       d.SetRID(d.Base(), 5000),
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if d.highestUSN() != highest {
		t.Errorf("highest USN changed from %d to %d", highest, d.highestUSN())
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{Users: 100})
	id, highest := d.invocationID, d.highestUSN()
	d.Restore(Restoration{USNRollback: 100, SameInvocation: true})
	if d.invocationID != id || d.highestUSN() != highest-99 {
		t.Errorf("snapshot: highest USN %d, before %d", d.highestUSN(), highest)
	}
	d.Restore(Restoration{})
	if d.invocationID == id || d.highestUSN() != highest-98 {
		t.Errorf("restore: highest USN %d, before %d", d.highestUSN(), highest)
	}
}

func TestDeleted(t *testing.T) {
	t.Parallel()
	for _, readsDeleted := range []bool{true, false} {
		t.Run(fmt.Sprint("reads deleted ", readsDeleted), func(t *testing.T) {
			d := newTestServer(t, Options{ReadsDeleted: readsDeleted})
			conn := d.bound(t)
			dn, deleted := "CN=Leaver,OU=Service,"+d.Base(), "CN=Deleted Objects,"+d.Base()
			must(t, d.Add(Object{dn, map[string][]string{"objectClass": {"user"}, "title": {"x"}}}))
			before := d.find(t, conn, dn, 0, "(objectClass=*)", "objectGUID", "objectSid", "uSNChanged").Entries[0]
			guid := ad.GUID(before.GetRawAttributeValue("objectGUID"))
			must(t, d.Modify("CN=Domain Admins,CN=Users,"+d.Base(), "member", dn))
			must(t, d.Delete(dn))

			find := func(base, filter string) []*ldap.Entry {
				t.Helper()
				found, err := conn.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, 0, 0, 0, false, filter, nil,
					[]ldap.Control{ldap.NewControlString(controlShowDeleted, true, ""), ldap.NewControlString(controlDomainScope, false, "")}))
				must(t, err)
				return found.Entries
			}
			if n := len(d.find(t, conn, d.Base(), 2, "(cn=Leaver*)").Entries); n != 0 {
				t.Error("tombstone visible without the control")
			}
			if n := len(d.find(t, conn, d.Base(), 2, "(member=*Leaver*)").Entries); n != 0 {
				t.Error("tombstone is a member")
			}
			if !readsDeleted {
				if found := find(deleted, "(isDeleted=TRUE)"); len(found) != 1 || found[0].DN != deleted {
					t.Errorf("entries without the right: %v", found)
				}
				return
			}
			filter := fmt.Sprintf("(&(isDeleted=TRUE)(uSNChanged>=%s)(!(cn=Deleted Objects)))", before.GetAttributeValue("uSNChanged"))
			found := find(deleted, filter)
			if len(found) != 1 {
				t.Fatalf("%d tombstones", len(found))
			}
			tombstone := found[0]
			if want := `CN=Leaver\0ADEL:` + guid.String() + "," + deleted; tombstone.DN != want {
				t.Errorf("DN %s, want %s", tombstone.DN, want)
			}
			for name, want := range map[string]string{
				"objectSid": before.GetAttributeValue("objectSid"), "objectGUID": before.GetAttributeValue("objectGUID"), "isDeleted": "TRUE",
				"lastKnownParent": "OU=Service," + d.Base(), "name": "Leaver\nDEL:" + guid.String(), "sAMAccountName": "Leaver",
				"objectCategory": "", "title": "", "sAMAccountType": "", "primaryGroupID": "",
			} {
				if got := tombstone.GetAttributeValue(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			must(t, d.Undelete(guid))
			restored := d.find(t, conn, dn, 0, "(sAMAccountType=805306368)", "objectGUID").Entries
			if len(restored) != 1 || string(restored[0].GetRawAttributeValue("objectGUID")) != string(guid[:]) || len(find(deleted, filter)) != 0 {
				t.Errorf("undeleted: %v", restored)
			}
		})
	}
}

// TestStop is not parallel, because it checks all goroutines.
func TestStop(t *testing.T) {
	d := newTestServer(t, Options{Users: 1000}) // one full page
	idle := d.bound(t)
	silent, err := net.Dial("tcp", d.secure) // no TLS handshake
	must(t, err)
	defer silent.Close()
	stalled, err := net.Dial("tcp", d.plain) // requests more than the socket buffer holds, and does not read
	must(t, err)
	defer stalled.Close()
	var requests encoder
	bind := requests.begin(tagSequence)
	requests.number(tagInteger, 1)
	body := requests.begin(tagBindRequest)
	requests.number(tagInteger, 3)
	requests.octets(tagOctets, d.BindDN())
	requests.octets(tagPrimitive, testPassword)
	requests.end(body)
	requests.end(bind)
	const searches = 30
	for i := range searches {
		search := requests.begin(tagSequence)
		requests.number(tagInteger, int64(i+2))
		body := requests.begin(tagSearchRequest)
		requests.octets(tagOctets, d.Base())
		requests.number(tagEnumerated, ldap.ScopeWholeSubtree)
		requests.number(tagEnumerated, 0)
		requests.number(tagInteger, 0)
		requests.number(tagInteger, 0)
		requests.octets(tagBoolean, "\x00")
		requests.octets(tagPrimitive|ldap.FilterPresent, "objectClass")
		requests.end(requests.begin(tagSequence))
		requests.end(body)
		requests.end(search)
	}
	_, err = stalled.Write(requests.out)
	must(t, err)
	for d.Counters().Entries == 0 {
		runtime.Gosched() // until the server answers
	}
	d.stop() // must not wait for stalled clients
	if n := d.Counters().Searches; n == searches {
		t.Errorf("all %d searches were answered, want a stalled one", n)
	}
	if _, err := idle.Search(ldap.NewSearchRequest("", 0, 0, 0, 0, false, "(objectClass=*)", nil, nil)); err == nil {
		t.Error("search succeeded after the end of Serve")
	}
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, running := range []string{"domaincontroller.(*connection)", "domaincontroller.(*Server).accept"} {
		if strings.Contains(string(stacks), running) {
			t.Errorf("goroutine of %s is running", running)
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	for name, bytes := range map[string]string{
		"not LDAP":       "GET / HTTP/1.0\r\n\r\n",
		"no operation":   "\x30\x03\x02\x01\x01",
		"short bind":     "\x30\x05\x02\x01\x01\x60\x00",
		"short search":   "\x30\x05\x02\x01\x01\x63\x00",
		"empty extended": "\x30\x05\x02\x01\x01\x77\x00",
		"invalid filter": "\x30\x20\x02\x01\x01\x63\x1b\x04\x01x\x0a\x01\x02\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\xa9\x02\xa0\x00\x30\x00",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", d.plain)
			must(t, err)
			defer conn.Close()
			_, err = io.WriteString(conn, bytes)
			must(t, err)
			must(t, conn.(*net.TCPConn).CloseWrite())
			_, err = io.ReadAll(conn)
			must(t, err)
		})
	}
	d.bound(t) // the server still answers
}

func TestSeed(t *testing.T) {
	t.Parallel()
	options := Options{Users: 300, Groups: 30, Seed: 7, Now: func() time.Time { return testNow }}
	first := New(options)
	objects := first.Objects()
	last := objects[len(objects)-1]
	if o, err := first.Object(last.DN); err != nil || !reflect.DeepEqual(o, last) {
		t.Errorf("%+v, error %v, want %+v", o, err, last)
	}
	if _, err := first.Object("CN=Nobody," + first.Base()); err == nil {
		t.Error("found an object that does not exist")
	}
	if !reflect.DeepEqual(objects, New(options).Objects()) {
		t.Error("same seed, different directories")
	}
	options.Seed = 8
	if reflect.DeepEqual(objects, New(options).Objects()) {
		t.Error("different seeds, same directory")
	}
}
