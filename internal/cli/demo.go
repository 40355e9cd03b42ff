package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"adconnector/internal/state"
	"adconnector/internal/syncrun"
)

// demoOptions are the flags of the command.
type demoOptions struct {
	sandboxOptions
	admin string // address of the connector's own pages
	keep  bool
}

const (
	// demoPeriod is the time from tick to tick, in seconds.
	demoPeriod = 5
	// demoGrace is how long an interrupted demo may take to clean up.
	demoGrace = 900 * time.Millisecond
	// demoUsers is the least: enough in good standing for one to be picked for each
	// change, and for the guard to let a deletion pass.
	demoUsers = 50
)

// How a demo fails.
var (
	errUnexpectedRun  = errors.New("unexpected run")
	errDiffers        = errors.New("gateway and directory differ")
	errChangesMissing = errors.New("changes missing at the gateway")
)

func (p *program) demoCommand() *cobra.Command {
	var o demoOptions
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole connector at work, on a sandbox in this process",
		Long: `Shows the whole connector at work, on a sandbox in this process.

It serves a directory and a gateway on loopback, and runs the connector against the
two, as it is, on a schedule: first a full run; then some objects change in the
directory, and the next tick finds them. A table shows what became of each change,
as the gateway holds it. The exit code is 1 when the gateway does not hold what the
directory says. Nothing is left behind, and nothing outside of this machine is
spoken to: neither the environment nor an env file is read.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case len(p.envFiles) > 0:
				return misused(errors.New("the demo has settings of its own"), "leave out --env-file")
			case o.users < demoUsers || o.groups < 1:
				return misused(fmt.Errorf("the demo needs --users %d and --groups 1 at least", demoUsers), "")
			case o.ldap == "" && o.ldaps == "":
				return misused(errors.New("the demo needs a directory"), "give --ldap or --ldaps")
			}
			return p.demo(cmd.Context(), o)
		},
	}
	o.flags(command, sandboxOptions{users: 5000, groups: 500, ldaps: "127.0.0.1:0", gateway: "127.0.0.1:0"})
	command.Flags().StringVar(&o.admin, "admin", "127.0.0.1:0", "`ADDRESS` of the connector's own pages, loopback only, port 0: any")
	command.Flags().BoolVar(&o.keep, "keep", false, "leave connector, directory and gateway running at the end, until Ctrl-C")
	return command
}

// demo ends with the code of an interrupt whenever there was one: what else went
// wrong then followed from it.
func (p *program) demo(ctx context.Context, o demoOptions) error {
	p.onScreen()
	// Its own logs would hide what it tells.
	quiet := &program{
		environ: p.ofTerminal(), stdout: p.stdout, stderr: p.stderr,
		logFormat: p.logFormat, logLevel: cmp.Or(p.logLevel, "warn"), verbosity: newVerbosity(), hooks: p.hooks,
	}
	defer quiet.verbosity.end()
	quiet.verbosity.set(quiet.logLevel)
	dir, err := os.MkdirTemp("", "adconnector-demo-")
	if err != nil {
		return misused(fmt.Errorf("the demo needs a directory for its files: %w", err), "set TMPDIR to one that can be written")
	}
	cleanup := func() { _ = os.RemoveAll(dir) }
	p.cleanup.Store(&cleanup) // for a second signal
	defer p.cleanup.Store(nil)
	defer withinGrace(ctx, demoGrace, errGrace, quiet.logger(), func(code int) {
		cleanup()
		p.exit(code)
	})()
	err = errors.Join(p.perform(ctx, quiet, o, dir), os.RemoveAll(dir))
	if ctx.Err() != nil {
		return exit(exitInterrupted)
	}
	return err
}

// perform starts everything, has the play acted, and stops everything in reverse.
// What the connector writes is in dir.
func (p *program) perform(ctx context.Context, quiet *program, o demoOptions, dir string) error {
	e, err := open(o.sandboxOptions)
	if err != nil {
		return err
	}
	defer e.close()
	admin, err := freeAddress("--admin", o.admin)
	if err != nil {
		return err
	}
	play := newPlay(p, e)
	// The first tick comes a whole period after the start: where a full run takes
	// longer, the connector says that a tick fell into it.
	cron := fmt.Sprintf("%d/%d * * * * *", time.Now().Second()%demoPeriod, demoPeriod)
	file := filepath.Join(dir, "demo.env")
	if err := e.writeEnv(file, "service.cron-expression="+cron, "service.state-dir="+filepath.Join(dir, "state"),
		"service.shutdown-grace=1s", "service.admin.address="+admin); err != nil {
		return err
	}
	quiet.envFiles = []string{file}
	c, err := quiet.load(true)
	if err != nil {
		return err
	}
	p.connection = quiet.connection

	// The connector has a last word to the gateway, so that one goes later.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	connecting, stopConnector := context.WithCancel(ctx)
	acting, stopActing := context.WithCancelCause(ctx)
	var sandbox, connector sync.WaitGroup
	sandbox.Go(func() {
		if err := e.serve(serving); err != nil {
			stopActing(err)
		}
	})
	connector.Go(func() {
		err := quiet.daemon(connecting, c, play.witness(connecting))
		if err == nil {
			err = errors.New("the connector has stopped")
		}
		stopActing(err)
	})
	defer func() {
		stopConnector()
		connector.Wait()
		stopServing()
		sandbox.Wait()
		stopActing(nil)
	}()
	if err := play.act(acting, c.Service.Schedule.String()); err != nil {
		return err
	}
	if !o.keep {
		return nil
	}
	if err := cmp.Or(p.tell(acting, "inventory", "%s", e.inventory()),
		p.tell(acting, "connector", "http://%s/, which goes on until Ctrl-C", admin)); err != nil {
		return err
	}
	<-acting.Done()
	return context.Cause(acting)
}

// ofTerminal is what the environment says of the terminal, and nothing else of it.
func (p *program) ofTerminal() (pairs []string) {
	for _, pair := range p.environ {
		if strings.HasPrefix(pair, "TERM=") || strings.HasPrefix(pair, "NO_COLOR=") {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// tell prints a line for people, while there is somebody to tell and something to go
// on with.
func (p *program) tell(ctx context.Context, subject, format string, args ...any) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	_, err := fmt.Fprintf(p.stdout, "%-10s  %s\n", subject, fmt.Sprintf(format, args...))
	return err
}

// play is the demo's course of events.
type play struct {
	*program
	*embedded
	events       chan event
	changed      chan struct{} // closed once the changes in the directory are made
	expected     int           // objects that the next run reads; 0: nobody knows
	hideProgress func()        // of the run that goes on
}

// event is what the daemon tells: a run that has ended, or the next tick.
type event struct {
	run  *state.Run
	err  error
	tick time.Time
}

func newPlay(p *program, e *embedded) *play {
	users, groups := identities(e.directory.Objects())
	return &play{program: p, embedded: e, events: make(chan event, 64), changed: make(chan struct{}), expected: len(users) + len(groups)}
}

// witness listens to the daemon. The first run starts at once. The second one waits until
// the changes in the directory are made, or ctx ends, so that it finds all of them. After
// the last act nobody receives the events, and the daemon continues.
func (s *play) witness(ctx context.Context) witness {
	runs := 0
	say := func(e event) {
		select {
		case s.events <- e:
		default:
		}
	}
	return witness{
		starts: func() (progress *syncrun.Progress) {
			if runs++; runs > 1 {
				select {
				case <-s.changed:
				case <-ctx.Done():
				}
			}
			progress, s.hideProgress = s.showProgress(s.expected)
			s.expected = 0
			return progress
		},
		finished: func(run state.Run, err error) {
			s.hideProgress()
			say(event{run: &run, err: err})
		},
		scheduled: func(next time.Time) { say(event{tick: next}) },
	}
}

// next waits for an event that is wanted.
func (s *play) next(ctx context.Context, wanted func(event) bool) (event, error) {
	for {
		select {
		case e := <-s.events:
			if wanted(e) {
				return e, nil
			}
		case <-ctx.Done():
			return event{}, context.Cause(ctx)
		}
	}
}

// run waits for a run to end, which must have been a good one of its kind. Its error
// is in the log already.
func (s *play) run(ctx context.Context, mode string) (state.Run, error) {
	e, err := s.next(ctx, func(e event) bool { return e.run != nil })
	switch {
	case err != nil:
		return state.Run{}, err
	case e.err != nil:
		return state.Run{}, exit(codeOf(e.err))
	case e.run.Result != syncrun.Processed || e.run.Mode != mode:
		return state.Run{}, fmt.Errorf("%w: mode %s, result %s, want %s and %s", errUnexpectedRun, e.run.Mode, e.run.Result, mode, syncrun.Processed)
	}
	return *e.run, nil
}

// tick waits for the announcement of the next tick.
func (s *play) tick(ctx context.Context) (time.Time, error) {
	e, err := s.next(ctx, func(e event) bool { return !e.tick.IsZero() })
	return e.tick, err
}

func (s *play) act(ctx context.Context, cron string) error {
	users, groups := identities(s.directory.Objects())
	if err := cmp.Or(s.tell(ctx, "directory", "%s, %d users and %d groups", s.addresses()[0], len(users), len(groups)),
		s.tell(ctx, "gateway", "%s, empty", s.url()),
		s.tell(ctx, "connector", "one run at start, then by the cron expression %s", cron)); err != nil {
		return err
	}

	first, err := s.run(ctx, "full")
	if err != nil {
		return err
	}
	if err := s.verify(); err != nil {
		return err
	}
	if err := s.tell(ctx, "full run", "%d users and %d groups read, %d sent and acknowledged, %d requests, %s",
		first.Users, first.Groups, first.Uploaded, first.Requests, first.Duration.Round(time.Millisecond)); err != nil {
		return err
	}

	tick, err := s.tick(ctx)
	if err != nil {
		return err
	}
	changes, err := s.change()
	if err != nil {
		return err
	}
	if err := s.tell(ctx, "changes", "%d made in the directory, the next tick is at %s UTC", len(changes), tick.Format(time.TimeOnly)); err != nil {
		return err
	}
	close(s.changed)
	second, err := s.run(ctx, "delta")
	if err != nil {
		return err
	}
	if err := s.tell(ctx, "delta run", "%d objects read, %d sent, %d deleted, %d requests, %s", second.Users+second.Groups, second.Uploaded, second.Deleted,
		second.Requests, second.Duration.Round(time.Millisecond)); err != nil {
		return err
	}
	if err := errors.Join(s.report(changes), s.verify()); err != nil {
		return err
	}
	users, groups = identities(s.directory.Objects())
	return s.tell(ctx, "verified", "%d users and %d groups are at the gateway as in the directory", len(users), len(groups))
}
