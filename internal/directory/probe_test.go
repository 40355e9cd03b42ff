package directory

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"adconnector/internal/fault"
)

// TestProbe: the certificate is told whether it is trusted or not, and nobody binds.
func TestProbe(t *testing.T) {
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	other := issueCA(t, "another")
	never := func(p *peer) {
		if r, ok := p.receive(); ok {
			t.Errorf("a request: %+v", r)
		}
	}
	secure, plain, starts := serve(t, self.config(), never), serve(t, nil, never), serve(t, nil, startTLS(self.config(), never))
	for name, c := range map[string]struct {
		server   *fakeServer
		protocol Protocol
		given    *x509.Certificate
		seen     bool
		class    fault.Class
	}{
		"plain":             {plain, LDAP, nil, false, ""},
		"LDAPS":             {secure, LDAPS, self.Certificate, true, ""},
		"StartTLS":          {starts, StartTLS, self.Certificate, true, ""},
		"LDAPS not trusted": {secure, LDAPS, other.Certificate, true, fault.Refused},
	} {
		o := c.server.options()
		o.Protocol = c.protocol
		if c.given != nil {
			o.Certificates = []*x509.Certificate{c.given}
		}
		contacts := Probe(t.Context(), o)
		if len(contacts) != 1 {
			t.Fatalf("%s: %d contacts", name, len(contacts))
		}
		got := contacts[0]
		seen := got.Certificate != nil && got.Certificate.Equal(self.Certificate) && got.Version == tls.VersionTLS13
		if !got.Reached || seen != c.seen || got.Given != (c.given == self.Certificate && c.seen) || got.Host != c.server.host || got.Port != c.server.port {
			t.Errorf("%s: %+v", name, got)
		}
		if (got.Err == nil) != (c.class == "") || got.Err != nil && fault.Of(got.Err) != c.class {
			t.Errorf("%s: error %v", name, got.Err)
		}
	}
	for _, server := range []*fakeServer{secure, plain, starts} {
		if n := server.binds.Load(); n != 0 {
			t.Errorf("%d binds", n)
		}
	}
}
