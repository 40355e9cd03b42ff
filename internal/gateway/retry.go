package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"adconnector/internal/fault"
)

// retryBudget limits the retries of a run. While most calls succeed, each call may use all of
// its attempts. If hardly any call succeeds, the budget runs out, the run fails, and the next
// scheduled run starts over. Otherwise such a run could take days, with five retries for each
// call.
type retryBudget struct {
	mu        sync.Mutex
	remaining int
}

// retriesPerConnection is the initial budget for each connection. It exceeds the number of
// retries that concurrent calls can use.
const retriesPerConnection = 10

func (b *retryBudget) reset(connections int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remaining = retriesPerConnection * max(connections, 1)
}

// add adds a retry to the budget, for a successful call.
func (b *retryBudget) add() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remaining++
}

// take takes a retry from the budget. It reports false if the budget is exhausted.
func (b *retryBudget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.remaining == 0 {
		return false
	}
	b.remaining--
	return true
}

// BeginRun resets the retry budget, allows one more login after a refused one, and raises a
// limit on concurrent calls that the gateway has not enforced for an hour.
func (c *Client) BeginRun() {
	c.budget.reset(c.options.Connections)
	c.session.clearRefusal()
	c.raiseConcurrency()
}

// retry calls operation, and calls it again with backoff after each error of class Transient.
func (c *Client) retry(ctx context.Context, o fault.Operation, maxAttempts uint, operation func() error) error {
	attempt := 0
	var last error // backoff.Retry may return the context's error, or a wrapped one
	delays := &serverBackOff{BackOff: c.options.newBackOff(), left: maxRetryAfter}
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		attempt++
		if attempt > 1 {
			c.counts.retries.Add(1)
		}
		last = operation()
		if last == nil {
			c.budget.add()
		} else if fault.ClassOf(last) == fault.Transient && attempt < int(maxAttempts) && !c.budget.take() {
			last = notRetried(last, errBudgetExhausted)
			return struct{}{}, backoff.Permanent(last)
		}
		if fault.ClassOf(last) == fault.Transient && attempt < int(maxAttempts) && !delays.honor(ctx, last) {
			last = notRetried(last, errWaitTooLong)
		}
		// Do not retry if the deadline is before the rate limit resets.
		if last != nil && (fault.ClassOf(last) != fault.Transient || errors.Is(last, errLimitPastDeadline) || errors.Is(last, errWaitTooLong)) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(delays), backoff.WithMaxTries(maxAttempts), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, wait time.Duration) {
			log := c.log(ctx)
			log.Warn().EmbedObject(fault.Fields(err)).Int("attempt", attempt).Int64("wait_ms", wait.Milliseconds()).Msg(MsgRetrying)
		}))
	if last != nil && fault.ClassOf(last) == fault.Transient && errors.Is(ctx.Err(), context.Canceled) {
		return contextError(o, ctx.Err())
	}
	return last
}

// maxRetryAfter is the longest time that the retries of a call wait because of Retry-After: as
// long as all retries of a batch can take.
const maxRetryAfter = (maxAssetsAttempts - 1) * maxRetryDelay

// serverBackOff is a BackOff that also waits as long as the gateway requires.
type serverBackOff struct {
	backoff.BackOff
	atLeast time.Duration // the next delay
	left    time.Duration // of maxRetryAfter
}

// honor sets the Retry-After of an error as the minimum of the next delay. It reports false if
// the call must not be retried, because the wait would exceed maxRetryAfter or the deadline.
func (b *serverBackOff) honor(ctx context.Context, err error) bool {
	b.atLeast = 0
	response, is := errors.AsType[*responseError](err)
	if !is || response.RetryAfter == 0 {
		return true
	}
	deadline, hasDeadline := ctx.Deadline()
	if response.RetryAfter > b.left || hasDeadline && time.Until(deadline) < response.RetryAfter {
		return false
	}
	b.atLeast = response.RetryAfter
	b.left -= b.atLeast
	return true
}

// NextBackOff returns the next delay: at most maxRetryDelay, unless the gateway requires a longer one.
func (b *serverBackOff) NextBackOff() time.Duration {
	return max(min(b.BackOff.NextBackOff(), maxRetryDelay), b.atLeast)
}

// Why a call with an error of class Transient is not retried.
var (
	errBudgetExhausted = errors.New("retry budget of the run exhausted")
	errWaitTooLong     = errors.New("Retry-After is too long for this run") //nolint:staticcheck // the name of a header
)

// notRetriedError is the cause of a call that is not retried for a reason.
type notRetriedError struct{ cause, reason error }

func (e *notRetriedError) Error() string {
	return e.cause.Error() + "; not retried: " + e.reason.Error()
}

func (e *notRetriedError) Unwrap() []error { return []error{e.cause, e.reason} }

// notRetried returns an error of this package with a notRetriedError as its cause.
func notRetried(err, reason error) error {
	failed := &fault.Error{Class: fault.ClassOf(err), Err: err}
	errors.As(err, &failed)
	return &fault.Error{Class: failed.Class, Op: failed.Op, Object: failed.Object, Remedy: failed.Remedy,
		Err: &notRetriedError{failed.Err, reason}}
}

// counts are the counters of a client.
type counts struct {
	requests, retries, limited, refused atomic.Int64
}

// Counts are the numbers of requests, retries, rate-limited responses, and refusals because of
// too many concurrent calls of a client. Retries count as requests, too.
type Counts struct {
	Requests, Retries, Limited, Refused int64
}

// Counts returns the client's counters.
func (c *Client) Counts() Counts {
	return Counts{c.counts.requests.Load(), c.counts.retries.Load(), c.counts.limited.Load(), c.counts.refused.Load()}
}
