package syncrun

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakedns"
	"adconnector/test/ports"
	"adconnector/test/testenv"
)

// dnsDomain is an environment whose connection names a DNS domain of several controllers. DNS
// returns them in random order.
type dnsDomain struct {
	*env
	name        string
	controllers []*testenv.Directory
	down        []bool // by controller

	// Changes replicate in order, each a fixed number of ticks later.
	changes [][]func(*testenv.Directory) error // by tick
	lag     []int                              // ticks, by controller
	random  *rand.Rand
	users   []string      // DNs
	deleted []ad.GUID     // of deleted users
	serial  int           // number of the last new user or value
	running time.Duration // real time of all runs
}

var dnsDomains atomic.Int32

// newDNSDomain returns a domain with controllers that all have the users, and do not lag.
func newDNSDomain(t *testing.T, users, controllers int) *dnsDomain {
	t.Helper()
	o := domaincontroller.Options{ReadsDeleted: true}
	d := &dnsDomain{env: newDomainEnv(t, o, 0), name: fmt.Sprintf("domain%d.example.com", dnsDomains.Add(1)), lag: make([]int, controllers), random: rand.New(rand.NewPCG(1, 2))}
	d.controllers = []*testenv.Directory{d.Directory}
	for n := 2; n <= controllers; n++ {
		o.Name = fmt.Sprintf("dc%d", n)
		d.controllers = append(d.controllers, d.newReplica(o))
	}
	d.down = make([]bool, controllers)
	for n := range users {
		d.addToBoth(n, d.controllers...)
		d.users = append(d.users, d.user(n))
	}
	d.auth.Host, d.auth.Port = d.name, 0
	d.setConsole()
	d.publish()
	return d
}

// publish sets the records of the domain. Controllers that are down refuse connections.
func (d *dnsDomain) publish() {
	d.t.Helper()
	var services []fakedns.Record
	for n, controller := range d.controllers {
		host, port := fmt.Sprintf("dc%d.%s", n+1, d.name), controller.Port
		if d.down[n] {
			port = ports.Refusing(d.t)
		}
		services = append(services, fakedns.SRV(host, port, 0))
		dns.Set(host, fakedns.A("127.0.0.1"))
	}
	dns.Set("_ldap._tcp.dc._msdcs."+d.name, services...)
}

// setDown sets which controllers are down.
func (d *dnsDomain) setDown(controllers ...int) {
	d.t.Helper()
	for n := range d.down {
		d.down[n] = slices.Contains(controllers, n)
	}
	d.publish()
}

// current returns the index of the controller that was read last, and uses it for expectations.
func (d *dnsDomain) current() int {
	d.t.Helper()
	last, _, err := d.store.LastServers()
	d.must(err)
	n := slices.IndexFunc(d.controllers, func(c *testenv.Directory) bool { return c.InvocationID() == last.InvocationID })
	if n < 0 {
		d.t.Fatalf("last server %+v", last)
	}
	d.Directory = d.controllers[n]
	return n
}

// counts are how many objects a tick changes.
type counts struct{ modified, added, deleted int }

// tick advances the clock and changes users. Each controller receives what is due.
func (d *dnsDomain) tick(c counts) {
	d.t.Helper()
	d.clock.Advance(10 * time.Minute)
	d.random.Shuffle(len(d.users), func(i, j int) { d.users[i], d.users[j] = d.users[j], d.users[i] })
	var changes []func(*testenv.Directory) error
	for _, dn := range d.users[:c.deleted] {
		d.deleted = append(d.deleted, d.controllers[0].GUID(dn))
		changes = append(changes, func(controller *testenv.Directory) error { return controller.Delete(dn) })
	}
	d.users = slices.Clone(d.users[c.deleted:])
	for _, dn := range d.users[:c.modified] {
		d.serial++
		title := strconv.Itoa(d.serial)
		changes = append(changes, func(controller *testenv.Directory) error { return controller.Modify(dn, "title", title) })
	}
	for range c.added {
		d.serial++
		dn := d.dn(fmt.Sprintf("new%d", d.serial))
		d.users = append(d.users, dn)
		changes = append(changes, func(controller *testenv.Directory) error { controller.AddUser(dn); return nil })
	}
	d.changes = append(d.changes, changes)
	for n, controller := range d.controllers {
		if due := len(d.changes) - 1 - d.lag[n]; due >= 0 {
			d.must(d.apply(controller, d.changes[due]))
		}
	}
}

// apply applies changes to a controller, and a failed logon that only this controller counts.
func (d *dnsDomain) apply(controller *testenv.Directory, changes []func(*testenv.Directory) error) error {
	for _, change := range changes {
		if err := change(controller); err != nil {
			return err
		}
	}
	for _, dn := range d.users[len(d.users)/2 : min(len(d.users)/2+10, len(d.users))] {
		if _, err := controller.Server.Object(dn, "objectGUID"); err != nil {
			continue // not replicated yet
		}
		if err := controller.Modify(dn, "badPwdCount", strconv.Itoa(d.random.IntN(100))); err != nil {
			return err
		}
	}
	return nil
}

// sync performs a run.
func (d *dnsDomain) sync() state.Run {
	d.t.Helper()
	start := time.Now()
	run, err := d.runner.Run(d.t.Context(), RunOptions{})
	d.running += time.Since(start)
	if err != nil {
		d.t.Fatalf("run: %s, error %v", brief(run), err)
	}
	return run
}

