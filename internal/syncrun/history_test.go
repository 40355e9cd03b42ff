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
	"adconnector/internal/fault"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// TestCampaignHistories plays random histories of changes, failures and runs. After each
// history, one run without a failure must deliver the value of every object, and two full
// syncs all deletions. To repeat one: -run 'TestCampaignHistories/posture/seed=47$'.
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
					playHistory(t, seed, c.posture)
				})
			}
		})
	}
}

// history is an environment with a random sequence of events.
type history struct {
	*env
	random       *rand.Rand
	controllers  []*testenv.Directory
	current      int                       // index of the controller in use
	objects      []domaincontroller.Object // of that controller; nil: not listed since the last change
	activity     bool                      // some changes did not increase a USN
	rolledBack   [2]bool                   // since the last run; a second rollback would exceed the overlap
	readsDeleted bool                      // the account can read tombstones
	withPosture  bool                      // posture is switched on and off, and memberships change
	hidden       bool                      // the account may not read some objects completely
	wasHidden    bool                      // it could not, at some time
	lastName     int
	events       []string
	copies       [][]byte        // of the state file
	forgotten    map[string]bool // vendorAssetIds at the gateway that no state file contains any more

	changeMu sync.Mutex // serializes changes, which also happen during runs
}

// playHistory plays the history of a seed and checks its end.
func playHistory(t *testing.T, seed uint64, posture bool) {
	random := rand.New(rand.NewPCG(seed, 1))
	readsDeleted := random.IntN(2) == 0
	options := domaincontroller.Options{ReadsDeleted: readsDeleted, Seed: seed}
	h := &history{env: newDomainEnv(t, options, 0), random: random, readsDeleted: readsDeleted}
	h.controllers = []*testenv.Directory{h.Directory}
	if random.IntN(3) == 0 {
		h.controllers = append(h.controllers, h.newReplica(options))
	}
	h.options.FullInterval = 20 * 24 * time.Hour
	h.options.Upload.BatchSize = 1 + random.IntN(8)
	h.options.Upload.Workers = 1 + random.IntN(4)
	if random.IntN(3) == 0 {
		h.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 30}
	}
	h.start()
	if h.withPosture = posture; posture {
		h.preparePosture()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%d controllers, deleted objects readable: %t\n%s", len(h.controllers), readsDeleted, strings.Join(h.events, "\n"))
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
			h.switchController()
		case n == 11 || n == 13:
			h.restartWithCopies()
		case n == 14:
			h.changeRights()
		case n == 12 && h.withPosture && h.random.IntN(3) == 0:
			h.switchPosture(!h.posture)
		default:
			h.runWithFailure()
		}
	}
	h.expectEnd()
}

func (h *history) logEvent(format string, args ...any) {
	h.events = append(h.events, fmt.Sprintf(format, args...))
}

// switchController switches to the other controller, or restores the current one.
func (h *history) switchController() {
	h.objects = nil
	switch n := h.random.IntN(3); {
	case n == 0 && len(h.controllers) > 1:
		h.current = 1 - h.current
		h.logEvent("failover to controller %d", h.current)
		h.Directory = h.controllers[h.current]
		h.connectTo(h.Port)
	case n == 1 && !h.rolledBack[h.current]:
		h.rolledBack[h.current] = true
		back := ad.USN(h.random.IntN(100))
		h.logEvent("controller %d rolled back by %d", h.current, back)
		h.Restore(domaincontroller.Restoration{USNRollback: back, SameInvocation: true})
	case n == 2 && len(h.controllers) == 1: // two controllers must keep the same identifiers
		h.logEvent("controller restored")
		h.Restore(domaincontroller.Restoration{USNRollback: ad.USN(h.random.IntN(1000))})
	}
}

// changeRights takes from the account the right to read attributes that every object has, of the
// objects of one unit, or gives it back.
func (h *history) changeRights() {
	attributes := [][]string{nil, {"userAccountControl", "groupType"}, {"whenCreated"}, {"name"}}[h.random.IntN(4)]
	h.logEvent("hidden in OU=Inner: %v", attributes)
	h.hide(attributes...)
}

func (h *history) hide(attributes ...string) {
	h.hidden = len(attributes) > 0
	h.wasHidden = true
	h.activity = true // no delta sync finds what can be read again
	for _, controller := range h.controllers {
		h.must(controller.Hide("OU=Inner,"+h.base, attributes...))
	}
}

