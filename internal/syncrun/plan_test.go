package syncrun

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// After a change of the scope, absence is proof in the second full sync only. Until then, the
// deletions are undecided.
func TestScopeChange(t *testing.T) {
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
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
			for n := range 5 {
				e.must(e.Modify(e.user(n), "title", "Engineer"))
				e.must(e.Move(e.user(n), "OU=Inner,"+e.base))
			}
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
			base := e.base
			change(e)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Undecided: 15})
			if reason := e.fullSyncReason(); reason != ReasonScope {
				t.Errorf("reason %s", reason)
			}
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Undecided: 15})
			e.expectUndecided(UndecidedScope, 15)
			e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 15})
			e.base, e.options.Search.UserFilter = base, ""
			e.setConsole()
			e.start()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 15})
			e.expectConverged()
		})
	}
}

// The watermark of a controller and the last full sync, perhaps of another controller, must
// both have the current scope.
func TestScopeChangeOnAnotherController(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	first, lagging := e.Port, e.newReplica(domaincontroller.Options{ReadsDeleted: true})
	staff := e.base
	fullSync := func(port int, base string, uploaded int) {
		t.Helper()
		e.base = base
		e.connectTo(port)
		if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != full || run.Uploaded != uploaded || run.Deleted != 0 {
			t.Errorf("run: %s, error %v", brief(run), err)
		}
	}
	for _, dn := range []string{"CN=a," + staff, "CN=b,OU=Inner," + staff} {
		e.AddUser(dn)
		lagging.AddUser(dn)
	}
	e.AddUser("CN=c," + staff) // not replicated yet
	e.exceedOverlap()
	fullSync(first, "OU=Inner,"+staff, 1)
	fullSync(lagging.Port, staff, 1)
	fullSync(first, staff, 1) // c: its USN is below the watermark
	e.expectConverged()
	fullSync(lagging.Port, "OU=Inner,"+staff, 0)
	fullSync(first, staff, 0)
}

// deltaSnapshot returns a snapshot for which a delta sync is sufficient.
func deltaSnapshot() Snapshot {
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	full := state.FullSync{Scope: "s", At: now.Add(-time.Hour)}
	return Snapshot{
		Now: now, DirectoryNow: now, FullInterval: 24 * time.Hour, View: state.View{InvocationID: ad.InvocationID{1}, Scope: "s"}, DeltaSupported: true, HighestUSN: 5000,
		SameTarget: true, IndexSize: 40, LastFull: full,
		Controller: state.Controller{Watermark: state.Watermark{USN: 4000, Scope: "s", At: now.Add(-10 * time.Minute), Run: 7}, LastFull: full},
	}
}

