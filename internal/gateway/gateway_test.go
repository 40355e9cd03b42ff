package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
	"adconnector/test/faulttest"
)

const (
	customer   = "0b1c4a3e-9a55-4c0e-8f3a-1d2b3c4d5e6f"
	connection = "5f0d7b9a-41f5-4f8e-9d06-7a8b9c0d1e2f"
	profile    = "c3f2a1b0-0a9b-4c8d-8e7f-6a5b4c3d2e1f"

	assetsPath     = "/rest/2.0/am/connector/asset/data/sync"
	connectionPath = "/rest/2.0/am/connector/connection/" + connection
	profilePath    = "/rest/2.0/am/connector/profile/" + profile
	statePath      = connectionPath + "/state"

	username      = "alice"
	password      = "pass-w0rd&=% +ü"
	clientID      = "client-7"
	clientSecret  = "client-s3cret/+"
	bindPassword  = "bind-s3cret"
	proxyUser     = "me"
	proxyPassword = "proxy-s3cret@:"

	asset = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-32-544","vendorAssetId":"1a2b3c4d-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Admins","groupAssetClass":{"id":"S-1-5-32-544","name":"Admins"}}}}`

	published = `{"message":"1 assets published","responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{}}`
	// token is a JWT without exp.
	token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmVk"
)

// secrets are texts that no error and no log line may contain.
var secrets = []string{
	"pass-w0rd", "client-s3cret", bindPassword, "proxy-s3cret", "eyJ", "c2lnbmVk",
	base64.StdEncoding.EncodeToString([]byte(proxyUser + ":" + proxyPassword)),
}

// noSecrets fails the test if text contains a secret.
func noSecrets(t testing.TB, where, text string) {
	t.Helper()
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("%s contains the secret %s: %s", where, s, text)
		}
	}
}

// syncBuffer is a log that is safe for concurrent use.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *syncBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *syncBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines returns the fields of each line.
func (l *syncBuffer) lines(t testing.TB) (lines []map[string]any) {
	t.Helper()
	for text := range strings.Lines(l.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(text), &fields); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		lines = append(lines, fields)
	}
	return lines
}

// line returns the fields of the single line with a message.
func (l *syncBuffer) line(t testing.TB, message string) map[string]any {
	t.Helper()
	var found []map[string]any
	for _, fields := range l.lines(t) {
		if fields["message"] == message {
			found = append(found, fields)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d lines with %q in %s", len(found), message, l)
	}
	return found[0]
}

// options returns valid options for a gateway at an address. At the end of the test, the log
// must not contain secrets.
func options(t testing.TB, address string) gateway.Options {
	t.Helper()
	base, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	t.Cleanup(func() { noSecrets(t, "the log", log.String()) })
	o := gateway.Options{
		URL: base, CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile,
		Login:   gateway.Login{Username: username, Password: secret.New(password)},
		Version: "test", Connections: 20, Grace: time.Hour, Log: zerolog.New(log),
	}
	o.RetryEvery(time.Millisecond)
	return o
}

func sandboxOptions() gatewayserver.Options {
	return gatewayserver.Options{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile,
		Username: username, Password: password, ClientID: clientID, ClientSecret: clientSecret,
		Connection: &gatewayserver.Connection{ConnectionUUID: connection, Name: "corp", Authentication: gatewayserver.Authentication{
			Type: "LDAPS", Host: "dc1.corp.example.com", Port: 636, BindDN: "CN=svc,DC=corp", Password: bindPassword, Certificate: "MIIB",
		}},
		Profile: &gateway.Profile{ProfileUUID: profile, Name: "all", BaseContext: "DC=corp", SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"},
	}
}

// startSandbox starts an HTTP server with newSandbox.
func startSandbox(t testing.TB, o gatewayserver.Options) (*gatewayserver.Server, *httptest.Server) {
	t.Helper()
	g := newSandbox(t, o)
	return g, serve(t, g)
}

// newSandbox returns a sandbox gateway. The test fails on a contract violation.
func newSandbox(t testing.TB, o gatewayserver.Options) *gatewayserver.Server {
	t.Helper()
	g := gatewayserver.New(o)
	t.Cleanup(func() {
		for _, violation := range g.Violations() {
			t.Errorf("contract violation: %s", violation)
		}
	})
	return g
}

func serve(t testing.TB, handler http.Handler) *httptest.Server {
	t.Helper()
	return serveAs(t, handler, (*httptest.Server).Start)
}

func serveTLS(t testing.TB, handler http.Handler) *httptest.Server {
	t.Helper()
	return serveAs(t, handler, func(server *httptest.Server) {
		server.EnableHTTP2 = true
		server.StartTLS()
	})
}

func serveAs(t testing.TB, handler http.Handler, start func(*httptest.Server)) *httptest.Server {
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(server)
	t.Cleanup(server.Close)
	return server
}

// afterLogin returns a handler that accepts any login and passes all other requests to handler.
func afterLogin(t testing.TB, handler http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /auth", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, token)
	})
	mux.HandleFunc("/", handler)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.UserAgent(); got != "adconnector/test" {
			t.Errorf("%s %s: User-Agent %q", r.Method, r.URL.Path, got)
		}
		mux.ServeHTTP(w, r)
	})
}

