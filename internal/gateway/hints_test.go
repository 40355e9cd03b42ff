package gateway_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/gateway"
)

func TestServerHints(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit, window string
		clockAhead    time.Duration
		rateLimit     int
		rateWindow    time.Duration
	}{
		"correct clock":        {},
		"wrong clock":          {clockAhead: -time.Hour},
		"limit":                {limit: "300", window: "3600", rateLimit: 300, rateWindow: time.Hour},
		"limit without window": {limit: "300"},
		"limit 0":              {limit: "0", window: "3600"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := gateway.New(serveInMemory(t, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Date", time.Now().Add(c.clockAhead).UTC().Format(http.TimeFormat))
					w.Header().Set("X-RateLimit-Limit", c.limit)
					w.Header().Set("X-RateLimit-Window-Sec", c.window)
					w.WriteHeader(http.StatusUnauthorized) // refusals have a date, too
				})))
				if hints := client.ServerHints(); hints != (gateway.ServerHints{}) {
					t.Errorf("hints before any response: %+v", hints)
				}
				if err := client.Login(t.Context()); err == nil {
					t.Fatal("no error")
				}
				if got, want := client.ServerHints(), (gateway.ServerHints{HasDate: true, ClockAhead: c.clockAhead, RateLimit: c.rateLimit, RateWindow: c.rateWindow}); got != want {
					t.Errorf("hints %+v, want %+v", got, want)
				}
			})
		})
	}
}
