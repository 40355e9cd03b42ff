package syncrun

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// Random histories of changes, failures and runs. After each one, a run without a failure
// leaves the gateway with the value of every object, and two full syncs with all deletions.
// The name of a subtest repeats its history: -run 'TestCampaignHistories/posture/seed=47$'.
func TestCampaignHistories(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		posture     bool
		short, long uint64
	}{
		{"identities", false, 20, 2000},
		{"posture", true, 5, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			histories := c.long
			if testing.Short() {
				histories = c.short
			}
			for seed := uint64(1); seed <= histories; seed++ {
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
					t.Parallel()
					play(t, seed, c.posture)
				})
			}
		})
	}
}

// history is an environment to which random things happen.
type history struct {
	*env
	random      *rand.Rand
	controllers []*testenv.Directory
	at          int                       // the controller in use
	objects     []domaincontroller.Object // of that controller; nil: to be listed again
	activity    bool                      // some changes raised no USN
	rolledBack  [2]bool                   // once between two runs at most: the overlap covers no more
	sees        bool                      // the account can read tombstones
	both        bool                      // posture is turned on and off, and memberships change
	names       int
	diary       []string

	changing sync.Mutex // changes happen during runs, too
}

func play(t *testing.T, seed uint64, posture bool) {
	random := rand.New(rand.NewPCG(seed, 1))
	sees := random.IntN(2) == 0
	options := domaincontroller.Options{ReadsDeleted: sees, Seed: seed}
	h := &history{env: newDomain(t, options, 0), random: random, sees: sees}
	h.controllers = []*testenv.Directory{h.Directory}
	if random.IntN(3) == 0 {
		h.controllers = append(h.controllers, h.newTwin(options))
	}
	h.options.FullInterval = 20 * 24 * time.Hour
	h.options.Upload.BatchSize = 1 + random.IntN(8)
	h.options.Upload.Workers = 1 + random.IntN(4)
	if random.IntN(3) == 0 {
		h.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 30}
	}
	h.start()
	if h.both = posture; posture {
		h.preparePosture()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%d controllers, deletions seen: %t\n%s", len(h.controllers), sees, strings.Join(h.diary, "\n"))
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
			h.clock.Advance(time.Duration(random.IntN(300)) * time.Minute)
		case n == 10:
			h.changeController()
		case n == 11:
			h.note("restart")
			h.restart()
		case n == 12 && h.both && h.random.IntN(3) == 0:
			h.turnPosture(!h.posture)
		default:
			h.disturbedRun()
		}
	}
	h.end()
}

func (h *history) note(format string, args ...any) {
	h.diary = append(h.diary, fmt.Sprintf(format, args...))
}

// changeController switches to the other controller, or restores the one in use.
func (h *history) changeController() {
	h.objects = nil
	switch n := h.random.IntN(3); {
	case n == 0 && len(h.controllers) > 1:
		h.at = 1 - h.at
		h.note("failover to controller %d", h.at)
		h.Directory = h.controllers[h.at]
		h.connectTo(h.Port)
	case n == 1 && !h.rolledBack[h.at]:
		h.rolledBack[h.at] = true
		back := ad.USN(h.random.IntN(100))
		h.note("controller %d goes back by %d", h.at, back)
		h.Restore(domaincontroller.Restoration{Back: back, SameInvocation: true})
	case n == 2 && len(h.controllers) == 1: // two of them must have the same identifiers
		h.note("restored")
		h.Restore(domaincontroller.Restoration{Back: ad.USN(h.random.IntN(1000))})
	}
}

// change changes something on each controller.
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

