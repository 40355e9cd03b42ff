package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/secret"
)

// respondWithSize returns a handler with a JSON document of size bytes, with or without a
// Content-Length.
func respondWithSize(status int, document string, size int, hasLength bool) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if hasLength {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, document+strings.Repeat(" ", size-len(document)))
	}
}

// Each call accepts a response up to its limit. A larger one is not parsed.
func TestResponseLimits(t *testing.T) {
	t.Parallel()
	bare := func(o *gateway.Options) { o.Login = gateway.Login{Username: username, Password: secret.New(password)} }
	for _, test := range []struct {
		name, path, document string
		limit                int
		options              func(*gateway.Options)
		call                 func(context.Context, *gateway.Client) error
		err                  func(base string) fault.Error
	}{
		{"login", "/auth", token, gateway.MaxTokenBytes, bare, func(ctx context.Context, c *gateway.Client) error { return c.Login(ctx) },
			func(base string) fault.Error { return loginError(base, "/auth", fault.Transient) }},
		{"login at a token URL", "/oauth/token", `{"access_token":"` + token + `"}`, gateway.MaxTokenBytes,
			func(o *gateway.Options) {
				o.Login = gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: o.URL.JoinPath("/oauth/token")}
			},
			func(ctx context.Context, c *gateway.Client) error { return c.Login(ctx) },
			func(base string) fault.Error { return loginError(base, "/oauth/token", fault.Transient) }},
		{"connection", connectionPath, `{}`, gateway.MaxDocumentBytes, bare, func(ctx context.Context, c *gateway.Client) error { _, err := c.Connection(ctx); return err },
			func(string) fault.Error { return connectionError(fault.Transient) }},
		{"profile", profilePath, `{}`, gateway.MaxDocumentBytes, bare, func(ctx context.Context, c *gateway.Client) error { _, err := c.Profile(ctx); return err },
			func(string) fault.Error { return profileError(fault.Transient) }},
		{"state", statePath, `{}`, gateway.MaxStateBytes, bare, func(ctx context.Context, c *gateway.Client) error {
			return c.SetState(ctx, gateway.ConnectorState{State: "PROCESSED"})
		}, func(string) fault.Error { return stateError("PROCESSED", fault.Transient) }},
		{"assets", assetsPath, published, gateway.MaxAssetsBytes, bare, func(ctx context.Context, c *gateway.Client) error {
			_, err := c.Send(ctx, uuid.NewString(), 1, []byte(asset))
			return err
		}, func(base string) fault.Error {
			return fault.Error{Class: fault.Transient, Op: "send assets to", Object: strings.TrimPrefix(base, "http://")}
		}},
	} {
		for _, hasLength := range []bool{true, false} {
			for excess := range 2 {
				t.Run(fmt.Sprintf("%s, length %v, excess %d", test.name, hasLength, excess), func(t *testing.T) {
					respond := respondWithSize(http.StatusOK, test.document, test.limit+excess, hasLength)
					server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == test.path {
							w.Header().Set("Content-Type", "application/json")
							respond(w, r)
							return
						}
						afterLogin(t, http.NotFound).ServeHTTP(w, r)
					}))
					o := options(t, server.URL)
					test.options(&o)
					err := test.call(t.Context(), gateway.New(o))
					if excess == 0 && err != nil {
						t.Fatal(err)
					}
					if excess > 0 {
						checkError(t, err, test.err(server.URL), gateway.ErrResponseTooLarge, "proxy")
					}
				})
			}
		}
	}
}

