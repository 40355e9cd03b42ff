package syncrun

import (
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// newGuarded returns an environment with 40 users after a full sync.
func newGuarded(t *testing.T, o domaincontroller.Options, guard Guard) *env {
	t.Helper()
	e := newDomain(t, o, 40)
	e.options.Guard = guard
	e.start()
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	return e
}

// eachProof runs a test with deletions that tombstones prove to a delta, and with those that
// absence proves to a full sync.
func eachProof(t *testing.T, test func(t *testing.T, o domaincontroller.Options, mode Mode, kind string)) {
	t.Run("tombstones", func(t *testing.T) {
		t.Parallel()
		test(t, domaincontroller.Options{ReadsDeleted: true}, Mode{}, delta)
	})
	t.Run("absence", func(t *testing.T) {
		t.Parallel()
		test(t, domaincontroller.Options{}, Mode{Full: true}, full)
	})
}

func TestGuard(t *testing.T) {
	t.Parallel()
	for option, guard := range map[string]Guard{
		"sync.max-deletes (4)":          {MaxDeletes: 4, MaxDeletesPercent: 100},
		"sync.max-deletes-percent (12)": {MaxDeletes: 500, MaxDeletesPercent: 12},
	} {
		t.Run(option, func(t *testing.T) {
			t.Parallel()
			eachProof(t, func(t *testing.T, o domaincontroller.Options, mode Mode, kind string) {
				e := newGuarded(t, o, guard)
				deleted := e.deleteUsers(5)
				e.run(mode, state.Run{Mode: kind, Result: Held, Held: 5})
				lines := e.log.With(MsgDeletionsHeld)
				if len(lines) != 1 || !strings.Contains(lines[0].Text("reason"), option) || lines[0].Number("held") != 5 {
					t.Errorf("log %v", lines)
				}
				if lines := e.log.With(MsgDeletionHeld); len(lines) != 5 {
					t.Errorf("log %v", lines)
				}
				if n := e.heldDeletions(); n != 5 || e.status(deleted[0]) != "ACTIVE" {
					t.Errorf("%d held, status %v", n, e.status(deleted[0]))
				}
			})
		})
	}
}

func TestHeldDeletionsStayHeld(t *testing.T) {
	t.Parallel()
	eachProof(t, func(t *testing.T, o domaincontroller.Options, mode Mode, kind string) {
		e := newGuarded(t, o, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
		e.deleteUsers(5)
		e.run(mode, state.Run{Mode: kind, Result: Held, Held: 5})
		e.restart()
		e.run(Mode{}, state.Run{Mode: delta, Result: Held, Held: 5})
		e.run(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
		e.clock.Advance(60 * 24 * time.Hour) // the tombstones may be gone
		e.run(Mode{}, state.Run{Mode: full, Result: Held, Held: 5})
	})
}

func TestFewerHeldDeletionsThanTheLimitStayHeld(t *testing.T) {
	t.Parallel()
	e := newGuarded(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
	deleted := e.deleteUsers(5)
	e.run(Mode{}, state.Run{Mode: delta, Result: Held, Held: 5})
	e.must(e.Undelete(deleted[0]))
	e.run(Mode{}, state.Run{Mode: delta, Result: Held, Held: 4, Uploaded: 1})
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 4})
	e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 4})
	e.expectConverged()
}

func TestReleaseDeletesWhatIsStillMissing(t *testing.T) {
	t.Parallel()
	eachProof(t, func(t *testing.T, o domaincontroller.Options, mode Mode, kind string) {
		e := newGuarded(t, o, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
		deleted := e.deleteUsers(5)
		e.run(mode, state.Run{Mode: kind, Result: Held, Held: 5})
		e.run(Mode{DryRun: true, AllowDeletes: true}, state.Run{Mode: full, Result: Processed})
		e.must(e.Undelete(deleted[4]))
		e.must(e.Undelete(deleted[3]))
		e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 3, Uploaded: 2})
		e.expectConverged()
		if n := e.heldDeletions(); n != 0 {
			t.Errorf("%d held", n)
		}
	})
}

func TestReleaseHoldsNewDeletionsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	e := newGuarded(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 1, MaxDeletesPercent: 100})
	e.deleteUsers(2)
	e.run(Mode{}, state.Run{Mode: delta, Result: Held, Held: 2})
	for n := 2; n < 40; n++ {
		e.must(e.Delete(e.user(n)))
	}
	e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Held, Deleted: 2, Held: 38})
	e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 38})
	e.expectConverged()
}

