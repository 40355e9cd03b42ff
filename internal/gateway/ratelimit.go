package gateway

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"adconnector/internal/fault"
)

// Limit is a rate limit of the gateway.
type Limit struct {
	NotedAt time.Time // when the gateway set it
	Until   time.Time
}

// rateLimit delays all calls except logins until the gateway's rate limit resets.
type rateLimit struct {
	mu    sync.Mutex
	limit Limit
	share float64   // of the spread, from 0 to 1: how long after the limit calls resume
	noted time.Time // end of the limit that was last recorded and logged
}

const (
	defaultWait = time.Minute
	// minWait is the minimum wait after a rejected request, even if the gateway sends 0.
	minWait = time.Second
	// maxWait limits the effect of a wrong header. After it, the request is sent again.
	maxWait = 24 * time.Hour
	// maxWaitAfterSuccess limits the effect of a wrong header on a successful response. Limits
	// of calls per hour reset within an hour, and a response with status 429 sets longer ones.
	maxWaitAfterSuccess = time.Hour
	// minExtension is how much later a limit must end to be recorded and logged again. Calls that were
	// in flight together get the same limit.
	minExtension = time.Second
	// spreadShare and maxSpread limit the random time between the end of a limit and the first
	// call: a 60th of the limit, and half a minute. All connectors of a customer get the same
	// limit, and must not all call at the moment at which it ends.
	spreadShare = 60
	maxSpread   = 30 * time.Second
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

// extend replaces the limit if the new one ends later. It returns the end of the limit.
func (l *rateLimit) extend(limit Limit) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit.Until.After(l.limit.Until) {
		if limit.NotedAt.After(l.limit.Until) { // calls that were in flight together keep one share
			l.share = rand.Float64()
		}
		l.limit = Limit{limit.NotedAt.UTC(), limit.Until.UTC()}
	}
	return l.limit.Until
}

// mustNote reports whether the limit must be recorded and logged, because it ends later than the
// last one that was. The limit is then noted.
func (l *rateLimit) mustNote() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit.Until.Sub(l.noted) < minExtension {
		return false
	}
	l.noted = l.limit.Until
	return true
}

// resume returns the time of the first call after the limit.
func (l *rateLimit) resume() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	spread := min(l.limit.Until.Sub(l.limit.NotedAt)/spreadShare, maxSpread)
	return l.limit.Until.Add(time.Duration(l.share * float64(spread)))
}

func (l *rateLimit) current() Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

// LimitedUntil returns the end of the current rate limit in UTC, or the zero time if there is
// none.
func (c *Client) LimitedUntil() time.Time {
	if until := c.limit.current().Until; remaining(until, time.Now()) > 0 {
		return until
	}
	return time.Time{}
}

// RestoreLimit delays all calls until the end of a limit that an earlier process recorded for
// the same gateway, customer and connection. It ignores a limit noted in the future, and ends
// a limit a day after it was noted at the latest. It does not call OnLimit.
func (c *Client) RestoreLimit(limit Limit) {
	if limit.NotedAt.After(time.Now()) {
		return
	}
	if latest := limit.NotedAt.Add(maxWait); limit.Until.After(latest) {
		limit.Until = latest
	}
	c.limit.extend(limit)
}

// remaining returns the remaining duration of a limit. The limit ends as soon as either the
// monotonic clock or the wall clock has reached its end. The monotonic clock stops while the
// machine is suspended, and the wall clock may be set back.
func remaining(until, now time.Time) time.Duration {
	return min(until.Sub(now), until.Round(0).Sub(now.Round(0)))
}

// wait waits until calls resume after the limit. If that is after the deadline of ctx, it
// returns errLimitPastDeadline at once.
func (l *rateLimit) wait(ctx context.Context) error {
	for {
		resumeAt := l.resume()
		remaining := remaining(resumeAt, time.Now())
		if remaining <= 0 {
			return ctx.Err()
		}
		if deadline, ok := ctx.Deadline(); ok && deadline.Before(resumeAt) {
			return fmt.Errorf("rate limited until %s, %w", resumeAt.UTC().Format(time.RFC3339), errLimitPastDeadline)
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

// headerToWait is the number of seconds after which the gateway accepts a call again.
const headerToWait = "X-RateLimit-ToWait-Sec"

// waitDuration returns how long the gateway requires to wait: X-RateLimit-ToWait-Sec above 0,
// else Retry-After, else a minute, unless X-RateLimit-ToWait-Sec is 0. It returns at most maxWait.
func waitDuration(header http.Header, now time.Time) time.Duration {
	toWait, hasToWait := longestWait(header, headerToWait, now)
	retryAfter, hasRetryAfter := longestWait(header, "Retry-After", now)
	switch {
	case toWait > 0 || hasToWait && !hasRetryAfter:
		return min(toWait, maxWait)
	case hasRetryAfter:
		return min(retryAfter, maxWait)
	}
	return defaultWait
}

// longestWait returns the longest wait among the values of a header, in seconds or as a date,
// and whether there is a valid one. A date is relative to the Date of the response, because the
// local clock may be wrong. Without a Date, a date that is past by the local clock is not valid.
func longestWait(header http.Header, name string, now time.Time) (wait time.Duration, found bool) {
	sent, err := http.ParseTime(header.Get("Date"))
	hasDate := err == nil
	if !hasDate {
		sent = now
	}
	for _, value := range header.Values(name) {
		value = strings.TrimSpace(value)
		seconds, ok := parseSeconds(value)
		if !ok {
			date, err := http.ParseTime(value)
			if ok = err == nil && (hasDate || date.After(now)); !ok {
				continue
			}
			seconds = date.Sub(sent)
		}
		wait, found = max(wait, seconds), true
	}
	return wait, found
}

// maxSeconds prevents an overflow of time.Duration. The use of a wait limits it further.
const maxSeconds = 1 << 30

// parseSeconds parses a number of seconds, with or without a fraction. It returns maxSeconds for a
// larger number.
func parseSeconds(text string) (wait time.Duration, ok bool) {
	if strings.Trim(text, "0123456789.") != "" { // signs and exponents
		return 0, false
	}
	seconds, err := strconv.ParseFloat(text, 64) // infinite if out of range
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, false
	}
	return time.Duration(min(seconds, maxSeconds) * float64(time.Second)), true
}

// applyLimit delays all calls for the duration that a response requires.
func (c *Client) applyLimit(ctx context.Context, r response) {
	c.counts.limited.Add(1)
	now := time.Now()
	wait := waitDuration(r.header, now)
	if r.status < 300 {
		wait = min(wait, maxWaitAfterSuccess)
	} else {
		wait = max(wait, minWait)
	}
	until := c.limit.extend(Limit{now, now.Add(wait)})
	if !c.limit.mustNote() {
		return
	}
	c.recordLimit(ctx) // before the log line, so that a reader of the log finds it recorded
	log := c.log(ctx)
	log.Warn().Int("status", r.status).Time("until", until).Msg(MsgRateLimited)
}

// recordLimit calls OnLimit.
func (c *Client) recordLimit(ctx context.Context) {
	if c.options.OnLimit == nil {
		return
	}
	// The limit is read under the lock, so that OnLimit never gets an earlier end after a later one.
	c.onLimitMu.Lock()
	defer c.onLimitMu.Unlock()
	if limit := c.limit.current(); remaining(limit.Until, time.Now()) > 0 {
		if err := c.options.OnLimit(limit); err != nil {
			log := c.log(ctx)
			log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgLimitNotRecorded)
		}
	}
}
