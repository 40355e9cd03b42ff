package syncrun

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
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
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	requests := e.assetRequests()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	if n := e.assetRequests() - requests; n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestDeltaSyncAfterOneChange(t *testing.T) {
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
		"activity":           {change: func(e *env) error { return e.Modify(e.user(1), "badPwdCount", "3") }},
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
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
			e.addGroup("team")
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6})
			e.must(c.change(e))
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: c.uploaded, Deleted: c.deleted})
			if name != "activity" {
				e.expectConverged()
			}
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
		})
	}
}

func TestRestoredUserIsSentAgain(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	deleted := e.deleteUsers(1)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.must(e.Undelete(deleted[0]))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

// A tombstone that disappears while objects are read is no proof.
func TestUserRestoredDuringSyncIsNotDeleted(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	deleted := e.deleteUsers(1)
	e.afterUsersRead(func() { e.must(e.Undelete(deleted[0])) })
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

func TestUserMovedOutOfBaseIsDeletedByFullSync(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.moveOut(1)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	e.expectConverged()
	e.moveBack(1)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

func TestActivityIsSentByFullSync(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.must(e.Modify(e.user(1), "badPwdCount", "3"))
	e.must(e.Modify(e.user(2), "badPwdCount", "3"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed}) // reads both, within the overlap
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	e.expectConverged()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}

// newExpiringUserEnv returns an environment after a full sync. The account of user7 expires in
// an hour. No delta sync reads it because of its USN.
func newExpiringUserEnv(t *testing.T) *env {
	t.Helper()
	e := newDomainEnv(t, domaincontroller.Options{}, 20)
	e.must(e.Modify(e.user(7), "accountExpires", fileTime(e.clock.Now().Add(time.Hour))))
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	return e
}

func TestExpiryIsSentWhenDue(t *testing.T) {
	t.Parallel()
	e := newExpiringUserEnv(t)
	e.clock.Advance(59 * time.Minute)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.clock.Advance(time.Minute)
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if status := e.status(e.GUID(e.user(7))); status != "EXPIRED" {
		t.Errorf("status %v", status)
	}
	e.expectConverged()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}

// The failed batch was recorded with the next due time of the object.
func TestDueObjectIsSentAfterRefusedRun(t *testing.T) {
	t.Parallel()
	e := newExpiringUserEnv(t)
	e.clock.Advance(time.Hour)
	e.refusedRun(RunOptions{})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}

func TestDueTimeChangesWithoutUpload(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(3)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	expires := e.clock.Now().Add(time.Hour)
	user := e.ldap.Users[1].Attributes
	user["msDS-UserPasswordExpiryTimeComputed"] = fileTime(expires)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	for now, want := range map[time.Time][]ad.GUID{expires.Add(-time.Second): nil, expires: {ad.GUID([]byte(user["objectGUID"]))}} {
		if due, err := e.store.DueForRecheck(now); err != nil || !slices.Equal(due, want) {
			t.Errorf("due at %s: %v, error %v", now, due, err)
		}
	}
}

// newRejectedUserEnv returns an environment after a full sync in which the gateway rejected
// user7.
func newRejectedUserEnv(t *testing.T) *env {
	t.Helper()
	e := newDomainEnv(t, domaincontroller.Options{}, 20)
	e.exceedOverlap()
	e.gateway.SetFront(rejectAssetsWith(`"user7"`))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 19, Rejected: 1})
	return e
}

func TestRejectedObjectIsRetriedWithGrowingDelay(t *testing.T) {
	t.Parallel()
	e := newRejectedUserEnv(t)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.clock.Advance(time.Hour)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	e.clock.Advance(time.Hour)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed}) // two hours after the second rejection
	e.clock.Advance(time.Hour)
	e.gateway.SetFront(nil)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
	if rejections, _, err := e.store.Rejections(-1); err != nil || len(rejections) != 0 {
		t.Errorf("rejections %v, error %v", rejections, err)
	}
}

// The watermark is past the tombstone when the retry is due.
func TestRejectedDeletionIsRetried(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.must(e.Delete(e.user(7)))
	e.exceedOverlap()
	e.gateway.SetFront(rejectAssetsWith(`"DELETED"`))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	e.gateway.SetFront(nil)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.clock.Advance(time.Hour)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	e.expectConverged()
}

func TestRejectedObjectIsRetriedOnceWhenItChanges(t *testing.T) {
	t.Parallel()
	e := newRejectedUserEnv(t)
	e.must(e.Modify(e.user(7), "title", "x"))
	e.clock.Advance(2 * time.Hour) // the retry is also due
	before := e.assetRequests()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	if n := e.assetRequests() - before; n != 1 {
		t.Errorf("%d requests", n)
	}
}

