package cli

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"adconnector/internal/check"
	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/test/ports"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// consoleSettings remove the settings of the directory, so that connection and profile come
// from the console.
var consoleSettings = testenv.Settings{
	"ldap.protocol": "", "ldap.host": "", "ldap.port": "", "ldap.bindDn": "", "ldap.password": "", "profile.baseContext": "",
}

func TestExitCodes(t *testing.T) {
	cases := map[string]struct {
		env     testenv.Settings // override those of the fixture
		change  func(t *testing.T, s *fixture)
		args    []string
		code    int
		message string   // of the only error; empty: no error
		names   []string // settings, arguments and paths in the error or its remedy
	}{
		"done": {code: exitDone},
		"no directory": {change: func(t *testing.T, s *fixture) {
			s.env["ldap.port"] = strconv.Itoa(ports.Refusing(t))
		}, code: exitFailed, message: runFinished, names: []string{"ldap.host", "ldap.port"}},
		"bad value":               {env: testenv.Settings{"thread-pool.size": "65"}, code: exitUsage, message: MsgBadConfiguration, names: []string{"thread-pool.size"}},
		"bad filter":              {env: testenv.Settings{"ldap.user-filter": "(&(a=b)"}, code: exitUsage, message: MsgBadConfiguration, names: []string{"ldap.user-filter"}},
		"unknown command":         {args: []string{"snyc"}, code: exitUsage, message: MsgBadUsage, names: []string{"snyc", "--help"}},
		"extra argument":          {args: []string{"sync", "now"}, code: exitUsage, message: MsgBadUsage, names: []string{"now", "--help"}},
		"unknown flag":            {args: []string{"sync", "--fulll"}, code: exitUsage, message: MsgBadUsage, names: []string{"--fulll", "--help"}},
		"misspelled flag":         {args: []string{"sync", "--allow-delete"}, code: exitUsage, message: MsgBadUsage, names: []string{"--allow-deletes"}},
		"other hyphens in a flag": {args: []string{"sync", "--dryrun"}, code: exitUsage, message: MsgBadUsage, names: []string{"--dry-run"}},
		"flag with one hyphen":    {args: []string{"sync", "-env-file=a.env"}, code: exitUsage, message: MsgBadUsage, names: []string{"-env-file", "use --env-file"}},
		"flag of another command": {args: []string{"--dry-run"}, code: exitUsage, message: MsgBadUsage, names: []string{"--dry-run", "adconnector sync"}},
		"flag with a long dash":   {args: []string{"sync", "—full"}, code: exitUsage, message: MsgBadUsage, names: []string{"use two hyphens: --full"}},
		"flag without its value":  {args: []string{"sync", "--env-file"}, code: exitUsage, message: MsgBadUsage, names: []string{"use --env-file FILE"}},
		"flag that is no boolean": {args: []string{"sync", "--full=yes"}, code: exitUsage, message: MsgBadUsage, names: []string{`--full "yes" is not allowed`, "--full=false"}},
		"flag that is no number":  {args: []string{"sandbox", "--users", "many"}, code: exitUsage, message: MsgBadUsage, names: []string{`--users "many" is not allowed`, "number"}},
		"flag below 0":            {args: []string{"sandbox", "--seed", "-1"}, code: exitUsage, message: MsgBadUsage, names: []string{"--seed", "not below 0"}},
		"unknown output":          {args: []string{"sync", "--output", "xml"}, code: exitUsage, message: MsgBadUsage, names: []string{"--output", "xml", "json"}},
		"unknown log level":       {args: []string{"sync", "--log-level", "disabled"}, code: exitUsage, message: MsgBadUsage, names: append([]string{"--log-level", "disabled"}, config.LogLevels...)},
		"unknown log format":      {args: []string{"sync", "--log-format", "xml"}, code: exitUsage, message: MsgBadUsage, names: append([]string{"--log-format", "xml"}, config.LogFormats...)},
		"no env file":             {args: []string{"sync", "--env-file", "/nowhere/at/all"}, code: exitUsage, message: MsgBadConfiguration, names: []string{"/nowhere/at/all"}},
		"sandbox, not loopback":   {args: []string{"sandbox", "--gateway", "0.0.0.0:0"}, code: exitUsage, message: MsgBadUsage, names: []string{"--gateway", "0.0.0.0:0", "127.0.0.1:0"}},
		"sandbox, negative users": {args: []string{"sandbox", "--users", "-1"}, code: exitUsage, message: MsgBadUsage, names: []string{"--users"}},
		"sandbox, no address":     {args: []string{"sandbox", "--gateway", "18080"}, code: exitUsage, message: MsgBadUsage, names: []string{"--gateway", "18080"}},
		"state directory is a file": {change: func(t *testing.T, s *fixture) {
			s.env["service.state-dir"] = emptyFile(t)
		}, code: exitUsage, message: MsgBadConfiguration, names: []string{"service.state-dir"}},
		"state of a newer version": {change: func(t *testing.T, s *fixture) {
			s.env["service.state-dir"] = unpackState(t, "../state/testdata/version-99.db.gz")
		}, code: exitUsage, message: MsgBadConfiguration, names: []string{"adconnector.db", "99"}},
		"state file is a link": {change: func(t *testing.T, s *fixture) {
			s.linkState(t, "adconnector.db")
		}, code: exitUsage, message: MsgBadConfiguration, names: []string{"adconnector.db", "service.state-dir"}},
		"link in state directory": {change: func(t *testing.T, s *fixture) {
			s.linkState(t, "adconnector.db.holder")
		}, code: exitUsage, message: MsgBadConfiguration, names: []string{"adconnector.db.holder", "service.state-dir"}},
		"wrong gateway password":   {env: testenv.Settings{"qualys.user.password": wrongPassword}, code: exitRefused, message: runFinished, names: []string{"qualys.user.password"}},
		"wrong directory password": {env: testenv.Settings{"ldap.password": wrongPassword}, code: exitRefused, message: runFinished, names: []string{"ldap.password"}},
		"forbidden": {change: func(_ *testing.T, s *fixture) {
			s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "{}") }))
		}, code: exitRefused, message: runFinished, names: []string{"403"}},
		"global catalog": {env: testenv.Settings{"ldap.protocol": "LDAP", "ldap.port": "3268"}, code: exitRefused, message: runFinished,
			names: []string{"127.0.0.1:3268", "global catalog", "ldap.port", "389", "636"}},
		"global catalog in the console": {env: consoleSettings, change: func(_ *testing.T, s *fixture) {
			s.Console("LDAPS", s.Directory.Base())
			connection := *s.Gateway.Options.Connection
			connection.Authentication.Port = 3269
			s.Gateway.SetConnection(&connection)
		}, code: exitRefused, message: runFinished, names: []string{"127.0.0.1:3269", "global catalog", "389", "636"}},
		"no console connection": {env: consoleSettings, code: exitRefused, message: runFinished, names: []string{"qualys.connectionUuid"}},
		"locked":                {change: func(t *testing.T, s *fixture) { s.lockState(t) }, code: exitLocked, message: MsgCommandFailed, names: []string{"service.state-dir"}},
		"daemon locked": {env: testenv.Settings{"service.cron-expression": yearly}, change: func(t *testing.T, s *fixture) { s.lockState(t) },
			args: []string{"run"}, code: exitLocked, message: MsgCommandFailed, names: []string{"service.state-dir"}},
		"rejected": {change: func(_ *testing.T, s *fixture) {
			s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
				return bytes.Contains(x.Body, []byte(`"user7"`)) && x.Status(http.StatusUnprocessableEntity, "")
			}))
		}, code: exitRejected},
	}
	classes := map[int]fault.Class{exitFailed: fault.Transient, exitRefused: fault.Refused}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
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
			if c.message == "" {
				if errs := o.Errors(); len(errs) > 0 {
					t.Errorf("errors %q", errs)
				}
			} else {
				l := singleError(t, o)
				if l.Text("message") != c.message || l.Text("remedy") == "" || c.message == runFinished && l.Text("class") != string(classes[c.code]) {
					t.Errorf("error %v", l)
				}
				requireMentions(t, l, c.names...)
			}
			// Users and groups are read in separate sessions. A refused bind is not repeated.
			logins, searches := s.Gateway.Arrived(testenv.LoginPath), s.Counters()
			if logins > 1 || searches.Binds > 2 || searches.FailedBinds > 1 {
				t.Errorf("%d logins, directory %+v", logins, searches)
			}
			if o.Code == exitUsage && logins+searches.Searches > 0 {
				t.Errorf("%d logins, directory %+v, want none", logins, searches)
			}
		})
	}
}

