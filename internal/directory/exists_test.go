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
		entries []int // of each page
		code    int   // of the last one
		found   bool
		class   fault.Class
	}{
		{"the only entry", []int{1}, ldap.LDAPResultSuccess, true, fault.Done},
		{"one of several entries", []int{1}, ldap.LDAPResultSizeLimitExceeded, true, fault.Done},
		{"first page", []int{1, 1}, ldap.LDAPResultSuccess, true, fault.Done},
		{"empty pages before an entry", []int{0, 0, 1}, ldap.LDAPResultSuccess, true, fault.Done},
		{"empty pages only", []int{0, 0, 0}, ldap.LDAPResultSuccess, false, fault.Done},
		{"empty pages without end", make([]int, maxPagesWithoutNew+1), ldap.LDAPResultSuccess, false, fault.Incomplete},
		{"no entry", []int{0}, ldap.LDAPResultSuccess, false, fault.Done},
		{"more entries than requested", []int{2}, ldap.LDAPResultSuccess, true, fault.Done},
		{"size limit without an entry", []int{0}, ldap.LDAPResultSizeLimitExceeded, false, fault.Incomplete},
		{"time limit", []int{0}, ldap.LDAPResultTimeLimitExceeded, false, fault.Incomplete},
		{"entry before an error", []int{1}, ldap.LDAPResultBusy, false, fault.Transient},
		{"no such base", []int{0}, ldap.LDAPResultNoSuchObject, false, fault.Refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var requests []fakeldap.Request
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				page := len(requests)
				requests = append(requests, r)
				for range test.entries[page] {
					p.Send(entry.Message(r.ID))
				}
				if page < len(test.entries)-1 {
					return p.Send(fakeldap.Done(r.ID, ldap.LDAPResultSuccess, fakeldap.Paging("next")))
				}
				return p.Send(fakeldap.Done(r.ID, test.code))
			}))
			session := connect(t, options(server))
			var classes []fault.Class
			session.options.OnRequest = func(_ string, class fault.Class, _ time.Duration) { classes = append(classes, class) }
			found, err := session.Exists(t.Context(), Search{Base: "DC=corp", Scope: Subtree, Filter: "(mail=*)", ShowDeleted: true})
			if found != test.found || fault.ClassOf(err) != test.class || len(classes) != len(requests) {
				t.Errorf("found %t, error %v, observed %v", found, err, classes)
			}
			if last := classes[len(classes)-1]; last != test.class && len(requests) < maxPagesWithoutNew {
				t.Errorf("observed %v", classes)
			}
			request := requests[len(requests)-1]
			if more := len(requests) > 1; (string(request.Cookie) == "next") != more {
				t.Errorf("cookie %q of %d requests", request.Cookie, len(requests))
			}
			if request.SizeLimit != 1 || request.PageSize != 1 || !slices.Equal(request.Attributes, []string{"1.1"}) || request.Filter != "(mail=*)" ||
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
