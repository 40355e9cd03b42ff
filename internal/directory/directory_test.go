package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/input"
	"adconnector/internal/secret"
	"adconnector/test/fakeldap"
	"adconnector/test/faulttest"
	"adconnector/test/ports"
)

func TestProtocols(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		want Protocol
	}{
		{"LDAP", LDAP}, {"ldap", LDAP}, {"ldaps", LDAPS}, {"StartTLS", StartTLS}, {"START_TLS", StartTLS}, {"start-tls", StartTLS}, {"Start TLS", StartTLS},
		{"LDAP over SSL", LDAPS}, {"LDAP with StartTLS", StartTLS}, {"ldaps\r\n", LDAPS},
	} {
		if got, err := input.Choose(Protocols, test.name); err != nil || got != test.want {
			t.Errorf("%s: %s, %v", test.name, got, err)
		}
	}
	for _, name := range []string{"", "TLS", "LDAPI", "LDAPSS"} {
		_, err := input.Choose(Protocols, name)
		if refused, is := errors.AsType[*input.ValueError](err); !is || refused.Allowed != "LDAP, LDAPS, STARTTLS" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestScopes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		want Scope
	}{
		{"SUBTREE", Subtree}, {"subtree", Subtree}, {"ONE_LEVEL", OneLevel}, {"OneLevel", OneLevel}, {"one-level", OneLevel}, {"base", Base},
		{"sub", Subtree}, {"Whole Subtree", Subtree}, {"SUBTREE_SCOPE", Subtree}, {"single level", OneLevel}, {"one", OneLevel}, {"Base Object", Base},
	} {
		if got, err := input.Choose(Scopes, test.name); err != nil || got != test.want {
			t.Errorf("%s: %d, %v", test.name, got, err)
		}
	}
	_, err := input.Choose(Scopes, "children")
	if refused, is := errors.AsType[*input.ValueError](err); !is || refused.Allowed != "SUBTREE, ONE_LEVEL, BASE" {
		t.Errorf("children: %v", err)
	}
}

func TestConnectReadsRootDSE(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	session := connect(t, options(server))
	want := RootDSE{DefaultNamingContext: "DC=corp,DC=example,DC=com", DNSHostName: "dc1.corp.example.com", DSServiceName: "CN=NTDS Settings,CN=DC1", HighestCommittedUSN: 4711}
	if session.RootDSE != want || !session.RootDSE.IsDomainController() {
		t.Errorf("root DSE %+v", session.RootDSE)
	}
	if session.Address != net.JoinHostPort("127.0.0.1", strconv.Itoa(server.Port)) || session.PageSize != 1000 {
		t.Errorf("address %s, page size %d", session.Address, session.PageSize)
	}
}

// TestLongNamesInRootDSE tests that names count as missing that no server has: they would be in the record
// of each run.
func TestLongNamesInRootDSE(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxName+1)
	c := fakeldap.Controller{DNSHostName: long, ServiceName: "CN=NTDS Settings," + long, RootDSE: [][]string{{"configurationNamingContext", long}, {"rootDomainNamingContext", long}, {"forestFunctionality", long}}}
	session := connect(t, options(fakeldap.Serve(t, nil, c.Script(nil))))
	want := RootDSE{DefaultNamingContext: "DC=corp,DC=example,DC=com", HighestCommittedUSN: 4711}
	if session.RootDSE != want || session.Controller.DNSHostName != "" || session.Controller.ServiceName != "" {
		t.Errorf("root DSE %+v", session.RootDSE)
	}
}

