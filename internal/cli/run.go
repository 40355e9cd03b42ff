package cli

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/schedule"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

func (p *program) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run as a daemon (the default): wait for the cron expression, run, repeat",
		Long: `Waits for the cron expression (service.cron-expression), runs, and repeats, until
SIGTERM or SIGINT; by default it runs once at start, too (service.run-on-start). A
failed run is logged with its error and remedy, and the next tick tries again. A tick
during a run is skipped. An error that occurs in several runs in a row is logged with a
count and the time of its first occurrence.

It ends by itself only when it cannot start: bad configuration, or a state directory
that cannot be used or is another's. A stop lets the batches under way be
acknowledged, within service.shutdown-grace.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
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
	return p.daemon(ctx, c, witness{})
}

// witness is told what the daemon does, by the daemon's own goroutine. Each of its
// functions may be nil.
type witness struct {
	starts    func() *syncrun.Progress // a run, which counts there
	finished  func(state.Run, error)
	scheduled func(next time.Time)
}

// daemon runs at every tick until ctx is done.
func (p *program) daemon(ctx context.Context, c *config.Config, seen witness) error {
	log := p.logger()
	defer p.verbosity.follow(log)()
	for {
		start := time.Now()
		err := p.serve(ctx, c, seen, log)
		// A file that was damaged under way is set aside by opening it anew. One that
		// is damaged again at once lies on a disk that nobody should write to.
		if err == nil {
			log.Info().Str("component", "daemon").Msg(MsgStopped) // the last line
		}
		if !errors.Is(err, state.ErrDamaged) || time.Since(start) < damagedAgain {
			return err
		}
		c.Service.RunOnStart = true
	}
}

// damagedAgain is how long a new state file has to last.
const damagedAgain = 100 * time.Millisecond

// serve is the daemon for as long as its state file is sound.
func (p *program) serve(ctx context.Context, c *config.Config, seen witness, log zerolog.Logger) error {
	store, err := p.openState(c.Service.StateDir, log)
	if err != nil {
		return err
	}
	defer closeState(store, log)
	w, err := newWatch(c, store)
	if err != nil {
		return err
	}
	r, err := p.runner(c, store, w, log)
	if err != nil {
		return err
	}
	ticks := c.Service.Schedule
	r.NextRun = ticks.Next
	w.metrics.WatchSchedule(func() time.Duration {
		next := ticks.Next(time.Now())
		return max(ticks.Next(next).Sub(next), 0) // there may be no other
	})
	defer withinGrace(ctx, c.Service.ShutdownGrace, graceExceeded(), log, p.exit)()
	endpoint, pulse := w.endpoint(r, log)
	defer serveEndpoint(ctx, endpoint, c.Service.AdminAddress, log)()
	defer keepReporting(ctx, r)()

	log = log.With().Str("component", "daemon").Logger()
	log.Info().Str("version", version).Str("cron", ticks.String()).Str("state_dir", c.Service.StateDir).Msg(MsgStarted)
	if !c.Service.RunOnStart { // a run registers by itself, and a refused login is not repeated at once
		if err := r.Register(ctx); err != nil && ctx.Err() == nil {
			log.Error().EmbedObject(fault.Fields(err)).Msg(MsgRegistrationFailed)
		}
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var unrecorded fault.RepeatCounter
	loop := schedule.Loop{
		Schedule:   ticks,
		RunOnStart: c.Service.RunOnStart,
		Heartbeat:  pulse.Beat,
		Run: func(ctx context.Context, _ time.Time) {
			var mode syncrun.RunOptions
			if seen.starts != nil {
				mode.Progress = seen.starts()
			}
			run, err := r.Run(ctx, mode) // it has logged and recorded how it went
			if seen.finished != nil {
				seen.finished(run, err)
			}
			if errors.Is(err, state.ErrDamaged) {
				end(err)
			}
		},
		OnScheduled: func(next time.Time) {
			if seen.scheduled != nil {
				defer seen.scheduled(next)
			}
			err := r.Schedule(ctx, next)
			if err == nil {
				unrecorded.Reset()
				return
			}
			log.Error().EmbedObject(fault.Fields(err)).EmbedObject(unrecorded.Count(err, time.Now().UTC())).Msg(MsgStateNotRecorded)
		},
		OnMissed: func(missed int, last time.Time) {
			log.Warn().Int("missed", missed).Time("last", last).Msg(MsgRunsSkipped)
		},
	}
	loop.Serve(ctx)
	if err := context.Cause(ctx); errors.Is(err, state.ErrDamaged) {
		return err
	}
	return nil
}
