package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
)

// TestCertificates tests the keys for certificate files. The package directory tests the formats.
func TestCertificates(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, "c.cer", string(der))
	c := requireLoad(t, with(complete, "ldap.certificate="+path, "gateway.ca-file="+path))
	if got := c.Run.Search.Certificates; len(got) != 1 || string(got[0].Raw) != string(der) {
		t.Errorf("ldap.certificate: got %d certificates", len(got))
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(c.Run.Search.Certificates[0])
	if !c.Gateway.RootCAs.Equal(roots) {
		t.Error("gateway.ca-file missing in the roots")
	}
	path = writeFile(t, "half.cer", string(der[:len(der)/2]))
	_, err = load(with(complete, "ldap.certificate="+path, "gateway.ca-file="+path))
	checkFaults(t, err, wantFault{"gateway.ca-file (environment)", errNotCert, "DER or PEM"}, wantFault{"ldap.certificate (environment)", errNotCert, "DER or PEM"})
}
