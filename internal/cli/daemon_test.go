package cli

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/config"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
	"adconnector/internal/status"
	"adconnector/internal/syncrun"
	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// TestDaemon tests the daemon as a process with a cron expression, and stops it by a signal.
func TestDaemon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = "* * * * * *"
	c := s.start(t)
	c.Await(t, 0, func(l testlog.Line) bool { return l.Text("message") == runFinished && l.Text("mode") == "delta" })
	c.Signal(t, syscall.SIGTERM)
	o := requireExit(t, c, exitDone)
	if now := s.connector(t); now.State != "SCHEDULED" && now.State != "PROCESSED" { // PROCESSED: the signal arrived during a run
		t.Errorf("state %+v", now)
	}
	if states, want := s.states(6), []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED", "SCHEDULED", "PROCESSING"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
	if warned := o.With(MsgScheduleUnusual); len(warned) != 1 || warned[0].Text("cron") != "* * * * * *" || warned[0].Text("reason") == "" || warned[0].Text("remedy") == "" {
		t.Errorf("warnings of a run in each second: %v", warned)
	}
	if errs := o.Errors(); len(errs) != 0 || len(o.With(MsgStarted)) != 1 || len(o.With(MsgStopping)) != 1 || o.Log[len(o.Log)-1].Text("message") != MsgStopped {
		t.Errorf("log %v", o.Log)
	}
	if len(s.Gateway.Users()) != 20 {
		t.Errorf("%d users", len(s.Gateway.Users()))
	}
}

func TestDaemonWaitsForTick(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"], s.env["service.run-on-start"] = yearly, "false"
	d := s.serve(t, nil)
	d.await(t, stateChange("SCHEDULED"))
	d.end(t)
	lines := d.Lines()
	if last := lines[len(lines)-1]; last.Text("message") != MsgStopped || len(d.With(MsgStopping)) != 1 {
		t.Errorf("log %v", lines)
	}
	if now := s.connector(t); now.State != "SCHEDULED" || now.NextRun.IsZero() {
		t.Errorf("state %+v", now)
	}
	if s.Counters().Binds != 0 {
		t.Error("run without a tick")
	}
}

// TestStopDuringRun tests that a stop cancels a request without a response, and records the
// failure of the run.
func TestStopDuringRun(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"], s.env["service.shutdown-grace"] = yearly, "1s"
	sent := s.blockAssets(t)
	d := s.serve(t, nil)
	awaitEvent(t, sent, d.ended)
	d.end(t)
	if now := s.connector(t); now.State != "SCHEDULED" || now.Error == "" {
		t.Errorf("state %+v", now)
	}
}

// newRunner returns a runner like that of sync, its configuration, its program, and its log.
func (s *fixture) newRunner(t *testing.T) (*syncrun.Runner, *config.Config, *program, *testlog.Log) {
	t.Helper()
	c, p, log := s.loadProgram(t)
	store, err := p.openState(c.Service.StateDir, p.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	r, err := p.runner(c, store, nil, p.logger())
	if err != nil {
		t.Fatal(err)
	}
	return r, c, p, log
}

// loadProgram returns a program with the loaded configuration of the fixture.
func (s *fixture) loadProgram(t *testing.T) (*config.Config, *program, *testlog.Log) {
	t.Helper()
	log := &testlog.Log{}
	p := &program{environ: s.env.Environ(), stderr: log.Checked(t), levelHook: newLevelHook(), hooks: testHooks}
	t.Cleanup(p.levelHook.close)
	c, err := p.load(false)
	if err != nil {
		t.Fatal(err)
	}
	return c, p, log
}

// TestGraceIsDivided tests that the grace includes time to record the last batch results.
func TestGraceIsDivided(t *testing.T) {
	t.Parallel()
	for _, grace := range []string{"1s", "30s", "1h"} {
		s := newFixture(t)
		s.env["service.shutdown-grace"] = grace
		r, c, p, _ := s.newRunner(t)
		requests := p.gatewayOptions(c, p.logger()).Grace
		if requests < c.Service.ShutdownGrace/2 || r.EndTimeout <= 0 || requests+r.EndTimeout >= c.Service.ShutdownGrace {
			t.Errorf("grace %s: %s for requests and %s for the end of the run", grace, requests, r.EndTimeout)
		}
	}
}

// TestRateLimitAfterRestart tests that the next process waits for the end of a rate limit.
func TestRateLimitAfterRestart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = yearly
	s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		x.W.Header().Set("Retry-After", "3600")
		return x.Status(http.StatusTooManyRequests, "{}")
	}))
	d := s.serve(t, nil)
	d.await(t, func(l testlog.Line) bool { return l.Text("component") == "gateway" && l["until"] != nil })
	d.end(t)
	r, _, _, log := s.newRunner(t)
	if left := time.Until(r.Gateway.LimitedUntil()); left < 30*time.Minute || len(log.With(MsgRateLimitRestored)) != 1 {
		t.Errorf("remaining time %s, log %v", left, log.Lines())
	}
	for name, stored := range map[string]state.RateLimit{
		"another target":       {Target: "https://other.example.com", NotedAt: time.Now(), Until: time.Now().Add(time.Hour)},
		"noted ahead of clock": {Target: r.Target, NotedAt: time.Now().AddDate(1, 0, -1), Until: time.Now().AddDate(1, 0, 0)},
	} {
		if err := r.Store.SetRateLimit(stored); err != nil {
			t.Fatal(err)
		}
		c, p, log := s.loadProgram(t)
		again, err := p.runner(c, r.Store, nil, p.logger())
		if err != nil {
			t.Fatal(err)
		}
		if until := again.Gateway.LimitedUntil(); !until.IsZero() || len(log.With(MsgRateLimitRestored)) != 0 {
			t.Errorf("%s: limited until %s", name, until)
		}
	}
}

