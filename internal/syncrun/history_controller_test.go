package syncrun

import (
	"context"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/test/testenv"
)

// controller is a domain controller of a history. It receives the changes of the domain late,
// and in another order.
type controller struct {
	*testenv.Directory
	name       string
	promptness int // percentage of the missing changes that it receives with each new change
	content

	snapshot *domaincontroller.Snapshot // nil: none
	then     content                    // when the snapshot was taken

	seenUSN ad.USN // the highest USN that the connector has read; 0: it has never read this controller
	// rolledBack is set when a snapshot was put back under the same invocation ID, until the
	// connector can detect it: its USN must be lower than seenUSN. If the USNs were assigned
	// again before, the connector cannot detect it.
	rolledBack     bool
	undetected     bool     // a rollback could not be detected, and no full sync was completed since
	lost           []string // objects that the controller had before the rollback
	everLost       []string // under its invocation ID
	everRolledBack bool     // under its invocation ID
	reread         bool     // the rights changed, and no full sync was completed since
	inScope        bool     // the last complete full sync had the present scope
}

// content is what a controller has received.
type content struct {
	applied []bool // by change
	waiting []bool // by change: lost with a rollback, and replicated again only by a repair
	objects map[string]objectState
	listed  map[*controller]ad.InvocationID // the other controllers of the domain
}

func (c content) clone() content {
	return content{slices.Clone(c.applied), slices.Clone(c.waiting), maps.Clone(c.objects), maps.Clone(c.listed)}
}

// scope is what a run reads.
type scope struct {
	base     string
	untitled bool // the user filter excludes users with a title
	posture  bool
}

const untitledFilter = "(!(title=*))"

// has reports whether an object is in scope.
func (s scope) has(o objectState) bool {
	return !o.deleted && strings.HasSuffix(o.dn, ","+s.base) && (!o.service || s.posture) && !(s.untitled && o.user && !o.service && o.titled)
}

// addController adds a controller, which has no object that changes yet.
func (h *history) addController(name string, d *testenv.Directory) {
	promptness := []int{0, 0, 40, 80, 100}[h.random.IntN(5)]
	c := &controller{Directory: d, name: name, promptness: promptness, content: content{
		objects: map[string]objectState{}, listed: map[*controller]ad.InvocationID{},
	}}
	h.controllers = append(h.controllers, c)
	for _, c := range h.controllers {
		h.listControllers(c)
	}
}

// listControllers makes a controller list the other ones with their invocation IDs, and none that was
// demoted.
func (h *history) listControllers(c *controller) {
	for _, other := range h.controllers {
		if id := other.InvocationID(); other != c && c.listed[other] != id {
			c.Must(c.AddPeer(other.Server))
			c.listed[other] = id
		}
	}
	for other := range c.listed {
		if !slices.Contains(h.controllers, other) {
			c.Must(c.RemovePeer(other.Server))
			delete(c.listed, other)
		}
	}
}

// replicate applies each change that a controller lacks with a probability in percent. The
// order of the changes of an object stays. With posture the order of all changes stays,
// because links refer to other objects.
func (h *history) replicate(c *controller, percent int) {
	missing := len(h.changes) - len(c.applied)
	c.applied, c.waiting = append(c.applied, make([]bool, missing)...), append(c.waiting, make([]bool, missing)...)
	blocked := map[string]bool{}
	for i, change := range h.changes {
		switch {
		case c.applied[i]:
		case c.waiting[i] || blocked[change.object] || h.random.IntN(100) >= percent:
			if h.withPosture {
				return
			}
			blocked[change.object] = true
		default:
			if err := change.apply(c.Server); err != nil {
				h.t.Errorf("replicate to %s: %s: %v", c.name, change.description, err)
			}
			c.applied[i] = true
			h.observe(c, change.object, change.after)
		}
	}
}

// observe records the state of an object on a controller, and whether it has left the scope
// there.
func (h *history) observe(c *controller, guid string, o objectState) {
	c.objects[guid] = o
	key := sighting{c, guid}
	switch {
	case o.deleted:
		h.left[guid] = true
	case h.scope.has(o):
		h.shown[key] = true
	case h.shown[key]:
		h.left[guid] = true
	case slices.ContainsFunc(h.controllers, func(other *controller) bool { return h.shown[sighting{other, guid}] }):
		h.changedOutside[key] = true
	}
}

