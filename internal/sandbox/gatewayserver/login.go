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

// tokens issues and checks JWTs, signed with HS256 and a key that nobody else has.
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
	ID      string `json:"jti"` // makes two tokens of one second differ
}

func newTokens(lifetime time.Duration) *tokens {
	t := &tokens{lifetime: lifetime}
	t.revoke()
	return t
}

// revoke ends every token given out so far: a new key knows none of them.
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
		// exp has whole seconds; rounded up, so that a token lives at least its lifetime.
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

// check says what is wrong with the token of an Authorization header.
func (t *tokens) check(authorization string) error {
	token, ok := strings.CutPrefix(authorization, "Bearer ")
	if !ok {
		return errors.New("no bearer token")
	}
	// The signature first: what is signed with our key has our form.
	dot := strings.LastIndexByte(token, '.')
	if dot < 0 {
		return errors.New("the bearer token is no JWT")
	}
	signature, err := base64.RawURLEncoding.DecodeString(token[dot+1:])
	if err != nil || !hmac.Equal(signature, t.sign(token[:dot])) {
		return errors.New("the token is revoked or not of this gateway")
	}
	_, encoded, _ := strings.Cut(token[:dot], ".")
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return errors.New("the token cannot be read")
	}
	var c claims
	if json.Unmarshal(payload, &c) != nil || time.Now().Unix() >= c.Expires {
		return errors.New("the token has expired")
	}
	return nil
}

// login answers /auth, /auth/oidc and /auth/oauth.
func (g *Server) login(name, password, wantName, wantPassword string) answer {
	if !same(name, wantName) || !same(password, wantPassword) {
		return message(http.StatusUnauthorized, "wrong credentials")
	}
	token := g.tokens.issue(name)
	if g.options.WrapToken {
		return answer{http.StatusCreated, map[string]string{"access_token": token}}
	}
	return answer{http.StatusCreated, bareToken(token)}
}

// clientCredentials answers the token endpoint of RFC 6749.
func (g *Server) clientCredentials(id, secret string) answer {
	if !same(id, g.options.ClientID) || !same(secret, g.options.ClientSecret) {
		return answer{http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "wrong credentials"}}
	}
	return answer{http.StatusOK, map[string]any{
		"access_token": g.tokens.issue(id),
		"token_type":   "Bearer",
		"expires_in":   int64(g.tokens.lifetime / time.Second),
	}}
}

// same compares credentials in constant time. No credentials never match.
func same(given, want string) bool {
	return want != "" && subtle.ConstantTimeCompare([]byte(given), []byte(want)) == 1
}
