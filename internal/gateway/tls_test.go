package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/handshake"
	"adconnector/internal/sandbox/gatewayserver"
)

// lingeringListener accepts connections that are read to their end before they are closed, so that
// no reset overtakes the last alert.
type lingeringListener struct{ net.Listener }

func (l lingeringListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return lingeringConn{conn.(*net.TCPConn)}, nil
}

type lingeringConn struct{ *net.TCPConn }

func (c lingeringConn) Close() error {
	err := c.CloseWrite()
	go func() {
		_, _ = io.Copy(io.Discard, c.TCPConn)
		_ = c.TCPConn.Close()
	}()
	return err
}

// serveConfiguredTLS starts a TLS server with a given configuration. Clients can read its last alert.
func serveConfiguredTLS(t testing.TB, handler http.Handler, configure func(*tls.Config)) *httptest.Server {
	t.Helper()
	return serveAs(t, handler, func(server *httptest.Server) {
		server.TLS = &tls.Config{}
		configure(server.TLS)
		server.EnableHTTP2 = true
		server.Listener = lingeringListener{server.Listener}
		server.StartTLS()
	})
}

// TestRefusedHandshakes checks that a server or a proxy whose TLS is not supported is refused,
// not retried.
func TestRefusedHandshakes(t *testing.T) {
	t.Parallel()
	const clientCertificate13 = "client certificate with TLS 1.3" // whose alert may be lost, because it arrives after the handshake
	for _, test := range []struct {
		name      string
		configure func(*tls.Config)
		reason    error
		remedy    string // a part of it
	}{
		{"TLS 1.0 and 1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, handshake.ErrVersion, "enable TLS 1.2"},
		{"RSA key exchange", func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
			c.NextProtos = []string{"http/1.1"}
		}, handshake.ErrParameters, "ECDHE"},
		{"client certificate with TLS 1.2", func(c *tls.Config) {
			c.MaxVersion, c.ClientAuth = tls.VersionTLS12, tls.RequireAnyClientCert
		}, handshake.ErrClientCertificate, "client certificates"},
		{clientCertificate13, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }, handshake.ErrClientCertificate, "client certificates"},
		{clientCertificate13 + " and HTTP/1.1", func(c *tls.Config) {
			c.ClientAuth, c.NextProtos = tls.RequireAnyClientCert, []string{"http/1.1"}
		}, handshake.ErrClientCertificate, "client certificates"},
		{"name not served", func(c *tls.Config) {
			c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return &tls.Config{}, nil }
		}, handshake.ErrServerName, "host name in"},
		{"no application protocol", func(c *tls.Config) { c.NextProtos = []string{"imap"} }, handshake.ErrRefused, "the log of"},
	} {
		for _, through := range []string{"", "http", "https"} {
			name := test.name + ", direct"
			if through != "" {
				name = test.name + ", through a proxy with " + through
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server := serveConfiguredTLS(t, http.NotFoundHandler(), test.configure)
				o := options(t, server.URL)
				o.HandshakeWithin(time.Hour) // many handshakes at once are slow on a loaded machine
				o.RootCAs = rootsOf(server)
				if through != "" {
					start := map[string]func(testing.TB, http.Handler) *httptest.Server{"http": serve, "https": serveTLS}
					p := &proxy{}
					proxyServer := start[through](t, p)
					o.Proxy = proxyAt(t, proxyServer.URL, "", "")
					o.RootCAs = rootsOf(server, proxyServer)
					afterHandshake := test.name == clientCertificate13 || test.name == clientCertificate13+" and HTTP/1.1"
					defer func() {
						if n := p.requests.Load(); n != 1 && !afterHandshake {
							t.Errorf("%d connections through the proxy", n)
						}
					}()
				}
				err := gateway.New(o).Login(t.Context())
				checkError(t, err, loginError(server.URL, "/auth", fault.Refused), test.reason, test.remedy, "connector.api.url")
			})
		}
		t.Run(test.name+", of the proxy", func(t *testing.T) {
			t.Parallel()
			proxyServer := serveConfiguredTLS(t, &proxy{}, test.configure)
			o := options(t, "https://gateway.test")
			o.HandshakeWithin(time.Hour)
			o.RootCAs = rootsOf(proxyServer)
			o.Proxy = proxyAt(t, proxyServer.URL, "", "")
			err := gateway.New(o).Login(t.Context())
			checkError(t, err, loginError("https://gateway.test", "/auth", fault.Refused), test.reason, "proxy")
		})
	}
}

