package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/internal/status"
)

func (p *program) healthcheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "healthcheck",
		Short: "Check whether the daemon on this host is healthy",
		Long: `Check whether the daemon on this host is healthy. The exit code is 0 if it is, and 1
if it is stuck or does not run. The command queries service.admin.address. If that is
empty, a daemon that holds the state file counts as healthy.`,
		Example: `  # As in the HEALTHCHECK of the image
  adconnector healthcheck

  # In a script, beside the unit adconnector-bare@NAME, which sets the state directory
  SERVICE_STATE_DIR=/var/lib/adconnector/NAME \
      adconnector healthcheck --env-file /etc/adconnector/NAME.env ||
      systemctl restart adconnector-bare@NAME`,
		Annotations: exits(meanings{exitFailed: "the daemon is stuck, does not run, or belongs to another connector"}, exitDone, exitFailed, exitUsage, exitInterrupted),
		Args:        noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.load(false)
			if err != nil {
				return err
			}
			unhealthy := p.checkHealth(cmd.Context(), c)
			if cmd.Context().Err() != nil {
				return interruptedFetch(cmd.Context())
			}
			if unhealthy != nil {
				fmt.Fprintf(p.stdout, "not healthy: %s\n", status.OneLine(unhealthy.Error())) // the exit code matters, not this text
				if remedy := fault.Remedy(unhealthy); remedy != "" {
					fmt.Fprintf(p.stdout, "remedy: %s\n", status.OneLine(remedy))
				}
				return exit(exitFailed)
			}
			_, err = fmt.Fprintln(p.stdout, "healthy")
			return err
		},
	}
}

// checkHealth returns the reason why the daemon is not healthy, or nil.
func (p *program) checkHealth(ctx context.Context, c *config.Config) error {
	address := c.Service.AdminAddress
	if address == "" {
		return p.checkStateLock(c.Service.StateDir)
	}
	instance, err := instanceOf(c)
	if err != nil {
		return err
	}
	if _, err := p.fetchReport(ctx, address, instance); err != nil {
		return err
	}
	_, err = p.fetch(ctx, address, "/healthz")
	return err
}

// checkStateLock returns an error unless a process holds the state directory.
func (p *program) checkStateLock(dir string) error {
	store, err := p.hooks.state.OpenReadOnly(dir)
	switch {
	case errors.Is(err, state.ErrLocked):
		return nil
	case err != nil:
		return err
	}
	defer func() { _ = store.Close() }()
	return fault.Operation{Op: "find the daemon of", Object: "state directory " + dir}.Failed(fault.Transient, errors.New("no process holds it"), "start the daemon")
}
