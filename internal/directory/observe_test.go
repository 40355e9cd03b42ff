package directory

import (
	"slices"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/deadport"
	"adconnector/test/fakeldap"
)

// TestObserve: every request is told of, and how it ended.
func TestObserve(t *testing.T) {
	t.Parallel()
	var seen []string
	observe := func(request string, class fault.Class, _ time.Duration) {
		seen = append(seen, request+" "+string(class))
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(seen, want) {
			t.Errorf("%s: seen %v, want %v", what, seen, want)
		}
		seen = nil
	}
	o := options(fakeldap.Serve(t, nil, fakeldap.Directory(fakeldap.Pages(nil, nil))))
	o.Observe = observe
	session := connect(t, o)
	if _, err := session.Search(t.Context(), Search{Base: "DC=corp", Filter: "(a=b)"}, func(*ad.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	expect("two pages", "connect done", "bind done", "read done", "search done", "search done")

	o = options(fakeldap.Serve(t, nil, fakeldap.RefuseBind(49, "data 52e")))
	o.Observe = observe
	_, err := Connect(t.Context(), o)
	wantError(t, err, fault.Refused, "wrong password")
	expect("a refused bind", "connect done", "bind refused")

	o.Port = deadport.New(t)
	_, err = Connect(t.Context(), o)
	wantError(t, err, fault.Transient, "refused")
	expect("nobody there", "connect transient")
}
