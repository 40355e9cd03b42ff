package syncrun

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// lockedAway are the attributes that hideAll hides.
var lockedAway = []string{
	"objectClass", "objectGUID", "objectSid", "name", "whenCreated", "whenChanged", "uSNChanged", "sAMAccountType", "sAMAccountName", "userAccountControl",
	"groupType", "distinguishedName", "mail", "title", "member", "primaryGroupID",
}

const lockedAwayUser = "name, objectClass, objectGUID, objectSid, sAMAccountType, userAccountControl, whenCreated"

// hideAll makes all objects below a DN unreadable: the account can only list them.
func (e *env) hideAll(dn string) {
	e.t.Helper()
	e.hide(dn, lockedAway...)
}

// inner returns the DN of a user in OU=Inner.
func (e *env) inner(n int) string { return fmt.Sprintf("CN=user%d,OU=Inner,%s", n, e.base) }

// moveToInner moves the first users to OU=Inner.
func (e *env) moveToInner(users int) {
	e.t.Helper()
	for n := range users {
		e.must(e.Move(e.user(n), "OU=Inner,"+e.base))
	}
}

// expectNoneDeleted expects all users to be in the index, and none of their deletions to be sent,
// held or undecided.
func (e *env) expectNoneDeleted(indexed int) {
	e.t.Helper()
	for guid, asset := range e.gateway.Held() {
		if strings.Contains(asset, `"DELETED"`) {
			e.t.Errorf("%s is deleted", guid)
		}
	}
	if n, err := e.store.IndexSize(); err != nil || n != indexed {
		e.t.Errorf("%d objects in the index, error %v, want %d", n, err, indexed)
	}
	e.expectUndecided("", 0)
	if n := e.heldDeletions(); n != 0 {
		e.t.Errorf("%d deletions held", n)
	}
}

// TestUnreadableSubtree checks that objects of which the account can only list the DN are not
// deleted, whatever the operator requests, until they are, and that they converge after the right
// is back.
func TestUnreadableSubtree(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	e.moveToInner(4)
	e.AddGroup("CN=team,OU=Inner," + e.base)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 11})
	e.exceedOverlap()
	e.hideAll("OU=Inner," + e.base)
	e.must(e.Modify(e.inner(1), "title", "Chief"))
	const attributes = "groupType, " + lockedAwayUser
	for _, options := range []RunOptions{{Full: true}, {AllowDeletes: true}, {Full: true, AllowDeletes: true}, {Full: true, DryRun: true}} {
		e.runPartial(options, state.Run{Mode: full}, 5, attributes)
		e.expectNoneDeleted(11)
	}
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.must(e.Delete(e.inner(0)))
	e.runPartial(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1}, 4, attributes)
	e.hide("OU=Inner," + e.base)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	e.expectConverged()
}

// TestUnreadableObjectsAreLogged checks what the log says about each of them.
func TestUnreadableObjectsAreLogged(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	e.moveToInner(2)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.hideAll("OU=Inner," + e.base)
	e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 2, lockedAwayUser)
	lines := e.log.With(MsgObjectUnreadable)
	var guids []string
	for _, l := range lines {
		guids = append(guids, l.Text("guid"))
		if l.Text("level") != "debug" || l.Text("base_dn") != "OU=Inner,"+e.base || l.Text("dn_hash") == "" || l.Text("kind") != "user" {
			t.Errorf("log %v", l)
		}
	}
	if len(guids) != 2 || !slices.Contains(guids, e.GUID(e.inner(0)).String()) {
		t.Errorf("objects %v", guids)
	}
}

