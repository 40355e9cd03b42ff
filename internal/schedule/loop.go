package schedule

import (
	"context"
	"time"
)

const (
	// longestSleep bounds how late a changed clock or a machine that was
	// suspended is noticed: timers count time that the machine was awake.
	longestSleep = 30 * time.Second
	// rewind is how far back a clock may step and still be waited for.
	rewind = time.Hour
	// countedMisses bounds the counting after a clock that started in 1970.
	countedMisses = 10_000
)

// Loop calls Run at every tick of Schedule. The functions are called on the
// goroutine of Serve; all but Run may be nil.
type Loop struct {
	Schedule   *Schedule
	RunOnStart bool // run once at once, before the first tick
	// Run does one run for the tick, which may be past when the machine slept.
	// Its panics are the caller's.
	Run func(ctx context.Context, tick time.Time)
	// Scheduled is told the next tick as soon as it is decided.
	Scheduled func(next time.Time)
	// Missed is told, after a run, how many later ticks fell into it or into the
	// sleep of the machine before it, and the last of them. They are not made
	// up for. Counting stops at 10,000.
	Missed func(missed int, last time.Time)
	// Awake is called every 30 s at least while the loop waits: it is alive.
	Awake func()

	// Now is the wall clock; nil: time.Now.
	Now func() time.Time
}

// Serve runs until ctx is done and the run under way, if any, has returned.
//
// Every tick up to the moment "settled" has been run or missed, and only later
// ones are looked for. When the clock steps back a little, as after a time
// synchronisation, that keeps a tick from running twice: the loop waits, at most
// an hour longer than usual, until the clock is where it was. When it steps
// back by more than an hour it was wrong before, and waiting might take years:
// what was settled is forgotten and the schedule starts anew from the new time,
// though the same hours then come, and run, once more.
func (l *Loop) Serve(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	settled := l.wallClock()
	if l.RunOnStart {
		l.scheduled(settled)
		settled = l.run(ctx, settled)
	}
	for ctx.Err() == nil {
		if now := l.wallClock(); settled.Sub(now) > rewind {
			settled = now
		}
		next := l.Schedule.Next(settled)
		if next.IsZero() { // nothing in the next five years
			for l.sleep(ctx, longestSleep) {
			}
			return
		}
		l.scheduled(next)
		if l.wait(ctx, next, settled) {
			settled = l.run(ctx, next)
		}
	}
}

// wait reports whether next is due. It is not when ctx is done or the clock
// went back so far behind settled that the next tick must be decided again.
func (l *Loop) wait(ctx context.Context, next, settled time.Time) bool {
	for {
		now := l.wallClock()
		if settled.Sub(now) > rewind {
			return false
		}
		left := next.Sub(now)
		if left <= 0 {
			return ctx.Err() == nil
		}
		if !l.sleep(ctx, left) {
			return false
		}
	}
}

// sleep shows that the loop is awake and waits for d, or less. It reports whether
// to go on.
func (l *Loop) sleep(ctx context.Context, d time.Duration) bool {
	if l.Awake != nil {
		l.Awake()
	}
	timer := time.NewTimer(min(d, longestSleep))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// run does one run and returns the time up to which ticks are settled by it.
func (l *Loop) run(ctx context.Context, tick time.Time) time.Time {
	l.Run(ctx, tick)
	end := l.wallClock()
	if end.Before(tick) {
		return tick
	}
	if ctx.Err() != nil {
		return end // a stop is no reason to speak of missed ticks
	}
	missed, last := 0, tick
	for missed < countedMisses {
		next := l.Schedule.Next(last)
		if next.IsZero() || next.After(end) {
			break
		}
		missed, last = missed+1, next
	}
	if missed > 0 && l.Missed != nil {
		l.Missed(missed, last)
	}
	return end
}

func (l *Loop) scheduled(next time.Time) {
	if l.Scheduled != nil {
		l.Scheduled(next)
	}
}

// wallClock strips the monotonic reading, which stands still while the machine
// is suspended and knows nothing of clock steps.
func (l *Loop) wallClock() time.Time {
	if l.Now != nil {
		return l.Now().Round(0).UTC()
	}
	return time.Now().Round(0).UTC()
}
