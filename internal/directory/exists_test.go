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

// TestCount checks that the entries of several pages count up to the limit.
func TestCount(t *testing.T) {
	t.Parallel()
	entry := fakeldap.NewEntry("CN=a")
	for name, c := range map[string]struct {
		pages []int
		code  int // of the last one
		want  int
		class fault.Class
	}{
		"fewer than the limit":            {[]int{2}, ldap.LDAPResultSuccess, 2, fault.Done},
		"none":                            {[]int{0}, ldap.LDAPResultSuccess, 0, fault.Done},
		"more than the limit":             {[]int{3}, ldap.LDAPResultSizeLimitExceeded, 3, fault.Done},
		"page without entries in between": {[]int{1, 0, 1}, ldap.LDAPResultSuccess, 2, fault.Done},
		"last page not requested":         {[]int{2, 2, 1}, ldap.LDAPResultSuccess, 3, fault.Done},
		"fewer, but a size limit":         {[]int{1}, ldap.LDAPResultSizeLimitExceeded, 0, fault.Incomplete},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			page := 0
			server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				if r.SizeLimit != 3 || r.PageSize != 3 {
					t.Errorf("request %+v", r)
				}
				for range c.pages[page] {
					p.Send(entry.Message(r.ID))
				}
				if page++; page < len(c.pages) {
					return p.Send(fakeldap.Done(r.ID, ldap.LDAPResultSuccess, fakeldap.Paging("next")))
				}
				return p.Send(fakeldap.Done(r.ID, c.code))
			}))
			n, err := connect(t, options(server)).Count(t.Context(), Search{Base: "DC=corp", Filter: "(mail=*)"}, 3)
			if n != c.want || fault.ClassOf(err) != c.class {
				t.Errorf("%d entries, error %v", n, err)
			}
		})
	}
}