// TestUnreadableAndGuard checks that unreadable objects do not count for the guard, and that a
// release deletes none of those that were held because they were too many to check.
func TestUnreadableAndGuard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		guard Guard
		held  int
	}{
		"above the percentage":           {Guard{MaxDeletes: 500, MaxDeletesPercent: 10}, 0},
		"as many as the guard allows":    {Guard{MaxDeletes: 8, MaxDeletesPercent: 100}, 0},
		"all deletions held":             {Guard{MaxDeletes: 500, MaxDeletesPercent: 0}, 0},
		"one more than the guard allows": {Guard{MaxDeletes: 7, MaxDeletesPercent: 100}, 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 20)
			e.options.Guard = c.guard
			e.start()
			e.moveToInner(8)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
			e.hideAll("OU=Inner," + e.base)
			if c.held > 0 {
				e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: c.held})
			} else {
				e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 8, lockedAwayUser)
			}
			e.runPartial(RunOptions{AllowDeletes: true}, state.Run{Mode: full}, 8, lockedAwayUser)
			e.expectNoneDeleted(20)
		})
	}
}

// TestUnreadableAmongDeleted checks that the others of the missing objects are deleted, or held.
func TestUnreadableAmongDeleted(t *testing.T) {
	t.Parallel()
	for deleted, result := range map[int]state.Run{
		6: {Mode: full, Result: Held, Held: 6},
		5: {Mode: full, Result: Partial, Deleted: 5},
	} {
		e := newDomainEnv(t, domaincontroller.Options{}, 20)
		e.options.Guard.MaxDeletesPercent = 10
		e.start()
		e.moveToInner(8)
		e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
		e.hideAll("OU=Inner," + e.base)
		for n := 8; n < 8+deleted; n++ {
			e.must(e.Delete(e.user(n)))
		}
		if run := e.run(RunOptions{Full: true}, result); run.Unreadable != 8 {
			t.Errorf("%d unreadable", run.Unreadable)
		}
		e.run(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Result: Partial, Deleted: result.Held})
	}
}

// TestUnreadableHere checks that an object that exists on this controller is not undecided,
// although the controller has never shown it.
func TestUnreadableHere(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 0)
	a, b := e.Directory, e.newReplica(domaincontroller.Options{})
	for n := range 6 {
		a.AddUser(e.user(n))
		b.AddUser(e.user(n))
	}
	a.AddUser(e.user(6)) // not replicated yet
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7})
	e.use(b)
	for n := range 2 {
		e.hideAll(e.user(n))
	}
	for _, options := range []RunOptions{{}, {Full: true}} {
		run := e.run(options, state.Run{Mode: full, Result: Held, Undecided: 1})
		e.expectUndecided(UndecidedNotShown, 1)
		if run.Unreadable != 2 {
			t.Errorf("%d unreadable", run.Unreadable)
		}
	}
	if run := e.run(RunOptions{}, state.Run{Mode: delta, Result: Held, Undecided: 1}); run.Unreadable != 2 {
		t.Errorf("delta sync: %d unreadable", run.Unreadable)
	}
	e.use(a)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	e.expectConverged()
}

// TestUndecidedBecomesUnreadable checks that a full sync removes an unreadable object from the
// undecided ones.
func TestUndecidedBecomesUnreadable(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 0)
	a, b := e.Directory, e.newReplica(domaincontroller.Options{})
	for n := range 3 {
		a.AddUser(e.user(n))
	}
	b.AddUser(e.user(0))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Undecided: 2})
	b.AddUser(e.user(1))
	b.AddUser(e.user(2))
	e.hideAll(e.user(1))
	e.hideAll(e.user(2))
	e.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 2, lockedAwayUser)
	e.expectNoneDeleted(3)
}

// TestReleasedUndecidedIsUnreadable checks that a release deletes no unreadable object, although
// no controller is left that has shown it.
func TestReleasedUndecidedIsUnreadable(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 0)
	e.options.Guard.MaxDeletes = fewDeletions
	e.start()
	a, b := e.Directory, e.newReplica(domaincontroller.Options{})
	const users = fewDeletions + 1 // more than are searched one by one without a release
	for n := range users {
		a.AddUser(e.user(n))
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: users})
	e.use(b)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Held, Undecided: users})
	for n := range users {
		b.AddUser(e.user(n))
		e.hideAll(e.user(n))
	}
	e.must(b.RemovePeer(a.Server))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Undecided: users})
	e.runPartial(RunOptions{AllowDeletes: true}, state.Run{Mode: full}, users, lockedAwayUser)
	e.expectNoneDeleted(users)
}

