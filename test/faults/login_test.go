package faults

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/test/ports"
	"adconnector/test/testenv"
)

// TestTokens has the login go wrong in each way: the endpoint down, slow, answering
// rubbish, refusing, repeating what it was sent; and tokens that die every three
// calls. It passes when each ends as the table says, in time, and when neither a
// password, nor a client secret, nor a token stands in any log or error.
func TestTokens(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: 100, groups: 10})
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
	endless := strings.Repeat("x", 17<<20)
	cases := []struct {
		name    string
		answer  http.HandlerFunc // nil: nothing listens
		code    int
		repeats bool // waits between tries: in the long form only
	}{
		{"down", nil, 1, true},
		{"reset", func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, 1, true},
		{"slow", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(slow):
			case <-r.Context().Done():
			}
			s.token(w)
		}, 0, false},
		{"a page of HTML", text(200, "<html>please log in</html>"), 1, true},
		{"nothing", text(200, ""), 1, true},
		{"null", text(200, "null"), 1, true},
		{"a token of another type", text(200, `{"access_token":{"a":1},"token_type":"bearer"}`), 1, true},
		{"without end", text(200, endless), 1, true},
		{"not text", text(200, "\x00\xff\xfe\x1b[31m"), 1, true},
		{"500 that repeats what was sent", echo(500), 1, true},
		{"401 that repeats what was sent", echo(401), 3, false},
		{"400 that repeats what was sent", echo(400), 3, false},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, 3, false},
		{"429", text(429, "slow down"), 1, true},
	}
	var ran atomic.Int64
	for _, form := range []string{"standard", "own"} {
		for _, c := range cases {
			if c.repeats && testing.Short() && (form == "own" || c.name != "500 that repeats what was sent") {
				continue
			}
			t.Run(form+" "+c.name, func(t *testing.T) {
				if c.repeats {
					t.Parallel() // they only wait
				}
				ran.Add(1)
				target := fmt.Sprintf("http://127.0.0.1:%d", ports.Refusing(t))
				if c.answer != nil {
					server := httptest.NewServer(c.answer)
					t.Cleanup(server.Close)
					target = server.URL
				}
				path := map[string]string{"standard": "/oauth/token", "own": "/auth/oidc"}[form]
				o := run(t, s.withClient().With(testenv.Settings{"oauth.token.url": target + path, "service.state-dir": s.newStateDir()}), "sync")
				o.MustExit(t, c.code)
			})
		}
	}
	t.Cleanup(func() {
		figures(t, "%d kinds of failing logins; %s", ran.Load(), time.Since(began).Round(time.Millisecond))
	})
}

// token answers as the gateway's token endpoint does, with a token of its own.
func (s *environment) token(w http.ResponseWriter) {
	r := httptest.NewRequest(http.MethodPost, "/oauth/token", strings.NewReader(
		"grant_type=client_credentials&client_id="+s.Gateway.Options.ClientID+"&client_secret="+s.Gateway.Options.ClientSecret))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("User-Agent", "adconnector/x")
	answer := httptest.NewRecorder()
	s.Gateway.Sandbox().ServeHTTP(answer, r)
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// withClient are the settings that log in as a client.
func (s *environment) withClient() testenv.Settings {
	return s.settings.With(testenv.Settings{
		"authentication.type": "OAUTH", "qualys.user.username": "", "qualys.user.password": "",
		"oauth.client.id": s.Gateway.Options.ClientID, "oauth.client.secret": s.Gateway.Options.ClientSecret,
	})
}

// TestDyingTokens lets each token die after three calls. It passes when one run
// delivers everything all the same, with at most one login for every three calls.
func TestDyingTokens(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: scaled(200, 2000), groups: 10})
	s.settings["upload.batch-size"] = "10"
	var calls, logins atomic.Int64
	var mu sync.Mutex
	used := map[string]int{} // tokens, how often
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.R.URL.Path == testenv.LoginPath {
			logins.Add(1)
			return false
		}
		calls.Add(1)
		mu.Lock()
		token := x.R.Header.Get("Authorization")
		used[token]++
		dead := used[token] > 3
		mu.Unlock()
		return dead && x.Status(http.StatusUnauthorized, `{"message":"expired"}`)
	})
	run(t, s.settings, "sync").MustExit(t, 0)
	s.mustBeEqual(t, "with dying tokens")
	if most := calls.Load()/3 + 1; logins.Load() > most {
		t.Errorf("%d logins, at most %d", logins.Load(), most)
	}
	figures(t, "%d calls, a token dead every 3: %d logins, all equal in one run", calls.Load(), logins.Load())
}

// TestBlackHole lets everything vanish between the connector and the gateway, once
// in the middle of a run over HTTP/2. It passes when an unanswered ping finds it, not a
// call's own deadline, and when one run delivers everything over another connection.
func TestBlackHole(t *testing.T) {
	if testing.Short() {
		t.Skip("gateway tests the short form: here a ping takes 30 s")
	}
	t.Parallel()
	s := newEnvironment(t, plan{users: 1000, groups: 10, tls: true})
	_, port, err := net.SplitHostPort(s.Gateway.Server.Listener.Addr().String())
	must(t, err)
	between := newRelay(t, "127.0.0.1:"+port)
	s.settings = s.settings.With(testenv.Settings{"connector.api.url": fmt.Sprintf("https://127.0.0.1:%d", between.port), "upload.batch-size": "10"})
	var once atomic.Bool
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.HasAssets() && x.Number == 20 && once.CompareAndSwap(false, true) {
			between.digAll()
		}
		return false
	})
	began := time.Now()
	o := run(t, s.settings, "sync")
	took := time.Since(began)
	o.MustExit(t, 0)
	s.mustBeEqual(t, "through a black hole")
	for _, l := range o.Log { // net/http's text for a ping without an answer
		if l.Text("message") == gateway.MsgRetrying && !strings.Contains(l.Text("error"), "http2: client connection lost") {
			t.Errorf("a call was repeated for another reason: %v", l)
		}
	}
	figures(t, "a black hole in mid-run: %d repeats, all equal in one run of %s", o.Summary().Number("retries"), took.Round(time.Second))
}
