package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/status"
)

// look gets a document of the admin endpoint.
func look(t *testing.T, address, path string) (int, string) {
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

// TestDaemonShowsItself: what the endpoint, status and healthcheck say of a daemon.
func TestDaemonShowsItself(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := fmt.Sprintf("127.0.0.1:%d", unusedPort(t))
	s.env["service.admin.address"], s.env["service.cron-expression"] = address, "0 0 1 1 *"
	if o := invoke(t, s.environ(), "healthcheck"); o.code != exitFailed || !strings.HasPrefix(o.stdout, "not healthy: no daemon answers at "+address) {
		t.Errorf("%+v", o)
	}
	c := start(t, s.environ())
	c.awaitMessage(status.MsgAdminListening)
	c.awaitMessage("run finished")
	c.await("SCHEDULED again", func(l line) bool { return l["from"] == "PROCESSED" && l["to"] == "SCHEDULED" })

	if o := invoke(t, s.environ(), "healthcheck"); o.code != exitDone || o.stdout != "healthy\n" {
		t.Errorf("%+v", o)
	}
	o := invoke(t, s.environ(), "status")
	if o.code != exitDone || !strings.Contains(o.stdout, "\nnext run        ") || strings.Contains(o.stdout, "\ndaemon ") {
		t.Errorf("%+v", o)
	}
	r := invoke(t, s.environ(), "status", "--output", "json").report(t)
	if r.From != status.FromDaemon || r.State != "SCHEDULED" || r.Version != version || len(r.Runs) != 1 || r.Objects != 23 {
		t.Errorf("%+v", r)
	}
	if code, body := look(t, address, "/status"); code != 200 || !strings.Contains(body, `"from": "daemon"`) {
		t.Errorf("%d %s", code, body)
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n"} {
		if code, body := look(t, address, path); code != 200 || body != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	_, metrics := look(t, address, "/metrics")
	for _, want := range []string{
		`adconnector_runs_total{mode="full",result="processed"} 1`, `adconnector_objects_total{kind="user",outcome="delivered"} 20`,
		`adconnector_objects_total{kind="group",outcome="read"} 3`, `adconnector_directory_requests_total{class="done",request="bind"} 2`,
		`adconnector_gateway_requests_total{call="login",class="done"} 1`, `adconnector_gateway_requests_total{call="assets",class="done"} 1`,
		`adconnector_connector_state{state="SCHEDULED"} 1`, `adconnector_connector_state{state="PROCESSING"} 0`, "adconnector_index_objects 23",
		"adconnector_last_success_timestamp_seconds 1.", "adconnector_next_run_timestamp_seconds ", "adconnector_held_deletions 0", "adconnector_rejected_objects 0",
		`adconnector_run_stage_seconds_count{stage="read"} 1`, `adconnector_run_stage_seconds_count{stage="record"} 1`, "adconnector_gateway_retries_total 0",
		"adconnector_gateway_rate_limit_waits_total 0", `adconnector_build_info{commit="`, "adconnector_state_bytes ", "adconnector_schedule_interval_seconds 3.1536e+07", "adconnector_last_run_refused 0",
	} {
		if !strings.Contains(metrics, "\n"+want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	for _, secret := range []string{"s3cret!", bindPassword} {
		if strings.Contains(metrics+o.stdout, secret) {
			t.Error("a secret is shown")
		}
	}

	other := map[string]string{}
	for key, value := range s.env {
		other[key] = value
	}
	other["qualys.profileUuid"] = "00000000-0000-0000-0000-00000000000f"
	foreign := &site{env: other}
	if o := invoke(t, foreign.environ(), "healthcheck"); o.code != exitFailed || !strings.Contains(o.stdout, "is another one, its profile is "+profile+" and not 00000000-0000-0000-0000-00000000000f: give each connector") {
		t.Errorf("%+v", o)
	}
	other["qualys.profileUuid"] = profile
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(s.env["service.state-dir"], link); err != nil {
		t.Fatal(err)
	}
	other["service.state-dir"] = link
	if r := invoke(t, foreign.environ(), "status", "--output", "json").report(t); r.From != status.FromDaemon || r.Daemon != "" {
		t.Errorf("by a link to its state: %+v", r)
	}
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 10*time.Second)
	if _, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		t.Error("the endpoint is still there")
	}
}

// TestReadyAfterARefusal: a refused login is neither registered nor ready, and a
// daemon that waits for the next tick with it is healthy all the same.
func TestReadyAfterARefusal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := fmt.Sprintf("127.0.0.1:%d", unusedPort(t))
	s.env["service.admin.address"], s.env["service.cron-expression"], s.env["qualys.user.password"] = address, "0 0 1 1 *", "wrong"
	c := start(t, s.environ())
	c.awaitMessage(status.MsgAdminListening)
	c.awaitMessage("run finished")
	if code, body := look(t, address, "/readyz"); code != 503 || !strings.Contains(body, "not registered yet") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := look(t, address, "/healthz"); code != 200 {
		t.Errorf("healthz %d", code)
	}
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 10*time.Second)
}