// TestLeftScope checks that an object that left the scope is reported as deleted as before, also
// if the account cannot read it where it is now.
func TestLeftScope(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		scope  string
		filter string
		change func(e *env)
		want   state.Run
		users  int // unreadable
	}{
		"readable outside": {"Subtree", "", func(e *env) { e.moveOut(0) }, state.Run{Result: Processed, Deleted: 1}, 0},
		"unreadable outside": {"Subtree", "", func(e *env) {
			e.moveOut(0)
			e.hideAll("OU=Outside," + e.Base())
		}, state.Run{Result: Processed, Deleted: 1}, 0},
		"unreadable in a lower level": {"One level", "", func(e *env) {
			e.moveToInner(1)
			e.hideAll("OU=Inner," + e.base)
		}, state.Run{Result: Processed, Deleted: 1}, 0},
		"unreadable in the level": {"One level", "", func(e *env) { e.hideAll(e.user(0)) }, state.Run{Result: Partial}, 1},
		"filter does not match any more": {"Subtree", "(!(title=*))", func(e *env) { e.must(e.Modify(e.user(0), "title", "x")) },
			state.Run{Result: Processed, Deleted: 1}, 0},
		"one required attribute is unreadable, filter does not match": {"Subtree", "(!(title=*))", func(e *env) {
			e.must(e.Modify(e.user(0), "title", "x"))
			e.hide(e.user(0), "userAccountControl")
		}, state.Run{Result: Partial}, 1},
	} {
		for form, base := range map[string]func(e *env) string{
			"the DN":               func(e *env) string { return e.base },
			"another form of it":   func(e *env) string { return strings.ReplaceAll(strings.ToLower(e.base), ",", " , ") },
			"the GUID of the base": func(e *env) string { return directory.BaseOfGUID(e.GUID(e.base)) },
		} {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				e := newDomainEnv(t, domaincontroller.Options{}, 4)
				written := e.profile(nil)
				written.SearchScope, written.BaseContext = c.scope, base(e)
				e.gateway.SetProfile(written)
				e.options.Search.UserFilter = c.filter
				e.start()
				e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
				c.change(e)
				want := c.want
				want.Mode = full
				if run := e.run(RunOptions{Full: true}, want); run.Unreadable != c.users {
					t.Errorf("%d unreadable, want %d", run.Unreadable, c.users)
				}
			})
		}
	}
}

// TestUnreadableRole checks that a role stays at the gateway while its group is unreadable, and
// that it is reported as deleted after the group was deleted.
func TestUnreadableRole(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 3)
	admins := "CN=DnsAdmins,CN=Users," + e.Base()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3 + postureObjects})
	role := identity.RoleGUID(e.GUID(admins))
	before := e.gateway.Held()[role.String()]
	e.hideAll(admins)
	run, err := e.runner.Run(t.Context(), RunOptions{Full: true})
	if err != nil || run.Result != Partial || run.Deleted != 0 || run.Unreadable != 1 || before == "" || e.gateway.Held()[role.String()] != before {
		t.Errorf("run: %s, %d unreadable, error %v", brief(run), run.Unreadable, err)
	}
	e.must(e.Delete(admins))
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1, Deleted: 1}) // the domain, the role
}

