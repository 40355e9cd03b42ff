package directory

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
	"adconnector/internal/loopback"
)

// server is the address of one server.
type server struct {
	host     string
	port     int
	domain   string // the DNS domain whose SRV records or directory name the host; "": the host is configured
	priority uint16 // of the SRV record; lower ones are tried first
	ip       string // address to dial; "": that of the host
}

// isAddress reports whether a host is an IP address, with or without a zone (RFC 4007 11).
func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func (s server) address() string { return net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

// dialAddress returns the address to dial.
func (s server) dialAddress() string {
	return net.JoinHostPort(cmp.Or(s.ip, s.host), strconv.Itoa(s.port))
}

const (
	ldapPort      = 389
	lookupTimeout = 5 * time.Second
)

// globalCatalog has the ports of the global catalog (MS-ADTS 6.1.1.3).
var globalCatalog = map[int]bool{3268: true, 3269: true}

// resolve returns the servers of each name of Hosts. A single name is a DNS domain if it has SRV
// records _ldap._tcp.dc._msdcs.<domain> (MS-ADTS 6.3.2.3); otherwise it is a host. addresses
// returns the addresses of a host.
//
// Ports of the global catalog are refused: attributes that are missing there would be taken for
// empty ones.
func (o Options) resolve(ctx context.Context) ([][]server, error) {
	if len(o.Hosts) == 0 {
		return nil, fault.Operation{Op: "connect"}.Failed(fault.Refused, errNoHost, "set ldap.host, or the host of the connection in the console")
	}
	if err := o.checkPort(server{host: o.Hosts[0], port: o.Port}); err != nil {
		return nil, err
	}
	if len(o.Hosts) == 1 && strings.Contains(o.Hosts[0], ".") && !isAddress(o.Hosts[0]) {
		if controllers := o.lookupControllers(ctx, o.Hosts[0]); len(controllers) > 0 {
			for _, controller := range controllers {
				if err := o.checkPort(controller); err != nil {
					return nil, err
				}
			}
			return [][]server{controllers}, nil
		}
	}
	names := make([][]server, 0, len(o.Hosts))
	for _, host := range o.Hosts {
		names = append(names, []server{{host: host, port: cmp.Or(o.Port, ldapPort)}})
	}
	return names, nil
}

// checkPort returns an error for a port of the global catalog.
func (o Options) checkPort(server server) error {
	if !globalCatalog[server.port] {
		return nil
	}
	return o.connectOperation(server).Failed(fault.Refused, errGlobalCatalog,
		"set ldap.port, or the port of the connection in the console, to 389, or to 636 for LDAPS")
}

// lookupControllers returns the hosts that the SRV records of a domain name.
func (o Options) lookupControllers(ctx context.Context, domain string) []server {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	// The records are sorted by priority and shuffled by weight. The error is ignored:
	// LookupSRV may return valid records with it. Without records the name is dialed as a
	// host, which reports the cause.
	_, records, _ := o.lookupSRV(ctx, "ldap", "tcp", "dc._msdcs."+domain)
	var list []server
	for _, record := range records {
		port := o.Port
		if port == 0 {
			port = int(record.Port) // for LDAP and StartTLS; withDefaults sets the port of LDAPS
		}
		host := strings.TrimSuffix(record.Target, ".")
		controller := server{host: host, port: port, domain: domain, priority: record.Priority}
		if host != "" && !slices.Contains(list, controller) { // ".": service not available (RFC 2782)
			list = append(list, controller)
		}
	}
	return list
}

// addresses returns a configured host with each of its addresses, and SRV records as they are.
// Without addresses the host is dialed, which reports the cause.
func (o Options) addresses(ctx context.Context, servers []server) []server {
	s := servers[0]
	if s.domain != "" || isAddress(s.host) {
		return servers
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addresses, err := o.lookupHost(ctx, s.host)
	if err != nil || len(addresses) == 0 {
		return servers
	}
	var list []server
	for _, ip := range addresses {
		if s.ip = ip; !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// dial connects to one server, with a TLS handshake unless the protocol is LDAP.
func (o Options) dial(ctx context.Context, server server) (net.Conn, error) {
	conn, err := o.dialTCP(ctx, server)
	if err != nil || o.Protocol == LDAP {
		return conn, err
	}
	return o.secure(ctx, conn, server)
}

// connectOperation returns the operation of a connection attempt, for errors.
func (o Options) connectOperation(server server) fault.Operation {
	return fault.Operation{Op: "connect", Object: fmt.Sprintf("%s (%s)", server.address(), o.Protocol)}
}

// dialTCP opens a TCP connection.
func (o Options) dialTCP(ctx context.Context, server server) (net.Conn, error) {
	conn, err := o.dialFunc()(ctx, "tcp", server.dialAddress())
	if err != nil {
		return nil, dialError(ctx, o.connectOperation(server), server.address(), err)
	}
	return conn, nil
}

// dialFunc returns the function that opens TCP connections.
func (o Options) dialFunc() func(ctx context.Context, network, address string) (net.Conn, error) {
	if o.dialContext != nil {
		return o.dialContext
	}
	return loopback.Dial((&net.Dialer{Timeout: o.ConnectTimeout, KeepAlive: 30 * time.Second}).DialContext)
}

// secure starts TLS on a connection within ConnectTimeout. It closes the connection on
// failure.
func (o Options) secure(ctx context.Context, conn net.Conn, server server) (net.Conn, error) {
	handshakeCtx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	handshakeCtx, request := handshake.WithRequest(handshakeCtx)
	tlsConn, err := o.handshake(handshakeCtx, conn, server)
	if err != nil {
		conn.Close()
		return nil, tlsError(ctx, o.connectOperation(server), err, request.Received())
	}
	return tlsConn, nil
}

func (o Options) handshake(ctx context.Context, conn net.Conn, server server) (net.Conn, error) {
	if o.Protocol == StartTLS {
		stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
		err := requestStartTLS(conn)
		if !stop() {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	tlsConn := tls.Client(conn, o.tlsConfig(server))
	return tlsConn, tlsConn.HandshakeContext(ctx)
}

// startTLSRequest is the extended request 1.3.6.1.4.1.1466.20037 (RFC 4511 4.14.1) as
// message 1. go-ldap's StartTLS would put TLS above demuxConn.
const startTLSRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"

var errStartTLS = errors.New("STARTTLS refused")

// requestStartTLS sends the request and reads exactly the bytes of its response: any
// further plaintext must reach the TLS handshake, which rejects it.
func requestStartTLS(conn net.Conn) error {
	if _, err := io.WriteString(conn, startTLSRequest); err != nil {
		return err
	}
	const maxResponse = 4096
	var message []byte
	for need := 2; need > len(message); {
		start := len(message)
		message = append(message, make([]byte, need-start)...)
		if _, err := io.ReadFull(conn, message[start:]); err != nil {
			return err
		}
		size, known, err := messageSize(message)
		switch {
		case err != nil || size > maxResponse:
			return errMalformed
		case known:
			need = size
		default: // the length has several bytes, as in Active Directory's responses
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
