package testenv

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
)

// GatewayOptions describe a gateway. Identifiers and credentials have defaults.
type GatewayOptions struct {
	gatewayserver.Options
	TLS bool
}

// Gateway is a sandbox gateway that listens on loopback. A violation of its contract fails
// the test.
type Gateway struct {
	URL     *url.URL
	Server  *httptest.Server
	Options gatewayserver.Options

	t      testing.TB
	caFile string

	mu         sync.Mutex
	sandbox    *gatewayserver.Server
	front      Front
	middleware Middleware
	calls      map[string]int // by path
}

// Front is called before the gateway. It returns true if it has answered the request.
type Front func(*Exchange) bool

// Middleware wraps each delivery to the gateway, also that of a front.
type Middleware func(x *Exchange, deliver func() *httptest.ResponseRecorder) *httptest.ResponseRecorder

// Exchange is a request to the gateway.
type Exchange struct {
	W      http.ResponseWriter
	R      *http.Request
	Body   []byte
	Number int // of the request to this path, from 1

	gateway *Gateway
}

// NewGateway starts a gateway.
func NewGateway(t testing.TB, o GatewayOptions) *Gateway {
	t.Helper()
	options := o.Options
	options.CustomerUUID, options.ConnectionUUID, options.ProfileUUID = CustomerUUID, ConnectionUUID, ProfileUUID
	if options.Username == "" {
		options.Username, options.Password = "qualys_ad1", "Gw-s3cret!"
	}
	if options.ClientID == "" {
		options.ClientID, options.ClientSecret = "client-7", "Client-s3cret!"
	}
	g := &Gateway{Options: options, t: t, sandbox: gatewayserver.New(options), calls: map[string]int{}}
	g.Server = httptest.NewUnstartedServer(http.HandlerFunc(g.serve))
	g.Server.Config.ErrorLog = log.New(io.Discard, "", 0) // errors of connections that tests close
	if o.TLS {
		g.Server.EnableHTTP2 = true
		g.Server.StartTLS()
		g.caFile = filepath.Join(t.TempDir(), "gateway.pem")
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: g.Server.Certificate().Raw})
		if err := os.WriteFile(g.caFile, text, 0o600); err != nil {
			t.Fatal(err)
		}
	} else {
		g.Server.Start()
	}
	t.Cleanup(func() {
		g.Server.Close()
		g.CheckContract()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.sandbox = nil // package testing keeps an ended parallel test until all others have ended
	})
	var err error
	if g.URL, err = url.Parse(g.Server.URL); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client closed the connection
	}
	g.mu.Lock()
	g.calls[r.URL.Path]++
	x := &Exchange{W: w, R: r, Body: body, Number: g.calls[r.URL.Path], gateway: g}
	front := g.front
	g.mu.Unlock()
	if front == nil || !front(x) {
		x.Answer(x.Deliver())
	}
}

// Sandbox returns the gateway server behind the front.
func (g *Gateway) Sandbox() *gatewayserver.Server {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sandbox
}

// SetFront replaces the front. nil removes it.
func (g *Gateway) SetFront(front Front) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.front = front
}

// SetMiddleware replaces the middleware. nil removes it.
func (g *Gateway) SetMiddleware(m Middleware) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.middleware = m
}

// Reset replaces the gateway by an empty one. No connector may be running.
func (g *Gateway) Reset() {
	g.t.Helper()
	g.CheckContract()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sandbox, g.calls = gatewayserver.New(g.Options), map[string]int{}
}

// CheckContract fails the test for each violation of the gateway's contract.
func (g *Gateway) CheckContract() {
	g.t.Helper()
	for _, violation := range g.Sandbox().Violations() {
		g.t.Errorf("gateway contract violated: %s", violation)
	}
}

// Deliver sends the request to the gateway and returns its answer without sending it.
func (x *Exchange) Deliver() *httptest.ResponseRecorder {
	request := x.R.Clone(x.R.Context())
	request.Body = io.NopCloser(bytes.NewReader(x.Body))
	request.ContentLength = int64(len(x.Body))
	deliver := func() *httptest.ResponseRecorder {
		answer := httptest.NewRecorder()
		x.gateway.Sandbox().ServeHTTP(answer, request)
		return answer
	}
	x.gateway.mu.Lock()
	middleware := x.gateway.middleware
	x.gateway.mu.Unlock()
	if middleware == nil {
		return deliver()
	}
	return middleware(x, deliver)
}