// TestLongDN tests that a search with a DN that no object has fails. Callers keep DNs.
func TestLongDN(t *testing.T) {
	t.Parallel()
	for size, class := range map[int]fault.Class{maxDN: fault.Done, maxDN + 1: fault.Incomplete} {
		dn := "CN=" + strings.Repeat("x", size-len("CN="))
		session := connect(t, options(fakeldap.Serve(t, nil, fakeldap.Directory(fakeldap.Pages([]fakeldap.RawEntry{fakeldap.NewEntry(dn)})))))
		_, err := session.Search(t.Context(), Search{Base: "DC=corp", Scope: Subtree, Filter: "(objectClass=*)"}, func(*ad.Entry) error { return nil })
		if fault.ClassOf(err) != class || errors.Is(err, errLongDN) != (err != nil) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestConnectToNoDomainController(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		entries [][]byte
	}{
		{"a rootDSE without the attributes", [][]byte{fakeldap.NewEntry("", []string{"vendorName", "x"}).Message(2)}},
		{"no rootDSE", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
				bind, _ := p.Receive()
				p.Send(fakeldap.Result(bind.ID, ldap.ApplicationBindResponse, 0, "", ""))
				search, _ := p.Receive()
				p.Send(append(test.entries, fakeldap.Done(search.ID, 0))...)
				p.Hang()
			})
			if session := connect(t, options(server)); session.RootDSE != (RootDSE{}) || session.RootDSE.IsDomainController() {
				t.Errorf("root DSE %+v", session.RootDSE)
			}
		})
	}
}

func TestRefusedBind(t *testing.T) {
	t.Parallel()
	data := func(code string) string {
		return "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data " + code + ", v4563\x00"
	}
	for _, test := range []struct {
		name string
		code int
		text string
		// The expected reason, or its key in bindReasons. "": not checked.
		reason string
		remedy []string // parts of the remedy
	}{
		{"no such account", 49, data("525"), "525", []string{"ldap.bindDn"}},
		{"wrong password", 49, data("52e"), "52e", []string{"ldap.bindDn", "ldap.password"}},
		{"wrong password, capitals", 49, data("52E"), "52e", []string{"ldap.bindDn", "ldap.password"}},
		{"account restriction", 49, data("52f"), "52f", []string{"Protected Users", "authentication policies"}},
		{"network logon denied", 49, data("569"), "569", []string{"user rights assignment"}},
		{"selective authentication", 49, data("78f"), "78f", []string{"account of the domain"}},
		{"logon hours", 49, data("530"), "530", []string{"logon hours"}},
		{"workstation", 49, data("531"), "531", []string{"logon workstations"}},
		{"password expired", 49, data("532"), "532", []string{"ldap.password"}},
		{"disabled", 49, data("533"), "533", []string{"enable"}},
		{"too many groups", 49, data("568"), "568", []string{"groups"}},
		{"account expired", 49, data("701"), "701", []string{"expiry date"}},
		{"must change", 49, data("773"), "773", []string{"ldap.password"}},
		{"locked", 49, data("775"), "775", []string{"unlock"}},
		{"unknown data code", 49, data("57f"), "code 57f", []string{"ldap.bindDn", "ldap.password"}},
		{"no data code", 49, "", "52e", []string{"ldap.bindDn", "ldap.password"}},
		{"signing required", 8, "00002028: LdapErr: DSID-0C090259, comment: The server requires binds to turn on integrity checking\x00", "", []string{"LDAPS", "STARTTLS", "ldap.protocol"}},
		{"confidentiality required", 13, "TLS confidentiality required", "", []string{"LDAPS", "STARTTLS", "ldap.protocol"}},
		{"invalid bind DN", 34, "invalid DN", "", []string{"ldap.bindDn"}},
		{"long data code", 49, data(strings.Repeat("5", 60_000)), "52e", []string{"ldap.bindDn"}},
		{"text with the password", 53, "no " + testPassword + " here", "no [redacted] here", []string{"ldap.bindDn"}},
		{"other result code", 53, "unauthenticated bind (DN with no password) disallowed\x00", "unauthenticated bind (DN with no password) disallowed", []string{"ldap.bindDn", "ldap.password"}},
		{"long text", 53, strings.Repeat("x", 60_000), strings.Repeat("x", 300) + "…", []string{"ldap.bindDn"}},
		{"no text", 53, "", "", []string{"ldap.bindDn"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := fakeldap.Serve(t, nil, fakeldap.RefuseBind(test.code, test.text))
			o := options(server)
			o.Hosts = []string{server.Host, server.Host, server.Host}
			_, err := Connect(t.Context(), o)
			wantFailure(t, err, bindFault(server, fault.Refused), ErrBindRefused, test.remedy...)
			if r, known := bindReasons[test.reason]; known {
				test.reason = r.reason
			}
			if result := wantResult(t, err, test.code); test.reason != "" && result.reason != test.reason {
				t.Errorf("reason %q, want %q", result.reason, test.reason)
			}
			if n := server.Binds(); n != 1 {
				t.Errorf("%d binds, want 1", n)
			}
		})
	}
}

