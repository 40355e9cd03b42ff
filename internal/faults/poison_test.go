package faults

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestPoison has the gateway refuse whole batches for objects that it does not take:
// 1, 10 and 100 among 10,000, in one batch and spread, with 400 and with 422. It
// passes when exactly those are rejected and all others are delivered, in no more
// calls than 2·k·log2(batch) above those of a clean run; and when the next full pass
// without poison delivers them too.
func TestPoison(t *testing.T) {
	t.Parallel()
	const batch, logBatch = 512, 9
	for _, c := range scaled([]poison{{k: 1}, {k: 10, spread: true}}, []poison{
		{k: 1}, {k: 10}, {k: 100}, {k: 1, spread: true}, {k: 10, spread: true}, {k: 100, spread: true}}) {
		t.Run(c.String(), func(t *testing.T) {
			began := time.Now()
			s := newSite(t, plan{users: scaled(1000, 10_000), groups: 20})
			s.settings = s.settings.with(settings{"upload.batch-size": strconv.Itoa(batch)})
			run(t, s.settings, "sync").mustExit(t, 0)
			clean := s.batches()
			s.reinstall()

			bad := map[string]bool{}
			s.poison(bad, c)
			o := run(t, s.settings, "sync")
			o.mustExit(t, 6)
			calls := s.batches()
			held := 0
			for _, identity := range append(s.gateway.Users(), s.gateway.Groups()...) {
				held++
				if bad[identity.VendorAssetID] {
					t.Errorf("%s was delivered", identity.VendorAssetID)
				}
			}
			want := len(wanted(s.directory, time.Now()))
			if held != want-c.k || o.summary().number("rejected") != c.k {
				t.Errorf("%d delivered and %v rejected of %d with %d bad ones", held, o.summary()["rejected"], want, c.k)
			}
			if most := clean + 2*c.k*logBatch; calls > most {
				t.Errorf("%d calls, at most %d", calls, most)
			}
			s.facing(nil)
			run(t, s.settings, "sync", "--full").mustExit(t, 0)
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
func (s *site) poison(bad map[string]bool, c poison) {
	if c.spread {
		var all []string
		for guid := range wanted(s.directory, time.Now()) {
			all = append(all, guid)
		}
		for _, n := range s.random.Perm(len(all))[:c.k] {
			bad[all[n]] = true
		}
	}
	var mu sync.Mutex
	s.facing(func(x *exchange) bool {
		if !x.isBatch() {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		items := x.assets()
		if len(bad) == 0 {
			for _, i := range items[:c.k] {
				bad[i.guid()] = true
			}
		}
		for _, i := range items {
			if bad[i.guid()] {
				return x.status([]int{http.StatusBadRequest, http.StatusUnprocessableEntity}[x.number%2], `{"message":"an asset is invalid"}`)
			}
		}
		return false
	})
}
