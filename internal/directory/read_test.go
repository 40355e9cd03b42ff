package directory

import (
	"errors"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestMissingObject checks that Read returns ErrNoSuchObject without a remedy, and InvocationID
// with one.
func TestMissingObject(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		return p.Send(fakeldap.Result(r.ID, ldap.ApplicationSearchResultDone, ldap.LDAPResultNoSuchObject, "CN=Sites", ""))
	}))
	session := connect(t, options(server))
	for _, test := range []struct {
		name   string
		object string
		read   func() error
		remedy []string
	}{
		{"invocation ID", "invocation ID", func() error { _, err := session.InvocationID(t.Context()); return err }, []string{session.RootDSE.DSServiceName}},
		{"object", "CN=x", func() error { _, err := session.Read(t.Context(), "CN=x", "cn"); return err }, nil},
	} {
		err := test.read()
		wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "read", Object: test.object + " on " + address(server)}, ErrNoSuchObject, test.remedy...)
		if result := wantResult(t, err, ldap.LDAPResultNoSuchObject); result.matched != "CN=Sites" {
			t.Errorf("%s: matched DN %q", test.name, result.matched)
		}
	}
}

func TestUnreadableInvocationID(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		return p.Send(fakeldap.NewEntry(r.Base).Message(r.ID), fakeldap.Done(r.ID, 0))
	}))
	session := connect(t, options(server))
	_, err := session.InvocationID(t.Context())
	wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "read", Object: "invocation ID on " + address(server)}, errNoReadAccess, session.RootDSE.DSServiceName)
}

// TestOnReceive checks that all received bytes are reported.
func TestOnReceive(t *testing.T) {
	t.Parallel()
	entry := fakeldap.NewEntry("CN=a", []string{"cn", "a"})
	want := len(fakeldap.Result(1, ldap.ApplicationBindResponse, 0, "", "")) + len(fakeldap.RootDSE(2)) + len(fakeldap.Done(2, 0)) +
		len(entry.Message(3)) + len(fakeldap.Done(3, 0, fakeldap.Paging("")))
	o := options(fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		return p.Send(entry.Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	})))
	received := 0
	o.OnReceive = func(bytes int) { received += bytes }
	session := connect(t, o)
	if _, err := session.Search(t.Context(), userSearch, func(*ad.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if received != want {
		t.Errorf("%d bytes, want %d", received, want)
	}
}

// TestResultErrorText checks the text of results with and without a name and a reason.
func TestResultErrorText(t *testing.T) {
	t.Parallel()
	for want, result := range map[string]*resultError{
		"LDAP result 51 (busy): try later": {code: 51, reason: "try later"},
		"LDAP result 51 (busy)":            {code: 51},
		"LDAP result 199: x":               {code: 199, reason: "x"},
		"LDAP result 199":                  {code: 199},
		"LDAP result 32 (no such object): missing (closest existing object: DC=corp)": {code: 32, reason: "missing", kind: ErrNoSuchObject, matched: "DC=corp"},
	} {
		if got := result.Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if result.kind != nil && !errors.Is(result, result.kind) {
			t.Errorf("%q does not wrap %v", want, result.kind)
		}
	}
}
