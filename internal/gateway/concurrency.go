package gateway

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"adconnector/internal/fault"
)

// ConcurrencyLimit is a limit of the gateway on concurrent calls.
type ConcurrencyLimit struct {
	NotedAt time.Time // of the last refusal, or of the last raise
	Calls   int       // maximum number of concurrent calls; 0: no limit
}

const (
	// raiseInterval is the time without a refusal after which a run allows one more call.
	raiseInterval = time.Hour
	// minConcurrencyWait is the minimum wait before a refused call is sent again. The maximum
	// is twice as long.
	minConcurrencyWait = time.Second
	// maxTrustedRefusals is the number of consecutive refusals of one call after which the
	// gateway's number is not trusted: other clients use a part of it.
	maxTrustedRefusals = 4
	// maxConcurrencyRefusals is the number of consecutive refusals that fail an attempt of a
	// call. It takes 20 to 40 seconds.
	maxConcurrencyRefusals = 20
	// noteInterval is how often refusals that do not change the limit are recorded and logged.
	noteInterval = time.Minute
)

var errTooManyCalls = errors.New("too many concurrent calls")

// raised returns the limit at the start of a run: higher by one for each hour without a
// refusal. It returns no limit if that allows all workers, or if the limit was noted in the
// future.
func (l ConcurrencyLimit) raised(workers int, now time.Time) ConcurrencyLimit {
	hours := now.Sub(l.NotedAt) / raiseInterval
	if l.Calls <= 0 || l.NotedAt.After(now) || hours >= time.Duration(workers) || l.Calls+int(hours) >= workers {
		return ConcurrencyLimit{}
	}
	return ConcurrencyLimit{l.NotedAt.Add(hours * raiseInterval), l.Calls + int(hours)}
}

// reducedCalls returns how many concurrent calls are allowed after a refusal: the gateway's
// number if it is lower than the current one. Without a number (0), it is half of the number
// that was allowed when the refused call was sent, so that calls that were refused together
// halve it once.
func reducedCalls(current, whenSent, number int) int {
	if number == 0 {
		number = max(whenSent/2, 1)
	}
	return min(current, number)
}

// concurrencyRefusal reports whether a response with status 409 or 429 refuses a call because
// of too many concurrent ones. It returns the gateway's limit on concurrent calls, or 0 if
// there is no valid number. A rate limit takes precedence, because the headers of the
// concurrency limit are also sent with other responses.
func concurrencyRefusal(r response, now time.Time) (number int, isRefusal bool) {
	if wait, found := longestWait(r.header, headerToWait, now); found && wait > 0 {
		return 0, false
	}
	if _, found := longestWait(r.header, "Retry-After", now); found || noneRemaining(r.header) {
		return 0, false
	}
	for _, name := range []string{"X-Concurrency-Limit-Limit", "X-ConcurrencyLimit-Limit"} {
		for _, value := range r.header.Values(name) {
			isRefusal = true
			if n := parseCount(value); n > 0 && (number == 0 || n < number) {
				number = n
			}
		}
	}
	return number, isRefusal || bytes.Contains(bytes.ToLower(r.body), []byte("concurren"))
}

// parseCount parses a positive number of calls. It returns 0 for any other text, and a million
// for a larger number.
func parseCount(text string) int {
	const maximum = 1_000_000
	text = strings.TrimSpace(text)
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0
	}
	count := 0
	for _, digit := range text {
		count = min(count*10+int(digit-'0'), maximum)
	}
	return count
}

// noneRemaining reports whether a response used up the rate limit.
func noneRemaining(header http.Header) bool {
	for _, value := range header.Values("X-RateLimit-Remaining") {
		if strings.TrimSpace(value) == "0" {
			return true
		}
	}
	return false
}

// concurrency limits the concurrent calls except logins.
type concurrency struct {
	workers int // without a limit

	mu       sync.Mutex
	limit    ConcurrencyLimit
	notedAt  time.Time // of the last refusal that was recorded and logged
	inFlight int
	released chan struct{} // closed and replaced whenever a call may begin
}

func newConcurrency(workers int) *concurrency {
	return &concurrency{workers: max(workers, 1), released: make(chan struct{})}
}

// allowed returns the number of concurrent calls that are allowed. The caller holds mu.
func (c *concurrency) allowed() int {
	if c.limit.Calls == 0 {
		return c.workers
	}
	return min(c.limit.Calls, c.workers)
}

