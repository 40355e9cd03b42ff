package directory

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/fault"
	"adconnector/internal/handshake"
	"adconnector/test/fakeldap"
)

// keyPair is a certificate and its private key.
type keyPair struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// issue returns a new certificate signed by the issuer, or self-signed without one.
func issue(t testing.TB, issuer *keyPair, template x509.Certificate) *keyPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.NotBefore = template.NotAfter.Add(-2 * time.Hour)
	signer := &keyPair{&template, key}
	if issuer != nil {
		signer = issuer
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, signer.Certificate, &key.PublicKey, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &keyPair{certificate, key}
}

func issueCA(t testing.TB, name string) *keyPair {
	return issue(t, nil, x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
}

func (i *keyPair) config(chain ...*keyPair) *tls.Config {
	c := tls.Certificate{Certificate: [][]byte{i.Raw}, PrivateKey: i.key}
	for _, link := range chain {
		c.Certificate = append(c.Certificate, link.Raw)
	}
	return &tls.Config{Certificates: []tls.Certificate{c}}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, other := issueCA(t, "Example CA"), issueCA(t, "Other CA")
	intermediate := issue(t, ca, x509.Certificate{
		Subject: pkix.Name{CommonName: "Issuing CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	byName := x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}, DNSNames: []string{"dc1.corp.test"}}
	byAddress := byName
	byAddress.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	expired := byAddress
	expired.NotAfter = time.Now().Add(-time.Minute)
	noCommonName := x509.Certificate{DNSNames: []string{"dc1.corp.test"}}
	onlyCommonName := x509.Certificate{Subject: pkix.Name{CommonName: "DC1.corp.test"}}
	forClients := byAddress
	forClients.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	selfSigned, otherSelfSigned := issue(t, nil, onlyCommonName), issue(t, nil, onlyCommonName)
	selfSignedExpired := issue(t, nil, expired)
	signed := issue(t, ca, byAddress)

	unknown := func(cause error) bool { _, is := errors.AsType[x509.UnknownAuthorityError](cause); return is }
	wrongName := func(cause error) bool { return errors.Is(cause, errNameMismatch) }
	invalid := func(reason x509.InvalidReason) func(error) bool {
		return func(cause error) bool {
			invalid, is := errors.AsType[x509.CertificateInvalidError](cause)
			return is && invalid.Reason == reason
		}
	}
	name, issuer := []string{"ldap.server-name", "ldap.certificate"}, []string{"ldap.certificate"}
	const byAddressNames = "common name dc1, for dc1.corp.test, 127.0.0.1"

	for _, test := range []struct {
		name        string
		config      *tls.Config
		configured  []*x509.Certificate
		serverName  string
		certificate string // names of the rejected certificate; "": accepted
		isCause     func(error) bool
		remedy      []string // parts of the remedy
	}{
		{"configured CA, valid name", signed.config(), []*x509.Certificate{ca.Certificate}, "", "", nil, nil},
		{"one of several configured CAs", signed.config(), []*x509.Certificate{other.Certificate, ca.Certificate}, "", "", nil, nil},
		{"intermediate sent by the server", issue(t, intermediate, byAddress).config(intermediate), []*x509.Certificate{ca.Certificate}, "", "", nil, nil},
		{"configured intermediate", issue(t, intermediate, byAddress).config(), []*x509.Certificate{intermediate.Certificate}, "", "", nil, nil},
		{"pinned, common name only", selfSigned.config(), []*x509.Certificate{selfSigned.Certificate}, "", "", nil, nil},
		{"pinned, expired", selfSignedExpired.config(), []*x509.Certificate{selfSignedExpired.Certificate}, "", "", nil, nil},
		{"self-signed, unknown", issue(t, nil, byName).config(), nil, "", "common name dc1, for dc1.corp.test", unknown, issuer},
		{"configured server name", issue(t, ca, byName).config(), []*x509.Certificate{ca.Certificate}, "dc1.corp.test", "", nil, nil},
		{"configured server name in another case", issue(t, ca, byName).config(), []*x509.Certificate{ca.Certificate}, "DC1.CORP.TEST", "", nil, nil},
		{"name mismatch", issue(t, ca, byName).config(), []*x509.Certificate{ca.Certificate}, "", "common name dc1, for dc1.corp.test", wrongName, name},
		{"name mismatch, no subject", issue(t, ca, noCommonName).config(), []*x509.Certificate{ca.Certificate}, "", "for dc1.corp.test", wrongName, name},
		{"common name only", issue(t, ca, onlyCommonName).config(), []*x509.Certificate{ca.Certificate}, "dc1.corp.test", "common name DC1.corp.test, without a DNS name", wrongName, name},
		{"configured server name mismatch", signed.config(), []*x509.Certificate{ca.Certificate}, "dc2.corp.test", byAddressNames, wrongName, name},
		{"unknown CA", signed.config(), nil, "", byAddressNames, unknown, issuer},
		{"not signed by the configured CA", signed.config(), []*x509.Certificate{other.Certificate}, "", byAddressNames, unknown, issuer},
		{"another certificate pinned", selfSigned.config(), []*x509.Certificate{otherSelfSigned.Certificate}, "", "common name DC1.corp.test, without a DNS name", unknown, issuer},
		{"pinned certificate in the chain, but not the leaf", otherSelfSigned.config(selfSigned), []*x509.Certificate{selfSigned.Certificate}, "", "common name DC1.corp.test, without a DNS name", unknown, issuer},
		{"expired", issue(t, ca, expired).config(), []*x509.Certificate{ca.Certificate}, "", byAddressNames, invalid(x509.Expired), []string{"renew", "clock"}},
		{"client certificate", issue(t, ca, forClients).config(), []*x509.Certificate{ca.Certificate}, "", byAddressNames, invalid(x509.IncompatibleUsage), issuer},
	} {
		for _, protocol := range []Protocol{LDAPS, StartTLS} {
			t.Run(test.name+" "+string(protocol), func(t *testing.T) {
				t.Parallel()
				var server *fakeldap.Listener
				if protocol == LDAPS {
					server = fakeldap.Serve(t, test.config, fakeldap.Directory(nil))
				} else {
					server = fakeldap.Serve(t, nil, fakeldap.StartTLS(test.config, fakeldap.Directory(nil)))
				}
				o := options(server)
				o.Protocol, o.Certificates, o.ServerName = protocol, test.configured, test.serverName
				session, err := Connect(t.Context(), o)
				if test.isCause != nil {
					wantFailure(t, err, connectFault(server, protocol, fault.Refused), nil, test.remedy...)
					verify := errors.Unwrap(err)
					wantFailure(t, verify, fault.Error{Class: fault.Refused, Op: "verify", Object: "server certificate (" + test.certificate + ")"}, nil, test.remedy...)
					if cause := errors.Unwrap(verify); !test.isCause(cause) {
						t.Errorf("cause %v", cause)
					}
					if server.Binds() != 0 {
						t.Error("bind to an untrusted server")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer session.Close()
				if session.RootDSE.DNSHostName == "" {
					t.Error("no rootDSE")
				}
			})
		}
	}
}

// TestZone checks that a certificate for a link-local address is valid for it on any interface.
func TestZone(t *testing.T) {
	t.Parallel()
	ca := issueCA(t, "Example CA")
	byAddress := func(address string) *tls.Config {
		return issue(t, ca, x509.Certificate{IPAddresses: []net.IP{net.ParseIP(address)}}).config()
	}
	for _, test := range []struct {
		name, certificate string
		valid             bool
	}{
		{"same address", "fe80::1", true},
		{"another address", "fe80::2", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := fakeldap.Serve(t, byAddress(test.certificate), fakeldap.Directory(nil))
			o := options(server)
			o.Hosts, o.Protocol, o.Certificates = []string{"fe80::1%eth0"}, LDAPS, []*x509.Certificate{ca.Certificate}
			o.dialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, address(server))
			}
			session, err := Connect(t.Context(), o)
			if (err == nil) != test.valid || err != nil && !errors.Is(err, errNameMismatch) {
				t.Errorf("%v", err)
			}
			if err == nil {
				session.Close()
			}
		})
	}
}

// TestSRVTargets checks which hosts named by SRV records are trusted.
func TestSRVTargets(t *testing.T) {
	t.Parallel()
	ca := issueCA(t, "Example CA")
	certificate := func(names ...string) *keyPair {
		return issue(t, ca, x509.Certificate{Subject: pkix.Name{CommonName: "dc"}, DNSNames: names})
	}
	foreign, both := certificate("dc1.attacker.test"), certificate("dc1.partner.test", "corp.test")
	for _, test := range []struct {
		name, target string
		server       *keyPair
		configure    func(o *Options)
		cause        error // nil: trusted
	}{
		{"below the domain", "dc1.corp.test.", certificate("dc1.corp.test"), nil, nil},
		{"below the domain, in another case", "DC1.Corp.Test.", certificate("dc1.corp.test"), nil, nil},
		{"the domain itself", "corp.test.", certificate("corp.test"), nil, nil},
		{"foreign", "dc1.attacker.test.", foreign, nil, errForeignTarget},
		{"foreign with the domain as a suffix of a label", "evilcorp.test.", certificate("evilcorp.test"), nil, errForeignTarget},
		{"foreign, for any name of the domain", "dc1.attacker.test.", certificate("dc1.attacker.test", "*.corp.test"), nil, errForeignTarget},
		{"foreign, certificate also for the domain", "dc1.partner.test.", both, nil, nil},
		{"foreign, pinned", "dc1.attacker.test.", foreign, func(o *Options) { o.Certificates = append(o.Certificates, foreign.Certificate) }, nil},
		{"foreign, configured server name", "dc1.attacker.test.", foreign, func(o *Options) { o.ServerName = "dc1.attacker.test" }, nil},
		{"foreign, configured host", "", foreign, func(o *Options) { o.Hosts = []string{"dc1.attacker.test", "dc2.attacker.test"} }, nil},
		{"below the domain, certificate of another host", "dc1.corp.test.", foreign, nil, errNameMismatch},
	} {
		for _, protocol := range []Protocol{LDAPS, StartTLS} {
			t.Run(test.name+" "+string(protocol), func(t *testing.T) {
				t.Parallel()
				var server *fakeldap.Listener
				if protocol == LDAPS {
					server = fakeldap.Serve(t, test.server.config(), fakeldap.Directory(nil))
				} else {
					server = fakeldap.Serve(t, nil, fakeldap.StartTLS(test.server.config(), fakeldap.Directory(nil)))
				}
				o := options(server)
				o.Protocol, o.Certificates, o.Hosts = protocol, []*x509.Certificate{ca.Certificate}, []string{"corp.test"}
				o.lookupSRV = func(context.Context, string, string, string) (string, []*net.SRV, error) {
					return "", []*net.SRV{{Target: test.target, Port: uint16(server.Port)}}, nil
				}
				o.dialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
					return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(server.Host, strconv.Itoa(server.Port)))
				}
				if test.configure != nil {
					test.configure(&o)
				}
				session, err := Connect(t.Context(), o)
				if test.cause != nil {
					if !errors.Is(err, test.cause) || fault.ClassOf(err) != fault.Refused {
						t.Errorf("error %v", err)
					}
					if server.Binds() != 0 {
						t.Error("bind to an untrusted server")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				session.Close()
			})
		}
	}
}

func TestSearchOverTLS(t *testing.T) {
	t.Parallel()
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	script := fakeldap.Directory(fakeldap.Pages([]fakeldap.RawEntry{fakeldap.NewEntry("CN=a"), fakeldap.NewEntry("CN=b")}, []fakeldap.RawEntry{fakeldap.NewEntry("CN=c")}))
	for _, test := range []struct {
		protocol Protocol
		server   *fakeldap.Listener
	}{
		{LDAPS, fakeldap.Serve(t, self.config(), script)},
		{StartTLS, fakeldap.Serve(t, nil, fakeldap.StartTLS(self.config(), script))},
	} {
		o := options(test.server)
		o.Protocol, o.Certificates = test.protocol, []*x509.Certificate{self.Certificate}
		var delivered string
		if pages, err := connect(t, o).Search(t.Context(), userSearch, collect(&delivered)); err != nil || pages != 2 || delivered != "CN=a CN=b CN=c " {
			t.Errorf("%s: %d pages, %q, %v", test.protocol, pages, delivered, err)
		}
	}
}

func TestStartTLSResponses(t *testing.T) {
	t.Parallel()
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	success := fakeldap.Result(1, ldap.ApplicationExtendedResponse, 0, "", "")
	longLengths := []byte("\x30\x84\x00\x00\x00\x10\x02\x01\x01\x78\x84\x00\x00\x00\x07\x0a\x01\x00\x04\x00\x04\x00")
	ports := []string{"ldap.protocol", "ldap.port"}
	injected := fakeldap.Result(1, ldap.ApplicationBindResponse, 0, "", "")
	for _, test := range []struct {
		name     string
		response []byte
		class    fault.Class // "": accepted
		cause    error
		remedy   []string // parts of the remedy
	}{
		{"encoding of OpenLDAP", success, "", nil, nil},
		{"encoding of Active Directory", longLengths, "", nil, nil},
		{"no certificate", fakeldap.Result(1, ldap.ApplicationExtendedResponse, 52, "", "Error initializing SSL/TLS"), fault.Refused, errStartTLS, []string{"LDAPS"}},
		{"unknown operation", fakeldap.Result(1, ldap.ApplicationExtendedResponse, 2, "", ""), fault.Refused, errStartTLS, []string{"LDAPS"}},
		{"plaintext after the response", slices.Concat(success, injected, injected), fault.Refused, errProtocolMismatch, ports},
		{"response of another operation", injected, fault.Refused, errProtocolMismatch, ports},
		{"TLS", []byte("\x15\x03\x01\x00\x02\x02\x46"), fault.Refused, errProtocolMismatch, ports},
		{"response too large", []byte("\x30\x83\x01\x00\x00"), fault.Refused, errProtocolMismatch, ports},
		{"length too large", []byte("\x30\x84\x7f\xff\xff\xff"), fault.Refused, errProtocolMismatch, ports},
		{"indefinite length", []byte("\x30\x80"), fault.Refused, errProtocolMismatch, ports},
		{"truncated response", success[:7], fault.Transient, io.ErrUnexpectedEOF, ports},
		{"no response", nil, fault.Transient, io.EOF, ports},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
				p.Receive()
				p.Send(test.response)
				if test.class == "" {
					p.StartTLS(self.config())
					fakeldap.Directory(nil)(p)
				}
				if test.class == fault.Refused {
					p.Hang()
				}
			})
			o := options(server)
			o.Protocol, o.Certificates = StartTLS, []*x509.Certificate{self.Certificate}
			session, err := Connect(t.Context(), o)
			if test.class == "" {
				if err != nil {
					t.Fatal(err)
				}
				session.Close()
				return
			}
			wantFailure(t, err, connectFault(server, StartTLS, test.class), test.cause, test.remedy...)
			if server.Binds() != 0 {
				t.Error("bind without TLS")
			}
		})
	}
}

