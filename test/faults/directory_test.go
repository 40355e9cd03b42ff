package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

// progress is the state that a failed run must not change.
type progress struct {
	controller state.Controller
	fullSync   state.FullSync
	deletions  int
}

func (e *environment) progress(t *testing.T, store *state.Store) (p progress) {
	t.Helper()
	var err error
	p.controller, err = store.Controller(e.InvocationID())
	must(t, err)
	p.fullSync, err = store.LastFullSync()
	must(t, err)
	_, p.deletions = e.monitor.counts()
	return p
}

// connectionFault is a fault of the connection to the directory.
type connectionFault struct {
	name     string
	protocol directory.Protocol
	rule     rule
}

// connectionFaults returns the faults. sizes are the bytes from the directory in a run
// without faults, by session; pages is the number of pages in the first session.
func connectionFaults(sizes []int, pages int, timeout time.Duration) []connectionFault {
	var faults []connectionFault
	add := func(name string, protocol directory.Protocol, r rule) {
		faults = append(faults, connectionFault{name, protocol, r})
	}
	step := scaled(5, 1)
	for tenth := 0; tenth <= 10*pages; tenth += step {
		for session, size := range sizes {
			if session > 0 && tenth > 20 {
				continue // the groups' session has two pages
			}
			add(fmt.Sprintf("cut after %d tenths of a page of session %d", tenth, session), directory.LDAP,
				rule{connection: session, after: size * tenth / (10 * pages), action: []action{cut, reset}[tenth/step%2]})
		}
		if tenth%(2*step) == 0 {
			add(fmt.Sprintf("TLS cut after %d tenths of a page", tenth), directory.StartTLS,
				rule{after: sizes[0] * tenth / (10 * pages), action: cut})
		}
	}
	// These offsets lie in the response to StartTLS, the ServerHello, the certificate and the
	// end of the handshake.
	for _, after := range []int{0, 1, 40, 300, 700, 1200, 1500} {
		add(fmt.Sprintf("handshake cut after %d bytes from the server", after), directory.StartTLS, rule{after: after, action: reset})
		add(fmt.Sprintf("handshake cut after %d bytes to the server", after), directory.StartTLS, rule{after: after, toServer: true, action: cut})
	}
	for _, tenth := range scaled([]int{0, 3}, []int{0, 1, 3, 5, 7, 9}) {
		r := rule{after: sizes[0] * tenth / 10, action: blackhole}
		add(fmt.Sprintf("black hole after %d tenths", tenth), directory.LDAP, r)
		add(fmt.Sprintf("black hole after %d tenths, TLS", tenth), directory.StartTLS, r)
	}
	add("black hole after 300 bytes to the server", directory.LDAP, rule{after: 300, toServer: true, action: blackhole})
	add("slow responses", directory.LDAP, rule{connection: -1, chunkDelay: 2 * time.Millisecond, chunkSize: 1400})
	add("responses of one byte at a time", directory.LDAP, rule{chunkDelay: timeout / 5, chunkSize: 1})
	add("connection refused", directory.LDAP, rule{refuse: true})
	return faults
}

