package cli

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"adconnector/internal/sandbox"
	"adconnector/internal/syncrun"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// varying is what differs from run to run in lines that are the same.
var varying = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`"(time|next_run)":"[^"]*"`), `"$1":"TIME"`},
	{regexp.MustCompile(`"duration_ms":\d+`), `"duration_ms":0`},
	{regexp.MustCompile(`"run_id":"[0-9a-f-]{36}"`), `"run_id":"RUN"`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), `127.0.0.1:PORT`},
}

// normalized is a log whose lines can be compared. Users and groups are read at the
// same time, so the lines of one pass have no order among themselves.
func normalized(log string) string {
	for _, v := range varying {
		log = v.pattern.ReplaceAllString(log, v.instead)
	}
	lines := strings.SplitAfter(log, "\n")
	from := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"message":"`+syncrun.MsgSyncPlanned+`"`) }) + 1
	to := from + slices.IndexFunc(lines[from:], func(l string) bool { return strings.Contains(l, `"message":"connector state"`) })
	slices.Sort(lines[from:to])
	return strings.Join(lines, "")
}

// TestLogOfTwoRuns keeps the lines of a full run and of a delta after it, and the
// order of their keys.
func TestLogOfTwoRuns(t *testing.T) {
	s := newSite(t)
	s.env["thread-pool.size"] = "1"
	var got strings.Builder
	log := func(heading string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := Main([]string{"sync"}, s.environ(), &stdout, &stderr); code != exitDone {
			t.Fatalf("exit code %d: %s", code, stderr.String())
		}
		for line := range strings.Lines(stderr.String()) {
			parse(t, line)
		}
		fmt.Fprintf(&got, "# %s\n%s", heading, normalized(stderr.String()))
	}
	log("full")
	for n, change := range []error{
		s.ldap.Modify(userDN(3), "title", "Changed"), s.ldap.Delete(userDN(4)),
		s.ldap.Add(sandbox.Object{DN: userDN(100), Attributes: map[string][]string{"objectClass": {"user"}}}),
	} {
		if change != nil {
			t.Fatalf("change %d: %v", n, change)
		}
	}
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
	s := newSite(t)
	s.env["ldap.page-size"] = "5"
	pages := map[string]int{}
	for _, level := range []string{"debug", "trace"} {
		for _, l := range invoke(t, s.environ(), "sync", "--full", "--log-level", level).with("directory answered") {
			if l["level"] != "trace" || l["component"] != "directory" || l["class"] != "done" || l["duration_ms"] == nil {
				t.Errorf("%v", l)
			}
			if l["call"] == "search" {
				pages[level]++
			}
		}
	}
	if pages["debug"] != 0 || pages["trace"] < 20/5+1 {
		t.Errorf("pages %v", pages)
	}
}

// TestLevelBySignal: SIGUSR1 shows more, SIGUSR2 less, and the log says so.
func TestLevelBySignal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = "* * * * * *"
	s.env["log.level"] = "warn"
	started := make(chan struct{})
	once := sync.OnceFunc(func() { close(started) })
	s.intercepting(func(http.ResponseWriter, *http.Request, []byte) bool {
		once()
		return false
	})
	c := start(t, s.environ())
	changed := func(signal syscall.Signal, from, to string) {
		t.Helper()
		c.signal(signal)
		c.await("change to "+to, func(l line) bool {
			return l["message"] == "log level changed" && l["from"] == from && l["to"] == to && l["component"] == "log" && l["level"] == "info"
		})
	}
	<-started // it follows signals by then
	if n := len(c.log().log); n != 0 {
		t.Errorf("%d lines at warn: %v", n, c.log().log)
	}
	changed(syscall.SIGUSR1, "warn", "info")
	c.awaitMessage("run finished")
	changed(syscall.SIGUSR1, "info", "debug")
	c.await("debug", func(l line) bool {
		return l["message"] == "gateway answered" && l["level"] == "debug" && l["status"] == 202.0 || l["message"] == syncrun.MsgSearchStarted
	})
	changed(syscall.SIGUSR2, "debug", "info")
	changed(syscall.SIGUSR2, "info", "warn")
	changed(syscall.SIGUSR2, "warn", "error")
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 20e9)
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
	log := newLogger(&out, "json", false, v)
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
	if strings.Contains(text, "kept back") || !strings.Contains(text, "shown") || !strings.Contains(text, "all is shown") || strings.Count(text, "log level changed") != 14 {
		t.Errorf("log %s", text)
	}
}

// TestErrorThatRepeats: at every tick there is a summary, but the error and its remedy
// are told in full only when they are news.
func TestErrorThatRepeats(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = "* * * * * *"
	s.env["ldap.password"] = "wrong"
	c := start(t, s.environ())
	c.await("a third failure", func(l line) bool { return l["message"] == "run finished" && l["repeated"] == 3.0 })
	c.signal(syscall.SIGTERM)
	c.expect(exitDone, 20e9)
	finished := c.log().with("run finished")
	for n, l := range finished[:3] {
		text, _ := l["error"].(string)
		inFull := strings.Contains(text, "wrong password") && strings.Contains(text, "correct ldap.password")
		inBrief := strings.HasPrefix(text, "bind as "+bindDN) && strings.HasSuffix(text, " (as before)") && l["failing_since"] != nil
		if l["level"] != "error" || l["class"] != "refused" || (n == 0) != inFull || (n > 0) != inBrief {
			t.Errorf("%d: %v", n, l)
		}
	}
	if s.connector(t).Error == "" || strings.Contains(s.connector(t).Error, "as before") {
		t.Errorf("the state says %q", s.connector(t).Error)
	}
}