// TestBindNotDecided checks results of a bind that are about the server, not about the account: the
// next server is tried, and the bind does not count as refused.
func TestBindNotDecided(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		code int
		text string
	}{
		{"operations error", ldap.LDAPResultOperationsError, "000004DC: LdapErr: DSID-0C0907C2"},
		{"time limit", ldap.LDAPResultTimeLimitExceeded, ""},
		{"administrative limit", ldap.LDAPResultAdminLimitExceeded, ""},
		{"busy", ldap.LDAPResultBusy, ""},
		{"unavailable", ldap.LDAPResultUnavailable, ""},
		{"other", ldap.LDAPResultOther, "internal error"},
		{"no writable domain controller", ldap.LDAPResultInvalidCredentials, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 51f, v1db1\x00"},
		{"broken trust", ldap.LDAPResultInvalidCredentials, "80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 6fd, v1db1\x00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := fakeldap.Serve(t, nil, fakeldap.RefuseBind(test.code, test.text))
			_, err := Connect(t.Context(), options(server))
			wantFailure(t, err, bindFault(server, fault.Transient), nil, faulttest.AnyRemedy)
			wantResult(t, err, test.code)
			if errors.Is(err, ErrBindRefused) {
				t.Error("bind counts as refused")
			}
			o := options(server)
			o.Hosts = []string{server.Host, server.Host}
			if _, err = Connect(t.Context(), o); fault.ClassOf(err) != fault.Transient || server.Binds() != 3 {
				t.Errorf("%d binds, want 1 for each of 3 servers: %v", server.Binds(), err)
			}
		})
	}
}

func TestBindWithoutCredentials(t *testing.T) {
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	for _, test := range []struct {
		name     string
		bindDN   string
		password secret.Text
	}{
		{"no DN", "", secret.New(testPassword)},
		{"no password", "CN=reader", secret.Text{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options(server)
			o.BindDN, o.Password = test.bindDN, test.password
			_, err := Connect(t.Context(), o)
			wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "bind", Object: strings.TrimSpace(test.bindDN + " to " + address(server))}, errNoAccount, "ldap.bindDn", "ldap.password")
		})
	}
	if n := server.Binds(); n != 0 {
		t.Errorf("%d binds, want 0", n)
	}
}