// TestConcurrencyLimitAfterRestart tests that a limit on concurrent calls is recorded, shown, and
// applied by the next process.
func TestConcurrencyLimitAfterRestart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"], s.env["upload.batch-size"] = yearly, "1"
	var refused atomic.Bool
	s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		if refused.Swap(true) {
			return false
		}
		x.W.Header().Set("X-Concurrency-Limit-Limit", "2")
		return x.Status(http.StatusConflict, "{}")
	}))
	d := s.serve(t, nil)
	d.await(t, stateChange("PROCESSED"))
	d.end(t)
	if lines := d.With(gateway.MsgWorkersReduced); len(lines) != 1 || lines[0]["workers"] != 2.0 {
		t.Errorf("log %v", lines)
	}
	r, _, _, log := s.newRunner(t)
	if workers := r.Gateway.AllowedWorkers(); workers != 2 || len(log.With(MsgWorkersRestored)) != 1 {
		t.Errorf("%d workers, log %v", workers, log.Lines())
	}
	report, err := status.Read(r.Store, r.Target, time.Now())
	if err != nil || report.WorkersAllowed != 2 || !report.WaitsUntil.IsZero() {
		t.Errorf("report %+v, error %v", report, err)
	}
	other, err := status.Read(r.Store, "https://other.example.com", time.Now())
	if err != nil || other.WorkersAllowed != 0 {
		t.Errorf("report of another target %+v, error %v", other, err)
	}
}

// TestGatewayDownAtStart tests that the daemon registers as soon as the gateway is available.
func TestGatewayDownAtStart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"], s.env["service.run-on-start"] = yearly, "false"
	var up atomic.Bool
	s.Gateway.SetFront(func(x *testenv.Exchange) bool { return !up.Load() && x.Reset() })
	d := s.serve(t, runFrequently)
	d.await(t, testlog.Message(MsgRegistrationFailed))
	up.Store(true)
	d.await(t, stateChange("PROCESSED"))
	d.end(t)
	if states, want := s.states(4), []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
}