func TestWrongPort(t *testing.T) {
	t.Parallel()
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	plain := fakeldap.Serve(t, nil, fakeldap.Directory(nil)) // closes the connection on a malformed message
	notifying := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
		p.Send([]byte("\x30\x24\x02\x01\x00\x78\x1f\x0a\x01\x02\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20036"))
		p.Hang()
	})
	secure := fakeldap.Serve(t, self.config(), fakeldap.Directory(nil))
	for _, test := range []struct {
		name     string
		protocol Protocol
		server   *fakeldap.Listener
		class    fault.Class
	}{
		{"LDAPS to a plain port that closes", LDAPS, plain, fault.Transient},
		{"LDAPS to a plain port that sends a notice", LDAPS, notifying, fault.Refused},
		{"LDAP to a TLS port", LDAP, secure, ""},
		{"StartTLS to a TLS port", StartTLS, secure, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := options(test.server)
			o.Protocol = test.protocol
			_, err := Connect(t.Context(), o)
			class := test.class
			if class == "" { // an alert may or may not arrive before the end
				class = fault.ClassOf(err)
			}
			want := connectFault(test.server, test.protocol, class)
			if test.protocol == LDAP {
				want = bindFault(test.server, class)
			}
			wantFailure(t, err, want, nil, "ldap.protocol")
		})
	}
}

