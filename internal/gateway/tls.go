package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
)

// connectionTrace records the TLS handshakes of one request, because net/http returns their
// errors without a type that distinguishes them from others.
type connectionTrace struct {
	certificate *handshake.Request
	large       int64 // size of the request in bytes if it was sent in part and isLarge, else 0

	mu        sync.Mutex
	err       error // of the last handshake; nil: none, or it succeeded
	connected bool  // to the server, if necessary through the proxy
	page      bool  // the proxy accepted a tunnel, with the header of a web page
}

// traceKey is the context key of a connectionTrace.
type traceKey struct{}

// withConnectionTrace returns a context for a request, and the trace of its connection.
func withConnectionTrace(ctx context.Context) (context.Context, *connectionTrace) {
	ctx, certificate := handshake.WithRequest(ctx)
	trace := &connectionTrace{certificate: certificate}
	ctx = context.WithValue(ctx, traceKey{}, trace)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{TLSHandshakeDone: trace.done, GotConn: trace.gotConn}), trace
}

func (t *connectionTrace) gotConn(httptrace.GotConnInfo) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connected = true
}

func (t *connectionTrace) done(_ tls.ConnectionState, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

// noteTunnel records a successful response to CONNECT. Login pages of networks have this status,
// too, and net/http does not read their content.
func noteTunnel(ctx context.Context, response *http.Response) {
	if t, is := ctx.Value(traceKey{}).(*connectionTrace); is {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.page = response.Header.Get("Content-Type") != "" || response.ContentLength > 0
	}
}

// isPage reports whether the proxy sent a web page instead of a tunnel: the header of one, and no
// TLS after it.
func (t *connectionTrace) isPage() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.page && t.err != nil
}

// explain returns the *handshake.Error of a failed request; nil if it failed for another reason.
func (t *connectionTrace) explain(err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	certificate, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, isProxyHandshake := errors.AsType[*proxyHandshakeError](err)
	switch {
	case isCertificate:
		return handshake.ExplainVerification(err, certificate.UnverifiedCertificates)
	case isProxyHandshake, t.err != nil && errors.Is(err, t.err):
		return handshake.Explain(err, t.certificate.Received())
	default: // with TLS 1.3, the server rejects a missing client certificate after the handshake
		return handshake.ExplainAlert(err, t.certificate.Received())
	}
}

// proxyHandshakeError is the error of a TLS handshake with the proxy.
type proxyHandshakeError struct{ cause error }

func (e *proxyHandshakeError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *proxyHandshakeError) Unwrap() error { return e.cause }

// dialProxyTLS returns a function that opens TLS connections to the proxy.
func dialProxyTLS(dial func(context.Context, string, string) (net.Conn, error), config *tls.Config, timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		config := config.Clone()
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			conn.Close()
			return nil, err
		}
		config.ServerName = handshake.ServerName(host)
		tlsConn := tls.Client(conn, config)
		if err := tlsConn.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, &proxyHandshakeError{err}
		}
		return tlsConn, nil
	}
}

// tlsPeer is the other end of a TLS connection.
type tlsPeer struct{ name, settings string }

// reachedServer reports whether a failed request, or the handshake for it, was with the server,
// not only with the proxy.
func (t *connectionTrace) reachedServer() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.connected || t.err != nil
}

// peerOf returns the peer of a failed request.
func (c *Client) peerOf(call call, err error, trace *connectionTrace) tlsPeer {
	op, is := errors.AsType[*net.OpError](err)
	isProxy := is && op.Op == "proxyconnect"
	if p := c.options.Proxy; p != nil && p.Scheme == "https" && (call.url.Scheme == "http" || !trace.reachedServer()) {
		isProxy = true
	}
	if isProxy {
		return tlsPeer{"the proxy", "proxy.host, proxy.port and service.http.proxy.scheme"}
	}
	return tlsPeer{"the server of " + call.setting() + " or the firewall that inspects its TLS", call.setting()}
}

