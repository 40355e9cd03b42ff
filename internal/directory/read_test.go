package directory

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestMissingObject checks that Read returns ErrNoSuchObject without a remedy.
func TestMissingObject(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(refuseSearch(ldap.LDAPResultNoSuchObject)))
	_, err := connect(t, options(server)).Read(t.Context(), "CN=x", "cn")
	wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "read", Object: "CN=x on " + address(server)}, ErrNoSuchObject)
	if result := wantResult(t, err, ldap.LDAPResultNoSuchObject); result.matched != "CN=Sites" {
		t.Errorf("matched DN %q", result.matched)
	}
}

// TestOnProgress checks that new entries, pages, and the end of a search are progress, and that
// pages are none after maxProgressPages consecutive ones without a new entry.
func TestOnProgress(t *testing.T) {
	t.Parallel()
	const repeated = maxProgressPages + 20 // pages without a new entry
	first, second, third := fakeldap.NewEntry("CN=a"), fakeldap.NewEntry("CN=b"), fakeldap.NewEntry("CN=c")
	progress := atomic.Int64{}
	var before []int64 // progress before each page
	o := options(fakeldap.Serve(t, nil, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		before = append(before, progress.Load())
		next := fakeldap.Done(r.ID, 0, fakeldap.Paging("next"))
		switch len(before) - 1 {
		case 0:
			return p.Send(first.Message(r.ID), second.Message(r.ID), next)
		case repeated + 1:
			return p.Send(third.Message(r.ID), next)
		case repeated + 2: // empty
			return p.Send(next)
		case repeated + 3:
			return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
		}
		return p.Send(first.Message(r.ID), next)
	})))
	o.OnProgress = func() { progress.Add(1) }
	session := connect(t, o)
	if _, err := session.Search(t.Context(), userSearch, func(*ad.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	want := []int64{0}
	for page := range repeated + 1 { // the first page has two new entries
		want = append(want, 3+min(int64(page), maxProgressPages))
	}
	last := want[len(want)-1]
	want = append(want, last+2, last+3) // a new entry and its page, an empty page
	if !slices.Equal(before, want) || progress.Load() != last+4 {
		t.Errorf("progress %v and %d at the end, want %v and %d", before, progress.Load(), want, last+4)
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
