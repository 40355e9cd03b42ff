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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/handshake"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
	"adconnector/test/faulttest"
)

// rootsOf returns a pool with the certificates of the servers.
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
	t.Run("valid", func(t *testing.T) {
		o := options(t, server.URL)
		o.RootCAs = rootsOf(server)
		if _, err := send(t.Context(), gateway.New(o)); err != nil {
			t.Error(err)
		}
		if got := protocol.Load(); got != "HTTP/2.0" {
			t.Errorf("protocol %v", got)
		}
	})
	t.Run("unknown CA", func(t *testing.T) {
		o := options(t, server.URL)
		o.RootCAs = x509.NewCertPool()
		err := gateway.New(o).Login(t.Context())
		checkError(t, err, loginError(server.URL, "/auth", fault.Refused), nil, "gateway.ca-file")
		if _, ok := errors.AsType[x509.UnknownAuthorityError](err); !ok {
			t.Errorf("error %v", err)
		}
	})
	t.Run("wrong name", func(t *testing.T) {
		o := options(t, strings.Replace(server.URL, "127.0.0.1", "localhost", 1))
		o.RootCAs = rootsOf(server)
		err := gateway.New(o).Login(t.Context())
		checkError(t, err, loginError(o.URL.String(), "/auth", fault.Refused), nil, "host name in connector.api.url")
		if wrong, ok := errors.AsType[x509.HostnameError](err); !ok || wrong.Host != "localhost" {
			t.Errorf("error %v", err)
		}
	})
	t.Run("certificate that cannot be read", func(t *testing.T) {
		valid := server.TLS.Certificates[0]
		damaged := serveAs(t, g, func(damaged *httptest.Server) {
			damaged.TLS = &tls.Config{Certificates: []tls.Certificate{{
				Certificate: append(slices.Clone(valid.Certificate), []byte("no certificate")),
				PrivateKey:  valid.PrivateKey,
			}}}
			damaged.StartTLS()
		})
		o := options(t, damaged.URL)
		checkError(t, gateway.New(o).Login(t.Context()), loginError(o.URL.String(), "/auth", fault.Refused), handshake.ErrUnreadable, "P-256")
	})
	t.Run("plain HTTP on TLS port", func(t *testing.T) {
		o := options(t, strings.Replace(plain.URL, "http:", "https:", 1))
		checkError(t, gateway.New(o).Login(t.Context()), loginError(o.URL.String(), "/auth", fault.Refused), gateway.ErrNotTLS, "port in connector.api.url")
	})
	t.Run("TLS on plain HTTP port", func(t *testing.T) {
		o := options(t, strings.Replace(server.URL, "https:", "http:", 1))
		err := gateway.New(o).Login(t.Context())
		checkError(t, err, loginError(o.URL.String(), "/auth", fault.Refused), gateway.ErrUnexpected, "connector.api.url")
		checkResponseError(t, err, 400, "")
	})
	t.Run("another protocol on TLS port", func(t *testing.T) {
		o := options(t, startNonGateway(t, "220 mail.example.com ESMTP\r\n"))
		checkError(t, gateway.New(o).Login(t.Context()), loginError(o.URL.String(), "/auth", fault.Refused), gateway.ErrNotTLS, "port in connector.api.url")
	})
	t.Run("connection lost in handshake", func(t *testing.T) {
		o := options(t, startNonGateway(t, ""))
		checkError(t, gateway.New(o).Login(t.Context()), loginError(o.URL.String(), "/auth", fault.Transient), nil, "network")
	})
	for _, violation := range g.Violations() {
		t.Error(violation)
	}
}

// startNonGateway starts a server of another protocol and returns its URL. It sends a greeting
// and discards all input. With an empty greeting it closes each connection at once.
func startNonGateway(t *testing.T, greeting string) string {
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
	password string // of proxyUser; "": no credentials required
	status   int    // of all responses; 0: forward
	requests atomic.Int64
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.requests.Add(1)
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
	server, err := net.Dial("tcp", target)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = server.Close()
		return
	}
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	// Each direction ends on its own, so that what the server has sent last still arrives.
	var group sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		group.Go(func() {
			_, _ = io.Copy(to, from)
			_ = to.(interface{ CloseWrite() error }).CloseWrite()
		})
	}
	group.Wait()
	_ = client.Close()
	_ = server.Close()
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

