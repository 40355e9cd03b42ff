package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

// holding is what must not move while the directory fails.
type holding struct {
	watermark state.Watermark
	fullPass  state.FullSync
	deletions int
}

func (s *environment) holds(t *testing.T, store *state.Store) (h holding) {
	t.Helper()
	var err error
	h.watermark, err = store.Watermark(ad.InvocationID(s.InvocationID()))
	must(t, err)
	h.fullPass, err = store.LastFullSync()
	must(t, err)
	_, h.deletions = s.witness.counts()
	return h
}

// bad is one way in which a connection to the directory goes wrong.
type bad struct {
	name     string
	protocol directory.Protocol
	rule     rule
}

// TestDirectoryFaults cuts the connection to the directory at every tenth of a page,
// in order and hard, over LDAP and LDAPS; digs black holes; lets it drip; cuts TLS in
// the handshake. It passes when each run ends: with an error that may pass, or with
// success; when nothing is reported as deleted and no watermark moves in a run
// that fails; and when the next run delivers everything.
func TestDirectoryFaults(t *testing.T) {
	t.Parallel()
	began := time.Now()
	// Of runs on a directory that may not answer. They may fail on a busy machine, too.
	patience := scaled(100*time.Millisecond, 300*time.Millisecond)
	s := newEnvironment(t, plan{users: scaled(150, 400), groups: 60})
	store, err := unsynced.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { store.Close() })
	first, err := s.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1").do(syncrun.Mode{})
	must(t, err)
	size := s.relay.bytes() // of both sessions, in pages of 100
	pages := (len(s.people)+99)/100 + 1

	var all []bad
	step := scaled(5, 1)
	for n := 0; n <= 10*pages; n += step {
		for connection, whole := range size {
			if connection > 0 && n > 20 {
				continue // groups are two pages
			}
			after := whole * n / (10 * pages)
			all = append(all, bad{fmt.Sprintf("cut at %d tenths of a page of session %d", n, connection), directory.LDAP,
				rule{connection: connection, after: after, do: []action{cut, reset}[n/step%2]}})
		}
		if n%(2*step) == 0 {
			after := size[0] * n / (10 * pages)
			all = append(all, bad{fmt.Sprintf("LDAPS cut at %d tenths", n), directory.StartTLS, rule{connection: 0, after: after, do: cut}})
		}
	}
	for _, after := range []int{0, 1, 40, 300, 700, 1200, 1500} { // the answer to StartTLS, the server's hello, its certificate, its end
		all = append(all, bad{fmt.Sprintf("handshake cut at %d", after), directory.StartTLS, rule{connection: 0, after: after, do: reset}},
			bad{fmt.Sprintf("handshake cut at %d from our side", after), directory.StartTLS, rule{connection: 0, after: after, toServer: true, do: cut}})
	}
	for _, tenth := range scaled([]int{0, 3}, []int{0, 1, 3, 5, 7, 9}) {
		after := size[0] * tenth / 10
		all = append(all, bad{fmt.Sprintf("black hole at %d tenths", tenth), directory.LDAP, rule{connection: 0, after: after, do: hole}},
			bad{fmt.Sprintf("black hole at %d tenths, TLS", tenth), directory.StartTLS, rule{connection: 0, after: after, do: hole}})
	}
	all = append(all, bad{"black hole for what we send", directory.LDAP, rule{connection: 0, after: 300, toServer: true, do: hole}},
		bad{"slow drip", directory.LDAP, rule{connection: -1, drip: 2 * time.Millisecond, dripBytes: 1400}},
		bad{"a drip that never ends", directory.LDAP, rule{connection: 0, drip: patience / 5, dripBytes: 1}},
		bad{"refused", directory.LDAP, rule{refuse: true}})

	var failed, finished int
	var slowest time.Duration
	for n, b := range all {
		if n%8 == 0 {
			s.mutate(8)
		}
		s.relay.set(b.rule)
		before := s.holds(t, store)
		r := s.newRunner(t, store, patience, b.protocol, "127.0.0.1")
		start := time.Now()
		_, err := r.do(syncrun.Mode{Full: true})
		took := time.Since(start)
		slowest = max(slowest, took)
		after := s.holds(t, store)
		switch class := fault.ClassOf(err); {
		case err == nil:
			finished++
		case class != fault.Transient && class != fault.Incomplete:
			t.Errorf("%s: an error of class %s: %v", b.name, class, err)
		case before.watermark != after.watermark || before.fullPass != after.fullPass:
			t.Errorf("%s: failed, but %+v became %+v", b.name, before, after)
		case before.deletions != after.deletions:
			t.Errorf("%s: failed, but reported %d deletions", b.name, after.deletions-before.deletions)
		default:
			failed++
		}
	}
	s.relay.clear()
	if _, err := s.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1").do(syncrun.Mode{}); err != nil {
		t.Fatal(err)
	}
	s.mustBeEqual(t, "after all faults")
	if failed < len(all)/2 {
		t.Errorf("%d of %d runs failed: the faults miss", failed, len(all))
	}
	figures(t, "%d faults on %d objects: %d runs failed, %d finished, the slowest in %s; no deletion and no watermark from a failed one; %s",
		len(all), first.Uploaded, failed, finished, slowest.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
}

