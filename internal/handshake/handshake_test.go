package handshake

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// issue returns a self-signed certificate, and one for any public key that it has signed.
func issue(t *testing.T, public any) (issuer tls.Certificate, leaf []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "server"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if public != nil {
		if leaf, err = x509.CreateCertificate(rand.Reader, template, template, public, key); err != nil {
			t.Fatal(err)
		}
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, leaf
}

// outcome is the outcome of a connection: the error of the handshake or of a read after it, and
// whether the server requested a client certificate.
type outcome struct {
	handshake, read error
	requested       bool
}

// connect runs a handshake with a server and reads one byte.
func connect(t *testing.T, server func(net.Conn)) (o outcome) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ended := make(chan struct{})
	defer func() { <-ended }()
	go func() {
		defer close(ended)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		server(conn)
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := tls.Client(conn, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, GetClientCertificate: NoClientCertificate,
	})
	ctx, request := WithRequest(t.Context())
	if o.handshake = client.HandshakeContext(ctx); o.handshake == nil {
		_, o.read = client.Read(make([]byte, 1))
	}
	o.requested = request.Received()
	return o
}

// message returns a handshake message in a record of TLS 1.2.
func message(kind byte, body []byte) []byte {
	size := len(body)
	payload := append([]byte{kind, byte(size >> 16), byte(size >> 8), byte(size)}, body...)
	var records []byte
	for len(payload) > 0 {
		part := payload[:min(len(payload), 16<<10)]
		payload = payload[len(part):]
		records = append(binary.BigEndian.AppendUint16(append(records, 22, 3, 3), uint16(len(part))), part...)
	}
	return records
}

// serverHello returns a ServerHello.
func serverHello(version, suite uint16) []byte {
	body := binary.BigEndian.AppendUint16(nil, version)
	body = append(body, make([]byte, 32)...) // random
	body = append(body, 0)                   // session ID
	body = binary.BigEndian.AppendUint16(body, suite)
	return message(2, append(body, 0)) // no compression
}

// certificates returns a Certificate message.
func certificates(der []byte) []byte {
	size := func(n int) []byte { return []byte{byte(n >> 16), byte(n >> 8), byte(n)} }
	return message(11, slices.Concat(size(len(der)+3), size(len(der)), der))
}

// keyExchange returns a ServerKeyExchange with a curve, a signature algorithm and an invalid
// signature.
func keyExchange(curve, algorithm uint16) []byte {
	body := binary.BigEndian.AppendUint16([]byte{3}, curve)
	body = append(append(body, 32), bytes.Repeat([]byte{9}, 32)...)
	body = binary.BigEndian.AppendUint16(body, algorithm)
	return message(12, append(binary.BigEndian.AppendUint16(body, 64), make([]byte, 64)...))
}

//go:embed testdata/dsa.crt
var dsaCertificate []byte

const (
	rsaKeyExchange = tls.TLS_RSA_WITH_AES_128_GCM_SHA256
	ecdheRSA       = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
	ecdheECDSA     = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
)

