package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"adconnector/internal/fault"
)

// rateLimit delays all calls except logins until the gateway's rate limit resets.
type rateLimit struct {
	mu    sync.Mutex
	until time.Time
}

const (
	defaultWait = time.Minute
	// minWait is the minimum wait after a rejected request, even if the gateway sends 0.
	minWait = time.Second
	// maxWait limits the effect of a wrong header. After it, the request is sent again.
	maxWait = 24 * time.Hour
	// maxSleep limits how late the end of a wait is detected after the machine was suspended.
	maxSleep = 30 * time.Second
)

// errLimitPastDeadline is the error of a call whose deadline is before the rate limit resets.
// It is a context.DeadlineExceeded.
var errLimitPastDeadline error = limitPastDeadline{}

type limitPastDeadline struct{}

func (limitPastDeadline) Error() string { return "after the deadline of this call" }

// Is reports whether target is context.DeadlineExceeded.
func (limitPastDeadline) Is(target error) bool { return target == context.DeadlineExceeded }

// extend extends the limit to a time and returns its end. It never shortens the limit.
func (l *rateLimit) extend(until time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until.After(l.until) {
		l.until = until.UTC()
	}
	return l.until
}

func (l *rateLimit) end() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until
}

// LimitedUntil returns the end of the current rate limit in UTC, or the zero time if there is
// none.
func (c *Client) LimitedUntil() time.Time {
	if until := c.limit.end(); remaining(until, time.Now()) > 0 {
		return until
	}
	return time.Time{}
}

// RestoreLimit delays all calls until a time, or for a day if that is earlier. It is for a
// rate limit that an earlier process recorded, and does not call OnLimit.
func (c *Client) RestoreLimit(until time.Time) {
	if latest := time.Now().Add(maxWait); until.After(latest) {
		until = latest
	}
	c.limit.extend(until)
}

// remaining returns the remaining duration of a limit. The limit ends as soon as either the
// monotonic clock or the wall clock has reached its end. The monotonic clock stops while the
// machine is suspended, and the wall clock may be set back.
func remaining(until, now time.Time) time.Duration {
	return min(until.Sub(now), until.Round(0).Sub(now.Round(0)))
}

// wait waits for the end of the limit. If that is after the deadline of ctx, it returns
// errLimitPastDeadline at once.
func (l *rateLimit) wait(ctx context.Context) error {
	for {
		until := l.end()
		remaining := remaining(until, time.Now())
		if remaining <= 0 {
			return ctx.Err()
		}
		if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
			return fmt.Errorf("rate limited until %s, %w", until.Format(time.RFC3339), errLimitPastDeadline)
		}
		timer := time.NewTimer(min(remaining, maxSleep))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// waitDuration returns how long the gateway requires to wait: X-RateLimit-ToWait-Sec, else
// Retry-After in seconds or as a date, else a minute. It returns at most maxWait.
func waitDuration(header http.Header, now time.Time) time.Duration {
	for _, name := range []string{"X-RateLimit-ToWait-Sec", "Retry-After"} {
		value := strings.TrimSpace(header.Get(name))
		if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
			return min(time.Duration(seconds)*time.Second, maxWait)
		}
		if date, err := http.ParseTime(value); err == nil {
			return min(max(date.Sub(now), 0), maxWait)
		}
	}
	return defaultWait
}

// applyLimit delays all calls for the duration that a response requires, but at least for
// minimum.
func (c *Client) applyLimit(ctx context.Context, r response, minimum time.Duration) {
	c.counts.limited.Add(1)
	now := time.Now()
	until := c.limit.extend(now.Add(max(waitDuration(r.header, now), minimum)))
	c.recordLimit(ctx) // before the log line, so that a reader of the log finds it recorded
	log := c.log(ctx)
	log.Warn().Int("status", r.status).Time("until", until).Msg(MsgRateLimited)
}

// recordLimit calls OnLimit.
func (c *Client) recordLimit(ctx context.Context) {
	if c.options.OnLimit == nil {
		return
	}
	// The end is read under the lock, so that OnLimit never gets an earlier end after a later one.
	c.onLimitMu.Lock()
	defer c.onLimitMu.Unlock()
	if until := c.LimitedUntil(); !until.IsZero() {
		if err := c.options.OnLimit(until); err != nil {
			log := c.log(ctx)
			log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgLimitNotRecorded)
		}
	}
}
