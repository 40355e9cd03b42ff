package cli

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/config"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

func TestSyncPrintsText(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	o := s.invoke(t, "sync")
	if !strings.HasPrefix(o.Stdout, "processed (full): 20 users and 3 groups read, 23 changed, 23 uploaded, 0 deleted, 0 deletions held, 0 rejected, in ") || strings.Count(o.Stdout, "\n") != 1 {
		t.Errorf("stdout %q", o.Stdout)
	}
	if n := len(o.With(runFinished)); n != 1 {
		t.Errorf("%d summaries", n)
	}
	for _, next := range []struct {
		mode string
		args []string
	}{{"full", []string{"sync", "--full"}}, {"delta", []string{"sync"}}} {
		if o := s.invoke(t, next.args...); o.Code != exitDone || !strings.HasPrefix(o.Stdout, "processed ("+next.mode+")") || !strings.Contains(o.Stdout, " 0 changed, 0 uploaded") {
			t.Errorf("%v: %+v", next.args, o)
		}
	}
}

// document is the output of sync --output json.
type document struct {
	Result, Mode            string
	Error, Remedy, Class    string
	RunID                   string `json:"run_id"`
	Changed, Uploaded, Held int
	Deleted                 int
	DurationMS              *int64 `json:"duration_ms"`
	DryRun                  bool   `json:"dry_run"`
	Planned                 []plannedAsset
}

func TestSyncPrintsJSON(t *testing.T) {
	t.Parallel()
	for result, env := range map[string]testenv.Settings{"processed": {}, "failed": {"ldap.password": wrongPassword}} {
		t.Run(result, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.env = s.env.With(env)
			o := s.invoke(t, "sync", "--output", "json")
			got := decode[document](t, o)
			summary := o.With(runFinished)
			if len(summary) != 1 || got.Result != result || got.RunID != summary[0].Text("run_id") || got.DurationMS == nil ||
				got.Error != summary[0].Text("error") || got.Remedy != summary[0].Text("remedy") || got.Class != summary[0].Text("class") ||
				(got.Error == "") != (o.Code == exitDone) || (got.Remedy == "") != (o.Code == exitDone) {
				t.Errorf("%+v of %v", got, summary)
			}
			if got.DryRun || strings.Contains(o.Stdout, `"planned"`) {
				t.Errorf("document of a dry run: %s", o.Stdout)
			}
		})
	}
}

// newFixtureWithHeldDeletions returns a fixture with a state file. Three of its 23 objects were
// deleted since, more than the guard allows.
func newFixtureWithHeldDeletions(t *testing.T) *fixture {
	t.Helper()
	s := newFixture(t)
	s.env["sync.max-deletes"] = "2"
	if o := s.invoke(t, "sync"); o.Code != exitDone {
		t.Fatalf("%+v", o)
	}
	s.remove(t, 3)
	if o := s.invoke(t, "sync"); o.Code != exitHeld {
		t.Fatalf("%+v", o)
	}
	return s
}

func TestDeletionsStayHeld(t *testing.T) {
	t.Parallel()
	s := newFixtureWithHeldDeletions(t)
	for _, args := range [][]string{{"sync"}, {"sync", "--full"}} {
		o := s.invoke(t, args...)
		if o.Code != exitHeld || !strings.HasPrefix(o.Stdout, "held (") || !strings.Contains(o.Stdout, " 0 deleted, 3 deletions held,") || len(o.Errors()) != 0 {
			t.Fatalf("%v: %+v", args, o)
		}
		var warnings, summaries int
		for _, l := range o.Log {
			switch {
			case l.Number("held") != 3:
			case isRunSummary("held")(l):
				summaries++
			case l.Text("level") == "warn":
				warnings++
			}
		}
		if warnings != 1 || summaries != 1 {
			t.Errorf("%v: %d warnings, %d summaries with the number held: %v", args, warnings, summaries, o.Log)
		}
	}
	if s.deleted() != 0 {
		t.Errorf("%d deleted at the gateway", s.deleted())
	}
}

func TestDryRunOfHeldDeletions(t *testing.T) {
	t.Parallel()
	s := newFixtureWithHeldDeletions(t)
	if o := s.invoke(t, "sync", "--dry-run"); o.Code != exitHeld || !strings.Contains(o.Stdout, "3 deletions would be held, nothing sent (dry run)") || strings.Contains(o.Stdout, "delete ") {
		t.Errorf("%+v", o)
	}
	o := s.invoke(t, "sync", "--dry-run", "--allow-deletes", "--output", "json")
	if d := decode[document](t, o); o.Code != exitDone || d.Held != 0 || len(d.Planned) != 3 || d.Planned[0].Action != "delete" || d.Planned[0].Name == "" {
		t.Errorf("%+v", d)
	}
	if s.deleted() != 0 {
		t.Errorf("%d deleted at the gateway", s.deleted())
	}
}

