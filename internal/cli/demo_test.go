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
	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// demoHooks let the demo run at each tick of an interval, and let it exceed its grace, which a
// busy machine may do.
func demoHooks(tick time.Duration) hooks {
	h := inProcess
	h.config = func(c *config.Config) { c.Service.Schedule = schedule.Every(tick) }
	h.exit = func(int) {}
	return h
}

const (
	soon   = 10 * time.Millisecond
	hourly = time.Hour // no test waits for this tick
)

// TestDemo: the tables show what the connector did.
func TestDemo(t *testing.T) {
	nothingLeft := watchLeaks(t)
	environ := []string{"CONNECTOR_API_URL=https://gateway.example", "QUALYS_USER_USERNAME=somebody"} // is not read
	o := invokeWith(t, t.Context(), demoHooks(soon), environ, "demo", "--users", "300", "--groups", "30", "--seed", "3")
	if o.Code != exitDone || len(o.Errors()) != 0 {
		t.Errorf("exit code %d, log %v", o.Code, o.Log)
	}
	for _, pattern := range []string{
		`(?m)^directory   ldaps://127\.0\.0\.1:\d+, 304 users and 51 groups$`,
		`(?m)^full run    304 users and 51 groups read, 355 sent and acknowledged, \d+ requests, [\d.]+m?s$`,
		`(?m)^delta run   \d+ objects read, 6 sent, 1 deleted, \d+ requests, [\d.]+m?s$`,
		`(?m)^IN THE DIRECTORY +AT THE GATEWAY +REQUESTS +TIME$`,
		`(?m)^added user Ada Example +status ACTIVE +1 +[\d.]+m?s$`,
		`(?m)^added group Newcomers, with Ada +visibility PUBLIC +1 +`,
		`(?m)^modified title of .* +jobTitle "Head of Demos" +1 +`,
		`(?m)^renamed (\S.*\S)   +name \S.*-Example +1 +`,
		`(?m)^disabled .* +status DISABLED +1 +`,
		`(?m)^moved .* to CN=Users +as before: nothing to send +0 +-$`,
		`(?m)^described .* +description "Described anew" +1 +`,
		`(?m)^deleted .* +status DELETED +1 +`,
		`(?m)^verified    304 users and 52 groups are at the gateway as in the directory$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(o.Stdout) {
			t.Errorf("nothing like %s in:\n%s", pattern, o.Stdout)
		}
	}
	nothingLeft()
}

// watchLeaks returns a function that fails the test where a goroutine or a temporary file
// is left that was not there before. Such a test cannot run in parallel.
func watchLeaks(t *testing.T) (nothingLeft func()) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Setenv("TMPDIR", t.TempDir())
	return func() {
		t.Helper()
		// Find tries for a while by itself, which a busy machine may exceed.
		err := goleak.Find(before)
		for deadline := time.Now().Add(testlog.IdleLimit); err != nil && time.Now().Before(deadline); {
			err = goleak.Find(before)
		}
		if err != nil {
			t.Error(err)
		}
		isEmpty(t, os.Getenv("TMPDIR"))
	}
}

func isEmpty(t *testing.T, dir string) {
	t.Helper()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

// smallDemo has as little in it as a demo can.
func smallDemo() demoOptions {
	return demoOptions{admin: "127.0.0.1:0", sandboxOptions: sandboxOptions{users: demoUsers, groups: 1, seed: 1, ldaps: "127.0.0.1:0", gateway: "127.0.0.1:0"}}
}

// TestDemoFindsWhatIsMissing: it believes what the gateway holds, not what it answers.
func TestDemoFindsWhatIsMissing(t *testing.T) {
	answer := func(w http.ResponseWriter, status int, body string) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	}
	dropped := func(w http.ResponseWriter) bool {
		return answer(w, http.StatusAccepted, `{"message":"","responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{}}`)
	}
	for name, test := range map[string]struct {
		intercept func(w http.ResponseWriter, body []byte) bool
		cause     error // nil: it is in the log
		code      int
	}{
		"full run is dropped": {func(w http.ResponseWriter, _ []byte) bool { return dropped(w) },
			errDiffers, exitFailed},
		"changes are dropped": {func(w http.ResponseWriter, body []byte) bool {
			return bytes.Contains(body, []byte(`"Ada Example"`)) && dropped(w)
		}, errChangesMissing, exitFailed},
		"no right": {func(w http.ResponseWriter, _ []byte) bool { return answer(w, http.StatusForbidden, "") }, nil, exitRefused},
		"rejected": {func(w http.ResponseWriter, _ []byte) bool { return answer(w, http.StatusUnprocessableEntity, "") },
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
			err := (&program{stdout: &stdout, stderr: log.Checked(t), hooks: demoHooks(soon)}).demo(t.Context(), o)
			var code exit
			switch {
			case test.cause == nil && (!errors.As(err, &code) || int(code) != test.code || len(log.With(runFinished)) == 0):
				t.Errorf("%v, want exit code %d, log %v", err, test.code, log.Lines())
			case test.cause != nil && (!errors.Is(err, test.cause) || codeOf(err) != test.code):
				t.Errorf("%v with code %d, want %v with %d", err, codeOf(err), test.cause, test.code)
			}
			if strings.Contains(stdout.String(), "verified") {
				t.Errorf("stdout %s", stdout.String())
			}
		})
	}
}

