package gateway_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/secret"
	"adconnector/test/ports"
)

// logins are all ways to log in at a gateway.
var logins = []struct {
	name, path string
	login      func(base string) gateway.Login
	keys       []string // that a refusal names
	urlKey     string   // that a wrong address names
	standard   bool     // by the OAuth library
}{
	{"basic", "/auth", func(string) gateway.Login {
		return gateway.Login{Username: username, Password: secret.New(password)}
	}, []string{"qualys.user.username", "qualys.user.password"}, "connector.api.url", false},
	{"client of a user", "/auth/oidc", func(string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret)}
	}, []string{"oauth.client.id", "oauth.client.secret"}, "connector.api.url", false},
	{"client of the subscription", "/auth/oauth", func(string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), Subscription: true}
	}, []string{"oauth.client.id", "oauth.client.secret"}, "connector.api.url", false},
	{"the gateway's own token URL", "/auth/oauth", func(base string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(base + "/auth/oauth")}
	}, []string{"oauth.client.id", "oauth.client.secret"}, "oauth.token.url", false},
	{"RFC 6749", "/oauth/token", func(base string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(base + "/oauth/token")}
	}, []string{"oauth.client.id", "oauth.client.secret", "oauth.token.url"}, "oauth.token.url", true},
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
			refused := func(err error) {
				t.Helper()
				cause := gateway.ErrCredentials
				if login.standard {
					cause = gateway.ErrLoginRefused
				}
				wantFailure(t, err, loggingIn(server.URL, login.path, fault.Refused), cause, login.keys...)
				if answer, is := errors.AsType[*gateway.AnswerError](err); !is || answer.Status != 401 {
					t.Errorf("answer %+v", answer)
				}
			}
			refused(client.Login(t.Context()))
			_, err := send(t.Context(), client)
			refused(err)
			if n := count(g, "POST "+login.path+" 401"); n != 1 {
				t.Errorf("%d logins: wrong credentials are tried once", n)
			}
			client.BeginRun()
			_, err = send(t.Context(), client)
			refused(err)
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
		cause  error  // of the gateway's own logins
		remedy string // what it names
		tries  int64
		// Of the OAuth library's login.
		standard error // the cause
		words    string
	}{
		{"401", 401, "", fault.Refused, gateway.ErrCredentials, keys, 1, gateway.ErrLoginRefused, ""},
		{"403", 403, "", fault.Refused, gateway.ErrLoginNotAllowed, "", 1, gateway.ErrLoginRefused, ""},
		{"404", 404, "", fault.Refused, gateway.ErrNotFound, address, 1, gateway.ErrLoginRefused, ""},
		{"400", 400, `{"error":"invalid_client","error_description":"x"}`, fault.Refused, gateway.ErrUnexpected, keys, 1, gateway.ErrLoginRefused, "invalid_client"},
		{"a code that is none", 400, `{"error":"` + clientSecret + `"}`, fault.Refused, gateway.ErrUnexpected, keys, 1, gateway.ErrLoginRefused, ""},
		{"429", 429, "", fault.Transient, gateway.ErrTooManyLogins, "", 3, gateway.ErrTooManyLogins, ""},
		{"408", 408, "", fault.Transient, gateway.ErrGatewayFailed, "", 3, gateway.ErrGatewayFailed, ""},
		{"500", 500, "", fault.Transient, gateway.ErrGatewayFailed, "", 3, gateway.ErrGatewayFailed, ""},
		{"HTML", 200, "<!DOCTYPE html>\n<html><body>Accept the terms</body></html>", fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"HTML in one word", 200, "<html></html>", fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"empty", 200, "-", fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"no token in JSON", 201, `{"message":"welcome"}`, fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"a token that is none", 201, `{"access_token":"eyJ\nb","token":"eyJ b"}`, fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"redirect", 307, "", fault.Refused, gateway.ErrRedirected, address, 1, gateway.ErrRedirected, elsewhere.URL + "/x"},
		{"redirect after POST", 303, "", fault.Refused, gateway.ErrRedirected, address, 1, gateway.ErrRedirected, elsewhere.URL + "/x"},
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
				names := []string{test.remedy}
				switch test.remedy {
				case keys:
					names = login.keys
				case address:
					names = []string{login.urlKey}
				}
				cause, words := test.cause, test.words
				if login.standard {
					cause = test.standard
				} else if test.status >= 400 {
					words = "" // what the gateway says may repeat what was sent
				}
				err := gateway.New(o).Login(t.Context())
				wantFailure(t, err, loggingIn(server.URL, login.path, test.class), cause, names...)
				if !login.standard || cause != gateway.ErrNoToken {
					wantAnswer(t, err, test.status, words)
				}
				if n := calls.Load(); n != test.tries {
					t.Errorf("%d calls, want %d", n, test.tries)
				}
			})
		}
	}
}

// deadAddress is a host and port that refuse connections.
func deadAddress(t testing.TB) string {
	return fmt.Sprintf("127.0.0.1:%d", ports.Refusing(t))
}

func TestTokenURLIsNotQuoted(t *testing.T) {
	t.Parallel()
	refusing := serve(t, answering(401, "")).URL
	for _, test := range []struct {
		name, base string
		class      fault.Class
		remedy     string // what it names
	}{
		{"refused", refusing, fault.Refused, "oauth.client.id"},
		{"down", "http://" + deadAddress(t), fault.Transient, "firewalls"},
	} {
		for _, path := range []string{"/token", "/auth/oauth"} {
			t.Run(test.name+path, func(t *testing.T) {
				o := options(t, test.base)
				o.Login = gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(test.base + path + "?key=client-s3cret")}
				wantFailure(t, gateway.New(o).Login(t.Context()), loggingIn(test.base, path, test.class), nil, test.remedy)
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
		wantFailure(t, gateway.New(o).Login(t.Context()), loggingIn(base, login.path, fault.Transient), syscall.ECONNREFUSED, login.urlKey, "firewalls")
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
	o := options(t, serve(t, mayUse(t, 0, &logins, nil)).URL)
	client := gateway.New(o)
	_, err := client.Connection(t.Context())
	wantFailure(t, err, readingConnection(fault.Refused), gateway.ErrNewTokenRefused, "connector.api.url")
	if client.Counts().Requests != 4 || logins.Load() != 2 {
		t.Errorf("%d requests, %d logins, want two of each kind", client.Counts().Requests, logins.Load())
	}
	// Nobody goes on for ever, however many there are.
	for _, err := range together(20, func() error { calls.Add(1); _, err := send(t.Context(), client); return err }) {
		wantFailure(t, err, sending(o, fault.Refused), gateway.ErrNewTokenRefused, "connector.api.url")
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
		wantFailure(t, err, readingProfile(fault.Refused), gateway.ErrNewTokenRefused, "connector.api.url")
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