// TestRunsWithoutAnEndpoint: where the address is taken, the daemon says so and runs.
func TestRunsWithoutAnEndpoint(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s.env["service.admin.address"], s.env["service.cron-expression"] = taken.Addr().String(), "0 0 1 1 *"
	c := start(t, s.environ())
	c.await("the complaint", func(l line) bool {
		return l["level"] == "error" && l["message"] == status.MsgAdminUnavailable && strings.Contains(l["remedy"].(string), "service.admin.address")
	})
	c.awaitMessage("run finished")
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 10*time.Second)
}

// TestHealthWithoutAnEndpoint: who holds the state file is alive.
func TestHealthWithoutAnEndpoint(t *testing.T) {
	s := newSite(t)
	if o := invoke(t, s.environ(), "healthcheck"); o.code != exitFailed || !strings.HasPrefix(o.stdout, "not healthy: no daemon holds the state directory ") {
		t.Errorf("%+v", o)
	}
	hold(t, s)
	if o := invoke(t, s.environ(), "healthcheck"); o.code != exitDone {
		t.Errorf("%+v", o)
	}
}

// TestStatusOfNoConnector: what listens there is something else.
func TestStatusOfNoConnector(t *testing.T) {
	s := newSite(t)
	for name, answer := range map[string]string{"HTML": "<html>", "JSON": "{}"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
		s.env["service.admin.address"] = listener.Addr().String()
		var r status.Report
		if o := invoke(t, s.environ(), "status", "--output", "json"); o.code != exitDone || json.Unmarshal([]byte(o.stdout), &r) != nil || r.From != status.FromFile {
			t.Errorf("%s: %+v", name, o)
		}
		if o := invoke(t, s.environ(), "healthcheck"); o.code != exitFailed {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestStatusSaysWhy: what answered and was not believed is told, to people and programs.
func TestStatusSaysWhy(t *testing.T) {
	s := newSite(t)
	followed := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	t.Cleanup(elsewhere.Close)
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		words  string
	}{
		"500":  {func(w http.ResponseWriter) { http.Error(w, "no \x1b[2J disk", http.StatusInternalServerError) }, "it answers 500"},
		"JSON": {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "{}") }, "is no connector: give this one its own service.admin.address"},
		"redirect": {func(w http.ResponseWriter) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusFound)
		}, "it answers 302"},
		"another": {func(w http.ResponseWriter) {
			_ = json.NewEncoder(w).Encode(status.Report{From: status.FromDaemon, Instance: status.Instance{ConnectionUUID: "c", ProfileUUID: profile, StateDir: "/theirs"}})
		}, "is another one, its connection is c and not " + connection + ", its state directory is /theirs and not "},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { test.answer(w) }))
			t.Cleanup(server.Close)
			s.env["service.admin.address"] = strings.TrimPrefix(server.URL, "http://")
			o := invoke(t, s.environ(), "status")
			if o.code != exitDone || !strings.Contains(o.stdout, "\ndaemon          ") || !strings.Contains(o.stdout, test.words) || strings.Contains(o.stdout, "\x1b") {
				t.Errorf("%+v", o)
			}
			if r := invoke(t, s.environ(), "status", "--output", "json").report(t); r.From != status.FromFile || !strings.Contains(r.Daemon, test.words) {
				t.Errorf("%+v", r)
			}
		})
	}
	if followed {
		t.Error("a redirect was followed")
	}
}

// TestInterruptedWhileAsking: a daemon that hangs is no reason to be late, nor to call
// the connector sick.
func TestInterruptedWhileAsking(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	asked, leave := make(chan struct{}, 2), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-leave
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(leave) })
	s.env["service.admin.address"] = strings.TrimPrefix(server.URL, "http://")
	for _, args := range [][]string{{"status"}, {"healthcheck"}} {
		c := start(t, s.environ(), args...)
		<-asked
		c.signal(syscall.SIGINT)
		c.expect(exitInterrupted, 3*time.Second)
	}
}

// TestDamagedUnderWay: a state file that is damaged while the daemon runs is set
// aside without anybody's help, and everything is sent anew.
func TestDamagedUnderWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = "* * * * * *"
	c := start(t, s.environ())
	c.await("a second run", func(l line) bool { return l["message"] == "run finished" && l["mode"] == "delta" })
	file, err := os.OpenFile(filepath.Join(s.env["service.state-dir"], "adconnector.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(make([]byte, info.Size()), 0); err != nil {
		t.Fatal(err)
	}
	c.awaitMessage("the state file was damaged and is set aside: everything is sent anew")
	aside := false
	c.await("a run with the new file", func(l line) bool {
		aside = aside || l["message"] == "the state file was damaged and is set aside: everything is sent anew"
		return aside && l["message"] == "run finished" && l["result"] == "processed" && l["uploaded"] == 23.0
	})
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 10*time.Second)
	if n := statuses(s.gateway)["DELETED"]; n != 0 || len(s.gateway.Users()) != 20 {
		t.Errorf("%d deleted of %d", n, len(s.gateway.Users()))
	}
}
