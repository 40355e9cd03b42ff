package syncrun

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// newPairEnv returns an environment with two controllers, which both have the users. The first
// one is in use.
func newPairEnv(t *testing.T, o domaincontroller.Options, users int) (e *env, a, b *testenv.Directory) {
	t.Helper()
	e = newDomainEnv(t, o, 0)
	a, b = e.Directory, e.newReplica(o)
	for n := range users {
		e.addToBoth(n, a, b)
	}
	return e, a, b
}

// addToBoth adds a user to controllers that have assigned the same identifiers so far.
func (e *env) addToBoth(n int, controllers ...*testenv.Directory) {
	e.t.Helper()
	for _, d := range controllers {
		d.AddUser(e.user(n))
	}
}

// use makes later runs read from a controller. Expectations apply to it.
func (e *env) use(d *testenv.Directory) {
	e.t.Helper()
	e.Directory = d
	e.connectTo(d.Port)
}

// replicate adds or replaces an object on a controller as another one has it.
func (e *env) replicate(dn string, from, to *testenv.Directory) {
	e.t.Helper()
	o := from.Object(dn)
	guid := ad.GUID([]byte(o.First("objectGUID")))
	copied := domaincontroller.Object{DN: dn, Attributes: map[string][]string{}}
	for _, name := range []string{"objectClass", "objectGUID", "objectSid", "whenCreated", "userAccountControl", "mail", "title"} {
		if values := o.Attributes[name]; len(values) > 0 {
			copied.Attributes[name] = values
		}
	}
	if _, err := to.Server.Object(dn); err != nil {
		if to.Undelete(guid) == nil {
			e.replicate(dn, from, to)
			return
		}
		e.must(to.Add(copied))
		return
	}
	for _, name := range []string{"userAccountControl", "mail", "title"} {
		e.must(to.Modify(dn, name, copied.Attributes[name]...))
	}
}

// expectVisible expects the undecided deletions of a run in its record, in the state file, and
// in the log: one line with the remedy. Without a reason it expects none.
func (e *env) expectVisible(run state.Run, reason state.UndecidedReason, objects int) {
	e.t.Helper()
	e.expectUndecided(reason, objects)
	runs, err := e.store.Runs()
	e.must(err)
	recorded := state.Run{}
	for _, r := range runs {
		if r.ID == run.ID {
			recorded = r
		}
	}
	if recorded.Undecided != objects || (recorded.Result == Held) != (objects > 0) {
		e.t.Errorf("recorded run: %s, want %d undecided", brief(recorded), objects)
	}
	lines := 0
	for _, l := range e.log.With(MsgDeletionsUndecided) {
		if l.Text("run_id") != run.ID {
			continue
		}
		lines++
		if l.Text("level") != "warn" || l.Number("undecided") != objects || l.Text("reason") != string(reason) || l.Text("remedy") == "" {
			e.t.Errorf("log %v, want %d undecided: %s", l, objects, reason)
		}
	}
	if want := min(objects, 1); lines != want {
		e.t.Errorf("%d lines in the log, want %d", lines, want)
	}
}

// runUndecided performs a run in which deletions stay undecided for one reason.
func (e *env) runUndecided(options RunOptions, want state.Run, reason state.UndecidedReason) {
	e.t.Helper()
	want.Result = Held
	e.expectVisible(e.run(options, want), reason, want.Undecided)
}

// runResolved performs a run after which no deletion is undecided.
func (e *env) runResolved(options RunOptions, want state.Run) {
	e.t.Helper()
	want.Result = Processed
	e.expectVisible(e.run(options, want), "", 0)
}

// nextFullSync advances the clock until a full sync is due.
func (e *env) nextFullSync() { e.clock.Advance(e.options.FullInterval + time.Minute) }

// expectStatuses expects users to have a status at the gateway. Their identifiers are those of a
// controller that has them.
func (e *env) expectStatuses(want string, guids ...ad.GUID) {
	e.t.Helper()
	for _, guid := range guids {
		if got := e.status(guid); got != want {
			e.t.Errorf("status of %s: %v, want %s", guid, got, want)
		}
	}
}

// guids returns the GUIDs of the users from first to last-1.
func (e *env) guids(d *testenv.Directory, first, last int) (guids []ad.GUID) {
	e.t.Helper()
	for n := first; n < last; n++ {
		guids = append(guids, d.GUID(e.user(n)))
	}
	return guids
}