// proxyAt returns the options for a proxy at an address.
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
		class    fault.Class // "": success
		status   int
		cause    error  // of the proxy's response to CONNECT
		remedy   string // a part of its remedy
	}{
		{"no credentials", &proxy{}, "", "", "", 0, nil, ""},
		{"credentials", &proxy{password: proxyPassword}, proxyUser, proxyPassword, "", 0, nil, ""},
		{"credentials not required", &proxy{}, proxyUser, proxyPassword, "", 0, nil, ""},
		{"credentials missing", &proxy{password: proxyPassword}, "", "", fault.Refused, 407, gateway.ErrProxyCredentials, "proxy.username and proxy.password"},
		{"credentials wrong", &proxy{password: "other"}, proxyUser, proxyPassword, fault.Refused, 407, gateway.ErrProxyCredentials, "proxy.username and proxy.password"},
		{"refused", &proxy{status: 403}, proxyUser, proxyPassword, fault.Refused, 403, gateway.ErrProxyRefuses, "connector.api.url"},
		{"bad gateway", &proxy{status: 502}, proxyUser, proxyPassword, fault.Transient, 502, gateway.ErrProxyFailed, "connector.api.url"},
		{"gateway timeout", &proxy{status: 504}, "", "", fault.Transient, 504, gateway.ErrProxyFailed, "connector.api.url"},
		{"too many requests", &proxy{status: 429}, "", "", fault.Transient, 429, gateway.ErrProxyFailed, "connector.api.url"},
	} {
		for _, target := range []string{"http", "https"} {
			for _, scheme := range []string{"http", "https"} {
				t.Run(fmt.Sprintf("%s, %s through %s", test.name, target, scheme), func(t *testing.T) {
					t.Parallel()
					start := map[string]func(testing.TB, http.Handler) *httptest.Server{"http": serve, "https": serveTLS}
					g := gatewayserver.New(sandboxOptions())
					server := start[target](t, g)
					p := proxy{password: test.proxy.password, status: test.proxy.status}
					proxyServer := start[scheme](t, &p)
					o := options(t, server.URL)
					o.RootCAs = rootsOf(server, proxyServer)
					o.Proxy = proxyAt(t, proxyServer.URL, test.user, test.password)
					client := gateway.New(o)
					_, err := send(t.Context(), client)
					if test.class != "" {
						want := loginError(server.URL, "/auth", test.class)
						cause, remedy := test.cause, test.remedy
						if target == "http" && !errors.Is(cause, gateway.ErrProxyCredentials) { // indistinguishable from the gateway's response
							cause, remedy = nil, faulttest.AnyRemedy
						}
						checkError(t, err, want, cause, remedy)
						if response, ok := errors.AsType[*gateway.ResponseError](err); !ok || response.Status != test.status {
							t.Errorf("response %+v, want %d", response, test.status)
						}
						if target == "https" {
							checkError(t, errors.Unwrap(err), fault.Error{Class: test.class, Op: "connect through proxy", Object: mustURL(proxyServer.URL).Host}, cause, remedy)
						}
						if len(g.Requests()) > 0 {
							t.Error("gateway received a request")
						}
						if test.class == fault.Refused && p.requests.Load() != 1 {
							t.Errorf("%d requests to the proxy", p.requests.Load())
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if p.requests.Load() == 0 || len(g.Groups()) != 1 || len(g.Violations()) > 0 {
						t.Errorf("%d requests to the proxy, %d groups, contract violations %q", p.requests.Load(), len(g.Groups()), g.Violations())
					}
				})
			}
		}
	}
}

func TestProxyUnreachable(t *testing.T) {
	t.Parallel()
	server := serveTLS(t, http.NotFoundHandler())
	o := options(t, server.URL)
	o.Proxy = proxyAt(t, "http://"+refusingAddress(t), proxyUser, proxyPassword)
	login := loginError(server.URL, "/auth", fault.Transient)
	checkError(t, gateway.New(o).Login(t.Context()), login, syscall.ECONNREFUSED, "proxy.host", "proxy.port", "firewalls")

	o.Proxy = proxyAt(t, strings.Replace(serve(t, &proxy{}).URL, "http:", "https:", 1), proxyUser, proxyPassword)
	login.Class = fault.Refused
	checkError(t, gateway.New(o).Login(t.Context()), login, gateway.ErrNotTLS, "service.http.proxy.scheme")

	proxyServer := serveTLS(t, &proxy{})
	o.Proxy = proxyAt(t, proxyServer.URL, proxyUser, proxyPassword)
	o.RootCAs = rootsOf()
	checkError(t, gateway.New(o).Login(t.Context()), login, nil, "gateway.ca-file")
}

// TestChangedProxyPassword checks that a password that changes is used for the next connection.
func TestChangedProxyPassword(t *testing.T) {
	t.Parallel()
	server := serveTLS(t, gatewayserver.New(sandboxOptions()))
	proxyServer := serve(t, &proxy{password: proxyPassword})
	o := options(t, server.URL)
	o.RootCAs = rootsOf(server)
	o.Proxy = proxyAt(t, proxyServer.URL, proxyUser, "")
	password := secret.NewVariable("old")
	o.Proxy.Password = password.Text()
	client := gateway.New(o)
	if err := client.Login(t.Context()); !errors.Is(err, gateway.ErrProxyCredentials) {
		t.Fatalf("error %v", err)
	}
	password.Set(proxyPassword)
	client.BeginRun()
	if err := client.Login(t.Context()); err != nil {
		t.Error(err)
	}
}

// deadConn is a connection that discards all output once it is dead.
type deadConn struct {
	net.Conn
	dead chan struct{} // closed to make the connection dead
}

func (c *deadConn) Write(p []byte) (int, error) {
	select {
	case <-c.dead:
		return len(p), nil
	default:
		return c.Conn.Write(p)
	}
}

// Pings detect a dead HTTP/2 connection long before the deadline of the request. The retry uses
// a new connection.
func TestPingsDetectDeadConnection(t *testing.T) {
	t.Parallel()
	certificateServer := serveTLS(t, http.NotFoundHandler())
	synctest.Test(t, func(t *testing.T) {
		g := newSandbox(t, sandboxOptions())
		o := serveInMemory(t, &tls.Config{Certificates: certificateServer.TLS.Certificates}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				t.Errorf("protocol %s", r.Proto)
			}
			g.ServeHTTP(w, r)
		}))
		o.RootCAs = rootsOf(certificateServer)
		o.URL.Host = "example.com" // of httptest's certificate
		var conns []*deadConn
		dial := o.Dialer()
		o.Dial(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			conns = append(conns, &deadConn{conn, make(chan struct{})})
			return conns[len(conns)-1], err
		})
		client := gateway.New(o)
		if _, err := send(t.Context(), client); err != nil || len(conns) != 1 {
			t.Fatalf("%v with %d connections", err, len(conns))
		}
		close(conns[0].dead)
		start := time.Now()
		if _, err := send(t.Context(), client); err != nil || client.Counts().Retries != 1 || len(conns) != 2 {
			t.Errorf("%v after %d retries with %d connections", err, client.Counts().Retries, len(conns))
		}
		if elapsed := time.Since(start); elapsed < gateway.PingTimeout || elapsed > 3*gateway.PingTimeout {
			t.Errorf("took %s", elapsed)
		}
	})
}

