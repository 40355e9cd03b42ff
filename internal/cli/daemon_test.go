package cli

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"os/exec"
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
	"adconnector/internal/syncrun"
	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// TestDaemon is the daemon as it ships: a process with a cron expression and a signal.
func TestDaemon(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = "* * * * * *"
	c := s.start(t)
	c.Await(t, 0, func(l testlog.Line) bool { return l.Text("message") == runFinished && l.Text("mode") == "delta" })
	c.Signal(t, syscall.SIGTERM)
	o := ended(t, c, exitDone)
	if now := s.connector(t); now.State != "SCHEDULED" && now.State != "PROCESSED" { // the latter when the signal met a run
		t.Errorf("state %+v", now)
	}
	if states, want := s.states(6), []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED", "SCHEDULED", "PROCESSING"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
	if errs := o.Errors(); len(errs) != 0 || len(o.With(MsgStarted)) != 1 || len(o.With(MsgStopping)) != 1 || o.Log[len(o.Log)-1].Text("message") != MsgStopped {
		t.Errorf("log %v", o.Log)
	}
	if len(s.Gateway.Users()) != 20 {
		t.Errorf("%d users", len(s.Gateway.Users()))
	}
}

func TestDaemonWaitsForItsTick(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["service.run-on-start"] = never, "false"
	d := s.serve(t, nil)
	d.await(t, enters("SCHEDULED"))
	d.end(t)
	lines := d.Lines()
	if last := lines[len(lines)-1]; last.Text("message") != MsgStopped || len(d.With(MsgStopping)) != 1 {
		t.Errorf("log %v", lines)
	}
	if now := s.connector(t); now.State != "SCHEDULED" || now.NextRun.IsZero() {
		t.Errorf("state %+v", now)
	}
	if s.Searches().Binds != 0 {
		t.Error("it ran")
	}
}

// TestStopInARun: a call under way that has no answer is given up, and the run's failure is
// recorded.
func TestStopInARun(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["service.shutdown-grace"] = never, "1s"
	sent := s.hang(t)
	d := s.serve(t, nil)
	awaitEvent(t, sent, d.ended)
	d.end(t)
	if now := s.connector(t); now.State != "SCHEDULED" || now.Error == "" {
		t.Errorf("state %+v", now)
	}
}

// wire wires a runner up as sync does, and returns its configuration and what wiring it
// logged, too.
func (s *site) wire(t *testing.T) (*syncrun.Runner, *config.Config, *program, *testlog.Log) {
	t.Helper()
	log := &testlog.Log{}
	p := &program{environ: s.env.Environ(), stderr: log.Checked(t), verbosity: newVerbosity(), hooks: inProcess}
	t.Cleanup(p.verbosity.end)
	c, err := p.load(false)
	if err != nil {
		t.Fatal(err)
	}
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

// TestGraceIsDivided: of the grace, time is left to record what the last calls came to.
func TestGraceIsDivided(t *testing.T) {
	t.Parallel()
	for _, grace := range []string{"1s", "30s", "1h"} {
		s := newSite(t)
		s.env["service.shutdown-grace"] = grace
		r, c, p, _ := s.wire(t)
		calls := p.gatewayOptions(c, p.logger()).Grace
		if calls < c.Service.ShutdownGrace/2 || r.EndTimeout <= 0 || calls+r.EndTimeout >= c.Service.ShutdownGrace {
			t.Errorf("of %s, %s are for calls and %s for the end of the run", grace, calls, r.EndTimeout)
		}
	}
}

// TestRateLimitOutlivesTheProcess: the next process waits for the end of a rate limit.
func TestRateLimitOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = never
	s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		x.W.Header().Set("Retry-After", "3600")
		return x.Status(http.StatusTooManyRequests, "{}")
	}))
	d := s.serve(t, nil)
	d.await(t, func(l testlog.Line) bool { return l.Text("component") == "gateway" && l["until"] != nil })
	d.end(t)
	r, _, _, log := s.wire(t)
	if left := time.Until(r.Gateway.LimitedUntil()); left < 30*time.Minute || len(log.With(MsgRateLimitRestored)) != 1 {
		t.Errorf("%s left, log %v", left, log.Lines())
	}
}

// TestGatewayDownAtStart: the daemon stays, and registers once the gateway is there.
func TestGatewayDownAtStart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"], s.env["service.run-on-start"] = never, "false"
	var up atomic.Bool
	s.Gateway.SetFront(func(x *testenv.Exchange) bool { return !up.Load() && x.Reset() })
	d := s.serve(t, often)
	d.await(t, testlog.Message(MsgRegistrationFailed))
	up.Store(true)
	d.await(t, enters("PROCESSED"))
	d.end(t)
	if states, want := s.states(4), []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
}

