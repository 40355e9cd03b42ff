package gateway_test

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/secret"
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

// TestCertificateHint tests that the certificate of the gateway is a hint, also after a refusal, and
// that of another server, from which the token comes, is none.
func TestCertificateHint(t *testing.T) {
	t.Parallel()
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	server := serveTLS(t, refuse)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for name, c := range map[string]struct {
		gateway, tokens string
		want            *x509.Certificate
	}{
		"gateway":                   {gateway: server.URL, want: server.Certificate()},
		"token from another server": {gateway: "https://gateway.example.com", tokens: server.URL + "/token"},
		"no TLS":                    {gateway: serve(t, refuse).URL},
	} {
		options := gateway.Options{URL: mustParseURL(t, c.gateway), RootCAs: roots, Login: gateway.Login{Username: "u", Password: secret.New("p")}}
		if c.tokens != "" {
			options.Login = gateway.Login{ClientID: "c", ClientSecret: secret.New("s"), TokenURL: mustParseURL(t, c.tokens)}
		}
		client := gateway.New(options)
		if err := client.Login(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
		got := client.ServerHints().Certificate
		if (got == nil) != (c.want == nil) || got != nil && !got.Equal(c.want) {
			t.Errorf("%s: certificate %v", name, got)
		}
		if want, err := url.Parse(c.gateway); err != nil || client.Host() != want.Host {
			t.Errorf("%s: host %q", name, client.Host())
		}
	}
}

func mustParseURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
