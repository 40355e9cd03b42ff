package syncrun

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// newGuardEnv returns an environment with 40 users after a full sync.
func newGuardEnv(t *testing.T, o domaincontroller.Options, guard Guard) *env {
	t.Helper()
	e := newDomainEnv(t, o, 40)
	e.options.Guard = guard
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	return e
}

// forEachProof runs a test twice: with a delta sync that finds tombstones, and with a full
// sync that finds objects missing.
func forEachProof(t *testing.T, test func(t *testing.T, o domaincontroller.Options, options RunOptions, mode string)) {
	t.Run("tombstones", func(t *testing.T) {
		t.Parallel()
		test(t, domaincontroller.Options{ReadsDeleted: true}, RunOptions{}, delta)
	})
	t.Run("absence", func(t *testing.T) {
		t.Parallel()
		test(t, domaincontroller.Options{}, RunOptions{Full: true}, full)
	})
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for option, guard := range map[string]Guard{
		"sync.max-deletes (4)":          {MaxDeletes: 4, MaxDeletesPercent: 100},
		"sync.max-deletes-percent (14)": {MaxDeletes: 500, MaxDeletesPercent: 14},
	} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			forEachProof(t, func(t *testing.T, o domaincontroller.Options, options RunOptions, mode string) {
				e := newGuardEnv(t, o, guard)
				deleted := e.deleteUsers(6)
				e.run(options, state.Run{Mode: mode, Result: Held, Held: 6})
				lines := e.log.With(MsgDeletionsHeld)
				if len(lines) != 1 || !strings.Contains(lines[0].Text("reason"), option) || lines[0].Number("held") != 6 {
					t.Errorf("log %v", lines)
				}
				if lines := e.log.With(MsgDeletionHeld); len(lines) != 6 {
					t.Errorf("log %v", lines)
				}
				if n := e.heldDeletions(); n != 6 || e.status(deleted[0]) != "ACTIVE" {
					t.Errorf("%d held, status %v", n, e.status(deleted[0]))
				}
			})
		})
	}
}

func TestHeldDeletionsStayHeld(t *testing.T) {
	t.Parallel()
	forEachProof(t, func(t *testing.T, o domaincontroller.Options, options RunOptions, mode string) {
		e := newGuardEnv(t, o, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
		e.deleteUsers(5)
		e.run(options, state.Run{Mode: mode, Result: Held, Held: 5})
		e.restart()
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Held: 5})
		e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
		e.clock.Advance(60 * 24 * time.Hour) // the tombstones may have expired
		e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Held: 5})
	})
}

func TestHeldDeletionsBelowLimitStayHeld(t *testing.T) {
	t.Parallel()
	e := newGuardEnv(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
	deleted := e.deleteUsers(5)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Held: 5})
	e.must(e.Undelete(deleted[0]))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Held: 4, Uploaded: 1})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 4})
	e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 4})
	e.expectConverged()
}

func TestReleaseDeletesObjectsStillMissing(t *testing.T) {
	t.Parallel()
	forEachProof(t, func(t *testing.T, o domaincontroller.Options, options RunOptions, mode string) {
		e := newGuardEnv(t, o, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
		deleted := e.deleteUsers(5)
		e.run(options, state.Run{Mode: mode, Result: Held, Held: 5})
		e.run(RunOptions{DryRun: true, AllowDeletes: true}, state.Run{Mode: full, Result: Processed})
		e.must(e.Undelete(deleted[4]))
		e.must(e.Undelete(deleted[3]))
		e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 3, Uploaded: 2})
		e.expectConverged()
		if n := e.heldDeletions(); n != 0 {
			t.Errorf("%d held", n)
		}
	})
}

func TestReleaseHoldsNewDeletionsAboveLimit(t *testing.T) {
	t.Parallel()
	e := newGuardEnv(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 1, MaxDeletesPercent: 100})
	e.deleteUsers(2)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Held: 2})
	for n := 2; n < 40; n++ {
		e.must(e.Delete(e.user(n)))
	}
	e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Held, Deleted: 2, Held: 38})
	e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 38})
	e.expectConverged()
}

