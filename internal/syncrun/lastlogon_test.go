package syncrun

import (
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/testenv"
)

// lastLogon returns lastSuccessfulLoginAt of a user at the gateway; "": none.
func (e *env) lastLogon(guid ad.GUID) string {
	e.t.Helper()
	text, _ := e.asset(guid)["lastSuccessfulLoginAt"].(string)
	return text
}

// logOn sets the attributes of logons of a user on one controller, without replication.
func (e *env) logOn(d *testenv.Directory, n int, attribute string, at time.Time) {
	e.t.Helper()
	e.must(d.Modify(e.user(n), attribute, fileTime(at)))
}

func (e *env) expectLastLogon(guid ad.GUID, want time.Time) {
	e.t.Helper()
	if got := e.lastLogon(guid); got != want.UTC().Format(timeFormat) {
		e.t.Errorf("lastSuccessfulLoginAt %s, want %s", got, want)
	}
}

func TestDeltaSyncSendsReplicatedLogon(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	first := e.clock.Now().Add(-24 * time.Hour).Truncate(time.Millisecond)
	guid := e.GUID(e.user(1))
	e.logOn(e.Directory, 1, "lastLogon", first)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.expectLastLogon(guid, first)

	e.logOn(e.Directory, 1, "lastLogon", first.Add(time.Hour))
	e.logOn(e.Directory, 1, "lastLogonTimestamp", first)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed}) // not later than what was sent
	e.logOn(e.Directory, 1, "lastLogonTimestamp", first.Add(time.Minute))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	e.expectLastLogon(guid, first.Add(time.Hour))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.expectConverged()
}

// A value that was sent stays if the directory shows an earlier one, or none.
func TestLastLogonNeverGoesBack(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	at := e.clock.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for n := range 20 {
		e.logOn(e.Directory, n, "lastLogon", at)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.logOn(e.Directory, 1, "lastLogon", at.Add(-time.Hour))
	e.must(e.Modify(e.user(2), "lastLogon"))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.must(e.Modify(e.user(1), "title", "x"))
	e.must(e.Modify(e.user(2), "title", "x"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
	e.restart()
	e.run(RunOptions{Resend: true}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	for n := range 3 {
		e.expectLastLogon(e.GUID(e.user(n)), at)
	}
}

// Another controller does not have the lastLogon of the first one.
func TestLastLogonAfterSwitchOfController(t *testing.T) {
	t.Parallel()
	e, a, b := newPairEnv(t, domaincontroller.Options{ReadsDeleted: true}, 40)
	at := e.clock.Now().Add(-time.Hour).Truncate(time.Millisecond)
	for n := range 40 {
		e.logOn(a, n, "lastLogon", at)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 40})
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	e.logOn(b, 1, "lastLogon", at.Add(time.Minute))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.use(a)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.expectLastLogon(e.GUID(e.user(1)), at.Add(time.Minute))
	e.expectLastLogon(e.GUID(e.user(2)), at)
}

// The gateway may have taken a value although the run failed.
func TestLastLogonOfFailedRunIsKept(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	at := e.clock.Now().Add(-time.Hour).Truncate(time.Millisecond)
	e.logOn(e.Directory, 1, "lastLogon", at)
	e.refusedRun(RunOptions{})
	e.must(e.Modify(e.user(1), "lastLogon"))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.expectLastLogon(e.GUID(e.user(1)), at)
}

// An object under another SID is another asset.
func TestLastLogonOfChangedSID(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	at := e.clock.Now().Add(-time.Hour).Truncate(time.Millisecond)
	e.logOn(e.Directory, 1, "lastLogon", at)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.must(e.Modify(e.user(1), "lastLogon"))
	e.must(e.SetRID(e.user(1), 77777))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1, Deleted: 1})
	if got := e.lastLogon(e.GUID(e.user(1))); got != "" {
		t.Errorf("lastSuccessfulLoginAt %s", got)
	}
}

// A changed option sends nothing again, but the logons that were sent are then known.
func TestLogonsOfAllControllersAreStored(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 20)
	at := e.clock.Now().Add(-time.Hour).Truncate(time.Millisecond)
	e.logOn(e.Directory, 1, "badPasswordTime", at)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.options.LastLogon = LastLogonAllControllers
	e.restart()
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.must(e.Modify(e.user(1), "badPasswordTime"))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	if got := e.asset(e.GUID(e.user(1)))["lastFailedPasswordAttemptAt"]; got != at.UTC().Format(timeFormat) {
		t.Errorf("lastFailedPasswordAttemptAt %v", got)
	}
}

// Logons are stored for an object that is not sent only if the index does not contain them. After a
// change to LastLogonReplicated, it contains more, and each run would store all of them otherwise.
func TestLogonsToStore(t *testing.T) {
	t.Parallel()
	all := identity.Logons{Last: 5, LastFailed: 3, Failed: 1, HasFailed: true}
	for name, test := range map[string]struct {
		indexed, current identity.Logons
		otherValue, want bool
	}{
		"nothing stored":        {current: identity.Logons{Last: 5}, want: true},
		"the same":              {indexed: all, current: all},
		"from one controller":   {indexed: all, current: identity.Logons{Last: 5}},
		"from all controllers":  {indexed: identity.Logons{Last: 5}, current: all, want: true},
		"another number":        {indexed: all, current: identity.Logons{Last: 5, LastFailed: 3, HasFailed: true}, want: true},
		"later, without a send": {indexed: all, current: identity.Logons{Last: 6, LastFailed: 3, Failed: 1, HasFailed: true}, otherValue: true},
	} {
		c := comparer{}
		asset := identity.Asset{GUID: ad.GUID{1}, Logons: test.current}
		if test.otherValue {
			asset.Fingerprint[0] = 1
		}
		if err := c.updateRecord(asset, indexRecord{state.IndexRecord{Logons: test.indexed}, true}); err != nil {
			t.Fatal(err)
		}
		if _, got := c.sentLogons[asset.GUID]; got != test.want {
			t.Errorf("%s: stored %v", name, got)
		}
	}
}
