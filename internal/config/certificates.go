package config

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/input"
)

var (
	errCertificateFile = errors.New("has no usable certificate")
	errPasted          = errors.New("the value is the content of a file, not its path")
)

// certificateFile reads the certificates of a file.
func certificateFile(path string) ([]*x509.Certificate, error) {
	certificates, _, err := readCertificates(path)
	return certificates, err
}

// certificateMistakes returns what is left out of a file of certificates.
func certificateMistakes(path string) []error {
	_, mistakes, _ := readCertificates(path) // certificateFile reports the error
	return mistakes
}

func readCertificates(path string) (certificates []*x509.Certificate, mistakes []error, err error) {
	if isPastedContent(path) { // not quoted: it may be a private key
		return nil, nil, invalid(errPasted, "the path of the file; save the content as a file, with all its lines")
	}
	content, err := readFile(path, pipeTimeout)
	if err != nil {
		return nil, nil, unreadable("the file "+input.Quote(path), path, err)
	}
	certificates, mistakes, err = directory.ParseCertificates(content)
	if err != nil {
		return nil, nil, invalid(fmt.Errorf("the file %s %w: %w", input.Quote(path), errCertificateFile, err), "X.509 in PEM or DER; "+fault.Remedy(err))
	}
	return certificates, mistakes, nil
}

// isPastedContent reports whether the value of a path is a certificate or a key, as PEM or as
// base64 of DER, which begins with MI if it has more than 255 bytes.
func isPastedContent(text string) bool {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "-----BEGIN ") {
		return true
	}
	compact := strings.Join(strings.Fields(text), "")
	_, err := base64.StdEncoding.DecodeString(compact[:len(compact)/4*4])
	return strings.HasPrefix(compact, "MI") && len(compact) > 60 && err == nil
}