func TestReleaseIncludesNewDeletionsWithinTheLimit(t *testing.T) {
	t.Parallel()
	e := newGuarded(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 2, MaxDeletesPercent: 100})
	e.deleteUsers(3)
	e.run(Mode{}, state.Run{Mode: delta, Result: Held, Held: 3})
	e.must(e.Delete(e.user(3)))
	e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 4})
	e.expectConverged()
}

func TestReleasedDeletionsStayHeldUntilAcknowledged(t *testing.T) {
	t.Parallel()
	e := newGuarded(t, domaincontroller.Options{}, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
	e.deleteUsers(5)
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	e.refusedRun(Mode{AllowDeletes: true})
	if n := e.heldDeletions(); n != 5 {
		t.Errorf("%d held", n)
	}
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 5})
	e.expectConverged()
}

func TestDecideDeletions(t *testing.T) {
	t.Parallel()
	objects := func(from, to int) (list []identity.Object) {
		for n := from; n < to; n++ {
			list = append(list, identity.Object{GUID: ad.GUID{byte(n)}})
		}
		return list
	}
	held := func(from, to int) []ad.GUID { return guidsOf(objects(from, to)) }
	type sent struct{ send, held, keep int }
	cases := map[string]struct {
		evidence Evidence
		guard    Guard
		want     sent
		reason   string // part of it that names the limit or what was missing
	}{
		"nothing":                     {Evidence{}, Guard{0, 0}, sent{}, ""},
		"at the limit":                {Evidence{Deleted: objects(0, 4), IndexSize: 40}, Guard{4, 100}, sent{send: 4}, ""},
		"one above the limit":         {Evidence{Deleted: objects(0, 5), IndexSize: 40}, Guard{4, 100}, sent{held: 5, keep: 5}, "sync.max-deletes"},
		"at the percentage":           {Evidence{Deleted: objects(0, 4), IndexSize: 40}, Guard{500, 10}, sent{send: 4}, ""},
		"just above the percentage":   {Evidence{Deleted: objects(0, 41), IndexSize: 405}, Guard{500, 10}, sent{held: 41, keep: 41}, "sync.max-deletes-percent"},
		"all objects":                 {Evidence{Deleted: objects(0, 40), IndexSize: 40}, Guard{500, 100}, sent{send: 40}, ""},
		"limit 0":                     {Evidence{Deleted: objects(0, 1), IndexSize: 40}, Guard{0, 100}, sent{held: 1, keep: 1}, "sync.max-deletes"},
		"percentage 0":                {Evidence{Deleted: objects(0, 1), IndexSize: 40}, Guard{500, 0}, sent{held: 1, keep: 1}, "sync.max-deletes-percent"},
		"full sync without an object": {Evidence{Deleted: objects(0, 1), IndexSize: 40, NothingFound: true}, Guard{500, 100}, sent{held: 1, keep: 1}, "nothing at all"},
		"nothing found, nothing lost": {Evidence{NothingFound: true}, Guard{500, 100}, sent{}, ""},

		"held before, below the limit":      {Evidence{Deleted: objects(0, 4), Held: held(0, 4), IndexSize: 40}, Guard{4, 100}, sent{held: 4, keep: 4}, "4 of them were held"},
		"held before, with new ones":        {Evidence{Deleted: objects(0, 5), Held: held(0, 4), IndexSize: 40}, Guard{4, 100}, sent{held: 5, keep: 5}, "4 of them were held"},
		"held before, seen again":           {Evidence{Held: held(0, 4), IndexSize: 40}, Guard{4, 100}, sent{}, ""},
		"released":                          {Evidence{Deleted: objects(0, 5), Held: held(0, 5), IndexSize: 40, Release: true}, Guard{4, 100}, sent{send: 5, keep: 5}, ""},
		"released, new ones in the limit":   {Evidence{Deleted: objects(0, 6), Held: held(0, 5), IndexSize: 40, Release: true}, Guard{4, 100}, sent{send: 6, keep: 5}, ""},
		"released, new ones above it":       {Evidence{Deleted: objects(0, 10), Held: held(0, 5), IndexSize: 40, Release: true}, Guard{4, 100}, sent{send: 5, held: 5, keep: 10}, "sync.max-deletes"},
		"undecided":                         {Evidence{Undecided: objects(0, 2), Held: held(0, 2), IndexSize: 40}, Guard{4, 100}, sent{held: 2, keep: 2}, "cannot prove"},
		"undecided, and released":           {Evidence{Undecided: objects(0, 2), Held: held(0, 2), IndexSize: 40, Release: true}, Guard{4, 100}, sent{held: 2, keep: 2}, "cannot prove"},
		"undecided, others proven":          {Evidence{Deleted: objects(5, 6), Undecided: objects(0, 2), Held: held(0, 2), IndexSize: 40}, Guard{4, 100}, sent{send: 1, held: 2, keep: 2}, "cannot prove"},
		"withdrawn, whatever the guard":     {Evidence{Withdrawn: objects(0, 30), IndexSize: 40}, Guard{0, 0}, sent{send: 30}, ""},
		"withdrawn, others above the limit": {Evidence{Deleted: objects(30, 31), Withdrawn: objects(0, 30), IndexSize: 40}, Guard{0, 0}, sent{send: 30, held: 1, keep: 1}, "sync.max-deletes"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := DecideDeletions(c.evidence, c.guard)
			keep := d.KeepHeld
			slices.SortFunc(keep, byBytes)
			if got := (sent{len(d.Send), len(d.Held), len(slices.Compact(keep))}); got != c.want {
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

// Objects that the same run adds do not raise the limit.
func TestGuardPercentageIsOfKnownObjects(t *testing.T) {
	t.Parallel()
	e := newGuarded(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 500, MaxDeletesPercent: 10})
	e.options.Upload.BatchSize = 10
	e.start()
	e.deleteUsers(8)
	for n := range 200 {
		e.AddUser(e.user(100 + n))
	}
	e.run(Mode{}, state.Run{Mode: delta, Result: Held, Uploaded: 200, Held: 8})
}

func TestEmptyFullSyncDeletesNothing(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{}, 5)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	for n := range 5 {
		e.moveOut(n)
	}
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
	for n := range 5 {
		e.moveBack(n)
	}
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
}

// The search for users is cut on its last page, after groups were read. Those users that it
// did not return must not count as missing.
func TestIncompleteSearchDeletesNothing(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.options.Guard.MaxDeletesPercent = 100
	e.start()
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(150), fakeldap.Groups(3)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 153})
	e.ldap.Sent = func(n int) bool { return n < 140 }
	if run, _ := e.failedRun(Mode{}); run.Deleted+run.Held != 0 {
		t.Errorf("run %+v", run)
	}
	e.ldap.Sent = nil
	e.run(Mode{}, state.Run{Mode: full, Result: Processed})
}

