package directory

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestProbe: the certificate is told whether it is trusted or not, and nobody binds.
func TestProbe(t *testing.T) {
	t.Parallel()
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	other := issueCA(t, "another")
	never := func(p *fakeldap.Peer) {
		if r, ok := p.Receive(); ok {
			t.Errorf("a request: %+v", r)
		}
	}
	secure, plain, starts := fakeldap.Serve(t, self.config(), never), fakeldap.Serve(t, nil, never), fakeldap.Serve(t, nil, fakeldap.StartTLS(self.config(), never))
	for name, c := range map[string]struct {
		server   *fakeldap.Listener
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
		o := options(c.server)
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
		if !got.Reached || seen != c.seen || got.Given != (c.given == self.Certificate && c.seen) || got.Host != c.server.Host || got.Port != c.server.Port {
			t.Errorf("%s: %+v", name, got)
		}
		if (got.Err == nil) != (c.class == "") || got.Err != nil && fault.ClassOf(got.Err) != c.class {
			t.Errorf("%s: error %v", name, got.Err)
		}
	}
	for _, server := range []*fakeldap.Listener{secure, plain, starts} {
		if n := server.Binds(); n != 0 {
			t.Errorf("%d binds", n)
		}
	}
}