// respondWith returns a handler with the same response to every request.
func respondWith(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// checkError checks the fields of an error with faulttest.Check, and that its text and remedy
// contain no secret.
func checkError(t testing.TB, err error, want fault.Error, cause error, remedyNames ...string) {
	t.Helper()
	faulttest.Check(t, err, want, cause, remedyNames...)
	noSecrets(t, "the error", err.Error())
	noSecrets(t, "the remedy", fault.Remedy(err))
}

// checkResponseError checks that the cause of an error is a response with the given status and
// message.
func checkResponseError(t testing.TB, err error, status int, message string) {
	t.Helper()
	response, ok := errors.AsType[*gateway.ResponseError](err)
	if !ok || response.Status != status || response.Message != message {
		t.Errorf("response %+v, want %d %q; error %v", response, status, message, err)
	}
}

// sendError, loginError, connectionError, profileError and stateError return the expected error
// of a failed operation.
func sendError(o gateway.Options, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "send assets to", Object: o.URL.Host}
}

func loginError(base, path string, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "log in at", Object: base + path}
}

func connectionError(class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "read connection", Object: connection}
}

func profileError(class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "read profile", Object: profile}
}

func stateError(state string, class fault.Class) fault.Error {
	return fault.Error{Class: class, Op: "send state", Object: state}
}

func send(ctx context.Context, client *gateway.Client) (gateway.BatchResponse, error) {
	return client.Send(ctx, uuid.NewString(), 1, []byte(asset))
}

// count returns how many requests of the form "METHOD path status" a sandbox received.
func count(g *gatewayserver.Server, request string) int { return g.Counts()[request] }

func TestConnectionAndProfile(t *testing.T) {
	t.Parallel()
	g, server := startSandbox(t, sandboxOptions())
	client := gateway.New(options(t, server.URL))
	c, err := client.Connection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := gateway.Authentication{Type: "LDAPS", Host: "dc1.corp.example.com", Port: 636, BindDN: "CN=svc,DC=corp", Certificate: "MIIB"}
	if got := c.Authentication.Password.Reveal(); got != bindPassword {
		t.Errorf("password %q", got)
	}
	c.Authentication.Password = secret.Text{}
	if c != (gateway.Connection{ConnectionUUID: connection, Name: "corp", Authentication: want}) {
		t.Errorf("connection %+v", c)
	}
	p, err := client.Profile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if p != *sandboxOptions().Profile {
		t.Errorf("profile %+v", p)
	}

	g.SetConnection(nil)
	_, err = client.Connection(t.Context())
	checkError(t, err, connectionError(fault.Refused), gateway.ErrNotFound, "qualys.connectionUuid", "qualys.customerUuid")
	g.SetProfile(nil)
	_, err = client.Profile(t.Context())
	checkError(t, err, profileError(fault.Refused), gateway.ErrNotFound, "qualys.profileUuid", "qualys.customerUuid")
	if n := count(g, "GET "+connectionPath+" 404"); n != 1 {
		t.Errorf("%d requests, want no retry", n)
	}
}

