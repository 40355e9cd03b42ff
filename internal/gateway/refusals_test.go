package gateway_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/test/faulttest"
)

// busyGateway is a gateway that processes a number of batches at a time, each in a second. It
// refuses others.
type busyGateway struct {
	allowed int
	headers []string // of a refusal

	mu       sync.Mutex
	inFlight int
	refused  []time.Time
	accepted []time.Time
}

func (b *busyGateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	if b.inFlight >= b.allowed {
		b.refused = append(b.refused, time.Now())
		b.mu.Unlock()
		limited(http.StatusConflict, b.headers...)(w, r)
		return
	}
	b.inFlight++
	b.mu.Unlock()
	<-time.After(time.Second) // in synctest's fake time
	b.mu.Lock()
	b.inFlight--
	b.accepted = append(b.accepted, time.Now())
	b.mu.Unlock()
	respondWith(http.StatusAccepted, published)(w, r)
}

// After refusals, the number of concurrent calls shrinks to the limit of the gateway, or by half
// without one, and the other calls do not wait.
func TestConcurrencyLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		headers []string
		want    int // workers
		refused int // at most
	}{
		{"limit", []string{"X-Concurrency-Limit-Limit", "2", "X-RateLimit-ToWait-Sec", "0", "X-RateLimit-Remaining", "250"}, 2, 23},
		{"other spelling", []string{"X-ConcurrencyLimit-Limit", "2"}, 2, 23},
		{"no number", []string{"X-Concurrency-Limit-Limit", ""}, 0, 60},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				busy := &busyGateway{allowed: 2, headers: test.headers}
				o := serveInMemory(t, nil, afterLogin(t, busy.ServeHTTP))
				log := &syncBuffer{}
				o.Connections, o.Log = 25, zerolog.New(log)
				var recorded []gateway.ConcurrencyLimit
				o.OnConcurrencyLimit = func(limit gateway.ConcurrencyLimit) error {
					recorded = append(recorded, limit)
					return nil
				}
				client := gateway.New(o)
				start := time.Now()
				for _, err := range concurrently(25, func() error {
					for range 4 {
						if _, err := send(t.Context(), client); err != nil {
							return err
						}
					}
					return nil
				}) {
					if err != nil {
						t.Fatal(err)
					}
				}
				workers := client.AllowedWorkers()
				if workers < 1 || workers > 2 || test.want != 0 && workers != test.want {
					t.Errorf("%d workers", workers)
				}
				if len(busy.accepted) != 100 || len(busy.refused) > test.refused {
					t.Errorf("%d accepted, %d refused", len(busy.accepted), len(busy.refused))
				}
				counts := client.Counts()
				if int(counts.Refused) != len(busy.refused) || counts.Limited != 0 || counts.Retries != 0 {
					t.Errorf("%+v, %d refused", counts, len(busy.refused))
				}
				// Half of the allowed calls may have been in use on average, after the first ones.
				if elapsed := time.Since(start); elapsed > 110*time.Second {
					t.Errorf("took %s", elapsed)
				}
				if !client.LimitedUntil().IsZero() {
					t.Error("rate limited")
				}
				if len(recorded) == 0 || recorded[len(recorded)-1].Calls != workers {
					t.Errorf("recorded %v", recorded)
				}
				reductions := 0
				for _, line := range log.lines(t) {
					if line["message"] == gateway.MsgWorkersReduced {
						reductions++
					}
				}
				if reductions == 0 || reductions > 5 {
					t.Errorf("%d reductions logged", reductions)
				}
			})
		})
	}
}

