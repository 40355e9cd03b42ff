package cli

import (
	"bufio"
	"bytes"
	"compress/gzip"
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
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

// The account that binds, and the container that holds 20 users and 3 groups.
const (
	bindDN       = "CN=svc,OU=Service,DC=corp,DC=example,DC=com"
	bindPassword = "Pa55w0rd!"
	base         = "OU=Staff,DC=corp,DC=example,DC=com"
)

// site is a directory, a gateway and the settings that reach them.
type site struct {
	ldap    *sandbox.Directory
	gateway *sandbox.Gateway
	env     map[string]string

	mu        sync.Mutex
	intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool
	sending   func(answer []byte) // called before the directory sends it
}

func newSite(t *testing.T) *site {
	s := &site{ldap: sandbox.NewDirectory(sandbox.DirectoryOptions{BindDN: bindDN, Password: bindPassword, ReadsDeleted: true})}
	s.add(t, base, "organizationalUnit")
	for n := range 20 {
		s.add(t, userDN(n), "user")
	}
	for n := range 3 {
		s.add(t, fmt.Sprintf("CN=group%d,%s", n, base), "group")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.ldap.Serve(t.Context(), watched{listener, s}, nil) })
	t.Cleanup(func() {
		s.ldap.Close()
		serving.Wait()
	})
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
		"ldap.host": "127.0.0.1", "ldap.port": fmt.Sprint(portOf(listener)), "ldap.bindDn": bindDN, "ldap.password": bindPassword,
		"profile.baseContext": base, "service.state-dir": filepath.Join(t.TempDir(), "state"), "service.admin.address": "",
	}
	return s
}

