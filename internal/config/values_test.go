package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
)

// TestCertificates: both keys take a file of certificates. In which forms is the
// directory's to say.
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
	path := write(t, "c.cer", string(der))
	c := mustLoad(t, with(complete, "ldap.certificate="+path, "gateway.ca-file="+path))
	for name, got := range map[string][]*x509.Certificate{"ldap.certificate": c.Search.Certificates, "gateway.ca-file": c.Gateway.CA} {
		if len(got) != 1 || string(got[0].Raw) != string(der) {
			t.Errorf("%s: got %d certificates", name, len(got))
		}
	}
	path = write(t, "half.cer", string(der[:len(der)/2]))
	_, err = load(with(complete, "ldap.certificate="+path, "gateway.ca-file="+path))
	if err == nil || strings.Count(err.Error(), path+`" is not a certificate: `) != 2 {
		t.Errorf("got %v", err)
	}
}