func (h *history) pick() (what string, apply func(*testenv.Directory) error) {
	if h.objects == nil {
		h.objects = h.Objects("objectClass", "isDeleted", "objectGUID", "objectSid", "userAccountControl", "groupType")
	}
	var living, gone []domaincontroller.Object
	for _, o := range h.objects {
		switch {
		case !slices.Contains(o.Attributes["objectClass"], "user") && !slices.Contains(o.Attributes["objectClass"], "group"):
		case strings.HasSuffix(o.DN, ",OU=Staff,"+h.Base()) || strings.HasSuffix(o.DN, ",OU=Outside,"+h.Base()):
			living = append(living, o)
		case o.First("isDeleted") == "TRUE":
			gone = append(gone, o)
		}
	}
	slices.SortFunc(living, func(a, b domaincontroller.Object) int { return strings.Compare(a.DN, b.DN) })
	if h.both && len(living) > 3 && h.random.IntN(5) < 2 {
		return h.pickPosture(living)
	}
	units := []string{h.base, h.base, "OU=Inner," + h.base, "OU=Outside," + h.Base()}
	unit := units[h.random.IntN(len(units))]
	n := h.random.IntN(24)
	if len(living) < 3 || n < 6 {
		h.names++
		h.objects = nil
		o := domaincontroller.Object{DN: fmt.Sprintf("CN=n%d,%s", h.names, unit), Attributes: map[string][]string{
			"objectClass": {"user"}, "userAccountControl": {"66048"}, "mail": {fmt.Sprintf("n%d@corp.example.com", h.names)},
		}}
		if h.random.IntN(4) == 0 {
			o.Attributes = map[string][]string{"objectClass": {"group"}, "description": {"x"}}
		}
		return "add " + o.DN, func(d *testenv.Directory) error { return d.Add(o) }
	}
	o := living[h.random.IntN(len(living))]
	switch {
	case n < 10:
		attribute := []string{"displayName", "description", "title", "mail", "l", "co"}[h.random.IntN(6)]
		var values []string
		if h.random.IntN(4) > 0 {
			values = []string{fmt.Sprintf("value %d", h.random.IntN(1000))}
		}
		return fmt.Sprintf("set %s of %s to %q", attribute, o.DN, values), func(d *testenv.Directory) error { return d.Modify(o.DN, attribute, values...) }
	case n < 12:
		h.names++
		h.objects = nil
		name := fmt.Sprintf("n%d", h.names)
		return "rename " + o.DN + " to " + name, func(d *testenv.Directory) error { return d.Rename(o.DN, name) }
	case n < 15:
		h.objects = nil
		return "move " + o.DN + " to " + unit, func(d *testenv.Directory) error { return d.Move(o.DN, unit) }
	case n < 16 && o.First("userAccountControl") != "":
		return "disable " + o.DN, func(d *testenv.Directory) error { return d.Disable(o.DN) }
	case n < 17 && o.First("userAccountControl") != "":
		return "enable " + o.DN, func(d *testenv.Directory) error { return d.Enable(o.DN) }
	case n < 19 && o.First("userAccountControl") != "":
		value := fileTime(h.clock.Now().Add(time.Duration(h.random.IntN(400)-50) * time.Minute))
		if h.random.IntN(4) == 0 {
			value = never
		}
		return "let " + o.DN + " expire at " + value, func(d *testenv.Directory) error { return d.Modify(o.DN, "accountExpires", value) }
	case n < 20 && o.First("userAccountControl") != "":
		h.activity = true
		count := strconv.Itoa(h.random.IntN(9))
		return "wrong passwords for " + o.DN, func(d *testenv.Directory) error { return d.Touch(o.DN, "badPwdCount", count) }
	case n < 22:
		h.objects = nil
		return "delete " + o.DN, func(d *testenv.Directory) error { return d.Delete(o.DN) }
	case len(gone) > 0:
		h.objects = nil
		h.activity = true // a tombstone has lost badPwdCount
		o := gone[h.random.IntN(len(gone))]
		return "undelete " + o.DN, func(d *testenv.Directory) error { return d.Undelete(ad.GUID([]byte(o.First("objectGUID")))) }
	}
	return "nothing", func(*testenv.Directory) error { return nil }
}

