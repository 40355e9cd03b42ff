package syncrun

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/internal/upload"
	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

func TestFullSyncSendsEverythingOnce(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(512), fakeldap.Groups(30)
	run := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 542})
	if run.Users != 512 || run.Groups != 30 || run.Changed != 542 || run.Requests == 0 {
		t.Errorf("run %+v", run)
	}
	if users, groups := len(e.gateway.Users()), len(e.gateway.Groups()); users != 512 || groups != 30 {
		t.Errorf("%d users and %d groups at the gateway", users, groups)
	}
	finished := e.log.With(MsgRunFinished)
	if len(finished) != 1 {
		t.Fatalf("%d summaries", len(finished))
	}
	line := finished[0]
	if line.Text("run_id") != run.ID || line.Text("result") != Processed || line.Text("mode") != full || line.Number("uploaded") != 542 {
		t.Errorf("summary %v", line)
	}
	sent := e.assetRequests()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	e.restart()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	if n := e.assetRequests() - sent; n != 0 {
		t.Errorf("%d requests for unchanged objects", n)
	}
	if runs, err := e.store.Runs(); err != nil || len(runs) != 3 || runs[2].ID != run.ID {
		t.Errorf("%d runs recorded, error %v", len(runs), err)
	}
}

func TestFullSyncSendsChangedObjectOnly(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(120)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 120})
	e.ldap.Users[77].Attributes["title"] = "Chief"
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	for _, user := range e.gateway.Users() {
		if chief := bytes.Contains(user.Asset, []byte(`"Chief"`)); chief != (user.Times == 2) {
			t.Errorf("%s sent %d times", user.Asset, user.Times)
		}
	}
}

func TestRejectedObjectIsSentAgainByFullSync(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(120), fakeldap.Groups(3)
	e.gateway.SetFront(rejectAssetsWith(`"user77"`))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 122, Rejected: 1})
	if run := e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Rejected: 1}); run.Changed != 1 {
		t.Errorf("run %+v", run)
	}
	e.gateway.SetFront(nil)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
}

// The gateway's reason may repeat attribute values.
func TestRejectionReasonIsLoggedAtDebugOnly(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(10)
	e.gateway.SetFront(rejectAssetsWith(`"user7"`))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 9, Rejected: 1})
	if lines := e.log.With(MsgObjectRejected); len(lines) != 1 || lines[0].Text("kind") != "user" {
		t.Errorf("log %v", lines)
	}
	const reason = "400: no such country"
	if lines := e.log.With(MsgRejectionReason); len(lines) != 1 || lines[0].Text("level") != "debug" || lines[0].Text("reason") != reason {
		t.Errorf("log %v", lines)
	}
	if lines := e.log.Find(testlog.Field("reason", reason)); len(lines) != 1 {
		t.Errorf("log %v", lines)
	}
}

func TestLostConnectionKeepsAcknowledgedObjects(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(1000)
	e.ldap.BeforeEntry = func(n int) bool { return n < 730 }
	run, err := e.failedRun(RunOptions{})
	if fault.ClassOf(err) != fault.Transient {
		t.Errorf("error %v", err)
	}
	delivered := e.expectRecorded()
	if delivered != run.Uploaded || delivered >= 730 {
		t.Errorf("%d at the gateway, %d counted", delivered, run.Uploaded)
	}
	e.ldap.BeforeEntry = nil
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1000 - delivered})
}

func TestRefusedBatchFailsRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(1000)
	e.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		return x.Number > 5 && x.Status(http.StatusForbidden, "")
	}))
	if _, err := e.failedRun(RunOptions{}); fault.ClassOf(err) != fault.Refused {
		t.Errorf("error %v", err)
	}
	e.expectRecorded()
}

// The directory sends no further entry until the run ends.
func TestRefusedBatchEndsReading(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(200)
	ended := make(chan struct{})
	defer close(ended)
	e.ldap.BeforeEntry = func(n int) bool {
		if n == 150 {
			<-ended
		}
		return true
	}
	e.gateway.SetFront(refuseAssets)
	if _, err := e.failedRun(RunOptions{}); fault.ClassOf(err) != fault.Refused {
		t.Errorf("error %v", err)
	}
}

