package syncrun

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// hide hides attributes of all objects below a DN; without attributes, it makes them readable.
func (e *env) hide(dn string, attributes ...string) {
	e.t.Helper()
	e.must(e.Hide(dn, attributes...))
}

// runRefused performs one run, which must be refused because the attributes are unreadable and
// must deliver nothing.
func (e *env) runRefused(options RunOptions, attributes ...string) {
	e.t.Helper()
	before, requests := e.gateway.Held(), e.assetRequests()
	run, err := e.failedRun(options)
	if fault.ClassOf(err) != fault.Refused || run.Class != string(fault.Refused) {
		e.t.Errorf("run: %s, error %v", brief(run), err)
	}
	for _, attribute := range attributes {
		if !strings.Contains(err.Error(), attribute) {
			e.t.Errorf("error %v does not name %s", err, attribute)
		}
	}
	if remedy := fault.Remedy(err); !strings.Contains(remedy, `dsacls "`+e.base+`" /I:T /G "svc-qualys@corp.example.com:LCRP"`) {
		e.t.Errorf("remedy %q", remedy)
	}
	if !maps.Equal(before, e.gateway.Held()) || e.assetRequests() != requests {
		e.t.Errorf("%d requests with assets", e.assetRequests()-requests)
	}
}

// runPartial performs one run in which some objects are unreadable. It must warn once.
func (e *env) runPartial(options RunOptions, want state.Run, unreadable int, attributes string) state.Run {
	e.t.Helper()
	before := len(e.log.With(MsgObjectsUnreadable))
	want.Result = Partial
	run := e.run(options, want)
	lines := e.log.With(MsgObjectsUnreadable)[before:]
	if run.Unreadable != unreadable || len(lines) != 1 {
		e.t.Errorf("%d unreadable, log %v", run.Unreadable, lines)
		return run
	}
	if l := lines[0]; l.Text("level") != "warn" || l.Number("unreadable") != unreadable || l.Text("attributes") != attributes || !strings.Contains(l.Text("remedy"), "dsacls ") {
		e.t.Errorf("log %v", l)
	}
	finished := e.log.With(MsgRunFinished)
	if l := finished[len(finished)-1]; l.Text("level") != "warn" || l.Number("unreadable") != unreadable {
		e.t.Errorf("log %v", l)
	}
	return run
}

func (e *env) readableAttributes() state.ReadableAttributes {
	e.t.Helper()
	readable, err := e.store.ReadableAttributes()
	e.must(err)
	return readable
}

// TestUnreadableFlags checks that a run is refused if no user in scope shows userAccountControl,
// and that everything converges after the right is back.
func TestUnreadableFlags(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 30)
	disabled, enabled := e.GUID(e.user(1)), e.GUID(e.user(2))
	e.must(e.Disable(e.user(1)))
	e.must(e.Disable(e.user(2)))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
	e.hide(e.base, "userAccountControl", "accountExpires", "pwdLastSet")
	e.must(e.Modify(e.user(2), "userAccountControl", "66048"))
	e.must(e.Modify(e.user(3), "title", "Chief"))
	for _, options := range []RunOptions{{Full: true}, {}, {DryRun: true}, {Full: true, AllowDeletes: true}} {
		e.runRefused(options, "userAccountControl of users below "+e.base)
	}
	if status := e.status(disabled); status != "DISABLED" {
		t.Errorf("status %v", status)
	}
	e.hide(e.base)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2}) // no watermark has moved
	if status := e.status(enabled); status != "ACTIVE" {
		t.Errorf("status %v", status)
	}
	e.expectConverged()
}

// TestSomeUsersUnreadable checks that the values of unreadable users stay at the gateway, in delta
// and full syncs, and that the next full sync after the right is back sends what differs.
func TestSomeUsersUnreadable(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 30)
	inner := "OU=Inner," + e.base
	for n := range 5 {
		e.must(e.Disable(e.user(n)))
		e.must(e.Move(e.user(n), inner))
	}
	unreadable := func(n int) string { return fmt.Sprintf("CN=user%d,%s", n, inner) }
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 30})
	before := e.gateway.Held()
	e.hide(inner, "userAccountControl")
	e.exceedOverlap()
	e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 5, "userAccountControl")
	e.must(e.Modify(unreadable(0), "userAccountControl", "66048"))
	e.must(e.Modify(unreadable(1), "title", "Chief"))
	e.must(e.Modify(e.user(7), "title", "Chief"))
	run := e.runPartial(RunOptions{}, state.Run{Mode: delta, Uploaded: 1}, 2, "userAccountControl")
	if run.Users != 1 || run.Skipped != 0 {
		t.Errorf("run %+v", run)
	}
	e.exceedOverlap()
	e.hide(inner, "userAccountControl", "whenCreated", "objectSid")
	run = e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 5, "objectSid, userAccountControl, whenCreated")
	if run.Skipped != 5 {
		t.Errorf("run %+v", run)
	}
	after := e.gateway.Held()
	for n := range 5 {
		if guid := e.GUID(unreadable(n)).String(); after[guid] != before[guid] {
			t.Errorf("gateway: %s, before %s", after[guid], before[guid])
		}
	}
	e.hide(inner)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed}) // no delta sync sees a right
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	e.expectConverged()
}