// A batch of several objects with a larger response than the limit is sent once, and the caller
// then sends the objects one by one. A login with a too large response fails it.
func TestBatchResponseTooLarge(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusMultiStatus} {
		var requests atomic.Int64
		server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			respondWithSize(status, published, gateway.MaxAssetsBytes+1, true)(w, r)
		}))
		got, err := gateway.New(options(t, server.URL)).Send(t.Context(), uuid.NewString(), 2, []byte(asset+","+asset))
		want := gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Message: strconv.Itoa(status) + ": response too large", Unattributed: true}
		if err != nil || got.Outcome != want.Outcome || got.Message != want.Message || !got.Unattributed || len(got.Rejected) != 0 || requests.Load() != 1 {
			t.Errorf("%d: %+v, error %v, %d requests", status, got, err, requests.Load())
		}
	}
	server := serve(t, respondWithSize(http.StatusCreated, token, gateway.MaxTokenBytes+1, true))
	_, err := gateway.New(options(t, server.URL)).Send(t.Context(), uuid.NewString(), 2, []byte(asset+","+asset))
	checkError(t, err, loginError(server.URL, "/auth", fault.Transient), gateway.ErrResponseTooLarge, "proxy")
}

// peakHeap returns by how much the heap grows during a function. It collects garbage often, so
// that the result is close to the memory in use.
func peakHeap(f func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, peak := m.HeapAlloc, m.HeapAlloc
	done := make(chan struct{})
	var sampling sync.WaitGroup
	sampling.Go(func() {
		ticker := time.NewTicker(200 * time.Microsecond)
		defer ticker.Stop()
		for {
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc)
			select {
			case <-done:
				return
			case <-ticker.C:
			}
		}
	})
	f()
	close(done)
	sampling.Wait()
	return peak - min(before, peak)
}

// A hostile response does not use more memory than several times its limit. The test is not
// parallel, because it measures the heap.
func TestMemoryOfHostileResponses(t *testing.T) {
	const size, objects = 16 << 20, 500
	const limit = gateway.MaxAssetsBytes
	const success = `{"responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":`
	fill := func(begin, item, end string, size int) []byte {
		return []byte(begin + strings.Repeat(item+",", (size-len(begin)-len(end))/(len(item)+1)-1) + item + end)
	}
	for _, test := range []struct {
		name   string
		status int
		body   []byte
		want   gateway.BatchResponse
		cause  error // nil: want
	}{
		{"assetsError of empty objects, 16 MiB", 200, fill(success+`[`, `{}`, `]}`, size), gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Unattributed: true}, nil},
		{"assetsError of empty objects", 200, fill(success+`[`, `{}`, `]}`, limit), gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Unattributed: true}, nil},
		{"assetsError of nested lists", 200, fill(success+`{"a":[`, `[[]]`, `]}}`, limit), gateway.BatchResponse{Outcome: gateway.PartlyAccepted}, nil},
		{"assetsError of one large object", 200, fill(success+`{"a":{"b":[`, `{}`, `]}}}`, limit), gateway.BatchResponse{Outcome: gateway.PartlyAccepted}, nil},
		{"assetsError of many fields", 200, fill(success+`[{`, `"":0`, `}]}`, limit), gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Unattributed: true}, nil},
		{"assetsError of items of one object", 200, fill(success+`[`, `{"id":"a"}`, `]}`, limit), gateway.BatchResponse{Outcome: gateway.PartlyAccepted}, nil},
		{"error of empty objects, 16 MiB", 400, fill(`{"error":[`, `{}`, `]}`, size), gateway.BatchResponse{Outcome: gateway.Rejected}, nil},
		{"error of empty objects", 400, fill(`{"error":[`, `{}`, `]}`, gateway.MaxErrorBytes), gateway.BatchResponse{Outcome: gateway.Rejected}, nil},
		{"text of an error, 16 MiB", 500, bytes.Repeat([]byte("a "), size/2), gateway.BatchResponse{}, gateway.ErrGatewayFailed},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, afterLogin(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				for chunk := test.body; len(chunk) > 0; {
					n, err := w.Write(chunk[:min(len(chunk), 4096)])
					if err != nil {
						return
					}
					chunk = chunk[n:]
				}
			}))
			client := gateway.New(options(t, server.URL))
			if err := client.Login(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got gateway.BatchResponse
			var err error
			start := time.Now()
			peak := peakHeap(func() { got, err = client.Send(t.Context(), uuid.NewString(), objects, []byte(asset)) })
			t.Logf("peak %.1f MiB, %s", float64(peak)/(1<<20), time.Since(start).Round(time.Millisecond))
			if peak > 12*limit { // the body, copies of its parts, and the garbage that arises during a collection
				t.Errorf("peak of %d bytes", peak)
			}
			if !errors.Is(err, test.cause) || got.Outcome != test.want.Outcome || got.Unattributed != test.want.Unattributed {
				t.Errorf("%+v, %v", got.Outcome, err)
			}
		})
	}
}

