package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"adconnector/internal/fault"
)

const (
	headTimeout = 2 * time.Minute  // from a request to the head of its answer
	pingTimeout = 15 * time.Second // without a byte over HTTP/2 until a ping, and again until its answer
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
		ResponseHeaderTimeout:  headTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    o.Connections, // the default of 2 would have most workers dial anew
		MaxResponseHeaderBytes: 64 << 10,
		ForceAttemptHTTP2:      true,
		// A dead HTTP/2 connection is noticed; without pings it would swallow call after call.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingTimeout, PingTimeout: pingTimeout},
	}
	if o.Proxy != nil && o.Proxy.Scheme == "https" {
		// Offered HTTP/2, the proxy might choose it, and CONNECT is spoken in HTTP/1.1.
		// No other connection is made this way: all of them go through the proxy.
		config := transport.TLSClientConfig.Clone()
		config.NextProtos = []string{"http/1.1"}
		transport.DialTLSContext = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext
	}
	if o.Proxy != nil {
		transport.Proxy = http.ProxyURL(o.Proxy.url())
		transport.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, response *http.Response) error {
			return explainProxy(proxy.Host, response.StatusCode)
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

var errNotTLS = errors.New("the answer is not TLS")

const proxyCredentials = "set proxy.username and proxy.password, or correct them"

// explainProxy returns the error of a proxy's answer to CONNECT, nil for a tunnel.
func explainProxy(proxy string, status int) error {
	connect := fault.Operation{Op: "connect through proxy", Object: proxy}
	failed := func(reason error) error { return &answerError{Status: status, Reason: reason} }
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusProxyAuthRequired, status == http.StatusUnauthorized: // tinyproxy answers 401 to wrong ones
		return connect.Failed(fault.Refused, failed(errProxyCredentials), proxyCredentials)
	case status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
		return connect.Failed(fault.Refused, failed(errProxyRefuses), "let the proxy allow the host and port of connector.api.url")
	default:
		return connect.Failed(fault.Transient, failed(errProxyFailed), "check connector.api.url, and the proxy's log")
	}
}

// explain returns the error of a request that got no complete answer. http.Client's own
// text would repeat method and URL.
func (c *Client) explain(ctx context.Context, call call, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	var unknown x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	var dns *net.DNSError
	var op *net.OpError
	var explained *fault.Error
	check, dialed := call.setting(), call.setting()
	speaks := "the port in " + check
	if c.options.Proxy != nil {
		dialed = "proxy.host and proxy.port"
		speaks = check + ", proxy.port and service.http.proxy.scheme"
	}
	switch {
	case ctx.Err() != nil:
		return stopped(call.Operation, ctx.Err())
	case errors.As(err, &explained): // an answer of the proxy, with a remedy of its own
		return call.Failed(explained.Class, err, "")
	case errors.As(err, &unknown):
		return call.Failed(fault.Refused, err, "set gateway.ca-file to the issuer's certificate")
	case errors.As(err, &certificate):
		return call.Failed(fault.Refused, err, "check "+check+", and this machine's clock")
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &noTLS):
		return call.Failed(fault.Refused, errNotTLS, "check "+speaks)
	case errors.As(err, &dns):
		return call.Failed(fault.Transient, err, "check "+dialed+", and this machine's DNS")
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return call.Failed(fault.Transient, err, "check "+dialed+", and that firewalls let this machine through")
	case errors.Is(err, context.DeadlineExceeded):
		return call.Failed(fault.Transient, fmt.Errorf("no answer in time: %w", err), "check whether the platform is up, and the network in between")
	default:
		return call.Failed(fault.Transient, err, "check the network in between, and any proxy in it")
	}
}
