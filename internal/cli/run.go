package cli

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"adconnector/internal/schedule"
	"adconnector/internal/syncrun"
)

func (p *program) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run as a daemon (the default): wait for the cron expression, run, repeat",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
	}
}

// run is the daemon. Only what a restart would not mend either ends it: bad
// configuration and a state directory that cannot be had. Everything else is
// logged, and the next tick tries again.
func (p *program) run(ctx context.Context) error {
	c, err := p.load(true)
	if err != nil {
		return err
	}
	ticks, err := schedule.Parse(c.Service.Cron)
	if err != nil {
		return usage{err}
	}
	log := p.logger()
	store, err := p.openState(c.Service.StateDir, log)
	if err != nil {
		return err
	}
	defer store.Close()
	w, err := newWatch(c, store)
	if err != nil {
		return err
	}
	r, err := runner(c, store, w, log)
	if err != nil {
		return err
	}
	r.Next = ticks.Next
	defer withinGrace(ctx, c.Service.ShutdownGrace, log, os.Exit)()
	endpoint, pulse := w.endpoint(r, log)
	if c.Service.AdminAddress != "" {
		shown, hide := context.WithCancel(context.WithoutCancel(ctx)) // to the end of the last run
		var showing sync.WaitGroup
		statusLog := log.With().Str("component", "status").Logger()
		showing.Go(func() { endpoint.Serve(shown, c.Service.AdminAddress, statusLog) })
		defer showing.Wait()
		defer hide()
	}

	log = log.With().Str("component", "daemon").Logger()
	log.Info().Str("version", version).Str("cron", ticks.String()).Str("state_dir", c.Service.StateDir).Msg("started")
	if !c.Service.RunOnStart { // a run registers by itself, and a refused login is not repeated at once
		if err := r.Register(ctx); err != nil && ctx.Err() == nil {
			log.Error().Err(err).Msg("not registered, the next run tries again")
		}
	}
	loop := schedule.Loop{
		Schedule:   ticks,
		RunOnStart: c.Service.RunOnStart,
		Awake:      pulse.Beat,
		Run: func(ctx context.Context, _ time.Time) {
			_, _ = r.Run(ctx, syncrun.Mode{}) // it has logged and recorded how it went
		},
		Scheduled: func(next time.Time) {
			if err := r.Schedule(ctx, next); err != nil {
				log.Error().Err(err).Msg("state not recorded")
			}
		},
		Missed: func(missed int, last time.Time) {
			log.Warn().Int("missed", missed).Time("last", last).Msg("ticks fell into a run and are not made up for")
		},
	}
	loop.Serve(ctx)
	log.Info().Msg("stopped")
	return nil
}
