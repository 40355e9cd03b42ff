// Package conformance is a table of LDAP requests with the answers of a domain controller.
// It tests both the sandbox's domain controller and Samba, so that the two answer alike.
//
// The answers are those of Active Directory (MS-ADTS). A case states where Samba answers
// differently, and why. The table does not check the order of entries. It does not check
// DSIDs, which are parts of error texts that change with each build of Windows.
package conformance

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

// Controller is a server under test.
type Controller struct {
	URL               string // of LDAP without TLS
	Base              string // naming context of the domain
	Account, Password string // DN of an account that may read, and the password
	ReadsDeleted      bool   // the account can read tombstones
	Samba             bool

	// Changes by an account with more rights.
	Add         func(dn string, attributes map[string][]string) error
	Delete      func(dn string) error
	SetPassword func(dn, password string) error
}

// UserPassword is the password of the accounts that bind.
const UserPassword = "Pw-1 known to the table"

// object is an object below the organizational unit of the test.
type object struct {
	rdn, class string
	attributes map[string][]string
	password   bool
}

// Values of userAccountControl.
const (
	plain    = "66080" // no password required, password never expires
	disabled = "66082"
)

var objects = []object{
	{rdn: "OU=Inner", class: "organizationalUnit"},
	{rdn: "CN=Ann", class: "user", attributes: map[string][]string{
		"sAMAccountName": {"tableann"}, "userAccountControl": {plain}, "mail": {"ann@example.com"}, "countryCode": {"9"},
		"accountExpires": {"134398063938451234"}, "title": {"Müllerin (temp)*"}, "proxyAddresses": {"SMTP:ann@example.com", "smtp:a@example.com"},
	}},
	{rdn: "CN=Bob", class: "user", attributes: map[string][]string{
		"sAMAccountName": {"tablebob"}, "userAccountControl": {disabled}, "mail": {"bob@example.com"}, "countryCode": {"10"}, "sn": {"Ördög"},
	}},
	{rdn: "CN=Cyd", class: "computer", attributes: map[string][]string{
		"sAMAccountName": {"TABLECYD$"}, "userAccountControl": {"4096"}, "description": {"one"},
	}},
	{rdn: "CN=Out", class: "contact", attributes: map[string][]string{"mail": {"out@example.net"}}},
	{rdn: "CN=Team", class: "group", attributes: map[string][]string{
		"sAMAccountName": {"tableteam"}, "groupType": {"-2147483646"}, "member": {"CN=Ann,{unit}", "CN=Bob,{unit}"},
	}},
	{rdn: "CN=Teams", class: "group", attributes: map[string][]string{
		"sAMAccountName": {"tableteams"}, "groupType": {"8"}, "member": {"CN=Team,{unit}"},
	}},
	{rdn: "CN=Local", class: "group", attributes: map[string][]string{"sAMAccountName": {"tablelocal"}, "groupType": {"-2147483644"}}},
	{rdn: `CN=Smith\, \"Joe\" \+ 1,OU=Inner`, class: "user", attributes: map[string][]string{"sAMAccountName": {"tablejoe"}, "userAccountControl": {plain}}},
	{rdn: "CN=Zoë Ångström,OU=Inner", class: "user", attributes: map[string][]string{"sAMAccountName": {"tablezoe"}, "userAccountControl": {plain}}},
	// Accounts that bind.
	{rdn: "OU=Binders", class: "organizationalUnit"},
	{rdn: "CN=Good,OU=Binders", class: "user", password: true, attributes: map[string][]string{"sAMAccountName": {"tablegood"}, "userAccountControl": {plain}, "userPrincipalName": {"table.good@example.net"}}},
	{rdn: "CN=Off,OU=Binders", class: "user", password: true, attributes: map[string][]string{"sAMAccountName": {"tableoff"}, "userAccountControl": {disabled}}},
	{rdn: "CN=Over,OU=Binders", class: "user", password: true, attributes: map[string][]string{"sAMAccountName": {"tableover"}, "userAccountControl": {plain}, "accountExpires": {"1234"}}},
	{rdn: "CN=Locked,OU=Binders", class: "user", password: true, attributes: map[string][]string{"sAMAccountName": {"tablelocked"}, "userAccountControl": {plain}}},
}

// deletedObject is deleted by Fill.
var deletedObject = object{rdn: "CN=Gone", class: "user", attributes: map[string][]string{
	"sAMAccountName": {"tablegone"}, "userAccountControl": {plain}, "title": {"x"},
}}

func (c Controller) unit() string { return "OU=Table," + c.Base }

