// Package fakeldap is an LDAP server for tests. It runs in the test's process.
//
// Serve and Pipe start a server that calls a script for each connection. A script receives
// requests and sends any bytes. Start starts a domain controller with generated users and
// groups. For a realistic domain controller, see the sandbox.
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

// Serve starts a server on a loopback socket. With a config, it uses TLS from the first byte.
// The script is called in a new goroutine for each connection. The connection is closed when
// the script returns or the test ends.
func Serve(t testing.TB, config *tls.Config, script func(p *Peer)) *Listener {
	t.Helper()
	return serve(t, "127.0.0.1:0", config, script)
}

// ServeAt is Serve for a host and port of loopback, without TLS.
func ServeAt(t testing.TB, address string, script func(p *Peer)) *Listener {
	t.Helper()
	return serve(t, address, nil, script)
}

func serve(t testing.TB, address string, config *tls.Config, script func(p *Peer)) *Listener {
	t.Helper()
	socket, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	bound := socket.Addr().(*net.TCPAddr)
	l := newListener(bound.IP.String(), bound.Port, config, script)
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

// Pipe starts a server without a socket, for tests in a testing/synctest bubble. Clients connect
// with Dial.
func Pipe(t testing.TB, config *tls.Config, script func(p *Peer)) *Listener {
	l := newListener("127.0.0.1", 389, config, script)
	t.Cleanup(l.close)
	return l
}

func newListener(host string, port int, config *tls.Config, script func(p *Peer)) *Listener {
	return &Listener{Host: host, Port: port, config: config, script: script, conns: map[net.Conn]struct{}{}}
}

// Dial connects to the server in memory. The connection has no buffer: a write returns after
// the other side has read it.
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
		p := &Peer{SendLimit: -1, listener: l, conn: conn}
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

// Peer is the server's side of one connection.
type Peer struct {
	SendLimit   int    // number of bytes that Send can still send; -1: no limit
	OnSendLimit func() // called when SendLimit is reached; may be nil

	listener *Listener
	conn     net.Conn
	in       *bufio.Reader
}

// Request is one request. Only the fields of its operation are set.
type Request struct {
	ID        int64
	Operation ber.Tag

	BindDN, Password string // Bind

	Base       string // Search
	Scope      int64
	Filter     string
	Attributes []string
	SizeLimit  int64
	Paged      bool // has a paged results control, which sets PageSize and Cookie
	PageSize   int64
	Cookie     []byte
	Controls   []string // OIDs of all controls
}

// Operations of a Request.
const (
	Bind     ber.Tag = ldap.ApplicationBindRequest
	Search   ber.Tag = ldap.ApplicationSearchRequest
	Extended ber.Tag = ldap.ApplicationExtendedRequest
)

var errRequest = errors.New("not an LDAP request")

// Receive reads the next request. It returns false if the connection was closed or the request
// is malformed.
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
		r.SizeLimit, _ = fields[3].Value.(int64)
		if r.Filter, err = ldap.DecompileFilter(fields[6]); err != nil {
			return r, err
		}
		for _, name := range fields[7].Children {
			r.Attributes = append(r.Attributes, name.Data.String())
		}
		if len(packet.Children) > 2 {
			for _, c := range packet.Children[2].Children {
				if len(c.Children) > 0 {
					r.Controls = append(r.Controls, c.Children[0].Data.String())
				}
				control, err := ldap.DecodeControl(c)
				if paging, ok := control.(*ldap.ControlPaging); err == nil && ok {
					r.Paged, r.Cookie, r.PageSize = true, paging.Cookie, int64(paging.PagingSize)
				}
			}
		}
	}
	return r, nil
}

// NextIsBind reports whether the next request is a bind, without receiving it.
func (p *Peer) NextIsBind() bool {
	const bindTagOffset = 5 // after a short message header
	head, err := p.in.Peek(bindTagOffset + 1)
	return err == nil && head[bindTagOffset] == 0x60
}