// failAfter returns a front that passes n requests with assets and calls fail for all others.
func failAfter(n int, fail testenv.Front) testenv.Front {
	var arrived atomic.Int32
	return testenv.OnAssets(func(x *testenv.Exchange) bool { return int(arrived.Add(1)) > n && fail(x) })
}

func refuse(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "") }

// Two controllers in turn, without the right to read tombstones, as behind a name that rotates.
// Each has shown the objects, so each proves deletions. A release works on either of them.
func TestAlternatingControllers(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 30)
	e.options.Guard = Guard{MaxDeletes: 3, MaxDeletesPercent: 100}
	e.start()
	controllers := []*testenv.Directory{a, b}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	for _, d := range controllers {
		e.must(d.Move(e.user(3), "OU=Outside,"+d.Base()))
		e.must(d.Delete(e.user(4)))
	}
	for day := range 14 {
		e.use(controllers[day%2])
		e.nextFullSync()
		want := state.Run{Mode: full, Result: Processed}
		if day == 0 {
			want.Deleted = 2
		}
		e.run(RunOptions{}, want)
		e.expectConverged()
	}
	for first := range 2 {
		for n := range 5 {
			for _, d := range controllers {
				e.must(d.Delete(e.user(5 + 5*first + n)))
			}
		}
		e.use(controllers[first])
		e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 5})
		e.use(controllers[1-first])
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Held: 5})
		e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Deleted: 5})
		e.use(controllers[first])
		e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Processed})
		e.expectConverged()
	}
}

// A run on a controller that lags delivers older values and fails. They do not stay at the
// gateway, although nothing changes on the other controller.
func TestFailedRunOnLaggingController(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(e *env, cancel func()) testenv.Front{
		"refused": func(*env, func()) testenv.Front { return refuse },
		"canceled": func(_ *env, cancel func()) testenv.Front {
			return func(*testenv.Exchange) bool { cancel(); return false }
		},
		"crashed": func(e *env, _ func()) testenv.Front {
			return func(*testenv.Exchange) bool { e.store.Close(); return false }
		},
		"response lost": func(_ *env, cancel func()) testenv.Front {
			return func(x *testenv.Exchange) bool { x.Deliver(); cancel(); return x.Reset() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 30)
			e.options.Upload.BatchSize, e.options.Upload.Workers = 2, 1
			e.start()
			for n := range 8 { // not replicated yet
				e.must(a.Disable(e.user(n)))
			}
			exceedOverlap(a)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
			e.expectStatuses("DISABLED", e.guids(a, 0, 8)...)
			e.use(b)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e.gateway.SetFront(failAfter(2, fail(e, cancel)))
			if run, err := e.runner.Run(ctx, RunOptions{}); err == nil {
				t.Fatalf("run: %s, want a failed run", brief(run))
			}
			e.gateway.SetFront(nil)
			e.restart()
			if older := len(differences(e.gateway.Held(), inScope(a, e.base, e.clock.Now()), true)); older < 4 {
				t.Fatalf("%d older values at the gateway, want at least 4", older)
			}
			e.use(a)
			if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != delta || run.Uploaded < 4 || run.Uploaded > 8 {
				t.Errorf("run: %s, error %v, want a delta sync of the older values", brief(run), err)
			}
			e.expectConverged()
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
		})
	}
}

// An option changes, the run fails after any number of requests, and the option is changed
// back. One delta sync restores all values. What was in the other scope only is undecided until
// the next full sync.
func TestOptionChangedAndBack(t *testing.T) {
	t.Parallel()
	posture := func(on bool) func(*env) { return func(e *env) { e.setPosture(on) } }
	base := func(prefix string) func(*env) {
		return func(e *env) { e.base = prefix + "OU=Staff," + e.Base(); e.setConsole() }
	}
	filter := func(text string) func(*env) {
		return func(e *env) { e.options.Search.UserFilter = text; e.start() }
	}
	for name, c := range map[string]struct{ before, changed func(*env) }{
		"posture on":     {posture(false), posture(true)},
		"posture off":    {posture(true), posture(false)},
		"larger base":    {base("OU=Inner,"), base("")},
		"smaller base":   {base(""), base("OU=Inner,")},
		"filter set":     {filter(""), filter("(title=*)")},
		"filter removed": {filter("(title=*)"), filter("")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failed := true
			for requests := 0; failed; requests++ {
				failed = changeAndBack(t, requests, c.before, c.changed)
				if requests > 50 {
					t.Fatal("each run failed")
				}
			}
		})
	}
}

