// Package gatewayserver is a gateway in the process, for tests, trials and the demo.
//
// It checks every request against the OpenAPI document of package gateway and against
// the rules that a schema cannot express. It responds to a violation with 400 and a message
// that names the violation, and keeps it for Violations. Tokens expire and can be
// revoked. An asset request that is sent more than once is stored once. No response
// except that to a login contains a token or a password.
//
// The real gateway may respond differently, because half of the contract is our own
// definition (x-status in the document). The server stores everything in memory and
// has no rate limit. It can limit concurrent calls. It does not detect duplicate keys in a JSON object.
package gatewayserver

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"adconnector/internal/gateway"
)

// Options configure a server. Paths in comments are those of the contract.
type Options struct {
	CustomerUUID, ConnectionUUID, ProfileUUID string

	// A login without credentials in the options always fails.
	Username, Password     string // for /auth
	ClientID, ClientSecret string // for /auth/oidc, /auth/oauth and /oauth/token

	// They must not be changed after New. nil: 404.
	Connection *Connection
	Profile    *gateway.Profile

	// MaxCalls is the maximum number of concurrent calls, without logins. The server responds to a
	// further call with 409 and X-Concurrency-Limit-Limit. 0: no limit.
	MaxCalls int

	WrapToken     bool          // logins return {"access_token":…} instead of the bare JWT
	tokenLifetime time.Duration // 0: 4 h
	maxBody       int64         // in bytes, 0: 10 MiB; the server responds to a larger body with 413

	// Intercept is called for each request before it is processed. It returns true if it has
	// responded to the request. To close the connection, it panics with http.ErrAbortHandler or
	// hijacks the connection through an http.ResponseController.
	Intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool
}

// Connection is gateway.Connection with a password that can be sent.
type Connection struct {
	ConnectionUUID string         `json:"connectionUuid"`
	Name           string         `json:"name"`
	Authentication Authentication `json:"authentication"`
}

// Authentication is gateway.Authentication with a password that can be sent.
type Authentication struct {
	Type        string `json:"type"`
	Host        string `json:"host"`
	Port        int    `json:"port,omitempty"`
	BindDN      string `json:"bindDn"`
	Password    string `json:"password"`
	Certificate string `json:"certificate,omitempty"`
}

// Identity is a received object.
type Identity struct {
	ExternalAssetID string // unique
	VendorAssetID   string // lower-case GUID
	Kind            string // KindUser, KindGroup, KindRole or KindDomain
	Asset           json.RawMessage
	Source          string // from the last request that contained it
	ReceivedAt      time.Time
	Times           int // number of requests that contained it, without repetitions of a request
}

// The kinds of Identity.
const (
	KindUser   = "user"
	KindGroup  = "group"
	KindRole   = "role"
	KindDomain = "domain"
)

// Request is the record of one request.
type Request struct {
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Status    int       `json:"status"` // 0: no response
	RequestID string    `json:"requestId,omitempty"`
	Assets    int       `json:"assets"` // 0 if the request was refused before they were parsed
	Bytes     int       `json:"bytes"`  // of the body
	At        time.Time `json:"at"`
}

// Numbers of records that are kept.
const (
	keepRequests   = 10_000
	keepStates     = 10_000
	keepViolations = 1_000
)

// Server is the gateway. Its methods are safe for concurrent use.
type Server struct {
	options  Options
	contract *contract
	tokens   *tokens

	mu         sync.Mutex
	connection *Connection
	profile    *gateway.Profile
	source     string               // of the last asset request
	identities map[string]*Identity // by ExternalAssetID
	externalID map[string]string    // of the identity last received with a VendorAssetID
	kindCounts map[string]int
	generation uint64                       // of the identities
	bodies     map[string][sha256.Size]byte // hash of the body by requestId, kept forever
	states     recent[gateway.ConnectorState]
	requests   recent[Request]
	counts     map[string]int
	violations recent[string]
	calls      int // concurrent ones, without logins
}

// New returns a server without objects.
func New(options Options) *Server {
	options.tokenLifetime = cmp.Or(options.tokenLifetime, 4*time.Hour)
	options.maxBody = cmp.Or(options.maxBody, 10<<20)
	contract, err := defaultContract()
	if err != nil {
		panic(err) // the document is embedded
	}
	return &Server{
		options:    options,
		connection: options.Connection,
		profile:    options.Profile,
		contract:   contract,
		tokens:     newTokens(options.tokenLifetime),
		identities: map[string]*Identity{},
		externalID: map[string]string{},
		kindCounts: map[string]int{},
		bodies:     map[string][sha256.Size]byte{},
		states:     recent[gateway.ConnectorState]{keep: keepStates},
		requests:   recent[Request]{keep: keepRequests},
		counts:     map[string]int{},
		violations: recent[string]{keep: keepViolations},
	}
}

