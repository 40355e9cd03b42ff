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
		return nil, errors.New("there is none in it")
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
		return &certificateError{leaf, err, trustRemedy(err, len(given) > 0)}
	}
	if err := leaf.VerifyHostname(name); err != nil {
		return &certificateError{leaf, fmt.Errorf("it is not for %s", name),
			"set ldap.server-name to a name that it carries, connect by that name, or give this very certificate as ldap.certificate"}
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
		return "renew it on the domain controller, or check this machine's clock"
	case given:
		return "the given certificate is neither this one nor its issuer's: give one of them as ldap.certificate, or in the connection in the console"
	default:
		return "give it or its issuer's as ldap.certificate, or in the connection in the console"
	}
}

// certificateError tells an operator which certificate was refused and what to do.
type certificateError struct {
	leaf   *x509.Certificate
	err    error
	remedy string
}

func (e *certificateError) Error() string {
	return fmt.Sprintf("the server's certificate (%s) is not trusted: %v; %s", names(e.leaf), e.err, e.remedy)
}

func (e *certificateError) Unwrap() error { return e.err }

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

func explainTLS(ctx context.Context, what string, err error) error {
	var untrusted *certificateError
	var record tls.RecordHeaderError
	switch {
	case ctx.Err() != nil:
		return fault.Errorf(fault.Canceled, "%s: %w", what, ctx.Err())
	case errors.As(err, &untrusted):
		return fault.Errorf(fault.Refused, "%s: %w", what, untrusted)
	case fault.Of(err) == fault.Refused:
		return fault.Errorf(fault.Refused, "%s: %w", what, err)
	case errors.As(err, &record), errors.Is(err, errMalformed):
		return fault.Errorf(fault.Refused, "%s: the port speaks another protocol: LDAPS is usually port 636, StartTLS port 389 (ldap.protocol and ldap.port, or the connection in the console)", what)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Errorf(fault.Transient, "%s: the server took the connection but did not finish the TLS handshake in time: %w: check the server's load and the network in between", what, err)
	default:
		return fault.Errorf(fault.Transient, "%s: TLS handshake: %w: check that the server has a certificate, and that the port is the protocol's: LDAPS is usually port 636, StartTLS port 389 (ldap.protocol and ldap.port, or the connection in the console)", what, err)
	}
}