// A refused call is sent again after one to two seconds. The other calls go on.
func TestOthersContinueAfterRefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var times []time.Time
		o := serveInMemory(t, nil, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			times = append(times, time.Now())
			first := len(times) == 1
			mu.Unlock()
			if first {
				limited(http.StatusTooManyRequests, "X-Concurrency-Limit-Limit", "5")(w, r)
				return
			}
			respondWith(http.StatusOK, published)(w, r)
		}))
		client := gateway.New(o)
		start := time.Now()
		var refused sync.WaitGroup
		refused.Go(func() {
			if _, err := send(t.Context(), client); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait() // until the refused call waits
		if _, err := send(t.Context(), client); err != nil {
			t.Error(err)
		}
		if elapsed := time.Since(start); elapsed != 0 {
			t.Errorf("another call took %s", elapsed)
		}
		refused.Wait()
		if waited := times[2].Sub(times[0]); len(times) != 3 || waited < time.Second || waited > 2*time.Second {
			t.Errorf("waited %s, %d requests", waited, len(times))
		}
	})
}

// A canceled context ends the wait for a refused call, and the wait for the end of another call.
func TestStopDuringConcurrencyLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := &busyGateway{allowed: 0, headers: []string{"X-Concurrency-Limit-Limit", "1"}}
		client := gateway.New(serveInMemory(t, nil, afterLogin(t, busy.ServeHTTP)))
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				_, err := send(ctx, client)
				checkError(t, err, sendTestError(fault.Canceled), context.Canceled)
			})
		}
		synctest.Wait()
		cancel()
		group.Wait()
		if elapsed := time.Since(start); elapsed != 0 {
			t.Errorf("took %s", elapsed)
		}
	})
}

// A call that is always refused fails as transient, after retries with their budget.
func TestAlwaysRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := &busyGateway{allowed: 0, headers: []string{"X-Concurrency-Limit-Limit", "50"}}
		o := serveInMemory(t, nil, afterLogin(t, busy.ServeHTTP))
		log := &syncBuffer{}
		o.Log = zerolog.New(log)
		client := gateway.New(o)
		start := time.Now()
		_, err := send(t.Context(), client)
		checkError(t, err, sendTestError(fault.Transient), gateway.ErrTooManyCalls, "subscription", "limit")
		if elapsed := time.Since(start); elapsed < time.Minute || elapsed > 5*time.Minute {
			t.Errorf("failed after %s", elapsed)
		}
		// The first refusal, and one a minute, although the limit does not change any more.
		lines := slices.DeleteFunc(log.lines(t), func(line map[string]any) bool { return line["message"] != gateway.MsgCallRefused })
		if len(lines) < 2 || len(lines) > 6 || lines[0]["workers"] != 20.0 {
			t.Errorf("logged %v", lines)
		}
		if client.AllowedWorkers() != 1 {
			t.Errorf("%d workers with a number that is too high", client.AllowedWorkers())
		}
	})
}

// A call whose deadline passes while it is refused fails with the refusal.
func TestRefusedUntilDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busy := &busyGateway{allowed: 0, headers: []string{"X-Concurrency-Limit-Limit", "2"}}
		client := gateway.New(serveInMemory(t, nil, afterLogin(t, busy.ServeHTTP)))
		start := time.Now()
		err := client.SetState(t.Context(), gateway.ConnectorState{State: "PROCESSED"})
		checkError(t, err, stateError("PROCESSED", fault.Transient), gateway.ErrTooManyCalls, "subscription")
		if elapsed := time.Since(start); elapsed != 5*time.Second {
			t.Errorf("took %s", elapsed)
		}
	})
}

