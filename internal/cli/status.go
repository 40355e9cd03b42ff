package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/internal/status"
)

func (p *program) statusCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "status",
		Short: "Show the state, the last runs, held and undecided deletions, rejections",
		Long: `Show the connector state, the last runs, held and undecided deletions, and
rejections. They come from the running daemon (service.admin.address) or, if there
is none, from the state file.`,
		Example: `  # Of the daemon in a container
  docker exec adconnector adconnector status

  # As JSON
  adconnector status --env-file ad.env --output json`,
		Annotations: exits(meanings{exitFailed: "the state file is damaged or cannot be read"}, exitDone, exitFailed, exitUsage, exitLocked, exitInterrupted),
		Args:        noArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return p.withErrorDocument(p.status(cmd.Context())) },
	}
	p.outputFlag(command)
	return command
}

func (p *program) status(ctx context.Context) error {
	c, err := p.load(false)
	if err != nil {
		return err
	}
	instance, err := instanceOf(c)
	if err != nil {
		return err
	}
	report, fetchErr := p.fetchReport(ctx, c.Service.AdminAddress, instance)
	if ctx.Err() != nil {
		return interruptedFetch(ctx)
	}
	if fetchErr != nil {
		report, err = p.reportFromFile(c, instance)
		if errors.Is(err, state.ErrLocked) {
			return &fault.Error{Class: fault.Locked, Err: fmt.Errorf("%w; %w", err, fetchErr),
				Remedy: "run status where the daemon runs, as in docker exec CONTAINER adconnector status; " + fault.Remedy(fetchErr)}
		}
		if err != nil {
			return err
		}
		report.Daemon, report.DaemonRemedy = fetchErr.Error(), fault.Remedy(fetchErr)
	}
	p.resultStarted = true
	if p.output == "json" {
		return writeJSON(p.stdout, report)
	}
	return report.WriteText(p.stdout, time.Now(), time.Local)
}

// reportFromFile returns the status report of the state file of a configuration.
func (p *program) reportFromFile(c *config.Config, instance status.Instance) (status.Report, error) {
	store, err := p.hooks.state.OpenReadOnly(c.Service.StateDir)
	if err != nil {
		return status.Report{}, err
	}
	defer func() { _ = store.Close() }()
	report, err := status.Read(store, c.Run.Target, time.Now())
	report.From, report.Version, report.Instance = status.FromFile, version, instance
	return report, err
}

// instanceOf returns the instance of a configuration. It resolves symbolic links to the
// state directory, so that two paths to one directory are equal.
func instanceOf(c *config.Config) (status.Instance, error) {
	dir, err := filepath.Abs(c.Service.StateDir)
	if target, err := filepath.EvalSymlinks(dir); err == nil { // an error: the directory does not exist yet
		dir = target
	}
	return status.Instance{ConnectionUUID: c.Gateway.ConnectionUUID, ProfileUUID: c.Gateway.ProfileUUID, StateDir: dir}, err
}
