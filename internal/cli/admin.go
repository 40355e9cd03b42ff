package cli

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/internal/status"
	"adconnector/internal/syncrun"
)

// watch is what the daemon's parts are looked at through.
type watch struct {
	metrics *status.Metrics
	report  func() (status.Report, error)
}

func newWatch(c *config.Config, store *state.Store) (*watch, error) {
	instance, err := instanceOf(c)
	if err != nil {
		return nil, err
	}
	report := func() (status.Report, error) {
		report, err := status.Read(store, time.Now())
		report.From, report.Version, report.Instance = status.FromDaemon, version, instance
		return report, err
	}
	return &watch{status.NewMetrics(status.Build{Version: version, Commit: commit, GoVersion: runtime.Version()}, report), report}, nil
}

func (w *watch) directoryRequest(request string, class fault.Class, _ time.Duration) {
	w.metrics.DirectoryRequest(request, string(class))
}

func (w *watch) gatewayRequest(call string, class fault.Class, took time.Duration) {
	w.metrics.GatewayRequest(call, string(class), took)
}

func (w *watch) runEnded(account syncrun.Report) {
	w.metrics.Run(account.Mode, account.Result, account.Duration)
	for _, stage := range account.Stages {
		w.metrics.Stage(stage.Name, stage.Duration)
	}
	for outcome, count := range account.Objects {
		w.metrics.Objects(outcome.Kind.String(), outcome.Name, count)
	}
}

// endpoint is what the daemon shows of a runner. pulse is to hear of the loop.
func (w *watch) endpoint(r *syncrun.Runner, log zerolog.Logger) (endpoint status.Endpoint, pulse *status.Pulse) {
	w.metrics.WatchGateway(func() (retries, limits int64) {
		counts := r.Gateway.Counts()
		return counts.Retries, counts.Limited
	})
	pulse = &status.Pulse{Activity: w.metrics.Activity, Waiting: r.Gateway.LimitedUntil}
	return status.Endpoint{
		Report: w.report,
		Stuck:  pulse.Stuck,
		Unready: func() error {
			report, err := w.report()
			if err != nil {
				return err
			}
			return report.Unready(r.Registered())
		},
		Metrics: w.metrics.Handler(log.With().Str("component", "status").Logger()),
	}, pulse
}

// serveEndpoint shows the endpoint until it is told to stop: to the end of the last
// run, which outlives ctx.
func serveEndpoint(ctx context.Context, endpoint status.Endpoint, address string, log zerolog.Logger) (stop func()) {
	if address == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var serving sync.WaitGroup
	serving.Go(func() { endpoint.Serve(ctx, address, log.With().Str("component", "status").Logger()) })
	return func() {
		cancel()
		serving.Wait()
	}
}