// A recorded limit applies from the start. Each hour without a refusal raises it by one at the
// start of a run, until all workers are allowed. Each raise is recorded, also that of a limit of an
// earlier process.
func TestRestoreConcurrencyLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var recorded []gateway.ConcurrencyLimit
		o := serveInMemory(t, nil, http.NotFoundHandler())
		o.Connections = 5
		o.OnConcurrencyLimit = func(limit gateway.ConcurrencyLimit) error {
			recorded = append(recorded, limit)
			return errors.New("disk full") // is logged
		}
		client := gateway.New(o)
		now := time.Now()
		for _, limit := range []gateway.ConcurrencyLimit{{NotedAt: now.Add(time.Minute), Calls: 1}, {}} {
			client.RestoreConcurrencyLimit(limit)
			if got := client.AllowedWorkers(); got != 5 {
				t.Errorf("%+v: %d workers", limit, got)
			}
		}
		client.RestoreConcurrencyLimit(gateway.ConcurrencyLimit{NotedAt: now.Add(-30 * time.Minute), Calls: 2})
		if len(recorded) != 0 {
			t.Errorf("recorded %v", recorded)
		}
		for _, step := range []struct {
			pause time.Duration
			want  int
		}{{0, 2}, {29 * time.Minute, 2}, {time.Minute, 3}, {59 * time.Minute, 3}, {time.Minute, 4}, {time.Hour, 5}} {
			<-time.After(step.pause)
			client.BeginRun()
			if got := client.AllowedWorkers(); got != step.want {
				t.Errorf("after %s: %d workers, want %d", time.Since(now), got, step.want)
			}
		}
		calls := make([]int, len(recorded))
		for i, limit := range recorded {
			calls[i] = limit.Calls
		}
		if !slices.Equal(calls, []int{3, 4, 0}) {
			t.Errorf("recorded %v", calls)
		}

		for _, old := range []gateway.ConcurrencyLimit{{NotedAt: now.Add(-2 * time.Hour), Calls: 2}, {NotedAt: now.Add(-time.Minute), Calls: 7}} {
			recorded = nil
			client := gateway.New(o)
			client.RestoreConcurrencyLimit(old)
			if got, want := client.AllowedWorkers(), min(old.Calls, 5); got != want {
				t.Errorf("restored %+v: %d workers, want %d", old, got, want)
			}
			client.BeginRun()
			if len(recorded) != 1 || recorded[0].Calls != 0 || client.AllowedWorkers() != 5 {
				t.Errorf("restored %+v: recorded %v, %d workers", old, recorded, client.AllowedWorkers())
			}
		}
	})
}

// A failed call is retried after Retry-After, if that is within the time for all retries.
func TestRetryAfterOnServerError(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		status  int
		headers []string
		waits   []time.Duration // between the requests; an error if the last one is negative
	}{
		{"503, seconds", 503, []string{"Retry-After", "7"}, []time.Duration{7 * time.Second, 7 * time.Second}},
		{"503, fraction", 503, []string{"Retry-After", "1.5"}, []time.Duration{1500 * time.Millisecond, 1500 * time.Millisecond}},
		{"503, date", 503, []string{"Date", "Sun, 22 Nov 2026 10:00:00 GMT", "Retry-After", "Sun, 22 Nov 2026 10:00:30 GMT"}, []time.Duration{30 * time.Second, 30 * time.Second}},
		{"500", 500, []string{"Retry-After", "2"}, []time.Duration{2 * time.Second, 2 * time.Second}},
		{"408", 408, []string{"Retry-After", "2"}, []time.Duration{2 * time.Second, 2 * time.Second}},
		{"0", 503, []string{"Retry-After", "0"}, []time.Duration{time.Millisecond, time.Millisecond}},
		{"invalid", 503, []string{"Retry-After", "-7"}, []time.Duration{time.Millisecond, time.Millisecond}},
		{"too long together", 503, []string{"Retry-After", "200"}, []time.Duration{200 * time.Second, -1}},
		{"an hour", 503, []string{"Retry-After", "3600"}, []time.Duration{-1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var times []time.Time
				o := serveInMemory(t, nil, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
					times = append(times, time.Now())
					if len(times) <= 2 {
						limited(test.status, test.headers...)(w, r)
						return
					}
					respondWith(http.StatusOK, published)(w, r)
				}))
				_, err := send(t.Context(), gateway.New(o))
				for i, want := range test.waits {
					if want < 0 {
						checkError(t, err, sendTestError(fault.Transient), gateway.ErrWaitTooLong, "platform")
						if len(times) != i+1 {
							t.Errorf("%d requests", len(times))
						}
						return
					}
					if len(times) < i+2 || times[i+1].Sub(times[i]) != want {
						t.Fatalf("requests at %v, want a wait of %s, error %v", times, want, err)
					}
				}
				if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A call whose deadline is before the end of Retry-After fails at once.
func TestRetryAfterPastDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := serveInMemory(t, nil, afterLogin(t, limited(503, "Retry-After", "10")))
		start := time.Now()
		err := gateway.New(o).SetState(t.Context(), gateway.ConnectorState{State: "PROCESSED"})
		checkError(t, err, stateError("PROCESSED", fault.Transient), gateway.ErrWaitTooLong, "platform")
		if elapsed := time.Since(start); elapsed != 0 {
			t.Errorf("took %s", elapsed)
		}
	})
}

