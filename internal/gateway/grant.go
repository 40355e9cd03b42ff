package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"adconnector/internal/fault"
)

// clientCredentialsLogin logs in with the client credentials grant (RFC 6749 4.4). The
// credentials are in the body. A server that refuses them there gets them once more in a header,
// because some servers accept only that. Later logins use what was accepted.
func (c *Client) clientCredentialsLogin(ctx context.Context) (*issuedToken, error) {
	inHeader := c.credentialsInHeader.Load()
	token, err := c.requestGrant(ctx, inHeader)
	if err == nil || !isClientRefused(err) {
		return token, err
	}
	token, secondErr := c.requestGrant(ctx, !inHeader)
	switch {
	case secondErr == nil:
		c.credentialsInHeader.Store(!inHeader)
		return token, nil
	case isClientRefused(secondErr):
		return nil, err
	default: // the credentials may have been accepted
		return nil, secondErr
	}
}

// isClientRefused reports whether a token server has refused the client's credentials, or found
// none in the request.
func isClientRefused(err error) bool {
	refused, is := errors.AsType[*responseError](err)
	if !is || !errors.Is(refused, errLoginRefused) {
		return false
	}
	switch refused.Message {
	case "invalid_client", "invalid_request":
		return true
	case "":
		return refused.Status == http.StatusUnauthorized || refused.Status == http.StatusBadRequest
	default:
		return refused.Status == http.StatusUnauthorized
	}
}

// requestGrant sends one request for a token, with the credentials in a header or in the body (RFC
// 6749 2.3.1, client_secret_basic and client_secret_post).
func (c *Client) requestGrant(ctx context.Context, inHeader bool) (*issuedToken, error) {
	l := c.options.Login
	call := call{Operation: loginOperation(l.TokenURL), method: http.MethodPost, url: l.TokenURL, urlKey: "oauth.token.url", maxResponse: maxTokenBytes}
	grant := clientcredentials.Config{
		ClientID: l.ClientID, ClientSecret: l.ClientSecret.Reveal(), TokenURL: l.TokenURL.String(), AuthStyle: oauth2.AuthStyleInParams,
	}
	if inHeader {
		grant.AuthStyle = oauth2.AuthStyleInHeader
	}
	transport := &grantTransport{client: c, call: call}
	_, err := grant.Token(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: transport}))
	if failed, is := errors.AsType[*fault.Error](err); is {
		return nil, failed
	}
	if err != nil { // its text may contain the URL or the response
		return nil, call.Failed(fault.Transient, errNoToken, "check "+call.setting())
	}
	return transport.issued, nil
}

// grantTransport sends the request of an OAuth library as the client sends each request: with its
// User-Agent, limits, and log. The library reads JSON in a text/plain response as a form, refuses an
// expires_in that is not an integer, and has errors with the body of the response. RoundTrip
// therefore returns a response in the form of RFC 6749, or the error.
type grantTransport struct {
	client *Client
	call   call
	issued *issuedToken // after a success
}

// RoundTrip sends the request of a grant.
func (t *grantTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	defer request.Body.Close()
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	t.call.body = [][]byte{body}
	r, err := t.client.sendOnce(request.Context(), t.call, func(sent *http.Request) { maps.Copy(sent.Header, request.Header) })
	if err != nil {
		return nil, err
	}
	issued, err := issuedBy(t.call, r)
	switch l := t.client.options.Login; {
	case r.status/100 != 2 || err != nil && grantCode(r.body, l) != "":
		return nil, grantError(t.call, r, l)
	case err != nil:
		return nil, err
	}
	t.issued = issued
	document, err := json.Marshal(map[string]string{"access_token": issued.text, "token_type": "Bearer"})
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(bytes.NewReader(document)), Request: request,
	}, nil
}

// transientGrants are error codes of token servers that may end without intervention. Some
// servers send them with a status of 400, like other codes.
var transientGrants = map[string]bool{
	"temporarily_unavailable": true, "server_error": true, "slow_down": true, "too_many_requests": true, "rate_limit_exceeded": true,
}

const clientRemedy = "correct oauth.client.id, oauth.client.secret and oauth.token.url"

// grantRemedies are the remedies for error codes (RFC 6749 5.2, RFC 8707 2).
var grantRemedies = map[string]string{
	"invalid_client":         clientRemedy,
	"invalid_request":        "check that oauth.token.url is a token endpoint for client credentials (RFC 6749 4.4)",
	"invalid_grant":          "check that oauth.token.url is a token endpoint for client credentials (RFC 6749 4.4)",
	"unauthorized_client":    "allow the client of oauth.client.id the client credentials grant on the token server",
	"unsupported_grant_type": "enable the client credentials grant on the token server, or correct oauth.token.url",
	"invalid_scope":          "give the client of oauth.client.id a default scope on the token server: the connector requests none",
	"invalid_target":         "give the client of oauth.client.id a default resource on the token server: the connector requests none",
	"access_denied":          "grant the client of oauth.client.id access on the token server",
}

// grantError returns the error of a refused grant. It contains only the status and the error
// code, because the body may contain data that must not be logged.
func grantError(call call, r response, l Login) error {
	code := grantCode(r.body, l)
	refused := &responseError{Status: r.status, Reason: errLoginRefused, Message: code}
	switch {
	case isThrottled(r.status):
		return throttledLogin(call, r, code, "check what else uses this client ID")
	case transientGrants[code]:
		wait, _ := longestWait(r.header, "Retry-After", time.Now())
		return call.Failed(fault.Transient, &responseError{Status: r.status, Reason: errGatewayFailed, Message: code, RetryAfter: wait}, "check whether the server of "+call.setting()+" is up, and its log")
	case r.status != http.StatusForbidden:
		if err := classify(call, response{status: r.status, header: r.header}); err != nil {
			return err
		}
	}
	if remedy := grantRemedies[code]; remedy != "" {
		return call.Failed(fault.Refused, refused, remedy)
	}
	remedy := clientRemedy
	if r.status == http.StatusForbidden {
		remedy = r.forbiddenRemedy(clientRemedy)
	}
	return call.Failed(fault.Refused, refused, remedy)
}

// grantCode returns the error code of a token server (RFC 6749 5.2); "" for any other text, which
// may repeat the credentials.
func grantCode(body []byte, l Login) string {
	const maxCode = 40
	var refused struct {
		Error string `json:"error"`
	}
	code := ""
	if json.Unmarshal(body, &refused) == nil {
		code = refused.Error
	}
	if code == "" || len(code) > maxCode || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	for _, credential := range []string{l.ClientID, l.ClientSecret.Reveal(), l.Username, l.Password.Reveal()} {
		if credential != "" && strings.Contains(code, credential) {
			return ""
		}
	}
	return code
}
