package directory

import (
	"slices"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestLocate checks the request, and what each response means.
func TestLocate(t *testing.T) {
	t.Parallel()
	const dn = `CN=Kov\C3\A1cs\, Alice,OU=Staff,DC=corp`
	for _, test := range []struct {
		name       string
		attributes [][]string
		entries    int
		code       int
		found      bool
		class      fault.Class
		readable   []string
	}{
		{"readable", [][]string{{"name", "Alice"}, {"OBJECTSID", "x"}}, 1, ldap.LDAPResultSuccess, true, fault.Done, []string{"name", "objectSid"}},
		{"partly readable", [][]string{{"name", "Alice"}, {"objectSid"}}, 1, ldap.LDAPResultSuccess, true, fault.Done, []string{"name"}},
		{"unreadable", nil, 1, ldap.LDAPResultSuccess, true, fault.Done, nil},
		{"no such object", nil, 0, ldap.LDAPResultNoSuchObject, false, fault.Done, nil},
		{"no entry", nil, 0, ldap.LDAPResultSuccess, false, fault.Done, nil},
		{"busy", nil, 0, ldap.LDAPResultBusy, false, fault.Transient, nil},
		{"unavailable", nil, 1, ldap.LDAPResultUnavailable, false, fault.Transient, nil},
		{"invalid base", nil, 0, ldap.LDAPResultInvalidDNSyntax, false, fault.Refused, nil},
		{"refused", nil, 0, ldap.LDAPResultInsufficientAccessRights, true, fault.Done, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var request fakeldap.Request
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				request = r
				for range test.entries {
					p.Send(fakeldap.NewEntry(dn, test.attributes...).Message(r.ID))
				}
				return p.Send(fakeldap.Done(r.ID, test.code))
			}))
			session := connect(t, options(server))
			var classes []fault.Class
			session.options.OnRequest = func(_ string, class fault.Class, _ time.Duration) { classes = append(classes, class) }
			l, found, err := session.Locate(t.Context(), "<GUID=x>", "name", "objectSid")
			if found != test.found || fault.ClassOf(err) != test.class || len(classes) != 1 || classes[0] != test.class {
				t.Errorf("found %t, error %v, observed %v", found, err, classes)
			}
			var readable []string
			for _, name := range []string{"name", "objectSid"} {
				if l.Attributes.First(name) != nil {
					readable = append(readable, name)
				}
			}
			if found && test.entries > 0 && l.DN != dn || test.entries == 0 && l.DN != "" || !slices.Equal(readable, test.readable) {
				t.Errorf("DN %s, readable %v", l.DN, readable)
			}
			if request.Base != "<GUID=x>" || request.Scope != ldap.ScopeBaseObject || request.Filter != anyObject || request.Paged ||
				!slices.Equal(request.Attributes, []string{"name", "objectSid"}) {
				t.Errorf("request %+v", request)
			}
		})
	}
}

// TestBases checks the bases that name an object by an identifier.
func TestBases(t *testing.T) {
	t.Parallel()
	guid, _ := ad.ParseGUID([]byte("\xb0\xa9\x23\x23\x59\x6c\xd2\x4b\x9e\x86\xee\xc4\xd7\x3a\x8b\x8d"))
	sid, _ := ad.ParseSID([]byte("\x01\x02\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x20\x02\x00\x00"))
	if got, want := BaseOfGUID(guid)+BaseOfSID(sid), "<GUID=2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d><SID=S-1-5-32-544>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
