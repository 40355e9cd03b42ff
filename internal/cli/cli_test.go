package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
	"adconnector/internal/state"
	"adconnector/internal/syncrun/ldaptest"
)

// TestMain lets this binary stand in for the program, race detector included,
// where a test needs a process of its own to send signals to.
func TestMain(m *testing.M) {
	if os.Getenv("CLI_TEST_CHILD") != "" {
		os.Exit(Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

const (
	customer   = "00000000-0000-0000-0000-000000000001"
	connection = "00000000-0000-0000-0000-000000000002"
	profile    = "00000000-0000-0000-0000-000000000003"

	assetsPath = "/rest/2.0/am/connector/asset/data/sync"
)

// site is a directory, a gateway and the settings that reach them.
type site struct {
	ldap    *ldaptest.Server
	gateway *sandbox.Gateway
	env     map[string]string

	mu        sync.Mutex
	intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool
}

func newSite(t *testing.T) *site {
	s := &site{ldap: ldaptest.Start(t)}
	s.ldap.Change(func(l *ldaptest.Server) { l.Users, l.Groups = ldaptest.Users(20), ldaptest.Groups(3) })
	s.gateway = sandbox.NewGateway(sandbox.GatewayOptions{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile, Username: "u", Password: "s3cret!",
		Intercept: func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			s.mu.Lock()
			intercept := s.intercept
			s.mu.Unlock()
			return intercept != nil && intercept(w, r, body)
		},
	})
	server := httptest.NewServer(s.gateway)
	t.Cleanup(server.Close)
	s.env = map[string]string{
		"connector.api.url": server.URL, "qualys.customerUuid": customer, "qualys.connectionUuid": connection, "qualys.profileUuid": profile,
		"qualys.user.username": "u", "qualys.user.password": "s3cret!",
		"ldap.host": "127.0.0.1", "ldap.port": fmt.Sprint(s.ldap.Port), "ldap.bindDn": ldaptest.BindDN, "ldap.password": ldaptest.Password,
		"profile.baseContext": ldaptest.Base, "service.state-dir": filepath.Join(t.TempDir(), "state"),
	}
	return s
}

func (s *site) environ() []string {
	var pairs []string
	for key, value := range s.env {
		pairs = append(pairs, key+"="+value)
	}
	return pairs
}

func (s *site) intercepting(f func(w http.ResponseWriter, r *http.Request, body []byte) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// onAssets answers the calls that carry assets.
func onAssets(do func(w http.ResponseWriter, body []byte) bool) func(http.ResponseWriter, *http.Request, []byte) bool {
	return func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		return r.URL.Path == assetsPath && do(w, body)
	}
}

// outcome is what an invocation left.
type outcome struct {
	code   int
	stdout string
	log    []line
}

func invoke(t *testing.T, environ []string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Main(args, environ, &stdout, &stderr)
	o := outcome{code: code, stdout: stdout.String()}
	for text := range strings.Lines(stderr.String()) {
		o.log = append(o.log, parse(t, text))
	}
	return o
}

// line is a line of the log.
type line map[string]any

// parse reads a line and holds it against what every line promises.
func parse(t *testing.T, text string) line {
	t.Helper()
	var l line
	decoder := json.NewDecoder(strings.NewReader(text))
	if err := decoder.Decode(&l); err != nil {
		t.Errorf("log line %q: %v", text, err)
		return nil
	}
	for key := range l {
		if strings.Count(text, `"`+key+`":`) > 1 {
			t.Errorf("log line has %s twice: %s", key, text)
		}
	}
	stamp, _ := l["time"].(string)
	if at, err := time.Parse(time.RFC3339, stamp); err != nil || !strings.HasSuffix(stamp, "Z") || time.Since(at).Abs() > time.Minute {
		t.Errorf("time %q in %s", stamp, text)
	}
	message, _ := l["message"].(string)
	if message == "" || message != strings.ToLower(message) {
		t.Errorf("message %q in %s", message, text)
	}
	if level, _ := l["level"].(string); !slices.Contains([]string{"debug", "info", "warn", "error"}, level) {
		t.Errorf("level %q in %s", level, text)
	}
	// What ends the program is nobody's in particular.
	if component, _ := l["component"].(string); component == "" && message != "bad configuration" && message != "stopped" {
		t.Errorf("no component in %s", text)
	}
	for _, secret := range []string{"s3cret!", ldaptest.Password} {
		if strings.Contains(text, secret) {
			t.Errorf("a secret in %s", text)
		}
	}
	return l
}

func (o outcome) with(message string) (found []line) {
	for _, l := range o.log {
		if l["message"] == message {
			found = append(found, l)
		}
	}
	return found
}

func (o outcome) errors() (found []string) {
	for _, l := range o.log {
		if l["level"] == "error" {
			found = append(found, fmt.Sprint(l["error"]))
		}
	}
	return found
}

func TestExitCodes(t *testing.T) {
	cases := map[string]struct {
		change func(t *testing.T, s *site)
		args   []string
		code   int
		words  string // in the one error line; "": there is none
	}{
		"done": {code: exitDone},
		"no directory": {func(t *testing.T, s *site) { s.env["ldap.port"] = fmt.Sprint(unusedPort(t)) }, nil,
			exitFailed, "check host and port"},
		"bad value": {func(_ *testing.T, s *site) { s.env["thread-pool.size"] = "65" }, nil,
			exitUsage, "thread-pool.size"},
		"unknown command":     {nil, []string{"snyc"}, exitUsage, "snyc"},
		"argument too many":   {nil, []string{"sync", "now"}, exitUsage, "now"},
		"unknown flag":        {nil, []string{"sync", "--fulll"}, exitUsage, "--fulll"},
		"unknown output":      {nil, []string{"sync", "--output", "xml"}, exitUsage, "text or json"},
		"unknown log level":   {nil, []string{"sync", "--log-level", "disabled"}, exitUsage, "log.level"},
		"unknown log format":  {nil, []string{"sync", "--log-format", "xml"}, exitUsage, "log.format"},
		"no env file":         {nil, []string{"sync", "--env-file", "/nowhere/at/all"}, exitUsage, "/nowhere/at/all"},
		"sandbox on any host": {nil, []string{"sandbox", "--gateway", "0.0.0.0:0"}, exitUsage, "loopback only"},
		"sandbox nowhere":     {nil, []string{"sandbox", "--gateway", "18080"}, exitUsage, "use host:port"},
		"state directory is none": {func(t *testing.T, s *site) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.env["service.state-dir"] = file
		}, nil, exitUsage, "set service.state-dir to a directory"},
		"wrong gateway password": {func(_ *testing.T, s *site) { s.env["qualys.user.password"] = "wrong" }, nil,
			exitRefused, "qualys.user.password"},
		"wrong directory password": {func(_ *testing.T, s *site) { s.env["ldap.password"] = "wrong" }, nil,
			exitRefused, "ldap.password"},
		"no right": {func(_ *testing.T, s *site) {
			s.intercepting(onAssets(func(w http.ResponseWriter, _ []byte) bool {
				w.WriteHeader(http.StatusForbidden)
				return true
			}))
		}, nil, exitRefused, "403"},
		"no connection in the console": {func(_ *testing.T, s *site) {
			for _, key := range []string{"ldap.host", "ldap.port", "ldap.bindDn", "ldap.password", "profile.baseContext"} {
				delete(s.env, key)
			}
		}, nil, exitRefused, "qualys.connectionUuid"},
		"locked": {func(t *testing.T, s *site) { hold(t, s) }, nil,
			exitLocked, "another instance holds the state directory"},
		"rejected": {func(_ *testing.T, s *site) {
			s.intercepting(onAssets(func(w http.ResponseWriter, body []byte) bool {
				if bytes.Contains(body, []byte(`"user7"`)) {
					w.WriteHeader(http.StatusUnprocessableEntity)
					return true
				}
				return false
			}))
		}, nil, exitRejected, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			if c.change != nil {
				c.change(t, s)
			}
			if c.args == nil {
				c.args = []string{"sync"}
			}
			o := invoke(t, s.environ(), c.args...)
			if o.code != c.code {
				t.Errorf("exit code %d, want %d", o.code, c.code)
			}
			errs := o.errors()
			if c.words == "" && len(errs) > 0 || c.words != "" && (len(errs) != 1 || !strings.Contains(errs[0], c.words)) {
				t.Errorf("errors %q, want one with %q", errs, c.words)
			}
			logins := 0
			for _, r := range s.gateway.Requests() {
				if r.Path == "/auth" {
					logins++
				}
			}
			if logins > 1 || s.ldap.Binds() > 1 {
				t.Errorf("%d logins, %d binds", logins, s.ldap.Binds())
			}
		})
	}
}

