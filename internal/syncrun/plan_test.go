package syncrun

import (
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// The first full sync of another scope proves nothing about the objects of the scope before
// it. The second one does.
func TestScopeChanges(t *testing.T) {
	t.Parallel()
	cases := map[string]func(e *env){
		"base":   func(e *env) { e.base = "OU=Inner," + e.base; e.setConsole() },
		"filter": func(e *env) { e.options.Search.UserFilter = "(title=Engineer)"; e.start() },
		"scope": func(e *env) {
			e.gateway.SetProfile(e.profile(func(p *gateway.Profile) { p.SearchScope = "ONE_LEVEL"; p.BaseContext = "OU=Inner," + e.base }))
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 20)
			for n := range 5 {
				e.must(e.Modify(e.user(n), "title", "Engineer"))
				e.must(e.Move(e.user(n), "OU=Inner,"+e.base))
			}
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
			base := e.base
			change(e)
			e.run(Mode{}, state.Run{Mode: full, Result: Processed})
			if reason := e.planned(); reason != ReasonScope {
				t.Errorf("reason %s", reason)
			}
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
			e.run(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 15})
			e.base, e.options.Search.UserFilter = base, ""
			e.setConsole()
			e.start()
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 15})
			e.expectConverged()
		})
	}
}

// Both the watermark of the controller and the last full sync, which may be another
// controller's, must have the scope.
func TestScopeChangesAtAnotherController(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	first, behind := e.Port, e.newTwin(domaincontroller.Options{ReadsDeleted: true})
	staff := e.base
	fullSync := func(port int, base string, uploaded int) {
		t.Helper()
		e.base = base
		e.connectTo(port)
		e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: uploaded})
	}
	for _, dn := range []string{"CN=a," + staff, "CN=b,OU=Inner," + staff} {
		e.AddUser(dn)
		behind.AddUser(dn)
	}
	e.AddUser("CN=c," + staff) // is not replicated yet
	e.outgrowOverlap()
	fullSync(first, "OU=Inner,"+staff, 1)
	fullSync(behind.Port, staff, 1)
	fullSync(first, staff, 1) // c: its USN is below the watermark
	e.expectConverged()
	fullSync(behind.Port, "OU=Inner,"+staff, 0)
	fullSync(first, staff, 0)
}

// A snapshot for which a delta is enough.
func deltaSnapshot() Snapshot {
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	return Snapshot{
		Now: now, FullInterval: 24 * time.Hour, Scope: "s", Followed: true, InvocationID: ad.InvocationID{1}, HighestUSN: 5000,
		SameTarget: true, IndexSize: 40, LastRead: true,
		LastFull: state.FullSync{Scope: "s", At: now.Add(-time.Hour)}, Watermark: state.Watermark{USN: 4000, Scope: "s", At: now.Add(-10 * time.Minute)},
	}
}

