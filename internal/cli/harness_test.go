package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/config"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/schedule"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// childKey is the environment variable that makes the test binary the connector.
const childKey = "CLI_TEST_CHILD"

// TestMain lets this binary stand in for the program, race detector included,
// where a test needs a process of its own to send signals to.
func TestMain(m *testing.M) {
	if os.Getenv(childKey) != "" {
		os.Exit(Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// base is the container that holds the users and groups of a site.
const base = "OU=Staff,DC=corp,DC=example,DC=com"

// never is a cron expression whose next tick no test lives to see, unless it runs at New Year.
const never = "0 0 1 1 *"

// wrong is a password that neither server accepts.
const wrong = "Wr0ng-s3cret!"

// site is the environment of a test: 20 users and 3 groups below base.
type site struct {
	*testenv.Environment
	env testenv.Settings
}

func newSite(t *testing.T) *site {
	t.Helper()
	e := testenv.New(t, testenv.Options{Directory: domaincontroller.Options{ReadsDeleted: true}})
	e.AddUnit(base)
	for n := range 20 {
		e.AddUser(userDN(n))
	}
	for n := range 3 {
		e.AddGroup(fmt.Sprintf("CN=group%d,%s", n, base))
	}
	for _, secret := range []string{e.Password, e.Gateway.Options.Password, wrong} {
		testlog.AddSecret(secret)
	}
	return &site{Environment: e, env: e.Settings().With(testenv.Settings{"profile.baseContext": base})}
}

func userDN(n int) string { return fmt.Sprintf("CN=user%d,%s", n, base) }

// remove deletes the first n users.
func (s *site) remove(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		s.Must(s.Delete(userDN(i)))
	}
}

// deleted counts the users that have the status DELETED at the gateway.
func (s *site) deleted() int {
	n := 0
	for _, user := range s.Gateway.Users() {
		if testenv.IsDeleted(string(user.Asset)) {
			n++
		}
	}
	return n
}

// states returns the first n connector states that the gateway received, or all of fewer.
func (s *site) states(n int) []string {
	var states []string
	for _, sent := range s.Gateway.States() {
		states = append(states, sent.State)
	}
	return states[:min(n, len(states))]
}

// connector returns the connector's state as the state file has it.
func (s *site) connector(t *testing.T) state.Connector {
	t.Helper()
	store, err := state.OpenReadOnly(s.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c, err := store.Connector()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hold holds the state directory, as a daemon does, until the test ends.
func (s *site) hold(t *testing.T) {
	t.Helper()
	store, err := inProcess.state.Open(s.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
}

// hang leaves the calls that carry assets without an answer until the test ends, and
// returns a channel that receives for each of them.
func (s *site) hang(t *testing.T) <-chan struct{} {
	sent, release := make(chan struct{}, 10), make(chan struct{})
	t.Cleanup(func() { close(release) })
	s.Gateway.SetFront(testenv.OnAssets(func(*testenv.Exchange) bool {
		sent <- struct{}{}
		<-release
		return true
	}))
	return sent
}

// start starts the connector in a process of its own.
func (s *site) start(t *testing.T, args ...string) *child.Process {
	t.Helper()
	return start(t, s.env.Environ(), args...)
}

func start(t *testing.T, environ []string, args ...string) *child.Process {
	t.Helper()
	return child.Start(t, child.Command{Path: os.Args[0], Args: args, Env: append([]string{childKey + "=1"}, environ...)})
}

// ended waits for the end of a process and checks its exit code and that it logged JSON only.
func ended(t *testing.T, c *child.Process, code int) child.Outcome {
	t.Helper()
	o := c.MustExit(t, code)
	if other := o.With(child.NotJSON); len(other) > 0 {
		t.Errorf("not JSON: %v", other)
	}
	return o
}

// inProcess are the hooks of commands that run in the process of the tests.
var inProcess = hooks{state: state.Options{LockWait: time.Millisecond, NoSync: true}}

// invoke runs a command with the settings of the site.
func (s *site) invoke(t *testing.T, args ...string) child.Outcome {
	t.Helper()
	return invoke(t, s.env.Environ(), args...)
}

func invoke(t *testing.T, environ []string, args ...string) child.Outcome {
	t.Helper()
	return invokeWith(t, t.Context(), inProcess, environ, args...)
}

func invokeWith(t *testing.T, ctx context.Context, h hooks, environ []string, args ...string) child.Outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &program{environ: environ, stdout: &stdout, stderr: &stderr, verbosity: newVerbosity(), hooks: h}
	defer p.verbosity.end()
	o := child.Outcome{Code: p.execute(ctx, append([]string{}, args...)), Stdout: stdout.String(), Stderr: stderr.String()}
	var form testlog.Form
	for text := range strings.Lines(o.Stderr) {
		line, err := form.Check([]byte(text))
		if err != nil {
			t.Error(err)
		}
		o.Log = append(o.Log, line)
	}
	return o
}

// daemon is a daemon in the process of the tests.
type daemon struct {
	testlog.Log
	stop  context.CancelFunc
	ended chan struct{}
	code  int // valid once ended is closed
}

// serve runs the daemon until it is stopped or the test ends. configure changes its
// configuration.
func (s *site) serve(t *testing.T, configure func(*config.Config)) *daemon {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	d := &daemon{stop: stop, ended: make(chan struct{})}
	h := inProcess
	h.exit = func(int) {} // a busy machine may exceed the grace
	h.config = func(c *config.Config) {
		c.Gateway.RetryFirst = time.Millisecond
		if configure != nil {
			configure(c)
		}
	}
	p := &program{environ: s.env.Environ(), stdout: io.Discard, stderr: d.Checked(t), verbosity: newVerbosity(), hooks: h}
	var serving sync.WaitGroup
	serving.Go(func() {
		defer close(d.ended)
		defer p.verbosity.end()
		d.code = p.execute(ctx, []string{"run"})
	})
	t.Cleanup(func() {
		stop()
		serving.Wait()
	})
	return d
}

// often lets a daemon run as often as it can.
func often(c *config.Config) { c.Service.Schedule = schedule.Every(10 * time.Millisecond) }

// await waits for a line of the log that matches.
func (d *daemon) await(t *testing.T, match func(testlog.Line) bool) testlog.Line {
	t.Helper()
	line, _, ok := d.Await(0, match, d.ended)
	if !ok {
		t.Fatalf("awaited log line missing in: %v", d.Lines())
	}
	return line
}

// end stops the daemon, waits for its end and checks its exit code.
func (d *daemon) end(t *testing.T) {
	t.Helper()
	d.stop()
	<-d.ended
	if d.code != exitDone {
		t.Errorf("exit code %d: %v", d.code, d.Lines())
	}
}

// awaitEvent waits for an event of a daemon or a process, which must not have ended before.
func awaitEvent(t *testing.T, event, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-ended:
		t.Fatal("it ended before")
	}
}

// enters matches a line for a change of the connector's state.
func enters(state string) func(testlog.Line) bool { return testlog.Field("to", state) }

// isSummary matches the line that ends a run with a result.
func isSummary(result string) func(testlog.Line) bool {
	return func(l testlog.Line) bool {
		return l.Text("message") == runFinished && l.Text("result") == result
	}
}

// Messages of runs.
const (
	runFinished    = syncrun.MsgRunFinished
	connectorState = syncrun.MsgConnectorState
)

// theError returns the one line of the log whose level is error.
func theError(t *testing.T, o child.Outcome) testlog.Line {
	t.Helper()
	var found []testlog.Line
	for _, line := range o.Log {
		if line.Text("level") == "error" {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d errors: %v", len(found), o.Log)
	}
	return found[0]
}

// names reports whether the error of a line or its remedy names all of these settings,
// arguments, paths and addresses.
func names(l testlog.Line, all ...string) bool {
	return contains(l.Text("error")+" "+l.Text("remedy"), all...)
}

func mustName(t *testing.T, l testlog.Line, all ...string) {
	t.Helper()
	if !names(l, all...) {
		t.Errorf("%q missing in error %q, remedy %q", all, l.Text("error"), l.Text("remedy"))
	}
}

// contains reports whether a text contains all of these parts.
func contains(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

// showsSecret reports whether a text has one of the passwords of the sites.
func showsSecret(text string) bool {
	_, found := testlog.FindSecret(text)
	return found
}

// decode decodes the one JSON document on stdout.
func decode[T any](t *testing.T, o child.Outcome) T {
	t.Helper()
	var document T
	decoder := json.NewDecoder(strings.NewReader(o.Stdout))
	if err := decoder.Decode(&document); err != nil {
		t.Fatalf("%v: %+v", err, o)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Errorf("more than one document: %s", o.Stdout)
	}
	return document
}

// blankFile returns the path of an empty file.
func blankFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
