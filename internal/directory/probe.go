package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"sync"
)

// Contact is what came of reaching one server, short of a bind.
type Contact struct {
	Host    string
	Port    int
	Address string // host:port

	Reached     bool              // it took the connection
	Certificate *x509.Certificate // that it presented; nil: none was seen
	Given       bool              // the certificate is one of the options' own
	Version     uint16            // of TLS
	Err         error             // what would keep a session from it; nil: nothing so far
}

// Probe reaches every server that the options stand for, all at the same time, and
// shakes hands where the protocol asks for it. It binds to none, so that it costs no
// account an attempt.
func Probe(ctx context.Context, options Options) []Contact {
	o := options.withDefaults()
	servers := o.servers(ctx)
	contacts := make([]Contact, len(servers))
	var all sync.WaitGroup
	for i, server := range servers {
		all.Go(func() { contacts[i] = o.probe(ctx, server) })
	}
	all.Wait()
	return contacts
}

func (o Options) probe(ctx context.Context, server server) Contact {
	c := Contact{Host: server.host, Port: server.port, Address: server.address()}
	conn, err := o.reach(ctx, server)
	if err != nil {
		c.Err = err
		return c
	}
	c.Reached = true
	if o.Protocol == LDAP {
		conn.Close()
		return c
	}
	o.presented = func(state tls.ConnectionState) {
		c.Certificate, c.Version = state.PeerCertificates[0], state.Version
		c.Given = isGiven(c.Certificate, o.Certificates)
	}
	secure, err := o.protect(ctx, conn, server)
	if err != nil {
		c.Err = err
		return c
	}
	secure.Close()
	return c
}
