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

// logins are all types of login.
var logins = []struct {
	name, path string
	login      func(base string) gateway.Login
	keys       []string // in the remedy of a refusal
	urlKey     string   // in the remedy of a wrong address
	standard   bool     // with the OAuth library
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
	{"the gateway's own token URL with a slash", "/auth/oidc", func(base string) gateway.Login {
		return gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(base + "/auth/oidc/")}
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
			checkRefused := func(err error) {
				t.Helper()
				cause := gateway.ErrCredentials
				if login.standard {
					cause = gateway.ErrLoginRefused
				}
				checkError(t, err, loginError(server.URL, login.path, fault.Refused), cause, login.keys...)
				if response, ok := errors.AsType[*gateway.ResponseError](err); !ok || response.Status != 401 {
					t.Errorf("response %+v", response)
				}
			}
			checkRefused(client.Login(t.Context()))
			_, err := send(t.Context(), client)
			checkRefused(err)
			attempts := 1
			if login.standard {
				attempts = 2 // in the body and in a header
			}
			if n := count(g, "POST "+login.path+" 401"); n != attempts {
				t.Errorf("%d logins with wrong credentials, want %d", n, attempts)
			}
			client.BeginRun()
			_, err = send(t.Context(), client)
			checkRefused(err)
			if n := count(g, "POST "+login.path+" 401"); n != 2*attempts {
				t.Errorf("%d logins after a new run, want %d", n, 2*attempts)
			}
		})
	}
}

// The response to a login may echo the credentials. Errors must not.
// TestCredentialsNotInHeader tests that credentials that a header cannot contain are refused
// without a request, and are sent in the body of an RFC 6749 login.
func TestCredentialsNotInHeader(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, id, secret string
		keys             []string
	}{
		{"line feed after the secret", clientID, clientSecret + "\n", []string{"oauth.client.secret"}},
		{"carriage return after the client ID", clientID + "\r", clientSecret, []string{"oauth.client.id"}},
		{"both", "\x00", "\x7f", []string{"oauth.client.id", "oauth.client.secret"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g, server := startSandbox(t, sandboxOptions())
			o := options(t, server.URL)
			o.Login = gateway.Login{ClientID: test.id, ClientSecret: secret.New(test.secret)}
			err := gateway.New(o).Login(t.Context())
			checkError(t, err, loginError(server.URL, "/auth/oidc", fault.Refused), gateway.ErrNotInHeader, test.keys...)
			if n := len(g.Requests()); n > 0 {
				t.Errorf("%d requests", n)
			}
			o.Login.TokenURL = mustURL(server.URL + "/oauth/token")
			err = gateway.New(o).Login(t.Context())
			if !errors.Is(err, gateway.ErrLoginRefused) || len(g.Requests()) != 2 { // in the body and in a header
				t.Errorf("RFC 6749: %v, %d requests", err, len(g.Requests()))
			}
		})
	}
	for _, valid := range []string{"a b\tc", "pässwörd", "~!\"#$%&'()*+,-./:;<=>?@[]^_`{|}"} {
		if keys := (gateway.Login{ClientID: valid, ClientSecret: secret.New(valid)}).UnsendableKeys(); keys != nil {
			t.Errorf("%q: %v", valid, keys)
		}
	}
	if keys := (gateway.Login{Username: "u", Password: secret.New("p\n")}).UnsendableKeys(); keys != nil {
		t.Errorf("BASIC: %v", keys)
	}
}

