package directory

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// patience bounds what should happen at once.
const patience = 10 * time.Second

// moment is how long something may take that is done at once, on a busy machine.
const moment = 5 * time.Second

const testPassword = "correct horse battery"

// fakeServer serves every connection with a script, on a real socket.
type fakeServer struct {
	host  string
	port  int
	binds atomic.Int32
}

// serve starts a server, with TLS from the first byte where a config is given. It
// ends with the test, which fails when anything is left behind.
func serve(t testing.TB, config *tls.Config, script func(p *peer)) *fakeServer {
	t.Helper()
	noLeaks(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr)
	s := &fakeServer{host: address.IP.String(), port: address.Port}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(t.Context(), func() { conn.Close() })
				defer stop()
				p := &peer{Conn: conn, server: s, budget: -1}
				if config != nil {
					p.Conn = tls.Server(conn, config)
				}
				p.in = bufio.NewReader(p.Conn)
				script(p)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return s
}

// noLeaks fails the test if it leaves goroutines behind.
func noLeaks(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		if !eventually(func() bool { return runtime.NumGoroutine() <= before }) {
			stacks := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	})
}

// eventually polls until the condition holds.
func eventually(condition func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !condition() {
		select {
		case <-tick.C:
		case <-late:
			return false
		}
	}
	return true
}

// peer is one connection as the server sees it.
type peer struct {
	net.Conn
	in     *bufio.Reader
	server *fakeServer
	budget int    // so many bytes may still be sent; -1: any number
	broke  func() // called when the budget is used up, instead of closing
}

// request is one message of the client.
type request struct {
	id         int64
	tag        ber.Tag
	base       string
	attributes []string
	cookie     []byte
	paged      bool
	pageSize   int64
}

const (
	opBind   ber.Tag = ldap.ApplicationBindRequest
	opSearch ber.Tag = ldap.ApplicationSearchRequest
)

// receive reads the next request; ok is false when the client is gone.
func (p *peer) receive() (r request, ok bool) {
	packet, err := ber.ReadPacket(p.in)
	if err != nil || len(packet.Children) < 2 {
		return r, false
	}
	r.id = packet.Children[0].Value.(int64)
	operation := packet.Children[1]
	r.tag = operation.Tag
	if r.tag == opBind {
		p.server.binds.Add(1)
	}
	if r.tag != opSearch {
		return r, true
	}
	r.base = operation.Children[0].Value.(string)
	for _, a := range operation.Children[7].Children {
		r.attributes = append(r.attributes, a.Value.(string))
	}
	if len(packet.Children) > 2 {
		for _, c := range packet.Children[2].Children {
			control, err := ldap.DecodeControl(c)
			if paging, is := control.(*ldap.ControlPaging); err == nil && is {
				r.paged, r.cookie, r.pageSize = true, paging.Cookie, int64(paging.PagingSize)
			}
		}
	}
	return r, true
}

// send writes messages, as far as the budget allows; ok is false when no more can be sent.
func (p *peer) send(messages ...[]byte) (ok bool) {
	all := bytes.Join(messages, nil)
	if p.budget >= 0 && len(all) > p.budget {
		_, _ = p.Write(all[:p.budget])
		p.budget = 0
		if p.broke != nil {
			p.broke()
		}
		return false
	}
	if p.budget >= 0 {
		p.budget -= len(all)
	}
	_, err := p.Write(all)
	return err == nil
}

