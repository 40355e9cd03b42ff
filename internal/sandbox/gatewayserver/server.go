// Package gatewayserver is a gateway in the process, for tests, trials and the demo.
//
// It checks every request against the OpenAPI document of package gateway and against
// the rules that a schema cannot express. It answers a violation with 400 and a message
// that names the violation, and keeps it for Violations. Tokens are signed, expire and
// can be revoked. An asset request that is sent more than once is stored once. No answer
// other than a login contains a token or a password.
//
// The real gateway may answer differently, because half of the contract is our own
// definition (x-status in the document). The server stores everything in memory and
// has no rate limit. It does not detect duplicate keys in a JSON object.
package gatewayserver

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"adconnector/internal/gateway"
)

// Options is what the gateway knows and how it answers.
type Options struct {
	CustomerUUID, ConnectionUUID, ProfileUUID string

	Username, Password     string // of /auth; none: nobody may log in there
	ClientID, ClientSecret string // of /auth/oidc, /auth/oauth and /oauth/token

	Connection *Connection      // nil: 404
	Profile    *gateway.Profile // nil: 404

	tokenLifetime time.Duration // 0: 4 h; exp is rounded up to a whole second
	WrapToken     bool          // logins answer {"access_token":…} in place of the bare JWT
	maxBody       int64         // bytes; more is answered with 413. 0: 10 MiB

	// Intercept sees every call, once its body is read and before anything is done
	// with it. True: it has answered. To cut the
	// connection it panics with http.ErrAbortHandler or hijacks by way of an
	// http.ResponseController.
	Intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool
}

// Connection is gateway.Connection with the password in the clear: the sandbox is
// the one side that sends it.
type Connection struct {
	ConnectionUUID string         `json:"connectionUuid"`
	Name           string         `json:"name"`
	Authentication Authentication `json:"authentication"`
}

// Authentication is gateway.Authentication with the password in the clear.
type Authentication struct {
	Type        string `json:"type"`
	Host        string `json:"host"`
	Port        int    `json:"port,omitempty"`
	BindDN      string `json:"bindDn"`
	Password    string `json:"password"`
	Certificate string `json:"certificate,omitempty"`
}

// Identity is one object of the inventory.
type Identity struct {
	ExternalAssetID string
	VendorAssetID   string // the key: lower-case GUID
	Kind            string // KindUser, KindGroup, KindRole or KindDomain
	Asset           json.RawMessage
	Source          string // as the last request that carried it called it
	ReceivedAt      time.Time
	Times           int // how often it was taken; a repeated request does not count
}

// The kinds of Identity.
const (
	KindUser   = "user"
	KindGroup  = "group"
	KindRole   = "role"
	KindDomain = "domain"
)

// Request is one call that the gateway saw.
type Request struct {
	Method    string    `json:"method"`
	Path      string    `json:"path"`
	Status    int       `json:"status"` // 0: no answer was written
	RequestID string    `json:"requestId,omitempty"`
	Assets    int       `json:"assets"` // items in it, 0 when it was refused unread
	Bytes     int       `json:"bytes"`  // of the body
	At        time.Time `json:"at"`
}

// What is kept of requests, states and violations: the last ones.
const (
	keepRequests   = 10_000
	keepStates     = 10_000
	keepViolations = 1_000
)

// Server is an http.Handler. All its methods may be called at any time.
type Server struct {
	options  Options
	contract *contract
	tokens   *tokens

	mu         sync.Mutex
	connection *Connection
	profile    *gateway.Profile
	source     string // as the last request called it
	identities map[string]*Identity
	held       map[string]int               // how many of each kind
	generation uint64                       // of the identities: another number, another content
	taken      map[string][sha256.Size]byte // requestId: of which body; never forgotten
	states     last[gateway.ConnectorState]
	requests   last[Request]
	counts     map[string]int
	violations last[string]
}

// New returns a gateway with an empty inventory.
func New(options Options) *Server {
	if options.tokenLifetime == 0 {
		options.tokenLifetime = 4 * time.Hour
	}
	if options.maxBody == 0 {
		options.maxBody = 10 << 20
	}
	contract, err := defaultContract()
	if err != nil {
		panic(err) // the document is compiled in, and tested
	}
	g := &Server{
		options:    options,
		contract:   contract,
		tokens:     newTokens(options.tokenLifetime),
		identities: map[string]*Identity{},
		held:       map[string]int{},
		taken:      map[string][sha256.Size]byte{},
		states:     last[gateway.ConnectorState]{keep: keepStates},
		requests:   last[Request]{keep: keepRequests},
		counts:     map[string]int{},
		violations: last[string]{keep: keepViolations},
	}
	g.SetConnection(options.Connection)
	g.SetProfile(options.Profile)
	return g
}

