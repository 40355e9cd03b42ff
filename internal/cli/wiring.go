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

// runner wires a configuration and the state up. The store is the caller's to close.
// w looks on; nil: nobody does.
func (p *program) runner(c *config.Config, store *state.Store, w *watch, log zerolog.Logger) (*syncrun.Runner, error) {
	o := c.Run
	o.Store, o.Log = store, log.With().Str("component", "run").Logger()
	options := p.gatewayOptions(c, log)
	if w != nil {
		options.Observe, o.OnEnd, o.Search.Observe = w.gatewayRequest, w.runEnded, w.directoryRequest
		o.Search.Received = func(int) { w.metrics.Active() }
	}
	options.OnLimit = func(until time.Time) error {
		if store.IsReadOnly() { // of a dry run
			return nil
		}
		return store.SetRateLimit(until)
	}
	o.Gateway = gateway.New(options)
	until, err := store.RateLimit()
	if err != nil {
		return nil, err
	}
	if until.After(time.Now()) {
		o.Log.Warn().Time("until", until).Msg(MsgRateLimitRestored)
		o.Gateway.HoldUntil(until)
	}
	return syncrun.New(o), nil
}

// gatewayOptions are the options of the gateway's client.
func (p *program) gatewayOptions(c *config.Config, log zerolog.Logger) gateway.Options {
	o := c.Gateway
	o.Version, o.Log = version, log.With().Str("component", "gateway").Logger()
	return o
}

// openState opens the state file, and logs one that was set aside.
func (p *program) openState(dir string, log zerolog.Logger) (*state.Store, error) {
	store, err := p.hooks.state.Open(dir)
	if err == nil {
		logSetAside(store, log)
	}
	return store, err
}

// closeState closes the state file, and logs one that was set aside then.
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

// keepReporting reports each state of the connector until the gateway has accepted it.
func keepReporting(ctx context.Context, r *syncrun.Runner) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() { r.ResendStates(ctx) })
	return func() {
		cancel()
		reporting.Wait()
	}
}

// errGrace is the error of a shutdown that takes too long.
var errGrace = errors.New("work did not end in time")

// graceExceeded returns errGrace with the remedy of commands that read the configuration.
func graceExceeded() error {
	return fault.Operation{Op: "stop"}.Failed(fault.Canceled, errGrace, "increase service.shutdown-grace if this happens often")
}

// withinGrace logs when ctx ends. It ends the process when work continues for longer than
// grace after that, unless it is stopped. Everything acknowledged by then is recorded.
func withinGrace(ctx context.Context, grace time.Duration, exceeded error, log zerolog.Logger, exitNow func(int)) (stop func()) {
	log = log.With().Str("component", "shutdown").Logger()
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
		}
		if ctx.Err() == nil {
			return
		}
		// Also where the work ended first: a log that has "stopped" has this line before it.
		log.Info().Stringer("grace", grace).Msg(MsgStopping)
		select {
		case <-time.After(grace):
			log.Error().EmbedObject(fault.Fields(exceeded)).Stringer("grace", grace).Msg(MsgGraceExceeded)
			exitNow(exitInterrupted)
		case <-done:
		}
	})
	return func() {
		close(done)
		watch.Wait()
	}
}
