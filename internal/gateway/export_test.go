package gateway

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// RetryEvery sets how long a client waits before it repeats a call.
func (o *Options) RetryEvery(wait time.Duration) {
	o.retry = func() backoff.BackOff { return backoff.NewConstantBackOff(wait) }
}
