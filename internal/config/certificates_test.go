package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"testing"
)

// selfSigned returns a certificate in DER.
func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestCertificates tests the keys for certificate files. The package directory tests the formats.
func TestCertificates(t *testing.T) {
	t.Parallel()
	der := selfSigned(t)
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
	checkFaults(t, err, wantFault{"gateway.ca-file (environment)", errCertificateFile, "damaged"}, wantFault{"ldap.certificate (environment)", errCertificateFile, "damaged"})
}

// TestPastedCertificate tests keys whose value is a certificate or a key instead of its path. The
// error contains nothing of it.
func TestPastedCertificate(t *testing.T) {
	t.Parallel()
	const body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2"
	for name, value := range map[string]string{
		"PEM":                     "-----BEGIN CERTIFICATE-----\n" + body + "\n-----END CERTIFICATE-----\n",
		"first line of PEM":       "-----BEGIN CERTIFICATE-----",
		"PEM with escaped lines":  `-----BEGIN CERTIFICATE-----\n` + body,
		"private key":             "-----BEGIN PRIVATE KEY-----\n" + body,
		"base64":                  body + body,
		"base64 of several lines": body + "\n" + body[:30],
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(with(complete, "ldap.certificate="+value))
			checkFaults(t, err, wantFault{"ldap.certificate (environment)", errPasted, "the path of the file"})
			if strings.Contains(err.Error(), body[:20]) {
				t.Errorf("value in the error: %v", err)
			}
		})
	}
	_, err := load(with(complete, "ldap.certificate=MIcrosoft/ca.pem"))
	checkFaults(t, err, wantFault{"ldap.certificate (environment)", fs.ErrNotExist, readableFile})
}

// TestSkippedCertificate tests that a file keeps its other certificates if one cannot be read.
func TestSkippedCertificate(t *testing.T) {
	t.Parallel()
	unreadable, err := os.ReadFile("../directory/testdata/certificates/brainpool.pem")
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, "roots.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: selfSigned(t)}))+string(unreadable))
	environ := with(complete, "ldap.certificate="+path, "gateway.ca-file="+path)
	if c := requireLoad(t, environ); len(c.Run.Search.Certificates) != 1 || c.Gateway.RootCAs == nil {
		t.Errorf("%d certificates", len(c.Run.Search.Certificates))
	}
	mistakes, err := loadMistakes(environ)
	if err != nil || len(mistakes) != 2 {
		t.Fatalf("mistakes %v, error %v", mistakes, err)
	}
	for _, m := range mistakes {
		if m.Key != "ldap.certificate" && m.Key != "gateway.ca-file" || len(m.Mistakes) != 1 || !strings.Contains(m.Reason(), "CN=Brainpool Root") || !strings.Contains(m.Remedy(), "P-256") {
			t.Errorf("mistake %v, remedy %s", m, m.Remedy())
		}
	}
	_, err = load(with(complete, "gateway.ca-file="+writeFile(t, "root.pem", string(unreadable))))
	checkFaults(t, err, wantFault{"gateway.ca-file (environment)", errCertificateFile, "P-256"})
}
