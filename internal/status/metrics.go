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
)

// Metrics counts what one process does, for Prometheus. What outlives the process
// is read from a Report at every scrape.
type Metrics struct {
	registry *prometheus.Registry

	runs           *prometheus.CounterVec
	runSeconds     *prometheus.HistogramVec
	stageSeconds   *prometheus.HistogramVec
	objects        *prometheus.CounterVec
	directory      *prometheus.CounterVec
	gateway        *prometheus.CounterVec
	gatewaySeconds *prometheus.HistogramVec

	activity atomic.Uint64 // requests that ended, and arrivals of bytes
}

// Build says which program this is.
type Build struct{ Version, Commit, GoVersion string }

// seconds suit runs and their stages, from a delta that finds nothing to a full pass
// that waits for a rate limit.
var seconds = []float64{.01, .03, .1, .3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000}

// NewMetrics makes the metrics of a process. report is asked at every scrape.
func NewMetrics(build Build, report func() (Report, error)) *Metrics {
	m := &Metrics{
		registry:       prometheus.NewRegistry(),
		runs:           counters("runs_total", "Runs that ended.", "mode", "result"),
		runSeconds:     histograms("run_duration_seconds", "How long runs took.", seconds, "mode"),
		stageSeconds:   histograms("run_stage_seconds", "How long the stages of runs took: connect, memberships, read, settle, drain, record.", seconds, "stage"),
		objects:        counters("objects_total", "What became of objects: read, skipped, changed, delivered, deleted, rejected, held.", "kind", "outcome"),
		directory:      counters("directory_requests_total", "Requests to the directory: connect, bind, read, search (one a page).", "request", "class"),
		gateway:        counters("gateway_requests_total", "Requests to the gateway: login, connection, profile, assets, state.", "call", "class"),
		gatewaySeconds: histograms("gateway_request_duration_seconds", "Time until the gateway's answers began.", prometheus.DefBuckets, "call"),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": build.Version, "commit": build.Commit, "goversion": build.GoVersion},
	})
	info.Set(1)
	m.registry.MustRegister(m.runs, m.runSeconds, m.stageSeconds, m.objects, m.directory, m.gateway, m.gatewaySeconds, info,
		recorded{report}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

const namespace = "adconnector"

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
}

// Handler shows the metrics.
func (m *Metrics) Handler(log zerolog.Logger) http.Handler {
	scrapes := &scrapes{log: log}
	return promhttp.HandlerFor(prometheus.GathererFunc(noted(m.registry.Gather, scrapes.note)), promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
}

// noted returns work that also passes its error, or nil, to note.
func noted[T any](work func() (T, error), note func(error)) func() (T, error) {
	return func() (T, error) {
		done, err := work()
		note(err)
		return done, err
	}
}

// scrapes logs why scrapes fail: once, until another error occurs or a scrape succeeds,
// because scrapes come every few seconds.
type scrapes struct {
	log zerolog.Logger

	mu      sync.Mutex // several scrapes may run at once
	repeats fault.RepeatCounter
}

func (s *scrapes) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.repeats.Reset()
	} else if s.repeats.Count(err, time.Now()).Times == 1 {
		s.log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgScrapeFailed)
	}
}

// Run counts a run that has ended.
func (m *Metrics) Run(mode, result string, took time.Duration) {
	m.runs.WithLabelValues(mode, result).Inc()
	m.runSeconds.WithLabelValues(mode).Observe(took.Seconds())
}

// Stage counts a stage of a run.
func (m *Metrics) Stage(name string, took time.Duration) {
	m.stageSeconds.WithLabelValues(name).Observe(took.Seconds())
}

// Objects counts objects of a kind that came to the same outcome.
func (m *Metrics) Objects(kind, outcome string, count int) {
	m.objects.WithLabelValues(kind, outcome).Add(float64(count))
}

// DirectoryRequest counts a request to the directory.
func (m *Metrics) DirectoryRequest(request, class string) {
	m.Active()
	m.directory.WithLabelValues(request, class).Inc()
}

// GatewayRequest counts a request to the gateway.
func (m *Metrics) GatewayRequest(call, class string, took time.Duration) {
	m.Active()
	m.gateway.WithLabelValues(call, class).Inc()
	m.gatewaySeconds.WithLabelValues(call).Observe(took.Seconds())
}

// WatchGateway shows how often requests to the gateway were repeated, and how often
// it told to wait.
func (m *Metrics) WatchGateway(counts func() (retries, limits int64)) {
	watch := func(name, help string, count func() int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, func() float64 { return float64(count()) })
	}
	m.registry.MustRegister(
		watch("gateway_retries_total", "Requests to the gateway that repeated one.", func() int64 { retries, _ := counts(); return retries }),
		watch("gateway_rate_limit_waits_total", "How often the gateway told to wait.", func() int64 { _, limits := counts(); return limits }),
	)
}

// WatchSchedule shows the time between ticks.
func (m *Metrics) WatchSchedule(interval func() time.Duration) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(
		prometheus.GaugeOpts{Namespace: namespace, Name: "schedule_interval_seconds", Help: "Time between the next two ticks of the schedule."},
		func() float64 { return interval().Seconds() }))
}

// Active counts a sign of progress: a request that ended, or bytes that arrived.
func (m *Metrics) Active() { m.activity.Add(1) }

// Activity returns how many signs of progress there were.
func (m *Metrics) Activity() uint64 { return m.activity.Load() }

// recorded shows what the state file knows.
type recorded struct{ report func() (Report, error) }

var (
	describedState       = gauge("connector_state", "1 for the state that the connector is in.", "state")
	describedLastSuccess = gauge("last_success_timestamp_seconds", "Start of the last run that did not fail; absent until there is one.")
	describedLastFull    = gauge("last_full_pass_timestamp_seconds", "Time of the last full pass; absent until there is one.")
	describedNextRun     = gauge("next_run_timestamp_seconds", "When the next run is due; absent while none is planned.")
	describedLimit       = gauge("gateway_rate_limit_until_timestamp_seconds", "Until when the gateway wants to be left alone; absent when it does not.")
	describedHeld        = gauge("held_deletions", "Deletions that the guard holds.")
	describedRejected    = gauge("rejected_objects", "Objects that the gateway rejects.")
	describedRefused     = gauge("last_run_refused", "1 when the last run was refused: credentials, rights, certificates.")
	describedObjects     = gauge("index_objects", "Objects in the index: sent, whether acknowledged or not.")
	describedBytes       = gauge("state_bytes", "Size of the state file.")
)

func gauge(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// Describe sends nothing: what there is depends on the report.
func (recorded) Describe(chan<- *prometheus.Desc) {}

// Collect reads the report.
func (r recorded) Collect(to chan<- prometheus.Metric) {
	report, err := r.report()
	if err != nil {
		to <- prometheus.NewInvalidMetric(describedState, err)
		return
	}
	show := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	at := func(desc *prometheus.Desc, moment time.Time) {
		if !moment.IsZero() {
			show(desc, float64(moment.UnixMilli())/1000)
		}
	}
	for _, state := range []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"} {
		show(describedState, oneIf(report.State == state), state)
	}
	at(describedLastSuccess, report.LastSuccess)
	at(describedLastFull, report.LastFullPass)
	at(describedNextRun, report.NextRun)
	at(describedLimit, report.WaitsUntil)
	show(describedHeld, float64(report.Held))
	show(describedRejected, float64(report.Rejected))
	show(describedRefused, oneIf(report.refused() != nil))
	show(describedObjects, float64(report.Objects))
	show(describedBytes, float64(report.StateBytes))
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
