package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"

	"adconnector/internal/fault"
)

const (
	headerTimeout = 2 * time.Minute  // from the request to the header of its response
	pingTimeout   = 15 * time.Second // from the last byte over HTTP/2 to a ping, and from the ping to its response
)

func newTransport(o Options) *http.Transport {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	dial := o.dialContext
	if dial == nil {
		dial = dialer.DialContext
	}
	transport := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
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
		transport.DialTLSContext = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext
	}
	if o.Proxy != nil {
		transport.Proxy = http.ProxyURL(o.Proxy.url())
		transport.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, response *http.Response) error {
			return proxyError(proxy.Host, response.StatusCode)
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

const proxyCredentialsRemedy = "set or correct proxy.username and proxy.password"

// proxyError returns the error of a proxy's response to CONNECT; nil if it succeeded.
func proxyError(proxy string, status int) error {
	connect := fault.Operation{Op: "connect through proxy", Object: proxy}
	failed := func(reason error) error { return &responseError{Status: status, Reason: reason} }
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusProxyAuthRequired, status == http.StatusUnauthorized: // tinyproxy sends 401 for wrong credentials
		return connect.Failed(fault.Refused, failed(errProxyCredentials), proxyCredentialsRemedy)
	case status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
		return connect.Failed(fault.Refused, failed(errProxyRefuses), "allow the host and port of connector.api.url in the proxy")
	default:
		return connect.Failed(fault.Transient, failed(errProxyFailed), "check connector.api.url, and the proxy's log")
	}
}

// transportError returns the error of a request without a complete response. It drops the
// text of http.Client, which repeats method and URL.
func (c *Client) transportError(ctx context.Context, call call, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	err = withoutContent(err)
	var unknown x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	var dns *net.DNSError
	var op *net.OpError
	var typed *fault.Error
	urlSetting, addressSettings := call.setting(), call.setting()
	portSettings := "the port in " + urlSetting
	if c.options.Proxy != nil {
		addressSettings = "proxy.host and proxy.port"
		portSettings = urlSetting + ", proxy.port and service.http.proxy.scheme"
	}
	switch {
	case ctx.Err() != nil:
		return contextError(call.Operation, ctx.Err())
	case errors.As(err, &typed): // from proxyError, with its own remedy
		return call.Failed(typed.Class, err, "")
	case errors.As(err, &unknown):
		return call.Failed(fault.Refused, err, "set gateway.ca-file to the issuer's certificate")
	case errors.As(err, &certificate):
		return call.Failed(fault.Refused, err, "check "+urlSetting+", and this machine's clock")
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &notTLS):
		return call.Failed(fault.Refused, errNotTLS, "check "+portSettings)
	case errors.As(err, &dns):
		return call.Failed(fault.Transient, err, "check "+addressSettings+", and this machine's DNS")
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return call.Failed(fault.Transient, err, "check "+addressSettings+", and that firewalls allow connections from this machine")
	case errors.Is(err, context.DeadlineExceeded):
		return call.Failed(fault.Transient, fmt.Errorf("no response in time: %w", err), "check whether the platform is up, and the network to it")
	default:
		return call.Failed(fault.Transient, err, "check the network and any proxy between this machine and the gateway")
	}
}

// protocolError is an error of net/http about a response that is not valid HTTP. Its text does
// not contain the text of the cause, which quotes the response: after a response that was sent
// twice, this is a token, or a connection with its password.
type protocolError struct{ cause error }

func (*protocolError) Error() string { return "invalid HTTP response" }

// Unwrap returns the error of net/http.
func (e *protocolError) Unwrap() error { return e.cause }

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
	var typed *fault.Error
	var opaque *protocolError
	var number syscall.Errno
	var alert tls.AlertError
	var notTLS tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &typed), errors.As(err, &opaque), errors.As(err, &number), errors.As(err, &alert), errors.As(err, &notTLS),
		errors.As(err, &certificate), errors.As(err, &unknown), errors.As(err, &dns), errors.As(err, &timeout) && timeout.Timeout(),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, http.ErrSchemeMismatch),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		slices.Contains(constantErrors, err.Error()):
		return err
	}
	return &protocolError{err}
}
