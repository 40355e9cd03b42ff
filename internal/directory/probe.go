package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
)

// ProbeResult is the outcome of a connection attempt to one server, without a bind.
type ProbeResult struct {
	Host    string
	Port    int
	Address string // host:port, followed by the IP address if the host has several

	Connected   bool              // the TCP connection was opened
	Certificate *x509.Certificate // the server's certificate; nil: none was received
	Pinned      bool              // Certificate is one of Options.Certificates
	TLSVersion  uint16
	Err         error // why the attempt failed; nil: it succeeded
}

// Probe connects to all servers of the options concurrently, with the TLS handshake that
// the protocol requires. It does not bind, so it cannot lock an account. A name with several
// addresses has a result for each.
func Probe(ctx context.Context, options Options) ([]ProbeResult, error) {
	o := options.withDefaults()
	names, err := o.resolve(ctx)
	if err != nil {
		return nil, err
	}
	for i, servers := range names {
		names[i] = o.addresses(ctx, servers)
	}
	results := make([]ProbeResult, len(slices.Concat(names...)))
	var probes sync.WaitGroup
	next := 0
	for _, servers := range names {
		for _, server := range servers {
			result := &results[next]
			next++
			result.Host, result.Port, result.Address = server.host, server.port, server.address()
			if len(servers) > 1 && server.ip != "" {
				result.Address += " (" + server.ip + ")"
			}
			probes.Go(func() { o.probe(ctx, server, result) })
		}
	}
	probes.Wait()
	return results, nil
}

// probe completes the result of one server.
func (o Options) probe(ctx context.Context, server server, result *ProbeResult) {
	conn, err := o.dialTCP(ctx, server)
	if err != nil {
		result.Err = err
		return
	}
	result.Connected = true
	if o.Protocol == LDAP {
		conn.Close()
		return
	}
	o.onHandshake = func(state tls.ConnectionState) {
		result.Certificate, result.TLSVersion = state.PeerCertificates[0], state.Version
		result.Pinned = isPinned(result.Certificate, o.Certificates)
	}
	tlsConn, err := o.secure(ctx, conn, server)
	if err != nil {
		result.Err = err
		return
	}
	tlsConn.Close()
}
