package syncrun

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox"
	"adconnector/internal/state"
)

// TestHistories plays random histories of a directory, of runs, and of all that
// can go wrong with them. After each, one run that nothing disturbs leaves the
// gateway with the value of every object, and a few more with the deletion of all
// that has gone. ADC_HISTORIES is how many; ADC_SEED plays a single one.
func TestHistories(t *testing.T) {
	number := func(name string, otherwise uint64) uint64 {
		n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
		if err != nil {
			return otherwise
		}
		return n
	}
	for name, posture := range map[string]bool{"identities": false, "posture": true} {
		if seed := number("ADC_SEED", 0); seed > 0 {
			t.Run(name, func(t *testing.T) { play(t, seed, posture) })
			continue
		}
		histories := uint64(60)
		if posture { // each of them compares with a run that begins anew
			histories = 8
		}
		for seed := range number("ADC_HISTORIES", histories) {
			t.Run(fmt.Sprintf("%s/ADC_SEED=%d", name, seed+1), func(t *testing.T) {
				t.Parallel()
				play(t, seed+1, posture)
			})
		}
	}
}

// history is a domain to which things happen.
type history struct {
	*domain
	random      *rand.Rand
	controllers []*sandbox.Directory
	ports       []int
	at          int     // the controller in use
	activity    bool    // some of what has happened raises no sequence number
	rolledBack  [2]bool // at most once between two runs: as far as the overlap reaches
	sees        bool
	both        bool // the option changes, and memberships do
	posture     bool // the option as it is
	names       int
	diary       []string

	changing sync.Mutex // changes happen while a run goes on, too
}

func play(t *testing.T, seed uint64, posture bool) {
	random := rand.New(rand.NewPCG(seed, 1))
	sees := random.IntN(2) == 0
	options := sandbox.DirectoryOptions{ReadsDeleted: sees, Seed: seed}
	h := &history{domain: newDomain(t, options, 0), random: random, sees: sees}
	h.controllers, h.ports = []*sandbox.Directory{h.Directory}, []int{h.auth.Port}
	if random.IntN(3) == 0 {
		other, port := h.twin(t, options)
		h.controllers, h.ports = append(h.controllers, other), append(h.ports, port)
	}
	h.options.FullInterval = 20 * 24 * time.Hour
	h.options.Upload.BatchSize = 1 + random.IntN(8)
	h.options.Upload.Workers = 1 + random.IntN(4)
	if random.IntN(3) == 0 {
		h.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 30}
	}
	h.start()
	if h.both = posture; posture {
		h.prepare()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("ADC_SEED=%d, %d controllers, deletions seen: %t\n%s", seed, len(h.controllers), sees, strings.Join(h.diary, "\n"))
		}
	})
	for range 15 + random.IntN(20) {
		h.change()
	}
	for range 6 + random.IntN(12) {
		switch n := random.IntN(20); {
		case n < 9:
			for range 1 + random.IntN(6) {
				h.change()
			}
		case n == 9:
			h.clock.advance(time.Duration(random.IntN(300)) * time.Minute)
		case n == 10:
			h.fail()
		case n == 11:
			h.note("restart")
			h.restart()
		case n == 12 && h.both && h.random.IntN(3) == 0:
			h.want(!h.posture)
		default:
			h.disturbed()
		}
	}
	h.end()
}

func (h *history) note(format string, args ...any) {
	h.diary = append(h.diary, fmt.Sprintf(format, args...))
}

// fail makes the controller another one.
func (h *history) fail() {
	switch n := h.random.IntN(3); {
	case n == 0 && len(h.controllers) > 1:
		h.at = 1 - h.at
		h.note("failover to controller %d", h.at)
		h.Directory, h.auth.Port = h.controllers[h.at], h.ports[h.at]
		h.gateway.SetConnection(h.connection(nil))
	case n == 1 && !h.rolledBack[h.at]:
		h.rolledBack[h.at] = true
		back := ad.USN(h.random.IntN(100))
		h.note("controller %d goes back by %d", h.at, back)
		h.Restore(sandbox.Restoration{Back: back, SameInvocation: true})
	case n == 2 && len(h.controllers) == 1: // two of them draw the same identifiers
		h.note("restored")
		h.Restore(sandbox.Restoration{Back: ad.USN(h.random.IntN(1000))})
	}
}

// change changes something, at every controller.
func (h *history) change() {
	h.changing.Lock()
	defer h.changing.Unlock()
	what, apply := h.pick()
	h.note("%s", what)
	for _, controller := range h.controllers {
		if err := apply(controller); err != nil {
			h.note("  but %v", err)
		}
	}
}

