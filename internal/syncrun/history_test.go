package syncrun

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// TestCampaignHistories plays random histories of changes, failures and runs, with one to three
// domain controllers that lag. It checks:
//   - At every delivery: no object is sent as deleted that was neither deleted nor left the
//     scope on any controller. See expectProof.
//   - When everything is replicated: one run with any controller delivers the value of
//     every object, and the deletions that have a tombstone. See expectValues.
//   - At the end: full syncs with each controller deliver all deletions, and decide all.
//
// To repeat one: -run 'TestCampaignHistories/posture/seed=47$'.
func TestCampaignHistories(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		posture, whole bool // whole: the scope is the domain
		short, long    uint64
	}{
		{"identities", false, false, 12, 1000},
		{"posture", true, false, 4, 200},
		{"domain", true, true, 4, 150},
	} {
		t.Run(c.name, func(t *testing.T) {
			histories := c.long
			if testing.Short() {
				histories = c.short
			}
			playHistories(t, histories, c.posture, c.whole)
		})
	}
}

// playHistories plays the histories of the seeds from 1 concurrently. Their tests are not parallel
// in the sense of package testing, which keeps a parallel test with all that its cleanup functions
// refer to until its siblings have ended: a thousand environments.
func playHistories(t *testing.T, histories uint64, posture, whole bool) {
	var seeds atomic.Uint64
	var playing sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		playing.Go(func() {
			for seed := seeds.Add(1); seed <= histories; seed = seeds.Add(1) {
				t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { playHistory(t, seed, posture, whole) })
			}
		})
	}
	playing.Wait()
}

// history is an environment with a random sequence of events.
type history struct {
	*env
	random        *rand.Rand
	origin        *testenv.Directory // where all changes are made; no run reads from it
	controllers   []*controller
	read          *controller // by the last run; nil: none
	current       *controller // of the next run, unless rotating is set
	balancer      int         // port of the load balancer; 0: none
	rotating      bool        // the load balancer forwards each connection to the next controller
	turn          int         // of the load balancer
	scope         scope
	staff         string                    // DN of the unit with the accounts
	top           string                    // the usual base: staff, or that of the domain
	objects       []domaincontroller.Object // at the origin
	readsDeleted  bool                      // the account can read tombstones
	withPosture   bool                      // posture is switched on and off, and memberships change
	lastName      int
	events        []string
	unreadable    bool        // the account may not read the objects in OU=Inner completely
	release       bool        // the run releases deletions
	onRequest     func()      // called after each directory request; nil: no call
	copies        []stateCopy // of the state file
	lastRID       uint32
	changedSIDs   map[string]bool // that accounts have or had whose SID changed
	forgottenKeys map[string]bool // externalAssetIds at the gateway that no state file contains any more
	forgotten     map[string]bool // vendorAssetIds at the gateway that no state file contains any more
	logons        logonHistory
	builtIn       map[string]bool // objects of every domain, which are never deleted

	changeMu sync.Mutex // serializes changes, which also happen during runs, and guards the fields below
	changes  []change
	shown    map[sighting]bool // were in scope
	// changedOutside are objects that changed on a controller that had them never in scope,
	// after another one had.
	changedOutside map[sighting]bool
	left           map[string]bool // were deleted, or left the scope on a controller
	removed        bool            // an invocation ID is no longer in the domain
}

// playHistory plays the history of a seed and checks its end.
func playHistory(t *testing.T, seed uint64, posture, whole bool) {
	h := newHistory(t, seed, posture, whole)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("deleted objects readable: %t\n%s", h.readsDeleted, strings.Join(h.events, "\n"))
		}
	})
	for range 15 + h.random.IntN(20) {
		h.change()
	}
	for range 6 + h.random.IntN(6+6*len(h.controllers)) {
		h.step()
		if t.Failed() {
			return
		}
	}
	h.expectEnd()
}