// changeAndBack changes an option for one run, of which the first requests with assets pass. It
// reports whether the run failed, and expects nothing if it did not.
func changeAndBack(t *testing.T, requests int, before, changed func(*env)) (failed bool) {
	t.Helper()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	e.options.Upload.BatchSize, e.options.Upload.Workers = 5, 1
	staff := e.base
	for n := range 20 {
		unit := staff
		if n%2 == 0 {
			unit = "OU=Inner," + staff
		}
		dn := fmt.Sprintf("CN=user%d,%s", n, unit)
		e.AddUser(dn)
		if n%3 == 0 {
			e.must(e.Modify(dn, "title", "x"))
		}
	}
	e.AddGroup("CN=team,OU=Inner,"+staff, "CN=user0,OU=Inner,"+staff, "CN=user2,OU=Inner,"+staff)
	e.exceedOverlap()
	e.start()
	before(e)
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != full || run.Result != Processed {
		t.Fatalf("run: %s, error %v", brief(run), err)
	}
	e.exceedOverlap()
	values := e.gateway.Held()
	changed(e)
	e.gateway.SetFront(failAfter(requests, refuse))
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err == nil {
		if run.Mode != full || run.Uploaded+run.Undecided+run.Deleted == 0 {
			t.Errorf("run: %s, want an effect of the change", brief(run))
		}
		return false
	}
	e.gateway.SetFront(nil)
	before(e)
	run, err := e.runner.Run(t.Context(), RunOptions{})
	if err != nil || run.Mode != delta {
		t.Errorf("run after %d requests: %s, error %v, want a delta sync", requests, brief(run), err)
	}
	if run.Undecided > 0 { // sent by the failed run only, which had a larger scope
		e.expectVisible(run, UndecidedScope, run.Undecided)
		if different := len(differences(e.gateway.Held(), values, true)); different > run.Undecided {
			t.Errorf("after %d requests: %d differences and %d undecided", requests, different, run.Undecided)
		}
		e.nextFullSync()
		e.runResolved(RunOptions{}, state.Run{Mode: full, Deleted: run.Undecided})
	}
	for _, diff := range differences(e.gateway.Held(), values, true) {
		t.Errorf("after %d requests: %s", requests, diff)
	}
	return true
}

// A user is deleted and restored on one controller. The other one, which lags, has only the
// tombstone, and proves a deletion. The first one brings the user back.
func TestUserRestoredWhereOtherControllerHasTombstone(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	e.use(a)
	guid := a.GUID(e.user(1))
	e.must(a.Delete(e.user(1)))
	e.must(a.Undelete(guid))
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != delta || run.Deleted != 0 {
		t.Errorf("run: %s, error %v", brief(run), err)
	}
	exceedOverlap(a)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.must(b.Delete(e.user(1))) // replicated without the restore
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.expectStatuses("DELETED", guid)
	e.use(a)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectStatuses("ACTIVE", guid)
	e.expectConverged()
	e.must(b.Undelete(guid))
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectStatuses("ACTIVE", guid)
}

// The same with a full sync on the controller that lags, which also finds the tombstone, and
// with one on the first controller.
func TestUserRestoredWhereOtherControllerHasTombstoneFullSyncs(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	guid := a.GUID(e.user(1))
	e.must(a.Delete(e.user(1)))
	e.must(a.Undelete(guid))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1}) // without the mail address
	e.must(b.Delete(e.user(1)))
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	e.use(a)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

// A controller that has not replicated for several days, with a full sync on each, does not
// delete users that it has never had. Replication ends what is undecided: it brings the users,
// or their tombstones.
func TestControllerLagsForSeveralFullSyncs(t *testing.T) {
	t.Parallel()
	for name, readsDeleted := range map[string]bool{"tombstones readable": true, "tombstones unreadable": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: readsDeleted}, 10)
			for n := 10; n < 15; n++ { // not replicated yet
				e.AddUser(e.user(n))
			}
			guids := e.guids(a, 10, 15)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 15})
			e.use(b)
			e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 5}, UndecidedNotShown)
			for range 4 {
				e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 5}, UndecidedNotShown)
				e.nextFullSync()
				e.restart()
				e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 5}, UndecidedNotShown)
				e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 5}, UndecidedNotShown)
			}
			e.expectStatuses("ACTIVE", guids...)
			for n := 10; n < 14; n++ {
				e.replicate(e.user(n), a, b)
			}
			e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 1}, UndecidedNotShown)
			e.expectStatuses("ACTIVE", guids...)
			e.replicate(e.user(14), a, b)
			e.must(b.Delete(e.user(14))) // replicated as a tombstone
			if readsDeleted {
				e.runResolved(RunOptions{}, state.Run{Mode: delta, Deleted: 1})
				e.expectConverged()
				return
			}
			e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 1}, UndecidedNotShown)
			e.must(a.Delete(e.user(14)))
			e.use(a)
			e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 1}, UndecidedNotShown) // only a full sync proves absence
			e.nextFullSync()
			e.runResolved(RunOptions{}, state.Run{Mode: full, Deleted: 1})
			e.expectConverged()
		})
	}
}

