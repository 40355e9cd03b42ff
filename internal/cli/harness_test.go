package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/config"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/schedule"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/test/leaktest"
	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// childKey is the environment variable that makes the test binary run the connector.
const childKey = "CLI_TEST_CHILD"

// TestMain lets the test binary run the connector, with the race detector, in tests that
// send signals to a process.
func TestMain(m *testing.M) {
	if os.Getenv(childKey) != "" {
		os.Exit(Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	if signal.Ignored(syscall.SIGHUP) { // as under nohup; child processes would ignore it, too
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	leaktest.Main(m)
}

// baseDN is the container of the users and groups of a fixture.
const baseDN = "OU=Staff,DC=corp,DC=example,DC=com"

// yearly is a cron expression without a tick during a test, except at New Year.
const yearly = "0 0 1 1 *"

// wrongPassword is a password that neither server accepts.
const wrongPassword = "Wr0ng-s3cret!"

// fixture is the environment of a test: 20 users and 3 groups below baseDN.
type fixture struct {
	*testenv.Environment
	env    testenv.Settings
	locked bool // the state directory is locked until the test ends
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	e := testenv.New(t, testenv.Options{Directory: domaincontroller.Options{ReadsDeleted: true}})
	e.AddUnit(baseDN)
	for n := range 20 {
		e.AddUser(userDN(n))
	}
	for n := range 3 {
		e.AddGroup(fmt.Sprintf("CN=group%d,%s", n, baseDN))
	}
	for _, secret := range []string{e.Password, e.Gateway.Options.Password, wrongPassword} {
		testlog.AddSecret(secret)
	}
	return &fixture{Environment: e, env: e.Settings().With(testenv.Settings{"profile.baseContext": baseDN})}
}

func userDN(n int) string { return fmt.Sprintf("CN=user%d,%s", n, baseDN) }

// remove deletes the first n users.
func (s *fixture) remove(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		s.Must(s.Delete(userDN(i)))
	}
}

// deleted counts the users that have the status DELETED at the gateway.
func (s *fixture) deleted() int {
	n := 0
	for _, user := range s.Gateway.Users() {
		if testenv.IsDeleted(string(user.Asset)) {
			n++
		}
	}
	return n
}

// states returns the first n connector states that the gateway received, or fewer.
func (s *fixture) states(n int) []string {
	var states []string
	for _, sent := range s.Gateway.States() {
		states = append(states, sent.State)
	}
	return states[:min(n, len(states))]
}

// connector returns the connector state in the state file.
func (s *fixture) connector(t *testing.T) state.Connector {
	t.Helper()
	store, err := state.Options{}.OpenReadOnly(s.StateDir)
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

// lockState locks the state directory, like a daemon, until the test ends.
func (s *fixture) lockState(t *testing.T) {
	t.Helper()
	store, err := testHooks.state.Open(s.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	s.locked = true
	t.Cleanup(func() { store.Close() })
}

// blockAssets blocks requests with assets until the test ends, and returns a channel that
// receives a value for each.
func (s *fixture) blockAssets(t *testing.T) <-chan struct{} {
	sent, release := make(chan struct{}, 10), make(chan struct{})
	t.Cleanup(func() { close(release) })
	s.Gateway.SetFront(testenv.OnAssets(func(*testenv.Exchange) bool {
		sent <- struct{}{}
		<-release
		return true
	}))
	return sent
}

// start starts the connector in a separate process.
func (s *fixture) start(t *testing.T, args ...string) *child.Process {
	t.Helper()
	return start(t, s.env.Environ(), args...)
}

func start(t *testing.T, environ []string, args ...string) *child.Process {
	t.Helper()
	return child.Start(t, child.Command{Path: os.Args[0], Args: args, Env: append([]string{childKey + "=1"}, environ...)})
}

// requireExit waits for the end of a process. It checks the exit code and that all log lines
// are JSON.
func requireExit(t *testing.T, c *child.Process, code int) child.Outcome {
	t.Helper()
	o := c.MustExit(t, code)
	if other := o.With(child.NotJSON); len(other) > 0 {
		t.Errorf("not JSON: %v", other)
	}
	return o
}

// testHooks are the hooks of commands in the process of the tests. Other tests start processes. Such
// a process inherits the locks of the state files that are open at that moment, and holds them until
// it executes its program, which can be long after the command has closed its file. So commands wait.
var testHooks = hooks{state: state.Options{LockWait: time.Minute, NoSync: true}}

func (s *fixture) hooks() hooks {
	h := testHooks
	if s.locked { // waiting is useless
		h.state.LockWait = time.Millisecond
	}
	return h
}

// invoke runs a command with the settings of the fixture.
func (s *fixture) invoke(t *testing.T, args ...string) child.Outcome {
	t.Helper()
	return invokeWith(t.Context(), t, s.hooks(), s.env.Environ(), args...)
}

func invoke(t *testing.T, environ []string, args ...string) child.Outcome {
	t.Helper()
	return invokeWith(t.Context(), t, testHooks, environ, args...)
}

func invokeWith(ctx context.Context, t *testing.T, h hooks, environ []string, args ...string) child.Outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &program{environ: environ, stdout: &stdout, stderr: &stderr, levelHook: newLevelHook(), hooks: h}
	defer p.levelHook.close()
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
func (s *fixture) serve(t *testing.T, configure func(*config.Config)) *daemon {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	d := &daemon{stop: stop, ended: make(chan struct{})}
	h := s.hooks()
	h.config = func(c *config.Config) {
		c.Gateway.RetryDelay = time.Millisecond
		if configure != nil {
			configure(c)
		}
	}
	p := &program{environ: s.env.Environ(), stdout: io.Discard, stderr: d.Checked(t), levelHook: newLevelHook(), hooks: h}
	var server sync.WaitGroup
	server.Go(func() {
		defer close(d.ended)
		defer p.levelHook.close()
		d.code = p.execute(ctx, []string{"run"})
	})
	t.Cleanup(func() {
		stop()
		server.Wait()
	})
	return d
}

// runFrequently sets a schedule with an interval of 10 ms.
func runFrequently(c *config.Config) {
	c.Service.Schedule = &schedule.Schedule{Expression: "every 10ms", Ticks: every(10 * time.Millisecond)}
}

// every is a schedule that fires at each multiple of an interval, which can be shorter than
// a second.
type every time.Duration

// Next returns the first multiple of the interval after a time.
func (e every) Next(after time.Time) time.Time {
	return after.Truncate(time.Duration(e)).Add(time.Duration(e))
}

// await waits for a matching log line.
func (d *daemon) await(t *testing.T, match func(testlog.Line) bool) testlog.Line {
	t.Helper()
	line, _, ok := d.Await(0, match, d.ended)
	if !ok {
		t.Fatalf("log line missing in: %v", d.Lines())
	}
	return line
}

// end stops the daemon, waits for it, and checks its exit code.
func (d *daemon) end(t *testing.T) {
	t.Helper()
	d.stop()
	<-d.ended
	if d.code != exitDone {
		t.Errorf("exit code %d: %v", d.code, d.Lines())
	}
}

// awaitEvent waits for an event. It fails the test if the daemon or the process ends before.
func awaitEvent(t *testing.T, event, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-ended:
		t.Fatal("process ended before the event")
	}
}

// stateChange matches the log line of a change to a connector state.
func stateChange(state string) func(testlog.Line) bool { return testlog.Field("to", state) }

// isRunSummary matches the last log line of a run with a result.
func isRunSummary(result string) func(testlog.Line) bool {
	return func(l testlog.Line) bool {
		return l.Text("message") == runFinished && l.Text("result") == result
	}
}

// Messages of runs.
const (
	runFinished    = syncrun.MsgRunFinished
	connectorState = syncrun.MsgConnectorState
)

// singleError returns the only log line with the level error.
func singleError(t *testing.T, o child.Outcome) testlog.Line {
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

// mentions reports whether the error or the remedy of a log line contains all parts.
func mentions(l testlog.Line, parts ...string) bool {
	return containsAll(l.Text("error")+" "+l.Text("remedy"), parts...)
}

func requireMentions(t *testing.T, l testlog.Line, parts ...string) {
	t.Helper()
	if !mentions(l, parts...) {
		t.Errorf("%q missing in error %q, remedy %q", parts, l.Text("error"), l.Text("remedy"))
	}
}

// containsAll reports whether a text contains all parts.
func containsAll(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
}

// containsSecret reports whether a text contains a password of a fixture.
func containsSecret(text string) bool {
	_, found := testlog.FindSecret(text)
	return found
}

// decode decodes the only JSON document on stdout.
func decode[T any](t *testing.T, o child.Outcome) T {
	t.Helper()
	var document T
	decoder := json.NewDecoder(strings.NewReader(o.Stdout))
	if err := decoder.Decode(&document); err != nil {
		t.Fatalf("%v: %+v", err, o)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Errorf("several documents: %s", o.Stdout)
	}
	return document
}

// emptyFile returns the path of an empty file.
func emptyFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
