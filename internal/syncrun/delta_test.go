package syncrun

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
)

func TestUnchangedDirectorySendsNothing(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	calls := e.assetCalls()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Processed})
	if n := e.assetCalls() - calls; n != 0 {
		t.Errorf("%d calls", n)
	}
}

func TestDeltaAfterOneChange(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		change            func(e *env) error
		uploaded, deleted int
	}{
		"attribute set":      {change: func(e *env) error { return e.Modify(e.user(1), "title", "Engineer") }, uploaded: 1},
		"attribute removed":  {change: func(e *env) error { return e.Modify(e.user(1), "mail") }, uploaded: 1},
		"renamed":            {change: func(e *env) error { return e.Rename(e.user(1), "renamed") }, uploaded: 1},
		"moved within base":  {change: func(e *env) error { return e.Move(e.user(1), "OU=Inner,"+e.base) }},
		"moved out and back": {change: func(e *env) error { e.moveOut(1); e.moveBack(1); return nil }},
		"disabled":           {change: func(e *env) error { return e.Disable(e.user(1)) }, uploaded: 1},
		"password":           {change: func(e *env) error { return e.SetPassword(e.user(1), "other") }, uploaded: 1},
		"activity":           {change: func(e *env) error { return e.Touch(e.user(1), "badPwdCount", "3") }},
		"group type":         {change: func(e *env) error { return e.Modify(e.dn("team"), "groupType", "8") }, uploaded: 1},
		"group members":      {change: func(e *env) error { return e.Modify(e.dn("team"), "member", e.user(1)) }},
		"added":              {change: func(e *env) error { e.AddUser(e.dn("new")); return nil }, uploaded: 1},
		"user deleted":       {change: func(e *env) error { return e.Delete(e.user(1)) }, deleted: 1},
		"group deleted":      {change: func(e *env) error { return e.Delete(e.dn("team")) }, deleted: 1},
		"added and deleted":  {change: func(e *env) error { e.AddUser(e.dn("new")); return e.Delete(e.dn("new")) }},
		"changed and undone": {change: func(e *env) error { e.must(e.Modify(e.user(1), "title", "x")); return e.Modify(e.user(1), "title") }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 5)
			e.addGroup("team")
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 6})
			e.must(c.change(e))
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: c.uploaded, Deleted: c.deleted})
			if name != "activity" {
				e.expectConverged()
			}
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
		})
	}
}

func TestRestoredUserIsSentAgain(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	deleted := e.deleteUsers(1)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.must(e.Undelete(deleted[0]))
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

// A tombstone that is gone by the end of the reading proves nothing.
func TestUserRestoredDuringSyncIsNotDeleted(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	deleted := e.deleteUsers(1)
	e.atDirectoryRead(func() { e.must(e.Undelete(deleted[0])) })
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

func TestUserMovedOutOfBaseIsDeletedByFullSync(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.moveOut(1)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	e.expectConverged()
	e.moveBack(1)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

func TestActivityIsSentByFullSync(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{}, 5)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.must(e.Touch(e.user(1), "badPwdCount", "3"))
	e.must(e.Touch(e.user(2), "badPwdCount", "3"))
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed}) // reads both: they are within the overlap
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	e.expectConverged()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
}

// newExpiring returns an environment after a full sync. The account of user7 expires in an
// hour, and no delta reads it because of its USN.
func newExpiring(t *testing.T) *env {
	t.Helper()
	e := newDomain(t, domaincontroller.Options{}, 20)
	e.must(e.Modify(e.user(7), "accountExpires", fileTime(e.clock.Now().Add(time.Hour))))
	e.outgrowOverlap()
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	return e
}

func TestExpiryIsSentWhenDue(t *testing.T) {
	t.Parallel()
	e := newExpiring(t)
	e.clock.Advance(59 * time.Minute)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.clock.Advance(time.Minute)
	e.restart()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if status := e.status(e.GUID(e.user(7))); status != "EXPIRED" {
		t.Errorf("status %v", status)
	}
	e.expectConverged()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
}

// The batch was recorded with the time when the object is due next, and was not delivered.
func TestDueObjectIsSentAfterRefusedRun(t *testing.T) {
	t.Parallel()
	e := newExpiring(t)
	e.clock.Advance(time.Hour)
	e.refusedRun(Mode{})
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
}

