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

// sendingToTest is the operation of a batch that is sent by a client of limitOnce.
func sendingToTest(class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "send assets to", Object: "gateway.test"}
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
						wantFailure(t, err, sendingToTest(fault.Canceled), context.Canceled)
					})
					synctest.Wait()
				}
				// A report with a deadline of its own does not stand in the run's way.
				short, done := context.WithTimeout(ctx, 30*time.Second)
				defer done()
				_, err := send(short, client)
				wantFailure(t, err, sendingToTest(fault.Transient), gateway.ErrTooLate)
				wantFailure(t, client.SetState(ctx, gateway.ConnectorState{State: "PROCESSING"}), reporting("PROCESSING", fault.Transient), gateway.ErrTooLate)
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
		o.OnLimit = func(until time.Time) error { told = append(told, until); return nil }
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

// TestLimitNotRecorded checks that a failed OnLimit is logged and fails no call.
func TestLimitNotRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := inMemory(t, nil, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "3600")))
		log := &logged{}
		o.Log = zerolog.New(log)
		failed := fault.Operation{Op: "write", Object: "state file"}.Failed(fault.Transient, errors.New("disk full"), "free some space")
		o.OnLimit = func(time.Time) error { return failed }
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
			t.Error("the limit does not hold")
		}
	})
}

// TestRunIDInLog checks that every line of a call in a run has the run's ID, and no line of
// another call has one.
func TestRunIDInLog(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"", "run-7"} {
		t.Run("run ID "+id, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				statuses := []int{503, 429, 200}
				o := inMemory(t, nil, afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
					status := statuses[0]
					statuses = statuses[1:]
					answering(status, published)(w, r)
				}))
				log := &logged{}
				o.Log = zerolog.New(log)
				o.OnLimit = func(time.Time) error { return errors.New("disk full") }
				ctx := t.Context()
				if id != "" {
					ctx = gateway.WithRunID(ctx, id)
				}
				if _, err := send(ctx, gateway.New(o)); err != nil {
					t.Fatal(err)
				}
				seen := map[any]int{}
				for _, line := range log.lines(t) {
					seen[line["message"]]++
					if got, is := line["run_id"]; is != (id != "") || is && got != id {
						t.Errorf("run_id %v in %v", got, line)
					}
				}
				want := map[any]int{gateway.MsgAnswered: 4, gateway.MsgRetrying: 1, gateway.MsgRateLimited: 1, gateway.MsgLimitNotRecorded: 1}
				if !maps.Equal(seen, want) {
					t.Errorf("lines %v, want %v", seen, want)
				}
			})
		})
	}
}

// TestOnLimitOfNoTime checks that OnLimit is not called for a limit of no duration.
func TestOnLimitOfNoTime(t *testing.T) {
	t.Parallel()
	o := options(t, serve(t, afterLogin(t, limited(202, "X-RateLimit-Remaining", "0", "X-RateLimit-ToWait-Sec", "0"))).URL)
	o.OnLimit = func(until time.Time) error { t.Errorf("closed until %s", until); return nil }
	client := gateway.New(o)
	if _, err := send(t.Context(), client); err != nil {
		t.Error(err)
	}
}

// TestHoldUntil checks that a recorded limit holds, in UTC, and for a day at most.
func TestHoldUntil(t *testing.T) {
	t.Parallel()
	requests := 0
	server := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	o := options(t, server.URL)
	o.OnLimit = func(until time.Time) error { t.Errorf("called with %s", until); return nil }
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
	wantFailure(t, err, sending(o, fault.Transient), gateway.ErrTooLate)
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