func TestAllowDeletesReleasesHeldDeletions(t *testing.T) {
	t.Parallel()
	s := newFixtureWithHeldDeletions(t)
	if o := s.invoke(t, "sync", "--allow-deletes", "--output", "json"); o.Code != exitDone || decode[document](t, o).Deleted != 3 {
		t.Errorf("%+v", o)
	}
	if s.deleted() != 3 {
		t.Errorf("%d deleted at the gateway", s.deleted())
	}
	if o := s.invoke(t, "sync", "--full"); o.Code != exitDone {
		t.Errorf("%+v", o)
	}
}

// TestUnreadableUsers tests the result of a run in which some users are unreadable, and of one in
// which all are.
func TestUnreadableUsers(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	if o := s.invoke(t, "sync"); o.Code != exitDone {
		t.Fatalf("%+v", o)
	}
	before := s.Gateway.Held()
	s.Must(s.Hide(userDN(3), "userAccountControl"))
	s.Must(s.Hide(userDN(4), "whenCreated"))
	if o := s.invoke(t, "sync", "--full"); o.Code != exitDone || !strings.HasPrefix(o.Stdout, "partial (full)") || !strings.Contains(o.Stdout, ", 2 unreadable, in ") {
		t.Errorf("%+v", o)
	}
	o := s.invoke(t, "sync", "--full", "--output", "json")
	if d := decode[state.Run](t, o); o.Code != exitDone || d.Result != syncrun.Partial || d.Unreadable != 2 || d.Users != 18 {
		t.Errorf("%+v", d)
	}
	s.Must(s.Hide(baseDN, "userAccountControl"))
	for _, args := range [][]string{{"sync"}, {"sync", "--full", "--allow-deletes"}} {
		o := s.invoke(t, args...)
		lines := o.With(runFinished)
		if o.Code != exitRefused || len(lines) != 1 || !strings.Contains(lines[0].Text("error"), "userAccountControl of users below "+baseDN) ||
			!strings.Contains(lines[0].Text("remedy"), `dsacls "`+baseDN+`" /I:T /G "svc-qualys@corp.example.com:LCRP"`) {
			t.Errorf("%v: %+v", args, o)
		}
	}
	if after := s.Gateway.Held(); !maps.Equal(before, after) {
		t.Error("assets changed")
	}
}

// TestResend tests that --resend sends every object again, and that --dry-run shows them.
func TestResend(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.invoke(t, "sync")
	if o := s.invoke(t, "sync", "--resend", "--dry-run", "--output", "json"); o.Code != exitDone || len(decode[document](t, o).Planned) != 23 {
		t.Errorf("%+v", o)
	}
	if o := s.invoke(t, "sync"); o.Code != exitDone || !strings.HasPrefix(o.Stdout, "processed (delta)") || !strings.Contains(o.Stdout, " 0 uploaded") {
		t.Errorf("after the dry run: %+v", o)
	}
	s.remove(t, 2)
	o := s.invoke(t, "sync", "--resend", "--output", "json")
	if got := decode[document](t, o); o.Code != exitDone || got.Mode != "full" || got.Uploaded != 21 || got.Deleted != 2 {
		t.Errorf("%+v", o)
	}
	if o := s.invoke(t, "sync", "--full"); o.Code != exitDone || !strings.Contains(o.Stdout, " 0 uploaded, 0 deleted") {
		t.Errorf("afterwards: %+v", o)
	}
}

// TestStateFileRestored tests that a state file that was put back from a copy is logged once,
// and that everything is sent again.
func TestStateFileRestored(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.invoke(t, "sync")
	path := filepath.Join(s.StateDir, "adconnector.db")
	copied, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s.Must(s.Modify(userDN(3), "title", "Changed"))
	s.invoke(t, "sync")
	s.Must(s.Modify(userDN(3), "title"))
	if err := os.WriteFile(path, copied, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, run := range []struct {
		args     []string
		warnings int
		result   string
	}{
		{[]string{"sync", "--dry-run"}, 1, "23 changed"},
		{[]string{"sync"}, 1, "23 uploaded"},
		{[]string{"sync"}, 0, " 0 uploaded"},
		{[]string{"sync", "--full"}, 0, " 0 uploaded"},
	} {
		o := s.invoke(t, run.args...)
		lines := o.With(MsgStateFileRestored)
		if o.Code != exitDone || len(lines) != run.warnings || !strings.Contains(o.Stdout, run.result) {
			t.Errorf("%v: %d warnings, %+v", run.args, len(lines), o)
		}
		for _, l := range lines {
			if l.Text("level") != "warn" || l.Text("component") != "state" || l.Text("error") == "" || l.Text("remedy") == "" {
				t.Errorf("%v", l)
			}
		}
	}
}

// TestGenerationFileInvalid tests that an invalid generation file is logged and replaced, and
// that nothing is sent again.
func TestGenerationFileInvalid(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.invoke(t, "sync")
	if err := os.WriteFile(filepath.Join(s.StateDir, "adconnector.generation"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, warnings := range []int{1, 0} {
		o := s.invoke(t, "sync")
		lines := o.With(MsgGenerationInvalid)
		if o.Code != exitDone || len(lines) != warnings || !strings.Contains(o.Stdout, " 0 uploaded") {
			t.Errorf("%d warnings, %+v", len(lines), o)
		}
		if warnings > 0 && !strings.Contains(lines[0].Text("remedy"), "--resend") {
			t.Errorf("%v", lines[0])
		}
	}
}

// TestGuardSettings tests the limits of the guard.
func TestGuardSettings(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		number, percent string
		code            int
	}{
		"below both": {"6", "50", exitDone}, "above the number": {"5", "50", exitHeld}, "above the percentage": {"6", "5", exitHeld}, "no deletions allowed": {"0", "0", exitHeld},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.env["sync.max-deletes"], s.env["SYNC_MAX_DELETES_PERCENT"] = c.number, c.percent
			s.invoke(t, "sync")
			s.remove(t, 6)
			if o := s.invoke(t, "sync"); o.Code != c.code {
				t.Errorf("%+v", o)
			}
		})
	}
}

