// Package cli implements the commands of the program, its exit codes, and its signals, and
// connects the other packages to each other.
//
// An error is logged once, on stderr. Results go to stdout. The first signal shuts the
// program down within the grace, the second one stops it immediately. What a run does
// is not decided here.
package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/input"
	"adconnector/internal/state"
)

// The exit codes.
const (
	exitDone        = 0
	exitFailed      = 1 // worth trying again
	exitUsage       = 2 // bad configuration or bad usage
	exitRefused     = 3
	exitLocked      = 4
	exitHeld        = 5 // everything was accepted except deletions, which are held or undecided
	exitRejected    = 6
	exitInterrupted = 130
)

// exit is an exit code as an error. Its cause, if there is one, is already logged.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// program is one invocation of the program.
type program struct {
	environ        []string
	stdout, stderr io.Writer
	envFiles       []string
	logFormat      string
	logLevel       string
	connection     string // UUID, once the configuration is read
	levelHook      *levelHook
	output         string
	resultStarted  bool                   // part of the result may be on stdout
	warnShared     sync.Once              // for the warning that others can change the state
	isDaemon       atomic.Bool            // the command is run, which ignores SIGHUP
	hangups        chan struct{}          // receives a value for each SIGHUP of a daemon
	aborted        chan struct{}          // receives a value if Main must not wait for the command
	cleanup        atomic.Pointer[func()] // what Main calls after an abort; nil: nothing
	hooks          hooks
}

// hooks let tests change what no setting changes. The zero value changes nothing.
type hooks struct {
	config       func(*config.Config) // changes the configuration after it is read
	state        state.Options        // of every state file
	fetchTimeout time.Duration        // for a response of the daemon; 0: 5 s
	demoGrace    time.Duration        // of the demo after an interrupt; 0: demoGrace
}

// Main runs the program with its arguments and returns its exit code.
func Main(args, environ []string, stdout, stderr io.Writer) int {
	p := &program{environ: environ, stdout: stdout, stderr: stderr, levelHook: newLevelHook(), hangups: make(chan struct{}, 1), aborted: make(chan struct{}, 1)}
	defer p.levelHook.close()
	limitGarbage(environ)
	redirectLibraries(p.logger())
	ctx, stop := onSignal(context.Background(), p.ignoreHangup, p.abort)
	defer stop()
	exitCode := make(chan int, 1)
	go func() { exitCode <- p.execute(ctx, args) }()
	select {
	case code := <-exitCode:
		return code
	case <-p.aborted: // the caller ends the process, and with it the command
		if cleanup := p.cleanup.Load(); cleanup != nil {
			(*cleanup)()
		}
		return exitInterrupted
	}
}

// abort makes Main return without waiting for the command.
func (p *program) abort() {
	select {
	case p.aborted <- struct{}{}:
	default:
	}
}

// execute runs a command line and returns its exit code.
func (p *program) execute(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exit
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &code):
		return int(code)
	}
	log := p.logger().With().Str("component", "cli").Logger()
	for _, single := range fault.All(err) {
		log.Error().EmbedObject(fault.Fields(single)).Msg(logMessage(single))
	}
	return exitCodeOf(err)
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "adconnector",
		Short: "Synchronize users and groups from Active Directory to the Qualys gateway",
		Long: `Synchronize users and groups from an on-premises Active Directory to the Qualys
gateway. The connector reads over LDAP, LDAPS or StartTLS on a cron schedule. It
sends the objects that changed since the gateway last acknowledged them. Without a
command it runs as a daemon, like "adconnector run".

Every setting is an environment variable or a line of an env file, see "adconnector
keys". Env files have the format of docker run --env-file; sample.env shows every
key. NO_COLOR turns off colors, TERM=dumb turns off colors and the progress bar.

Logs go to stderr: as JSON or, on a terminal, as text. Results go to stdout.

SIGTERM and SIGINT shut the program down within service.shutdown-grace, a second one
at once. SIGUSR1 makes the log of a daemon or a sync one level more verbose, SIGUSR2
one level less. A daemon ignores SIGHUP: it reloads nothing. Other commands stop.

The state file is adconnector.db in service.state-dir (/var/lib/adconnector). It
records what was accepted and the watermarks. Without it the next run sends
everything, and deletes no object that only the state file recorded. A damaged state
file is renamed to adconnector.db.damaged-TIME and can be removed. The file
adconnector.generation detects a restored copy. Do not copy or restore it.`,
		Example: `  # Watch a demonstration, without a directory and without a gateway
  adconnector demo

  # Try the connector without a directory and without a gateway, in two terminals
  adconnector sandbox --env-out sandbox.env
  adconnector sync --env-file sandbox.env

  # Find configuration errors and missing rights before the first run
  adconnector check --env-file ad.env

  # Run as a daemon in a container
  docker run -d --name adconnector --restart unless-stopped --stop-timeout 40 \
      --env-file ad.env -v adconnector:/var/lib/adconnector adconnector:1.1.0

  # Show the status of that daemon
  docker exec adconnector adconnector status`,
		Annotations:                allExits(),
		Args:                       noArgs,
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return p.run(cmd.Context()) },
		// Commands that do not read the configuration check these flags, too.
		PersistentPreRunE: func(*cobra.Command, []string) error { return p.validateFlags() },
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	flags := root.PersistentFlags()
	flags.StringArrayVar(&p.envFiles, "env-file", nil, "read settings from this `FILE`; repeatable, later files override earlier ones, the environment overrides all files")
	flags.StringVar(&p.logFormat, "log-format", "", "`FORMAT` of the log: json or console (json unless stderr is a terminal)")
	flags.StringVar(&p.logLevel, "log-level", "", "`LEVEL` of the log: trace, debug, info, warn or error (info)")
	root.SetFlagErrorFunc(flagError)
	setUsageTemplate(root)
	root.AddCommand(p.runCommand(), p.syncCommand(), p.checkCommand(), p.statusCommand(), p.healthcheckCommand(), p.sandboxCommand(), p.demoCommand(), p.versionCommand(), p.keysCommand())
	addBuiltInCommands(root)
	completeFlag(root, "log-format", config.LogFormats...)
	completeFlag(root, "log-level", config.LogLevels...)
	return root
}

