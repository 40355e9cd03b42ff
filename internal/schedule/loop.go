package schedule

import (
	"context"
	"time"
)

const (
	// maxSleep bounds the time until the loop detects a clock step or a resume
	// from suspend: timers do not advance while the machine is suspended.
	maxSleep = 30 * time.Second
	// maxBackstep is the largest backward clock step that the loop waits out.
	maxBackstep = time.Hour
	// maxMissed bounds the counting when the clock jumps forward, as from 1970.
	maxMissed = 10_000
)

// Loop calls Run at every tick of Schedule. All functions are called in the
// goroutine of Serve.
type Loop struct {
	Schedule   *Schedule
	RunOnStart bool // start one run immediately, before the first tick
	// Run executes one run. The tick is in the past if the machine was suspended.
	// Serve does not recover panics of Run.
	Run func(ctx context.Context, tick time.Time)
	// OnScheduled receives the next tick once it is determined.
	OnScheduled func(next time.Time)
	// OnMissed receives, after a run, the number of ticks that passed during the run
	// or during a suspend before it, and the last of them. Missed ticks do not start
	// runs. Counting stops at 10,000.
	OnMissed func(missed int, last time.Time)
	// Requests receives a value when a run outside the schedule is requested. Serve then calls
	// RunRequested, unless it waits for a run; nil: there are no requests.
	Requests <-chan struct{}
	// RunRequested executes the requested runs. It returns false if there was none.
	RunRequested func(ctx context.Context) bool
	// Heartbeat is called at least every 30 s while the loop waits.
	Heartbeat func()
	// Now returns the wall clock time.
	Now func() time.Time
}

// Serve returns when ctx is done and the active run, if any, has returned.
//
// Every tick up to handledUntil has started a run or was missed. Only later ticks
// are considered, so that no tick runs twice after a small backward clock step,
// such as a time synchronization. The loop then waits until the clock reaches its
// previous value, at most an hour longer than usual. A backward step of more than
// an hour means that the clock was wrong before, and waiting might take years.
// The schedule then restarts at the new time, and the repeated hours run again.
func (l *Loop) Serve(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	handledUntil := l.wallClock()
	if l.RunOnStart {
		l.OnScheduled(handledUntil)
		handledUntil = l.run(ctx, handledUntil)
	}
	for ctx.Err() == nil {
		if now := l.wallClock(); handledUntil.Sub(now) > maxBackstep {
			handledUntil = now
		}
		next := l.Schedule.Next(handledUntil)
		if !next.IsZero() {
			l.OnScheduled(next)
		}
		switch l.wait(ctx, next, handledUntil) {
		case tick:
			handledUntil = l.run(ctx, next)
		case requested:
			handledUntil = l.handle(ctx, handledUntil)
		}
	}
}

// event is why a wait ends.
type event int

// The events.
const (
	none      event = iota // ctx is done, or the next tick must be determined again
	tick                   // a run is due
	requested              // requested runs were executed
)

// wait waits for the next tick or a requested run, which it executes. It returns none if ctx is
// done, or if the clock steps back so far that the next tick must be determined again. If next
// is the zero time, there is no tick in the next five years.
func (l *Loop) wait(ctx context.Context, next, handledUntil time.Time) event {
	for {
		now := l.wallClock()
		if handledUntil.Sub(now) > maxBackstep {
			return none
		}
		left := maxSleep
		if !next.IsZero() {
			left = next.Sub(now)
		}
		if left <= 0 {
			if ctx.Err() != nil {
				return none
			}
			return tick
		}
		switch l.sleep(ctx, left) {
		case none:
			return none
		case requested:
			if l.RunRequested(ctx) {
				return requested
			}
		}
	}
}

// sleep calls Heartbeat and waits for a request or for d, at most maxSleep. It returns tick after
// that time, and none if ctx is done.
func (l *Loop) sleep(ctx context.Context, d time.Duration) event {
	l.Heartbeat()
	timer := time.NewTimer(min(d, maxSleep))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return none
	case <-l.Requests:
		return requested
	case <-timer.C:
		return tick
	}
}

// run executes one run and returns the time up to which ticks are handled.
func (l *Loop) run(ctx context.Context, tick time.Time) time.Time {
	l.Run(ctx, tick)
	return l.handle(ctx, tick)
}

// handle reports the ticks after a time as missed, because a run was active, and returns the time
// up to which ticks are handled.
func (l *Loop) handle(ctx context.Context, after time.Time) time.Time {
	end := l.wallClock()
	if end.Before(after) {
		return after
	}
	if ctx.Err() != nil {
		return end // no missed ticks are reported at shutdown
	}
	missed, last := 0, after
	for missed < maxMissed {
		next := l.Schedule.Next(last)
		if next.IsZero() || next.After(end) {
			break
		}
		missed, last = missed+1, next
	}
	if missed > 0 {
		l.OnMissed(missed, last)
	}
	return end
}

// wallClock returns the time without its monotonic reading, which stops during a
// suspend and ignores clock steps.
func (l *Loop) wallClock() time.Time {
	return l.Now().Round(0).UTC()
}
