package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

func (p *program) syncCommand() *cobra.Command {
	var full bool
	var mode syncrun.Mode
	command := &cobra.Command{
		Use:   "sync",
		Short: "Do one run now, then exit",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.output != "text" && p.output != "json" {
				return usage{fmt.Errorf("--output %s: use text or json", p.output)}
			}
			return p.sync(cmd.Context(), mode)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&full, "full", false, "read everything, whatever the last run has seen; at present every run does")
	flags.BoolVar(&mode.DryRun, "dry-run", false, "read and compare, but send nothing and record nothing")
	flags.StringVar(&p.output, "output", "text", "text or json: how the result is printed on stdout")
	return command
}

func (p *program) sync(ctx context.Context, mode syncrun.Mode) error {
	c, err := p.load(false)
	if err != nil {
		return err
	}
	store, err := state.Open(c.Service.StateDir)
	if err != nil {
		return err
	}
	defer store.Close()
	log := p.logger()
	r, err := runner(c, store, log)
	if err != nil {
		return err
	}
	defer withinGrace(ctx, c.Service.ShutdownGrace, log, os.Exit)()
	run, err := r.Run(ctx, mode)
	if err := p.print(run, mode); err != nil {
		return err
	}
	switch {
	case err != nil:
		return exit(codeOf(err))
	case run.Rejected > 0:
		return exit(exitRejected)
	}
	return nil
}

// print writes the result of a run to stdout.
func (p *program) print(run state.Run, mode syncrun.Mode) error {
	if p.output == "json" {
		encoder := json.NewEncoder(p.stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result{
			Run: run, DurationMS: run.Duration.Milliseconds(), DryRun: mode.DryRun,
		})
	}
	sent := fmt.Sprintf("%d uploaded, %d rejected", run.Uploaded, run.Rejected)
	if mode.DryRun {
		sent = "nothing sent (dry run)"
	}
	_, err := fmt.Fprintf(p.stdout, "%s: %d users and %d groups read, %d changed, %s, in %s\n",
		run.Result, run.Users, run.Groups, run.Changed, sent, run.Duration.Round(time.Millisecond))
	return err
}

// result is a run as programs read it.
type result struct {
	state.Run
	DurationMS int64 `json:"duration_ms"`
	DryRun     bool  `json:"dry_run"`
}
