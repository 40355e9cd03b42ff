package directory

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
)

func (o Options) tlsConfig(server server) *tls.Config {
	name := handshake.ServerName(cmp.Or(o.ServerName, server.host))
	return &tls.Config{
		ServerName: name,
		MinVersion: tls.VersionTLS12,
		// VerifyConnection replaces the standard verification on every handshake, because
		// that one does not support pinned certificates.
		InsecureSkipVerify:   true,
		GetClientCertificate: handshake.NoClientCertificate,
		VerifyConnection: func(state tls.ConnectionState) error {
			if o.onHandshake != nil {
				o.onHandshake(state)
			}
			if err := verify(state.PeerCertificates, name, o.Certificates); err != nil {
				return err
			}
			leaf := state.PeerCertificates[0]
			pinned := isPinned(leaf, o.Certificates)
			if o.ServerName == "" && !pinned {
				if err := verifyTarget(leaf, server); err != nil {
					return err
				}
			}
			if o.OnCertificate != nil {
				o.OnCertificate(server.address(), leaf, pinned)
			}
			return nil
		},
	}
}

// verifyTarget verifies that a host named by an SRV record, or by the configuration partition,
// belongs to the domain. DNS is not authenticated: an attacker who forges a record can have a valid
// certificate for another host. The host must be below the domain, or its certificate must name the
// domain too.
func verifyTarget(leaf *x509.Certificate, server server) error {
	host, domain := strings.ToLower(server.host), strings.ToLower(strings.TrimSuffix(server.domain, "."))
	if domain == "" || host == domain || strings.HasSuffix(host, "."+domain) || leaf.VerifyHostname(domain) == nil {
		return nil
	}
	return certificateError(leaf, fmt.Errorf("%w: %s, domain %s", errForeignTarget, server.host, server.domain),
		"if "+server.host+" is a domain controller of the domain, give it a certificate that also names "+server.domain+
			"; a host that ldap.host, or the connection in the console, names does not need it")
}

// verify verifies the server's certificate chain. A pinned certificate is accepted whatever
// its name; otherwise both the chain and the name must be valid.
func verify(chain []*x509.Certificate, name string, configured []*x509.Certificate) error {
	leaf := chain[0] // crypto/tls rejects an empty chain
	if isPinned(leaf, configured) {
		return nil
	}
	options := x509.VerifyOptions{Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if len(configured) > 0 {
		options.Roots = x509.NewCertPool()
		for _, c := range configured {
			options.Roots.AddCert(c)
		}
	}
	if _, err := leaf.Verify(options); err != nil {
		if explained := handshake.ExplainVerification(err, chain); explained != nil {
			return certificateError(leaf, explained, handshakeRemedies[handshake.ErrWeakSignature])
		}
		return certificateError(leaf, err, trustRemedy(err, len(configured) > 0))
	}
	if err := leaf.VerifyHostname(name); err != nil {
		return certificateError(leaf, fmt.Errorf("%w %s", errNameMismatch, name),
			"set ldap.server-name to a name in the certificate, connect by that name, or set ldap.certificate to exactly this certificate")
	}
	return nil
}

func isPinned(leaf *x509.Certificate, configured []*x509.Certificate) bool {
	return slices.ContainsFunc(configured, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, leaf.Raw) })
}

func trustRemedy(err error, hasConfigured bool) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate on the domain controller, or correct this machine's clock"
	case hasConfigured:
		return "replace ldap.certificate, or the certificate of the connection in the console, with this certificate or its issuer's"
	default:
		return "set ldap.certificate, or the certificate of the connection in the console, to this certificate or its issuer's"
	}
}

// certificateError returns the error of an untrusted certificate.
func certificateError(leaf *x509.Certificate, cause error, remedy string) error {
	return fault.Operation{Op: "verify", Object: "server certificate (" + CertificateNames(leaf) + ")"}.Failed(fault.Refused, certificateCause{cause}, remedy)
}

// certificateCause is why a certificate is not accepted.
type certificateCause struct{ error }

// Unwrap returns the cause.
func (c certificateCause) Unwrap() error { return c.error }

// CertificateNames returns the common name, DNS names and IP addresses of a certificate, as
// text for people.
func CertificateNames(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	text := "without a DNS name"
	if len(names) > 0 {
		text = "for " + strings.Join(names, ", ")
	}
	if c.Subject.CommonName != "" { // often absent in a domain controller's certificate
		text = "common name " + c.Subject.CommonName + ", " + text
	}
	return printable(text)
}
