package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	stdlog "log"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// placeholders replace the parts of log lines that differ between runs.
var placeholders = []struct {
	pattern     *regexp.Regexp
	placeholder string
}{
	{regexp.MustCompile(`"(time|next_run)":"[^"]*"`), `"$1":"TIME"`},
	{regexp.MustCompile(`"duration_ms":\d+`), `"duration_ms":0`},
	{regexp.MustCompile(`"(run_id|connection)":"[0-9a-f-]{36}"`), `"$1":"UUID"`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), `127.0.0.1:PORT`},
}

// normalize returns a log that can be compared. Users and groups are read concurrently, so the
// lines between the plan and the next state change are sorted.
func normalize(log string) string {
	for _, v := range placeholders {
		log = v.pattern.ReplaceAllString(log, v.placeholder)
	}
	lines := strings.SplitAfter(log, "\n")
	first := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"invocation_id":`) }) + 1
	last := first + slices.IndexFunc(lines[first:], func(l string) bool { return strings.Contains(l, `"message":"`+connectorState+`"`) })
	slices.Sort(lines[first:last])
	return strings.Join(lines, "")
}

// TestLogOfTwoRuns compares the log lines of a full sync and a delta sync with a golden file.
func TestLogOfTwoRuns(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["thread-pool.size"] = "1"
	var got strings.Builder
	log := func(heading string) {
		t.Helper()
		o := s.invoke(t, "sync")
		if o.Code != exitDone {
			t.Fatalf("exit code %d: %s", o.Code, o.Stderr)
		}
		fmt.Fprintf(&got, "# %s\n%s", heading, normalize(o.Stderr))
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

// TestTrace tests that the level trace logs each request to the directory, with each page of a
// search.
func TestTrace(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
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

// TestRunID tests that all lines of a run have its ID and that their times do not decrease.
func TestRunID(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]testenv.Settings{"first": nil, "refused bind": {"ldap.password": wrongPassword}, "with posture": {"profile.assets": "IDENTITIES_WITH_SECURITY_POSTURE"}, "from the console": consoleSettings} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.Console("LDAP", baseDN)
			s.env = s.env.With(env)
			for range 2 { // the second one is a delta sync
				previous := time.Now().Truncate(time.Millisecond)
				o := s.invoke(t, "sync", "--log-level", "trace")
				first := slices.IndexFunc(o.Log, func(l testlog.Line) bool { return l.Text("run_id") != "" })
				last := slices.IndexFunc(o.Log, testlog.Message(runFinished))
				if first != 0 || last != len(o.Log)-1 {
					t.Fatalf("run in lines %d to %d of %v", first, last, o.Log)
				}
				id := o.Log[last].Text("run_id")
				messages := map[string]int{}
				for _, l := range o.Log[first:last] {
					messages[l.Text("message")]++
					if l.Text("run_id") != id || l.Text("connection") != testenv.ConnectionUUID {
						t.Errorf("run %s: %v", id, l)
					}
					at, err := time.Parse(time.RFC3339, l.Text("time"))
					if err != nil || at.Before(previous) {
						t.Errorf("time in %v, previous line %s", l, previous)
					}
					previous = at
				}
				if messages[gateway.MsgResponse] == 0 || messages[syncrun.MsgDirectoryRequest] == 0 || messages[connectorState] < 2 {
					t.Errorf("messages %v", messages)
				}
			}
		})
	}
}

// TestLevelBySignal tests that SIGUSR1 and SIGUSR2 change the level, and that each change is
// logged.
func TestLevelBySignal(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"], s.env["log.level"] = yearly, "warn"
	loginReceived, release := make(chan struct{}), make(chan struct{})
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.R.URL.Path == testenv.LoginPath {
			close(loginReceived)
			<-release
		}
		return false
	})
	c := s.start(t)
	position := 0
	changed := func(signal syscall.Signal, from, to string) {
		t.Helper()
		c.Signal(t, signal)
		_, position = c.Await(t, position, func(l testlog.Line) bool {
			return l.Text("message") == MsgLevelChanged && l.Text("from") == from && l.Text("to") == to && l.Text("component") == "log" && l.Text("level") == "info"
		})
	}
	awaitEvent(t, loginReceived, c.Ended) // signals have an effect from here on
	if lines := c.Log.Lines(); len(lines) != 0 {
		t.Errorf("lines at warn: %v", lines)
	}
	changed(syscall.SIGUSR1, "warn", "info")
	changed(syscall.SIGUSR1, "info", "debug")
	close(release)
	c.Await(t, position, testlog.Field("level", "debug"))
	c.Await(t, position, testlog.Message(runFinished))
	changed(syscall.SIGUSR2, "debug", "info")
	changed(syscall.SIGUSR2, "info", "warn")
	changed(syscall.SIGUSR2, "warn", "error")
	c.Signal(t, syscall.SIGTERM)
	requireExit(t, c, exitDone)
}

// TestLevelSignalsEndNoProcess tests that commands without a log level ignore the signals.
func TestLevelSignalsEndNoProcess(t *testing.T) {
	hook := newLevelHook()
	defer hook.close()
	for range 20 { // more than the channel holds
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	log := newLogger(&out, "json", false, hook).With().Str("component", "cli").Logger()
	for range 5 {
		hook.step(syscall.SIGUSR2, log)
	}
	log.Warn().Msg("hidden")
	log.Error().Msg("shown")
	for range 9 {
		hook.step(syscall.SIGUSR1, log)
	}
	log.Trace().Msg("trace visible")
	text := out.String()
	if strings.Contains(text, "hidden") || !strings.Contains(text, "shown") || !strings.Contains(text, "trace visible") || strings.Count(text, MsgLevelChanged) != 14 {
		t.Errorf("log %s", text)
	}
}

// TestLibraryMessages tests that messages of libraries are counted in the log, without their
// text, and at most once a minute.
func TestLibraryMessages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		hook := &levelHook{}
		w := &libraryWriter{log: newLogger(&out, "json", false, hook)}
		log := stdlog.New(w, "", 0)
		lines := func() (counts []string) {
			for line := range strings.Lines(out.String()) {
				if !strings.Contains(line, MsgLibraryMessage) || strings.Contains(line, "secret") {
					t.Errorf("line %s", line)
				}
				_, count, _ := strings.Cut(line, `"messages":`)
				count, _, _ = strings.Cut(count, ",")
				counts = append(counts, count)
			}
			return counts
		}
		log.Print("secret 1")
		log.Print("secret 2\nsecret 3")
		log.Print("secret 4")
		time.Sleep(libraryInterval)
		log.Print("secret 5")
		if got := lines(); !slices.Equal(got, []string{"1", "3"}) {
			t.Errorf("%v", got)
		}
	})
}

// TestUnprintableCharacters tests that the log contains no character that a terminal does not
// print, and that the JSON values are unchanged.
func TestUnprintableCharacters(t *testing.T) {
	t.Parallel()
	const text = "a\u202eb\x1b[2J\x00\u200b\U000e0041\u2028ü日本 \xff"
	var out bytes.Buffer
	log := newLogger(&out, "json", false, &levelHook{})
	log.Info().Str("error", text).Msg("m")
	line := strings.TrimSuffix(out.String(), "\n")
	if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("unprintable character at %d of %q", i, line)
	}
	var fields map[string]string
	if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["error"] != strings.ToValidUTF8(text, "\ufffd") {
		t.Errorf("%q, %v", fields["error"], err)
	}
	out.Reset()
	log = newLogger(&out, "console", false, &levelHook{})
	log.Info().Str("error", text).Msg("m")
	if strings.ContainsRune(out.String(), 0x202e) || strings.ContainsRune(out.String(), 0x1b) {
		t.Errorf("%q", out.String())
	}
}
