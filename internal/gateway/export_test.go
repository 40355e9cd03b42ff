package gateway

import (
	"context"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// RetryEvery sets a constant delay before each retry.
func (o *Options) RetryEvery(wait time.Duration) {
	o.newBackOff = func() backoff.BackOff { return backoff.NewConstantBackOff(wait) }
}

// Dial sets the function that opens connections.
func (o *Options) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	o.dialContext = dial
}

// Dialer returns the function that Dial has set.
func (o *Options) Dialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return o.dialContext
}

// HandshakeWithin sets the timeout of TLS handshakes.
func (o *Options) HandshakeWithin(timeout time.Duration) { o.tlsTimeout = timeout }

// ForgetToken makes the next call log in.
func (c *Client) ForgetToken() {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.session.token = nil
}

// MinRefusedSize is the size of a request from which a lost connection can be a refusal of its size.
const MinRefusedSize = minRefusedSize

// IsWait reports whether got is the wait for the end of a rate limit of the duration want.
func IsWait(got, want time.Duration) bool {
	return got >= want && got <= want+min(want/spreadShare, maxSpread)
}

// The timeouts of the transport.
const (
	HeaderTimeout = headerTimeout
	PingTimeout   = pingTimeout
)

// The causes of errors.
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
	ErrProxyScheme      = errProxyScheme
	ErrProxyPage        = errProxyPage
	ErrNetworkLogin     = errNetworkLogin
	ErrNotTLS           = errNotTLS

	ErrCredentials       = errCredentials
	ErrLoginNotAllowed   = errLoginNotAllowed
	ErrNotInHeader       = errNotInHeader
	ErrLoginRefused      = errLoginRefused
	ErrTooManyLogins     = errTooManyLogins
	ErrNoToken           = errNoToken
	ErrWebPage           = errWebPage
	ErrNewTokenRefused   = errNewTokenRefused
	ErrLimitPastDeadline = errLimitPastDeadline
	ErrBudgetExhausted   = errBudgetExhausted
	ErrTooManyCalls      = errTooManyCalls
	ErrWaitTooLong       = errWaitTooLong
)

type (
	ResponseError = responseError
	ProtocolError = protocolError
	FieldError    = fieldError
)

// The causes and limits of large responses.
var ErrResponseTooLarge = errResponseTooLarge

const (
	MaxErrorBytes    = maxErrorBytes
	MaxTokenBytes    = maxTokenBytes
	MaxDocumentBytes = maxDocumentBytes
	MaxStateBytes    = maxStateBytes
	MaxAssetsBytes   = maxAssetsBytes
)
