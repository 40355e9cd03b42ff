package directory

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

func TestFindPDCEmulator(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, owner string
		result      int
		want        int // index of the PDC emulator; -1: none
		class       fault.Class
	}{
		{"second", "cn=ntds settings,CN=DC2,CN=Servers,CN=Site", 0, 1, fault.Done},
		{"another one", "CN=NTDS Settings,CN=DC9", 0, -1, fault.Done},
		{"attribute unreadable", "", 0, -1, fault.Done},
		{"object unreadable", "", ldap.LDAPResultNoSuchObject, -1, fault.Done},
		{"no right", "", ldap.LDAPResultInsufficientAccessRights, -1, fault.Done},
		{"busy", "", ldap.LDAPResultBusy, -1, fault.Transient},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			session := connect(t, options(fakeldap.Serve(t, nil, controller(1).Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				if test.result != 0 {
					return p.Send(fakeldap.Done(r.ID, test.result))
				}
				return p.Send(fakeldap.NewEntry(r.Base, []string{"fSMORoleOwner", test.owner}).Message(r.ID), fakeldap.Done(r.ID, 0))
			}))))
			list := []DomainController{{ServiceName: controller(1).ServiceName}, {ServiceName: controller(2).ServiceName}, {}}
			if err := session.FindPDCEmulator(t.Context(), list); fault.ClassOf(err) != test.class {
				t.Errorf("error %v", err)
			}
			for i, c := range list {
				if c.PDCEmulator != (i == test.want) {
					t.Errorf("controller %d: %t", i, c.PDCEmulator)
				}
			}
		})
	}
}

// TestOpenPeer checks that the password is sent to the wanted controller only.
func TestOpenPeer(t *testing.T) {
	t.Parallel()
	anonymous := controller(2)
	anonymous.DenyAnonymous = true
	unknown := controller(2)
	unknown.InvocationID = ""
	want := DomainController{Host: "dc2.corp.test", ServiceName: controller(2).ServiceName, InvocationID: invocationID(2)}
	renamed := want
	renamed.ServiceName = "CN=NTDS Settings,CN=OLD"
	for _, test := range []struct {
		name   string
		want   DomainController
		script func(*fakeldap.Peer)
		binds  int
		class  fault.Class
		cause  error
	}{
		{"wanted", want, controller(2).Script(nil), 1, fault.Done, nil},
		{"searches refused before the bind", want, anonymous.Script(nil), 1, fault.Done, nil},
		{"invocation ID unreadable", want, unknown.Script(nil), 1, fault.Done, nil},
		{"another controller", want, controller(3).Script(nil), 0, fault.Transient, ErrDifferentController},
		{"another one under the name", renamed, controller(2).Script(nil), 0, fault.Transient, ErrDifferentController},
		{"restored", DomainController{Host: want.Host, ServiceName: want.ServiceName, InvocationID: invocationID(9)}, controller(2).Script(nil), 1, fault.Transient, ErrDifferentController},
		{"bind refused", want, fakeldap.RefuseBind(49, ""), 0, fault.Transient, ErrDifferentController}, // it is DC1
		{"no host name", DomainController{ServiceName: want.ServiceName}, controller(2).Script(nil), 0, fault.Refused, errNoHostName},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			peer := fakeldap.Serve(t, nil, test.script)
			o := options(fakeldap.Serve(t, nil, controller(1).Script(nil)))
			dial := o.withDefaults().dialFunc()
			o.dialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if host, _, _ := net.SplitHostPort(address); host == want.Host {
					return peer.Dial(ctx, network, address)
				}
				return dial(ctx, network, address)
			}
			session := connect(t, o)
			opened, err := session.OpenPeer(t.Context(), test.want, PeerOptions{})
			if err == nil {
				var bound *Session
				if bound, err = opened.Bind(t.Context()); err == nil {
					defer bound.Close()
				}
			}
			if fault.ClassOf(err) != test.class || test.cause != nil && !errors.Is(err, test.cause) || err != nil && fault.Remedy(err) == "" {
				t.Errorf("error %v", err)
			}
			if peer.Binds() != test.binds {
				t.Errorf("%d binds", peer.Binds())
			}
		})
	}
}