// handshakeRemedy returns the remedy for the reason of a refused handshake.
func (p tlsPeer) handshakeRemedy(reason error) string {
	switch {
	case errors.Is(reason, handshake.ErrVersion):
		return "check " + p.settings + ", and enable TLS 1.2 or 1.3 on " + p.name
	case errors.Is(reason, handshake.ErrParameters):
		return "enable TLS 1.3, or cipher suites of TLS 1.2 with ECDHE and AES-GCM, on " + p.name + ", with a certificate that has an RSA key of 2048 bits or an ECDSA key"
	case errors.Is(reason, handshake.ErrClientCertificate):
		return "do not require client certificates from this machine on " + p.name + ": the connector has none"
	case errors.Is(reason, handshake.ErrServerName):
		return "correct the host name in " + p.settings
	case errors.Is(reason, handshake.ErrCertificate), errors.Is(reason, handshake.ErrWeakSignature):
		return "use a certificate with an RSA key of 2048 to 8192 bits or an ECDSA key, signed with SHA-256, on " + p.name
	case errors.Is(reason, handshake.ErrUnreadable):
		return "use certificates with RSA keys, or keys on the curves P-256, P-384 or P-521, on " + p.name + ", also for the issuers that it sends"
	default:
		return "check " + p.settings + ", and the log of " + p.name
	}
}

// tlsFailure returns the error of a request that TLS has failed; nil if something else has.
func (c *Client) tlsFailure(call call, err error, trace *connectionTrace) error {
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var invalid x509.CertificateInvalidError
	var certificate *tls.CertificateVerificationError
	var notTLS tls.RecordHeaderError
	refused := func(cause error, remedy string) error { return call.Failed(fault.Refused, cause, remedy) }
	peer := c.peerOf(call, err, trace)
	if trace.isPage() {
		return refused(errProxyPage, "allow the host and port of "+call.setting()+" on the proxy without a login or notice page")
	}
	if errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &notTLS) {
		return refused(errNotTLS, "check "+c.portSettings(call))
	}
	if explained, is := errors.AsType[*handshake.Error](trace.explain(err)); is {
		return refused(explained, peer.handshakeRemedy(explained.Reason))
	}
	switch {
	case errors.As(err, &unknown):
		if unknown.Cert != nil {
			err = fmt.Errorf("certificate issued by %s: %w", oneLine(unknown.Cert.Issuer.String()), err)
		}
		return refused(err, "set gateway.ca-file to the issuer's certificate, or exempt this host if a proxy or firewall inspects its TLS")
	case errors.As(err, &wrongName):
		return refused(err, "correct the host name in "+peer.settings+", or use a certificate for it on "+peer.name)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refused(err, "correct this machine's clock, or renew the certificate of "+peer.name)
	case errors.As(err, &certificate):
		return refused(err, "check "+peer.settings+", and the certificate of "+peer.name)
	}
	return nil
}

// maxCertificateLosses is the number of connections in a row that a server may lose after it has
// requested a client certificate. A login has so many attempts.
const maxCertificateLosses = maxDocumentAttempts

// certificateLoss returns the error of a connection that was lost after the server has requested
// a client certificate. With TLS 1.3, the alert that requires it arrives after the handshake, and
// net/http may return the error of its write instead.
func (c *Client) certificateLoss(call call, err error, trace *connectionTrace) error {
	remedy := c.peerOf(call, err, trace).handshakeRemedy(handshake.ErrClientCertificate)
	if c.certificateLosses.Add(1) < maxCertificateLosses {
		return call.Failed(fault.Transient, err, remedy)
	}
	return call.Failed(fault.Refused, &handshake.Error{Reason: handshake.ErrClientCertificate, Cause: err}, remedy)
}

// portSettings returns the settings with the port and the protocol of a connection.
func (c *Client) portSettings(call call) string {
	if c.options.Proxy == nil {
		return "the port in " + call.setting()
	}
	return call.setting() + ", proxy.port and service.http.proxy.scheme"
}
