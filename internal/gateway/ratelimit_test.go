package gateway_test

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
)

// newLimitedClient returns a client of a sandbox that applies limit to the first request with
// assets, and a function that returns the times of these requests. Use it in a synctest bubble.
func newLimitedClient(t *testing.T, limit http.HandlerFunc) (client *gateway.Client, requests func() []time.Time) {
	var mu sync.Mutex
	var times []time.Time
	o := sandboxOptions()
	o.Intercept = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != assetsPath {
			return false
		}
		mu.Lock()
		times = append(times, time.Now())
		first := len(times) == 1
		mu.Unlock()
		if first {
			limit(w, r)
		}
		return first
	}
	return gateway.New(serveInMemory(t, nil, newSandbox(t, o))), func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return times
	}
}

// limited returns a handler that responds with a status and headers.
func limited(status int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		respondWith(status, published)(w, r)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		want    time.Duration
	}{
		{"429 X-RateLimit-ToWait-Sec", limited(429, "X-RateLimit-ToWait-Sec", "2", "Retry-After", "3600"), 2 * time.Second},
		{"409 X-RateLimit-ToWait-Sec", limited(409, "X-RateLimit-ToWait-Sec", "2"), 2 * time.Second},
		{"429 Retry-After", limited(429, "Retry-After", "1"), time.Second},
		{"409 Retry-After as a date", func(w http.ResponseWriter, r *http.Request) { // a synctest bubble starts at a full second
			limited(409, "Retry-After", time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat))(w, r)
		}, 3 * time.Second},
		{"429 with 0", limited(429, "X-RateLimit-ToWait-Sec", "0"), time.Second},
		{"429 Retry-After with a fraction", limited(429, "Retry-After", "1.5"), 1500 * time.Millisecond},
		{"429 Retry-After as a date, local clock wrong", limited(429, "Date", "Sun, 22 Nov 2026 10:00:00 GMT", "Retry-After", "Sun, 22 Nov 2026 10:00:04 GMT"), 4 * time.Second},
		{"429 for more than a day", limited(429, "X-RateLimit-ToWait-Sec", "2147483647"), 24 * time.Hour},
		{"success, for more than an hour", limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "2147483647"), time.Hour},
		{"success, none remaining", limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "1"), time.Second},
		{"success, one remaining", limited(202, "X-RateLimit-Remaining", "1", "X-RateLimit-ToWait-Sec", "60"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, requests := newLimitedClient(t, test.handler)
				// The first batch sets the limit, and all others wait for its end.
				if _, err := send(t.Context(), client); err != nil {
					t.Fatal(err)
				}
				for _, err := range concurrently(5, func() error { _, err := send(t.Context(), client); return err }) {
					if err != nil {
						t.Error(err)
					}
				}
				times := requests()
				for _, received := range times[1:] {
					if waited := received.Sub(times[0]); !gateway.IsWait(waited, test.want) {
						t.Errorf("waited %s, want %s", waited, test.want)
					}
				}
				limits := int64(1)
				if test.want == 0 {
					limits = 0
				}
				if got := client.Counts(); got.Limited != limits || got.Retries != 0 {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// A call that waits for the end of another one, because of a limit on concurrent calls, also waits
// for the rate limit that the response to the other one sets.
func TestRateLimitOfWaitingCall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		respond := make(chan struct{})
		client, requests := newLimitedClient(t, func(w http.ResponseWriter, r *http.Request) {
			<-respond
			limited(http.StatusTooManyRequests, "X-RateLimit-ToWait-Sec", "10")(w, r)
		})
		client.RestoreConcurrencyLimit(gateway.ConcurrencyLimit{NotedAt: time.Now(), Calls: 1})
		var calls sync.WaitGroup
		for range 2 {
			calls.Go(func() {
				if _, err := send(t.Context(), client); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(respond)
		calls.Wait()
		times := requests()
		for _, received := range times[1:] {
			if waited := received.Sub(times[0]); len(times) != 3 || !gateway.IsWait(waited, 10*time.Second) {
				t.Errorf("%d requests, waited %s", len(times), waited)
			}
		}
	})
}

// sendTestError returns the error of a batch of a client from serveInMemory.
func sendTestError(class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "send assets to", Object: "gateway.test"}
}

// All workers wait for the rate limit, and a canceled context ends the wait at once.
func TestStopDuringRateLimit(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string][]string{"hour": {"X-RateLimit-ToWait-Sec", "3600"}, "default": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, requests := newLimitedClient(t, limited(429, headers...))
				start := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				var group sync.WaitGroup
				for range 10 {
					group.Go(func() {
						_, err := send(ctx, client)
						checkError(t, err, sendTestError(fault.Canceled), context.Canceled)
					})
					synctest.Wait()
				}
				// Calls whose deadline is before the end of the limit fail at once.
				shortCtx, done := context.WithTimeout(ctx, 30*time.Second)
				defer done()
				_, err := send(shortCtx, client)
				checkError(t, err, sendTestError(fault.Transient), gateway.ErrLimitPastDeadline)
				checkError(t, client.SetState(ctx, gateway.ConnectorState{State: "PROCESSING"}), stateError("PROCESSING", fault.Transient), gateway.ErrLimitPastDeadline)
				if n := client.Counts().Retries; n > 0 {
					t.Errorf("%d retries that cannot be sent in time", n)
				}
				cancel()
				group.Wait()
				if elapsed := time.Since(start); elapsed != 0 {
					t.Errorf("took %s", elapsed)
				}
				if n := len(requests()); n != 1 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
}

func TestOnLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var recorded []gateway.Limit
		o := serveInMemory(t, nil, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "3600")))
		log := &syncBuffer{}
		o.Log = zerolog.New(log)
		o.OnLimit = func(limit gateway.Limit) error { recorded = append(recorded, limit); return nil }
		client := gateway.New(o)
		if until := client.LimitedUntil(); !until.IsZero() {
			t.Errorf("limited until %s", until)
		}
		if _, err := send(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		until := client.LimitedUntil()
		if wait := time.Until(until); wait != time.Hour {
			t.Errorf("limited for %s", wait)
		}
		if len(recorded) != 1 || recorded[0] != (gateway.Limit{NotedAt: until.Add(-time.Hour), Until: until}) {
			t.Errorf("recorded %v, limited until %s", recorded, until)
		}
		line := log.line(t, gateway.MsgRateLimited)
		if line["until"] != until.Format(time.RFC3339) || line["status"] != 202.0 {
			t.Errorf("logged %v", line)
		}
	})
}

