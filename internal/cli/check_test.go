package cli

import (
	"bytes"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/check"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/test/ports"
	"adconnector/test/testenv"
)

// TestCheckExitCodes tests that a check has the exit code of a run with the same failure.
func TestCheckExitCodes(t *testing.T) {
	refusingPort := func(t *testing.T, s *fixture) { s.env["ldap.port"] = strconv.Itoa(ports.Refusing(t)) }
	cases := map[string]struct {
		env    testenv.Settings // override those of the fixture
		change func(t *testing.T, s *fixture)
		code   int
		failed []string // names of the checks
	}{
		"no failure":       {code: exitDone},
		"daemon running":   {change: func(t *testing.T, s *fixture) { s.lockState(t) }, code: exitDone},
		"bad value":        {env: testenv.Settings{"thread-pool.size": "65"}, code: exitUsage, failed: []string{"configuration"}},
		"no directory":     {change: refusingPort, code: exitFailed, failed: []string{"directory"}},
		"wrong password":   {env: testenv.Settings{"ldap.password": wrongPassword}, code: exitRefused, failed: []string{"bind"}},
		"wrong credential": {env: testenv.Settings{"qualys.user.password": wrongPassword}, code: exitRefused, failed: []string{"gateway login"}},
		"wrong base": {env: testenv.Settings{"profile.baseContext": "OU=Nowhere,DC=corp,DC=example,DC=com"},
			code: exitRefused, failed: []string{"base context"}},
		"two failures, the first has the exit code": {change: func(t *testing.T, s *fixture) {
			s.Gateway.SetFront(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "") })
			refusingPort(t, s)
		}, code: exitRefused, failed: []string{"gateway login", "directory"}},
		"state directory": {change: func(t *testing.T, s *fixture) { s.env["service.state-dir"] = emptyFile(t) },
			code: exitUsage, failed: []string{"state directory"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.env = s.env.With(c.env)
			if c.change != nil {
				c.change(t, s)
			}
			o := s.invoke(t, "check", "--output", "json")
			report := decode[check.Report](t, o)
			var failed []string
			for _, c := range report.Checks {
				if c.Result == check.Fail {
					failed = append(failed, c.Name)
				}
			}
			if o.Code != c.code || !slices.Equal(failed, c.failed) || report.OK != (o.Code == exitDone) || len(o.Errors()) != 0 {
				t.Errorf("exit code %d, failed %q, log %v", o.Code, failed, o.Log)
			}
		})
	}
}

// TestCheckLastLogon checks that the option reaches the check.
func TestCheckLastLogon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.NewPeer("127.0.0.2", domaincontroller.Options{Name: "dc2"})
	for mode, want := range map[string]string{"REPLICATED": "set sync.last-logon", "ALL_CONTROLLERS": "can be asked\n"} {
		s.env["sync.last-logon"] = mode
		if o := s.invoke(t, "check"); !strings.Contains(o.Stdout, want) {
			t.Errorf("%s: %s", mode, o.Stdout)
		}
	}
}

func TestCheckPrintsText(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	o := s.invoke(t, "check")
	lines := strings.Split(o.Stdout, "\n")
	if o.Code != exitDone || !strings.HasPrefix(lines[0], "ok    configuration           complete") || strings.Contains(o.Stdout, "\x1b") {
		t.Errorf("%+v", o)
	}
	// Plain LDAP is one long line that can be searched. The remedy is the next line.
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "warn  TLS  ") })
	if at < 0 || !strings.HasPrefix(lines[at+1], strings.Repeat(" ", textColumn)+"-> ") || !strings.Contains(lines[at+1], "ldap.protocol") {
		t.Errorf("stdout %s", o.Stdout)
	}
	if !strings.Contains(o.Stdout, "\n20 ok, 2 warn, 0 fail\n") { // plain LDAP, and no cron expression
		t.Errorf("stdout %s", o.Stdout)
	}
	if _, err := os.Stat(s.StateDir); err == nil {
		t.Error("state directory created")
	}
	s.env["service.cron-expression"] = "*/10 * * * *"
	if o := s.invoke(t, "check"); !strings.Contains(o.Stdout, "ok    schedule                next runs: ") {
		t.Errorf("stdout %s", o.Stdout)
	}
}