func unusedPort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func hold(t *testing.T, s *site) {
	store, err := state.Open(s.env["service.state-dir"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
}

func TestAllFaultsAtOnce(t *testing.T) {
	s := newSite(t)
	delete(s.env, "qualys.customerUuid")
	s.env["upload.batch-size"], s.env["ldap.protocol"], s.env["service.cron-expression"] = "0", "LDAPX", "0 0 30 2 *"
	o := invoke(t, s.environ()) // the daemon is the default
	if o.code != exitUsage || o.stdout != "" || len(o.log) != 4 {
		t.Fatalf("exit code %d, stdout %q, log %v", o.code, o.stdout, o.log)
	}
	for _, key := range []string{"qualys.customerUuid", "upload.batch-size", "ldap.protocol", "service.cron-expression"} {
		if !slices.ContainsFunc(o.with("bad configuration"), func(l line) bool { return strings.HasPrefix(l["error"].(string), key) }) {
			t.Errorf("no line on %s in %v", key, o.log)
		}
	}
}

func TestVersion(t *testing.T) {
	o := invoke(t, nil, "version")
	if o.code != exitDone || !strings.HasPrefix(o.stdout, "adconnector dev, commit unknown, go1.") || len(o.log) != 0 {
		t.Errorf("%+v", o)
	}
}

func TestSyncPrintsText(t *testing.T) {
	s := newSite(t)
	o := invoke(t, s.environ(), "sync")
	if !strings.HasPrefix(o.stdout, "processed: 20 users and 3 groups read, 23 changed, 23 uploaded, 0 rejected, in ") || strings.Count(o.stdout, "\n") != 1 {
		t.Errorf("stdout %q", o.stdout)
	}
	if n := len(o.with("run finished")); n != 1 {
		t.Errorf("%d summaries", n)
	}
	if o := invoke(t, s.environ(), "sync", "--full"); o.code != exitDone || !strings.Contains(o.stdout, " 0 changed, 0 uploaded") {
		t.Errorf("%+v", o)
	}
}

func TestSyncPrintsJSON(t *testing.T) {
	for name, change := range map[string]func(*site){
		"processed": func(*site) {}, "failed": func(s *site) { s.env["ldap.password"] = "wrong" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			change(s)
			o := invoke(t, s.environ(), "sync", "--output", "json")
			var got struct {
				Result, Error string
				RunID         string `json:"run_id"`
				Uploaded      int
				DurationMS    int64 `json:"duration_ms"`
				DryRun        bool  `json:"dry_run"`
			}
			decoder := json.NewDecoder(strings.NewReader(o.stdout))
			if err := decoder.Decode(&got); err != nil {
				t.Fatal(err)
			}
			if _, err := decoder.Token(); err != io.EOF {
				t.Errorf("more than one document: %s", o.stdout)
			}
			summary := o.with("run finished")
			if len(summary) != 1 || got.Result != name || got.RunID != summary[0]["run_id"] || (got.Error == "") != (o.code == exitDone) {
				t.Errorf("%+v of %v", got, summary)
			}
		})
	}
}

func TestDryRun(t *testing.T) {
	s := newSite(t)
	o := invoke(t, s.environ(), "sync", "--dry-run")
	if o.code != exitDone || !strings.Contains(o.stdout, "23 changed, nothing sent (dry run)") || len(s.gateway.Requests()) != 0 {
		t.Errorf("%+v", o)
	}
}

func TestConsoleFormat(t *testing.T) {
	s := newSite(t)
	var stdout, stderr bytes.Buffer
	if code := Main([]string{"sync", "--log-format", "console"}, s.environ(), &stdout, &stderr); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if text := stderr.String(); !strings.Contains(text, "INF run finished") || strings.Contains(text, "\x1b") {
		t.Errorf("log %q", text)
	}
}

// child is the program in a process of its own.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Reader
	read   chan struct{} // closed at the end of the log

	mu    sync.Mutex
	lines []line
	news  chan struct{} // closed when a line comes, then made anew
}