// Fill creates the objects of the table.
func Fill(t *testing.T, c Controller) {
	t.Helper()
	must(t, c.Add(c.unit(), map[string][]string{"objectClass": {"organizationalUnit"}}))
	add := func(o object) string {
		t.Helper()
		attributes := map[string][]string{"objectClass": {o.class}}
		for name, values := range o.attributes {
			for _, value := range values {
				attributes[name] = append(attributes[name], strings.ReplaceAll(value, "{unit}", c.unit()))
			}
		}
		dn := o.rdn + "," + c.unit()
		must(t, c.Add(dn, attributes))
		if o.password {
			must(t, c.SetPassword(dn, UserPassword))
		}
		return dn
	}
	for _, o := range objects {
		add(o)
	}
	must(t, c.Delete(add(deletedObject)))
	// The number exceeds the lockout threshold.
	locked := c.dial(t)
	for range 10 {
		if err := locked.Bind("CN=Locked,OU=Binders,"+c.unit(), "wrong"); err == nil {
			t.Fatal("bind with a wrong password succeeded")
		}
	}
}

// Run tests the server. Fill must be called before.
func Run(t *testing.T, c Controller) {
	conn := c.bound(t)
	names := c.placeholders(t, conn)
	for _, r := range searches {
		t.Run(r.name, func(t *testing.T) {
			want := r.want
			if r.withoutRight != nil && !c.ReadsDeleted {
				want = *r.withoutRight
			}
			if r.samba != nil && c.Samba {
				want = *r.samba
			}
			if r.sambaSkip != "" && c.Samba {
				t.Skip(r.sambaSkip)
			}
			conn := conn
			if r.unbound {
				conn = c.dial(t)
			}
			check(t, want, names, func() (*ldap.SearchResult, error) { return conn.Search(r.request(names)) })
		})
	}
	for _, b := range binds {
		t.Run("bind/"+b.name, func(t *testing.T) {
			want := b.want
			if b.samba != nil && c.Samba {
				want = *b.samba
			}
			check(t, want, names, func() (*ldap.SearchResult, error) {
				conn := c.dial(t)
				if b.password == "" {
					return &ldap.SearchResult{}, conn.UnauthenticatedBind(names.Replace(b.bindName))
				}
				return &ldap.SearchResult{}, conn.Bind(names.Replace(b.bindName), b.password)
			})
		})
	}
	t.Run("paging", func(t *testing.T) { paging(t, c, names) })
	t.Run("rootDSE", func(t *testing.T) { rootDSE(t, c, conn) })
	t.Run("changes", func(t *testing.T) { changes(t, c, conn) })
}

// searchCase is a search with its answer. Texts contain placeholders: {unit} is the DN of
// the organizational unit, {base} that of the domain, and {Ann.guid} a value of an object.
type searchCase struct {
	name         string
	base         string // "": {unit}
	scope        int
	filter       string // "": (objectClass=*)
	attributes   []string
	controls     []ldap.Control
	sizeLimit    int
	typesOnly    bool
	unbound      bool
	want         answer
	withoutRight *answer // for an account that cannot read tombstones, if different
	samba        *answer // of Samba, if different
	sambaReason  string  // for the difference
	sambaSkip    string  // reason why Samba cannot be tested
}

// answer is the result of a request.
type answer struct {
	code     uint16
	text     string // a regular expression
	matched  string // matchedDN of an error
	names    []string
	count    int                 // number of entries, if names are not checked
	values   map[string][]string // of the only entry; nil: the attribute must be absent
	referral bool                // to a subordinate naming context
}

func (r searchCase) request(names *strings.Replacer) *ldap.SearchRequest {
	base, filter := r.base, r.filter
	if base == "" {
		base = "{unit}"
	}
	if base == rootBase {
		base = ""
	}
	if filter == "" {
		filter = "(objectClass=*)"
	}
	return ldap.NewSearchRequest(names.Replace(base), r.scope, ldap.NeverDerefAliases, r.sizeLimit, 0, r.typesOnly, names.Replace(filter), r.attributes, r.controls)
}

// rootBase represents an empty base DN.
const rootBase = "{empty}"