func TestReleaseIncludesNewDeletionsWithinLimit(t *testing.T) {
	t.Parallel()
	e := newGuardEnv(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 2, MaxDeletesPercent: 100})
	e.deleteUsers(3)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Held: 3})
	e.must(e.Delete(e.user(3)))
	e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 4})
	e.expectConverged()
}

func TestReleasedDeletionsStayHeldUntilAcknowledged(t *testing.T) {
	t.Parallel()
	e := newGuardEnv(t, domaincontroller.Options{}, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
	e.deleteUsers(5)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	e.refusedRun(RunOptions{AllowDeletes: true})
	if n := e.heldDeletions(); n != 5 {
		t.Errorf("%d held", n)
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 5})
	e.expectConverged()
}

// candidates returns candidates with the numbers from up to, but excluding, to.
func candidates(from, to int, with Candidate) (list []Candidate) {
	for n := from; n < to; n++ {
		c := with
		c.GUID, c.SID = ad.GUID{byte(n)}, ad.SID{1, 1, 0, 0, 0, 0, 0, 5, byte(n), 0, 0, 0}
		list = append(list, c)
	}
	return list
}

var (
	shownHere  = state.Sighting{Here: true, HereInScope: true}
	controllA  = ad.InvocationID{0xa}
	controllB  = ad.InvocationID{0xb}
	controllC  = ad.InvocationID{0xc}
	shownByA   = state.Sighting{Elsewhere: []ad.InvocationID{controllA}}
	absent     = Candidate{Sighting: shownHere}
	tombstone  = Candidate{Sighting: shownHere, Tombstone: true}
	heldBefore = Candidate{Sighting: shownHere, HeldBefore: true}
)

