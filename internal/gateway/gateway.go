// Package gateway is the HTTP client of the gateway. It logs in, reads the connection and the
// profile, sends assets, and sends the connector's state. The contract is in openapi.json.
//
// The package guarantees:
//   - All concurrent calls share one login.
//   - No redirect is followed.
//   - A rate limit delays all calls until it resets.
//   - A concurrency limit reduces the number of concurrent calls for the rest of the run.
//   - A call with an unknown outcome is retried with the same bytes and the same request ID.
//   - No error contains a secret or the response to a login.
//
// The caller handles rejected objects.
package gateway

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// Options configure a Client.
type Options struct {
	URL            *url.URL
	CustomerUUID   string
	ConnectionUUID string
	ProfileUUID    string
	Login          Login
	Proxy          *Proxy // nil: none
	RootCAs        *x509.CertPool
	Source         string // "": Microsoft Active Directory
	Paths          Paths
	Version        string
	Connections    int           // maximum number of concurrent calls
	Grace          time.Duration // how long a batch in flight may continue after its context ends
	RetryDelay     time.Duration // before the first retry; 0: 1 s
	Log            zerolog.Logger
	// OnLimit is called whenever the gateway sets a rate limit, to record it for RestoreLimit.
	// Calls do not overlap. An error is logged. Nil: no call.
	OnLimit func(Limit) error
	// OnConcurrencyLimit is called when the limit on concurrent calls changes, and about once a
	// minute while calls are refused, to record it for RestoreConcurrencyLimit. Calls do not
	// overlap. An error is logged. Nil: no call.
	OnConcurrencyLimit func(ConcurrencyLimit) error
	// Observe is called after each request, including logins, when its response begins or the
	// request fails. call is the name of the call in the contract. Nil: no call.
	Observe func(call string, class fault.Class, duration time.Duration)

	// For tests.
	newBackOff  func() backoff.BackOff // nil: from 1 s to 60 s
	dialContext func(ctx context.Context, network, address string) (net.Conn, error)
	tlsTimeout  time.Duration // 0: handshakeTimeout
}

// Login is an account of the gateway.
type Login struct {
	Username     string // with Password: BASIC
	Password     secret.Text
	ClientID     string // with ClientSecret: OAUTH
	ClientSecret secret.Text
	TokenURL     *url.URL // nil: the gateway's own login
	Subscription bool     // the client belongs to the subscription instead of a user
}

// Proxy is an HTTP proxy between the connector and the gateway.
type Proxy struct {
	Scheme   string // http, https
	Host     string
	Port     int
	Username string
	Password secret.Text
}

// Paths override the paths of the contract; "": the contract's path.
type Paths struct {
	Connection, Profile, Assets, State string
}

const (
	defaultSource       = "Microsoft Active Directory"
	connectionPath      = "/rest/2.0/am/connector/connection/{connectionUuid}"
	profilePath         = "/rest/2.0/am/connector/profile/{profileUuid}"
	assetsPath          = "/rest/2.0/am/connector/asset/data/sync"
	statePath           = "/rest/2.0/am/connector/connection/{connectionUuid}/state"
	requestTimeout      = 150 * time.Second
	maxDocumentAttempts = 3 // of logins and documents, until the next run
	maxAssetsAttempts   = 6
	maxStateAttempts    = 2
	stateTimeout        = 5 * time.Second
	firstRetryDelay     = time.Second
	maxRetryDelay       = time.Minute
	retryMultiplier     = 2.8     // 1 s to 60 s in five retries
	maxMessageLength    = 300     // characters
	maxLineInput        = 8 << 10 // bytes of a message that are considered
)

// Client is a client of one gateway for one connection. It is safe for concurrent use.
type Client struct {
	options      Options
	http         *http.Client
	closeIdle    func() // closes the connections that no request uses
	hints        *hintRecorder
	session      session
	limit        rateLimit
	concurrency  *concurrency
	onLimitMu    sync.Mutex // held while OnLimit or OnConcurrencyLimit is called
	parseMu      sync.Mutex // held while a response to a batch is parsed, which takes several times its size
	counts       counts
	budget       retryBudget
	bindPassword *secret.Variable // the password of the last connection read from the gateway

	certificateLosses   atomic.Int64 // connections in a row, see certificateLoss
	credentialsInHeader atomic.Bool  // whether the token server has refused the client's credentials in the body
}