// TestLocateFailsTransiently checks that a busy controller proves neither a deletion nor that an
// object is unreadable.
func TestLocateFailsTransiently(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.must(e.Delete(e.user(0)))
	for _, result := range []int{ldap.LDAPResultBusy, ldap.LDAPResultUnavailable} {
		armed := e.busyOnce(result, "<GUID=")
		e.nextFullSync()
		e.failBusy(armed, fault.Transient, full)
		e.expectNoneDeleted(5)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
}

// TestNumberOfLocatedObjects checks how many objects are searched one by one.
func TestNumberOfLocatedObjects(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options      RunOptions
		readsDeleted bool
		deleted      int
		located      int
		want         state.Run
	}{
		"few":                 {RunOptions{Full: true}, false, 3, 3, state.Run{Result: Processed, Deleted: 3}},
		"tombstones of delta": {RunOptions{}, true, 3, 0, state.Run{Result: Processed, Deleted: 3}},
		"guard":               {RunOptions{Full: true}, false, 8, 8, state.Run{Result: Processed, Deleted: 8}},
		"held":                {RunOptions{Full: true}, false, 9, 0, state.Run{Result: Held, Held: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: c.readsDeleted}, 20)
			e.options.Guard = Guard{MaxDeletes: 8, MaxDeletesPercent: 100}
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
			var located atomic.Int32
			e.connectThrough(proxy{request: func(_ int, request string) action {
				if strings.Contains(request, "<GUID=") {
					located.Add(1)
				}
				return action{forward: request}
			}})
			e.deleteUsers(c.deleted)
			if c.want.Mode = full; !c.options.Full {
				c.want.Mode = delta
			}
			e.run(c.options, c.want)
			if n := int(located.Load()); n != c.located {
				t.Errorf("%d objects located, want %d", n, c.located)
			}
		})
	}
}

// TestOtherServersLocateNothing checks that servers that are no domain controllers, which have no
// such search bases, are not asked.
func TestOtherServersLocateNothing(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.options.Guard.MaxDeletesPercent = 100
	e.options.Search.Observe = func(request string, class fault.Class, _ time.Duration) {
		if class != fault.Done {
			t.Errorf("request %s: %s", request, class)
		}
	}
	e.start()
	e.ldap.PlainLDAP, e.ldap.Users = true, fakeldap.Users(20)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	e.ldap.Users = e.ldap.Users[:18]
	var reads atomic.Int32
	e.options.Search.Observe = func(request string, _ fault.Class, _ time.Duration) {
		if request == "read" {
			reads.Add(1)
		}
	}
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 2})
	if n := reads.Load(); n > 2 { // rootDSE, by both sessions
		t.Errorf("%d objects read", n)
	}
}

// TestCandidatesToLocate checks with random evidence that a run sends only deletions whose objects
// have a tombstone or were searched by their identifiers, and none that are unreadable, and that
// unreadable objects are neither held nor undecided.
func TestCandidatesToLocate(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	maybe := func() bool { return r.IntN(3) == 0 }
	for range 5000 {
		g := Guard{MaxDeletes: r.IntN(12), MaxDeletesPercent: []int{0, 10, 100}[r.IntN(3)]}
		e := Evidence{FullSync: r.IntN(4) > 0, NothingFound: r.IntN(9) == 0, Release: maybe(), IndexSize: 40, Controllers: []ad.InvocationID{controllB}}
		if r.IntN(9) == 0 {
			e.Doubt = UndecidedUnreadableGUID
		}
		owners := map[identity.Key]int{}
		for n := range r.IntN(20) {
			c := candidates(n, n+1, Candidate{Object: identity.Object{Kind: identity.User}})[0]
			c.Tombstone, c.HeldBefore = maybe(), r.IntN(6) == 0
			if r.IntN(4) == 0 { // several objects have one SID, or another one has it
				c.SID = ad.SID{1, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0}
			} else if r.IntN(4) == 0 {
				owners[c.Key()] = 1
			}
			if !maybe() {
				c.Sighting = shownHere
			} else if c.Sighting = shownByA; maybe() {
				c.Undecided = UndecidedNotShown
			}
			e.Candidates = append(e.Candidates, c)
		}
		e.Owners = owners
		located := map[ad.GUID]bool{}
		unreadable := map[ad.GUID]bool{}
		for _, i := range candidatesToLocate(e, g) {
			c := &e.Candidates[i]
			if c.Unreadable = maybe(); c.Unreadable {
				unreadable[c.GUID] = true
			}
			located[c.GUID] = true
		}
		limit := max(g.MaxDeletes, fewDeletions)
		if !e.Release && len(located) > limit {
			t.Fatalf("seed %d: %d located, limit %d", seed, len(located), limit)
		}
		d := DecideDeletions(e, g)
		for _, c := range e.Candidates {
			for _, object := range d.Send {
				if object.GUID == c.GUID && !c.Tombstone && !located[c.GUID] {
					t.Fatalf("seed %d: %+v is sent without a search", seed, c)
				}
			}
		}
		keep := slices.Concat(guidsOf(d.Send), guidsOf(d.Held), guidsOf(objectsOf(d.Undecided)), d.KeepHeld)
		for _, undecided := range d.KeepUndecided {
			keep = append(keep, undecided.GUID)
		}
		for _, dropped := range d.Drop {
			keep = append(keep, dropped.GUID)
		}
		for _, guid := range keep {
			if unreadable[guid] {
				t.Fatalf("seed %d: %s is unreadable, decision %+v", seed, guid, d)
			}
		}
	}
}