func start(t *testing.T, environ []string, args ...string) *child {
	t.Helper()
	c := &child{t: t, cmd: exec.CommandContext(t.Context(), os.Args[0], args...), read: make(chan struct{}), news: make(chan struct{})}
	c.cmd.Env = append(append(os.Environ(), "CLI_TEST_CHILD=1"), environ...)
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdout = bufio.NewReader(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.read)
		for scanner := bufio.NewScanner(stderr); scanner.Scan(); {
			l := parse(t, scanner.Text())
			c.mu.Lock()
			c.lines = append(c.lines, l)
			close(c.news)
			c.news = make(chan struct{})
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // when the test has failed before
		<-c.read
		_ = c.cmd.Wait()
	})
	return c
}

// await waits for a line of the log.
func (c *child) await(what string, matches func(line) bool) {
	c.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		c.mu.Lock()
		found, news := slices.ContainsFunc(c.lines, matches), c.news
		c.mu.Unlock()
		if found {
			return
		}
		select {
		case <-news:
		case <-c.read:
			c.t.Fatalf("ended without %s: %v", what, c.log())
		case <-deadline:
			c.t.Fatalf("no %s: %v", what, c.log())
		}
	}
}

func (c *child) awaitMessage(message string) {
	c.t.Helper()
	c.await(message, func(l line) bool { return l["message"] == message })
}