// SetConnection replaces the connection, which must not be changed afterwards. With nil, the
// server responds with 404.
func (s *Server) SetConnection(connection *Connection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connection = connection
}

// SetProfile replaces the profile, which must not be changed afterwards. With nil, the server
// responds with 404.
func (s *Server) SetProfile(profile *gateway.Profile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.profile = profile
}

// RevokeTokens revokes all tokens.
func (s *Server) RevokeTokens() { s.tokens.revoke() }

// Users returns all users, with deleted ones, sorted by VendorAssetID.
func (s *Server) Users() []Identity { return s.Identities(KindUser) }

// Groups returns all groups, with deleted ones, sorted by VendorAssetID.
func (s *Server) Groups() []Identity { return s.Identities(KindGroup) }

// Identities returns all identities of a kind, with deleted ones, sorted by VendorAssetID.
func (s *Server) Identities(kind string) []Identity {
	s.mu.Lock()
	identities := make([]Identity, 0, s.kindCounts[kind])
	for _, identity := range s.identities {
		if identity.Kind == kind {
			identities = append(identities, *identity)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(identities, func(a, b Identity) int {
		return cmp.Or(cmp.Compare(a.VendorAssetID, b.VendorAssetID), cmp.Compare(a.ExternalAssetID, b.ExternalAssetID))
	})
	return identities
}

// Identity returns the identity that was last received with a VendorAssetID, which is matched
// without regard to case.
func (s *Server) Identity(vendorAssetID string) (Identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	vendorAssetID = strings.ToLower(vendorAssetID)
	identity := s.identities[s.externalID[vendorAssetID]]
	if identity == nil || identity.VendorAssetID != vendorAssetID { // the asset belongs to another object now
		return Identity{}, false
	}
	return *identity, true
}

// Count returns the number of identities of a kind, with deleted ones.
func (s *Server) Count(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kindCounts[kind]
}

// Generation returns a number that changes with each asset request that is stored.
func (s *Server) Generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.generation
}

// LastSource returns the source that the last stored asset request named.
func (s *Server) LastSource() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source
}

// States returns the last 10,000 states of the connector, oldest first.
func (s *Server) States() []gateway.ConnectorState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states.all()
}

// Requests returns the last 10,000 requests, oldest first.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests.all()
}

// Counts returns the number of requests by "METHOD path status".
func (s *Server) Counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}

// Violations returns the last 1,000 violations of the contract, oldest first.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.violations.all()
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	record := Request{Method: r.Method, Path: r.URL.Path, RequestID: r.Header.Get("Idempotency-Key"), At: time.Now()}
	recorder := &statusRecorder{ResponseWriter: w}
	// Deferred, because Intercept can panic.
	defer func() {
		record.Status = recorder.status
		s.addRequest(record)
	}()
	isAllowed, release := s.beginCall(r)
	defer release()
	body, err := readBody(r, s.options.maxBody)
	record.Bytes = len(body)
	switch {
	case !isAllowed:
		w.Header().Set("X-Concurrency-Limit-Limit", strconv.Itoa(s.options.MaxCalls))
		message(http.StatusConflict, "concurrency limit exceeded").write(recorder)
	case err != nil:
		message(http.StatusBadRequest, "incomplete body").write(recorder)
	case int64(len(body)) > s.options.maxBody:
		message(http.StatusRequestEntityTooLarge, fmt.Sprintf("body exceeds %d bytes", s.options.maxBody)).write(recorder)
	case s.options.Intercept != nil && s.options.Intercept(recorder, r, body):
	default:
		response := s.respond(r, body, &record)
		release() // the client may send the next call as soon as it has the response
		response.write(recorder)
	}
}

// beginCall reports whether another concurrent call is allowed. release ends the call.
func (s *Server) beginCall(r *http.Request) (isAllowed bool, release func()) {
	if s.options.MaxCalls == 0 || r.Header.Get("Authorization") == "" {
		return true, func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls >= s.options.MaxCalls {
		return false, func() {}
	}
	s.calls++
	return true, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls--
	})
}