func TestMakePlan(t *testing.T) {
	t.Parallel()
	fullFor := func(reason string) Plan { return Plan{Mode: full, Reason: reason, TrackSeen: true} }
	cases := map[string]struct {
		change func(*Snapshot)
		want   Plan
	}{
		"delta":                    {func(*Snapshot) {}, Plan{Mode: delta, SinceUSN: 3801, TrackSeen: true}},
		"delta, empty index":       {func(s *Snapshot) { s.IndexSize = 0 }, Plan{Mode: delta, SinceUSN: 3801, TrackSeen: true}},
		"delta near the beginning": {func(s *Snapshot) { s.Controller.Watermark.USN = 100 }, Plan{Mode: delta, SinceUSN: 0, TrackSeen: true}},
		"delta after another view": {func(s *Snapshot) { s.OtherViews = make([]ad.GUID, maxReread) }, Plan{Mode: delta, SinceUSN: 3801, TrackSeen: true}},
		"delta with posture":       {func(s *Snapshot) { s.Posture, s.MembershipsStored = true, true }, Plan{Mode: delta, SinceUSN: 3801, TrackSeen: true}},

		"requested":                {func(s *Snapshot) { s.Full = true }, fullFor(ReasonRequested)},
		"release":                  {func(s *Snapshot) { s.ReleaseHeld = true }, fullFor(ReasonRelease)},
		"not a domain controller":  {func(s *Snapshot) { s.DeltaSupported = false }, fullFor(ReasonDeltaUnsupported)},
		"no invocation ID":         {func(s *Snapshot) { s.DeltaSupported, s.View.Unknown = false, true }, Plan{Mode: full, Reason: ReasonInvocationID, Doubt: UndecidedInvocationID, TrackSeen: true}},
		"other target":             {func(s *Snapshot) { s.SameTarget, s.IndexSize = false, 0 }, Plan{Mode: full, Reason: ReasonNewTarget}},
		"first run":                {func(s *Snapshot) { s.Controller, s.LastFull, s.IndexSize = state.Controller{}, state.FullSync{}, 0 }, Plan{Mode: full, Reason: ReasonFirst}},
		"reinstalled controller":   {func(s *Snapshot) { s.Controller, s.Reinstalled = state.Controller{}, true }, fullFor(ReasonReinstalled)},
		"after a rollback":         {func(s *Snapshot) { s.Controller = state.Controller{Rollbacks: 1} }, fullFor(ReasonUSN)},
		"new controller":           {func(s *Snapshot) { s.Controller = state.Controller{} }, fullFor(ReasonNewController)},
		"scope of the watermark":   {func(s *Snapshot) { s.Controller.Watermark.Scope = "t" }, fullFor(ReasonScope)},
		"scope of last full sync":  {func(s *Snapshot) { s.LastFull.Scope = "t" }, fullFor(ReasonScope)},
		"USN decreased":            {func(s *Snapshot) { s.HighestUSN, s.USNDecreased = 3999, true }, Plan{Mode: full, Reason: ReasonUSN, Doubt: UndecidedRollback, TrackSeen: true}},
		"watermark in the future":  {func(s *Snapshot) { s.Controller.Watermark.At = s.Now.Add(1) }, fullFor(ReasonWatermark)},
		"old watermark":            {func(s *Snapshot) { s.Controller.Watermark.At = s.Now.Add(-watermarkLife - 1) }, fullFor(ReasonWatermark)},
		"full sync due":            {func(s *Snapshot) { s.LastFull.At = s.Now.Add(-24 * time.Hour) }, fullFor(ReasonFullInterval)},
		"full sync in the future":  {func(s *Snapshot) { s.LastFull.At = s.Now.Add(1) }, fullFor(ReasonFullInterval)},
		"clock set back a little":  {func(s *Snapshot) { s.LeadingClock = s.DirectoryNow.Add(maxClockLead) }, Plan{Mode: delta, SinceUSN: 3801, TrackSeen: true}},
		"clock set back":           {func(s *Snapshot) { s.LeadingClock = s.DirectoryNow.Add(maxClockLead + 1) }, fullFor(ReasonClock)},
		"memberships not stored":   {func(s *Snapshot) { s.Posture = true }, fullFor(ReasonMemberships)},
		"all objects to reread":    {func(s *Snapshot) { s.Posture, s.MembershipsStored, s.RereadAll = true, true, true }, fullFor(ReasonAffected)},
		"many under another view":  {func(s *Snapshot) { s.OtherViews = make([]ad.GUID, maxReread+1) }, fullFor(ReasonOtherViews)},
		"requested, USN decreased": {func(s *Snapshot) { s.Full, s.USNDecreased = true, true }, Plan{Mode: full, Reason: ReasonRequested, Doubt: UndecidedRollback, TrackSeen: true}},
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

// TestScopeID checks that each part of the scope changes the identifier, and that the identifier
// is the same in each version of the program. It changes only with identity.Version or
// identity.PostureVersion: a changed identifier causes a full sync that deletes nothing.
func TestScopeID(t *testing.T) {
	t.Parallel()
	id := func(change func(*Source, *SearchOptions, *directory.RootDSE)) string {
		source, search := Source{Base: "DC=a", Scope: directory.Subtree}, SearchOptions{}
		root := directory.RootDSE{DefaultNamingContext: "DC=a", DSServiceName: "x", HighestCommittedUSN: 1}
		change(&source, &search, &root)
		return scopeID(search, source, root)
	}
	seen := map[string]string{}
	for name, change := range map[string]func(*Source, *SearchOptions, *directory.RootDSE){
		"nothing":      func(*Source, *SearchOptions, *directory.RootDSE) {},
		"base":         func(source *Source, _ *SearchOptions, _ *directory.RootDSE) { source.Base = "OU=b,DC=a" },
		"scope":        func(source *Source, _ *SearchOptions, _ *directory.RootDSE) { source.Scope = directory.OneLevel },
		"posture":      func(source *Source, _ *SearchOptions, _ *directory.RootDSE) { source.Posture = true },
		"user filter":  func(_ *Source, search *SearchOptions, _ *directory.RootDSE) { search.UserFilter = "(a=b)" },
		"group filter": func(_ *Source, search *SearchOptions, _ *directory.RootDSE) { search.GroupFilter = "(a=b)" },
		"domain":       func(_ *Source, _ *SearchOptions, root *directory.RootDSE) { root.DefaultNamingContext = "DC=b" },
	} {
		scope := id(change)
		if other, found := seen[scope]; found {
			t.Errorf("%s and %s have the same identifier", name, other)
		}
		seen[scope] = name
	}
	for scope, name := range map[string]string{"8cef7522e084fbcb9b03a713d5a080f7": "nothing", "1a5ec1128928fda28c4a7ab81cb73b48": "posture"} {
		if seen[scope] != name {
			t.Errorf("the identifier of %q changed; if you increased identity.Version or identity.PostureVersion, replace it in this test. The new identifiers are %v", name, seen)
		}
	}
}

// TestScopeIDOfBase checks which forms of a base DN have the same identifier.
func TestScopeIDOfBase(t *testing.T) {
	t.Parallel()
	const base = `OU=Köln\, Ost,DC=a`
	for name, c := range map[string]struct {
		root directory.RootDSE
		base string
		same bool
	}{
		"same":                   {directory.RootDSE{DSServiceName: "x", HighestCommittedUSN: 1}, base, true},
		"case":                   {directory.RootDSE{DSServiceName: "x", HighestCommittedUSN: 1}, `ou=KÖLN\, OST,dc=A`, true},
		"spaces":                 {directory.RootDSE{DSServiceName: "x", HighestCommittedUSN: 1}, `OU = Köln\, Ost, DC=a`, true},
		"escapes":                {directory.RootDSE{DSServiceName: "x", HighestCommittedUSN: 1}, `OU=K\c3\b6ln\2C Ost,DC=a`, true},
		"another unit":           {directory.RootDSE{DSServiceName: "x", HighestCommittedUSN: 1}, `OU=Köln\, West,DC=a`, false},
		"no domain controller":   {directory.RootDSE{}, base, true},
		"case, no such":          {directory.RootDSE{}, `ou=KÖLN\, OST,dc=A`, false},
		"spaces inside of names": {directory.RootDSE{DSServiceName: "x", HighestCommittedUSN: 1}, `OU=Köln\,  Ost,DC=a`, false},
	} {
		t.Run(name, func(t *testing.T) {
			id := func(base string) string { return scopeID(SearchOptions{}, Source{Base: base}, c.root) }
			if same := id(base) == id(c.base); same != c.same {
				t.Errorf("same identifier: %t, want %t", same, c.same)
			}
		})
	}
}

func TestNewTargetReceivesAllObjects(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.must(e.Delete(e.user(3)))
	e.options.Target = "other target"
	e.start()
	show := func(asset identity.Asset, _ bool) {
		if asset.Deleted {
			t.Errorf("%s deleted at a target that never received it", asset.Name)
		}
	}
	for _, fullSync := range []bool{true, false} {
		run := e.run(RunOptions{DryRun: true, Full: fullSync, Show: show}, state.Run{Mode: full, Result: Processed})
		if run.Changed != 19 {
			t.Errorf("dry run %+v", run)
		}
	}
	if reason := e.fullSyncReason(); reason != ReasonNewTarget {
		t.Errorf("reason %s", reason)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 19})
	if lines := e.log.With(MsgTargetChanged); len(lines) != 1 || lines[0].Text("target") != "other target" {
		t.Errorf("log %v", lines)
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}

// Another profile is another target. A target that was recorded without a profile, by version
// 1.0.0, has that of the configuration.
func TestProfileBelongsToTarget(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20}) // without a profile
	e.options.Profile = "profile 1"
	e.start()
	e.run(RunOptions{DryRun: true}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.options.Profile = "profile 2"
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	if lines := e.log.With(MsgTargetChanged); len(lines) != 1 || lines[0].Text("target") != "target profile 2" {
		t.Errorf("log %v", lines)
	}
}

// A dry run reads a state file of version 1.0.0 without an upgrade.
func TestDryRunOfOlderStateFile(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	packed, err := os.Open("../state/testdata/version-2.db.gz")
	e.must(err)
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	e.must(err)
	content, err := io.ReadAll(unpacked)
	e.must(err)
	dir := t.TempDir()
	e.must(os.WriteFile(filepath.Join(dir, "adconnector.db"), content, 0o600))
	store, err := state.Options{NoSync: true}.OpenReadOnly(dir)
	e.must(err)
	t.Cleanup(func() { store.Close() })
	e.options.Store, e.store = store, store
	e.start()
	if run, err := e.runner.Run(t.Context(), RunOptions{DryRun: true}); err != nil || run.Changed != 3 {
		t.Errorf("%s, error %v", brief(run), err)
	}
}

func TestRestoredController(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		restoration domaincontroller.Restoration
		reason      string
	}{
		"from a backup":             {domaincontroller.Restoration{USNRollback: 500}, ReasonReinstalled},
		"from a snapshot":           {domaincontroller.Restoration{USNRollback: 500, SameInvocation: true}, ReasonUSN},
		"new invocation ID, no gap": {domaincontroller.Restoration{}, ReasonReinstalled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 30)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
			e.Restore(c.restoration)
			e.must(e.Modify(e.user(1), "title", "x"))
			e.must(e.Delete(e.user(2)))
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1, Deleted: 1})
			if reason := e.fullSyncReason(); reason != c.reason {
				t.Errorf("reason %s, want %s", reason, c.reason)
			}
			e.must(e.Modify(e.user(3), "title", "x"))
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
			e.expectConverged()
		})
	}
}