func newHistory(t *testing.T, seed uint64, posture, whole bool) *history {
	random := rand.New(rand.NewPCG(seed, 1))
	options := domaincontroller.Options{ReadsDeleted: random.IntN(2) == 0, Seed: seed, Host: "127.0.0.1"}
	h := &history{
		env: newDomainEnv(t, options, 0), random: random, readsDeleted: options.ReadsDeleted, withPosture: posture,
		logons: logonHistory{map[string]ad.FileTime{}, map[string]string{}},
		shown:  map[sighting]bool{}, changedOutside: map[sighting]bool{}, left: map[string]bool{}, changedSIDs: map[string]bool{},
	}
	h.staff, h.top = h.base, h.base
	if whole {
		h.top = h.Base()
	}
	h.scope.base = h.base
	h.startControllers(options, []int{1, 2, 2, 3}[random.IntN(4)])
	h.options.FullInterval = []time.Duration{20 * 24 * time.Hour, 20 * 24 * time.Hour, 24 * time.Hour}[random.IntN(3)]
	if random.IntN(2) == 0 {
		h.options.LastLogon = LastLogonAllControllers
	}
	h.options.Upload.BatchSize = 1 + random.IntN(8)
	h.options.Upload.Workers = 1 + random.IntN(4)
	if random.IntN(3) == 0 {
		h.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 30}
	}
	h.options.Search.Observe = func(string, fault.Class, time.Duration) {
		if h.onRequest != nil {
			h.onRequest()
		}
	}
	if posture && random.IntN(3) == 0 {
		h.maxAffected = 3
	}
	h.gateway.SetMiddleware(func(x *testenv.Exchange, deliver func() *httptest.ResponseRecorder) *httptest.ResponseRecorder {
		if x.HasAssets() {
			h.expectProof(x.Body)
			h.expectLogons(x.Body)
		}
		return deliver()
	})
	h.setScope(scope{base: h.top, posture: posture && random.IntN(4) > 0})
	return h
}

// startControllers starts the origin and a number of controllers.
func (h *history) startControllers(o domaincontroller.Options, number int) {
	h.addController("dc1", h.Directory)
	for n := 2; n <= number; n++ {
		o.Name = fmt.Sprintf("dc%d", n)
		o.Now = h.clock.Now
		h.addController(o.Name, h.newPeer(fmt.Sprintf("127.0.0.%d", n), o))
	}
	o.Name, o.Now = "origin", h.clock.Now
	h.origin = testenv.NewDirectory(h.t, o)
	addUnits(h.origin)
	if h.withPosture {
		addForeign(h.origin)
		for _, c := range h.controllers {
			addForeign(c.Directory)
		}
	}
	if number == 1 {
		h.controllers[0].promptness = 100
	} else if h.random.IntN(2) == 0 {
		h.startBalancer()
	}
	h.builtIn = map[string]bool{}
	for _, o := range h.origin.Objects("objectGUID") {
		h.builtIn[guidOf(o)] = true
	}
	h.use(h.controllers[0])
}

// step plays one random event.
func (h *history) step() {
	c := h.controllers[h.random.IntN(len(h.controllers))]
	switch n := h.random.IntN(32); {
	case n < 6:
		for range 1 + h.random.IntN(6) {
			h.change()
		}
	case n == 6:
		h.clock.Advance(time.Duration(h.random.IntN(300)) * time.Minute)
	case n == 7:
		h.clock.Advance(time.Duration(1+h.random.IntN(50)) * time.Hour)
	case n == 8:
		h.restartWithCopies()
	case n == 19 && h.random.IntN(2) == 0:
		h.changeRights()
	case n == 23:
		h.deleteForShort()
		if c != h.current && h.random.IntN(2) == 0 {
			h.useForOneRun(c)
		}
	case n == 9 && h.balancer != 0:
		h.logEvent("connections in turn")
		h.route(h.current, true)
	case n < 13:
		h.replicateSome(c)
	case n < 16:
		h.useSnapshot(c)
	case n == 16 && len(h.controllers) > 1 && h.random.IntN(4) == 0:
		h.demote(c)
	case n == 17 && h.random.IntN(2) == 0:
		h.setScope(h.pickScope())
	case n == 18:
		h.use(c)
		h.expectValuesNow()
	case n < 24 && c != h.current:
		h.useForOneRun(c)
	case n == 24:
		h.scopeForOneRun(h.pickScope())
	default:
		if h.random.IntN(3) == 0 && c != h.current {
			h.use(c)
		}
		h.runWithFailure()
	}
}