// An object that is too large is rejected without a request, listed, and retried like an object
// that the gateway rejected.
func TestTooLargeObjectIsRejected(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.must(e.Modify(e.user(7), "title", strings.Repeat("\x01", 3<<20))) // six bytes each in JSON
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 19, Rejected: 1})
	before := e.assetRequests()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed}) // unchanged
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Partial, Rejected: 1})
	e.must(e.Modify(e.user(7), "title", strings.Repeat("\x02", 3<<20)))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	rejections, _, err := e.store.Rejections(-1)
	if err != nil || len(rejections) != 1 || rejections[0].Attempts != 3 || rejections[0].Reason != "larger than 16 MiB, not sent" {
		t.Errorf("rejections %+v, error %v", rejections, err)
	}
	if n := e.assetRequests() - before; n != 0 {
		t.Errorf("%d requests", n)
	}
	e.must(e.Modify(e.user(7), "title", "valid"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
	if rejections, _, err := e.store.Rejections(-1); err != nil || len(rejections) != 0 {
		t.Errorf("rejections %v, error %v", rejections, err)
	}
}

// A delta sync reads the rejected object again because it is within the overlap.
func TestRejectedObjectWithinOverlapIsNotRetried(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.must(e.Modify(e.user(7), "title", "invalid"))
	e.gateway.SetFront(rejectAssetsWith(`"invalid"`))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 19, Rejected: 1})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.must(e.Modify(e.user(7), "badPwdCount", "3"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Partial, Rejected: 1}) // sends all undelivered objects
	e.must(e.Modify(e.user(7), "title", "valid"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 24, 7: 24, 100: 24} {
		if got := retryDelay(attempts); got != want*time.Hour {
			t.Errorf("after %d attempts: %s", attempts, got)
		}
	}
}

func TestDryRunShowsChangesAndDeletions(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{delta, full} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
			e.must(e.Modify(e.user(1), "title", "x"))
			e.must(e.Delete(e.user(2)))
			before, states := e.assetRequests(), e.gateway.Arrived(testenv.StatePath)
			var shown []string // never called concurrently here, because only users changed
			show := func(asset identity.Asset, held bool) {
				shown = append(shown, fmt.Sprintf("%s deleted=%t held=%t", asset.Name, asset.Deleted, held))
			}
			e.run(RunOptions{DryRun: true, Full: mode == full, Show: show}, state.Run{Mode: mode, Result: Processed})
			if want := []string{"user1 deleted=false held=false", "user2 deleted=true held=false"}; !slices.Equal(shown, want) {
				t.Errorf("shown %q, want %q", shown, want)
			}
			if n := e.assetRequests() - before + e.gateway.Arrived(testenv.StatePath) - states; n != 0 {
				t.Errorf("%d requests", n)
			}
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
			e.expectConverged()
		})
	}
}

// The cost of a delta sync depends on the number of changes, not on the directory's size.
func TestDeltaSyncReadsChangesOnly(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 1000)
	e.options.Search.PageSize = 1000
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1000})
	for n := range 10 {
		e.must(e.Modify(e.user(n), "title", "x"))
	}
	before, requests := e.Counters(), e.assetRequests()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 10})
	after := e.Counters()
	const fixed = 6 // rootDSE of both sessions, settings, Deleted Objects
	if n := after.Entries - before.Entries; n > 10+overlap+fixed {
		t.Errorf("%d entries read", n)
	}
	const rights = 3 // does a user show all attributes, does a group, are there groups
	if n := after.Searches - before.Searches; n > 10+rights {
		t.Errorf("%d searches", n)
	}
	if n := e.assetRequests() - requests; n != 1 {
		t.Errorf("%d requests", n)
	}
	e.expectConverged()
}

// A change with a USN below the watermark becomes visible after the watermark was read.
func TestLateChangeIsFoundWithinOverlap(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rollback ad.USN
		found    int
	}{"within the overlap": {150, 1}, "below the overlap": {300, 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 10)
			e.exceedOverlap()
			e.exceedOverlap()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
			e.Restore(domaincontroller.Restoration{USNRollback: c.rollback, SameInvocation: true}) // so that the next USNs are lower
			e.must(e.Modify(e.user(9), "title", "late"))
			e.must(e.Delete(e.user(8)))
			for range c.rollback {
				e.must(e.Modify("OU=Outside,"+e.Base(), "description", "x"))
			}
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: c.found, Deleted: c.found})
			e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1 - c.found, Deleted: 1 - c.found})
			e.expectConverged()
		})
	}
}