// checkLostBatch checks the outcome of a batch that gets no response, and after how many requests. want
// 0 is an error of class Transient.
func checkLostBatch(t *testing.T, handler http.Handler, count int, assets []byte, requests int, want gateway.Outcome) {
	t.Helper()
	client := gateway.New(serveInMemory(t, nil, handler))
	if err := client.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	logins := client.Counts().Requests
	batch, err := client.Send(t.Context(), uuid.NewString(), count, assets)
	if want == 0 {
		checkError(t, err, sendTestError(fault.Transient), nil, faulttest.AnyRemedy)
	} else if err != nil || batch.Outcome != want {
		t.Errorf("%+v, %v", batch, err)
	}
	if sent := client.Counts().Requests - logins; int(sent) != requests {
		t.Errorf("%d requests, want %d", sent, requests)
	}
}

// A batch of several objects is sent in parts after two timeouts. A single object is retried.
func TestTimedOutBatch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		handler  func(t *testing.T) http.Handler
		count    int
		requests int
		want     gateway.Outcome
	}{
		{"no response", neverRespondToAssets, 2, 2, gateway.Unfinished},
		{"408", func(t *testing.T) http.Handler { return afterLogin(t, respondWith(http.StatusRequestTimeout, "")) }, 2, 2, gateway.Unfinished},
		{"endless body", func(t *testing.T) http.Handler {
			return afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, published)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
		}, 2, 6, 0}, // the request was sent in time
		{"single object", neverRespondToAssets, 1, 6, 0},
		{"reset", func(t *testing.T) http.Handler {
			return afterLogin(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		}, 2, 6, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				assets := strings.Repeat(","+asset, test.count)[1:]
				checkLostBatch(t, test.handler(t), test.count, []byte(assets), test.requests, test.want)
			})
		})
	}
}

// A load balancer can assign a connection to the wrong server, which refuses every request on it with
// 421. The same call then succeeds on another connection.
func TestMisdirectedConnection(t *testing.T) {
	t.Parallel()
	var misdirected sync.Map // address of the client
	var refused atomic.Int32
	server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
		if refused.Load() == 0 {
			misdirected.Store(r.RemoteAddr, true)
		}
		if _, is := misdirected.Load(r.RemoteAddr); is {
			refused.Add(1)
			respondWith(http.StatusMisdirectedRequest, "")(w, r)
			return
		}
		respondWith(http.StatusAccepted, published)(w, r)
	}))
	batch, err := send(t.Context(), gateway.New(options(t, server.URL)))
	if n := refused.Load(); err != nil || batch.Outcome != gateway.Accepted || n != 1 {
		t.Errorf("%+v, %v, refused %d times", batch, err, n)
	}
}