func TestCanceledRunKeepsAcknowledgedObjects(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(1000)
	ctx, cancel := context.WithCancel(t.Context())
	e.gateway.SetFront(testenv.OnAssets(func(*testenv.Exchange) bool { cancel(); return false }))
	run, err := e.runner.Run(ctx, RunOptions{})
	if fault.ClassOf(err) != fault.Canceled || run.Result != Failed {
		t.Errorf("run %+v, error %v", run, err)
	}
	e.expectRecorded()
	if current, err := e.store.Connector(); err != nil || current.State != stateScheduled || current.Error == "" {
		t.Errorf("state %+v, error %v", current, err)
	}
	if lines := e.log.With(MsgRunFinished); len(lines) != 1 || lines[0].Text("level") != "warn" || lines[0].Text("class") != string(fault.Canceled) {
		t.Errorf("summaries %v", lines)
	}
}

func TestProgressOfFullSync(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(20), fakeldap.Groups(3)
	for i, want := range [][4]int64{{0, 23, 23, 23}, {23, 23, 0, 0}} { // the index is empty before the first sync
		var p Progress
		if _, err := e.runner.Run(t.Context(), RunOptions{Progress: &p}); err != nil {
			t.Fatal(err)
		}
		if got := [4]int64{p.Expected.Load(), p.Read.Load(), p.Changed.Load(), p.Acknowledged.Load()}; got != want {
			t.Errorf("run %d: expected, read, changed, acknowledged %v, want %v", i, got, want)
		}
	}
}

func TestDeltaSyncHasNoExpectedCount(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.must(e.Modify(e.user(1), "title", "Chief"))
	var p Progress
	e.run(RunOptions{Progress: &p}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	if p.Expected.Load() != 0 || p.Read.Load() == 0 || p.Changed.Load() != 1 || p.Acknowledged.Load() != 1 {
		t.Errorf("expected %d, read %d, changed %d, acknowledged %d", p.Expected.Load(), p.Read.Load(), p.Changed.Load(), p.Acknowledged.Load())
	}
}

func TestDryRunSendsAndRecordsNothing(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(120), fakeldap.Groups(3)
	if run := e.run(RunOptions{DryRun: true}, state.Run{Mode: full, Result: Processed}); run.Changed != 123 {
		t.Errorf("run %+v", run)
	}
	if n := e.assetRequests() + e.gateway.Arrived(testenv.StatePath); n != 0 {
		t.Errorf("%d requests", n)
	}
	runs, err := e.store.Runs()
	e.must(err)
	if current, err := e.store.Connector(); err != nil || len(runs) != 0 || current != (state.Connector{}) || len(e.indexed()) != 0 {
		t.Errorf("recorded: %d runs, state %+v, %d users", len(runs), current, len(e.indexed()))
	}
	if lines := e.log.With(MsgRunFinished); len(lines) != 1 || lines[0]["dry_run"] != true {
		t.Errorf("log %v", lines)
	}
}

func TestDryRunWithConfiguredSourceSendsNoRequests(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(20)
	e.options.Source = &Source{Base: fakeldap.Base, Scope: directory.Subtree, Directory: directory.Options{
		Hosts: []string{"127.0.0.1"}, Port: e.ldap.Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password),
	}}
	e.start()
	if run := e.run(RunOptions{DryRun: true}, state.Run{Mode: full, Result: Processed}); run.Changed != 20 {
		t.Errorf("run %+v", run)
	}
	if requests := e.gateway.Requests(); len(requests) != 0 {
		t.Errorf("requests %+v", requests)
	}
}

func TestEntriesWithoutIdentifiersAreSkipped(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(50)
	delete(e.ldap.Users[7].Attributes, "objectSid")
	delete(e.ldap.Users[8].Attributes, "objectGUID")
	if run := e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 48}); run.Users != 48 || run.Skipped != 2 || run.Unreadable != 2 {
		t.Errorf("run %+v", run)
	}
	if lines := e.log.With(MsgEntrySkipped); len(lines) != 1 { // the first one only
		t.Errorf("log %v", lines)
	}
	read := e.log.Find(func(l testlog.Line) bool { return l.Text("message") == MsgDirectoryRead && l.Text("kind") == "user" })
	if len(read) != 1 || read[0].Number("skipped") != 2 || read[0].Number("objects") != 48 {
		t.Errorf("log %v", read)
	}
}