func TestDueTimeChangesWithoutUpload(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.ldap.Users = fakeldap.Users(3)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	expires := e.clock.Now().Add(time.Hour)
	user := e.ldap.Users[1].Attributes
	user["msDS-UserPasswordExpiryTimeComputed"] = fileTime(expires)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed})
	for at, want := range map[time.Time][]ad.GUID{expires.Add(-time.Second): nil, expires: {ad.GUID([]byte(user["objectGUID"]))}} {
		if due, err := e.store.DueForRecheck(at); err != nil || !slices.Equal(due, want) {
			t.Errorf("due at %s: %v, error %v", at, due, err)
		}
	}
}

// newRejecting returns an environment whose gateway rejects user7, after a full sync.
func newRejecting(t *testing.T) *env {
	t.Helper()
	e := newDomain(t, domaincontroller.Options{}, 20)
	e.outgrowOverlap()
	e.gateway.SetFront(rejectAssetsWith(`"user7"`))
	e.run(Mode{}, state.Run{Mode: full, Result: Partial, Uploaded: 19, Rejected: 1})
	return e
}

func TestRejectedObjectIsRetriedWithGrowingDelay(t *testing.T) {
	t.Parallel()
	e := newRejecting(t)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.clock.Advance(time.Hour)
	e.run(Mode{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	e.clock.Advance(time.Hour)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed}) // two hours after the second rejection
	e.clock.Advance(time.Hour)
	e.gateway.SetFront(nil)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
	if left, err := e.store.Rejections(); err != nil || len(left) != 0 {
		t.Errorf("rejections %v, error %v", left, err)
	}
}

func TestRejectedObjectIsRetriedOnceWhenItChanges(t *testing.T) {
	t.Parallel()
	e := newRejecting(t)
	e.must(e.Modify(e.user(7), "title", "x"))
	e.clock.Advance(2 * time.Hour) // it is also due
	before := e.assetCalls()
	e.run(Mode{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	if n := e.assetCalls() - before; n != 1 {
		t.Errorf("%d calls", n)
	}
}

// A delta reads the rejected object again because it is within the overlap.
func TestRejectedObjectWithinOverlapIsNotRetried(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.must(e.Modify(e.user(7), "title", "poison"))
	e.gateway.SetFront(rejectAssetsWith(`"poison"`))
	e.run(Mode{}, state.Run{Mode: full, Result: Partial, Uploaded: 19, Rejected: 1})
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.must(e.Touch(e.user(7), "badPwdCount", "3"))
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Partial, Rejected: 1}) // sends everything that is not delivered
	e.must(e.Modify(e.user(7), "title", "cured"))
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 24, 7: 24, 100: 24} {
		if got := retryAfter(attempts); got != want*time.Hour {
			t.Errorf("after %d: %s", attempts, got)
		}
	}
}

func TestDryRunOfDeltaShowsWhatItWouldSend(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{delta, full} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 20)
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
			e.must(e.Modify(e.user(1), "title", "x"))
			e.must(e.Delete(e.user(2)))
			before, states := e.assetCalls(), e.gateway.Arrived(testenv.StatePath)
			var shown []string // one at a time: only users changed
			show := func(asset identity.Asset, held bool) {
				shown = append(shown, fmt.Sprintf("%s deleted=%t held=%t", asset.Name, asset.Deleted, held))
			}
			e.run(Mode{DryRun: true, Full: mode == full, Show: show}, state.Run{Mode: mode, Result: Processed})
			if want := []string{"user1 deleted=false held=false", "user2 deleted=true held=false"}; !slices.Equal(shown, want) {
				t.Errorf("shown %q, want %q", shown, want)
			}
			if n := e.assetCalls() - before + e.gateway.Arrived(testenv.StatePath) - states; n != 0 {
				t.Errorf("%d calls", n)
			}
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
			e.expectConverged()
		})
	}
}

// The cost of a delta for the directory depends on the changes, not on its size.
func TestDeltaReadsLittle(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 1000)
	e.options.Search.PageSize = 1000
	e.start()
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 1000})
	for n := range 10 {
		e.must(e.Modify(e.user(n), "title", "x"))
	}
	before, calls := e.Searches(), e.assetCalls()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 10})
	after := e.Searches()
	const own = 6 // rootDSE of both sessions, the settings, Deleted Objects
	if n := after.Entries - before.Entries; n > 10+overlap+own {
		t.Errorf("%d entries were read", n)
	}
	if n := after.Searches - before.Searches; n > 10 {
		t.Errorf("%d searches", n)
	}
	if n := e.assetCalls() - calls; n != 1 {
		t.Errorf("%d calls", n)
	}
	e.expectConverged()
}

