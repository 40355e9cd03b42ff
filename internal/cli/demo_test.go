package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"adconnector/internal/config"
	"adconnector/internal/schedule"
	"adconnector/internal/syncrun"
	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// demoHooks replace the schedule of the demo by an interval.
func demoHooks(tick time.Duration) hooks {
	h := testHooks
	h.demoGrace = time.Hour // a loaded machine can need more than the default
	h.config = func(c *config.Config) {
		c.Service.Schedule = &schedule.Schedule{Expression: "every " + tick.String(), Ticks: every(tick)}
	}
	return h
}

const (
	frequent = 10 * time.Millisecond
	hourly   = time.Hour // no test waits for this tick
)

// TestDemo tests the output of the demo.
func TestDemo(t *testing.T) {
	requireNoLeaks := watchLeaks(t)
	environ := []string{"CONNECTOR_API_URL=https://gateway.example", "QUALYS_USER_USERNAME=somebody"} // must not be read
	o := invokeWith(t.Context(), t, demoHooks(frequent), environ, "demo", "--users", "300", "--groups", "30", "--seed", "3")
	if o.Code != exitDone || len(o.Errors()) != 0 {
		t.Errorf("exit code %d, log %v", o.Code, o.Log)
	}
	for _, pattern := range []string{
		`(?m)^directory   ldaps://127\.0\.0\.1:\d+, 304 users and 52 groups$`,
		`(?m)^full sync   304 users and 52 groups read, 356 sent and acknowledged, \d+ requests, [\d.]+m?s$`,
		`(?m)^delta sync  \d+ objects read, 6 changed; 6 sent, 1 deleted, \d+ requests, [\d.]+m?s$`,
		`(?m)^IN THE DIRECTORY +AT THE GATEWAY +REQUESTS +TIME$`,
		`(?m)^added user Ada Example +status ACTIVE +1 +[\d.]+m?s$`,
		`(?m)^added group Newcomers, with Ada +visibility PUBLIC +1 +`,
		`(?m)^modified title of .* +jobTitle "Head of Demos" +1 +`,
		`(?m)^renamed (\S.*\S)   +name \S.*-Example +1 +`,
		`(?m)^disabled .* +status DISABLED +1 +`,
		`(?m)^moved .* to CN=Users +unchanged: nothing to send +0 +-$`,
		`(?m)^described .* +description "New description" +1 +`,
		`(?m)^deleted .* +status DELETED +1 +`,
		`(?m)^verified    304 users and 53 groups are the same at the gateway and in the directory$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(o.Stdout) {
			t.Errorf("no match for %s in:\n%s", pattern, o.Stdout)
		}
	}
	requireNoLeaks()
}

// TestDemoControllers tests that the demo of two controllers shows a logon at the second one, and
// fails if the connector asks only one.
func TestDemoControllers(t *testing.T) {
	requireAddresses(t)
	requireNoLeaks := watchLeaks(t)
	args := []string{"demo", "--controllers", "2", "--users", "300", "--groups", "30", "--seed", "3"}
	o := invokeWith(t.Context(), t, demoHooks(frequent), nil, args...)
	if o.Code != exitDone || len(o.Errors()) != 0 {
		t.Errorf("exit code %d, log %v", o.Code, o.Log)
	}
	for _, pattern := range []string{
		`(?m)^directory   ldaps://127\.0\.0\.1:\d+ and 127\.0\.0\.2, 304 users and 52 groups$`,
		`(?m)^logons      \d{2,} users logged on last at another controller than 127\.0\.0\.1, for example \S.* at 127\.0\.0\.2: \d{4}-\S+Z$`,
		`(?m)^delta sync  \d+ objects read, 7 changed; 7 sent, 1 deleted, \d+ requests, [\d.]+m?s$`,
		`(?m)^moved .* to CN=Users +unchanged: nothing to send +0 +-$`,
		`(?m)^logged on .* at 127\.0\.0\.2 +lastSuccessfulLoginAt "\d{4}-\S+Z" +1 +[\d.]+m?s$`,
		`(?m)^wrong password of .* at 127\.0\.0\.2 +unchanged: only full syncs send it +0 +-$`,
		`(?m)^verified    304 users and 53 groups are the same at the gateway and in the directory$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(o.Stdout) {
			t.Errorf("no match for %s in:\n%s", pattern, o.Stdout)
		}
	}
	h := demoHooks(frequent)
	configure := h.config
	h.config = func(c *config.Config) {
		configure(c)
		c.Run.LastLogon = syncrun.LastLogonReplicated
	}
	o = invokeWith(t.Context(), t, h, nil, args...)
	if o.Code != exitFailed || !mentions(singleError(t, o), errDiffers.Error()) {
		t.Errorf("exit code %d, log %v", o.Code, o.Log)
	}
	requireNoLeaks()
}

// watchLeaks returns a function that fails the test if there are new goroutines or temporary
// files. Tests that use it cannot run in parallel.
func watchLeaks(t *testing.T) (requireNoLeaks func()) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Setenv("TMPDIR", t.TempDir())
	return func() {
		t.Helper()
		// The time limit of Find is too short for a busy machine.
		err := goleak.Find(before)
		for deadline := time.Now().Add(testlog.IdleLimit); err != nil && time.Now().Before(deadline); {
			err = goleak.Find(before)
		}
		if err != nil {
			t.Error(err)
		}
		requireEmptyDir(t, os.Getenv("TMPDIR"))
	}
}

func requireEmptyDir(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files %v, error %v, want none", left, err)
	}
}

// smallDemo returns the options of the smallest demo.
func smallDemo() demoOptions {
	return demoOptions{admin: "127.0.0.1:0", sandboxOptions: sandboxOptions{users: demoUsers, groups: 1, controllers: 1, seed: 1, ldaps: "127.0.0.1:0", gateway: "127.0.0.1:0"}}
}

// TestDemoVerifiesInventory tests that the demo fails if the gateway acknowledges assets and
// drops them, or does not accept them.
func TestDemoVerifiesInventory(t *testing.T) {
	respond := func(w http.ResponseWriter, status int, body string) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
	drop := func(w http.ResponseWriter) bool {
		return respond(w, http.StatusAccepted, `{"message":"","responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{}}`)
	}
	for name, test := range map[string]struct {
		intercept func(w http.ResponseWriter, body []byte) bool
		cause     error // nil: the error is logged
		code      int
	}{
		"full sync dropped": {func(w http.ResponseWriter, _ []byte) bool { return drop(w) },
			errDiffers, exitFailed},
		"changes dropped": {func(w http.ResponseWriter, body []byte) bool {
			return bytes.Contains(body, []byte(`"Ada Example"`)) && drop(w)
		}, errChangesMissing, exitFailed},
		"forbidden": {func(w http.ResponseWriter, _ []byte) bool { return respond(w, http.StatusForbidden, "") }, nil, exitRefused},
		"rejected": {func(w http.ResponseWriter, _ []byte) bool { return respond(w, http.StatusUnprocessableEntity, "") },
			errUnexpectedRun, exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := smallDemo()
			o.intercept = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				return r.URL.Path == testenv.AssetsPath && test.intercept(w, body)
			}
			var stdout bytes.Buffer
			var log testlog.Log
			err := (&program{stdout: &stdout, stderr: log.Checked(t), hooks: demoHooks(frequent)}).demo(t.Context(), o)
			var code exit
			switch {
			case test.cause == nil && (!errors.As(err, &code) || int(code) != test.code || len(log.With(runFinished)) == 0):
				t.Errorf("%v, want exit code %d, log %v", err, test.code, log.Lines())
			case test.cause != nil && (!errors.Is(err, test.cause) || exitCodeOf(err) != test.code):
				t.Errorf("%v with code %d, want %v with %d", err, exitCodeOf(err), test.cause, test.code)
			}
			if strings.Contains(stdout.String(), "verified") {
				t.Errorf("stdout %s", stdout.String())
			}
		})
	}
}

