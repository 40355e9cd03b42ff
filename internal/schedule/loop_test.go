package schedule

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// recorder runs a loop and records its calls. Its wall clock is the clock of a synctest
// bubble, which starts at midnight 2000-01-01, plus an offset.
type recorder struct {
	offset      atomic.Int64 // of the wall clock, in nanoseconds
	calls       []string
	runDuration time.Duration
}

func (r *recorder) now() time.Time { return time.Now().Add(time.Duration(r.offset.Load())) }

// step moves the wall clock by d without an effect on timers.
func (r *recorder) step(d time.Duration) { r.offset.Add(int64(d)) }

func (r *recorder) record(format string, args ...any) {
	r.calls = append(r.calls, r.now().UTC().Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

func (r *recorder) loop(t *testing.T, expr string) *Loop {
	t.Helper()
	s, err := Parse(expr)
	if err != nil {
		t.Fatal(err)
	}
	return &Loop{
		Schedule: s,
		Run: func(_ context.Context, tick time.Time) {
			r.record("run %s", tick.Format("15:04:05"))
			time.Sleep(r.runDuration)
		},
		OnScheduled: func(next time.Time) { r.record("next %s", next.Format("15:04:05")) },
		OnMissed:    func(n int, last time.Time) { r.record("missed %d until %s", n, last.Format("15:04:05")) },
		Heartbeat:   func() {},
		Now:         r.now,
	}
}

// serve runs the loop during script, then stops it and waits until it returns.
func (r *recorder) serve(l *Loop, script func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Serve(ctx) }()
	script()
	stop()
	<-done
}

func (r *recorder) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(r.calls, want) {
		t.Errorf("got\n%q\nwant\n%q", r.calls, want)
	}
}

// advance waits for d, and until the loop blocks again.
func advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestRequestedRun tests that a requested run is executed while the loop waits, that ticks during it
// are missed, and that a request after the active run is executed then.
func TestRequestedRun(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		expr string
		want []string
	}{
		"between ticks": {"*/10 * * * *", []string{
			"00:00:00 next 00:10:00",
			"00:03:00 requested", "00:04:00 next 00:10:00",
			"00:08:30 none",
			"00:09:30 requested", "00:10:30 missed 1 until 00:10:00", "00:10:30 next 00:20:00",
			"00:20:00 run 00:20:00", "00:21:00 next 00:30:00", "00:21:00 requested", "00:22:00 next 00:30:00"}},
		"distant tick": {"0 0 29 2 *", []string{
			"00:00:00 next 00:00:00",
			"00:03:00 requested", "00:04:00 next 00:00:00", "00:08:30 none",
			"00:09:30 requested", "00:10:30 next 00:00:00", "00:20:30 requested", "00:21:30 next 00:00:00"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{runDuration: time.Minute}
				requests := make(chan struct{})
				l := r.loop(t, c.expr)
				withdrawn := false
				l.Requests = requests
				l.RunRequested = func(context.Context) bool {
					if withdrawn {
						r.record("none")
						return false
					}
					r.record("requested")
					time.Sleep(r.runDuration)
					return true
				}
				r.serve(l, func() {
					advance(3 * time.Minute)
					requests <- struct{}{}
					advance(330 * time.Second)
					withdrawn = true
					requests <- struct{}{}
					advance(time.Minute)
					withdrawn = false
					requests <- struct{}{}
					advance(11 * time.Minute) // at 00:20:30
					requests <- struct{}{}    // once the active run has ended
					advance(2 * time.Minute)
				})
				r.expect(t, c.want...)
			})
		})
	}
}

func TestRunAtEveryTick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{runDuration: time.Minute}
		r.serve(r.loop(t, "*/10 * * * *"), func() { advance(25 * time.Minute) })
		r.expect(t,
			"00:00:00 next 00:10:00",
			"00:10:00 run 00:10:00", "00:11:00 next 00:20:00",
			"00:20:00 run 00:20:00", "00:21:00 next 00:30:00")
	})
}

func TestRunOnStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{runDuration: time.Minute}
		l := r.loop(t, "*/10 * * * *")
		l.RunOnStart = true
		advance(7 * time.Minute)
		r.serve(l, func() { advance(5 * time.Minute) })
		r.expect(t,
			"00:07:00 next 00:07:00", "00:07:00 run 00:07:00",
			"00:08:00 next 00:10:00", "00:10:00 run 00:10:00", "00:11:00 next 00:20:00")
	})
}

func TestMissedTicksDuringRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{runDuration: 25 * time.Minute}
		r.serve(r.loop(t, "*/10 * * * *"), func() { advance(36 * time.Minute) })
		r.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00",
			"00:35:00 missed 2 until 00:30:00", "00:35:00 next 00:40:00")
	})
}

func TestSingleRunAfterSuspend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{runDuration: time.Second}
		r.serve(r.loop(t, "*/10 * * * *"), func() {
			advance(5 * time.Minute)
			r.step(3 * time.Hour) // suspended from 00:05:00 to 03:05:00
			advance(maxSleep + r.runDuration)
		})
		r.expect(t,
			"00:00:00 next 00:10:00", "03:05:30 run 00:10:00",
			"03:05:31 missed 17 until 03:00:00", "03:05:31 next 03:10:00")
	})
}

func TestMissedCountIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		l := r.loop(t, "* * * * * *")
		l.OnScheduled, l.Run = func(time.Time) {}, func(context.Context, time.Time) {}
		counted := 0
		l.OnMissed = func(n int, _ time.Time) { counted = n }
		r.serve(l, func() {
			advance(time.Second / 2)
			r.step(30 * 365 * 24 * time.Hour)
			advance(time.Second)
		})
		if counted != maxMissed {
			t.Errorf("counted %d, want %d", counted, maxMissed)
		}
	})
}

func TestClockBackstepDoesNotRepeatTick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		r.serve(r.loop(t, "*/10 * * * *"), func() {
			advance(10*time.Minute + time.Second)
			r.step(-5 * time.Second) // before the tick that has just started a run
			advance(10*time.Minute + 10*time.Second)
		})
		r.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:10:00 next 00:20:00",
			"00:20:00 run 00:20:00", "00:20:00 next 00:30:00")
	})
}

func TestClockBackstepWithinHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		r.serve(r.loop(t, "*/10 * * * *"), func() {
			advance(25 * time.Minute)
			r.step(-20 * time.Minute) // 00:10:00 and 00:20:00 are repeated, without runs
			advance(25*time.Minute + time.Second)
		})
		r.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:10:00 next 00:20:00",
			"00:20:00 run 00:20:00", "00:20:00 next 00:30:00",
			"00:30:00 run 00:30:00", "00:30:00 next 00:40:00")
	})
}

func TestClockBackstepDuringRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		l := r.loop(t, "*/10 * * * *")
		l.Run = func(_ context.Context, tick time.Time) {
			r.record("run %s", tick.Format("15:04:05"))
			r.step(-5 * time.Second)
		}
		r.serve(l, func() { advance(10*time.Minute + 20*time.Second) })
		r.expect(t, "00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:09:55 next 00:20:00")
	})
}

func TestClockBackstepBeyondHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		r.step(365 * 24 * time.Hour) // wrong from the start
		r.serve(r.loop(t, "*/10 * * * *"), func() {
			advance(10*time.Minute + time.Second)
			r.step(-365 * 24 * time.Hour)
			advance(10 * time.Minute)
		})
		r.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:10:00 next 00:20:00",
			"00:10:30 next 00:20:00", "00:20:00 run 00:20:00", "00:20:00 next 00:30:00")
	})
}

func TestServeReturnsAfterActiveRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{runDuration: time.Hour}
		r.serve(r.loop(t, "*/10 * * * *"), func() { advance(15 * time.Minute) })
		if got := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); got != 70*time.Minute {
			t.Errorf("returned after %v, want 1h10m, the end of the run", got)
		}
		r.expect(t, "00:00:00 next 00:10:00", "00:10:00 run 00:10:00")
	})
}

func TestServeWithCanceledContext(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	l := r.loop(t, "*/10 * * * *")
	l.RunOnStart = true
	ctx, stop := context.WithCancel(context.Background())
	stop()
	l.Serve(ctx)
	r.expect(t)
}

// TestHeartbeat checks that a waiting loop calls Heartbeat, also without a future tick.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	for name, expr := range map[string]string{"future tick": "0 12 * * *", "no tick in range": "0 0 29 2 *"} {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{}
			l := r.loop(t, expr)
			beats := 0
			l.Heartbeat = func() { beats++ }
			if name == "no tick in range" {
				r.step(-100 * 365 * 24 * time.Hour) // 1900 was not a leap year, so there is no tick within five years
			}
			r.serve(l, func() { advance(5 * time.Minute) })
			if beats < 10 {
				t.Errorf("%s: %d heartbeats in 5 minutes", name, beats)
			}
		})
	}
}