func portOf(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

func userDN(n int) string { return fmt.Sprintf("CN=user%d,%s", n, base) }

func (s *site) add(t *testing.T, dn, class string) {
	t.Helper()
	if err := s.ldap.Add(sandbox.Object{DN: dn, Attributes: map[string][]string{"objectClass": {class}}}); err != nil {
		t.Fatal(err)
	}
}

// remove deletes users up to n.
func (s *site) remove(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		if err := s.ldap.Delete(userDN(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// watched lets a test see, and hold up, what the directory answers.
type watched struct {
	net.Listener
	site *site
}

func (w watched) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return watchedConn{conn, w.site}, nil
}

type watchedConn struct {
	net.Conn
	site *site
}

func (c watchedConn) Write(answer []byte) (int, error) {
	c.site.mu.Lock()
	sending := c.site.sending
	c.site.mu.Unlock()
	if sending != nil {
		sending(answer)
	}
	return c.Conn.Write(answer)
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

// hanging leaves the calls that carry assets without an answer until the test ends,
// and tells of each.
func (s *site) hanging(t *testing.T) <-chan struct{} {
	sent, release := make(chan struct{}, 10), make(chan struct{})
	t.Cleanup(func() { close(release) })
	s.intercepting(onAssets(func(http.ResponseWriter, []byte) bool {
		sent <- struct{}{}
		<-release
		return true
	}))
	return sent
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

// logKeys is the one list from which the keys of all lines come.
var logKeys = strings.Fields(`time level message component
	run_id mode result reason error class repeated failing_since
	dc dns_host_name domain_controller base_dn scope filter invocation_id usn since page
	kind sid guid dn_hash objects skipped unparsed
	batch attempt call status sent_bytes answer_bytes wait_ms until duration_ms
	users groups changed uploaded deleted held rejected requests retries dry_run
	from to next_run missed last cron state_dir address grace version before target remedy
	key nearest place`)

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
		if !slices.Contains(logKeys, key) {
			t.Errorf("key %s is not on the list: %s", key, text)
		}
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
	if level, _ := l["level"].(string); !slices.Contains([]string{"trace", "debug", "info", "warn", "error"}, level) {
		t.Errorf("level %q in %s", level, text)
	}
	if component, _ := l["component"].(string); component == "" {
		t.Errorf("no component in %s", text)
	}
	for _, secret := range []string{"s3cret!", bindPassword} {
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
		usage  bool   // it is about the command line
	}{
		"done": {code: exitDone},
		"no directory": {func(t *testing.T, s *site) { s.env["ldap.port"] = fmt.Sprint(unusedPort(t)) }, nil,
			exitFailed, "check ldap.host and ldap.port", false},
		"bad value": {func(_ *testing.T, s *site) { s.env["thread-pool.size"] = "65" }, nil,
			exitUsage, "thread-pool.size", false},
		"bad filter": {func(_ *testing.T, s *site) { s.env["ldap.user-filter"] = "(&(a=b)" }, nil,
			exitUsage, "ldap.user-filter", false},
		"unknown command":     {nil, []string{"snyc"}, exitUsage, "snyc", true},
		"argument too many":   {nil, []string{"sync", "now"}, exitUsage, "now", true},
		"unknown flag":        {nil, []string{"sync", "--fulll"}, exitUsage, "--fulll", true},
		"unknown output":      {nil, []string{"sync", "--output", "xml"}, exitUsage, "neither text nor json", true},
		"unknown log level":   {nil, []string{"sync", "--log-level", "disabled"}, exitUsage, `--log-level "disabled" is not allowed; allowed: trace, debug, info, warn, error`, true},
		"unknown log format":  {nil, []string{"sync", "--log-format", "xml"}, exitUsage, `--log-format "xml" is not allowed; allowed: json, console`, true},
		"no env file":         {nil, []string{"sync", "--env-file", "/nowhere/at/all"}, exitUsage, "/nowhere/at/all", false},
		"sandbox on any host": {nil, []string{"sandbox", "--gateway", "0.0.0.0:0"}, exitUsage, "loopback only", true},
		"sandbox in the red":  {nil, []string{"sandbox", "--users", "-1"}, exitUsage, "cannot be negative", true},
		"sandbox nowhere":     {nil, []string{"sandbox", "--gateway", "18080"}, exitUsage, "use host:port", true},
		"state directory is none": {func(t *testing.T, s *site) {
			file := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.env["service.state-dir"] = file
		}, nil, exitUsage, "set service.state-dir to a directory", false},
		"state of a later program": {func(t *testing.T, s *site) {
			s.env["service.state-dir"] = unpacked(t, "../state/testdata/version-99.db.gz")
		}, nil, exitUsage, "is of format 99, this program knows 2", false},
		"wrong gateway password": {func(_ *testing.T, s *site) { s.env["qualys.user.password"] = "wrong" }, nil,
			exitRefused, "qualys.user.password", false},
		"wrong directory password": {func(_ *testing.T, s *site) { s.env["ldap.password"] = "wrong" }, nil,
			exitRefused, "ldap.password", false},
		"no right": {func(_ *testing.T, s *site) {
			s.intercepting(onAssets(func(w http.ResponseWriter, _ []byte) bool {
				w.WriteHeader(http.StatusForbidden)
				return true
			}))
		}, nil, exitRefused, "403", false},
		"no connection in the console": {func(_ *testing.T, s *site) {
			for _, key := range []string{"ldap.host", "ldap.port", "ldap.bindDn", "ldap.password", "profile.baseContext"} {
				delete(s.env, key)
			}
		}, nil, exitRefused, "qualys.connectionUuid", false},
		"locked": {func(t *testing.T, s *site) { hold(t, s) }, nil,
			exitLocked, "another instance holds the state directory", false},
		"rejected": {func(_ *testing.T, s *site) {
			s.intercepting(onAssets(func(w http.ResponseWriter, body []byte) bool {
				if bytes.Contains(body, []byte(`"user7"`)) {
					w.WriteHeader(http.StatusUnprocessableEntity)
					return true
				}
				return false
			}))
		}, nil, exitRejected, "", false},
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
			// Users and groups are read in a session each; a refused bind is not repeated.
			if n := s.ldap.Searches(); logins > 1 || n.Binds > 2 || n.RefusedBinds > 1 {
				t.Errorf("%d logins, directory %+v", logins, n)
			}
			if headlined := len(o.with("bad usage")) > 0; headlined != c.usage {
				t.Errorf("log %v, is it about bad usage: %v", o.log, c.usage)
			}
			if o.code == exitUsage && logins+s.ldap.Searches().Searches > 0 {
				t.Errorf("%d logins, directory %+v before it was told", logins, s.ldap.Searches())
			}
		})
	}
}

// unpacked is a state directory with that file.
func unpacked(t *testing.T, path string) (dir string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	packed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "adconnector.db"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func unusedPort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return portOf(listener)
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

// TestGlobalOptions: a value that is none is told by commands that have no use for it, too.
func TestGlobalOptions(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"keys"}, {"help"}, {"help", "sync"}, {"completion", "bash"}, {"sandbox", "--gateway", "none"}, {"demo", "--users", "1"}, {"healthcheck"}, {}} {
		o := invoke(t, nil, append(args, "--log-level", "loud", "--log-format", "xml")...)
		if errs := o.errors(); o.code != exitUsage || o.stdout != "" || len(errs) != 2 || !strings.Contains(errs[0], "--log-format") || !strings.Contains(errs[1], "--log-level") {
			t.Errorf("%q: %+v", args, o)
		}
	}
	if o := invoke(t, nil, "version", "--log-level", "WARN", "--log-format", "json"); o.code != exitDone {
		t.Errorf("%+v", o)
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
	if !strings.HasPrefix(o.stdout, "processed (full): 20 users and 3 groups read, 23 changed, 23 uploaded, 0 deleted, 0 deletions held, 0 rejected, in ") || strings.Count(o.stdout, "\n") != 1 {
		t.Errorf("stdout %q", o.stdout)
	}
	if n := len(o.with("run finished")); n != 1 {
		t.Errorf("%d summaries", n)
	}
	for _, args := range [][]string{{"sync", "--full"}, {"sync"}} {
		mode := map[int]string{1: "delta", 2: "full"}[len(args)]
		if o := invoke(t, s.environ(), args...); o.code != exitDone || !strings.HasPrefix(o.stdout, "processed ("+mode+")") || !strings.Contains(o.stdout, " 0 changed, 0 uploaded") {
			t.Errorf("%v: %+v", args, o)
		}
	}
}

// document is what --output json prints.
type document struct {
	Result, Mode, Error     string
	RunID                   string `json:"run_id"`
	Changed, Uploaded, Held int
	Deleted                 int
	DurationMS              *int64 `json:"duration_ms"`
	DryRun                  bool   `json:"dry_run"`
	Planned                 []planned
}

// document reads the one JSON document on stdout.
func (o outcome) document(t *testing.T) (d document) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(o.stdout))
	if err := decoder.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if _, err := decoder.Token(); err != io.EOF || d.DurationMS == nil {
		t.Errorf("not one whole document: %s", o.stdout)
	}
	return d
}

