package domaincontroller

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// serveState is what Close ends.
type serveState struct {
	mu          sync.Mutex
	closed      bool
	listeners   []net.Listener
	connections map[net.Conn]struct{}
	running     sync.WaitGroup // calls of Serve
	counters    Counters
}

// Counters count the operations of clients.
type Counters struct {
	Binds, FailedBinds int
	Searches           int // requests: a page is one, and a read of rootDSE
	Pages              int // results with a paging control
	Entries            int
}

// Counters returns the counters.
func (d *Server) Counters() Counters {
	d.serveState.mu.Lock()
	defer d.serveState.mu.Unlock()
	return d.serveState.counters
}

func (d *Server) updateCounters(update func(*Counters)) {
	d.serveState.mu.Lock()
	defer d.serveState.mu.Unlock()
	update(&d.serveState.counters)
}

// ErrClosed is returned by Serve after Close.
var ErrClosed = errors.New("domain controller closed")

// Serve accepts connections until ctx is done, which is no error, or until Close. It
// serves LDAP with StartTLS on plain and LDAPS on secure. One of them may be nil. It
// closes both and returns after its last goroutine. It cannot be called again after that.
func (d *Server) Serve(ctx context.Context, plain, secure net.Listener) error {
	listeners := make([]net.Listener, 0, 2)
	for _, listener := range []net.Listener{plain, secure} {
		if listener != nil {
			listeners = append(listeners, listener)
		}
	}
	if !d.registerListeners(listeners) {
		for _, listener := range listeners {
			listener.Close()
		}
		return ErrClosed
	}
	defer d.serveState.running.Done()

	stop := context.AfterFunc(ctx, d.closeAll)
	defer stop()
	results := make(chan error, len(listeners))
	for _, listener := range listeners {
		go func() { results <- d.accept(listener, listener == secure) }()
	}
	var err error
	for range listeners {
		if result := <-results; !errors.Is(result, net.ErrClosed) {
			err = errors.Join(err, result)
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case err == nil:
		return ErrClosed
	}
	return err
}

// registerListeners adds the listeners of a call of Serve. It reports false after Close.
func (d *Server) registerListeners(listeners []net.Listener) bool {
	s := &d.serveState
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.listeners = append(s.listeners, listeners...)
	s.running.Add(1) // under the lock, so that Close waits for it
	return true
}

// Close closes all connections, ends Serve and waits for its goroutines.
func (d *Server) Close() {
	d.closeAll()
	d.serveState.running.Wait()
}

func (d *Server) closeAll() {
	s := &d.serveState
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, listener := range s.listeners {
		listener.Close()
	}
	for connection := range s.connections {
		connection.Close()
	}
}

// accept accepts connections until an error, which it returns. It closes the other
// listener too.
func (d *Server) accept(listener net.Listener, secure bool) error {
	var serving sync.WaitGroup
	defer func() {
		d.closeAll()
		serving.Wait()
	}()
	for {
		raw, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept on %s: %w", listener.Addr(), err)
		}
		if !d.register(raw) {
			raw.Close()
			continue
		}
		serving.Go(func() {
			defer d.unregister(raw)
			c := &connection{server: d, raw: raw, conn: raw}
			if secure {
				c.conn, c.encrypted = tls.Server(raw, d.tls), true
			}
			c.serve()
		})
	}
}

// register adds a connection. It reports false after Close.
func (d *Server) register(raw net.Conn) bool {
	d.serveState.mu.Lock()
	defer d.serveState.mu.Unlock()
	if d.serveState.closed {
		return false
	}
	d.serveState.connections[raw] = struct{}{}
	return true
}

func (d *Server) unregister(raw net.Conn) {
	raw.Close()
	d.serveState.mu.Lock()
	defer d.serveState.mu.Unlock()
	delete(d.serveState.connections, raw)
}

const handshakeTimeout = 10 * time.Second // of StartTLS

// connection is a client's connection. It answers requests one after the other.
type connection struct {
	server    *Server
	raw, conn net.Conn
	encrypted bool
	account   *object  // nil: not bound
	cursors   []cursor // of paged searches, oldest first
	encoder   encoder
}

func (c *connection) serve() {
	reader := bufio.NewReader(c.conn)
	for {
		request, err := readRequest(reader)
		if err != nil {
			return // closed, or not LDAP
		}
		c.encoder.out = c.encoder.out[:0]
		action := c.answer(request)
		if len(c.encoder.out) > 0 {
			if _, err := c.conn.Write(c.encoder.out); err != nil {
				return
			}
		}
		switch action {
		case closeConnection:
			return
		case startTLS:
			// Bytes that the client sent after the request are dropped with the reader.
			encrypted := tls.Server(c.raw, c.server.tls)
			ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
			err := encrypted.HandshakeContext(ctx)
			cancel()
			if err != nil {
				return
			}
			c.conn, c.encrypted, c.account, c.cursors = encrypted, true, nil, nil
			reader = bufio.NewReader(encrypted)
		}
	}
}
