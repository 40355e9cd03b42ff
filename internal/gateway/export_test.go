package gateway

import (
	"context"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// RetryEvery sets how long a client waits before it repeats a call.
func (o *Options) RetryEvery(wait time.Duration) {
	o.retry = func() backoff.BackOff { return backoff.NewConstantBackOff(wait) }
}

// Dial sets how a client connects.
func (o *Options) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	o.dialContext = dial
}

// Dialer returns what Dial has set.
func (o *Options) Dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return o.dialContext
}

// Timeouts of the transport.
const (
	HeadTimeout = headTimeout
	PingTimeout = pingTimeout
)

// Causes of errors.
var (
	ErrNotAllowed       = errNotAllowed
	ErrWrongAPI         = errWrongAPI
	ErrRedirected       = errRedirected
	ErrGatewayFailed    = errGatewayFailed
	ErrUnexpected       = errUnexpected
	ErrNotFound         = errNotFound
	ErrNotDocument      = errNotDocument
	ErrNoProof          = errNoProof
	ErrProxyCredentials = errProxyCredentials
	ErrProxyRefuses     = errProxyRefuses
	ErrProxyFailed      = errProxyFailed
	ErrNotTLS           = errNotTLS

	ErrCredentials     = errCredentials
	ErrLoginNotAllowed = errLoginNotAllowed
	ErrLoginRefused    = errLoginRefused
	ErrTooManyLogins   = errTooManyLogins
	ErrNoToken         = errNoToken
	ErrNewTokenRefused = errNewTokenRefused
	ErrTooLate         = errTooLate
)

type (
	AnswerError = answerError
	FieldError  = fieldError
)