func TestSyncPrintsJSON(t *testing.T) {
	for name, change := range map[string]func(*site){
		"processed": func(*site) {}, "failed": func(s *site) { s.env["ldap.password"] = "wrong" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			change(s)
			o := invoke(t, s.environ(), "sync", "--output", "json")
			got := o.document(t)
			summary := o.with("run finished")
			if len(summary) != 1 || got.Result != name || got.RunID != summary[0]["run_id"] || (got.Error == "") != (o.code == exitDone) {
				t.Errorf("%+v of %v", got, summary)
			}
			if got.DryRun || strings.Contains(o.stdout, `"planned"`) {
				t.Errorf("a dry run's: %s", o.stdout)
			}
		})
	}
}

// TestRefusalAsJSON: what comes to nothing is one document too.
func TestRefusalAsJSON(t *testing.T) {
	s := newSite(t)
	hold(t, s)
	bad := newSite(t)
	delete(bad.env, "qualys.profileUuid")
	bad.env["thread-pool.size"] = "65"
	for name, test := range map[string]struct {
		site  *site
		code  int
		words []string
	}{"held": {s, exitLocked, []string{"another instance holds"}}, "misconfigured": {bad, exitUsage, []string{"qualys.profileUuid", "thread-pool.size"}}} {
		for _, command := range []string{"sync", "status"} {
			o := invoke(t, test.site.environ(), command, "--output", "json")
			var d refusal
			decoder := json.NewDecoder(strings.NewReader(o.stdout))
			if err := decoder.Decode(&d); err != nil || o.code != test.code || d.ExitCode != test.code || len(o.errors()) == 0 {
				t.Errorf("%s, %s: %v, %+v", name, command, err, o)
			}
			if _, err := decoder.Token(); err != io.EOF {
				t.Errorf("%s, %s: more than one document", name, command)
			}
			for _, word := range test.words {
				if !strings.Contains(d.Error, word) {
					t.Errorf("%s, %s: %+v", name, command, d)
				}
			}
			if o := invoke(t, test.site.environ(), command); o.stdout != "" || o.code != test.code {
				t.Errorf("%s, %s: %+v", name, command, o)
			}
		}
	}
}

