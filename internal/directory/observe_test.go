package directory

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
	"adconnector/test/ports"
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

	refusing := fakeldap.Serve(t, nil, fakeldap.RefuseBind(49, "data 52e"))
	o = options(refusing)
	o.Observe = observe
	_, err := Connect(t.Context(), o)
	wantFailure(t, err, bindTo(refusing, fault.Refused), errBind, "ldap.password")
	expect("a refused bind", "connect done", "bind refused")

	o.Port = ports.Refusing(t)
	_, err = Connect(t.Context(), o)
	wantFailure(t, err, fault.Error{Class: fault.Transient, Op: "connect", Object: fmt.Sprintf("127.0.0.1:%d (LDAP)", o.Port)}, syscall.ECONNREFUSED, "ldap.port")
	expect("nobody there", "connect transient")
}
