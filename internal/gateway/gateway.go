// Package gateway is the only HTTP client: it logs in, reads the connection and
// the profile, sends assets and reports the connector's state. openapi.json beside
// it is the contract.
//
// It guarantees that one login serves all callers; that no redirect is followed;
// that a rate limit holds every call back until it has passed; that a call whose
// outcome is unknown is repeated with the same bytes and the same request ID; and
// that neither secrets nor the answers to logins appear in an error. What to do
// about objects that are not taken is the caller's business.
package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/secret"
)

// Options say where the gateway is and who we are.
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
	Connections    int           // calls at a time
	Grace          time.Duration // how long a call under way may go on after its context has ended
	RetryFirst     time.Duration // wait before a call is repeated the first time; 0: 1 s
	Log            zerolog.Logger
	// OnLimit is called with the end of a rate limit whenever the gateway sets one, so that
	// it can be recorded for HoldUntil. Calls do not overlap. Its error is logged. Nil: not
	// called.
	OnLimit func(until time.Time) error
	// Observe is told of every request, logins included, once its answer begins or it
	// is given up: which call of the contract it was, and how it ended. Nil: nobody.
	Observe func(call string, class fault.Class, took time.Duration)

	// For tests.
	retry       func() backoff.BackOff // nil: from 1 s to 60 s
	dialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Login is an account of the gateway's.
type Login struct {
	Username     string // with Password: BASIC
	Password     secret.Text
	ClientID     string // with ClientSecret: OAUTH
	ClientSecret secret.Text
	TokenURL     *url.URL // nil: the gateway's own login
	Subscription bool     // the client is the subscription's, not a user's
}

// Proxy stands between us and the gateway.
type Proxy struct {
	Scheme   string // http, https
	Host     string
	Port     int
	Username string
	Password secret.Text
}

// Paths override where the gateway takes what; "": as the contract says.
type Paths struct {
	Connection, Profile, Assets, State string
}

const (
	defaultSource     = "Microsoft Active Directory"
	connectionPath    = "/rest/2.0/am/connector/connection/{connectionUuid}"
	profilePath       = "/rest/2.0/am/connector/profile/{profileUuid}"
	assetsPath        = "/rest/2.0/am/connector/asset/data/sync"
	statePath         = "/rest/2.0/am/connector/connection/{connectionUuid}/state"
	requestTimeout    = 150 * time.Second
	maxAnswer         = 16 << 20
	smallCallTries    = 3 // what is not done at this run is done at the next
	assetsTries       = 6
	stateTries        = 2
	stateTimeout      = 5 * time.Second
	retryFirst        = time.Second
	retryLast         = time.Minute
	retryMultiplier   = 2.8 // 1 s to 60 s in five waits
	wordsOfAnswerSize = 300
)

// Client talks to one gateway on behalf of one connection. It serves many goroutines.
type Client struct {
	options Options
	http    *http.Client
	heard   *listener
	session session
	limit   rateLimit
	telling sync.Mutex // held while OnLimit is called
	counts  counts
	budget  budget
}

// runKey is the key of a run ID in a context.
type runKey struct{}

// WithRunID returns a context whose calls are logged with the ID of a run.
func WithRunID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, runKey{}, id)
}

// RunID returns the ID of the run that a context belongs to, "" without one.
func RunID(ctx context.Context) string {
	id, _ := ctx.Value(runKey{}).(string)
	return id
}

// log returns the logger of a call.
func (c *Client) log(ctx context.Context) zerolog.Logger {
	if id := RunID(ctx); id != "" {
		return c.options.Log.With().Str("run_id", id).Logger()
	}
	return c.options.Log
}