func TestMalformedBindResponse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		response string
	}{
		{"result without a code", "\x30\x05\x02\x01\x01\x61\x00"},
		{"result code with the wrong tag", "\x30\x0c\x02\x01\x01\x61\x07\x04\x01\x00\x04\x00\x04\x00"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		{"TLS alert", "\x15\x03\x01\x00\x02\x02\x46"},
		{"indefinite length", "\x30\x80\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\x00\x00"},
		{"no message ID", "\x30\x09\x61\x07\x0a\x01\x00\x04\x00\x04\x00"},
		{"message ID too large", "\x30\x11\x02\x06\x01\x00\x00\x00\x00\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
				p.Receive()
				p.Send([]byte(test.response))
				p.Hang()
			})
			_, err := Connect(t.Context(), options(server))
			wantFailure(t, err, bindFault(server, fault.Incomplete), errMalformed, "ldap.host", "ldap.port", "ldap.protocol")
		})
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	for _, code := range []int{ldap.LDAPResultBusy, ldap.LDAPResultUnavailable} {
		busy := fakeldap.Serve(t, nil, fakeldap.RefuseBind(code, ""))
		_, err := Connect(t.Context(), options(busy))
		wantFailure(t, err, bindFault(busy, fault.Transient), nil, faulttest.AnyRemedy)
		wantResult(t, err, code)
	}

	healthy := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	lost := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) { p.Receive() })
	busy := fakeldap.Serve(t, nil, fakeldap.RefuseBind(ldap.LDAPResultBusy, ""))
	refusing := fakeldap.Serve(t, nil, fakeldap.RefuseBind(ldap.LDAPResultInvalidCredentials, ""))
	dead := ports.Refusing(t)
	dialFault := fault.Error{Class: fault.Transient, Op: "connect", Object: fmt.Sprintf("127.0.0.1:%d (LDAP)", dead)}
	for _, test := range []struct {
		name   string
		ports  []int
		want   fault.Error   // zero: the connection to the healthy server succeeds
		joined []fault.Error // the joined errors; nil: want is the only one
		remedy []string      // parts of the remedy
	}{
		{"first dead", []int{dead, healthy.Port}, fault.Error{}, nil, nil},
		{"first loses the connection", []int{lost.Port, healthy.Port}, fault.Error{}, nil, nil},
		{"first busy", []int{busy.Port, healthy.Port}, fault.Error{}, nil, nil},
		{"first refuses", []int{refusing.Port, healthy.Port}, bindFault(refusing, fault.Refused), nil, []string{"ldap.password"}},
		{"dead, then refusing", []int{dead, refusing.Port, healthy.Port}, fault.Error{Class: fault.Refused, Op: "open directory session"},
			[]fault.Error{dialFault, bindFault(refusing, fault.Refused)}, []string{"ldap.host", "ldap.password"}},
		{"all dead", []int{dead, dead}, fault.Error{Class: fault.Transient, Op: "open directory session"}, []fault.Error{dialFault, dialFault}, []string{"ldap.host"}},
		{"one dead", []int{dead}, dialFault, nil, []string{"ldap.host", "ldap.port", "firewalls"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			binds := healthy.Binds()
			o := options(healthy)
			o.Hosts, o.Port = []string{"corp.test"}, 0
			o.lookupSRV = records(t, test.ports...)
			session, err := Connect(t.Context(), o)
			if test.want.Class != "" {
				wantFailure(t, err, test.want, nil, test.remedy...)
				var joined serverErrors
				if errors.As(err, &joined); len(joined) != len(test.joined) {
					t.Fatalf("joined errors %v", joined)
				}
				for i, serverErr := range joined {
					wantFailure(t, serverErr, test.joined[i], nil, faulttest.AnyRemedy)
				}
				if healthy.Binds() != binds {
					t.Error("another bind after a refused one")
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
		o := options(healthy)
		o.Hosts = []string{"127.0.0.2", healthy.Host} // nothing listens on the first
		if session := connect(t, o); session.Address != net.JoinHostPort(healthy.Host, strconv.Itoa(healthy.Port)) {
			t.Errorf("connected to %s", session.Address)
		}
	})
	t.Run("no host", func(t *testing.T) {
		o := options(healthy)
		o.Hosts = nil
		_, err := Connect(t.Context(), o)
		wantFailure(t, err, fault.Error{Class: fault.Refused, Op: "connect"}, errNoHost, "ldap.host")
	})
	t.Run("context canceled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		o := options(healthy)
		o.Hosts = []string{healthy.Host, healthy.Host}
		_, err := Connect(ctx, o)
		wantFailure(t, err, connectFault(healthy, LDAP, fault.Canceled), context.Canceled)
	})
}

// TestReconnect checks that the second session has the same server, even if the order of the
// domain's SRV records has changed.
func TestReconnect(t *testing.T) {
	t.Parallel()
	first, second := fakeldap.Serve(t, nil, fakeldap.Directory(nil)), fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	ports := []int{first.Port, second.Port}
	o := options(first)
	o.Hosts, o.Port = []string{"corp.test"}, 0
	o.lookupSRV = func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
		return records(t, ports...)(ctx, service, proto, name)
	}
	session := connect(t, o)
	slices.Reverse(ports)
	reconnected, err := session.Reconnect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer reconnected.Close()
	if reconnected.Address != session.Address || second.Binds() != 0 {
		t.Errorf("reconnected to %s, want %s", reconnected.Address, session.Address)
	}
}

