package syncrun

import (
	"fmt"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// newConnection returns another connector that reads another base of the same directory and
// sends to the same gateway.
func (e *env) newConnection(base string) *env {
	e.t.Helper()
	other := newEnv(e.t, e.clock, e.auth, base, e.t.TempDir(), state.Options{NoSync: true})
	other.Directory, other.gateway = e.Directory, e.gateway
	other.options.Guard.MaxDeletesPercent = 100
	other.start()
	return other
}

// runAs performs a run of one of several connections at the same gateway.
func (e *env) runAs(options RunOptions, want state.Run) {
	e.t.Helper()
	e.setConsole()
	e.run(options, want)
}

func (e *env) expectStatus(guid ad.GUID, want string) {
	e.t.Helper()
	if status := e.status(guid); status != want {
		e.t.Errorf("status %v, want %s", status, want)
	}
}

// TestMoveBetweenConnections checks that an object that moves from the scope of one connection
// into that of another one ends with its value, whichever of the two does its full sync first,
// and that it is sent again only as often as necessary.
func TestMoveBetweenConnections(t *testing.T) {
	t.Parallel()
	for name, newFirst := range map[string]bool{"old scope first": false, "new scope first": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := newDomainEnv(t, domaincontroller.Options{}, 4)
			to := from.newConnection("OU=Outside," + from.Base())
			user, group := from.GUID(from.user(1)), from.addGroup("team")
			to.AddUser(to.dn("other"))
			from.clock.Advance(time.Hour)
			from.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
			to.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})

			from.clock.Advance(time.Hour)
			from.moveOut(1)
			team := from.GUID(group)
			from.must(from.Move(group, "OU=Outside,"+from.Base()))
			from.must(from.Modify("CN=team,OU=Outside,"+from.Base(), "description", "moved"))
			from.runAs(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			to.runAs(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
			to.runAs(RunOptions{}, state.Run{Mode: delta, Result: Processed})

			from.clock.Advance(24 * time.Hour)
			if newFirst {
				to.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
			}
			from.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 2})
			from.expectStatus(user, "DELETED")
			if newFirst {
				to.clock.Advance(24 * time.Hour)
			}
			to.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
			to.expectStatus(user, "ACTIVE")
			if asset := to.asset(team); asset["description"] != "moved" {
				t.Errorf("group: %v", asset)
			}
			if !newFirst {
				to.clock.Advance(24 * time.Hour)
				to.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
			}
			from.runAs(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
			to.runAs(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
			to.expectStatus(user, "ACTIVE")
		})
	}
}

