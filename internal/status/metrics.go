package status

import (
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// Metrics has the Prometheus metrics of a process. Metrics that survive a restart come from a
// Report, which is read at every scrape.
type Metrics struct {
	registry *prometheus.Registry

	runs           *prometheus.CounterVec
	runSeconds     *prometheus.HistogramVec
	stageSeconds   *prometheus.HistogramVec
	objects        *prometheus.CounterVec
	directory      *prometheus.CounterVec
	gateway        *prometheus.CounterVec
	gatewaySeconds *prometheus.HistogramVec

	activity atomic.Uint64 // number of calls of RecordActivity
}

// Build identifies the program.
type Build struct{ Version, Commit, GoVersion string }

// durationBuckets range from a delta sync without changes to a full sync with a rate limit.
var durationBuckets = []float64{.01, .03, .1, .3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000}

// NewMetrics returns the metrics of a process. report is called at every scrape.
func NewMetrics(build Build, report func() (Report, error)) *Metrics {
	m := &Metrics{
		registry:       prometheus.NewRegistry(),
		runs:           counters("runs_total", "Runs that ended.", "mode", "result"),
		runSeconds:     histograms("run_duration_seconds", "Duration of runs.", durationBuckets, "mode"),
		stageSeconds:   histograms("run_stage_seconds", "Duration of the stages of runs: connect, memberships, logons, read, settle, drain, record.", durationBuckets, "stage"),
		objects:        counters("objects_total", "Objects by outcome: read, reread, skipped, unreadable, changed, accepted, deleted, rejected, held, undecided.", "kind", "outcome"),
		directory:      counters("directory_requests_total", "Requests to the directory: connect, bind, read, search (one for each page).", "request", "class"),
		gateway:        counters("gateway_requests_total", "Requests to the gateway: login, connection, profile, assets, state.", "call", "class"),
		gatewaySeconds: histograms("gateway_request_duration_seconds", "Time until the first byte of the response.", prometheus.DefBuckets, "call"),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": build.Version, "commit": build.Commit, "goversion": build.GoVersion},
	})
	info.Set(1)
	m.registry.MustRegister(m.runs, m.runSeconds, m.stageSeconds, m.objects, m.directory, m.gateway, m.gatewaySeconds, info,
		reportCollector{report}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

const namespace = "adconnector"

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
}

// Handler returns the handler of /metrics.
func (m *Metrics) Handler(log zerolog.Logger) http.Handler {
	scrapes := &scrapeLog{log: log}
	return promhttp.HandlerFor(prometheus.GathererFunc(withCallback(m.registry.Gather, scrapes.record)), promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
}

// withCallback returns a function that also passes its error, or nil, to callback.
func withCallback[T any](f func() (T, error), callback func(error)) func() (T, error) {
	return func() (T, error) {
		result, err := f()
		callback(err)
		return result, err
	}
}

// scrapeLog logs the error of a failed scrape once, until another error occurs or a scrape
// succeeds, because there is a scrape every few seconds.
type scrapeLog struct {
	log zerolog.Logger

	mu      sync.Mutex // scrapes can run concurrently
	repeats fault.RepeatCounter
}

func (s *scrapeLog) record(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.repeats.Reset()
	} else if s.repeats.Count(err, time.Now()).Times == 1 {
		s.log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgScrapeFailed)
	}
}

// Run counts a run.
func (m *Metrics) Run(mode, result string, duration time.Duration) {
	m.runs.WithLabelValues(mode, result).Inc()
	m.runSeconds.WithLabelValues(mode).Observe(duration.Seconds())
}

// Stage counts a stage of a run.
func (m *Metrics) Stage(name string, duration time.Duration) {
	m.stageSeconds.WithLabelValues(name).Observe(duration.Seconds())
}

// Objects counts objects of a kind with an outcome.
func (m *Metrics) Objects(kind, outcome string, count int) {
	m.objects.WithLabelValues(kind, outcome).Add(float64(count))
}

// DirectoryRequest counts a request to the directory.
func (m *Metrics) DirectoryRequest(request string, class fault.Class, _ time.Duration) {
	if request != "search" || class != fault.Done { // directory.Options.OnProgress bounds pages
		m.RecordActivity()
	}
	m.directory.WithLabelValues(request, string(class)).Inc()
}

// GatewayRequest counts a request to the gateway.
func (m *Metrics) GatewayRequest(call string, class fault.Class, duration time.Duration) {
	m.RecordActivity()
	m.gateway.WithLabelValues(call, string(class)).Inc()
	m.gatewaySeconds.WithLabelValues(call).Observe(duration.Seconds())
}

// GatewayCounts are numbers of the gateway's client.
type GatewayCounts struct {
	Retries    int64
	RateLimits int64
	Refusals   int64 // of calls, because of too many concurrent ones
	Workers    int   // that the gateway allows
	// BudgetUsed are the bytes of the upload's budget that the current run holds, of BudgetLimit.
	BudgetUsed, BudgetLimit int64
}

// RegisterGateway adds the numbers of the gateway's client.
func (m *Metrics) RegisterGateway(counts func() GatewayCounts) {
	counter := func(name, help string, count func(GatewayCounts) int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, func() float64 { return float64(count(counts())) })
	}
	gauge := func(name, help string, value func(GatewayCounts) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, func() float64 { return value(counts()) })
	}
	m.registry.MustRegister(
		counter("gateway_retries_total", "Repeated requests to the gateway.", func(c GatewayCounts) int64 { return c.Retries }),
		counter("gateway_rate_limit_waits_total", "Number of rate limits by the gateway.", func(c GatewayCounts) int64 { return c.RateLimits }),
		counter("gateway_concurrency_refusals_total", "Requests that the gateway refused because of too many concurrent ones.", func(c GatewayCounts) int64 { return c.Refusals }),
		gauge("gateway_workers_allowed", "Upload workers allowed: thread-pool.size, or the lower concurrency limit of the gateway.", func(c GatewayCounts) float64 { return float64(c.Workers) }),
		gauge("upload_budget_used_bytes", "Memory that the upload of the current run holds; 0 without one.", func(c GatewayCounts) float64 { return float64(c.BudgetUsed) }),
		gauge("upload_budget_limit_bytes", "Limit of the memory that an upload holds. Reading waits at the limit.", func(c GatewayCounts) float64 { return float64(c.BudgetLimit) }),
	)
}

