package gateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
	"adconnector/test/faulttest"
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
	t.Parallel()
	var protocol atomic.Value
	g := gatewayserver.New(sandboxOptions())
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
		err := gateway.New(o).Login(t.Context())
		wantFailure(t, err, loggingIn(server.URL, "/auth", fault.Refused), nil, "gateway.ca-file")
		if _, is := errors.AsType[x509.UnknownAuthorityError](err); !is {
			t.Errorf("error %v", err)
		}
	})
	t.Run("wrong name", func(t *testing.T) {
		o := options(t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1))
		o.RootCAs = rootsOf(server)
		err := gateway.New(o).Login(t.Context())
		wantFailure(t, err, loggingIn(o.URL.String(), "/auth", fault.Refused), nil, "connector.api.url", "clock")
		if wrong, is := errors.AsType[x509.HostnameError](err); !is || wrong.Host != "localhost" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("plain HTTP on the port", func(t *testing.T) {
		o := options(t, strings.Replace(plain.URL, "http:", "https:", 1))
		wantFailure(t, gateway.New(o).Login(t.Context()), loggingIn(o.URL.String(), "/auth", fault.Refused), gateway.ErrNotTLS, "port in connector.api.url")
	})
	t.Run("TLS on a plain port", func(t *testing.T) {
		o := options(t, strings.Replace(server.URL, "https:", "http:", 1))
		err := gateway.New(o).Login(t.Context())
		wantFailure(t, err, loggingIn(o.URL.String(), "/auth", fault.Refused), gateway.ErrUnexpected, "connector.api.url")
		wantAnswer(t, err, 400, "")
	})
	t.Run("something else on the port", func(t *testing.T) {
		o := options(t, strangerAt(t, "220 mail.example.com ESMTP\r\n"))
		wantFailure(t, gateway.New(o).Login(t.Context()), loggingIn(o.URL.String(), "/auth", fault.Refused), gateway.ErrNotTLS, "port in connector.api.url")
	})
	t.Run("cut in the handshake", func(t *testing.T) {
		o := options(t, strangerAt(t, ""))
		wantFailure(t, gateway.New(o).Login(t.Context()), loggingIn(o.URL.String(), "/auth", fault.Transient), nil, "network")
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
	t.Parallel()
	for _, test := range []struct {
		name     string
		proxy    *proxy
		user     string
		password string
		class    fault.Class // "": passes
		status   int
		cause    error  // where the proxy answers to CONNECT
		remedy   string // what it names then
	}{
		{"no credentials", &proxy{}, "", "", "", 0, nil, ""},
		{"credentials", &proxy{password: proxyPassword}, proxyUser, proxyPassword, "", 0, nil, ""},
		{"credentials nobody asked for", &proxy{}, proxyUser, proxyPassword, "", 0, nil, ""},
		{"credentials missing", &proxy{password: proxyPassword}, "", "", fault.Refused, 407, gateway.ErrProxyCredentials, "proxy.username and proxy.password"},
		{"credentials wrong", &proxy{password: "other"}, proxyUser, proxyPassword, fault.Refused, 407, gateway.ErrProxyCredentials, "proxy.username and proxy.password"},
		{"refused", &proxy{status: 403}, proxyUser, proxyPassword, fault.Refused, 403, gateway.ErrProxyRefuses, "connector.api.url"},
		{"bad gateway", &proxy{status: 502}, proxyUser, proxyPassword, fault.Transient, 502, gateway.ErrProxyFailed, "connector.api.url"},
		{"gateway timeout", &proxy{status: 504}, "", "", fault.Transient, 504, gateway.ErrProxyFailed, "connector.api.url"},
		{"too many", &proxy{status: 429}, "", "", fault.Transient, 429, gateway.ErrProxyFailed, "connector.api.url"},
	} {
		for _, target := range []string{"http", "https"} {
			for _, scheme := range []string{"http", "https"} {
				t.Run(fmt.Sprintf("%s, %s through %s", test.name, target, scheme), func(t *testing.T) {
					t.Parallel()
					start := map[string]func(testing.TB, http.Handler) *httptest.Server{"http": serve, "https": serveTLS}
					g := gatewayserver.New(sandboxOptions())
					server := start[target](t, g)
					p := proxy{password: test.proxy.password, status: test.proxy.status}
					between := start[scheme](t, &p)
					o := options(t, server.URL)
					o.RootCAs = rootsOf(server, between)
					o.Proxy = proxyAt(t, between.URL, test.user, test.password)
					client := gateway.New(o)
					_, err := send(t.Context(), client)
					if test.class != "" {
						want := loggingIn(server.URL, "/auth", test.class)
						cause, remedy := test.cause, test.remedy
						if target == "http" && cause != gateway.ErrProxyCredentials { // not told apart from the gateway's answer
							cause, remedy = nil, faulttest.AnyRemedy
						}
						wantFailure(t, err, want, cause, remedy)
						if answer, is := errors.AsType[*gateway.AnswerError](err); !is || answer.Status != test.status {
							t.Errorf("answer %+v, want %d", answer, test.status)
						}
						if target == "https" {
							wantFailure(t, errors.Unwrap(err), fault.Error{Class: test.class, Op: "connect through proxy", Object: mustURL(between.URL).Host}, cause, remedy)
						}
						if len(g.Requests()) > 0 {
							t.Error("the gateway was reached")
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
	t.Parallel()
	server := serveTLS(t, http.NotFoundHandler())
	o := options(t, server.URL)
	o.Proxy = proxyAt(t, "http://"+deadAddress(t), proxyUser, proxyPassword)
	login := loggingIn(server.URL, "/auth", fault.Transient)
	wantFailure(t, gateway.New(o).Login(t.Context()), login, syscall.ECONNREFUSED, "proxy.host", "proxy.port", "firewalls")

	o.Proxy = proxyAt(t, strings.Replace(serve(t, &proxy{}).URL, "http:", "https:", 1), proxyUser, proxyPassword)
	login.Class = fault.Refused
	wantFailure(t, gateway.New(o).Login(t.Context()), login, gateway.ErrNotTLS, "service.http.proxy.scheme")

	between := serveTLS(t, &proxy{})
	o.Proxy = proxyAt(t, between.URL, proxyUser, proxyPassword)
	o.RootCAs = rootsOf()
	wantFailure(t, gateway.New(o).Login(t.Context()), login, nil, "gateway.ca-file")
}

// hole is a connection that can be made to swallow everything.
type hole struct {
	net.Conn
	dug chan struct{} // closed once nothing passes
}

func (h *hole) Write(p []byte) (int, error) {
	select {
	case <-h.dug:
		return len(p), nil
	default:
		return h.Conn.Write(p)
	}
}

// TestPings: an HTTP/2 connection that swallows everything is noticed by its pings,
// long before a call's own deadline, and the call goes over another one.
func TestPings(t *testing.T) {
	t.Parallel()
	identity := serveTLS(t, http.NotFoundHandler())
	synctest.Test(t, func(t *testing.T) {
		g := newSandbox(t, sandboxOptions())
		o := inMemory(t, &tls.Config{Certificates: identity.TLS.Certificates}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				t.Errorf("spoken %s", r.Proto)
			}
			g.ServeHTTP(w, r)
		}))
		o.RootCAs = rootsOf(identity)
		o.URL.Host = "example.com" // of httptest's certificate
		var holes []*hole
		dial := o.Dialer()
		o.Dial(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			holes = append(holes, &hole{conn, make(chan struct{})})
			return holes[len(holes)-1], err
		})
		client := gateway.New(o)
		if _, err := send(t.Context(), client); err != nil || len(holes) != 1 {
			t.Fatalf("%v over %d connections", err, len(holes))
		}
		close(holes[0].dug)
		start := time.Now()
		if _, err := send(t.Context(), client); err != nil || client.Counts().Retries != 1 || len(holes) != 2 {
			t.Errorf("%v after %d retries over %d connections", err, client.Counts().Retries, len(holes))
		}
		if took := time.Since(start); took < gateway.PingTimeout || took > 3*gateway.PingTimeout {
			t.Errorf("took %s", took)
		}
	})
}

// TestNoAnswer: a gateway that takes a request and says nothing is not waited for
// without end.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := inMemory(t, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}))
		o.RetryEvery(0)
		start := time.Now()
		wantFailure(t, gateway.New(o).Login(t.Context()), loggingIn("http://gateway.test", "/auth", fault.Transient), context.DeadlineExceeded, "platform")
		if took := time.Since(start); took != 3*gateway.HeadTimeout { // for each try
			t.Errorf("took %s", took)
		}
	})
}
