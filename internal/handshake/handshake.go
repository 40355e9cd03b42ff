// Package handshake finds the reason of a failed TLS handshake of a client. It distinguishes
// failures that last until the peer is changed, such as an old TLS version, from those of
// the network.
package handshake

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"adconnector/internal/fault"
)

// The reasons of a handshake that fails until the peer, or the connection to it, is changed.
var (
	ErrVersion           = errors.New("no common TLS version, TLS 1.2 or 1.3 required")
	ErrParameters        = errors.New("no common TLS cipher suite, key exchange, curve or signature algorithm")
	ErrClientCertificate = errors.New("TLS client certificate required")
	ErrServerName        = errors.New("host name not known to the TLS server")
	ErrCertificate       = errors.New("server certificate or its key not usable")
	ErrUnreadable        = errors.New("a certificate that the server sent cannot be read")
	ErrWeakSignature     = errors.New("certificate signed with an insecure algorithm")
	ErrRefused           = errors.New("TLS handshake refused")
)

// Error is a failed handshake whose reason is known.
type Error struct {
	Reason error // one of the reasons of this package
	Cause  error
}

// Error returns "reason (cause)". The cause may contain text of the peer's certificate.
func (e *Error) Error() string {
	const maxCause = 200
	return fmt.Sprintf("%v (%s)", e.Reason, fault.OneLine(e.Cause.Error(), maxCause))
}

// Unwrap returns the reason and the cause.
func (e *Error) Unwrap() []error { return []error{e.Reason, e.Cause} }

// Explain returns the Error of a failed handshake; nil if there is none, or if the network or an
// unknown condition of the peer failed it. requested is whether the peer requested a client certificate.
//
// crypto/tls has no types for what the client refuses. But it returns the errors of the
// connection unchanged, so all other errors are refusals.
func Explain(err error, requested bool) error {
	if is, number := alert(err); is {
		return explainAlert(err, number, requested)
	}
	if err == nil || isNetworkError(err) {
		return nil
	}
	return &Error{reasonOf(err), err}
}

// ExplainAlert returns the Error of a connection that failed after its handshake; nil if the peer
// has sent no alert with a known reason. With TLS 1.3, servers reject a missing client
// certificate only then.
func ExplainAlert(err error, requested bool) error {
	if is, number := alert(err); is {
		return explainAlert(err, number, requested)
	}
	return nil
}

// IsAlert reports whether an error is a TLS alert of the peer, or one that was sent to it because
// of a damaged record. Its text is one of crypto/tls.
func IsAlert(err error) bool {
	is, _ := alert(err)
	return is
}

// remoteError is the Op of crypto/tls for alerts that the peer has sent. localError is that of
// alerts that the client has sent because of a damaged record.
const (
	remoteError = "remote error"
	localError  = "local error"
)

// alert reports whether an error is an alert of the peer, or a local one, and returns the number
// of the former (RFC 8446 6).
//
// The type of the alert is not exported. tls.AlertError, which is, has the same texts.
func alert(err error) (is bool, number tls.AlertError) {
	op, is := errors.AsType[*net.OpError](err)
	switch {
	case !is:
		return false, 0
	case op.Op != remoteError && op.Op != localError: // net/http wraps those of a proxy
		return alert(op.Err)
	}
	for n := range 256 {
		if number := tls.AlertError(n); op.Op == remoteError && op.Err.Error() == number.Error() {
			return true, number
		}
	}
	return true, 0
}

// alertReasons are the reasons of alerts (RFC 8446 6, RFC 5246 7.2, RFC 7507). Other alerts, such
// as internal_error, may end without intervention.
var alertReasons = map[tls.AlertError]error{
	40:  ErrParameters,        // handshake_failure
	42:  ErrRefused,           // bad_certificate
	43:  ErrRefused,           // unsupported_certificate
	44:  ErrRefused,           // certificate_revoked
	45:  ErrRefused,           // certificate_expired
	46:  ErrRefused,           // certificate_unknown
	47:  ErrRefused,           // illegal_parameter
	48:  ErrRefused,           // unknown_ca
	49:  ErrRefused,           // access_denied
	50:  ErrRefused,           // decode_error
	60:  ErrParameters,        // export_restriction
	70:  ErrVersion,           // protocol_version
	71:  ErrParameters,        // insufficient_security
	86:  ErrVersion,           // inappropriate_fallback
	109: ErrRefused,           // missing_extension
	110: ErrRefused,           // unsupported_extension
	112: ErrServerName,        // unrecognized_name
	116: ErrClientCertificate, // certificate_required
	120: ErrRefused,           // no_application_protocol
	121: ErrRefused,           // ech_required
}

