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
		Short: "Tell whether the daemon on this host is healthy, by the exit code",
		Long: `Tells whether the daemon on this host is healthy: exit code 0 when it is, 1 when it
is stuck or does not run. It asks service.admin.address; where that is empty, a
daemon that holds the state file counts as healthy.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := p.load(false)
			if err != nil {
				return err
			}
			unhealthy := p.health(cmd.Context(), c)
			if cmd.Context().Err() != nil {
				return interruptedBy(cmd.Context())
			}
			if unhealthy != nil {
				fmt.Fprintf(p.stdout, "not healthy: %s\n", status.OneLine(unhealthy.Error())) // the exit code shows it, too
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

// health says why the daemon is not healthy; nil when it is.
func (p *program) health(ctx context.Context, c *config.Config) error {
	address := c.Service.AdminAddress
	if address == "" {
		return p.holdsState(c.Service.StateDir)
	}
	instance, err := instanceOf(c)
	if err != nil {
		return err
	}
	if _, err := p.askDaemon(ctx, address, instance); err != nil {
		return err
	}
	_, err = p.ask(ctx, address, "/healthz")
	return err
}

// holdsState says why no daemon seems to run; nil when one holds the state file.
func (p *program) holdsState(dir string) error {
	store, err := p.hooks.state.OpenReadOnly(dir)
	switch {
	case errors.Is(err, state.ErrLocked):
		return nil
	case err != nil:
		return err
	}
	defer store.Close()
	return fault.Operation{Op: "look for a daemon on", Object: "state directory " + dir}.Failed(fault.Transient, errors.New("no process holds it"), "start the daemon")
}