// An object that is moved during the sync may be in neither page. Each missing object is
// read again before it is deleted.
func TestObjectMovedDuringFullSyncIsNotDeleted(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		away, limit int
		held        bool
	}{
		"one":                          {away: 1, limit: 500},
		"held ones that were released": {away: guidsAtOnce + 5, limit: 3, held: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{}, guidsAtOnce+10)
			e.options.Guard.MaxDeletes = c.limit
			e.start()
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: guidsAtOnce + 10})
			for n := range c.away {
				e.moveOut(n)
			}
			if c.held {
				e.run(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: c.away})
			}
			e.atDirectoryRead(func() {
				for n := range c.away {
					e.moveBack(n)
				}
			})
			e.run(Mode{Full: true, AllowDeletes: c.held}, state.Run{Mode: full, Result: Processed})
			e.expectConverged()
		})
	}
}

// Held deletions stay held when another controller or another scope is read. The objects
// that are back must not carry the others below the limit.
func TestHeldThroughAPassThatProvesNothing(t *testing.T) {
	t.Parallel()
	hold := func(t *testing.T) *env {
		e := newDomain(t, domaincontroller.Options{}, 20)
		e.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 100}
		e.start()
		e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
		for n := range 5 {
			e.moveOut(n)
		}
		e.run(Mode{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
		return e
	}
	// The first full sync makes the scope comparable again, the second one compares.
	threeAreBack := func(e *env) {
		e.t.Helper()
		for n := range 3 {
			e.moveBack(n)
		}
		for range 2 {
			run, err := e.runner.Run(e.t.Context(), Mode{Full: true})
			if err != nil || run.Held != 2 || run.Deleted != 0 || run.Result != Held {
				e.t.Fatalf("run %+v, error %v", run, err)
			}
		}
		e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 2})
		e.expectConverged()
	}
	t.Run("another controller", func(t *testing.T) {
		t.Parallel()
		e := hold(t)
		e.Restore(domaincontroller.Restoration{})
		e.run(Mode{AllowDeletes: true}, state.Run{Mode: full, Result: Held, Held: 5}) // nothing is proven, so nothing is released
		threeAreBack(e)
	})
	t.Run("another scope", func(t *testing.T) {
		t.Parallel()
		e := hold(t)
		e.options.Search.UserFilter = "(objectClass=user)"
		e.start()
		e.run(Mode{}, state.Run{Mode: full, Result: Held, Held: 5})
		threeAreBack(e)
	})
	t.Run("another scope that shows one of them", func(t *testing.T) {
		t.Parallel()
		e := hold(t)
		e.moveBack(4)
		e.options.Search.UserFilter = "(objectClass=user)"
		e.start()
		e.run(Mode{}, state.Run{Mode: full, Result: Held, Held: 4})
	})
}

