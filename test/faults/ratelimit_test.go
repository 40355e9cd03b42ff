package faults

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/cli"
	"adconnector/internal/gateway"
	"adconnector/test/program"
	"adconnector/test/testenv"
)

// rateLimiter limits the number of calls in each hour, where hours are short. Calls above
// the limit get one of the three headers for the time to wait. Logins are not limited.
type rateLimiter struct {
	limit int           // calls in an hour
	hour  time.Duration // from the last allowed call to the next hour

	mu            sync.Mutex
	nextHour      time.Time // start of the next hour, once the calls are used up
	remaining     int       // calls in this hour
	announced     time.Time // when the active wait was first announced
	earliestEnd   time.Time // of the active wait
	latestEnd     time.Time
	logins        map[string]time.Time // by token
	refused       int
	refusedInHour int
	maxRefused    int // in one hour
	premature     int // calls during a wait, from a process that started during it
	hours         int
	allowed       int
}

func (l *rateLimiter) serve(x *testenv.Exchange) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if x.R.URL.Path == testenv.LoginPath {
		answer := x.Deliver()
		l.logins[strings.TrimSpace(answer.Body.String())] = now
		x.Answer(answer)
		return true
	}
	if l.remaining == 0 && !now.Before(l.nextHour) {
		l.remaining, l.refusedInHour = l.limit, 0
		l.hours++
	}
	token := strings.TrimPrefix(x.R.Header.Get("Authorization"), "Bearer ")
	login, ok := l.logins[token]
	if !ok {
		return x.Status(http.StatusUnauthorized, `{"message":"unknown token"}`)
	}
	if now.Before(l.earliestEnd) && login.After(l.announced) {
		l.premature++
	}
	if l.remaining > 0 {
		l.allow(x, now)
		return false
	}
	return l.refuse(x, now)
}

// allow counts a call. In every second hour, the answer to the last call announces the limit.
func (l *rateLimiter) allow(x *testenv.Exchange, now time.Time) {
	l.remaining--
	l.allowed++
	if l.remaining > 0 {
		return
	}
	l.nextHour = now.Add(l.hour)
	if l.hours%2 == 0 {
		x.W.Header().Set("X-RateLimit-Remaining", "0")
		x.W.Header().Set("X-RateLimit-ToWait-Sec", l.announceSeconds(now))
	}
}

func (l *rateLimiter) refuse(x *testenv.Exchange, now time.Time) bool {
	l.refused++
	l.refusedInHour++
	l.maxRefused = max(l.maxRefused, l.refusedInHour)
	if l.refusedInHour > 1000 { // ends a client that never waits
		return x.Status(http.StatusForbidden, "{}")
	}
	switch l.refused % 3 {
	case 0:
		x.W.Header().Set("X-RateLimit-ToWait-Sec", l.announceSeconds(now))
	case 1:
		x.W.Header().Set("Retry-After", l.announceSeconds(now))
	default:
		end := now.Add(l.untilNextHour(now)).Truncate(time.Second) // an HTTP date has whole seconds
		l.announce(now, end)
		x.W.Header().Set("Retry-After", end.UTC().Format(http.TimeFormat))
	}
	return x.Status([]int{http.StatusTooManyRequests, http.StatusConflict}[l.refused%2], `{"message":"limit exceeded"}`)
}

// announceSeconds announces a wait until the next hour and returns its length for a header.
func (l *rateLimiter) announceSeconds(now time.Time) string {
	wait := l.untilNextHour(now)
	l.announce(now, now.Add(wait))
	return strconv.Itoa(int(wait / time.Second))
}

// announce records the end of an announced wait.
func (l *rateLimiter) announce(now, end time.Time) {
	if !end.After(now) {
		return
	}
	if !l.latestEnd.After(now) {
		l.announced, l.earliestEnd, l.latestEnd = now, end, end
	}
	if end.Before(l.earliestEnd) {
		l.earliestEnd = end
	}
	if end.After(l.latestEnd) {
		l.latestEnd = end
	}
}

