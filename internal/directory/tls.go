package directory

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"adconnector/internal/fault"
)

// ParseCertificates reads the certificates of a .cer file or of a connection:
// PEM, DER, or base64 of DER.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors on Windows begin with it
	var certificates []*x509.Certificate
	rest := data
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) > 0 {
		return certificates, nil
	}
	der := data
	if decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), "")); err == nil {
		der = decoded
	}
	certificates, err := x509.ParseCertificates(der)
	switch {
	case err != nil && len(der) > 0 && der[0] == tagSequence:
		return nil, err
	case err != nil || len(certificates) == 0:
		return nil, errNoCertificate
	}
	return certificates, nil
}

func (o Options) tlsConfig(server server) *tls.Config {
	name := o.ServerName
	if name == "" {
		name = server.host
	}
	return &tls.Config{
		ServerName: name,
		MinVersion: tls.VersionTLS12,
		// VerifyConnection does the whole verification, on every handshake: the
		// standard one has no room for "exactly this certificate".
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if o.presented != nil {
				o.presented(state)
			}
			return verify(state.PeerCertificates, name, o.Certificates)
		},
	}
}

// verify accepts a server that presents exactly a given certificate: that is
// proof enough, names aside. Otherwise the chain and the name must be right.
func verify(presented []*x509.Certificate, name string, given []*x509.Certificate) error {
	leaf := presented[0] // crypto/tls has refused an empty chain
	if isGiven(leaf, given) {
		return nil
	}
	options := x509.VerifyOptions{Intermediates: x509.NewCertPool()}
	for _, c := range presented[1:] {
		options.Intermediates.AddCert(c)
	}
	if len(given) > 0 {
		options.Roots = x509.NewCertPool()
		for _, c := range given {
			options.Roots.AddCert(c)
		}
	}
	if _, err := leaf.Verify(options); err != nil {
		return distrust(leaf, err, trustRemedy(err, len(given) > 0))
	}
	if err := leaf.VerifyHostname(name); err != nil {
		return distrust(leaf, fmt.Errorf("%w %s", errWrongName, name),
			"set ldap.server-name to a name in the certificate, connect by that name, or set ldap.certificate to exactly this certificate")
	}
	return nil
}

func isGiven(leaf *x509.Certificate, given []*x509.Certificate) bool {
	return slices.ContainsFunc(given, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, leaf.Raw) })
}

func trustRemedy(err error, given bool) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate on the domain controller, or correct this machine's clock"
	case given:
		return "replace ldap.certificate, or the certificate of the connection in the console, by this certificate or its issuer's"
	default:
		return "set ldap.certificate, or the certificate of the connection in the console, to this certificate or its issuer's"
	}
}

// distrust returns the error of a certificate that is not trusted.
func distrust(leaf *x509.Certificate, cause error, remedy string) error {
	return fault.Operation{Op: "verify", Object: "the server's certificate (" + names(leaf) + ")"}.Failed(fault.Refused, cause, remedy)
}

// CertificateNames says whom a certificate is for.
func CertificateNames(c *x509.Certificate) string { return names(c) }

func names(c *x509.Certificate) string {
	list := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	text := "without a DNS name"
	if len(list) > 0 {
		text = "for " + strings.Join(list, ", ")
	}
	if c.Subject.CommonName != "" { // a domain controller's often has none
		text = "common name " + c.Subject.CommonName + ", " + text
	}
	return printable(text)
}

// explainTLS returns the error of a connection that could not be protected.
func explainTLS(ctx context.Context, o fault.Operation, err error) error {
	var refused *fault.Error
	var record tls.RecordHeaderError
	switch {
	case ctx.Err() != nil:
		return o.Failed(fault.Canceled, ctx.Err(), "")
	case errors.As(err, &refused) && refused.Class == fault.Refused: // without the text that the handshake puts around it
		return o.Failed(fault.Refused, refused, "")
	case errors.As(err, &record), errors.Is(err, errMalformed):
		return o.Failed(fault.Refused, errOtherProtocol, portSettings)
	case errors.Is(err, context.DeadlineExceeded):
		return o.Failed(fault.Transient, fmt.Errorf("TLS handshake not finished in time: %w", err), "check the server's load and the network in between")
	default:
		return o.Failed(fault.Transient, fmt.Errorf("TLS handshake: %w", err), "check that the server has a certificate, and "+portSettings)
	}
}