// expectReplicated expects the gateway to have the values of the current controller, apart from
// failed logons, and to have as deleted what is deleted there.
func (d *dnsDomain) expectReplicated() {
	d.t.Helper()
	held := d.gateway.Held()
	want := inScope(d.controllers[d.current()], d.base, d.clock.Now())
	for guid := range held {
		held[guid] = withoutActivity(held[guid])
	}
	for guid := range want {
		want[guid] = withoutActivity(want[guid])
	}
	diffs := differences(held, want, true)
	for _, diff := range diffs[:min(len(diffs), 5)] {
		d.t.Error(diff)
	}
	if len(diffs) > 5 {
		d.t.Errorf("%d more", len(diffs)-5)
	}
	d.expectNoFalseDeletion()
}

var activity = regexp.MustCompile(`"failedPasswordAttemptCount":\d+`)

// withoutActivity returns an asset without the failed logons, which each controller counts itself.
func withoutActivity(asset string) string { return activity.ReplaceAllString(asset, "") }

// expectNoFalseDeletion expects that no object is deleted at the gateway that is alive on every
// controller.
func (d *dnsDomain) expectNoFalseDeletion() {
	d.t.Helper()
	falsely := 0
	deleted := map[string]bool{}
	for _, guid := range d.deleted {
		deleted[guid.String()] = true
	}
	for guid, asset := range d.gateway.Held() {
		if testenv.IsDeleted(asset) && !deleted[guid] {
			falsely++
		}
	}
	if falsely > 0 {
		d.t.Errorf("%d objects are deleted at the gateway that are alive on every controller", falsely)
	}
}

// A DNS domain leads to the controller that was read last, also after a restart. So one full
// sync is enough, although each controller has its own failed logons of each user.
func TestRotatingName(t *testing.T) {
	t.Parallel()
	const users = 30
	d := newDNSDomain(t, users, 3)
	for i, controller := range d.controllers {
		for n := range users {
			d.must(controller.Modify(d.user(n), "badPwdCount", strconv.Itoa(10*i+n)))
		}
	}
	d.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: users})
	first := d.current()
	for tick := range 8 {
		d.restart()
		d.runner.maxReread = users / 2 // if it is exceeded, there is a full sync
		want := state.Run{Mode: delta, Result: Processed}
		c := counts{}
		if tick == 3 {
			c.deleted, want.Deleted = 1, 1
		}
		d.tick(c)
		d.run(RunOptions{}, want)
		if n := d.current(); n != first {
			t.Errorf("tick %d: controller %d, want %d", tick, n, first)
		}
	}
	d.expectReplicated()
}

// TestCampaignDNSDomain runs a day of ticks with a DNS domain of three controllers. It passes if
// there is one full sync, and each delta sync sends exactly what its controller has received
// since, deletions included. Then the controller that was read last stops. The others have not
// received its last changes. The next run is a full sync on one of them, which sends older
// values; the run after it leaves none. When only the first one is left, it is read by a delta
// sync again. No object is deleted at the gateway that is alive on every controller.
func TestCampaignDNSDomain(t *testing.T) {
	t.Parallel()
	users, ticks, c := 20_000, 144, counts{modified: 90, added: 4, deleted: 6}
	if testing.Short() {
		users, ticks, c = 300, 12, counts{modified: 8, added: 1, deleted: 1}
	}
	d := newDNSDomain(t, users, 3)
	d.options.Search.PageSize, d.options.Upload.BatchSize = 1000, 500
	d.start()
	fullSync := d.sync()
	if fullSync.Mode != full || fullSync.Uploaded != users || fullSync.Result != Processed {
		t.Fatalf("run: %s, want a full sync of %d users", brief(fullSync), users)
	}
	first := d.current()
	for n := range d.lag {
		if n != first {
			d.lag[n] = 1
		}
	}
	d.running = 0
	for n := range ticks - 1 {
		d.tick(c)
		run := d.sync()
		if d.current() != first || run.Mode != delta || run.Uploaded != c.modified+c.added || run.Deleted != c.deleted || run.Result != Processed {
			t.Fatalf("tick %d: %s on controller %d, want %+v on %d", n+1, brief(run), d.current(), c, first)
		}
		if testing.Short() || n%48 == 0 {
			d.expectReplicated()
		}
	}
	d.expectReplicated()
	perDelta := d.running / time.Duration(ticks-1)
	failover, next, back := d.failOver(first, c)
	t.Logf("%d users, %d ticks: one full sync in %s, then %d objects per delta in %s; failover: %s in %s, then %s; back: %s",
		users, ticks, fullSync.Duration().Round(time.Millisecond), c.modified+c.added+c.deleted, perDelta.Round(time.Millisecond),
		brief(failover), failover.Duration().Round(time.Millisecond), brief(next), brief(back))
}

// failOver stops the controller that was read last, performs two runs without it, and one with
// it alone.
func (d *dnsDomain) failOver(first int, c counts) (failover, next, back state.Run) {
	d.t.Helper()
	d.setDown(first)
	d.clock.Advance(10 * time.Minute)
	failover = d.sync()
	second := d.current()
	if second == first || failover.Mode != full || failover.Undecided != c.added || failover.Uploaded < c.modified+c.deleted {
		d.t.Errorf("after controller %d stopped: %s on controller %d, want a full sync on another one", first, brief(failover), second)
	}
	d.expectNoFalseDeletion()
	d.tick(c)
	next = d.sync()
	if d.current() != second || next.Mode != delta || next.Undecided > 0 {
		d.t.Errorf("next run: %s on controller %d, want a delta sync on %d", brief(next), d.current(), second)
	}
	d.expectReplicated()
	d.setDown(slices.DeleteFunc([]int{0, 1, 2}, func(n int) bool { return n == first })...)
	d.tick(c)
	back = d.sync()
	if d.current() != first || back.Mode != delta || back.Undecided > 0 {
		d.t.Errorf("back: %s on controller %d, want a delta sync on %d", brief(back), d.current(), first)
	}
	d.expectReplicated()
	return failover, next, back
}