func (h *history) pick() (what string, apply func(*sandbox.Directory) error) {
	var living, gone []sandbox.Object
	for _, o := range h.Objects() {
		switch {
		case !slices.Contains(o.Attributes["objectClass"], "user") && !slices.Contains(o.Attributes["objectClass"], "group"):
		case strings.HasSuffix(o.DN, ",OU=Staff,"+h.Base()) || strings.HasSuffix(o.DN, ",OU=Outside,"+h.Base()):
			living = append(living, o)
		case o.First("isDeleted") == "TRUE":
			gone = append(gone, o)
		}
	}
	slices.SortFunc(living, func(a, b sandbox.Object) int { return strings.Compare(a.DN, b.DN) })
	if h.both && len(living) > 3 && h.random.IntN(5) < 2 {
		return h.pickPosture(living)
	}
	units := []string{h.base, h.base, "OU=Inner," + h.base, "OU=Outside," + h.Base()}
	unit := units[h.random.IntN(len(units))]
	n := h.random.IntN(24)
	if len(living) < 3 || n < 6 {
		h.names++
		o := userNamed(fmt.Sprintf("CN=n%d,%s", h.names, unit), fmt.Sprintf("n%d", h.names))
		if h.random.IntN(4) == 0 {
			o.Attributes = map[string][]string{"objectClass": {"group"}, "description": {"x"}}
		}
		return "add " + o.DN, func(d *sandbox.Directory) error { return d.Add(o) }
	}
	o := living[h.random.IntN(len(living))]
	switch {
	case n < 10:
		attribute := []string{"displayName", "description", "title", "mail", "l", "co"}[h.random.IntN(6)]
		var values []string
		if h.random.IntN(4) > 0 {
			values = []string{fmt.Sprintf("value %d", h.random.IntN(1000))}
		}
		return fmt.Sprintf("set %s of %s to %q", attribute, o.DN, values), func(d *sandbox.Directory) error { return d.Modify(o.DN, attribute, values...) }
	case n < 12:
		h.names++
		name := fmt.Sprintf("n%d", h.names)
		return "rename " + o.DN + " to " + name, func(d *sandbox.Directory) error { return d.Rename(o.DN, name) }
	case n < 15:
		return "move " + o.DN + " to " + unit, func(d *sandbox.Directory) error { return d.Move(o.DN, unit) }
	case n < 16 && o.First("userAccountControl") != "":
		return "disable " + o.DN, func(d *sandbox.Directory) error { return d.Disable(o.DN) }
	case n < 17 && o.First("userAccountControl") != "":
		return "enable " + o.DN, func(d *sandbox.Directory) error { return d.Enable(o.DN) }
	case n < 19 && o.First("userAccountControl") != "":
		value := fileTimeOf(h.clock.now().Add(time.Duration(h.random.IntN(400)-50) * time.Minute))
		if h.random.IntN(4) == 0 {
			value = never
		}
		return "let " + o.DN + " expire at " + value, func(d *sandbox.Directory) error { return d.Modify(o.DN, "accountExpires", value) }
	case n < 20 && o.First("userAccountControl") != "":
		h.activity = true
		count := strconv.Itoa(h.random.IntN(9))
		return "wrong passwords for " + o.DN, func(d *sandbox.Directory) error { return d.Touch(o.DN, "badPwdCount", count) }
	case n < 22:
		return "delete " + o.DN, func(d *sandbox.Directory) error { return d.Delete(o.DN) }
	case len(gone) > 0:
		o := gone[h.random.IntN(len(gone))]
		return "undelete " + o.DN, func(d *sandbox.Directory) error { return d.Undelete(ad.GUID([]byte(o.First("objectGUID")))) }
	}
	return "nothing", func(*sandbox.Directory) error { return nil }
}

