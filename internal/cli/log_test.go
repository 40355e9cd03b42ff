package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// varying is what differs from run to run in lines that are the same.
var varying = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`"(time|next_run)":"[^"]*"`), `"$1":"TIME"`},
	{regexp.MustCompile(`"duration_ms":\d+`), `"duration_ms":0`},
	{regexp.MustCompile(`"(run_id|connection)":"[0-9a-f-]{36}"`), `"$1":"UUID"`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), `127.0.0.1:PORT`},
}

// normalized returns a log whose lines can be compared. Users and groups are read at the
// same time, so the lines between the plan and the next state are sorted.
func normalized(log string) string {
	for _, v := range varying {
		log = v.pattern.ReplaceAllString(log, v.instead)
	}
	lines := strings.SplitAfter(log, "\n")
	from := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"invocation_id":`) }) + 1
	to := from + slices.IndexFunc(lines[from:], func(l string) bool { return strings.Contains(l, `"message":"`+connectorState+`"`) })
	slices.Sort(lines[from:to])
	return strings.Join(lines, "")
}

// TestLogOfTwoRuns keeps the lines of a full run and of a delta after it, and the
// order of their keys.
func TestLogOfTwoRuns(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["thread-pool.size"] = "1"
	var got strings.Builder
	log := func(heading string) {
		t.Helper()
		o := s.invoke(t, "sync")
		if o.Code != exitDone {
			t.Fatalf("exit code %d: %s", o.Code, o.Stderr)
		}
		fmt.Fprintf(&got, "# %s\n%s", heading, normalized(o.Stderr))
	}
	log("full")
	s.Must(s.Modify(userDN(3), "title", "Changed"))
	s.Must(s.Delete(userDN(4)))
	s.AddUser(userDN(100))
	log("delta")
	const golden = "testdata/log.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s\n(-update rewrites %s)", got.String(), want, golden)
	}
}

// TestTrace: each request to the directory is a line, a page of a search among them.
func TestTrace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["ldap.page-size"] = "5"
	pages := map[string]int{}
	for _, level := range []string{"debug", "trace"} {
		for _, l := range s.invoke(t, "sync", "--full", "--log-level", level).With(syncrun.MsgDirectoryRequest) {
			if l.Text("level") != "trace" || l.Text("class") != string(fault.Done) || l["duration_ms"] == nil {
				t.Errorf("%v", l)
			}
			if l.Text("call") == "search" {
				pages[level]++
			}
		}
	}
	if pages["debug"] != 0 || pages["trace"] < 20/5+1 {
		t.Errorf("pages %v", pages)
	}
}

// TestRunID: every line from the first one of a run to its summary has the run's ID, whatever
// the component, and the times of the lines do not decrease.
func TestRunID(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]testenv.Settings{"first": nil, "refused bind": {"ldap.password": wrong}, "with posture": {"profile.assets": "IDENTITIES_WITH_SECURITY_POSTURE"}, "from the console": consoleKeys} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.Console("LDAP", base)
			s.env = s.env.With(env)
			for range 2 { // the second one is a delta sync
				began := time.Now().Truncate(time.Millisecond)
				o := s.invoke(t, "sync", "--log-level", "trace")
				first := slices.IndexFunc(o.Log, func(l testlog.Line) bool { return l.Text("run_id") != "" })
				last := slices.IndexFunc(o.Log, testlog.Message(runFinished))
				if first != 0 || last != len(o.Log)-1 {
					t.Fatalf("lines %d to %d of %v", first, last, o.Log)
				}
				id := o.Log[last].Text("run_id")
				messages := map[string]int{}
				for _, l := range o.Log[first:last] {
					messages[l.Text("message")]++
					if l.Text("run_id") != id || l.Text("connection") != testenv.ConnectionUUID {
						t.Errorf("run %s: %v", id, l)
					}
					at, err := time.Parse(time.RFC3339, l.Text("time"))
					if err != nil || at.Before(began) {
						t.Errorf("time in %v, the line before has %s", l, began)
					}
					began = at
				}
				if messages[gateway.MsgAnswered] == 0 || messages[syncrun.MsgDirectoryRequest] == 0 || messages[connectorState] < 2 {
					t.Errorf("messages %v", messages)
				}
			}
		})
	}
}

// TestLevelBySignal: SIGUSR1 shows more, SIGUSR2 less, and the log shows each change.
func TestLevelBySignal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["log.level"] = never, "warn"
	loggingIn, release := make(chan struct{}), make(chan struct{})
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.R.URL.Path == testenv.LoginPath {
			close(loggingIn)
			<-release
		}
		return false
	})
	c := s.start(t)
	seen := 0
	changed := func(signal syscall.Signal, from, to string) {
		t.Helper()
		c.Signal(t, signal)
		_, seen = c.Await(t, seen, func(l testlog.Line) bool {
			return l.Text("message") == MsgLevelChanged && l.Text("from") == from && l.Text("to") == to && l.Text("component") == "log" && l.Text("level") == "info"
		})
	}
	awaitEvent(t, loggingIn, c.Ended) // it follows signals by then
	if lines := c.Log.Lines(); len(lines) != 0 {
		t.Errorf("lines at warn: %v", lines)
	}
	changed(syscall.SIGUSR1, "warn", "info")
	changed(syscall.SIGUSR1, "info", "debug")
	close(release)
	c.Await(t, seen, testlog.Field("level", "debug"))
	c.Await(t, seen, testlog.Message(runFinished))
	changed(syscall.SIGUSR2, "debug", "info")
	changed(syscall.SIGUSR2, "info", "warn")
	changed(syscall.SIGUSR2, "warn", "error")
	c.Signal(t, syscall.SIGTERM)
	ended(t, c, exitDone)
}

// TestSignalsOfLevelEndNothing: a command that has no use for them lives through them.
func TestSignalsOfLevelEndNothing(t *testing.T) {
	v := newVerbosity()
	defer v.end()
	for range 20 { // more than are kept
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	log := newLogger(&out, "json", false, v).With().Str("component", "cli").Logger()
	for range 5 {
		v.step(syscall.SIGUSR2, log)
	}
	log.Warn().Msg("kept back")
	log.Error().Msg("shown")
	for range 9 {
		v.step(syscall.SIGUSR1, log)
	}
	log.Trace().Msg("all is shown")
	text := out.String()
	if strings.Contains(text, "kept back") || !strings.Contains(text, "shown") || !strings.Contains(text, "all is shown") || strings.Count(text, MsgLevelChanged) != 14 {
		t.Errorf("log %s", text)
	}
}
