package gatewayserver

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// tokens issues and checks JWTs. It recognizes them by their text, so that their signature
// is a random one.
type tokens struct {
	lifetime time.Duration

	mu     sync.Mutex
	issued map[string]time.Time // token → expiry
}

const jwtHeader = `{"alg":"HS256","typ":"JWT"}`

type claims struct {
	Subject string `json:"sub"`
	Issued  int64  `json:"iat"`
	Expires int64  `json:"exp"`
}

func newTokens(lifetime time.Duration) *tokens {
	return &tokens{lifetime: lifetime, issued: map[string]time.Time{}}
}

// revoke invalidates all tokens.
func (t *tokens) revoke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.issued)
}

func (t *tokens) issue(subject string) string {
	now := time.Now()
	// exp is in whole seconds. It is rounded up, so that a token has at least its lifetime.
	expires := now.Add(t.lifetime + time.Second - 1).Truncate(time.Second)
	payload, _ := json.Marshal(claims{Subject: subject, Issued: now.Unix(), Expires: expires.Unix()})
	var parts []string
	for _, part := range []string{jwtHeader, string(payload), rand.Text()} {
		parts = append(parts, base64.RawURLEncoding.EncodeToString([]byte(part)))
	}
	token := strings.Join(parts, ".")
	t.mu.Lock()
	defer t.mu.Unlock()
	t.issued[token] = expires
	return token
}

// check checks the token of an Authorization header.
func (t *tokens) check(authorization string) error {
	token, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok {
		return errors.New("no bearer token")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch expires, ok := t.issued[token]; {
	case !ok:
		return errors.New("token is revoked or from another gateway")
	case !time.Now().Before(expires):
		return errors.New("token expired")
	}
	return nil
}

// login responds to requests to /auth, /auth/oidc and /auth/oauth.
func (s *Server) login(name, password, wantName, wantPassword string) response {
	if !matches(name, wantName) || !matches(password, wantPassword) {
		return message(http.StatusUnauthorized, "wrong credentials")
	}
	token := s.tokens.issue(name)
	if s.options.WrapToken {
		return response{http.StatusCreated, map[string]string{"access_token": token}}
	}
	return response{http.StatusCreated, bareToken(token)}
}

// clientCredentials responds to a request for client credentials (RFC 6749 section 4.4).
func (s *Server) clientCredentials(id, secret string) response {
	if !matches(id, s.options.ClientID) || !matches(secret, s.options.ClientSecret) {
		return response{http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "wrong credentials"}}
	}
	return response{http.StatusOK, map[string]any{
		"access_token": s.tokens.issue(id),
		"token_type":   "Bearer",
		"expires_in":   int64(s.tokens.lifetime / time.Second),
	}}
}

// basicCredentials returns the client's credentials in an Authorization header, which are
// form-encoded (RFC 6749 section 2.3.1).
func basicCredentials(r *http.Request) (id, secret string, inHeader bool) {
	id, secret, inHeader = r.BasicAuth()
	id, err := url.QueryUnescape(id)
	secret, err2 := url.QueryUnescape(secret)
	if err != nil || err2 != nil {
		return "", "", inHeader
	}
	return id, secret, inHeader
}

// matches compares credentials in constant time. Empty credentials never match.
func matches(given, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(given), []byte(want)) == 1
}