// The request on a connection that the server has closed is sent again on a new one, without
// an attempt of its own: the transport replays requests with an Idempotency-Key.
func TestReplayOnClosedConnection(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var bodies [][]byte
	server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		bodies = append(bodies, append([]byte(r.Header.Get("Idempotency-Key")), body...))
		n := len(bodies)
		mu.Unlock()
		if n == 2 { // on the connection of the first batch
			panic(http.ErrAbortHandler)
		}
		respondWith(http.StatusOK, published)(w, r)
	}))
	client := gateway.New(options(t, server.URL))
	for range 2 {
		if batch, err := send(t.Context(), client); err != nil || batch.Outcome != gateway.Accepted {
			t.Fatalf("%+v, %v", batch, err)
		}
	}
	if len(bodies) != 3 || !bytes.Equal(bodies[1], bodies[2]) || client.Counts().Retries != 0 {
		t.Errorf("%d requests, %d retries\n%s", len(bodies), client.Counts().Retries, bytes.Join(bodies, []byte("\n")))
	}
}

// stalledConn is a connection whose writes stall once it is armed, except for the first. They
// succeed when resume is closed, even if the connection is closed by then.
type stalledConn struct {
	net.Conn
	armed  atomic.Bool
	resume chan struct{}

	mu     sync.Mutex
	writes int
	late   []byte // written after resume
}

func (c *stalledConn) Write(p []byte) (int, error) {
	if !c.armed.Load() {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	c.writes++
	first := c.writes == 1
	c.mu.Unlock()
	if first {
		return c.Conn.Write(p)
	}
	<-c.resume
	c.mu.Lock()
	defer c.mu.Unlock()
	c.late = append(c.late, p...)
	return len(p), nil
}

// After Send returns, nothing reads the assets, so that the caller can reuse their buffer. The
// server responds before it has read the request, and the transport still writes it.
func TestReuseOfAssets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := serveInMemory(t, nil, afterLogin(t, func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 413 Request Entity Too Large\r\nContent-Length: 2\r\n\r\nno")
			_, _ = io.Copy(io.Discard, conn) // until the client closes the connection
			_ = conn.Close()
		}))
		dial := o.Dialer()
		conn := &stalledConn{resume: make(chan struct{})}
		o.Dial(func(ctx context.Context, network, address string) (_ net.Conn, err error) {
			conn.Conn, err = dial(ctx, network, address)
			return conn, err
		})
		client := gateway.New(o)
		if err := client.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn.armed.Store(true)
		assets := bytes.Repeat([]byte("a"), 1<<20)
		batch, err := client.Send(t.Context(), uuid.NewString(), 1, assets)
		if err != nil || batch.Outcome != gateway.TooLarge {
			t.Errorf("%+v, %v", batch, err)
		}
		for i := range assets {
			assets[i] = '#'
		}
		close(conn.resume)
		synctest.Wait()
		conn.mu.Lock()
		defer conn.mu.Unlock()
		if len(conn.late) == 0 || bytes.Contains(conn.late, []byte("#")) {
			t.Errorf("%d late bytes, with reused ones: %v", len(conn.late), bytes.Contains(conn.late, []byte("#")))
		}
	})
}