// A server can refuse the size of a request by closing the connection, without a response or before
// the client reads it.
func TestConnectionOfLargeRequestLost(t *testing.T) {
	t.Parallel()
	const envelope = 1000 // at least
	for _, test := range []struct {
		name     string
		size     int
		read     int64 // by the server
		count    int
		requests int
		want     gateway.Outcome
	}{
		{"several objects, partly read", 1 << 20, 1000, 2, 2, gateway.Unfinished},
		{"several objects, read", 1 << 20, 1 << 30, 2, 2, gateway.Unfinished},
		{"single object", 1 << 20, 1000, 1, 6, 0},
		{"smallest size", gateway.MinRefusedSize, 1 << 30, 2, 2, gateway.Unfinished},
		{"smaller", gateway.MinRefusedSize - envelope, 1 << 30, 2, 6, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				handler := afterLogin(t, func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.CopyN(io.Discard, r.Body, test.read)
					panic(http.ErrAbortHandler)
				})
				checkLostBatch(t, handler, test.count, bytes.Repeat([]byte(" "), test.size), test.requests, test.want)
			})
		})
	}
}

// The limit of open files is not a fault of the network or the gateway.
func TestTooManyOpenFiles(t *testing.T) {
	t.Parallel()
	o := options(t, "https://gateway.test")
	o.Dial(func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	})
	err := gateway.New(o).Login(t.Context())
	checkError(t, err, fault.Error{Class: fault.Transient, Op: "log in at", Object: o.URL.String() + "/auth"}, syscall.EMFILE, "ulimit -n")
}

// A server may send informational responses before the final one (RFC 9110 15.2), and may announce
// after any response that it closes the connection: over HTTP/2 by GOAWAY.
func TestInformationalResponses(t *testing.T) {
	t.Parallel()
	handler := func(t *testing.T) http.Handler {
		return afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
			for range 3 {
				w.Header().Set("Link", "</style.css>; rel=preload")
				w.WriteHeader(http.StatusEarlyHints)
				w.WriteHeader(http.StatusProcessing)
			}
			w.Header().Set("Connection", "close")
			respondWith(http.StatusAccepted, published)(w, r)
		})
	}
	for name, server := range map[string]*httptest.Server{"HTTP/1.1": serve(t, handler(t)), "HTTP/2": serveTLS(t, handler(t))} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, server.URL)
			if server.TLS != nil {
				o.RootCAs = x509.NewCertPool()
				o.RootCAs.AddCert(server.Certificate())
			}
			client := gateway.New(o)
			var calls errgroup.Group
			for range 20 {
				calls.Go(func() error {
					batch, err := send(t.Context(), client)
					if err == nil && batch.Outcome != gateway.Accepted {
						t.Errorf("%+v", batch)
					}
					return err
				})
			}
			if err := calls.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A timeout while connecting does not make batches smaller.
func TestTimeoutToConnect(t *testing.T) {
	t.Parallel()
	server := serve(t, afterLogin(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	o := options(t, server.URL)
	var connected atomic.Bool
	o.Dial(func(ctx context.Context, network, address string) (net.Conn, error) {
		if connected.Swap(true) {
			return nil, os.ErrDeadlineExceeded // like a timeout of the TLS handshake
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	})
	_, err := gateway.New(o).Send(t.Context(), uuid.NewString(), 2, []byte(asset+","+asset))
	checkError(t, err, sendError(o, fault.Transient), os.ErrDeadlineExceeded, faulttest.AnyRemedy)
}

// Halving counts against the retry budget, so that a run ends if the gateway never responds.
func TestTimedOutBatchesExhaustBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := serveInMemory(t, nil, neverRespondToAssets(t))
		o.Connections = 1
		client := gateway.New(o)
		for batches := range 50 {
			batch, err := client.Send(t.Context(), uuid.NewString(), 2, []byte(asset+","+asset))
			if err != nil {
				checkError(t, err, sendTestError(fault.Transient), gateway.ErrBudgetExhausted, faulttest.AnyRemedy)
				if batches < 9 { // a batch of 500 objects is halved nine times
					t.Errorf("failed after %d batches", batches)
				}
				return
			}
			if batch.Outcome != gateway.Unfinished {
				t.Fatalf("%+v", batch)
			}
		}
		t.Error("budget not exhausted")
	})
}