// TestErrorThatRepeats: each run has a summary with the error, its cause and its remedy. From
// the second one on it has the number of repetitions.
func TestErrorThatRepeats(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env = s.env.With(testenv.Settings{"service.cron-expression": never, "ldap.password": wrong})
	d := s.serve(t, often)
	d.await(t, func(l testlog.Line) bool { return l.Text("message") == runFinished && l.Number("repeated") == 3 })
	d.end(t)
	summaries := d.With(runFinished)[:3]
	first, second := summaries[0], summaries[1]
	for n, l := range summaries {
		if l.Text("level") != "error" || l.Text("class") != string(fault.Refused) || l.Text("error") == "" || l.Text("error") != first.Text("error") ||
			l.Text("remedy") != first.Text("remedy") || !strings.Contains(l.Text("remedy"), "ldap.password") {
			t.Errorf("%d: %v", n, l)
		}
		if n > 0 && (l.Number("repeated") != n+1 || l["failing_since"] == nil || l["failing_since"] != second["failing_since"]) || n == 0 && (l["repeated"] != nil || l["failing_since"] != nil) {
			t.Errorf("%d: %v", n, l)
		}
	}
	if now := s.connector(t); now.Error != first.Text("error") || now.Remedy != first.Text("remedy") {
		t.Errorf("the state is %+v", now)
	}
}

// TestDamagedUnderWay: a state file that is damaged while the daemon runs is set aside
// without help, and everything is sent again.
func TestDamagedUnderWay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = never
	d := s.serve(t, often)
	began, err := time.Parse(time.RFC3339, d.await(t, testlog.Message(MsgStarted)).Text("time"))
	if err != nil {
		t.Fatal(err)
	}
	d.await(t, func(l testlog.Line) bool { // a file that is damaged earlier ends the daemon
		at, _ := time.Parse(time.RFC3339, l.Text("time"))
		return l.Text("message") == runFinished && l.Text("mode") == "delta" && at.Sub(began) > 2*damagedAgain
	})
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
		_, _, ok = d.Await(next, func(l testlog.Line) bool { return isSummary("processed")(l) && l.Number("uploaded") == 23 }, d.ended)
	}
	if !ok {
		t.Fatalf("no run with a new file: %v", d.Lines())
	}
	d.end(t)
	if s.deleted() != 0 || len(s.Gateway.Users()) != 20 {
		t.Errorf("%d deleted of %d", s.deleted(), len(s.Gateway.Users()))
	}
}

// TestDaemonWhoseLogNobodyReads continues, and ends in order.
func TestDaemonWhoseLogNobodyReads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.cron-expression"] = never
	loginArrived, hungUp, processed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	arrive, process := sync.OnceFunc(func() { close(loginArrived) }), sync.OnceFunc(func() { close(processed) })
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		switch {
		case x.R.URL.Path == testenv.LoginPath:
			arrive()
			<-hungUp
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
			t.Fatalf("it ended: %v", err)
		}
	}
	await(loginArrived)
	reader.Close()
	close(hungUp)
	await(processed)
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.env["service.shutdown-grace"] = "1h" // the first signal alone does not end it
	sent := s.hang(t)
	c := s.start(t, "sync")
	awaitEvent(t, sent, c.Ended)
	c.Signal(t, syscall.SIGTERM)
	c.AwaitMessage(t, MsgStopping)
	c.Signal(t, syscall.SIGTERM)
	ended(t, c, exitInterrupted)
}

// TestInterruptedSync: a directory that does not answer does not delay the end.
func TestInterruptedSync(t *testing.T) {
	t.Parallel()
	s := newSite(t)
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
	if o := ended(t, c, exitInterrupted); len(o.Errors()) != 0 || len(o.With(runFinished)) != 1 {
		t.Errorf("log %v", o.Log)
	}
}

// TestGraceEnds sends a signal to its own process, so it does not run in parallel.
func TestGraceEnds(t *testing.T) {
	d := &daemon{}
	left := make(chan int, 1)
	ctx, cancel := onSignal(t.Context(), func() {})
	v := newVerbosity()
	defer v.end()
	stop := withinGrace(ctx, time.Millisecond, graceExceeded(), newLogger(d.Checked(t), "json", false, v), func(code int) { left <- code })
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-left; code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	stop()
	cancel()
	if lines := d.With(MsgGraceExceeded); len(lines) != 1 || lines[0].Text("error") == "" || !strings.Contains(lines[0].Text("remedy"), "service.shutdown-grace") {
		t.Errorf("log %v", d.Lines())
	}
}

// TestInterruptedWhileAsking: a daemon that does not answer does not delay an interrupt, and
// is not reported as unhealthy.
func TestInterruptedWhileAsking(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"status", "healthcheck"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			ctx, interrupt := context.WithCancel(t.Context())
			defer interrupt()
			release := make(chan struct{})
			s.env["service.admin.address"] = listening(t, func(http.ResponseWriter, *http.Request) {
				interrupt()
				<-release
			})
			t.Cleanup(func() { close(release) })
			h := inProcess
			h.askTimeout = time.Hour
			if o := invokeWith(t, ctx, h, s.env.Environ(), command); o.Code != exitInterrupted || o.Stdout != "" {
				t.Errorf("%+v", o)
			}
		})
	}
}