// expectKept expects that a run has not changed the assets of objects that the account may not read
// completely.
func (h *history) expectKept(before map[string]string) {
	after := h.gateway.Held()
	for _, o := range h.Objects("objectGUID") {
		guid := ad.GUID([]byte(o.First("objectGUID"))).String()
		if strings.HasSuffix(o.DN, ",OU=Inner,"+h.base) && after[guid] != before[guid] {
			h.t.Errorf("unreadable %s: gateway %s, before %s", o.DN, after[guid], before[guid])
		}
	}
}

// restartWithCopies restarts. It may also copy the state file, or put a copy back.
func (h *history) restartWithCopies() {
	switch n := h.random.IntN(4); {
	case n == 0:
		h.logEvent("restart")
		h.restart()
	case n == 1 || len(h.copies) == 0:
		h.logEvent("copy %d of the state file", len(h.copies))
		h.copies = append(h.copies, h.copyState())
	default:
		n := h.random.IntN(len(h.copies))
		if h.random.IntN(2) == 0 {
			h.deliverTemporaryChange()
		}
		h.logEvent("copy %d put back", n)
		h.putBack(h.copies[n])
		h.forgetAtGateway()
	}
}

// deliverTemporaryChange changes an object, performs a run, and changes the object back. Only
// the gateway then has another value than before.
func (h *history) deliverTemporaryChange() {
	for _, o := range h.Objects("objectClass", "title") {
		if !strings.HasSuffix(o.DN, ","+h.base) || !slices.Contains(o.Attributes["objectClass"], "user") {
			continue
		}
		h.logEvent("temporary title of %s", o.DN)
		h.setTitle(o.DN, "temporary")
		_, err := h.runner.Run(h.t.Context(), RunOptions{})
		h.logEvent("  run: error %v", err)
		h.setTitle(o.DN, o.Attributes["title"]...)
		return
	}
}

// setTitle sets the title of an object on each controller.
func (h *history) setTitle(dn string, values ...string) {
	for _, controller := range h.controllers {
		if err := controller.Modify(dn, "title", values...); err != nil {
			h.logEvent("  failed: %v", err)
		}
	}
}

// forgetAtGateway records which objects the gateway has and the state file does not contain.
func (h *history) forgetAtGateway() {
	indexed, err := h.store.Missing(nil)
	h.must(err)
	h.forgotten = map[string]bool{}
	for id := range h.gateway.Held() {
		h.forgotten[id] = true
	}
	for _, o := range indexed {
		delete(h.forgotten, o.GUID.String())
	}
}

// change applies a random change on each controller.
func (h *history) change() {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	description, apply := h.pickChange()
	h.logEvent("%s", description)
	for _, controller := range h.controllers {
		if err := apply(controller); err != nil {
			h.logEvent("  failed: %v", err)
		}
	}
}

