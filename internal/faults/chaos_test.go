package faults

import (
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
)

// chaos is a gateway of which each answer may be a fault, 5 % for each kind.
type chaos struct {
	site  *site
	stall time.Duration

	mu      sync.Mutex
	random  *rand.Rand
	tokens  map[string]bool // with which a call was answered, and whether they have died
	calls   int
	injured map[string]int // how often each fault happened
}

const faultPercent = 5

// answer is the front of a gateway in chaos. Its faults concern batches and all
// other calls alike, where they make sense.
func (c *chaos) answer(x *exchange) bool {
	kinds := []string{"500", "503", "reset before", "reset after", "truncated", "207", "401", "stall"}
	c.mu.Lock()
	c.calls++
	token := x.r.Header.Get("Authorization")
	died, answered := c.tokens[token]
	if died {
		c.mu.Unlock()
		return x.status(http.StatusUnauthorized, `{"message":"expired"}`)
	}
	kind := ""
	if dice := c.random.IntN(100) / faultPercent; dice < len(kinds) {
		kind = kinds[dice]
	}
	if kind == "207" && (!x.isBatch() || len(x.assets()) < 2 || c.site.witness.knows(x.r)) || kind == "401" && !answered {
		kind = ""
	}
	// A cut call is no use of a token: net/http sends one with an Idempotency-Key
	// again by itself, and to refuse that one is to refuse the token altogether.
	if token != "" && kind != "reset before" && kind != "reset after" {
		c.tokens[token] = kind == "401"
	}
	if kind != "" {
		c.injured[kind]++
	}
	c.mu.Unlock()
	switch kind {
	case "500":
		return x.status(http.StatusInternalServerError, `{"message":"chaos"}`)
	case "503":
		return x.status(http.StatusServiceUnavailable, "<html>chaos</html>")
	case "reset before":
		return x.reset()
	case "reset after":
		x.deliver()
		return x.reset()
	case "truncated":
		answer := x.deliver()
		x.w.Header().Set("Content-Length", fmt.Sprint(answer.Body.Len()))
		x.w.WriteHeader(answer.Code)
		_, _ = x.w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
		_ = http.NewResponseController(x.w).Flush()
		panic(http.ErrAbortHandler)
	case "207":
		return c.partly(x)
	case "401":
		return x.status(http.StatusUnauthorized, `{"message":"expired"}`)
	case "stall":
		select {
		case <-time.After(c.stall):
		case <-x.r.Context().Done():
		}
	}
	return false
}

// partly rejects the first asset and takes the others. The sandbox, which takes a
// request whole or not at all, gets one without it.
func (c *chaos) partly(x *exchange) bool {
	var request struct {
		MetaData  map[string]any    `json:"connectorMetaData"`
		AssetData []json.RawMessage `json:"assetData"`
	}
	must(c.site.t, json.Unmarshal(x.body, &request))
	rejected := x.assets()[0]
	request.AssetData = request.AssetData[1:]
	request.MetaData["assetCount"] = len(request.AssetData)
	body, err := json.Marshal(request)
	must(c.site.t, err)
	x.body = body
	if answer := x.deliver(); answer.Code != http.StatusAccepted { // its token has died
		x.answer(answer)
		return true
	}
	return x.status(http.StatusMultiStatus, fmt.Sprintf(
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
	s := newSite(t, plan{users: scaled(300, 10_000), groups: scaled(20, 500)})
	s.settings = s.settings.with(settings{"upload.batch-size": scaled("30", "100"), "ldap.page-size": "500",
		"sync.max-deletes-percent": "100"}) // many go, and nobody is there to release them
	c := &chaos{site: s, stall: scaled(time.Second, 30*time.Second), injured: map[string]int{}, tokens: map[string]bool{}, random: rand.New(rand.NewPCG(*seedFlag, 2))}
	s.facing(c.answer)
	changing := make(chan struct{})
	p := start(t, command{settings: s.settings, args: []string{"sync"}})
	go func() {
		defer close(changing)
		for {
			select {
			case <-p.finished:
				return
			case <-time.After(20 * time.Millisecond):
				s.mutate(5)
			}
		}
	}()
	o := p.wait(t, 8*time.Minute)
	<-changing
	o.mustExit(t, 0, 1, 6)
	end := o.summary()
	s.facing(nil)
	after := 1
	if end.text("result") == "failed" {
		after = 2
	}
	for range after {
		run(t, s.settings, "sync", "--full").mustExit(t, 0)
	}
	s.mustBeEqual(t, "after chaos")
	taken, deletions := s.witness.counts()
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(c.injured)) {
		kinds = append(kinds, fmt.Sprint(kind, " ", c.injured[kind]))
	}
	figures(t, "%d calls in chaos (%s): %s with %d retries; equal after %d more; %d objects taken, %d deletions; %s",
		c.calls, strings.Join(kinds, ", "), end.text("result"), end.number("retries"), after, taken, deletions, time.Since(began).Round(time.Millisecond))
}

// TestStatesUnheard has the gateway refuse every report of the connector's state while
// a run goes on and after it. It passes when the run is none the worse for it, and
// when the gateway hears of the latest state within 40 seconds of being able to.
func TestStatesUnheard(t *testing.T) {
	if !long {
		t.Skip("the short form is with the runs: the gateway is told every 30 s here")
	}
	t.Parallel()
	s := newSite(t, plan{users: 50, groups: 5})
	s.facing(func(x *exchange) bool {
		return x.r.URL.Path == statePath && x.status(http.StatusInternalServerError, "")
	})
	p := start(t, command{settings: s.settings})
	p.waitFor(t, 0, time.Minute, func(l line) bool { return l.text("message") == "run finished" && l.text("result") == "processed" })
	_, n := p.waitFor(t, 0, time.Minute, func(l line) bool { return l.text("from") == "PROCESSED" && l.text("to") == "SCHEDULED" })
	p.waitFor(t, n, time.Minute, saying(syncrun.MsgStateNotSent))
	s.facing(nil)
	began := time.Now()
	p.waitFor(t, 0, 40*time.Second, saying(syncrun.MsgStateSentLate))
	late := time.Since(began)
	p.signal(syscall.SIGTERM)
	p.wait(t, 10*time.Second).mustExit(t, 0)
	s.mustBeEqual(t, "unheard")
	if states := s.gateway.States(); len(states) != 1 || states[0].State != "SCHEDULED" {
		t.Errorf("%+v", states)
	}
	figures(t, "refused every report through a run: processed all the same, and the gateway knew %s after it could", late.Round(time.Second))
}
