package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// rateLimit is the gate before every call but logins.
type rateLimit struct {
	mu    sync.Mutex
	until time.Time
}

const (
	waitOtherwise = time.Minute
	// waitLeast keeps a gateway that says 0 from being asked without a pause.
	waitLeast = time.Second
	// waitMost bounds what a mistaken header can do: it is asked again then.
	waitMost = 24 * time.Hour
)

// errTooLate is the error of a deadline before the rate limit resets.
var errTooLate error = tooLate{}

// tooLate is a context.DeadlineExceeded with a text of its own.
type tooLate struct{}

func (tooLate) Error() string        { return "longer than this call may wait" }
func (tooLate) Is(target error) bool { return target == context.DeadlineExceeded }

// hold closes the gate, and returns until when. It never opens it earlier than
// another answer has asked for.
func (l *rateLimit) hold(until time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.After(l.until) {
		l.until = until.UTC()
	}
	return l.until
}

func (l *rateLimit) held() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

// LimitedUntil returns until when the rate limit holds all calls back, in UTC, and
// zero when it holds none.
func (c *Client) LimitedUntil() time.Time {
	if until := c.limit.held(); rest(until, time.Now()) > 0 {
		return until
	}
	return time.Time{}
}

// HoldUntil holds all calls back until t, or for a day if that is sooner: for a
// limit that an earlier process has recorded. OnLimit is not told.
func (c *Client) HoldUntil(t time.Time) {
	if most := time.Now().Add(waitMost); t.After(most) {
		t = most
	}
	c.limit.hold(t)
}

// longestSleep bounds how late it is noticed that the machine was suspended.
const longestSleep = 30 * time.Second

// rest is how long the gate stays closed. It opens when either clock says so: the one
// that counts while the process runs stands still while the machine is suspended, and
// the wall clock may go back.
func rest(until, now time.Time) time.Duration {
	return min(until.Sub(now), until.Round(0).Sub(now.Round(0)))
}

// wait returns when the gate is open, or at once when it will not open in time for ctx.
func (l *rateLimit) wait(ctx context.Context) error {
	for {
		until := l.held()
		rest := rest(until, time.Now())
		if rest <= 0 {
			return ctx.Err()
		}
		if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
			return fmt.Errorf("rate limited until %s, %w", until.Format(time.RFC3339), errTooLate)
		}
		timer := time.NewTimer(min(rest, longestSleep))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// waitOf reads how long to wait: X-RateLimit-ToWait-Sec, else Retry-After in
// seconds or as a date, else a minute; never more than waitMost.
func waitOf(header http.Header, now time.Time) time.Duration {
	for _, name := range []string{"X-RateLimit-ToWait-Sec", "Retry-After"} {
		value := strings.TrimSpace(header.Get(name))
		if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
			return min(time.Duration(seconds)*time.Second, waitMost)
		}
		if date, err := http.ParseTime(value); err == nil {
			return min(max(date.Sub(now), 0), waitMost)
		}
	}
	return waitOtherwise
}

// counts is what a client has done so far.
type counts struct {
	requests, retries, limited atomic.Int64
}

// Counts is what a client has done so far: requests sent, those of them that
// repeated one, and answers that told to wait.
type Counts struct {
	Requests, Retries, Limited int64
}

// Counts returns what the client has done so far.
func (c *Client) Counts() Counts {
	return Counts{c.counts.requests.Load(), c.counts.retries.Load(), c.counts.limited.Load()}
}