func TestDNSName(t *testing.T) {
	t.Parallel()
	for dn, want := range map[string]string{"DC=corp,DC=example,DC=com": "corp.example.com", "dc=corp": "corp", "O=x": "", "": "", "no dn": ""} {
		if got := dnsName(dn); got != want {
			t.Errorf("%q: %q, want %q", dn, got, want)
		}
	}
}

// TestPeerCertificate checks which certificates of other controllers are trusted. The domain is
// corp.example.com.
func TestPeerCertificate(t *testing.T) {
	t.Parallel()
	ca := issueCA(t, "Example CA")
	certificate := func(names ...string) *keyPair {
		return issue(t, ca, x509.Certificate{Subject: pkix.Name{CommonName: "dc"}, DNSNames: names})
	}
	own, errUnknownIssuer := certificate("dc1.corp.example.com"), errors.New("unknown issuer")
	for _, test := range []struct {
		name, host string
		server     *keyPair
		configure  func(o *Options)
		cause      error  // nil: trusted
		remedy     string // contained in the remedy
	}{
		{"below the domain", "dc2.corp.example.com", certificate("dc2.corp.example.com"), nil, nil, ""},
		{"certificate also for the domain", "dc2.partner.test", certificate("dc2.partner.test", "corp.example.com"), nil, nil, ""},
		{"foreign", "dc2.attacker.test", certificate("dc2.attacker.test"), nil, errForeignTarget, "ldap.host"},
		{"another name", "dc2.corp.example.com", own, nil, errNameMismatch, "for its DNS name"},
		{"server name of the first one", "dc2.corp.example.com", certificate("dc2.corp.example.com"), func(o *Options) { o.ServerName = "dc1.corp.example.com" }, errNameMismatch, "remove ldap.server-name"},
		{"first one pinned", "dc2.corp.example.com", certificate("dc2.corp.example.com"), func(o *Options) { o.Certificates = []*x509.Certificate{own.Certificate} }, errUnknownIssuer, "ldap.certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			second := controller(2)
			second.DNSHostName = test.host
			peer := fakeldap.Serve(t, test.server.config(), second.Script(nil))
			first := fakeldap.Serve(t, own.config(), controller(1).Script(nil))
			o := options(first)
			o.Protocol, o.Certificates, o.Hosts = LDAPS, []*x509.Certificate{ca.Certificate}, []string{"dc1.corp.example.com"}
			o.lookupHost, o.lookupSRV = noLookup, func(context.Context, string, string, string) (string, []*net.SRV, error) { return "", nil, nil }
			o.dialContext = func(ctx context.Context, network, dialed string) (net.Conn, error) {
				server := first
				if host, _, _ := net.SplitHostPort(dialed); host == test.host {
					server = peer
				}
				return (&net.Dialer{}).DialContext(ctx, network, address(server))
			}
			if test.configure != nil {
				test.configure(&o)
			}
			opened, err := connect(t, o).OpenPeer(t.Context(), DomainController{Host: test.host, ServiceName: second.ServiceName}, PeerOptions{})
			if err == nil {
				opened.Close()
			}
			if remedy := fault.Remedy(err); (test.remedy == "") != (remedy == "") || !strings.Contains(remedy, test.remedy) {
				t.Errorf("remedy %q", remedy)
			}
			if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
				err = errors.Join(err, errUnknownIssuer)
			}
			if CertificateRefused(err) != (test.cause != nil) || !errors.Is(err, test.cause) || peer.Binds() != 0 {
				t.Errorf("error %v, %d binds", err, peer.Binds())
			}
		})
	}
}