// A session that is opened during a sync reports a higher USN. A watermark from it would skip
// changes.
func TestWatermarkIsReadBeforeSync(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.moveOut(4) // the recheck reconnects
	e.runner.idleLimit = time.Nanosecond
	e.afterUsersRead(func() {
		e.must(e.Modify(e.user(0), "title", "late"))
		e.exceedOverlap()
	})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

// A watermark that moves in a failed run would skip undelivered objects.
func TestFailedDeltaSyncIsRepeated(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.must(e.Modify(e.user(1), "title", "x"))
	e.must(e.Delete(e.user(2)))
	e.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		e.exceedOverlap() // so that only the old watermark finds the changes
		return x.Status(http.StatusForbidden, "")
	}))
	before := e.controller()
	e.failedRun(RunOptions{})
	if after := e.controller(); after != before {
		t.Errorf("%+v, want %+v", after, before)
	}
	e.gateway.SetFront(nil)
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	e.expectConverged()
}

func TestSwitchBetweenControllers(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	first, replica := e.Port, e.newReplica(domaincontroller.Options{ReadsDeleted: true})
	both := func(change func(*testenv.Directory) error) {
		t.Helper()
		e.must(change(e.Directory))
		e.must(change(replica))
	}
	setTitle := func(n int) {
		t.Helper()
		both(func(d *testenv.Directory) error { return d.Modify(e.user(n), "title", "x") })
	}
	for n := range 10 {
		both(func(d *testenv.Directory) error { d.AddUser(e.user(n)); return nil })
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	setTitle(1)
	e.connectTo(replica.Port)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	setTitle(2)
	both(func(d *testenv.Directory) error { return d.Delete(e.user(3)) })
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	setTitle(4)
	e.connectTo(first)
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectConverged()
	e.connectTo(replica.Port)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
}

// Absence on a lagging controller proves no deletion. Its older values do not stay at the
// gateway.
func TestLaggingController(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
	first, lagging := e.Port, e.newReplica(domaincontroller.Options{ReadsDeleted: true})
	for n := range 30 {
		e.AddUser(e.user(n))
		if n < 29 { // the last one is not replicated yet
			lagging.AddUser(e.user(n))
		}
	}
	for n := range 5 { // not replicated yet
		e.must(e.Modify(e.user(n), "title", "new"))
	}
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
	e.connectTo(lagging.Port)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Uploaded: 5, Undecided: 1})
	e.expectUndecided(UndecidedNotShown, 1)
	e.connectTo(first)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 5})
	e.expectUndecided("", 0)
	e.expectConverged()
}

func TestUnreadableTombstonesAreFoundByFullSync(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.deleteUsers(1)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	lines := e.log.With(MsgDeletedUnreadable) // once per process
	if len(lines) != 1 || lines[0].Text("level") != "warn" || !strings.Contains(lines[0].Text("remedy"), "CN=Deleted Objects,"+e.Base()) {
		t.Errorf("log %v", lines)
	}
	e.clock.Advance(24 * time.Hour) // the full sync is due
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
	e.expectConverged()
}

// The uSNChanged of a tombstone may be unreadable on a domain controller that received it by replication. A
// delta sync finds such tombstones, too.
func TestTombstonesWithoutReadableUSN(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if strings.Contains(request, "CN=Deleted Objects") {
			request = strings.ReplaceAll(request, "uSNChanged", "employeeID") // which no tombstone has
		}
		return action{forward: request}
	}})
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	for n := range 3 {
		e.must(e.Delete(e.user(n)))
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	}
	lines := e.log.With(MsgTombstonesWithoutUSN) // once per process
	if len(lines) != 1 || !strings.Contains(lines[0].Text("remedy"), "/I:T") {
		t.Errorf("log %v", lines)
	}
}

// TestTombstonesLaterWithoutReadableUSN checks that tombstones whose uSNChanged becomes unreadable are
// found after the next full sync.
func TestTombstonesLaterWithoutReadableUSN(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	var unreadable atomic.Bool
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if unreadable.Load() && strings.Contains(request, "CN=Deleted Objects") {
			request = strings.ReplaceAll(request, "uSNChanged", "employeeID") // which no tombstone has
		}
		return action{forward: request}
	}})
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.must(e.Delete(e.user(0)))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	unreadable.Store(true)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.must(e.Delete(e.user(1)))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
}

// TestFullSyncVerifiesStateFile damages the state file of a running process: the GUID of a user
// becomes one that the directory does not have.
func TestFullSyncVerifiesStateFile(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	content, err := os.ReadFile(e.store.Path())
	e.must(err)
	missing, err := e.store.Missing(nil)
	e.must(err)
	guid := missing[0].GUID
	file, err := os.OpenFile(e.store.Path(), os.O_RDWR, 0)
	e.must(err)
	defer file.Close()
	for at := 0; ; at++ { // in used and in free pages
		next := bytes.Index(content[at:], guid[:])
		if next < 0 {
			break
		}
		at += next
		_, err := file.WriteAt([]byte{guid[0] ^ 1}, int64(at))
		e.must(err)
	}
	if _, err := e.failedRun(RunOptions{Full: true}); !errors.Is(err, state.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if users := e.usersAtGateway(); len(users) != 20 {
		t.Errorf("%d users at the gateway", len(users))
	}
}
