package webserver

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxConnections is the number of connections of a server. It leaves most of a limit of 200
// file descriptors to the rest of the process.
const maxConnections = 64

// The minimum time that a connection is kept when others need its place: enough to send a
// request, and to respond to it. Clients that send requests all the time have no connection
// of that age, so maxAcceptWait bounds how long a new connection waits.
const (
	minWaiting    = 20 * time.Millisecond // for a request
	minActive     = 50 * time.Millisecond // with a request
	maxAcceptWait = 100 * time.Millisecond
)

// limiter limits the connections of a server. It does not refuse new connections and does
// not let them wait, as a limit in Accept does: idle connections would then keep probes
// out. Instead it closes the connection that waits longest for a request, or else the one
// with the oldest request. If both are too new for maxAcceptWait, it closes the connection
// that was accepted first.
type limiter struct {
	net.Listener

	limit   int
	changed chan struct{} // receives a value after a connection was closed or became idle

	mu          sync.Mutex
	connections map[net.Conn]connection
}

// connection is the state of an open connection.
type connection struct {
	accepted time.Time
	active   bool      // it has a request
	since    time.Time // when active changed
}

func newLimiter(listener net.Listener, limit int) *limiter {
	return &limiter{Listener: listener, limit: limit, changed: make(chan struct{}, 1), connections: map[net.Conn]connection{}}
}

// Accept accepts a connection, and closes another one if there are too many.
func (l *limiter) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for {
		victim, wait := l.victim(time.Now(), start)
		if victim == nil && wait == 0 {
			return accepted, nil
		}
		if victim != nil {
			_ = victim.Close() // the server gets the error of its read or write
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-l.changed:
		}
		timer.Stop()
	}
}

// victim removes and returns the connection to close for one that waits since start. It
// returns nil if there is none; wait is then the time until there can be one, or 0 if the
// limit is not reached.
func (l *limiter) victim(now, start time.Time) (victim net.Conn, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.connections) < l.limit {
		return nil, 0
	}
	var first, idlest net.Conn
	var firstState, idlestState connection
	for conn, c := range l.connections {
		if first == nil || c.accepted.Before(firstState.accepted) {
			first, firstState = conn, c
		}
		if idlest == nil || !c.active && idlestState.active || c.active == idlestState.active && c.since.Before(idlestState.since) {
			idlest, idlestState = conn, c
		}
	}
	minimum := minWaiting
	if idlestState.active {
		minimum = minActive
	}
	if wait := minimum - now.Sub(idlestState.since); wait <= 0 {
		victim = idlest
	} else if remaining := maxAcceptWait - now.Sub(start); remaining <= 0 {
		victim = first
	} else {
		return nil, min(wait, remaining)
	}
	delete(l.connections, victim)
	return victim, 0
}

// track records the state of a connection. It has the signature of [http.Server.ConnState].
func (l *limiter) track(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	c, known := l.connections[conn]
	switch state {
	case http.StateNew:
		l.connections[conn] = connection{accepted: now, since: now}
		return
	case http.StateActive, http.StateIdle:
		if !known { // being closed
			return
		}
		l.connections[conn] = connection{accepted: c.accepted, active: state == http.StateActive, since: now}
	default:
		delete(l.connections, conn)
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// Serve serves a handler until ctx ends, and then drops active connections. A client that does
// not send its request or read the response in a few seconds is disconnected.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	limited := newLimiter(listener, maxConnections)
	server := &http.Server{
		Handler: handler, ConnState: limited.track, MaxHeaderBytes: 8 << 10,
		ReadHeaderTimeout: 3 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 15 * time.Second,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(limited); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