// TestConsoleCheckedAtStart tests that a daemon without a run at start reads connection and profile, and
// logs a mistake in them, but waits for its first run.
func TestConsoleCheckedAtStart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, scope string // of the profile
		errors      int
	}{{"valid", "SUBTREE", 0}, {"unknown scope", "DEEP", 1}} {
		t.Run(test.name, func(t *testing.T) {
			s := newFixture(t)
			s.Console("LDAP", baseDN)
			s.Gateway.SetProfile(&gateway.Profile{ProfileUUID: testenv.ProfileUUID, BaseContext: baseDN, SearchScope: test.scope, Assets: "IDENTITIES_ONLY"})
			read := make(chan struct{}, 10)
			s.Gateway.SetFront(func(x *testenv.Exchange) bool {
				if path.Base(x.R.URL.Path) == testenv.ProfileUUID {
					defer func() { read <- struct{}{} }()
				}
				x.Answer(x.Deliver())
				return true
			})
			s.env = s.env.With(consoleSettings).With(testenv.Settings{"service.cron-expression": yearly, "service.run-on-start": "false"})
			d := s.serve(t, nil)
			d.await(t, stateChange("SCHEDULED"))
			<-read
			if test.errors > 0 {
				d.await(t, testlog.Message(MsgConsoleUnusable))
			}
			d.end(t)
			if lines := d.With(MsgConsoleUnusable); len(lines) != test.errors || len(lines) > 0 && lines[0].Text("remedy") == "" {
				t.Errorf("lines %v", lines)
			}
			paths := []string{}
			for _, r := range s.Gateway.Requests() {
				if r.Method == http.MethodGet {
					paths = append(paths, path.Base(r.Path))
				}
			}
			if want := []string{testenv.ConnectionUUID, testenv.ProfileUUID}; !slices.Equal(paths, want) {
				t.Errorf("read %v, want %v", paths, want)
			}
		})
	}
}

// TestRepeatedError tests that each run logs a summary with the error and its remedy, and from
// the second run on also the number of repetitions.
func TestRepeatedError(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env = s.env.With(testenv.Settings{"service.cron-expression": yearly, "profile.baseContext": "OU=None,DC=corp,DC=example,DC=com"})
	d := s.serve(t, runFrequently)
	d.await(t, func(l testlog.Line) bool { return l.Text("message") == runFinished && l.Number("repeated") == 3 })
	d.end(t)
	summaries := d.With(runFinished)[:3]
	first, second := summaries[0], summaries[1]
	for n, l := range summaries {
		if l.Text("level") != "error" || l.Text("class") != string(fault.Refused) || l.Text("error") == "" || l.Text("error") != first.Text("error") ||
			l.Text("remedy") != first.Text("remedy") || !strings.Contains(l.Text("remedy"), "profile.baseContext") {
			t.Errorf("%d: %v", n, l)
		}
		if n > 0 && (l.Number("repeated") != n+1 || l["failing_since"] == nil || l["failing_since"] != second["failing_since"]) || n == 0 && (l["repeated"] != nil || l["failing_since"] != nil) {
			t.Errorf("%d: %v", n, l)
		}
	}
	// The stop may have canceled the last run, so the state in the file can have another error.
	text := first.Text("error") + ": " + first.Text("remedy")
	if states := s.Gateway.States(); !slices.ContainsFunc(states, func(sent gateway.ConnectorState) bool {
		return sent.State == "SCHEDULED" && sent.Error != nil && *sent.Error == text
	}) {
		t.Errorf("states %+v, want one with %s", states, text)
	}
}

// TestBindPause tests that a daemon does not repeat a refused bind at every tick, and shows that
// binds are paused.
func TestBindPause(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env = s.env.With(testenv.Settings{"service.cron-expression": yearly, "service.admin.address": "127.0.0.1:0", "ldap.password": wrongPassword})
	d := s.serve(t, runFrequently)
	address := d.await(t, func(l testlog.Line) bool { return l.Text("component") == "status" && l.Text("address") != "" }).Text("address")
	paused := d.await(t, testlog.Message(syncrun.MsgBindPaused))
	last := d.await(t, func(l testlog.Line) bool { return l.Text("message") == runFinished && l.Number("repeated") == 3 })
	if n := s.Counters().FailedBinds; n != 1 {
		t.Errorf("%d refused binds", n)
	}
	if last.Text("class") != string(fault.Refused) || !strings.Contains(last.Text("error"), "wrong password") || !strings.Contains(last.Text("remedy"), "restart") || paused.Text("run_id") == "" {
		t.Errorf("%v after %v", last, paused)
	}
	s.env["service.admin.address"] = address
	if r := decode[status.Report](t, s.invoke(t, "status", "--output", "json")); r.RefusedBinds != 1 || time.Until(r.BindsPausedUntil) < 10*time.Minute {
		t.Errorf("paused until %s after %d", r.BindsPausedUntil, r.RefusedBinds)
	}
	if o := s.invoke(t, "status"); !strings.Contains(o.Stdout, "\nbinds paused    until 20") || !strings.Contains(o.Stdout, "after a refused bind\n") {
		t.Errorf("%+v", o)
	}
	if _, page := get(t, address, "/"); !strings.Contains(page, "Binds are paused.") || !strings.Contains(page, "restart") {
		t.Error("pause missing on the page")
	}
	if _, metrics := get(t, address, "/metrics"); !strings.Contains(metrics, "\nadconnector_bind_pause_until_timestamp_seconds 1") {
		t.Error("pause missing in the metrics")
	}
	if o := s.invoke(t, "sync", "--full"); o.Code != exitRefused || strings.Contains(o.Stdout, "no bind until") || s.Counters().FailedBinds != 2 {
		t.Errorf("requested run: %d refused binds, %+v", s.Counters().FailedBinds, o)
	}
	d.end(t)
}