// pickChange returns a random change and its description.
func (h *history) pickChange() (description string, apply func(*testenv.Directory) error) {
	if h.objects == nil {
		h.objects = h.Objects("objectClass", "isDeleted", "objectGUID", "objectSid", "userAccountControl", "groupType")
	}
	var live, deleted []domaincontroller.Object
	for _, o := range h.objects {
		switch {
		case !slices.Contains(o.Attributes["objectClass"], "user") && !slices.Contains(o.Attributes["objectClass"], "group"):
		case strings.HasSuffix(o.DN, ",OU=Staff,"+h.Base()) || strings.HasSuffix(o.DN, ",OU=Outside,"+h.Base()):
			live = append(live, o)
		case o.First("isDeleted") == "TRUE":
			deleted = append(deleted, o)
		}
	}
	slices.SortFunc(live, func(a, b domaincontroller.Object) int { return strings.Compare(a.DN, b.DN) })
	if h.withPosture && len(live) > 3 && h.random.IntN(5) < 2 {
		return h.pickPosture(live)
	}
	units := []string{h.base, h.base, "OU=Inner," + h.base, "OU=Outside," + h.Base()}
	unit := units[h.random.IntN(len(units))]
	n := h.random.IntN(24)
	if len(live) < 3 || n < 6 {
		h.lastName++
		h.objects = nil
		o := domaincontroller.Object{DN: fmt.Sprintf("CN=n%d,%s", h.lastName, unit), Attributes: map[string][]string{
			"objectClass": {"user"}, "userAccountControl": {"66048"}, "mail": {fmt.Sprintf("n%d@corp.example.com", h.lastName)},
		}}
		if h.random.IntN(4) == 0 {
			o.Attributes = map[string][]string{"objectClass": {"group"}, "description": {"x"}}
		}
		return "add " + o.DN, func(d *testenv.Directory) error { return d.Add(o) }
	}
	o := live[h.random.IntN(len(live))]
	switch {
	case n < 10:
		attribute := []string{"displayName", "description", "title", "mail", "l", "co"}[h.random.IntN(6)]
		var values []string
		if h.random.IntN(4) > 0 {
			values = []string{fmt.Sprintf("value %d", h.random.IntN(1000))}
		}
		return fmt.Sprintf("set %s of %s to %q", attribute, o.DN, values), func(d *testenv.Directory) error { return d.Modify(o.DN, attribute, values...) }
	case n < 12:
		h.lastName++
		h.objects = nil
		name := fmt.Sprintf("n%d", h.lastName)
		return "rename " + o.DN + " to " + name, func(d *testenv.Directory) error { return d.Rename(o.DN, name) }
	case n < 15:
		h.objects = nil
		return "move " + o.DN + " to " + unit, func(d *testenv.Directory) error { return d.Move(o.DN, unit) }
	case n < 16 && o.First("userAccountControl") != "":
		return "disable " + o.DN, func(d *testenv.Directory) error { return d.Disable(o.DN) }
	case n < 17 && o.First("userAccountControl") != "":
		control, _ := ad.ParseAccountControl([]byte(o.First("userAccountControl")))
		enabled := strconv.Itoa(int(control &^ ad.AccountDisabled))
		return "enable " + o.DN, func(d *testenv.Directory) error { return d.Modify(o.DN, "userAccountControl", enabled) }
	case n < 19 && o.First("userAccountControl") != "":
		value := fileTime(h.clock.Now().Add(time.Duration(h.random.IntN(400)-50) * time.Minute))
		if h.random.IntN(4) == 0 {
			value = never
		}
		return "set expiry of " + o.DN + " to " + value, func(d *testenv.Directory) error { return d.Modify(o.DN, "accountExpires", value) }
	case n < 20 && o.First("userAccountControl") != "":
		h.activity = true
		count := strconv.Itoa(h.random.IntN(9))
		return "set bad password count of " + o.DN, func(d *testenv.Directory) error { return d.Modify(o.DN, "badPwdCount", count) }
	case n < 22:
		h.objects = nil
		return "delete " + o.DN, func(d *testenv.Directory) error { return d.Delete(o.DN) }
	case len(deleted) > 0:
		h.objects = nil
		h.activity = true // a tombstone loses badPwdCount
		o := deleted[h.random.IntN(len(deleted))]
		return "undelete " + o.DN, func(d *testenv.Directory) error { return d.Undelete(ad.GUID([]byte(o.First("objectGUID")))) }
	}
	return "nothing", func(*testenv.Directory) error { return nil }
}