// TestDirectoryFaults cuts the connection to the directory at every tenth of a page and
// during the TLS handshake, turns it into a black hole, and slows it down. It passes if each
// run ends with success or with a transient or incomplete error. A failed run must report no
// deletion and move no watermark. The next run must deliver everything.
func TestDirectoryFaults(t *testing.T) {
	t.Parallel()
	began := time.Now()
	// On a busy machine, this timeout may also fail runs of other faults.
	timeout := scaled(100*time.Millisecond, 300*time.Millisecond)
	e := newEnvironment(t, environmentOptions{users: scaled(150, 400), groups: 60})
	store, err := noSync.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { store.Close() })
	first, err := e.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1").runOnce(syncrun.RunOptions{})
	must(t, err)

	faults := connectionFaults(e.relay.bytes(), (len(e.people)+99)/100+1, timeout)
	var failed, finished int
	var slowest time.Duration
	for n, f := range faults {
		if n%8 == 0 {
			e.mutate(8)
		}
		e.relay.set(f.rule)
		before := e.progress(t, store)
		r := e.newRunner(t, store, timeout, f.protocol, "127.0.0.1")
		start := time.Now()
		_, err := r.runOnce(syncrun.RunOptions{Full: true})
		slowest = max(slowest, time.Since(start))
		after := e.progress(t, store)
		switch class := fault.ClassOf(err); {
		case err == nil:
			finished++
		case class != fault.Transient && class != fault.Incomplete:
			t.Errorf("%s: error of class %s: %v", f.name, class, err)
		case before.controller != after.controller || before.fullSync != after.fullSync:
			t.Errorf("%s: run failed, but %+v became %+v", f.name, before, after)
		case before.deletions != after.deletions:
			t.Errorf("%s: run failed, but reported %d deletions", f.name, after.deletions-before.deletions)
		default:
			failed++
		}
	}
	e.relay.clear()
	if _, err := e.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1").runOnce(syncrun.RunOptions{}); err != nil {
		t.Fatal(err)
	}
	e.mustMatchDirectory(t, "after all faults")
	if failed < len(faults)/2 {
		t.Errorf("%d of %d runs failed: the faults have no effect", failed, len(faults))
	}
	logResult(t, "%d faults on %d objects: %d runs failed, %d finished, the slowest took %s; failed runs: no deletion, no watermark; %s",
		len(faults), first.Uploaded, failed, finished, slowest.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// TestFailover makes one of two domain controllers unreachable during a full sync, at
// several points, and restores it. It passes if the next run reads from the other controller
// and delivers everything, if neither controller causes a false deletion, and if the gateway
// matches the directory after full syncs from the first controller again.
func TestFailover(t *testing.T) {
	t.Parallel()
	options := environmentOptions{users: 300, groups: 20}
	e := newEnvironment(t, options)
	secondOptions := e.directoryOptions(options, e.Password)
	secondOptions.Name = "dc2"
	second := testenv.NewDirectory(t, secondOptions)
	must(t, e.AddPeer(second.Server))
	must(t, second.AddPeer(e.Server))
	secondRelay := newRelayAt(t, fmt.Sprintf("127.0.0.2:%d", e.relay.port), fmt.Sprintf("127.0.0.1:%d", second.Port))
	store, err := noSync.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { store.Close() })
	sync := func(mode syncrun.RunOptions) error {
		t.Helper()
		_, err := e.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1", "127.0.0.2").runOnce(mode)
		return err
	}
	must(t, sync(syncrun.RunOptions{}))
	size := e.relay.bytes()[0]
	changeBoth := func(change func(*testenv.Directory) error) {
		t.Helper()
		must(t, change(e.Directory))
		must(t, change(second))
	}
	tenths := scaled([]int{3, 7}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	failed := 0
	for n, tenth := range tenths {
		for i := range 10 {
			dn := e.people[10*n+i]
			changeBoth(func(d *testenv.Directory) error { return d.Modify(dn, "title", version(100*n+i+1)) })
		}
		deleted := e.people[len(e.people)-1-n]
		e.monitor.expectDeletion(e.Directory, deleted)
		changeBoth(func(d *testenv.Directory) error { return d.Delete(deleted) })

		e.relay.set(rule{after: size * tenth / 10, action: reset, hook: func() { e.relay.refuse() }})
		if err := sync(syncrun.RunOptions{Full: true}); err != nil {
			if class := fault.ClassOf(err); class != fault.Transient && class != fault.Incomplete {
				t.Errorf("reset after %d tenths: %v", tenth, err)
			}
			failed++
		}
		e.relay.set(rule{refuse: true})
		secondRelay.clear()
		if err := sync(syncrun.RunOptions{}); err != nil {
			t.Errorf("second controller: %v", err)
		}
		if len(secondRelay.bytes()) == 0 {
			t.Error("second controller: no connection")
		}
		for _, difference := range e.differences() {
			if !strings.HasSuffix(difference, notReportedDeleted) { // absence needs two full syncs on one controller
				t.Errorf("second controller: %s", difference)
			}
		}
		e.relay.clear()
		for range 2 {
			if err := sync(syncrun.RunOptions{Full: true}); err != nil {
				t.Errorf("first controller again: %v", err)
			}
		}
		e.mustMatchDirectory(t, "first controller again")
	}
	logResult(t, "%d failovers during a full sync: %d runs failed, gateway matches on both controllers, no false deletion", len(tenths), failed)
}