// TestUnreadableUserIsDeleted checks that an unreadable user who is then deleted is reported.
func TestUnreadableUserIsDeleted(t *testing.T) {
	t.Parallel()
	for _, readsDeleted := range []bool{true, false} {
		e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: readsDeleted}, 10)
		e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
		e.hide(e.user(0), "userAccountControl")
		e.hide(e.user(1), "userAccountControl")
		e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 2, "userAccountControl")
		e.must(e.Delete(e.user(0)))
		e.runPartial(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1}, 1, "userAccountControl")
	}
}

// TestRequiredRights checks when a run is refused because no object of a kind shows an attribute
// that every one has.
func TestRequiredRights(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		filter  string
		prepare func(e *env)
		refused []string // none: the run succeeds
		groups  int      // sent by a run that succeeds
	}{
		"whenCreated and name of users": {"", func(e *env) { e.hide(e.base, "whenCreated", "name") }, []string{"name, whenCreated of users; name, whenCreated of groups"}, 0},
		"sAMAccountType of users":       {"", func(e *env) { e.hide(e.base, "sAMAccountType") }, []string{"sAMAccountType of users"}, 0},
		"identifiers of users":          {"", func(e *env) { e.hide(e.base, "objectSid", "objectGUID") }, []string{"objectSid, objectGUID of users"}, 0},
		"each user lacks another attribute": {"", func(e *env) {
			e.hide(e.user(0), "name")
			e.hide(e.user(1), "whenCreated")
			e.hide(e.user(2), "userAccountControl")
		}, []string{"sAMAccountType, objectSid, objectGUID, name, whenCreated, userAccountControl of users"}, 0},
		"groupType of groups": {"", func(e *env) { e.hide(e.base, "groupType") }, []string{"groupType of groups"}, 0},
		"users and groups":    {"", func(e *env) { e.hide(e.base, "groupType", "userAccountControl") }, []string{"userAccountControl of users", "groupType of groups"}, 0},
		"filter on an unreadable attribute": {"(!(userAccountControl:1.2.840.113556.1.4.803:=2))(userAccountControl=*)",
			func(e *env) { e.hide(e.base, "userAccountControl") }, []string{"userAccountControl of users"}, 0},
		"filter that excludes all users": {"(title=Chief)", func(*env) {}, nil, 2},
		"users elsewhere":                {"", func(e *env) { e.hide("OU=Outside,"+e.Base(), "userAccountControl") }, nil, 5},
		"no users": {"", func(e *env) {
			e.hide(e.base, "userAccountControl")
			e.deleteUsers(3)
		}, nil, 2},
		"no groups": {"", func(e *env) {
			e.hide(e.base, "groupType")
			e.must(e.Delete(e.dn("team")))
			e.must(e.Delete(e.dn("second")))
		}, nil, 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 3)
			e.addGroup("team")
			e.addGroup("second")
			if c.filter != "" {
				e.options.Search.UserFilter = "(&" + c.filter + ")"
				e.start()
			}
			c.prepare(e)
			if len(c.refused) > 0 {
				e.runRefused(RunOptions{}, c.refused...)
				return
			}
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: c.groups})
		})
	}
}

// TestSingleUnreadableObject checks that the only object of a kind in scope does not stop a run by its
// own denied right, and that a right that no object of the domain shows does.
func TestSingleUnreadableObject(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		users     int
		deny      func(e *env) (dn string)
		attribute string
	}{
		"group": {3, func(e *env) string { return e.dn("team") }, "groupType"},
		"user":  {1, func(e *env) string { return e.user(0) }, "userAccountControl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, c.users)
			e.addGroup("team")
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: c.users + 1})
			before := e.gateway.Held()
			e.hide(c.deny(e), c.attribute)
			e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 1, c.attribute)
			if !maps.Equal(before, e.gateway.Held()) {
				t.Error("the gateway has changed")
			}
			e.hide(c.deny(e))
			e.hide(e.Base(), c.attribute)
			e.runRefused(RunOptions{Full: true}, c.attribute+" of "+name+"s")
		})
	}
}