// changeRights takes from the account the right to read attributes that every object has, of the
// objects of one unit, or gives it back.
func (h *history) changeRights() {
	h.hide([][]string{nil, {"userAccountControl", "groupType"}, {"whenCreated"}, {"name"}}[h.random.IntN(4)]...)
}

func (h *history) hide(attributes ...string) {
	h.logEvent("unreadable in OU=Inner: %v", attributes)
	h.unreadable = len(attributes) > 0
	for _, c := range h.controllers {
		c.reread = true
		h.must(c.Hide("OU=Inner,"+h.staff, attributes...))
	}
}

// expectKept expects that a run has not changed the assets of objects that the account may not read
// completely.
func (h *history) expectKept(before map[string]string) {
	if h.read == nil {
		return
	}
	after := h.gateway.Held()
	for guid, o := range h.read.objects {
		if !o.deleted && strings.HasSuffix(o.dn, ",OU=Inner,"+h.staff) && after[guid] != before[guid] {
			h.t.Errorf("unreadable %s: gateway %s, before %s", o.dn, after[guid], before[guid])
		}
	}
}

// stateCopy is a copy of the state file.
type stateCopy struct {
	content []byte
	seen    map[*controller]ad.USN // what it contains
}

// restartWithCopies restarts. It may also copy the state file, or put a copy back.
func (h *history) restartWithCopies() {
	switch n := h.random.IntN(4); {
	case n == 0:
		h.logEvent("restart")
		h.restart()
	case n == 1 || len(h.copies) == 0:
		h.logEvent("copy %d of the state file", len(h.copies))
		copied := stateCopy{h.copyState(), map[*controller]ad.USN{}}
		for _, c := range h.controllers {
			copied.seen[c] = c.seenUSN
		}
		h.copies = append(h.copies, copied)
	default:
		n := h.random.IntN(len(h.copies))
		if h.random.IntN(2) == 0 {
			h.deliverTemporaryChange()
		}
		h.logEvent("copy %d put back", n)
		h.putBack(h.copies[n].content)
		h.forgetAtGateway()
		clear(h.logons.delivered) // the copy does not contain what was sent since
		for _, c := range h.controllers {
			c.seenUSN, c.lost = h.copies[n].seen[c], slices.Clone(c.everLost)
			c.rolledBack = c.seenUSN > 0 && c.everRolledBack
		}
	}
}

// deliverTemporaryChange changes an object, performs a run, and changes the object back. Only
// the gateway then has another value than before.
func (h *history) deliverTemporaryChange() {
	live, _ := h.listOrigin()
	for _, o := range live {
		if !strings.HasSuffix(o.DN, ","+h.base) || !slices.Contains(o.Attributes["objectClass"], "user") {
			continue
		}
		h.makeChange(modification(o.DN, "title", "temporary"))
		_, _ = h.run(h.t.Context(), RunOptions{})
		h.makeChange(modification(o.DN, "title", o.Attributes["title"]...))
		return
	}
}

// forgetAtGateway records which objects the gateway has and the state file does not contain.
func (h *history) forgetAtGateway() {
	indexed, err := h.store.Missing(nil)
	h.must(err)
	h.forgotten = map[string]bool{}
	h.forgottenKeys = map[string]bool{}
	for key := range h.gateway.HeldByKey() {
		h.forgottenKeys[key] = true
	}
	for id := range h.gateway.Held() {
		h.forgotten[id] = true
	}
	for _, o := range indexed {
		delete(h.forgotten, o.GUID.String())
		delete(h.forgottenKeys, identity.ExternalID(o.Kind, o.SID))
	}
}