// A request without a response times out.
func TestResponseTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := serveInMemory(t, nil, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}))
		o.RetryEvery(0)
		start := time.Now()
		checkError(t, gateway.New(o).Login(t.Context()), loginError("http://gateway.test", "/auth", fault.Transient), context.DeadlineExceeded, "platform")
		if elapsed := time.Since(start); elapsed != 3*gateway.HeaderTimeout { // once per attempt
			t.Errorf("took %s", elapsed)
		}
	})
}

// TestContentOfInvalidResponses checks that no error contains a part of the response. net/http
// quotes invalid responses in its errors.
func TestContentOfInvalidResponses(t *testing.T) {
	t.Parallel()
	const content = `{"password":"` + bindPassword + `"}`
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, response := range map[string]string{
		"no HTTP":                 content + "\r\n\r\n",
		"status code":             "HTTP/1.1 " + content + " OK\r\n\r\n",
		"version":                 "HTTP/" + content + " 200 OK\r\n\r\n",
		"header without a colon":  ok + strings.ReplaceAll(content, ":", "") + "\r\n\r\n",
		"Content-Length":          ok + "Content-Length: " + content + "\r\n\r\n",
		"Transfer-Encoding":       ok + "Transfer-Encoding: " + content + "\r\n\r\n",
		"chunk size":              ok + "Transfer-Encoding: chunked\r\n\r\n" + content + "\r\n",
		"trailer":                 ok + "Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n2\r\n{}\r\n0\r\n" + strings.ReplaceAll(content, ":", "") + "\r\n\r\n",
		"invalid redirect target": "HTTP/1.1 302 Found\r\nLocation: http://a/%zz" + content + "\r\nContent-Length: 0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, afterLogin(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, response)
			}))
			o := options(t, server.URL) // checks the log
			_, err := gateway.New(o).Connection(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			noSecrets(t, "the error", err.Error())
			noSecrets(t, "the remedy", fault.Remedy(err))
		})
	}
}

