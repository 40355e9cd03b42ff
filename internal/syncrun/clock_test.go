package syncrun

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

const maxPasswordAge = 42 * 24 * time.Hour // of the sandbox domain

// expirePassword makes the password of a user expire at a time by the directory's clock.
func (e *env) expirePassword(n int, at time.Time) {
	e.t.Helper()
	e.must(e.Modify(e.user(n), "userAccountControl", "512"))
	e.must(e.Modify(e.user(n), "pwdLastSet", fileTime(at.Add(-maxPasswordAge))))
}

// setHostClock puts the clock of the connector's host ahead of the directory's, which is
// e.clock.
func (e *env) setHostClock(ahead time.Duration) {
	e.runner.now = func() time.Time { return e.clock.Now().Add(ahead) }
}

// due returns the objects that are due at a time or before.
func (e *env) due(at time.Time) []ad.GUID {
	e.t.Helper()
	due, err := e.store.DueForRecheck(at)
	e.must(err)
	return due
}

// The directory's clock decides what is due, however far this host's differs.
func TestDirectoryClockDecidesExpiry(t *testing.T) {
	t.Parallel()
	for name, ahead := range map[string]time.Duration{
		"equal": 0, "directory 30 s behind": 30 * time.Second, "directory 30 s ahead": -30 * time.Second,
		"directory 3 h behind": 3 * time.Hour, "directory 3 h ahead": -3 * time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 10)
			e.setHostClock(ahead)
			due := e.clock.Now().Add(15 * time.Minute)
			e.expirePassword(1, due)
			e.must(e.Modify(e.user(2), "accountExpires", fileTime(due)))
			e.exceedOverlap()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
			e.clock.Advance(15*time.Minute - 10*time.Second)
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			e.expectStatus(e.GUID(e.user(1)), "ACTIVE")
			e.expectStatus(e.GUID(e.user(2)), "ACTIVE")
			e.clock.Advance(10*time.Minute + 11*time.Second)
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
			e.expectStatus(e.GUID(e.user(1)), "PASSWORD_EXPIRED")
			e.expectStatus(e.GUID(e.user(2)), "EXPIRED")
			e.expectConverged()
			e.clock.Advance(time.Minute)
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			if due := e.due(e.clock.Now().Add(365 * 24 * time.Hour)); len(due) > 0 {
				t.Errorf("still due: %v", due)
			}
		})
	}
}

func TestUnknownDirectoryClock(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	e.replaceInRequests("currentTime", "currentXXXX")
	e.setHostClock(time.Minute)
	e.must(e.Modify(e.user(1), "accountExpires", fileTime(e.clock.Now().Add(15*time.Minute))))
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.clock.Advance(14*time.Minute - time.Second)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.clock.Advance(time.Second) // due by the host's clock
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectStatus(e.GUID(e.user(1)), "EXPIRED")
}

// At the very second of an expiry, the flag is not set yet.
func TestLateFlagIsFound(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	due := e.clock.Now().Add(15 * time.Minute)
	e.expirePassword(1, due)
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.clock.Advance(due.Sub(e.clock.Now()))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectStatus(e.GUID(e.user(1)), "ACTIVE")
	e.clock.Advance(time.Second)
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectStatus(e.GUID(e.user(1)), "PASSWORD_EXPIRED")
	e.expectConverged()
}

// An object whose flag never appears, and one that the server does not show any more, are read
// in each run for an hour.
func TestRecheckEndsAfterAnHour(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string]func(e *env){
		"no flag": func(e *env) {
			e.replaceInRequests("msDS-User-Account-Control-Computed", "msDS-User-Account-Control-ComputeX")
		},
		"moved out": func(e *env) { e.moveOut(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
			e.expirePassword(1, e.clock.Now().Add(time.Minute))
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			hide(e)
			for range 6 {
				e.clock.Advance(10 * time.Minute)
				if due := e.due(e.clock.Now()); len(due) != 1 {
					t.Errorf("due: %v", due)
				}
				e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			}
			e.clock.Advance(10 * time.Minute)
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			if due := e.due(e.clock.Now().Add(365 * 24 * time.Hour)); len(due) > 0 {
				t.Errorf("still due: %v", due)
			}
		})
	}
}