// TestReconnectToDifferentController checks that a different domain controller at the same
// address is an error.
func TestReconnectToDifferentController(t *testing.T) {
	t.Parallel()
	var moved atomic.Bool
	server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
		for r, ok := p.Receive(); ok; r, ok = p.Receive() {
			if r.Operation == fakeldap.Bind {
				p.Send(fakeldap.Result(r.ID, ldap.ApplicationBindResponse, 0, "", ""))
				continue
			}
			var root []byte
			if r.Base == "" {
				root = fakeldap.RootDSE(r.ID)
			}
			if moved.Load() {
				root = bytes.ReplaceAll(root, []byte("CN=DC1"), []byte("CN=DC2"))
			}
			p.Send(root, fakeldap.Done(r.ID, 0))
		}
	})
	session := connect(t, options(server))
	moved.Store(true)
	_, err := session.Reconnect(t.Context())
	wantFailure(t, err, connectFault(server, LDAP, fault.Transient), ErrDifferentController, "ldap.host")
}

// TestDialErrors checks that the cause does not repeat the operation and the address, unless
// the address was resolved from a name.
func TestDialErrors(t *testing.T) {
	t.Parallel()
	unknown := &net.DNSError{Err: "no such host", Name: "dc9", IsNotFound: true}
	refused := os.NewSyscallError("connect", syscall.ECONNREFUSED)
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 389}
	operation := fault.Operation{Op: "connect", Object: "x"}
	want := fault.Error{Class: fault.Transient, Op: "connect", Object: "x"}
	for _, test := range []struct {
		name    string
		err     error
		address string
		cause   error
		direct  bool // cause is not wrapped
		remedy  []string
	}{
		{"unknown host", &net.OpError{Op: "dial", Net: "tcp", Err: unknown}, "dc9:389", unknown, true, []string{"ldap.host", "DNS"}},
		{"address", &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: refused}, "127.0.0.1:389", syscall.ECONNREFUSED, true, []string{"ldap.host", "ldap.port", "firewalls"}},
		{"name", &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: refused}, "dc1:389", syscall.ECONNREFUSED, false, []string{"ldap.host", "ldap.port", "firewalls"}},
		{"too many open files", &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}, "dc1:389", syscall.EMFILE, true, []string{"ulimit -n"}},
		{"other error", os.ErrDeadlineExceeded, "dc1:389", os.ErrDeadlineExceeded, true, []string{"ldap.host", "ldap.port", "firewalls"}},
	} {
		err := dialError(t.Context(), operation, test.address, test.err)
		wantFailure(t, err, want, test.cause, test.remedy...)
		if cause := errors.Unwrap(err); (cause == test.cause) != test.direct { //nolint:errorlint // the identity is tested
			t.Errorf("%s: cause %v", test.name, cause)
		}
	}
}

// TestConnectionClosedAnywhere checks that a connection closed after any byte is an error.
func TestConnectionClosedAnywhere(t *testing.T) {
	t.Parallel()
	pages := fakeldap.Pages(
		[]fakeldap.RawEntry{fakeldap.NewEntry("CN=a", []string{"cn", "a"}), fakeldap.NewEntry("CN=b")},
		[]fakeldap.RawEntry{fakeldap.NewEntry("CN=c", []string{"cn", "c"})})
	var sendLimit atomic.Int64
	used := make(chan int64, 1)
	server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
		p.SendLimit = int(sendLimit.Load())
		fakeldap.Directory(pages)(p)
		used <- sendLimit.Load() - int64(p.SendLimit)
	})
	// run connects and searches over a connection that the server closes after limit bytes.
	run := func(limit int64) (delivered string, sent int64, err error) {
		sendLimit.Store(limit)
		session, err := Connect(t.Context(), options(server))
		if err == nil {
			_, err = session.Search(t.Context(), userSearch, collect(&delivered))
			session.Close()
		}
		return delivered, <-used, err
	}
	delivered, total, err := run(1 << 20)
	if err != nil || delivered != "CN=a CN=b CN=c " {
		t.Fatalf("%q, %v", delivered, err)
	}
	for limit := range total {
		delivered, sent, err := run(limit)
		if class := fault.ClassOf(err); err == nil || class != fault.Transient {
			t.Errorf("closed after %d bytes: %s: %v", limit, class, err)
		}
		if !strings.HasPrefix("CN=a CN=b CN=c ", delivered) || sent != limit {
			t.Errorf("closed after %d bytes, want %d: delivered %q", sent, limit, delivered)
		}
	}
}