func TestMakePlan(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(*Snapshot)
		want   Plan
	}{
		"delta":                    {func(*Snapshot) {}, Plan{Mode: delta, Since: 3801, ProvesAbsence: true, NoteSeen: true}},
		"delta near the beginning": {func(s *Snapshot) { s.Watermark.USN = 100 }, Plan{Mode: delta, Since: 0, ProvesAbsence: true, NoteSeen: true}},
		"delta on another server":  {func(s *Snapshot) { s.LastRead = false }, Plan{Mode: delta, Since: 3801, NoteSeen: true}},
		"delta with posture":       {func(s *Snapshot) { s.Posture, s.MembershipsKnown = true, true }, Plan{Mode: delta, Since: 3801, ProvesAbsence: true, NoteSeen: true}},

		"requested":                   {func(s *Snapshot) { s.Full = true }, Plan{Mode: full, Reason: ReasonRequested, ProvesAbsence: true, NoteSeen: true}},
		"release":                     {func(s *Snapshot) { s.Release = true }, Plan{Mode: full, Reason: ReasonRelease, ProvesAbsence: true, NoteSeen: true}},
		"no invocation ID":            {func(s *Snapshot) { s.Followed = false }, Plan{Mode: full, Reason: ReasonNotFollowed, ProvesAbsence: true, NoteSeen: true}},
		"other target":                {func(s *Snapshot) { s.SameTarget = false }, Plan{Mode: full, Reason: ReasonNewTarget}},
		"first run":                   {func(s *Snapshot) { s.Watermark, s.LastFull, s.LastRead = state.Watermark{}, state.FullSync{}, false }, Plan{Mode: full, Reason: ReasonNewController}},
		"new server":                  {func(s *Snapshot) { s.Watermark, s.LastRead = state.Watermark{}, false }, Plan{Mode: full, Reason: ReasonNewController}},
		"new server, deletions held":  {func(s *Snapshot) { s.Watermark, s.LastRead, s.Held = state.Watermark{}, false, []ad.GUID{{1}} }, Plan{Mode: full, Reason: ReasonNewController, NoteSeen: true}},
		"scope of the watermark":      {func(s *Snapshot) { s.Watermark.Scope = "t" }, Plan{Mode: full, Reason: ReasonScope, ProvesAbsence: true, NoteSeen: true}},
		"scope of the last full sync": {func(s *Snapshot) { s.LastFull.Scope = "t" }, Plan{Mode: full, Reason: ReasonScope}},
		"USN went down":               {func(s *Snapshot) { s.HighestUSN = 3999 }, Plan{Mode: full, Reason: ReasonUSN, ProvesAbsence: true, NoteSeen: true}},
		"watermark of the future":     {func(s *Snapshot) { s.Watermark.At = s.Now.Add(1) }, Plan{Mode: full, Reason: ReasonWatermark, ProvesAbsence: true, NoteSeen: true}},
		"old watermark":               {func(s *Snapshot) { s.Watermark.At = s.Now.Add(-watermarkLife - 1) }, Plan{Mode: full, Reason: ReasonWatermark, ProvesAbsence: true, NoteSeen: true}},
		"full sync due":               {func(s *Snapshot) { s.LastFull.At = s.Now.Add(-24 * time.Hour) }, Plan{Mode: full, Reason: ReasonFullInterval, ProvesAbsence: true, NoteSeen: true}},
		"full sync of the future":     {func(s *Snapshot) { s.LastFull.At = s.Now.Add(1) }, Plan{Mode: full, Reason: ReasonFullInterval, ProvesAbsence: true, NoteSeen: true}},
		"unknown memberships":         {func(s *Snapshot) { s.Posture = true }, Plan{Mode: full, Reason: ReasonMemberships, ProvesAbsence: true, NoteSeen: true}},
		"everything stale":            {func(s *Snapshot) { s.Posture, s.MembershipsKnown, s.EverythingStale = true, true, true }, Plan{Mode: full, Reason: ReasonAffected, ProvesAbsence: true, NoteSeen: true}},
		"many from others":            {func(s *Snapshot) { s.LastRead, s.FromOthers = false, make([]ad.GUID, fromOthersAtMost+1) }, Plan{Mode: full, Reason: ReasonOtherController}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := deltaSnapshot()
			c.change(&s)
			if got := MakePlan(s); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// The names must not change between versions, or each upgrade causes a full sync.
func TestScopeName(t *testing.T) {
	t.Parallel()
	name := func(change func(*Source, *Search, *directory.RootDSE)) string {
		source, search := Source{Base: "DC=a", Scope: directory.Subtree}, Search{}
		root := directory.RootDSE{DefaultNamingContext: "DC=a", DSServiceName: "x", HighestCommittedUSN: 1}
		change(&source, &search, &root)
		return scopeOf(search, source, root)
	}
	seen := map[string]string{}
	for what, change := range map[string]func(*Source, *Search, *directory.RootDSE){
		"nothing":      func(*Source, *Search, *directory.RootDSE) {},
		"base":         func(source *Source, _ *Search, _ *directory.RootDSE) { source.Base = "OU=b,DC=a" },
		"scope":        func(source *Source, _ *Search, _ *directory.RootDSE) { source.Scope = directory.OneLevel },
		"posture":      func(source *Source, _ *Search, _ *directory.RootDSE) { source.Posture = true },
		"user filter":  func(_ *Source, search *Search, _ *directory.RootDSE) { search.UserFilter = "(a=b)" },
		"group filter": func(_ *Source, search *Search, _ *directory.RootDSE) { search.GroupFilter = "(a=b)" },
		"domain":       func(_ *Source, _ *Search, root *directory.RootDSE) { root.DefaultNamingContext = "DC=b" },
	} {
		scope := name(change)
		if other, there := seen[scope]; there {
			t.Errorf("%s and %s have the same name", what, other)
		}
		seen[scope] = what
	}
	for scope, what := range map[string]string{"1f04549e01830dd2affa1b6873c9a83c": "nothing", "a8f13a46f65cc1ffc164cbf70ec5552f": "posture"} {
		if seen[scope] != what {
			t.Errorf("the name of %s has changed: correct only if the version of the map was raised (see identity's TestVersions). Names: %v", what, seen)
		}
	}
}

func TestOtherTargetGetsEverything(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.must(e.Delete(e.user(3)))
	e.options.Target = "elsewhere"
	e.start()
	show := func(asset identity.Asset, _ bool) {
		if asset.Deleted {
			t.Errorf("%s is deleted where it never was", asset.Name)
		}
	}
	for _, forced := range []bool{true, false} {
		run := e.run(Mode{DryRun: true, Full: forced, Show: show}, state.Run{Mode: full, Result: Processed})
		if run.Changed != 19 {
			t.Errorf("dry run %+v", run)
		}
	}
	if reason := e.planned(); reason != ReasonNewTarget {
		t.Errorf("reason %s", reason)
	}
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 19})
	if lines := e.log.With(MsgTargetChanged); len(lines) != 1 || lines[0].Text("target") != "elsewhere" {
		t.Errorf("log %v", lines)
	}
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
}

