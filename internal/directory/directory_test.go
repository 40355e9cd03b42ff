package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

func TestParseProtocol(t *testing.T) {
	for _, test := range []struct {
		name string
		want Protocol
	}{
		{"LDAP", LDAP}, {"ldap", LDAP}, {"ldaps", LDAPS}, {"StartTLS", StartTLS}, {"START_TLS", StartTLS}, {"start-tls", StartTLS}, {"Start TLS", StartTLS},
	} {
		if got, err := ParseProtocol(test.name); err != nil || got != test.want {
			t.Errorf("%s: %s, %v", test.name, got, err)
		}
	}
	for _, name := range []string{"", "TLS", "LDAPI", "LDAPSS"} {
		_, err := ParseProtocol(name)
		wantError(t, err, fault.Refused, strconv.Quote(name), "LDAP, LDAPS or STARTTLS")
	}
}

func TestParseScope(t *testing.T) {
	for _, test := range []struct {
		name string
		want Scope
	}{
		{"SUBTREE", Subtree}, {"subtree", Subtree}, {"ONE_LEVEL", OneLevel}, {"OneLevel", OneLevel}, {"one-level", OneLevel}, {"base", Base},
	} {
		if got, err := ParseScope(test.name); err != nil || got != test.want {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
	}
	_, err := ParseScope("children")
	wantError(t, err, fault.Refused, `"children"`, "SUBTREE, ONE_LEVEL or BASE")
}

func TestConnectReadsRootDSE(t *testing.T) {
	server := serve(t, nil, directoryOf(nil))
	session := connect(t, server.options())
	want := RootDSE{"DC=corp,DC=example,DC=com", "dc1.corp.example.com", "CN=NTDS Settings,CN=DC1", 4711, "", ""}
	if session.RootDSE != want || !session.RootDSE.IsDomainController() {
		t.Errorf("root DSE %+v", session.RootDSE)
	}
	if session.Address != net.JoinHostPort("127.0.0.1", strconv.Itoa(server.port)) || session.PageSize != 1000 {
		t.Errorf("address %s, page size %d", session.Address, session.PageSize)
	}
}

func TestConnectToNoDomainController(t *testing.T) {
	for _, test := range []struct {
		name    string
		entries [][]byte
	}{
		{"a rootDSE without the attributes", [][]byte{fakeEntry{"", [][]string{{"vendorName", "x"}}}.message(2)}},
		{"no rootDSE", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, nil, func(p *peer) {
				bind, _ := p.receive()
				p.send(result(bind.id, ldap.ApplicationBindResponse, 0, "", ""))
				search, _ := p.receive()
				p.send(append(test.entries, done(search.id, 0))...)
				p.hang()
			})
			if session := connect(t, server.options()); session.RootDSE != (RootDSE{}) || session.RootDSE.IsDomainController() {
				t.Errorf("root DSE %+v", session.RootDSE)
			}
		})
	}
}

// refuseBind is a script that answers every bind with the given result.
func refuseBind(code int, text string) func(p *peer) {
	return func(p *peer) {
		for {
			r, ok := p.receive()
			if !ok || !p.send(result(r.id, ldap.ApplicationBindResponse, code, "", text)) {
				return
			}
		}
	}
}

