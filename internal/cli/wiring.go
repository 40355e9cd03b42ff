package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/config"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/internal/upload"
)

// runner wires a configuration and the state up. The store is the caller's to close.
// w looks on; nil: nobody does.
func (p *program) runner(c *config.Config, store *state.Store, w *watch, log zerolog.Logger) (*syncrun.Runner, error) {
	o := syncrun.Options{
		Store:        store,
		Source:       sourceOf(c.Directory),
		Search:       searchOf(c.Search),
		Target:       strings.Join([]string{c.Gateway.URL.String(), c.Gateway.CustomerUUID, c.Gateway.ConnectionUUID}, " "),
		Guard:        syncrun.Guard{MaxDeletes: c.Sync.MaxDeletes, MaxDeletesPercent: c.Sync.MaxDeletesPercent},
		FullInterval: c.Sync.FullInterval,
		// The gateway's client leaves a quarter of the grace.
		Conclude: min(5*time.Second, c.Service.ShutdownGrace/6),
		Upload:   upload.Options{Workers: c.Upload.Workers, BatchSize: c.Upload.BatchSize, BatchBytes: c.Upload.BatchBytes},
		Log:      log.With().Str("component", "run").Logger(),
	}
	requests := log.With().Str("component", "directory").Logger()
	o.Search.Observe = func(request string, class fault.Class, took time.Duration) {
		requests.Trace().Str("call", request).Str("class", string(class)).Int64("duration_ms", took.Milliseconds()).Msg(MsgDirectoryAnswered)
		if w != nil {
			w.directoryRequest(request, class, took)
		}
	}
	options := p.gatewayOptions(c, log)
	if w != nil {
		options.Observe, o.OnEnd = w.gatewayRequest, w.runEnded
	}
	options.OnLimit = func(until time.Time) {
		if store.IsReadOnly() { // a dry run's
			return
		}
		if err := store.SetRateLimit(until); err != nil {
			o.Log.Warn().Err(err).Msg(MsgRateLimitNotRecorded)
		}
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

// gatewayOptions is the gateway's client as the configuration has it.
func (p *program) gatewayOptions(c *config.Config, log zerolog.Logger) gateway.Options {
	g := c.Gateway
	return gateway.Options{
		URL: g.URL, CustomerUUID: g.CustomerUUID, ConnectionUUID: g.ConnectionUUID, ProfileUUID: g.ProfileUUID,
		Login: g.Login, Proxy: g.Proxy, RootCAs: rootsWith(g.CA), Source: g.Source, Paths: g.Paths,
		Version: version, Connections: c.Upload.Workers,
		// The rest of the grace is for writing down what came of it.
		Grace:      c.Service.ShutdownGrace * 3 / 4,
		RetryFirst: p.hooks.retryFirst,
		Log:        log.With().Str("component", "gateway").Logger(),
	}
}

// rootsWith adds certificates to the system's roots; nil means just those.
func rootsWith(certificates []*x509.Certificate) *x509.CertPool {
	if len(certificates) == 0 {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, certificate := range certificates {
		pool.AddCert(certificate)
	}
	return pool
}

// searchOf is how to search, whatever the source.
func searchOf(s config.Search) syncrun.Search {
	return syncrun.Search{
		UserFilter: s.UserFilter, GroupFilter: s.GroupFilter, PageSize: s.PageSize, ServerName: s.ServerName, Certificates: s.Certificates,
	}
}

// sourceOf is nil where connection and profile come from the gateway.
func sourceOf(d *config.Directory) *syncrun.Source {
	if d == nil {
		return nil
	}
	return &syncrun.Source{
		Directory: directory.Options{Protocol: d.Protocol, Hosts: d.Hosts, Port: d.Port, BindDN: d.BindDN, Password: d.Password},
		Base:      d.BaseContext, Scope: d.Scope, Posture: d.Posture,
	}
}

// openState opens the state file, and tells of one that was set aside.
func (p *program) openState(dir string, log zerolog.Logger) (*state.Store, error) {
	store, err := p.hooks.state.Open(dir)
	if err == nil {
		tellSetAside(store, log)
	}
	return store, err
}

// closeState closes the state file, and tells of one that was set aside then.
func closeState(store *state.Store, log zerolog.Logger) {
	store.SetAside = ""
	if err := store.Close(); err != nil {
		log.Error().Str("component", "state").Err(err).Msg(MsgStateFileNotClosed)
	}
	tellSetAside(store, log)
}

func tellSetAside(store *state.Store, log zerolog.Logger) {
	if store.SetAside != "" {
		log.Error().Str("component", "state").Str("error", store.SetAside).Msg(MsgStateFileSetAside)
	}
}

// keepInformed has the gateway hear of each state of the connector, however late.
func keepInformed(ctx context.Context, r *syncrun.Runner) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var informing sync.WaitGroup
	informing.Go(func() { r.KeepInformed(ctx) })
	return func() {
		cancel()
		informing.Wait()
	}
}

const graceSetting = "service.shutdown-grace"

// withinGrace ends the process when work goes on for longer than the grace after
// ctx has ended, unless it is stopped; setting is where the grace comes from. What was
// acknowledged by then is recorded.
func withinGrace(ctx context.Context, grace time.Duration, setting string, log zerolog.Logger, exitNow func(int)) (stop func()) {
	log = log.With().Str("component", "shutdown").Logger()
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		log.Info().Stringer("grace", grace).Msg(MsgStopping)
		select {
		case <-time.After(grace):
			log.Error().Str("error", fmt.Sprintf("work did not end within %s (%s)", setting, grace)).Msg(MsgGraceExceeded)
			exitNow(exitInterrupted)
		case <-done:
		}
	})
	return func() {
		close(done)
		watch.Wait()
	}
}