// TestCheckShowsReplacedSettings tests that check shows which place a setting comes from if an env
// file has another value, and that this is no warning.
func TestCheckShowsReplacedSettings(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	file := filepath.Join(t.TempDir(), "a.env")
	if err := os.WriteFile(file, []byte("ldap.password=hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := s.invoke(t, "check", "--env-file", file, "--output", "json")
	configuration := decode[check.Report](t, o).Checks[0]
	if o.Code != exitDone || configuration.Result != check.OK || !containsAll(configuration.Found, "(environment) replaces ldap.password ("+file+" line 1)") || strings.Contains(o.Stdout, "hush") {
		t.Errorf("exit code %d, %+v", o.Code, configuration)
	}
}

// TestNoSettings tests that the absence of any setting is named in addition to the missing keys.
func TestNoSettings(t *testing.T) {
	t.Parallel()
	o := invoke(t, []string{"HOME=/root"}, "run")
	lines := o.With(MsgNoSettings)
	if o.Code != exitUsage || len(lines) != 1 || !mentions(lines[0], "--env-file") || len(o.With(MsgBadConfiguration)) != 6 {
		t.Errorf("exit code %d, %s", o.Code, o.Stderr)
	}
	o = invoke(t, []string{"HOME=/root"}, "check")
	if o.Code != exitUsage || !containsAll(o.Stdout, MsgNoSettings, "--env-file") || strings.Count(o.Stdout, MsgNoSettings) != 1 {
		t.Errorf("exit code %d, %s", o.Code, o.Stdout)
	}
	if o = invoke(t, []string{"LOG_LEVEL=info"}, "run"); len(o.With(MsgNoSettings)) != 0 {
		t.Error(o.Stderr)
	}
}

// linkState creates a symbolic link in the state directory. It leads to a file, which must not
// change until the test ends.
func (s *fixture) linkState(t *testing.T, name string) {
	t.Helper()
	file, link := filepath.Join(t.TempDir(), "file"), filepath.Join(s.StateDir, name)
	err := os.WriteFile(file, []byte("content"), 0o600)
	if err = errors.Join(err, os.MkdirAll(s.StateDir, 0o700), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if content, err := os.ReadFile(file); err != nil || string(content) != "content" {
			t.Errorf("the file behind the link contains %q, %v", content, err)
		}
	})
}

// TestSharedStateDirectory tests that a state directory that others can write is used, with
// one warning.
func TestSharedStateDirectory(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]os.FileMode{"private": 0o700, "fsGroup": 0o770 | os.ModeSetgid, "sticky": 0o777 | os.ModeSticky} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			if err := errors.Join(os.MkdirAll(s.StateDir, 0o700), os.Chmod(s.StateDir, mode)); err != nil {
				t.Fatal(err)
			}
			o := s.invoke(t, "sync")
			var warnings []testlog.Line
			for _, line := range o.Log {
				if line.Text("message") == MsgStateDirShared {
					warnings = append(warnings, line)
				}
			}
			switch {
			case o.Code != exitDone:
				t.Errorf("exit code %d", o.Code)
			case name == "private" && len(warnings) > 0, name != "private" && len(warnings) != 1:
				t.Errorf("warnings %v", warnings)
			case len(warnings) == 1:
				requireMentions(t, warnings[0], s.StateDir, "fsGroup")
				if warnings[0].Text("level") != "warn" || warnings[0].Text("remedy") == "" {
					t.Errorf("warning %v", warnings[0])
				}
			}
		})
	}
}