// TestLocatedAttributes checks that the attributes include those that the searches of a run
// compare.
func TestLocatedAttributes(t *testing.T) {
	t.Parallel()
	for kind, filter := range identity.Filter {
		assertions, err := directory.FilterAssertions(filter)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range assertions {
			if !containsName(locatedAttributes(kind, false), a.Attribute) {
				t.Errorf("%s: %s is missing", kind, a.Attribute)
			}
		}
	}
}

// TestUnreadableMemberships checks that no run empties the groups because the account cannot read
// their members any more, until an operator confirms that the memberships are gone.
func TestUnreadableMemberships(t *testing.T) {
	t.Parallel()
	for attribute, object := range map[string]string{"member": "member of groups below DC=", "primaryGroupID": "primaryGroupID of users below OU="} {
		t.Run(attribute, func(t *testing.T) {
			t.Parallel()
			e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 3)
			team := e.addGroup("team", e.user(0), e.user(1))
			admins := "CN=Domain Admins,CN=Users," + e.Base()
			e.must(e.Modify(admins, "member", e.user(2)))
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4 + postureObjects})
			e.exceedOverlap()
			before := e.gateway.Held()
			e.hide(e.Base(), attribute)
			e.must(e.Modify(team, "description", "x"))
			e.must(e.Modify(admins, "description", "x"))
			for _, options := range []RunOptions{{}, {Full: true}, {AllowDeletes: true}, {DryRun: true}} {
				_, err := e.failedRun(options)
				if fault.ClassOf(err) != fault.Refused || !strings.Contains(err.Error(), object) || !strings.Contains(fault.Remedy(err), "dsacls ") {
					t.Errorf("error %v", err)
				}
			}
			if !maps.Equal(before, e.gateway.Held()) {
				t.Error("the gateway has changed")
			}
			e.hide(e.Base())
			e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2})
			e.expectConverged()
			e.hide(e.Base(), attribute)
			if attribute == "primaryGroupID" { // every account has one
				if _, err := e.failedRun(RunOptions{Full: true, AllowDeletes: true}); fault.ClassOf(err) != fault.Refused {
					t.Errorf("confirmed: %v", err)
				}
				return
			}
			if _, err := e.runner.Run(t.Context(), RunOptions{Full: true, AllowDeletes: true}); err != nil {
				t.Errorf("confirmed: %v", err)
			}
			if _, err := e.runner.Run(t.Context(), RunOptions{}); err != nil {
				t.Errorf("after the confirmation: %v", err)
			}
		})
	}
}