// Users that the first controller received after the other one was last read are unknown there,
// even if the other one has had complete runs in between.
func TestUserAddedBetweenRunsOnLaggingController(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	for n := 5; n < 8; n++ {
		e.use(a)
		a.AddUser(e.user(n))
		if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != delta || run.Uploaded != 1 {
			t.Errorf("run: %s, error %v", brief(run), err)
		}
		e.use(b)
		exceedOverlap(b)
		e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: n - 4}, UndecidedNotShown)
	}
	e.nextFullSync()
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 3}, UndecidedNotShown)
	e.expectStatuses("ACTIVE", e.guids(a, 5, 8)...)
	e.use(a)
	e.runResolved(RunOptions{}, state.Run{Mode: delta})
	e.expectConverged()
}

// rolledBackEnv is an environment whose first controller was put back to a snapshot under the
// same invocation ID, after it had shown three new users and a new title.
type rolledBackEnv struct {
	*env
	a, b  *testenv.Directory
	guids []ad.GUID // of the three users
}

func newRolledBackEnv(t *testing.T, o domaincontroller.Options) *rolledBackEnv {
	t.Helper()
	e, a, b := newPairEnv(t, o, 10)
	snapshot := a.Snapshot()
	for n := 10; n < 13; n++ {
		e.addToBoth(n, a, b)
	}
	for _, d := range []*testenv.Directory{a, b} {
		e.must(d.Modify(e.user(0), "title", "new"))
	}
	exceedOverlap(a)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 13})
	r := &rolledBackEnv{e, a, b, e.guids(a, 10, 13)}
	a.Restore(domaincontroller.Restoration{Snapshot: snapshot, SameInvocation: true})
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Uploaded: 1, Undecided: 3}, UndecidedRollback)
	if reason := e.fullSyncReason(); reason != ReasonUSN {
		t.Errorf("reason %s, want %s", reason, ReasonUSN)
	}
	r.expectAlive()
	return r
}

// expectAlive expects the three users to be alive at the gateway.
func (r *rolledBackEnv) expectAlive() {
	r.t.Helper()
	r.expectStatuses("ACTIVE", r.guids...)
}

// After a USN rollback, values are delivered, and no later run on the same controller concludes
// that what it has lost was deleted, whether or not its USNs exceed the earlier ones.
func TestUSNRollbackProvesNoDeletion(t *testing.T) {
	t.Parallel()
	r := newRolledBackEnv(t, domaincontroller.Options{ReadsDeleted: true})
	e := r.env
	e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 3}, UndecidedRollback)
	for range 3 {
		e.nextFullSync()
		e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 3}, UndecidedRollback)
		exceedOverlap(r.a)
		exceedOverlap(r.a)
		e.restart()
		e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 3}, UndecidedRollback)
		e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 3}, UndecidedRollback)
	}
	r.expectAlive()
	// What it has shown since is proven.
	e.must(r.a.Delete(e.user(9)))
	e.must(r.a.Move(e.user(8), "OU=Outside,"+r.a.Base()))
	e.runUndecided(RunOptions{}, state.Run{Mode: delta, Deleted: 1, Undecided: 3}, UndecidedRollback)
	e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1, Undecided: 3}, UndecidedRollback)
	r.expectAlive()
}

