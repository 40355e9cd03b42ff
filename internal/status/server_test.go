package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/state"
)

func endpoint() Endpoint {
	fine := func() error { return nil }
	return Endpoint{
		Report: func() (Report, error) { return Report{State: "SCHEDULED"}, nil }, Stuck: fine, Unready: fine,
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
	h := endpoint().Handler("127.0.0.1")
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
		t.Errorf("an unknown path: %d", w.Code)
	}
}

// TestHost: a page on the Internet that has its own name resolve to loopback gets nothing.
func TestHost(t *testing.T) {
	t.Parallel()
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	h := endpoint().Handler("connector.corp.example.com")
	for host, want := range map[string]int{
		"127.0.0.1:8080": 200, "localhost:8080": 200, "LOCALHOST": 200, "[::1]:8080": 200, "[::1]": 200, "10.0.0.7:8080": 200,
		"connector.corp.example.com:8080": 200, own: 200,
		"evil.example.com": 421, "evil.example.com:8080": 421, "127.0.0.1.example.com": 421, "": 421,
	} {
		if w := get(h, "GET", host, "/status"); w.Code != want {
			t.Errorf("host %q: %d", host, w.Code)
		}
	}
	if w := get(endpoint().Handler(""), "GET", "", "/status"); w.Code != 421 {
		t.Errorf("no host on an endpoint of every address: %d", w.Code)
	}
}

func TestTrouble(t *testing.T) {
	t.Parallel()
	e := endpoint()
	e.Stuck, e.Unready = func() error { return errors.New("stuck since noon") }, func() error { return errors.New("not yet") }
	e.Report = func() (Report, error) { return Report{}, errors.New("no disk") }
	for path, want := range map[string]string{"/healthz": "stuck since noon\n", "/readyz": "not yet\n", "/status": "no disk\n"} {
		if w := get(e.Handler(""), "GET", "localhost", path); w.Code != 503 || w.Body.String() != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestCrowd: more than a few requests at once are turned away, and only while they are.
func TestCrowd(t *testing.T) {
	t.Parallel()
	e := endpoint()
	arrived, leave := make(chan struct{}), make(chan struct{})
	e.Report = func() (Report, error) { arrived <- struct{}{}; <-leave; return Report{}, nil }
	h := e.Handler("")
	done := make(chan int)
	for range atOnce {
		go func() { done <- get(h, "GET", "localhost", "/status").Code }()
		<-arrived
	}
	if w := get(h, "GET", "localhost", "/metrics"); w.Code != 503 || w.Header().Get("Content-Security-Policy") == "" {
		t.Errorf("one too many: %d, %v", w.Code, w.Header())
	}
	for _, path := range []string{"/healthz", "/readyz"} { // the process is well all the same
		if w := get(h, "GET", "localhost", path); w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	close(leave)
	for range atOnce {
		if code := <-done; code != 200 {
			t.Errorf("got %d", code)
		}
	}
	if w := get(h, "GET", "localhost", "/metrics"); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
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
	if response.StatusCode != 200 {
		t.Error(response.Status)
	}
	stop()
}

// TestUnavailableAddress: the remedy fits what is wrong with the address.
func TestUnavailableAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct{ address, remedy string }{
		"of no interface": {"192.0.2.1:0", "to an address of this host"},
		"in use":          {taken.Addr().String(), "its own service.admin.address"},
	} {
		t.Run(name, func(t *testing.T) {
			logged, stop := serve(t, c.address)
			if logged.Message != MsgAdminUnavailable || !strings.Contains(logged.Remedy, c.remedy) {
				t.Errorf("logged %+v", logged)
			}
			stop()
		})
	}
	t.Run("of an unknown name", func(t *testing.T) {
		if remedy := remedyFor(&net.OpError{Err: &net.DNSError{IsNotFound: true}}); !strings.Contains(remedy, "to an address of this host") {
			t.Error(remedy)
		}
	})
}

// line is what tests look for in a log line.
type line struct{ Message, Address, Remedy string }

// serve serves an endpoint and returns its first log line. stop returns when Serve has.
func serve(t *testing.T, address string) (first line, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	logged := make(lines, 10)
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

// lines takes what is logged.
type lines chan []byte

func (l lines) Write(line []byte) (int, error) {
	l <- bytes.Clone(line)
	return len(line), nil
}

func TestPulse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		activity, waiting := uint64(0), time.Time{}
		p := Pulse{Activity: func() uint64 { return activity }, Waiting: func() time.Time { return waiting }}
		const second = time.Second
		for _, step := range []struct {
			name  string
			after time.Duration
			event func()
			stuck bool
		}{
			{"new", 0, nil, false},
			{"idle as long as allowed", stuckAfter, nil, false},
			{"idle for longer", second, nil, true},
			{"beat", 0, p.Beat, false},
			{"activity", 2 * stuckAfter, func() { activity++ }, false},
			{"no activity since", 2 * stuckAfter, nil, true},
			{"waiting", 0, func() { waiting = time.Now().Add(time.Hour) }, false},
			{"still waiting", 50 * time.Minute, nil, false},
			{"waited, and allowed to be idle from then on", 2 * stuckAfter, nil, false},
			{"idle for longer after waiting", stuckAfter, nil, true},
		} {
			time.Sleep(step.after)
			if step.event != nil {
				step.event()
			}
			if err := p.Stuck(); (err != nil) != step.stuck {
				t.Errorf("%s: %v", step.name, err)
			}
		}
	})
}

func TestUnready(t *testing.T) {
	t.Parallel()
	r := Report{}
	if err := r.Unready(false); err == nil || !strings.Contains(err.Error(), "not registered yet") {
		t.Errorf("got %v", err)
	}
	if err := r.Unready(true); err != nil {
		t.Errorf("got %v", err)
	}
	r.Runs = []state.Run{{Class: "transient", Error: "cut"}, {Class: "refused", Error: "wrong password"}}
	if err := r.Unready(true); err != nil {
		t.Errorf("got %v", err)
	}
	r.Runs = r.Runs[1:]
	if err := r.Unready(true); err == nil || err.Error() != "wrong password" {
		t.Errorf("got %v", err)
	}
}