// sighting is an object in scope on a controller.
type sighting struct {
	controller *controller
	guid       string
}

// repair replicates everything to all controllers.
func (h *history) repair() {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	h.logEvent("everything replicated")
	for _, c := range h.controllers {
		clear(c.waiting)
		h.replicate(c, 100)
		h.listControllers(c)
	}
}

// takeSnapshot takes a snapshot of a controller.
func (h *history) takeSnapshot(c *controller) {
	h.logEvent("snapshot of %s", c.name)
	c.snapshot, c.then = c.Snapshot(), c.content.clone()
}

// restoreSnapshot restores the snapshot of a controller. What came later is lost until it is
// replicated again, or until a repair. Until then, the controller may list others that were demoted,
// or their former invocation IDs.
func (h *history) restoreSnapshot(c *controller, sameInvocation, replicatedAgain bool) {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	h.logEvent("snapshot of %s put back, same invocation ID %t, replicated again %t", c.name, sameInvocation, replicatedAgain)
	before := c.content
	c.content = c.then.clone()
	c.Restore(domaincontroller.Restoration{Snapshot: c.snapshot, SameInvocation: sameInvocation})
	for i, applied := range before.applied {
		if i >= len(c.applied) {
			c.applied, c.waiting = append(c.applied, false), append(c.waiting, false)
		}
		c.waiting[i] = !c.applied[i] && (before.waiting[i] || applied && !replicatedAgain)
	}
	if !sameInvocation {
		h.replaceInvocation(c)
		return
	}
	c.rolledBack, c.everRolledBack = c.seenUSN > 0, true
	for guid, o := range before.objects {
		if _, found := c.objects[guid]; !found && !o.deleted {
			c.lost, c.everLost = append(c.lost, guid), append(c.everLost, guid)
		}
	}
}

// replaceInvocation records that a controller has a new invocation ID. Its snapshot has the
// former one.
func (h *history) replaceInvocation(c *controller) {
	c.snapshot, c.seenUSN, c.rolledBack, c.undetected, c.lost, c.everLost, c.everRolledBack = nil, 0, false, false, nil, nil, false
	h.removed = true
	for _, other := range h.controllers {
		if other != c {
			h.listControllers(other)
		}
	}
}

// demote removes a controller from the domain.
func (h *history) demote(c *controller) {
	h.logEvent("%s demoted", c.name)
	h.controllers = slices.DeleteFunc(h.controllers, func(other *controller) bool { return other == c })
	h.removed = true
	for _, other := range h.controllers {
		h.listControllers(other)
	}
	if h.current == c {
		h.use(h.controllers[0])
	}
}

// TestHistoryRestoredAfterDemotion: a controller that is restored from a snapshot lists a demoted one
// until everything is replicated. Then a release deletes what only the demoted one has shown.
func TestHistoryRestoredAfterDemotion(t *testing.T) {
	t.Parallel()
	h := newHistoryOfTwo(t)
	first, second := h.controllers[0], h.controllers[1]
	first.promptness, second.promptness = 100, 0
	h.takeSnapshot(second)
	h.makeChange(addition(domaincontroller.Object{DN: "CN=lost," + h.staff, Attributes: map[string][]string{
		"objectClass": {"user"}, "userAccountControl": {"66048"},
	}}))
	if run, err := h.run(t.Context(), RunOptions{}); err != nil || run.Uploaded == 0 {
		t.Fatalf("run: %s, error %v", brief(run), err)
	}
	h.makeChange(deletion("CN=lost," + h.staff))
	h.demote(first)
	h.restoreSnapshot(second, false, true)
	if n := len(invocationsOn(second)); n != 2 {
		t.Errorf("after the restore, the controller lists %d, want 2", n)
	}
	h.expectEnd()
	if n := len(invocationsOn(second)); n != 1 {
		t.Errorf("after the replication, the controller lists %d, want 1", n)
	}
}