func TestRefusedBind(t *testing.T) {
	data := func(code string) string {
		return "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data " + code + ", v4563\x00"
	}
	for _, test := range []struct {
		name string
		code int
		text string
		want string
	}{
		{"no such account", 49, data("525"), "no such account: correct the bind DN"},
		{"wrong password", 49, data("52e"), "wrong password"},
		{"wrong password, capitals", 49, data("52E"), "wrong password"},
		{"hours", 49, data("530"), "logon hours"},
		{"workstation", 49, data("531"), "logon workstations"},
		{"password expired", 49, data("532"), "password has expired"},
		{"disabled", 49, data("533"), "disabled: enable it"},
		{"too many groups", 49, data("568"), "too many groups"},
		{"account expired", 49, data("701"), "account has expired"},
		{"must change", 49, data("773"), "must change its password"},
		{"locked", 49, data("775"), "locked: unlock it"},
		{"unknown data", 49, data("57f"), "with code 57f: check ldap.bindDn and ldap.password"},
		{"no data", 49, "", "wrong password, or no such account"},
		{"signing required", 8, "00002028: LdapErr: DSID-0C090259, comment: The server requires binds to turn on integrity checking\x00", "use LDAPS or STARTTLS"},
		{"confidentiality required", 13, "TLS confidentiality required", "use LDAPS or STARTTLS"},
		{"not a DN", 34, "invalid DN", "correct ldap.bindDn"},
		{"another code", 53, "unauthenticated bind (DN with no password) disallowed\x00", "unauthenticated bind"},
		{"a long-winded server", 53, strings.Repeat("x", 60_000), "(LDAP result 53): xxx"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, nil, refuseBind(test.code, test.text))
			o := server.options()
			o.Hosts = []string{server.host, server.host, server.host}
			_, err := Connect(t.Context(), o)
			wantError(t, err, fault.Refused, "bind as CN=reader,DC=corp to 127.0.0.1:", fmt.Sprintf("LDAP result %d", test.code), test.want)
			if len(err.Error()) > 1000 {
				t.Errorf("%d bytes of error", len(err.Error()))
			}
			if n := server.binds.Load(); n != 1 {
				t.Errorf("%d binds", n)
			}
		})
	}
}

func TestBindWithoutAccountIsNotTried(t *testing.T) {
	server := serve(t, nil, directoryOf(nil))
	for _, test := range []struct {
		name     string
		bindDN   string
		password secret.Text
	}{
		{"no DN", "", secret.New(testPassword)},
		{"no password", "CN=reader", secret.Text{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := server.options()
			o.BindDN, o.Password = test.bindDN, test.password
			_, err := Connect(t.Context(), o)
			wantError(t, err, fault.Refused, "ldap.bindDn and ldap.password")
		})
	}
	if server.binds.Load() != 0 {
		t.Error("bound")
	}
}

func TestMalformedBindAnswer(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer string
	}{
		{"a result without a code", "\x30\x05\x02\x01\x01\x61\x00"},
		{"a code of the wrong kind", "\x30\x0c\x02\x01\x01\x61\x07\x04\x01\x00\x04\x00\x04\x00"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"a TLS alert", "\x15\x03\x01\x00\x02\x02\x46"},
		{"an indefinite length", "\x30\x80\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\x00\x00"},
		{"no message ID", "\x30\x09\x61\x07\x0a\x01\x00\x04\x00\x04\x00"},
		{"a huge message ID", "\x30\x11\x02\x06\x01\x00\x00\x00\x00\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, nil, func(p *peer) {
				p.receive()
				p.send([]byte(test.answer))
				p.hang()
			})
			_, err := Connect(t.Context(), server.options())
			wantError(t, err, fault.Incomplete, "the server sent what is not LDAP", "ldap.protocol")
		})
	}
}