// A response in an encoding that was not requested does not confirm a batch.
func TestUnsupportedEncoding(t *testing.T) {
	t.Parallel()
	server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
		limited(http.StatusOK, "Content-Encoding", "deflate")(w, r)
	}))
	o := options(t, server.URL)
	if batch, err := send(t.Context(), gateway.New(o)); err != nil || batch.Outcome != gateway.Accepted {
		t.Errorf("JSON despite the header: %+v, %v", batch, err)
	}
	server = serve(t, afterLogin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "deflate")
		respondWith(http.StatusOK, "\x4b\x4c")(w, nil)
	}))
	o = options(t, server.URL)
	_, err := send(t.Context(), gateway.New(o))
	checkError(t, err, sendError(o, fault.Transient), gateway.ErrNoProof, "proxy")
	checkResponseError(t, err, http.StatusOK, "unsupported Content-Encoding")
}

// neverRespondToAssets returns a gateway that responds to logins only.
func neverRespondToAssets(t *testing.T) http.Handler {
	return afterLogin(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
}

// Successful responses are accepted with a byte order mark, white space, any media type, and any
// status from 200 to 299 that has the responseCode.
func TestFormsOfSuccess(t *testing.T) {
	t.Parallel()
	utf16 := "\xff\xfe"
	for _, char := range []byte(published) {
		utf16 += string([]byte{char, 0})
	}
	for _, test := range []struct {
		name, body string
		status     int
		header     []string
	}{
		{"byte order mark", "\xef\xbb\xbf" + published, 200, nil},
		{"byte order mark, 207", "\xef\xbb\xbf" + published, 207, nil},
		{"UTF-16", utf16, 202, []string{"Content-Type", "application/json; charset=utf-16"}},
		{"white space", "\r\n\t " + published + "\r\n\r\n", 202, nil},
		{"text/plain", published, 202, []string{"Content-Type", "text/plain; charset=iso-8859-1"}},
		{"text/html", published, 202, []string{"Content-Type", "text/html"}},
		{"invalid UTF-8 in the message", `{"message":"` + "\xe9" + `","responseCode":"SUCCESSFULLY_PUBLISHED"}`, 200, nil},
		{"other case", `{"responseCode":"Successfully published"}`, 200, nil},
		{"203", published, 203, nil},
		{"206", published, 206, nil},
		{"counts of 0", `{"responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{"failedCount":0,"failed":[],"hasErrors":false}}`, 200, nil},
		{"assetsError false", `{"responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":false}`, 200, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
				for i := 0; i < len(test.header); i += 2 {
					w.Header().Set(test.header[i], test.header[i+1])
				}
				respondWith(test.status, test.body)(w, r)
			}))
			batch, err := send(t.Context(), gateway.New(options(t, server.URL)))
			if err != nil || batch.Outcome != gateway.Accepted {
				t.Errorf("%+v, %v", batch, err)
			}
		})
	}
}

// Documents and errors may have a byte order mark, too.
func TestByteOrderMarkOfOtherResponses(t *testing.T) {
	t.Parallel()
	const mark = "\xef\xbb\xbf"
	server := serve(t, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case connectionPath:
			_, _ = fmt.Fprint(w, mark+`{"name":"corp"}`)
		default:
			respondWith(400, mark+`{"message":"bad asset"}`)(w, r)
		}
	}))
	client := gateway.New(options(t, server.URL))
	if document, err := client.Connection(t.Context()); err != nil || document.Name != "corp" {
		t.Errorf("%+v, %v", document.Name, err)
	}
	if batch, err := send(t.Context(), client); err != nil || batch.Message != "400: bad asset" {
		t.Errorf("%+v, %v", batch, err)
	}
}
