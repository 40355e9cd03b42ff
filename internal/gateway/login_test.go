package gateway_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/secret"
	"adconnector/test/deadport"
)

// logins are all ways to log in at a gateway.
var logins = []struct {
	name, path string
	login      func(base string) gateway.Login
	keys       []string // that a refusal names
	urlKey     string   // that a wrong address names
}{
	{"basic", "/auth", func(string) gateway.Login {
		return gateway.Login{Username: username, Password: secret.New(password)}
	}, []string{"qualys.user.username", "qualys.user.password"}, "connector.api.url"},
	{"client of a user", "/auth/oidc", func(string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret)}
	}, []string{"oauth.client.id", "oauth.client.secret"}, "connector.api.url"},
	{"client of the subscription", "/auth/oauth", func(string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), Subscription: true}
	}, []string{"oauth.client.id", "oauth.client.secret"}, "connector.api.url"},
	{"the gateway's own token URL", "/auth/oauth", func(base string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(base + "/auth/oauth")}
	}, []string{"oauth.client.id", "oauth.client.secret"}, "oauth.token.url"},
	{"RFC 6749", "/oauth/token", func(base string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(base + "/oauth/token")}
	}, []string{"oauth.client.id", "oauth.client.secret", "oauth.token.url"}, "oauth.token.url"},
}

func mustURL(text string) *url.URL {
	u, err := url.Parse(text)
	if err != nil {
		panic(err)
	}
	return u
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for _, login := range logins {
		for _, wrapped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, wrapped %v", login.name, wrapped), func(t *testing.T) {
				so := sandboxOptions()
				so.WrapToken = wrapped
				g, server := startSandbox(t, so)
				o := options(t, server.URL)
				o.Login = login.login(server.URL)
				client := gateway.New(o)
				for range 2 {
					if err := client.Login(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := client.Profile(t.Context()); err != nil {
					t.Fatal(err)
				}
				logins := 0
				for _, request := range g.Requests() {
					if request.Path == login.path {
						logins++
					}
				}
				if logins != 1 {
					t.Errorf("%d logins", logins)
				}
			})
		}
	}
}

func TestLoginWithWrongCredentials(t *testing.T) {
	t.Parallel()
	for _, login := range logins {
		t.Run(login.name, func(t *testing.T) {
			so := sandboxOptions()
			so.Password, so.ClientSecret = "other", "other"
			g, server := startSandbox(t, so)
			o := options(t, server.URL)
			o.Login = login.login(server.URL)
			client := gateway.New(o)
			fails(t, client.Login(t.Context()), fault.Refused, append(login.keys, "401", login.path)...)
			_, err := send(t.Context(), client)
			fails(t, err, fault.Refused, append(login.keys, "send 1 assets")...)
			if n := count(g, "POST "+login.path+" 401"); n != 1 {
				t.Errorf("%d logins: wrong credentials are tried once", n)
			}
			client.BeginRun()
			_, err = send(t.Context(), client)
			fails(t, err, fault.Refused, append(login.keys, "send 1 assets")...)
			if n := count(g, "POST "+login.path+" 401"); n != 2 {
				t.Errorf("%d logins: a new run tries them once more", n)
			}
		})
	}
}