func TestFailover(t *testing.T) {
	for _, code := range []int{ldap.LDAPResultBusy, ldap.LDAPResultUnavailable} {
		busy := serve(t, nil, refuseBind(code, ""))
		_, err := Connect(t.Context(), busy.options())
		wantError(t, err, fault.Transient, fmt.Sprintf("LDAP result %d", code))
	}

	good := serve(t, nil, directoryOf(nil))
	lost := serve(t, nil, func(p *peer) { p.receive() })
	busy := serve(t, nil, refuseBind(ldap.LDAPResultBusy, ""))
	refusing := serve(t, nil, refuseBind(ldap.LDAPResultInvalidCredentials, ""))
	dead := deadPort(t)
	for _, test := range []struct {
		name  string
		ports []int
		class fault.Class // "": connects to the good one
		parts []string
	}{
		{"first dead", []int{dead, good.port}, "", nil},
		{"first loses the connection", []int{lost.port, good.port}, "", nil},
		{"first busy", []int{busy.port, good.port}, "", nil},
		{"first refuses", []int{refusing.port, good.port}, fault.Refused, []string{"wrong password"}},
		{"dead, then refusing", []int{dead, refusing.port, good.port}, fault.Refused, []string{"no directory server could be used", strconv.Itoa(dead), "wrong password"}},
		{"all dead", []int{dead, dead}, fault.Transient, []string{"no directory server could be used", "; connect to 127.0.0.1:" + strconv.Itoa(dead)}},
		{"one dead", []int{dead}, fault.Transient, []string{"connect to 127.0.0.1:" + strconv.Itoa(dead), "check ldap.host and ldap.port"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			binds := good.binds.Load()
			o := good.options()
			o.Hosts, o.Port = []string{"corp.test"}, 0
			o.lookupSRV = records(t, test.ports...)
			session, err := Connect(t.Context(), o)
			if test.class != "" {
				wantError(t, err, test.class, test.parts...)
				if good.binds.Load() != binds {
					t.Error("bound once more after a refusal")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			session.Close()
		})
	}

	t.Run("list of hosts", func(t *testing.T) {
		o := good.options()
		o.Hosts = []string{"127.0.0.2", good.host} // nothing listens on the first
		o.ConnectTimeout = time.Second
		if session := connect(t, o); session.Address != net.JoinHostPort(good.host, strconv.Itoa(good.port)) {
			t.Errorf("connected to %s", session.Address)
		}
	})
	t.Run("no host", func(t *testing.T) {
		o := good.options()
		o.Hosts = nil
		_, err := Connect(t.Context(), o)
		wantError(t, err, fault.Refused, "ldap.host")
	})
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		o := good.options()
		o.Hosts = []string{good.host, good.host}
		_, err := Connect(ctx, o)
		wantError(t, err, fault.Canceled, "context canceled")
	})
}

// TestAgain: a second session is one with the same domain controller, whoever else
// comes first in the domain by then, and whoever answers at its address.
func TestAgain(t *testing.T) {
	one, other := serve(t, nil, directoryOf(nil)), serve(t, nil, directoryOf(nil))
	ports := []int{one.port, other.port}
	o := one.options()
	o.Hosts, o.Port = []string{"corp.test"}, 0
	o.lookupSRV = func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
		return records(t, ports...)(ctx, service, proto, name)
	}
	session := connect(t, o)
	slices.Reverse(ports)
	again, err := session.Again(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Address != session.Address || other.binds.Load() != 0 {
		t.Errorf("%s, then %s", session.Address, again.Address)
	}

	var moved atomic.Bool
	server := serve(t, nil, func(p *peer) {
		for r, ok := p.receive(); ok; r, ok = p.receive() {
			if r.tag == opBind {
				p.send(result(r.id, ldap.ApplicationBindResponse, 0, "", ""))
				continue
			}
			root := rootDSE(r.id)
			if moved.Load() {
				root = bytes.ReplaceAll(root, []byte("CN=DC1"), []byte("CN=DC2"))
			}
			p.send(root, done(r.id, 0))
		}
	})
	session = connect(t, server.options())
	moved.Store(true)
	_, err = session.Again(t.Context())
	wantError(t, err, fault.Transient, "is another domain controller now")
}

// deadPort returns a port on which nobody listens.
func deadPort(t *testing.T) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

func TestUnknownHost(t *testing.T) {
	err := explainDial(t.Context(), "connect to dc9:389 (LDAP)", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "dc9", IsNotFound: true}})
	wantError(t, err, fault.Transient, "dc9", "no such host", "this machine's DNS")
}

