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
	"adconnector/internal/sandbox"
	"adconnector/internal/schedule"
	"adconnector/internal/state"
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
	e := testenv.New(t, testenv.Options{Directory: sandbox.DirectoryOptions{ReadsDeleted: true}})
	e.AddUnit(base)
	for n := range 20 {
		e.AddUser(userDN(n))
	}
	for n := range 3 {
		e.AddGroup(fmt.Sprintf("CN=group%d,%s", n, base))
	}
	for _, secret := range []string{e.Password, e.Gateway.Options.Password, wrong} {
		secrets.Store(secret, nil)
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

// ended waits for the end of a process and checks its exit code and each line of its log.
func ended(t *testing.T, c *child.Process, code int) child.Outcome {
	t.Helper()
	o := c.MustExit(t, code)
	for text := range strings.Lines(o.Stderr) {
		checkLine(t, text)
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
	for text := range strings.Lines(o.Stderr) {
		o.Log = append(o.Log, checkLine(t, text))
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
	h.config, h.retryFirst, h.exit = configure, time.Millisecond, func(int) {} // a busy machine may exceed the grace
	p := &program{environ: s.env.Environ(), stdout: io.Discard, stderr: checked{t, d}, verbosity: newVerbosity(), hooks: h}
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

// Messages that the interface fixes.
const (
	runFinished    = "run finished"
	connectorState = "connector state"
)

// checked checks each line on its way to a log.
type checked struct {
	t *testing.T
	d *daemon
}

func (c checked) Write(text []byte) (int, error) {
	if line := checkLine(c.t, string(text)); line != nil {
		c.d.Append(line)
	}
	return len(text), nil
}

// logKeys are the keys that the interface allows in a line.
var logKeys = strings.Fields(`time level message component
	run_id mode result reason error class repeated failing_since
	dc dns_host_name domain_controller base_dn scope filter invocation_id usn since page
	kind sid guid dn_hash objects skipped unparsed
	batch attempt call status sent_bytes answer_bytes wait_ms until duration_ms
	users groups changed uploaded deleted held rejected requests retries dry_run
	from to next_run missed last cron state_dir address grace version before target remedy
	key nearest place`)

// secrets holds what no line may have: the passwords of the sites, and wrong.
var secrets sync.Map

// testsBegan is before the first line of any log.
var testsBegan = time.Now()

// checkLine decodes a line and holds it against what the interface says of every line.
func checkLine(t *testing.T, text string) testlog.Line {
	t.Helper()
	l, err := testlog.Parse([]byte(text))
	if err != nil {
		t.Error(err)
		return nil
	}
	for key := range l {
		if !slices.Contains(logKeys, key) {
			t.Errorf("key %s is not on the list: %s", key, text)
		}
		if strings.Count(text, `"`+key+`":`) > 1 {
			t.Errorf("log line has %s twice: %s", key, text)
		}
	}
	at, err := time.Parse(time.RFC3339, l.Text("time"))
	if err != nil || !strings.HasSuffix(l.Text("time"), "Z") || at.Before(testsBegan.Add(-time.Minute)) || at.After(time.Now().Add(time.Minute)) {
		t.Errorf("time in %s", text)
	}
	if message := l.Text("message"); message == "" || message[:1] != strings.ToLower(message[:1]) {
		t.Errorf("message in %s", text)
	}
	if !slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, l.Text("level")) {
		t.Errorf("level in %s", text)
	}
	if l.Text("component") == "" {
		t.Errorf("no component in %s", text)
	}
	if hasSecret(text) {
		t.Errorf("a secret in %s", text)
	}
	return l
}

// hasSecret reports whether a text contains one of the secrets.
func hasSecret(text string) (found bool) {
	secrets.Range(func(secret, _ any) bool {
		found = found || strings.Contains(text, secret.(string))
		return !found
	})
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