func TestDecideDeletions(t *testing.T) {
	t.Parallel()
	objects := func(from, to int) (list []identity.Object) {
		for _, c := range candidates(from, to, Candidate{}) {
			list = append(list, c.Object)
		}
		return list
	}
	type counts struct{ send, held, keep, undecided int }
	cases := map[string]struct {
		evidence Evidence
		guard    Guard
		want     counts
		reason   string // a part of it
	}{
		"nothing":                     {Evidence{}, Guard{0, 0}, counts{}, ""},
		"at the limit":                {Evidence{Candidates: candidates(0, 4, tombstone)}, Guard{4, 100}, counts{send: 4}, ""},
		"one above the limit":         {Evidence{Candidates: candidates(0, 5, tombstone)}, Guard{4, 100}, counts{held: 5, keep: 5}, "sync.max-deletes"},
		"at the percentage":           {Evidence{Candidates: candidates(0, 4, tombstone)}, Guard{500, 10}, counts{send: 4}, ""},
		"just above the percentage":   {Evidence{Candidates: candidates(0, 41, tombstone), IndexSize: 405}, Guard{500, 10}, counts{held: 41, keep: 41}, "sync.max-deletes-percent"},
		"all objects":                 {Evidence{Candidates: candidates(0, 40, tombstone)}, Guard{500, 100}, counts{send: 40}, ""},
		"limit 0":                     {Evidence{Candidates: candidates(0, 1, tombstone)}, Guard{0, 100}, counts{held: 1, keep: 1}, "sync.max-deletes"},
		"few in a small directory":    {Evidence{Candidates: candidates(0, 5, tombstone), IndexSize: 8}, Guard{500, 10}, counts{send: 5}, ""},
		"six in a small directory":    {Evidence{Candidates: candidates(0, 6, tombstone), IndexSize: 8}, Guard{500, 10}, counts{held: 6, keep: 6}, "sync.max-deletes-percent"},
		"few above sync.max-deletes":  {Evidence{Candidates: candidates(0, 5, tombstone), IndexSize: 8}, Guard{4, 10}, counts{held: 5, keep: 5}, "sync.max-deletes (4)"},
		"few, and nothing found":      {Evidence{Candidates: candidates(0, 5, absent), IndexSize: 5, FullSync: true, NothingFound: true}, Guard{500, 10}, counts{held: 5, keep: 5}, "no objects found"},
		"percentage 0":                {Evidence{Candidates: candidates(0, 1, tombstone)}, Guard{500, 0}, counts{held: 1, keep: 1}, "sync.max-deletes-percent"},
		"full sync without an object": {Evidence{Candidates: candidates(0, 1, absent), FullSync: true, NothingFound: true}, Guard{500, 100}, counts{held: 1, keep: 1}, "no objects found"},
		"nothing found, nothing lost": {Evidence{FullSync: true, NothingFound: true}, Guard{500, 100}, counts{}, ""},

		"held before, below the limit":             {Evidence{Candidates: candidates(0, 4, heldBefore)}, Guard{4, 100}, counts{held: 4, keep: 4}, "4 deletions were held"},
		"held before, with new ones":               {Evidence{Candidates: slices.Concat(candidates(0, 4, heldBefore), candidates(4, 5, tombstone))}, Guard{4, 100}, counts{held: 5, keep: 5}, "4 deletions were held"},
		"released":                                 {Evidence{Candidates: candidates(0, 5, heldBefore), FullSync: true, Release: true}, Guard{4, 100}, counts{send: 5, keep: 5}, ""},
		"released, new ones in the limit":          {Evidence{Candidates: slices.Concat(candidates(0, 5, heldBefore), candidates(5, 6, absent)), FullSync: true, Release: true}, Guard{4, 100}, counts{send: 6, keep: 5}, ""},
		"released, new ones above it":              {Evidence{Candidates: slices.Concat(candidates(0, 5, heldBefore), candidates(5, 10, absent)), FullSync: true, Release: true}, Guard{4, 100}, counts{send: 5, held: 5, keep: 10}, "sync.max-deletes"},
		"held on another controller, absent here":  {Evidence{Candidates: candidates(0, 2, Candidate{HeldBefore: true}), FullSync: true, Release: true}, Guard{4, 100}, counts{send: 2, keep: 2}, ""},
		"posture disabled, any guard":              {Evidence{DisabledPosture: objects(0, 30)}, Guard{0, 0}, counts{send: 30}, ""},
		"posture disabled, others above the limit": {Evidence{Candidates: candidates(30, 31, tombstone), DisabledPosture: objects(0, 30)}, Guard{0, 0}, counts{send: 30, held: 1, keep: 1}, "sync.max-deletes"},
		"released, but in doubt":                   {Evidence{Candidates: slices.Concat(candidates(0, 2, heldBefore), candidates(2, 3, Candidate{Sighting: shownHere, HeldBefore: true, Tombstone: true})), FullSync: true, Release: true, Doubt: UndecidedUnreadableGUID}, Guard{4, 100}, counts{send: 1, held: 2, keep: 3}, "entries without objectGUID"},
		"undecided, others proven":                 {Evidence{Candidates: slices.Concat(candidates(0, 2, Candidate{}), candidates(2, 5, tombstone))}, Guard{4, 100}, counts{send: 3, undecided: 2}, ""},
		"undecided do not count for the guard":     {Evidence{Candidates: slices.Concat(candidates(0, 20, Candidate{}), candidates(20, 21, tombstone))}, Guard{1, 100}, counts{send: 1, undecided: 20}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.evidence.IndexSize = cmp.Or(c.evidence.IndexSize, 40)
			d := DecideDeletions(c.evidence, c.guard)
			keep := d.KeepHeld
			slices.SortFunc(keep, compareGUIDs)
			if got := (counts{len(d.Send), len(d.Held), len(slices.Compact(keep)), len(objectsOf(d.Undecided))}); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if !strings.Contains(d.Reason, c.reason) || (d.Reason == "") != (c.reason == "") {
				t.Errorf("reason %q, want %q", d.Reason, c.reason)
			}
			for _, object := range d.Send {
				if slices.Contains(guidsOf(d.Held), object.GUID) {
					t.Errorf("%s is sent and held", object.GUID)
				}
			}
		})
	}
}