// Whatever answers in place of a login may quote what it was sent; we may not.
func TestLoginAnswers(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed: %s %s", r.Method, r.URL)
	}))
	const keys, address = "<keys>", "<url>"
	for _, test := range []struct {
		name   string
		status int
		body   string
		class  fault.Class
		words  []string
		tries  int64
	}{
		{"401", 401, "", fault.Refused, []string{"401", keys}, 1},
		{"403", 403, "", fault.Refused, []string{"403"}, 1},
		{"404", 404, "", fault.Refused, []string{"404", address}, 1},
		{"400", 400, `{"error":"invalid_client","error_description":"x"}`, fault.Refused, []string{"400", keys}, 1},
		{"a code that is none", 400, `{"error":"` + clientSecret + `"}`, fault.Refused, []string{"400", keys}, 1},
		{"429", 429, "", fault.Transient, []string{"429"}, 3},
		{"408", 408, "", fault.Transient, []string{"408"}, 3},
		{"500", 500, "", fault.Transient, []string{"500"}, 3},
		{"HTML", 200, "<!DOCTYPE html>\n<html><body>Accept the terms</body></html>", fault.Transient, []string{"holds no token", address}, 3},
		{"HTML in one word", 200, "<html></html>", fault.Transient, []string{"holds no token"}, 3},
		{"empty", 200, "-", fault.Transient, []string{"holds no token"}, 3},
		{"no token in JSON", 201, `{"message":"welcome"}`, fault.Transient, []string{"holds no token"}, 3},
		{"a token that is none", 201, `{"access_token":"eyJ\nb","token":"eyJ b"}`, fault.Transient, []string{"holds no token"}, 3},
		{"redirect", 307, "", fault.Refused, []string{"307", address}, 1},
		{"redirect after POST", 303, "", fault.Refused, []string{"303", address}, 1},
	} {
		for _, login := range logins {
			t.Run(test.name+", "+login.name, func(t *testing.T) {
				var calls atomic.Int64
				server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					calls.Add(1)
					if got := r.UserAgent(); got != "adconnector/test" {
						t.Errorf("User-Agent %q", got)
					}
					sent, _ := io.ReadAll(r.Body)
					w.Header().Set("Location", elsewhere.URL+"/x?"+string(sent)+"#"+r.Header.Get("clientSecret"))
					if strings.HasPrefix(test.body, "{") {
						w.Header().Set("Content-Type", "application/json")
					}
					w.WriteHeader(test.status)
					switch test.body {
					case "":
						_, _ = fmt.Fprintf(w, "%s %v", sent, r.Header)
					case "-":
					default:
						_, _ = io.WriteString(w, test.body)
					}
				}))
				o := options(t, server.URL)
				o.Login = login.login(server.URL)
				var words []string
				for _, word := range test.words {
					switch word {
					case keys:
						words = append(words, login.keys...)
					case address:
						words = append(words, login.urlKey)
					default:
						words = append(words, word)
					}
				}
				fails(t, gateway.New(o).Login(t.Context()), test.class, words...)
				if n := calls.Load(); n != test.tries {
					t.Errorf("%d calls, want %d", n, test.tries)
				}
			})
		}
	}
}

// deadAddress is a host and port that refuse connections.
func deadAddress(t testing.TB) string {
	return fmt.Sprintf("127.0.0.1:%d", deadport.New(t))
}

func TestTokenURLIsNotQuoted(t *testing.T) {
	t.Parallel()
	refusing := serve(t, answering(401, "")).URL
	for _, test := range []struct {
		name, base string
		class      fault.Class
		word       string
	}{
		{"refused", refusing, fault.Refused, "(401)"},
		{"down", "http://" + deadAddress(t), fault.Transient, "firewalls"},
	} {
		for _, path := range []string{"/token", "/auth/oauth"} {
			t.Run(test.name+path, func(t *testing.T) {
				o := options(t, test.base)
				o.Login = gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(test.base + path + "?key=client-s3cret")}
				fails(t, gateway.New(o).Login(t.Context()), test.class, test.base+path+": ", test.word)
			})
		}
	}
}

func TestTokenServerIsDown(t *testing.T) {
	t.Parallel()
	base := "http://" + deadAddress(t)
	for _, login := range logins {
		o := options(t, base)
		o.Login = login.login(base)
		fails(t, gateway.New(o).Login(t.Context()), fault.Transient, login.path, login.urlKey, "firewalls")
	}
}

// together runs calls at once and returns their errors.
func together(calls int, call func() error) []error {
	failures := make([]error, calls)
	var group sync.WaitGroup
	for i := range failures {
		group.Go(func() { failures[i] = call() })
	}
	group.Wait()
	return failures
}

func TestOneLoginForAll(t *testing.T) {
	t.Parallel()
	g, server := startSandbox(t, sandboxOptions())
	client := gateway.New(options(t, server.URL))
	for round := 1; round <= 3; round++ {
		for _, err := range together(20, func() error { _, err := send(t.Context(), client); return err }) {
			if err != nil {
				t.Fatal(err)
			}
		}
		// The tokens die between the rounds: one renewal serves all, too.
		if n := count(g, "POST /auth 201"); n != round {
			t.Errorf("%d logins in round %d", n, round)
		}
		if n := count(g, "POST "+assetsPath+" 202"); n != round*20 {
			t.Errorf("%d batches taken in round %d", n, round)
		}
		g.RevokeTokens()
	}
}

