package gateway_test

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

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
		fails(t, client.SetState(short, gateway.ConnectorState{State: "PROCESSING"}), fault.Transient, "rate limited until")
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
