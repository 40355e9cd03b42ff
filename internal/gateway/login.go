package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// session holds the token that all calls share.
type session struct {
	login func(context.Context) (*oauth2.Token, error)

	mu       sync.Mutex
	token    *token   // nil: none
	underWay *renewal // nil: none
	refusal  error    // of a login; it is not repeated before forgive
}

// token is what a login gave.
type token struct {
	text  secret.Text
	until time.Time
}

// renewal is a login that others wait for.
type renewal struct {
	done chan struct{}
	err  error
}

var (
	errCredentials     = errors.New("wrong credentials")
	errLoginNotAllowed = errors.New("the account may not log in")
	errLoginRefused    = errors.New("login refused")
	errTooManyLogins   = errors.New("too many logins")
	errNoToken         = errors.New("the answer has no token")
	errNewTokenRefused = errors.New("the gateway refuses a token that it has just issued")
)

const (
	tokenLifetime = 4 * time.Hour // where the token does not say
	renewBefore   = time.Minute   // or a tenth of its life, for a short one
)

// use returns a token that is still good and not the one that was refused. Whoever
// finds none logs in while the others wait, so that one login serves all; a failure
// is theirs too, so that wrong credentials are not tried by each of them.
//
// Who has logged in because of a refusal owns the token: nobody else uses it before
// the owner calls share. mustOwn asks for such a token even if there is another.
func (s *session) use(ctx context.Context, refused *token, mustOwn bool) (t *token, own bool, err error) {
	for {
		s.mu.Lock()
		if s.token == refused {
			s.token = nil
		}
		if t := s.token; t != nil && time.Now().Before(t.until) && !mustOwn {
			s.mu.Unlock()
			return t, false, nil
		}
		if refusal := s.refusal; refusal != nil {
			s.mu.Unlock()
			return nil, false, refusal
		}
		r, mine := s.underWay, s.underWay == nil
		if mine {
			r = &renewal{done: make(chan struct{})}
			s.underWay = r
		}
		s.mu.Unlock()
		if mine {
			t, err := s.renew(ctx)
			own := err == nil && refused != nil
			switch {
			case err != nil && ctx.Err() != nil:
				// Whoever is stopped in the middle of it speaks for nobody else.
				s.finish(nil, nil)
			case !own:
				s.finish(t, err)
			}
			return t, own, err
		}
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, false, stopped(fault.Operation{Op: "log in"}, ctx.Err())
		}
		if r.err != nil {
			return nil, false, r.err
		}
	}
}

func (s *session) renew(ctx context.Context) (*token, error) {
	got, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	early := min(renewBefore, time.Until(got.Expiry)/10)
	return &token{text: secret.New(got.AccessToken), until: got.Expiry.Add(-early)}, nil
}

// share lets the others use the token that its owner has had. Nil: it was refused,
// and the next one logs in anew.
func (s *session) share(owned *token) { s.finish(owned, nil) }

func (s *session) finish(t *token, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.underWay.err = t, err
	if fault.ClassOf(err) == fault.Refused {
		s.refusal = err
	}
	close(s.underWay.done)
	s.underWay = nil
}

// forgive lets a login be tried that was refused. Each one counts towards the lockout
// of the account.
func (s *session) forgive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = nil
}

// login asks for a token in the way that the account calls for.
func (c *Client) login(ctx context.Context) (*oauth2.Token, error) {
	l := c.options.Login
	switch {
	case l.Username != "":
		form := url.Values{"username": {l.Username}, "password": {l.Password.Reveal()}, "token": {"true"}}
		return c.ownLogin(ctx, call{url: c.options.URL.JoinPath("/auth"), body: []byte(form.Encode())}, nil,
			"qualys.user.username and qualys.user.password")
	case l.TokenURL != nil && !isOwnLogin(l.TokenURL):
		return c.standardLogin(ctx)
	default:
		target, setting := l.TokenURL, "oauth.token.url"
		switch {
		case target == nil && l.Subscription:
			target, setting = c.options.URL.JoinPath("/auth/oauth"), ""
		case target == nil:
			target, setting = c.options.URL.JoinPath("/auth/oidc"), ""
		}
		// The header names are the gateway's, in this case of letters.
		header := http.Header{"clientId": {l.ClientID}, "clientSecret": {l.ClientSecret.Reveal()}}
		return c.ownLogin(ctx, call{url: target, urlKey: setting}, header, "oauth.client.id, oauth.client.secret and qualys.OAuthClientLevel")
	}
}

func isOwnLogin(target *url.URL) bool {
	return strings.HasSuffix(target.Path, "/auth/oidc") || strings.HasSuffix(target.Path, "/auth/oauth")
}

