package domaincontroller

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// certificateLifetime exceeds the lifetime of any sandbox.
const certificateLifetime = 365 * 24 * time.Hour

// authority issues the certificates of the controllers of a domain.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(domain string) *authority {
	template := newTemplate(domain + " CA")
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	key := newKey()
	return &authority{sign(template, key, &authority{template, key}), key}
}

// newCertificate returns a new certificate of a controller and a TLS configuration with it.
// Without an issuer it is self-signed.
func newCertificate(name, host, domain string, issuer *authority) (*x509.Certificate, *tls.Config) {
	template := newTemplate(name)
	template.DNSNames = []string{"localhost", name, domain}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else if host != name {
		template.DNSNames = append(template.DNSNames, host)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	key := newKey()
	if issuer == nil {
		template.KeyUsage |= x509.KeyUsageCertSign
		template.IsCA, template.MaxPathLenZero = true, true
		issuer = &authority{template, key}
	}
	certificate := sign(template, key, issuer)
	return certificate, &tls.Config{
		MinVersion:   tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate.Raw}, PrivateKey: key, Leaf: certificate}},
	}
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return key
}

// newTemplate returns what all certificates have in common.
func newTemplate(commonName string) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails
	serial[0] &= 0x7f        // clients refuse negative serial numbers
	now := time.Now()        // not Options.Now: TLS clients use the real time
	return &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLifetime),
		BasicConstraintsValid: true,
	}
}

func sign(template *x509.Certificate, key *ecdsa.PrivateKey, issuer *authority) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.certificate, key.Public(), issuer.key)
	if err != nil {
		panic(err) // the template is valid
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err) // the certificate is valid
	}
	return certificate
}

// CertificatePEM returns the certificate that clients trust as PEM, the content of a .cer file:
// that of the authority of a Domain of several controllers, else the self-signed certificate of
// the controller. A controller's certificate is valid for localhost, its name, the domain, and its
// address. Without Options.Host that is 127.0.0.1 and ::1.
func (d *Server) CertificatePEM() []byte {
	trusted := d.certificate
	if issuer := d.options.authority; issuer != nil {
		trusted = issuer.certificate
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: trusted.Raw})
}
