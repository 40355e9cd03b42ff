package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
)

// handshakeRemedies are the remedies for the reasons of a refused handshake.
var handshakeRemedies = map[error]string{
	handshake.ErrVersion:    "enable TLS 1.2 or 1.3 on the domain controller (Windows Server 2012 and later has TLS 1.2)",
	handshake.ErrParameters: "enable TLS 1.3, or cipher suites of TLS 1.2 with ECDHE and AES-GCM, on the domain controller, and give it a certificate with an RSA key of 2048 bits or an ECDSA key",
	handshake.ErrClientCertificate: "do not require client certificates on the server, or on the load balancer in front of it: " +
		"the connector has none, it logs in with ldap.bindDn",
	handshake.ErrServerName:  "set ldap.host, or the host of the connection in the console, to a name that the server has a certificate for",
	handshake.ErrCertificate: "give the domain controller a certificate with an RSA key of 2048 to 8192 bits or an ECDSA key of 256 or 384 bits, signed with SHA-256",
	// crypto/tls parses all certificates of the server before any of them is verified, so this
	// happens even if its own is pinned.
	handshake.ErrUnreadable: "let the domain controller send only its own certificate, or replace it and its issuers by certificates with RSA keys or " +
		"keys on the curves P-256, P-384 or P-521 (ldap.certificate has no effect on this); openssl s_client -showcerts lists them",
	handshake.ErrWeakSignature: "give the domain controller a certificate that is signed with SHA-256, or set ldap.certificate to exactly its certificate",
	handshake.ErrRefused:       "check that the server and any load balancer in front of it support TLS 1.2 or 1.3, and see the server's log",
}

// refusedHandshake converts an explained TLS failure to a *fault.Error.
func refusedHandshake(o fault.Operation, explained error) error {
	refused, _ := errors.AsType[*handshake.Error](explained)
	return o.Failed(fault.Refused, explained, handshakeRemedies[refused.Reason])
}

// tlsError converts the error of a TLS handshake to a *fault.Error. requested is whether the
// server requested a client certificate.
func tlsError(ctx context.Context, o fault.Operation, err error, requested bool) error {
	var refused *fault.Error
	var record tls.RecordHeaderError
	switch {
	case ctx.Err() != nil:
		return o.Failed(fault.Canceled, ctx.Err(), "")
	case errors.As(err, &refused) && refused.Class == fault.Refused: // unwrapped from the handshake's error
		return o.Failed(fault.Refused, refused, "")
	case errors.As(err, &record), errors.Is(err, errMalformed):
		return o.Failed(fault.Refused, errProtocolMismatch, portSettings)
	case errors.Is(err, context.DeadlineExceeded):
		return o.Failed(fault.Transient, fmt.Errorf("TLS handshake timed out: %w", err), "check the server's load and the network")
	}
	if explained := handshake.Explain(err, requested); explained != nil {
		return refusedHandshake(o, explained)
	}
	return o.Failed(fault.Transient, fmt.Errorf("TLS handshake: %w", err), "check that the server has a certificate, and "+portSettings)
}