// A cut conversation must never pass for a whole one, wherever it is cut.
func TestConnectionClosedAnywhere(t *testing.T) {
	pages := pagesOf(
		[]fakeEntry{{"CN=a", [][]string{{"cn", "a"}}}, {"CN=b", nil}},
		[]fakeEntry{{"CN=c", [][]string{{"cn", "c"}}}})
	sent := 0
	run := func(budget int) (delivered string, err error) {
		used := make(chan int, 1)
		server := serve(t, nil, func(p *peer) {
			p.budget = budget
			directoryOf(pages)(p)
			used <- budget - p.budget
		})
		defer func() { sent = <-used }()
		session, err := Connect(t.Context(), server.options())
		if err != nil {
			return "", err
		}
		defer session.Close()
		_, err = session.Search(t.Context(), people, collect(&delivered))
		return delivered, err
	}
	if delivered, err := run(1 << 20); err != nil || delivered != "CN=a CN=b CN=c " {
		t.Fatalf("%q, %v", delivered, err)
	}
	for budget := range sent {
		delivered, err := run(budget)
		if class := fault.Of(err); err == nil || class != fault.Transient {
			t.Errorf("cut after %d bytes: %s: %v", budget, class, err)
		}
		if !strings.HasPrefix("CN=a CN=b CN=c ", delivered) {
			t.Errorf("cut after %d bytes: delivered %q", budget, delivered)
		}
	}
}

// stalls are places where a server may fall silent: the number of bytes that it
// still sends is counted in whole messages of the conversation and then some.
func TestSilentServer(t *testing.T) {
	const timeout = 300 * time.Millisecond
	bound := len(result(1, ldap.ApplicationBindResponse, 0, "", ""))
	connected := bound + len(rootDSE(2)) + len(done(2, 0))
	first := fakeEntry{"CN=a", [][]string{{"cn", "a"}}}
	page := len(first.message(3)) + len(done(3, 0, ldap.NewControlString("1.2.3", false, ""), paging("page\x001")))
	pages := pagesOf([]fakeEntry{first}, []fakeEntry{{"CN=b", nil}})
	for _, test := range []struct {
		name   string
		budget int
		what   string
	}{
		{"before the bind", 0, "bind as"},
		{"within the bind's answer", 5, "bind as"},
		{"after the bind", bound, "read rootDSE"},
		{"within the rootDSE", bound + 20, "read rootDSE"},
		{"after connecting", connected, "search OU=People"},
		{"within an entry", connected + 10, "search OU=People"},
		{"after an entry", connected + len(first.message(3)), "search OU=People"},
		{"between pages", connected + page, "search OU=People"},
		{"within the second page", connected + page + 3, "search OU=People"},
	} {
		converse := func(t *testing.T, ctx context.Context, timeout time.Duration, broke func()) error {
			server := serve(t, nil, func(p *peer) {
				p.budget, p.broke = test.budget, broke
				directoryOf(pages)(p)
				p.hang()
			})
			o := server.options()
			o.ResponseTimeout = timeout
			session, err := Connect(ctx, o)
			if err != nil {
				return err
			}
			defer session.Close()
			var delivered string
			_, err = session.Search(ctx, people, collect(&delivered))
			return err
		}
		t.Run("timeout "+test.name, func(t *testing.T) {
			start := time.Now()
			err := converse(t, t.Context(), timeout, nil)
			wantError(t, err, fault.Transient, test.what, "the server was silent for 300ms")
			if took := time.Since(start); took < timeout || took > timeout+moment {
				t.Errorf("took %s", took)
			}
		})
		t.Run("cancellation "+test.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := within(t, ctx.Done(), func() error { return converse(t, ctx, 0, cancel) })
			wantError(t, err, fault.Canceled, test.what)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("not a cancellation: %v", err)
			}
		})
	}
}

func TestNoticeOfDisconnection(t *testing.T) {
	notice := []byte("\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x34\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036")
	server := serve(t, nil, directoryOf(func(p *peer, r request) bool {
		p.send(notice)
		p.hang() // a server should close now
		return false
	}))
	o := server.options()
	o.ResponseTimeout = 10 * time.Second // would be the error, if the notice were overlooked
	_, err := connect(t, o).Search(t.Context(), people, collect(new(string)))
	wantError(t, err, fault.Transient, "notice that it ends the session (LDAP result 52)")
}
