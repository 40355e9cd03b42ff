package cli

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// consoleKeys are the settings without which connection and profile come from the console.
var consoleKeys = testenv.Settings{
	"ldap.protocol": "", "ldap.host": "", "ldap.port": "", "ldap.bindDn": "", "ldap.password": "", "profile.baseContext": "",
}

func TestExitCodes(t *testing.T) {
	cases := map[string]struct {
		env    testenv.Settings // in place of those of the site
		change func(t *testing.T, s *site)
		args   []string
		code   int
		words  string // in the one error line; "": there is none
		usage  bool   // it is about the command line
	}{
		"done": {code: exitDone},
		"no directory": {change: func(t *testing.T, s *site) {
			s.env["ldap.port"] = strconv.Itoa(testenv.RefusingPort(t))
		}, code: exitFailed, words: "check ldap.host and ldap.port"},
		"bad value":           {env: testenv.Settings{"thread-pool.size": "65"}, code: exitUsage, words: "thread-pool.size"},
		"bad filter":          {env: testenv.Settings{"ldap.user-filter": "(&(a=b)"}, code: exitUsage, words: "ldap.user-filter"},
		"unknown command":     {args: []string{"snyc"}, code: exitUsage, words: "snyc", usage: true},
		"argument too many":   {args: []string{"sync", "now"}, code: exitUsage, words: "now", usage: true},
		"unknown flag":        {args: []string{"sync", "--fulll"}, code: exitUsage, words: "--fulll", usage: true},
		"unknown output":      {args: []string{"sync", "--output", "xml"}, code: exitUsage, words: "neither text nor json", usage: true},
		"unknown log level":   {args: []string{"sync", "--log-level", "disabled"}, code: exitUsage, words: `--log-level "disabled" is not allowed; allowed: trace, debug, info, warn, error`, usage: true},
		"unknown log format":  {args: []string{"sync", "--log-format", "xml"}, code: exitUsage, words: `--log-format "xml" is not allowed; allowed: json, console`, usage: true},
		"no env file":         {args: []string{"sync", "--env-file", "/nowhere/at/all"}, code: exitUsage, words: "/nowhere/at/all"},
		"sandbox on any host": {args: []string{"sandbox", "--gateway", "0.0.0.0:0"}, code: exitUsage, words: "loopback only", usage: true},
		"sandbox in the red":  {args: []string{"sandbox", "--users", "-1"}, code: exitUsage, words: "cannot be negative", usage: true},
		"sandbox nowhere":     {args: []string{"sandbox", "--gateway", "18080"}, code: exitUsage, words: "use host:port", usage: true},
		"state directory is a file": {change: func(t *testing.T, s *site) {
			s.env["service.state-dir"] = blankFile(t)
		}, code: exitUsage, words: "set service.state-dir to a directory"},
		"state of a later program": {change: func(t *testing.T, s *site) {
			s.env["service.state-dir"] = unpacked(t, "../state/testdata/version-99.db.gz")
		}, code: exitUsage, words: "is of format 99, this program knows 2"},
		"wrong gateway password":   {env: testenv.Settings{"qualys.user.password": wrong}, code: exitRefused, words: "qualys.user.password"},
		"wrong directory password": {env: testenv.Settings{"ldap.password": wrong}, code: exitRefused, words: "ldap.password"},
		"no right": {change: func(_ *testing.T, s *site) {
			s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "{}") }))
		}, code: exitRefused, words: "403"},
		"no connection in the console": {env: consoleKeys, code: exitRefused, words: "qualys.connectionUuid"},
		"locked":                       {change: func(t *testing.T, s *site) { s.hold(t) }, code: exitLocked, words: "another instance holds the state directory"},
		"locked, daemon": {env: testenv.Settings{"service.cron-expression": never}, change: func(t *testing.T, s *site) { s.hold(t) },
			args: []string{"run"}, code: exitLocked, words: "another instance holds the state directory"},
		"rejected": {change: func(_ *testing.T, s *site) {
			s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
				return bytes.Contains(x.Body, []byte(`"user7"`)) && x.Status(http.StatusUnprocessableEntity, "")
			}))
		}, code: exitRejected},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.env = s.env.With(c.env)
			if c.change != nil {
				c.change(t, s)
			}
			if c.args == nil {
				c.args = []string{"sync"}
			}
			o := s.invoke(t, c.args...)
			if o.Code != c.code {
				t.Errorf("exit code %d, want %d", o.Code, c.code)
			}
			errs := o.Errors()
			if c.words == "" && len(errs) > 0 || c.words != "" && (len(errs) != 1 || !strings.Contains(errs[0], c.words)) {
				t.Errorf("errors %q, want one with %q", errs, c.words)
			}
			// Users and groups are read in a session each; a refused bind is not repeated.
			logins, asked := s.Gateway.Arrived(testenv.LoginPath), s.Searches()
			if logins > 1 || asked.Binds > 2 || asked.RefusedBinds > 1 {
				t.Errorf("%d logins, directory %+v", logins, asked)
			}
			if isUsage := len(o.With(MsgBadUsage)) > 0; isUsage != c.usage {
				t.Errorf("log %v, is it about bad usage: %v", o.Log, c.usage)
			}
			if o.Code == exitUsage && logins+asked.Searches > 0 {
				t.Errorf("%d logins, directory %+v, want none", logins, asked)
			}
		})
	}
}