// A run that detects a USN rollback fails. The next one does not forget the rollback.
func TestUSNRollbackInFailedRun(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 5)
	snapshot := a.Snapshot()
	for n := 5; n < 8; n++ {
		e.addToBoth(n, a, b)
	}
	e.must(a.Modify(e.user(0), "title", "new"))
	exceedOverlap(a)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8})
	guids := e.guids(a, 5, 8)
	a.Restore(domaincontroller.Restoration{Snapshot: snapshot, SameInvocation: true})
	e.refusedRun(RunOptions{})
	exceedOverlap(a) // now its USN exceeds the watermark
	exceedOverlap(a)
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Uploaded: 1, Undecided: 3}, UndecidedRollback)
	e.expectStatuses("ACTIVE", guids...)
}

// The ends of what a USN rollback leaves undecided.
func TestUSNRollbackEnds(t *testing.T) {
	t.Parallel()
	t.Run("another controller shows the users", func(t *testing.T) {
		t.Parallel()
		r := newRolledBackEnv(t, domaincontroller.Options{})
		r.use(r.b)
		r.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 1})
		r.expectConverged()
	})
	t.Run("replicated again", func(t *testing.T) {
		t.Parallel()
		r := newRolledBackEnv(t, domaincontroller.Options{})
		for _, n := range []int{0, 10, 11, 12} {
			r.replicate(r.user(n), r.b, r.a)
		}
		r.runResolved(RunOptions{}, state.Run{Mode: delta, Uploaded: 1})
		r.expectConverged()
		r.must(r.a.Delete(r.user(10)))
		r.runResolved(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1})
		r.expectConverged()
	})
	t.Run("tombstones on another controller", func(t *testing.T) {
		t.Parallel()
		r := newRolledBackEnv(t, domaincontroller.Options{ReadsDeleted: true})
		r.use(r.b)
		for n := 10; n < 13; n++ {
			r.must(r.b.Delete(r.user(n)))
		}
		r.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 1, Deleted: 3})
		r.expectConverged()
	})
	t.Run("released after demotion", func(t *testing.T) {
		t.Parallel()
		r := newRolledBackEnv(t, domaincontroller.Options{})
		r.use(r.b)
		for n := 10; n < 13; n++ {
			r.must(r.b.Delete(r.user(n)))
		}
		r.runUndecided(RunOptions{}, state.Run{Mode: full, Uploaded: 1, Undecided: 3}, UndecidedNotShown)
		r.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 3}, UndecidedNotShown)
		r.must(r.b.RemovePeer(r.a.Server))
		r.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 3}, UndecidedNotShown)
		r.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 3})
		r.expectConverged()
	})
	t.Run("demoted and promoted", func(t *testing.T) {
		t.Parallel()
		r := newRolledBackEnv(t, domaincontroller.Options{})
		for _, n := range []int{0, 11, 12} { // user10 was deleted on the other controller
			r.replicate(r.user(n), r.b, r.a)
		}
		r.a.Restore(domaincontroller.Restoration{}) // a new invocation ID
		r.runUndecided(RunOptions{}, state.Run{Mode: full, Uploaded: 1, Undecided: 1}, UndecidedNotShown)
		r.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 1})
		r.expectConverged()
	})
	t.Run("released on the only controller", func(t *testing.T) {
		t.Parallel()
		r := newRolledBackEnv(t, domaincontroller.Options{})
		r.must(r.a.AddPeer(r.b.Server)) // the snapshot does not change that it is listed
		r.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 3}, UndecidedRollback)
		r.expectAlive()
		r.must(r.a.RemovePeer(r.b.Server))
		r.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 3})
		r.expectConverged()
	})
}

// If the invocation ID cannot be read, two controllers that differ look alike. Values are
// delivered, tombstones are proof, and absence is none.
func TestUnreadableInvocationIDOfTwoControllers(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 10)
	for n := 10; n < 13; n++ { // not replicated yet
		a.AddUser(e.user(n))
	}
	guids := e.guids(a, 10, 13)
	e.must(a.Modify(e.user(0), "title", "new")) // neither
	var port atomic.Int32
	use := func(d *testenv.Directory) { port.Store(int32(d.Port)) }
	use(a)
	e.connectThrough(proxy{controller: func(int) int { return int(port.Load()) }, request: replaceWord(t, "invocationId", "invocationXX")})
	e.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 13})
	for range 3 {
		use(b)
		e.runUndecided(RunOptions{}, state.Run{Mode: full, Uploaded: 1, Undecided: 3}, UndecidedInvocationID)
		e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 3}, UndecidedInvocationID)
		e.nextFullSync()
		e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 3}, UndecidedInvocationID)
		e.expectStatuses("ACTIVE", guids...)
		use(a)
		e.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 1})
		e.expectConverged()
	}
	e.must(a.Delete(e.user(10)))
	e.runResolved(RunOptions{}, state.Run{Mode: full, Deleted: 1}) // the tombstone
	e.must(a.Move(e.user(11), "OU=Outside,"+a.Base()))
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 1}, UndecidedInvocationID)
	// With the right, the controller has never shown the user in scope.
	e.use(a)
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 1}, UndecidedOutside)
	e.nextFullSync()
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 1}, UndecidedOutside)
	e.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 1})
	e.expectConverged()
}