// TestMoveSoonAfterCreation checks the same of an object that was created, sent, and moved since
// the last full sync.
func TestMoveSoonAfterCreation(t *testing.T) {
	t.Parallel()
	from := newDomainEnv(t, domaincontroller.Options{}, 4)
	to := from.newConnection("OU=Outside," + from.Base())
	from.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
	to.runAs(RunOptions{}, state.Run{Mode: full, Result: Processed})
	from.clock.Advance(time.Hour)
	from.AddUser(from.user(9))
	user := from.GUID(from.user(9))
	from.clock.Advance(time.Minute)
	from.runAs(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	to.runAs(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	from.moveOut(9)
	from.clock.Advance(time.Minute)
	to.runAs(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	from.runAs(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	to.runAs(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	to.expectStatus(user, "ACTIVE")
}

// TestMovedInWithFailures checks that failed runs and rejections do not count as full syncs that
// sent an object again.
func TestMovedInWithFailures(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 4)
	e.moveOut(1)
	e.clock.Advance(time.Hour)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.clock.Advance(time.Hour)
	e.moveBack(1)
	e.refusedRun(RunOptions{})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.refusedRun(RunOptions{Full: true})
	e.gateway.SetFront(rejectAssetsWith("user1"))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Partial, Rejected: 1})
	e.gateway.SetFront(nil)
	for range 2 {
		e.restart()
		e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
}

// TestNewObjectIsSentOnce checks that an object that was created in the scope is not sent again.
func TestNewObjectIsSentOnce(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 4)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
	for n, options := range []RunOptions{{}, {Full: true}} {
		e.clock.Advance(time.Hour)
		e.AddUser(e.user(10 + n))
		e.addGroup(fmt.Sprint("group", n))
		run, err := e.runner.Run(t.Context(), options)
		if err != nil || run.Uploaded != 2 {
			t.Errorf("run: %s, error %v", brief(run), err)
		}
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
}

func TestSnapshotMovedIn(t *testing.T) {
	t.Parallel()
	whenCreated := func(at time.Time) []byte { return at.AppendFormat(nil, "20060102150405.0Z") }
	for name, c := range map[string]struct {
		change  func(*Snapshot)
		created func(Snapshot) []byte
		want    bool
	}{
		"before the last full sync":   {nil, func(s Snapshot) []byte { return whenCreated(s.LastFull.At.Add(-time.Second)) }, true},
		"before the last run":         {nil, func(s Snapshot) []byte { return whenCreated(s.Controller.Watermark.At.Add(-time.Second)) }, true},
		"after the last run":          {nil, func(s Snapshot) []byte { return whenCreated(s.Controller.Watermark.At) }, false},
		"directory ahead":             {func(s *Snapshot) { s.DirectoryNow = s.Now.Add(time.Minute) }, func(s Snapshot) []byte { return whenCreated(s.Controller.Watermark.At.Add(59 * time.Second)) }, true},
		"directory behind":            {func(s *Snapshot) { s.DirectoryNow = s.Now.Add(-time.Minute) }, func(s Snapshot) []byte { return whenCreated(s.Controller.Watermark.At.Add(-time.Second)) }, true},
		"unreadable":                  {nil, func(Snapshot) []byte { return nil }, false},
		"malformed":                   {nil, func(Snapshot) []byte { return []byte("yesterday") }, false},
		"no full sync":                {func(s *Snapshot) { s.LastFull = state.FullSync{} }, func(Snapshot) []byte { return whenCreated(time.Unix(0, 0)) }, false},
		"full sync of another scope":  {func(s *Snapshot) { s.LastFull.Scope = "t" }, func(Snapshot) []byte { return whenCreated(time.Unix(0, 0)) }, false},
		"last run of another scope":   {func(s *Snapshot) { s.Controller.Watermark.Scope = "t" }, func(s Snapshot) []byte { return whenCreated(s.LastFull.At) }, false},
		"controller not read for now": {func(s *Snapshot) { s.Controller.Watermark.At = s.LastFull.At.Add(-time.Hour) }, func(s Snapshot) []byte { return whenCreated(s.LastFull.At.Add(-time.Second)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := deltaSnapshot()
			if c.change != nil {
				c.change(&s)
			}
			if got := s.movedIn(c.created(s)); got != c.want {
				t.Errorf("moved in: %t", got)
			}
		})
	}
}

// TestMovedInAfterRestart checks that a restart of the search does not send an object again that
// this full sync has already sent again.
func TestMovedInAfterRestart(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	guid := ad.GUID{1}
	c := &comparer{store: e.store, budget: &objectBudget{}, plan: Plan{Mode: full}, snapshot: Snapshot{MovedIn: []ad.GUID{guid}}}
	if !c.isDueAgain(guid) || c.isDueAgain(guid) || c.isDueAgain(ad.GUID{2}) {
		t.Error("not due once")
	}
	e.must(c.reset())
	if c.isDueAgain(guid) {
		t.Error("due again after the restart")
	}
	if (&comparer{plan: Plan{Mode: delta}, snapshot: c.snapshot}).isDueAgain(guid) {
		t.Error("due in a delta sync")
	}
}

// whenCreated has whole seconds: an object that was created in the second of the last read may have
// been created after it.
func TestMovedInWithinASecond(t *testing.T) {
	t.Parallel()
	s := deltaSnapshot()
	s.Controller.Watermark.At = time.Date(2026, 3, 2, 9, 50, 7, 500_000_000, time.UTC)
	s.DirectoryNow = s.Now
	for created, want := range map[string]bool{"20260302095006.0Z": true, "20260302095007.0Z": false, "20260302095008.0Z": false} {
		if got := s.movedIn([]byte(created)); got != want {
			t.Errorf("%s: %v", created, got)
		}
	}
}