// hang waits for the end of the test or of the connection, silently.
func (p *peer) hang() {
	_, _ = p.in.WriteTo(discard{})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// directoryOf is a script that takes every bind, has a rootDSE, and leaves other
// searches to the given function.
func directoryOf(search func(p *peer, r request) (ok bool)) func(p *peer) {
	return func(p *peer) {
		for {
			r, ok := p.receive()
			if !ok {
				return
			}
			switch {
			case r.tag == opBind:
				ok = p.send(result(r.id, ldap.ApplicationBindResponse, 0, "", ""))
			case r.tag == opSearch && r.base == "":
				ok = p.send(rootDSE(r.id), done(r.id, 0))
			case r.tag == opSearch && search != nil:
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

// pagesOf answers searches page by page, with cookies that only it knows.
func pagesOf(pages ...[]fakeEntry) func(p *peer, r request) bool {
	return func(p *peer, r request) bool {
		n := 0
		if len(r.cookie) > 0 {
			var err error
			if n, err = strconv.Atoi(strings.TrimPrefix(string(r.cookie), "page\x00")); err != nil {
				return p.send(done(r.id, ldap.LDAPResultUnwillingToPerform))
			}
		}
		cookie := ""
		if n+1 < len(pages) {
			cookie = "page\x00" + strconv.Itoa(n+1)
		}
		for _, e := range pages[n] {
			if !p.send(e.message(r.id)) {
				return false
			}
		}
		return p.send(done(r.id, 0, ldap.NewControlString("1.2.3", false, ""), paging(cookie)))
	}
}

// message wraps an operation.
func message(id int64, operation *ber.Packet, controls ...ldap.Control) []byte {
	m := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	m.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	m.AppendChild(operation)
	if len(controls) > 0 {
		list := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		for _, c := range controls {
			list.AppendChild(c.Encode())
		}
		m.AppendChild(list)
	}
	return m.Bytes()
}

func result(id int64, tag ber.Tag, code int, matched, text string, controls ...ldap.Control) []byte {
	r := ber.Encode(ber.ClassApplication, ber.TypeConstructed, tag, nil, "")
	r.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(code), ""))
	r.AppendChild(octets(matched))
	r.AppendChild(octets(text))
	return message(id, r, controls...)
}

func done(id int64, code int, controls ...ldap.Control) []byte {
	return result(id, ldap.ApplicationSearchResultDone, code, "", "", controls...)
}

func paging(cookie string) ldap.Control {
	c := ldap.NewControlPaging(0)
	c.SetCookie([]byte(cookie))
	return c
}

func octets(value string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, value, "")
}

// fakeEntry is an entry with its attributes in order: name, then values.
type fakeEntry struct {
	dn         string
	attributes [][]string
}

func (e fakeEntry) message(id int64) []byte {
	list := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	for _, a := range e.attributes {
		attribute := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
		attribute.AppendChild(octets(a[0]))
		set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range a[1:] {
			set.AppendChild(octets(v))
		}
		attribute.AppendChild(set)
		list.AppendChild(attribute)
	}
	operation := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldap.ApplicationSearchResultEntry, nil, "")
	operation.AppendChild(octets(e.dn))
	operation.AppendChild(list)
	return message(id, operation)
}

func rootDSE(id int64) []byte {
	return fakeEntry{"", [][]string{
		{"dnsHostName", "dc1.corp.example.com"},
		{"HIGHESTCOMMITTEDUSN", "4711"},
		{"defaultNamingContext", "DC=corp,DC=example,DC=com"},
		{"dsServiceName", "CN=NTDS Settings,CN=DC1"},
	}}.message(id)
}

// options reach the server as a plain account.
func (s *fakeServer) options() Options {
	return Options{Hosts: []string{s.host}, Port: s.port, BindDN: "CN=reader,DC=corp", Password: secret.New(testPassword),
		chunkSize: 1} // so that an entry is handed over before the next one is read
}

// connect makes a session that ends with the test.
func connect(t testing.TB, o Options) *Session {
	t.Helper()
	session, err := Connect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

// wantError checks an error's class and that its text names everything wanted,
// and no secret.
func wantError(t testing.TB, err error, class fault.Class, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if got := fault.Of(err); got != class {
		t.Errorf("%s, want %s: %v", got, class, err)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in: %v", part, err)
		}
	}
	if strings.Contains(err.Error(), testPassword) {
		t.Errorf("the password is in: %v", err)
	}
	if strings.ContainsRune(err.Error(), 0) {
		t.Errorf("a zero byte is in: %q", err)
	}
}

// within fails the test unless f returns soon after start is closed.
func within(t testing.TB, start <-chan struct{}, f func() error) error {
	t.Helper()
	returned := make(chan error, 1)
	go func() { returned <- f() }()
	select {
	case err := <-returned:
		select {
		case <-start:
		default:
			t.Error("returned too early")
		}
		return err
	case <-start:
	case <-time.After(patience):
		t.Error("never got there")
	}
	select {
	case err := <-returned:
		return err
	case <-time.After(moment):
		t.Errorf("did not return within %s", moment)
		return errors.New("late")
	}
}