// runIDKey is the context key of a run ID.
type runIDKey struct{}

// WithRunID returns a context with a run ID, which is added to the log lines of calls.
func WithRunID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, runIDKey{}, id)
}

// RunID returns the run ID of a context; "" if it has none.
func RunID(ctx context.Context) string {
	id, _ := ctx.Value(runIDKey{}).(string)
	return id
}

// log returns the logger of a call.
func (c *Client) log(ctx context.Context) zerolog.Logger {
	if id := RunID(ctx); id != "" {
		return c.options.Log.With().Str("run_id", id).Logger()
	}
	return c.options.Log
}

// New returns a client. It does not connect.
func New(o Options) *Client {
	if o.Source == "" {
		o.Source = defaultSource
	}
	for path, defaultPath := range map[*string]string{
		&o.Paths.Connection: connectionPath, &o.Paths.Profile: profilePath, &o.Paths.Assets: assetsPath, &o.Paths.State: statePath,
	} {
		if *path == "" {
			*path = defaultPath
		}
	}
	if o.newBackOff == nil {
		o.newBackOff = func() backoff.BackOff {
			b := backoff.NewExponentialBackOff()
			// The first delay is 1 to 1.5 times the configured one, and none is above maxRetryDelay.
			b.InitialInterval, b.RandomizationFactor = cmp.Or(o.RetryDelay, firstRetryDelay)*5/4, 0.2
			b.MaxInterval, b.Multiplier = maxRetryDelay*5/6, retryMultiplier
			return b
		}
	}
	transport := newTransport(o)
	hints := &hintRecorder{RoundTripper: observe(transport, o), host: o.URL.Host}
	client := &http.Client{
		Transport: hints,
		// A redirect to another host would disclose credentials.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c := &Client{options: o, http: client, closeIdle: transport.CloseIdleConnections, hints: hints, concurrency: newConcurrency(o.Connections), bindPassword: secret.NewVariable("")}
	c.session.login = c.login
	c.BeginRun()
	return c
}

// Login logs in, unless the client has a valid token.
func (c *Client) Login(ctx context.Context) error {
	return c.retry(ctx, fault.Operation{Op: "log in to", Object: c.options.URL.Host}, maxDocumentAttempts, func() error {
		_, _, err := c.session.acquire(ctx, nil, false)
		return err
	})
}

// Connection reads the connection: address and account of the directory.
func (c *Client) Connection(ctx context.Context) (Connection, error) {
	connection, err := readDocument[Connection](ctx, c, "connection", c.options.ConnectionUUID, c.options.Paths.Connection)
	if err == nil {
		c.bindPassword.Set(connection.Authentication.Password.Reveal())
	}
	return connection, err
}

// secrets returns the secrets that a response to a call with this token may repeat.
func (c *Client) secrets(token secret.Text) []secret.Text {
	list := []secret.Text{token, c.options.Login.Password, c.options.Login.ClientSecret, c.bindPassword.Text()}
	if c.options.Proxy != nil {
		list = append(list, c.options.Proxy.Password)
	}
	return list
}

// Profile reads the profile: the part of the directory to read.
func (c *Client) Profile(ctx context.Context) (Profile, error) {
	return readDocument[Profile](ctx, c, "profile", c.options.ProfileUUID, c.options.Paths.Profile)
}

// fieldError is a field of a document with a value of the wrong type or range.
type fieldError struct{ Field, Wanted string }

func (e *fieldError) Error() string { return e.Field + " must be " + e.Wanted }

// readDocument reads a connection or a profile, as entered in the console.
func readDocument[Document any](ctx context.Context, c *Client, kind, id, path string) (Document, error) {
	var document Document
	operation := fault.Operation{Op: "read " + kind, Object: id}
	target := c.endpoint(path)
	query := target.Query()
	query.Set("customerUuid", c.options.CustomerUUID)
	target.RawQuery = query.Encode()
	err := c.retry(ctx, operation, maxDocumentAttempts, func() error {
		r, err := c.do(ctx, call{Operation: operation, method: http.MethodGet, url: target, maxResponse: maxDocumentBytes, mayHavePassword: kind == "connection"})
		switch {
		case err != nil:
			return err
		case r.status == http.StatusNotFound:
			return operation.Failed(fault.Refused, r.failed(errNotFound), "check qualys."+kind+"Uuid and qualys.customerUuid")
		case r.status != http.StatusOK:
			return r.unexpected(operation)
		}
		var decoded Document // of this attempt, so that a failed one leaves no values behind
		// The response contains the directory's password: no error contains its text.
		err = json.Unmarshal(r.body, &decoded)
		var wrongType *json.UnmarshalTypeError
		switch {
		case errors.As(err, &wrongType) && wrongType.Field != "":
			return operation.Failed(fault.Refused, &fieldError{lastField(wrongType.Field), describeType(wrongType.Type)}, "correct the "+kind+" in the console")
		case err != nil:
			return operation.Failed(fault.Transient, errNotDocument, "check connector.api.url and gateway.path.*")
		}
		document = decoded
		return nil
	})
	return document, err
}

// endpoint returns the URL of a path of the gateway.
func (c *Client) endpoint(path string) *url.URL {
	return c.options.URL.JoinPath(replaceUUIDs(path, c.options))
}

// call is a call of the gateway's API. It may take several requests.
type call struct {
	fault.Operation
	method          string
	url             *url.URL
	body            [][]byte // in parts
	key             string   // Idempotency-Key
	urlKey          string   // the setting with the URL; "": connector.api.url
	maxResponse     int64    // maximum size of a successful response in bytes
	mayHavePassword bool     // as in response
}

func (c call) setting() string { return cmp.Or(c.urlKey, "connector.api.url") }

// response is an HTTP response, completely read unless tooLarge is set.
type response struct {
	status int
	header http.Header
	body   []byte
	// tooLarge is whether a success is larger than the maximum of its call. It has no body, and
	// an error is returned with it.
	tooLarge bool
	// mayBeTooLarge is whether the request may be too large for the connection, because the time
	// until the response began was too long, or for the server, because the connection of a large
	// request was lost. An error is returned with it.
	mayBeTooLarge bool
	// secrets are those that were sent to the gateway or received from it. Texts of the response may
	// repeat them.
	secrets []secret.Text
	// mayHavePassword is whether a text of the response is shown only if it cannot contain the password
	// of the connection, which is not known yet.
	mayHavePassword bool
}

// do sends a call with a token and within the limits of the gateway. It handles rejected
// tokens, these limits, missing permissions and unknown outcomes. It returns all other
// responses.
//
// The gateway may reject a token (401) because it has expired, or because other calls have
// used up the new one before this call. After two rejections the call gets an exclusive
// token, so the third 401 is final. No call causes more than two token refreshes.
func (c *Client) do(ctx context.Context, call call) (response, error) {
	var rejected *token
	rejections, refusals := 0, 0
	for {
		a, err := c.attempt(ctx, call, rejected, rejections > 1)
		if err != nil {
			c.applySuccessLimit(ctx, a.response)
			return a.response, err
		}
		switch a.status {
		case http.StatusUnauthorized:
			rejected = a.sentWith
			if rejections++; !a.exclusive {
				continue
			}
			// The error does not contain the text of the response, which may echo the token.
			return response{}, call.Failed(fault.Refused, &responseError{Status: a.status, Reason: errNewTokenRefused},
				"check that the account may use this gateway (connector.api.url) and the connector API")
		case http.StatusTooManyRequests, http.StatusConflict:
			number, concurrent := concurrencyRefusal(a.response, time.Now())
			if !concurrent {
				refusals = 0
				c.applyLimit(ctx, a.response)
				continue
			}
			refusals++
			if err := c.refuseConcurrency(ctx, call, a.response, a.allowed, number, refusals); err != nil {
				return response{}, err
			}
		case http.StatusMisdirectedRequest:
			c.closeIdle() // the next attempt needs another connection (RFC 9110 15.5.20)
			fallthrough
		default:
			c.applySuccessLimit(ctx, a.response)
			return a.response, classify(call, a.response)
		}
	}
}

// attempt is a request and its response.
type attempt struct {
	response
	sentWith  *token
	exclusive bool // sentWith is not shared
	allowed   int  // number of concurrent calls that were allowed
}

// attempt sends a request when the limits of the gateway allow it.
func (c *Client) attempt(ctx context.Context, call call, rejected *token, mustBeExclusive bool) (a attempt, err error) {
	if err := c.limit.wait(ctx); err != nil {
		return a, contextError(call.Operation, err)
	}
	if a.allowed, err = c.concurrency.acquire(ctx); err != nil {
		return a, contextError(call.Operation, err)
	}
	defer c.concurrency.release()
	if err := c.limit.wait(ctx); err != nil { // it may have been set since
		return a, contextError(call.Operation, err)
	}
	if a.sentWith, a.exclusive, err = c.session.acquire(ctx, rejected, mustBeExclusive); err != nil {
		return a, err
	}
	a.response, err = c.sendWithToken(ctx, call, a.sentWith, a.exclusive)
	a.secrets, a.mayHavePassword = c.secrets(a.sentWith.text), call.mayHavePassword
	return a, err
}

// applySuccessLimit applies the rate limit of a successful response that used up the limit.
func (c *Client) applySuccessLimit(ctx context.Context, r response) {
	if r.status < 300 && noneRemaining(r.header) {
		c.applyLimit(ctx, r)
	}
}

// sendWithToken sends a request with a token, and releases an exclusive token.
func (c *Client) sendWithToken(ctx context.Context, call call, token *token, exclusive bool) (response, error) {
	r, err := c.sendOnce(ctx, call, func(request *http.Request) {
		request.Header.Set("Authorization", "Bearer "+token.text.Reveal())
	})
	if exclusive {
		c.session.release(token)
	}
	return r, err
}

// sendOnce sends a request and reads the whole response. A batch in flight outlives its
// context by the grace period, because the gateway may already have accepted its objects.
// Other requests end with their context.
func (c *Client) sendOnce(ctx context.Context, call call, authorize func(*http.Request)) (response, error) {
	if err := ctx.Err(); err != nil {
		return response{}, contextError(call.Operation, err)
	}
	requestCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	grace := c.options.Grace
	if call.key == "" {
		grace = 0
	}
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()

	requestCtx, trace := withConnectionTrace(requestCtx)
	request, err := http.NewRequestWithContext(requestCtx, call.method, call.url.String(), nil)
	if err != nil {
		return response{}, call.Failed(fault.Refused, err, "check "+call.setting()+" and gateway.path.*")
	}
	sent := newRequestBody(call.body...)
	sent.setTo(request)
	defer sent.detach() // the caller reuses the buffers
	request.Header.Set("User-Agent", "adconnector/"+c.options.Version)
	request.Header.Set("Accept", "application/json, text/plain")
	if call.method == http.MethodPost || call.method == http.MethodPut {
		request.Header.Set("Content-Type", "application/json")
	}
	if call.key != "" {
		request.Header.Set("Idempotency-Key", call.key)
	}
	authorize(request)
	c.counts.requests.Add(1)
	start := time.Now()
	r, err := c.http.Do(request)
	if err != nil {
		if sent.isLarge() {
			trace.large = sent.size()
		}
		return response{mayBeTooLarge: sent.isLarge() || sent.begun() && isTimeout(err)}, c.transportError(ctx, call, trace, err)
	}
	defer r.Body.Close()
	c.certificateLosses.Store(0)
	body, err := readBody(r, call.maxResponse)
	log := c.log(ctx)
	log.Debug().Str("call", strings.TrimSpace(call.Op+" "+call.Object)).Int("status", r.StatusCode).Int64("sent_bytes", sent.size()).
		Int("answer_bytes", len(body)).Int64("duration_ms", time.Since(start).Milliseconds()).Msg(MsgResponse)
	if errors.Is(err, errResponseTooLarge) {
		return response{status: r.StatusCode, header: r.Header, tooLarge: true},
			call.Failed(fault.Transient, &responseError{Status: r.StatusCode, Reason: err}, interceptedRemedy)
	}
	if err != nil && !mayLackBody(r.StatusCode) {
		return response{}, c.transportError(ctx, call, trace, &incompleteResponse{err})
	}
	return response{status: r.StatusCode, header: r.Header, body: withoutByteOrderMark(body), mayBeTooLarge: r.StatusCode == http.StatusRequestTimeout}, nil
}

// mayLackBody reports whether a response with this status is usable without its body. A server
// that refuses a request may close the connection before it has sent the whole body.
func mayLackBody(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return true
	}
	return false
}

// isTimeout reports whether a request failed because its response did not begin in time.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// contextError returns the error of a call whose context has ended, or will end before the
// call can be sent. An exceeded deadline is not a cancellation.
func contextError(o fault.Operation, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return o.Failed(fault.Transient, err, "")
	}
	return o.Failed(fault.Canceled, err, "")
}
