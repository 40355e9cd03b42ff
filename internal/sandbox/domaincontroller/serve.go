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

// serving is what Close has to end.
type serving struct {
	mu          sync.Mutex
	closed      bool
	listeners   []net.Listener
	connections map[net.Conn]struct{}
	running     sync.WaitGroup
	counters    Counters
}

// Counters count what clients did.
type Counters struct {
	Binds, RefusedBinds int // those that were accepted, and those that were not
	Searches            int // each page is one, and so is each reading of rootDSE
	Pages               int // answers with a paging control
	Entries             int
}

// Searches returns the counters.
func (d *Server) Searches() Counters {
	d.serving.mu.Lock()
	defer d.serving.mu.Unlock()
	return d.serving.counters
}

func (d *Server) count(add func(*Counters)) {
	d.serving.mu.Lock()
	defer d.serving.mu.Unlock()
	add(&d.serving.counters)
}

// ErrClosed is what Serve returns after Close.
var ErrClosed = errors.New("directory closed")

// Serve takes connections until ctx is done, which is no error, or until Close. It
// speaks LDAP with StartTLS to those of plain, and LDAPS to those of secure; either
// may be nil. It closes both, and returns when nothing of it is left running; after
// that the directory serves no more.
func (d *Server) Serve(ctx context.Context, plain, secure net.Listener) error {
	listeners := make([]net.Listener, 0, 2)
	for _, listener := range []net.Listener{plain, secure} {
		if listener != nil {
			listeners = append(listeners, listener)
		}
	}
	s := &d.serving
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		for _, listener := range listeners {
			listener.Close()
		}
		return ErrClosed
	}
	s.listeners = append(s.listeners, listeners...)
	s.running.Add(1) // under the lock, so that Close sees it
	s.mu.Unlock()
	defer s.running.Done()

	stop := context.AfterFunc(ctx, d.cut)
	defer stop()
	failed := make(chan error, len(listeners))
	var accepting sync.WaitGroup
	for _, listener := range listeners {
		accepting.Go(func() {
			failed <- d.accept(listener, listener == secure)
		})
	}
	accepting.Wait()
	if ctx.Err() != nil {
		return nil
	}
	var err error
	for range listeners {
		if e := <-failed; !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	if err == nil {
		return ErrClosed
	}
	return err
}

// Close ends every connection and Serve, and waits until nothing runs any more.
// Whoever still talks to it is cut off.
func (d *Server) Close() {
	d.cut()
	d.serving.running.Wait()
}

func (d *Server) cut() {
	s := &d.serving
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

func (d *Server) accept(listener net.Listener, secure bool) error {
	var talking sync.WaitGroup
	defer func() {
		d.cut() // one listener without the other is no directory
		talking.Wait()
	}()
	for {
		raw, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept on %s: %w", listener.Addr(), err)
		}
		if !d.enter(raw) {
			raw.Close()
			continue
		}
		talking.Go(func() {
			defer d.leave(raw)
			c := &client{directory: d, raw: raw, conn: raw}
			if secure {
				c.conn, c.encrypted = tls.Server(raw, d.tls), true
			}
			c.serve()
		})
	}
}

// enter notes a connection, unless everything is about to end.
func (d *Server) enter(raw net.Conn) bool {
	d.serving.mu.Lock()
	defer d.serving.mu.Unlock()
	if d.serving.closed {
		return false
	}
	d.serving.connections[raw] = struct{}{}
	return true
}

func (d *Server) leave(raw net.Conn) {
	raw.Close()
	d.serving.mu.Lock()
	defer d.serving.mu.Unlock()
	delete(d.serving.connections, raw)
}

// handshakeTimeout bounds the one exchange that a silent client could hold up.
const handshakeTimeout = 10 * time.Second

// client is one connection. Its requests are answered in turn.
type client struct {
	directory *Server
	raw, conn net.Conn
	encrypted bool
	account   *object // nil: not bound
	held      []held  // searches that go on, oldest first
	encoder   encoder
}

func (c *client) serve() {
	reader := bufio.NewReader(c.conn)
	for {
		request, err := readRequest(reader)
		if err != nil {
			return // gone, or not LDAP: there is nobody to tell
		}
		c.encoder.out = c.encoder.out[:0]
		next := c.answer(request)
		if len(c.encoder.out) > 0 {
			if _, err := c.conn.Write(c.encoder.out); err != nil {
				return
			}
		}
		switch next {
		case stop:
			return
		case secure:
			// What came with the request, before TLS, is dropped with its reader.
			encrypted := tls.Server(c.raw, c.directory.tls)
			handshake, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
			err := encrypted.HandshakeContext(handshake)
			cancel()
			if err != nil {
				return
			}
			c.conn, c.encrypted, c.account, c.held = encrypted, true, nil, nil
			reader = bufio.NewReader(encrypted)
		}
	}
}