func TestConnectionResponses(t *testing.T) {
	t.Parallel()
	api, console, platform := []string{"connector.api.url"}, []string{"connection in the console"}, []string{"platform"}
	const valid = `"connectionUuid":"` + connection + `","authentication":{"type":"LDAP","host":"dc","bindDn":"x","password":"` + bindPassword + `"`
	for _, test := range []struct {
		name    string
		status  int
		body    string
		class   fault.Class // "": success
		cause   error
		message string   // of the gateway
		field   string   // with a wrong value
		names   []string // in the remedy
	}{
		{"unknown fields", 200, `{"new":[1],` + valid + `,"more":{}},"x":null}`, "", nil, "", "", nil},
		{"truncated", 200, `{` + valid, fault.Transient, gateway.ErrNotDocument, "", "", api},
		{"not an object", 200, `["` + bindPassword + `"]`, fault.Transient, gateway.ErrNotDocument, "", "", api},
		{"password of a wrong type", 200, `{"authentication":{"bindDn":"` + bindPassword + `","password":{"x":"` + bindPassword + `"}}}`, fault.Refused, nil, "", "password", console},
		{"password that is a number", 200, `{"authentication":{"password":133890}}`, fault.Refused, nil, "", "password", console},
		{"host of a wrong type", 200, `{"authentication":{"host":["` + bindPassword + `"]}}`, fault.Refused, nil, "", "host", console},
		{"name of a wrong type", 200, `{"name":7}`, fault.Refused, nil, "", "name", console},
		{"authentication of a wrong type", 200, `{"authentication":"` + bindPassword + `"}`, fault.Refused, nil, "", "authentication", console},
		{"port that is not a number", 200, `{"authentication":{"port":"` + bindPassword + `"}}`, fault.Refused, nil, "", "port", console},
		{"port out of range", 200, `{"authentication":{"port":133890}}`, fault.Refused, nil, "", "port", console},
		{"port out of range, as text", 200, `{"authentication":{"port":"133890"}}`, fault.Refused, nil, "", "port", console},
		{"port below range", 200, `{"authentication":{"port":-1}}`, fault.Refused, nil, "", "port", console},
		{"port with a fraction", 200, `{"authentication":{"port":389.5}}`, fault.Refused, nil, "", "port", console},
		{"port of a wrong type", 200, `{"authentication":{"port":{}}}`, fault.Refused, nil, "", "port", console},
		{"HTML", 200, `<html>Please log in</html>`, fault.Transient, gateway.ErrNotDocument, "", "", api},
		{"empty", 200, ``, fault.Transient, gateway.ErrNotDocument, "", "", api},
		{"unexpected success", 203, `{` + valid, fault.Refused, gateway.ErrUnexpected, "", "", api},
		{"401", 401, ``, fault.Refused, gateway.ErrNewTokenRefused, "", "", api},
		{"401 that echoes the token", 401, `Authorization: Bearer ` + token, fault.Refused, gateway.ErrNewTokenRefused, "", "", api},
		{"403", 403, `{"message":"no module"}`, fault.Refused, gateway.ErrNotAllowed, "no module", "", []string{"API access"}},
		{"403 with a colon and parentheses", 403, `{"message":"use of this module is not licensed): grant (it: now"}`, fault.Refused, gateway.ErrNotAllowed, "use of this module is not licensed): grant (it: now", "", []string{"API access"}},
		{"500", 500, `{"error":"down"}`, fault.Transient, gateway.ErrGatewayFailed, "down", "", platform},
		{"500 that echoes the token", 500, `Authorization: Bearer ` + token, fault.Transient, gateway.ErrGatewayFailed, "Authorization: Bearer [redacted]", "", platform},
		{"too long and unprintable", 502, "\x1b[31m\n\n" + strings.Repeat("bad gateway ", 1000), fault.Transient, gateway.ErrGatewayFailed, ("[31m " + strings.Repeat("bad gateway ", 1000))[:300] + "…", "", platform},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := serve(t, afterLogin(t, respondWith(test.status, test.body)))
			c, err := gateway.New(options(t, server.URL)).Connection(t.Context())
			if test.class != "" {
				checkError(t, err, connectionError(test.class), test.cause, test.names...)
				if test.status != 200 {
					checkResponseError(t, err, test.status, test.message)
				}
				if field, ok := errors.AsType[*gateway.FieldError](err); ok != (test.field != "") || ok && field.Field != test.field {
					t.Errorf("field %+v, want %q", field, test.field)
				}
				if c != (gateway.Connection{}) {
					t.Errorf("error with connection %+v", c)
				}
			} else if err != nil || c.Authentication.Password.Reveal() != bindPassword {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{`13389`: 13389, `"13389"`: 13389, `" 636 "`: 636, `0`: 0, `""`: 0, `null`: 0, `65535`: 65535} {
		server := serve(t, afterLogin(t, respondWith(200, `{"authentication":{"host":"dc","port":`+text+`,"password":"x"}}`)))
		c, err := gateway.New(options(t, server.URL)).Connection(t.Context())
		if a := c.Authentication; err != nil || a.Port != want || a.Host != "dc" || a.Password.Reveal() != "x" {
			t.Errorf("%s: %+v, %v", text, a, err)
		}
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var seen []string
		o := serveInMemory(t, nil, http.StripPrefix("/base", afterLogin(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, r.Method+" "+r.URL.String())
			_, _ = io.WriteString(w, published)
		})))
		o.URL.Path = "/base/"
		o.Paths = gateway.Paths{Connection: "/c/{customerUuid}/{connectionUuid}", Profile: "/p/{profileUuid}/", Assets: "/a", State: "/s/{profileUuid}/{connectionUuid}"}
		client := gateway.New(o)
		_, err1 := client.Connection(t.Context())
		_, err2 := client.Profile(t.Context())
		_, err3 := send(t.Context(), client)
		err4 := client.SetState(t.Context(), gateway.ConnectorState{State: "REGISTERED"})
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint([]string{
			"GET /c/" + customer + "/" + connection + "?customerUuid=" + customer, "GET /p/" + profile + "/?customerUuid=" + customer,
			"POST /a", "PUT /s/" + profile + "/" + connection,
		})
		if got := fmt.Sprint(seen); got != want {
			t.Errorf("requests %s, want %s", got, want)
		}
	})
}

