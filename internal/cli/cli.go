// Package cli is the program as operators see it: commands, exit codes, signals
// and the wiring of everything below.
//
// It guarantees that a fault is told once, on stderr, as a log line; that results
// go to stdout; and that the first signal ends work in order within the grace and
// the second ends it at once. It decides nothing of what a run does: it only hands the
// rooms below what the configuration says, and what they return to the operator.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1 // worth trying again
	exitUsage       = 2 // bad configuration or bad usage
	exitRefused     = 3
	exitLocked      = 4
	exitHeld        = 5 // everything was delivered but deletions that the guard holds
	exitRejected    = 6
	exitInterrupted = 130
)

// exit is an error that has been told already, or is none, and a code.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// program is one invocation.
type program struct {
	environ        []string
	stdout, stderr io.Writer
	envFiles       []string
	logFormat      string
	logLevel       string
	connection     string // UUID, once the configuration is read
	verbosity      *verbosity
	output         string
	answers        bool // it has begun to write its result
	cleanup        atomic.Pointer[func()]
	hooks          hooks
}

// hooks let tests set what no setting can. The zero value changes nothing.
type hooks struct {
	config     func(*config.Config) // changes the configuration once it is read
	state      state.Options        // of every state file
	askTimeout time.Duration        // how long a daemon on this host may take to answer; 0: 5 s
	exit       func(int)            // ends the process where the grace is exceeded; nil: os.Exit
}

// exit ends the process.
func (p *program) exit(code int) {
	if p.hooks.exit != nil {
		p.hooks.exit(code)
		return
	}
	os.Exit(code)
}

// abandon leaves nothing behind where the process ends at once.
func (p *program) abandon() {
	if cleanup := p.cleanup.Load(); cleanup != nil {
		(*cleanup)()
	}
}

// Main runs the program with its arguments and returns its exit code.
func Main(args, environ []string, stdout, stderr io.Writer) int {
	p := &program{environ: environ, stdout: stdout, stderr: stderr, verbosity: newVerbosity()}
	defer p.verbosity.end()
	ctx, stop := onSignal(context.Background(), p.abandon)
	defer stop()
	return p.execute(ctx, args)
}

// execute runs a command line and returns its exit code.
func (p *program) execute(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	var code exit
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	}
	log := p.logger().With().Str("component", "cli").Logger()
	for _, one := range fault.All(err) {
		log.Error().EmbedObject(fault.Fields(one)).Msg(headline(one))
	}
	return codeOf(err)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "adconnector",
		Short: "Brings users and groups from Active Directory to the Qualys gateway",
		Long: `Brings users and groups from an on-premises Active Directory to the Qualys gateway,
and keeps them there up to date: it reads over LDAP, LDAPS or StartTLS on a cron
schedule and sends what has changed since the gateway last acknowledged it. Without
a command it runs as a daemon, as adconnector run does.

Logs go to stderr, as JSON or, on a terminal, as lines for people; results go to
stdout. SIGTERM and SIGINT end it in order within service.shutdown-grace, a second
one ends it at once. SIGUSR1 makes the log of a daemon or a sync one step more
verbose, SIGUSR2 one step less.`,
		Args:          noArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
		// What reads no configuration would let them pass.
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return errors.Join(oneOf("log-format", p.logFormat, config.LogFormats), oneOf("log-level", p.logLevel, config.LogLevels))
		},
	}
	flags := root.PersistentFlags()
	flags.StringArrayVar(&p.envFiles, "env-file", nil, "read settings from this `FILE`, as docker run --env-file does; repeatable, a later one wins, the environment wins over all")
	flags.StringVar(&p.logFormat, "log-format", "", "`FORMAT` of the log: json or console (json unless stderr is a terminal)")
	flags.StringVar(&p.logLevel, "log-level", "", "`LEVEL` of the log: trace, debug, info, warn or error (info)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misused(err, "") })
	root.CompletionOptions.DisableDefaultCmd = true // there is our own
	root.SuggestionsMinimumDistance = 2
	root.SetHelpFunc(help)
	root.SetHelpCommand(helpCommand())
	root.AddCommand(p.runCommand(), p.syncCommand(), p.checkCommand(), p.statusCommand(), p.healthcheckCommand(), p.sandboxCommand(), p.demoCommand(), p.versionCommand(), p.keysCommand(), p.completionCommand())
	complete(root, "log-format", config.LogFormats...)
	complete(root, "log-level", config.LogLevels...)
	return root
}

// oneOf holds the value of a global option against those that it can have; "": it is
// not given.
func oneOf(option, value string, allowed []string) error {
	if value == "" || slices.Contains(allowed, strings.ToLower(value)) {
		return nil
	}
	return misused(fmt.Errorf("--%s %q is not allowed", option, value), "use one of "+strings.Join(allowed, ", "))
}

// usageError marks an error of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// misused returns an error of the command line. Without a remedy, its remedy is the help.
func misused(cause error, remedy string) error {
	return fault.Operation{}.Failed(fault.Invalid, usageError{cause}, cmp.Or(remedy, "see adconnector --help"))
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 && !cmd.HasParent() {
		return unknownCommand(cmd, args[0])
	}
	if len(args) > 0 {
		return misused(fmt.Errorf("%s takes no arguments, but got %q", cmd.CommandPath(), args[0]), "")
	}
	return nil
}

// load reads the configuration. Its error lists every fault; keys that look like ours
// and are none are told in the log.
func (p *program) load(scheduled bool) (*config.Config, error) {
	c, unknown, err := p.read(scheduled)
	log := p.logger().With().Str("component", "cli").Logger()
	for _, u := range unknown {
		event := log.Warn().Str("key", u.Key).Str("place", u.Place)
		if u.Nearest != "" {
			event.Str("nearest", u.Nearest)
		}
		event.Msg(MsgUnknownKey)
	}
	return c, err
}

// read is load, and leaves the telling to the caller.
func (p *program) read(scheduled bool) (*config.Config, []config.Unknown, error) {
	var unknown []config.Unknown
	c, err := config.Load(config.Source{
		EnvFiles: p.envFiles, Environ: p.environ, Scheduled: scheduled,
		Flags:   map[string]string{"log.format": p.logFormat, "log.level": p.logLevel},
		Unknown: func(u config.Unknown) { unknown = append(unknown, u) },
	})
	if err != nil {
		return nil, unknown, err
	}
	p.logFormat, p.connection = c.Log.Format, c.Gateway.ConnectionUUID
	p.verbosity.set(c.Log.Level)
	if p.hooks.config != nil {
		p.hooks.config(c)
	}
	return c, unknown, nil
}

// headline returns the message of an error that ends a command.
func headline(err error) string {
	switch {
	case errors.As(err, new(usageError)):
		return MsgBadUsage
	case fault.ClassOf(err) == fault.Invalid:
		return MsgBadConfiguration
	}
	return MsgCommandFailed
}

func codeOf(err error) int {
	switch fault.ClassOf(err) {
	case fault.Invalid:
		return exitUsage
	case fault.Locked:
		return exitLocked
	case fault.Refused:
		return exitRefused
	case fault.Canceled:
		return exitInterrupted
	default:
		return exitFailed
	}
}

func (p *program) logger() zerolog.Logger {
	log := newLogger(p.stderr, p.logFormat, p.wantsColour(), p.verbosity)
	if p.connection != "" {
		log = log.With().Str("connection", p.connection).Logger()
	}
	return log
}
