package cli

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"adconnector/internal/request"
	"adconnector/internal/state"
	"adconnector/internal/status"
	child "adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// serveIdle runs a daemon that has finished its first run and waits.
func (s *fixture) serveIdle(t *testing.T) *daemon {
	t.Helper()
	s.env["service.cron-expression"] = yearly
	d := s.serve(t, nil)
	_, n, ok := d.Await(0, testlog.Message(runFinished), d.ended)
	if ok {
		_, _, ok = d.Await(n, stateChange("SCHEDULED"), d.ended)
	}
	if !ok {
		t.Fatalf("no first run: %v", d.Lines())
	}
	return d
}

// TestSyncBesideDaemon tests that the daemon executes the runs of sync, and that the result, the
// exit code and the JSON document are those of a run of sync itself.
func TestSyncBesideDaemon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["sync.max-deletes"] = "2"
	d := s.serveIdle(t)
	s.remove(t, 3)
	if o := s.invoke(t, "sync", "--full"); o.Code != exitHeld || !strings.HasPrefix(o.Stdout, "held (full)") || !strings.Contains(o.Stdout, " 0 deleted, 3 deletions held,") ||
		len(o.With(MsgRunRequested)) != 1 || len(o.With(runFinished)) != 0 {
		t.Errorf("%+v", o)
	}
	o := s.invoke(t, "sync", "--allow-deletes", "--output", "json")
	run := decode[document](t, o)
	if o.Code != exitDone || run.Deleted != 3 || run.DurationMS == nil || s.deleted() != 3 {
		t.Errorf("%+v", o)
	}
	if lines := d.With(runFinished); len(lines) != 3 || lines[2].Text("run_id") != run.RunID {
		t.Errorf("run %s, log %v", run.RunID, lines)
	}
	if got := decode[document](t, s.invoke(t, "sync", "--full", "--output", "json")); got.Mode != "full" || got.Uploaded != 0 {
		t.Errorf("full: %+v", got)
	}
	if got := decode[document](t, s.invoke(t, "sync", "--resend", "--output", "json")); got.Mode != "full" || got.Uploaded != 20 {
		t.Errorf("resend: %+v", got)
	}
	d.end(t)
	if o := s.invoke(t, "sync"); o.Code != exitDone || len(o.With(MsgRunRequested)) != 0 || len(o.With(runFinished)) != 1 {
		t.Errorf("without the daemon: %+v", o)
	}
}

// TestConcurrentSyncs tests that the daemon executes a run for each of two commands that request one at
// once, and that each prints its own.
func TestConcurrentSyncs(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	d := s.serveIdle(t)
	commands := []*child.Process{
		s.start(t, "sync", "--full", "--output", "json"),
		s.start(t, "sync", "--full", "--output", "json"),
	}
	printed := map[string]bool{}
	for _, c := range commands {
		run := decode[document](t, requireExit(t, c, exitDone))
		if run.Mode != "full" || run.Result != "processed" || run.Uploaded != 0 {
			t.Errorf("%+v", run)
		}
		printed[run.RunID] = true
	}
	lines := d.With(runFinished)
	if len(lines) != 3 || len(printed) != 2 || !printed[lines[1].Text("run_id")] || !printed[lines[2].Text("run_id")] {
		t.Errorf("printed %v, log %v", printed, lines)
	}
}

// TestDryRunBesideDaemon tests that a dry run lists what the next run of the daemon would send, also
// during a run, and that no copy of the state file is left.
func TestDryRunBesideDaemon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.shutdown-grace"] = "1s"
	d := s.serveIdle(t)
	s.remove(t, 2)
	check := func(files int) {
		t.Helper()
		o := s.invoke(t, "sync", "--dry-run", "--output", "json")
		got := decode[document](t, o)
		if o.Code != exitDone || !got.DryRun || got.Mode != "delta" || len(got.Planned) != 2 || got.Planned[0].Action != "delete" {
			t.Errorf("%+v", o)
		}
		entries, err := os.ReadDir(filepath.Join(s.StateDir, "requests"))
		if err != nil || len(entries) != files {
			t.Errorf("files %v, error %v", entries, err)
		}
	}
	check(1)
	sent := s.blockAssets(t)
	c := s.start(t, "sync", "--full") // whose run lasts until the test ends
	awaitEvent(t, sent, c.Ended)
	check(2)
	if lines := d.With(runFinished); len(lines) != 1 || s.deleted() != 0 {
		t.Errorf("log %v", lines)
	}
	c.Kill()
}

