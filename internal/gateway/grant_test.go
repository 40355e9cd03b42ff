package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/secret"
)

// credentialStyle is where a token server finds the client's credentials.
type credentialStyle string

const (
	inBody   credentialStyle = "body"
	inHeader credentialStyle = "header"
)

// tokenServer is a token server that accepts credentials only in one place.
type tokenServer struct {
	id, secret string
	accepts    credentialStyle
	refusal    string // in the body of a refused request
	status     int    // of a refused request
	requests   []credentialStyle
	lost       int // number of requests to answer with 503
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	style, id, password := inBody, r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	if user, text, is := r.BasicAuth(); is {
		style = inHeader
		if id != "" || password != "" {
			style = "both"
		}
		id, _ = url.QueryUnescape(user)
		password, _ = url.QueryUnescape(text)
	}
	s.requests = append(s.requests, style)
	switch {
	case s.lost > 0 && style == s.accepts:
		s.lost--
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.PostFormValue("grant_type") == "client_credentials" && style == s.accepts && id == s.id && password == s.secret:
		w.Header().Set("Content-Type", "text/plain")
		_, _ = io.WriteString(w, `{"access_token":"`+token+`","token_type":"bearer","expires_in":3.6e3}`)
	default:
		w.WriteHeader(s.status)
		_, _ = io.WriteString(w, s.refusal)
	}
}

// TestClientCredentials checks where the client's credentials are sent (RFC 6749 2.3.1).
func TestClientCredentials(t *testing.T) {
	t.Parallel()
	const invalidClient = `{"error":"invalid_client"}`
	for _, test := range []struct {
		name   string
		server tokenServer
		secret string
		want   []credentialStyle // requests of three logins
		cause  error             // nil: success
	}{
		{"body", tokenServer{accepts: inBody}, clientSecret, []credentialStyle{inBody, inBody, inBody}, nil},
		{"header, 401", tokenServer{accepts: inHeader, status: 401}, clientSecret, []credentialStyle{inBody, inHeader, inHeader, inHeader}, nil},
		{"header, invalid_client", tokenServer{accepts: inHeader, status: 400, refusal: invalidClient}, clientSecret, []credentialStyle{inBody, inHeader, inHeader, inHeader}, nil},
		{"header, invalid_client with success", tokenServer{accepts: inHeader, status: 200, refusal: invalidClient}, clientSecret, []credentialStyle{inBody, inHeader, inHeader, inHeader}, nil},
		{"header, invalid_request", tokenServer{accepts: inHeader, status: 400, refusal: `{"error":"invalid_request"}`}, clientSecret, []credentialStyle{inBody, inHeader, inHeader, inHeader}, nil},
		{"header, special characters", tokenServer{accepts: inHeader, status: 401}, "a:b c%2B+&=ü", []credentialStyle{inBody, inHeader, inHeader, inHeader}, nil},
		{"header, first lost", tokenServer{accepts: inHeader, status: 401, lost: 1}, clientSecret, []credentialStyle{inBody, inHeader, inBody, inHeader, inHeader, inHeader}, nil},
		{"nowhere, 401", tokenServer{accepts: "nowhere", status: 401, refusal: invalidClient}, clientSecret, []credentialStyle{inBody, inHeader, inBody, inHeader, inBody, inHeader}, gateway.ErrLoginRefused},
		{"other error", tokenServer{accepts: inHeader, status: 400, refusal: `{"error":"invalid_scope"}`}, clientSecret, []credentialStyle{inBody, inBody, inBody}, gateway.ErrLoginRefused},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := test.server
			server.id, server.secret = "client:7 +", test.secret
			base := serve(t, &server).URL
			o := options(t, base)
			o.Login = gateway.Login{ClientID: server.id, ClientSecret: secret.New(test.secret), TokenURL: mustURL(base + "/token")}
			client := gateway.New(o)
			for range 3 {
				err := client.Login(t.Context())
				if test.cause == nil && err != nil {
					t.Fatal(err)
				}
				if test.cause != nil {
					checkError(t, err, loginError(base, "/token", fault.Refused), test.cause, "oauth.client.id")
				}
				client.ForgetToken()
				client.BeginRun()
			}
			if !slices.Equal(server.requests, test.want) {
				t.Errorf("requests %q, want %q", server.requests, test.want)
			}
		})
	}
}

