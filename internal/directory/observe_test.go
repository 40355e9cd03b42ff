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

// TestOnRequest checks that every request is reported with its class.
func TestOnRequest(t *testing.T) {
	t.Parallel()
	var requests []string
	observe := func(request string, class fault.Class, _ time.Duration) {
		requests = append(requests, request+" "+string(class))
	}
	expect := func(name string, want ...string) {
		t.Helper()
		if !slices.Equal(requests, want) {
			t.Errorf("%s: requests %v, want %v", name, requests, want)
		}
		requests = nil
	}
	o := options(fakeldap.Serve(t, nil, fakeldap.Directory(fakeldap.Pages(nil, nil))))
	o.OnRequest = observe
	session := connect(t, o)
	if _, err := session.Search(t.Context(), Search{Base: "DC=corp", Filter: "(a=b)"}, func(*ad.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	expect("two pages", "connect done", "bind done", "read done", "read done", "search done", "search done")

	refusing := fakeldap.Serve(t, nil, fakeldap.RefuseBind(49, "data 52e"))
	o = options(refusing)
	o.OnRequest = observe
	_, err := Connect(t.Context(), o)
	wantFailure(t, err, bindFault(refusing, fault.Refused), ErrBindRefused, "ldap.password")
	expect("refused bind", "connect done", "bind refused")

	o.Port = ports.Refusing(t)
	_, err = Connect(t.Context(), o)
	wantFailure(t, err, fault.Error{Class: fault.Transient, Op: "connect", Object: fmt.Sprintf("127.0.0.1:%d (LDAP)", o.Port)}, syscall.ECONNREFUSED, "ldap.port")
	expect("refused connection", "connect transient")
}