// TestOtherServerHasNoRequiredAttributes checks that a server that is no domain controller may
// lack attributes, also those that a domain controller had in the same scope: its users are
// active.
func TestOtherServerHasNoRequiredAttributes(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.PlainLDAP, e.ldap.Users = true, fakeldap.Users(25)
	for _, user := range e.ldap.Users {
		delete(user.Attributes, "userAccountControl")
		delete(user.Attributes, "whenCreated")
	}
	if run := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 25}); run.Unreadable != 0 {
		t.Errorf("run %+v", run)
	}
	for _, asset := range e.gateway.Held() {
		if !strings.Contains(asset, `"status":"ACTIVE"`) {
			t.Errorf("asset %s", asset)
		}
	}
	if readable := e.readableAttributes(); readable.Scope != "" {
		t.Errorf("recorded %+v", readable)
	}
	e.ldap.PlainLDAP, e.ldap.Users = false, fakeldap.Users(25)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 25})
	e.ldap.PlainLDAP = true
	for _, user := range e.ldap.Users {
		delete(user.Attributes, "mail")
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 25})
}

// TestLostOptionalAttribute checks that a full sync is refused if no user shows an attribute any
// more that many had, until the right is back.
func TestLostOptionalAttribute(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, minReadable+1)
	for n := range minReadable {
		e.must(e.Modify(e.user(n), "title", "Engineer"))
	}
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: minReadable + 1})
	if got := e.readableAttributes().Objects["user"]; got["mail"] != minReadable+1 || got["title"] != minReadable || got["userAccountControl"] != 0 {
		t.Errorf("recorded %v", got)
	}
	e.hide(e.base, "mail", "pwdLastSet", "title")
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	for _, options := range []RunOptions{{Full: true}, {AllowDeletes: true}, {Full: true, DryRun: true}, {Resend: true}} {
		e.runRefused(options, "mail, pwdLastSet of users below "+e.base)
	}
	e.hide(e.base)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: minReadable + 1}) // the requested resend
	e.expectConverged()
	e.hide(e.base, "title") // too few had it
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: minReadable})
}

// TestConfirmedRemovalOfValues checks that an operator can confirm that no object has an
// attribute any more, and that the confirmation counts once.
func TestConfirmedRemovalOfValues(t *testing.T) {
	t.Parallel()
	const users = minReadable + 5
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, users)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: users})
	setMail := func(values ...string) {
		for n := range users {
			e.must(e.Modify(e.user(n), "mail", values...))
		}
		e.exceedOverlap()
	}
	setMail()
	e.runRefused(RunOptions{Full: true}, "mail of users")
	e.refusedRun(RunOptions{Full: true, AllowDeletes: true}) // fails at the gateway: nothing is confirmed
	e.runRefused(RunOptions{Full: true}, "mail of users")
	e.run(RunOptions{Full: true, AllowDeletes: true}, state.Run{Mode: full, Result: Processed, Uploaded: users})
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
	e.expectConverged()
	setMail("x@corp.example.com")
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: users})
	setMail()
	e.runRefused(RunOptions{Full: true}, "mail of users")
	e.clock.Advance(25 * time.Hour)
	e.runRefused(RunOptions{}, "mail of users")
}

// TestCountsOfOtherScope checks that the counts of another scope are not compared: the objects
// are others.
func TestCountsOfOtherScope(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, minReadable+1)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: minReadable + 1})
	for n := range minReadable + 1 {
		e.must(e.Modify(e.user(n), "mail"))
	}
	e.setPosture(true)
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != full {
		t.Errorf("run: %s, error %v", brief(run), err)
	}
}

// TestCountsWithoutObjects checks that a full sync that finds no objects keeps the recorded counts, which
// a later one compares.
func TestCountsWithoutObjects(t *testing.T) {
	t.Parallel()
	s := &session{Session: &directory.Session{RootDSE: directory.RootDSE{DSServiceName: "CN=NTDS Settings", HighestCommittedUSN: 1}}}
	if got := readableAttributes(Snapshot{}, s, readResult{}); got != nil {
		t.Errorf("counts %+v", got)
	}
	result := readResult{readable: map[identity.Kind]map[string]int{identity.User: {"mail": 2}}}
	if got := readableAttributes(Snapshot{}, s, result); got == nil || got.Objects["user"]["mail"] != 2 {
		t.Errorf("counts %+v", got)
	}
}

