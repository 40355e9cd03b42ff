package gateway

import (
	"net/http"
	"strings"
	"time"

	"adconnector/internal/fault"
)

// RateLimited is the class of a rate-limited response.
const RateLimited fault.Class = "limited"

// observedTransport calls observe after each request, including logins.
type observedTransport struct {
	next    *http.Transport
	observe func(call string, class fault.Class, duration time.Duration)
	calls   map[string]string // the names of calls, by path
}

// observe returns the transport, wrapped in an observedTransport if Observe is set.
func observe(next *http.Transport, o Options) http.RoundTripper {
	if o.Observe == nil {
		return next
	}
	calls := map[string]string{}
	for name, path := range map[string]string{
		"connection": o.Paths.Connection, "profile": o.Paths.Profile, "assets": o.Paths.Assets, "state": o.Paths.State,
	} {
		calls[trimSlash(o.URL.JoinPath(replaceUUIDs(path, o)).Path)] = name
	}
	return observedTransport{next, o.Observe, calls}
}

// RoundTrip sends a request and calls observe.
func (t observedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	start := time.Now()
	response, err := t.next.RoundTrip(request)
	name, found := t.calls[trimSlash(request.URL.Path)]
	if !found {
		name = "login"
	}
	t.observe(name, responseClass(response, err), time.Since(start))
	return response, err
}

// trimSlash removes the leading slash, which a joined path may have or lack.
func trimSlash(path string) string { return strings.TrimPrefix(path, "/") }

func responseClass(response *http.Response, err error) fault.Class {
	switch {
	case err != nil:
		return fault.ClassOf(err)
	case response.StatusCode < 300:
		return fault.Done
	case response.StatusCode == http.StatusTooManyRequests, response.StatusCode == http.StatusConflict:
		return RateLimited
	case response.StatusCode == http.StatusRequestTimeout, response.StatusCode >= 500:
		return fault.Transient
	case response.StatusCode == http.StatusBadRequest, response.StatusCode == http.StatusUnprocessableEntity, response.StatusCode == http.StatusRequestEntityTooLarge:
		return fault.Rejected
	default:
		return fault.Refused
	}
}