// TestSilentHandshake checks the timeout and the cancellation of a handshake with a server that
// sends nothing, or stops sending.
func TestSilentHandshake(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		protocol Protocol
		script   func(p *fakeldap.Peer)
	}{
		{"LDAPS", LDAPS, (*fakeldap.Peer).Hang},
		{"StartTLS", StartTLS, (*fakeldap.Peer).Hang},
		{"StartTLS, then no TLS", StartTLS, func(p *fakeldap.Peer) {
			p.Receive()
			p.Send(fakeldap.Result(1, ldap.ApplicationExtendedResponse, 0, "", ""))
			p.Hang()
		}},
		{"StartTLS, truncated response", StartTLS, func(p *fakeldap.Peer) {
			p.Receive()
			p.Send([]byte{tagSequence})
			p.Hang()
		}},
	} {
		object := fmt.Sprintf("127.0.0.1:389 (%s)", test.protocol)
		handshake := func(t *testing.T, ctx context.Context) (took time.Duration, err error) {
			_, o := inMemory(t, test.script)
			o.Protocol = test.protocol
			start := time.Now()
			_, err = Connect(ctx, o)
			return time.Since(start), err
		}
		t.Run("timeout "+test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, err := handshake(t, t.Context())
				wantFailure(t, err, fault.Error{Class: fault.Transient, Op: "connect", Object: object}, context.DeadlineExceeded, "load")
				if took != defaultConnectTimeout {
					t.Errorf("took %s, want %s", took, defaultConnectTimeout)
				}
			})
		})
		t.Run("cancellation "+test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					synctest.Wait() // until the handshake blocks
					cancel()
				}()
				took, err := handshake(t, ctx)
				wantFailure(t, err, fault.Error{Class: fault.Canceled, Op: "connect", Object: object}, context.Canceled)
				if took != 0 {
					t.Errorf("took %s, want 0", took)
				}
			})
		})
	}
}

