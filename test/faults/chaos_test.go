package faults

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// chaos is a gateway of which each answer may be a fault, 5 % for each kind.
type chaos struct {
	environment *environment
	stall       time.Duration

	mu      sync.Mutex
	random  *rand.Rand
	tokens  map[string]bool // with which a call was answered, and whether they have died
	calls   int
	failed  map[string]int // faults of one request, by its Idempotency-Key or path
	injured map[string]int // how often each fault happened
}

const faultPercent = 5

// mostFaults bounds the faults of one request, whose repeats wait longer and longer: 12 s
// before the fourth try, 34 s before the fifth.
func mostFaults() int { return scaled(2, 4) }

// answer is the front of a gateway in chaos. Its faults concern batches and all
// other calls alike, where they make sense.
func (c *chaos) answer(x *testenv.Exchange) bool {
	kinds := []string{"500", "503", "reset before", "reset after", "truncated", "207", "401", "stall"}
	c.mu.Lock()
	c.calls++
	token := x.R.Header.Get("Authorization")
	died, answered := c.tokens[token]
	if died {
		c.mu.Unlock()
		return x.Status(http.StatusUnauthorized, `{"message":"expired"}`)
	}
	kind := ""
	if dice := c.random.IntN(100) / faultPercent; dice < len(kinds) {
		kind = kinds[dice]
	}
	request := cmp.Or(x.R.Header.Get("Idempotency-Key"), x.R.URL.Path)
	if c.failed[request] >= mostFaults() {
		kind = ""
	}
	if kind == "207" && (!x.HasAssets() || len(itemsOf(x.Body)) < 2 || c.environment.witness.knows(x.R)) || kind == "401" && !answered {
		kind = ""
	}
	// A cut call is no use of a token: net/http sends one with an Idempotency-Key
	// again by itself, and to refuse that one is to refuse the token altogether.
	if token != "" && kind != "reset before" && kind != "reset after" {
		c.tokens[token] = kind == "401"
	}
	if kind != "" {
		c.injured[kind]++
		c.failed[request]++
	}
	c.mu.Unlock()
	switch kind {
	case "500":
		return x.Status(http.StatusInternalServerError, `{"message":"chaos"}`)
	case "503":
		return x.Status(http.StatusServiceUnavailable, "<html>chaos</html>")
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
		return c.partly(x)
	case "401":
		return x.Status(http.StatusUnauthorized, `{"message":"expired"}`)
	case "stall":
		select {
		case <-time.After(c.stall):
		case <-x.R.Context().Done():
		}
	}
	return false
}

// partly rejects the first asset and takes the others. The sandbox, which takes a
// request whole or not at all, gets one without it.
func (c *chaos) partly(x *testenv.Exchange) bool {
	var request struct {
		MetaData  map[string]any    `json:"connectorMetaData"`
		AssetData []json.RawMessage `json:"assetData"`
	}
	must(c.environment.t, json.Unmarshal(x.Body, &request))
	rejected := itemsOf(x.Body)[0]
	request.AssetData = request.AssetData[1:]
	request.MetaData["assetCount"] = len(request.AssetData)
	body, err := json.Marshal(request)
	must(c.environment.t, err)
	x.Body = body
	if answer := x.Deliver(); answer.Code != http.StatusAccepted { // its token has died
		x.Answer(answer)
		return true
	}
	return x.Status(http.StatusMultiStatus, fmt.Sprintf(
		`{"message":"one is bad","responseCode":"PARTLY_PUBLISHED","assetsError":{"failed":[{"vendorAssetId":%q,"message":"chaos"}]}}`, rejected.guid()))
}

// TestChaos lets the gateway answer each call with one of eight faults, 5 % for each
// kind, while the directory changes. It passes when the run ends by itself, when the
// gateway holds what the directory does after the next run under which nothing fails,
// when no older value was taken after a newer one, and when memory and time stay
// bounded. That run repeats what chaos rejected, and so is a full one. Where chaos has
// ended the run before a first full pass was complete, what has gone meanwhile is
// proven by the one after it.
func TestChaos(t *testing.T) {
	t.Parallel()
	began := time.Now()
	s := newEnvironment(t, plan{users: scaled(300, 10_000), groups: scaled(20, 500)})
	s.settings = s.settings.With(testenv.Settings{"upload.batch-size": scaled("30", "100"), "ldap.page-size": "500",
		"sync.max-deletes": "100000", "sync.max-deletes-percent": "100"}) // a slow machine has many, and nobody releases them
	c := &chaos{environment: s, stall: scaled(200*time.Millisecond, 20*time.Second), injured: map[string]int{}, failed: map[string]int{}, tokens: map[string]bool{}, random: rand.New(rand.NewPCG(*seedFlag, 2))}
	s.Gateway.SetFront(c.answer)
	changing := make(chan struct{})
	p := start(t, command{settings: s.settings, args: []string{"sync"}})
	go func() {
		defer close(changing)
		for {
			select {
			case <-p.Ended:
				return
			case <-time.After(20 * time.Millisecond):
				s.mutate(5)
			}
		}
	}()
	o := p.Wait(t)
	<-changing
	o.MustExit(t, 0, 1, 6)
	end := o.Summary()
	s.Gateway.SetFront(nil)
	after := 1
	if end.Text("result") == "failed" {
		after = 2
	}
	for range after {
		run(t, s.settings, "sync", "--full").MustExit(t, 0)
	}
	s.mustBeEqual(t, "after chaos")
	taken, deletions := s.witness.counts()
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(c.injured)) {
		kinds = append(kinds, fmt.Sprint(kind, " ", c.injured[kind]))
	}
	figures(t, "%d calls in chaos (%s): %s with %d retries; equal after %d more; %d objects taken, %d deletions; %s",
		c.calls, strings.Join(kinds, ", "), end.Text("result"), end.Number("retries"), after, taken, deletions, time.Since(began).Round(time.Millisecond))
}

// TestStatesUnheard has the gateway refuse every report of the connector's state while
// a run goes on and after it. It passes when the run is none the worse for it, and
// when the gateway gets the latest state once it accepts reports again.
func TestStatesUnheard(t *testing.T) {
	if testing.Short() {
		t.Skip("syncrun tests the short form: here the states are sent every 30 s")
	}
	t.Parallel()
	s := newEnvironment(t, plan{users: 50, groups: 5})
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		return x.R.URL.Path == testenv.StatePath && x.Status(http.StatusInternalServerError, "")
	})
	p := start(t, command{settings: s.settings})
	p.Await(t, 0, finished("processed"))
	_, n := p.Await(t, 0, func(l testlog.Line) bool { return l.Text("from") == "PROCESSED" && l.Text("to") == "SCHEDULED" })
	p.Await(t, n, testlog.Message(syncrun.MsgStateNotSent))
	s.Gateway.SetFront(nil)
	began := time.Now()
	p.AwaitMessage(t, syncrun.MsgStateSentLate)
	late := time.Since(began)
	p.Signal(t, syscall.SIGTERM)
	p.MustExit(t, 0)
	s.mustBeEqual(t, "unheard")
	if states := s.Gateway.States(); len(states) != 1 || states[0].State != "SCHEDULED" {
		t.Errorf("%+v", states)
	}
	figures(t, "refused every report through a run: processed all the same, and the gateway knew %s after it could", late.Round(time.Second))
}
