package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync"
)

// ProbeResult is the outcome of a connection attempt to one server, without a bind.
type ProbeResult struct {
	Host    string
	Port    int
	Address string // host:port

	Connected   bool              // the TCP connection was opened
	Certificate *x509.Certificate // the server's certificate; nil: none was received
	Pinned      bool              // Certificate is one of Options.Certificates
	TLSVersion  uint16
	Err         error // why the attempt failed; nil: it succeeded
}

// Probe connects to all servers of the options concurrently, with the TLS handshake that
// the protocol requires. It does not bind, so it cannot lock an account.
func Probe(ctx context.Context, options Options) []ProbeResult {
	o := options.withDefaults()
	servers := o.servers(ctx)
	results := make([]ProbeResult, len(servers))
	var probes sync.WaitGroup
	for i, server := range servers {
		probes.Go(func() { results[i] = o.probe(ctx, server) })
	}
	probes.Wait()
	return results
}

func (o Options) probe(ctx context.Context, server server) ProbeResult {
	result := ProbeResult{Host: server.host, Port: server.port, Address: server.address()}
	conn, err := o.dialTCP(ctx, server)
	if err != nil {
		result.Err = err
		return result
	}
	result.Connected = true
	if o.Protocol == LDAP {
		conn.Close()
		return result
	}
	o.onHandshake = func(state tls.ConnectionState) {
		result.Certificate, result.TLSVersion = state.PeerCertificates[0], state.Version
		result.Pinned = isPinned(result.Certificate, o.Certificates)
	}
	tlsConn, err := o.secure(ctx, conn, server)
	if err != nil {
		result.Err = err
		return result
	}
	tlsConn.Close()
	return result
}
