package directory

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"testing"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
	"adconnector/test/fakeldap"
)

// TestRefusedHandshakes checks that a server whose TLS is not supported is refused, not retried.
func TestRefusedHandshakes(t *testing.T) {
	t.Parallel()
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	for _, test := range []struct {
		name      string
		configure func(*tls.Config)
		reason    error
		remedy    string // a part of it
	}{
		{"TLS 1.0 and 1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, handshake.ErrVersion, "enable TLS 1.2"},
		{"RSA key exchange", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}, handshake.ErrParameters, "ECDHE"},
		{"client certificate with TLS 1.2", func(c *tls.Config) {
			c.MaxVersion, c.ClientAuth = tls.VersionTLS12, tls.RequireAnyClientCert
		}, handshake.ErrClientCertificate, "client certificates"},
		{"client certificate with TLS 1.3", func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, handshake.ErrClientCertificate, "client certificates"},
		{"no certificate", func(c *tls.Config) { c.Certificates = nil }, handshake.ErrServerName, "ldap.host"},
	} {
		for _, protocol := range []Protocol{LDAPS, StartTLS} {
			t.Run(test.name+" "+string(protocol), func(t *testing.T) {
				t.Parallel()
				config := self.config()
				test.configure(config)
				var server *fakeldap.Listener
				if protocol == LDAPS {
					server = fakeldap.Serve(t, config, fakeldap.Directory(nil))
				} else {
					server = fakeldap.Serve(t, nil, fakeldap.StartTLS(config, fakeldap.Directory(nil)))
				}
				o := options(server)
				o.Protocol, o.Certificates = protocol, []*x509.Certificate{self.Certificate}
				_, err := Connect(t.Context(), o)
				faulted, is := errors.AsType[*fault.Error](err)
				if !is || faulted.Class != fault.Refused {
					t.Fatalf("error %v", err)
				}
				// With TLS 1.3, the first response after the handshake is missing.
				wantFailure(t, err, fault.Error{Class: fault.Refused, Op: faulted.Op, Object: faulted.Object}, test.reason, test.remedy)
				if server.Binds() != 0 {
					t.Error("bind accepted")
				}
			})
		}
	}
}

// TestWeakSignature checks that a certificate that x509 does not verify because of its signature
// is refused with that reason, and accepted if it is pinned.
func TestWeakSignature(t *testing.T) {
	t.Parallel()
	ca := issueCA(t, "Example CA")
	leaf := issue(t, ca, x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	weak := *leaf.Certificate
	weak.SignatureAlgorithm = x509.ECDSAWithSHA1
	err := verify([]*x509.Certificate{&weak}, "127.0.0.1", []*x509.Certificate{ca.Certificate})
	wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "verify", Object: "server certificate (for 127.0.0.1)"}, handshake.ErrWeakSignature, "SHA-256", "ldap.certificate")
	if err := verify([]*x509.Certificate{&weak}, "127.0.0.1", []*x509.Certificate{leaf.Certificate}); err != nil {
		t.Errorf("pinned: %v", err)
	}
}