// A user is moved into the scope on one controller. The other one does not know that yet, however
// many full syncs it takes part in, and whatever else changes there.
func TestMoveIntoScopeNotReplicated(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 10)
	e.must(a.Move(e.user(1), "OU=Outside,"+a.Base()))
	e.must(b.Move(e.user(1), "OU=Outside,"+b.Base()))
	e.must(a.Move(e.outside(1), e.base))
	e.use(a)
	e.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 10})
	e.use(b)
	for range 3 {
		e.clock.Advance(time.Minute)
		e.must(b.Modify(e.outside(1), "title", "changed here"))
		e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 1}, UndecidedOutside)
		e.nextFullSync()
	}
	e.expectStatuses("ACTIVE", e.guids(a, 1, 2)...)
	e.must(b.Move(e.outside(1), e.base)) // replicated
	e.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 1})
	e.must(b.Move(e.user(1), "OU=Outside,"+b.Base()))
	e.nextFullSync()
	e.runResolved(RunOptions{}, state.Run{Mode: full, Deleted: 1})
}

// busyOnce makes later runs connect through a proxy. Once armed, it answers the first search
// that contains all words with an LDAP result.
func (e *env) busyOnce(result int, words ...string) (armed *atomic.Bool) {
	e.t.Helper()
	armed = &atomic.Bool{}
	e.connectThrough(proxy{request: func(_ int, request string) action {
		for _, word := range words {
			if !strings.Contains(request, word) {
				return action{forward: request}
			}
		}
		if armed.CompareAndSwap(true, false) {
			return action{result: result}
		}
		return action{forward: request}
	}})
	return armed
}

// failBusy performs one run that must fail because of an armed result.
func (e *env) failBusy(armed *atomic.Bool, class fault.Class, mode string) {
	e.t.Helper()
	armed.Store(true)
	run, err := e.failedRun(RunOptions{})
	if armed.Load() {
		e.t.Fatal("no request was answered with the result")
	}
	if fault.ClassOf(err) != class || run.Class != string(class) || run.Mode != mode || run.Deleted+run.Undecided+run.Held != 0 {
		e.t.Errorf("run %+v, error %v, want a failure of class %s", run, err, class)
	}
}

// busyResults are results that say nothing about rights: admin limit exceeded, busy,
// unavailable, other.
var busyResults = map[int]fault.Class{11: fault.Incomplete, 51: fault.Transient, 52: fault.Transient, 80: fault.Transient}

// A busy result of a search for tombstones does not count as a missing right. The run
// fails, and the next delta sync finds the deletion.
func TestBusyResultOfTombstones(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{
		"right": {"CN=Deleted Objects", "isDeleted"}, "search": {"CN=Deleted Objects", "isDeleted", "uSNChanged"},
	} {
		for result, class := range busyResults {
			t.Run(fmt.Sprintf("%s, result %d", name, result), func(t *testing.T) {
				t.Parallel()
				e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 10)
				armed := e.busyOnce(result, words...)
				e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
				before := e.controller()
				e.deleteUsers(1)
				e.exceedOverlap()
				e.failBusy(armed, class, delta)
				if after := e.controller(); after != before {
					t.Errorf("%+v, want %+v", after, before)
				}
				e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
				e.expectConverged()
				if lines := e.log.With(MsgDeletedUnreadable); len(lines) > 0 {
					t.Errorf("log %v", lines)
				}
			})
		}
	}
}

// The same in a full sync, which searches tombstones for what it cannot prove by absence.
func TestBusyResultOfTombstonesInFullSync(t *testing.T) {
	t.Parallel()
	for result, class := range busyResults {
		t.Run(fmt.Sprintf("result %d", result), func(t *testing.T) {
			t.Parallel()
			e, _, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 10)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
			e.must(b.Delete(e.user(1)))
			e.use(b)
			armed := e.busyOnce(result, "CN=Deleted Objects", "isDeleted")
			e.failBusy(armed, class, full)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
			e.expectConverged()
		})
	}
}

