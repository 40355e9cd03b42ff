package gateway_test

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/test/faulttest"
)

// TestThrottledLogin checks that a login that the server refuses because of a limit is tried again
// after the wait that the server requires.
func TestThrottledLogin(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		status  int
		headers []string
		waits   []time.Duration // before the retries; an error without a retry if negative
	}{
		{"429", 429, nil, []time.Duration{time.Millisecond, time.Millisecond}},
		{"429 with Retry-After", 429, []string{"Retry-After", "9"}, []time.Duration{9 * time.Second, 9 * time.Second}},
		{"429 with a wait of the rate limit", 429, []string{"X-RateLimit-ToWait-Sec", "8", "Retry-After", "3600"}, []time.Duration{8 * time.Second, 8 * time.Second}},
		{"429 with a wait of 0 and Retry-After", 429, []string{"X-RateLimit-ToWait-Sec", "0", "Retry-After", "7"}, []time.Duration{7 * time.Second, 7 * time.Second}},
		{"429 with a long Retry-After", 429, []string{"Retry-After", "3600"}, []time.Duration{-1}},
		{"409 with a concurrency limit", 409, []string{"X-Concurrency-Limit-Limit", "2"}, []time.Duration{time.Millisecond, time.Millisecond}},
		{"409 with Retry-After", 409, []string{"Retry-After", "9"}, []time.Duration{9 * time.Second, 9 * time.Second}},
	} {
		for _, login := range logins {
			t.Run(test.name+", "+login.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					var times []time.Time
					o := serveInMemory(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if times = append(times, time.Now()); len(times) <= 2 {
							limited(test.status, test.headers...)(w, r)
							return
						}
						_, _ = io.WriteString(w, token)
					}))
					o.Login = login.login(o.URL.String())
					err := gateway.New(o).Login(t.Context())
					var waits []time.Duration
					for i, at := range times[1:] {
						waits = append(waits, at.Sub(times[i]))
					}
					if test.waits[0] < 0 {
						checkError(t, err, loginError(o.URL.String(), login.path, fault.Transient), gateway.ErrTooManyLogins, "check what else")
						waits = append(waits, -1)
					} else if err != nil {
						t.Error(err)
					}
					if !slices.Equal(waits, test.waits) {
						t.Errorf("waits %v, want %v", waits, test.waits)
					}
				})
			})
		}
	}
}

// TestOneLinePerLimit checks that calls that are refused together record and log their rate limit
// once, and that a later limit is recorded and logged again.
func TestOneLinePerLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const calls = 20
		var received atomic.Int64
		o := serveInMemory(t, nil, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
			n := received.Add(1)
			if n > 2*calls {
				respondWith(http.StatusOK, published)(w, r)
				return
			}
			time.Sleep(time.Duration(n%calls) * time.Millisecond) // in the bubble: the calls end one after the other
			limited(429, "Retry-After", "5")(w, r)
		}))
		o.Connections = calls
		log := &syncBuffer{}
		o.Log = zerolog.New(log)
		recorded := 0
		o.OnLimit = func(gateway.Limit) error { recorded++; return nil }
		client := gateway.New(o)
		if err := client.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, err := range concurrently(calls, func() error { _, err := send(t.Context(), client); return err }) {
			if err != nil {
				t.Error(err)
			}
		}
		if lines := strings.Count(log.String(), gateway.MsgRateLimited); lines != 2 || recorded != 2 || client.Counts().Limited != 2*calls {
			t.Errorf("%d lines, %d records, %+v", lines, recorded, client.Counts())
		}
	})
}

// TestForbiddenPage checks the remedy for a web page with status 403, which a firewall sends.
func TestForbiddenPage(t *testing.T) {
	t.Parallel()
	const page = "<html><head><title>Request Rejected</title></head></html>"
	for _, test := range []struct {
		name, body string
		isPage     bool
	}{
		{"page", page, true},
		{"message", `{"message":"no module"}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, login := range logins {
				server := serve(t, respondWith(http.StatusForbidden, test.body))
				o := options(t, server.URL)
				o.Login = login.login(server.URL)
				err := gateway.New(o).Login(t.Context())
				checkError(t, err, loginError(server.URL, login.path, fault.Refused), nil, faulttest.AnyRemedy)
				if remedy := fault.Remedy(err); strings.Contains(remedy, "firewall") != test.isPage {
					t.Errorf("%s: remedy %q", login.name, remedy)
				}
			}
			o := options(t, serve(t, afterLogin(t, respondWith(http.StatusForbidden, test.body))).URL)
			_, err := send(t.Context(), gateway.New(o))
			checkError(t, err, sendError(o, fault.Refused), gateway.ErrNotAllowed, "module")
			if strings.Contains(fault.Remedy(err), "firewall") != test.isPage {
				t.Errorf("remedy %q", fault.Remedy(err))
			}
		})
	}
}

// TestProtocolErrors checks that the errors of net/http without a type are named, without any text
// that the server sent.
func TestProtocolErrors(t *testing.T) {
	t.Parallel()
	abort := func(http.ResponseWriter) { panic(http.ErrAbortHandler) }
	large := func(w http.ResponseWriter) {
		for range 100 {
			w.Header().Add("X-Padding", strings.Repeat(token, 1<<10/len(token)+1))
		}
	}
	for _, test := range []struct {
		name, protocol string
		respond        func(http.ResponseWriter)
		want           string // the error of the transport
	}{
		{"stream reset", "h2", abort, "HTTP/2 error INTERNAL_ERROR"},
		{"large header, HTTP/2", "h2", large, "HTTP/2 error PROTOCOL_ERROR"},
		{"large header, HTTP/1.1", "http/1.1", large, "response header too large"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := serveConfiguredTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { test.respond(w) }),
				func(c *tls.Config) { c.NextProtos = []string{test.protocol} })
			o := options(t, server.URL)
			o.RootCAs = rootsOf(server)
			err := gateway.New(o).Login(t.Context())
			checkError(t, err, loginError(server.URL, "/auth", fault.Transient), nil, "network")
			if got := strings.TrimPrefix(err.Error(), "log in at "+server.URL+"/auth: "); got != test.want {
				t.Errorf("error %q, want %q", got, test.want)
			}
		})
	}
}

// TestStateWithoutResponse checks the remedy if a state has no response within its deadline.
func TestStateWithoutResponse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := serveInMemory(t, nil, afterLogin(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the end of a connection is noticed only after it
			<-r.Context().Done()
		}))
		err := gateway.New(o).SetState(t.Context(), gateway.ConnectorState{State: "PROCESSED"})
		checkError(t, err, stateError("PROCESSED", fault.Transient), context.DeadlineExceeded, "platform")
	})
}