// ownLogin is the gateway's own form of login: the answer is a bare JWT, or JSON
// that wraps it. keys are the settings that hold the credentials.
func (c *Client) ownLogin(ctx context.Context, call call, header http.Header, keys string) (*oauth2.Token, error) {
	call.Operation, call.method = logInAt(call.url), http.MethodPost
	setting := call.setting()
	got, err := c.exchange(ctx, call, func(request *http.Request) {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for name, values := range header {
			request.Header[name] = values
		}
	})
	// The text of the answer stays out of all errors: it may repeat what was sent.
	failed := func(reason error) error { return &answerError{Status: got.status, Reason: reason} }
	switch {
	case err != nil:
		return nil, err
	case got.status == http.StatusUnauthorized:
		return nil, call.Failed(fault.Refused, failed(errCredentials), "correct "+keys)
	case got.status == http.StatusForbidden:
		return nil, call.Failed(fault.Refused, failed(errLoginNotAllowed), "grant the account API access")
	case got.status == http.StatusNotFound:
		return nil, call.Failed(fault.Refused, failed(errNotFound), "check "+setting+", which is the gateway of your platform and not its console, and "+keys)
	case got.status == http.StatusTooManyRequests:
		return nil, call.Failed(fault.Transient, failed(errTooManyLogins), "check what else uses this account")
	case got.status/100 != 2:
		if err := classify(call, answer{status: got.status, header: got.header}); err != nil {
			return nil, err
		}
		return nil, call.Failed(fault.Refused, failed(errUnexpected), "check "+setting+", and "+keys)
	}
	token := tokenOf(got.body)
	if token == "" {
		return nil, call.Failed(fault.Transient, failed(errNoToken), "check that "+setting+" is the gateway, and that no proxy answers in its place")
	}
	return &oauth2.Token{AccessToken: token, Expiry: expiry(token, time.Now())}, nil
}

// logInAt returns the operation of a login. Its object is the URL without user and query.
func logInAt(target *url.URL) fault.Operation {
	return fault.Operation{Op: "log in at", Object: (&url.URL{Scheme: target.Scheme, Host: target.Host, Path: target.Path}).String()}
}

// standardLogin is the client credentials grant of RFC 6749 4.4.
func (c *Client) standardLogin(ctx context.Context) (*oauth2.Token, error) {
	l := c.options.Login
	call := call{Operation: logInAt(l.TokenURL), urlKey: "oauth.token.url"}
	config := clientcredentials.Config{
		ClientID: l.ClientID, ClientSecret: l.ClientSecret.Reveal(), TokenURL: l.TokenURL.String(), AuthStyle: oauth2.AuthStyleInParams,
	}
	timed, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c.counts.requests.Add(1)
	token, err := config.Token(context.WithValue(timed, oauth2.HTTPClient, c.identified()))
	var refused *oauth2.RetrieveError
	switch {
	case errors.As(err, &refused):
		// Only status and code: the body may hold more than an operator should log.
		status := refused.Response.StatusCode
		if status == http.StatusTooManyRequests {
			return nil, call.Failed(fault.Transient, &answerError{Status: status, Reason: errTooManyLogins}, "check what else uses this client ID")
		}
		if status != http.StatusForbidden {
			if err := classify(call, answer{status: status, header: refused.Response.Header}); err != nil {
				return nil, err
			}
		}
		return nil, call.Failed(fault.Refused, &answerError{status, errLoginRefused, errorCode(refused.ErrorCode)}, "correct oauth.client.id, oauth.client.secret and oauth.token.url")
	case err != nil && isNetwork(err):
		return nil, c.explain(ctx, call, err)
	case err != nil && ctx.Err() != nil:
		return nil, stopped(call.Operation, ctx.Err())
	case err != nil, !isToken(token.AccessToken):
		return nil, call.Failed(fault.Transient, errNoToken, "check oauth.token.url")
	}
	if now := time.Now(); !token.Expiry.After(now) {
		token.Expiry = expiry(token.AccessToken, now)
	}
	return token, nil
}

// errorCode returns a code of RFC 6749 5.2, and "" for any other text.
func errorCode(code string) string {
	if len(code) == 0 || len(code) > 40 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return code
}

func isNetwork(err error) bool {
	var wrapped *url.Error
	return errors.As(err, &wrapped)
}

// identified is our HTTP client, for a library that sets no User-Agent itself.
func (c *Client) identified() *http.Client {
	client := *c.http
	client.Transport = userAgent{c.http.Transport, "adconnector/" + c.options.Version}
	return &client
}

type userAgent struct {
	http.RoundTripper
	name string
}

func (u userAgent) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Header.Set("User-Agent", u.name)
	return u.RoundTripper.RoundTrip(request)
}

// tokenOf finds the token in an answer: a bare one, or access_token or token of a
// JSON object.
func tokenOf(body []byte) string {
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
		return "" // but, for example, a page of HTML
	}
	return text
}

// maxToken bounds what would stand in the head of each request: servers take 8 to
// 64 KiB of heads in all.
const maxToken = 32 << 10

// isToken reports whether text has the form of a bearer token (RFC 6750 2.1).
func isToken(text string) bool {
	return text != "" && len(text) <= maxToken && !strings.ContainsFunc(text, func(r rune) bool {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		return !letter && !('0' <= r && r <= '9') && !strings.ContainsRune("-._~+/=", r)
	})
}

// expiry reads a JWT's exp (RFC 7519 4.1.4). The token is not ours to verify.
func expiry(token string, now time.Time) time.Time {
	otherwise := now.Add(tokenLifetime)
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return otherwise
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return otherwise
	}
	var claims struct {
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Expires <= 0 || claims.Expires > 1<<40 {
		return otherwise
	}
	if expires := time.Unix(int64(claims.Expires), 0); expires.After(now) {
		return expires
	}
	return otherwise // our clock is wrong: a 401 will tell when the token has died
}