// TestBindPauseWithNewStateFile tests that the pause after a refused bind continues when the daemon
// opens a new state file.
func TestBindPauseWithNewStateFile(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env = s.env.With(testenv.Settings{"service.cron-expression": yearly, "ldap.password": wrongPassword})
	d := s.serve(t, runFrequently)
	d.awaitStateFileAge(t, func(l testlog.Line) bool { return l.Text("message") == runFinished })
	if err := os.Remove(filepath.Join(s.StateDir, "adconnector.db")); err != nil {
		t.Fatal(err)
	}
	_, next, ok := d.Await(0, testlog.Message(MsgStateFileRemoved), d.ended)
	if ok {
		_, next, ok = d.Await(next, testlog.Message(MsgStarted), d.ended)
	}
	var run testlog.Line
	if ok {
		run, _, ok = d.Await(next, testlog.Message(runFinished), d.ended)
	}
	if !ok {
		t.Fatalf("no run with a new state file: %v", d.Lines())
	}
	d.end(t)
	if n := s.Counters().FailedBinds; n != 1 || !strings.Contains(run.Text("error"), "no bind until") {
		t.Errorf("%d refused binds, run %v", n, run)
	}
}

// TestRotatedPasswords tests that a daemon reads the files of secrets again at each run: a right
// password ends the pause after a refused bind, and an unusable file keeps the last value.
func TestRotatedPasswords(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	path := func(name string) string { return filepath.Join(filepath.Dir(s.StateDir), name) }
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(path(name)+".new", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path(name)+".new", path(name)); err != nil {
			t.Fatal(err)
		}
	}
	write("gateway", wrongPassword+"\n")
	write("ldap", wrongPassword+"\n")
	s.env = s.env.With(testenv.Settings{
		"service.cron-expression": yearly, "ldap.password": "", "ldap.password.file": path("ldap"),
		"qualys.user.password": "", "qualys.user.password.file": path("gateway"),
	})
	d := s.serve(t, runFrequently)
	next := 0
	await := func(match func(testlog.Line) bool) testlog.Line {
		t.Helper()
		line, after, ok := d.Await(next, match, d.ended)
		if !ok {
			t.Fatalf("no such line: %v", d.Lines())
		}
		next = after
		return line
	}
	isFailed := func(text string) func(testlog.Line) bool {
		return func(l testlog.Line) bool {
			return l.Text("message") == runFinished && strings.Contains(l.Text("remedy"), text)
		}
	}
	isChanged := func(key string) func(testlog.Line) bool {
		return func(l testlog.Line) bool { return l.Text("message") == MsgSecretChanged && l.Text("key") == key }
	}
	await(isFailed("qualys.user.password"))
	write("gateway", s.Gateway.Options.Password+"\r\n")
	await(isChanged("qualys.user.password"))
	await(isFailed("ldap.password"))
	write("ldap", s.Password)
	await(isChanged("ldap.password"))
	await(testlog.Message(syncrun.MsgBindResumed))
	await(isRunSummary("processed"))
	write("ldap", "")
	kept := await(testlog.Message(MsgSecretKept))
	await(isRunSummary("processed"))
	await(isRunSummary("processed"))
	d.end(t)
	if lines := d.With(MsgSecretKept); len(lines) != 1 || kept.Text("key") != "ldap.password" || kept.Text("remedy") == "" || !strings.Contains(kept.Text("error"), "empty") {
		t.Errorf("log %v", lines)
	}
	if n := s.Counters().FailedBinds; n != 1 {
		t.Errorf("%d refused binds", n)
	}
}

