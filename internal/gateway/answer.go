package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"adconnector/internal/fault"
)

// classify turns the answers that end or repeat a call, whatever its content, into
// errors. It returns nil for the others.
func classify(call call, got answer) error {
	what := call.what
	switch {
	case got.status == http.StatusForbidden:
		return fault.Errorf(fault.Refused, "%s: the account may not do this (403%s): grant it API access and the module", what, got.words())
	case got.status == http.StatusProxyAuthRequired:
		return fault.Errorf(fault.Refused, "%s: the proxy asks for credentials (407): set proxy.username and proxy.password, or correct them", what)
	case got.status == http.StatusBadRequest && bytes.Contains(got.body, []byte("Error validating customer from token")):
		return fault.Errorf(fault.Refused, "%s: this client may not use this interface (400: Error validating customer from token): use authentication.type=BASIC", what)
	case 300 <= got.status && got.status < 400:
		return fault.Errorf(fault.Refused, "%s: the gateway redirects (%d to %s), which is not followed: correct %s", what, got.status, got.location(), call.setting())
	case got.status == http.StatusRequestTimeout || got.status >= 500:
		return fault.Errorf(fault.Transient, "%s: the gateway answers %d%s: check whether the platform is up, and any proxy in front of it", what, got.status, got.words())
	}
	return nil
}

// location is where a redirect leads, less what may hold a secret.
func (a answer) location() string {
	location := a.header.Get("Location")
	if end := strings.IndexAny(location, "?#"); end >= 0 {
		location = location[:end]
	}
	return oneLine(location)
}

// unexpected is the error for an answer that the contract does not know.
func (a answer) unexpected(what string) error {
	return fault.Errorf(fault.Refused, "%s: the gateway answers %d%s: check connector.api.url and gateway.path.*", what, a.status, a.words())
}

// words quotes what the gateway said: the message of a JSON answer, else the
// beginning of its text, on one line. It does not quote successes, which may be
// documents with a password.
func (a answer) words() string {
	if a.status < 400 {
		return ""
	}
	text := string(a.body)
	var document struct {
		Message string `json:"message"`
		Error   any    `json:"error"`
	}
	if json.Unmarshal(a.body, &document) == nil {
		switch {
		case document.Message != "":
			text = document.Message
		case document.Error != nil:
			text = fmt.Sprint(document.Error)
		}
	}
	text = oneLine(text)
	if text == "" {
		return ""
	}
	return ": " + text
}

// oneLine folds white space, drops what does not print, and cuts at a length that a log line bears.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || unicode.IsSpace(r) {
			return r
		}
		return -1
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if runes := []rune(text); len(runes) > wordsOfAnswerSize {
		text = string(runes[:wordsOfAnswerSize]) + "…"
	}
	return text
}

func replaceUUIDs(path string, o Options) string {
	return strings.NewReplacer(
		"{customerUuid}", o.CustomerUUID, "{connectionUuid}", o.ConnectionUUID, "{profileUuid}", o.ProfileUUID,
	).Replace(path)
}
