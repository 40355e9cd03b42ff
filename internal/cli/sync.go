package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"adconnector/internal/syncrun"
)

func (p *program) syncCommand() *cobra.Command {
	var mode syncrun.Mode
	command := &cobra.Command{
		Use:   "sync",
		Short: "Do one run now, then exit",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.output != "text" && p.output != "json" {
				return misused(fmt.Errorf("--output %s is neither text nor json", p.output))
			}
			return p.sync(cmd.Context(), mode)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&mode.Full, "full", false, "read everything, whatever the last run has seen")
	flags.BoolVar(&mode.DryRun, "dry-run", false, "read and compare, list what would be sent, but send nothing and record nothing")
	flags.BoolVar(&mode.AllowDeletes, "allow-deletes", false, "release the deletions that the guard holds")
	flags.StringVar(&p.output, "output", "text", "text or json: how the result is printed on stdout")
	return command
}

func (p *program) sync(ctx context.Context, mode syncrun.Mode) error {
	c, err := p.load(false)
	if err != nil {
		return err
	}
	log := p.logger()
	store, err := p.openState(c.Service.StateDir, log)
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := runner(c, store, log)
	if err != nil {
		return err
	}
	defer withinGrace(ctx, c.Service.ShutdownGrace, log, os.Exit)()
	report := newReport(p.stdout, p.output == "json")
	if mode.DryRun {
		mode.Show = report.show
	}
	run, err := r.Run(ctx, mode)
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