// TestFailedRunBesideDaemon tests the result of a run that fails in the daemon.
func TestFailedRunBesideDaemon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.serveIdle(t)
	s.Must(s.Hide(baseDN, "userAccountControl"))
	o := s.invoke(t, "sync", "--full")
	lines := strings.Split(o.Stdout, "\n")
	if o.Code != exitRefused || len(lines) != 3 || !strings.HasPrefix(lines[0], "failed: ") || !strings.HasPrefix(lines[1], "remedy: ") {
		t.Errorf("%+v", o)
	}
	o = s.invoke(t, "sync", "--full", "--output", "json")
	if run := decode[document](t, o); o.Code != exitRefused || run.Class != "refused" || run.Remedy == "" || run.Error != strings.TrimPrefix(lines[0], "failed: ") {
		t.Errorf("%+v", o)
	}
}

// TestSyncWithOtherSettings tests that the daemon refuses a request of a command for another
// profile.
func TestSyncWithOtherSettings(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	d := s.serveIdle(t)
	env := s.env.With(testenv.Settings{"qualys.profileUuid": "01234567-0123-4123-8123-0123456789ab"})
	o := invoke(t, env.Environ(), "sync", "--full", "--output", "json")
	if got := decode[errorDocument](t, o); o.Code != exitUsage || got.ExitCode != exitUsage || got.Remedy == "" || len(d.With(request.MsgRefused)) != 1 || len(d.With(runFinished)) != 1 {
		t.Errorf("%+v", o)
	}
}

// TestRequestsNotAccepted tests that a daemon that cannot accept requests logs why and runs, and that
// sync then ends as beside a daemon of an older version.
func TestRequestsNotAccepted(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	if err := os.MkdirAll(s.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.StateDir, "requests"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := s.serveIdle(t)
	if lines := d.With(MsgRequestsIgnored); len(lines) != 1 || lines[0].Text("remedy") == "" {
		t.Errorf("log %v", lines)
	}
	s.locked = true
	if o := s.invoke(t, "sync", "--full"); o.Code != exitLocked || !mentions(singleError(t, o), MsgRequestsIgnored, s.StateDir) {
		t.Errorf("%+v", o)
	}
}

// TestSecondDaemon tests that only the first of two daemons accepts requests, and that the second one
// logs only that the state directory is locked. A sync without options ends like the second one.
func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.serveIdle(t)
	s.locked = true
	o := s.invoke(t, "run")
	if singleError(t, o); o.Code != exitLocked || len(o.With(MsgRequestsIgnored)) != 0 {
		t.Errorf("%+v", o)
	}
	if o := s.invoke(t, "sync", "--full"); o.Code != exitDone || len(o.With(MsgRunRequested)) != 1 {
		t.Errorf("%+v", o)
	}
	if o := s.invoke(t, "sync"); o.Code != exitLocked || !mentions(singleError(t, o), s.StateDir, "--full") || len(o.With(MsgRunRequested)) != 0 {
		t.Errorf("%+v", o)
	}
}

// TestDaemonKilledDuringRequest tests that sync fails if the daemon is killed during its run, and
// executes the next run itself.
func TestDaemonKilledDuringRequest(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"] = yearly
	d := s.start(t)
	d.Await(t, 0, testlog.Message(runFinished))
	s.blockAssets(t)
	c := s.start(t, "sync", "--resend")
	c.Await(t, 0, testlog.Message(MsgRequestStarted))
	d.Kill()
	if line := singleError(t, requireExit(t, c, exitFailed)); !mentions(line, "daemon ended", "adconnector status") {
		t.Errorf("%v", line)
	}
	s.Gateway.SetFront(nil)
	if o := s.invoke(t, "sync", "--resend"); o.Code != exitDone || !strings.Contains(o.Stdout, " 23 uploaded") || len(o.With(MsgRunRequested)) != 0 {
		t.Errorf("afterwards: %+v", o)
	}
}

// TestSyncInterrupted tests that an interrupt withdraws a request during another run, and leaves a
// run that was started to the daemon.
func TestSyncInterrupted(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	s.env["service.cron-expression"], s.env["service.shutdown-grace"] = yearly, "1s"
	sent := s.blockAssets(t)
	d := s.serve(t, nil)
	awaitEvent(t, sent, d.ended)
	c := s.start(t, "sync", "--full")
	c.Await(t, 0, testlog.Message(MsgRunRequested))
	c.Signal(t, syscall.SIGINT)
	if line := singleError(t, requireExit(t, c, exitInterrupted)); !mentions(line, request.ErrWithdrawn.Error()) {
		t.Errorf("%v", line)
	}
}

// TestStatusDuringRequest tests that a requested run is recorded like any other one.
func TestStatusDuringRequest(t *testing.T) {
	t.Parallel()
	s := newFixture(t)
	d := s.serveIdle(t)
	run := decode[state.Run](t, s.invoke(t, "sync", "--full", "--output", "json"))
	d.end(t)
	report := decode[status.Report](t, s.invoke(t, "status", "--output", "json"))
	if len(report.Runs) != 2 || report.Runs[0].ID != run.ID {
		t.Errorf("runs %+v, want %s", report.Runs, run.ID)
	}
}