// A rejected object does not stay due.
func TestRecheckOfRejectedObject(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.must(e.Modify(e.user(1), "title", "invalid"))
	e.gateway.SetFront(rejectAssetsWith(`"invalid"`))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Partial, Rejected: 1})
	e.must(e.store.SetRecheckTimes(map[ad.GUID]time.Time{e.GUID(e.user(1)): e.clock.Now()}))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	if due := e.due(e.clock.Now()); len(due) > 0 {
		t.Errorf("still due: %v", due)
	}
}

// A run reads a limited number of due objects, and the next one the others.
func TestManyDueObjects(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 8)
	for n := range 8 {
		e.expirePassword(n, e.clock.Now().Add(time.Duration(n+1)*time.Minute))
	}
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8})
	e.runner.maxReread = 3
	e.clock.Advance(time.Hour)
	for first := 0; first < 8; first += 3 {
		count := min(3, 8-first)
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: count})
		for n := range first + count { // the earliest first
			e.expectStatus(e.GUID(e.user(n)), "PASSWORD_EXPIRED")
		}
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
	lines := e.log.With(MsgRechecksPostponed)
	if len(lines) != 2 || lines[0].Number("objects") != 5 || lines[1].Number("objects") != 2 {
		t.Errorf("log %v", lines)
	}
}

// After a directory clock that was wrong is set back, the objects that seemed to have expired
// are read again, also if the run with the wrong clock failed.
func TestDirectoryClockSetBack(t *testing.T) {
	t.Parallel()
	for name, failed := range map[string]bool{"after a run": false, "after a failed run": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
			e.must(e.Modify(e.user(1), "accountExpires", fileTime(e.clock.Now().Add(48*time.Hour))))
			e.exceedOverlap()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.clock.Advance(72 * time.Hour)
			e.setHostClock(-72 * time.Hour)
			if failed {
				e.options.Upload.BatchSize = 1
				e.start()
				e.setHostClock(-72 * time.Hour)
				e.must(e.Modify(e.user(2), "title", "refused"))
				e.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
					return strings.Contains(string(x.Body), `"refused"`) && x.Status(http.StatusForbidden, "")
				}))
				e.failedRun(RunOptions{})
				e.gateway.SetFront(nil)
			} else {
				e.run(RunOptions{DryRun: true}, state.Run{Mode: delta, Result: Processed})
				e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
			}
			e.clock.Advance(-72 * time.Hour)
			e.setHostClock(0)
			if _, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || e.fullSyncReason() != ReasonClock {
				t.Errorf("reason %s, error %v", e.fullSyncReason(), err)
			}
			e.expectStatus(e.GUID(e.user(1)), "ACTIVE")
			e.expectConverged()
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
		})
	}
}

// A full sync forgets a wrong clock only if the clock is right then.
func TestDirectoryClockSetBackInSteps(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	host := e.clock.Now()
	e.must(e.Modify(e.user(1), "accountExpires", fileTime(host.Add(48*time.Hour))))
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.runner.now = func() time.Time { return host }
	e.clock.Advance(72 * time.Hour)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.clock.Advance(-12 * time.Hour)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	e.clock.Advance(-60 * time.Hour)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.expectStatus(e.GUID(e.user(1)), "ACTIVE")
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}

// A clock that is always ahead is not set back.
func TestLeadingDirectoryClock(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	e.setHostClock(-time.Hour)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	for range 3 {
		e.clock.Advance(10 * time.Minute)
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.clock.Advance(-maxClockLead)
	e.setHostClock(-time.Hour + maxClockLead)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}