// A busy result of the invocation ID does not make the controller an unknown one. The run
// fails, and the next one is a delta sync.
func TestBusyResultOfInvocationID(t *testing.T) {
	t.Parallel()
	for result, class := range busyResults {
		t.Run(fmt.Sprintf("result %d", result), func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
			armed := e.busyOnce(result, "invocationId")
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.deleteUsers(1)
			e.exceedOverlap()
			e.failBusy(armed, class, full) // no mode was planned
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
			e.expectConverged()
			if lines := e.log.With(MsgInvocationIDUnreadable); len(lines) > 0 {
				t.Errorf("log %v", lines)
			}
		})
	}
}

// A load balancer leads the connections of a run to two controllers that differ. All sessions
// of a run that are used are on one of them.
func TestLoadBalancer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		toFirst    func(connection int) bool // else to the second one, which lags
		sequential bool                      // no other session is on the first one
	}{
		"second session on another one": {func(n int) bool { return n == 1 }, true},
		"in turn":                       {func(n int) bool { return n%2 == 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 10)
			for _, d := range []*testenv.Directory{a, b} {
				d.AddGroup(e.dn("team"))
			}
			for n := range 10 {
				e.must(a.Modify(e.user(n), "title", "new")) // not replicated yet
			}
			e.must(a.Modify(e.dn("team"), "description", "new"))
			port := map[bool]int{true: a.Port, false: b.Port}
			e.connectThrough(proxy{controller: func(n int) int { return port[c.toFirst(n)] }})
			before := b.Counters().Entries
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 11})
			e.expectConverged()
			const identity = 2 // rootDSE and NTDS Settings
			if n, sessions := b.Counters().Entries-before, 5; n > identity*sessions {
				t.Errorf("%d entries read on the other controller", n)
			}
			if lines := e.log.With(MsgSecondSessionFailed); (len(lines) == 1) != c.sequential {
				t.Errorf("log %v", lines)
			}
		})
	}
}

// A reconnect that leads to another controller is not used.
func TestReconnectLeadsToAnotherController(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		toFirst bool // every other later connection leads to the first controller again
		closed  bool // the session in use is closed
	}{"always": {false, false}, "each other time": {true, false}, "session closed": {false, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 10)
			for n := range 10 {
				e.must(a.Modify(e.user(n), "title", "new")) // not replicated yet
			}
			var others atomic.Int32
			e.connectThrough(proxy{
				controller: func(n int) int {
					if n <= 2 || c.toFirst && n%2 == 0 {
						return a.Port
					}
					others.Add(1)
					return b.Port
				},
				request: func(_ int, request string) action {
					if c.closed && strings.Contains(request, "805306368") && strings.Contains(request, "givenName") { // the search for users
						return action{}
					}
					return action{forward: request}
				},
			})
			e.runner.idleLimit = time.Nanosecond // each search reconnects
			run, err := e.runner.Run(t.Context(), RunOptions{})
			if others.Load() == 0 {
				t.Error("no connection led to the other controller")
			}
			if c.closed {
				if fault.ClassOf(err) != fault.Transient || run.Class != string(fault.Transient) || len(e.gateway.Held()) > 0 {
					t.Errorf("run: %s, error %v, want a transient failure", brief(run), err)
				}
				return
			}
			if err != nil || run.Result != Processed || run.Uploaded != 10 {
				t.Errorf("run: %s, error %v", brief(run), err)
			}
			e.expectConverged()
		})
	}
}

// Undecided deletions are released only after the controller that has shown the objects is
// gone from the domain, and only those that the operator could know of.
func TestReleaseOfUndecidedDeletions(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 10)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	for n := range 2 {
		e.must(b.Delete(e.user(n)))
	}
	e.use(b)
	e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 2}, UndecidedNotShown)
	e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 2}, UndecidedNotShown)
	e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 2}, UndecidedNotShown)
	e.use(a)
	e.addToBoth(10, a) // not replicated before a is gone
	lost := a.GUID(e.user(10))
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != delta || run.Uploaded != 1 || run.Undecided != 0 {
		t.Errorf("run: %s, error %v", brief(run), err)
	}
	e.use(b)
	e.must(b.RemovePeer(a.Server))
	e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 3}, UndecidedNotShown) // unknown to the operator
	e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 3}, UndecidedNotShown)
	e.refusedRun(RunOptions{AllowDeletes: true})
	e.runUndecided(RunOptions{}, state.Run{Mode: delta, Undecided: 3}, UndecidedNotShown)
	e.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 3})
	e.expectStatuses("DELETED", lost)
	e.expectConverged()
}

