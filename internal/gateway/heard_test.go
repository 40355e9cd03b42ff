package gateway_test

import (
	"net/http"
	"testing"
	"time"

	"adconnector/internal/gateway"
)

func TestHeard(t *testing.T) {
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
			server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", time.Now().Add(c.ahead).UTC().Format(http.TimeFormat))
				w.Header().Set("X-RateLimit-Limit", c.limit)
				w.Header().Set("X-RateLimit-Window-Sec", c.window)
				w.WriteHeader(http.StatusUnauthorized) // refusals tell the time, too
			}))
			client := gateway.New(options(t, server.URL))
			if heard := client.Heard(); heard != (gateway.Heard{}) {
				t.Errorf("heard before anything was said: %+v", heard)
			}
			if err := client.Login(t.Context()); err == nil {
				t.Fatal("no error")
			}
			heard := client.Heard()
			if !heard.Told || (heard.Ahead-c.ahead).Abs() > 5*time.Second || heard.Calls != c.calls || heard.Window != c.per {
				t.Errorf("heard %+v", heard)
			}
		})
	}
}