// TestSkippedChecks tests that checks that depend on a failed one take one line, and are counted
// apart from warnings. The JSON document has each of them.
func TestSkippedChecks(t *testing.T) {
	t.Parallel()
	o := invoke(t, nil, "check")
	if o.Code != exitUsage || strings.Count(o.Stdout, "skipped: ") != 1 || strings.Count(o.Stdout, "skip  ") != 1 || strings.Contains(o.Stdout, "warn  ") ||
		!strings.HasPrefix(o.Stdout, "fail  configuration           "+MsgNoSettings+"\n") || !strings.HasSuffix(o.Stdout, "\n0 ok, 0 warn, 1 fail, 21 skipped\n") {
		t.Errorf("exit code %d: %s", o.Code, o.Stdout)
	}
	report := decode[check.Report](t, invoke(t, nil, "check", "--output", "json"))
	for _, c := range report.Checks {
		if c.Skipped != (c.Name != "configuration") || c.Skipped && c.Result != check.Warn {
			t.Errorf("%+v", c)
		}
	}

	var out bytes.Buffer
	list := newChecklist(&out, false, false, false)
	for _, c := range []check.Check{
		{Name: "one", Result: check.Warn, Found: "skipped: first", Skipped: true}, {Name: "two", Result: check.OK, Found: "fine"},
		{Name: "three", Result: check.Warn, Found: "skipped: second", Skipped: true}, {Name: "four", Result: check.Warn, Found: "skipped: third", Skipped: true},
	} {
		list.print(c)
	}
	if err := list.finish(check.Report{}); err != nil {
		t.Fatal(err)
	}
	want := "skip  one                     skipped: first\nok    two                     fine\nskip  2 checks                skipped: second (three, four)\n\n0 ok, 0 warn, 0 fail\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// TestExposedFiles tests that an env file that others can read is reported by check and in the log.
func TestExposedFiles(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	file := emptyFile(t)
	if err := os.WriteFile(file, []byte("ldap.password="+s.env["ldap.password"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o644: 1, 0o640: 1} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		o := s.invoke(t, "check", "--env-file", file)
		if o.Code != exitDone || strings.Count(o.Stdout, "-> env file "+file+": chmod 600 "+file+"\n") != want {
			t.Errorf("%o: exit code %d, %s", mode, o.Code, o.Stdout)
		}
		lines := s.invoke(t, "sync", "--env-file", file).With(MsgFileExposed)
		if len(lines) != want || want > 0 && (lines[0].Text("remedy") != "chmod 600 "+file || lines[0].Text("level") != "warn") {
			t.Errorf("%o: %v", mode, lines)
		}
	}
}

// TestChecklistOnTerminal tests the colors and the width of lines. Only a long word can
// exceed it.
func TestChecklistOnTerminal(t *testing.T) {
	var out bytes.Buffer
	list := newChecklist(&out, false, true, true)
	long := strings.Repeat("word ", 60)
	list.print(check.Check{Name: "bind", Result: check.Fail, Found: long + "\nsecond", Remedy: long + strings.Repeat("x", 120)})
	if err := list.finish(check.Report{Checks: []check.Check{{Result: check.Fail}}}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if !strings.HasPrefix(text, "\x1b[1;31mfail  \x1b[0mbind") || !strings.HasSuffix(text, "\n0 ok, 0 warn, 1 fail\n") || !strings.Contains(text, "\n"+strings.Repeat(" ", textColumn)+"second\n") {
		t.Errorf("%q", text)
	}
	for line := range strings.Lines(strings.ReplaceAll(strings.ReplaceAll(text, "\x1b[1;31m", ""), "\x1b[0m", "")) {
		if len(strings.TrimSpace(line)) > 2 && len(strings.TrimRight(line, "\n")) > terminalWidth && !strings.Contains(line, "xxx") {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}

// TestChecklistRemovesControlCharacters tests texts from servers.
func TestChecklistRemovesControlCharacters(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		newChecklist(&out, false, terminal, false).print(check.Check{Name: "bind", Result: check.Fail, Found: "one\x1b[2J\rtwo\nthree\u009b1m", Remedy: "do\x07 this\x1b]0;x"})
		if text := out.String(); strings.ContainsAny(text, "\x1b\r\x07\u009b") || !strings.Contains(text, "one [2J two\n"+strings.Repeat(" ", textColumn)+"three 1m\n") || !strings.Contains(text, "-> do this ]0;x\n") {
			t.Errorf("%q", text)
		}
	}
}

func TestColors(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		want    bool
	}{
		"default": {nil, true}, "NO_COLOR": {[]string{"NO_COLOR=1"}, false}, "empty NO_COLOR": {[]string{"NO_COLOR="}, true}, "dumb terminal": {[]string{"TERM=dumb"}, false},
		"other terminal": {[]string{"TERM=xterm"}, true},
	} {
		if got := (&program{environ: c.environ}).allowsColors(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	var out bytes.Buffer
	newChecklist(&out, false, false, true).print(check.Check{Name: "bind", Result: check.OK, Found: "bound"})
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("colors in a file: %q", out.String())
	}
}
