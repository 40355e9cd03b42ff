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

// TestPoison has the gateway refuse whole batches for objects that it does not take:
// 1, 10 and 100 among 10,000, in one batch and spread, with 400 and with 422. It
// passes when exactly those are rejected and all others are delivered, in no more
// calls than 2·k·log2(batch) above those of a clean run; and when the next full pass
// without poison delivers them too.
func TestPoison(t *testing.T) {
	t.Parallel()
	batch, logBatch := scaled(128, 512), scaled(7, 9)
	s := newEnvironment(t, plan{users: scaled(400, 10_000), groups: 20})
	s.settings = s.settings.With(testenv.Settings{"upload.batch-size": strconv.Itoa(batch)})
	run(t, s.settings, "sync").MustExit(t, 0)
	clean := s.Gateway.Arrived(testenv.AssetsPath)
	want := len(wanted(s.Directory.Server, time.Now()))
	for _, c := range scaled([]poison{{k: 1}, {k: 10, spread: true}}, []poison{
		{k: 1}, {k: 10}, {k: 100}, {k: 1, spread: true}, {k: 10, spread: true}, {k: 100, spread: true}}) {
		t.Run(c.String(), func(t *testing.T) {
			began := time.Now()
			s.reinstall()
			bad := map[string]bool{}
			s.poison(bad, c)
			o := run(t, s.settings, "sync")
			o.MustExit(t, 6)
			calls := s.Gateway.Arrived(testenv.AssetsPath)
			held := 0
			for _, identity := range append(s.Gateway.Users(), s.Gateway.Groups()...) {
				held++
				if bad[identity.VendorAssetID] {
					t.Errorf("%s was delivered", identity.VendorAssetID)
				}
			}
			if held != want-c.k || o.Summary().Number("rejected") != c.k {
				t.Errorf("%d delivered and %v rejected of %d with %d bad ones", held, o.Summary()["rejected"], want, c.k)
			}
			if most := clean + 2*c.k*logBatch; calls > most {
				t.Errorf("%d calls, at most %d", calls, most)
			}
			s.Gateway.SetFront(nil)
			run(t, s.settings, "sync", "--full").MustExit(t, 0)
			s.mustBeEqual(t, "without poison")
			figures(t, "%s of %d: %d calls, %d for a clean run, at most %d; exactly those rejected; %s",
				c, want, calls, clean, clean+2*c.k*logBatch, time.Since(began).Round(time.Millisecond))
		})
	}
}

type poison struct {
	k      int
	spread bool
}

func (c poison) String() string {
	return fmt.Sprintf("%d bad, %s", c.k, map[bool]string{false: "in one batch", true: "spread"}[c.spread])
}

// poison makes objects bad: the first ones of the first batch, or any.
func (s *environment) poison(bad map[string]bool, c poison) {
	if c.spread {
		var all []string
		for guid := range wanted(s.Directory.Server, time.Now()) {
			all = append(all, guid)
		}
		for _, n := range s.random.Perm(len(all))[:c.k] {
			bad[all[n]] = true
		}
	}
	var mu sync.Mutex
	s.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if !x.HasAssets() {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		items := itemsOf(x.Body)
		if len(bad) == 0 {
			for _, i := range items[:c.k] {
				bad[i.guid()] = true
			}
		}
		for _, i := range items {
			if bad[i.guid()] {
				return x.Status([]int{http.StatusBadRequest, http.StatusUnprocessableEntity}[x.Number%2], `{"message":"an asset is invalid"}`)
			}
		}
		return false
	})
}