// A failed OnLimit is logged and does not fail a call.
func TestLimitNotRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := serveInMemory(t, nil, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "3600")))
		log := &syncBuffer{}
		o.Log = zerolog.New(log)
		failed := fault.Operation{Op: "write", Object: "state file"}.Failed(fault.Transient, errors.New("disk full"), "free some space")
		o.OnLimit = func(gateway.Limit) error { return failed }
		client := gateway.New(o)
		if _, err := send(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		line := log.line(t, gateway.MsgLimitNotRecorded)
		if line["level"] != "warn" || line["error"] != failed.Error() || line["remedy"] != fault.Remedy(failed) {
			t.Errorf("logged %v", line)
		}
		log.line(t, gateway.MsgRateLimited)
		if client.LimitedUntil().IsZero() {
			t.Error("no limit")
		}
	})
}

// Each log line of a call in a run has the run ID. Lines of other calls have none.
func TestRunIDInLog(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "run-7"} {
		t.Run("run ID "+id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				statuses := []int{503, 429, 200}
				o := serveInMemory(t, nil, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
					status := statuses[0]
					statuses = statuses[1:]
					respondWith(status, published)(w, r)
				}))
				log := &syncBuffer{}
				o.Log = zerolog.New(log)
				o.OnLimit = func(gateway.Limit) error { return errors.New("disk full") }
				ctx := t.Context()
				if id != "" {
					ctx = gateway.WithRunID(ctx, id)
				}
				if _, err := send(ctx, gateway.New(o)); err != nil {
					t.Fatal(err)
				}
				messages := map[any]int{}
				for _, line := range log.lines(t) {
					messages[line["message"]]++
					if got, ok := line["run_id"]; ok != (id != "") || ok && got != id {
						t.Errorf("run_id %v in %v", got, line)
					}
				}
				want := map[any]int{gateway.MsgResponse: 4, gateway.MsgRetrying: 1, gateway.MsgRateLimited: 1, gateway.MsgLimitNotRecorded: 1}
				if !maps.Equal(messages, want) {
					t.Errorf("messages %v, want %v", messages, want)
				}
			})
		})
	}
}

// OnLimit is not called for a limit of zero duration.
func TestOnLimitZeroDuration(t *testing.T) {
	t.Parallel()
	o := options(t, serve(t, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "0"))).URL)
	o.OnLimit = func(limit gateway.Limit) error { t.Errorf("limited until %s", limit.Until); return nil }
	client := gateway.New(o)
	if _, err := send(t.Context(), client); err != nil {
		t.Error(err)
	}
}

// A restored limit is effective, reported in UTC, and ends a day after it was noted at the
// latest. A limit noted in the future has no effect.
func TestRestoreLimit(t *testing.T) {
	t.Parallel()
	requests := 0
	server := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	o := options(t, server.URL)
	o.OnLimit = func(limit gateway.Limit) error { t.Errorf("OnLimit called with %+v", limit); return nil }
	client := gateway.New(o)
	now := time.Now()
	until := now.Add(time.Hour).In(time.FixedZone("", 5*3600+1800)).Round(0)
	for _, limit := range []gateway.Limit{{}, {now, now.Add(-time.Hour)}, {now, until}, {now, until.Add(-time.Minute)}, {now.Add(12 * time.Hour), until.Add(12 * time.Hour)}} {
		client.RestoreLimit(limit)
	}
	if got := client.LimitedUntil(); got != until.UTC() {
		t.Errorf("limited until %s, want %s", got, until.UTC())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := send(ctx, client)
	checkError(t, err, sendError(o, fault.Transient), gateway.ErrLimitPastDeadline)
	if requests > 0 || client.Counts() != (gateway.Counts{}) {
		t.Errorf("%d requests, %+v", requests, client.Counts())
	}

	client.RestoreLimit(gateway.Limit{NotedAt: now.Add(-20 * time.Hour), Until: until.AddDate(1, 0, 0)})
	if got, want := client.LimitedUntil(), now.Add(4*time.Hour); !got.Equal(want) {
		t.Errorf("limited until %s, want %s, a day after it was noted", got, want)
	}
	expired := gateway.New(o)
	expired.RestoreLimit(gateway.Limit{NotedAt: now.Add(-2 * time.Hour), Until: now.Add(-time.Hour)})
	if got := expired.LimitedUntil(); !got.IsZero() {
		t.Errorf("limited until %s", got)
	}
}
