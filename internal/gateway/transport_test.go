package gateway_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox"
	"adconnector/internal/secret"
)

func rootsOf(servers ...*httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, server := range servers {
		if certificate := server.Certificate(); certificate != nil {
			pool.AddCert(certificate)
		}
	}
	return pool
}

func TestTLS(t *testing.T) {
	var protocol atomic.Value
	g := sandbox.NewGateway(sandboxOptions())
	server := serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocol.Store(r.Proto)
		g.ServeHTTP(w, r)
	}))
	plain := serve(t, g)
	t.Run("good", func(t *testing.T) {
		o := options(t, server.URL)
		o.RootCAs = rootsOf(server)
		if _, err := send(t.Context(), gateway.New(o)); err != nil {
			t.Error(err)
		}
		if got := protocol.Load(); got != "HTTP/2.0" {
			t.Errorf("spoke %v", got)
		}
	})
	t.Run("unknown CA", func(t *testing.T) {
		o := options(t, server.URL)
		o.RootCAs = x509.NewCertPool()
		fails(t, gateway.New(o).Login(t.Context()), fault.Refused, "gateway.ca-file", "unknown authority")
	})
	t.Run("wrong name", func(t *testing.T) {
		o := options(t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1))
		o.RootCAs = rootsOf(server)
		fails(t, gateway.New(o).Login(t.Context()), fault.Refused, "connector.api.url", "localhost")
	})
	t.Run("plain HTTP on the port", func(t *testing.T) {
		o := options(t, strings.Replace(plain.URL, "http:", "https:", 1))
		fails(t, gateway.New(o).Login(t.Context()), fault.Refused, "does not speak TLS", "port in connector.api.url")
	})
	t.Run("TLS on a plain port", func(t *testing.T) {
		o := options(t, strings.Replace(server.URL, "https:", "http:", 1))
		fails(t, gateway.New(o).Login(t.Context()), fault.Refused, "400", "connector.api.url")
	})
	t.Run("something else on the port", func(t *testing.T) {
		fails(t, gateway.New(options(t, strangerAt(t, "220 mail.example.com ESMTP\r\n"))).Login(t.Context()), fault.Refused, "does not speak TLS")
	})
	t.Run("cut in the handshake", func(t *testing.T) {
		fails(t, gateway.New(options(t, strangerAt(t, ""))).Login(t.Context()), fault.Transient, "log in at")
	})
	for _, violation := range g.Violations() {
		t.Error(violation)
	}
}

// strangerAt is the URL of what is no gateway: it says something and hears all, or
// hangs up at once when it has nothing to say.
func strangerAt(t *testing.T, greeting string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if greeting != "" {
				_, _ = io.WriteString(conn, greeting)
				_, _ = io.Copy(io.Discard, conn)
			}
			_ = conn.Close()
		}
	}()
	return "https://" + listener.Addr().String()
}

// proxy is a forward proxy: CONNECT for https, absolute URLs for http.
type proxy struct {
	password string // of proxyUser; "": anybody may
	status   int    // the answer to everybody; 0: none
	calls    atomic.Int64
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.calls.Add(1)
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(proxyUser+":"+p.password))
	switch {
	case p.status != 0:
		w.WriteHeader(p.status)
	case p.password != "" && r.Header.Get("Proxy-Authorization") != want:
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
		_, _ = fmt.Fprint(w, r.Header)
	case r.Method == http.MethodConnect:
		tunnel(w, r.Host)
	default:
		forward(w, r)
	}
}

func tunnel(w http.ResponseWriter, target string) {
	there, err := net.Dial("tcp", target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = there.Close()
		return
	}
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		_, _ = io.Copy(there, here)
		_ = there.Close()
	}()
	_, _ = io.Copy(here, there)
	_ = here.Close()
}

func forward(w http.ResponseWriter, r *http.Request) {
	request := r.Clone(r.Context())
	request.RequestURI = ""
	request.Header.Del("Proxy-Authorization")
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer response.Body.Close()
	for name, values := range response.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(response.StatusCode)
	_, _ = io.Copy(w, response.Body)
}

func proxyAt(t *testing.T, address, user, password string) *gateway.Proxy {
	u := mustURL(address)
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	return &gateway.Proxy{Scheme: u.Scheme, Host: u.Hostname(), Port: port, Username: user, Password: secret.New(password)}
}

