package gateway_test

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
)

// TestObserve: every request is told of, with the name of its call and its end.
func TestObserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Int32
		o := sandboxOptions()
		o.Intercept = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.URL.Path != assetsPath {
				return false
			}
			if status.Load() == 0 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(int(status.Load()))
			return true
		}
		g := newSandbox(t, o)
		with := inMemory(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second) // in the bubble's time
			g.ServeHTTP(w, r)
		}))
		var mu sync.Mutex
		var seen []string
		with.Observe = func(call string, class fault.Class, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if took != time.Second && took != 2*time.Second { // net/http itself repeats a call that lost its connection
				t.Errorf("%s took %s", call, took)
			}
			seen = append(seen, call+" "+string(class))
		}
		c := gateway.New(with)
		if _, err := c.Connection(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Profile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.SetState(t.Context(), gateway.ConnectorState{State: "REGISTERED", At: gateway.Timestamp(time.Now())}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"login done", "connection done", "profile done", "state done"}; !slices.Equal(seen, want) {
			t.Errorf("seen %v", seen)
		}
		for answer, want := range map[int32]fault.Class{0: fault.Transient, 403: fault.Refused, 404: fault.Refused, 302: fault.Refused, 400: fault.Rejected, 422: fault.Rejected, 413: fault.Rejected, 503: fault.Transient, 408: fault.Transient} {
			status.Store(answer)
			seen = nil
			_, _ = c.Send(t.Context(), "00000000-0000-0000-0000-0000000000aa", 0, nil) // how it ends is told
			if len(seen) == 0 || seen[0] != "assets "+string(want) {
				t.Errorf("%d: seen %v", answer, seen)
			}
		}
	})
}