// check compares an answer with the expected one.
func check(t *testing.T, want answer, names *strings.Replacer, send func() (*ldap.SearchResult, error)) {
	t.Helper()
	found, err := send()
	var refused *ldap.Error
	switch {
	case err != nil && !errors.As(err, &refused):
		t.Fatal(err)
	case err != nil && refused.ResultCode != want.code, err == nil && want.code != 0:
		t.Fatalf("got %v, want code %d", err, want.code)
	case err != nil:
		if text := strings.TrimRight(refused.Err.Error(), "\x00"); !regexp.MustCompile(names.Replace(want.text)).MatchString(text) {
			t.Errorf("text %q, want a match of %q", text, want.text)
		}
		if matched := names.Replace(want.matched); !strings.EqualFold(refused.MatchedDN, matched) {
			t.Errorf("matched %q, want %q", refused.MatchedDN, matched)
		}
	}
	var got []string
	if found != nil {
		for _, entry := range found.Entries {
			got = append(got, nameOf(entry))
		}
		if referral := len(found.Referrals) > 0; referral != want.referral {
			t.Errorf("referrals %q", found.Referrals)
		}
	}
	slices.Sort(got)
	if wanted := slices.Sorted(slices.Values(want.names)); want.values == nil && want.count == 0 && !slices.Equal(got, wanted) {
		t.Errorf("got %q, want %q", got, wanted)
	}
	if want.count > 0 && len(got) != want.count {
		t.Errorf("got %q, want %d entries", got, want.count)
	}
	if want.values == nil {
		return
	}
	if len(got) != 1 {
		t.Fatalf("got %q, want one entry", got)
	}
	for _, attribute := range slices.Sorted(maps.Keys(want.values)) {
		var wanted []string
		for _, value := range want.values[attribute] {
			wanted = append(wanted, names.Replace(value))
		}
		got := found.Entries[0].GetAttributeValues(attribute)
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(wanted))) && !(len(got) == 1 && len(wanted) == 1 && matches(wanted[0], got[0])) {
			t.Errorf("%s: %q, want %q", attribute, got, wanted)
		}
		if present := slices.ContainsFunc(found.Entries[0].Attributes, func(a *ldap.EntryAttribute) bool { return a.Name == attribute }); len(wanted) == 0 && present && want.values[attribute] == nil {
			t.Errorf("%s: unexpected attribute", attribute)
		}
	}
	if want.names != nil { // here the names of all attributes
		var present []string
		for _, attribute := range found.Entries[0].Attributes {
			present = append(present, attribute.Name)
		}
		if slices.Sort(present); !slices.Equal(present, slices.Sorted(slices.Values(want.names))) {
			t.Errorf("attributes %q, want %q", present, want.names)
		}
	}
}

// matches reports whether a value matches an expected value in slashes, which is a regular
// expression.
func matches(want, got string) bool {
	expression, ok := strings.CutPrefix(want, "/")
	return ok && regexp.MustCompile("^(?:"+strings.TrimSuffix(expression, "/")+")$").MatchString(got)
}

// nameOf returns the value of the RDN of an entry.
func nameOf(entry *ldap.Entry) string {
	dn, err := ldap.ParseDN(entry.DN)
	if err != nil || len(dn.RDNs) == 0 {
		return entry.DN
	}
	return dn.RDNs[0].Attributes[0].Value
}

// placeholders returns the replacements for the placeholders of texts.
func (c Controller) placeholders(t *testing.T, conn *ldap.Conn) *strings.Replacer {
	t.Helper()
	pairs := []string{"{unit}", c.unit(), "{base}", c.Base, "{deleted}", "CN=Deleted Objects," + c.Base}
	for _, name := range []string{"Ann", "Team"} {
		found, err := conn.Search(ldap.NewSearchRequest("CN="+name+","+c.unit(), ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)",
			[]string{"objectGUID", "objectSid", "uSNChanged", "pwdLastSet"}, nil))
		if err != nil || len(found.Entries) != 1 {
			t.Fatalf("%s: %v, %v", name, found, err)
		}
		entry := found.Entries[0]
		guid, sid := entry.GetRawAttributeValue("objectGUID"), entry.GetRawAttributeValue("objectSid")
		parsed, ok := ad.ParseSID(sid)
		if !ok || len(guid) != 16 {
			t.Fatalf("%s: objectSid %x, objectGUID %x", name, sid, guid)
		}
		pairs = append(pairs,
			"{"+name+".guid}", ldap.EscapeFilter(string(guid)), "{"+name+".guidtext}", ad.GUID(guid).String(), "{"+name+".guidhex}", fmt.Sprintf("%x", guid),
			"{"+name+".sid}", ldap.EscapeFilter(string(sid)), "{"+name+".sidtext}", parsed.String(),
			"{"+name+".usn}", entry.GetAttributeValue("uSNChanged"))
	}
	return strings.NewReplacer(pairs...)
}

func (c Controller) dial(t *testing.T) *ldap.Conn {
	t.Helper()
	conn, err := ldap.DialURL(c.URL)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (c Controller) bound(t *testing.T) *ldap.Conn {
	t.Helper()
	conn := c.dial(t)
	must(t, conn.Bind(c.Account, c.Password))
	return conn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
