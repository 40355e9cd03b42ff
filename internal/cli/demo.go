package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// demoOptions are the flags of the command demo.
type demoOptions struct {
	sandboxOptions
	admin string // address of the connector's admin endpoint
	keep  bool
}

const (
	// demoPeriod is the time between two ticks, in seconds.
	demoPeriod = 5
	// demoGrace is the time for cleaning up after an interrupt.
	demoGrace = 900 * time.Millisecond
	// demoUsers is the minimum number of users: enough plain accounts for all changes,
	// and enough objects for the guard to allow a deletion.
	demoUsers = 50
)

// Causes of a failed demo.
var (
	errUnexpectedRun  = errors.New("unexpected run")
	errDiffers        = errors.New("gateway and directory differ")
	errChangesMissing = errors.New("changes missing at the gateway")
)

func (p *program) demoCommand() *cobra.Command {
	var o demoOptions
	command := &cobra.Command{
		Use:   "demo",
		Short: "Run a sandbox and the connector in one process",
		Long: `Run a sandbox and the connector in one process, to demonstrate the connector.

The demo serves a directory and a gateway on loopback and runs the connector on a
schedule: first a full sync; then some objects change in the directory, and the next
scheduled run is a delta sync. A table shows each change as the gateway has it.
Afterwards the demo compares the assets of the gateway with the directory.

With --controllers, the connector reads the first controller of the domain and asks
the others for logons, and the changes include a logon at the second one. The logons
at the gateway are compared with those of all controllers.

The demo reads neither the environment nor an env file, connects to no other host,
and removes its files.`,
		Example: `  # Demonstrate the connector in a few seconds
  adconnector demo

  # Keep it running until Ctrl-C, with the inventory on a fixed port
  adconnector demo --keep --gateway 127.0.0.1:18080

  # Show that the connector finds logons at another domain controller
  adconnector demo --controllers 2

  # Use a large directory, and show the log of the connector
  adconnector demo --users 100000 --groups 5000 --log-level info`,
		Annotations: refusing("env-file", exits(meanings{exitFailed: "a run failed, or the gateway and the directory differ", exitUsage: onlyBadUsage}, exitDone, exitFailed, exitUsage, exitRefused, exitInterrupted)),
		Args:        noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case len(p.envFiles) > 0:
				return newUsageError(errors.New("the demo does not read env files"), "remove --env-file")
			case o.users < demoUsers || o.groups < 1:
				return newUsageError(fmt.Errorf("the demo requires at least --users %d and --groups 1", demoUsers), "")
			case o.ldap == "" && o.ldaps == "":
				return newUsageError(errors.New("the demo requires a directory"), "set --ldap or --ldaps")
			}
			return p.demo(cmd.Context(), o)
		},
	}
	o.flags(command, sandboxOptions{users: 5000, groups: 500, controllers: 1, ldaps: "127.0.0.1:0", gateway: "127.0.0.1:0"})
	command.Flags().StringVar(&o.admin, "admin", "127.0.0.1:0", "`ADDRESS` of the connector's admin endpoint, loopback only; port 0: any free port")
	command.Flags().BoolVar(&o.keep, "keep", false, "keep connector, directory and gateway running until Ctrl-C (exit code 0)")
	return command
}

// demo runs the demo. An interrupt that comes before the end of the demo returns exitInterrupted,
// because other errors are consequences of it. An interrupt after the end returns nil.
func (p *program) demo(ctx context.Context, o demoOptions) error {
	p.enableProgressBar()
	terminalSettings := slices.DeleteFunc(slices.Clone(p.environ), func(pair string) bool {
		return !strings.HasPrefix(pair, "TERM=") && !strings.HasPrefix(pair, "NO_COLOR=")
	})
	// By default, the log of the connector would hide the output of the demo.
	connector := &program{
		environ: terminalSettings, stdout: p.stdout, stderr: p.stderr,
		logFormat: p.logFormat, logLevel: cmp.Or(p.logLevel, "warn"), levelHook: newLevelHook(), hooks: p.hooks,
	}
	defer connector.levelHook.close()
	connector.levelHook.set(connector.logLevel)
	dir, err := os.MkdirTemp("", "adconnector-demo-")
	if err != nil {
		return newUsageError(fmt.Errorf("the demo requires a directory for its files: %w", err), "set TMPDIR to a writable directory")
	}
	cleanup := func() { _ = os.RemoveAll(dir) }
	p.cleanup.Store(&cleanup)
	defer p.cleanup.Store(nil)
	ctx, stop := enforceGrace(ctx, cmp.Or(p.hooks.demoGrace, demoGrace), errGrace, connector.logger(), p.abort)
	defer stop()
	if err = p.runDemo(ctx, connector, o, dir); err != nil && ctx.Err() != nil {
		err = exit(exitInterrupted)
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// runDemo starts the sandbox and the connector, runs the scenario, and stops both in
// reverse order. dir contains the files of the connector. It returns nil if the scenario was
// completed, and what is kept running was stopped by the end of ctx.
func (p *program) runDemo(ctx context.Context, connector *program, o demoOptions, dir string) error {
	servers, err := openSandbox(o.sandboxOptions)
	if err != nil {
		return err
	}
	defer servers.close()
	admin, err := freeAddress("--admin", o.admin)
	if err != nil {
		return err
	}
	scenario := newScenario(p, servers)
	// The first tick is a whole period after the start. If the full sync takes longer, the
	// connector logs that it skipped a tick.
	cron := fmt.Sprintf("%d/%d * * * * *", time.Now().Second()%demoPeriod, demoPeriod)
	file := filepath.Join(dir, "demo.env")
	if err := servers.writeEnv(file, "service.cron-expression="+cron, "service.state-dir="+filepath.Join(dir, "state"),
		"service.shutdown-grace=1s", "service.admin.address="+admin); err != nil {
		return err
	}
	connector.envFiles = []string{file}
	c, err := connector.load(true)
	if err != nil {
		return err
	}
	p.connection = connector.connection

	scenarioCtx, stopScenario := context.WithCancelCause(ctx)
	defer stopScenario(nil)
	// The sandbox stops last: on its stop, the connector sends its state to the gateway.
	defer startWorker(context.WithoutCancel(ctx), func(ctx context.Context) {
		if err := servers.serve(ctx); err != nil {
			stopScenario(err)
		}
	})()
	defer startWorker(ctx, func(ctx context.Context) {
		err := connector.daemon(ctx, c, scenario.observer(ctx))
		stopScenario(cmp.Or(err, errors.New("the connector stopped")))
	})()
	if err := scenario.play(scenarioCtx, c.Service.Schedule.Expression); err != nil {
		return err
	}
	if !o.keep {
		return nil
	}
	if err := cmp.Or(p.printLine(scenarioCtx, "inventory", "%s", servers.inventory()),
		p.printLine(scenarioCtx, "connector", "http://%s/, running until Ctrl-C", admin)); err != nil {
		return err
	}
	<-scenarioCtx.Done()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(scenarioCtx)
}

// printLine prints a line on stdout. After the end of ctx it returns the cause instead.
func (p *program) printLine(ctx context.Context, subject, format string, args ...any) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, err := fmt.Fprintf(p.stdout, "%-10s  %s\n", subject, fmt.Sprintf(format, args...))
	return err
}