// TestFullInterval tests that a full sync runs if the last one is too old.
func TestFullInterval(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.invoke(t, "sync")
	h := testHooks
	h.config = func(c *config.Config) { c.Run.FullInterval = time.Nanosecond }
	o := invokeWith(t.Context(), t, h, s.env.Environ(), "sync", "--output", "json")
	if mode := decode[document](t, o).Mode; mode != "full" {
		t.Errorf("mode %s", mode)
	}
}

func TestDryRunPrintsText(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	o := s.invoke(t, "sync", "--dry-run")
	if o.Code != exitDone || !strings.Contains(o.Stdout, "23 changed, 0 deletions would be held, nothing sent (dry run)") {
		t.Errorf("%+v", o)
	}
	lines := strings.Split(strings.TrimSpace(o.Stdout), "\n")
	if len(lines) != 24 || !slices.ContainsFunc(lines, func(l string) bool {
		return strings.HasPrefix(l, "send   user  ") && strings.HasSuffix(l, ` "user7"`)
	}) || !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "send   group ") }) {
		t.Errorf("stdout %s", o.Stdout)
	}
}

func TestDryRunPrintsJSON(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	o := s.invoke(t, "sync", "--dry-run", "--output", "json")
	d := decode[document](t, o)
	if o.Code != exitDone || !d.DryRun || d.Changed != 23 || d.Uploaded != 0 || len(d.Planned) != 23 {
		t.Errorf("%+v", d)
	}
	for _, p := range d.Planned {
		if p.Action != "send" || p.Kind != "user" && p.Kind != "group" || !strings.HasPrefix(p.SID, "S-1-5-21-") || len(p.GUID) != 36 || p.Name == "" {
			t.Errorf("planned %+v", p)
		}
	}
}

func TestDryRunHasNoEffect(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.invoke(t, "sync", "--dry-run")
	if n := len(s.Gateway.Requests()); n != 0 {
		t.Errorf("%d requests to the gateway", n)
	}
	if _, err := os.Stat(s.StateDir); !os.IsNotExist(err) {
		t.Errorf("state directory created: %v", err)
	}
	if o := s.invoke(t, "sync"); o.Code != exitDone || !strings.Contains(o.Stdout, "23 uploaded") {
		t.Errorf("%+v", o)
	}
	if o := s.invoke(t, "sync", "--dry-run", "--full", "--output", "json"); !strings.Contains(o.Stdout, `"planned": []`) {
		t.Errorf("%s", o.Stdout)
	}
}

func TestConsoleFormat(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	var stderr bytes.Buffer
	p := &program{environ: s.env.Environ(), stdout: &bytes.Buffer{}, stderr: &stderr, levelHook: newLevelHook(), hooks: testHooks}
	defer p.levelHook.close()
	if code := p.execute(t.Context(), []string{"sync", "--log-format", "console"}); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if text := stderr.String(); !strings.Contains(text, "INF run finished") || strings.Contains(text, "\x1b") {
		t.Errorf("log %q", text)
	}
}

// TestConnectionFromConsole tests that without ldap.host, connection and profile come from the
// gateway.
func TestConnectionFromConsole(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.Console("LDAP", baseDN)
	s.env = s.env.With(consoleSettings)
	if o := s.invoke(t, "sync"); o.Code != exitDone || len(s.Gateway.Users()) != 20 {
		t.Errorf("%+v", o)
	}
}

// TestGatewayCAFile tests that the connector trusts the certificates in gateway.ca-file.
func TestGatewayCAFile(t *testing.T) {
	t.Parallel()
	e := testenv.New(t, testenv.Options{TLS: true})
	if o := invoke(t, e.Settings().Environ(), "sync"); o.Code != exitDone || len(e.Gateway.Users()) == 0 {
		t.Errorf("%+v", o)
	}
	if o := invoke(t, e.Settings().With(testenv.Settings{"gateway.ca-file": ""}).Environ(), "sync"); o.Code == exitDone || len(o.Errors()) != 1 {
		t.Errorf("without it: %+v", o)
	}
}
