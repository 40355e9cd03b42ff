package directory

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"adconnector/internal/fault"
	"adconnector/internal/input"
)

// readTestdata reads a file that OpenSSL made. crypto/x509 has no other way to it.
func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "certificates", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func encodeUTF16(order binary.AppendByteOrder, text string) string {
	var encoded []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		encoded = order.AppendUint16(encoded, unit)
	}
	return string(encoded)
}

func TestParseCertificates(t *testing.T) {
	t.Parallel()
	a, b := issueCA(t, "A"), issueCA(t, "B")
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	pemA, pemB, pemKey := encodePEM("CERTIFICATE", a.Raw), encodePEM("CERTIFICATE", b.Raw), encodePEM("PRIVATE KEY", key)
	base64A := base64.StdEncoding.EncodeToString(a.Raw)
	brainpool := string(readTestdata(t, "brainpool.pem"))
	block, _ := pem.Decode([]byte(brainpool))
	for _, test := range []struct {
		name     string
		data     string
		want     []*keyPair
		mistakes []string // parts of the errors
	}{
		{"PEM", pemA, []*keyPair{a}, nil},
		{"several PEM", pemA + pemB, []*keyPair{a, b}, nil},
		{"PEM with surrounding text", "subject=CN = A\r\n" + strings.ReplaceAll(pemA, "\n", "\r\n") + "\r\n# end", []*keyPair{a}, nil},
		{"PEM with a byte order mark", "\ufeff" + pemA, []*keyPair{a}, nil},
		{"DER", string(a.Raw), []*keyPair{a}, nil},
		{"several DER", string(a.Raw) + string(b.Raw), []*keyPair{a, b}, nil},
		{"base64 of DER", base64A, []*keyPair{a}, nil},
		{"base64 of DER with line breaks", base64A[:64] + "\r\n" + base64A[64:] + "\n", []*keyPair{a}, nil},
		{"PEM and a private key", pemKey + pemA, []*keyPair{a}, []string{"private key beside the certificate"}},
		{"PEM and one with another curve", pemA + brainpool + pemB, []*keyPair{a, b}, []string{"read certificate of CN=Brainpool Root,O=Example: elliptic curve"}},
		{"DER and one with another curve", string(block.Bytes) + string(a.Raw), []*keyPair{a}, []string{"CN=Brainpool Root"}},
		{"truncated certificate after a valid one", pemA + encodePEM("CERTIFICATE", b.Raw[:100]), []*keyPair{a}, []string{"read certificate: x509"}},
		{"block without an end after a valid one", pemA + pemB[:100], []*keyPair{a}, []string{"damaged PEM"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, mistakes, err := ParseCertificates([]byte(test.data))
			if err != nil || !slices.EqualFunc(got, test.want, func(c *x509.Certificate, i *keyPair) bool { return bytes.Equal(c.Raw, i.Raw) }) {
				t.Errorf("%d certificates, %v", len(got), err)
			}
			if !slices.EqualFunc(mistakes, test.mistakes, func(err error, part string) bool {
				return strings.Contains(err.Error(), part) && input.Remedy([]error{err}) != ""
			}) {
				t.Errorf("mistakes %v", mistakes)
			}
		})
	}
}

