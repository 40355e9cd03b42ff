package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestDemo: it is the connector's own work that is shown, and nothing is left of it.
func TestDemo(t *testing.T) {
	none := goleak.IgnoreCurrent()
	t.Setenv("TMPDIR", t.TempDir())
	environ := []string{"CONNECTOR_API_URL=https://gateway.example", "QUALYS_USER_USERNAME=somebody"} // is not read
	o := invoke(t, environ, "demo", "--users", "300", "--groups", "30", "--seed", "3")
	if o.code != exitDone || len(o.errors()) != 0 {
		t.Errorf("exit code %d, log %v", o.code, o.log)
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
		if !regexp.MustCompile(pattern).MatchString(o.stdout) {
			t.Errorf("nothing like %s in:\n%s", pattern, o.stdout)
		}
	}
	nothingLeft(t, none)
}

func nothingLeft(t *testing.T, before goleak.Option) {
	t.Helper()
	goleak.VerifyNone(t, before)
	left, err := os.ReadDir(os.Getenv("TMPDIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, error %v", left, err)
	}
}

// smallDemo has as little in it as a demo can.
func smallDemo() demoOptions {
	return demoOptions{period: 2, admin: "127.0.0.1:0", sandboxOptions: sandboxOptions{users: demoUsers, groups: 1, seed: 1, ldaps: "127.0.0.1:0", gateway: "127.0.0.1:0"}}
}

// TestDemoIsNotFooled: it believes what the gateway holds, not what it says.
func TestDemoIsNotFooled(t *testing.T) {
	published := func(w http.ResponseWriter) bool {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"message":"","responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{}}`)
		return true
	}
	for name, test := range map[string]struct {
		intercept func(w http.ResponseWriter, body []byte) bool
		words     string // of the error; "": it is in the log
		code      int
	}{
		"full run is dropped": {func(w http.ResponseWriter, _ []byte) bool { return published(w) },
			"the gateway does not hold what the directory says: 76 differences, the first: CN=", exitFailed},
		"changes are dropped": {func(w http.ResponseWriter, body []byte) bool {
			return bytes.Contains(body, []byte(`"Ada Example"`)) && published(w)
		}, "7 changes did not reach the gateway: added user Ada Example, ", exitFailed},
		"no right": {func(w http.ResponseWriter, _ []byte) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}, "", exitRefused},
		"rejected": {func(w http.ResponseWriter, _ []byte) bool {
			w.WriteHeader(http.StatusUnprocessableEntity)
			return true
		}, "the full run was to be processed, and was a full one that ended partial", exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			none := goleak.IgnoreCurrent()
			t.Setenv("TMPDIR", t.TempDir())
			o := smallDemo()
			o.intercept = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				return r.URL.Path == assetsPath && test.intercept(w, body)
			}
			var stdout, stderr bytes.Buffer
			err := (&program{stdout: &stdout, stderr: &stderr}).demo(t.Context(), o)
			var code exit
			switch {
			case test.words == "" && (!errors.As(err, &code) || int(code) != test.code):
				t.Errorf("%v, want exit code %d", err, test.code)
			case test.words != "" && (err == nil || !strings.Contains(err.Error(), test.words) || codeOf(err) != test.code):
				t.Errorf("%v with code %d, want %q with %d", err, codeOf(err), test.words, test.code)
			}
			if strings.Contains(stdout.String(), "verified") {
				t.Errorf("stdout %s", stdout.String())
			}
			nothingLeft(t, none)
		})
	}
}

// tripwire calls trip at the first line with the words.
type tripwire struct {
	words string
	trip  func()

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
		w.trip()
	}
	return len(p), nil
}

func (w *tripwire) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}

// TestDemoInterrupted: wherever it is, it ends within a second, and cleans up.
func TestDemoInterrupted(t *testing.T) {
	for name, words := range map[string]string{
		"before it begins": "", "in the full run": "connector   ", "before the changes": "full run    ", "before the tick": "changes     ",
		"in the table": "IN THE DIRECTORY", "while it is kept": "Ctrl-C",
	} {
		t.Run(name, func(t *testing.T) {
			none := goleak.IgnoreCurrent()
			t.Setenv("TMPDIR", t.TempDir())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var interrupted time.Time
			stdout := &tripwire{words: words, trip: func() {
				interrupted = time.Now()
				cancel()
			}}
			if words == "" {
				stdout.Write(nil)
			}
			o := smallDemo()
			o.keep = true
			var stderr bytes.Buffer
			err := (&program{stdout: stdout, stderr: &stderr}).demo(ctx, o)
			if err != exit(exitInterrupted) {
				t.Errorf("%v, stderr %s", err, stderr.String())
			}
			if took := time.Since(interrupted); took > time.Second {
				t.Errorf("it took %s to end", took)
			}
			nothingLeft(t, none)
		})
	}
}