// TestEchoedToken checks that no error contains the token, in whatever form the response
// repeats it.
func TestEchoedToken(t *testing.T) {
	t.Parallel()
	var escaped strings.Builder
	for _, c := range token {
		fmt.Fprintf(&escaped, `\u%04x`, c)
	}
	for name, respond := range map[string]func(w http.ResponseWriter){
		"message": func(w http.ResponseWriter) { http.Error(w, `{"message":"no `+token+`"}`, http.StatusForbidden) },
		"escaped": func(w http.ResponseWriter) {
			http.Error(w, `{"message":"no `+escaped.String()+`"}`, http.StatusForbidden)
		},
		"error": func(w http.ResponseWriter) { http.Error(w, `{"error":["`+escaped.String()+`"]}`, http.StatusNotFound) },
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://a.test/"+token+"/b")
			w.WriteHeader(http.StatusFound)
		},
		"login password": func(w http.ResponseWriter) {
			http.Error(w, `{"message":"no `+password+`"}`, http.StatusForbidden)
		},
		"connection": func(w http.ResponseWriter) {
			http.Error(w, `{"authentication":{"type":"LDAP","pass\u0077ord":"`+bindPassword+`"}}`, http.StatusInternalServerError)
		},
		"connection in a message": func(w http.ResponseWriter) {
			http.Error(w, `{"message":"invalid: {\"passWord\":\"`+bindPassword+`\"}"}`, http.StatusNotFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, afterLogin(t, func(w http.ResponseWriter, _ *http.Request) { respond(w) }))
			_, err := gateway.New(options(t, server.URL)).Connection(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			noSecrets(t, "the error", err.Error())
			if strings.Contains(err.Error(), escaped.String()[:60]) {
				t.Errorf("escaped token in %v", err)
			}
		})
	}
}

// The texts of the gateway about a batch are stored and shown. They do not contain its token, also if
// it is escaped or cut off.
func TestEchoedTokenOfBatch(t *testing.T) {
	t.Parallel()
	for name, document := range map[string]string{
		"reason":          `{"responseCode":"PARTIAL","assetsError":[{"externalAssetId":"S-1-5-21-1","message":"no ` + token + `"}]}`,
		"reason, cut off": `{"responseCode":"PARTIAL","assetsError":[{"externalAssetId":"S-1-5-21-1","message":"` + strings.Repeat("x", 280) + token + `"}]}`,
		"message":         `{"responseCode":"FAILED","message":"no ` + token + `"}`,
		"response code":   `{"responseCode":"FAILED ` + token + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status := http.StatusOK
			if strings.HasPrefix(name, "reason") {
				status = http.StatusMultiStatus
			}
			server := serve(t, afterLogin(t, respondWith(status, document)))
			got, err := gateway.New(options(t, server.URL)).Send(t.Context(), uuid.NewString(), 2, []byte(asset+","+asset))
			if err != nil || got.Outcome == gateway.Accepted {
				t.Fatalf("%+v, error %v", got, err)
			}
			text := got.Message
			for _, reason := range got.Rejected {
				text += " " + reason
			}
			if noSecrets(t, "the response", text); !strings.Contains(text, "[redacted]") {
				t.Errorf("nothing redacted in %q", text)
			}
		})
	}
}
