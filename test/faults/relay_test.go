package faults

import (
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay is a TCP proxy between the connector and a server, which does to the bytes
// what a bad network would.
type relay struct {
	port     int
	address  string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	target string
	rule   rule
	next   int   // number of the next connection under the rule
	passed []int // bytes from the server, by connection
	conns  map[*relayed]struct{}
}

// rule is what happens to connections.
type rule struct {
	refuse     bool   // new connections are cut at once
	connection int    // the rule is about this one, from 0; -1: about all together
	after      int    // bytes from the server (or to it)
	toServer   bool   // count those to the server
	do         action // then
	hook       func() // called at that moment, from the relaying goroutine
	drip       time.Duration
	dripBytes  int           // from the server, so many each drip; 0: as they come
	idle       time.Duration // a connection without a byte for so long is cut, as domain controllers do; 0: never
}

type action int

const (
	pass  action = iota
	cut          // in order
	reset        // as hard as TCP can
	hole         // nothing comes through any more, in either direction
)

// relayed is one connection.
type relayed struct {
	relay          *relay
	number         int
	client, server net.Conn
	holed, closed  chan struct{} // closed once nothing may pass any more, and once both ends are
	closing        sync.Once
	holing         sync.Once
	active         atomic.Int64 // when the last byte passed
}

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	return newRelayAt(t, "127.0.0.1:0", target)
}

func newRelayAt(t *testing.T, address, target string) *relay {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	must(t, err)
	r := &relay{
		listener: listener, port: listener.Addr().(*net.TCPAddr).Port, address: listener.Addr().String(), target: target,
		rule: rule{connection: -1}, conns: map[*relayed]struct{}{},
	}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		listener.Close()
		r.cutAll()
		r.running.Wait()
	})
	return r
}

// set makes a rule, which holds for connections from now on.
func (r *relay) set(to rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rule, r.next, r.passed = to, 0, nil
}

// clear lets everything pass.
func (r *relay) clear() { r.set(rule{connection: -1}) }

// refuse cuts new connections at once, and leaves the rest of the rule as it is.
func (r *relay) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rule.refuse = true
}

// bytes are those that passed since the rule was set, by connection.
func (r *relay) bytes() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.passed)
}

// cutAll ends all connections.
func (r *relay) cutAll() {
	r.mu.Lock()
	all := make([]*relayed, 0, len(r.conns))
	for c := range r.conns {
		all = append(all, c)
	}
	r.mu.Unlock()
	for _, c := range all {
		c.close(false)
	}
}

// digAll turns all connections into black holes.
func (r *relay) digAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.hole()
	}
}

func (r *relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		refuse, target := r.rule.refuse, r.target
		r.mu.Unlock()
		if refuse {
			client.Close()
			continue
		}
		server, err := net.Dial("tcp", target)
		if err != nil {
			client.Close()
			continue
		}
		r.mu.Lock()
		c := &relayed{relay: r, number: r.next, client: client, server: server, holed: make(chan struct{}), closed: make(chan struct{})}
		c.active.Store(time.Now().UnixNano())
		r.next++
		r.passed = append(r.passed, 0)
		r.conns[c] = struct{}{}
		under := r.rule
		r.mu.Unlock()
		r.running.Go(func() { c.carry(server, client, under, false) })
		r.running.Go(func() { c.carry(client, server, under, true) })
	}
}

// carry copies one direction.
func (c *relayed) carry(from, to net.Conn, under rule, toServer bool) {
	defer c.close(false)
	buffer := make([]byte, 16<<10)
	mine := under.toServer == toServer && (under.connection < 0 || under.connection == c.number)
	for {
		if under.idle > 0 {
			_ = from.SetReadDeadline(time.Unix(0, c.active.Load()).Add(under.idle))
		}
		size := len(buffer)
		if mine && under.dripBytes > 0 {
			size = under.dripBytes
		}
		n, err := from.Read(buffer[:size])
		if n > 0 {
			now := buffer[:n]
			rest, at := -1, false
			if mine && (under.do != pass || under.hook != nil) {
				rest, at = c.count(n, under)
			} else if !toServer {
				c.count(n, rule{connection: -1, after: -1})
			}
			if at {
				now = now[:rest]
			}
			if mine && under.dripBytes > 0 {
				timer := time.NewTimer(under.drip)
				select {
				case <-timer.C:
				case <-c.closed:
				}
			}
			select {
			case <-c.holed:
				continue // it arrives nowhere
			default:
			}
			if _, err := to.Write(now); err != nil {
				return
			}
			c.active.Store(time.Now().UnixNano())
			if at && !c.act(under) {
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, c.active.Load())) < under.idle {
			continue // bytes have passed in the other direction
		}
		if err != nil {
			c.await(toServer)
			return
		}
	}
}

// await keeps the end of a server behind a black hole from coming through.
func (c *relayed) await(toServer bool) {
	select {
	case <-c.holed:
		if !toServer {
			<-c.closed
		}
	default:
	}
}

// count adds n bytes, and reports whether the rule's moment has come and how many
// of them are before it.
func (c *relayed) count(n int, under rule) (before int, at bool) {
	r := c.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.number >= len(r.passed) {
		return 0, false // of an earlier rule
	}
	total := r.passed[c.number]
	if under.connection < 0 {
		total = 0
		for _, passed := range r.passed {
			total += passed
		}
	}
	r.passed[c.number] += n
	if total < under.after && total+n >= under.after || under.after == 0 && total == 0 {
		return max(under.after-total, 0), true
	}
	return 0, false
}

// act does what the rule says. It reports whether the connection lives on.
func (c *relayed) act(under rule) bool {
	if under.hook != nil {
		under.hook()
	}
	switch under.do {
	case cut:
		c.close(false)
		return false
	case reset:
		c.close(true)
		return false
	case hole:
		c.hole()
	}
	return true
}

func (c *relayed) hole() { c.holing.Do(func() { close(c.holed) }) }

func (c *relayed) close(hard bool) {
	c.closing.Do(func() {
		if tcp, is := c.client.(*net.TCPConn); is && hard {
			_ = tcp.SetLinger(0)
		}
		c.client.Close()
		c.server.Close()
		c.relay.mu.Lock()
		delete(c.relay.conns, c)
		c.relay.mu.Unlock()
		close(c.closed)
	})
}
