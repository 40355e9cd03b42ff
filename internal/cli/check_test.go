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
	"adconnector/test/ports"
	"adconnector/test/testenv"
)

// TestCheckExitCodes: a check ends with the code that the run would end with.
func TestCheckExitCodes(t *testing.T) {
	refusingPort := func(t *testing.T, s *site) { s.env["ldap.port"] = strconv.Itoa(ports.Refusing(t)) }
	cases := map[string]struct {
		env    testenv.Settings // in place of those of the site
		change func(t *testing.T, s *site)
		code   int
		failed []string // the lines
	}{
		"all is well":      {code: exitDone},
		"beside a daemon":  {change: func(t *testing.T, s *site) { s.hold(t) }, code: exitDone},
		"bad value":        {env: testenv.Settings{"thread-pool.size": "65"}, code: exitUsage, failed: []string{"configuration"}},
		"no directory":     {change: refusingPort, code: exitFailed, failed: []string{"directory"}},
		"wrong password":   {env: testenv.Settings{"ldap.password": wrong}, code: exitRefused, failed: []string{"bind"}},
		"wrong credential": {env: testenv.Settings{"qualys.user.password": wrong}, code: exitRefused, failed: []string{"gateway login"}},
		"wrong base": {env: testenv.Settings{"profile.baseContext": "OU=Nowhere,DC=corp,DC=example,DC=com"},
			code: exitRefused, failed: []string{"base context"}},
		"two things wrong, the first counts": {change: func(t *testing.T, s *site) {
			s.Gateway.SetFront(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "") })
			refusingPort(t, s)
		}, code: exitRefused, failed: []string{"gateway login", "directory"}},
		"state directory": {change: func(t *testing.T, s *site) { s.env["service.state-dir"] = blankFile(t) },
			code: exitUsage, failed: []string{"state directory"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
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

func TestCheckPrintsText(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.invoke(t, "check")
	lines := strings.Split(o.Stdout, "\n")
	if o.Code != exitDone || !strings.HasPrefix(lines[0], "ok    configuration           complete") || strings.Contains(o.Stdout, "\x1b") {
		t.Errorf("%+v", o)
	}
	// Plain LDAP, in one long line that can be searched, its remedy below.
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "warn  TLS  ") })
	if at < 0 || !strings.HasPrefix(lines[at+1], strings.Repeat(" ", textColumn)+"-> ") || !strings.Contains(lines[at+1], "ldap.protocol") {
		t.Errorf("stdout %s", o.Stdout)
	}
	if !strings.Contains(o.Stdout, "\n15 ok, 2 warn, 0 fail\n") { // that, and a missing cron expression
		t.Errorf("stdout %s", o.Stdout)
	}
	if _, err := os.Stat(s.StateDir); err == nil {
		t.Error("a state directory was made")
	}
	s.env["service.cron-expression"] = "*/10 * * * *"
	if o := s.invoke(t, "check"); !strings.Contains(o.Stdout, "ok    schedule                the next run would be at 20") {
		t.Errorf("stdout %s", o.Stdout)
	}
}

// TestChecklistOnATerminal: in colours, and no line longer than it is wide, but for a
// word that is.
func TestChecklistOnATerminal(t *testing.T) {
	var out bytes.Buffer
	list := newChecklist(&out, false, true, true)
	long := strings.Repeat("word ", 60)
	list.show(check.Check{Name: "bind", Result: check.Fail, Found: long + "\nsecond", Remedy: long + strings.Repeat("x", 120)})
	if err := list.end(check.Report{Checks: []check.Check{{Result: check.Fail}}}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if !strings.HasPrefix(text, "\x1b[1;31mfail  \x1b[0mbind") || !strings.HasSuffix(text, "\n0 ok, 0 warn, 1 fail\n") || !strings.Contains(text, "\n"+strings.Repeat(" ", textColumn)+"second\n") {
		t.Errorf("%q", text)
	}
	for line := range strings.Lines(strings.ReplaceAll(strings.ReplaceAll(text, "\x1b[1;31m", ""), "\x1b[0m", "")) {
		if len(strings.TrimSpace(line)) > 2 && len(strings.TrimRight(line, "\n")) > terminalWidth && !strings.Contains(line, "xxx") {
			t.Errorf("%d wide: %s", len(line), line)
		}
	}
}

// TestChecklistOfWhatIsHostile: what others say moves no cursor.
func TestChecklistOfWhatIsHostile(t *testing.T) {
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		newChecklist(&out, false, terminal, false).show(check.Check{Name: "bind", Result: check.Fail, Found: "one\x1b[2J\rtwo\nthree\u009b1m", Remedy: "do\x07 this\x1b]0;x"})
		if text := out.String(); strings.ContainsAny(text, "\x1b\r\x07\u009b") || !strings.Contains(text, "one [2J two\n"+strings.Repeat(" ", textColumn)+"three 1m\n") || !strings.Contains(text, "-> do this ]0;x\n") {
			t.Errorf("%q", text)
		}
	}
}

func TestColours(t *testing.T) {
	for name, c := range map[string]struct {
		environ []string
		want    bool
	}{
		"by default": {nil, true}, "NO_COLOR": {[]string{"NO_COLOR=1"}, false}, "empty NO_COLOR": {[]string{"NO_COLOR="}, true}, "dumb": {[]string{"TERM=dumb"}, false},
		"some terminal": {[]string{"TERM=xterm"}, true},
	} {
		if got := (&program{environ: c.environ}).wantsColour(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	var out bytes.Buffer
	newChecklist(&out, false, false, true).show(check.Check{Name: "bind", Result: check.OK, Found: "it is well"})
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("colours for a file: %q", out.String())
	}
}
