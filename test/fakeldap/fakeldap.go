// Package fakeldap is an LDAP server for tests. It runs in the test's process.
//
// Serve and Pipe run a script for each connection: a function that receives
// requests and sends any bytes, or none. Start is such a server with one script: a
// domain controller with canned users and groups. The package is no model of a
// domain controller beyond that.
package fakeldap

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// Listener accepts connections until the test ends.
type Listener struct {
	Host string
	Port int

	config *tls.Config
	script func(p *Peer)
	binds  atomic.Int32

	mu      sync.Mutex
	conns   map[net.Conn]struct{} // nil: closed
	running sync.WaitGroup
}

// Serve starts a server on a loopback socket. With a config, it expects TLS from the
// first byte. The script is called for each connection, in a goroutine of its own;
// the connection is closed when the script returns or the test ends.
func Serve(t testing.TB, config *tls.Config, script func(p *Peer)) *Listener {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := socket.Addr().(*net.TCPAddr)
	l := newListener(address.IP.String(), address.Port, config, script)
	l.running.Go(func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			l.start(conn)
		}
	})
	t.Cleanup(func() {
		socket.Close()
		l.close()
	})
	return l
}

// Pipe is Serve without a socket: clients connect with Dial. It is for tests in a
// testing/synctest bubble.
func Pipe(t testing.TB, config *tls.Config, script func(p *Peer)) *Listener {
	l := newListener("127.0.0.1", 389, config, script)
	t.Cleanup(l.close)
	return l
}

func newListener(host string, port int, config *tls.Config, script func(p *Peer)) *Listener {
	return &Listener{Host: host, Port: port, config: config, script: script, conns: map[net.Conn]struct{}{}}
}

// Dial connects to the server in memory. The connection has no buffer: a write
// returns when the other side has read it.
func (l *Listener) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	if !l.start(server) {
		return nil, net.ErrClosed
	}
	return client, nil
}

// Binds returns the number of bind requests received, including refused ones.
func (l *Listener) Binds() int { return int(l.binds.Load()) }

func (l *Listener) start(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		conn.Close()
		return false
	}
	l.conns[conn] = struct{}{}
	l.running.Go(func() {
		defer l.end(conn)
		p := &Peer{Budget: -1, listener: l, conn: conn}
		if l.config != nil {
			p.conn = tls.Server(conn, l.config)
		}
		p.in = bufio.NewReader(p.conn)
		l.script(p)
	})
	return true
}

func (l *Listener) end(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	conn.Close()
	delete(l.conns, conn)
}

func (l *Listener) close() {
	l.mu.Lock()
	for conn := range l.conns {
		conn.Close()
	}
	l.conns = nil
	l.mu.Unlock()
	l.running.Wait()
}

// Peer is one connection as the server sees it.
type Peer struct {
	Budget int    // number of bytes that may still be sent; -1: no limit
	Broke  func() // called when Budget is used up

	listener *Listener
	conn     net.Conn
	in       *bufio.Reader
}

// Request is one message of the client. Only the fields of its operation are set.
type Request struct {
	ID        int64
	Operation ber.Tag

	BindDN, Password string // Bind

	Base       string // Search
	Scope      int64
	Filter     string
	Attributes []string
	Paged      bool // has a paged results control
	PageSize   int64
	Cookie     []byte
}

// Operations of a Request.
const (
	Bind     ber.Tag = ldap.ApplicationBindRequest
	Search   ber.Tag = ldap.ApplicationSearchRequest
	Extended ber.Tag = ldap.ApplicationExtendedRequest
)

var errRequest = errors.New("not an LDAP request")

// Receive reads the next request. It returns false when the client is gone or has
// sent something else than LDAP.
func (p *Peer) Receive() (Request, bool) {
	packet, err := ber.ReadPacket(p.in)
	if err != nil {
		return Request{}, false
	}
	r, err := parse(packet)
	if r.Operation == Bind && err == nil {
		p.listener.binds.Add(1)
	}
	return r, err == nil
}

func parse(packet *ber.Packet) (r Request, err error) {
	if len(packet.Children) < 2 {
		return r, errRequest
	}
	id, ok := packet.Children[0].Value.(int64)
	if !ok {
		return r, errRequest
	}
	operation := packet.Children[1]
	fields := operation.Children
	r.ID, r.Operation = id, operation.Tag
	switch r.Operation {
	case Bind:
		if len(fields) < 3 {
			return r, errRequest
		}
		r.BindDN, r.Password = fields[1].Data.String(), fields[2].Data.String()
	case Search:
		if len(fields) < 8 {
			return r, errRequest
		}
		r.Base = fields[0].Data.String()
		r.Scope, _ = fields[1].Value.(int64)
		if r.Filter, err = ldap.DecompileFilter(fields[6]); err != nil {
			return r, err
		}
		for _, name := range fields[7].Children {
			r.Attributes = append(r.Attributes, name.Data.String())
		}
		if len(packet.Children) > 2 {
			for _, c := range packet.Children[2].Children {
				control, err := ldap.DecodeControl(c)
				if paging, is := control.(*ldap.ControlPaging); err == nil && is {
					r.Paged, r.Cookie, r.PageSize = true, paging.Cookie, int64(paging.PagingSize)
				}
			}
		}
	}
	return r, nil
}

// Send writes messages, or any other bytes, up to the budget. It returns false when
// no more can be sent.
func (p *Peer) Send(messages ...[]byte) bool {
	all := bytes.Join(messages, nil)
	if p.Budget >= 0 && len(all) > p.Budget {
		_, _ = p.conn.Write(all[:p.Budget])
		p.Budget = 0
		if p.Broke != nil {
			p.Broke()
		}
		return false
	}
	if p.Budget >= 0 {
		p.Budget -= len(all)
	}
	_, err := p.conn.Write(all)
	return err == nil
}

// Hang reads without answering, until the client closes the connection or the test
// ends.
func (p *Peer) Hang() { _, _ = io.Copy(io.Discard, p.in) }

// StartTLS continues the connection under TLS.
func (p *Peer) StartTLS(config *tls.Config) {
	p.conn = tls.Server(p.conn, config)
	p.in.Reset(p.conn)
}

// Directory is a script that accepts every bind and has a rootDSE. It gives other
// searches to the function, which returns false to close the connection.
func Directory(search func(p *Peer, r Request) bool) func(p *Peer) {
	return func(p *Peer) {
		for {
			r, ok := p.Receive()
			if !ok {
				return
			}
			switch {
			case r.Operation == Bind:
				ok = p.Send(Result(r.ID, ldap.ApplicationBindResponse, 0, "", ""))
			case r.Operation == Search && r.Base == "":
				ok = p.Send(RootDSE(r.ID), Done(r.ID, 0))
			case r.Operation == Search && search != nil:
				ok = search(p, r)
			default:
				ok = false
			}
			if !ok {
				return
			}
		}
	}
}

// RefuseBind is a script that answers every request with the given result of a bind.
func RefuseBind(code int, text string) func(p *Peer) {
	return func(p *Peer) {
		for {
			r, ok := p.Receive()
			if !ok || !p.Send(Result(r.ID, ldap.ApplicationBindResponse, code, "", text)) {
				return
			}
		}
	}
}

// StartTLS is a script that accepts StartTLS and runs another one under TLS.
func StartTLS(config *tls.Config, then func(p *Peer)) func(p *Peer) {
	return func(p *Peer) {
		r, ok := p.Receive()
		if !ok || r.Operation != Extended {
			return
		}
		p.Send(Result(r.ID, ldap.ApplicationExtendedResponse, 0, "", ""))
		p.StartTLS(config)
		then(p)
	}
}
