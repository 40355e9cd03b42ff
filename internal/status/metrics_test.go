package status

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// newFilledMetrics returns metrics with a value for each metric.
func newFilledMetrics() *Metrics {
	m := NewMetrics(Build{"1.0.0", "abc", "go"}, func() (Report, error) {
		return Report{
			State: "SCHEDULED", NextRun: noon, WaitsFor: rateLimit, WaitsUntil: noon, BindsPausedUntil: noon, LastSuccess: noon, LastFullSync: noon,
			Held: 3, UndecidedReasons: []UndecidedReason{{Reason: "lag", Objects: 6}}, Rejected: 2, Objects: 10, StateBytes: 4096, Logons: &Logons{}, Runs: []state.Run{{Class: "refused"}},
			Unreadable: state.Unreadable{Objects: 11}, Unreached: make([]state.UnreachedServer, 12),
			Expiries: []Expiry{{Subject: state.DirectoryCertificate, Name: "dc1:636", Expires: noon}, {Subject: state.GatewayCertificate, Name: "gateway", Expires: noon}, {Subject: state.BindPassword, Name: "svc", Expires: noon}},
		}, nil
	})
	m.Run("delta", "processed", time.Second)
	m.Stage("read", 100*time.Millisecond)
	m.Objects("user", "accepted", 7)
	m.DirectoryRequest("bind", "refused", 0)
	m.GatewayRequest("assets", "limited", time.Second)
	m.RegisterGateway(func() GatewayCounts { return GatewayCounts{4, 5, 6, 7, 8, 9} })
	m.RegisterSchedule(func() time.Duration { return 10 * time.Minute })
	return m
}

func scrape(t *testing.T, m *Metrics) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler(zerolog.Nop()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Code, w.Body.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m := newFilledMetrics()
	code, text := scrape(t, m)
	if code != 200 || m.Activity() != 2 {
		t.Errorf("status %d, activity %d", code, m.Activity())
	}
	for _, want := range []string{
		`runs_total{mode="delta",result="processed"} 1`, `run_duration_seconds_count{mode="delta"} 1`, `run_stage_seconds_sum{stage="read"} 0.1`,
		`objects_total{kind="user",outcome="accepted"} 7`, `directory_requests_total{class="refused",request="bind"} 1`, `gateway_requests_total{call="assets",class="limited"} 1`,
		"gateway_retries_total 4", "gateway_rate_limit_waits_total 5", "gateway_concurrency_refusals_total 6", "gateway_workers_allowed 7", "upload_budget_used_bytes 8", "upload_budget_limit_bytes 9", "unreadable_objects 11", "directory_servers_unreached 12", "schedule_interval_seconds 600", "held_deletions 3", `undecided_deletions{reason="lag"} 6`, "rejected_objects 2", "index_objects 10",
		`certificate_expiry_timestamp_seconds{address="dc1:636",peer="directory"} 1.7953488e+09`, `certificate_expiry_timestamp_seconds{address="gateway",peer="gateway"} 1.7953488e+09`,
		"bind_password_expiry_timestamp_seconds 1.7953488e+09",
		"state_bytes 4096", "last_run_refused 1", "last_success_timestamp_seconds 1.7953488e+09", "gateway_rate_limit_until_timestamp_seconds 1.7953488e+09", "bind_pause_until_timestamp_seconds 1.7953488e+09",
		`connector_state{state="SCHEDULED"} 1`, `connector_state{state="PROCESSED"} 0`, `build_info{commit="abc",goversion="go",version="1.0.0"} 1`,
	} {
		if !strings.Contains(text, "\nadconnector_"+want+"\n") {
			t.Errorf("%s missing in\n%s", want, text)
		}
	}
}

// TestMetricsWithoutReport tests that a scrape fails completely, not partially.
func TestMetricsWithoutReport(t *testing.T) {
	t.Parallel()
	m := NewMetrics(Build{}, func() (Report, error) { return Report{}, errors.New("no disk") })
	if code, text := scrape(t, m); code != 500 || !strings.Contains(text, "no disk") {
		t.Errorf("%d %s", code, text)
	}
}

// TestFailedScrape tests that an error is logged once, until it changes or a scrape succeeds.
func TestFailedScrape(t *testing.T) {
	t.Parallel()
	const remedy = "check the disk"
	failed := func(cause string) error {
		return fault.Operation{Op: "read", Object: cause}.Failed(fault.Transient, errors.New(cause), remedy)
	}
	var reportErr error
	m := NewMetrics(Build{}, func() (Report, error) { return Report{}, reportErr })
	var log bytes.Buffer
	h := m.Handler(zerolog.New(&log))
	for _, step := range []struct {
		err   error
		lines int // so far
	}{{failed("disk"), 1}, {failed("disk"), 1}, {nil, 1}, {failed("disk"), 2}, {failed("file"), 3}} {
		reportErr = step.err
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if n := strings.Count(log.String(), "\n"); n != step.lines {
			t.Errorf("%v: %d lines, want %d", step.err, n, step.lines)
		}
	}
	for line := range strings.Lines(log.String()) {
		var l struct{ Message, Error, Remedy string }
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Message != MsgScrapeFailed || l.Error == "" || l.Remedy != remedy {
			t.Errorf("%v in %s", err, line)
		}
	}
}

// composeVolume is the name of a volume, which has the form of a metric.
const composeVolume = "adconnector_state"

var metricName = regexp.MustCompile(`\b(adconnector_[a-z_]+|process_[a-z_]+)\b`)

// TestDocumentedMetrics tests that alerts, dashboard and docs/operations.md contain only existing metrics,
// and that docs/operations.md contains all metrics of the connector.
func TestDocumentedMetrics(t *testing.T) {
	t.Parallel()
	_, text := scrape(t, newFilledMetrics())
	var existing []string
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(name), " ")
			existing = append(existing, name)
			if kind == "histogram" {
				existing = append(existing, name+"_bucket", name+"_sum", name+"_count")
			}
		}
	}
	documented := map[string][]string{}
	for _, path := range []string{"../../docs/operations.md", "../../deploy/prometheus/alerts.yaml", "../../deploy/grafana/dashboard.json"} {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range metricName.FindAllString(string(content), -1) {
			if name == composeVolume {
				continue
			}
			documented[path] = append(documented[path], name)
			if !slices.Contains(existing, name) {
				t.Errorf("%s: %s does not exist", path, name)
			}
		}
	}
	for _, name := range existing {
		isPart := strings.HasSuffix(name, "_bucket") || strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count")
		if strings.HasPrefix(name, "adconnector_") && !isPart && !slices.Contains(documented["../../docs/operations.md"], name) {
			t.Errorf("%s missing in docs/operations.md", name)
		}
	}
}