// awaitStateFileAge waits for a matching log line at which the state file is so old that its loss does
// not end the daemon.
func (d *daemon) awaitStateFileAge(t *testing.T, match func(testlog.Line) bool) {
	t.Helper()
	started, err := time.Parse(time.RFC3339, d.await(t, testlog.Message(MsgStarted)).Text("time"))
	if err != nil {
		t.Fatal(err)
	}
	d.await(t, func(l testlog.Line) bool {
		at, _ := time.Parse(time.RFC3339, l.Text("time"))
		return match(l) && at.Sub(started) > 2*minStateFileAge
	})
}

// isDeltaEnd matches the summary of a delta sync.
func isDeltaEnd(l testlog.Line) bool {
	return l.Text("message") == runFinished && l.Text("mode") == "delta"
}

// TestStateFileDamaged tests that the daemon sets aside a state file that is damaged while it
// runs, and sends everything again.
func TestStateFileDamaged(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = yearly
	d := s.serve(t, runFrequently)
	d.awaitStateFileAge(t, isDeltaEnd)
	file, err := os.OpenFile(filepath.Join(s.StateDir, "adconnector.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(make([]byte, info.Size()), 0); err != nil {
		t.Fatal(err)
	}
	_, next, ok := d.Await(0, testlog.Message(MsgStateFileSetAside), d.ended)
	if ok {
		_, _, ok = d.Await(next, func(l testlog.Line) bool { return isRunSummary("processed")(l) && l.Number("uploaded") == 23 }, d.ended)
	}
	if !ok {
		t.Fatalf("no run with a new state file: %v", d.Lines())
	}
	d.end(t)
	if s.deleted() != 0 || len(s.Gateway.Users()) != 20 {
		t.Errorf("%d deleted of %d", s.deleted(), len(s.Gateway.Users()))
	}
}

// TestStateFileRemoved tests that the daemon opens a new state file after its own was removed, and ends
// if another process has opened one.
func TestStateFileRemoved(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		other bool
	}{
		{"new file", false},
		{"another process", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			s.env["service.cron-expression"], s.locked = yearly, test.other
			link := filepath.Join(t.TempDir(), "state") // replaced at once
			if err := os.Symlink(t.TempDir(), link); err != nil {
				t.Fatal(err)
			}
			s.env["service.state-dir"] = link
			d := s.serve(t, runFrequently)
			d.awaitStateFileAge(t, isDeltaEnd)
			empty := t.TempDir()
			if test.other {
				other, err := state.Options{}.Open(empty)
				if err != nil {
					t.Fatal(err)
				}
				defer other.Close()
			}
			if err := errors.Join(os.Symlink(empty, link+".new"), os.Rename(link+".new", link)); err != nil {
				t.Fatal(err)
			}
			_, next, ok := d.Await(0, testlog.Message(MsgStateFileRemoved), d.ended)
			if !ok {
				t.Fatalf("not noticed: %v", d.Lines())
			}
			if test.other {
				if <-d.ended; d.code != exitLocked {
					t.Errorf("exit code %d: %v", d.code, d.Lines())
				}
				return
			}
			if _, _, ok = d.Await(next, func(l testlog.Line) bool { return isRunSummary("processed")(l) && l.Number("uploaded") == 23 }, d.ended); !ok {
				t.Fatalf("no run with a new state file: %v", d.Lines())
			}
			d.end(t)
		})
	}
}

// TestDaemonWithBrokenLogPipe tests that a daemon continues after its log pipe is closed, and stops
// in order.
func TestDaemonWithBrokenLogPipe(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = yearly
	loginReceived, logClosed, processed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	receiveLogin, process := sync.OnceFunc(func() { close(loginReceived) }), sync.OnceFunc(func() { close(processed) })
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		switch {
		case x.R.URL.Path == testenv.LoginPath:
			receiveLogin()
			<-logClosed
		case x.R.URL.Path == testenv.StatePath && strings.Contains(string(x.Body), "PROCESSED"):
			process()
		}
		return false
	})
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), os.Args[0], "run")
	command.Env, command.Stderr = slices.Concat(child.Environ(t), s.env.Environ(), []string{childKey + "=1"}), writer
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	writer.Close()
	if _, err := bufio.NewReader(reader).ReadString('\n'); err != nil {
		t.Error(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	await := func(event <-chan struct{}) {
		t.Helper()
		select {
		case <-event:
		case err := <-ended:
			t.Fatalf("daemon ended early: %v", err)
		}
	}
	await(loginReceived)
	reader.Close()
	close(logClosed)
	await(processed)
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("daemon ended with %v", err)
	}
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.shutdown-grace"] = "1h" // the first signal alone does not end the process
	sent := s.blockAssets(t)
	c := s.start(t, "sync")
	awaitEvent(t, sent, c.Ended)
	c.Signal(t, syscall.SIGTERM)
	c.AwaitMessage(t, MsgStopping)
	c.Signal(t, syscall.SIGINT)
	requireExit(t, c, exitInterrupted)
}