// TestFailover kills one of two domain controllers in mid-pass, at several moments,
// and brings it back. It passes when the run fails and the next one, on the other,
// delivers everything; when nothing is falsely deleted on either; and when all is
// equal again once the first is back.
func TestFailover(t *testing.T) {
	t.Parallel()
	p := plan{users: 300, groups: 20}
	s := newEnvironment(t, p)
	other := testenv.NewDirectory(t, s.directoryOptions(p, s.Password))
	other.Restore(domaincontroller.Restoration{}) // a database of its own, with its own invocation ID
	second := newRelayAt(t, fmt.Sprintf("127.0.0.2:%d", s.relay.port), fmt.Sprintf("127.0.0.1:%d", other.Port))
	store, err := unsynced.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { store.Close() })
	do := func(mode syncrun.Mode) (state.Run, error) {
		t.Helper()
		return s.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1", "127.0.0.2").do(mode)
	}
	if _, err := do(syncrun.Mode{}); err != nil {
		t.Fatal(err)
	}
	whole := s.relay.bytes()[0]
	both := func(change func(*testenv.Directory) error) {
		t.Helper()
		must(t, change(s.Directory))
		must(t, change(other))
	}
	moments := scaled([]int{3, 7}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9})
	failed := 0
	for n, tenth := range moments {
		for i := range 10 {
			dn := s.people[10*n+i]
			both(func(d *testenv.Directory) error { return d.Modify(dn, "title", version(100*n+i+1)) })
		}
		gone := s.people[len(s.people)-1-n]
		s.witness.mayGo(s.Directory, gone)
		both(func(d *testenv.Directory) error { return d.Delete(gone) })

		s.relay.set(rule{connection: 0, after: whole * tenth / 10, do: reset, hook: func() { s.relay.refuse() }})
		if _, err := do(syncrun.Mode{Full: true}); err != nil {
			if class := fault.ClassOf(err); class != fault.Transient && class != fault.Incomplete {
				t.Errorf("cut at %d tenths: %v", tenth, err)
			}
			failed++
		}
		s.relay.set(rule{refuse: true})
		second.clear()
		if _, err := do(syncrun.Mode{}); err != nil {
			t.Errorf("on the other: %v", err)
		}
		if n := second.bytes(); len(n) == 0 {
			t.Error("the other was not asked")
		}
		for _, difference := range s.differences() {
			if !strings.HasSuffix(difference, hasGone) { // which takes two passes on one controller
				t.Errorf("on the other: %s", difference)
			}
		}
		s.relay.clear()
		for range 2 {
			if _, err := do(syncrun.Mode{Full: true}); err != nil {
				t.Errorf("back on the first: %v", err)
			}
		}
		s.mustBeEqual(t, "back on the first")
	}
	figures(t, "%d failovers in mid-pass: %d runs failed, all equal on the other and back on the first, nothing falsely deleted", len(moments), failed)
}
