package testlog

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// secrets are the texts that nothing may show, in all the forms in which they are sent.
var secrets struct {
	sync.RWMutex
	forms []string
}

// KeepSecret makes a text a secret for the rest of the process, and returns it.
func KeepSecret(text string) string {
	quoted := strconv.Quote(text)
	keepForms(text, quoted[1:len(quoted)-1], url.QueryEscape(text), url.PathEscape(text), base64.StdEncoding.EncodeToString([]byte(text)))
	return text
}

// KeepPair makes a password a secret, also in the form in which basic authentication sends it.
func KeepPair(name, password string) {
	KeepSecret(password)
	keepForms(base64.StdEncoding.EncodeToString([]byte(name + ":" + password)))
}

func keepForms(forms ...string) {
	secrets.Lock()
	defer secrets.Unlock()
	for _, form := range forms {
		if form != "" && !slices.Contains(secrets.forms, form) {
			secrets.forms = append(secrets.forms, form)
		}
	}
}

// FindSecret reports whether a text contains a secret, and returns some text before it.
func FindSecret(text string) (before string, found bool) {
	secrets.RLock()
	defer secrets.RUnlock()
	for _, secret := range secrets.forms {
		if at := strings.Index(text, secret); at >= 0 {
			return text[max(0, at-60):at], true
		}
	}
	return "", false
}

// SecretForms returns the number of texts that FindSecret searches for.
func SecretForms() int {
	secrets.RLock()
	defer secrets.RUnlock()
	return len(secrets.forms)
}
