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

// TestClockJumps turns the wall clock of the loop by an hour, forwards and back, again
// and again, while it waits and while a run is under way. It passes when never two runs
// are at once; when a run starts within 60 seconds after a clock that went forwards over
// a tick, or at the tick after the run that was under way; and when after one that went
// back the loop runs again within that hour and a tick.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	jumps, runs, latest := 0, 0, time.Duration(0)
	synctest.Test(t, func(t *testing.T) {
		const tick = 10 * time.Minute
		ticks, err := schedule.Parse("*/10 * * * *")
		must(t, err)
		var mu sync.Mutex
		var offset time.Duration // of the wall clock to that of the test
		running, ended := false, time.Now()
		started := make(chan time.Time, 100)
		ctx, cancel := context.WithCancel(t.Context())
		loop := schedule.Loop{
			Schedule: ticks,
			Now: func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return time.Now().Add(offset)
			},
			Run: func(ctx context.Context, _ time.Time) {
				mu.Lock()
				if running {
					t.Error("two runs at once")
				}
				running = true
				length := time.Duration(random.Int64N(int64(2 * tick)))
				mu.Unlock()
				runs++
				started <- time.Now()
				select {
				case <-time.After(length):
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
			at := <-started
			mu.Lock()
			from := jumped
			if wasRunning {
				from = ended
			}
			mu.Unlock()
			most := tick // ticks that fall into a run are not made up for
			switch {
			case jump < 0:
				most = time.Hour + tick
			case !wasRunning:
				most = 0
			}
			if late := at.Sub(from); late > most+time.Minute {
				t.Errorf("after a jump of %s (run under way: %v) the next run came after %s", jump, wasRunning, late)
			} else if jump > 0 && !wasRunning {
				latest = max(latest, late)
			}
		}
		cancel()
		serving.Wait()
	})
	figures(t, "%d jumps of the clock by an hour, %d runs, never two at once, the latest %s after a clock that went forwards", jumps, runs, latest)
}

// TestStopAndGo stops the daemon for longer than a tick, as a machine that sleeps, and
// lets it go on: while it waits and in the middle of a run. It passes when the run under
// way ends and the next one starts without another tick to wait for, the ticks that were
// slept through are not made up for, and never two runs are at once.
func TestStopAndGo(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: 100, groups: 10})
	var mu sync.Mutex
	under := map[string]bool{} // runs that have begun and not ended, by what the gateway was told
	most, hold := 0, make(chan struct{})
	held := make(chan struct{}, 1)
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.HasAssets() && x.Number == 1 {
			held <- struct{}{}
			<-hold
		}
		return false
	})
	p := start(t, command{settings: s.settings.With(testenv.Settings{"service.cron-expression": scaled("* * * * * *", "*/2 * * * * *")}), onLine: func(_ *program.Process, l testlog.Line) {
		mu.Lock()
		defer mu.Unlock()
		if l.Text("to") == "PROCESSING" {
			under[l.Text("run_id")] = true
			most = max(most, len(under))
		}
		if l.Text("message") == syncrun.MsgRunFinished {
			delete(under, l.Text("run_id"))
		}
	}})
	length := scaled(2100*time.Millisecond, 5*time.Second) // two ticks at least
	sleep := func() (woken time.Time) {
		p.Signal(t, syscall.SIGSTOP)
		<-time.After(length) // the length is the point
		woken = time.Now()
		p.Signal(t, syscall.SIGCONT)
		return woken
	}
	<-held // in the middle of a run
	woken := sleep()
	close(hold)
	_, n := p.Await(t, 0, testlog.Message(syncrun.MsgRunFinished))
	inRun := time.Since(woken)
	_, n = p.Await(t, n, testlog.Message(syncrun.MsgRunFinished))

	p.Await(t, n, func(l testlog.Line) bool { return l.Text("from") == "PROCESSED" && l.Text("to") == "SCHEDULED" })
	n = len(p.Log.Lines())
	woken = sleep()
	_, n = p.Await(t, n, entered("PROCESSING"))
	waiting := time.Since(woken)
	p.Await(t, n, testlog.Message(cli.MsgRunsSkipped))
	p.Signal(t, syscall.SIGTERM)
	p.Wait(t)
	s.mustBeEqual(t, "after sleeping")
	if most != 1 {
		t.Errorf("%d runs at once", most)
	}
	figures(t, "stopped for %s, longer than a tick: the run under way ended %s after waking, a waiting daemon ran after %s; never two at once",
		length, inRun.Round(time.Millisecond), waiting.Round(time.Millisecond))
}

// TestTwoInstances starts connectors on one state directory at the same time, again
// and again, and kills the one that has it. It passes when one of them works and the
// others end with 4 and name it, and when the lock of one that was killed is no hindrance.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: 50, groups: 5})
	rounds, refused := scaled(1, 10), 0
	for range rounds {
		working := make(chan struct{}, 1)
		hold := make(chan struct{})
		s.Gateway.SetFront(func(x *testenv.Exchange) bool {
			if x.R.URL.Path == testenv.StatePath {
				select {
				case working <- struct{}{}:
				default:
				}
				select {
				case <-hold:
				case <-x.R.Context().Done():
				}
			}
			return false
		})
		var all []*program.Process
		for n := range 3 {
			c := command{settings: s.settings, args: []string{"sync"}}
			if n == 0 {
				c.args = nil // the daemon
			}
			all = append(all, start(t, c))
		}
		<-working
		losers := 0
		ended := make(chan *program.Process, len(all))
		for _, p := range all {
			go func() {
				<-p.Ended
				ended <- p
			}()
		}
		for range len(all) - 1 {
			p := <-ended
			o := p.Wait(t)
			o.MustExit(t, 4)
			mustReport(t, o, s.StateDir, "service.state-dir")
			losers++
		}
		refused += losers
		for _, p := range all {
			p.Kill()
		}
		close(hold)
		s.Gateway.SetFront(nil)
		run(t, s.settings, "sync").MustExit(t, 0)
		s.mustBeEqual(t, "after the lock was free")
	}
	figures(t, "%d times three instances at once: one worked, %d ended with 4", rounds, refused)
}