// TestInspectedTLS checks the error of a certificate that a TLS-inspecting proxy has issued.
func TestInspectedTLS(t *testing.T) {
	t.Parallel()
	server := serveTLS(t, http.NotFoundHandler())
	o := options(t, server.URL)
	o.RootCAs = x509.NewCertPool()
	o.Proxy = proxyAt(t, serve(t, &proxy{}).URL, "", "")
	err := gateway.New(o).Login(t.Context())
	checkError(t, err, loginError(server.URL, "/auth", fault.Refused), nil, "gateway.ca-file", "exempt", "inspects")
	if unknown, is := errors.AsType[x509.UnknownAuthorityError](err); !is || unknown.Cert == nil {
		t.Errorf("error %v", err)
	}
}

// TestPageInsteadOfTunnel checks the error of a login page that a network sends with a status of
// 200 on CONNECT, and that a tunnel with such a header is used.
func TestPageInsteadOfTunnel(t *testing.T) {
	t.Parallel()
	header := "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
	for name, page := range map[string]string{
		"short": "<html>log in</html>", "long": "<html>" + strings.Repeat(" ", 100<<10), "tunnel": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := startSandbox(t, sandboxOptions())
			server := serveTLS(t, g)
			portal := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = fmt.Fprintf(conn, header+"%s", len(page), page)
				if page != "" {
					_ = conn.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, conn)
					return
				}
				target, err := net.Dial("tcp", r.Host)
				if err != nil {
					t.Error(err)
					return
				}
				defer target.Close()
				go func() { _, _ = io.Copy(target, conn) }()
				_, _ = io.Copy(conn, target)
			}))
			o := options(t, server.URL)
			o.RootCAs = rootsOf(server)
			o.Proxy = proxyAt(t, portal.URL, "", "")
			err := gateway.New(o).Login(t.Context())
			if page == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			checkError(t, err, loginError(server.URL, "/auth", fault.Refused), gateway.ErrProxyPage, "connector.api.url", "page")
		})
	}
}

// TestTransientAlert checks that an alert that may end without intervention is retried, and named.
func TestTransientAlert(t *testing.T) {
	t.Parallel()
	var handshakes atomic.Int64
	g := gatewayserver.New(sandboxOptions())
	server := serveConfiguredTLS(t, g, func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			if handshakes.Add(1) <= 2 {
				return nil, errors.New("overloaded") // internal_error
			}
			return nil, nil
		}
	})
	o := options(t, server.URL)
	o.RootCAs = rootsOf(server)
	client := gateway.New(o)
	if err := client.Login(t.Context()); err != nil || client.Counts().Retries != 2 {
		t.Errorf("%v after %d retries", err, client.Counts().Retries)
	}
	handshakes.Store(-10)
	err := gateway.New(o).Login(t.Context())
	checkError(t, err, loginError(server.URL, "/auth", fault.Transient), nil, "network")
	if _, opaque := errors.AsType[*gateway.ProtocolError](err); opaque || !handshake.IsAlert(err) {
		t.Errorf("error %v does not name the alert", err)
	}
}

// TestLostCertificateAlert checks that a client certificate counts as required if the server has
// requested it and connections are lost, and that a response resets this count.
func TestLostCertificateAlert(t *testing.T) {
	t.Parallel()
	var lost atomic.Int64
	g := gatewayserver.New(sandboxOptions())
	server := serveConfiguredTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lost.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		g.ServeHTTP(w, r)
	}), func(c *tls.Config) { c.ClientAuth, c.NextProtos = tls.RequestClientCert, []string{"http/1.1"} })
	o := options(t, server.URL)
	o.RootCAs = rootsOf(server)
	client := gateway.New(o)
	for range 3 {
		lost.Store(2)
		client.ForgetToken()
		client.BeginRun()
		if err := client.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	lost.Store(3)
	checkError(t, gateway.New(o).Login(t.Context()), loginError(server.URL, "/auth", fault.Refused), handshake.ErrClientCertificate, "client certificates")
}

// TestTimeoutIsNoCertificateAlert checks that a handshake that times out does not count as one
// whose alert was lost, although the server has requested a client certificate.
func TestTimeoutIsNoCertificateAlert(t *testing.T) {
	t.Parallel()
	certificates := serveTLS(t, http.NotFoundHandler()).TLS.Certificates
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		o := serveInMemory(t, &tls.Config{
			Certificates: certificates, ClientAuth: tls.RequestClientCert, MaxVersion: tls.VersionTLS12,
			VerifyConnection: func(tls.ConnectionState) error {
				<-release
				return errors.New("too late")
			},
		}, http.NotFoundHandler())
		defer close(release)
		o.RootCAs = x509.NewCertPool()
		leaf, err := x509.ParseCertificate(certificates[0].Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		o.RootCAs.AddCert(leaf)
		o.URL.Host = "example.com" // a name of the certificate
		err = gateway.New(o).Login(t.Context())
		checkError(t, err, loginError("https://example.com", "/auth", fault.Transient), nil, "network")
		if errors.Is(err, handshake.ErrClientCertificate) {
			t.Errorf("error %v", err)
		}
	})
}
