package webserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/loopback"
)

func TestCheckHost(t *testing.T) {
	t.Parallel()
	var refused string
	h := CheckHost(loopback.Contains, func(w http.ResponseWriter, host string) {
		refused = host
		Misdirected(w, "no")
	}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for host, want := range map[string]int{
		"127.0.0.1:8080": 200, "127.0.0.2": 200, "localhost:8080": 200, "LOCALHOST": 200, "localhost.": 200, "localhost.:8080": 200, "[::1]:8080": 200, "[::1]": 200,
		"10.0.0.7:8080": 421, "0.0.0.0": 421, "evil.example.com": 421, "127.0.0.1.example.com": 421, "localhost.example.com": 421, "": 421,
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("host %q: status %d, want %d", host, w.Code, want)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Host = "evil.example.com.:8080"
	if h.ServeHTTP(httptest.NewRecorder(), r); refused != "evil.example.com" {
		t.Errorf("refused %q", refused)
	}
	if !IsAddress("10.0.0.7") || !IsAddress("localhost") || IsAddress("evil.example.com") || IsAddress("") {
		t.Error("IsAddress")
	}
}

// server is a server whose paths are /healthz and the rendered /large.
func server(t *testing.T, size int) (address string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	body := []byte(strings.Repeat("x", size))
	mux.Handle("GET /large", NewRenderer().Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })))
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := Serve(ctx, listener, mux); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { stop(); serving.Wait() })
	return listener.Addr().String()
}

// get requests a path in a new connection, and returns an error unless the status is 200.
func get(address, path string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + path)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}

// dial opens a connection with a small receive buffer and sends text.
func dial(t *testing.T, address, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	_, _ = io.WriteString(conn, text) // an error if it was already closed
	return conn
}

// TestOccupiedConnections checks that requests are served while clients hold more connections
// than the limit, whatever they do with them.
func TestOccupiedConnections(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"without request": "", "incomplete request": "GET /healthz HTTP/1.1\r\nHost: x", "after a request": "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"not reading": "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := server(t, 1<<20)
			for n := range 3 * maxConnections {
				dial(t, address, text)
				if n%maxConnections == maxConnections-1 {
					for _, path := range []string{"/healthz", "/large"} {
						if err := get(address, path); err != nil {
							t.Errorf("%s after %d connections: %v", path, n+1, err)
						}
					}
				}
			}
		})
	}
}

// TestMemoryOfSlowClients checks that clients that do not read large responses do not hold
// more than the limit of bytes.
func TestMemoryOfSlowClients(t *testing.T) { // not parallel: it measures the heap
	address := server(t, 4<<20)
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, peak := heap(), uint64(0)
	for n := range maxConnections {
		dial(t, address, "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if n%8 == 7 {
			if err := get(address, "/healthz"); err != nil {
				t.Error(err)
			}
			peak = max(peak, heap())
		}
	}
	// Buffers grow by doubling: one of 4 MiB can take 8 MiB, and up to 16 MiB while it grows.
	// Others are being rendered. Without the limit, 64 responses take 256 MiB or more.
	if used := int64(peak) - int64(before); used > 2*maxPending+96<<20 {
		t.Errorf("%d MiB for slow clients", used>>20)
	}
}

// TestLimiter checks which connection is closed, and when.
func TestLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(nil, 3)
		conns := make([]net.Conn, 5)
		for n := range conns {
			conns[n], _ = net.Pipe()
		}
		expect := func(step string, victim net.Conn, wait time.Duration) {
			t.Helper()
			if v, w := l.victim(time.Now(), time.Now()); v != victim || w != wait {
				t.Errorf("%s: victim %v, wait %s, want %v, %s", step, v, w, victim, wait)
			}
		}
		for n := range 3 {
			expect("below the limit", nil, 0)
			l.track(conns[n], http.StateNew)
			time.Sleep(time.Millisecond)
		}
		expect("all new", nil, minWaiting-3*time.Millisecond)
		l.track(conns[0], http.StateActive)
		expect("the oldest has a request", nil, minWaiting-2*time.Millisecond)
		time.Sleep(minWaiting)
		expect("all old", conns[1], 0)
		expect("one closed", nil, 0)
		l.track(conns[1], http.StateIdle) // too late
		l.track(conns[3], http.StateNew)
		l.track(conns[2], http.StateActive)
		l.track(conns[3], http.StateActive)
		expect("only requests", nil, minActive-minWaiting)
		time.Sleep(minActive)
		expect("only old requests", conns[0], 0)
		l.track(conns[2], http.StateClosed)
		l.track(conns[1], http.StateClosed)
		l.track(conns[4], http.StateNew)
		expect("closed by the server", nil, 0)
	})
}

