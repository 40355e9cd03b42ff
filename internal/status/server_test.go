package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/test/faulttest"
)

func endpoint() Endpoint {
	ok := func() error { return nil }
	return Endpoint{
		Report: func() (Report, error) { return Report{State: "SCHEDULED"}, nil }, Health: ok, Readiness: ok,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "m") }),
	}
}

func get(h http.Handler, method, host, path string) *httptest.ResponseRecorder {
	w, r := httptest.NewRecorder(), httptest.NewRequest(method, path, nil)
	r.Host = host
	h.ServeHTTP(w, r)
	return w
}

func TestMethods(t *testing.T) {
	t.Parallel()
	h := endpoint().Handler("127.0.0.1", zerolog.Nop())
	for _, path := range []string{"/healthz", "/readyz", "/status", "/metrics"} {
		for method, want := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "DELETE": 405, "OPTIONS": 405} {
			w := get(h, method, "127.0.0.1:8080", path)
			if w.Code != want {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
			for _, header := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control"} {
				if w.Header().Get(header) == "" {
					t.Errorf("%s %s without %s", method, path, header)
				}
			}
		}
	}
	if w := get(h, "GET", "localhost", "/etc/passwd"); w.Code != 404 {
		t.Errorf("unknown path: %d", w.Code)
	}
}

// TestHost tests that DNS rebinding is refused: a web page whose name resolves to loopback.
func TestHost(t *testing.T) {
	t.Parallel()
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	e := endpoint()
	e.Hosts = []string{"ad.identity.svc", "connector"}
	h := e.Handler("connector.corp.example.com", zerolog.Nop())
	for host, want := range map[string]int{
		"127.0.0.1:8080": 200, "localhost:8080": 200, "LOCALHOST": 200, "[::1]:8080": 200, "[::1]": 200, "10.0.0.7:8080": 200,
		"connector.corp.example.com:8080": 200, hostname: 200, "connector": 200, "AD.identity.svc.:8080": 200,
		"evil.example.com": 421, "evil.example.com:8080": 421, "127.0.0.1.example.com": 421, "identity.svc": 421, "ad.identity.svc.example.com": 421, "": 421,
	} {
		if w := get(h, "GET", host, "/status"); w.Code != want {
			t.Errorf("host %q: %d", host, w.Code)
		}
	}
	if w := get(endpoint().Handler("", zerolog.Nop()), "GET", "", "/status"); w.Code != 421 {
		t.Errorf("no host name, endpoint on all addresses: %d", w.Code)
	}
}