// TestDeletionsHeld: three of 23 are more than a tenth.
func TestDeletionsHeld(t *testing.T) {
	s := newSite(t)
	if o := invoke(t, s.environ(), "sync"); o.code != exitDone {
		t.Fatalf("%+v", o)
	}
	s.remove(t, 3)
	for _, args := range [][]string{{"sync"}, {"sync"}, {"sync", "--full"}} { // they stay held
		o := invoke(t, s.environ(), args...)
		summary := o.with("run finished")
		if o.code != exitHeld || !strings.HasPrefix(o.stdout, "held (") || !strings.Contains(o.stdout, " 0 deleted, 3 deletions held,") || len(o.errors()) != 0 ||
			len(summary) != 1 || summary[0]["held"] != 3.0 || summary[0]["result"] != "held" {
			t.Fatalf("%v: %+v", args, o)
		}
		if held := o.with(syncrun.MsgDeletionsHeld); len(held) != 1 || held[0]["held"] != 3.0 {
			t.Errorf("log %v", o.log)
		}
	}
	if o := invoke(t, s.environ(), "sync", "--dry-run"); o.code != exitHeld || !strings.Contains(o.stdout, "3 deletions would be held, nothing sent (dry run)") || strings.Contains(o.stdout, "delete ") {
		t.Errorf("%+v", o)
	}
	o := invoke(t, s.environ(), "sync", "--dry-run", "--allow-deletes", "--output", "json")
	if d := o.document(t); o.code != exitDone || d.Held != 0 || len(d.Planned) != 3 || d.Planned[0].Action != "delete" || d.Planned[0].Name == "" {
		t.Errorf("%+v", d)
	}
	if n := statuses(s.gateway)["DELETED"]; n != 0 {
		t.Fatalf("%d are deleted at the gateway", n)
	}
	if o := invoke(t, s.environ(), "sync", "--allow-deletes", "--output", "json"); o.code != exitDone || o.document(t).Deleted != 3 {
		t.Errorf("%+v", o)
	}
	if n := statuses(s.gateway)["DELETED"]; n != 3 || len(s.gateway.Violations()) != 0 {
		t.Errorf("%d are deleted at the gateway, violations %v", n, s.gateway.Violations())
	}
	if o := invoke(t, s.environ(), "sync", "--full"); o.code != exitDone {
		t.Errorf("%+v", o)
	}
}

// statuses counts the gateway's users by their status.
func statuses(g *sandbox.Gateway) map[string]int {
	counts := map[string]int{}
	for _, user := range g.Users() {
		if bytes.Contains(user.Asset, []byte(`"DELETED"`)) {
			counts["DELETED"]++
		}
	}
	return counts
}