// TestProof checks which evidence about one missing object proves that it is deleted.
func TestProof(t *testing.T) {
	t.Parallel()
	const deleted, ignored = "deleted", "ignored"
	undecided := func(reason state.UndecidedReason) string { return "undecided: " + string(reason) }
	fullSync := Evidence{FullSync: true}
	release := func(controllers ...ad.InvocationID) Evidence {
		return Evidence{FullSync: true, Release: true, Controllers: controllers}
	}
	inUnreadable := func(before state.UndecidedReason) Candidate {
		return Candidate{Sighting: shownHere, InUnreadable: true, Undecided: before}
	}
	beforeRollback := state.Sighting{BeforeRollback: true}
	cases := map[string]struct {
		evidence  Evidence
		candidate Candidate
		want      string
	}{
		"absent, shown here":                                          {fullSync, absent, deleted},
		"absent, shown here and elsewhere":                            {fullSync, Candidate{Sighting: state.Sighting{Here: true, HereInScope: true, Elsewhere: shownByA.Elsewhere}}, deleted},
		"absent, shown here in another scope":                         {fullSync, Candidate{Sighting: state.Sighting{Here: true}}, undecided(UndecidedScope)},
		"absent, shown elsewhere only":                                {fullSync, Candidate{Sighting: shownByA}, undecided(UndecidedNotShown)},
		"absent, shown nowhere":                                       {fullSync, Candidate{}, undecided(UndecidedNotShown)},
		"release, outside of the scope here":                          {release(controllB), Candidate{Sighting: shownByA, Outside: true, Undecided: UndecidedOutside}, deleted},
		"absent, outside of the scope here":                           {fullSync, Candidate{Sighting: shownByA, Outside: true}, undecided(UndecidedOutside)},
		"absent, shown before a rollback":                             {fullSync, Candidate{Sighting: beforeRollback}, undecided(UndecidedRollback)},
		"absent, undecided by a rollback":                             {Evidence{FullSync: true, RolledBack: true}, Candidate{Undecided: UndecidedRollback}, undecided(UndecidedRollback)},
		"absent, undecided by a rollback of another controller":       {fullSync, Candidate{Undecided: UndecidedRollback}, undecided(UndecidedNotShown)},
		"absent, invocation ID unreadable":                            {Evidence{FullSync: true, Doubt: UndecidedInvocationID}, absent, undecided(UndecidedInvocationID)},
		"absent, USN decreased":                                       {Evidence{FullSync: true, Doubt: UndecidedRollback}, absent, undecided(UndecidedRollback)},
		"absent, entries without GUID":                                {Evidence{FullSync: true, Doubt: UndecidedUnreadableGUID}, absent, undecided(UndecidedUnreadableGUID)},
		"tombstone":                                                   {Evidence{}, tombstone, deleted},
		"tombstone, never shown here":                                 {Evidence{}, Candidate{Tombstone: true}, deleted},
		"tombstone, invocation ID unreadable":                         {Evidence{FullSync: true, Doubt: UndecidedInvocationID}, tombstone, deleted},
		"tombstone, undecided before":                                 {fullSync, Candidate{Tombstone: true, Undecided: UndecidedNotShown}, deleted},
		"delta, shown here, no tombstone":                             {Evidence{}, absent, ignored},
		"delta, shown here, undecided before":                         {Evidence{}, Candidate{Sighting: shownHere, Undecided: UndecidedUnreadableGUID}, undecided(UndecidedUnreadableGUID)},
		"delta, not shown here":                                       {Evidence{}, Candidate{Sighting: shownByA}, undecided(UndecidedNotShown)},
		"release, not seen by the operator":                           {release(controllB), Candidate{Sighting: shownByA}, undecided(UndecidedNotShown)},
		"release, controller is left":                                 {release(controllA, controllB), Candidate{Sighting: shownByA, Undecided: UndecidedNotShown}, undecided(UndecidedNotShown)},
		"release, controller is gone":                                 {release(controllB), Candidate{Sighting: shownByA, Undecided: UndecidedNotShown}, deleted},
		"release, controllers unknown":                                {release(), Candidate{Sighting: shownByA, Undecided: UndecidedNotShown}, undecided(UndecidedNotShown)},
		"release, controllers that showed it unknown":                 {release(controllB, controllA), Candidate{Undecided: UndecidedNotShown}, undecided(UndecidedNotShown)},
		"release, one of those that showed it unknown":                {release(controllB, controllC), Candidate{Sighting: state.Sighting{Unknown: true, Elsewhere: shownByA.Elsewhere}, Undecided: UndecidedNotShown}, undecided(UndecidedNotShown)},
		"release, unknown, only controller of the domain":             {release(controllB), Candidate{Undecided: UndecidedNotShown}, deleted},
		"release, outside, but shown for another reason":              {release(controllB), Candidate{Sighting: shownByA, Outside: true, Undecided: UndecidedNotShown}, undecided(UndecidedOutside)},
		"release, rollback":                                           {release(controllB), Candidate{Sighting: beforeRollback, Undecided: UndecidedRollback}, deleted},
		"release, rollback, another is left":                          {release(controllA, controllB), Candidate{Sighting: beforeRollback, Undecided: UndecidedRollback}, undecided(UndecidedRollback)},
		"release, rollback, unknown":                                  {release(), Candidate{Sighting: beforeRollback, Undecided: UndecidedRollback}, undecided(UndecidedRollback)},
		"release, invocation ID unreadable":                           {Evidence{FullSync: true, Release: true, Controllers: []ad.InvocationID{controllB}, Doubt: UndecidedInvocationID}, Candidate{Sighting: shownByA, Undecided: UndecidedInvocationID}, undecided(UndecidedInvocationID)},
		"release, entries without GUID":                               {Evidence{FullSync: true, Release: true, Controllers: []ad.InvocationID{controllB}, Doubt: UndecidedUnreadableGUID}, Candidate{Sighting: shownByA, Undecided: UndecidedUnreadableGUID}, undecided(UndecidedUnreadableGUID)},
		"absent, may be in a unreadable container":                    {fullSync, inUnreadable(""), undecided(UndecidedContainers)},
		"absent, not in scope, and unreadable container":              {fullSync, Candidate{Sighting: state.Sighting{Here: true}, InUnreadable: true}, undecided(UndecidedScope)},
		"tombstone, unreadable container":                             {fullSync, Candidate{Sighting: shownHere, Tombstone: true, InUnreadable: true}, deleted},
		"delta, undecided by a unreadable container":                  {Evidence{}, Candidate{Sighting: shownHere, Undecided: UndecidedContainers}, undecided(UndecidedContainers)},
		"no unreadable container any more":                            {fullSync, Candidate{Sighting: shownHere, Undecided: UndecidedContainers}, deleted},
		"release, unreadable container":                               {release(), inUnreadable(UndecidedContainers), deleted},
		"release, unreadable container not seen by the operator":      {release(), inUnreadable(""), undecided(UndecidedContainers)},
		"release, unreadable container, undecided for another reason": {release(), inUnreadable(UndecidedNotShown), undecided(UndecidedContainers)},
		"no release, controller is gone":                              {fullSync, Candidate{Sighting: shownByA, Undecided: UndecidedNotShown}, undecided(UndecidedNotShown)},
		"resolved: shown here in the meantime":                        {fullSync, Candidate{Sighting: shownHere, Undecided: UndecidedNotShown}, deleted},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.evidence.Candidates, c.evidence.IndexSize = []Candidate{c.candidate}, 40
			d := DecideDeletions(c.evidence, Guard{500, 100})
			got := ignored
			switch {
			case len(d.Send) == 1:
				got = deleted
			case len(d.Undecided) == 1:
				got = undecided(d.Undecided[0].Reason)
				if d.Undecided[0].Remedy == "" {
					t.Error("no remedy")
				}
			}
			if got != c.want || len(d.Held) > 0 {
				t.Errorf("%s, want %s (%+v)", got, c.want, d)
			}
		})
	}
}

