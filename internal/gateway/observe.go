package gateway

import (
	"net/http"
	"strings"
	"time"

	"adconnector/internal/fault"
)

// Limited is the class of an answer that tells to wait.
const Limited fault.Class = "limited"

// observed tells of every request, logins included.
type observed struct {
	next  *http.Transport
	tell  func(call string, class fault.Class, took time.Duration)
	calls map[string]string // path → name of the call
}

// observe puts a watcher before the transport, if anybody wants to know.
func observe(next *http.Transport, o Options) http.RoundTripper {
	if o.Observe == nil {
		return next
	}
	calls := map[string]string{}
	for name, path := range map[string]string{
		"connection": o.Paths.Connection, "profile": o.Paths.Profile, "assets": o.Paths.Assets, "state": o.Paths.State,
	} {
		calls[relative(o.URL.JoinPath(replaceUUIDs(path, o)).Path)] = name
	}
	return observed{next, o.Observe, calls}
}

func (t observed) RoundTrip(request *http.Request) (*http.Response, error) {
	start := time.Now()
	response, err := t.next.RoundTrip(request)
	name, known := t.calls[relative(request.URL.Path)]
	if !known {
		name = "login"
	}
	t.tell(name, classOf(response, err), time.Since(start))
	return response, err
}

// relative drops the slash that a joined path has or lacks.
func relative(path string) string { return strings.TrimPrefix(path, "/") }

func classOf(response *http.Response, err error) fault.Class {
	switch {
	case err != nil:
		return fault.ClassOf(err)
	case response.StatusCode < 300:
		return fault.Done
	case response.StatusCode == http.StatusTooManyRequests, response.StatusCode == http.StatusConflict:
		return Limited
	case response.StatusCode == http.StatusRequestTimeout, response.StatusCode >= 500:
		return fault.Transient
	case response.StatusCode == http.StatusBadRequest, response.StatusCode == http.StatusUnprocessableEntity, response.StatusCode == http.StatusRequestEntityTooLarge:
		return fault.Rejected
	default:
		return fault.Refused
	}
}
