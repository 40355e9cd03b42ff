package cli

import (
	"context"
	"errors"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/request"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

func (p *program) syncCommand() *cobra.Command {
	var options syncrun.RunOptions
	command := &cobra.Command{
		Use:   "sync",
		Short: "Start one run now, then exit",
		Long: `Start one run now, print its result, and exit. Like a run of the daemon it is a delta
sync where possible; --full forces a full sync.

If a daemon uses the state directory, it executes a run with --full, --allow-deletes,
or --resend with its own settings, once its current run has ended. The command waits
for the run and prints the same result. An interrupt withdraws the request; a run
that was started continues in the daemon. Without these flags, the exit code is 4.
--dry-run reads a copy of the state file of the daemon, which is removed afterwards.

If a run would delete more objects than sync.max-deletes or sync.max-deletes-percent
allow, or a full sync reads nothing, all its deletions are held. Later deletions are
held too while some are. Review them with --dry-run. If they are correct,
--allow-deletes releases them.

If nothing proves that a missing object was deleted, its deletion is undecided, and
the object is not sent as deleted. The log and the command status show the reasons
and what resolves them.

If no object shows an attribute any more that many had, a full sync is refused,
because the account has probably lost the right to read it. If the values were
removed from the directory, confirm that once with --full --allow-deletes.

--resend forces a full sync that sends every object again, even if its value is known
to be accepted. Use it after the whole volume was restored from a copy, or if the
gateway has lost data. Deletions follow the rules of any full sync, because the list
of accepted objects is kept. If the run fails, the next run sends the rest.`,
		Example: `  # One run, with its result as JSON
  adconnector sync --env-file ad.env --output json

  # List what would be sent, deleted and held, and what is undecided
  adconnector sync --env-file ad.env --dry-run

  # Release held deletions after a review
  adconnector sync --env-file ad.env --dry-run --allow-deletes
  adconnector sync --env-file ad.env --allow-deletes

  # Send every object again
  adconnector sync --env-file ad.env --resend`,
		Annotations: exits(nil, exitDone, exitFailed, exitUsage, exitRefused, exitLocked, exitHeld, exitRejected, exitInterrupted),
		Args:        noArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return p.withErrorDocument(p.sync(cmd.Context(), options)) },
	}
	flags := command.Flags()
	flags.BoolVar(&options.Full, "full", false, "force a full sync")
	flags.BoolVar(&options.DryRun, "dry-run", false, "read, compare, and list what would be sent, but send nothing and record nothing")
	flags.BoolVar(&options.AllowDeletes, "allow-deletes", false, "release the deletions that the guard holds")
	flags.BoolVar(&options.Resend, "resend", false, "force a full sync that sends every object again")
	p.outputFlag(command)
	return command
}

func (p *program) sync(ctx context.Context, options syncrun.RunOptions) error {
	c, err := p.load(false)
	if err != nil {
		return err
	}
	p.enableProgressBar()
	log := p.logger()
	inDaemon := p.syncInDaemon
	switch {
	case options.DryRun:
		inDaemon = p.syncCopy
	case !options.Full && !options.AllowDeletes && !options.Resend: // a scheduled run of the daemon does the same
		err := p.syncAlone(ctx, c, c.Service.StateDir, options, log)
		if errors.Is(err, state.ErrLocked) {
			return &fault.Error{Class: fault.Locked, Err: err, Remedy: remedyDaemon}
		}
		return err
	}
	for {
		if err := inDaemon(ctx, c, options, log); !errors.Is(err, request.ErrNotServed) {
			return err
		}
		err := p.syncAlone(ctx, c, c.Service.StateDir, options, log)
		switch {
		case !errors.Is(err, state.ErrLocked):
			return err
		case !request.IsServed(c.Service.StateDir):
			return &fault.Error{Class: fault.Locked, Err: err, Remedy: remedyLocked}
		}
	}
}

// remedyDaemon is the remedy if a run without options is started beside another instance.
const remedyDaemon = "wait for the next scheduled run of the daemon, or add --full, --allow-deletes or --resend: the daemon executes such a run at once; " +
	"or set another service.state-dir for this connector"

// remedyLocked is the remedy if neither this process nor a daemon can execute the run.
const remedyLocked = "wait until the other instance ends if it is a command; stop it if it is a daemon of an older version, or one " +
	"that has logged \"" + MsgRequestsIgnored + "\"; or set another service.state-dir for this connector"

// syncInDaemon executes a run in the daemon of the state directory, and prints its result. It
// returns request.ErrNotServed if there is no daemon.
func (p *program) syncInDaemon(ctx context.Context, c *config.Config, options syncrun.RunOptions, log zerolog.Logger) error {
	run, err := p.runInDaemon(ctx, c, options, log)
	if run.ID == "" {
		return err
	}
	p.resultStarted = true
	if err := newReport(p.stdout, p.output == "json").finish(run, false); err != nil {
		return err
	}
	return runExit(run, err)
}

// syncCopy executes a dry run in this process with a copy of the state file of the daemon, and prints
// its result. It returns request.ErrNotServed if there is no daemon.
func (p *program) syncCopy(ctx context.Context, c *config.Config, options syncrun.RunOptions, log zerolog.Logger) error {
	dir, remove, err := p.copyFromDaemon(ctx, c, log)
	if err != nil {
		return err
	}
	defer remove()
	return p.syncAlone(ctx, c, dir, options, log)
}

// syncAlone executes a run in this process with the state file in a directory, and prints its
// result.
func (p *program) syncAlone(ctx context.Context, c *config.Config, stateDir string, options syncrun.RunOptions, log zerolog.Logger) (err error) {
	var store *state.Store
	if options.DryRun {
		store, err = p.openStateReadOnly(stateDir, log)
	} else {
		store, err = p.openState(stateDir, log)
	}
	if err != nil {
		return err
	}
	defer closeState(store, log)
	r, err := p.runner(c, store, nil, log)
	if err != nil {
		return err
	}
	defer p.followSignals(log)()
	ctx, stop := enforceGrace(ctx, c.Service.ShutdownGrace, newGraceError(), log, p.abort)
	defer stop()
	if !options.DryRun {
		defer startWorker(ctx, r.ResendStates)() // until the gateway accepts each connector state
	}
	p.resultStarted = true
	report := newReport(p.stdout, p.output == "json")
	hideProgress := func() {}
	if options.DryRun {
		options.Show, options.ShowUndecided = report.addAsset, report.addUndecided // without a progress bar, which the list would overwrite
	} else {
		options.Progress, hideProgress = p.showProgress(0)
	}
	run, err := r.Run(ctx, options)
	hideProgress()
	if err := report.finish(run, options.DryRun); err != nil {
		return err
	}
	return runExit(run, err)
}

// runExit returns the exit code of a run with an error, or nil for code 0. Deletions that need
// attention take precedence over rejected objects, as in the result of the run.
func runExit(run state.Run, err error) error {
	switch {
	case err != nil:
		return exit(exitCodeOf(err))
	case run.Held+run.Undecided > 0:
		return exit(exitHeld)
	case run.Rejected > 0:
		return exit(exitRejected)
	}
	return nil
}