// Send sends messages, or any other bytes, up to SendLimit. It returns false if not all bytes
// were sent.
func (p *Peer) Send(messages ...[]byte) bool {
	all := bytes.Join(messages, nil)
	if p.SendLimit >= 0 && len(all) > p.SendLimit {
		if p.SendLimit > 0 {
			_, _ = p.conn.Write(all[:p.SendLimit])
			p.SendLimit = 0
		}
		if p.OnSendLimit != nil {
			p.OnSendLimit()
		}
		return false
	}
	if p.SendLimit >= 0 {
		p.SendLimit -= len(all)
	}
	_, err := p.conn.Write(all)
	return err == nil
}

// Write writes bytes without a copy and without regard to Budget. It returns false when no
// more can be sent.
func (p *Peer) Write(b []byte) bool {
	_, err := p.conn.Write(b)
	return err == nil
}

// Hang reads without responding until the client closes the connection or the test ends.
func (p *Peer) Hang() { _, _ = io.Copy(io.Discard, p.in) }

// StartTLS continues the connection over TLS.
func (p *Peer) StartTLS(config *tls.Config) {
	p.conn = tls.Server(p.conn, config)
	p.in.Reset(p.conn)
}

// Directory returns a script that accepts every bind and returns a rootDSE, without a readable
// invocation ID. It calls search for other searches; the function returns false to close the
// connection.
func Directory(search func(p *Peer, r Request) bool) func(p *Peer) {
	return DC1.Script(search)
}

// Controller is what a domain controller returns about itself.
type Controller struct {
	DNSHostName, ServiceName string
	InvocationID             string     // 16 bytes; "": not readable
	RootDSE                  [][]string // further attributes, each one a name followed by its values
	DenyAnonymous            bool       // refuse searches before the bind
}

// DC1 is the controller of Directory.
var DC1 = Controller{DNSHostName: "dc1.corp.example.com", ServiceName: "CN=NTDS Settings,CN=DC1"}

// Script returns a script like Directory for this controller.
func (c Controller) Script(search func(p *Peer, r Request) bool) func(p *Peer) {
	return func(p *Peer) {
		bound := false
		for {
			r, ok := p.Receive()
			if !ok {
				return
			}
			switch {
			case r.Operation == Bind:
				bound = true
				ok = p.Send(Result(r.ID, ldap.ApplicationBindResponse, 0, "", ""))
			case r.Operation == Search && c.DenyAnonymous && !bound:
				ok = p.Send(Done(r.ID, ldap.LDAPResultOperationsError))
			case r.Operation == Search && r.Base == "":
				ok = p.Send(c.EncodeRootDSE(r.ID), Done(r.ID, 0))
			case r.ReadsInvocationID():
				ok = p.Send(c.settings(r.ID), Done(r.ID, 0))
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

// ReadsInvocationID reports whether the request reads an invocation ID.
func (r Request) ReadsInvocationID() bool {
	return r.Operation == Search && r.Scope == ldap.ScopeBaseObject && len(r.Attributes) == 1 && r.Attributes[0] == "invocationId"
}

// RefuseBind returns a script that responds to every bind with this result, and to every search
// with the rootDSE.
func RefuseBind(code int, text string) func(p *Peer) {
	return func(p *Peer) {
		for r, ok := p.Receive(); ok; r, ok = p.Receive() {
			if r.Operation == Search {
				p.Send(RootDSE(r.ID), Done(r.ID, 0))
			} else {
				p.Send(Result(r.ID, ldap.ApplicationBindResponse, code, "", text))
			}
		}
	}
}

// StartTLS returns a script that accepts StartTLS and runs script over TLS.
func StartTLS(config *tls.Config, script func(p *Peer)) func(p *Peer) {
	return func(p *Peer) {
		r, ok := p.Receive()
		if !ok || r.Operation != Extended {
			return
		}
		p.Send(Result(r.ID, ldap.ApplicationExtendedResponse, 0, "", ""))
		p.StartTLS(config)
		script(p)
	}
}