func TestLoginResponses(t *testing.T) {
	t.Parallel()
	redirectTarget := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("redirect followed: %s %s", r.Method, r.URL)
	}))
	const keys, address = "<keys>", "<url>"
	for _, test := range []struct {
		name     string
		status   int
		body     string
		class    fault.Class
		cause    error  // of the gateway's own logins
		remedy   string // a setting in it
		attempts int64
		// With the OAuth library:
		standard error // cause
		message  string
	}{
		{"401", 401, "", fault.Refused, gateway.ErrCredentials, keys, 1, gateway.ErrLoginRefused, ""},
		{"403", 403, "", fault.Refused, gateway.ErrLoginNotAllowed, "", 1, gateway.ErrLoginRefused, ""},
		{"404", 404, "", fault.Refused, gateway.ErrNotFound, address, 1, gateway.ErrLoginRefused, ""},
		{"400", 400, `{"error":"invalid_client","error_description":"x"}`, fault.Refused, gateway.ErrUnexpected, keys, 1, gateway.ErrLoginRefused, "invalid_client"},
		{"invalid error code", 400, `{"error":"` + clientSecret + `"}`, fault.Refused, gateway.ErrUnexpected, keys, 1, gateway.ErrLoginRefused, ""},
		{"429", 429, "", fault.Transient, gateway.ErrTooManyLogins, "", 3, gateway.ErrTooManyLogins, ""},
		{"408", 408, "", fault.Transient, gateway.ErrGatewayFailed, "", 3, gateway.ErrGatewayFailed, ""},
		{"500", 500, "", fault.Transient, gateway.ErrGatewayFailed, "", 3, gateway.ErrGatewayFailed, ""},
		{"HTML", 200, "<!DOCTYPE html>\n<html><body>Accept the terms</body></html>", fault.Transient, gateway.ErrWebPage, address, 3, gateway.ErrWebPage, ""},
		{"HTML without spaces", 200, "<html></html>", fault.Transient, gateway.ErrWebPage, address, 3, gateway.ErrWebPage, ""},
		{"empty", 200, "-", fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"no token in JSON", 201, `{"message":"welcome"}`, fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"invalid token", 201, `{"access_token":"eyJ\nb","token":"eyJ b"}`, fault.Transient, gateway.ErrNoToken, address, 3, gateway.ErrNoToken, ""},
		{"redirect", 307, "", fault.Refused, gateway.ErrRedirected, address, 1, gateway.ErrRedirected, redirectTarget.URL + "/x"},
		{"redirect after POST", 303, "", fault.Refused, gateway.ErrRedirected, address, 1, gateway.ErrRedirected, redirectTarget.URL + "/x"},
	} {
		for _, login := range logins {
			t.Run(test.name+", "+login.name, func(t *testing.T) {
				var requests atomic.Int64
				server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					if got := r.UserAgent(); got != "adconnector/test" {
						t.Errorf("User-Agent %q", got)
					}
					sent, _ := io.ReadAll(r.Body)
					w.Header().Set("Location", redirectTarget.URL+"/x?"+string(sent)+"#"+r.Header.Get("clientSecret"))
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
				if isBasic := o.Login.Username != ""; test.status == http.StatusUnauthorized && isBasic {
					names = append(names, "SSO", "API access") // neither can be seen in the response
				}
				cause, message := test.cause, test.message
				if login.standard {
					cause = test.standard
				} else if test.status >= 400 {
					message = "" // it may echo the credentials
				}
				err := gateway.New(o).Login(t.Context())
				checkError(t, err, loginError(server.URL, login.path, test.class), cause, names...)
				checkResponseError(t, err, test.status, message)
				attempts := test.attempts
				if login.standard && (test.status == 400 || test.status == 401) {
					attempts *= 2 // with the credentials in a header, too
				}
				if n := requests.Load(); n != attempts {
					t.Errorf("%d attempts, want %d", n, attempts)
				}
			})
		}
	}
}

// refusingAddress returns a host and port that refuse connections.
func refusingAddress(t testing.TB) string {
	return fmt.Sprintf("127.0.0.1:%d", ports.Refusing(t))
}

func TestTokenURLQueryIsNotInErrors(t *testing.T) {
	t.Parallel()
	refusing := serve(t, respondWith(401, "")).URL
	for _, test := range []struct {
		name, base string
		class      fault.Class
		remedy     string // a part of it
	}{
		{"refused", refusing, fault.Refused, "oauth.client.id"},
		{"down", "http://" + refusingAddress(t), fault.Transient, "firewalls"},
	} {
		for _, path := range []string{"/token", "/auth/oauth"} {
			t.Run(test.name+path, func(t *testing.T) {
				o := options(t, test.base)
				o.Login = gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(test.base + path + "?key=client-s3cret")}
				checkError(t, gateway.New(o).Login(t.Context()), loginError(test.base, path, test.class), nil, test.remedy)
			})
		}
	}
}

func TestTokenServerIsDown(t *testing.T) {
	t.Parallel()
	base := "http://" + refusingAddress(t)
	for _, login := range logins {
		o := options(t, base)
		o.Login = login.login(base)
		checkError(t, gateway.New(o).Login(t.Context()), loginError(base, login.path, fault.Transient), syscall.ECONNREFUSED, login.urlKey, "firewalls")
	}
}

// concurrently runs a number of calls concurrently and returns their errors.
func concurrently(calls int, call func() error) []error {
	failures := make([]error, calls)
	var group sync.WaitGroup
	for i := range failures {
		group.Go(func() { failures[i] = call() })
	}
	group.Wait()
	return failures
}