// disturbedRun does a run during which something happens.
func (h *history) disturbedRun() {
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
	kind := []string{"nothing", "nothing", "canceled", "canceled some time", "refused", "cut after delivery", "500", "crash", "crash after delivery", "crash some time",
		"an object rejected", "an object rejected in a list"}[h.random.IntN(12)]
	var mu sync.Mutex // guards what follows, and call
	crashed := false
	crash := func() {
		crashed = true
		_ = h.store.Close()
	}
	before := func(x *testenv.Exchange) (answered bool) {
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
				return x.Status(http.StatusForbidden, "")
			}
		case "500":
			if now() {
				cancel() // the client would wait before it repeats the call
				return x.Status(http.StatusInternalServerError, "")
			}
		case "crash":
			if now() {
				crash()
			}
		case "an object rejected":
			if strings.Contains(string(x.Body), victim) {
				return x.Status(http.StatusUnprocessableEntity, "")
			}
		case "an object rejected in a list":
			if _, after, found := strings.Cut(string(x.Body), `"vendorAssetId":"`); found && now() {
				// All objects of the call: none of them is delivered.
				var list []string
				for ; found; _, after, found = strings.Cut(after, `"vendorAssetId":"`) {
					guid, _, _ := strings.Cut(after, `"`)
					list = append(list, fmt.Sprintf(`%q:"no"`, guid))
				}
				return x.Status(http.StatusMultiStatus, fmt.Sprintf(`{"responseCode":"PARTIAL","assetsError":{%s}}`, strings.Join(list, ",")))
			}
		}
		return false
	}
	afterDelivery := func() (lost bool) {
		mu.Lock()
		defer mu.Unlock()
		switch kind {
		case "cut after delivery":
			if now() {
				cancel()
				return true
			}
		case "crash after delivery":
			if now() {
				crash()
			}
		}
		return false
	}
	h.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		if before(x) {
			return true
		}
		answer := x.Deliver()
		if afterDelivery() {
			return x.Reset()
		}
		x.Answer(answer)
		return true
	}))
	var crashing sync.WaitGroup
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
	h.gateway.SetFront(nil)
	h.note("  %s at %s, error %v", brief(run), h.clock.Now().Format(time.DateTime), err)
	if crashed || h.random.IntN(4) == 0 {
		h.restart()
	}
	h.outgrowOverlapOfAll()
	if err == nil {
		h.rolledBack[h.at] = false
	}
	if run.Result == Failed && kind == "nothing" {
		h.t.Errorf("failed without a reason: %v", err)
	}
}

// end ends the failures, and expects the gateway to hold what the directory has.
func (h *history) end() {
	run := func(mode Mode) state.Run {
		run, err := h.runner.Run(h.t.Context(), mode)
		h.note("last runs: %s, error %v", brief(run), err)
		if err != nil || run.Rejected > 0 {
			h.t.Errorf("run %+v, error %v", run, err)
		}
		return run
	}
	compare := func(when string, settled bool) {
		want := inScope(h.Directory, h.base, h.clock.Now())
		if h.posture {
			want = h.firstSync()
		}
		for _, difference := range differences(h.gateway.Held(), want, settled) {
			h.t.Errorf("after %s: %s", when, difference)
		}
	}
	h.clock.Advance(25 * time.Hour) // rejected objects are due
	first := run(Mode{})
	// A deleted user who is not seen as deleted stays in groups until the next full sync.
	if unseen := h.posture && !h.sees; !h.activity && !unseen || first.Mode == full {
		compare("one run", false)
	}
	run(Mode{Full: true, AllowDeletes: true})
	run(Mode{Full: true, AllowDeletes: true})
	compare("two full syncs", true)
	calls := h.assetCalls()
	run(Mode{})
	run(Mode{Full: true})
	if n := h.assetCalls() - calls; n != 0 {
		h.t.Errorf("%d calls after everything was sent", n)
	}
	if left, err := h.store.Rejections(); err != nil || len(left) > 0 {
		h.t.Errorf("rejections %v, error %v", left, err)
	}
	for _, controller := range h.controllers { // or the comparison proves little
		if !h.activity && !maps.Equal(inScope(controller, h.base, h.clock.Now()), inScope(h.Directory, h.base, h.clock.Now())) {
			h.t.Error("the controllers differ")
		}
	}
}