// runWithFailure performs a run with a random failure and concurrent changes.
func (h *history) runWithFailure() {
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	var options RunOptions
	switch h.random.IntN(6) {
	case 0:
		options.Full = true
	case 1:
		options.AllowDeletes = true
	}
	request, failAt := 0, h.random.IntN(4)
	shouldFail := func() bool { // true for one request of the run
		request++
		return request == failAt+1
	}
	var concurrent int
	if h.random.IntN(3) == 0 {
		concurrent = h.random.IntN(3)
	}
	rejectedName := fmt.Sprintf(`"n%d"`, 1+h.random.IntN(h.lastName))
	failure := []string{"none", "none", "canceled", "canceled after a delay", "refused", "connection lost after delivery", "500", "crash", "crash after delivery", "crash after a delay",
		"object rejected by status", "object rejected in a list"}[h.random.IntN(12)]
	var mu sync.Mutex // guards the following variables and request
	crashed := false
	crash := func() {
		crashed = true
		_ = h.store.Close()
	}
	beforeDelivery := func(x *testenv.Exchange) (responded bool) {
		mu.Lock()
		defer mu.Unlock()
		for ; concurrent > 0; concurrent-- {
			h.change()
		}
		switch failure {
		case "canceled":
			if shouldFail() {
				cancel()
			}
		case "refused":
			if request++; request > failAt {
				return x.Status(http.StatusForbidden, "")
			}
		case "500":
			if shouldFail() {
				cancel() // else the client would wait before its retry
				return x.Status(http.StatusInternalServerError, "")
			}
		case "crash":
			if shouldFail() {
				crash()
			}
		case "object rejected by status":
			if strings.Contains(string(x.Body), rejectedName) {
				return x.Status(http.StatusUnprocessableEntity, "")
			}
		case "object rejected in a list":
			if _, after, found := strings.Cut(string(x.Body), `"vendorAssetId":"`); found && shouldFail() {
				// Reject all objects of the request, so that none is delivered.
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
		switch failure {
		case "connection lost after delivery":
			if shouldFail() {
				cancel()
				return true
			}
		case "crash after delivery":
			if shouldFail() {
				crash()
			}
		}
		return false
	}
	h.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		if beforeDelivery(x) {
			return true
		}
		response := x.Deliver()
		if afterDelivery() {
			return x.Reset()
		}
		x.Answer(response)
		return true
	}))
	var delayed sync.WaitGroup
	if strings.HasSuffix(failure, "after a delay") {
		wait := time.Duration(h.random.IntN(25_000)) * time.Microsecond
		delayed.Go(func() {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			if failure == "canceled after a delay" {
				cancel()
				return
			}
			mu.Lock()
			defer mu.Unlock()
			crash()
		})
	}
	h.logEvent("run, full %t, allow deletes %t: failure %s at request %d, %d concurrent changes", options.Full, options.AllowDeletes, failure, failAt, concurrent)
	before, unchanged := h.gateway.Held(), concurrent == 0
	run, err := h.runner.Run(ctx, options)
	cancel()
	delayed.Wait()
	if h.hidden && unchanged {
		h.expectKept(before)
	}
	h.gateway.SetFront(nil)
	h.logEvent("  %s at %s, error %v", brief(run), h.clock.Now().Format(time.DateTime), err)
	if crashed || h.random.IntN(4) == 0 {
		h.restart()
	}
	h.exceedOverlaps()
	if err == nil {
		h.rolledBack[h.current] = false
	}
	refused := h.hidden && fault.ClassOf(err) == fault.Refused // all objects of a kind are in OU=Inner
	if run.Result == Failed && failure == "none" && !refused {
		h.t.Errorf("run failed without an injected failure: %v", err)
	}
}

// expectEnd performs runs without failures and expects the gateway to match the directory.
func (h *history) expectEnd() {
	run := func(options RunOptions) state.Run {
		run, err := h.runner.Run(h.t.Context(), options)
		h.logEvent("final run: %s, error %v", brief(run), err)
		if err != nil || run.Rejected > 0 {
			h.t.Errorf("run %+v, error %v", run, err)
		}
		return run
	}
	compare := func(when string, deletions bool) {
		want := inScope(h.Directory, h.base, h.clock.Now())
		if h.posture {
			want = h.firstSync()
		}
		got := h.gateway.Held()
		maps.DeleteFunc(got, func(id, _ string) bool { return h.forgotten[id] && want[id] == "" })
		for _, diff := range differences(got, want, deletions) {
			h.t.Errorf("after %s: %s", when, diff)
		}
	}
	if h.hidden {
		h.hide()
	}
	h.clock.Advance(25 * time.Hour) // retries of rejected objects are due
	first := run(RunOptions{})
	// Without tombstones, a deleted user stays a group member until the next full sync.
	if notSeen := h.posture && !h.readsDeleted; !h.activity && !notSeen || first.Mode == full {
		compare("one run", false)
	}
	if h.wasHidden { // finds new objects that were unreadable, and sends them in two more full syncs
		run(RunOptions{Full: true})
	}
	run(RunOptions{Full: true, AllowDeletes: true})
	second := run(RunOptions{Full: true, AllowDeletes: true})
	compare("two full syncs", second.Undecided == 0)
	requests := h.assetRequests()
	run(RunOptions{})
	run(RunOptions{Full: true})
	if n := h.assetRequests() - requests; n != 0 {
		h.t.Errorf("%d requests after everything was sent", n)
	}
	// A rejected deletion can become undecided, and is then not sent again.
	if left, _, err := h.store.Rejections(-1); err != nil || len(left) > second.Undecided {
		h.t.Errorf("rejections %v, error %v", left, err)
	}
	for _, controller := range h.controllers { // otherwise the comparison would prove little
		if !h.activity && !maps.Equal(inScope(controller, h.base, h.clock.Now()), inScope(h.Directory, h.base, h.clock.Now())) {
			h.t.Error("the controllers differ")
		}
	}
}

