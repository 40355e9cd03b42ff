package domaincontroller_test

import (
	"fmt"
	"net"
	"testing"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/test/conformance"
)

// TestConformance runs the table of package conformance. Package test/samba runs it with
// Samba.
func TestConformance(t *testing.T) {
	t.Parallel()
	for _, readsDeleted := range []bool{true, false} {
		t.Run(fmt.Sprintf("reads deleted %t", readsDeleted), func(t *testing.T) {
			const password = "c0rrect horse"
			d := domaincontroller.New(domaincontroller.Options{Password: password, ReadsDeleted: readsDeleted})
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- d.Serve(t.Context(), listener, nil) }()
			t.Cleanup(func() { <-served })
			c := conformance.Controller{
				URL: "ldap://" + listener.Addr().String(), Base: d.Base(), Account: d.BindDN(), Password: password, ReadsDeleted: readsDeleted,
				Add: func(dn string, attributes map[string][]string) error {
					return d.Add(domaincontroller.Object{DN: dn, Attributes: attributes})
				},
				Delete:      d.Delete,
				SetPassword: d.SetPassword,
			}
			conformance.Fill(t, c)
			conformance.Run(t, c)
		})
	}
}
