package gateway

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"adconnector/internal/fault"
)

var (
	errCredentials     = errors.New("wrong credentials")
	errLoginNotAllowed = errors.New("account not permitted to log in")
	errLoginRefused    = errors.New("login refused")
	errTooManyLogins   = errors.New("too many logins")
	errNoToken         = errors.New("no token in the response")
	errWebPage         = errors.New("web page instead of a token")
	errNewTokenRefused = errors.New("newly issued token refused")
	errNotInHeader     = errors.New("line break or control character in the credentials")
)

// login requests a token with the configured type of account.
func (c *Client) login(ctx context.Context) (*issuedToken, error) {
	l := c.options.Login
	switch {
	case l.Username != "":
		form := url.Values{"username": {l.Username}, "password": {l.Password.Reveal()}, "token": {"true"}}
		return c.gatewayLogin(ctx, call{url: c.options.URL.JoinPath("/auth"), body: [][]byte{[]byte(form.Encode())}}, nil,
			"qualys.user.username and qualys.user.password")
	case l.TokenURL != nil && !isGatewayLogin(l.TokenURL):
		return c.clientCredentialsLogin(ctx)
	default:
		target, setting := withoutSlash(l.TokenURL), "oauth.token.url"
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

// isGatewayLogin reports whether a URL is one of the gateway's own logins for clients. A slash at its
// end does not matter.
func isGatewayLogin(target *url.URL) bool {
	path := withoutSlash(target).Path
	return strings.HasSuffix(path, "/auth/oidc") || strings.HasSuffix(path, "/auth/oauth")
}

// withoutSlash returns a URL without slashes at its end; nil for nil.
func withoutSlash(u *url.URL) *url.URL {
	if u == nil {
		return nil
	}
	trimmed := *u
	trimmed.Path, trimmed.RawPath = strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	return &trimmed
}

// gatewayLogin logs in with the gateway's own protocol. The response is a bare JWT, or JSON
// that contains one. credentialKeys are the settings with the credentials.
func (c *Client) gatewayLogin(ctx context.Context, call call, header http.Header, credentialKeys string) (*issuedToken, error) {
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
	case isThrottled(r.status):
		return nil, throttledLogin(call, r, "", "check what else uses this account")
	case r.status/100 != 2 && transientGrants[grantCode(r.body, c.options.Login)]:
		return nil, grantError(call, r, c.options.Login)
	case r.status == http.StatusUnauthorized:
		remedy := "correct " + credentialKeys
		if c.options.Login.Username != "" {
			remedy += "; the user needs API access, and SSO users cannot log in"
		}
		return nil, call.Failed(fault.Refused, failed(errCredentials), remedy)
	case r.status == http.StatusForbidden:
		return nil, call.Failed(fault.Refused, failed(errLoginNotAllowed), r.forbiddenRemedy("grant the account API access"))
	case r.status == http.StatusNotFound:
		return nil, call.Failed(fault.Refused, failed(errNotFound), "check "+setting+" (use the gateway of the platform, not its console), and "+credentialKeys)
	case r.status == http.StatusMethodNotAllowed: // the URL leads to another endpoint
		return nil, call.Failed(fault.Refused, failed(errUnexpected), "check "+setting+" (use the gateway of the platform, not its console)")
	case r.status/100 != 2:
		if err := classify(call, response{status: r.status, header: r.header}); err != nil {
			return nil, err
		}
		return nil, call.Failed(fault.Refused, failed(errUnexpected), "check "+setting+", and "+credentialKeys)
	}
	return issuedBy(call, r)
}

// isThrottled reports whether a login was refused because of a limit of the server on its rate, or
// on concurrent calls.
func isThrottled(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusConflict
}

// throttledLogin returns the error of a throttled login, with the wait that the server requires.
// The limits of other calls do not apply to logins, so the wait does not delay those.
func throttledLogin(call call, r response, code, remedy string) error {
	now := time.Now()
	wait, _ := longestWait(r.header, headerToWait, now)
	if wait == 0 {
		wait, _ = longestWait(r.header, "Retry-After", now)
	}
	return call.Failed(fault.Transient, &responseError{Status: r.status, Reason: errTooManyLogins, Message: code, RetryAfter: wait}, remedy)
}

// issuedBy returns the token in a successful response to a login.
func issuedBy(call call, r response) (*issuedToken, error) {
	token := parseToken(r.body, time.Now())
	switch {
	case token.text != "":
		return &token, nil
	case isWebPage(r):
		return nil, call.Failed(fault.Transient, &responseError{Status: r.status, Reason: errWebPage},
			"check that "+call.setting()+" is not the address of a console, and that no proxy or login page of the network responds in its place")
	default:
		return nil, call.Failed(fault.Transient, &responseError{Status: r.status, Reason: errNoToken},
			"check that "+call.setting()+" is the gateway or its token server, and that no proxy responds in its place")
	}
}

// loginOperation returns the operation of a login. Its object is the URL without user and
// query.
func loginOperation(target *url.URL) fault.Operation {
	return fault.Operation{Op: "log in at", Object: (&url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path}).String()}
}
