package testlog

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// secrets are the texts that no output may contain, in every encoding in which they are sent.
var secrets struct {
	sync.RWMutex
	encodings []string
}

// AddSecret registers a secret for the rest of the process and returns it.
func AddSecret(text string) string {
	quoted := strconv.Quote(text)
	addEncodings(text, quoted[1:len(quoted)-1], url.QueryEscape(text), url.PathEscape(text), base64.StdEncoding.EncodeToString([]byte(text)))
	return text
}

// AddCredentials registers a password, also in the encoding of basic authentication.
func AddCredentials(name, password string) {
	AddSecret(password)
	addEncodings(base64.StdEncoding.EncodeToString([]byte(name + ":" + password)))
}

func addEncodings(encodings ...string) {
	secrets.Lock()
	defer secrets.Unlock()
	for _, encoding := range encodings {
		if encoding != "" && !slices.Contains(secrets.encodings, encoding) {
			secrets.encodings = append(secrets.encodings, encoding)
		}
	}
}

// FindSecret reports whether a text contains a secret. before is up to 60 bytes that precede it.
func FindSecret(text string) (before string, found bool) {
	secrets.RLock()
	defer secrets.RUnlock()
	for _, secret := range secrets.encodings {
		if i := strings.Index(text, secret); i >= 0 {
			return text[max(0, i-60):i], true
		}
	}
	return "", false
}

// SecretCount returns the number of texts that FindSecret searches for.
func SecretCount() int {
	secrets.RLock()
	defer secrets.RUnlock()
	return len(secrets.encodings)
}
