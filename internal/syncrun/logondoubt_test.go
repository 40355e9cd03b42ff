package syncrun

import (
	"slices"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// peerRefuses makes the other controller refuse the bind until accepts is called.
func (d *logonDomain) peerRefuses() (accepts func()) {
	d.t.Helper()
	b := d.peers[0]
	d.must(b.SetPassword(b.BindDN(), "other"))
	return func() {
		d.t.Helper()
		d.must(b.SetPassword(b.BindDN(), b.Password))
		d.clock.Advance(pauseAfter(1))
	}
}

// A controller that did not answer when objects were in doubt is asked for all logons next.
func TestDoubtStaysWithoutAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before func(d *logonDomain) // before a full sync without the other controller
		dn     func(d *logonDomain) string
		during func(d *logonDomain)
	}{
		"not replicated before": {
			before: func(d *logonDomain) {
				d.peers[0].AddUser(d.user(20))
				d.logOn(d.peers[0], 20, "lastLogon", d.ago(2*time.Hour))
				d.fullSync(0)
				d.clock.Advance(24 * time.Hour)
				d.AddUser(d.user(20))
			},
			dn: func(d *logonDomain) string { return d.user(20) },
		},
		"moved in": {
			before: func(d *logonDomain) {
				d.moveOut(1)
				d.must(d.peers[0].Move(d.user(1), "OU=Outside,"+d.Base()))
				d.must(d.peers[0].Modify(d.outside(1), "lastLogon", fileTime(d.ago(2*time.Hour))))
				d.runFull()
				d.clock.Advance(24 * time.Hour)
				d.moveBack(1)
				d.must(d.peers[0].Move(d.outside(1), d.base))
			},
			during: func(d *logonDomain) {
				for range 2 {
					d.clock.Advance(24 * time.Hour)
					d.runFull()
				}
			},
			dn: func(d *logonDomain) string { return d.user(1) },
		},
		"another scope meanwhile": {
			before: func(d *logonDomain) {
				d.logOn(d.peers[0], 1, "lastLogon", d.ago(2*time.Hour))
				d.fullSync(1)
				d.clock.Advance(24 * time.Hour)
				d.must(d.Modify(d.user(2), "title", "x"))
				d.options.Search.UserFilter = "(title=*)"
				d.start()
			},
			during: func(d *logonDomain) {
				d.runFull()
				if d.status(d.guid(1)) != "DELETED" {
					d.t.Error("not deleted")
				}
				d.options.Search.UserFilter = ""
				d.start()
				d.runFull()
			},
			dn: func(d *logonDomain) string { return d.user(1) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newLogonDomain(t, 20, 1)
			d.clock.Advance(time.Hour)
			d.fullSync(20)
			d.clock.Advance(24 * time.Hour)
			late := d.ago(2 * time.Hour)
			test.before(d)
			accepts := d.peerRefuses()
			d.runFull()
			if test.during != nil {
				test.during(d)
			}
			accepts()
			d.clock.Advance(24 * time.Hour)
			d.runFull()
			d.expectResult("127.0.0.2", state.LogonsAnswered)
			d.expectLastLogon(d.GUID(test.dn(d)), late)
		})
	}
}

// runFull performs a full sync that succeeds.
func (d *logonDomain) runFull() {
	d.t.Helper()
	if run, err := d.runner.Run(d.t.Context(), RunOptions{Full: true}); err != nil || run.Mode != full {
		d.t.Errorf("run: %s, error %v", brief(run), err)
	}
}

// Logons of objects that could not be read, or not be sent, are asked for again.
func TestLogonsOfUnreadableObject(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ hide, show func(d *logonDomain) }{
		"attribute": {
			func(d *logonDomain) { d.hide(d.user(1), "userAccountControl") },
			func(d *logonDomain) { d.hide(d.user(1)) },
		},
		"object": {
			func(d *logonDomain) { d.hideAll(d.user(1)) },
			func(d *logonDomain) { d.hide(d.user(1)) },
		},
		"object, on both": {
			func(d *logonDomain) {
				d.hideAll(d.user(1))
				d.must(d.peers[0].Hide(d.user(1), lockedAway...))
			},
			func(d *logonDomain) {
				d.hide(d.user(1))
				d.must(d.peers[0].Hide(d.user(1)))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newLogonDomain(t, 20, 1)
			d.fullSync(20)
			d.clock.Advance(24 * time.Hour)
			late := d.ago(2 * time.Hour)
			d.logOn(d.peers[0], 1, "lastLogon", late)
			test.hide(d)
			d.runFull()
			d.clock.Advance(24 * time.Hour)
			d.runFull()
			test.show(d)
			d.clock.Advance(24 * time.Hour)
			d.fullSync(1)
			d.expectLastLogon(d.guid(1), late)
		})
	}
}

// The deletion under the former SID is rejected, so that the object is not sent.
func TestLogonsOfObjectWithRejectedDeletion(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	d.fullSync(20)
	d.clock.Advance(24 * time.Hour)
	late := d.ago(2 * time.Hour)
	d.logOn(d.peers[0], 1, "lastLogon", late)
	d.must(d.SetRID(d.user(1), 77777))
	d.must(d.peers[0].SetRID(d.user(1), 77777))
	d.gateway.SetFront(rejectAssetsWith(`"DELETED"`))
	d.runFull()
	d.gateway.SetFront(nil)
	d.clock.Advance(24 * time.Hour)
	d.runFull()
	d.expectLastLogon(d.guid(1), late)
}

// A time in the future is no logon on the controller that is read either.
func TestFutureLogonOfReadController(t *testing.T) {
	t.Parallel()
	for _, attribute := range []string{"lastLogon", "lastLogonTimestamp", "badPasswordTime"} {
		for _, mode := range []LastLogon{LastLogonReplicated, LastLogonAllControllers} {
			t.Run(attribute+" "+string(mode), func(t *testing.T) {
				t.Parallel()
				e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
				e.options.LastLogon = mode
				e.start()
				e.logOn(e.Directory, 1, attribute, e.clock.Now().Add(30*24*time.Hour))
				e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
				e.must(e.Modify(e.user(1), "title", "x"))
				e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
				e.must(e.Modify(e.user(1), "title", "x"))
				e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
				asset := e.asset(e.GUID(e.user(1)))
				if asset["lastSuccessfulLoginAt"] != nil || asset["lastFailedPasswordAttemptAt"] != nil {
					t.Errorf("%v", asset)
				}
				at := e.clock.Now().Add(-time.Hour).Truncate(time.Millisecond)
				e.logOn(e.Directory, 1, "lastLogon", at)
				e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
				e.expectLastLogon(e.GUID(e.user(1)), at)
			})
		}
	}
}

// A logon is in the future only if it is so by both clocks: one of them may be behind.
func TestLatestLogon(t *testing.T) {
	t.Parallel()
	now := newClock().Now()
	for name, directoryNow := range map[string]time.Time{"equal clocks": now, "directory behind": now.AddDate(-1, 0, 0), "host behind": now.AddDate(1, 0, 0)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			latest := Snapshot{Now: now, DirectoryNow: directoryNow}.latestLogon()
			if want := ad.NewFileTime(slices.MaxFunc([]time.Time{now, directoryNow}, time.Time.Compare).Add(logonOverlap)); latest != want {
				t.Errorf("%d, want %d", latest, want)
			}
		})
	}
}
