package prometheus

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/status"
	"adconnector/internal/syncrun"
	"adconnector/test/debian"
	"adconnector/test/ports"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// buildConnector builds the connector in its own module and returns its path.
func buildConnector(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "adconnector")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "./cmd/adconnector")
	build.Dir = "../../.."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the connector: %v\n%s", err, output)
	}
	return path
}

// startDaemon starts a daemon whose account cannot read two of the users, and waits until its first
// run has ended. It returns the address of the admin endpoint.
func startDaemon(t *testing.T) string {
	t.Helper()
	e := testenv.New(t, testenv.Options{Directory: domaincontroller.Options{Users: 20, Groups: 4, Seed: 1}})
	unit := "OU=Closed," + e.Base()
	e.AddUnit(unit)
	for n := range 2 {
		e.AddUser(fmt.Sprintf("CN=closed%d,%s", n, unit))
	}
	e.Must(e.Hide(unit, "userAccountControl"))
	e.Console("LDAPS", e.Base()) // so that there is a certificate that can expire
	daemon := program.Start(t, program.Command{Path: buildConnector(t), Args: []string{"--env-file", program.EnvFile(t, e.Gateway.Settings().With(testenv.Settings{
		"service.cron-expression": "0 0 1 1 *", "service.run-on-start": "true", "service.admin.address": "127.0.0.1:0",
	}))}})
	address := daemon.AwaitMessage(t, status.MsgAdminListening).Text("address")
	daemon.AwaitMessage(t, syncrun.MsgRunFinished)
	return address
}

// startPrometheus starts Prometheus with the alert rules and waits until it has stored a scrape of
// the target. It returns the URL of its API.
func startPrometheus(t *testing.T, target string) string {
	t.Helper()
	// The scrapes of a target follow one another, so the first one is stored when the second one begins.
	scraped := make(chan struct{})
	var scrapes atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if scrapes.Add(1) == 2 {
			close(scraped)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	rules, err := filepath.Abs("../../../deploy/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n"+
		"  - job_name: adconnector\n    static_configs: [{targets: [%q]}]\n", rules, front.Listener.Addr())
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := net.JoinHostPort("127.0.0.1", fmt.Sprint(ports.Reserved(t)))
	var output strings.Builder
	server := exec.CommandContext(t.Context(), "prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	server.Stdout, server.Stderr = &output, &output
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-ended
	})
	select {
	case <-scraped:
	case err := <-ended:
		ended <- err
		t.Fatalf("prometheus ended: %v\n%s", err, output.String())
	case <-time.After(testlog.IdleLimit):
		t.Fatal("no scrape")
	}
	return "http://" + listen + "/api/v1/"
}

// api decodes the data of an answer of Prometheus.
func api(t *testing.T, address string, data any) {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Errorf("%s: %s %s %v", address, answer.Status, answer.Error, err)
	}
}

// query returns the values of an instant query, by the labels other than job and instance.
func query(t *testing.T, base, expression string) map[string]string {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	api(t, base+"query?query="+url.QueryEscape(expression), &data)
	values := map[string]string{}
	for _, r := range data.Result {
		delete(r.Metric, "__name__")
		delete(r.Metric, "job")
		delete(r.Metric, "instance")
		values[fmt.Sprint(r.Metric)] = fmt.Sprint(r.Value[1])
	}
	return values
}

// TestScrape lets Prometheus scrape a daemon, and runs the queries of the alerts and of the dashboard.
func TestScrape(t *testing.T) {
	if err := debian.Install([]string{"promtool", "prometheus"}, "prometheus"); err != nil {
		t.Fatal(err)
	}
	target := startDaemon(t)
	checkFormat(t, "http://"+target+"/metrics")
	base := startPrometheus(t, target)
	for expression, want := range map[string]string{
		"up": "1", "adconnector_unreadable_objects": "2", "adconnector_directory_servers_unreached": "0", "adconnector_held_deletions": "0",
		"adconnector_gateway_workers_allowed": "10", "adconnector_upload_budget_used_bytes": "0", "adconnector_upload_budget_limit_bytes": "8388608",
	} {
		if got := query(t, base, expression); got["map[]"] != want {
			t.Errorf("%s: %v, want %s", expression, got, want)
		}
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Query string }
		}
	}
	if api(t, base+"rules", &rules); len(rules.Groups) != 1 {
		t.Fatalf("rules %+v", rules)
	}
	for _, rule := range rules.Groups[0].Rules {
		if fires := len(query(t, base, rule.Query)) > 0; fires != (rule.Name == "AdconnectorObjectsUnreadable") {
			t.Errorf("condition of %s holds: %t", rule.Name, fires)
		}
	}
	checkDashboard(t, base)
}

// checkFormat checks the metrics with promtool.
func checkFormat(t *testing.T, address string) {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	metrics, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(string(metrics))
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v\n%s", err, output)
	}
}

var interval = regexp.MustCompile(`\[(\$__rate_interval|1h)\]`)

// checkDashboard runs the queries of the dashboard. All of them have values, except those of
// events that did not happen.
func checkDashboard(t *testing.T, base string) {
	t.Helper()
	content, err := os.ReadFile("../../../deploy/grafana/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expression := strings.ReplaceAll(target.Expr, "$instance", ".*")
			isRate := interval.MatchString(expression) // has values after several scrapes only
			if values := query(t, base, interval.ReplaceAllString(expression, "[5m]")); len(values) == 0 && !isRate {
				t.Errorf("panel %s without values: %s", panel.Title, expression)
			}
		}
	}
	if len(dashboard.Panels) < 10 {
		t.Errorf("%d panels", len(dashboard.Panels))
	}
}
