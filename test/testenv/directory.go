package testenv

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
)

// Directory is a sandbox domain controller that listens on loopback.
type Directory struct {
	*domaincontroller.Server
	Host     string // address of loopback
	Port     int    // LDAP and STARTTLS
	TLSPort  int    // LDAPS
	Password string

	t        testing.TB
	mu       sync.Mutex
	onAnswer func(answer []byte)
}

// NewDirectory starts a domain controller. Without a password in the options, its account
// gets one.
func NewDirectory(t testing.TB, o domaincontroller.Options) *Directory {
	t.Helper()
	return newDirectory(t, o, listenAt(t, "127.0.0.1:0"), listenAt(t, "127.0.0.1:0"))
}

// NewPeer starts another controller of the directory's domain, with the same ports at another
// address of loopback, which is its host name in the directory. The two list each other. Changes do
// not replicate.
func (d *Directory) NewPeer(address string, o domaincontroller.Options) *Directory {
	d.t.Helper()
	o.Host = address
	peer := newDirectory(d.t, o, listenAt(d.t, net.JoinHostPort(address, strconv.Itoa(d.Port))), listenAt(d.t, net.JoinHostPort(address, strconv.Itoa(d.TLSPort))))
	d.Must(d.AddPeer(peer.Server))
	d.Must(peer.AddPeer(d.Server))
	return peer
}

func newDirectory(t testing.TB, o domaincontroller.Options, plain, secure net.Listener) *Directory {
	t.Helper()
	if o.Password == "" {
		o.Password = "Bind-Pa55w0rd!"
	}
	d := &Directory{Server: domaincontroller.New(o), Password: o.Password, t: t}
	d.Host, d.Port, d.TLSPort = plain.Addr().(*net.TCPAddr).IP.String(), PortOf(plain), PortOf(secure)
	var serving sync.WaitGroup
	serving.Go(func() { _ = d.Serve(t.Context(), observedListener{plain, d}, secure) })
	t.Cleanup(func() {
		serving.Wait()
		d.Server = nil // package testing keeps an ended parallel test until all others have ended
	})
	return d
}

func listenAt(t testing.TB, address string) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Skip("an address of loopback is missing:", err) // macOS has only 127.0.0.1
	}
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// PortOf returns the TCP port of a listener.
func PortOf(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

// OnAnswer calls f with each answer over LDAP without TLS before it is sent. nil stops it.
func (d *Directory) OnAnswer(f func(answer []byte)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.onAnswer = f
}

// observedListener calls Directory.onAnswer for each write of its connections.
type observedListener struct {
	net.Listener
	directory *Directory
}

// Accept implements net.Listener.
func (o observedListener) Accept() (net.Conn, error) {
	conn, err := o.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return observedConn{conn, o.directory}, nil
}

type observedConn struct {
	net.Conn
	directory *Directory
}

// Write implements net.Conn.
func (c observedConn) Write(answer []byte) (int, error) {
	c.directory.mu.Lock()
	onAnswer := c.directory.onAnswer
	c.directory.mu.Unlock()
	if onAnswer != nil {
		onAnswer(answer)
	}
	return c.Conn.Write(answer)
}

// PortFor returns the port of a protocol.
func (d *Directory) PortFor(protocol string) int {
	if protocol == "LDAPS" {
		return d.TLSPort
	}
	return d.Port
}

// Settings returns the settings for the whole directory over LDAP.
func (d *Directory) Settings() Settings {
	return Settings{
		"ldap.protocol": "LDAP", "ldap.host": "127.0.0.1", "ldap.port": strconv.Itoa(d.Port),
		"ldap.bindDn": d.BindDN(), "ldap.password": d.Password, "profile.baseContext": d.Base(),
	}
}

// Authentication returns the settings of a connection in the console, for LDAP, LDAPS or
// STARTTLS.
func (d *Directory) Authentication(protocol string) gatewayserver.Authentication {
	a := gatewayserver.Authentication{Type: protocol, Host: "127.0.0.1", Port: d.PortFor(protocol), BindDN: d.BindDN(), Password: d.Password}
	if protocol != "LDAP" {
		a.Certificate = string(d.CertificatePEM())
	}
	return a
}

// Options returns the options of a client.
func (d *Directory) Options(protocol directory.Protocol) directory.Options {
	o := directory.Options{
		Protocol: protocol, Hosts: []string{"127.0.0.1"}, Port: d.Port, BindDN: d.BindDN(), Password: secret.New(d.Password),
	}
	if protocol == directory.LDAPS {
		o.Port = d.TLSPort
	}
	if protocol != directory.LDAP {
		o.Certificates = append(o.Certificates, d.Certificate())
	}
	return o
}

// Certificate returns the server's certificate.
func (d *Directory) Certificate() *x509.Certificate {
	d.t.Helper()
	block, _ := pem.Decode(d.CertificatePEM())
	certificate, err := x509.ParseCertificate(block.Bytes)
	d.Must(err)
	return certificate
}

// InvocationID returns the invocation ID of the domain controller.
func (d *Directory) InvocationID() ad.InvocationID {
	d.t.Helper()
	for _, o := range d.Objects("invocationId") {
		if id := o.First("invocationId"); id != "" {
			return ad.InvocationID([]byte(id))
		}
	}
	d.t.Fatal("no invocation ID")
	return ad.InvocationID{}
}

// Must ends the test on an error of a change.
func (d *Directory) Must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// AddUnit adds an organizational unit.
func (d *Directory) AddUnit(dn string) {
	d.t.Helper()
	d.add(dn, map[string][]string{"objectClass": {"organizationalUnit"}})
}

// AddUser adds a user with a password that never expires and an e-mail address.
func (d *Directory) AddUser(dn string) {
	d.t.Helper()
	name, _, _ := strings.Cut(strings.TrimPrefix(dn, "CN="), ",")
	d.add(dn, map[string][]string{
		"objectClass": {"user"}, "userAccountControl": {"66048"}, "mail": {name + "@corp.example.com"},
	})
}

// AddGroup adds a global security group.
func (d *Directory) AddGroup(dn string, members ...string) {
	d.t.Helper()
	attributes := map[string][]string{"objectClass": {"group"}}
	if len(members) > 0 {
		attributes["member"] = members
	}
	d.add(dn, attributes)
}

func (d *Directory) add(dn string, attributes map[string][]string) {
	d.t.Helper()
	d.Must(d.Add(domaincontroller.Object{DN: dn, Attributes: attributes}))
}

// Object returns an object.
func (d *Directory) Object(dn string) domaincontroller.Object {
	d.t.Helper()
	return d.object(dn)
}

// SID returns the objectSid of an object as text.
func (d *Directory) SID(dn string) string {
	d.t.Helper()
	return ad.SID(d.object(dn, "objectSid").First("objectSid")).String()
}

func (d *Directory) object(dn string, attributes ...string) domaincontroller.Object {
	d.t.Helper()
	o, err := d.Server.Object(dn, attributes...)
	d.Must(err)
	return o
}

// GUID returns the objectGUID of an object.
func (d *Directory) GUID(dn string) ad.GUID {
	d.t.Helper()
	return ad.GUID([]byte(d.object(dn, "objectGUID").First("objectGUID")))
}