// certificateAlerts are alerts with which a server refuses the client's certificate, or that
// there is none. A firewall that inspects TLS also sends them without a request for a client
// certificate, if it does not trust the server behind it.
var certificateAlerts = map[tls.AlertError]bool{40: true, 42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 49: true}

func explainAlert(err error, number tls.AlertError, requested bool) error {
	reason := alertReasons[number]
	if reason == nil {
		return nil
	}
	if requested && certificateAlerts[number] {
		reason = ErrClientCertificate
	}
	return &Error{reason, err}
}

// isNetworkError reports whether an error comes from the connection, not from crypto/tls.
func isNetworkError(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// localReasons are the reasons of errors that crypto/tls returns without a type, by the beginning
// of their texts. The texts only select a more helpful reason: without them, it is ErrRefused.
var localReasons = []struct {
	prefix string
	reason error
}{
	{"tls: server selected unsupported protocol version", ErrVersion},
	{"tls: downgrade attempt detected", ErrVersion},
	{"tls: server chose an unconfigured cipher suite", ErrParameters},
	{"tls: server selected unsupported curve", ErrParameters},
	{"tls: server selected unoffered curve", ErrParameters},
	{"tls: certificate used with invalid signature algorithm", ErrParameters},
	{"tls: server's certificate contains an unsupported type of public key", ErrCertificate},
	{"tls: server sent certificate containing RSA key larger than", ErrCertificate},
	{"tls: failed to parse certificate from server", ErrUnreadable},      // its own, or one of its issuers
	{"tls: invalid signature by the server certificate", ErrCertificate}, // for example, by an RSA key of 512 bits
}

func reasonOf(err error) error {
	if n := localReason(err); n >= 0 {
		return localReasons[n].reason
	}
	return ErrRefused
}

// localReason returns the index of the reason of an error in localReasons; -1 if it has none.
func localReason(err error) int {
	for n, local := range localReasons {
		if strings.HasPrefix(err.Error(), local.prefix) {
			return n
		}
	}
	return -1
}

// ExplainVerification returns the Error of a chain that was not verified because of an insecure
// signature; nil for other chains. x509 reports such a chain as one of an unknown authority, and
// contains the cause only in its text.
func ExplainVerification(err error, chain []*x509.Certificate) error {
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); !is {
		return nil
	}
	for _, c := range chain {
		selfSigned := bytes.Equal(c.RawIssuer, c.RawSubject)
		if insecure := x509.InsecureAlgorithmError(c.SignatureAlgorithm); !selfSigned && insecureAlgorithms[c.SignatureAlgorithm] {
			return &Error{ErrWeakSignature, insecure}
		}
	}
	return nil
}

// insecureAlgorithms are the algorithms that x509 does not verify.
var insecureAlgorithms = map[x509.SignatureAlgorithm]bool{
	x509.MD2WithRSA: true, x509.MD5WithRSA: true, x509.SHA1WithRSA: true, x509.ECDSAWithSHA1: true,
	x509.DSAWithSHA1: true, x509.DSAWithSHA256: true,
}

// ServerName returns the name that the certificate of a host must contain. The zone of an IPv6
// address belongs to this machine (RFC 4007 11.2), so that no certificate contains it.
func ServerName(host string) string {
	if address, err := netip.ParseAddr(host); err == nil && address.Zone() != "" {
		return address.WithZone("").String()
	}
	return host
}

// requestKey is the context key of a Request.
type requestKey struct{}

// Request records whether a server requests a client certificate.
type Request struct{ received atomic.Bool }

// Received reports whether the server has requested a client certificate.
func (r *Request) Received() bool { return r.received.Load() }

// WithRequest returns a context for handshakes, and the Request that their callback sets.
func WithRequest(ctx context.Context) (context.Context, *Request) {
	request := &Request{}
	return context.WithValue(ctx, requestKey{}, request), request
}

// NoClientCertificate is a tls.Config.GetClientCertificate for a client without certificates. It
// sets the Request of the handshake's context.
func NoClientCertificate(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if request, is := info.Context().Value(requestKey{}).(*Request); is {
		request.received.Store(true)
	}
	return &tls.Certificate{}, nil // the server decides whether it requires one
}
