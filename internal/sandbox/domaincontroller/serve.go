package domaincontroller

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"
)

// Counters count the operations of clients.
type Counters struct {
	Binds, FailedBinds int
	Searches           int // requests: a page is one, and a read of rootDSE
	Pages              int // results with a paging control
	Entries            int
}

// Counters returns the counters.
func (d *Server) Counters() Counters {
	d.countersMu.Lock()
	defer d.countersMu.Unlock()
	return d.counters
}

func (d *Server) updateCounters(update func(*Counters)) {
	d.countersMu.Lock()
	defer d.countersMu.Unlock()
	update(&d.counters)
}

// Serve accepts connections until ctx is done, which is no error, or until a listener
// fails. It serves LDAP with StartTLS on plain and LDAPS on secure. One of them may be nil.
// It closes both, and all connections, and returns after its last goroutine.
func (d *Server) Serve(ctx context.Context, plain, secure net.Listener) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, listener := range []net.Listener{plain, secure} {
		if listener != nil {
			group.Go(func() error { return d.accept(ctx, group, listener, listener == secure) })
		}
	}
	return group.Wait()
}

// accept accepts connections until ctx is done, or until an error, which it returns.
func (d *Server) accept(ctx context.Context, group *errgroup.Group, listener net.Listener, secure bool) error {
	defer closeWhenDone(ctx, listener)()
	for {
		raw, err := listener.Accept()
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", listener.Addr(), err)
		}
		group.Go(func() error {
			defer closeWhenDone(ctx, raw)()
			c := &connection{server: d, raw: raw, conn: raw}
			if secure {
				c.conn, c.encrypted = tls.Server(raw, d.tls), true
			}
			c.serve(ctx)
			return nil
		})
	}
}

// closeWhenDone closes c once ctx is done. The returned function closes it at once. After it has
// returned, no goroutine of closeWhenDone is running.
func closeWhenDone(ctx context.Context, c io.Closer) (closeNow func()) {
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.Close()
		close(closed)
	})
	return func() {
		if stop() {
			_ = c.Close()
			return
		}
		<-closed
	}
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

func (c *connection) serve(ctx context.Context) {
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
			handshake, cancel := context.WithTimeout(ctx, handshakeTimeout)
			err := encrypted.HandshakeContext(handshake)
			cancel()
			if err != nil {
				return
			}
			c.conn, c.encrypted, c.account, c.cursors = encrypted, true, nil, nil
			reader = bufio.NewReader(encrypted)
		}
	}
}
