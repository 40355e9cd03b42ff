package gateway

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
	"adconnector/internal/loopback"
)

const (
	headerTimeout    = 2 * time.Minute  // from the request to the header of its response
	handshakeTimeout = 10 * time.Second // of TLS
	pingTimeout      = 15 * time.Second // from the last byte over HTTP/2 to a ping, and from the ping to its response
)

func newTransport(o Options) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	dial := o.dialContext
	if dial == nil {
		dial = loopback.Dial(dialer.DialContext)
	}
	transport := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12, GetClientCertificate: handshake.NoClientCertificate},
		TLSHandshakeTimeout:    cmp.Or(o.tlsTimeout, handshakeTimeout),
		ResponseHeaderTimeout:  headerTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    o.Connections, // with the default of 2, most workers would open new connections
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		// Pings detect a dead HTTP/2 connection, on which all requests would time out.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
	}
	if o.Proxy != nil && o.Proxy.Scheme == "https" {
		// The proxy must not choose HTTP/2, because the transport sends CONNECT by HTTP/1.1. This
		// affects only connections to the proxy: all connections go through it.
		config := transport.TLSClientConfig.Clone()
		config.NextProtos = []string{"http/1.1"}
		transport.DialTLSContext = dialProxyTLS(dial, config, transport.TLSHandshakeTimeout)
	}
	if o.Proxy != nil {
		transport.Proxy = func(*http.Request) (*url.URL, error) { return o.Proxy.url(), nil } // the password can change
		transport.OnProxyConnectResponse = func(ctx context.Context, proxy *url.URL, request *http.Request, response *http.Response) error {
			if response.StatusCode == http.StatusOK {
				noteTunnel(ctx, response)
				return nil
			}
			return &tunnelError{proxy.Host, request.Host, response.StatusCode, response.Header}
		}
	}
	return transport
}

func (p *Proxy) url() *url.URL {
	u := &url.URL{Scheme: p.Scheme, Host: net.JoinHostPort(p.Host, strconv.Itoa(p.Port))}
	if p.Username != "" {
		u.User = url.UserPassword(p.Username, p.Password.Reveal())
	}
	return u
}

var errNotTLS = errors.New("response is not TLS")

// transportError returns the error of a request without a complete response. It drops the
// text of http.Client, which repeats method and URL.
func (c *Client) transportError(ctx context.Context, call call, trace *connectionTrace, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return call.noResponse(ctx.Err())
	}
	if ctx.Err() != nil {
		return contextError(call.Operation, ctx.Err())
	}
	if tunnel, is := errors.AsType[*tunnelError](err); is {
		failed := tunnel.explain(call.setting())
		return call.Failed(fault.ClassOf(failed), failed, "")
	}
	if failed := c.tlsFailure(call, err, trace); failed != nil {
		return failed
	}
	err = withoutContent(err)
	var dns *net.DNSError
	var op *net.OpError
	addressSettings := call.setting()
	if c.options.Proxy != nil {
		addressSettings = "proxy.host and proxy.port"
	}
	switch {
	case fault.TooManyFiles(err):
		return call.Failed(fault.Transient, err, fault.RemedyOpenFiles)
	case errors.As(err, &dns):
		return call.Failed(fault.Transient, err, "check "+addressSettings+", and this machine's DNS")
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return call.Failed(fault.Transient, err, "check "+addressSettings+", and that firewalls allow connections from this machine")
	case errors.Is(err, context.DeadlineExceeded):
		return call.noResponse(err)
	case trace.certificate.Received() && !isTimeout(err): // a slow server is no sign of a lost alert
		return c.certificateLoss(call, err, trace)
	case trace.large > 0:
		return call.Failed(fault.Transient, &lostRequest{trace.large, err}, "check the network, and which size of requests the gateway and any proxy in front of it accept, or lower upload.batch-bytes")
	default:
		return call.Failed(fault.Transient, err, "check the network and any proxy between this machine and the gateway")
	}
}

// lostRequest is the error of a large request whose connection was lost. A server that refuses the
// size of a request may close the connection (RFC 9110 15.5.14), without a response or before the
// client has read it.
type lostRequest struct {
	size  int64 // bytes
	cause error
}

// Error omits the addresses, which net.OpError repeats for each layer.
func (e *lostRequest) Error() string {
	cause := e.cause
	if number, is := errors.AsType[syscall.Errno](cause); is {
		cause = number
	} else if errors.Is(cause, net.ErrClosed) {
		cause = net.ErrClosed
	}
	return fmt.Sprintf("connection lost during a request of %d bytes: %v", e.size, cause)
}

// Unwrap returns the cause.
func (e *lostRequest) Unwrap() error { return e.cause }

// noResponse returns the error of a call without a response in time.
func (c call) noResponse(err error) error {
	return c.Failed(fault.Transient, fmt.Errorf("no response in time: %w", err), "check whether the platform is up, and the network to it")
}

// protocolError is an error of net/http about a response that is not valid HTTP. Its text does
// not contain the text of the cause, which quotes the response: after a response that was sent
// twice, this is a token, or a connection with its password.
type protocolError struct{ cause error }

func (e *protocolError) Error() string {
	text := e.cause.Error()
	if match := http2ErrorCode.FindStringSubmatch(text); match != nil {
		return "HTTP/2 error " + match[1]
	}
	if strings.Contains(text, headerSizeError) {
		return "response header too large"
	}
	return "invalid HTTP response"
}

// Unwrap returns the error of net/http.
func (e *protocolError) Unwrap() error { return e.cause }

// http2ErrorCode matches the error code (RFC 9113 7) in the errors of net/http for a reset stream and
// a closed connection. It has no exported types for them.
var http2ErrorCode = regexp.MustCompile(`^(?:stream error: stream ID \d+; |connection error: |http2: server sent GOAWAY and closed the connection; LastStreamID=\d+, ErrCode=)([A-Z][A-Z0-9_]{1,40})`)

// headerSizeError is a part of the error of net/http for a response header that is too large.
const headerSizeError = "server response headers exceeded "

// incompleteResponse is the error of a response whose body was not read completely.
type incompleteResponse struct{ cause error }

func (e *incompleteResponse) Error() string { return "response incomplete: " + e.cause.Error() }

// Unwrap returns the cause.
func (e *incompleteResponse) Unwrap() error { return e.cause }

// constantErrors are errors of net/http that have no type, and whose text is constant.
var constantErrors = []string{
	"http2: client connection lost", // unanswered ping
	"http: server closed idle connection",
}

// withoutContent returns err if its text is known to contain nothing that the peer sent, or
// else a protocolError.
func withoutContent(err error) error {
	if incomplete, is := errors.AsType[*incompleteResponse](err); is {
		return &incompleteResponse{withoutContent(incomplete.cause)}
	}
	var opaque *protocolError
	var number syscall.Errno
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &opaque), errors.As(err, &number),
		errors.As(err, &dns), errors.As(err, &timeout) && timeout.Timeout(), handshake.IsAlert(err),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		slices.Contains(constantErrors, err.Error()):
		return err
	}
	return &protocolError{err}
}
