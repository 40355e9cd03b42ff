package faults

import (
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/cli"
)

// limiter lets so many calls through in each of its hours and tells the others to
// wait, in the three forms in which that can be said. Logins are not limited.
type limiter struct {
	calls int           // in an hour
	hour  time.Duration // how long one lasts here

	mu      sync.Mutex
	ends    time.Time // of the hour under way
	left    int
	told    time.Time // until when everybody is to wait, at the latest
	least   time.Time // and at the earliest: a process that was killed has not heard all of it
	heard   time.Time // when the first was told so
	refused int
	early   int // calls well after that, and before the earliest
	hours   int
	through int
}

// grace is how long calls that were under way when the limit was told may still arrive.
const grace = time.Second

func (l *limiter) answer(x *exchange) bool {
	if x.r.URL.Path == "/auth" {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !now.Before(l.ends) {
		l.ends, l.left = now.Add(l.hour), l.calls
		l.hours++
	}
	if now.Before(l.least) && now.After(l.heard.Add(grace)) {
		l.early++
	}
	if l.left > 0 {
		l.left--
		l.through++
		if l.left == 0 && l.hours%2 == 0 { // every other hour it says so with the last success
			x.w.Header().Set("X-RateLimit-Remaining", "0")
			x.w.Header().Set("X-RateLimit-ToWait-Sec", l.wait(now))
		}
		return false
	}
	l.refused++
	switch l.refused % 3 {
	case 0:
		x.w.Header().Set("X-RateLimit-ToWait-Sec", l.wait(now))
	case 1:
		x.w.Header().Set("Retry-After", l.wait(now))
	default:
		until := now.Add(l.seconds(now)).Truncate(time.Second) // a date has no fractions
		l.tell(now, until)
		x.w.Header().Set("Retry-After", until.UTC().Format(http.TimeFormat))
	}
	return x.status([]int{http.StatusTooManyRequests, http.StatusConflict}[l.refused%2], `{"message":"limit exceeded"}`)
}

func (l *limiter) wait(now time.Time) string {
	seconds := l.seconds(now)
	l.tell(now, now.Add(seconds))
	return strconv.Itoa(int(seconds / time.Second))
}

func (l *limiter) tell(now, until time.Time) {
	if !until.After(now) {
		return
	}
	if !l.told.After(now) {
		l.heard, l.least, l.told = now, until, until
	}
	if until.Before(l.least) {
		l.least = until
	}
	if until.After(l.told) {
		l.told = until
	}
}

// seconds are the whole ones until the hour ends.
func (l *limiter) seconds(now time.Time) time.Duration {
	return l.ends.Sub(now).Truncate(time.Second) + time.Second
}

// TestHourLongWait tells the connector to wait for an hour. It passes when a stop ends
// the wait within two seconds, as interrupted; when a process started anew remembers
// it, and says until when; and when that one makes no call but its login.
func TestHourLongWait(t *testing.T) {
	t.Parallel()
	s := newSite(t, plan{users: 50, groups: 5})
	var mu sync.Mutex
	var calls []string
	s.facing(func(x *exchange) bool {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, x.r.URL.Path)
		if !x.isBatch() {
			return false
		}
		x.w.Header().Set("X-RateLimit-ToWait-Sec", "3600")
		return x.status(http.StatusTooManyRequests, "")
	})
	stop := func(p *process) time.Duration {
		t.Helper()
		began := time.Now()
		p.signal(syscall.SIGTERM)
		p.wait(t, 2*time.Second).mustExit(t, 130)
		return time.Since(began)
	}
	p := start(t, command{settings: s.settings, args: []string{"sync"}})
	said, _ := p.waitFor(t, 0, time.Minute, saying("rate limited by the gateway"))
	took := stop(p)

	mu.Lock()
	calls = nil
	mu.Unlock()
	p = start(t, command{settings: s.settings, args: []string{"sync"}})
	remembered, _ := p.waitFor(t, 0, time.Minute, saying(cli.MsgRateLimitRestored))
	if said.text("until") == "" || said.text("until") != remembered.text("until") {
		t.Errorf("said %s and remembered %s", said.text("until"), remembered.text("until"))
	}
	p.waitFor(t, 0, time.Minute, func(l line) bool { return l.text("to") == "PROCESSING" }) // and goes on to its first call
	took = max(took, stop(p))
	for _, path := range calls {
		if path != "/auth" {
			t.Errorf("%s was called in the wait", path)
		}
	}
	figures(t, "2 stops in an hour's wait, the slower in %s", took.Round(time.Millisecond))
}

// TestRateLimit sends to a gateway that takes so many calls an hour, hours being
// short, and stops or kills the connector in the middle of a wait. It passes when
// everything is delivered; when no hour lets more through than it may; when no call
// comes during a wait, that of a process started anew in it included, but those
// under way when it was told; when refusals stay below the number of workers an hour;
// and when a stop ends a wait at once.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	began := time.Now()
	const workers = 4
	s := newSite(t, plan{users: scaled(400, 8000), groups: 20})
	s.settings = s.settings.with(settings{"upload.batch-size": "10", "thread-pool.size": strconv.Itoa(workers)})
	l := &limiter{calls: scaled(15, 300), hour: scaled(2*time.Second, 12*time.Second)}
	s.facing(l.answer)

	inTheWait := func(end func(p *process)) {
		t.Helper()
		p := start(t, command{settings: s.settings, args: []string{"sync"}})
		p.waitFor(t, 0, time.Minute, saying("rate limited by the gateway"))
		before, _ := s.witness.counts()
		end(p)
		o := p.wait(t, 10*time.Second)
		if o.code == 0 {
			t.Errorf("a run that was ended in its wait exits with 0:\n%s", o.text)
		}
		if before == 0 {
			t.Error("the limit came before anything was taken")
		}
	}
	inTheWait(func(p *process) { p.signal(syscall.SIGTERM) })
	inTheWait(func(p *process) { p.kill() })
	run(t, s.settings, "sync").mustExit(t, 0)
	s.facing(nil)
	run(t, s.settings, "sync").mustExit(t, 0)
	s.mustBeEqual(t, "after the limits")
	if l.early > 0 {
		t.Errorf("%d calls came during a wait", l.early)
	}
	if l.refused > workers*l.hours {
		t.Errorf("%d refusals in %d hours of %d workers", l.refused, l.hours, workers)
	}
	figures(t, "%d calls through and %d refused in %d hours of %d calls, 2 restarts in a wait, none early, all equal; %s",
		l.through, l.refused, l.hours, l.calls, time.Since(began).Round(time.Millisecond))
}
