package gatewayserver

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
)

// tokens issues and checks JWTs. It signs them with HS256 and a random key.
type tokens struct {
	lifetime time.Duration

	mu  sync.Mutex
	key []byte
}

const jwtHeader = `{"alg":"HS256","typ":"JWT"}`

type claims struct {
	Subject string `json:"sub"`
	Issued  int64  `json:"iat"`
	Expires int64  `json:"exp"`
	ID      string `json:"jti"` // distinguishes tokens of the same second
}

func newTokens(lifetime time.Duration) *tokens {
	t := &tokens{lifetime: lifetime}
	t.revoke()
	return t
}

// revoke replaces the key, which invalidates all tokens.
func (t *tokens) revoke() {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key = key
}

func (t *tokens) issue(subject string) string {
	now := time.Now()
	payload, _ := json.Marshal(claims{
		Subject: subject,
		Issued:  now.Unix(),
		// exp is in whole seconds. It is rounded up, so that a token has at least its lifetime.
		Expires: now.Add(t.lifetime + time.Second - 1).Unix(),
		ID:      rand.Text(),
	})
	signed := base64.RawURLEncoding.EncodeToString([]byte(jwtHeader)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(t.sign(signed))
}

func (t *tokens) sign(signed string) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	mac := hmac.New(sha256.New, t.key)
	mac.Write([]byte(signed))
	return mac.Sum(nil)
}

// check checks the token of an Authorization header.
func (t *tokens) check(authorization string) error {
	token, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok {
		return errors.New("no bearer token")
	}
	// After the signature is verified, the token has the format of issue.
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 {
		return errors.New("bearer token is not a JWT")
	}
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil || !hmac.Equal(signature, t.sign(token[:dot])) {
		return errors.New("token is revoked or from another gateway")
	}
	_, encoded, _ := strings.Cut(token[:dot], ".")
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return errors.New("token is malformed")
	}
	var c claims
	if json.Unmarshal(payload, &c) != nil || time.Now().Unix() >= c.Expires {
		return errors.New("token expired")
	}
	return nil
}

// login answers requests to /auth, /auth/oidc and /auth/oauth.
func (s *Server) login(name, password, wantName, wantPassword string) answer {
	if !matches(name, wantName) || !matches(password, wantPassword) {
		return message(http.StatusUnauthorized, "wrong credentials")
	}
	token := s.tokens.issue(name)
	if s.options.WrapToken {
		return answer{http.StatusCreated, map[string]string{"access_token": token}}
	}
	return answer{http.StatusCreated, bareToken(token)}
}

// clientCredentials answers a request for client credentials (RFC 6749 section 4.4).
func (s *Server) clientCredentials(id, secret string) answer {
	if !matches(id, s.options.ClientID) || !matches(secret, s.options.ClientSecret) {
		return answer{http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "wrong credentials"}}
	}
	return answer{http.StatusOK, map[string]any{
		"access_token": s.tokens.issue(id),
		"token_type":   "Bearer",
		"expires_in":   int64(s.tokens.lifetime / time.Second),
	}}
}

// matches compares credentials in constant time. Empty credentials never match.
func matches(given, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(given), []byte(want)) == 1
}
