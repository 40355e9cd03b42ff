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

// relay is a TCP proxy between the connector and a server. It injects network faults.
type relay struct {
	port     int
	address  string
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	target string
	rule   rule
	next   int   // index of the next connection under the rule
	passed []int // bytes from the server, by connection
	conns  map[*relayedConn]struct{}
}

// rule describes a fault. The zero value applies to the first connection and changes nothing.
type rule struct {
	refuse     bool // close new connections at once
	connection int  // index of the connection from 0; -1: all, with a common byte count
	after      int  // bytes before the action and the hook
	toServer   bool // count the bytes to the server instead of those from it
	action     action
	hook       func() // called just before the action, by the goroutine that copies
	chunkSize  int    // bytes of each read from the server; 0: no limit
	chunkDelay time.Duration
	idle       time.Duration // close a connection without traffic for so long, as domain controllers do; 0: never
}

type action int

const (
	pass      action = iota
	cut              // close the connection
	reset            // close the connection with a TCP reset
	blackhole        // drop all further bytes, in both directions
)

// relayedConn is one connection.
type relayedConn struct {
	relay              *relay
	index              int
	client, server     net.Conn
	blackholed, closed chan struct{} // each is closed when the state begins
	blackholeOnce      sync.Once
	closeOnce          sync.Once
	lastActive         atomic.Int64 // time of the last copied byte, Unix nanoseconds
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
		rule: rule{connection: -1}, conns: map[*relayedConn]struct{}{},
	}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		listener.Close()
		r.closeAll()
		r.running.Wait()
	})
	return r
}

// set replaces the rule. It applies to new connections only, which are indexed from 0 again.
func (r *relay) set(newRule rule) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rule, r.next, r.passed = newRule, 0, nil
}

// clear removes the rule.
func (r *relay) clear() { r.set(rule{connection: -1}) }

// refuse makes the relay close new connections at once. The rest of the rule stays.
func (r *relay) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rule.refuse = true
}

// forwardTo changes the target of new connections.
func (r *relay) forwardTo(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// bytes returns the number of bytes from the server since the rule was set, by connection.
func (r *relay) bytes() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.passed)
}

// closeAll closes all connections.
func (r *relay) closeAll() {
	r.mu.Lock()
	open := make([]*relayedConn, 0, len(r.conns))
	for c := range r.conns {
		open = append(open, c)
	}
	r.mu.Unlock()
	for _, c := range open {
		c.close(false)
	}
}

// blackholeAll turns all open connections into black holes.
func (r *relay) blackholeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.blackhole()
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
		c := &relayedConn{
			relay: r, index: r.next, client: client, server: server,
			blackholed: make(chan struct{}), closed: make(chan struct{}),
		}
		c.lastActive.Store(time.Now().UnixNano())
		r.next++
		r.passed = append(r.passed, 0)
		r.conns[c] = struct{}{}
		current := r.rule
		r.mu.Unlock()
		r.running.Go(func() { c.copy(client, server, current, false) })
		r.running.Go(func() { c.copy(server, client, current, true) })
	}
}

// copy copies one direction until the connection ends.
func (c *relayedConn) copy(dst, src net.Conn, rule rule, toServer bool) {
	defer c.close(false)
	buffer := make([]byte, 16<<10)
	applies := rule.toServer == toServer && (rule.connection < 0 || rule.connection == c.index)
	if applies && rule.chunkSize > 0 {
		buffer = buffer[:rule.chunkSize]
	}
	for {
		if rule.idle > 0 {
			_ = src.SetReadDeadline(time.Unix(0, c.lastActive.Load()).Add(rule.idle))
		}
		n, err := src.Read(buffer)
		if n > 0 && !c.forward(dst, buffer[:n], rule, applies, toServer) {
			return
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, c.lastActive.Load())) < rule.idle {
			continue // traffic in the other direction
		}
		if err != nil {
			c.hideEnd(toServer)
			return
		}
	}
}

// forward writes a chunk to dst and applies the rule. It reports whether the connection
// stays open.
func (c *relayedConn) forward(dst net.Conn, chunk []byte, rule rule, applies, toServer bool) bool {
	due := false
	if applies && (rule.action != pass || rule.hook != nil) {
		var before int
		if before, due = c.count(len(chunk), rule); due {
			chunk = chunk[:before]
		}
	} else if !toServer {
		c.count(len(chunk), noAction)
	}
	if applies && rule.chunkDelay > 0 {
		timer := time.NewTimer(rule.chunkDelay)
		select {
		case <-timer.C:
		case <-c.closed:
		}
	}
	select {
	case <-c.blackholed:
		return true
	default:
	}
	if _, err := dst.Write(chunk); err != nil {
		return false
	}
	c.lastActive.Store(time.Now().UnixNano())
	return !due || c.apply(rule)
}

// hideEnd keeps the client's connection open after the server closed one behind a black hole.
func (c *relayedConn) hideEnd(toServer bool) {
	select {
	case <-c.blackholed:
		if !toServer {
			<-c.closed
		}
	default:
	}
}

// noAction is a rule for counting only.
var noAction = rule{connection: -1, after: -1}

// count adds n bytes. It reports whether the rule's action is due, and how many of the n
// bytes precede it.
func (c *relayedConn) count(n int, rule rule) (before int, due bool) {
	r := c.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.index >= len(r.passed) {
		return 0, false // a connection of an earlier rule
	}
	total := r.passed[c.index]
	if rule.connection < 0 {
		total = 0
		for _, passed := range r.passed {
			total += passed
		}
	}
	r.passed[c.index] += n
	if total < rule.after && total+n >= rule.after || rule.after == 0 && total == 0 {
		return max(rule.after-total, 0), true
	}
	return 0, false
}

// apply calls the hook and executes the action. It reports whether the connection stays open.
func (c *relayedConn) apply(rule rule) bool {
	if rule.hook != nil {
		rule.hook()
	}
	switch rule.action {
	case cut:
		c.close(false)
		return false
	case reset:
		c.close(true)
		return false
	case blackhole:
		c.blackhole()
	}
	return true
}

func (c *relayedConn) blackhole() { c.blackholeOnce.Do(func() { close(c.blackholed) }) }

func (c *relayedConn) close(withReset bool) {
	c.closeOnce.Do(func() {
		if tcp, ok := c.client.(*net.TCPConn); ok && withReset {
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
