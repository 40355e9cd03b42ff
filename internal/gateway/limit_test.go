package gateway_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
)

// limitOnce answers the first call of the assets with a limit and records when calls
// came. It is for a synctest bubble.
func limitOnce(t *testing.T, limit http.HandlerFunc) (client *gateway.Client, calls func() []time.Time) {
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
	return gateway.New(inMemory(t, nil, newSandbox(t, o))), func() []time.Time {
		mu.Lock()
		defer mu.Unlock()
		return times
	}
}

func limited(status int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		answering(status, published)(w, r)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		want   time.Duration
	}{
		{"429 X-RateLimit-ToWait-Sec", limited(429, "X-RateLimit-ToWait-Sec", "2", "Retry-After", "3600"), 2 * time.Second},
		{"409 X-RateLimit-ToWait-Sec", limited(409, "X-RateLimit-ToWait-Sec", "2"), 2 * time.Second},
		{"429 Retry-After", limited(429, "Retry-After", "1"), time.Second},
		{"409 Retry-After as a date", func(w http.ResponseWriter, r *http.Request) { // a bubble's clock begins with a whole second
			limited(409, "Retry-After", time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat))(w, r)
		}, 3 * time.Second},
		{"429 that says 0", limited(429, "X-RateLimit-ToWait-Sec", "0"), time.Second},
		{"success, none remaining", limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "1"), time.Second},
		{"success, one remaining", limited(202, "X-RateLimit-Remaining", "1", "X-RateLimit-ToWait-Sec", "60"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, calls := limitOnce(t, test.answer)
				// The first runs into the limit, and all that come behind it wait.
				if _, err := send(t.Context(), client); err != nil {
					t.Fatal(err)
				}
				for _, err := range together(5, func() error { _, err := send(t.Context(), client); return err }) {
					if err != nil {
						t.Error(err)
					}
				}
				times := calls()
				for _, at := range times[1:] {
					if waited := at.Sub(times[0]); waited != test.want {
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

// All workers stand at the gate, and a stop frees them at once.
func TestStopAtTheGate(t *testing.T) {
	t.Parallel()
	for name, headers := range map[string][]string{"for an hour": {"X-RateLimit-ToWait-Sec", "3600"}, "for a minute": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, calls := limitOnce(t, limited(429, headers...))
				begun := time.Now()
				ctx, cancel := context.WithCancel(t.Context())
				var group sync.WaitGroup
				for range 10 {
					group.Go(func() {
						_, err := send(ctx, client)
						fails(t, err, fault.Canceled)
					})
					synctest.Wait()
				}
				// A report with a deadline of its own does not stand in the run's way.
				short, done := context.WithTimeout(ctx, 30*time.Second)
				defer done()
				_, err := send(short, client)
				fails(t, err, fault.Transient, "rate limited until")
				fails(t, client.SetState(ctx, gateway.ConnectorState{State: "PROCESSING"}), fault.Transient, "rate limited until")
				if n := client.Counts().Retries; n > 0 {
					t.Errorf("%d repetitions that could not be sent in time", n)
				}
				cancel()
				group.Wait()
				if took := time.Since(begun); took != 0 {
					t.Errorf("took %s", took)
				}
				if n := len(calls()); n != 1 {
					t.Errorf("%d calls", n)
				}
			})
		})
	}
}

func TestOnLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []time.Time
		o := inMemory(t, nil, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "3600")))
		log := &logged{}
		o.Log = zerolog.New(log)
		o.OnLimit = func(until time.Time) { told = append(told, until) }
		client := gateway.New(o)
		if until := client.LimitedUntil(); !until.IsZero() {
			t.Errorf("closed until %s", until)
		}
		if _, err := send(t.Context(), client); err != nil {
			t.Fatal(err)
		}
		until := client.LimitedUntil()
		if wait := time.Until(until); wait != time.Hour {
			t.Errorf("closed for %s", wait)
		}
		if len(told) != 1 || told[0] != until {
			t.Errorf("told %v, closed until %s", told, until)
		}
		line := log.line(t, gateway.MsgRateLimited)
		if line["until"] != until.Format(time.RFC3339) || line["status"] != 202.0 {
			t.Errorf("logged %v", line)
		}
	})
}

// Told to wait no longer, nobody is told anything.
func TestOnLimitOfNoTime(t *testing.T) {
	t.Parallel()
	o := options(t, serve(t, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "0"))).URL)
	o.OnLimit = func(until time.Time) { t.Errorf("closed until %s", until) }
	client := gateway.New(o)
	if _, err := send(t.Context(), client); err != nil {
		t.Error(err)
	}
}

// All that the client says of a limit is in UTC, wherever it is from.
func TestHoldUntil(t *testing.T) {
	t.Parallel()
	requests := 0
	server := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	o := options(t, server.URL)
	o.OnLimit = func(until time.Time) { t.Errorf("told of %s", until) }
	client := gateway.New(o)
	until := time.Now().Add(time.Hour).In(time.FixedZone("", 5*3600+1800)).Round(0)
	for _, t := range []time.Time{{}, until, until.Add(-time.Minute)} {
		client.HoldUntil(t)
	}
	if got := client.LimitedUntil(); got != until.UTC() {
		t.Errorf("closed until %s, want %s", got, until.UTC())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := send(ctx, client)
	fails(t, err, fault.Transient, "rate limited until "+until.UTC().Format(time.RFC3339))
	if requests > 0 || client.Counts() != (gateway.Counts{}) {
		t.Errorf("%d requests, %+v", requests, client.Counts())
	}

	client.HoldUntil(until.AddDate(1, 0, 0))
	if wait := time.Until(client.LimitedUntil()); wait > 24*time.Hour {
		t.Errorf("a mistake closes it for %s", wait)
	}
	passed := gateway.New(o)
	passed.HoldUntil(time.Now().Add(-time.Hour))
	if got := passed.LimitedUntil(); !got.IsZero() {
		t.Errorf("closed until %s", got)
	}
}
