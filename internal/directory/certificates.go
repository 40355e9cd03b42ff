package directory

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"adconnector/internal/fault"
	"adconnector/internal/input"
)

// The causes of certificates that are not accepted.
var (
	errNoCertificate = errors.New("no certificate found")
	errEmptyFile     = errors.New("no content")
	errDamagedPEM    = errors.New("damaged PEM text: no complete block between BEGIN and END")
	errCurve         = errors.New("elliptic curve of its key not supported")
)

// ErrCertificatePath means that a certificate was expected and a path was found.
var ErrCertificatePath = errors.New("path of a file instead of a certificate")

// otherForm is a form that is not accepted, and often taken for a certificate.
type otherForm struct{ name, remedy string }

func (f otherForm) err() error {
	return fault.Operation{}.Failed(fault.Invalid, fmt.Errorf("this is %s", f.name), f.remedy)
}

// windowsExport is how Windows exports the right form.
const windowsExport = `in Windows, export it as "Base-64 encoded X.509 (.CER)"`

var (
	formPKCS7 = otherForm{"a PKCS #7 container (.p7b, .p7c)",
		"convert it by openssl pkcs7 -print_certs -in FILE -out certificate.pem, with -inform DER if FILE is not text; or " + windowsExport}
	formPKCS12 = otherForm{"a PKCS #12 container (.pfx, .p12), which usually holds a private key",
		"export the certificate without its private key, by openssl pkcs12 -in FILE -nokeys -out certificate.pem; or " + windowsExport}
	formPrivateKey = otherForm{"a private key",
		"use the certificate that belongs to the key, and keep the key where it is used; " + windowsExport + ", without the private key"}
	formPublicKey = otherForm{"a public key", "use the certificate that contains the key; " + windowsExport}
	formRequest   = otherForm{"a certificate request", "use the certificate that the issuer made for this request"}
	formCRL       = otherForm{"a certificate revocation list", "use the certificate of the issuer; " + windowsExport}
	formTrusted   = otherForm{"a certificate in the form of OpenSSL with trust settings", "convert it by openssl x509 -in FILE -out certificate.pem"}
	formKeyStore  = otherForm{"a Java keystore", "export the certificate by keytool -exportcert -rfc -keystore FILE -alias NAME"}
	formUTF16     = otherForm{"UTF-16 text", "save it as ASCII or UTF-8: by iconv -f UTF-16 -t UTF-8 FILE, or in PowerShell by Set-Content -Encoding ascii"}
	formMarkup    = otherForm{"an HTML or XML document, perhaps an error page", "download the certificate again"}
)

// pemForms are the forms of PEM blocks that are not certificates, by their type.
var pemForms = map[string]otherForm{
	"PKCS7": formPKCS7, "CMS": formPKCS7, "PKCS12": formPKCS12, "PFX": formPKCS12, "PUBLIC KEY": formPublicKey, "RSA PUBLIC KEY": formPublicKey,
	"CERTIFICATE REQUEST": formRequest, "NEW CERTIFICATE REQUEST": formRequest, "X509 CRL": formCRL, "TRUSTED CERTIFICATE": formTrusted,
}