// TestDemoKept: gateway and connector can be looked at.
func TestDemoKept(t *testing.T) {
	none := goleak.IgnoreCurrent()
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	kept := make(chan struct{})
	stdout := &tripwire{words: "Ctrl-C", trip: func() { close(kept) }}
	ended := make(chan error, 1)
	o := smallDemo()
	o.keep = true
	go func() { ended <- (&program{stdout: stdout, stderr: io.Discard}).demo(ctx, o) }()
	select {
	case <-kept:
	case err := <-ended:
		t.Fatalf("ended with %v", err)
	}
	pages := regexp.MustCompile(`http://[\d.:]+/(inventory/users)?`).FindAllString(stdout.text(), -1)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for _, page := range pages[max(0, len(pages)-2):] {
		response, err := client.Get(page)
		if err != nil {
			t.Error(err)
			continue
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", page, response.Status)
		}
	}
	if len(pages) < 2 || !strings.HasSuffix(pages[len(pages)-2], "/inventory/users") {
		t.Errorf("pages %q", pages)
	}
	cancel()
	if err := <-ended; err != exit(exitInterrupted) {
		t.Errorf("ended with %v", err)
	}
	nothingLeft(t, none)
}

// TestDemoSignalled is the same with a signal, of which the first must do.
func TestDemoSignalled(t *testing.T) {
	t.Parallel()
	c := start(t, []string{"TMPDIR=" + t.TempDir()}, "demo", "--users", "60", "--groups", "1")
	if _, err := c.stdout.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.signal(syscall.SIGINT)
	c.expect(exitInterrupted, time.Second)
}

// TestDemoLeavesNothing: neither where its reader goes away, nor at a second signal,
// which does not wait for it.
func TestDemoLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		trouble func(c *child)
		code    int
	}{
		"no reader":   {func(c *child) { c.hangUp() }, exitFailed},
		"two signals": {func(c *child) { c.signal(syscall.SIGINT); c.signal(syscall.SIGTERM) }, exitInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := start(t, []string{"TMPDIR=" + dir}, "demo", "--users", "60", "--groups", "1")
			for line := ""; !strings.HasPrefix(line, "full run"); {
				var err error
				if line, err = c.stdout.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			test.trouble(c)
			c.expect(test.code, 20*time.Second)
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, error %v", left, err)
			}
		})
	}
}

// TestDemoInterruptedBetweenActs: what has been told to end tells nothing more.
func TestDemoInterruptedBetweenActs(t *testing.T) {
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

// TestDemoNowhere: a place for its files is the user's affair.
func TestDemoNowhere(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()+"/nowhere")
	o := invoke(t, nil, "demo")
	if errs := o.errors(); o.code != exitUsage || len(errs) != 1 || !strings.Contains(errs[0], "set TMPDIR to one that can be written") {
		t.Errorf("%+v", o)
	}
}

// TestBadInput: one clear line each.
func TestBadInput(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const occupied = ": the port is taken, perhaps by another sandbox: stop that one or choose another port"
	address := taken.Addr().String()
	free := []string{"sandbox", "--ldap", "127.0.0.1:0", "--ldaps", "127.0.0.1:0", "--gateway", "127.0.0.1:0"}
	for name, test := range map[string]struct {
		args  []string
		words string
	}{
		"sandbox, gateway's port":      {append(free, "--gateway", address), "--gateway " + address + occupied},
		"sandbox, LDAP's port":         {append(free, "--ldap", address), "--ldap " + address + occupied},
		"sandbox, LDAPS's port":        {append(free, "--ldaps", address), "--ldaps " + address + occupied},
		"sandbox, no address of ours":  {append(free, "--gateway", "127.0.0.1:0", "--ldap", "[::2]:0"), "loopback only"},
		"sandbox, env file below none": {append(free, "--env-out", file+"/below"), "--env-out: open " + file + "/below: not a directory: choose a file that can be written"},
		"sandbox, env file in nowhere": {append(free, "--env-out", file+"-nowhere/below"), "no such file or directory: choose a file that can be written"},
		"demo, gateway's port":         {[]string{"demo", "--gateway", address}, "--gateway " + address + occupied},
		"demo, LDAPS's port":           {[]string{"demo", "--ldaps", address}, "--ldaps " + address + occupied},
		"demo, the pages' port":        {[]string{"demo", "--admin", address}, "--admin " + address + occupied},
		"demo, too few users":          {[]string{"demo", "--users", "49"}, "--users 50"},
		"demo, no groups":              {[]string{"demo", "--groups", "0"}, "--groups 1"},
		"demo, no directory":           {[]string{"demo", "--ldaps", ""}, "give --ldap or --ldaps"},
		"demo, an env file":            {[]string{"demo", "--env-file", file}, "leave --env-file out"},
		"demo, an argument":            {[]string{"demo", "now"}, "now"},
	} {
		t.Run(name, func(t *testing.T) {
			o := invoke(t, nil, test.args...)
			if errs := o.errors(); o.code != exitUsage || len(o.log) != 1 || len(errs) != 1 || !strings.Contains(errs[0], test.words) || o.stdout != "" {
				t.Errorf("exit code %d, stdout %q, log %v; want one line with %q", o.code, o.stdout, o.log, test.words)
			}
		})
	}
}
