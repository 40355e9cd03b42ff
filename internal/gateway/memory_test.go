package gateway_test

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"

	"adconnector/internal/gateway"
)

// memoryListener is a listener whose connections are in-memory pipes, for synctest bubbles.
type memoryListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (m *memoryListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (m *memoryListener) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memoryListener) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (m *memoryListener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case m.conns <- server:
		return client, nil
	case <-m.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serveInMemory serves a handler in a synctest bubble until the test ends. It uses TLS if config
// is not nil. It returns options for a client of the server.
func serveInMemory(t testing.TB, config *tls.Config, handler http.Handler) gateway.Options {
	t.Helper()
	listener := newMemoryListener()
	server := &http.Server{Handler: handler, TLSConfig: config, ErrorLog: log.New(io.Discard, "", 0)}
	o := options(t, "http://gateway.test")
	var running sync.WaitGroup
	if config == nil {
		running.Go(func() { _ = server.Serve(listener) })
	} else {
		o.URL.Scheme = "https"
		running.Go(func() { _ = server.ServeTLS(listener, "", "") })
	}
	t.Cleanup(func() {
		server.Close()
		running.Wait()
	})
	o.Dial(listener.Dial)
	return o
}