// TestSilentServer checks that a server which stops sending anywhere causes a timeout. The
// sendLimit of a case is the number of bytes that the server sends.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	bound := len(fakeldap.Result(1, ldap.ApplicationBindResponse, 0, "", ""))
	identified := bound + len(fakeldap.RootDSE(2)) + len(fakeldap.Done(2, 0))
	connected := identified + len(fakeldap.Done(3, 0)) // no invocation ID
	first := fakeldap.NewEntry("CN=a", []string{"cn", "a"})
	page := len(first.Message(4)) + len(fakeldap.Done(4, 0, ldap.NewControlString("1.2.3", false, ""), fakeldap.Paging("page\x001")))
	pages := fakeldap.Pages([]fakeldap.RawEntry{first}, []fakeldap.RawEntry{fakeldap.NewEntry("CN=b")})
	for _, test := range []struct {
		name      string
		sendLimit int
		op        string
		object    string
	}{
		{"before the bind", 0, "bind", "CN=reader,DC=corp to 127.0.0.1:389"},
		{"within the bind's answer", 5, "bind", "CN=reader,DC=corp to 127.0.0.1:389"},
		{"after the bind", bound, "read", "rootDSE on 127.0.0.1:389"},
		{"within the rootDSE", bound + 20, "read", "rootDSE on 127.0.0.1:389"},
		{"after the rootDSE", identified, "read", "invocation ID on 127.0.0.1:389"},
		{"after connecting", connected, "search", "OU=People,DC=corp on 127.0.0.1:389"},
		{"within an entry", connected + 10, "search", "OU=People,DC=corp on 127.0.0.1:389"},
		{"after an entry", connected + len(first.Message(4)), "search", "OU=People,DC=corp on 127.0.0.1:389"},
		{"between pages", connected + page, "search", "OU=People,DC=corp on 127.0.0.1:389"},
		{"within the second page", connected + page + 3, "search", "OU=People,DC=corp on 127.0.0.1:389"},
	} {
		search := func(t *testing.T, ctx context.Context, onSendLimit func()) (took time.Duration, err error) {
			_, o := inMemory(t, func(p *fakeldap.Peer) {
				p.SendLimit, p.OnSendLimit = test.sendLimit, onSendLimit
				fakeldap.Directory(pages)(p)
				p.Hang()
			})
			start := time.Now()
			session, err := Connect(ctx, o)
			if err == nil {
				_, err = session.Search(ctx, userSearch, collect(new(string)))
				session.Close()
			}
			return time.Since(start), err
		}
		t.Run("timeout "+test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, err := search(t, t.Context(), nil)
				wantFailure(t, err, fault.Error{Class: fault.Transient, Op: test.op, Object: test.object}, errNoResponse, faulttest.AnyRemedy)
				if took != defaultResponseTimeout {
					t.Errorf("took %s, want %s", took, defaultResponseTimeout)
				}
			})
		})
		t.Run("cancellation "+test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				took, err := search(t, ctx, cancel)
				wantFailure(t, err, fault.Error{Class: fault.Canceled, Op: test.op, Object: test.object}, context.Canceled)
				if took != 0 {
					t.Errorf("took %s, want 0: %v", took, err)
				}
			})
		})
	}
}

func TestNoticeOfDisconnection(t *testing.T) {
	t.Parallel()
	notice := []byte("\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x34\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036")
	synctest.Test(t, func(t *testing.T) {
		server, o := inMemory(t, fakeldap.Directory(func(p *fakeldap.Peer, _ fakeldap.Request) bool {
			p.Send(notice)
			p.Hang() // instead of closing the connection
			return false
		}))
		_, err := connect(t, o).Search(t.Context(), userSearch, collect(new(string)))
		wantFailure(t, err, searchFault(server, fault.Transient), errDisconnected, "ldap.protocol")
	})
}