func TestOtherForms(t *testing.T) {
	t.Parallel()
	a := issueCA(t, "A")
	pkcs8, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&a.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "dc1"}}, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.SubjectKeyId, a.KeyUsage = []byte{1}, x509.KeyUsageCRLSign
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now()}, a.Certificate, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pemA := encodePEM("CERTIFICATE", a.Raw)
	der := func(name string) string { return string(readTestdata(t, name)) }
	inBase64 := func(data string) string { return base64.StdEncoding.EncodeToString([]byte(data)) }
	for _, test := range []struct{ name, data, cause, remedy string }{
		{"PKCS #7 as PEM", der("pkcs7.pem"), "PKCS #7", "openssl pkcs7 -print_certs"},
		{"PKCS #7 as PEM of a certificate", encodePEM("CERTIFICATE", []byte(der("pkcs7.der"))), "PKCS #7", "openssl pkcs7 -print_certs"},
		{"PKCS #7", der("pkcs7.der"), "PKCS #7", "-inform DER"},
		{"PKCS #7 in base64", inBase64(der("pkcs7.der")), "PKCS #7", "openssl pkcs7"},
		{"PKCS #7 of indefinite length", "\x30\x80" + string(oidSignedData) + "\xa0\x80", "PKCS #7", "openssl pkcs7"},
		{"PKCS #12", der("pkcs12.der"), "PKCS #12", "-nokeys"},
		{"PKCS #12 in base64", inBase64(der("pkcs12.der")), "PKCS #12", "-nokeys"},
		{"PKCS #8 as PEM", encodePEM("PRIVATE KEY", pkcs8), "a private key", "Base-64 encoded X.509 (.CER)"},
		{"encrypted private key as PEM", encodePEM("ENCRYPTED PRIVATE KEY", []byte(der("encryptedkey.der"))), "a private key", "certificate that belongs"},
		{"encrypted private key", der("encryptedkey.der"), "a private key", "certificate that belongs"},
		{"PKCS #8", string(pkcs8), "a private key", "certificate that belongs"},
		{"private key in SEC 1", string(sec1), "a private key", "certificate that belongs"},
		{"private key on another curve", der("brainpoolkey.der"), "a private key", "certificate that belongs"},
		{"private key of OpenSSH", encodePEM("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), "a private key", "certificate that belongs"},
		{"public key as PEM", encodePEM("PUBLIC KEY", public), "a public key", "certificate that contains"},
		{"public key", string(public), "a public key", "certificate that contains"},
		{"certificate request as PEM", encodePEM("CERTIFICATE REQUEST", request), "certificate request", "the issuer made"},
		{"certificate request", string(request), "certificate request", "the issuer made"},
		{"revocation list as PEM", encodePEM("X509 CRL", list), "revocation list", "issuer"},
		{"revocation list", string(list), "revocation list", "issuer"},
		{"form of OpenSSL", der("trusted.pem"), "form of OpenSSL", "openssl x509"},
		{"Java keystore", "\xfe\xed\xfe\xed\x00\x00\x00\x02", "Java keystore", "keytool"},
		{"UTF-16 with a byte order mark", "\xff\xfe" + encodeUTF16(binary.LittleEndian, pemA), "UTF-16", "iconv"},
		{"UTF-16, big endian", "\xfe\xff" + encodeUTF16(binary.BigEndian, pemA), "UTF-16", "iconv"},
		{"UTF-16 without a byte order mark", encodeUTF16(binary.LittleEndian, pemA), "UTF-16", "ascii"},
		{"UTF-16, big endian, without a byte order mark", encodeUTF16(binary.BigEndian, pemA), "UTF-16", "ascii"},
		{"another curve only", der("brainpool.pem"), "read certificate of CN=Brainpool Root,O=Example: elliptic curve", "P-256"},
		{"another curve and its key", encodePEM("PRIVATE KEY", pkcs8) + der("brainpool.pem"), "elliptic curve", "P-256"},
		{"PEM without an end", pemA[:200], "damaged PEM", "BEGIN and END"},
		{"PEM in one line", strings.ReplaceAll(pemA, "\n", `\n`), "damaged PEM", "line breaks"},
		{"truncated DER", string(a.Raw[:len(a.Raw)-1]), "read certificate", "damaged"},
		{"path", "/etc/adconnector/ca.pem", ErrCertificatePath.Error(), "paste"},
		{"path of Windows", `C:\certs\ca.cer`, ErrCertificatePath.Error(), "paste"},
		{"HTML", "<!DOCTYPE html><html>", "HTML", "download"},
		{"empty", "", "no content", "Base-64"},
		{"white space", " \n", "no content", "Base-64"},
		{"binary data", "\x00\x01\x02", errNoCertificate.Error(), "PEM or DER"},
		{"text", "see the file server", errNoCertificate.Error(), "PEM or DER"},
		{"base64 of text", inBase64("no certificate"), errNoCertificate.Error(), "PEM or DER"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, mistakes, err := ParseCertificates([]byte(test.data))
			if err == nil || len(got)+len(mistakes) > 0 {
				t.Fatalf("accepted: %d certificates, mistakes %v", len(got), mistakes)
			}
			if !strings.Contains(err.Error(), test.cause) || !strings.Contains(fault.Remedy(err), test.remedy) {
				t.Errorf("error %v, remedy %s", err, fault.Remedy(err))
			}
			if _, typed := errors.AsType[*fault.Error](err); !typed || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(pkcs8)[:16]) {
				t.Errorf("error %T: %v", err, err)
			}
		})
	}
}

func FuzzParseCertificates(f *testing.F) {
	entries, err := os.ReadDir(filepath.Join("testdata", "certificates"))
	if err != nil {
		f.Fatal(err)
	}
	for _, entry := range entries {
		f.Add(readTestdata(f, entry.Name()))
	}
	f.Add([]byte("\x30\x80"))
	f.Add([]byte("\x30\x84"))
	f.Fuzz(func(t *testing.T, data []byte) {
		certificates, _, err := ParseCertificates(data)
		if err == nil && len(certificates) == 0 || err != nil && fault.Remedy(err) == "" {
			t.Errorf("%d certificates, error %v", len(certificates), err)
		}
	})
}