// Objects that are readable again have no change of their own.
func TestHeldObjectsThatAreReadableAgain(t *testing.T) {
	t.Parallel()
	const users, limit = 350, guidsAtOnce + 20
	cases := map[string]struct {
		mode Mode
		kind string
		held int // of all users: a delta does not read more than the limit again, except within the overlap
	}{
		"delta":             {Mode{}, delta, users - overlap},
		"release":           {Mode{AllowDeletes: true}, full, 0},
		"full sync":         {Mode{Full: true}, full, 0},
		"full sync release": {Mode{Full: true, AllowDeletes: true}, full, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{}, users)
			e.options.Guard = Guard{MaxDeletes: limit, MaxDeletesPercent: 100}
			e.start()
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: users})
			var guids []ad.GUID
			for _, o := range e.Objects() {
				if strings.HasPrefix(o.DN, "CN=user") {
					guids = append(guids, ad.GUID([]byte(o.First("objectGUID"))))
				}
			}
			e.must(e.store.SetHeldDeletions(guids[:guidsAtOnce], e.clock.Now()))
			e.run(c.mode, state.Run{Mode: c.kind, Result: Processed})
			if n := e.heldDeletions(); n != 0 {
				t.Errorf("%d held", n)
			}
			e.must(e.store.SetHeldDeletions(guids, e.clock.Now()))
			result := Processed
			if c.held > 0 {
				result = Held
			}
			e.run(c.mode, state.Run{Mode: c.kind, Result: result, Held: c.held})
			e.expectConverged()
		})
	}
}

func TestEntryWithoutSIDIsNotDeleted(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.options.Guard.MaxDeletesPercent = 100
	e.start()
	e.ldap.Users = fakeldap.Users(20)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	delete(e.ldap.Users[7].Attributes, "objectSid")
	e.run(Mode{}, state.Run{Mode: full, Result: Processed})
}

// Any of the missing objects may be the entry without a GUID.
func TestEntryWithoutGUIDPreventsDeletions(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.options.Guard.MaxDeletesPercent = 100
	e.start()
	users := fakeldap.Users(20)
	e.ldap.Users = users
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	guid := users[8].Attributes["objectGUID"]
	delete(users[8].Attributes, "objectGUID")
	e.ldap.Users = users[:19]
	e.run(Mode{}, state.Run{Mode: full, Result: Processed})
	if lines := e.log.With(MsgDeletionsUnproven); len(lines) != 1 || lines[0].Number("missing") != 2 || lines[0].Text("remedy") == "" {
		t.Errorf("log %v", lines)
	}
	users[8].Attributes["objectGUID"] = guid
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
}

func TestDryRunShowsHeldDeletions(t *testing.T) {
	t.Parallel()
	e := newGuarded(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 4, MaxDeletesPercent: 100})
	e.deleteUsers(5)
	var held []string
	show := func(asset identity.Asset, isHeld bool) {
		if !isHeld {
			t.Errorf("%s would be sent", asset.Name)
		}
		held = append(held, string(asset.Name))
	}
	e.run(Mode{DryRun: true, Show: show}, state.Run{Mode: delta, Result: Held, Held: 5})
	slices.Sort(held)
	if want := []string{"user0", "user1", "user2", "user3", "user4"}; !slices.Equal(held, want) {
		t.Errorf("held %q, want %q", held, want)
	}
	if n := e.heldDeletions(); n != 0 {
		t.Errorf("%d recorded as held", n)
	}
}
