package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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

// explainProxy tells what a proxy's answer to CONNECT means. It returns nil for a tunnel.
func explainProxy(proxy string, status int) error {
	switch {
	case status == http.StatusOK:
		return nil
	case status == http.StatusProxyAuthRequired:
		return fault.Errorf(fault.Refused, "the proxy %s asks for credentials (407): set proxy.username and proxy.password, or correct them", proxy)
	case status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooManyRequests:
		return fault.Errorf(fault.Refused, "the proxy %s refuses to connect to the gateway (%d): have it allow the host and port of connector.api.url", proxy, status)
	default:
		return fault.Errorf(fault.Transient, "the proxy %s cannot reach the gateway (%d): check connector.api.url, and the proxy's log", proxy, status)
	}
}

// explain sorts the errors of a request that got no whole answer. http.Client's
// own text would name method and URL once more.
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
	what, check, dialed := call.what, call.setting(), call.setting()
	speaks := "the port in " + check
	if c.options.Proxy != nil {
		dialed = "proxy.host and proxy.port"
		speaks = check + ", proxy.port and service.http.proxy.scheme"
	}
	switch {
	case ctx.Err() != nil:
		return stopped(what, ctx.Err())
	case fault.Of(err) == fault.Refused:
		return fault.Errorf(fault.Refused, "%s: %w", what, err)
	case errors.As(err, &unknown):
		return fault.Errorf(fault.Refused, "%s: %w: give the issuer's certificate as gateway.ca-file", what, err)
	case errors.As(err, &certificate):
		return fault.Errorf(fault.Refused, "%s: %w: check %s, and this machine's clock", what, err, check)
	case errors.Is(err, http.ErrSchemeMismatch), errors.As(err, &noTLS):
		return fault.Errorf(fault.Refused, "%s: what answers does not speak TLS: check %s", what, speaks)
	case errors.As(err, &dns):
		return fault.Errorf(fault.Transient, "%s: %w: check %s, and this machine's DNS", what, err, dialed)
	case errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect"):
		return fault.Errorf(fault.Transient, "%s: %w: check %s, and that firewalls let this machine through", what, err, dialed)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Errorf(fault.Transient, "%s: no answer in time: %w: check whether the platform is up, and the network in between", what, err)
	default:
		return fault.Errorf(fault.Transient, "%s: %w: check the network in between, and any proxy in it", what, err)
	}
}
