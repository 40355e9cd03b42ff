package cli

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/request"
	"adconnector/internal/schedule"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

func (p *program) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run as a daemon (the default)",
		Long: `Run as a daemon: start runs on the schedule of service.cron-expression until SIGTERM
or SIGINT. By default there is also a run at start (service.run-on-start).

A failed run is logged with its error and remedy, and the next scheduled run tries
again. An error that occurs in several runs in a row is logged with a count and the
time of its first occurrence. A scheduled run is skipped while another run is active.

SIGHUP reloads nothing and is ignored: restart the daemon to apply changed settings.
SIGQUIT writes the stacks of all goroutines to stderr and ends with exit code 2.

The daemon exits by itself only if it cannot start: the configuration is bad, or the
state directory is unusable or held by another instance. On a stop, the batches in
flight can be acknowledged within service.shutdown-grace.`,
		Example: `  # With settings from one env file and passwords from another one
  adconnector run --env-file ad.env --env-file secrets.env

  # Every ten minutes, with a log in text form
  SERVICE_CRON_EXPRESSION='*/10 * * * *' adconnector run --env-file ad.env --log-format console

  # Make the log more verbose without a restart (USR2: less verbose): in a container,
  # as a unit without a container, or else the process that holds the state directory
  docker kill --signal USR1 adconnector
  systemctl kill --signal USR1 adconnector-bare@NAME
  kill -USR1 $(cut -d ' ' -f 2 /var/lib/adconnector/adconnector.db.holder)`,
		Annotations: exits(meanings{exitFailed: "the disk is too full to open the state file at start"}, exitDone, exitFailed, exitUsage, exitLocked, exitInterrupted),
		Args:        noArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
	}
}

// run runs the daemon.
func (p *program) run(ctx context.Context) error {
	p.isDaemon.Store(true)
	c, err := p.load(true)
	if err != nil {
		return err
	}
	return p.daemon(ctx, c, daemonObserver{})
}

// daemonObserver has callbacks for the events of a daemon, which calls them from its own
// goroutine. Each can be nil.
type daemonObserver struct {
	runStarts    func() *syncrun.Progress // returns the counters for the run
	runFinished  func(state.Run, error)
	runScheduled func(next time.Time)
}

// daemon starts a run at every tick until ctx ends. It returns an error only where a restart
// does not help: bad configuration or an unusable state directory.
func (p *program) daemon(ctx context.Context, c *config.Config, observer daemonObserver) error {
	log := p.logger()
	defer p.followSignals(log)()
	c.Run.BindPause = &syncrun.BindPause{} // also after a damaged state file
	for {
		start := time.Now()
		err := p.serve(ctx, c, observer, log)
		if err == nil {
			log.Info().Str("component", "daemon").Msg(MsgStopped) // the last line
		}
		// Opening a damaged state file again sets it aside, and opening a removed one creates a new
		// one. If that is damaged or removed immediately, the disk is not reliable.
		if !mustReopen(err) || time.Since(start) < minStateFileAge {
			return err
		}
		c.Service.RunOnStart = true
	}
}

// mustReopen reports whether a daemon must open its state file again.
func mustReopen(err error) bool {
	return errors.Is(err, state.ErrDamaged) || errors.Is(err, state.ErrRemoved)
}

// minStateFileAge is the age at which a damaged or removed state file is replaced.
const minStateFileAge = 100 * time.Millisecond

// serve runs the daemon until ctx ends or mustReopen applies.
func (p *program) serve(ctx context.Context, c *config.Config, observer daemonObserver, log zerolog.Logger) error {
	// Commands see the end of the daemon when the state file is already closed.
	requests, stopRequests, requestsErr := acceptRequests(c, log)
	defer stopRequests()
	store, err := p.openState(c.Service.StateDir, log)
	if err != nil {
		return err
	}
	defer closeState(store, log)
	if requestsErr != nil { // scheduled runs do not depend on requests
		log.Warn().Str("component", "request").EmbedObject(fault.Fields(requestsErr)).Msg(MsgRequestsIgnored)
	} else {
		requests.CopyState = store.WriteCopy
	}
	m, err := newMonitor(c, store)
	if err != nil {
		return err
	}
	r, err := p.runner(c, store, m, log)
	if err != nil {
		return err
	}
	cron := c.Service.Schedule
	r.NextRun = cron.Next
	m.metrics.RegisterSchedule(func() time.Duration {
		next := cron.Next(time.Now())
		return max(cron.Next(next).Sub(next), 0) // there can be no second tick
	})
	daemonLog := log.With().Str("component", "daemon").Logger()
	daemonLog.Info().Str("version", version).Str("cron", cron.Expression).Str("state_dir", c.Service.StateDir).Msg(MsgStarted)
	for _, w := range cron.Warnings {
		daemonLog.Warn().Str("cron", cron.Expression).Str("reason", w.Reason).Str("remedy", w.Remedy).Msg(MsgScheduleUnusual)
	}
	ctx, stop := enforceGrace(ctx, c.Service.ShutdownGrace, newGraceError(), log, p.abort)
	defer stop()
	endpoint, watchdog := m.endpoint(r, c.Service.AdminHosts, log)
	defer startEndpoint(ctx, endpoint, c.Service.AdminAddress, log)()
	defer startWorker(ctx, r.ResendStates)() // until the gateway accepts each connector state

	if !c.Service.RunOnStart { // a run registers itself, and a refused login must not be repeated immediately
		if registerAtStart(ctx, r, daemonLog) {
			defer startWorker(ctx, func(ctx context.Context) { checkSource(ctx, r, daemonLog) })()
		}
	}
	runs := &scheduledRuns{config: c, runner: r, requests: requests, beat: watchdog.Beat, observer: observer, log: daemonLog, secrets: newSecretFiles(c, daemonLog)}
	return runs.serve(ctx)
}