// disturbed does a run to which something may happen.
func (h *history) disturbed() {
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	var mode Mode
	switch h.random.IntN(6) {
	case 0:
		mode.Full = true
	case 1:
		mode.AllowDeletes = true
	}
	call, at := 0, h.random.IntN(4)
	now := func() bool { // once a run, at that call
		call++
		return call == at+1
	}
	var concurrent int
	if h.random.IntN(3) == 0 {
		concurrent = h.random.IntN(3)
	}
	victim := fmt.Sprintf(`"n%d"`, 1+h.random.IntN(h.names))
	kind := []string{"nothing", "nothing", "canceled", "canceled some time", "refused", "cut after taking", "500", "crash", "crash after taking", "crash some time",
		"an object rejected", "an object rejected in a list"}[h.random.IntN(12)]
	crashed := false
	var crashing sync.WaitGroup
	crash := func() {
		crashed = true
		_ = h.store.Close()
	}
	var mu sync.Mutex
	h.intercepting(func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if r.URL.Path != assetsPath {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		for ; concurrent > 0; concurrent-- {
			h.change()
		}
		switch kind {
		case "canceled":
			if now() {
				cancel()
			}
		case "refused":
			if call++; call > at {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
		case "500":
			if now() {
				cancel() // there would be a second's wait before it is tried again
				w.WriteHeader(http.StatusInternalServerError)
				return true
			}
		case "crash":
			if now() {
				crash()
			}
		case "an object rejected":
			if strings.Contains(string(body), victim) {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return true
			}
		case "an object rejected in a list":
			if _, after, found := strings.Cut(string(body), `"vendorAssetId":"`); found && now() {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusMultiStatus) // and nothing else of it, since nothing is taken
				var list []string
				for ; found; _, after, found = strings.Cut(after, `"vendorAssetId":"`) {
					guid, _, _ := strings.Cut(after, `"`)
					list = append(list, fmt.Sprintf(`%q:"no"`, guid))
				}
				fmt.Fprintf(w, `{"responseCode":"PARTIAL","assetsError":{%s}}`, strings.Join(list, ","))
				return true
			}
		}
		return false
	})
	h.taking(func() bool {
		mu.Lock()
		defer mu.Unlock()
		switch kind {
		case "cut after taking":
			if now() {
				cancel()
				return true
			}
		case "crash after taking":
			if now() {
				crash()
			}
		}
		return false
	})
	if strings.HasSuffix(kind, "some time") {
		wait := time.Duration(h.random.IntN(25_000)) * time.Microsecond
		crashing.Go(func() {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			if kind == "canceled some time" {
				cancel()
				return
			}
			mu.Lock()
			defer mu.Unlock()
			crash()
		})
	}
	h.note("run, full %t, allow deletes %t: %s at %d, %d changes meanwhile", mode.Full, mode.AllowDeletes, kind, at, concurrent)
	run, err := h.runner.Run(ctx, mode)
	cancel()
	crashing.Wait()
	h.intercepting(nil)
	h.taking(nil)
	h.note("  %s %s at %s: %d uploaded, %d deleted, %d held, %d rejected, %v", run.Mode, run.Result, h.clock.now().Format(time.DateTime),
		run.Uploaded, run.Deleted, run.Held, run.Rejected, err)
	if crashed || h.random.IntN(4) == 0 {
		h.restart()
	}
	h.passBy()
	if err == nil {
		h.rolledBack[h.at] = false
	}
	if run.Result == Failed && kind == "nothing" {
		h.t.Errorf("failed without a reason: %v", err)
	}
}

func (h *history) taking(f func() bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taken = f
}

// end lets the history come to its end, and wants the gateway to be where the
// directory is.
func (h *history) end() {
	run := func(mode Mode) state.Run {
		run, err := h.runner.Run(h.t.Context(), mode)
		h.note("last runs: %s %s: %d uploaded, %d deleted, %d held, %v", run.Mode, run.Result, run.Uploaded, run.Deleted, run.Held, err)
		if err != nil || run.Rejected > 0 {
			h.t.Errorf("run %+v, error %v", run, err)
		}
		return run
	}
	compare := func(when string, settled bool) {
		want := inScope(h.Directory, h.base, h.clock.now())
		if h.posture {
			want = h.anew()
		}
		for _, difference := range differences(held(h.gateway), want, settled) {
			h.t.Errorf("after %s: %s", when, difference)
		}
	}
	h.clock.advance(25 * time.Hour) // so that rejected objects are due
	first := run(Mode{})
	// Who was deleted unseen is in his groups until the next full pass.
	if unseen := h.posture && !h.sees; !h.activity && !unseen || first.Mode == full {
		compare("one run", false)
	}
	run(Mode{Full: true, AllowDeletes: true})
	run(Mode{Full: true, AllowDeletes: true})
	compare("two full runs", true)
	calls := h.calls("POST", assetsPath)
	run(Mode{})
	run(Mode{Full: true})
	if n := h.calls("POST", assetsPath); n != calls {
		h.t.Errorf("%d calls after everything was said", n-calls)
	}
	for _, violation := range h.gateway.Violations() {
		h.t.Errorf("contract: %s", violation)
	}
	if left, err := h.store.Rejections(); err != nil || len(left) > 0 {
		h.t.Errorf("rejections %v, error %v", left, err)
	}
	for _, controller := range h.controllers { // which are equal, or this proves little
		if !h.activity && !maps.Equal(inScope(controller, h.base, h.clock.now()), inScope(h.Directory, h.base, h.clock.now())) {
			h.t.Error("the controllers differ")
		}
	}
}