func (c *child) awaitState(to string) {
	c.t.Helper()
	c.await("state "+to, func(l line) bool { return l["to"] == to })
}

func (c *child) log() outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	return outcome{log: slices.Clone(c.lines)}
}

func (c *child) signal(signals ...syscall.Signal) {
	c.t.Helper()
	for _, s := range signals {
		if err := c.cmd.Process.Signal(s); err != nil {
			c.t.Fatal(err)
		}
	}
}

// expect waits for the end.
func (c *child) expect(code int, within time.Duration) {
	c.t.Helper()
	began := time.Now()
	<-c.read
	_ = c.cmd.Wait()
	if got := c.cmd.ProcessState.ExitCode(); got != code {
		c.t.Errorf("exit code %d, want %d: %v", got, code, c.log())
	}
	if waited := time.Since(began); waited > within {
		c.t.Errorf("ended after %s, want %s at most", waited, within)
	}
}

func (s *site) connector(t *testing.T) state.Connector {
	t.Helper()
	store, err := state.Open(s.env["service.state-dir"])
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

func TestDaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = "* * * * * *"
	c := start(t, s.environ())
	c.await("a second run", func(l line) bool { return l["message"] == "run finished" && l["uploaded"] == 0.0 })
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 10*time.Second)
	if now := s.connector(t); now.State != "SCHEDULED" && now.State != "PROCESSED" { // the latter when the signal met a run
		t.Errorf("state %+v", now)
	}
	var states []string
	for _, sent := range s.gateway.States()[:6] {
		states = append(states, sent.State)
	}
	if want := []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED", "SCHEDULED", "PROCESSING"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
	o := c.log()
	if errs := o.errors(); len(errs) != 0 || len(o.with("started")) != 1 || len(o.with("stopped")) != 1 {
		t.Errorf("log %v", o.log)
	}
	if len(s.gateway.Users()) != 20 || len(s.gateway.Violations()) != 0 {
		t.Errorf("%d users, violations %v", len(s.gateway.Users()), s.gateway.Violations())
	}
}

func TestDaemonWaitsForItsTick(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["service.run-on-start"] = "0 0 1 1 *", "false"
	c := start(t, s.environ(), "run")
	c.awaitState("SCHEDULED")
	c.signal(syscall.SIGINT)
	c.expect(exitDone, 5*time.Second)
	if now := s.connector(t); now.State != "SCHEDULED" || now.NextRun.IsZero() {
		t.Errorf("state %+v", now)
	}
	if s.ldap.Binds() != 0 {
		t.Error("it ran")
	}
}

// TestStopInARun: the call under way hangs, and is given up before the grace ends.
func TestStopInARun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["service.shutdown-grace"] = "0 0 1 1 *", "6s"
	sent, release := make(chan struct{}, 10), make(chan struct{})
	s.intercepting(onAssets(func(http.ResponseWriter, []byte) bool {
		sent <- struct{}{}
		<-release
		return true
	}))
	defer close(release)
	c := start(t, s.environ())
	<-sent
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 6*time.Second)
	if now := s.connector(t); now.State != "SCHEDULED" || now.Error == "" {
		t.Errorf("state %+v", now)
	}
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sent, release := make(chan struct{}, 10), make(chan struct{})
	s.intercepting(onAssets(func(http.ResponseWriter, []byte) bool {
		sent <- struct{}{}
		<-release
		return true
	}))
	defer close(release)
	c := start(t, s.environ(), "sync")
	<-sent
	c.signal(syscall.SIGTERM)
	c.awaitMessage("stopping")
	c.signal(syscall.SIGTERM)
	c.expect(exitInterrupted, 2*time.Second)
}

func TestInterruptedSync(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	release := make(chan struct{})
	reading := make(chan struct{}, 1)
	s.ldap.Change(func(l *ldaptest.Server) {
		l.Sent = func(n int) bool {
			if n == 10 {
				reading <- struct{}{}
				<-release
			}
			return true
		}
	})
	defer close(release)
	c := start(t, s.environ(), "sync")
	<-reading
	c.signal(syscall.SIGINT)
	c.expect(exitInterrupted, 5*time.Second)
	o := c.log()
	if len(o.errors()) != 0 || len(o.with("run finished")) != 1 {
		t.Errorf("log %v", o.log)
	}
}