func TestProxy(t *testing.T) {
	for _, test := range []struct {
		name     string
		proxy    *proxy
		user     string
		password string
		class    fault.Class // "": passes
		words    []string
	}{
		{"no credentials", &proxy{}, "", "", "", nil},
		{"credentials", &proxy{password: proxyPassword}, proxyUser, proxyPassword, "", nil},
		{"credentials nobody asked for", &proxy{}, proxyUser, proxyPassword, "", nil},
		{"credentials missing", &proxy{password: proxyPassword}, "", "", fault.Refused, []string{"407", "proxy.username", "proxy.password"}},
		{"credentials wrong", &proxy{password: "other"}, proxyUser, proxyPassword, fault.Refused, []string{"407", "proxy.username", "proxy.password"}},
		{"refused", &proxy{status: 403}, proxyUser, proxyPassword, fault.Refused, []string{"403"}},
		{"bad gateway", &proxy{status: 502}, proxyUser, proxyPassword, fault.Transient, []string{"502"}},
		{"gateway timeout", &proxy{status: 504}, "", "", fault.Transient, []string{"504"}},
		{"too many", &proxy{status: 429}, "", "", fault.Transient, []string{"429"}},
	} {
		for _, target := range []string{"http", "https"} {
			for _, scheme := range []string{"http", "https"} {
				t.Run(fmt.Sprintf("%s, %s through %s", test.name, target, scheme), func(t *testing.T) {
					start := map[string]func(testing.TB, http.Handler) *httptest.Server{"http": serve, "https": serveTLS}
					g := sandbox.NewGateway(sandboxOptions())
					server := start[target](t, g)
					p := proxy{password: test.proxy.password, status: test.proxy.status}
					between := start[scheme](t, &p)
					o := options(t, server.URL)
					o.RootCAs = rootsOf(server, between)
					o.Proxy = proxyAt(t, between.URL, test.user, test.password)
					client := gateway.New(o)
					_, err := send(t.Context(), client)
					if test.class != "" {
						fails(t, err, test.class, test.words...)
						if len(g.Requests()) > 0 {
							t.Error("the gateway was reached")
						}
						if target == "https" && test.proxy.status == 403 {
							fails(t, err, test.class, "the proxy", "connector.api.url")
						}
						if test.class == fault.Refused && p.calls.Load() != 1 {
							t.Errorf("%d calls of the proxy", p.calls.Load())
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if p.calls.Load() == 0 || len(g.Groups()) != 1 || len(g.Violations()) > 0 {
						t.Errorf("%d calls of the proxy, %d groups, breaches %q", p.calls.Load(), len(g.Groups()), g.Violations())
					}
				})
			}
		}
	}
}

func TestProxyIsNotThere(t *testing.T) {
	server := serveTLS(t, http.NotFoundHandler())
	gone := httptest.NewServer(nil)
	gone.Close()
	o := options(t, server.URL)
	o.Proxy = proxyAt(t, gone.URL, proxyUser, proxyPassword)
	fails(t, gateway.New(o).Login(t.Context()), fault.Transient, "proxy.host", "proxy.port", "firewalls")

	o.Proxy = proxyAt(t, strings.Replace(serve(t, &proxy{}).URL, "http:", "https:", 1), proxyUser, proxyPassword)
	fails(t, gateway.New(o).Login(t.Context()), fault.Refused, "does not speak TLS", "service.http.proxy.scheme")

	between := serveTLS(t, &proxy{})
	o.Proxy = proxyAt(t, between.URL, proxyUser, proxyPassword)
	o.RootCAs = rootsOf()
	fails(t, gateway.New(o).Login(t.Context()), fault.Refused, "gateway.ca-file")
}

func TestTinyproxy(t *testing.T) {
	program, err := exec.LookPath("tinyproxy")
	if err != nil {
		t.Skip("not tested: tinyproxy is not installed")
	}
	const user, password = "me", "proxy-s3cret"
	address := startTinyproxy(t, program, fmt.Sprintf("BasicAuth %s %s\n", user, password))
	open := startTinyproxy(t, program, "")
	closed := startTinyproxy(t, program, "ConnectPort 1\n")
	for _, test := range []struct {
		name, proxy, user, password string
		secure                      bool
		class                       fault.Class
		words                       []string
	}{
		{"http with credentials", address, user, password, false, "", nil},
		{"https with credentials", address, user, password, true, "", nil},
		{"http without credentials", address, "", "", false, fault.Refused, []string{"407", "proxy.username"}},
		{"https without credentials", address, "", "", true, fault.Refused, []string{"407", "proxy.username"}},
		{"https with wrong credentials", address, user, password + "x", true, fault.Refused, []string{"proxy"}},
		{"http through an open one", open, "", "", false, "", nil},
		{"https through an open one", open, "", "", true, "", nil},
		{"https to a port that is not allowed", closed, "", "", true, fault.Refused, []string{"403", "connector.api.url"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := serve
			if test.secure {
				start = serveTLS
			}
			g := sandbox.NewGateway(sandboxOptions())
			server := start(t, g)
			o := options(t, server.URL)
			o.RootCAs = rootsOf(server)
			o.Proxy = proxyAt(t, "http://"+test.proxy, test.user, test.password)
			_, err := send(t.Context(), gateway.New(o))
			if test.class != "" {
				fails(t, err, test.class, test.words...)
			} else if err != nil || len(g.Groups()) != 1 || len(g.Violations()) > 0 {
				t.Errorf("%v, %d groups, breaches %q", err, len(g.Groups()), g.Violations())
			}
		})
	}
}

// startTinyproxy runs a tinyproxy until the end of the test and returns where it listens.
func startTinyproxy(t *testing.T, program, settings string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	_ = listener.Close()
	file := filepath.Join(t.TempDir(), "tinyproxy.conf")
	if err := os.WriteFile(file, []byte("Port "+port+"\nListen 127.0.0.1\nTimeout 60\nLogLevel Critical\nAllow 127.0.0.1\n"+settings), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "-d", "-c", file)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for deadline := time.After(10 * time.Second); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return address
		}
		select {
		case <-deadline:
			t.Fatalf("tinyproxy does not listen: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// hole is a TCP proxy whose connections can be made to swallow everything.
type hole struct {
	address string
	mu      sync.Mutex
	dug     chan struct{} // of the connections so far: closed once nothing passes
}

func newHole(t *testing.T, target string) *hole {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hole{address: listener.Addr().String(), dug: make(chan struct{})}
	var running sync.WaitGroup
	carry := func(from, to net.Conn, dug chan struct{}) {
		buffer := make([]byte, 16<<10)
		for {
			n, err := from.Read(buffer)
			select {
			case <-dug:
				<-t.Context().Done() // nothing passes, the end neither
			default:
			}
			if err == nil {
				_, err = to.Write(buffer[:n])
			}
			if err != nil {
				from.Close()
				to.Close()
				return
			}
		}
	}
	running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			h.mu.Lock()
			dug := h.dug
			h.mu.Unlock()
			running.Go(func() { carry(client, server, dug) })
			running.Go(func() { carry(server, client, dug) })
			running.Go(func() {
				<-t.Context().Done()
				client.Close()
				server.Close()
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return h
}

// dig makes the connections so far swallow everything.
func (h *hole) dig() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.dug)
	h.dug = make(chan struct{})
}

// TestPings: an HTTP/2 connection that swallows everything is noticed by its pings,
// long before a call's own deadline, and the call goes over another one.
func TestPings(t *testing.T) {
	g := sandbox.NewGateway(sandboxOptions())
	server := serveTLS(t, g)
	between := newHole(t, server.Listener.Addr().String())
	o := options(t, "https://"+between.address)
	o.RootCAs = rootsOf(server)
	o.Patience(100*time.Millisecond, time.Hour)
	client := gateway.New(o)
	if _, err := send(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	between.dig()
	start := time.Now()
	if _, err := send(t.Context(), client); err != nil || client.Counts().Retries != 1 {
		t.Errorf("%v after %d retries", err, client.Counts().Retries)
	}
	if took := time.Since(start); took < 150*time.Millisecond || took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

// TestNoAnswer: a gateway that takes a request and says nothing is not waited for
// without end.
func TestNoAnswer(t *testing.T) {
	over := make(chan struct{})
	server := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-over
	}))
	defer close(over)
	o := options(t, server.URL)
	o.Patience(time.Hour, 50*time.Millisecond)
	fails(t, gateway.New(o).Login(t.Context()), fault.Transient, "log in at", "no answer in time", "response headers")
}