// registerAtStart registers a daemon without a run at start, and reports whether it succeeded. It logs
// an error: the runs try again.
func registerAtStart(ctx context.Context, r *syncrun.Runner, log zerolog.Logger) bool {
	err := r.Register(ctx)
	if err != nil && ctx.Err() == nil {
		log.Error().EmbedObject(fault.Fields(err)).Msg(MsgRegistrationFailed)
	}
	return err == nil
}

// checkSource reads the connection and the profile, so that a mistake in the console is known before
// the first run. It logs an error: the runs read both again.
func checkSource(ctx context.Context, r *syncrun.Runner, log zerolog.Logger) {
	if err := r.CheckSource(ctx); err != nil && ctx.Err() == nil {
		log.Error().EmbedObject(fault.Fields(err)).Msg(MsgConsoleUnusable)
	}
}

// scheduledRuns starts the runs of a daemon. Its methods are called by one goroutine.
type scheduledRuns struct {
	config   *config.Config
	runner   *syncrun.Runner
	requests *request.Server // nil: none are accepted
	beat     func()          // of the watchdog
	observer daemonObserver
	log      zerolog.Logger
	secrets  *secretFiles

	memory  idleMemory
	repeats fault.RepeatCounter // of errors to record the state
}

// serve starts a run at every tick, and those that commands request, until ctx ends or mustReopen
// applies.
func (s *scheduledRuns) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run := func(ctx context.Context, options syncrun.RunOptions) state.Run {
		run, err := s.run(ctx, options)
		if mustReopen(err) {
			cancel(err)
		}
		return run
	}
	waiting, stopWatch := watchRequests(ctx, s.requests)
	defer stopWatch()
	loop := schedule.Loop{
		Now:        time.Now,
		Schedule:   s.config.Service.Schedule,
		RunOnStart: s.config.Service.RunOnStart,
		Heartbeat: func() {
			s.beat()
			s.memory.beat()
		},
		Run:          func(ctx context.Context, _ time.Time) { run(ctx, syncrun.RunOptions{}) },
		Requests:     waiting,
		RunRequested: func(ctx context.Context) bool { return runRequested(ctx, s.requests, run) },
		OnScheduled:  func(next time.Time) { s.scheduled(ctx, next) },
		OnMissed: func(missed int, last time.Time) {
			s.log.Warn().Int("missed", missed).Time("last", last).Msg(MsgRunsSkipped)
		},
	}
	loop.Serve(ctx)
	if err := context.Cause(ctx); mustReopen(err) {
		return err
	}
	return nil
}

// run runs once. mustReopen applies to the error if no further run may start.
func (s *scheduledRuns) run(ctx context.Context, options syncrun.RunOptions) (state.Run, error) {
	s.memory.run()
	if s.observer.runStarts != nil && options.Progress == nil {
		options.Progress = s.observer.runStarts()
	}
	if err := s.runner.Store.CheckRemoved(); errors.Is(err, state.ErrRemoved) { // the daemon opens another one, then runs
		s.log.Error().EmbedObject(fault.Fields(err)).Msg(MsgStateFileRemoved)
		return state.Run{Result: syncrun.Failed, Error: err.Error(), Remedy: fault.Remedy(err), Class: string(fault.ClassOf(err))}, err
	}
	s.secrets.reread()
	run, err := s.runner.Run(ctx, options) // logs and records its error
	if s.observer.runFinished != nil {
		s.observer.runFinished(run, err)
	}
	return run, err
}

// scheduled records when the next run starts.
func (s *scheduledRuns) scheduled(ctx context.Context, next time.Time) {
	if s.observer.runScheduled != nil {
		defer s.observer.runScheduled(next)
	}
	defer func() { s.memory.wait(time.Until(next)) }() // sending the state uses memory, too
	err := s.runner.Schedule(ctx, next)
	if err == nil {
		s.repeats.Reset()
		return
	}
	s.log.Error().EmbedObject(fault.Fields(err)).EmbedObject(s.repeats.Count(err, time.Now().UTC())).Msg(MsgStateNotRecorded)
}