// TestHistoryReplacedInvocations: a controller that is restored from a snapshot lists the former
// invocation ID of another one until everything is replicated.
func TestHistoryReplacedInvocations(t *testing.T) {
	t.Parallel()
	h := newHistoryOfTwo(t)
	first, second := h.controllers[0], h.controllers[1]
	h.takeSnapshot(first)
	h.takeSnapshot(second)
	h.restoreSnapshot(second, false, true)
	h.restoreSnapshot(first, false, true)
	if slices.Contains(invocationsOn(first), second.InvocationID()) {
		t.Error("the snapshot contains a later invocation ID")
	}
	h.repair()
	want := []ad.InvocationID{first.InvocationID(), second.InvocationID()}
	for _, c := range h.controllers {
		if ids := invocationsOn(c); len(ids) != 2 || !slices.Contains(ids, want[0]) || !slices.Contains(ids, want[1]) {
			t.Errorf("%s lists %v, want %v", c.name, ids, want)
		}
	}
}

// newHistoryOfTwo returns a history with two controllers, without a load balancer, where the account
// cannot read tombstones.
func newHistoryOfTwo(t *testing.T) *history {
	for seed := uint64(1); ; seed++ {
		h := newHistory(t, seed, false, false)
		if len(h.controllers) == 2 && h.balancer == 0 && !h.readsDeleted {
			return h
		}
	}
}

// invocationsOn returns the invocation IDs that a controller lists.
func invocationsOn(c *controller) (ids []ad.InvocationID) {
	for _, o := range c.Objects("invocationId") {
		if id := o.First("invocationId"); id != "" {
			ids = append(ids, ad.InvocationID([]byte(id)))
		}
	}
	return ids
}

// use makes later runs read from a controller.
func (h *history) use(c *controller) {
	h.logEvent("use %s", c.name)
	h.route(c, false)
	h.Directory = c.Directory
	if h.balancer == 0 {
		h.auth.Host = c.Host
		h.connectTo(c.Port)
	}
}

// isOutside reports whether the controller that the run reads has an object outside of the scope,
// and the run may conclude that it was moved out.
func (h *history) isOutside(guid string) bool {
	lines := h.log.With(MsgSyncPlanned)
	for _, c := range h.controllers {
		if c.InvocationID().String() == lines[len(lines)-1].Text("invocation_id") {
			o, found := c.objects[guid]
			return found && !h.scope.has(o) && (h.release || h.changedOutside[sighting{c, guid}])
		}
	}
	return false
}

// excuseUndetected finds the rollbacks that the next run cannot detect, because the lost USNs were
// assigned again. It may then take the absence of what was lost as deletions.
func (h *history) excuseUndetected() {
	for _, c := range h.controllers {
		if c.rolledBack && highestUSN(c.Server) >= c.seenUSN {
			h.logEvent("the rollback of %s cannot be detected", c.name)
			c.rolledBack, c.undetected = false, true
			for _, guid := range c.lost {
				h.left[guid] = true
			}
			c.lost = nil
		}
	}
}

// highestUSN returns the highest USN of an object.
func highestUSN(d *domaincontroller.Server) (highest ad.USN) {
	for _, o := range d.Objects("uSNChanged") {
		usn, _ := ad.ParseUSN([]byte(o.First("uSNChanged")))
		highest = max(highest, usn)
	}
	return highest
}

// startBalancer starts a load balancer in front of the controllers. It forwards connections
// to the current one, or in turn.
func (h *history) startBalancer() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", h.nextAddress())
			if err != nil {
				client.Close()
				continue
			}
			stop := func() { client.Close(); server.Close() }
			context.AfterFunc(h.t.Context(), stop)
			for _, ends := range [][2]net.Conn{{client, server}, {server, client}} {
				serving.Go(func() {
					defer stop()
					_, _ = io.Copy(ends[0], ends[1])
				})
			}
		}
	})
	h.t.Cleanup(func() {
		listener.Close()
		serving.Wait()
	})
	h.balancer = testenv.PortOf(listener)
	h.connectTo(h.balancer)
}

// route sets where the load balancer's next connections lead to: to a controller, or to all in turn.
func (h *history) route(c *controller, rotating bool) {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	h.current, h.rotating = c, rotating
}

// nextAddress returns the address of the controller that the load balancer's next connection leads
// to.
func (h *history) nextAddress() string {
	h.changeMu.Lock()
	defer h.changeMu.Unlock()
	c := h.current
	if h.rotating {
		h.turn++
		c = h.controllers[h.turn%len(h.controllers)]
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
}
