package faults

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/test/ports"
	"adconnector/test/testenv"
)

// TestLoginFailures makes the token endpoint fail in every way: unreachable, slow, malformed
// answers, refusals, answers that contain the request. It passes if each run exits with the
// code of the table, and no log or error contains a password, client secret or token.
func TestLoginFailures(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 100, groups: 10})
	began := time.Now()
	slow := scaled(time.Second, 15*time.Second)
	echo := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":%q,"error_description":%q,"message":%q}`, body, fmt.Sprint(r.Header), body)
		}
	}
	text := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	oversized := strings.Repeat("x", 17<<20)
	cases := []struct {
		name    string
		answer  http.HandlerFunc // nil: nothing listens
		code    int
		retries bool // the run waits between tries
	}{
		{"connection refused", nil, 1, true},
		{"connection closed", func(_ http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, 1, true},
		{"slow answer", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(slow):
			case <-r.Context().Done():
			}
			e.writeToken(w)
		}, 0, false},
		{"HTML page", text(200, "<html>please log in</html>"), 1, true},
		{"empty answer", text(200, ""), 1, true},
		{"null", text(200, "null"), 1, true},
		{"token of another type", text(200, `{"access_token":{"a":1},"token_type":"bearer"}`), 1, true},
		{"oversized answer", text(200, oversized), 1, true},
		{"binary answer", text(200, "\x00\xff\xfe\x1b[31m"), 1, true},
		{"500 with the request", echo(500), 1, true},
		{"401 with the request", echo(401), 3, false},
		{"400 with the request", echo(400), 3, false},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, 3, false},
		{"429", text(429, "slow down"), 1, true},
	}
	var ran atomic.Int64
	for _, endpoint := range []string{"/oauth/token", "/auth/oidc"} {
		for _, c := range cases {
			if c.retries && testing.Short() && (endpoint == "/auth/oidc" || c.name != "500 with the request") {
				continue
			}
			t.Run(strings.TrimPrefix(endpoint, "/")+" "+c.name, func(t *testing.T) {
				if c.retries {
					t.Parallel() // these mostly wait
				}
				ran.Add(1)
				target := fmt.Sprintf("http://127.0.0.1:%d", ports.Refusing(t))
				if c.answer != nil {
					server := httptest.NewServer(c.answer)
					t.Cleanup(server.Close)
					target = server.URL
				}
				o := run(t, e.clientSettings().With(testenv.Settings{"oauth.token.url": target + endpoint, "service.state-dir": e.newStateDir()}), "sync")
				o.MustExit(t, c.code)
			})
		}
	}
	t.Cleanup(func() {
		logResult(t, "%d login failures; %s", ran.Load(), time.Since(began).Round(time.Millisecond))
	})
}

// writeToken answers with a new token of the sandbox gateway.
func (e *environment) writeToken(w http.ResponseWriter) {
	r := httptest.NewRequest(http.MethodPost, "/oauth/token", strings.NewReader(
		"grant_type=client_credentials&client_id="+e.Gateway.Options.ClientID+"&client_secret="+e.Gateway.Options.ClientSecret))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("User-Agent", "adconnector/x")
	answer := httptest.NewRecorder()
	e.Gateway.Sandbox().ServeHTTP(answer, r)
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// clientSettings returns the settings for a login with client credentials.
func (e *environment) clientSettings() testenv.Settings {
	return e.settings.With(testenv.Settings{
		"authentication.type": "OAUTH", "qualys.user.username": "", "qualys.user.password": "",
		"oauth.client.id": e.Gateway.Options.ClientID, "oauth.client.secret": e.Gateway.Options.ClientSecret,
	})
}

// TestTokenExpiry lets each token expire after three calls. It passes if one run delivers
// everything, with at most one login for every three calls.
func TestTokenExpiry(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: scaled(200, 2000), groups: 10})
	e.settings["upload.batch-size"] = "10"
	var calls, logins atomic.Int64
	var mu sync.Mutex
	uses := map[string]int{} // by token
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.R.URL.Path == testenv.LoginPath {
			logins.Add(1)
			return false
		}
		calls.Add(1)
		mu.Lock()
		token := x.R.Header.Get("Authorization")
		uses[token]++
		expired := uses[token] > 3
		mu.Unlock()
		return expired && x.Status(http.StatusUnauthorized, `{"message":"expired"}`)
	})
	run(t, e.settings, "sync").MustExit(t, 0)
	e.mustMatchDirectory(t, "with expiring tokens")
	if limit := calls.Load()/3 + 1; logins.Load() > limit {
		t.Errorf("%d logins, want at most %d", logins.Load(), limit)
	}
	logResult(t, "%d calls, tokens expire after 3: %d logins, gateway matches after one run", calls.Load(), logins.Load())
}