// ParseCertificates parses the certificates of a .cer file or of a connection: PEM, DER, or
// DER in base64. mistakes are of the package input: certificates that cannot be read, among others
// that can, such as a root with an unsupported elliptic curve, and private keys. err has a remedy.
// No text contains anything of data but names of certificates.
func ParseCertificates(data []byte) (certificates []*x509.Certificate, mistakes []error, err error) {
	if input.IsUTF16(data) {
		return nil, nil, formUTF16.err()
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // byte order mark, from some editors on Windows
	list := certificateList{}
	if !list.addPEM(data) {
		if err := list.addDER(data); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case len(list.certificates) > 0:
		return list.certificates, list.mistakes(), nil
	case len(list.unreadable) > 0:
		return nil, nil, list.unreadable[0]
	}
	return nil, nil, list.other.err()
}

// certificateList collects the certificates of a file.
type certificateList struct {
	certificates []*x509.Certificate
	unreadable   []error
	other        otherForm // of the first block that is not a certificate
	hasKey       bool
}

var hasKey = input.NewMistake("contains a private key beside the certificate", "remove the private key, and keep it only where it is used")

// mistakes returns the parts of the file that were skipped.
func (l *certificateList) mistakes() (all []error) {
	for _, err := range l.unreadable {
		all = append(all, input.NewMistake("has an entry that is left out: "+err.Error(), "if a server requires it, "+fault.Remedy(err)+"; otherwise remove it"))
	}
	if l.hasKey {
		all = append(all, hasKey)
	}
	return all
}

// addPEM adds the blocks of a PEM file. It returns false if there are none.
func (l *certificateList) addPEM(data []byte) (found bool) {
	begun := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----"))
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		form := pemForms[block.Type]
		switch {
		case block.Type == "CERTIFICATE" || block.Type == "X509 CERTIFICATE":
			l.add(block.Bytes)
			begun--
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			form, l.hasKey = formPrivateKey, true
		}
		if l.other.name == "" {
			l.other = form
		}
	}
	found = len(l.certificates)+len(l.unreadable) > 0 || l.other.name != ""
	if found && begun > 0 {
		l.unreadable = append(l.unreadable, fault.Operation{}.Failed(fault.Invalid, errDamagedPEM, damagedRemedy))
	}
	return found
}

const damagedRemedy = "copy the file again, with the lines BEGIN and END and all line breaks between them"

// addDER adds certificates in DER, or in base64 of DER.
func (l *certificateList) addDER(data []byte) error {
	der := data
	if decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), "")); err == nil {
		der = decoded
	}
	if form := identifyForm(der); form.name != "" {
		return form.err()
	}
	text := bytes.TrimSpace(data)
	switch {
	case len(text) == 0:
		return fault.Operation{}.Failed(fault.Invalid, fmt.Errorf("%w: %w", errNoCertificate, errEmptyFile), windowsExport)
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return fault.Operation{}.Failed(fault.Invalid, errDamagedPEM, damagedRemedy)
	case isPath(string(text)):
		return fault.Operation{}.Failed(fault.Invalid, ErrCertificatePath, "paste the content of the file")
	case bytes.HasPrefix(text, []byte("<")):
		return formMarkup.err()
	case len(der) == 0 || der[0] != tagSequence:
		return fault.Operation{}.Failed(fault.Invalid, errNoCertificate, "provide X.509 in PEM or DER; "+windowsExport)
	}
	for len(der) > 0 {
		var element asn1.RawValue
		rest, err := asn1.Unmarshal(der, &element)
		if err != nil {
			l.add(der)
			break
		}
		l.add(element.FullBytes)
		der = rest
	}
	return nil
}

// add adds a certificate, or the error why it cannot be read.
func (l *certificateList) add(der []byte) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		err = unreadableCertificate(der, err)
		if form := identifyForm(der); form.name != "" { // certutil -encode writes CERTIFICATE for any content
			err = form.err()
		}
		l.unreadable = append(l.unreadable, err)
		return
	}
	l.certificates = append(l.certificates, certificate)
}

// isPath reports whether text is most likely the path of a file.
func isPath(text string) bool {
	if strings.ContainsAny(text, "\n=") || len(text) > 1000 {
		return false
	}
	lower := strings.ToLower(text)
	return strings.HasPrefix(text, "/") && strings.Contains(text, ".") || len(text) > 2 && text[1] == ':' && text[2] == '\\' ||
		slices.ContainsFunc([]string{".cer", ".crt", ".pem", ".der", ".p7b", ".pfx"}, func(end string) bool { return strings.HasSuffix(lower, end) })
}

// The encoded object identifiers that distinguish the forms of a DER file.
var (
	oidSignedData   = []byte("\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02")
	oidData         = []byte("\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01")
	oidPKCS5        = []byte("\x2a\x86\x48\x86\xf7\x0d\x01\x05") // prefix of the password-based encryptions
	keyStoreHead    = []byte("\xfe\xed\xfe\xed")
	pkcs12Version   = []byte("\x02\x01\x03")
	privateVersions = [][]byte{[]byte("\x02\x01\x00"), []byte("\x02\x01\x01")} // of PKCS #1, PKCS #8, SEC 1
)

