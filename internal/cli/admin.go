package cli

import (
	"context"
	"runtime"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/config"
	"adconnector/internal/state"
	"adconnector/internal/status"
	"adconnector/internal/syncrun"
)

// monitor collects the metrics of a daemon and reads its status report.
type monitor struct {
	metrics *status.Metrics
	report  func() (status.Report, error)
}

func newMonitor(c *config.Config, store *state.Store) (*monitor, error) {
	instance, err := instanceOf(c)
	if err != nil {
		return nil, err
	}
	report := func() (status.Report, error) {
		report, err := status.Read(store, c.Run.Target, time.Now())
		report.From, report.Version, report.Instance = status.FromDaemon, version, instance
		if report.BindsPausedUntil, report.RefusedBinds = c.Run.BindPause.Active(time.Now()); report.RefusedBinds > 0 {
			report.BindRemedy = syncrun.ResumeRemedy
		}
		if !report.LastFullSync.IsZero() {
			report.NextFullSync = report.LastFullSync.Add(c.Run.FullInterval)
		}
		return report, err
	}
	build := status.Build{Version: version, Commit: commit, GoVersion: runtime.Version()}
	return &monitor{status.NewMetrics(build, report), report}, nil
}

func (m *monitor) observeRun(run syncrun.Report) {
	m.metrics.Run(run.Mode, run.Result, run.Duration())
	for _, stage := range run.Stages {
		m.metrics.Stage(stage.Name, stage.Duration)
	}
	for outcome, count := range run.Objects {
		m.metrics.Objects(outcome.Kind.String(), outcome.Name, count)
	}
}

// endpoint returns the admin endpoint of a runner, which also answers under the names in hosts.
// The schedule loop must call watchdog.Beat.
func (m *monitor) endpoint(r *syncrun.Runner, hosts []string, log zerolog.Logger) (endpoint status.Endpoint, watchdog *status.Watchdog) {
	m.metrics.RegisterGateway(func() status.GatewayCounts {
		counts := r.Gateway.Counts()
		used, limit := r.UploadBudget()
		return status.GatewayCounts{
			Retries: counts.Retries, RateLimits: counts.Limited, Refusals: counts.Refused, Workers: r.Gateway.AllowedWorkers(), BudgetUsed: used, BudgetLimit: limit,
		}
	})
	watchdog = &status.Watchdog{Activity: m.metrics.Activity, Waiting: r.Gateway.LimitedUntil}
	return status.Endpoint{
		Report: m.report,
		Health: watchdog.Check,
		Readiness: func() error {
			report, err := m.report()
			if err != nil {
				return err
			}
			return report.CheckReady(r.Registered())
		},
		Hosts:   hosts,
		Metrics: m.metrics.Handler(log.With().Str("component", "status").Logger()),
	}, watchdog
}

// startEndpoint serves the admin endpoint until stop is called. It ignores the end of ctx,
// because the last run ends later.
func startEndpoint(ctx context.Context, endpoint status.Endpoint, address string, log zerolog.Logger) (stop func()) {
	if address == "" {
		return func() {}
	}
	return startWorker(context.WithoutCancel(ctx), func(ctx context.Context) {
		endpoint.Serve(ctx, address, log.With().Str("component", "status").Logger())
	})
}
