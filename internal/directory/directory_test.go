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
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
	"adconnector/test/deadport"
	"adconnector/test/fakeldap"
)

func TestParseProtocol(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
	server := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	session := connect(t, options(server))
	want := RootDSE{"DC=corp,DC=example,DC=com", "dc1.corp.example.com", "CN=NTDS Settings,CN=DC1", 4711, "", ""}
	if session.RootDSE != want || !session.RootDSE.IsDomainController() {
		t.Errorf("root DSE %+v", session.RootDSE)
	}
	if session.Address != net.JoinHostPort("127.0.0.1", strconv.Itoa(server.Port)) || session.PageSize != 1000 {
		t.Errorf("address %s, page size %d", session.Address, session.PageSize)
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
			server := fakeldap.Serve(t, nil, fakeldap.RefuseBind(test.code, test.text))
			o := options(server)
			o.Hosts = []string{server.Host, server.Host, server.Host}
			_, err := Connect(t.Context(), o)
			wantError(t, err, fault.Refused, "bind as CN=reader,DC=corp to 127.0.0.1:", fmt.Sprintf("LDAP result %d", test.code), test.want)
			if len(err.Error()) > 1000 {
				t.Errorf("%d bytes of error", len(err.Error()))
			}
			if n := server.Binds(); n != 1 {
				t.Errorf("%d binds", n)
			}
		})
	}
}

func TestBindWithoutAccountIsNotTried(t *testing.T) {
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
			wantError(t, err, fault.Refused, "ldap.bindDn and ldap.password")
		})
	}
	if server.Binds() != 0 {
		t.Error("bound")
	}
}

func TestMalformedBindAnswer(t *testing.T) {
	t.Parallel()
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
			server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
				p.Receive()
				p.Send([]byte(test.answer))
				p.Hang()
			})
			_, err := Connect(t.Context(), options(server))
			wantError(t, err, fault.Incomplete, "the server sent what is not LDAP", "ldap.protocol")
		})
	}
}

func TestFailover(t *testing.T) {
	t.Parallel()
	for _, code := range []int{ldap.LDAPResultBusy, ldap.LDAPResultUnavailable} {
		busy := fakeldap.Serve(t, nil, fakeldap.RefuseBind(code, ""))
		_, err := Connect(t.Context(), options(busy))
		wantError(t, err, fault.Transient, fmt.Sprintf("LDAP result %d", code))
	}

	good := fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	lost := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) { p.Receive() })
	busy := fakeldap.Serve(t, nil, fakeldap.RefuseBind(ldap.LDAPResultBusy, ""))
	refusing := fakeldap.Serve(t, nil, fakeldap.RefuseBind(ldap.LDAPResultInvalidCredentials, ""))
	dead := deadport.New(t)
	for _, test := range []struct {
		name  string
		ports []int
		class fault.Class // "": connects to the good one
		parts []string
	}{
		{"first dead", []int{dead, good.Port}, "", nil},
		{"first loses the connection", []int{lost.Port, good.Port}, "", nil},
		{"first busy", []int{busy.Port, good.Port}, "", nil},
		{"first refuses", []int{refusing.Port, good.Port}, fault.Refused, []string{"wrong password"}},
		{"dead, then refusing", []int{dead, refusing.Port, good.Port}, fault.Refused, []string{"no directory server could be used", strconv.Itoa(dead), "wrong password"}},
		{"all dead", []int{dead, dead}, fault.Transient, []string{"no directory server could be used", "; connect to 127.0.0.1:" + strconv.Itoa(dead)}},
		{"one dead", []int{dead}, fault.Transient, []string{"connect to 127.0.0.1:" + strconv.Itoa(dead), "check ldap.host and ldap.port"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			binds := good.Binds()
			o := options(good)
			o.Hosts, o.Port = []string{"corp.test"}, 0
			o.lookupSRV = records(t, test.ports...)
			session, err := Connect(t.Context(), o)
			if test.class != "" {
				wantError(t, err, test.class, test.parts...)
				if good.Binds() != binds {
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
		o := options(good)
		o.Hosts = []string{"127.0.0.2", good.Host} // nothing listens on the first
		if session := connect(t, o); session.Address != net.JoinHostPort(good.Host, strconv.Itoa(good.Port)) {
			t.Errorf("connected to %s", session.Address)
		}
	})
	t.Run("no host", func(t *testing.T) {
		o := options(good)
		o.Hosts = nil
		_, err := Connect(t.Context(), o)
		wantError(t, err, fault.Refused, "ldap.host")
	})
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		o := options(good)
		o.Hosts = []string{good.Host, good.Host}
		_, err := Connect(ctx, o)
		wantError(t, err, fault.Canceled, "context canceled")
	})
}

// TestAgain: a second session is one with the same domain controller, whichever comes
// first in the domain by then.
func TestAgain(t *testing.T) {
	t.Parallel()
	one, other := fakeldap.Serve(t, nil, fakeldap.Directory(nil)), fakeldap.Serve(t, nil, fakeldap.Directory(nil))
	ports := []int{one.Port, other.Port}
	o := options(one)
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
	if again.Address != session.Address || other.Binds() != 0 {
		t.Errorf("%s, then %s", session.Address, again.Address)
	}
}

