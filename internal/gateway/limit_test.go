package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
)

// limitOnce answers the first call of the assets with a limit and keeps when calls came.
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
	_, server := startSandbox(t, o)
	return gateway.New(options(t, server.URL)), func() []time.Time {
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
	const most = 30 * time.Second // whoever waits longer has read the wrong header
	for _, test := range []struct {
		name   string
		answer http.HandlerFunc
		from   time.Duration
	}{
		{"429 X-RateLimit-ToWait-Sec", limited(429, "X-RateLimit-ToWait-Sec", "2", "Retry-After", "3600"), 2 * time.Second},
		{"409 X-RateLimit-ToWait-Sec", limited(409, "X-RateLimit-ToWait-Sec", "2"), 2 * time.Second},
		{"429 Retry-After", limited(429, "Retry-After", "1"), time.Second},
		{"409 Retry-After as a date", func(w http.ResponseWriter, r *http.Request) {
			limited(409, "Retry-After", time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat))(w, r)
		}, 2 * time.Second},
		{"429 that says 0", limited(429, "X-RateLimit-ToWait-Sec", "0"), time.Second},
		{"success, none remaining", limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "1"), time.Second},
		{"success, one remaining", limited(202, "X-RateLimit-Remaining", "1", "X-RateLimit-ToWait-Sec", "60"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
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
				if waited := at.Sub(times[0]); waited < test.from-50*time.Millisecond || waited > most {
					t.Errorf("waited %s, want from %s to %s", waited, test.from, most)
				}
			}
			if want := int64(1); test.from > 0 && client.Counts().Limited != want || client.Counts().Retries != 0 {
				t.Errorf("%+v", client.Counts())
			}
		})
	}
}

// All workers stand at the gate for an hour, and a stop frees them at once.
func TestStopAtTheGate(t *testing.T) {
	t.Parallel()
	for _, headers := range [][]string{{"X-RateLimit-ToWait-Sec", "3600"}, nil} {
		client, calls := limitOnce(t, limited(429, headers...))
		ctx, cancel := context.WithCancel(t.Context())
		var group sync.WaitGroup
		group.Go(func() {
			_, err := send(ctx, client)
			fails(t, err, fault.Canceled)
		})
		for client.Counts().Limited == 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		}
		for range 9 {
			group.Go(func() {
				_, err := send(ctx, client)
				fails(t, err, fault.Canceled)
			})
		}
		// A report with a deadline of its own does not stand in the run's way.
		begun := time.Now()
		short, done := context.WithTimeout(ctx, 30*time.Second)
		_, err := send(short, client)
		fails(t, err, fault.Transient, "rate limited until")
		fails(t, client.SetState(ctx, gateway.ConnectorState{State: "PROCESSING"}), fault.Transient, "rate limited until")
		if n := client.Counts().Retries; n > 0 {
			t.Errorf("%d repetitions that could not be sent in time", n)
		}
		done()
		cancel()
		group.Wait()
		if waited := time.Since(begun); waited > 5*time.Second {
			t.Errorf("the end took %s", waited)
		}
		if n := len(calls()); n != 1 {
			t.Errorf("%d calls", n)
		}
	}
}

func TestOnLimit(t *testing.T) {
	var told []time.Time
	o := options(t, serve(t, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "3600"))).URL)
	log := &logged{}
	o.Log = zerolog.New(log)
	o.OnLimit = func(until time.Time) { told = append(told, until) }
	client := gateway.New(o)
	if until := client.LimitedUntil(); !until.IsZero() {
		t.Errorf("closed until %s", until)
	}
	begun := time.Now()
	if _, err := send(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	until := client.LimitedUntil()
	if wait := until.Sub(begun); wait < time.Hour || wait > time.Hour+30*time.Second {
		t.Errorf("closed for %s", wait)
	}
	if len(told) != 1 || told[0] != until {
		t.Errorf("told %v, closed until %s", told, until)
	}
	if want := until.UTC().Format(`"until":"2006-01-02T15:04:05Z"`); !strings.Contains(log.String(), want) {
		t.Errorf("%s is not in %s", want, log)
	}
}

// Told to wait no longer, nobody is told anything.
func TestOnLimitOfNoTime(t *testing.T) {
	o := options(t, serve(t, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "0"))).URL)
	o.OnLimit = func(until time.Time) { t.Errorf("closed until %s", until) }
	client := gateway.New(o)
	if _, err := send(t.Context(), client); err != nil {
		t.Error(err)
	}
}

// All that the client says of a limit is in UTC, wherever it is from.
func TestHoldUntil(t *testing.T) {
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
