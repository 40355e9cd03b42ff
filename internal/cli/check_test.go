package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/check"
)

// checked reads the one JSON document of a check.
func (o outcome) checked(t *testing.T) check.Report {
	t.Helper()
	var report check.Report
	decoder := json.NewDecoder(strings.NewReader(o.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&report); err != nil {
		t.Fatalf("%v in %s", err, o.stdout)
	}
	if _, err := decoder.Token(); err != io.EOF {
		t.Errorf("more than one document: %s", o.stdout)
	}
	return report
}

// TestCheckExitCodes: a check ends with the code that the run would end with.
func TestCheckExitCodes(t *testing.T) {
	cases := map[string]struct {
		change func(t *testing.T, s *site)
		code   int
		failed []string // the lines
	}{
		"all is well":      {func(*testing.T, *site) {}, exitDone, nil},
		"beside a daemon":  {func(t *testing.T, s *site) { hold(t, s) }, exitDone, nil},
		"bad value":        {func(_ *testing.T, s *site) { s.env["thread-pool.size"] = "65" }, exitUsage, []string{"configuration"}},
		"no directory":     {func(t *testing.T, s *site) { s.env["ldap.port"] = fmt.Sprint(unusedPort(t)) }, exitFailed, []string{"directory"}},
		"wrong password":   {func(_ *testing.T, s *site) { s.env["ldap.password"] = "wrong" }, exitRefused, []string{"bind"}},
		"wrong credential": {func(_ *testing.T, s *site) { s.env["qualys.user.password"] = "wrong" }, exitRefused, []string{"gateway login"}},
		"wrong base": {func(_ *testing.T, s *site) { s.env["profile.baseContext"] = "OU=Nowhere,DC=corp,DC=example,DC=com" },
			exitRefused, []string{"base context"}},
		"two things wrong, the first counts": {func(t *testing.T, s *site) {
			s.intercepting(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
				w.WriteHeader(http.StatusForbidden)
				return true
			})
			s.env["ldap.port"] = fmt.Sprint(unusedPort(t))
		}, exitRefused, []string{"gateway login", "directory"}},
		"state directory": {func(t *testing.T, s *site) {
			s.env["service.state-dir"] = filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(s.env["service.state-dir"], nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, exitUsage, []string{"state directory"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			c.change(t, s)
			o := invoke(t, s.environ(), "check", "--output", "json")
			report := o.checked(t)
			var failed []string
			for _, c := range report.Checks {
				if c.Result == check.Fail {
					failed = append(failed, c.Name)
				}
			}
			if o.code != c.code || !slices.Equal(failed, c.failed) || report.OK != (o.code == exitDone) || len(o.errors()) != 0 {
				t.Errorf("exit code %d, failed %q, log %v", o.code, failed, o.log)
			}
		})
	}
}

func TestCheckPrintsText(t *testing.T) {
	s := newSite(t)
	o := invoke(t, s.environ(), "check")
	lines := strings.Split(o.stdout, "\n")
	if o.code != exitDone || !strings.HasPrefix(lines[0], "ok    configuration           complete") || strings.Contains(o.stdout, "\x1b") {
		t.Errorf("%+v", o)
	}
	// Plain LDAP, in one long line that can be searched, its remedy below.
	at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "warn  TLS  ") })
	if at < 0 || !strings.HasPrefix(lines[at+1], strings.Repeat(" ", textColumn)+"-> use LDAPS (port 636) or STARTTLS: set ldap.protocol, and give") {
		t.Errorf("stdout %s", o.stdout)
	}
	if !strings.Contains(o.stdout, "\n15 ok, 2 warn, 0 fail\n") { // that, and a missing cron expression
		t.Errorf("stdout %s", o.stdout)
	}
	if _, err := os.Stat(s.env["service.state-dir"]); err == nil {
		t.Error("a state directory was made")
	}
	s.env["service.cron-expression"] = "*/10 * * * *"
	if o := invoke(t, s.environ(), "check"); !strings.Contains(o.stdout, "ok    schedule                the next run would be at 20") {
		t.Errorf("stdout %s", o.stdout)
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