// TestAgainAtAnotherServer: another domain controller at the same address is refused.
func TestAgainAtAnotherServer(t *testing.T) {
	t.Parallel()
	var moved atomic.Bool
	server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
		for r, ok := p.Receive(); ok; r, ok = p.Receive() {
			if r.Operation == fakeldap.Bind {
				p.Send(fakeldap.Result(r.ID, ldap.ApplicationBindResponse, 0, "", ""))
				continue
			}
			root := fakeldap.RootDSE(r.ID)
			if moved.Load() {
				root = bytes.ReplaceAll(root, []byte("CN=DC1"), []byte("CN=DC2"))
			}
			p.Send(root, fakeldap.Done(r.ID, 0))
		}
	})
	session := connect(t, options(server))
	moved.Store(true)
	_, err := session.Again(t.Context())
	wantError(t, err, fault.Transient, "is another domain controller now")
}

func TestUnknownHost(t *testing.T) {
	t.Parallel()
	err := explainDial(t.Context(), "connect to dc9:389 (LDAP)", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "dc9", IsNotFound: true}})
	wantError(t, err, fault.Transient, "dc9", "no such host", "this machine's DNS")
}

// A cut conversation must never pass for a whole one, wherever it is cut.
func TestConnectionClosedAnywhere(t *testing.T) {
	t.Parallel()
	pages := fakeldap.Pages(
		[]fakeldap.RawEntry{fakeldap.NewEntry("CN=a", []string{"cn", "a"}), fakeldap.NewEntry("CN=b")},
		[]fakeldap.RawEntry{fakeldap.NewEntry("CN=c", []string{"cn", "c"})})
	var budget atomic.Int64
	used := make(chan int64, 1)
	server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
		p.Budget = int(budget.Load())
		fakeldap.Directory(pages)(p)
		used <- budget.Load() - int64(p.Budget)
	})
	// run reads everything over a connection that is closed after so many bytes.
	run := func(bytes int64) (delivered string, sent int64, err error) {
		budget.Store(bytes)
		session, err := Connect(t.Context(), options(server))
		if err == nil {
			_, err = session.Search(t.Context(), people, collect(&delivered))
			session.Close()
		}
		return delivered, <-used, err
	}
	delivered, whole, err := run(1 << 20)
	if err != nil || delivered != "CN=a CN=b CN=c " {
		t.Fatalf("%q, %v", delivered, err)
	}
	for bytes := range whole {
		delivered, sent, err := run(bytes)
		if class := fault.Of(err); err == nil || class != fault.Transient {
			t.Errorf("cut after %d bytes: %s: %v", bytes, class, err)
		}
		if !strings.HasPrefix("CN=a CN=b CN=c ", delivered) || sent != bytes {
			t.Errorf("cut after %d bytes of %d: delivered %q", sent, bytes, delivered)
		}
	}
}

// TestSilentServer: a server may fall silent anywhere. The budget of each case is what
// it still sends.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	bound := len(fakeldap.Result(1, ldap.ApplicationBindResponse, 0, "", ""))
	connected := bound + len(fakeldap.RootDSE(2)) + len(fakeldap.Done(2, 0))
	first := fakeldap.NewEntry("CN=a", []string{"cn", "a"})
	page := len(first.Message(3)) + len(fakeldap.Done(3, 0, ldap.NewControlString("1.2.3", false, ""), fakeldap.Paging("page\x001")))
	pages := fakeldap.Pages([]fakeldap.RawEntry{first}, []fakeldap.RawEntry{fakeldap.NewEntry("CN=b")})
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
		{"after an entry", connected + len(first.Message(3)), "search OU=People"},
		{"between pages", connected + page, "search OU=People"},
		{"within the second page", connected + page + 3, "search OU=People"},
	} {
		converse := func(t *testing.T, ctx context.Context, broke func()) (took time.Duration, err error) {
			_, o := inMemory(t, func(p *fakeldap.Peer) {
				p.Budget, p.Broke = test.budget, broke
				fakeldap.Directory(pages)(p)
				p.Hang()
			})
			start := time.Now()
			session, err := Connect(ctx, o)
			if err == nil {
				_, err = session.Search(ctx, people, collect(new(string)))
				session.Close()
			}
			return time.Since(start), err
		}
		t.Run("timeout "+test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, err := converse(t, t.Context(), nil)
				wantError(t, err, fault.Transient, test.what, "the server was silent for 2m10s")
				if took != defaultResponseTimeout {
					t.Errorf("took %s", took)
				}
			})
		})
		t.Run("cancellation "+test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				took, err := converse(t, ctx, cancel)
				wantError(t, err, fault.Canceled, test.what)
				if !errors.Is(err, context.Canceled) || took != 0 {
					t.Errorf("after %s: %v", took, err)
				}
			})
		})
	}
}

func TestNoticeOfDisconnection(t *testing.T) {
	t.Parallel()
	notice := []byte("\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x34\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036")
	synctest.Test(t, func(t *testing.T) {
		_, o := inMemory(t, fakeldap.Directory(func(p *fakeldap.Peer, r fakeldap.Request) bool {
			p.Send(notice)
			p.Hang() // a server should close now
			return false
		}))
		_, err := connect(t, o).Search(t.Context(), people, collect(new(string)))
		wantError(t, err, fault.Transient, "notice that it ends the session (LDAP result 52)")
	})
}
