package cli

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

// runner returns the runner for a configuration and a state file. The caller closes the
// state file. m observes the requests and the runs; it can be nil.
func (p *program) runner(c *config.Config, store *state.Store, m *monitor, log zerolog.Logger) (*syncrun.Runner, error) {
	o := c.Run
	o.Store, o.Log = store, log.With().Str("component", "run").Logger()
	options := p.gatewayOptions(c, log)
	if m != nil {
		options.Observe, o.OnEnd, o.Search.Observe = m.metrics.GatewayRequest, m.observeRun, m.metrics.DirectoryRequest
		o.Search.OnProgress = m.metrics.RecordActivity
	}
	options.OnLimit = func(limit gateway.Limit) error {
		if store.IsReadOnly() { // dry run
			return nil
		}
		return store.SetRateLimit(state.RateLimit{Target: c.Run.Target, NotedAt: limit.NotedAt, Until: limit.Until})
	}
	options.OnConcurrencyLimit = func(limit gateway.ConcurrencyLimit) error {
		if store.IsReadOnly() { // dry run
			return nil
		}
		return store.SetConcurrencyLimit(state.ConcurrencyLimit{Target: c.Run.Target, NotedAt: limit.NotedAt, Calls: limit.Calls})
	}
	o.Gateway = gateway.New(options)
	if err := restoreLimits(o.Gateway, store, c.Run.Target, o.Log); err != nil {
		return nil, err
	}
	return syncrun.New(o), nil
}

// restoreLimits applies the limits that an earlier process recorded for an upload target.
func restoreLimits(client *gateway.Client, store *state.Store, target string, log zerolog.Logger) error {
	now := time.Now()
	limit, err := store.RateLimit()
	if err != nil {
		return err
	}
	if until := limit.End(target, now); !until.IsZero() {
		client.RestoreLimit(gateway.Limit{NotedAt: limit.NotedAt, Until: until})
		log.Warn().Time("until", client.LimitedUntil()).Msg(MsgRateLimitRestored)
	}
	concurrency, err := store.ConcurrencyLimit()
	if err != nil {
		return err
	}
	if calls := concurrency.CallsTo(target, now); calls > 0 {
		client.RestoreConcurrencyLimit(gateway.ConcurrencyLimit{NotedAt: concurrency.NotedAt, Calls: calls})
		log.Info().Int("workers", client.AllowedWorkers()).Msg(MsgWorkersRestored)
	}
	return nil
}

// gatewayOptions are the options of the gateway's client.
func (p *program) gatewayOptions(c *config.Config, log zerolog.Logger) gateway.Options {
	o := c.Gateway
	o.Version, o.Log = version, log.With().Str("component", "gateway").Logger()
	return o
}

// openState opens the state file. It logs a damaged file that was set aside, a file that was
// restored from a copy, and once per process that other users can change the state.
func (p *program) openState(dir string, log zerolog.Logger) (*state.Store, error) {
	store, err := p.hooks.state.Open(dir)
	if err != nil {
		return nil, err
	}
	logSetAside(store, log)
	logRestored(store, log)
	p.warnShared.Do(func() {
		if err := state.SharedAccess(dir); err != nil {
			log.Warn().Str("component", "state").EmbedObject(fault.Fields(err)).Msg(MsgStateDirShared)
		}
	})
	return store, nil
}

// openStateReadOnly opens the state file for reading. It logs a file that was restored from a
// copy.
func (p *program) openStateReadOnly(dir string, log zerolog.Logger) (*state.Store, error) {
	store, err := p.hooks.state.OpenReadOnly(dir)
	if err == nil {
		logRestored(store, log)
	}
	return store, err
}

// logRestored logs that the file was restored from a copy, or that this cannot be determined.
func logRestored(store *state.Store, log zerolog.Logger) {
	log = log.With().Str("component", "state").Logger()
	if store.Restored != nil {
		log.Warn().EmbedObject(fault.Fields(store.Restored)).Msg(MsgStateFileRestored)
	}
	if store.BadGeneration != nil {
		log.Warn().EmbedObject(fault.Fields(store.BadGeneration)).Msg(MsgGenerationInvalid)
	}
}

// closeState closes the state file. It logs a damaged file that was set aside on close.
func closeState(store *state.Store, log zerolog.Logger) {
	store.DamagedFile = nil
	if err := store.Close(); err != nil {
		log.Error().Str("component", "state").EmbedObject(fault.Fields(err)).Msg(MsgStateFileNotClosed)
	}
	logSetAside(store, log)
}

func logSetAside(store *state.Store, log zerolog.Logger) {
	if store.DamagedFile != nil {
		log.Error().Str("component", "state").EmbedObject(fault.Fields(store.DamagedFile.Err())).Msg(MsgStateFileSetAside)
	}
}

// startWorker calls work in a goroutine. stop ends the context of work and waits for work.
func startWorker(ctx context.Context, work func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var worker sync.WaitGroup
	worker.Go(func() { work(ctx) })
	return func() {
		cancel()
		worker.Wait()
	}
}

// errGrace is the error of a shutdown that takes too long.
var errGrace = errors.New("work did not end in time")

// newGraceError returns errGrace with the remedy for commands that read the configuration.
func newGraceError() error {
	return fault.Operation{Op: "stop"}.Failed(fault.Canceled, errGrace, "increase service.shutdown-grace if this happens often")
}

// enforceGrace returns a context that ends after parent, once the line "stopping" is in the log:
// lines about the end of the work follow it. It calls abort if stop is not called within grace
// after that. Everything that was acknowledged by then is recorded.
func enforceGrace(parent context.Context, grace time.Duration, exceeded error, log zerolog.Logger, abort func()) (ctx context.Context, stop func()) {
	log = log.With().Str("component", "shutdown").Logger()
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	stopWorker := startWorker(context.WithoutCancel(parent), func(working context.Context) {
		select {
		case <-parent.Done():
		case <-working.Done():
		}
		if parent.Err() == nil {
			return
		}
		// Logged even if the work ended first, so that "stopping" always precedes "stopped".
		log.Info().Stringer("grace", grace).Msg(MsgStopping)
		cancel(context.Cause(parent))
		select {
		case <-time.After(grace):
			log.Error().EmbedObject(fault.Fields(exceeded)).Stringer("grace", grace).Msg(MsgGraceExceeded)
			abort()
		case <-working.Done():
		}
	})
	return ctx, func() {
		stopWorker()
		cancel(nil)
	}
}
