package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// faultyGateway injects random faults into calls.
type faultyGateway struct {
	environment *environment
	kinds       []string
	percent     int // of the calls, for each kind
	maxFaults   int // for one request. The backoff grows with each try: 12 s before the fourth, 34 s before the fifth
	stall       time.Duration

	mu       sync.Mutex
	random   *rand.Rand
	expired  map[string]bool // by token; a token without an entry was not used yet
	calls    int
	failures map[string]int // faults of one request, by its Idempotency-Key or path
	injected map[string]int // by kind of fault
}

// gatewayFaults are the kinds of faults of a gateway without a rate limit.
var gatewayFaults = []string{"500", "503", "reset before", "reset after", "truncated", "207", "401", "stall"}

func (e *environment) newFaultyGateway(percent int, stall time.Duration, kinds ...string) *faultyGateway {
	return &faultyGateway{
		environment: e, kinds: kinds, percent: percent, maxFaults: scaled(2, 4), stall: stall, random: rand.New(rand.NewPCG(*seedFlag, 2)),
		expired: map[string]bool{}, failures: map[string]int{}, injected: map[string]int{},
	}
}

// forgetFailures makes maxFaults apply to later faults only.
func (g *faultyGateway) forgetFailures() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.failures)
}

// counts returns the number of calls, and the faults as text.
func (g *faultyGateway) counts() (calls int, faults string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.calls, formatCounts(g.injected)
}

// formatCounts returns counts as text, sorted by their keys.
func formatCounts(counts map[string]int) string {
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		words = append(words, fmt.Sprint(kind, " ", counts[kind]))
	}
	return strings.Join(words, ", ")
}

// serve may answer a call with a fault. Faults apply to batches and to all other calls,
// except for those that need assets.
func (g *faultyGateway) serve(x *testenv.Exchange) bool {
	kind, expired := g.draw(x)
	if expired {
		return x.Status(http.StatusUnauthorized, `{"message":"expired"}`)
	}
	switch kind {
	case "500":
		return x.Status(http.StatusInternalServerError, `{"message":"injected"}`)
	case "503":
		return x.Status(http.StatusServiceUnavailable, "<html>injected</html>")
	case "reset before":
		return x.Reset()
	case "reset after":
		x.Deliver()
		return x.Reset()
	case "truncated":
		answer := x.Deliver()
		x.W.Header().Set("Content-Length", fmt.Sprint(answer.Body.Len()))
		x.W.WriteHeader(answer.Code)
		_, _ = x.W.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
		_ = http.NewResponseController(x.W).Flush()
		panic(http.ErrAbortHandler)
	case "207":
		return g.rejectFirst(x)
	case "401":
		return x.Status(http.StatusUnauthorized, `{"message":"expired"}`)
	case "429":
		x.W.Header().Set("Retry-After", "1")
		return x.Status(http.StatusTooManyRequests, `{"message":"limit exceeded"}`)
	case "stall":
		select {
		case <-time.After(g.stall):
		case <-x.R.Context().Done():
		}
	}
	return false
}

// draw returns the kind of fault for a call, "" for none, and whether its token has expired.
func (g *faultyGateway) draw(x *testenv.Exchange) (kind string, expired bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls++
	token := x.R.Header.Get("Authorization")
	expired, used := g.expired[token]
	if expired {
		return "", true
	}
	if n := g.random.IntN(100) / g.percent; n < len(g.kinds) {
		kind = g.kinds[n]
	}
	request := cmp.Or(x.R.Header.Get("Idempotency-Key"), x.R.URL.Path)
	if g.failures[request] >= g.maxFaults {
		kind = ""
	}
	divisible := x.HasAssets() && len(parseItems(x.Body)) >= 2 && !g.environment.monitor.hasAccepted(x.R)
	if kind == "207" && !divisible || kind == "401" && !used {
		kind = ""
	}
	// A reset call does not count as a use of its token. net/http repeats a call with an
	// Idempotency-Key by itself, so a 401 for the repeat would refuse an unused token.
	if token != "" && kind != "reset before" && kind != "reset after" {
		g.expired[token] = kind == "401"
	}
	if kind != "" {
		g.injected[kind]++
		g.failures[request]++
	}
	return kind, false
}

// rejectFirst rejects the first asset of a batch and delivers the others. The sandbox
// accepts or rejects whole batches, so it gets the batch without the first asset.
func (g *faultyGateway) rejectFirst(x *testenv.Exchange) bool {
	var request struct {
		MetaData  map[string]any    `json:"connectorMetaData"`
		AssetData []json.RawMessage `json:"assetData"`
	}
	must(g.environment.t, json.Unmarshal(x.Body, &request))
	rejected := parseItems(x.Body)[0]
	request.AssetData = request.AssetData[1:]
	request.MetaData["assetCount"] = len(request.AssetData)
	body, err := json.Marshal(request)
	must(g.environment.t, err)
	x.Body = body
	if answer := x.Deliver(); answer.Code != http.StatusAccepted { // the token has expired
		x.Answer(answer)
		return true
	}
	return x.Status(http.StatusMultiStatus, fmt.Sprintf(
		`{"message":"one is bad","responseCode":"PARTLY_PUBLISHED","assetsError":{"failed":[{"vendorAssetId":%q,"message":"injected"}]}}`, rejected.guid()))
}

