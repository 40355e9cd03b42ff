package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"slices"
	"testing"

	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestProbe checks that the certificate is returned whether it is trusted or not, and that
// no request is sent.
func TestProbe(t *testing.T) {
	t.Parallel()
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	other := issueCA(t, "another")
	rejectRequests := func(p *fakeldap.Peer) {
		if r, ok := p.Receive(); ok {
			t.Errorf("request %+v", r)
		}
	}
	plain, ldaps := fakeldap.Serve(t, nil, rejectRequests), fakeldap.Serve(t, self.config(), rejectRequests)
	startTLS := fakeldap.Serve(t, nil, fakeldap.StartTLS(self.config(), rejectRequests))
	for name, c := range map[string]struct {
		server          *fakeldap.Listener
		protocol        Protocol
		configured      *x509.Certificate
		wantCertificate bool
		class           fault.Class
	}{
		"plain":             {plain, LDAP, nil, false, ""},
		"LDAPS":             {ldaps, LDAPS, self.Certificate, true, ""},
		"StartTLS":          {startTLS, StartTLS, self.Certificate, true, ""},
		"LDAPS not trusted": {ldaps, LDAPS, other.Certificate, true, fault.Refused},
	} {
		o := options(c.server)
		o.Protocol = c.protocol
		if c.configured != nil {
			o.Certificates = []*x509.Certificate{c.configured}
		}
		results, err := Probe(t.Context(), o)
		if err != nil || len(results) != 1 {
			t.Fatalf("%s: %d results, %v", name, len(results), err)
		}
		got := results[0]
		hasCertificate := got.Certificate != nil && got.Certificate.Equal(self.Certificate) && got.TLSVersion == tls.VersionTLS13
		if !got.Connected || hasCertificate != c.wantCertificate || got.Pinned != (c.configured == self.Certificate && c.wantCertificate) || got.Host != c.server.Host || got.Port != c.server.Port {
			t.Errorf("%s: %+v", name, got)
		}
		if (got.Err == nil) != (c.class == "") || got.Err != nil && fault.ClassOf(got.Err) != c.class {
			t.Errorf("%s: error %v", name, got.Err)
		}
	}
	for _, server := range []*fakeldap.Listener{plain, ldaps, startTLS} {
		if n := server.Binds(); n != 0 {
			t.Errorf("%d binds, want 0", n)
		}
	}
}

// TestProbeOfSeveralAddresses checks that each of several addresses of a name has a result. A
// single address has none.
func TestProbeOfSeveralAddresses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		addresses []string
		want      []string
	}{
		{[]string{"127.0.0.1"}, []string{"dc.corp.test:389"}},
		{[]string{"127.0.0.1", "127.0.0.2"}, []string{"dc.corp.test:389 (127.0.0.1)", "dc.corp.test:389 (127.0.0.2)"}},
	} {
		server := fakeldap.Pipe(t, nil, fakeldap.Directory(nil))
		o := Options{Hosts: []string{"dc.corp.test"}, dialContext: server.Dial}
		o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) { return "", nil, nil }
		o.lookupHost = func(context.Context, string) ([]string, error) { return test.addresses, nil }
		results, err := Probe(t.Context(), o)
		var got []string
		for _, result := range results {
			if got = append(got, result.Address); !result.Connected {
				t.Errorf("%+v", result)
			}
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%v, %v, want %v", got, err, test.want)
		}
	}
}