// TestUnreadableChain checks that a certificate behind the server's own that crypto/tls does not
// parse is reported as such, even if the server's own is pinned.
func TestUnreadableChain(t *testing.T) {
	t.Parallel()
	brainpool, _ := pem.Decode(readTestdata(t, "brainpool.pem"))
	self := issue(t, nil, x509.Certificate{Subject: pkix.Name{CommonName: "dc1"}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, protocol := range []Protocol{LDAPS, StartTLS} {
			t.Run(fmt.Sprint(tls.VersionName(version), " ", protocol), func(t *testing.T) {
				t.Parallel()
				config := self.config(&keyPair{Certificate: &x509.Certificate{Raw: brainpool.Bytes}})
				config.MaxVersion = version
				server := fakeldap.Serve(t, config, fakeldap.Directory(nil))
				if protocol == StartTLS {
					server = fakeldap.Serve(t, nil, fakeldap.StartTLS(config, fakeldap.Directory(nil)))
				}
				o := options(server)
				o.Protocol, o.Certificates = protocol, []*x509.Certificate{self.Certificate}
				_, err := Connect(t.Context(), o)
				wantFailure(t, err, connectFault(server, protocol, fault.Refused), handshake.ErrUnreadable, "P-256", "-showcerts")
				if !strings.Contains(err.Error(), "elliptic curve") || server.Binds() != 0 {
					t.Errorf("%d binds, error %v", server.Binds(), err)
				}
			})
		}
	}
}