// turnPosture turns security posture on or off.
func (h *history) turnPosture(on bool) {
	h.note("posture: %t", on)
	h.setPosture(on)
}

// preparePosture adds what memberships need besides users and groups.
func (h *history) preparePosture() {
	h.turnPosture(h.random.IntN(4) > 0)
	if h.random.IntN(3) == 0 {
		h.affectedAtMost = 3
	}
	h.start()
	for _, controller := range h.controllers {
		addStranger(controller)
	}
}

// outgrowOverlapOfAll is outgrowOverlap for each controller. Histories without posture keep
// the overlap, which hides less there.
func (h *history) outgrowOverlapOfAll() {
	if !h.both {
		return
	}
	h.changing.Lock()
	defer h.changing.Unlock()
	for _, controller := range h.controllers {
		outgrowOverlap(controller)
	}
}

// pickPosture picks a change of memberships, or of what else only posture has.
func (h *history) pickPosture(living []domaincontroller.Object) (what string, apply func(*testenv.Directory) error) {
	var groups, users, all []string
	for _, o := range living {
		if all = append(all, o.DN); o.First("groupType") != "" {
			groups = append(groups, o.DN)
		} else {
			users = append(users, o.DN)
		}
	}
	known := []string{"CN=Domain Admins,CN=Users,", "CN=Administrators,CN=Builtin,", "CN=DnsAdmins,CN=Users,", "CN=Backup Operators,CN=Builtin,", "CN=Protected Users,CN=Users,"}
	any := func(list []string) string { return list[h.random.IntN(len(list))] }
	for i := range known {
		known[i] += h.Base()
	}
	modify := func(dn, attribute string, values ...string) (string, func(*testenv.Directory) error) {
		return fmt.Sprintf("set %s of %s to %q", attribute, dn, values), func(d *testenv.Directory) error { return d.Modify(dn, attribute, values...) }
	}
	switch n := h.random.IntN(20); {
	case n < 11:
		group := any(known)
		if len(groups) > 0 && h.random.IntN(3) > 0 {
			group = any(groups)
		}
		from := slices.Concat(all, known, []string{strangerDN(h.Base())})
		var members []string
		for range h.random.IntN(6) {
			if member := any(from); member != group && !slices.Contains(members, member) {
				members = append(members, member)
			}
		}
		return modify(group, "member", members...)
	case n < 13 && len(users) > 0:
		primary := "513"
		if h.random.IntN(2) == 0 {
			of := any(slices.Concat(groups, known[:1]))
			for _, o := range h.objects {
				if sid := o.First("objectSid"); o.DN == of && sid != "" {
					primary = fmt.Sprint(binary.LittleEndian.Uint32([]byte(sid[len(sid)-4:])))
				}
			}
		}
		return modify(any(users), "primaryGroupID", primary)
	case n < 15 && len(groups) > 0:
		return modify(any(groups), "groupType", []string{"-2147483646", "2"}[h.random.IntN(2)])
	case n < 16:
		h.names++
		h.objects = nil
		dn := fmt.Sprintf("CN=n%d,%s", h.names, h.base)
		return "add service account " + dn, func(d *testenv.Directory) error {
			return d.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}})
		}
	case n < 17:
		return modify(h.Base(), "lockoutThreshold", fmt.Sprint(h.random.IntN(20)))
	case n < 18:
		return modify(any(all), "servicePrincipalName", fmt.Sprintf("http/%d", h.random.IntN(9)))
	case n < 19 && len(groups) > 0:
		return modify(any(groups), "managedBy", any(all))
	default:
		return modify(any(all), "adminCount", fmt.Sprint(h.random.IntN(2)))
	}
}