// identifyForm returns the form of a binary file that is not a certificate, or no form. Containers
// are identified by their first bytes, because some have indefinite lengths, which DER does not
// allow.
func identifyForm(data []byte) otherForm {
	if bytes.HasPrefix(data, keyStoreHead) {
		return formKeyStore
	}
	if len(data) < 2 || data[0] != tagSequence {
		return otherForm{}
	}
	content := data[2:]
	if n := int(data[1] & 0x7f); data[1] > 0x80 && n <= min(4, len(content)) {
		content = content[n:]
	}
	head := content[:min(len(content), 32)]
	switch {
	case bytes.HasPrefix(head, oidSignedData):
		return formPKCS7
	case bytes.HasPrefix(head, pkcs12Version) && (bytes.Contains(head, oidData) || bytes.Contains(head, oidSignedData)):
		return formPKCS12
	case slices.ContainsFunc(privateVersions, func(version []byte) bool { return bytes.HasPrefix(head, version) }), bytes.Contains(head[:min(len(head), 16)], oidPKCS5):
		return formPrivateKey
	}
	if _, err := x509.ParseCertificateRequest(data); err == nil {
		return formRequest
	}
	if _, err := x509.ParseRevocationList(data); err == nil {
		return formCRL
	}
	if _, err := x509.ParsePKIXPublicKey(data); err == nil {
		return formPublicKey
	}
	return otherForm{}
}

// outline has the parts of a certificate that describe why it cannot be read (RFC 5280 4.1).
type outline struct {
	Signed struct {
		Version                             int `asn1:"optional,explicit,default:0,tag:0"`
		Serial, Algorithm, Issuer, Validity asn1.RawValue
		Subject                             pkix.RDNSequence
		Key                                 struct {
			Algorithm struct {
				Algorithm  asn1.ObjectIdentifier
				Parameters asn1.RawValue `asn1:"optional"`
			}
			Bits asn1.BitString
		}
	}
}

var (
	oidEllipticKey = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	// curves are the encoded object identifiers of the curves that crypto/x509 supports.
	curves = [][]byte{
		[]byte("\x06\x05\x2b\x81\x04\x00\x21"), []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"),
		[]byte("\x06\x05\x2b\x81\x04\x00\x22"), []byte("\x06\x05\x2b\x81\x04\x00\x23"),
	}
)

// unreadableCertificate returns the error of a certificate that crypto/x509 does not parse. It
// contains the certificate's name, as far as that is readable.
func unreadableCertificate(der []byte, cause error) error {
	var element asn1.RawValue
	var parts outline
	if _, err := asn1.Unmarshal(der, &element); err != nil {
		return fault.Operation{Op: "read", Object: "certificate"}.Failed(fault.Invalid, cause, "copy the file again: it is damaged or not complete")
	}
	o, remedy := fault.Operation{Op: "read", Object: "certificate"}, "issue the certificate again, or use that of another issuer"
	if _, err := asn1.Unmarshal(element.Bytes, &parts.Signed); err != nil {
		return o.Failed(fault.Invalid, cause, remedy)
	}
	var name pkix.Name
	name.FillFromRDNSequence(&parts.Signed.Subject)
	if text := printable(name.String()); text != "" {
		o.Object += " of " + text
	}
	key := parts.Signed.Key.Algorithm
	if key.Algorithm.Equal(oidEllipticKey) && !slices.ContainsFunc(curves, func(curve []byte) bool { return bytes.Equal(curve, key.Parameters.FullBytes) }) {
		return o.Failed(fault.Invalid, errCurve, curveRemedy)
	}
	return o.Failed(fault.Invalid, cause, remedy)
}

// curveRemedy is what to do about a key with another elliptic curve, such as brainpoolP256r1.
const curveRemedy = "use a certificate with an RSA key, or with a key on one of the curves P-256, P-384 and P-521"