// A watermark or full sync in the future was recorded with a wrong clock.
func TestAgeForcesFullSync(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change func(e *env)
		reason string
	}{
		"old watermark": {func(e *env) {
			e.clock.Advance(watermarkLife)
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			e.clock.Advance(watermarkLife + time.Second)
		}, ReasonWatermark},
		"old full sync": {func(e *env) {
			for range 13 {
				e.clock.Advance(28 * 24 * time.Hour)
				e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			}
			e.clock.Advance(24 * time.Hour)
		}, ReasonFullInterval},
		"watermark in the future": {func(e *env) {
			e.clock.Advance(2 * time.Hour)
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			e.clock.Advance(-time.Hour) // after the full sync
		}, ReasonWatermark},
		"full sync in the future": {func(e *env) {
			e.must(e.store.Advance(state.Progress{
				View: state.View{Unknown: true, Scope: e.controller().LastFull.Scope}, At: e.clock.Now().Add(time.Hour), FullSync: true,
			}))
		}, ReasonFullInterval},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 3)
			e.options.FullInterval = 365 * 24 * time.Hour
			e.start()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			c.change(e)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
			if reason := e.fullSyncReason(); reason != c.reason {
				t.Errorf("reason %s, want %s", reason, c.reason)
			}
		})
	}
}

func TestUnreadableInvocationIDForcesFullSyncs(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	e.replaceInRequests("invocationId", "invocationXX")
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.must(e.Delete(e.user(1)))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	if lines := e.log.With(MsgInvocationIDUnreadable); len(lines) != 2 {
		t.Errorf("log %v", lines)
	}
	if controller, err := e.store.Controller(ad.InvocationID{}); err != nil || controller != (state.Controller{}) {
		t.Errorf("controller %+v, error %v", controller, err)
	}
}

// TestProgress checks that a server without delta syncs leaves no watermark.
func TestProgress(t *testing.T) {
	t.Parallel()
	for _, supported := range []bool{true, false} {
		p := Plan{Mode: full}.progress(Snapshot{Posture: true, DeltaSupported: supported, HighestUSN: 7})
		if got := p.USN == 7; got != supported || !p.FullSync || !p.ClearStale || p.DropGraph {
			t.Errorf("supported %t: %+v", supported, p)
		}
	}
}
