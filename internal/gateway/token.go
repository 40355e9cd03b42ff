package gateway

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// issuedToken is the token of a successful login.
type issuedToken struct {
	text   string
	expiry time.Time
}

const (
	defaultTokenLifetime = 4 * time.Hour  // if the response does not contain one
	maxTokenLifetime     = 24 * time.Hour // after which a token is renewed in any case
)

// parseToken returns the token in the body of a response; without a text if there is none. The
// body is a bare token, a JSON string, a JSON object with access_token or token, or a form with
// access_token. The Content-Type is not considered, because servers send JSON as text.
//
// The token expires after expires_in, or else at the JWT's exp.
func parseToken(body []byte, now time.Time) issuedToken {
	text, lifetime := tokenText(bytes.TrimSpace(body))
	switch {
	case !isToken(text):
		return issuedToken{} // for example an HTML page
	case lifetime > 0:
		return issuedToken{text, now.Add(lifetime)}
	default:
		return issuedToken{text, tokenExpiry(text, now)}
	}
}

// tokenText returns the text in the place of the token, and the lifetime; 0: unknown.
func tokenText(body []byte) (string, time.Duration) {
	switch {
	case bytes.HasPrefix(body, []byte("{")):
		var fields map[string]json.RawMessage
		if json.Unmarshal(body, &fields) != nil {
			return "", 0
		}
		for _, name := range []string{"access_token", "token"} {
			if text := jsonText(fields[name]); text != "" {
				return text, parseLifetime(string(fields["expires_in"]))
			}
		}
		return "", 0
	case bytes.HasPrefix(body, []byte(`"`)):
		return jsonText(body), 0
	case json.Valid(body): // null, a number
		return "", 0
	case bytes.HasPrefix(body, []byte("access_token=")) || bytes.Contains(body, []byte("&access_token=")):
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return "", 0
		}
		return form.Get("access_token"), parseLifetime(form.Get("expires_in"))
	}
	return string(body), 0
}

// jsonText returns a JSON string; "" for any other value.
func jsonText(raw []byte) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return text
}

// parseLifetime returns the lifetime of an expires_in, which some servers send with a fraction,
// in exponential notation or as a string; 0: unknown.
func parseLifetime(text string) time.Duration {
	seconds, _ := strconv.ParseFloat(strings.TrimSpace(strings.Trim(text, `"`)), 64) // infinite if out of range
	if !(seconds > 0) || math.IsNaN(seconds) {
		return 0
	}
	return time.Duration(min(seconds, maxTokenLifetime.Seconds()) * float64(time.Second))
}

// isWebPage reports whether a response is HTML.
func isWebPage(r response) bool {
	media, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	return media == "text/html" || bytes.HasPrefix(bytes.TrimSpace(r.body), []byte("<"))
}

// maxTokenSize limits the token, which is sent in the header of each request. Servers accept
// headers of 8 to 64 KiB in total.
const maxTokenSize = 32 << 10

// isToken reports whether text has the syntax of a bearer token (RFC 6750 2.1).
func isToken(text string) bool {
	return text != "" && len(text) <= maxTokenSize && !strings.ContainsFunc(text, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !letter && !('0' <= r && r <= '9') && !strings.ContainsRune("-._~+/=", r)
	})
}

// tokenExpiry returns a JWT's exp (RFC 7519 4.1.4), or the default lifetime if it is missing
// or past. It does not verify the token.
func tokenExpiry(token string, now time.Time) time.Time {
	defaultExpiry := now.Add(defaultTokenLifetime)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return defaultExpiry
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return defaultExpiry
	}
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Expires <= 0 || claims.Expires > 1<<40 {
		return defaultExpiry
	}
	if expires := time.Unix(int64(claims.Expires), 0); expires.After(now) {
		return expires
	}
	return defaultExpiry // the local clock is wrong; a 401 response will show when the token has expired
}
