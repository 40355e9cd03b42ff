package syncrun

import (
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// refuseAssetsAfter returns a front that passes the first asset requests and refuses the others.
func refuseAssetsAfter(requests int) testenv.Front {
	var arrived atomic.Int64
	return testenv.OnAssets(func(x *testenv.Exchange) bool {
		return arrived.Add(1) > int64(requests) && x.Status(http.StatusForbidden, "")
	})
}

// copyState returns a copy of the state file between two runs.
func (e *env) copyState() []byte {
	e.t.Helper()
	e.must(e.store.Close())
	content, err := os.ReadFile(filepath.Join(e.stateDir, "adconnector.db"))
	e.must(err)
	e.reopen()
	return content
}

// putBack replaces the state file by a copy and restarts.
func (e *env) putBack(copied []byte) {
	e.t.Helper()
	e.must(e.store.Close())
	e.must(os.WriteFile(filepath.Join(e.stateDir, "adconnector.db"), copied, 0o600))
	e.reopen()
}

func (e *env) reopen() {
	e.t.Helper()
	store, err := state.Options{NoSync: true}.Open(e.stateDir)
	e.must(err)
	e.store = store
	e.start()
}

// After the state file was put back from a copy, all values are sent again: also those that
// have changed and changed back since the copy. What was delivered before the copy and is
// missing now is deleted.
func TestStateFilePutBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ posture, readsDeleted, lastRunFails bool }{
		"identities":                      {false, true, false},
		"posture":                         {true, true, false},
		"deleted objects unreadable":      {false, false, false},
		"last run before the copy failed": {false, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: c.readsDeleted}, 30)
			e.options.Upload.BatchSize, e.options.Upload.Workers = 1, 1
			e.start()
			e.setPosture(c.posture)
			first := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: e.objects(30)})
			e.exceedOverlap()
			copied := e.copyState()
			user1, flags := e.GUID(e.user(1)), e.Object(e.user(1)).First("userAccountControl")

			e.must(e.Disable(e.user(1)))
			e.must(e.Modify(e.user(2), "title", "Chief"))
			e.moveOut(3)
			deleted := e.deleteUsers(1)
			if c.lastRunFails {
				e.gateway.SetFront(refuseAssetsAfter(1))
				if run, _ := e.failedRun(RunOptions{}); run.Uploaded != 1 {
					t.Errorf("%d uploaded by the failed run", run.Uploaded)
				}
				e.gateway.SetFront(nil)
			} else if _, err := e.runner.Run(t.Context(), RunOptions{}); err != nil {
				t.Error(err)
			}
			e.must(e.Modify(e.user(1), "userAccountControl", flags))
			e.must(e.Modify(e.user(2), "title"))
			e.exceedOverlap()

			e.putBack(copied)
			e.refusedRun(RunOptions{}) // nothing is delivered
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: first.Uploaded - 2, Deleted: 2})
			if reason := e.fullSyncReason(); reason != ReasonRestored {
				t.Errorf("reason %q", reason)
			}
			if status := e.status(user1); status != "ACTIVE" {
				t.Errorf("status of user1: %v", status)
			}
			if status := e.status(deleted[0]); status != "DELETED" {
				t.Errorf("status of the deleted user: %v", status)
			}
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			e.clock.Advance(25 * time.Hour)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
			if reason := e.fullSyncReason(); reason != ReasonFullInterval {
				t.Errorf("reason %q", reason)
			}
			e.expectConverged()
		})
	}
}

// objects returns the number of objects of the first sync of a domain environment.
func (e *env) objects(users int) int {
	e.t.Helper()
	if !e.posture {
		return users
	}
	return len(e.firstSync())
}

// A run that is requested to send everything again does so, and deletes by the rules of a full
// sync. If it fails, the next runs send the rest.
func TestResend(t *testing.T) {
	t.Parallel()
	for name, posture := range map[string]bool{"identities": false, "posture": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 30)
			e.options.Upload.BatchSize, e.options.Upload.Workers = 5, 1
			e.start()
			e.setPosture(posture)
			all := e.objects(30)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: all})
			e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
			e.gateway.Reset() // as if the gateway had lost its data
			e.setConsole()

			shown := 0
			dryRun := RunOptions{Resend: true, DryRun: true, Show: func(identity.Asset, bool) { shown++ }}
			e.run(dryRun, state.Run{Mode: full, Result: Processed})
			if shown != all {
				t.Errorf("%d of %d objects in the dry run", shown, all)
			}
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed}) // the dry run has recorded nothing

			e.gateway.SetFront(refuseAssetsAfter(2))
			failed, _ := e.failedRun(RunOptions{Resend: true})
			if failed.Uploaded == 0 || failed.Uploaded == all {
				t.Fatalf("%d of %d uploaded by the failed run", failed.Uploaded, all)
			}
			e.gateway.SetFront(nil)
			e.restart()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: all - failed.Uploaded})
			if reason := e.fullSyncReason(); reason != ReasonResend {
				t.Errorf("reason %q", reason)
			}
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			e.deleteUsers(1)
			e.run(RunOptions{Resend: true}, state.Run{Mode: full, Result: Processed, Uploaded: all - 1, Deleted: 1})
			e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
			e.expectConverged()
		})
	}
}

// The guard holds the deletions of a resend, too.
func TestResendIsGuarded(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	e.options.Guard = Guard{MaxDeletes: 1, MaxDeletesPercent: 100}
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	e.deleteUsers(2)
	e.run(RunOptions{Resend: true}, state.Run{Mode: full, Result: Held, Uploaded: 8, Held: 2})
	e.run(RunOptions{Resend: true, AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Uploaded: 8, Deleted: 2})
}

// A dry run after the state file was put back shows everything, and does not record that.
func TestDryRunAfterPutBack(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	copied := e.copyState()
	e.must(e.Modify(e.user(1), "title", "Chief"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.must(e.store.Close())
	e.must(os.WriteFile(filepath.Join(e.stateDir, "adconnector.db"), copied, 0o600))
	store, err := state.Options{}.OpenReadOnly(e.stateDir)
	e.must(err)
	e.store = store
	e.start()
	shown := 0
	e.run(RunOptions{DryRun: true, Show: func(identity.Asset, bool) { shown++ }}, state.Run{Mode: full, Result: Processed})
	if reason := e.fullSyncReason(); shown != 10 || reason != ReasonRestored {
		t.Errorf("%d objects shown, reason %q", shown, reason)
	}
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
}
