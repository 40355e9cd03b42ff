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

// BeginRun resets the retry budget, and allows one more login after a refused one.
func (c *Client) BeginRun() {
	c.budget.reset(c.options.Connections)
	c.session.clearRefusal()
}

// retry calls operation, and calls it again with backoff after each error of class Transient.
func (c *Client) retry(ctx context.Context, o fault.Operation, maxAttempts uint, operation func() error) error {
	attempt := 0
	var last error // backoff.Retry may return the context's error, or a wrapped one
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		attempt++
		if attempt > 1 {
			c.counts.retries.Add(1)
		}
		last = operation()
		if last == nil {
			c.budget.add()
		} else if fault.ClassOf(last) == fault.Transient && attempt < int(maxAttempts) && !c.budget.take() {
			last = budgetExhausted(last)
			return struct{}{}, backoff.Permanent(last)
		}
		// Do not retry if the deadline is before the rate limit resets.
		if last != nil && (fault.ClassOf(last) != fault.Transient || errors.Is(last, errLimitPastDeadline)) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(c.options.newBackOff()), backoff.WithMaxTries(maxAttempts), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, wait time.Duration) {
			log := c.log(ctx)
			log.Warn().EmbedObject(fault.Fields(err)).Int("attempt", attempt).Int64("wait_ms", wait.Milliseconds()).Msg(MsgRetrying)
		}))
	if last != nil && fault.ClassOf(last) == fault.Transient && errors.Is(ctx.Err(), context.Canceled) {
		return contextError(o, ctx.Err())
	}
	return last
}

// budgetError is the cause of a call that is not retried because the retry budget of the run
// is exhausted.
type budgetError struct{ cause error }

func (e *budgetError) Error() string {
	return e.cause.Error() + "; not retried: retry budget of the run exhausted"
}

func (e *budgetError) Unwrap() error { return e.cause }

// budgetExhausted returns an error of this package with a budgetError as its cause.
func budgetExhausted(err error) error {
	failed := &fault.Error{Class: fault.ClassOf(err), Err: err}
	errors.As(err, &failed)
	return &fault.Error{Class: failed.Class, Op: failed.Op, Object: failed.Object, Remedy: failed.Remedy,
		Err: &budgetError{failed.Err}}
}

// counts are the counters of a client.
type counts struct {
	requests, retries, limited atomic.Int64
}

// Counts are the numbers of requests, retries and rate-limited responses of a client. Retries
// count as requests, too.
type Counts struct {
	Requests, Retries, Limited int64
}

// Counts returns the client's counters.
func (c *Client) Counts() Counts {
	return Counts{c.counts.requests.Load(), c.counts.retries.Load(), c.counts.limited.Load()}
}
