package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"adconnector/internal/fault"
)

var (
	errCredentials     = errors.New("wrong credentials")
	errLoginNotAllowed = errors.New("account not permitted to log in")
	errLoginRefused    = errors.New("login refused")
	errTooManyLogins   = errors.New("too many logins")
	errNoToken         = errors.New("no token in the response")
	errNewTokenRefused = errors.New("newly issued token refused")
	errNotInHeader     = errors.New("line break or control character in the credentials")
)

// login requests a token with the configured type of account.
func (c *Client) login(ctx context.Context) (*oauth2.Token, error) {
	l := c.options.Login
	switch {
	case l.Username != "":
		form := url.Values{"username": {l.Username}, "password": {l.Password.Reveal()}, "token": {"true"}}
		return c.gatewayLogin(ctx, call{url: c.options.URL.JoinPath("/auth"), body: [][]byte{[]byte(form.Encode())}}, nil,
			"qualys.user.username and qualys.user.password")
	case l.TokenURL != nil && !isGatewayLogin(l.TokenURL):
		return c.clientCredentialsLogin(ctx)
	default:
		target, setting := l.TokenURL, "oauth.token.url"
		switch {
		case target == nil && l.Subscription:
			target, setting = c.options.URL.JoinPath("/auth/oauth"), ""
		case target == nil:
			target, setting = c.options.URL.JoinPath("/auth/oidc"), ""
		}
		call := call{url: target, urlKey: setting}
		if keys := l.UnsendableKeys(); len(keys) > 0 {
			return nil, loginOperation(target).Failed(fault.Refused, errNotInHeader, "correct "+strings.Join(keys, " and "))
		}
		// The gateway requires this spelling of the header names.
		header := http.Header{"clientId": {l.ClientID}, "clientSecret": {l.ClientSecret.Reveal()}}
		return c.gatewayLogin(ctx, call, header, "oauth.client.id, oauth.client.secret and qualys.OAuthClientLevel")
	}
}

// UnsendableKeys returns the settings of the credentials that the gateway's own login for clients
// cannot send, because a header cannot contain them (RFC 9110 5.5).
func (l Login) UnsendableKeys() (keys []string) {
	if l.Username != "" || l.TokenURL != nil && !isGatewayLogin(l.TokenURL) {
		return nil // sent in the body
	}
	if !fitsInHeader(l.ClientID) {
		keys = append(keys, "oauth.client.id")
	}
	if !fitsInHeader(l.ClientSecret.Reveal()) {
		keys = append(keys, "oauth.client.secret")
	}
	return keys
}

func fitsInHeader(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == '\x7f' })
}

func isGatewayLogin(target *url.URL) bool {
	return strings.HasSuffix(target.Path, "/auth/oidc") || strings.HasSuffix(target.Path, "/auth/oauth")
}

// gatewayLogin logs in with the gateway's own protocol. The response is a bare JWT, or JSON
// that contains one. credentialKeys are the settings with the credentials.
func (c *Client) gatewayLogin(ctx context.Context, call call, header http.Header, credentialKeys string) (*oauth2.Token, error) {
	call.Operation, call.method, call.maxResponse = loginOperation(call.url), http.MethodPost, maxTokenBytes
	setting := call.setting()
	r, err := c.sendOnce(ctx, call, func(request *http.Request) {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for name, values := range header {
			request.Header[name] = values
		}
	})
	// No error contains the text of the response, because it may repeat the credentials.
	failed := func(reason error) error { return &responseError{Status: r.status, Reason: reason} }
	switch {
	case err != nil:
		return nil, err
	case r.status == http.StatusUnauthorized:
		return nil, call.Failed(fault.Refused, failed(errCredentials), "correct "+credentialKeys)
	case r.status == http.StatusForbidden:
		return nil, call.Failed(fault.Refused, failed(errLoginNotAllowed), "grant the account API access")
	case r.status == http.StatusNotFound:
		return nil, call.Failed(fault.Refused, failed(errNotFound), "check "+setting+" (use the gateway of the platform, not its console), and "+credentialKeys)
	case r.status == http.StatusTooManyRequests:
		return nil, call.Failed(fault.Transient, failed(errTooManyLogins), "check what else uses this account")
	case r.status/100 != 2:
		if err := classify(call, response{status: r.status, header: r.header}); err != nil {
			return nil, err
		}
		return nil, call.Failed(fault.Refused, failed(errUnexpected), "check "+setting+", and "+credentialKeys)
	}
	token := parseToken(r.body)
	if token == "" {
		return nil, call.Failed(fault.Transient, failed(errNoToken), "check that "+setting+" is the gateway, and that no proxy responds in its place")
	}
	return &oauth2.Token{AccessToken: token, Expiry: tokenExpiry(token, time.Now())}, nil
}