// TestGatewayFaults injects eight kinds of faults into the gateway's calls, 5 % each, while
// the directory changes. It passes if the run ends by itself, no older value is accepted
// after a newer one, and the gateway matches the directory after a next run without faults.
// That run is a full sync, because it repeats what was rejected. If the faults ended the
// first run before its full sync was complete, deletions of that time need a second full
// sync.
func TestGatewayFaults(t *testing.T) {
	t.Parallel()
	began := time.Now()
	e := newEnvironment(t, environmentOptions{users: scaled(300, 10_000), groups: scaled(20, 500)})
	e.settings = e.settings.With(testenv.Settings{"upload.batch-size": scaled("30", "100"), "ldap.page-size": "500",
		"sync.max-deletes": "100000", "sync.max-deletes-percent": "100"}) // held deletions would not be released
	g := e.newFaultyGateway(5, scaled(200*time.Millisecond, 20*time.Second), gatewayFaults...)
	e.Gateway.SetFront(g.serve)
	mutated := make(chan struct{})
	p := start(t, command{settings: e.settings, args: []string{"sync"}})
	go func() {
		defer close(mutated)
		for {
			select {
			case <-p.Ended:
				return
			case <-time.After(20 * time.Millisecond):
				e.mutate(5)
			}
		}
	}()
	o := p.Wait(t)
	<-mutated
	o.MustExit(t, 0, 1, 6)
	summary := o.Summary()
	e.Gateway.SetFront(nil)
	fullSyncs := 1
	if summary.Text("result") == "failed" {
		fullSyncs = 2
	}
	for range fullSyncs {
		run(t, e.settings, "sync", "--full").MustExit(t, 0)
	}
	e.mustMatchDirectory(t, "after the faults")
	accepted, deletions := e.monitor.counts()
	calls, faults := g.counts()
	logResult(t, "%d calls with faults (%s): run %s with %d retries; gateway matches after %d full syncs; %d objects accepted, %d deletions; %s",
		calls, faults, summary.Text("result"), summary.Number("retries"), fullSyncs, accepted, deletions, time.Since(began).Round(time.Millisecond))
}

// TestStateReportsRefused refuses every report of the connector's state, during and after a
// run. It passes if the run is processed, and if the gateway receives the latest state once
// it accepts reports again.
func TestStateReportsRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("needs 30 s between state reports; package syncrun tests the short form")
	}
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 50, groups: 5})
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		return x.R.URL.Path == testenv.StatePath && x.Status(http.StatusInternalServerError, "")
	})
	p := start(t, command{settings: e.settings})
	p.Await(t, 0, finished("processed"))
	_, n := p.Await(t, 0, func(l testlog.Line) bool { return l.Text("from") == "PROCESSED" && l.Text("to") == "SCHEDULED" })
	p.Await(t, n, testlog.Message(syncrun.MsgStateNotSent))
	e.Gateway.SetFront(nil)
	began := time.Now()
	p.AwaitMessage(t, syncrun.MsgStateSentLate)
	delay := time.Since(began)
	p.Signal(t, syscall.SIGTERM)
	p.MustExit(t, 0)
	e.mustMatchDirectory(t, "after refused state reports")
	if states := e.Gateway.States(); len(states) != 1 || states[0].State != "SCHEDULED" {
		t.Errorf("states %+v, want SCHEDULED only", states)
	}
	logResult(t, "state reports refused during a run: run processed, state received %s after the gateway accepted reports", delay.Round(time.Second))
}

// TestGatewayBlackHole drops all bytes between the connector and the gateway, once during a
// run over HTTP/2. It passes if an unanswered ping detects this before the deadline of a
// call does, and if the same run delivers everything over a new connection.
func TestGatewayBlackHole(t *testing.T) {
	if testing.Short() {
		t.Skip("needs 30 s for the ping; package gateway tests the short form")
	}
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 1000, groups: 10, tls: true})
	_, port, err := net.SplitHostPort(e.Gateway.Server.Listener.Addr().String())
	must(t, err)
	relay := newRelay(t, "127.0.0.1:"+port)
	e.settings = e.settings.With(testenv.Settings{"connector.api.url": fmt.Sprintf("https://127.0.0.1:%d", relay.port), "upload.batch-size": "10"})
	var once atomic.Bool
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if x.HasAssets() && x.Number == 20 && once.CompareAndSwap(false, true) {
			relay.blackholeAll()
		}
		return false
	})
	began := time.Now()
	o := run(t, e.settings, "sync")
	took := time.Since(began)
	o.MustExit(t, 0)
	e.mustMatchDirectory(t, "after the black hole")
	for _, l := range o.Log { // net/http reports an unanswered ping with this text only
		if l.Text("message") == gateway.MsgRetrying && !strings.Contains(l.Text("error"), "http2: client connection lost") {
			t.Errorf("call retried for another reason: %v", l)
		}
	}
	logResult(t, "black hole during a run: %d retries, gateway matches after one run of %s", o.Summary().Number("retries"), took.Round(time.Second))
}