func TestFilters(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		plain       bool   // not a domain controller
		user, group string // configured
		want        []string
	}{
		"domain controller":                     {want: []string{"(sAMAccountType=805306368)", "(objectClass=group)"}},
		"domain controller and a user filter":   {user: "(department=Sales)", want: []string{"(&(sAMAccountType=805306368)(department=Sales))", "(objectClass=group)"}},
		"another server":                        {plain: true, want: []string{"(sAMAccountType=805306368)", "(objectClass=group)"}},
		"another server and configured filters": {plain: true, user: "(objectClass=person)", group: "(objectClass=groupOfNames)", want: []string{"(objectClass=person)", "(objectClass=groupOfNames)"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newLDAPEnv(t)
			e.ldap.PlainLDAP = c.plain
			e.options.Search.UserFilter, e.options.Search.GroupFilter = c.user, c.group
			e.start()
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
			got := e.ldap.Filters() // in any order
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("filters %q, want %q", got, c.want)
			}
			if lines := e.log.With(MsgDirectoryConnected); len(lines) != 1 || lines[0]["domain_controller"] != !c.plain {
				t.Errorf("log %v", lines)
			}
		})
	}
}

func TestWrongConsoleValueFailsUntilCorrected(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		connection func(*gatewayserver.Authentication)
		profile    func(*gateway.Profile)
		contains   []string // parts of the error
	}{
		"type":        {connection: func(a *gatewayserver.Authentication) { a.Type = "LDAPX" }, contains: []string{"connection", `"LDAPX"`}},
		"scope":       {profile: func(p *gateway.Profile) { p.SearchScope = "TREE" }, contains: []string{"profile", `"TREE"`}},
		"assets":      {profile: func(p *gateway.Profile) { p.Assets = "ALL" }, contains: []string{"profile", `"ALL"`}},
		"no base":     {profile: func(p *gateway.Profile) { p.BaseContext = "" }, contains: []string{"profile", "base context"}},
		"certificate": {connection: func(a *gatewayserver.Authentication) { a.Certificate = "invalid" }, contains: []string{"connection", "certificate"}},
		"no host":     {connection: func(a *gatewayserver.Authentication) { a.Host = " , " }, contains: []string{"host"}},
		"password":    {connection: func(a *gatewayserver.Authentication) { a.Password = "wrong" }, contains: []string{"password"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newLDAPEnv(t)
			e.gateway.SetConnection(e.connection(c.connection))
			e.gateway.SetProfile(e.profile(c.profile))
			_, err := e.failedRun(RunOptions{})
			if fault.ClassOf(err) != fault.Refused {
				t.Errorf("class %s of error %v", fault.ClassOf(err), err)
			}
			for _, text := range c.contains {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q does not contain %q", err, text)
				}
			}
			if n := e.ldap.Binds(); n > 1 {
				t.Errorf("%d binds", n)
			}
			e.setConsole() // corrected without a restart
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
		})
	}
}

func TestRefusedLoginFailsRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.password = "wrong"
	e.start()
	if _, err := e.failedRun(RunOptions{}); fault.ClassOf(err) != fault.Refused {
		t.Errorf("error %v", err)
	}
	if n := e.gateway.Arrived(testenv.LoginPath); n != 1 {
		t.Errorf("%d logins", n)
	}
	lines := e.log.With(MsgRunFinished)
	if len(lines) != 1 || lines[0].Text("class") != string(fault.Refused) || lines[0].Text("level") != "error" {
		t.Errorf("log %v", lines)
	}
	if runs, err := e.store.Runs(); err != nil || len(runs) != 1 || runs[0].Error == "" {
		t.Errorf("runs %+v, error %v", runs, err)
	}
}

// Each login counts toward the account lockout. Neither the other requests of a run nor
// states sent again between runs may cause one.
func TestRefusedLoginIsTriedOncePerRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	before := e.gateway.Arrived(testenv.LoginPath)
	e.gateway.SetFront(func(x *testenv.Exchange) bool {
		return x.R.URL.Path == testenv.LoginPath && x.Status(http.StatusUnauthorized, "")
	})
	e.gateway.Sandbox().RevokeTokens()
	for n := range 3 {
		if _, err := e.failedRun(RunOptions{}); fault.ClassOf(err) != fault.Refused {
			t.Errorf("error %v", err)
		}
		for range 5 {
			e.runner.states.resendPending(t.Context())
		}
		if got := e.gateway.Arrived(testenv.LoginPath) - before; got != n+1 {
			t.Errorf("%d logins after %d runs", got, n+1)
		}
	}
	if lines := e.log.With(MsgStateSentLate); len(lines) != 0 {
		t.Errorf("log %v", lines)
	}
}