// TestExplain also detects a change of the texts of crypto/tls that Explain compares.
func TestExplain(t *testing.T) {
	t.Parallel()
	modulus := func(bits uint) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), int(bits)-1, 1), E: 65537}
	}
	self, huge := issue(t, modulus(8208))
	_, small := issue(t, modulus(512))
	block, _ := pem.Decode(dsaCertificate)
	if c, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	} else if c.PublicKeyAlgorithm != x509.DSA {
		t.Fatalf("public key %s", c.PublicKeyAlgorithm)
	}
	serve := func(configure func(*tls.Config)) func(net.Conn) {
		config := &tls.Config{Certificates: []tls.Certificate{self}}
		configure(config)
		return func(conn net.Conn) { _ = tls.Server(conn, config).Handshake() }
	}
	script := func(messages ...[]byte) func(net.Conn) {
		return func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 16<<10)) // ClientHello
			_, _ = conn.Write(slices.Concat(messages...))
		}
	}
	hello, helloRSA := serverHello(tls.VersionTLS12, ecdheECDSA), serverHello(tls.VersionTLS12, ecdheRSA)
	explicitCurve := keyExchange(29, 0x0403)
	explicitCurve[9] = 1 // explicit_prime (RFC 4492 5.4)
	downgraded := slices.Clone(hello)
	copy(downgraded[35:], "DOWNGRD\x01") // RFC 8446 4.1.3
	unused := map[int]bool{}
	for n := range localReasons {
		unused[n] = true
	}
	for _, test := range []struct {
		name   string
		server func(net.Conn)
		want   error // nil: no reason
	}{
		{"TLS 1.1 only", serve(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), ErrVersion},
		{"TLS 1.0 selected", script(serverHello(tls.VersionTLS10, ecdheRSA)), ErrVersion},
		{"SSL 3.0 selected", script(serverHello(0x0300, ecdheRSA)), ErrVersion},
		{"RSA key exchange only", serve(func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{rsaKeyExchange} }), ErrParameters},
		{"RSA key exchange selected", script(serverHello(tls.VersionTLS12, rsaKeyExchange)), ErrParameters},
		{"curve that was not offered", script(hello, certificates(self.Certificate[0]), keyExchange(0x0100, 0x0403)), ErrParameters},
		{"curve with explicit parameters", script(hello, certificates(self.Certificate[0]), explicitCurve), ErrParameters},
		{"TLS 1.2 after a downgrade", script(downgraded), ErrVersion},
		{"SHA-1 signature", script(hello, certificates(self.Certificate[0]), keyExchange(29, 0x0203)), ErrParameters},
		{"client certificate, TLS 1.2", serve(func(c *tls.Config) { c.MaxVersion, c.ClientAuth = tls.VersionTLS12, tls.RequireAnyClientCert }), ErrClientCertificate},
		{"client certificate, TLS 1.3", serve(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), ErrClientCertificate},
		{"no certificate for the name", serve(func(c *tls.Config) { c.Certificates = nil }), ErrServerName},
		{"no application protocol", serve(func(c *tls.Config) { c.NextProtos = []string{"imap"} }), ErrRefused},
		{"DSA key", script(hello, certificates(block.Bytes), keyExchange(29, 0x0403)), ErrCertificate},
		{"RSA key of 8208 bits", script(helloRSA, certificates(huge), keyExchange(29, 0x0804)), ErrCertificate},
		{"RSA key of 512 bits", script(helloRSA, certificates(small), keyExchange(29, 0x0804)), ErrCertificate},
		{"wrong key type", script(helloRSA, certificates(self.Certificate[0]), keyExchange(29, 0x0804)), ErrCertificate},
		{"malformed certificate", script(hello, certificates([]byte("not a certificate")), keyExchange(29, 0x0403)), ErrUnreadable},
		{"invalid message", script(message(2, []byte("x"))), nil},
		{"compression", script(append(slices.Clone(hello[:len(hello)-1]), 1)), ErrRefused},
		{"closed", func(net.Conn) {}, nil},
		{"reset", func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 16<<10))
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}, nil},
		{"internal error", serve(func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("busy") }
		}), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := connect(t, test.server)
			err, explained := o.handshake, Explain(o.handshake, o.requested)
			if err == nil {
				err, explained = o.read, ExplainAlert(o.read, o.requested)
			}
			if err == nil || !errors.Is(explained, test.want) {
				t.Fatalf("%v, want %v; error %v", explained, test.want, err)
			}
			delete(unused, localReason(err))
			if explained != nil && (!errors.Is(explained, err) || !strings.Contains(explained.Error(), err.Error())) {
				t.Errorf("explained %v does not contain its cause %v", explained, err)
			}
		})
	}
	for n := range unused {
		t.Errorf("crypto/tls returned no error %q", localReasons[n].prefix)
	}
}

// TestAlerts checks that the number of each alert is found, although crypto/tls does not export it.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for n := range 256 {
		const closeNotify, userCanceled = 0, 90 // have errors of their own
		if n == closeNotify || n == userCanceled {
			continue
		}
		err := connect(t, func(conn net.Conn) {
			_, _ = conn.Read(make([]byte, 16<<10))
			_, _ = conn.Write([]byte{21, 3, 3, 0, 2, 2, byte(n)})
		}).handshake
		if is, number := alert(err); !is || number != tls.AlertError(n) || !IsAlert(err) {
			t.Errorf("alert %d is found as %d: %v", n, number, err)
		}
	}
}

func TestNetworkErrors(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, io.ErrClosedPipe, syscall.ECONNRESET, syscall.EPIPE, context.Canceled, context.DeadlineExceeded,
		&net.OpError{Op: "read", Err: syscall.ECONNRESET}, &net.OpError{Op: localError, Err: tls.AlertError(20)},
	} {
		if explained := Explain(err, true); explained != nil {
			t.Errorf("%v: %v", err, explained)
		}
	}
}

// TestWeakSignature checks that x509 still reports an insecure signature as an unknown authority.
func TestWeakSignature(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	parse := func(der []byte, err error) *x509.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	root := parse(x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key))
	// x509 creates no signature with SHA-1, but the field is enough: the signature is not verified.
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "server"}, NotAfter: ca.NotAfter}
	leaf := parse(x509.CreateCertificate(rand.Reader, template, ca, key.Public(), key))
	pool := x509.NewCertPool()
	pool.AddCert(root)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool}); err != nil {
		t.Fatal(err)
	}
	leaf.SignatureAlgorithm = x509.ECDSAWithSHA1
	_, err = leaf.Verify(x509.VerifyOptions{Roots: pool})
	explained := ExplainVerification(err, []*x509.Certificate{leaf})
	insecure, is := errors.AsType[x509.InsecureAlgorithmError](explained)
	if !errors.Is(explained, ErrWeakSignature) || !is || x509.SignatureAlgorithm(insecure) != x509.ECDSAWithSHA1 {
		t.Errorf("%v, explained %v", err, explained)
	}
	leaf.SignatureAlgorithm = x509.ECDSAWithSHA256
	_, err = leaf.Verify(x509.VerifyOptions{Roots: x509.NewCertPool()})
	if explained := ExplainVerification(err, []*x509.Certificate{leaf, root}); err == nil || explained != nil {
		t.Errorf("%v, explained %v", err, explained)
	}
}

func TestServerName(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"dc1.corp.test": "dc1.corp.test", "10.0.0.5": "10.0.0.5", "fd00::1": "fd00::1", "fe80::1%eth0": "fe80::1", "FE80::1%eth0.100": "fe80::1", "dc1%eth0": "dc1%eth0", "": "",
	} {
		if got := ServerName(host); got != want {
			t.Errorf("%q: %q, want %q", host, got, want)
		}
	}
}