// A change with a lower USN than the watermark becomes visible after the watermark is read.
func TestLateChangeIsFoundWithinOverlap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		back  ad.USN
		found int
	}{"within the overlap": {150, 1}, "below the overlap": {300, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 10)
			e.outgrowOverlap()
			e.outgrowOverlap()
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
			e.Restore(domaincontroller.Restoration{Back: c.back, SameInvocation: true}) // makes room for lower USNs
			e.must(e.Modify(e.user(9), "title", "late"))
			e.must(e.Delete(e.user(8)))
			for range c.back {
				e.must(e.Modify("OU=Outside,"+e.Base(), "description", "x"))
			}
			e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: c.found, Deleted: c.found})
			e.run(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1 - c.found, Deleted: 1 - c.found})
			e.expectConverged()
		})
	}
}

// A session that is replaced during a sync shows a higher USN. Changes below it were missed.
func TestWatermarkIsReadBeforeTheSync(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{}, 5)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.moveOut(4) // is read again in a new session
	e.runner.patience = time.Nanosecond
	e.atDirectoryRead(func() {
		e.must(e.Modify(e.user(0), "title", "late"))
		e.outgrowOverlap()
	})
	e.run(Mode{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

// A watermark that moved in a failed run would skip what was not delivered.
func TestFailedDeltaIsRepeated(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.must(e.Modify(e.user(1), "title", "x"))
	e.must(e.Delete(e.user(2)))
	e.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		e.outgrowOverlap() // the next delta finds the changes by the old watermark only
		return x.Status(http.StatusForbidden, "")
	}))
	before, err := e.store.Watermark(ad.InvocationID(e.InvocationID()))
	e.must(err)
	e.failedRun(Mode{})
	if after, err := e.store.Watermark(ad.InvocationID(e.InvocationID())); err != nil || after != before {
		t.Errorf("watermark %+v, error %v, want %+v", after, err, before)
	}
	e.gateway.SetFront(nil)
	e.restart()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	e.expectConverged()
}

func TestSwitchBetweenTwoControllers(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	first, other := e.Port, e.newTwin(domaincontroller.Options{ReadsDeleted: true})
	both := func(change func(*testenv.Directory) error) {
		t.Helper()
		e.must(change(e.Directory))
		e.must(change(other))
	}
	setTitle := func(n int) {
		t.Helper()
		both(func(d *testenv.Directory) error { return d.Modify(e.user(n), "title", "x") })
	}
	for n := range 10 {
		both(func(d *testenv.Directory) error { d.AddUser(e.user(n)); return nil })
	}
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	setTitle(1)
	e.connectTo(other.Port)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	setTitle(2)
	both(func(d *testenv.Directory) error { return d.Delete(e.user(3)) })
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	setTitle(4)
	e.connectTo(first)
	e.restart()
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
	e.connectTo(other.Port)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
}

// A controller that lags behind proves no deletion, and its older values do not stay at the
// gateway.
func TestLag(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	first, behind := e.Port, e.newTwin(domaincontroller.Options{ReadsDeleted: true})
	for n := range 30 {
		e.AddUser(e.user(n))
		if n < 29 { // the last one is not replicated yet
			behind.AddUser(e.user(n))
		}
	}
	for n := range 5 { // neither are these changes
		e.must(e.Modify(e.user(n), "title", "new"))
	}
	e.outgrowOverlap()
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
	e.connectTo(behind.Port)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.connectTo(first)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed, Uploaded: 5})
	e.expectConverged()
}

func TestDeletionsWithoutRightAreFoundByFullSync(t *testing.T) {
	t.Parallel()
	e := newDomain(t, domaincontroller.Options{}, 20)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.deleteUsers(1)
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	e.run(Mode{}, state.Run{Mode: delta, Result: Processed})
	lines := e.log.With(MsgDeletedUnreadable) // once a process
	if len(lines) != 1 || lines[0].Text("level") != "warn" || !strings.Contains(lines[0].Text("remedy"), "CN=Deleted Objects,"+e.Base()) {
		t.Errorf("log %v", lines)
	}
	e.clock.Advance(24 * time.Hour) // the full sync is due
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	e.expectConverged()
}