// TestNoObjectsAreNoLostRight checks that a scope without users is not refused: the guard decides
// on their deletions.
func TestNoObjectsAreNoLostRight(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, minReadable+5)
	e.addGroup("team")
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: minReadable + 6})
	for n := range minReadable + 5 {
		e.moveOut(n)
	}
	e.options.Guard.MaxDeletes = 10
	e.start()
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: minReadable + 5})
}

// TestCountsAfterRestart checks that the objects of a search that was restarted count once.
func TestCountsAfterRestart(t *testing.T) {
	t.Parallel()
	e := newBackpressureEnv(t, 900, 400)
	delete(e.ldap.Users[7].Attributes, "userAccountControl")
	e.runPartial(RunOptions{}, state.Run{Mode: full, Uploaded: 904}, 1, "userAccountControl")
	if n := len(e.log.With(MsgSearchRestarted)); n == 0 {
		t.Error("no search restarted")
	}
	if got := e.readableAttributes().Objects["user"]["mail"]; got != 900 {
		t.Errorf("%d users with mail", got)
	}
}

// TestRechecksOfUnreadableUserEnd checks that a user whose account expires while it is unreadable
// is read again for an hour only, and has the right status after the right is back.
func TestRechecksOfUnreadableUserEnd(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	e.must(e.Modify(e.user(0), "accountExpires", fileTime(e.clock.Now().Add(time.Hour))))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.exceedOverlap()
	e.hide(e.user(0), "userAccountControl")
	due := func(want int) {
		t.Helper()
		if guids, err := e.store.DueForRecheck(e.clock.Now()); err != nil || len(guids) != want {
			t.Errorf("%d objects due, error %v", len(guids), err)
		}
	}
	for range 2 {
		e.clock.Advance(time.Hour)
		due(1)
		e.runPartial(RunOptions{}, state.Run{Mode: delta}, 1, "userAccountControl")
	}
	due(0)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.hide(e.user(0))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	if status := e.status(e.GUID(e.user(0))); status != "EXPIRED" {
		t.Errorf("status %v", status)
	}
}

// TestUnreadablePosture checks that unreadable service accounts, roles, and domains are neither
// sent nor deleted.
func TestUnreadablePosture(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
	e.setPosture(true)
	account := e.dn("gmsa")
	e.must(e.Add(domaincontroller.Object{DN: account, Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}}))
	first, err := e.runner.Run(t.Context(), RunOptions{})
	if err != nil || first.Result != Processed {
		t.Fatalf("run: %s, error %v", brief(first), err)
	}
	before := e.gateway.Held()
	e.must(e.Modify(account, "userAccountControl", "4098"))
	e.must(e.Modify("CN=Domain Admins,CN=Users,"+e.Base(), "description", "x"))
	e.must(e.Modify(e.Base(), "lockoutThreshold", "7"))
	e.hide(account, "userAccountControl")
	e.hide("CN=Domain Admins,CN=Users,"+e.Base(), "name")
	e.runPartial(RunOptions{Full: true}, state.Run{Mode: full, Uploaded: 1}, 2, "name, userAccountControl") // the domain
	after := e.gateway.Held()
	role := identity.RoleGUID(e.GUID("CN=Domain Admins,CN=Users," + e.Base()))
	for _, guid := range []string{e.GUID(account).String(), role.String()} {
		if after[guid] == "" || after[guid] != before[guid] {
			t.Errorf("gateway: %s, before %s", after[guid], before[guid])
		}
	}
	for _, dn := range []string{account, "CN=Domain Admins,CN=Users," + e.Base()} {
		e.hide(dn)
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 2})
	e.expectConverged()
}

// TestLostAttributeOfServiceAccounts checks that each kind of objects is compared with its own
// counts.
func TestLostAttributeOfServiceAccounts(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, minReadable+1)
	e.setPosture(true)
	e.AddUnit("OU=Managed," + e.base)
	for n := range minReadable + 1 {
		dn := "CN=gmsa" + strconv.Itoa(n) + ",OU=Managed," + e.base
		e.must(e.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}, "title": {"x"}}}))
	}
	if run, err := e.runner.Run(t.Context(), RunOptions{}); err != nil || run.Result != Processed {
		t.Fatalf("run: %s, error %v", brief(run), err)
	}
	e.hide("OU=Managed,"+e.base, "title")
	e.runRefused(RunOptions{Full: true}, "title of service accounts below")
	kinds := slices.Sorted(maps.Keys(e.readableAttributes().Objects))
	if want := []string{"group", "service account", "user"}; !slices.Equal(kinds, want) {
		t.Errorf("counts of %v", kinds)
	}
}