// TestGuardIsConfigured: its bounds come from the settings.
func TestGuardIsConfigured(t *testing.T) {
	for name, c := range map[string]struct {
		number, percent string
		code            int
	}{
		"below both": {"3", "50", exitDone}, "above the number": {"2", "50", exitHeld}, "above the percentage": {"3", "5", exitHeld}, "none at all": {"0", "0", exitHeld},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.env["sync.max-deletes"], s.env["SYNC_MAX_DELETES_PERCENT"] = c.number, c.percent
			invoke(t, s.environ(), "sync")
			s.remove(t, 3)
			if o := invoke(t, s.environ(), "sync"); o.code != c.code {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestFullIntervalIsConfigured: a full pass is due when the last one is too old.
func TestFullIntervalIsConfigured(t *testing.T) {
	s := newSite(t)
	s.env["sync.full-interval"] = "1s"
	invoke(t, s.environ(), "sync")
	deadline := time.Now().Add(20 * time.Second)
	for mode := ""; mode != "full"; {
		mode = invoke(t, s.environ(), "sync", "--output", "json").document(t).Mode
		if time.Now().After(deadline) {
			t.Fatal("no full pass")
		}
	}
}

func TestDryRun(t *testing.T) {
	s := newSite(t)
	o := invoke(t, s.environ(), "sync", "--dry-run")
	if o.code != exitDone || !strings.Contains(o.stdout, "23 changed, 0 deletions would be held, nothing sent (dry run)") || len(s.gateway.Requests()) != 0 {
		t.Errorf("%+v", o)
	}
	if _, err := os.Stat(s.env["service.state-dir"]); !os.IsNotExist(err) {
		t.Errorf("a state directory was made: %v", err)
	}
	lines := strings.Split(strings.TrimSpace(o.stdout), "\n")
	if len(lines) != 24 || !slices.ContainsFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "send   user  ") && strings.HasSuffix(l, ` "user7"`)
	}) || !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "send   group ") }) {
		t.Errorf("stdout %s", o.stdout)
	}
	o = invoke(t, s.environ(), "sync", "--dry-run", "--output", "json")
	d := o.document(t)
	if o.code != exitDone || !d.DryRun || d.Changed != 23 || d.Uploaded != 0 || len(d.Planned) != 23 || len(s.gateway.Requests()) != 0 {
		t.Errorf("%+v", d)
	}
	for _, p := range d.Planned {
		if p.Action != "send" || p.Kind != "user" && p.Kind != "group" || !strings.HasPrefix(p.SID, "S-1-5-21-") || len(p.GUID) != 36 || p.Name == "" {
			t.Errorf("planned %+v", p)
		}
	}
	if o := invoke(t, s.environ(), "sync"); o.code != exitDone || !strings.Contains(o.stdout, "23 uploaded") { // nothing was recorded
		t.Errorf("%+v", o)
	}
	if o := invoke(t, s.environ(), "sync", "--dry-run", "--full", "--output", "json"); !strings.Contains(o.stdout, `"planned": []`) {
		t.Errorf("%s", o.stdout)
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

	mu     sync.Mutex
	lines  []line
	news   chan struct{} // closed when a line comes, then made anew
	hangUp func()        // nobody reads stdout any more
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
	c.stdout, c.hangUp = bufio.NewReader(stdout), func() { stdout.Close() }
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
	if s.ldap.Searches().Binds != 0 {
		t.Error("it ran")
	}
}

// TestStopInARun: the call under way hangs, and is given up before the grace ends.
func TestStopInARun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["service.shutdown-grace"] = "0 0 1 1 *", "6s"
	sent := s.hanging(t)
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
	sent := s.hanging(t)
	c := start(t, s.environ(), "sync")
	<-sent
	c.signal(syscall.SIGTERM)
	c.awaitMessage("stopping")
	c.signal(syscall.SIGTERM)
	c.expect(exitInterrupted, 2*time.Second)
}

// TestNobodyReads: a command tells with its exit code that its result has reached nobody.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, args := range [][]string{{"version"}, {"keys"}, {"status"}, {"check"}, {"sync"}, {"sync", "--output", "json"}, {"sandbox", "--ldap", "127.0.0.1:0", "--ldaps", "", "--gateway", "127.0.0.1:0"}} {
		reader, writer, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		command := exec.CommandContext(t.Context(), os.Args[0], args...)
		command.Env, command.Stdout = append(append(os.Environ(), "CLI_TEST_CHILD=1"), s.environ()...), writer
		var stderr bytes.Buffer
		command.Stderr = &stderr
		err = command.Run()
		writer.Close()
		if code := command.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(stderr.String(), "broken pipe") {
			t.Errorf("%q: %v, log %s", args, err, stderr.String())
		}
	}
}

