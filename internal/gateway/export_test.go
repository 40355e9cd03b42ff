package gateway

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// RetryEvery sets how long a client waits before it repeats a call.
func (o *Options) RetryEvery(wait time.Duration) {
	o.retry = func() backoff.BackOff { return backoff.NewConstantBackOff(wait) }
}

// Patience sets how long a silent connection is borne: until an HTTP/2 ping, and again
// until its answer; and until the head of an answer.
func (o *Options) Patience(pingAfter, headAfter time.Duration) {
	o.pingAfter, o.headAfter = pingAfter, headAfter
}