// Objects added in the same run do not raise the limit.
func TestGuardPercentageIsOfIndexedObjects(t *testing.T) {
	t.Parallel()
	e := newGuardEnv(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 500, MaxDeletesPercent: 10})
	e.options.Upload.BatchSize = 10
	e.start()
	e.deleteUsers(8)
	for n := range 200 {
		e.AddUser(e.user(100 + n))
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Uploaded: 200, Held: 8})
}

func TestEmptyFullSyncDeletesNothing(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	for n := range 5 {
		e.moveOut(n)
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	for n := range 5 {
		e.moveBack(n)
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
}

// The connection is lost on the last page of users, after groups were read. The remaining
// users must not count as missing.
func TestIncompleteSearchDeletesNothing(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.options.Guard.MaxDeletesPercent = 100
	e.start()
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(150), fakeldap.Groups(3)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 153})
	e.ldap.BeforeEntry = func(n int) bool { return n < 140 }
	if run, _ := e.failedRun(RunOptions{}); run.Deleted+run.Held != 0 {
		t.Errorf("run %+v", run)
	}
	e.ldap.BeforeEntry = nil
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
}

// A paged search may miss an object that is moved during the search. Each missing object is
// read again before it is deleted.
func TestObjectMovedDuringFullSyncIsNotDeleted(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		moved, limit int
		held         bool
	}{
		"one":           {moved: 1, limit: 500},
		"released ones": {moved: guidsPerFilter + 5, limit: 3, held: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, guidsPerFilter+10)
			e.options.Guard.MaxDeletes = c.limit
			e.start()
			e.runner.maxReread = c.limit // a release is not limited
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: guidsPerFilter + 10})
			for n := range c.moved {
				e.moveOut(n)
			}
			if c.held {
				e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: c.moved})
			}
			e.afterUsersRead(func() {
				for n := range c.moved {
					e.moveBack(n)
				}
			})
			e.run(RunOptions{Full: true, AllowDeletes: c.held}, state.Run{Mode: full, Result: Processed})
			e.expectConverged()
		})
	}
}