// SetConnection changes the connection, as somebody at the console would. Nil: 404.
func (g *Server) SetConnection(connection *Connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.connection = clone(connection)
}

// SetProfile changes the profile, as somebody at the console would. Nil: 404.
func (g *Server) SetProfile(profile *gateway.Profile) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.profile = clone(profile)
}

// RevokeTokens ends every token given out so far.
func (g *Server) RevokeTokens() { g.tokens.revoke() }

// Users returns the users of the inventory, deleted ones included, by VendorAssetID.
func (g *Server) Users() []Identity { return g.Identities(KindUser) }

// Groups returns the groups of the inventory, deleted ones included, by VendorAssetID.
func (g *Server) Groups() []Identity { return g.Identities(KindGroup) }

// Roles returns the roles of the inventory, deleted ones included, by VendorAssetID.
func (g *Server) Roles() []Identity { return g.Identities(KindRole) }

// Domains returns the domains of the inventory, deleted ones included, by VendorAssetID.
func (g *Server) Domains() []Identity { return g.Identities(KindDomain) }

// Identities returns the identities of a kind, deleted ones included, by VendorAssetID.
func (g *Server) Identities(kind string) []Identity {
	g.mu.Lock()
	identities := make([]Identity, 0, g.held[kind])
	for _, identity := range g.identities {
		if identity.Kind == kind {
			identities = append(identities, *identity)
		}
	}
	g.mu.Unlock()
	slices.SortFunc(identities, func(a, b Identity) int { return cmp.Compare(a.VendorAssetID, b.VendorAssetID) })
	return identities
}

// Identity returns one identity. Its VendorAssetID is matched without regard to case.
func (g *Server) Identity(vendorAssetID string) (Identity, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	identity := g.identities[strings.ToLower(vendorAssetID)]
	if identity == nil {
		return Identity{}, false
	}
	return *identity, true
}

// Count returns the number of identities of a kind, deleted ones included.
func (g *Server) Count(kind string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held[kind]
}

// Generation returns a number that changes with each asset request that is stored.
func (g *Server) Generation() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.generation
}

// LastSource returns the source that the last stored asset request named.
func (g *Server) LastSource() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.source
}

// States returns the last 10,000 states that the connector reported, oldest first.
func (g *Server) States() []gateway.ConnectorState {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.states.all()
}

// Requests returns the last 10,000 calls, oldest first.
func (g *Server) Requests() []Request {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.requests.all()
}

// Counts returns how many calls there were in all, by "METHOD path status".
func (g *Server) Counts() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.counts)
}

// Violations returns the last 1,000 violations of the contract, oldest first.
func (g *Server) Violations() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.violations.all()
}

// ServeHTTP answers the calls of the contract.
func (g *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen := Request{Method: r.Method, Path: r.URL.Path, RequestID: r.Header.Get("Idempotency-Key"), At: time.Now()}
	watched := &watchedWriter{ResponseWriter: w}
	// Deferred, because Intercept may panic to cut the connection.
	defer func() {
		seen.Status = watched.status
		g.record(seen)
	}()
	body, err := readBody(r, g.options.maxBody)
	seen.Bytes = len(body)
	switch {
	case err != nil:
		message(http.StatusBadRequest, "the body ended early").write(watched)
	case int64(len(body)) > g.options.maxBody:
		message(http.StatusRequestEntityTooLarge, fmt.Sprintf("a body may have %d bytes", g.options.maxBody)).write(watched)
	case g.options.Intercept != nil && g.options.Intercept(watched, r, body):
	default:
		g.answer(r, body, &seen).write(watched)
	}
}