// useForOneRun performs one run with another controller and returns to the current one.
func (h *history) useForOneRun(c *controller) {
	before := h.current
	if h.random.IntN(2) == 0 {
		h.replicateSome(before)
		h.runWithFailure()
	}
	h.use(c)
	if h.random.IntN(3) == 0 {
		h.runWithFailure()
	} else {
		h.runWith([]string{"canceled", "refused", "crash"}[h.random.IntN(3)], 1+h.random.IntN(3))
	}
	h.use(before)
	h.runAfterReturn()
}

// useSnapshot takes a snapshot of a controller, or puts it back.
func (h *history) useSnapshot(c *controller) {
	if c.snapshot == nil || h.random.IntN(3) == 0 {
		h.takeSnapshot(c)
		return
	}
	h.restoreSnapshot(c, h.random.IntN(3) > 0, h.random.IntN(2) == 0)
	if h.random.IntN(2) == 0 {
		h.use(c)
		h.runWithFailure()
	}
}

// scopeForOneRun performs one run with another scope and returns to the current one.
func (h *history) scopeForOneRun(s scope) {
	before := h.scope
	h.setScope(s)
	h.runWithFailure()
	h.setScope(before)
	h.runAfterReturn()
}

// runAfterReturn performs the next run.
func (h *history) runAfterReturn() {
	if h.random.IntN(3) == 0 {
		h.runWithFailure()
	} else {
		h.expectValuesNow()
	}
}

// replicateSome replicates some or all changes to a controller.
func (h *history) replicateSome(c *controller) {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	percent := []int{50, 90, 100}[h.random.IntN(3)]
	h.logEvent("replicate %d %% to %s", percent, c.name)
	h.replicate(c, percent)
}

// pickScope returns the present scope with one option changed.
func (h *history) pickScope() scope {
	s := h.scope
	switch n := h.random.IntN(3); {
	case n == 0 && h.withPosture:
		s.posture = !s.posture
	case n == 1:
		s.untitled = !s.untitled
	case s.base == h.top:
		s.base = "OU=Inner," + h.staff
	default:
		s.base = h.top
	}
	return s
}

// setScope changes the options that the scope depends on.
func (h *history) setScope(s scope) {
	h.logEvent("scope: base %s, users with a title %t, posture %t", s.base, !s.untitled, s.posture)
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	h.scope = s
	for _, c := range h.controllers {
		c.inScope = false
		for guid, o := range c.objects {
			h.observe(c, guid, o)
		}
	}
	h.base, h.options.Search.UserFilter = s.base, ""
	if s.untitled {
		h.options.Search.UserFilter = untitledFilter
	}
	h.setPosture(s.posture)
	h.start()
}

func (h *history) logEvent(format string, args ...any) {
	h.events = append(h.events, fmt.Sprintf(format, args...))
}

// runWithFailure performs a run with a random failure and concurrent changes.
func (h *history) runWithFailure() {
	failure := []string{"none", "none", "canceled", "canceled after a delay", "refused", "connection lost after delivery", "500", "crash", "crash after delivery", "crash after a delay",
		"object rejected by status", "object rejected in a list", "canceled while reading", "crash while reading"}[h.random.IntN(14)]
	h.runWith(failure, h.random.IntN(4))
}