// unpackState returns a state directory with the compressed file at path.
func unpackState(t *testing.T, path string) (dir string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decompressed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(decompressed)
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
	s := newFixture(t)
	s.env = s.env.With(testenv.Settings{
		"qualys.customerUuid": "", "upload.batch-size": "0", "ldap.protocol": "LDAPX", "service.cron-expression": "0 0 30 2 *",
	})
	o := s.invoke(t) // the default command is run
	if o.Code != exitUsage || o.Stdout != "" || len(o.Log) != 4 {
		t.Fatalf("exit code %d, stdout %q, log %v", o.Code, o.Stdout, o.Log)
	}
	for _, key := range []string{"qualys.customerUuid", "upload.batch-size", "ldap.protocol", "service.cron-expression"} {
		if !slices.ContainsFunc(o.With(MsgBadConfiguration), func(l testlog.Line) bool { return mentions(l, key) && l.Text("remedy") != "" }) {
			t.Errorf("no error for %s in %v", key, o.Log)
		}
	}
}

// TestGlobalFlags tests that all commands refuse bad values of the global flags.
func TestGlobalFlags(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"version"}, {"keys"}, {"help"}, {"help", "sync"}, {"completion", "bash"}, {"sandbox", "--gateway", "none"}, {"demo", "--users", "1"}, {"healthcheck"}, {}} {
		o := invoke(t, nil, append(args, "--log-level", "loud", "--log-format", "xml")...)
		if lines := o.With(MsgBadUsage); o.Code != exitUsage || o.Stdout != "" || len(o.Log) != 2 || len(lines) != 2 || !mentions(lines[0], "--log-format", "json") || !mentions(lines[1], "--log-level", "trace") {
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

// TestErrorDocument tests the JSON document of a command that fails before it has a result.
func TestErrorDocument(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*fixture)
		code   int
		lines  int
	}{
		"locked": {func(s *fixture) { s.lockState(t) }, exitLocked, 1},
		"bad configuration": {func(s *fixture) {
			s.env = s.env.With(testenv.Settings{"qualys.profileUuid": "", "thread-pool.size": "65"})
		}, exitUsage, 2},
	} {
		s := newFixture(t)
		test.change(s)
		for _, command := range []string{"sync", "status"} {
			t.Run(name+", "+command, func(t *testing.T) {
				o := s.invoke(t, command, "--output", "json")
				d := decode[errorDocument](t, o)
				if o.Code != test.code || d.ExitCode != test.code || len(o.Errors()) != test.lines {
					t.Errorf("%+v", o)
				}
				for _, l := range o.Log {
					if !strings.Contains(d.Error, l.Text("error")) || l.Text("remedy") == "" || !strings.Contains(d.Remedy, l.Text("remedy")) || strings.Contains(d.Error, l.Text("remedy")) {
						t.Errorf("document %+v of %v", d, l)
					}
				}
				if o := s.invoke(t, command); o.Stdout != "" || o.Code != test.code {
					t.Errorf("as text: %+v", o)
				}
			})
		}
	}
}

// TestBrokenPipe tests the exit code of a command whose stdout is a closed pipe.
func TestBrokenPipe(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	for _, args := range [][]string{{"version"}, {"keys"}, {"status"}, {"check"}, {"sync"}, {"sync", "--output", "json"}, {"sandbox", "--ldap", "127.0.0.1:0", "--ldaps", "", "--gateway", "127.0.0.1:0"}} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			reader.Close()
			defer writer.Close()
			var stderr bytes.Buffer
			p := &program{environ: s.env.Environ(), stdout: writer, stderr: &stderr, levelHook: newLevelHook(), hooks: testHooks}
			defer p.levelHook.close()
			if code := p.execute(t.Context(), args); code != exitFailed || !strings.Contains(stderr.String(), syscall.EPIPE.Error()) {
				t.Errorf("exit code %d, log %s", code, stderr.String())
			}
		})
	}
}