// acquire waits until another call is allowed. It returns the number of allowed calls. Without
// a limit, it does not wait. The caller calls release.
func (c *concurrency) acquire(ctx context.Context) (allowed int, err error) {
	for {
		c.mu.Lock()
		if c.limit.Calls == 0 || c.inFlight < c.limit.Calls {
			c.inFlight++
			allowed = max(c.allowed(), c.inFlight)
			c.mu.Unlock()
			return allowed, nil
		}
		released := c.released
		c.mu.Unlock()
		select {
		case <-released:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

func (c *concurrency) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight--
	c.wake()
}

// wake lets the calls that wait in acquire check again. The caller holds mu.
func (c *concurrency) wake() {
	close(c.released)
	c.released = make(chan struct{})
}

// set replaces the limit.
func (c *concurrency) set(limit ConcurrencyLimit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
	c.wake()
}

// current returns the limit.
func (c *concurrency) current() ConcurrencyLimit {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.limit
}

// refuse notes a refusal of a call. It returns the number of allowed calls, whether it is lower
// than before, and whether the refusal must be recorded and logged. A limit that allows all
// workers is none.
func (c *concurrency) refuse(whenSent, number int, now time.Time) (allowed int, reduced, note bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.allowed()
	allowed = reducedCalls(before, whenSent, number)
	reduced = allowed < before
	if reduced || c.limit.Calls > 0 {
		c.limit = ConcurrencyLimit{now.UTC(), allowed}
	}
	if note = reduced || now.Sub(c.notedAt) >= noteInterval; note {
		c.notedAt = now
	}
	return allowed, reduced, note
}

// AllowedWorkers returns how many concurrent calls are allowed: Options.Connections, or the
// lower limit of the gateway.
func (c *Client) AllowedWorkers() int {
	c.concurrency.mu.Lock()
	defer c.concurrency.mu.Unlock()
	return c.concurrency.allowed()
}

// RestoreConcurrencyLimit applies a limit that an earlier process recorded for the same gateway,
// customer and connection. It ignores a limit noted in the future. The next BeginRun raises the
// limit by one for each hour without a refusal, and records that.
func (c *Client) RestoreConcurrencyLimit(limit ConcurrencyLimit) {
	if !limit.NotedAt.After(time.Now()) {
		c.concurrency.set(limit)
	}
}

// raiseConcurrency raises the limit at the start of a run.
func (c *Client) raiseConcurrency() {
	before := c.concurrency.current()
	raised := before.raised(c.concurrency.workers, time.Now())
	if raised == before {
		return
	}
	c.concurrency.set(raised)
	c.recordConcurrency(context.Background())
	log := c.options.Log
	log.Info().Int("workers", c.AllowedWorkers()).Msg(MsgWorkersRaised)
}

// refuseConcurrency reduces the workers after the response to a call that was refused because
// of too many concurrent ones, and waits until the call may be sent again. Other calls do not
// wait. refusals is the number of consecutive refusals of the call. After too many, it returns
// an error of class Transient.
func (c *Client) refuseConcurrency(ctx context.Context, call call, r response, whenSent, number, refusals int) error {
	c.counts.refused.Add(1)
	if refusals > maxTrustedRefusals {
		number = 0
	}
	allowed, reduced, note := c.concurrency.refuse(whenSent, number, time.Now())
	if note {
		c.recordConcurrency(ctx) // before the log line, so that a reader of the log finds it recorded
		message := MsgCallRefused
		if reduced {
			message = MsgWorkersReduced
		}
		log := c.log(ctx)
		log.Warn().Int("status", r.status).Int("workers", allowed).Msg(message)
	}
	failed := call.Failed(fault.Transient, r.failed(errTooManyCalls), "check what else uses this subscription's API, or request a higher concurrency limit")
	if refusals >= maxConcurrencyRefusals {
		return failed
	}
	timer := time.NewTimer(minConcurrencyWait + rand.N(minConcurrencyWait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return failed // more specific than the deadline
		}
		return contextError(call.Operation, ctx.Err())
	}
}

// recordConcurrency calls OnConcurrencyLimit.
func (c *Client) recordConcurrency(ctx context.Context) {
	if c.options.OnConcurrencyLimit == nil {
		return
	}
	// The limit is read under the lock, so that the callback never gets an earlier one after a later one.
	c.onLimitMu.Lock()
	defer c.onLimitMu.Unlock()
	if err := c.options.OnConcurrencyLimit(c.concurrency.current()); err != nil {
		log := c.log(ctx)
		log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgLimitNotRecorded)
	}
}