// triggerWriter calls trigger once the output contains a text, and returns its error.
type triggerWriter struct {
	text    string
	trigger func() error

	mu        sync.Mutex
	written   bytes.Buffer
	triggered bool
}

func (w *triggerWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written.Write(p)
	if !w.triggered && strings.Contains(w.written.String(), w.text) {
		w.triggered = true
		if err := w.trigger(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (w *triggerWriter) output() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.written.String()
}

// demoMoments are the moments of a demo at which a test interrupts it.
var demoMoments = map[string]struct {
	text string        // last output before the moment
	tick time.Duration // frequent if the moment is after the second tick
}{
	"during full sync": {"connector   ", hourly}, "before changes": {"full sync   ", hourly}, "before tick": {"changes     ", hourly},
	"in table": {"IN THE DIRECTORY", frequent}, "while kept": {"Ctrl-C", frequent},
}

// TestDemoRunWaitsForChanges tests that the second run starts after all changes.
func TestDemoRunWaitsForChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scenario{program: &program{}, changed: make(chan struct{})}
		o := s.observer(t.Context())
		o.runStarts()
		started := make(chan struct{})
		go func() {
			o.runStarts()
			close(started)
		}()
		synctest.Wait()
		select {
		case <-started:
			t.Error("run started before the changes")
		default:
		}
		close(s.changed)
		<-started
	})
}

