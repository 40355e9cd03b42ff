package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"adconnector/internal/fault"
)

// What the status of an answer means for a call.
var (
	errNotAllowed       = errors.New("the account may not do this")
	errWrongAPI         = errors.New("this client may not use this API")
	errRedirected       = errors.New("redirects are not followed")
	errGatewayFailed    = errors.New("the gateway failed")
	errUnexpected       = errors.New("unexpected answer")
	errNotFound         = errors.New("not found")
	errNotDocument      = errors.New("the answer is not the expected JSON document")
	errNoProof          = errors.New("the answer does not prove that the batch was accepted")
	errProxyCredentials = errors.New("the proxy asks for credentials")
	errProxyRefuses     = errors.New("the proxy refuses to connect to the gateway")
	errProxyFailed      = errors.New("the proxy cannot connect to the gateway")
)

// answerError is an answer that a call failed with.
type answerError struct {
	Status int    // of HTTP
	Reason error  // what the status means for the call
	Words  string // of the gateway; "" without any
}

// Error returns "reason (status: words)".
func (e *answerError) Error() string {
	return fmt.Sprintf("%v (%s)", e.Reason, statusText(e.Status, e.Words))
}

// Unwrap returns the reason.
func (e *answerError) Unwrap() error { return e.Reason }

// statusText returns "status: words", or the status alone.
func statusText(status int, words string) string {
	if words == "" {
		return strconv.Itoa(status)
	}
	return strconv.Itoa(status) + ": " + words
}

// classify returns the error of an answer that ends or repeats a call, whatever its
// content, and nil for other answers.
func classify(call call, got answer) error {
	switch {
	case got.status == http.StatusForbidden:
		return call.Failed(fault.Refused, got.because(errNotAllowed), "grant the account API access and the module")
	case got.status == http.StatusProxyAuthRequired:
		return call.Failed(fault.Refused, &answerError{Status: got.status, Reason: errProxyCredentials}, proxyCredentials)
	case got.status == http.StatusBadRequest && bytes.Contains(got.body, []byte("Error validating customer from token")):
		return call.Failed(fault.Refused, got.because(errWrongAPI), "use authentication.type=BASIC")
	case 300 <= got.status && got.status < 400:
		return call.Failed(fault.Refused, &answerError{got.status, errRedirected, got.location()}, "correct "+call.setting())
	case got.status == http.StatusRequestTimeout || got.status >= 500:
		return call.Failed(fault.Transient, got.because(errGatewayFailed), "check whether the platform is up, and any proxy in front of it")
	}
	return nil
}

// location returns the target of a redirect without the parts that may contain a secret.
func (a answer) location() string {
	location := a.header.Get("Location")
	if end := strings.IndexAny(location, "?#"); end >= 0 {
		location = location[:end]
	}
	return oneLine(location)
}

// unexpected returns the error for an answer that the contract does not know.
func (a answer) unexpected(o fault.Operation) error {
	return o.Failed(fault.Refused, a.because(errUnexpected), "check connector.api.url and gateway.path.*")
}

// because returns the error of the answer, with the gateway's words.
func (a answer) because(reason error) error { return &answerError{a.status, reason, a.words()} }

// words returns the message of a JSON answer, or the beginning of another answer's text,
// on one line. It returns "" for successes, which may be documents with a password.
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
	return oneLine(text)
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
