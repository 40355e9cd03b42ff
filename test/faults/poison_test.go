package faults

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"adconnector/test/testenv"
)

// TestPoison makes the gateway reject every batch that contains a poison object, with 400
// and 422: 1, 10 and 100 objects of 10,000, in one batch and spread. It passes if exactly
// these are rejected and all others are delivered, with at most 2·n·log2(batch size) calls
// more than a clean run. The next full sync without rejections must deliver them, too.
func TestPoison(t *testing.T) {
	t.Parallel()
	batchSize, log2BatchSize := scaled(128, 512), scaled(7, 9)
	e := newEnvironment(t, environmentOptions{users: scaled(400, 10_000), groups: 20})
	e.settings = e.settings.With(testenv.Settings{"upload.batch-size": strconv.Itoa(batchSize)})
	run(t, e.settings, "sync").MustExit(t, 0)
	cleanCalls := e.Gateway.Arrived(testenv.AssetsPath)
	want := len(expectedAssets(e.Directory.Server, time.Now()))
	for _, p := range scaled([]poison{{count: 1}, {count: 10, spread: true}}, []poison{
		{count: 1}, {count: 10}, {count: 100}, {count: 1, spread: true}, {count: 10, spread: true}, {count: 100, spread: true}}) {
		t.Run(p.String(), func(t *testing.T) {
			began := time.Now()
			e.reinstall()
			poisoned := e.poison(p)
			o := run(t, e.settings, "sync")
			o.MustExit(t, 6)
			calls := e.Gateway.Arrived(testenv.AssetsPath)
			delivered := 0
			for _, identity := range append(e.Gateway.Users(), e.Gateway.Groups()...) {
				delivered++
				if poisoned[identity.VendorAssetID] {
					t.Errorf("poison object %s was delivered", identity.VendorAssetID)
				}
			}
			if rejected := o.Summary().Number("rejected"); delivered != want-p.count || rejected != p.count {
				t.Errorf("%d delivered and %d rejected, want %d and %d", delivered, rejected, want-p.count, p.count)
			}
			limit := cleanCalls + 2*p.count*log2BatchSize
			if calls > limit {
				t.Errorf("%d calls, want at most %d", calls, limit)
			}
			e.Gateway.SetFront(nil)
			run(t, e.settings, "sync", "--full").MustExit(t, 0)
			e.mustMatchDirectory(t, "without rejections")
			logResult(t, "%s of %d: %d calls, %d in a clean run, limit %d; exactly these rejected; %s",
				p, want, calls, cleanCalls, limit, time.Since(began).Round(time.Millisecond))
		})
	}
}

// poison describes the objects for which the gateway rejects a batch.
type poison struct {
	count  int
	spread bool // over all batches; false: the first objects of the first batch
}

func (p poison) String() string {
	return fmt.Sprintf("%d poison objects %s", p.count, map[bool]string{false: "in one batch", true: "spread"}[p.spread])
}

// poison makes the gateway reject batches with poison objects. It returns their GUIDs, which
// are known after the first batch when they are not spread.
func (e *environment) poison(p poison) map[string]bool {
	poisoned := map[string]bool{}
	if p.spread {
		var guids []string
		for guid := range expectedAssets(e.Directory.Server, time.Now()) {
			guids = append(guids, guid)
		}
		for _, n := range e.random.Perm(len(guids))[:p.count] {
			poisoned[guids[n]] = true
		}
	}
	var mu sync.Mutex
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if !x.HasAssets() {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		items := parseItems(x.Body)
		if len(poisoned) == 0 {
			for _, i := range items[:p.count] {
				poisoned[i.guid()] = true
			}
		}
		for _, i := range items {
			if poisoned[i.guid()] {
				return x.Status([]int{http.StatusBadRequest, http.StatusUnprocessableEntity}[x.Number%2], `{"message":"an asset is invalid"}`)
			}
		}
		return false
	})
	return poisoned
}
