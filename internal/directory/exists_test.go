package directory

import (
	"slices"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestExists checks the request, and what each response means.
func TestExists(t *testing.T) {
	t.Parallel()
	entry := fakeldap.NewEntry("CN=a")
	for _, test := range []struct {
		name    string
		entries int
		code    int
		found   bool
		class   fault.Class
	}{
		{"the only entry", 1, ldap.LDAPResultSuccess, true, fault.Done},
		{"one of several entries", 1, ldap.LDAPResultSizeLimitExceeded, true, fault.Done},
		{"no entry", 0, ldap.LDAPResultSuccess, false, fault.Done},
		{"more entries than requested", 2, ldap.LDAPResultSuccess, true, fault.Done},
		{"size limit without an entry", 0, ldap.LDAPResultSizeLimitExceeded, false, fault.Incomplete},
		{"time limit", 0, ldap.LDAPResultTimeLimitExceeded, false, fault.Incomplete},
		{"entry before an error", 1, ldap.LDAPResultBusy, false, fault.Transient},
		{"no such base", 0, ldap.LDAPResultNoSuchObject, false, fault.Refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var request fakeldap.Request
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				request = r
				for range test.entries {
					p.Send(entry.Message(r.ID))
				}
				return p.Send(fakeldap.Done(r.ID, test.code))
			}))
			session := connect(t, options(server))
			var classes []fault.Class
			session.options.OnRequest = func(_ string, class fault.Class, _ time.Duration) { classes = append(classes, class) }
			found, err := session.Exists(t.Context(), Search{Base: "DC=corp", Scope: Subtree, Filter: "(mail=*)", ShowDeleted: true})
			if found != test.found || fault.ClassOf(err) != test.class || len(classes) != 1 || classes[0] != test.class {
				t.Errorf("found %t, error %v, observed %v", found, err, classes)
			}
			if request.SizeLimit != 1 || request.Paged || !slices.Equal(request.Attributes, []string{"1.1"}) || request.Filter != "(mail=*)" ||
				!slices.Contains(request.Controls, controlDomainScope) || !slices.Contains(request.Controls, controlShowDeleted) {
				t.Errorf("request %+v", request)
			}
		})
	}
	server := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	if _, err := connect(t, options(server)).Exists(t.Context(), Search{Base: "DC=corp", Filter: "(mail="}); fault.ClassOf(err) != fault.Refused {
		t.Errorf("invalid filter: %v", err)
	}
}