// The response to a batch in flight counts if it arrives within the grace period.
func TestGrace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const grace = 5 * time.Second
		so := sandboxOptions()
		so.Intercept = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.URL.Path == assetsPath {
				time.Sleep(grace) // in synctest's fake time
			}
			return false
		}
		g := newSandbox(t, so)
		o := serveInMemory(t, nil, g)
		o.Grace = grace
		client := gateway.New(o)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Nanosecond, cancel)
		batch, err := send(ctx, client)
		if err != nil || batch.Outcome != gateway.Accepted {
			t.Errorf("%+v, %v", batch, err)
		}
		_, err = send(ctx, client)
		checkError(t, err, sendError(o, fault.Canceled), context.Canceled)
		checkError(t, gateway.New(o).Login(ctx), loginError("http://gateway.test", "/auth", fault.Canceled), context.Canceled)
		if n := len(g.Requests()); n != 2 {
			t.Errorf("%d requests, want a login and a batch", n)
		}
	})
}

// neverRespond returns a handler that responds only to logins.
func neverRespond(t testing.TB) http.Handler {
	return afterLogin(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
}

// Only batches get the grace period. Other requests are canceled at once.
func TestGraceEnds(t *testing.T) {
	t.Parallel()
	const grace = 5 * time.Second
	for _, test := range []struct {
		name string
		call func(context.Context, *gateway.Client) error
		err  fault.Error
		want time.Duration
	}{
		{"batch", func(ctx context.Context, c *gateway.Client) error { _, err := send(ctx, c); return err }, fault.Error{Class: fault.Canceled, Op: "send assets to", Object: "gateway.test"}, grace},
		{"connection", func(ctx context.Context, c *gateway.Client) error { _, err := c.Connection(ctx); return err }, connectionError(fault.Canceled), 0},
		{"profile", func(ctx context.Context, c *gateway.Client) error { _, err := c.Profile(ctx); return err }, profileError(fault.Canceled), 0},
		{"state", func(ctx context.Context, c *gateway.Client) error {
			return c.SetState(ctx, gateway.ConnectorState{State: "PROCESSING"})
		}, stateError("PROCESSING", fault.Canceled), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := serveInMemory(t, nil, neverRespond(t))
				o.Grace = grace
				client := gateway.New(o)
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					synctest.Wait() // until the request is in flight
					cancel()
				}()
				start := time.Now()
				checkError(t, test.call(ctx, client), test.err, context.Canceled)
				if elapsed := time.Since(start); elapsed != test.want {
					t.Errorf("took %s, want %s", elapsed, test.want)
				}
				if n := client.Counts().Requests; n != 2 {
					t.Errorf("%d requests, want the login and one more", n)
				}
			})
		})
	}
}