// unpacked returns a state directory with the file that is packed at path.
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

func TestAllFaultsAtOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env = s.env.With(testenv.Settings{
		"qualys.customerUuid": "", "upload.batch-size": "0", "ldap.protocol": "LDAPX", "service.cron-expression": "0 0 30 2 *",
	})
	o := s.invoke(t) // the daemon is the default
	if o.Code != exitUsage || o.Stdout != "" || len(o.Log) != 4 {
		t.Fatalf("exit code %d, stdout %q, log %v", o.Code, o.Stdout, o.Log)
	}
	for _, key := range []string{"qualys.customerUuid", "upload.batch-size", "ldap.protocol", "service.cron-expression"} {
		if !slices.ContainsFunc(o.With(MsgBadConfiguration), func(l testlog.Line) bool { return strings.HasPrefix(l.Text("error"), key) }) {
			t.Errorf("no line on %s in %v", key, o.Log)
		}
	}
}

// TestGlobalOptions: commands that do not use an option refuse a bad value of it, too.
func TestGlobalOptions(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"keys"}, {"help"}, {"help", "sync"}, {"completion", "bash"}, {"sandbox", "--gateway", "none"}, {"demo", "--users", "1"}, {"healthcheck"}, {}} {
		o := invoke(t, nil, append(args, "--log-level", "loud", "--log-format", "xml")...)
		if errs := o.Errors(); o.Code != exitUsage || o.Stdout != "" || len(errs) != 2 || !strings.Contains(errs[0], "--log-format") || !strings.Contains(errs[1], "--log-level") {
			t.Errorf("%q: %+v", args, o)
		}
	}
	if o := invoke(t, nil, "version", "--log-level", "WARN", "--log-format", "json"); o.Code != exitDone {
		t.Errorf("%+v", o)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	o := invoke(t, nil, "version")
	if o.Code != exitDone || !strings.HasPrefix(o.Stdout, "adconnector dev, commit unknown, go1.") || len(o.Log) != 0 {
		t.Errorf("%+v", o)
	}
}

// TestRefusalAsJSON: a command that does not begin prints one document too.
func TestRefusalAsJSON(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*site)
		code   int
		words  []string
	}{
		"locked": {func(s *site) { s.hold(t) }, exitLocked, []string{"another instance holds"}},
		"misconfigured": {func(s *site) {
			s.env = s.env.With(testenv.Settings{"qualys.profileUuid": "", "thread-pool.size": "65"})
		}, exitUsage, []string{"qualys.profileUuid", "thread-pool.size"}},
	} {
		s := newSite(t)
		test.change(s)
		for _, command := range []string{"sync", "status"} {
			t.Run(name+", "+command, func(t *testing.T) {
				o := s.invoke(t, command, "--output", "json")
				d := decode[refusal](t, o)
				if o.Code != test.code || d.ExitCode != test.code || len(o.Errors()) == 0 {
					t.Errorf("%+v", o)
				}
				for _, word := range test.words {
					if !strings.Contains(d.Error, word) {
						t.Errorf("%q is not in %q", word, d.Error)
					}
				}
				if o := s.invoke(t, command); o.Stdout != "" || o.Code != test.code {
					t.Errorf("as text: %+v", o)
				}
			})
		}
	}
}

// TestNobodyReads: the exit code of a command shows that its result reached nobody.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, args := range [][]string{{"version"}, {"keys"}, {"status"}, {"check"}, {"sync"}, {"sync", "--output", "json"}, {"sandbox", "--ldap", "127.0.0.1:0", "--ldaps", "", "--gateway", "127.0.0.1:0"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			reader.Close()
			defer writer.Close()
			var stderr bytes.Buffer
			p := &program{environ: s.env.Environ(), stdout: writer, stderr: &stderr, verbosity: newVerbosity(), hooks: inProcess}
			defer p.verbosity.end()
			if code := p.execute(t.Context(), args); code != exitFailed || !strings.Contains(stderr.String(), "broken pipe") {
				t.Errorf("exit code %d, log %s", code, stderr.String())
			}
		})
	}
}