// runWith performs a run with a failure at a request and concurrent changes.
func (h *history) runWith(failure string, failAt int) {
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	var options RunOptions
	switch h.random.IntN(6) {
	case 0:
		options.Full = true
	case 1:
		options.AllowDeletes = true
	}
	request := 0
	shouldFail := func() bool { // true for one request of the run
		request++
		return request == failAt+1
	}
	var concurrent int
	if h.random.IntN(3) == 0 {
		concurrent = h.random.IntN(3)
	}
	readAt := -1 // number of the directory request after which the run is canceled
	rejectedName := fmt.Sprintf(`"n%d"`, 1+h.random.IntN(h.lastName))
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
	if strings.HasSuffix(failure, "while reading") {
		readAt = 4 + h.random.IntN(10)
	}
	h.onRequest = func() {
		mu.Lock()
		defer mu.Unlock()
		if readAt--; readAt == 0 && failure == "canceled while reading" {
			cancel()
		} else if readAt == 0 {
			crash()
		}
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
	run, err := h.run(ctx, options)
	cancel()
	delayed.Wait()
	if h.unreadable && unchanged {
		h.expectKept(before)
	}
	h.gateway.SetFront(nil)
	h.onRequest = nil
	if crashed || h.random.IntN(4) == 0 {
		h.restart()
	}
	refused := h.unreadable && fault.ClassOf(err) == fault.Refused // all objects of a kind are in OU=Inner
	if run.Result == Failed && failure == "none" && !refused {
		h.t.Errorf("run failed without an injected failure: %v", err)
	}
}

// run performs a run, and records which controller it has read.
func (h *history) run(ctx context.Context, options RunOptions) (state.Run, error) {
	h.excuseUndetected()
	planned := len(h.log.With(MsgSyncPlanned))
	h.changeMu.Lock()
	h.release = options.AllowDeletes
	h.changeMu.Unlock()
	run, err := h.runner.Run(ctx, options)
	read, reason := "nothing", ""
	h.read = nil
	if lines := h.log.With(MsgSyncPlanned); len(lines) > planned {
		line := lines[len(lines)-1]
		for _, c := range h.controllers {
			if c.InvocationID().String() == line.Text("invocation_id") {
				h.read, read, reason = c, c.name, line.Text("reason")
				c.seenUSN, c.rolledBack, c.lost = ad.USN(line.Number("usn")), false, nil
				if err == nil && run.Mode == full {
					c.undetected, c.inScope, c.reread = false, true, c.reread && h.unreadable
				}
			}
		}
	}
	h.logEvent("  read %s, %s, %s at %s, error %v", read, brief(run), reason, h.clock.Now().Format(time.DateTime), err)
	h.exceedOverlaps()
	return run, err
}

// exceedOverlaps exceeds the overlap of most controllers, so that it hides fewer faults.
func (h *history) exceedOverlaps() {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	for _, c := range h.controllers {
		if h.random.IntN(4) > 0 {
			exceedOverlap(c.Directory)
		}
	}
}

var assetPattern = regexp.MustCompile(`"vendorAssetId":"([^"]+)".*?"status":"DELETED"`)

// expectProof expects that each object that a request reports as deleted was deleted, or has
// left the scope, on some controller. An object that a controller does not have yet, or has
// lost in a rollback, was not. Five cases are exempt:
//   - an account whose SID changed, which is deleted under the one that it does not have on the
//     controller that is read;
//   - the kinds that only posture has, while it is switched off;
//   - if an operator releases the deletions while a controller is gone that may have been the
//     only one to show an object: then the object must not exist on all others;
//   - if an operator releases the deletions, and the only controller of the domain has lost the
//     object in a rollback;
//   - an object that the controller that is read has outside of the scope, because it was not
//     moved into the scope there yet: if an operator releases the deletions, or if the object
//     has changed there since another controller had it in scope.
func (h *history) expectProof(body []byte) {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	for _, asset := range bytes.SplitAfter(body, []byte("}}}}")) {
		match := assetPattern.FindSubmatch(asset)
		if match == nil {
			continue
		}
		guid, missing := string(match[1]), 0
		ofPosture := bytes.Contains(asset, []byte("roleAssetClass")) || bytes.Contains(asset, []byte("domainAssetClass"))
		for _, c := range h.controllers {
			o, found := c.objects[guid]
			ofPosture = ofPosture || o.service
			if !found {
				missing++
			}
		}
		switch {
		case h.changedSIDs[keyOf(string(asset))]:
		case h.builtIn[guid] && h.top == h.Base() && (h.scope.base != h.top || !h.scope.posture): // left the scope, or is a service account
		case h.left[guid]:
		case ofPosture && !h.scope.posture:
		case h.release && h.removed && missing > 0:
		case h.release && missing == 1 && len(h.controllers) == 1:
		case h.isOutside(guid):
		default:
			h.t.Errorf("sent as deleted, but was never deleted and never left the scope: %s", asset)
			h.logEvent("  WRONG: %s sent as deleted", guid)
		}
	}
}

// expectValuesNow replicates everything and expects the values after a run.
func (h *history) expectValuesNow() {
	h.repair()
	if h.unreadable {
		h.hide()
	}
	if left, _, err := h.store.Rejections(-1); err != nil || len(left) > 0 {
		return // they are not due
	}
	h.expectValues(RunOptions{}, h.want())
}

// want returns the expected assets, after everything is replicated: those that a new connector
// sends to a new gateway, or without posture those of the origin.
func (h *history) want() map[string]string {
	if h.posture {
		return withoutLocal(h.firstSync())
	}
	return withoutLocal(h.inScope(h.origin))
}

// expectValues performs a run without a failure, after everything is replicated. It expects the
// value of every object in scope, and that of all objects with a readable tombstone.
func (h *history) expectValues(options RunOptions, want map[string]string) state.Run {
	h.logEvent("run when everything is replicated, full %t, allow deletes %t", options.Full, options.AllowDeletes)
	run, err := h.run(h.t.Context(), options)
	if err != nil || run.Rejected > 0 {
		h.t.Errorf("run %+v, error %v", run, err)
	}
	switch {
	case run.Mode == full:
		h.expectReadLogons("after a full sync with " + h.read.name)
	case h.current.reread: // no delta sync finds what can be read again
		return run
	case h.current.undetected: // what was changed under USNs that were assigned twice is not read
		return run
	case h.scope.posture && !h.readsDeleted: // a deleted user stays a group member until the next full sync
		return run
	}
	when := fmt.Sprintf("after a %s sync with %s", run.Mode, h.current.name)
	h.compare(when, want, run.Mode == delta, false)
	if h.readsDeleted && run.Held == 0 {
		h.expectTombstones(when)
	}
	return run
}

// expectTombstones expects that the gateway has all objects with a tombstone as deleted.
func (h *history) expectTombstones(when string) {
	for guid, asset := range h.gateway.Held() {
		if o := h.current.objects[guid]; o.deleted && !h.forgotten[guid] && !testenv.IsDeleted(asset) {
			h.t.Errorf("%s: has a tombstone, not deleted: %s", when, asset)
		}
	}
}

// exemptRollbacks exempts the undecided deletions from the comparison if tombstones are unreadable
// and a controller was put back to a snapshot, and returns their number. What a controller
// showed before does not count any more, and no other one can prove the deletion. It stays
// undecided until that controller is demoted.
func (h *history) exemptRollbacks() int {
	h.t.Helper()
	if h.readsDeleted || !slices.ContainsFunc(h.controllers, func(c *controller) bool { return c.everRolledBack }) {
		return 0
	}
	undecided, _, err := h.store.UndecidedDeletions(-1)
	h.must(err)
	if h.forgotten == nil {
		h.forgotten, h.forgottenKeys = map[string]bool{}, map[string]bool{}
	}
	for _, d := range undecided {
		h.forgotten[d.GUID.String()] = true
		h.forgottenKeys[identity.ExternalID(d.Kind, d.SID)] = true
	}
	return len(undecided)
}

// compare compares the gateway with the expected assets.
func (h *history) compare(when string, want map[string]string, afterDelta, deletions bool) {
	got := withoutLocal(h.gateway.Held())
	if afterDelta { // a delta sync does not read a group again if its manager is deleted or renamed
		got, want = without(managerPattern, got), without(managerPattern, want)
	}
	neverDeleted := func(key string) bool { return strings.HasPrefix(key, "S-1-5-32-") } // a group of every domain
	maps.DeleteFunc(got, func(id, asset string) bool {
		return (h.forgotten[id] || neverDeleted(keyOf(asset))) && want[id] == ""
	})
	for _, diff := range differences(got, want, deletions) {
		h.t.Errorf("%s: %s", when, diff)
	}
	if !deletions {
		return
	}
	keys := map[string]bool{}
	for _, asset := range want {
		keys[keyOf(asset)] = true
	}
	for key, asset := range h.gateway.HeldByKey() {
		if !keys[key] && !neverDeleted(key) && !h.forgottenKeys[key] && !testenv.IsDeleted(asset) {
			h.t.Errorf("%s: no object has %s: %s", when, key, asset)
		}
	}
}

// keyOf returns the externalAssetId of an asset.
func keyOf(asset string) string {
	_, after, _ := strings.Cut(asset, `"externalAssetId":"`)
	key, _, _ := strings.Cut(after, `"`)
	return key
}

// inScope returns the expected assets of a controller.
func (h *history) inScope(d lister) map[string]string {
	assets := inScope(d, h.base, h.clock.Now())
	if !h.scope.untitled {
		return assets
	}
	for _, o := range d.Objects("objectGUID", "sAMAccountType", "title") {
		if o.First("title") != "" && o.First("sAMAccountType") == "805306368" {
			delete(assets, guidOf(o))
		}
	}
	return assets
}

var (
	localPattern   = regexp.MustCompile(`"(failedPasswordAttemptCount":\d+|(lastSuccessfulLoginAt|lastLogonTimestamp)":"[^"]*"),?`)
	managerPattern = regexp.MustCompile(`"managedBy":"[^"]*",?`)
)

// withoutLocal removes from assets what each controller counts itself.
func withoutLocal(assets map[string]string) map[string]string {
	return without(localPattern, assets)
}

// without removes what matches a pattern from assets.
func without(pattern *regexp.Regexp, assets map[string]string) map[string]string {
	changed := make(map[string]string, len(assets))
	for guid, asset := range assets {
		changed[guid] = pattern.ReplaceAllString(asset, "")
	}
	return changed
}

// rounds returns how many full syncs with each controller decide all deletions.
func (h *history) rounds() int {
	rounds := 1
	if h.options.Guard.MaxDeletes < 10 || len(h.inScope(h.origin)) == 0 { // a release covers only the deletions that were held before
		rounds++
	}
	if slices.ContainsFunc(h.controllers, func(c *controller) bool { return !c.inScope }) { // the first one under a scope proves no absence
		rounds++
	}
	return rounds
}

// expectEnd replicates everything, performs runs without failures, and expects the gateway to
// match the directory.
func (h *history) expectEnd() {
	h.repair()
	if h.unreadable {
		h.hide()
	}
	h.clock.Advance(25 * time.Hour)   // retries of rejected objects are due
	for _, c := range h.controllers { // otherwise the comparison would prove little
		if !maps.Equal(withoutLocal(h.inScope(c)), withoutLocal(h.inScope(h.origin))) {
			h.t.Errorf("%s differs from the origin", c.name)
		}
	}
	order := slices.Clone(h.controllers)
	h.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	h.use(order[0])
	want := h.want()
	for _, c := range append(order, order[0]) {
		h.use(c)
		h.expectValues(RunOptions{}, want)
	}
	for range h.rounds() {
		for _, c := range order {
			h.use(c)
			h.expectValues(RunOptions{Full: true, AllowDeletes: true}, want)
		}
	}
	exempt := h.exemptRollbacks()
	h.compare("after full syncs with each controller", want, false, true)
	h.expectValues(RunOptions{Full: true}, want) // two full syncs send again what moved into the scope
	last := h.expectValues(RunOptions{Full: true}, want)
	requests := h.assetRequests()
	h.expectValues(RunOptions{}, want)
	h.expectValues(RunOptions{Full: true}, want)
	if n := h.assetRequests() - requests; n != 0 {
		h.t.Errorf("%d requests after everything was sent", n)
	}
	if last.Held > 0 || last.Undecided > exempt {
		undecided, _, err := h.store.UndecidedDeletions(-1)
		h.t.Errorf("after full syncs with each controller: %s, undecided %+v, error %v", brief(last), undecided, err)
	}
	if left, _, err := h.store.Rejections(-1); err != nil || len(left) > 0 {
		h.t.Errorf("rejections %v, error %v", left, err)
	}
}
