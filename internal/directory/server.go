package directory

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/fault"
)

// server is one address to try.
type server struct {
	host string
	port int
}

func (s server) address() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

const (
	ldapPort         = 389
	srvLookupTimeout = 5 * time.Second
)

// servers lists what Hosts stand for. Domain controllers register
// _ldap._tcp.dc._msdcs.<domain> (MS-ADTS 6.3.2.3); a name without such records is
// a host's.
func (o Options) servers(ctx context.Context) []server {
	port := o.Port
	if port == 0 {
		port = ldapPort
	}
	if len(o.Hosts) == 1 && strings.Contains(o.Hosts[0], ".") && net.ParseIP(o.Hosts[0]) == nil {
		if found := o.discover(ctx, o.Hosts[0]); len(found) > 0 {
			return found
		}
	}
	list := make([]server, 0, len(o.Hosts))
	for _, host := range o.Hosts {
		list = append(list, server{host, port})
	}
	return list
}

func (o Options) discover(ctx context.Context, domain string) []server {
	ctx, cancel := context.WithTimeout(ctx, srvLookupTimeout)
	defer cancel()
	// Records come sorted by priority and shuffled by weight. Of an error, records
	// that are good may come along; without any, the name is a host's, and dialling
	// it says what is wrong.
	_, records, _ := o.lookupSRV(ctx, "ldap", "tcp", "dc._msdcs."+domain)
	var list []server
	for _, record := range records {
		port := o.Port
		if port == 0 {
			port = int(record.Port) // of plain LDAP and StartTLS; LDAPS has its own
		}
		if host := strings.TrimSuffix(record.Target, "."); host != "" { // ".": not offered (RFC 2782)
			list = append(list, server{host, port})
		}
	}
	return list
}

// dial connects to one server and, where the protocol asks for it, shakes hands.
func (o Options) dial(ctx context.Context, server server) (net.Conn, error) {
	conn, err := o.reach(ctx, server)
	if err != nil || o.Protocol == LDAP {
		return conn, err
	}
	return o.protect(ctx, conn, server)
}

// attempt returns the operation of connecting to a server.
func (o Options) attempt(server server) fault.Operation {
	return fault.Operation{Op: "connect", Object: fmt.Sprintf("%s (%s)", server.address(), o.Protocol)}
}

// reach opens a TCP connection.
func (o Options) reach(ctx context.Context, server server) (net.Conn, error) {
	conn, err := o.dialContext(ctx, "tcp", server.address())
	if err != nil {
		return nil, explainDial(ctx, o.attempt(server), server.address(), err)
	}
	return conn, nil
}

// protect puts TLS over a connection, and closes it where that fails.
func (o Options) protect(ctx context.Context, conn net.Conn, server server) (net.Conn, error) {
	handshake, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	secure, err := o.shakeHands(handshake, conn, server)
	if err != nil {
		conn.Close()
		return nil, explainTLS(ctx, o.attempt(server), err)
	}
	return secure, nil
}

func (o Options) shakeHands(ctx context.Context, conn net.Conn, server server) (net.Conn, error) {
	if o.Protocol == StartTLS {
		stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
		err := requestStartTLS(conn)
		if !stop() {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	secure := tls.Client(conn, o.tlsConfig(server))
	return secure, secure.HandshakeContext(ctx)
}

// startTLSRequest is the extended request 1.3.6.1.4.1.1466.20037 (RFC 4511
// 4.14.1) as message 1. go-ldap's own StartTLS would put TLS above our wire.
const startTLSRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

var errStartTLS = errors.New("the server refuses STARTTLS")

// requestStartTLS asks and reads exactly the answer: a byte more would be
// plaintext taken for TLS.
func requestStartTLS(conn net.Conn) error {
	if _, err := io.WriteString(conn, startTLSRequest); err != nil {
		return err
	}
	const maxAnswer = 4096
	var message []byte
	for need := 2; need > len(message); {
		start := len(message)
		message = append(message, make([]byte, need-start)...)
		if _, err := io.ReadFull(conn, message[start:]); err != nil {
			return err
		}
		size, known, err := messageSize(message)
		switch {
		case err != nil || size > maxAnswer:
			return errMalformed
		case known:
			need = size
		default: // a length in several bytes, as Active Directory writes it
			need = 2 + int(message[1]&0x7f)
		}
	}
	code, ok := resultCode(message, tagExtendedResponse)
	if !ok {
		return errMalformed
	}
	if code != 0 {
		return fault.Operation{Op: "start TLS"}.Failed(fault.Refused, fmt.Errorf("%w (LDAP result %d)", errStartTLS, code), "give the domain controller a certificate, or use LDAPS")
	}
	return nil
}