// respond processes a request with its body and returns the response.
func (s *Server) respond(r *http.Request, body []byte, record *Request) response {
	op, path, err := s.contract.find(r.Method, r.URL.Path)
	if err != nil {
		return s.violation(r, err.Error())
	}
	if op.bearer {
		if err := s.tokens.check(r.Header.Get("Authorization")); err != nil {
			return message(http.StatusUnauthorized, err.Error())
		}
	}
	if op.id == "syncAssets" {
		return s.syncAssets(op, r, body, record)
	}
	document, problems := op.check(r, path, body)
	if len(problems) > 0 {
		refusal := s.violation(r, problems...)
		if op.id == "loginClientCredentials" {
			refusal.body = map[string]string{"error": "invalid_request", "error_description": summary(problems)}
		}
		return refusal
	}
	form, _ := document.(map[string]any)
	field := func(name string) string { value, _ := form[name].(string); return value }

	switch o := s.options; op.id {
	case "loginBasic":
		return s.login(field("username"), field("password"), o.Username, o.Password)
	case "loginClientOfUser", "loginClientOfSubscription":
		return s.login(r.Header.Get("clientId"), r.Header.Get("clientSecret"), o.ClientID, o.ClientSecret)
	case "loginClientCredentials":
		if id, secret, inHeader := basicCredentials(r); inHeader {
			return s.clientCredentials(id, secret)
		}
		return s.clientCredentials(field("client_id"), field("client_secret"))
	case "getConnection":
		s.mu.Lock()
		defer s.mu.Unlock()
		return documentResponse(s.connection, s.unknown(r.URL.Query().Get("customerUuid"), path["connectionUuid"], o.ProfileUUID))
	case "getProfile":
		s.mu.Lock()
		defer s.mu.Unlock()
		return documentResponse(s.profile, s.unknown(r.URL.Query().Get("customerUuid"), o.ConnectionUUID, path["profileUuid"]))
	case "putState":
		return s.putState(r, path["connectionUuid"], body)
	default:
		return message(http.StatusNotImplemented, "the sandbox has no handler for "+op.id)
	}
}

// documentResponse returns a document, or 404 if it is nil or an identifier is unknown.
func documentResponse[T any](document *T, unknown string) response {
	switch {
	case unknown != "":
		return message(http.StatusNotFound, unknown)
	case document == nil:
		return message(http.StatusNotFound, "not found")
	default:
		return response{http.StatusOK, *document}
	}
}

// unknown returns a message for the first identifier that is unknown, or "".
func (s *Server) unknown(customer, connection, profile string) string {
	switch o := s.options; {
	case !strings.EqualFold(customer, o.CustomerUUID):
		return "unknown customerUuid " + customer
	case !strings.EqualFold(connection, o.ConnectionUUID):
		return "unknown connectionUuid " + connection
	case !strings.EqualFold(profile, o.ProfileUUID):
		return "unknown profileUuid " + profile
	default:
		return ""
	}
}

func (s *Server) putState(r *http.Request, connection string, body []byte) response {
	var state gateway.ConnectorState
	if err := json.Unmarshal(body, &state); err != nil {
		return s.violation(r, "body: "+err.Error())
	}
	if unknown := s.unknown(state.CustomerUUID, connection, state.ProfileUUID); unknown != "" {
		return message(http.StatusNotFound, unknown)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states.add(state)
	return message(http.StatusOK, "recorded")
}

// violation records problems of a request and returns the response that names them.
func (s *Server) violation(r *http.Request, problems ...string) response {
	text := summary(problems)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations.add(r.Method + " " + r.URL.Path + ": " + text)
	return message(http.StatusBadRequest, text)
}

// summary returns the first problems. One error can affect every item of a batch.
func summary(problems []string) string {
	const maximum = 5
	if more := len(problems) - maximum; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(problems[:maximum], "; "), more)
	}
	return strings.Join(problems, "; ")
}

func (s *Server) addRequest(record Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests.add(record)
	s.counts[fmt.Sprintf("%s %s %d", record.Method, record.Path, record.Status)]++
}

// readBody reads at most one byte more than the maximum. It discards up to 64 MiB of the
// rest, because a client that is still sending would get a reset instead of 413.
func readBody(r *http.Request, maximum int64) ([]byte, error) {
	var body bytes.Buffer
	body.Grow(int(max(0, min(r.ContentLength, maximum))) + bytes.MinRead)
	_, err := body.ReadFrom(io.LimitReader(r.Body, maximum+1))
	if int64(body.Len()) > maximum {
		_, _ = io.CopyN(io.Discard, r.Body, 64<<20)
	}
	return body.Bytes(), err
}

// response is the response to a request. Its body is sent as JSON, except a bareToken.
type response struct {
	status int
	body   any
}

type bareToken string

func message(status int, text string) response {
	return response{status, map[string]string{"message": text}}
}

func (r response) write(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	if token, ok := r.body.(bareToken); ok {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(r.status)
		_, _ = io.WriteString(w, string(token))
		return
	}
	if r.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(r.status)
	_ = json.NewEncoder(w).Encode(r.body) // the connection is closed
}

// statusRecorder records the status of a response.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusRecorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *statusRecorder) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap supports http.ResponseController.
func (w *statusRecorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// recent keeps the last items.
type recent[T any] struct {
	keep  int
	items []T // at most twice as many as are kept
}

func (r *recent[T]) add(item T) {
	if len(r.items) == 2*r.keep {
		r.items = append(r.items[:0], r.items[r.keep:]...)
	}
	r.items = append(r.items, item)
}

func (r *recent[T]) all() []T {
	return append([]T{}, r.items[max(0, len(r.items)-r.keep):]...)
}