// Held deletions stay held when another controller or another scope is read. If some of the
// objects reappear, the others stay held, even if they are fewer than the limit. They can be
// released there: their deletion was proven before.
func TestHeldDeletionsStayHeldUnderAnotherView(t *testing.T) {
	t.Parallel()
	newHeldEnv := func(t *testing.T) *env {
		e := newDomainEnv(t, domaincontroller.Options{}, 20)
		e.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 100}
		e.start()
		e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
		for n := range 5 {
			e.moveOut(n)
		}
		e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
		return e
	}
	expectTwoHeld := func(e *env) {
		e.t.Helper()
		for n := range 3 {
			e.moveBack(n)
		}
		for range 2 {
			run, err := e.runner.Run(e.t.Context(), RunOptions{Full: true})
			if err != nil || run.Held != 2 || run.Deleted != 0 || run.Result != Held {
				e.t.Fatalf("run %+v, error %v", run, err)
			}
		}
		e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 2})
		e.expectConverged()
	}
	t.Run("another controller", func(t *testing.T) {
		t.Parallel()
		e := newHeldEnv(t)
		e.Restore(domaincontroller.Restoration{})
		e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Held: 5})
		expectTwoHeld(e)
	})
	t.Run("another scope", func(t *testing.T) {
		t.Parallel()
		e := newHeldEnv(t)
		e.options.Search.UserFilter = "(objectClass=user)"
		e.start()
		e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Held: 5})
		expectTwoHeld(e)
	})
	t.Run("another scope that contains one of them", func(t *testing.T) {
		t.Parallel()
		e := newHeldEnv(t)
		e.moveBack(4)
		e.options.Search.UserFilter = "(objectClass=user)"
		e.start()
		e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Held: 4})
	})
}

// An object that is readable again has not changed.
func TestReadableAgainObjectsAreNotHeld(t *testing.T) {
	t.Parallel()
	const users, limit = 350, guidsPerFilter + 20
	cases := map[string]struct {
		options  RunOptions
		syncMode string
		held     int // of all users: a delta sync does not reread more than the limit, except within the overlap
	}{
		"delta":             {RunOptions{}, delta, users - overlap},
		"release":           {RunOptions{AllowDeletes: true}, full, 0},
		"full sync":         {RunOptions{Full: true}, full, 0},
		"full sync release": {RunOptions{Full: true, AllowDeletes: true}, full, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, users)
			e.options.Guard = Guard{MaxDeletes: limit, MaxDeletesPercent: 100}
			e.start()
			e.runner.maxReread = limit
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: users})
			var guids []ad.GUID
			for _, o := range e.Objects() {
				if strings.HasPrefix(o.DN, "CN=user") {
					guids = append(guids, ad.GUID([]byte(o.First("objectGUID"))))
				}
			}
			e.must(e.store.SetHeldDeletions(guids[:guidsPerFilter], e.clock.Now()))
			e.run(c.options, state.Run{Mode: c.syncMode, Result: Processed})
			if n := e.heldDeletions(); n != 0 {
				t.Errorf("%d held", n)
			}
			e.must(e.store.SetHeldDeletions(guids, e.clock.Now()))
			result := Processed
			if c.held > 0 {
				result = Held
			}
			e.run(c.options, state.Run{Mode: c.syncMode, Result: result, Held: c.held})
			e.expectConverged()
		})
	}
}