// validateFlags checks the values of the global flags.
func (p *program) validateFlags() error {
	return errors.Join(validateFlag("log-format", p.logFormat, config.LogFormats), validateFlag("log-level", p.logLevel, config.LogLevels))
}

// validateFlag returns an error if the value of a flag is not allowed. An empty value means
// that the flag is absent.
func validateFlag(flag, value string, allowed []string) error {
	if value == "" || slices.Contains(allowed, strings.ToLower(value)) {
		return nil
	}
	return newUsageError(fmt.Errorf("--%s %q is not allowed", flag, value), "use one of "+strings.Join(allowed, ", "))
}

// usageError is an error of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// newUsageError returns an error of the command line. The default remedy is the help.
func newUsageError(cause error, remedy string) error {
	return fault.Operation{}.Failed(fault.Invalid, usageError{cause}, cmp.Or(remedy, "see adconnector --help"))
}

// load reads the configuration and logs advice. Its error joins all faults of the configuration.
func (p *program) load(scheduled bool) (*config.Config, error) {
	c, advice, err := p.readConfig(scheduled)
	if advice.isEmpty && p.showsWelcome() {
		return nil, p.welcome()
	}
	log := p.logger().With().Str("component", "cli").Logger()
	if advice.isEmpty {
		log.Warn().Str("remedy", remedyNoSettings).Msg(MsgNoSettings)
	}
	for _, u := range advice.unknown {
		event := log.Warn().Str("key", u.Key).Str("place", u.Place)
		if u.Nearest != "" {
			event.Str("nearest", u.Nearest)
		}
		event.Msg(MsgUnknownKey)
	}
	for _, f := range advice.exposed {
		log.Warn().Str("place", f.Name).Str("reason", f.Reason()).Str("remedy", f.Remedy()).Msg(MsgFileExposed)
	}
	for _, m := range advice.mistakes {
		log.Warn().Str("key", m.Key).Str("place", m.Name).Str("reason", m.Reason()).Str("remedy", m.Remedy()).Msg(MsgMistake)
	}
	return c, err
}

// advice is what is probably wrong in a configuration, whether it is valid or not.
type advice struct {
	isEmpty  bool // there are no settings at all
	unknown  []config.Unknown
	mistakes []config.Mistake
	replaced []config.Override
	exposed  []input.Finding
}

// remedyNoSettings is the remedy if there are no settings at all. Without a command and settings,
// a container was probably started without its env file.
const remedyNoSettings = "pass --env-file FILE to this command, or to docker run, with the settings of sample.env; to try the program without settings, run adconnector demo"

// readConfig reads the configuration.
func (p *program) readConfig(scheduled bool) (*config.Config, advice, error) {
	var found advice
	c, err := config.Load(config.Source{
		EnvFiles: p.envFiles, Environ: p.environ, Scheduled: scheduled,
		Flags:    map[string]string{"log.format": p.logFormat, "log.level": p.logLevel},
		Unknown:  func(u config.Unknown) { found.unknown = append(found.unknown, u) },
		Mistake:  func(m config.Mistake) { found.mistakes = append(found.mistakes, m) },
		Override: func(o config.Override) { found.replaced = append(found.replaced, o) },
		Exposed:  func(f input.Finding) { found.exposed = append(found.exposed, f) },
		Empty:    func() { found.isEmpty = true },
	})
	if err != nil {
		return nil, found, err
	}
	p.logFormat, p.connection = c.Log.Format, c.Gateway.ConnectionUUID
	p.levelHook.set(c.Log.Level)
	redirectLibraries(p.logger()) // now in the configured format, with the connection
	if p.hooks.config != nil {
		p.hooks.config(c)
	}
	return c, found, nil
}

// logMessage returns the log message for an error that ends a command.
func logMessage(err error) string {
	switch {
	case errors.As(err, new(usageError)):
		return MsgBadUsage
	case fault.ClassOf(err) == fault.Invalid:
		return MsgBadConfiguration
	}
	return MsgCommandFailed
}

func exitCodeOf(err error) int {
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
	log := newLogger(p.stderr, p.logFormat, p.allowsColors(), p.levelHook)
	if p.connection != "" {
		log = log.With().Str("connection", p.connection).Logger()
	}
	return log
}
