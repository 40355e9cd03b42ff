package domaincontroller_test

import (
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/secret"
)

// TestConnector reads all users and groups with the connector's LDAP client, over each
// protocol.
func TestConnector(t *testing.T) {
	t.Parallel()
	const (
		password = "c0rrect horse"
		users    = "(sAMAccountType=805306368)"
		groups   = "(objectClass=group)"
	)
	d := domaincontroller.New(domaincontroller.Options{Users: 1200, Groups: 120, Password: password})
	listen := func() net.Listener {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return listener
	}
	plain, secure := listen(), listen()
	served := make(chan error, 1)
	go func() { served <- d.Serve(t.Context(), plain, secure) }()
	t.Cleanup(func() { <-served })
	want := map[string]map[string]string{users: {}, groups: {}}
	var highest ad.USN
	for _, o := range d.Objects() {
		usn, _ := ad.ParseUSN([]byte(o.First("uSNChanged")))
		highest = max(highest, usn)
		switch o.First("sAMAccountType") {
		case "805306368":
			want[users][o.First("objectGUID")] = o.First("name")
		case "268435456", "268435457", "536870912", "536870913":
			want[groups][o.First("objectGUID")] = o.First("name")
		}
	}
	block, _ := pem.Decode(d.CertificatePEM())
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for protocol, listener := range map[directory.Protocol]net.Listener{directory.LDAP: plain, directory.StartTLS: plain, directory.LDAPS: secure} {
		t.Run(string(protocol), func(t *testing.T) {
			session, err := directory.Connect(t.Context(), directory.Options{
				Protocol: protocol, Hosts: []string{"127.0.0.1"}, Port: listener.Addr().(*net.TCPAddr).Port,
				BindDN: d.BindDN(), Password: secret.New(password), Certificates: []*x509.Certificate{certificate},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer session.Close()
			if !session.RootDSE.IsDomainController() || session.RootDSE.HighestCommittedUSN != highest {
				t.Errorf("rootDSE %+v", session.RootDSE)
			}
			for filter, objects := range want {
				found := map[string]string{}
				pages, err := session.Search(t.Context(), directory.Search{
					Base: session.RootDSE.DefaultNamingContext, Scope: directory.Subtree, Filter: filter, Attributes: []string{"objectGUID", "NAME"},
				}, func(entry *ad.Entry) error {
					found[string(entry.First(0))] = string(entry.First(1))
					return nil
				})
				if err != nil || !maps.Equal(found, objects) || pages != len(objects)/1000+1 {
					t.Errorf("%s: %d objects in %d pages, error %v; want %d objects", filter, len(found), pages, err, len(objects))
				}
			}
		})
	}
}
