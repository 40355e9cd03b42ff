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

// journal runs a loop against the clock of a synctest bubble, which starts at
// midnight 2000-01-01, moved by steps, and notes what the loop does.
type journal struct {
	offset atomic.Int64 // of the wall clock, in nanoseconds
	notes  []string
	took   time.Duration // by each run
}

func (j *journal) now() time.Time { return time.Now().Add(time.Duration(j.offset.Load())) }

// step moves the wall clock by d; timers do not notice.
func (j *journal) step(d time.Duration) { j.offset.Add(int64(d)) }

func (j *journal) note(format string, args ...any) {
	j.notes = append(j.notes, j.now().UTC().Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

func (j *journal) loop(t *testing.T, expr string) *Loop {
	t.Helper()
	s, err := Parse(expr)
	if err != nil {
		t.Fatal(err)
	}
	return &Loop{
		Schedule: s,
		Run: func(_ context.Context, tick time.Time) {
			j.note("run %s", tick.Format("15:04:05"))
			time.Sleep(j.took)
		},
		Scheduled: func(next time.Time) { j.note("next %s", next.Format("15:04:05")) },
		Missed:    func(n int, last time.Time) { j.note("missed %d until %s", n, last.Format("15:04:05")) },
		Now:       j.now,
	}
}

// serve runs the loop while script plays, then stops it and waits for it.
func (j *journal) serve(l *Loop, script func()) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); l.Serve(ctx) }()
	script()
	stop()
	<-done
}

func (j *journal) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(j.notes, want) {
		t.Errorf("got\n%q\nwant\n%q", j.notes, want)
	}
}

// pass lets time go by and the loop deal with it.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestLoopRunsAtEveryTick(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{took: time.Minute}
		j.serve(j.loop(t, "*/10 * * * *"), func() { pass(25 * time.Minute) })
		j.expect(t,
			"00:00:00 next 00:10:00",
			"00:10:00 run 00:10:00", "00:11:00 next 00:20:00",
			"00:20:00 run 00:20:00", "00:21:00 next 00:30:00")
	})
}

func TestLoopRunsOnStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{took: time.Minute}
		l := j.loop(t, "*/10 * * * *")
		l.RunOnStart = true
		pass(7 * time.Minute)
		j.serve(l, func() { pass(5 * time.Minute) })
		j.expect(t,
			"00:07:00 next 00:07:00", "00:07:00 run 00:07:00",
			"00:08:00 next 00:10:00", "00:10:00 run 00:10:00", "00:11:00 next 00:20:00")
	})
}

func TestLoopMissesTicksDuringARun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{took: 25 * time.Minute}
		j.serve(j.loop(t, "*/10 * * * *"), func() { pass(36 * time.Minute) })
		j.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00",
			"00:35:00 missed 2 until 00:30:00", "00:35:00 next 00:40:00")
	})
}

func TestLoopRunsOnceAfterASuspend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{took: time.Second}
		j.serve(j.loop(t, "*/10 * * * *"), func() {
			pass(5 * time.Minute)
			j.step(3 * time.Hour) // slept from 00:05:00 to 03:05:00
			pass(longestSleep + j.took)
		})
		j.expect(t,
			"00:00:00 next 00:10:00", "03:05:30 run 00:10:00",
			"03:05:31 missed 17 until 03:00:00", "03:05:31 next 03:10:00")
	})
}

func TestLoopCountsABoundedNumberOfMisses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		l := j.loop(t, "* * * * * *")
		l.Scheduled, l.Run = nil, func(context.Context, time.Time) {}
		counted := 0
		l.Missed = func(n int, _ time.Time) { counted = n }
		j.serve(l, func() {
			pass(time.Second / 2)
			j.step(30 * 365 * 24 * time.Hour)
			pass(time.Second)
		})
		if counted != countedMisses {
			t.Errorf("counted %d, want %d", counted, countedMisses)
		}
	})
}

func TestLoopDoesNotRepeatATickWhenTheClockStepsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		j.serve(j.loop(t, "*/10 * * * *"), func() {
			pass(10*time.Minute + time.Second)
			j.step(-5 * time.Second) // back before the tick that has just run
			pass(10*time.Minute + 10*time.Second)
		})
		j.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:10:00 next 00:20:00",
			"00:20:00 run 00:20:00", "00:20:00 next 00:30:00")
	})
}

func TestLoopWaitsForAClockThatSteppedBackWithinTheHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		j.serve(j.loop(t, "*/10 * * * *"), func() {
			pass(25 * time.Minute)
			j.step(-20 * time.Minute) // 00:10:00 and 00:20:00 come again and do not run again
			pass(25*time.Minute + time.Second)
		})
		j.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:10:00 next 00:20:00",
			"00:20:00 run 00:20:00", "00:20:00 next 00:30:00",
			"00:30:00 run 00:30:00", "00:30:00 next 00:40:00")
	})
}

func TestLoopDoesNotRepeatATickWhenTheClockStepsBackDuringTheRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		l := j.loop(t, "*/10 * * * *")
		l.Run = func(_ context.Context, tick time.Time) {
			j.note("run %s", tick.Format("15:04:05"))
			j.step(-5 * time.Second)
		}
		j.serve(l, func() { pass(10*time.Minute + 20*time.Second) })
		j.expect(t, "00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:09:55 next 00:20:00")
	})
}

func TestLoopDoesNotStarveWhenTheClockStepsBackFar(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		j.step(365 * 24 * time.Hour) // wrong from the start
		j.serve(j.loop(t, "*/10 * * * *"), func() {
			pass(10*time.Minute + time.Second)
			j.step(-365 * 24 * time.Hour)
			pass(10 * time.Minute)
		})
		j.expect(t,
			"00:00:00 next 00:10:00", "00:10:00 run 00:10:00", "00:10:00 next 00:20:00",
			"00:10:30 next 00:20:00", "00:20:00 run 00:20:00", "00:20:00 next 00:30:00")
	})
}

func TestLoopReturnsAfterTheRunUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &journal{took: time.Hour}
		j.serve(j.loop(t, "*/10 * * * *"), func() { pass(15 * time.Minute) })
		if got := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); got != 70*time.Minute {
			t.Errorf("returned after %v, want the run's end at 1h10m", got)
		}
		j.expect(t, "00:00:00 next 00:10:00", "00:10:00 run 00:10:00")
	})
}

func TestLoopDoesNothingWhenAlreadyStopped(t *testing.T) {
	t.Parallel()
	j := &journal{}
	l := j.loop(t, "*/10 * * * *")
	l.RunOnStart = true
	ctx, stop := context.WithCancel(context.Background())
	stop()
	l.Serve(ctx)
	j.expect(t)
}

// TestAwake: a loop that waits, even for nothing at all, shows that it is alive.
func TestAwake(t *testing.T) {
	t.Parallel()
	for name, expr := range map[string]string{"for a tick": "0 12 * * *", "for years": "0 0 29 2 *"} {
		synctest.Test(t, func(t *testing.T) {
			j := &journal{}
			l := j.loop(t, expr)
			signs := 0
			l.Awake = func() { signs++ }
			if name == "for years" {
				j.step(-100 * 365 * 24 * time.Hour) // 1900 was no leap year, nor were the next four
			}
			j.serve(l, func() { pass(5 * time.Minute) })
			if signs < 10 {
				t.Errorf("%s: %d signs of life in 5 minutes", name, signs)
			}
		})
	}
}