func TestConcurrentCallsShareLogin(t *testing.T) {
	t.Parallel()
	g, server := startSandbox(t, sandboxOptions())
	client := gateway.New(options(t, server.URL))
	for round := 1; round <= 3; round++ {
		for _, err := range concurrently(20, func() error { _, err := send(t.Context(), client); return err }) {
			if err != nil {
				t.Fatal(err)
			}
		}
		// The tokens are revoked between the rounds, so that each one has one token refresh.
		if n := count(g, "POST /auth 201"); n != round {
			t.Errorf("%d logins in round %d", n, round)
		}
		if n := count(g, "POST "+assetsPath+" 202"); n != round*20 {
			t.Errorf("%d batches accepted in round %d", n, round)
		}
		g.RevokeTokens()
	}
}

// tokenLimitedServer returns a gateway whose tokens are valid for a number of requests.
func tokenLimitedServer(uses int, logins *atomic.Int64, handler http.HandlerFunc) http.Handler {
	var mu sync.Mutex
	remaining := map[string]int{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth", func(w http.ResponseWriter, _ *http.Request) {
		token := fmt.Sprintf("%s-%d", token, logins.Add(1))
		mu.Lock()
		defer mu.Unlock()
		remaining[token] = uses
		_, _ = io.WriteString(w, token)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		mu.Lock()
		remaining[token]--
		expired := remaining[token] < 0
		mu.Unlock()
		if expired {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		handler(w, r)
	})
	return mux
}

func TestTokenExpiresEveryThreeRequests(t *testing.T) {
	t.Parallel()
	var logins, accepted atomic.Int64
	server := serve(t, tokenLimitedServer(3, &logins, func(w http.ResponseWriter, _ *http.Request) {
		accepted.Add(1)
		_, _ = io.WriteString(w, published)
	}))
	client := gateway.New(options(t, server.URL))
	for _, err := range concurrently(10, func() error {
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
	if n := logins.Load(); accepted.Load() != 120 || n < 40 || n > 240 {
		t.Errorf("%d batches accepted with %d logins", accepted.Load(), n)
	}
}

func TestSecondUnauthorizedIsRefused(t *testing.T) {
	t.Parallel()
	var logins, calls atomic.Int64
	o := options(t, serve(t, tokenLimitedServer(0, &logins, nil)).URL)
	client := gateway.New(o)
	_, err := client.Connection(t.Context())
	checkError(t, err, connectionError(fault.Refused), gateway.ErrNewTokenRefused, "connector.api.url")
	if client.Counts().Requests != 4 || logins.Load() != 2 {
		t.Errorf("%d requests, %d of them logins, want 4 and 2", client.Counts().Requests, logins.Load())
	}
	// With many concurrent calls, too, each one ends.
	for _, err := range concurrently(20, func() error { calls.Add(1); _, err := send(t.Context(), client); return err }) {
		checkError(t, err, sendError(o, fault.Refused), gateway.ErrNewTokenRefused, "connector.api.url")
	}
	if n := logins.Load(); n > 2+2*calls.Load() {
		t.Errorf("%d logins for %d calls", n, calls.Load())
	}
}

// A call to an endpoint that rejects every token ends, although other calls succeed.
func TestUnauthorizedEndpoint(t *testing.T) {
	t.Parallel()
	var logins, rejected atomic.Int64
	server := serve(t, tokenLimitedServer(1_000_000, &logins, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == profilePath {
			rejected.Add(1)
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
		checkError(t, err, profileError(fault.Refused), gateway.ErrNewTokenRefused, "connector.api.url")
	}
	cancel()
	if n, l := rejected.Load(), logins.Load(); n > 3*calls || l > 1+2*calls {
		t.Errorf("%d calls with %d requests and %d logins", calls, n, l)
	}
}

// The state after a refused call is sent with the latest token: a run logs in twice, not three times.
func TestStateAfterRefusedToken(t *testing.T) {
	t.Parallel()
	var logins atomic.Int64
	server := serve(t, tokenLimitedServer(1_000_000, &logins, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	o := options(t, server.URL)
	client := gateway.New(o)
	_, err := send(t.Context(), client)
	checkError(t, err, sendError(o, fault.Refused), gateway.ErrNewTokenRefused, "connector.api.url")
	if err := client.SetState(t.Context(), gateway.ConnectorState{State: "SCHEDULED"}); err != nil || logins.Load() != 2 {
		t.Errorf("%v, %d logins, want 2", err, logins.Load())
	}
}

// With a local clock that is ahead, every token seems expired. Only a 401 response counts.
func TestTokenExpiryInPast(t *testing.T) {
	t.Parallel()
	payload := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(-time.Hour).Unix())
	expired := "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + "."
	logins := 0
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth", func(w http.ResponseWriter, _ *http.Request) {
		logins++
		_, _ = io.WriteString(w, expired)
	})
	mux.HandleFunc("/", respondWith(200, published))
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
