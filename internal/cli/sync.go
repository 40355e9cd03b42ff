package cli

import (
	"context"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

func (p *program) syncCommand() *cobra.Command {
	var mode syncrun.RunOptions
	command := &cobra.Command{
		Use:   "sync",
		Short: "Do one run now, then exit",
		Long: `Does one run now and prints what it did. Like the daemon it reads only what has
changed, where it can; --full reads everything. It needs the state file to itself,
so stop a daemon first; --dry-run only looks at the file, which none that starts
meanwhile can have.

When more would be deleted than sync.max-deletes or sync.max-deletes-percent allow,
all deletions of the run are held. Look at what has gone with --dry-run; if it is
right, --allow-deletes releases what was held.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return p.told(p.sync(cmd.Context(), mode)) },
	}
	flags := command.Flags()
	flags.BoolVar(&mode.Full, "full", false, "read everything, whatever the last run has seen")
	flags.BoolVar(&mode.DryRun, "dry-run", false, "read and compare, list what would be sent, but send nothing and record nothing")
	flags.BoolVar(&mode.AllowDeletes, "allow-deletes", false, "release the deletions that the guard holds")
	p.outputFlag(command)
	return command
}

// openStateFor opens the state as the mode needs it: a dry run changes nothing.
func (p *program) openStateFor(mode syncrun.RunOptions, dir string, log zerolog.Logger) (*state.Store, error) {
	if mode.DryRun {
		return p.hooks.state.OpenReadOnly(dir)
	}
	return p.openState(dir, log)
}

func (p *program) sync(ctx context.Context, mode syncrun.RunOptions) error {
	c, err := p.load(false)
	if err != nil {
		return err
	}
	p.onScreen()
	log := p.logger()
	store, err := p.openStateFor(mode, c.Service.StateDir, log)
	if err != nil {
		return err
	}
	defer closeState(store, log)
	r, err := p.runner(c, store, nil, log)
	if err != nil {
		return err
	}
	defer p.verbosity.follow(log)()
	defer withinGrace(ctx, c.Service.ShutdownGrace, graceExceeded(), log, p.exit)()
	if !mode.DryRun {
		defer keepReporting(ctx, r)()
	}
	p.answers = true
	report := newReport(p.stdout, p.output == "json")
	hideProgress := func() {}
	if mode.DryRun {
		mode.Show = report.show // its list would run into the bar
	} else {
		mode.Progress, hideProgress = p.showProgress(0)
	}
	run, err := r.Run(ctx, mode)
	hideProgress()
	if err := report.end(run, mode.DryRun); err != nil {
		return err
	}
	switch {
	case err != nil:
		return exit(codeOf(err))
	case run.Held > 0:
		return exit(exitHeld)
	case run.Rejected > 0:
		return exit(exitRejected)
	}
	return nil
}