// A canceled context ends the wait before a retry, whatever its cause.
func TestStopDuringRetryDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := serveInMemory(t, nil, afterLogin(t, respondWith(http.StatusServiceUnavailable, "")))
		o.RetryEvery(time.Hour)
		client := gateway.New(o)
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			synctest.Wait() // until the client waits for the retry
			cancel(fault.Operation{Op: "work"}.Failed(fault.Refused, errors.New("another worker's error"), "none"))
		}()
		start := time.Now()
		_, err := send(ctx, client)
		checkError(t, err, sendError(o, fault.Canceled), context.Canceled)
		if elapsed := time.Since(start); elapsed != 0 || client.Counts().Requests != 2 {
			t.Errorf("%d requests in %s, want a login and a batch", client.Counts().Requests, elapsed)
		}
	})
}

func TestState(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newSandbox(t, sandboxOptions())
		client := gateway.New(serveInMemory(t, nil, g))
		at := time.Date(2026, 11, 22, 11, 0, 0, 123_999_999, time.FixedZone("", 3600))
		next := gateway.Timestamp(at.Add(time.Hour))
		failure := "gateway error (503)"
		for _, state := range []gateway.ConnectorState{
			{State: "REGISTERED", At: gateway.Timestamp(at)},
			{State: "SCHEDULED", At: gateway.Timestamp(at), NextRunAt: &next, Error: &failure, RunID: connection, Summary: &gateway.Summary{Mode: "full", Users: 3}},
		} {
			if err := client.SetState(t.Context(), state); err != nil {
				t.Fatal(err)
			}
		}
		encoded, err := json.Marshal(g.States())
		if err != nil {
			t.Fatal(err)
		}
		const ids = `"customerUuid":"` + customer + `","profileUuid":"` + profile + `",`
		want := `[{` + ids + `"state":"REGISTERED","runId":"","at":"2026-11-22T10:00:00.123Z","nextRunAt":null,"error":null,"summary":null},` +
			`{` + ids + `"state":"SCHEDULED","runId":"` + connection + `","at":"2026-11-22T10:00:00.123Z","nextRunAt":"2026-11-22T11:00:00.123Z","error":"gateway error (503)","summary":{"mode":"full","users":3,"groups":0,"uploaded":0,"deleted":0,"rejected":0}}]`
		if string(encoded) != want {
			t.Errorf("got  %s\nwant %s", encoded, want)
		}
	})
}

func TestStateResponses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		status   int
		class    fault.Class // "": accepted
		cause    error
		names    []string // in the remedy
		requests int
	}{
		{204, "", nil, nil, 1},
		{404, fault.Refused, gateway.ErrStatesUnsupported, []string{"qualys.connectionUuid"}, 1},
		{405, fault.Refused, gateway.ErrStatesUnsupported, nil, 1},
		{501, fault.Refused, gateway.ErrStatesUnsupported, nil, 1},
		{400, fault.Refused, gateway.ErrUnexpected, []string{"connector.api.url"}, 1},
		{403, fault.Refused, gateway.ErrNotAllowed, []string{"API access"}, 1},
		{302, fault.Refused, gateway.ErrRedirected, []string{"connector.api.url"}, 1},
		{500, fault.Transient, gateway.ErrGatewayFailed, []string{"platform"}, 2},
		{503, fault.Transient, gateway.ErrGatewayFailed, []string{"platform"}, 2},
	} {
		t.Run(fmt.Sprint(test.status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				o := serveInMemory(t, nil, afterLogin(t, func(w http.ResponseWriter, _ *http.Request) {
					requests++
					w.WriteHeader(test.status)
				}))
				err := gateway.New(o).SetState(t.Context(), gateway.ConnectorState{State: "PROCESSED"})
				if test.class == "" && err != nil {
					t.Error(err)
				} else if test.class != "" {
					checkError(t, err, stateError("PROCESSED", test.class), test.cause, test.names...)
					checkResponseError(t, err, test.status, "")
				}
				if requests != test.requests {
					t.Errorf("%v after %d requests", err, requests)
				}
			})
		})
	}
}