// TestDemoInterrupted tests that an interrupted demo ends before the next tick and cleans up, and that it
// failed unless it was complete.
func TestDemoInterrupted(t *testing.T) {
	interrupted := func(t *testing.T, ctx context.Context, stdout io.Writer, tick time.Duration, want error) {
		requireNoLeaks := watchLeaks(t)
		o := smallDemo()
		o.keep = true
		var log testlog.Log
		if err := (&program{stdout: stdout, stderr: log.Checked(t), hooks: demoHooks(tick)}).demo(ctx, o); !errors.Is(err, want) {
			t.Errorf("%v, log %v", err, log.Lines())
		}
		requireNoLeaks()
	}
	t.Run("before start", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		interrupted(t, ctx, io.Discard, hourly, exit(exitInterrupted))
	})
	for name, moment := range demoMoments {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			want := error(exit(exitInterrupted))
			if moment == demoMoments["while kept"] { // the demo is complete
				want = nil
			}
			interrupted(t, ctx, &triggerWriter{text: moment.text, trigger: func() error { cancel(); return nil }}, moment.tick, want)
		})
	}
}

// TestDemoBrokenPipe tests that the demo cleans up if stdout is a closed pipe.
func TestDemoBrokenPipe(t *testing.T) {
	requireNoLeaks := watchLeaks(t)
	stdout := &triggerWriter{text: "full sync", trigger: func() error { return syscall.EPIPE }}
	err := (&program{stdout: stdout, stderr: new(testlog.Log).Checked(t), hooks: demoHooks(hourly)}).demo(t.Context(), smallDemo())
	if !errors.Is(err, syscall.EPIPE) || exitCodeOf(err) != exitFailed {
		t.Errorf("ended with %v", err)
	}
	requireNoLeaks()
}

// TestDemoKeep tests the pages of the gateway and the connector while the demo is kept running.
func TestDemoKeep(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kept := make(chan struct{})
	stdout := &triggerWriter{text: "Ctrl-C", trigger: func() error { close(kept); return nil }}
	ended := make(chan error, 1)
	o := smallDemo()
	o.keep = true
	go func() {
		ended <- (&program{stdout: stdout, stderr: new(testlog.Log).Checked(t), hooks: demoHooks(frequent)}).demo(ctx, o)
	}()
	select {
	case <-kept:
	case err := <-ended:
		t.Fatalf("ended with %v", err)
	}
	pages := regexp.MustCompile(`http://[\d.:]+/(inventory/users)?`).FindAllString(stdout.output(), -1)
	if len(pages) < 2 || !strings.HasSuffix(pages[len(pages)-2], "/inventory/users") {
		t.Fatalf("pages %q", pages)
	}
	for _, page := range pages[len(pages)-2:] {
		response, err := http.Get(page)
		if err != nil {
			t.Error(err)
			continue
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", page, response.Status)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

// TestDemoSignals tests that a process cleans up after one signal, and after a second signal,
// which ends it immediately.
func TestDemoSignals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text    string // output before the signals
		signals []os.Signal
	}{
		"one signal":  {"directory", []os.Signal{syscall.SIGINT}},
		"two signals": {"full sync", []os.Signal{syscall.SIGINT, syscall.SIGTERM}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := child.Start(t, child.Command{
				Path: os.Args[0], Args: []string{"demo", "--users", "60", "--groups", "1"}, Env: []string{childKey + "=1", "TMPDIR=" + dir},
			})
			c.AwaitStdout(t, test.text)
			c.Signal(t, test.signals...)
			c.MustExit(t, exitInterrupted)
			requireEmptyDir(t, dir)
		})
	}
}

// TestPrintLineAfterInterrupt tests that an interrupt between two lines suppresses the second.
func TestPrintLineAfterInterrupt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	p := &program{stdout: &out}
	if err := p.printLine(ctx, "subject", "one"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := p.printLine(ctx, "subject", "two"); !errors.Is(err, context.Canceled) || strings.Contains(out.String(), "two") {
		t.Errorf("%v, %s", err, out.String())
	}
}

// TestDemoWithoutTemporaryDirectory tests that the remedy is to set another directory.
func TestDemoWithoutTemporaryDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()+"/nowhere")
	o := invoke(t, nil, "demo")
	if errs := o.Errors(); o.Code != exitUsage || len(errs) != 1 || !mentions(singleError(t, o), "TMPDIR") {
		t.Errorf("%+v", o)
	}
}
