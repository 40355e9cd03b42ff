package gateway_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/gateway"
)

func TestHeard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit, window string
		ahead         time.Duration
		calls         int
		per           time.Duration
	}{
		"a clock that is right":  {},
		"a clock that is wrong":  {ahead: -time.Hour},
		"a limit":                {limit: "300", window: "3600", calls: 300, per: time.Hour},
		"a limit without window": {limit: "300"},
		"a limit of nothing":     {limit: "0", window: "3600"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := gateway.New(inMemory(t, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Date", time.Now().Add(c.ahead).UTC().Format(http.TimeFormat))
					w.Header().Set("X-RateLimit-Limit", c.limit)
					w.Header().Set("X-RateLimit-Window-Sec", c.window)
					w.WriteHeader(http.StatusUnauthorized) // refusals tell the time, too
				})))
				if heard := client.Heard(); heard != (gateway.Heard{}) {
					t.Errorf("heard before anything was said: %+v", heard)
				}
				if err := client.Login(t.Context()); err == nil {
					t.Fatal("no error")
				}
				if got, want := client.Heard(), (gateway.Heard{Told: true, Ahead: c.ahead, Calls: c.calls, Window: c.per}); got != want {
					t.Errorf("heard %+v, want %+v", got, want)
				}
			})
		})
	}
}