// TestRefusedHost tests that a refusal names the setting, in the response and once per name in
// the log, whose lines are bounded.
func TestRefusedHost(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := endpoint().Handler("", zerolog.New(&log))
	for range 2 {
		w := get(h, "GET", "ad-corp:8080", "/metrics")
		if want := `serve request for "ad-corp": unknown host name` + "\nremedy: " + remedyUnknownHost + "\n"; w.Code != 421 || w.Body.String() != want {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	var line logLine
	if err := json.Unmarshal(log.Bytes(), &line); err != nil || line.Message != MsgHostRefused || line.Remedy != remedyUnknownHost || !strings.Contains(line.Error, `"ad-corp"`) {
		t.Errorf("%v: %s", err, log.String())
	}
	for n := range 2 * maxLoggedHosts {
		get(h, "GET", fmt.Sprintf("%d%s", n, strings.Repeat("x", 5000)), "/")
	}
	if lines := strings.Count(log.String(), "\n"); lines != maxLoggedHosts || log.Len() > maxLoggedHosts*500 {
		t.Errorf("%d lines, %d bytes", lines, log.Len())
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	e := endpoint()
	failed := fault.Operation{Op: "read runs", Object: "file"}.Failed(fault.Transient, errors.New("no disk"), "check the disk")
	e.Health, e.Readiness = func() error { return errors.New("stuck since noon") }, func() error { return failed }
	e.Report = func() (Report, error) { return Report{}, failed }
	const text = "read runs file: no disk\nremedy: check the disk\n"
	for path, want := range map[string]string{"/healthz": "stuck since noon\n", "/readyz": text, "/status": text, "/": text} {
		if w := get(e.Handler("", zerolog.Nop()), "GET", "localhost", path); w.Code != 503 || w.Body.String() != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestServeLocalhost tests that localhost needs no resolver.
func TestServeLocalhost(t *testing.T) {
	t.Parallel()
	logged, stop := serve(t, "LOCALHOST:0")
	if host, _, err := net.SplitHostPort(logged.Address); err != nil || host != "127.0.0.1" {
		t.Errorf("logged %+v", logged)
	}
	stop()
}

func TestServeEnds(t *testing.T) {
	t.Parallel()
	logged, stop := serve(t, "127.0.0.1:0")
	if logged.Message != MsgAdminListening {
		t.Fatalf("logged %+v", logged)
	}
	response, err := http.Get("http://" + logged.Address + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Error(response.Status)
	}
	stop()
}

// TestUnavailableAddress tests that the remedy matches the error of the address.
func TestUnavailableAddress(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, c := range map[string]struct{ address, remedy string }{
		"no interface": {"192.0.2.1:0", remedyAddress},
		"in use":       {listener.Addr().String(), remedyInUse},
	} {
		t.Run(name, func(t *testing.T) {
			logged, stop := serve(t, c.address)
			if logged.Message != MsgAdminUnavailable || logged.Remedy != c.remedy || logged.Error == "" {
				t.Errorf("logged %+v", logged)
			}
			stop()
		})
	}
	t.Run("unknown name", func(t *testing.T) {
		if remedy := listenRemedy(&net.OpError{Err: &net.DNSError{IsNotFound: true}}); remedy != remedyAddress {
			t.Error(remedy)
		}
	})
	t.Run("privileged", func(t *testing.T) {
		if remedy := listenRemedy(os.NewSyscallError("bind", syscall.EACCES)); remedy != remedyPort {
			t.Error(remedy)
		}
	})
}

// logLine has the fields of a log line that the tests use.
type logLine struct{ Message, Address, Error, Remedy string }

// serve serves an endpoint and returns its first log line. stop waits for the end of Serve.
func serve(t *testing.T, address string) (first logLine, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	logged := make(lineWriter, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		endpoint().Serve(ctx, address, zerolog.New(logged))
	}()
	if err := json.Unmarshal(<-logged, &first); err != nil {
		t.Error(err)
	}
	return first, func() { cancel(); <-done }
}

// lineWriter sends each log line.
type lineWriter chan []byte

func (l lineWriter) Write(line []byte) (int, error) {
	l <- bytes.Clone(line)
	return len(line), nil
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		activity, waiting := uint64(0), time.Time{}
		w := Watchdog{Activity: func() uint64 { return activity }, Waiting: func() time.Time { return waiting }}
		const second = time.Second
		for _, step := range []struct {
			name  string
			after time.Duration
			event func()
			stuck bool
		}{
			{"new", 0, nil, false},
			{"idle up to the limit", stuckAfter, nil, false},
			{"idle above the limit", second, nil, true},
			{"beat", 0, w.Beat, false},
			{"activity", 2 * stuckAfter, func() { activity++ }, false},
			{"no more activity", 2 * stuckAfter, nil, true},
			{"waiting", 0, func() { waiting = time.Now().Add(time.Hour) }, false},
			{"still waiting", 50 * time.Minute, nil, false},
			{"idle up to the limit after waiting", 2 * stuckAfter, nil, false},
			{"idle above the limit after waiting", stuckAfter, nil, true},
		} {
			time.Sleep(step.after)
			if step.event != nil {
				step.event()
			}
			checkStuck(t, step.name, w.Check(), step.stuck)
		}
	})
}

func checkStuck(t *testing.T, name string, err error, stuck bool) {
	t.Helper()
	if stuck {
		faulttest.Check(t, err, fault.Error{Class: fault.Transient}, errNoProgress, remedyStuck)
	} else if err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// TestWatchdogSlowSearch tests that a long search is healthy while it records progress. Pages
// alone are none: the search bounds how many without a new entry it records. Requests that
// fail are progress, because a run bounds how many fail.
func TestWatchdogSlowSearch(t *testing.T) {
	t.Parallel()
	const duration, interval = 21 * time.Minute, 2 * time.Minute
	for name, c := range map[string]struct {
		event func(*Metrics)
		stuck bool // before the end of the search
	}{
		"progress of the search":     {(*Metrics).RecordActivity, false},
		"nothing":                    {func(*Metrics) {}, true},
		"pages without progress":     {func(m *Metrics) { m.DirectoryRequest("search", "done", 0) }, true},
		"failed searches":            {func(m *Metrics) { m.DirectoryRequest("search", "transient", 0) }, false},
		"other directory requests":   {func(m *Metrics) { m.DirectoryRequest("read", "done", 0) }, false},
		"gateway requests":           {func(m *Metrics) { m.GatewayRequest("assets", "done", time.Second) }, false},
		"gateway requests that fail": {func(m *Metrics) { m.GatewayRequest("assets", "transient", time.Second) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMetrics(Build{}, func() (Report, error) { return Report{}, nil })
				w := Watchdog{Activity: m.Activity, Waiting: func() time.Time { return time.Time{} }}
				m.DirectoryRequest("bind", "done", 0)
				checkStuck(t, "begin", w.Check(), false)
				for waited := interval; waited < duration; waited += interval {
					time.Sleep(interval)
					c.event(m)
					checkStuck(t, waited.String(), w.Check(), c.stuck && waited > stuckAfter)
				}
				m.RecordActivity() // the end of the search
				checkStuck(t, "search complete", w.Check(), false)
			})
		})
	}
}

func TestCheckReady(t *testing.T) {
	t.Parallel()
	r := Report{}
	faulttest.Check(t, r.CheckReady(false), fault.Error{Class: fault.Transient}, errNotRegistered)
	if err := r.CheckReady(true); err != nil {
		t.Errorf("got %v", err)
	}
	r.Runs = []state.Run{{Class: "transient", Error: "cut"}, {Class: "refused", Error: "wrong password", Remedy: "correct ldap.password"}}
	if err := r.CheckReady(true); err != nil {
		t.Errorf("got %v", err)
	}
	r.Runs = r.Runs[1:]
	err := r.CheckReady(true)
	faulttest.Check(t, err, fault.Error{Class: fault.Refused}, nil, "ldap.password")
	if err.Error() != r.Runs[0].Error {
		t.Errorf("got %v", err)
	}
}

// TestStatusIsPrintable tests that the document has no character that a terminal executes.
func TestStatusIsPrintable(t *testing.T) {
	t.Parallel()
	e := endpoint()
	e.Report = func() (Report, error) { return Report{Error: "a\u009b2J\u202eb"}, nil }
	w := get(e.Handler("localhost", zerolog.Nop()), "GET", "localhost", "/status")
	var report Report
	if err := json.Unmarshal(w.Body.Bytes(), &report); err != nil || report.Error != "a\u009b2J\u202eb" || strings.ContainsAny(w.Body.String(), "\u009b\u202e") {
		t.Errorf("%q, %v", w.Body, err)
	}
}