// A user arrives by replication between the search by GUID in the scope and the one in the whole
// domain. It is not outside of the scope.
func TestReplicatedDuringRun(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 10)
	a.AddUser(e.user(10)) // not replicated yet
	e.use(a)
	e.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 11})
	e.use(b)
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 1}, UndecidedNotShown)
	var arrive sync.Once
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if strings.Contains(request, "objectGUID") && !strings.Contains(request, "objectClass") && !strings.Contains(request, "sAMAccountType") {
			arrive.Do(func() { b.AddUser(e.user(10)) })
		}
		return action{forward: request}
	}})
	e.clock.Advance(time.Minute)
	e.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Uploaded: 1})
	e.expectStatuses("ACTIVE", e.guids(a, 10, 11)...)
}

// A controller of the domain whose invocation ID is unreadable may be the one that has shown the
// objects.
func TestReleaseWithUnreadableController(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 10)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	e.must(b.Delete(e.user(1)))
	e.must(b.RemovePeer(a.Server))
	e.use(b)
	var unreadable atomic.Bool
	unreadable.Store(true)
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if unreadable.Load() && strings.Contains(request, "nTDSDSARO") { // the search for the controllers
			request = strings.ReplaceAll(request, "invocationId", "invocationXX")
		}
		return action{forward: request}
	}})
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 1}, UndecidedNotShown)
	e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 1}, UndecidedNotShown)
	if lines := e.log.With(MsgControllersUnreadable); len(lines) != 1 || lines[0].Text("remedy") == "" {
		t.Errorf("log %v", lines)
	}
	unreadable.Store(false)
	e.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 1})
	e.expectConverged()
}

// A domain controller whose invocation ID is unreadable may be one that has shown the user: none of the
// readable ones is.
func TestReleaseWithOneUnreadableController(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 10)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	last, _, err := e.store.LastServers()
	e.must(err)
	e.must(b.Delete(e.user(1)))
	e.use(b)
	e.must(b.HideOne(last.ServiceName, "invocationId"))
	e.runUndecided(RunOptions{}, state.Run{Mode: full, Undecided: 1}, UndecidedNotShown)
	e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 1}, UndecidedNotShown)
	e.must(b.RemovePeer(a.Server))
	e.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 1})
	e.expectConverged()
}

// A failed run on the second controller is the only one that has shown a user. It counts although
// complete runs on the first one follow.
func TestSightingOfFailedRunIsKept(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{}, 10)
	e.options.Upload.BatchSize, e.options.Upload.Workers = 1, 1
	e.start()
	e.use(a)
	e.runResolved(RunOptions{}, state.Run{Mode: full, Uploaded: 10})
	b.AddUser(e.user(10)) // not replicated yet
	b.AddUser(e.user(11))
	guids := e.guids(b, 10, 11)
	e.use(b)
	e.gateway.SetFront(failAfter(1, refuse))
	e.failedRun(RunOptions{})
	e.gateway.SetFront(nil)
	e.expectStatuses("ACTIVE", guids...)
	e.must(b.Delete(e.user(10)))
	e.must(b.Delete(e.user(11)))
	e.use(a)
	e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 2}, UndecidedNotShown)
	e.use(b)
	e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 2}, UndecidedScope)
	e.nextFullSync()
	e.runResolved(RunOptions{}, state.Run{Mode: full, Deleted: 2})
	e.expectConverged()
}

// The groups are read in a second session. An error of that one fails the run, too.
func TestBusyResultOfGroups(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	armed := e.busyOnce(51, "groupType", "description", "uSNChanged") // not a check of rights
	e.failBusy(armed, fault.Transient, delta)
}

// A full sync reads missing objects again. An error of that search fails the run: they may exist.
func TestBusyResultOfMissingObjects(t *testing.T) {
	t.Parallel()
	for result, class := range busyResults {
		t.Run(fmt.Sprintf("result %d", result), func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 10)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
			deleted := e.deleteUsers(1)[0]
			armed := e.busyOnce(result, string(deleted[:]), "displayName")
			e.nextFullSync()
			e.failBusy(armed, class, full)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
			e.expectConverged()
		})
	}
}
