package faults

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/cli"
	"adconnector/internal/schedule"
	"adconnector/internal/syncrun"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// TestClockJumps sets the loop's wall clock forward and back by an hour, repeatedly, both
// between runs and during runs. It passes if no two runs overlap and the next run starts in
// time. After a jump forward between runs, that is within 60 seconds. After a jump during a
// run, it is the first tick after that run. After a jump back, it is within an hour and a tick.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	random := newRandom(t)
	jumps, runs, latest := 0, 0, time.Duration(0)
	synctest.Test(t, func(t *testing.T) {
		const tick = 10 * time.Minute
		ticks, err := schedule.Parse("*/10 * * * *")
		must(t, err)
		var mu sync.Mutex
		var offset time.Duration // of the loop's clock from the test's clock
		running, ended := false, time.Now()
		started := make(chan time.Time, 100)
		ctx, cancel := context.WithCancel(t.Context())
		loop := schedule.Loop{
			Schedule:    ticks,
			OnScheduled: func(time.Time) {},
			OnMissed:    func(int, time.Time) {},
			Heartbeat:   func() {},
			Now: func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return time.Now().Add(offset)
			},
			Run: func(ctx context.Context, _ time.Time) {
				mu.Lock()
				if running {
					t.Error("two runs overlap")
				}
				running = true
				runTime := time.Duration(random.Int64N(int64(2 * tick)))
				mu.Unlock()
				runs++
				started <- time.Now()
				select {
				case <-time.After(runTime):
				case <-ctx.Done():
				}
				mu.Lock()
				running, ended = false, time.Now()
				mu.Unlock()
			},
		}
		var serving sync.WaitGroup
		serving.Go(func() { loop.Serve(ctx) })
		for range scaled(50, 1000) {
			<-time.After(time.Duration(random.Int64N(int64(3 * tick))))
			synctest.Wait()
			for len(started) > 0 {
				<-started
			}
			jump := []time.Duration{time.Hour, -time.Hour}[random.IntN(2)]
			mu.Lock()
			offset += jump
			wasRunning := running
			mu.Unlock()
			jumps++
			jumped := time.Now()
			nextRun := <-started
			mu.Lock()
			idleSince := jumped
			if wasRunning {
				idleSince = ended
			}
			mu.Unlock()
			limit := tick // ticks during a run are skipped
			switch {
			case jump < 0:
				limit = time.Hour + tick
			case !wasRunning:
				limit = 0
			}
			if delay := nextRun.Sub(idleSince); delay > limit+time.Minute {
				t.Errorf("jump of %s (during a run: %t): the next run started after %s, limit %s", jump, wasRunning, delay, limit+time.Minute)
			} else if jump > 0 && !wasRunning {
				latest = max(latest, delay)
			}
		}
		cancel()
		serving.Wait()
	})
	logResult(t, "%d clock jumps by an hour, %d runs, none overlapped, longest delay after a jump forward %s", jumps, runs, latest)
}

// TestSuspendAndResume suspends the daemon for longer than a tick, as a sleeping machine
// does, and resumes it: during a run and between runs. It passes if the active run ends, the
// next run starts without waiting for another tick, missed ticks are skipped, and no two runs
// overlap.
func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 100, groups: 10})
	var mu sync.Mutex
	active := map[string]bool{} // by run ID
	maxActive := 0
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.HasAssets() && x.Number == 1 {
			arrived <- struct{}{}
			<-release
		}
		return false
	})
	p := start(t, command{settings: e.settings.With(testenv.Settings{"service.cron-expression": scaled("* * * * * *", "*/2 * * * * *")}), onLine: func(_ *program.Process, l testlog.Line) {
		mu.Lock()
		defer mu.Unlock()
		if l.Text("to") == "PROCESSING" {
			active[l.Text("run_id")] = true
			maxActive = max(maxActive, len(active))
		}
		if l.Text("message") == syncrun.MsgRunFinished {
			delete(active, l.Text("run_id"))
		}
	}})
	suspension := scaled(2100*time.Millisecond, 5*time.Second) // at least two ticks
	suspend := func() (resumed time.Time) {
		p.Signal(t, syscall.SIGSTOP)
		<-time.After(suspension)
		resumed = time.Now()
		p.Signal(t, syscall.SIGCONT)
		return resumed
	}
	<-arrived // during a run
	resumed := suspend()
	close(release)
	_, n := p.Await(t, 0, testlog.Message(syncrun.MsgRunFinished))
	endDelay := time.Since(resumed)
	_, n = p.Await(t, n, testlog.Message(syncrun.MsgRunFinished))

	p.Await(t, n, func(l testlog.Line) bool { return l.Text("from") == "PROCESSED" && l.Text("to") == "SCHEDULED" })
	n = len(p.Log.Lines())
	resumed = suspend()
	_, n = p.Await(t, n, enteredState("PROCESSING"))
	startDelay := time.Since(resumed)
	p.Await(t, n, testlog.Message(cli.MsgRunsSkipped))
	p.Signal(t, syscall.SIGTERM)
	p.Wait(t)
	e.mustMatchDirectory(t, "after resuming")
	if maxActive != 1 {
		t.Errorf("%d runs overlap", maxActive)
	}
	logResult(t, "suspended for %s, longer than a tick: the active run ended %s after resuming, the next scheduled run started after %s; no overlap",
		suspension, endDelay.Round(time.Millisecond), startDelay.Round(time.Millisecond))
}

// TestConcurrentInstances starts several connectors on one state directory at the same time,
// repeatedly, and kills the one that holds the lock. It passes if one connector works, the
// others exit with 4 and name the directory, and the lock of a killed one is released.
func TestConcurrentInstances(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 50, groups: 5})
	rounds, refused := scaled(1, 10), 0
	for range rounds {
		reporting := make(chan struct{}, 1)
		release := make(chan struct{})
		e.Gateway.SetFront(func(x *testenv.Exchange) bool {
			if x.R.URL.Path == testenv.StatePath {
				select {
				case reporting <- struct{}{}:
				default:
				}
				select {
				case <-release:
				case <-x.R.Context().Done():
				}
			}
			return false
		})
		var instances []*program.Process
		for n := range 3 {
			c := command{settings: e.settings, args: []string{"sync"}}
			if n == 0 {
				c.args = nil // the daemon
			}
			instances = append(instances, start(t, c))
		}
		<-reporting
		ended := make(chan *program.Process, len(instances))
		for _, p := range instances {
			go func() {
				<-p.Ended
				ended <- p
			}()
		}
		for range len(instances) - 1 {
			p := <-ended
			o := p.Wait(t)
			o.MustExit(t, 4)
			mustReport(t, o, e.StateDir, "service.state-dir")
			refused++
		}
		for _, p := range instances {
			p.Kill()
		}
		close(release)
		e.Gateway.SetFront(nil)
		run(t, e.settings, "sync").MustExit(t, 0)
		e.mustMatchDirectory(t, "after the lock was released")
	}
	logResult(t, "%d rounds of three concurrent instances: one worked in each, %d exited with 4", rounds, refused)
}