// RegisterSchedule adds the time between ticks.
func (m *Metrics) RegisterSchedule(interval func() time.Duration) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: namespace, Name: "schedule_interval_seconds", Help: "Time between the next two ticks of the schedule."},
		func() float64 { return interval().Seconds() }))
}

// RecordActivity counts progress: a request whose number is bounded ended, or a directory search
// made progress as directory.Options.OnProgress defines it.
func (m *Metrics) RecordActivity() { m.activity.Add(1) }

// Activity returns the number of calls of RecordActivity.
func (m *Metrics) Activity() uint64 { return m.activity.Load() }

// reportCollector collects the metrics of a Report.
type reportCollector struct{ report func() (Report, error) }

var (
	descState       = gauge("connector_state", "1 for the current state of the connector.", "state")
	descLastSuccess = gauge("last_success_timestamp_seconds", "Start of the last run that did not fail; absent before that.")
	descLastFull    = gauge("last_full_pass_timestamp_seconds", "Time of the last full sync; absent before that.")
	descNextRun     = gauge("next_run_timestamp_seconds", "Time of the next run; absent if none is scheduled.")
	descLimit       = gauge("gateway_rate_limit_until_timestamp_seconds", "End of the rate limit by the gateway; absent without one.")
	descBindPause   = gauge("bind_pause_until_timestamp_seconds", "End of the pause after refused binds; absent without one.")
	descHeld        = gauge("held_deletions", "Deletions that the guard holds.")
	descUndecided   = gauge("undecided_deletions", "Deletions that cannot be decided, by reason; absent without any.", "reason")
	descLogons      = gauge("logon_controllers", "Other domain controllers that the last full sync asked for logons, by result; absent if it asked none.", "result")
	descRejected    = gauge("rejected_objects", "Objects that the gateway rejects.")
	descUnreadable  = gauge("unreadable_objects", "Objects that the account cannot read completely: in the last full sync, or in a later delta sync if there were more.")
	descUnreached   = gauge("directory_servers_unreached", "Directory servers that the last run tried and did not reach, at most 10.")
	descCertificate = gauge("certificate_expiry_timestamp_seconds", "Expiry of a certificate that the last runs have seen, by peer (directory, gateway) and address; absent without TLS.", "peer", "address")
	descPassword    = gauge("bind_password_expiry_timestamp_seconds", "Expiry of the password of the bind account; absent if it never expires or is not readable.")
	descRefused     = gauge("last_run_refused", "1 if the last run was refused: credentials, rights, certificates.")
	descObjects     = gauge("index_objects", "Objects in the index: acknowledged or in flight.")
	descBytes       = gauge("state_bytes", "Size of the state file.")
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// Describe sends nothing, because the metrics depend on the report.
func (reportCollector) Describe(chan<- *prometheus.Desc) {}

// Collect reads the report.
func (r reportCollector) Collect(metrics chan<- prometheus.Metric) {
	report, err := r.report()
	if err != nil {
		metrics <- prometheus.NewInvalidMetric(descState, err)
		return
	}
	add := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	addTime := func(desc *prometheus.Desc, t time.Time) {
		if !t.IsZero() {
			add(desc, float64(t.UnixMilli())/1000)
		}
	}
	for _, name := range []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"} {
		add(descState, boolValue(report.State == name), name)
	}
	addTime(descLastSuccess, report.LastSuccess)
	addTime(descLastFull, report.LastFullSync)
	addTime(descNextRun, report.NextRun)
	addTime(descLimit, report.WaitsUntil)
	addTime(descBindPause, report.BindsPausedUntil)
	add(descHeld, float64(report.Held))
	for _, u := range report.UndecidedReasons {
		add(descUndecided, float64(u.Objects), u.Reason)
	}
	for result, controllers := range report.logonResults() {
		add(descLogons, float64(controllers), result)
	}
	add(descRejected, float64(report.Rejected))
	add(descUnreadable, float64(report.Unreadable.Objects))
	add(descUnreached, float64(len(report.Unreached)))
	for _, e := range report.Expiries {
		switch e.Subject {
		case state.BindPassword:
			addTime(descPassword, e.Expires)
		case state.DirectoryCertificate:
			add(descCertificate, float64(e.Expires.Unix()), "directory", e.Name)
		case state.GatewayCertificate:
			add(descCertificate, float64(e.Expires.Unix()), "gateway", e.Name)
		}
	}
	add(descRefused, boolValue(report.refused() != nil))
	add(descObjects, float64(report.Objects))
	add(descBytes, float64(report.StateBytes))
}

// logonResults returns the number of domain controllers with each result; nil: none were asked.
func (r *Report) logonResults() map[string]int {
	if r.Logons == nil {
		return nil
	}
	results := map[string]int{}
	for _, result := range state.LogonResults {
		results[string(result)] = 0
	}
	for _, c := range r.Logons.Controllers {
		results[c.Result]++
	}
	return results
}

func boolValue(value bool) float64 {
	if value {
		return 1
	}
	return 0
}