// oneConnection is a listener with one connection.
type oneConnection struct {
	net.Listener

	conn net.Conn
}

func (l oneConnection) Accept() (net.Conn, error) { return l.conn, nil }

// pipeListener is a listener whose connections are pipes.
type pipeListener struct {
	net.Listener

	conns chan net.Conn
}

func (l pipeListener) Accept() (net.Conn, error) {
	conn, open := <-l.conns
	if !open {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l pipeListener) Close() error { return nil }

// TestSlowClients checks that a client is disconnected that does not complete its request, does not
// read its response, or sends no further request.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, test := range map[string]struct {
		text string
		read int // bytes of the response
		want time.Duration
	}{
		"incomplete header":  {request[:20], 0, 13 * time.Second}, // the client does not read the error either
		"response not read":  {request, 0, 10 * time.Second},
		"response half read": {request, 1000, 10 * time.Second},
		"no request":         {"", 0, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := pipeListener{conns: make(chan net.Conn)}
				ctx, stop := context.WithCancel(t.Context())
				var serving sync.WaitGroup
				serving.Go(func() {
					_ = Serve(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }))
				})
				client, conn := net.Pipe()
				closed := make(chan struct{})
				l.conns <- &noticedConn{conn, sync.OnceFunc(func() { close(closed) })}
				start := time.Now()
				if _, err := io.WriteString(client, test.text); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(client, make([]byte, test.read)); err != nil {
					t.Fatal(err)
				}
				<-closed
				if after := time.Since(start).Round(time.Second); after != test.want {
					t.Errorf("disconnected after %s, want %s", after, test.want)
				}
				stop()
				close(l.conns)
				serving.Wait()
			})
		})
	}
}

// noticedConn is a connection that calls a function when it is closed.
type noticedConn struct {
	net.Conn

	onClose func()
}

func (c *noticedConn) Close() error {
	c.onClose()
	return c.Conn.Close()
}

// TestBusyConnections checks that a new connection waits for a bounded time while no other one
// is idle for long, and that it then replaces the one that was accepted first.
func TestBusyConnections(t *testing.T) {
	t.Parallel()
	for name, active := range map[string]bool{"waiting for requests": false, "with requests": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				conns := make([]net.Conn, 4)
				for n := range conns {
					conns[n], _ = net.Pipe()
				}
				l := newLimiter(oneConnection{conn: conns[3]}, 3)
				for _, conn := range conns[:3] {
					l.track(conn, http.StateNew)
					time.Sleep(time.Millisecond)
				}
				done := make(chan struct{})
				var clients sync.WaitGroup
				clients.Go(func() {
					for {
						for _, conn := range slices.Backward(conns[:3]) {
							l.track(conn, http.StateIdle)
							if active {
								l.track(conn, http.StateActive)
							}
							time.Sleep(time.Millisecond)
						}
						select {
						case <-done:
							return
						case <-time.After(minWaiting / 2):
						}
					}
				})
				synctest.Wait()
				start := time.Now()
				accepted, err := l.Accept()
				if err != nil || accepted != conns[3] || time.Since(start) != maxAcceptWait {
					t.Errorf("connection %v after %s, %v", accepted, time.Since(start), err)
				}
				close(done)
				clients.Wait()
				for n, conn := range conns[:3] {
					if _, open := l.connections[conn]; open != (n > 0) {
						t.Errorf("connection %d open: %t", n, open)
					}
				}
				if err := conns[0].SetDeadline(time.Time{}); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("connection 0 is not closed: %v", err)
				}
			})
		})
	}
}

// TestSlots checks that a request waits for a slot, and is refused after a time.
func TestSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := NewRenderer().Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-release
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, "text")
		}))
		results := make(chan *httptest.ResponseRecorder)
		request := func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			results <- w
		}
		for range maxRendering + 1 {
			go request()
		}
		start := time.Now()
		if w := <-results; w.Code != 503 || time.Since(start) != slotTimeout {
			t.Errorf("status %d after %s", w.Code, time.Since(start))
		}
		go request()
		synctest.Wait()
		close(release)
		for range maxRendering + 1 {
			if w := <-results; w.Code != http.StatusTeapot || w.Body.String() != "text" || w.Header().Get("Content-Length") != "4" {
				t.Errorf("status %d, %q, %v", w.Code, w.Body, w.Header())
			}
		}
	})
}

func TestTooLargeResponse(t *testing.T) {
	t.Parallel()
	h := NewRenderer().Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range maxResponse>>20 + 1 {
			_, _ = w.Write(make([]byte, 1<<20))
		}
	}))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 500 || w.Body.Len() > 100 {
		t.Errorf("status %d, %d bytes", w.Code, w.Body.Len())
	}
}