// New makes a client. It does not connect.
func New(o Options) *Client {
	if o.Source == "" {
		o.Source = defaultSource
	}
	for path, otherwise := range map[*string]string{
		&o.Paths.Connection: connectionPath, &o.Paths.Profile: profilePath, &o.Paths.Assets: assetsPath, &o.Paths.State: statePath,
	} {
		if *path == "" {
			*path = otherwise
		}
	}
	if o.retry == nil {
		o.retry = func() backoff.BackOff {
			b := backoff.NewExponentialBackOff()
			b.InitialInterval, b.MaxInterval, b.Multiplier = cmp.Or(o.RetryFirst, retryFirst), retryLast, retryMultiplier
			return b
		}
	}
	heard := &listener{RoundTripper: observe(newTransport(o), o)}
	client := &http.Client{
		Transport: heard,
		// A redirect to another host would carry credentials away.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c := &Client{options: o, http: client, heard: heard}
	c.session.login = c.login
	c.BeginRun()
	return c
}

// Login logs in, unless a login is still good.
func (c *Client) Login(ctx context.Context) error {
	return c.retry(ctx, fault.Operation{Op: "log in to", Object: c.options.URL.Host}, smallCallTries, func() error {
		_, _, err := c.session.use(ctx, nil, false)
		return err
	})
}

// Connection reads how the directory is reached.
func (c *Client) Connection(ctx context.Context) (Connection, error) {
	return read[Connection](ctx, c, "connection", c.options.ConnectionUUID, c.options.Paths.Connection)
}

// Profile reads which part of the directory is wanted.
func (c *Client) Profile(ctx context.Context) (Profile, error) {
	return read[Profile](ctx, c, "profile", c.options.ProfileUUID, c.options.Paths.Profile)
}

// fieldError is a field of a document with a value of the wrong type or range.
type fieldError struct{ Field, Wanted string }

func (e *fieldError) Error() string { return e.Field + " must be " + e.Wanted }

// read returns a document from the console: a connection or a profile.
func read[Document any](ctx context.Context, c *Client, kind, id, path string) (Document, error) {
	var document Document
	operation := fault.Operation{Op: "read " + kind, Object: id}
	target := c.address(path)
	query := target.Query()
	query.Set("customerUuid", c.options.CustomerUUID)
	target.RawQuery = query.Encode()
	err := c.retry(ctx, operation, smallCallTries, func() error {
		answer, err := c.do(ctx, call{Operation: operation, method: http.MethodGet, url: target})
		switch {
		case err != nil:
			return err
		case answer.status == http.StatusNotFound:
			return operation.Failed(fault.Refused, answer.because(errNotFound), "check qualys."+kind+"Uuid and qualys.customerUuid")
		case answer.status != http.StatusOK:
			return answer.unexpected(operation)
		}
		var whole Document // of this try: what a broken answer has filled in does not stay
		// The answer holds the directory's password: its text stays out of the errors.
		err = json.Unmarshal(answer.body, &whole)
		var wrong *json.UnmarshalTypeError
		switch {
		case errors.As(err, &wrong) && wrong.Field != "":
			return operation.Failed(fault.Refused, &fieldError{lastField(wrong.Field), wanted(wrong.Type)}, "correct the "+kind+" in the console")
		case err != nil:
			return operation.Failed(fault.Transient, errNotDocument, "check connector.api.url and gateway.path.*")
		}
		document = whole
		return nil
	})
	return document, err
}

// address puts a path of the gateway under the base URL.
func (c *Client) address(path string) *url.URL {
	path = replaceUUIDs(path, c.options)
	return c.options.URL.JoinPath(path)
}

// call is one request, which may be sent several times.
type call struct {
	fault.Operation
	method string
	url    *url.URL
	body   []byte
	key    string // Idempotency-Key
	urlKey string // the setting that the URL is from; "": connector.api.url
}

func (c call) setting() string { return cmp.Or(c.urlKey, "connector.api.url") }

// answer is a response that was read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// do sends a call with a token and under the rate limit. It returns every answer
// that is about the call's content; logins, limits, rights and unknown outcomes
// it deals with itself.
//
// A call may be refused with a token (401) because it has died, or because other
// calls have used the new one up before its turn. Twice refused it gets one that
// nobody has used before it, so the third 401 is the last: no call is the cause
// of more than two renewals.
func (c *Client) do(ctx context.Context, call call) (answer, error) {
	var refused *token
	for refusals := 0; ; {
		if err := c.limit.wait(ctx); err != nil {
			return answer{}, stopped(call.Operation, err)
		}
		token, own, err := c.session.use(ctx, refused, refusals > 1)
		if err != nil {
			return answer{}, err
		}
		got, err := c.exchange(ctx, call, func(request *http.Request) {
			request.Header.Set("Authorization", "Bearer "+token.text.Reveal())
		})
		switch {
		case own && err == nil && got.status == http.StatusUnauthorized:
			c.session.share(nil)
		case own:
			c.session.share(token)
		}
		if err != nil {
			return answer{}, err
		}
		switch {
		case got.status == http.StatusUnauthorized:
			refused = token
			if refusals++; !own {
				continue
			}
			// The text of the answer stays out: it may be an echo of the token.
			return answer{}, call.Failed(fault.Refused, &answerError{Status: got.status, Reason: errNewTokenRefused},
				"check that the account may use this gateway (connector.api.url) and the connector API")
		case got.status == http.StatusTooManyRequests || got.status == http.StatusConflict:
			c.limited(ctx, got, waitLeast)
		default:
			if got.header.Get("X-RateLimit-Remaining") == "0" && got.status < 300 {
				c.limited(ctx, got, 0)
			}
			if got.status >= 400 {
				// It will be quoted, and may be an echo of what was sent.
				got.body = bytes.ReplaceAll(got.body, []byte(token.text.Reveal()), []byte("[redacted]"))
			}
			return got, classify(call, got)
		}
	}
}

// limited holds all calls back for as long as the gateway says, but for least.
func (c *Client) limited(ctx context.Context, got answer, least time.Duration) {
	c.counts.limited.Add(1)
	now := time.Now()
	until := c.limit.hold(now.Add(max(waitOf(got.header, now), least)))
	c.reportLimit(ctx) // before it is logged, so that whoever reads the log finds it recorded
	log := c.log(ctx)
	log.Warn().Int("status", got.status).Time("until", until).Msg(MsgRateLimited)
}

// reportLimit calls OnLimit.
func (c *Client) reportLimit(ctx context.Context) {
	if c.options.OnLimit == nil {
		return
	}
	// The end is read under the lock, so that an earlier one never follows a later one.
	c.telling.Lock()
	defer c.telling.Unlock()
	if until := c.LimitedUntil(); !until.IsZero() {
		if err := c.options.OnLimit(until); err != nil {
			log := c.log(ctx)
			log.Warn().EmbedObject(fault.Fields(err)).Msg(MsgLimitNotRecorded)
		}
	}
}

// exchange sends a request once and reads the answer whole. A batch under way
// outlives its context by the grace: its objects may have been taken, and the
// answer tells. Nothing else is worth holding up a stop for.
func (c *Client) exchange(ctx context.Context, call call, authorize func(*http.Request)) (answer, error) {
	if err := ctx.Err(); err != nil {
		return answer{}, stopped(call.Operation, err)
	}
	alive, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	grace := c.options.Grace
	if call.key == "" {
		grace = 0
	}
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()

	request, err := http.NewRequestWithContext(alive, call.method, call.url.String(), bytes.NewReader(call.body))
	if err != nil {
		return answer{}, call.Failed(fault.Refused, err, "check "+call.setting()+" and gateway.path.*")
	}
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
	began := time.Now()
	response, err := c.http.Do(request)
	if err != nil {
		return answer{}, c.explain(ctx, call, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	log := c.log(ctx)
	log.Debug().Str("call", strings.TrimSpace(call.Op+" "+call.Object)).Int("status", response.StatusCode).Int("sent_bytes", len(call.body)).
		Int("answer_bytes", len(body)).Int64("duration_ms", time.Since(began).Milliseconds()).Msg(MsgAnswered)
	if err != nil && !saysAll(response.StatusCode) {
		return answer{}, c.explain(ctx, call, fmt.Errorf("answer cut off: %w", err))
	}
	return answer{response.StatusCode, response.Header, body}, nil
}

// saysAll reports whether an answer's head is enough. Who refuses a request unread
// may cut the connection before the rest of the answer has arrived.
func saysAll(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return true
	}
	return false
}

// stopped is the error of a call whose context has ended, or will before the call
// may be made. To run out of time is no order to stop.
func stopped(o fault.Operation, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return o.Failed(fault.Transient, err, "")
	}
	return o.Failed(fault.Canceled, err, "")
}

// retry repeats what failed with an unknown outcome, at growing intervals.
func (c *Client) retry(ctx context.Context, o fault.Operation, tries uint, operation func() error) error {
	attempt := 0
	var last error // what backoff returns may be the context's, or in a wrapper of its own
	_, _ = backoff.Retry(ctx, func() (struct{}, error) {
		attempt++
		if attempt > 1 {
			c.counts.retries.Add(1)
		}
		last = operation()
		if last == nil {
			c.budget.earn()
		} else if fault.ClassOf(last) == fault.Transient && attempt < int(tries) && !c.budget.spend() {
			last = budgetExhausted(last)
			return struct{}{}, backoff.Permanent(last)
		}
		// Do not retry if the deadline is before the rate limit resets.
		if last != nil && (fault.ClassOf(last) != fault.Transient || errors.Is(last, errTooLate)) {
			return struct{}{}, backoff.Permanent(last)
		}
		return struct{}{}, last
	}, backoff.WithBackOff(c.options.retry()), backoff.WithMaxTries(tries), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, wait time.Duration) {
			log := c.log(ctx)
			log.Warn().EmbedObject(fault.Fields(err)).Int("attempt", attempt).Int64("wait_ms", wait.Milliseconds()).Msg(MsgRetrying)
		}))
	if last != nil && fault.ClassOf(last) == fault.Transient && errors.Is(ctx.Err(), context.Canceled) {
		return stopped(o, ctx.Err())
	}
	return last
}

// notRetried is the cause of a call that failed and is not retried because the run has used
// up its retries.
type notRetried struct{ cause error }

func (e *notRetried) Error() string {
	return e.cause.Error() + "; not retried: this run has retried more calls than were answered"
}

func (e *notRetried) Unwrap() error { return e.cause }

// budgetExhausted returns an error of this package with the reason why the call is not
// retried.
func budgetExhausted(err error) error {
	failed := &fault.Error{Class: fault.ClassOf(err), Err: err}
	errors.As(err, &failed)
	return &fault.Error{Class: failed.Class, Op: failed.Op, Object: failed.Object, Remedy: failed.Remedy,
		Err: &notRetried{failed.Err}}
}