// loginOperation returns the operation of a login. Its object is the URL without user and
// query.
func loginOperation(target *url.URL) fault.Operation {
	return fault.Operation{Op: "log in at", Object: (&url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path}).String()}
}

// clientCredentialsLogin logs in with the client credentials grant (RFC 6749 4.4).
func (c *Client) clientCredentialsLogin(ctx context.Context) (*oauth2.Token, error) {
	l := c.options.Login
	call := call{Operation: loginOperation(l.TokenURL), urlKey: "oauth.token.url"}
	config := clientcredentials.Config{
		ClientID: l.ClientID, ClientSecret: l.ClientSecret.Reveal(), TokenURL: l.TokenURL.String(), AuthStyle: oauth2.AuthStyleInParams,
	}
	timeoutCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c.counts.requests.Add(1)
	token, err := config.Token(context.WithValue(timeoutCtx, oauth2.HTTPClient, c.oauthClient()))
	var refused *oauth2.RetrieveError
	var networkError *url.Error
	switch {
	case errors.As(err, &refused):
		return nil, refusedGrant(call, refused)
	case errors.As(err, &networkError):
		return nil, c.transportError(ctx, call, err)
	case err != nil && ctx.Err() != nil:
		return nil, contextError(call.Operation, ctx.Err())
	case err != nil, !isToken(token.AccessToken):
		return nil, call.Failed(fault.Transient, errNoToken, "check oauth.token.url")
	}
	if now := time.Now(); !token.Expiry.After(now) {
		token.Expiry = tokenExpiry(token.AccessToken, now)
	}
	return token, nil
}

// refusedGrant returns the error of a refused client credentials grant. It contains only
// status and error code, because the body may contain data that must not be logged.
func refusedGrant(call call, refused *oauth2.RetrieveError) error {
	status := refused.Response.StatusCode
	if status == http.StatusTooManyRequests {
		return call.Failed(fault.Transient, &responseError{Status: status, Reason: errTooManyLogins}, "check what else uses this client ID")
	}
	if status != http.StatusForbidden {
		if err := classify(call, response{status: status, header: refused.Response.Header}); err != nil {
			return err
		}
	}
	return call.Failed(fault.Refused, &responseError{Status: status, Reason: errLoginRefused, Message: oauthErrorCode(refused.ErrorCode)}, "correct oauth.client.id, oauth.client.secret and oauth.token.url")
}

// oauthErrorCode returns an error code of RFC 6749 5.2, and "" for any other text.
func oauthErrorCode(code string) string {
	if len(code) == 0 || len(code) > 40 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return code
}

// oauthClient returns an HTTP client that sets the User-Agent and limits the response, because
// the OAuth library does neither.
func (c *Client) oauthClient() *http.Client {
	client := *c.http
	client.Transport = oauthTransport{c.http.Transport, "adconnector/" + c.options.Version}
	return &client
}

type oauthTransport struct {
	http.RoundTripper
	userAgent string
}

// RoundTrip sends a request with the User-Agent, and reads the whole response.
func (t oauthTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("User-Agent", t.userAgent)
	response, err := t.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := readBody(response, maxTokenBytes)
	if err != nil {
		return nil, err
	}
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return response, nil
}

// parseToken returns the token in the body of a response; "" if there is none. The body is a
// bare token, a JSON string, or a JSON object with access_token or token.
func parseToken(body []byte) string {
	text := strings.TrimSpace(string(body))
	var wrapped struct {
		AccessToken string `json:"access_token"`
		Token       string `json:"token"`
	}
	switch {
	case strings.HasPrefix(text, "{"):
		if json.Unmarshal(body, &wrapped) != nil {
			return ""
		}
		if text = wrapped.AccessToken; text == "" {
			text = wrapped.Token
		}
	case strings.HasPrefix(text, `"`):
		if json.Unmarshal([]byte(text), &text) != nil {
			return ""
		}
	case json.Valid(body): // null, a number
		return ""
	}
	if !isToken(text) {
		return "" // for example an HTML page
	}
	return text
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