// TestInterruptedSync tests that a directory without a response does not delay the exit.
func TestInterruptedSync(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.shutdown-grace"] = "1h"
	release := make(chan struct{})
	defer close(release)
	reading := make(chan struct{}, 1)
	s.OnAnswer(func(answer []byte) {
		if strings.Contains(string(answer), userDN(7)) {
			reading <- struct{}{}
			<-release
		}
	})
	c := s.start(t, "sync")
	awaitEvent(t, reading, c.Ended)
	c.Signal(t, syscall.SIGINT)
	if o := requireExit(t, c, exitInterrupted); len(o.Errors()) != 0 || len(o.With(runFinished)) != 1 {
		t.Errorf("log %v", o.Log)
	}
}

// TestStopLines tests the order of the lines of a stop during a run: nothing about the end of
// the run precedes "stopping", and "stopped" is the last line.
func TestStopLines(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = yearly
	release := make(chan struct{})
	defer close(release)
	reading := make(chan struct{}, 1)
	s.OnAnswer(func(answer []byte) { // a stop ends the run at once while the directory does not answer
		if strings.Contains(string(answer), userDN(7)) {
			reading <- struct{}{}
			<-release
		}
	})
	d := s.serve(t, nil)
	awaitEvent(t, reading, d.ended)
	before := len(d.Lines())
	d.end(t)
	lines := d.Lines()
	if lines[before].Text("message") != MsgStopping || lines[len(lines)-1].Text("message") != MsgStopped || len(lines) < before+3 || lines[0].Text("message") != MsgStarted {
		t.Errorf("%d lines before the stop: %v", before, lines)
	}
}

// TestStopAtStart tests the order of the lines if the stop precedes the start.
func TestStopAtStart(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = yearly
	ctx, stop := context.WithCancel(t.Context())
	stop()
	o := invokeWith(ctx, t, testHooks, s.env.Environ(), "run")
	var messages []string
	for _, l := range o.Log {
		if text := l.Text("message"); text == MsgStarted || text == MsgStopping || text == MsgStopped {
			messages = append(messages, text)
		}
	}
	if want := []string{MsgStarted, MsgStopping, MsgStopped}; o.Code != exitDone || !slices.Equal(messages, want) || s.Counters().Binds != 0 {
		t.Errorf("%+v", o)
	}
}

// TestGraceEnds sends a signal to its own process and so cannot run in parallel.
func TestGraceEnds(t *testing.T) {
	d := &daemon{}
	aborted := make(chan struct{})
	ctx, cancel := onSignal(t.Context(), func() bool { return false }, func() {})
	hook := newLevelHook()
	defer hook.close()
	working, stop := enforceGrace(ctx, time.Millisecond, newGraceError(), newLogger(d.Checked(t), "json", false, hook), func() { close(aborted) })
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-working.Done()
	if len(d.With(MsgStopping)) != 1 {
		t.Errorf("work canceled before %q: %v", MsgStopping, d.Lines())
	}
	<-aborted
	stop()
	cancel()
	if lines := d.With(MsgGraceExceeded); len(lines) != 1 || lines[0].Text("error") == "" || !strings.Contains(lines[0].Text("remedy"), "service.shutdown-grace") {
		t.Errorf("log %v", d.Lines())
	}
}

// TestInterruptedFetch tests that a daemon without a response does not delay an interrupt, and
// is not reported as unhealthy.
func TestInterruptedFetch(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"status", "healthcheck"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			s := newFixture(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			release := make(chan struct{})
			s.env["service.admin.address"] = listen(t, func(http.ResponseWriter, *http.Request) {
				interrupt()
				<-release
			})
			t.Cleanup(func() { close(release) })
			h := testHooks
			h.fetchTimeout = time.Hour
			if o := invokeWith(ctx, t, h, s.env.Environ(), command); o.Code != exitInterrupted || o.Stdout != "" {
				t.Errorf("%+v", o)
			}
		})
	}
}