func TestRunFailsIfStateFileIsClosed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path   string
		number int
	}{
		"login":      {testenv.LoginPath, 1},
		"registered": {testenv.StatePath, 1},
		"scheduled":  {testenv.StatePath, 2},
		"processing": {testenv.StatePath, 3},
		"source":     {testenv.ProfilePath, 1},
		"batch":      {testenv.AssetsPath, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newLDAPEnv(t)
			e.ldap.Users = fakeldap.Users(3)
			e.gateway.SetFront(func(x *testenv.Exchange) bool {
				if x.R.URL.Path == c.path && x.Number == c.number {
					e.store.Close()
				}
				return false
			})
			if run, _ := e.failedRun(RunOptions{}); run.Error == "" {
				t.Errorf("run %+v", run)
			}
			if lines := e.log.With(MsgRunFinished); len(lines) != 1 || lines[0].Text("result") != Failed {
				t.Errorf("log %v", lines)
			}
		})
	}
}

func TestRefusedSecondSessionReadsSequentially(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 5)
	e.addGroup("team")
	e.connectThrough(proxy{request: func(n int, request string) action {
		if n > 1 {
			return action{}
		}
		return action{forward: request}
	}})
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6})
	if lines := e.log.With(MsgSecondSessionFailed); len(lines) != 1 {
		t.Errorf("log %v", lines)
	}
	e.expectConverged()
}

func TestUnrecordedBatchIsNotCounted(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	stored, err := e.store.OpenJournal(state.View{}, time.Now())
	e.must(err)
	object := identity.Object{Kind: identity.User, GUID: ad.GUID{1}}
	e.must(stored.MarkInFlight([]state.Batch{{Objects: []identity.Object{object}}}))
	e.store.Close()
	j := &journal{Journal: stored, outcomes: map[Outcome]int{}, progress: &Progress{}}
	err = j.Commit([]state.BatchResult{{Complete: true, Acknowledged: []identity.Object{object}}})
	if err == nil || len(j.outcomes) != 0 || j.progress.Acknowledged.Load() != 0 {
		t.Errorf("error %v, outcomes %v", err, j.outcomes)
	}
}

// A read transaction that stays open while the run waits for the gateway would block the
// growth of the state file, and thus the run, forever.
func TestStateFileGrowsDuringRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(2500)
	e.options.Search.PageSize = 1000
	e.options.Upload = upload.Options{Workers: 1, BatchSize: 50, BatchBytes: 1 << 20}
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2500})
}

// TestRunNotRecorded checks that a run fails if its end cannot be recorded, although its progress is.
func TestRunNotRecorded(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	var reported Report
	e.options.OnEnd = func(r Report) { reported = r }
	e.start()
	var p Progress
	closeStore := sync.OnceFunc(func() { e.must(e.store.Close()) })
	e.runner.now = func() time.Time {
		if p.phase.Load() == "record" { // the run has advanced, and its final state follows
			closeStore()
		}
		return e.clock.Now()
	}
	run, err := e.failedRun(RunOptions{Progress: &p})
	if failed, is := errors.AsType[*fault.Error](err); !is || failed.Op != "record run" {
		t.Errorf("error %v", err)
	}
	if run.Uploaded != 3 || run.Error == "" || run.Class != string(fault.ClassOf(err)) || reported.Error != run.Error || reported.Result != Failed {
		t.Errorf("run %+v, report %+v", run, reported.Run)
	}
	states := e.gateway.States()
	if last := states[len(states)-1]; last.State != stateScheduled || last.Error == nil {
		t.Errorf("last state %+v", last)
	}
	store, err := state.Options{NoSync: true}.Open(e.stateDir)
	e.must(err)
	e.store = store
	e.start()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
}

// TestProgressNotRecorded checks that each error to record something at the end of a run is returned.
func TestProgressNotRecorded(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	e.must(e.Modify(e.BindDN(), "userAccountControl", "512"))
	e.must(e.Modify(e.BindDN(), "pwdLastSet", fileTime(e.clock.Now().AddDate(0, 0, -30)))) // of 42 days
	closeStore := func() { e.must(e.store.Close()) }
	e.runner.Log = zerolog.New(&logHook{Log: e.log, message: MsgPasswordExpires, do: closeStore}) // before the first record
	run, err := e.failedRun(RunOptions{})
	var operations []string
	for _, single := range fault.All(err) {
		if failed, is := errors.AsType[*fault.Error](single); is {
			operations = append(operations, failed.Op)
		}
	}
	if want := []string{"record expiries", "merge journal", "read connector state"}; !slices.Equal(operations, want) || run.Uploaded != 3 {
		t.Errorf("failed %q, want %q; run %+v", operations, want, run)
	}
}