// TestDaemonWhoseLogNobodyReads goes on, and ends in order.
func TestDaemonWhoseLogNobodyReads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = "* * * * * *"
	calls := make(chan struct{}, 1000)
	s.intercepting(func(http.ResponseWriter, *http.Request, []byte) bool {
		calls <- struct{}{}
		return false
	})
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "run")
	command.Env, command.Stderr = append(append(os.Environ(), "CLI_TEST_CHILD=1"), s.environ()...), writer
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if _, err := bufio.NewReader(reader).ReadString('\n'); err != nil {
		t.Error(err)
	}
	reader.Close()
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for range 30 { // a few runs
		select {
		case <-calls:
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		}
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestInterruptedSync(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	release := make(chan struct{})
	reading := make(chan struct{}, 1)
	s.mu.Lock()
	s.sending = func(answer []byte) {
		if bytes.Contains(answer, []byte(userDN(7))) {
			reading <- struct{}{}
			<-release
		}
	}
	s.mu.Unlock()
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
	ctx, cancel := onSignal(t.Context(), func() {})
	v := newVerbosity()
	defer v.end()
	stop := withinGrace(ctx, time.Millisecond, graceSetting, newLogger(&stderr, "json", false, v), func(code int) { left <- code })
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
	file := filepath.Join(t.TempDir(), "sandbox.env")
	c := start(t, nil, "sandbox", "--users", "30", "--groups", "5", "--gateway", "127.0.0.1:0", "--ldap", "127.0.0.1:0", "--ldaps", "127.0.0.1:0", "--env-out", file)
	var directories []string
	url := ""
	for range 5 {
		text, err := c.stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		switch words := strings.Fields(text); words[0] {
		case "gateway":
			url = words[1]
		case "directory":
			directories = append(directories, words[1])
		}
	}
	if len(directories) != 2 {
		t.Errorf("directories %v", directories)
	}
	o := invoke(t, nil, "sync", "--env-file", file, "--output", "json") // where to read, the gateway says
	if o.code != exitDone || o.document(t).Uploaded < 35 {
		t.Errorf("%+v", o)
	}
	var users struct{ Total int }
	response, err := http.Get(url + "/inventory/users")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&users); err != nil || users.Total < 30 {
		t.Errorf("%d users, error %v", users.Total, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	for _, args := range [][]string{
		{"--gateway", strings.TrimPrefix(url, "http://")},
		{"--gateway", "127.0.0.1:0", "--ldap", directories[0][strings.Index(directories[0], "127."):]},
	} {
		if o := invoke(t, nil, append([]string{"sandbox"}, args...)...); o.code != exitUsage || !strings.Contains(o.errors()[0], "choose another port") || len(o.with("bad usage")) != 1 {
			t.Errorf("a port in use: %+v", o)
		}
	}
	if o := invoke(t, nil, "sandbox", "--gateway", "127.0.0.1:0", "--ldap", "", "--ldaps", "", "--env-out", filepath.Join(file, "below")); o.code != exitUsage {
		t.Errorf("no file to write: %+v", o)
	}
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 5*time.Second)
}

// TestConnectionFromTheConsole: without ldap.host the gateway says where to read.
func TestConnectionFromTheConsole(t *testing.T) {
	s := newSite(t)
	port, err := strconv.Atoi(s.env["ldap.port"])
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ldap.host", "ldap.port", "ldap.bindDn", "ldap.password", "profile.baseContext"} {
		delete(s.env, key)
	}
	s.gateway.SetConnection(&sandbox.Connection{ConnectionUUID: connection, Name: "c", Authentication: sandbox.Authentication{
		Type: "LDAP", Host: "127.0.0.1", Port: port, BindDN: bindDN, Password: bindPassword,
	}})
	s.gateway.SetProfile(&gateway.Profile{ProfileUUID: profile, Name: "p", BaseContext: base, SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"})
	if o := invoke(t, s.environ(), "sync"); o.code != exitDone || len(s.gateway.Users()) != 20 {
		t.Errorf("%+v", o)
	}
}