// answer is everything between a body that is read and an answer that is written.
func (g *Server) answer(r *http.Request, body []byte, seen *Request) answer {
	op, path, err := g.contract.find(r.Method, r.URL.Path)
	if err != nil {
		return g.violation(r, err.Error())
	}
	if op.bearer {
		if err := g.tokens.check(r.Header.Get("Authorization")); err != nil {
			return message(http.StatusUnauthorized, err.Error())
		}
	}
	if op.id == "syncAssets" {
		return g.syncAssets(op, r, body, seen)
	}
	document, problems := op.check(r, path, body)
	if len(problems) > 0 {
		refusal := g.violation(r, problems...)
		if op.id == "loginClientCredentials" {
			refusal.body = map[string]string{"error": "invalid_request", "error_description": summary(problems)}
		}
		return refusal
	}
	form, _ := document.(map[string]any)
	field := func(name string) string { value, _ := form[name].(string); return value }

	switch o := g.options; op.id {
	case "loginBasic":
		return g.login(field("username"), field("password"), o.Username, o.Password)
	case "loginClientOfUser", "loginClientOfSubscription":
		return g.login(r.Header.Get("clientId"), r.Header.Get("clientSecret"), o.ClientID, o.ClientSecret)
	case "loginClientCredentials":
		return g.clientCredentials(field("client_id"), field("client_secret"))
	case "getConnection":
		g.mu.Lock()
		defer g.mu.Unlock()
		return known(g.connection, g.unknown(r.URL.Query().Get("customerUuid"), path["connectionUuid"], o.ProfileUUID))
	case "getProfile":
		g.mu.Lock()
		defer g.mu.Unlock()
		return known(g.profile, g.unknown(r.URL.Query().Get("customerUuid"), o.ConnectionUUID, path["profileUuid"]))
	case "putState":
		return g.putState(r, path["connectionUuid"], body)
	default:
		return message(http.StatusNotImplemented, op.id+" is in the contract but not in the sandbox")
	}
}

// known answers with what the console has, if the identifiers are right.
func known[T any](document *T, unknown string) answer {
	switch {
	case unknown != "":
		return message(http.StatusNotFound, unknown)
	case document == nil:
		return message(http.StatusNotFound, "not found")
	default:
		return answer{http.StatusOK, *document}
	}
}

// unknown names the first identifier that is not this gateway's.
func (g *Server) unknown(customer, connection, profile string) string {
	switch o := g.options; {
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

func (g *Server) putState(r *http.Request, connection string, body []byte) answer {
	var state gateway.ConnectorState
	if err := json.Unmarshal(body, &state); err != nil {
		return g.violation(r, "body: "+err.Error())
	}
	if unknown := g.unknown(state.CustomerUUID, connection, state.ProfileUUID); unknown != "" {
		return message(http.StatusNotFound, unknown)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.states.add(state)
	return message(http.StatusOK, "recorded")
}

// violation keeps what breaks the contract and answers with it.
func (g *Server) violation(r *http.Request, problems ...string) answer {
	text := summary(problems)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.violations.add(r.Method + " " + r.URL.Path + ": " + text)
	return message(http.StatusBadRequest, text)
}

// summary is short enough to be logged: one mistake in the map breaks every item of a batch.
func summary(problems []string) string {
	const most = 5
	if more := len(problems) - most; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(problems[:most], "; "), more)
	}
	return strings.Join(problems, "; ")
}

func (g *Server) record(seen Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests.add(seen)
	g.counts[fmt.Sprintf("%s %s %d", seen.Method, seen.Path, seen.Status)]++
}

// readBody reads at most one byte more than allowed; the rest is drained within
// reason, since a client that is still sending would see a reset, not the 413.
func readBody(r *http.Request, most int64) ([]byte, error) {
	body := make([]byte, 0, max(512, min(r.ContentLength, most)+1))
	for int64(len(body)) <= most {
		if len(body) == cap(body) {
			body = slices.Grow(body, len(body))
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return body, err
		}
	}
	_, _ = io.CopyN(io.Discard, r.Body, 64<<20)
	return body, nil
}

// answer is a status and what goes with it as JSON, a bareToken excepted.
type answer struct {
	status int
	body   any
}

type bareToken string

func message(status int, text string) answer {
	return answer{status, map[string]string{"message": text}}
}

func (a answer) write(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	if token, ok := a.body.(bareToken); ok {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, string(token))
		return
	}
	if a.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Content-Type", mediaJSON)
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body) // the client has gone
}

// watchedWriter remembers the status that was written.
type watchedWriter struct {
	http.ResponseWriter
	status int
}

func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watchedWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets an http.ResponseController reach the connection.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// last keeps at least the last so many items, and returns no more than those.
type last[T any] struct {
	keep  int
	items []T
}

func (l *last[T]) add(item T) {
	if len(l.items) == 2*l.keep {
		l.items = append(l.items[:0], l.items[l.keep:]...)
	}
	l.items = append(l.items, item)
}

func (l *last[T]) all() []T {
	return append([]T{}, l.items[max(0, len(l.items)-l.keep):]...)
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
