package cli

import (
	"context"

	"github.com/spf13/cobra"

	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

func (p *program) syncCommand() *cobra.Command {
	var options syncrun.RunOptions
	command := &cobra.Command{
		Use:   "sync",
		Short: "Start one run now, then exit",
		Long: `Start one run now, print its result, and exit. Like a run of the daemon it is a delta
sync where possible; --full forces a full sync. The command locks the state file, so
stop the daemon first. --dry-run locks it too, but does not change it.

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
		Annotations: exits("", exitDone, exitFailed, exitUsage, exitRefused, exitLocked, exitHeld, exitRejected, exitInterrupted),
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
	var store *state.Store
	if options.DryRun {
		store, err = p.openStateReadOnly(c.Service.StateDir, log)
	} else {
		store, err = p.openState(c.Service.StateDir, log)
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
