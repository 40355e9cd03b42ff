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

// Observe is called after every request, with the name of the call and the class of the result.
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
		options := serveInMemory(t, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second) // in synctest's fake time
			g.ServeHTTP(w, r)
		}))
		var mu sync.Mutex
		var observed []string
		options.Observe = func(call string, class fault.Class, duration time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if duration != time.Second && duration != 2*time.Second { // net/http itself retries after a lost connection
				t.Errorf("%s took %s", call, duration)
			}
			observed = append(observed, call+" "+string(class))
		}
		c := gateway.New(options)
		if _, err := c.Connection(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Profile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.SetState(t.Context(), gateway.ConnectorState{State: "REGISTERED", At: gateway.Timestamp(time.Now())}); err != nil {
			t.Fatal(err)
		}
		if want := []string{"login done", "connection done", "profile done", "state done"}; !slices.Equal(observed, want) {
			t.Errorf("observed %v", observed)
		}
		for code, want := range map[int32]fault.Class{0: fault.Transient, 403: fault.Refused, 404: fault.Refused, 302: fault.Refused, 400: fault.Rejected, 422: fault.Rejected, 413: fault.Rejected, 503: fault.Transient, 408: fault.Transient} {
			status.Store(code)
			observed = nil
			_, _ = c.Send(t.Context(), "00000000-0000-0000-0000-0000000000aa", 0, nil) // the result is observed
			if len(observed) == 0 || observed[0] != "assets "+string(want) {
				t.Errorf("%d: observed %v", code, observed)
			}
		}
	})
}
