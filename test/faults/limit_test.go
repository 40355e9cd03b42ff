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

// limiter lets so many calls through in each of its hours. It tells the others to wait, in
// the three forms that exist. Logins are not limited.
type limiter struct {
	calls int           // in an hour
	hour  time.Duration // how long one lasts here once its calls are used up

	mu       sync.Mutex
	ends     time.Time // of the hour under way, whose calls are used up
	left     int
	least    time.Time            // the earliest end of the wait under way
	latest   time.Time            // and the latest
	announce time.Time            // when that wait was first announced
	logins   map[string]time.Time // of tokens
	refused  int
	inHour   int // refused in the hour under way
	most     int // refused in one hour
	early    int // calls before the end of a wait, of a process that started during it
	hours    int
	through  int
}

func (l *limiter) answer(x *testenv.Exchange) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x.R.URL.Path == testenv.LoginPath {
		now, answer := time.Now(), x.Deliver()
		l.logins[strings.TrimSpace(answer.Body.String())] = now
		x.Answer(answer)
		return true
	}
	now := time.Now()
	if l.left == 0 && !now.Before(l.ends) {
		l.left, l.inHour = l.calls, 0
		l.hours++
	}
	token := strings.TrimPrefix(x.R.Header.Get("Authorization"), "Bearer ")
	login, known := l.logins[token]
	if !known {
		x.Status(http.StatusUnauthorized, `{"message":"unknown token"}`)
		return true
	}
	if now.Before(l.least) && login.After(l.announce) {
		l.early++
	}
	if l.left > 0 {
		l.left--
		l.through++
		if l.left == 0 {
			l.ends = now.Add(l.hour)
		}
		if l.left == 0 && l.hours%2 == 0 { // every other hour, the last success carries the limit
			x.W.Header().Set("X-RateLimit-Remaining", "0")
			x.W.Header().Set("X-RateLimit-ToWait-Sec", l.wait(now))
		}
		return false
	}
	l.refused++
	l.inHour++
	l.most = max(l.most, l.inHour)
	if l.inHour > 1000 { // a client that does not wait at all would never end
		return x.Status(http.StatusForbidden, "{}")
	}
	switch l.refused % 3 {
	case 0:
		x.W.Header().Set("X-RateLimit-ToWait-Sec", l.wait(now))
	case 1:
		x.W.Header().Set("Retry-After", l.wait(now))
	default:
		until := now.Add(l.seconds(now)).Truncate(time.Second) // a date has no fractions
		l.tell(now, until)
		x.W.Header().Set("Retry-After", until.UTC().Format(http.TimeFormat))
	}
	return x.Status([]int{http.StatusTooManyRequests, http.StatusConflict}[l.refused%2], `{"message":"limit exceeded"}`)
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
	if !l.latest.After(now) {
		l.announce, l.least, l.latest = now, until, until
	}
	if until.Before(l.least) {
		l.least = until
	}
	if until.After(l.latest) {
		l.latest = until
	}
}

// seconds are the whole ones until the hour ends.
func (l *limiter) seconds(now time.Time) time.Duration {
	return l.ends.Sub(now).Truncate(time.Second) + time.Second
}

// TestHourLongWait tells the connector to wait for an hour. It passes when a stop ends
// the wait, as interrupted; when a process started anew remembers
// it, and says until when; and when that one makes no call but its login.
func TestHourLongWait(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: 50, groups: 5})
	var mu sync.Mutex
	var calls []string
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, x.R.URL.Path)
		if !x.HasAssets() {
			return false
		}
		if x.Number > 1000 { // a client that does not wait at all would never end
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
	p := start(t, command{settings: s.settings, args: []string{"sync"}})
	said := p.AwaitMessage(t, gateway.MsgRateLimited)
	took := stop(p)

	mu.Lock()
	calls = nil
	mu.Unlock()
	p = start(t, command{settings: s.settings, args: []string{"sync"}})
	remembered := p.AwaitMessage(t, cli.MsgRateLimitRestored)
	if said.Text("until") == "" || said.Text("until") != remembered.Text("until") {
		t.Errorf("said %s and remembered %s", said.Text("until"), remembered.Text("until"))
	}
	p.Await(t, 0, entered("PROCESSING")) // and goes on to its first call
	took = max(took, stop(p))
	for _, path := range calls {
		if path != testenv.LoginPath {
			t.Errorf("%s was called in the wait", path)
		}
	}
	figures(t, "2 stops in an hour's wait, the slower in %s", took.Round(time.Millisecond))
}

// TestRateLimit sends to a gateway that takes so many calls an hour, hours being
// short, and stops or kills the connector in the middle of a wait. It passes when
// everything is delivered; when a process that starts during a wait makes no call before
// its end; when no more calls are refused in an hour than were under way at once; and when
// a stop ends a wait.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	began := time.Now()
	const workers = 4
	s := newEnvironment(t, plan{users: scaled(120, 4000), groups: 20})
	s.settings = s.settings.With(testenv.Settings{"upload.batch-size": "10", "thread-pool.size": strconv.Itoa(workers)})
	l := &limiter{calls: scaled(10, 150), hour: scaled(900*time.Millisecond, 8*time.Second), logins: map[string]time.Time{}}
	s.Gateway.SetFront(l.answer)

	inTheWait := func(end func(p *program.Process)) {
		t.Helper()
		p := start(t, command{settings: s.settings, args: []string{"sync"}})
		p.AwaitMessage(t, gateway.MsgRateLimited)
		before, _ := s.witness.counts()
		end(p)
		o := p.Wait(t)
		if o.Code == 0 {
			t.Errorf("a run that was ended in its wait exits with 0:\n%s", o.Stderr)
		}
		if before == 0 {
			t.Error("the limit came before anything was taken")
		}
	}
	inTheWait(func(p *program.Process) { p.Signal(t, syscall.SIGTERM) })
	inTheWait((*program.Process).Kill)
	run(t, s.settings, "sync").MustExit(t, 0)
	s.Gateway.SetFront(nil)
	run(t, s.settings, "sync").MustExit(t, 0)
	s.mustBeEqual(t, "after the limits")
	if l.early > 0 {
		t.Errorf("%d calls of a process that started during the wait", l.early)
	}
	if l.most > workers {
		t.Errorf("%d refusals in an hour of %d workers", l.most, workers)
	}
	figures(t, "%d calls through and %d refused in %d hours of %d calls, 2 restarts in a wait, none early, all equal; %s",
		l.through, l.refused, l.hours, l.calls, time.Since(began).Round(time.Millisecond))
}
