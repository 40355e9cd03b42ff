package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// The reasons for a failed call.
var (
	errNotAllowed    = errors.New("permission denied")
	errWrongAPI      = errors.New("API not available to this client")
	errRedirected    = errors.New("redirects are not followed")
	errGatewayFailed = errors.New("gateway error")
	errUnexpected    = errors.New("unexpected response")
	errNotFound      = errors.New("not found")
	errNotDocument   = errors.New("response is not the expected JSON document")
	errNoProof       = errors.New("response does not confirm the batch")
)

// responseError is the error of a response that fails a call.
type responseError struct {
	Status  int    // HTTP status
	Reason  error  // the meaning of the status for the call
	Message string // of the gateway; "" if there is none
	// RetryAfter is how long the gateway requires to wait before the next attempt; 0: unknown.
	RetryAfter time.Duration
}

// Error returns "reason (status: message)", and RetryAfter.
func (e *responseError) Error() string {
	text := fmt.Sprintf("%v (%s)", e.Reason, statusText(e.Status, e.Message))
	if e.RetryAfter > 0 {
		text += ", Retry-After " + e.RetryAfter.String()
	}
	return text
}

// Unwrap returns the reason.
func (e *responseError) Unwrap() error { return e.Reason }

// statusText returns "status: message", or only the status.
func statusText(status int, message string) string {
	if message == "" {
		return strconv.Itoa(status)
	}
	return strconv.Itoa(status) + ": " + message
}

// classify returns the error of a response whose status fails any call, and nil for other
// responses.
func classify(call call, r response) error {
	switch {
	case r.status == http.StatusForbidden:
		return call.Failed(fault.Refused, r.failed(errNotAllowed), r.forbiddenRemedy("grant the account API access and the module"))
	case r.status == http.StatusProxyAuthRequired:
		return proxyLoginError(call.Operation, "the host of "+call.setting(), r.status, r.header)
	case r.status == http.StatusNetworkAuthenticationRequired:
		return call.Failed(fault.Refused, &responseError{Status: r.status, Reason: errNetworkLogin}, networkLoginRemedy)
	case r.status == http.StatusBadRequest && bytes.Contains(r.body, []byte("Error validating customer from token")):
		return call.Failed(fault.Refused, r.failed(errWrongAPI), "use authentication.type=BASIC")
	case 300 <= r.status && r.status < 400:
		return call.Failed(fault.Refused, &responseError{Status: r.status, Reason: errRedirected, Message: r.location()},
			"correct "+call.setting()+", or exempt this machine if the network redirects it to a login page")
	case isTransient(r.status):
		wait, _ := longestWait(r.header, "Retry-After", time.Now())
		failed := &responseError{Status: r.status, Reason: errGatewayFailed, Message: r.message(), RetryAfter: wait}
		return call.Failed(fault.Transient, failed, "check whether the platform is up, and any proxy in front of it")
	}
	return nil
}

// isTransient reports whether the same request may succeed later: 5xx and the statuses that RFC 9110
// 15.5.9 and 15.5.20, and RFC 8470 5.2 allow to send again. Misdirected Request is about the
// connection, for example to another virtual host behind a load balancer.
func isTransient(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusMisdirectedRequest, http.StatusTooEarly:
		return true
	}
	return status >= 500
}

// forbiddenRemedy returns the remedy for a response with status 403: remedy, if it may be from the
// gateway. A web page is probably not.
func (r response) forbiddenRemedy(remedy string) string {
	if isWebPage(r) {
		return "exempt this machine in the proxy or web application firewall that sent this page, or, if the gateway did, " + remedy
	}
	return remedy
}

// location returns the target of a redirect without query and fragment, which may contain a
// secret.
func (r response) location() string {
	location := r.header.Get("Location")
	if end := strings.IndexAny(location, "?#"); end >= 0 {
		location = location[:end]
	}
	return r.oneLine(location)
}

// unexpected returns the error of a response that is not in the contract.
func (r response) unexpected(o fault.Operation) error {
	return o.Failed(fault.Refused, r.failed(errUnexpected), "check connector.api.url and gateway.path.*")
}

// failed returns a responseError with the gateway's message.
func (r response) failed(reason error) error {
	return &responseError{Status: r.status, Reason: reason, Message: r.message()}
}

// message returns the message of a JSON response, or the beginning of any other text, in one
// line. It returns "" for a success, whose body may contain a password, and for a text that names
// one where a response may contain that of the connection: a server can send the document with an
// error, or quote it.
func (r response) message() string {
	if r.status < 400 {
		return ""
	}
	text := string(r.body)
	var document struct {
		Message string          `json:"message"`
		Error   json.RawMessage `json:"error"`
	}
	if json.Unmarshal(r.body, &document) == nil {
		switch {
		case document.Message == "" && len(document.Error) == 0 && r.mayHavePassword:
			return "" // escapes can hide names
		case document.Message != "":
			text = document.Message
		case len(document.Error) > 0 && string(document.Error) != "null":
			if json.Unmarshal(document.Error, &text) != nil {
				text = jsonLine(document.Error)
			}
		}
	}
	if r.mayHavePassword && strings.Contains(strings.ToLower(text), "password") {
		return ""
	}
	return r.oneLine(text)
}

// redact replaces the secrets of the client in a text of the response.
func (r response) redact(text string) string { return secret.Redact(text, r.secrets...) }

// oneLine returns a text of the response for an error. Secrets are replaced before white space is,
// which they can contain, and again after the text was truncated.
func (r response) oneLine(text string) string { return r.redact(oneLine(r.redact(text))) }

// oneLine returns text for a log line: in one line, without unprintable characters, and
// truncated to maxMessageLength.
func oneLine(text string) string {
	return fault.OneLine(text[:min(len(text), maxLineInput)], maxMessageLength)
}

func replaceUUIDs(path string, o Options) string {
	return strings.NewReplacer(
		"{customerUuid}", o.CustomerUUID, "{connectionUuid}", o.ConnectionUUID, "{profileUuid}", o.ProfileUUID,
	).Replace(path)
}