// tripwire calls trip at the first line with the words, and returns its error.
type tripwire struct {
	words string
	trip  func() error

	mu      sync.Mutex
	all     bytes.Buffer
	tripped bool
}

func (w *tripwire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(p)
	if !w.tripped && strings.Contains(w.all.String(), w.words) {
		w.tripped = true
		if err := w.trip(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (w *tripwire) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// demoPlaces are the moments of a demo at which something can happen to it.
var demoPlaces = map[string]struct {
	words string        // that it has just printed
	tick  time.Duration // whether it comes that far without a tick
}{
	"in the full run": {"connector   ", hourly}, "before the changes": {"full run    ", hourly}, "before the tick": {"changes     ", hourly},
	"in the table": {"IN THE DIRECTORY", soon}, "while it is kept": {"Ctrl-C", soon},
}

// TestDemoRunWaitsForTheChanges: the second run begins once all of them are made.
func TestDemoRunWaitsForTheChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &play{program: &program{}, changed: make(chan struct{})}
		w := s.witness(t.Context())
		w.starts()
		started := make(chan struct{})
		go func() {
			w.starts()
			close(started)
		}()
		synctest.Wait()
		select {
		case <-started:
			t.Error("it began before")
		default:
		}
		close(s.changed)
		<-started
	})
}

// TestDemoInterrupted: wherever it is, it ends without waiting for a tick, and cleans up.
func TestDemoInterrupted(t *testing.T) {
	interrupted := func(t *testing.T, ctx context.Context, stdout io.Writer, tick time.Duration) {
		nothingLeft := watchLeaks(t)
		o := smallDemo()
		o.keep = true
		var log testlog.Log
		if err := (&program{stdout: stdout, stderr: log.Checked(t), hooks: demoHooks(tick)}).demo(ctx, o); err != exit(exitInterrupted) {
			t.Errorf("%v, log %v", err, log.Lines())
		}
		nothingLeft()
	}
	t.Run("before it begins", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		interrupted(t, ctx, io.Discard, hourly)
	})
	for name, place := range demoPlaces {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			interrupted(t, ctx, &tripwire{words: place.words, trip: func() error { cancel(); return nil }}, place.tick)
		})
	}
}

// TestDemoWithoutAReader: it ends and cleans up where its output reaches nobody.
func TestDemoWithoutAReader(t *testing.T) {
	nothingLeft := watchLeaks(t)
	stdout := &tripwire{words: "full run", trip: func() error { return syscall.EPIPE }}
	err := (&program{stdout: stdout, stderr: new(testlog.Log).Checked(t), hooks: demoHooks(hourly)}).demo(t.Context(), smallDemo())
	if !errors.Is(err, syscall.EPIPE) || codeOf(err) != exitFailed {
		t.Errorf("ended with %v", err)
	}
	nothingLeft()
}

// TestDemoKept: gateway and connector have pages that can be looked at.
func TestDemoKept(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kept := make(chan struct{})
	stdout := &tripwire{words: "Ctrl-C", trip: func() error { close(kept); return nil }}
	ended := make(chan error, 1)
	o := smallDemo()
	o.keep = true
	go func() {
		ended <- (&program{stdout: stdout, stderr: new(testlog.Log).Checked(t), hooks: demoHooks(soon)}).demo(ctx, o)
	}()
	select {
	case <-kept:
	case err := <-ended:
		t.Fatalf("ended with %v", err)
	}
	pages := regexp.MustCompile(`http://[\d.:]+/(inventory/users)?`).FindAllString(stdout.text(), -1)
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
	if err := <-ended; err != exit(exitInterrupted) {
		t.Errorf("ended with %v", err)
	}
}

// TestDemoSignaled: a process of its own cleans up after one signal, and after a second one,
// which does not wait.
func TestDemoSignaled(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		words   string
		signals []os.Signal
	}{
		"one signal":  {"directory", []os.Signal{syscall.SIGINT}},
		"two signals": {"full run", []os.Signal{syscall.SIGINT, syscall.SIGTERM}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := child.Start(t, child.Command{
				Path: os.Args[0], Args: []string{"demo", "--users", "60", "--groups", "1"}, Env: []string{childKey + "=1", "TMPDIR=" + dir},
			})
			c.AwaitStdout(t, test.words)
			c.Signal(t, test.signals...)
			c.MustExit(t, exitInterrupted)
			isEmpty(t, dir)
		})
	}
}

// TestDemoPrintsNothingAfterAnInterrupt: neither between two lines.
func TestDemoPrintsNothingAfterAnInterrupt(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	p := &program{stdout: &out}
	if err := p.tell(ctx, "act", "one"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := p.tell(ctx, "act", "two"); !errors.Is(err, context.Canceled) || strings.Contains(out.String(), "two") {
		t.Errorf("%v, %s", err, out.String())
	}
}

// TestDemoWithoutATemporaryDirectory: the user can set another one.
func TestDemoWithoutATemporaryDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()+"/nowhere")
	o := invoke(t, nil, "demo")
	if errs := o.Errors(); o.Code != exitUsage || len(errs) != 1 || !names(theError(t, o), "TMPDIR") {
		t.Errorf("%+v", o)
	}
}