// TestGrantErrors checks the error codes of token servers. The gateway's own logins may return
// the transient ones.
func TestGrantErrors(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code   string
		status int
		class  fault.Class
		cause  error
		remedy string // a part of it
	}{
		{"temporarily_unavailable", 400, fault.Transient, gateway.ErrGatewayFailed, "oauth.token.url"},
		{"temporarily_unavailable", 401, fault.Transient, gateway.ErrGatewayFailed, "oauth.token.url"},
		{"temporarily_unavailable", 403, fault.Transient, gateway.ErrGatewayFailed, "oauth.token.url"},
		{"temporarily_unavailable", 200, fault.Transient, gateway.ErrGatewayFailed, "oauth.token.url"},
		{"server_error", 400, fault.Transient, gateway.ErrGatewayFailed, "oauth.token.url"},
		{"slow_down", 400, fault.Transient, gateway.ErrGatewayFailed, "oauth.token.url"},
		{"slow_down", 429, fault.Transient, gateway.ErrTooManyLogins, "client ID"},
		{"invalid_client", 401, fault.Refused, gateway.ErrLoginRefused, "oauth.client.secret"},
		{"invalid_client", 200, fault.Refused, gateway.ErrLoginRefused, "oauth.client.secret"},
		{"invalid_grant", 400, fault.Refused, gateway.ErrLoginRefused, "oauth.token.url"},
		{"unauthorized_client", 400, fault.Refused, gateway.ErrLoginRefused, "grant"},
		{"unsupported_grant_type", 400, fault.Refused, gateway.ErrLoginRefused, "grant"},
		{"invalid_scope", 400, fault.Refused, gateway.ErrLoginRefused, "scope"},
		{"invalid_target", 400, fault.Refused, gateway.ErrLoginRefused, "resource"},
		{"access_denied", 403, fault.Refused, gateway.ErrLoginRefused, "access"},
		{"some_other", 400, fault.Refused, gateway.ErrLoginRefused, "oauth.client.id"},
		{"server_error", 503, fault.Transient, gateway.ErrGatewayFailed, "oauth.token.url"},
	} {
		t.Run(fmt.Sprintf("%s with %d", test.code, test.status), func(t *testing.T) {
			base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(test.status)
				_, _ = fmt.Fprintf(w, "\ufeff{\"error\":%q,\"error_description\":%q}", test.code, clientSecret)
			})).URL
			o := options(t, base)
			o.Login = gateway.Login{ClientID: clientID, ClientSecret: secret.New(clientSecret), TokenURL: mustURL(base + "/token")}
			err := gateway.New(o).Login(t.Context())
			checkError(t, err, loginError(base, "/token", test.class), test.cause, test.remedy)
			checkResponseError(t, err, test.status, test.code)
		})
	}
}

// TestTransientGatewayLogin checks that a login of the gateway that is temporarily unavailable is
// retried, whatever its status.
func TestTransientGatewayLogin(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 404} {
		var requests atomic.Int64
		server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if requests.Add(1) > 1 {
				_, _ = io.WriteString(w, token)
				return
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":"temporarily_unavailable"}`)
		}))
		if err := gateway.New(options(t, server.URL)).Login(context.Background()); err != nil || requests.Load() != 2 {
			t.Errorf("status %d: %d requests, %v", status, requests.Load(), err)
		}
	}
}

// TestEchoedCredentialIsNoErrorCode checks that an error code that repeats a credential is not in
// the error.
func TestEchoedCredentialIsNoErrorCode(t *testing.T) {
	t.Parallel()
	const password = "lower_case_secret"
	base := serve(t, respondWith(400, `{"error":"no_`+password+`"}`)).URL
	o := options(t, base)
	o.Login = gateway.Login{ClientID: clientID, ClientSecret: secret.New(password), TokenURL: mustURL(base + "/token")}
	err := gateway.New(o).Login(t.Context())
	checkResponseError(t, err, 400, "")
	if strings.Contains(err.Error(), password) {
		t.Errorf("error %v", err)
	}
}