func TestEntryWithoutSIDIsNotDeleted(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.options.Guard.MaxDeletesPercent = 100
	e.start()
	e.ldap.Users = fakeldap.Users(20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	delete(e.ldap.Users[7].Attributes, "objectSid")
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial})
}

// The entry without a GUID may be any of the missing objects.
func TestEntryWithoutGUIDPreventsDeletions(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.PlainLDAP = true // a domain controller without a readable invocation ID proves no deletion anyway
	e.options.Guard.MaxDeletesPercent = 100
	e.start()
	users := fakeldap.Users(20)
	e.ldap.Users = users
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	guid := users[8].Attributes["objectGUID"]
	delete(users[8].Attributes, "objectGUID")
	e.ldap.Users = users[:19]
	e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Undecided: 2})
	e.expectUndecided(UndecidedUnreadableGUID, 2)
	users[8].Attributes["objectGUID"] = guid
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
}

func TestDryRunShowsHeldDeletions(t *testing.T) {
	t.Parallel()
	e := newGuardEnv(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
	e.deleteUsers(5)
	var held []string
	show := func(asset identity.Asset, isHeld bool) {
		if !isHeld {
			t.Errorf("%s shown as sent", asset.Name)
		}
		held = append(held, string(asset.Name))
	}
	e.run(RunOptions{DryRun: true, Show: show}, state.Run{Mode: delta, Result: Held, Held: 5})
	slices.Sort(held)
	if want := []string{"user0", "user1", "user2", "user3", "user4"}; !slices.Equal(held, want) {
		t.Errorf("held %q, want %q", held, want)
	}
	if n := e.heldDeletions(); n != 0 {
		t.Errorf("%d recorded as held", n)
	}
}

// TestDeletionsNotRecorded checks that no deletion is sent if the held or undecided ones cannot be
// recorded.
func TestDeletionsNotRecorded(t *testing.T) {
	t.Parallel()
	store, err := state.Options{}.OpenReadOnly(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	proven, other := candidates(0, 1, tombstone)[0], candidates(1, 2, absent)[0]
	for name, d := range map[string]Decision{
		"held":      {Send: []identity.Object{proven.Object}, KeepHeld: []ad.GUID{other.GUID}},
		"undecided": {Send: []identity.Object{proven.Object}, KeepUndecided: []state.Undecided{{GUID: other.GUID, Reason: UndecidedNotShown}}},
	} {
		r := &reader{store: store}
		err := r.applyDeletions(d, sink{add: func(identity.Asset) error {
			t.Errorf("%s: deletion sent", name)
			return nil
		}})
		if fault.ClassOf(err) != fault.Transient {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestSearchTombstones checks that the tombstone of a group proves the deletion of its role, too.
func TestSearchTombstones(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 1)
	deleted, alive := e.GUID(e.addGroup("deleted")), e.GUID(e.addGroup("alive"))
	e.must(e.Delete(e.dn("deleted")))
	opened, err := directory.Connect(t.Context(), e.Directory.Options(directory.LDAP))
	e.must(err)
	defer opened.Close()
	s := &session{Session: opened, lastUsed: time.Now(), idleLimit: 1 << 40}
	guids := []ad.GUID{deleted, identity.RoleGUID(deleted), alive, identity.RoleGUID(alive)}
	var evidence Evidence
	for _, guid := range guids {
		evidence.Candidates = append(evidence.Candidates, Candidate{Object: identity.Object{GUID: guid}})
	}
	e.must(evidence.searchTombstones(t.Context(), guids, e.runner.newTombstoneSearch(e.runner.newRunInfo(RunOptions{}), s, Plan{Mode: full}, len(guids))))
	for n, c := range evidence.Candidates {
		if c.Tombstone != (n < 2) {
			t.Errorf("candidate %d: tombstone %t", n, c.Tombstone)
		}
	}
}