// mayUse is a gateway whose tokens live for so many calls.
func mayUse(t *testing.T, uses int, logins *atomic.Int64, handler http.HandlerFunc) http.Handler {
	var mu sync.Mutex
	left := map[string]int{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth", func(w http.ResponseWriter, _ *http.Request) {
		token := fmt.Sprintf("%s-%d", token, logins.Add(1))
		mu.Lock()
		defer mu.Unlock()
		left[token] = uses
		_, _ = io.WriteString(w, token)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		mu.Lock()
		left[token]--
		dead := left[token] < 0
		mu.Unlock()
		if dead {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler(w, r)
	})
	return mux
}

func TestTokenDiesEveryThreeCalls(t *testing.T) {
	t.Parallel()
	var logins, taken atomic.Int64
	server := serve(t, mayUse(t, 3, &logins, func(w http.ResponseWriter, _ *http.Request) {
		taken.Add(1)
		_, _ = io.WriteString(w, published)
	}))
	client := gateway.New(options(t, server.URL))
	for _, err := range together(10, func() error {
		for range 12 {
			if _, err := send(t.Context(), client); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Error(err)
		}
	}
	if n := logins.Load(); taken.Load() != 120 || n < 40 || n > 240 {
		t.Errorf("%d taken with %d logins", taken.Load(), n)
	}
}

func TestSecondUnauthorizedIsRefused(t *testing.T) {
	t.Parallel()
	var logins, calls atomic.Int64
	server := serve(t, mayUse(t, 0, &logins, nil))
	client := gateway.New(options(t, server.URL))
	_, err := client.Connection(t.Context())
	fails(t, err, fault.Refused, "401", "connector.api.url", "read connection")
	if client.Counts().Requests != 4 || logins.Load() != 2 {
		t.Errorf("%d requests, %d logins, want two of each kind", client.Counts().Requests, logins.Load())
	}
	// Nobody goes on for ever, however many there are.
	for _, err := range together(20, func() error { calls.Add(1); _, err := send(t.Context(), client); return err }) {
		fails(t, err, fault.Refused, "401")
	}
	if n := logins.Load(); n > 2+2*calls.Load() {
		t.Errorf("%d logins for %d calls", n, calls.Load())
	}
}

// An endpoint that refuses every token ends its call, however well the others go.
func TestUnauthorizedHereAndNotElsewhere(t *testing.T) {
	t.Parallel()
	var logins, refused atomic.Int64
	server := serve(t, mayUse(t, 1_000_000, &logins, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == profilePath {
			refused.Add(1)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, published)
	}))
	client := gateway.New(options(t, server.URL))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var others sync.WaitGroup
	defer others.Wait()
	for range 10 {
		others.Go(func() {
			for ctx.Err() == nil {
				if _, err := send(ctx, client); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	const calls = 5
	for range calls {
		_, err := client.Profile(ctx)
		fails(t, err, fault.Refused, "401", "read profile")
	}
	cancel()
	if n, l := refused.Load(), logins.Load(); n > 3*calls || l > 1+2*calls {
		t.Errorf("%d calls led to %d tries and %d logins", calls, n, l)
	}
}

// A clock that is ahead makes every token look dead; only a 401 tells.
func TestExpiryInThePast(t *testing.T) {
	t.Parallel()
	payload := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(-time.Hour).Unix())
	stale := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + "."
	logins := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth", func(w http.ResponseWriter, _ *http.Request) {
		logins++
		_, _ = io.WriteString(w, stale)
	})
	mux.HandleFunc("/", answering(200, published))
	client := gateway.New(options(t, serve(t, mux).URL))
	for range 3 {
		if _, err := send(t.Context(), client); err != nil {
			t.Fatal(err)
		}
	}
	if logins != 1 {
		t.Errorf("%d logins", logins)
	}
}