// switchPosture switches security posture on or off.
func (h *history) switchPosture(on bool) {
	h.logEvent("posture: %t", on)
	h.setPosture(on)
}

// preparePosture prepares a history with posture.
func (h *history) preparePosture() {
	h.switchPosture(h.random.IntN(4) > 0)
	if h.random.IntN(3) == 0 {
		h.maxAffected = 3
	}
	h.start()
	for _, controller := range h.controllers {
		addForeign(controller)
	}
}

// exceedOverlaps calls exceedOverlap for each controller in a history with posture. Without
// posture the overlap hides fewer faults.
func (h *history) exceedOverlaps() {
	if !h.withPosture {
		return
	}
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	for _, controller := range h.controllers {
		exceedOverlap(controller)
	}
}

// pickPosture returns a random change that only posture reads, mostly of memberships.
func (h *history) pickPosture(live []domaincontroller.Object) (description string, apply func(*testenv.Directory) error) {
	var groups, users, all []string
	for _, o := range live {
		if all = append(all, o.DN); o.First("groupType") != "" {
			groups = append(groups, o.DN)
		} else {
			users = append(users, o.DN)
		}
	}
	privileged := []string{"CN=Domain Admins,CN=Users,", "CN=Administrators,CN=Builtin,", "CN=DnsAdmins,CN=Users,", "CN=Backup Operators,CN=Builtin,", "CN=Protected Users,CN=Users,"}
	pick := func(list []string) string { return list[h.random.IntN(len(list))] }
	for i := range privileged {
		privileged[i] += h.Base()
	}
	modify := func(dn, attribute string, values ...string) (string, func(*testenv.Directory) error) {
		return fmt.Sprintf("set %s of %s to %q", attribute, dn, values), func(d *testenv.Directory) error { return d.Modify(dn, attribute, values...) }
	}
	switch n := h.random.IntN(20); {
	case n < 11:
		group := pick(privileged)
		if len(groups) > 0 && h.random.IntN(3) > 0 {
			group = pick(groups)
		}
		candidates := slices.Concat(all, privileged, []string{foreignDN(h.Base())})
		var members []string
		for range h.random.IntN(6) {
			if member := pick(candidates); member != group && !slices.Contains(members, member) {
				members = append(members, member)
			}
		}
		return modify(group, "member", members...)
	case n < 13 && len(users) > 0:
		primary := "513"
		if h.random.IntN(2) == 0 {
			dn := pick(slices.Concat(groups, privileged[:1]))
			for _, o := range h.objects {
				if sid := o.First("objectSid"); o.DN == dn && sid != "" {
					primary = fmt.Sprint(binary.LittleEndian.Uint32([]byte(sid[len(sid)-4:])))
				}
			}
		}
		return modify(pick(users), "primaryGroupID", primary)
	case n < 15 && len(groups) > 0:
		return modify(pick(groups), "groupType", []string{"-2147483646", "2"}[h.random.IntN(2)])
	case n < 16:
		h.lastName++
		h.objects = nil
		dn := fmt.Sprintf("CN=n%d,%s", h.lastName, h.base)
		return "add service account " + dn, func(d *testenv.Directory) error {
			return d.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}})
		}
	case n < 17:
		return modify(h.Base(), "lockoutThreshold", fmt.Sprint(h.random.IntN(20)))
	case n < 18:
		return modify(pick(all), "servicePrincipalName", fmt.Sprintf("http/%d", h.random.IntN(9)))
	case n < 19 && len(groups) > 0:
		return modify(pick(groups), "managedBy", pick(all))
	default:
		return modify(pick(all), "adminCount", fmt.Sprint(h.random.IntN(2)))
	}
}
