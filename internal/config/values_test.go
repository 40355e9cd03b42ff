package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
)

func newCertificate(t *testing.T) (der, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, private.Public(), private); err != nil {
		t.Fatal(err)
	}
	if key, err = x509.MarshalPKCS8PrivateKey(private); err != nil {
		t.Fatal(err)
	}
	return der, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
}

func TestCertificates(t *testing.T) {
	der, key := newCertificate(t)
	other, _ := newCertificate(t)
	asPEM := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	coded := base64.StdEncoding.EncodeToString(der)
	for _, c := range []struct {
		name    string
		content []byte
		want    []byte
	}{
		{"DER", der, asPEM(der)},
		{"PEM", asPEM(der), asPEM(der)},
		{"PEM with CRLF and text around", append([]byte("subject=x\r\n"), bytes.ReplaceAll(asPEM(der), []byte("\n"), []byte("\r\n"))...), asPEM(der)},
		{"two in PEM", append(asPEM(der), asPEM(other)...), append(asPEM(der), asPEM(other)...)},
		{"two in DER", append(bytes.Clone(der), other...), append(asPEM(der), asPEM(other)...)},
		{"base64 of DER", []byte(coded), asPEM(der)},
		{"base64 in lines", []byte(coded[:64] + "\r\n" + coded[64:] + "\r\n"), asPEM(der)},
		{"a private key beside it is left behind", append(bytes.Clone(key), asPEM(der)...), asPEM(der)},
		{"a private key alone", key, nil},
		{"empty", nil, nil},
		{"text", []byte("hello"), nil},
		{"half of it", der[:len(der)/2], nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, "c.cer", string(c.content))
			config, err := load(with(complete, "ldap.certificate="+path, "gateway.ca-file="+path))
			if c.want == nil {
				if err == nil || strings.Count(err.Error(), path+`" is not a certificate`) != 2 {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(config.Search.Certificate, c.want) || !bytes.Equal(config.Gateway.CA, c.want) {
				t.Errorf("got\n%s\nand\n%s\nwant\n%s", config.Search.Certificate, config.Gateway.CA, c.want)
			}
		})
	}
}