// untilNextHour returns the time until the next hour, rounded up to whole seconds.
func (l *rateLimiter) untilNextHour(now time.Time) time.Duration {
	return l.nextHour.Sub(now).Truncate(time.Second) + time.Second
}

// TestRateLimitWait rate-limits the connector for an hour. It passes if SIGTERM ends the
// wait with exit code 130. A new process must restore the wait from the state file, log the
// same end, and make no call but its login.
func TestRateLimitWait(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 50, groups: 5})
	var mu sync.Mutex
	var calls []string
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, x.R.URL.Path)
		if !x.HasAssets() {
			return false
		}
		if x.Number > 1000 { // ends a client that never waits
			return x.Status(http.StatusForbidden, "{}")
		}
		x.W.Header().Set("X-RateLimit-ToWait-Sec", "3600")
		return x.Status(http.StatusTooManyRequests, "")
	})
	stop := func(p *program.Process) time.Duration {
		t.Helper()
		began := time.Now()
		p.Signal(t, syscall.SIGTERM)
		p.MustExit(t, 130)
		return time.Since(began)
	}
	p := start(t, command{settings: e.settings, args: []string{"sync"}})
	limited := p.AwaitMessage(t, gateway.MsgRateLimited)
	slowest := stop(p)

	mu.Lock()
	calls = nil
	mu.Unlock()
	p = start(t, command{settings: e.settings, args: []string{"sync"}})
	restored := p.AwaitMessage(t, cli.MsgRateLimitRestored)
	if limited.Text("until") == "" || limited.Text("until") != restored.Text("until") {
		t.Errorf("rate limited until %q, restored as %q", limited.Text("until"), restored.Text("until"))
	}
	p.Await(t, 0, enteredState("PROCESSING")) // then waits before its first call
	slowest = max(slowest, stop(p))
	for _, path := range calls {
		if path != testenv.LoginPath {
			t.Errorf("call of %s during the wait", path)
		}
	}
	logResult(t, "2 stops during a wait of an hour, the slower took %s", slowest.Round(time.Millisecond))
}

// TestRateLimit limits the calls in each short hour, and stops or kills the connector during
// a wait. It passes if everything is delivered and a stop ends a wait. A process that starts
// during a wait must make no call before its end. In each hour, at most one call of each
// worker may be refused.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	began := time.Now()
	const workers = 4
	e := newEnvironment(t, environmentOptions{users: scaled(120, 4000), groups: 20})
	e.settings = e.settings.With(testenv.Settings{"upload.batch-size": "10", "thread-pool.size": strconv.Itoa(workers)})
	l := &rateLimiter{limit: scaled(10, 150), hour: scaled(900*time.Millisecond, 8*time.Second), logins: map[string]time.Time{}}
	e.Gateway.SetFront(l.serve)

	endDuringWait := func(end func(p *program.Process)) {
		t.Helper()
		p := start(t, command{settings: e.settings, args: []string{"sync"}})
		p.AwaitMessage(t, gateway.MsgRateLimited)
		accepted, _ := e.monitor.counts()
		end(p)
		o := p.Wait(t)
		if o.Code == 0 {
			t.Errorf("exit code 0 of a process that was ended during a wait:\n%s", o.Stderr)
		}
		if accepted == 0 {
			t.Error("rate limited before any object was accepted")
		}
	}
	endDuringWait(func(p *program.Process) { p.Signal(t, syscall.SIGTERM) })
	endDuringWait((*program.Process).Kill)
	run(t, e.settings, "sync").MustExit(t, 0)
	e.Gateway.SetFront(nil)
	run(t, e.settings, "sync").MustExit(t, 0)
	e.mustMatchDirectory(t, "after the rate limits")
	if l.premature > 0 {
		t.Errorf("%d calls of a process that started during the wait", l.premature)
	}
	if l.maxRefused > workers {
		t.Errorf("%d calls refused in an hour with %d workers", l.maxRefused, workers)
	}
	logResult(t, "%d calls allowed and %d refused in %d hours of %d calls, 2 restarts during a wait, no premature call, gateway matches; %s",
		l.allowed, l.refused, l.hours, l.limit, time.Since(began).Round(time.Millisecond))
}
