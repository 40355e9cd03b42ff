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
	failed := fault.Operation{Op: "read runs", Object: "file"}.Failed(fault.Transient, errors.New("no disk"), "check the disk")
	e.Stuck, e.Unready = func() error { return errors.New("stuck since noon") }, func() error { return failed }
	e.Report = func() (Report, error) { return Report{}, failed }
	const text = "read runs file: no disk\nremedy: check the disk\n"
	for path, want := range map[string]string{"/healthz": "stuck since noon\n", "/readyz": text, "/status": text, "/": text} {
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
		"of no interface": {"192.0.2.1:0", remedyAddress},
		"in use":          {taken.Addr().String(), remedyTaken},
	} {
		t.Run(name, func(t *testing.T) {
			logged, stop := serve(t, c.address)
			if logged.Message != MsgAdminUnavailable || logged.Remedy != c.remedy || logged.Error == "" {
				t.Errorf("logged %+v", logged)
			}
			stop()
		})
	}
	t.Run("of an unknown name", func(t *testing.T) {
		if remedy := remedyFor(&net.OpError{Err: &net.DNSError{IsNotFound: true}}); remedy != remedyAddress {
			t.Error(remedy)
		}
	})
	t.Run("privileged", func(t *testing.T) {
		if remedy := remedyFor(os.NewSyscallError("bind", syscall.EACCES)); remedy != remedyPort {
			t.Error(remedy)
		}
	})
}

// line is what tests look for in a log line.
type line struct{ Message, Address, Error, Remedy string }

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
			checkStuck(t, step.name, p.Stuck(), step.stuck)
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

// TestPulseOfSlowAnswer checks that a run that awaits an answer for longer than it may be
// idle is healthy while bytes of it arrive, and stuck when none do.
func TestPulseOfSlowAnswer(t *testing.T) {
	t.Parallel()
	const answer, between = 21 * time.Minute, 2 * time.Minute
	for name, c := range map[string]struct {
		arrives bool // bytes of the answer
		stuck   bool // before it is complete
	}{"bytes arrive": {true, false}, "no bytes arrive": {false, true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMetrics(Build{}, func() (Report, error) { return Report{}, nil })
				p := Pulse{Activity: m.Activity, Waiting: func() time.Time { return time.Time{} }}
				m.DirectoryRequest("bind", "done")
				checkStuck(t, "begin", p.Stuck(), false)
				for waited := between; waited < answer; waited += between {
					time.Sleep(between)
					if c.arrives {
						m.Active()
					}
					checkStuck(t, waited.String(), p.Stuck(), c.stuck && waited > stuckAfter)
				}
				m.DirectoryRequest("search", "done")
				checkStuck(t, "answered", p.Stuck(), false)
			})
		})
	}
}

func TestUnready(t *testing.T) {
	t.Parallel()
	r := Report{}
	faulttest.Check(t, r.Unready(false), fault.Error{Class: fault.Transient}, errNotRegistered)
	if err := r.Unready(true); err != nil {
		t.Errorf("got %v", err)
	}
	r.Runs = []state.Run{{Class: "transient", Error: "cut"}, {Class: "refused", Error: "wrong password", Remedy: "correct ldap.password"}}
	if err := r.Unready(true); err != nil {
		t.Errorf("got %v", err)
	}
	r.Runs = r.Runs[1:]
	err := r.Unready(true)
	faulttest.Check(t, err, fault.Error{Class: fault.Refused}, nil, "ldap.password")
	if err.Error() != r.Runs[0].Error {
		t.Errorf("got %v", err)
	}
}