// TestGraceEnds signals to itself, so nothing may run beside it.
func TestGraceEnds(t *testing.T) {
	var stderr bytes.Buffer
	left := make(chan int, 1)
	ctx, cancel := onSignal(t.Context())
	stop := withinGrace(ctx, time.Millisecond, newLogger(&stderr, "json", "info"), func(code int) { left <- code })
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-left; code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	stop()
	cancel()
	if !strings.Contains(stderr.String(), "service.shutdown-grace") {
		t.Errorf("log %s", stderr.String())
	}
}

func TestDaemonOnLockedDirectory(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = "@hourly"
	hold(t, s)
	if o := invoke(t, s.environ(), "run"); o.code != exitLocked || len(o.errors()) != 1 {
		t.Errorf("%+v", o)
	}
}

// TestGatewayDownAtStart: the daemon stays, and registers once the gateway is there.
func TestGatewayDownAtStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address := fmt.Sprintf("127.0.0.1:%d", unusedPort(t))
	s.env["connector.api.url"] = "http://" + address
	s.env["service.cron-expression"], s.env["service.run-on-start"] = "* * * * * *", "false"
	c := start(t, s.environ())
	c.awaitMessage("not registered, the next run tries again")
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s.gateway}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()
	c.awaitState("PROCESSED")
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 10*time.Second)
	var states []string
	for _, sent := range s.gateway.States()[:4] {
		states = append(states, sent.State)
	}
	if want := []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
}

// TestDaemonOutlivesARefusal: each tick tries again once, and each failed run is
// logged once.
func TestDaemonOutlivesARefusal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["qualys.user.password"] = "0 0 1 1 *", "wrong"
	c := start(t, s.environ())
	c.awaitMessage("run finished")
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 10*time.Second)
	if n := len(s.gateway.Requests()); n != 1 {
		t.Errorf("%d logins", n)
	}
	if errs := c.log().errors(); len(errs) != 1 {
		t.Errorf("errors %q", errs)
	}
}

func TestSandbox(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	file := filepath.Join(t.TempDir(), "sandbox.env")
	c := start(t, nil, "sandbox", "--gateway", "127.0.0.1:0", "--env-out", file)
	url := ""
	for range 3 {
		text, err := c.stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if words := strings.Fields(text); words[0] == "gateway" {
			url = words[1]
		}
	}
	var environ []string // less the gateway, which the file names
	for _, pair := range s.environ() {
		if strings.HasPrefix(pair, "ldap.") || strings.HasPrefix(pair, "profile.") || strings.HasPrefix(pair, "service.") {
			environ = append(environ, pair)
		}
	}
	if o := invoke(t, environ, "sync", "--env-file", file); o.code != exitDone {
		t.Errorf("%+v", o)
	}
	var users struct{ Total int }
	response, err := http.Get(url + "/inventory/users")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&users); err != nil || users.Total != 20 {
		t.Errorf("%d users, error %v", users.Total, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if o := invoke(t, nil, "sandbox", "--gateway", strings.TrimPrefix(url, "http://")); o.code != exitUsage || !strings.Contains(o.errors()[0], "choose another port") {
		t.Errorf("a port in use: %+v", o)
	}
	if o := invoke(t, nil, "sandbox", "--gateway", "127.0.0.1:0", "--env-out", filepath.Join(file, "below")); o.code != exitUsage {
		t.Errorf("no file to write: %+v", o)
	}
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 5*time.Second)
}

// TestConnectionFromTheConsole: without ldap.host the gateway says where to read.
func TestConnectionFromTheConsole(t *testing.T) {
	s := newSite(t)
	for _, key := range []string{"ldap.host", "ldap.port", "ldap.bindDn", "ldap.password", "profile.baseContext"} {
		delete(s.env, key)
	}
	s.gateway.SetConnection(&sandbox.Connection{ConnectionUUID: connection, Name: "c", Authentication: sandbox.Authentication{
		Type: "LDAP", Host: "127.0.0.1", Port: s.ldap.Port, BindDN: ldaptest.BindDN, Password: ldaptest.Password,
	}})
	s.gateway.SetProfile(&gateway.Profile{ProfileUUID: profile, Name: "p", BaseContext: ldaptest.Base, SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"})
	if o := invoke(t, s.environ(), "sync"); o.code != exitDone || len(s.gateway.Users()) != 20 {
		t.Errorf("%+v", o)
	}
}