func TestRestoredController(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		restoration domaincontroller.Restoration
		reason      string
		first, then int // deletions. Absence proves nothing on a controller that is new, a tombstone does.
	}{
		"from a backup":             {domaincontroller.Restoration{Back: 500}, ReasonNewController, 0, 1},
		"from a snapshot":           {domaincontroller.Restoration{Back: 500, SameInvocation: true}, ReasonUSN, 1, 0},
		"new invocation ID, no gap": {domaincontroller.Restoration{}, ReasonNewController, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 30)
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
			e.Restore(c.restoration)
			e.must(e.Modify(e.user(1), "title", "x"))
			e.must(e.Delete(e.user(2)))
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 1, Deleted: c.first})
			if reason := e.planned(); reason != c.reason {
				t.Errorf("reason %s, want %s", reason, c.reason)
			}
			e.must(e.Modify(e.user(3), "title", "x"))
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: c.then})
			e.expectConverged()
		})
	}
}

// A watermark or full sync in the future was recorded under a wrong clock.
func TestAgeForcesFullSync(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(e *env)
		reason string
	}{
		"old watermark": {func(e *env) {
			e.clock.Advance(watermarkLife)
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
			e.clock.Advance(watermarkLife + time.Second)
		}, ReasonWatermark},
		"old full sync": {func(e *env) {
			for range 13 {
				e.clock.Advance(28 * 24 * time.Hour)
				e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
			}
			e.clock.Advance(24 * time.Hour)
		}, ReasonFullInterval},
		"watermark in the future": {func(e *env) {
			e.clock.Advance(2 * time.Hour)
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
			e.clock.Advance(-time.Hour) // after the full sync
		}, ReasonWatermark},
		"full sync in the future": {func(e *env) {
			last, err := e.store.LastFullSync()
			e.must(err)
			last.At = last.At.Add(time.Hour)
			e.must(e.store.Advance(state.Progress{FullSync: &last, InvocationID: ad.InvocationID(e.InvocationID())}))
		}, ReasonFullInterval},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{}, 3)
			e.options.FullInterval = 365 * 24 * time.Hour
			e.start()
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			c.change(e)
			e.run(Mode{}, state.Run{Mode: full, Result: Processed})
			if reason := e.planned(); reason != c.reason {
				t.Errorf("reason %s, want %s", reason, c.reason)
			}
		})
	}
}

func TestUnreadableInvocationIDForcesFullSyncs(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	e.replaceInRequests("invocationId", "invocationXX")
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.must(e.Delete(e.user(1)))
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	if lines := e.log.With(MsgInvocationIDUnreadable); len(lines) != 2 {
		t.Errorf("log %v", lines)
	}
	if mark, err := e.store.Watermark(ad.InvocationID{}); err != nil || mark != (state.Watermark{}) {
		t.Errorf("watermark %+v, error %v", mark, err)
	}
}