// Answer sends an answer.
func (x *Exchange) Answer(a *httptest.ResponseRecorder) {
	for key, values := range a.Header() {
		x.W.Header()[key] = values
	}
	x.W.WriteHeader(a.Code)
	_, _ = x.W.Write(a.Body.Bytes())
}

// Status answers instead of the gateway and returns true.
func (x *Exchange) Status(code int, body string) bool {
	x.W.Header().Set("Content-Type", "application/json")
	x.W.WriteHeader(code)
	_, _ = io.WriteString(x.W, body)
	return true
}

// Reset resets the TCP connection, or the HTTP/2 stream, and returns true.
func (x *Exchange) Reset() bool {
	conn, _, err := http.NewResponseController(x.W).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if secure, is := conn.(*tls.Conn); is {
		conn = secure.NetConn()
	}
	if plain, is := conn.(*net.TCPConn); is {
		_ = plain.SetLinger(0)
	}
	_ = conn.Close()
	return true
}

// HasAssets reports whether the request contains assets.
func (x *Exchange) HasAssets() bool { return x.R.URL.Path == AssetsPath }

// OnAssets returns a front that calls answer for requests with assets only.
func OnAssets(answer Front) Front {
	return func(x *Exchange) bool { return x.HasAssets() && answer(x) }
}

// Settings returns the settings for the gateway with its BASIC login.
func (g *Gateway) Settings() Settings {
	s := Settings{
		"connector.api.url":   g.Server.URL,
		"qualys.customerUuid": CustomerUUID, "qualys.connectionUuid": ConnectionUUID, "qualys.profileUuid": ProfileUUID,
		"qualys.user.username": g.Options.Username, "qualys.user.password": g.Options.Password,
	}
	if g.caFile != "" {
		s["gateway.ca-file"] = g.caFile
	}
	return s
}

// ClientOptions returns the options of a client with the BASIC login.
func (g *Gateway) ClientOptions(log zerolog.Logger) gateway.Options {
	return gateway.Options{
		URL: g.URL, CustomerUUID: CustomerUUID, ConnectionUUID: ConnectionUUID, ProfileUUID: ProfileUUID,
		Login:   gateway.Login{Username: g.Options.Username, Password: secret.New(g.Options.Password)},
		Version: "test", Connections: 4, Log: log,
	}
}

// SetConnection replaces the connection in the console. nil: none.
func (g *Gateway) SetConnection(c *gatewayserver.Connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Options.Connection = c
	g.sandbox.SetConnection(c)
}

// SetProfile replaces the profile in the console. nil: none.
func (g *Gateway) SetProfile(p *gateway.Profile) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Options.Profile = p
	g.sandbox.SetProfile(p)
}

// Arrived returns the number of requests to a path, with those that the front answered.
func (g *Gateway) Arrived(path string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls[path]
}

// Held returns all received assets by vendorAssetId. Of several with the same one, it returns the
// last.
func (g *Gateway) Held() map[string]string {
	assets := map[string]string{}
	for _, identity := range g.identities() {
		assets[identity.VendorAssetID] = string(identity.Asset)
	}
	return assets
}

// HeldByKey returns all received assets by externalAssetId, which is their key at the gateway.
func (g *Gateway) HeldByKey() map[string]string {
	assets := map[string]string{}
	for _, identity := range g.identities() {
		assets[identity.ExternalAssetID] = string(identity.Asset)
	}
	return assets
}

// identities returns the received identities of all kinds in the order in which they were received.
func (g *Gateway) identities() []gatewayserver.Identity {
	s := g.Sandbox()
	all := slices.Concat(s.Users(), s.Groups(), s.Identities(gatewayserver.KindRole), s.Identities(gatewayserver.KindDomain))
	slices.SortStableFunc(all, func(a, b gatewayserver.Identity) int { return a.ReceivedAt.Compare(b.ReceivedAt) })
	return all
}

// Users returns all received users.
func (g *Gateway) Users() []gatewayserver.Identity { return g.Sandbox().Users() }

// Groups returns all received groups.
func (g *Gateway) Groups() []gatewayserver.Identity { return g.Sandbox().Groups() }

// States returns the received states of the connector.
func (g *Gateway) States() []gateway.ConnectorState { return g.Sandbox().States() }

// Requests returns the last requests that the gateway answered.
func (g *Gateway) Requests() []gatewayserver.Request { return g.Sandbox().Requests() }

// IsDeleted reports whether an asset has the status DELETED.
func IsDeleted(asset string) bool { return strings.Contains(asset, `"status":"DELETED"`) }
