package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"adconnector/internal/check"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
)

func (p *program) checkCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "check",
		Short: "Check everything that a run requires, and suggest remedies",
		Long: `Check everything that a run requires, and print one line for each check: the
configuration, the gateway, the directory, the rights of the bind account, and the
clocks. The result of a check is ok, warn or fail. A remedy follows each warn and
fail.

The command continues after a failure where possible. Checks that depend on a failed
check are skipped: one line with "skip" lists them. Nothing is changed: the command
binds once at each domain controller, sends neither assets nor states, and creates no
state file. To find a full disk, it writes a temporary file to the state directory
and removes it. It can run while the daemon is running. After a failure it ends with
the exit code of a run that has the same failure.`,
		Example: `  # Before the first run
  adconnector check --env-file ad.env

  # In the container of the daemon
  docker exec adconnector adconnector check

  # Print the failures as JSON
  adconnector check --env-file ad.env --output json | jq '.checks[] | select(.result == "fail")'`,
		Annotations: exits(nil, exitDone, exitFailed, exitUsage, exitRefused, exitInterrupted),
		Args:        noArgs,
		RunE:        func(cmd *cobra.Command, _ []string) error { return p.check(cmd.Context()) },
	}
	p.outputFlag(command)
	return command
}

// check prints the checks and returns the exit code of a run.
func (p *program) check(ctx context.Context) error {
	list := newChecklist(p.stdout, p.output == "json", isTerminal(p.stdout), p.allowsColors())
	report := check.Run(ctx, p.checkOptions(), list.print)
	if err := list.finish(report); err != nil {
		return err
	}
	switch err := report.Err(); {
	case ctx.Err() != nil:
		return exit(exitInterrupted)
	case err != nil:
		return exit(exitCodeOf(err))
	}
	return nil
}

// checkOptions returns the options of a check. They include the error of the configuration,
// which is the result of the first check.
func (p *program) checkOptions() check.Options {
	c, found, err := p.readConfig(false)
	o := check.Options{Fault: err}
	if found.isEmpty {
		o.Fault = errors.Join(fault.Operation{}.Failed(fault.Invalid, errors.New(MsgNoSettings), remedyNoSettings), err)
	}
	for _, u := range found.unknown {
		advice := fmt.Sprintf("%s (%s) is unknown", u.Key, u.Place)
		if u.Nearest != "" {
			advice += fmt.Sprintf(", similar to %s", u.Nearest)
		}
		o.Advice = append(o.Advice, advice)
	}
	o.Exposed = found.exposed
	for _, m := range found.mistakes {
		o.Mistakes = append(o.Mistakes, m.Finding)
	}
	for _, r := range found.replaced {
		o.Replaced = append(o.Replaced, fmt.Sprintf("%s replaces %s", r.Place, r.Replaced))
	}
	if err != nil {
		return o
	}
	o.Gateway, o.GatewayAddress = gateway.New(p.gatewayOptions(c, p.logger())), addressOf(c.Gateway.URL)
	o.Source, o.Search, o.LastLogon = c.Run.Source, c.Run.Search, c.Run.LastLogon
	o.StateDir, o.Schedule = c.Service.StateDir, c.Service.Schedule
	if proxy := c.Gateway.Proxy; proxy != nil {
		o.ProxyAddress = net.JoinHostPort(proxy.Host, strconv.Itoa(proxy.Port))
	}
	return o
}

// addressOf returns the host and the port of a URL.
func addressOf(u *url.URL) string {
	defaultPort := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), defaultPort))
}
