package cli

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/status"
	"adconnector/test/ports"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// listen returns the address of an HTTP server that runs until the test ends.
func listen(t *testing.T, handler http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// get gets a document of the admin endpoint.
func get(t *testing.T, address, path string) (int, string) {
	t.Helper()
	response, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// serveEndpoint starts a daemon whose endpoint listens on an address, waits for its first run,
// and sets service.admin.address to the address with the port.
func (s *fixture) serveEndpoint(t *testing.T, address string) *daemon {
	t.Helper()
	s.env["service.admin.address"], s.env["service.cron-expression"] = address, yearly
	d := s.serve(t, nil)
	s.env["service.admin.address"] = d.await(t, func(l testlog.Line) bool {
		return l.Text("component") == "status" && l.Text("address") != ""
	}).Text("address")
	d.await(t, testlog.Message(runFinished))
	return d
}

// TestEndpoint tests commands and documents while a daemon waits for its next tick.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	d := s.serveEndpoint(t, "127.0.0.1:0")
	d.await(t, func(l testlog.Line) bool { return l.Text("from") == "PROCESSED" && l.Text("to") == "SCHEDULED" })
	address := s.env["service.admin.address"]
	statusOf := func(t *testing.T, changes testenv.Settings) status.Report {
		return decode[status.Report](t, invoke(t, s.env.With(changes).Environ(), "status", "--output", "json"))
	}

	t.Run("healthcheck", func(t *testing.T) {
		if o := s.invoke(t, "healthcheck"); o.Code != exitDone || o.Stdout != "healthy\n" {
			t.Errorf("%+v", o)
		}
	})
	t.Run("status as text", func(t *testing.T) {
		o := s.invoke(t, "status")
		if o.Code != exitDone || !strings.Contains(o.Stdout, "\nnext run        ") || strings.Contains(o.Stdout, "\ndaemon ") || containsSecret(o.Stdout) {
			t.Errorf("%+v", o)
		}
	})
	t.Run("status as JSON", func(t *testing.T) {
		if r := statusOf(t, nil); r.From != status.FromDaemon || r.State != "SCHEDULED" || r.Version != version || len(r.Runs) != 1 || r.Objects != 23 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("status with a symbolic link to the state directory", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(s.StateDir, link); err != nil {
			t.Fatal(err)
		}
		if r := statusOf(t, testenv.Settings{"service.state-dir": link}); r.From != status.FromDaemon || r.Daemon != "" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("healthcheck of another connector", func(t *testing.T) {
		const other = "00000000-0000-0000-0000-00000000000f"
		o := invoke(t, s.env.With(testenv.Settings{"qualys.profileUuid": other}).Environ(), "healthcheck")
		if o.Code != exitFailed || !containsAll(o.Stdout, "not healthy: ", errOtherConnector.Error(), testenv.ProfileUUID, other, "\nremedy: ", "service.admin.address") {
			t.Errorf("%+v", o)
		}
	})
	t.Run("documents", func(t *testing.T) {
		for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n", "/status": `"from": "daemon"`} {
			if code, body := get(t, address, path); code != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
	})
	t.Run("metrics", func(t *testing.T) {
		_, metrics := get(t, address, "/metrics")
		for _, want := range []string{
			`adconnector_runs_total{mode="full",result="processed"} 1`, `adconnector_objects_total{kind="user",outcome="accepted"} 20`,
			`adconnector_objects_total{kind="group",outcome="read"} 3`, `adconnector_directory_requests_total{class="done",request="bind"} 2`,
			`adconnector_gateway_requests_total{call="login",class="done"} 1`, `adconnector_gateway_requests_total{call="assets",class="done"} 1`,
			`adconnector_connector_state{state="SCHEDULED"} 1`, `adconnector_connector_state{state="PROCESSING"} 0`, "adconnector_index_objects 23",
			"adconnector_last_success_timestamp_seconds 1.", "adconnector_next_run_timestamp_seconds ", "adconnector_held_deletions 0", "adconnector_rejected_objects 0",
			`adconnector_run_stage_seconds_count{stage="read"} 1`, `adconnector_run_stage_seconds_count{stage="record"} 1`, "adconnector_gateway_retries_total 0",
			"adconnector_gateway_rate_limit_waits_total 0", `adconnector_build_info{commit="`, "adconnector_state_bytes ", "adconnector_schedule_interval_seconds 3.1", "adconnector_last_run_refused 0",
		} {
			if !strings.Contains(metrics, "\n"+want) {
				t.Errorf("%s missing in the metrics", want)
			}
		}
		if containsSecret(metrics) {
			t.Error("secret in the metrics")
		}
	})
	d.end(t)
}

// TestHealthcheckOfWildcard tests that the health check reaches a daemon that listens on all
// addresses.
func TestHealthcheckOfWildcard(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.admin.allowed-hosts"] = "ad.identity.svc"
	d := s.serveEndpoint(t, ":0")
	_, port, err := net.SplitHostPort(s.env["service.admin.address"])
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{":" + port, "0.0.0.0:" + port, "[::]:" + port, "localhost:" + port} {
		o := invoke(t, s.env.With(testenv.Settings{"service.admin.address": address}).Environ(), "healthcheck")
		if o.Code != exitDone {
			t.Errorf("%s: %+v", address, o)
		}
	}
	requireOnlyHost(t, "http://127.0.0.1:"+port+"/metrics", "ad.identity.svc:8080", "ad.other.svc:8080")
	if refused := d.With(status.MsgHostRefused); len(refused) != 1 || !strings.Contains(refused[0].Text("remedy"), "service.admin.allowed-hosts") {
		t.Errorf("log %v", refused)
	}
	d.end(t)
}

// TestDaemonWithRefusedLogin tests that the daemon is healthy but not ready, does not repeat
// the login before the next tick, and logs one error.
func TestDaemonWithRefusedLogin(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["qualys.user.password"] = wrongPassword
	d := s.serveEndpoint(t, "127.0.0.1:0")
	address := s.env["service.admin.address"]
	if code, body := get(t, address, "/readyz"); code != 503 || !strings.Contains(body, "not registered yet") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := get(t, address, "/healthz"); code != 200 {
		t.Errorf("healthz %d", code)
	}
	d.end(t)
	if n := len(s.Gateway.Requests()); n != 1 {
		t.Errorf("%d logins", n)
	}
	if errs := d.Find(testlog.Field("level", "error")); len(errs) != 1 {
		t.Errorf("errors %v", errs)
	}
}

// TestRunWithoutEndpoint tests that the daemon runs if the address is in use, and logs an error.
func TestRunWithoutEndpoint(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	s.env["service.admin.address"], s.env["service.cron-expression"] = listener.Addr().String(), yearly
	d := s.serve(t, nil)
	d.await(t, func(l testlog.Line) bool {
		return l.Text("level") == "error" && l.Text("component") == "status" && strings.Contains(l.Text("remedy"), "service.admin.address")
	})
	d.await(t, isRunSummary("processed"))
	d.end(t)
}

func TestHealthcheckWithoutDaemon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	address := "127.0.0.1:" + strconv.Itoa(ports.Refusing(t))
	for name, test := range map[string]struct{ address, object string }{
		"endpoint":    {address, address},
		"no endpoint": {"off", s.StateDir},
	} {
		t.Run(name, func(t *testing.T) {
			o := invoke(t, s.env.With(testenv.Settings{"service.admin.address": test.address}).Environ(), "healthcheck")
			if o.Code != exitFailed || !strings.HasPrefix(o.Stdout, "not healthy: ") || !containsAll(o.Stdout, test.object, "\nremedy: ") {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestHealthcheckWithoutEndpoint tests that a process with the state lock counts as healthy.
func TestHealthcheckWithoutEndpoint(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.lockState(t)
	if o := s.invoke(t, "healthcheck"); o.Code != exitDone {
		t.Errorf("%+v", o)
	}
}

// TestStatusOfOtherServer tests that status shows the state file, and the reason why it does
// not use the response of the server. healthcheck fails.
func TestStatusOfOtherServer(t *testing.T) {
	t.Parallel()
	elsewhere := listen(t, func(http.ResponseWriter, *http.Request) { t.Error("redirect followed") })
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		cause   []string // parts of the error
		remedy  string   // part of the remedy
	}{
		"500": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no \x1b[2J disk", http.StatusInternalServerError)
		}, []string{"500", "disk"}, "log"},
		"HTML": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, []string{errNotConnector.Error()}, "service.admin.address"},
		"JSON": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }, []string{errNotConnector.Error()}, "service.admin.address"},
		"unknown host name": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "unknown host name", http.StatusMisdirectedRequest)
		}, []string{"421", "unknown host name"}, "service.admin.allowed-hosts"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+elsewhere, http.StatusFound)
		}, []string{errNotConnector.Error(), "302"}, remedyOtherProgram},
		"404":            {http.NotFound, []string{errNotConnector.Error(), "404"}, remedyOtherProgram},
		"empty response": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, []string{errNotConnector.Error() + ": status 400"}, remedyOtherProgram},
		"another": {func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(status.Report{From: status.FromDaemon, Instance: status.Instance{ConnectionUUID: "c", ProfileUUID: testenv.ProfileUUID, StateDir: "/theirs"}})
		}, []string{errOtherConnector.Error(), "connection is c", testenv.ConnectionUUID, "/theirs"}, "service.admin.address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.env["service.admin.address"] = listen(t, test.handler)
			o := s.invoke(t, "status")
			if o.Code != exitDone || !strings.Contains(o.Stdout, "\ndaemon          ") || !containsAll(o.Stdout, test.cause...) || !strings.Contains(o.Stdout, test.remedy) || strings.Contains(o.Stdout, "\x1b") {
				t.Errorf("%+v", o)
			}
			r := decode[status.Report](t, s.invoke(t, "status", "--output", "json"))
			if r.From != status.FromFile || !containsAll(r.Daemon, test.cause...) || !strings.Contains(r.DaemonRemedy, test.remedy) || strings.Contains(r.Daemon, r.DaemonRemedy) {
				t.Errorf("%+v", r)
			}
			if o := s.invoke(t, "healthcheck"); o.Code != exitFailed {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestStatusWithoutResponse tests that status shows the state file after a timeout.
func TestStatusWithoutResponse(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	release := make(chan struct{})
	s.env["service.admin.address"] = listen(t, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	h := testHooks
	h.fetchTimeout = time.Millisecond
	o := invokeWith(t.Context(), t, h, s.env.Environ(), "status", "--output", "json")
	if r := decode[status.Report](t, o); o.Code != exitDone || r.From != status.FromFile || !strings.Contains(r.Daemon, context.DeadlineExceeded.Error()) || r.DaemonRemedy != remedyStuck {
		t.Errorf("%+v", r)
	}
}

// requireOnlyHost requires a server to respond under one name, and not under another one.
func requireOnlyHost(t *testing.T, url, allowed, other string) {
	t.Helper()
	for host, want := range map[string]int{allowed: http.StatusOK, other: http.StatusMisdirectedRequest} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("host %s: %s", host, response.Status)
		}
	}
}
