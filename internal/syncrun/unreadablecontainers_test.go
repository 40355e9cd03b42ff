package syncrun

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// TestUnreadableContainersRecord checks which containers are recorded as seen and as accepted.
func TestUnreadableContainersRecord(t *testing.T) {
	t.Parallel()
	hashes := func(dns ...string) (list []string) {
		for _, dn := range dns {
			list = append(list, hashContainer(dn))
		}
		return sortedSet(list)
	}
	none := []string(nil)
	for name, c := range map[string]struct {
		searched, incomplete, release    bool
		found                            []string
		seenBefore, acceptedBefore       []string
		wantSeen, wantAccepted, wantRest []string
	}{
		"not searched":                        {seenBefore: hashes("OU=A"), acceptedBefore: hashes("OU=A")},
		"none":                                {searched: true},
		"found":                               {searched: true, found: []string{"OU=A"}, wantSeen: hashes("OU=A"), wantRest: []string{"OU=A"}},
		"found again":                         {searched: true, found: []string{"OU=A"}, seenBefore: hashes("OU=A"), wantSeen: hashes("OU=A"), wantRest: []string{"OU=A"}},
		"release":                             {searched: true, release: true, found: []string{"OU=A"}, seenBefore: hashes("OU=A"), wantSeen: hashes("OU=A"), wantAccepted: hashes("OU=A"), wantRest: []string{"OU=A"}},
		"release, not seen by the operator":   {searched: true, release: true, found: []string{"OU=A", "OU=B"}, seenBefore: hashes("OU=A"), wantSeen: hashes("OU=A", "OU=B"), wantAccepted: hashes("OU=A"), wantRest: []string{"OU=A", "OU=B"}},
		"release, not unreadable any more":    {searched: true, release: true, seenBefore: hashes("OU=A")},
		"accepted":                            {searched: true, found: []string{"OU=A"}, acceptedBefore: hashes("OU=A"), wantSeen: hashes("OU=A"), wantAccepted: hashes("OU=A")},
		"accepted, another form of the DN":    {searched: true, found: []string{"ou=a"}, acceptedBefore: hashes("OU=A"), wantSeen: hashes("OU=A"), wantAccepted: hashes("OU=A")},
		"accepted, another one is unreadable": {searched: true, found: []string{"OU=A", "OU=B"}, acceptedBefore: hashes("OU=A"), wantSeen: hashes("OU=A", "OU=B"), wantAccepted: hashes("OU=A"), wantRest: []string{"OU=B"}},
		"accepted, not unreadable any more":   {searched: true, found: []string{"OU=B"}, acceptedBefore: hashes("OU=A", "OU=B"), wantSeen: hashes("OU=B"), wantAccepted: hashes("OU=B")},
		"incomplete, the accepted one stays":  {searched: true, incomplete: true, acceptedBefore: hashes("OU=A"), seenBefore: hashes("OU=A"), wantSeen: hashes("OU=A"), wantAccepted: hashes("OU=A")},
		"incomplete, release":                 {searched: true, incomplete: true, release: true, found: []string{"OU=B"}, seenBefore: hashes("OU=A"), wantSeen: hashes("OU=A", "OU=B"), wantAccepted: hashes("OU=A"), wantRest: []string{"OU=B"}},
		"release of what was accepted before": {searched: true, release: true, found: []string{"OU=A"}, seenBefore: hashes("OU=A"), acceptedBefore: hashes("OU=A"), wantSeen: hashes("OU=A"), wantAccepted: hashes("OU=A")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := UnreadableContainers{Searched: c.searched, Incomplete: c.incomplete, Found: c.found, Before: state.UnreadableContainers{Seen: c.seenBefore, Accepted: c.acceptedBefore}}
			if rest := append(none, h.notAccepted()...); !reflect.DeepEqual(rest, c.wantRest) {
				t.Errorf("not accepted: %v, want %v", rest, c.wantRest)
			}
			got := h.record(c.release)
			if !c.searched {
				if got != nil {
					t.Errorf("%+v, want nothing", got)
				}
				return
			}
			if seen, accepted := append(none, got.Seen...), append(none, got.Accepted...); !reflect.DeepEqual(seen, c.wantSeen) || !reflect.DeepEqual(accepted, c.wantAccepted) {
				t.Errorf("seen %v, accepted %v, want %v and %v", seen, accepted, c.wantSeen, c.wantAccepted)
			}
		})
	}
}

// TestContainersRemedy checks which containers a remedy names.
func TestContainersRemedy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		containers []string
		incomplete bool
		commands   string
	}{
		{[]string{"OU=A"}, false, `dsacls "OU=A" /I:T /G "svc:LCRP"`},
		{[]string{"OU=A", "OU=B", "OU=C", "OU=D", "OU=E"}, false,
			`dsacls "OU=A" /I:T /G "svc:LCRP"; dsacls "OU=B" /I:T /G "svc:LCRP"; dsacls "OU=C" /I:T /G "svc:LCRP"; and 2 more`},
		{[]string{"OU=A"}, true, `dsacls "OU=A" /I:T /G "svc:LCRP"; and perhaps more containers`},
		{[]string{`OU=" & calc & "`}, false, `dsacls "DN" /I:T /G "svc:LCRP" (DN is the object's DN, which must be quoted for the shell)`},
		{nil, true, `dsacls "DC=base" /I:T /G "svc:LCRP"; and perhaps more containers`},
	} {
		want := remedyContainers + ": " + c.commands + remedyAccept
		if got := containersRemedy(c.containers, c.incomplete, "DC=base", "svc"); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// closeUnit takes from the account the right to read a unit, and to list its contents.
func (e *env) closeUnit(dn string) {
	e.t.Helper()
	e.hideAll(dn)
	e.must(e.DenyListing(dn))
}

// openUnit takes back closeUnit.
func (e *env) openUnit(dn string) {
	e.t.Helper()
	e.hide(dn)
	e.must(e.AllowListing(dn))
}

// expectRemedy expects the remedy of the undecided deletions to contain a text.
func (e *env) expectRemedy(text string) {
	e.t.Helper()
	counts, err := e.store.UndecidedCounts()
	e.must(err)
	for _, count := range counts {
		if !strings.Contains(count.Remedy, text) {
			e.t.Errorf("remedy %q, want %q", count.Remedy, text)
		}
	}
}

// countSearches returns the number of searches for unreadable objects by later runs.
func (e *env) countSearches() *atomic.Int32 {
	e.t.Helper()
	searches := &atomic.Int32{}
	e.connectThrough(proxy{request: func(_ int, request string) action {
		if strings.Contains(request, "objectClass\x04\x03top") {
			searches.Add(1)
		}
		return action{forward: request}
	}})
	return searches
}

// TestUnreadableUnit closes a unit, which itself can be read or not. Its users must not be reported as
// deleted, and after it is open again, all are found.
func TestUnreadableUnit(t *testing.T) {
	t.Parallel()
	for name, closeUnit := range map[string]func(e *env, dn string){
		"not readable": (*env).closeUnit,
		"readable":     func(e *env, dn string) { e.must(e.DenyListing(dn)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testUnreadableUnit(t, closeUnit)
		})
	}
}

func testUnreadableUnit(t *testing.T, closeUnit func(e *env, dn string)) {
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	inner := "OU=Inner," + e.base
	e.moveToInner(4)
	e.AddGroup("CN=team," + inner)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 11})
	e.exceedOverlap()
	closeUnit(e, inner)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	const remedy = `dsacls "OU=Inner,OU=Staff,`
	for _, options := range []RunOptions{{Full: true}, {}, {Full: true}} {
		mode := delta
		if options.Full {
			mode = full
		}
		e.runUndecided(options, state.Run{Mode: mode, Undecided: 5}, UndecidedContainers)
		e.expectRemedy(remedy)
		e.restart()
	}
	e.must(e.Delete(e.user(9))) // without a tombstone, it may be in the unit, too
	e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 6}, UndecidedContainers)
	e.openUnit(inner)
	e.runResolved(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1})
	e.expectConverged()
}

// TestUnreadableUnitAccepted closes units on purpose. A release accepts those that an operator has seen,
// until they are open again.
func TestUnreadableUnitAccepted(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	inner, other := "OU=Inner,"+e.base, "OU=Other,"+e.base
	e.AddUnit(other)
	e.closeUnit(inner)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	deleteUser := func(n int) {
		t.Helper()
		e.must(e.Delete(e.user(n)))
	}
	deleteUser(0)
	e.run(RunOptions{DryRun: true, Full: true}, state.Run{Mode: full, Result: Held, Undecided: 1})
	e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Undecided: 1}, UndecidedContainers) // the operator has not seen it
	deleteUser(1)
	e.closeUnit(other)
	e.run(RunOptions{DryRun: true, AllowDeletes: true}, state.Run{Mode: full, Result: Held, Undecided: 1})
	e.runUndecided(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 1, Undecided: 1}, UndecidedContainers)
	e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 1}, UndecidedContainers)
	e.expectRemedy(`: dsacls "` + other) // only this one
	e.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 1})
	e.restart()
	deleteUser(2)
	e.runResolved(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1})
	e.openUnit(inner)
	deleteUser(3)
	e.runResolved(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1})
	e.closeUnit(inner)
	deleteUser(4)
	e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 1}, UndecidedContainers)
	e.openUnit(inner)
	e.runResolved(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1})
	e.expectConverged()
}

// TestUnreadableUnitProvesNothing checks in which cases a closed unit makes a deletion undecided.
func TestUnreadableUnitProvesNothing(t *testing.T) {
	t.Parallel()
	undecided, deleted := state.Run{Result: Held, Undecided: 1}, state.Run{Result: Processed, Deleted: 1}
	deleteUser := func(e *env) { e.must(e.Delete(e.user(0))) }
	for name, c := range map[string]struct {
		options  domaincontroller.Options
		scope    string
		change   func(e *env)
		want     state.Run
		searches int32
	}{
		"nothing is missing":       {change: func(e *env) { e.closeUnit("OU=Inner," + e.base) }, want: state.Run{Result: Processed}},
		"no unit is closed":        {change: deleteUser, want: deleted, searches: 1},
		"below the base":           {change: func(e *env) { e.closeUnit("OU=Inner," + e.base); deleteUser(e) }, want: undecided, searches: 1},
		"readable, but not listed": {change: func(e *env) { e.must(e.DenyListing("OU=Inner," + e.base)); deleteUser(e) }, want: undecided, searches: 1},
		"readable, but not listed, unreadable descriptor": {change: func(e *env) {
			e.must(e.DenyListing("OU=Inner," + e.base))
			e.hide("OU=Inner,"+e.base, ad.AttributeDescriptor)
			deleteUser(e)
		}, want: deleted, searches: 1},
		"listed, but not readable": {change: func(e *env) { e.hideAll("OU=Inner," + e.base); deleteUser(e) }, want: deleted, searches: 1},
		"outside of the base":      {change: func(e *env) { e.closeUnit("OU=Outside," + e.Base()); deleteUser(e) }, want: deleted, searches: 1},
		"one level":                {scope: "One level", change: func(e *env) { e.closeUnit("OU=Inner," + e.base); deleteUser(e) }, want: deleted},
		"tombstone": {options: domaincontroller.Options{ReadsDeleted: true},
			change: func(e *env) { e.closeUnit("OU=Inner," + e.base); deleteUser(e) }, want: deleted},
		"moved out of the scope": {change: func(e *env) { e.closeUnit("OU=Inner," + e.base); e.moveOut(0) }, want: deleted},
		"an unreadable user is no container": {change: func(e *env) { e.closeUnit(e.user(1)); deleteUser(e) },
			want: state.Run{Result: Partial, Deleted: 1}, searches: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, c.options, 4)
			searches := e.countSearches()
			e.gateway.SetProfile(e.profile(func(p *gateway.Profile) {
				if c.scope != "" {
					p.SearchScope = c.scope
				}
			}))
			e.start()
			e.must(e.Server.Add(domaincontroller.Object{DN: "CN=contact,OU=Inner," + e.base, Attributes: map[string][]string{"objectClass": {"contact"}}}))
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 4})
			c.change(e)
			c.want.Mode = full
			e.run(RunOptions{Full: true}, c.want)
			if n := searches.Load(); n != c.searches {
				t.Errorf("%d searches, want %d", n, c.searches)
			}
		})
	}
}

// TestRoleInUnreadableContainer checks that a role is undecided if a unit outside of the profile's base is closed,
// because its group may be there, but not users, which are in the base.
func TestRoleInUnreadableContainer(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 3)
	admins := "CN=DnsAdmins,CN=Users," + e.Base()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3 + postureObjects})
	e.must(e.Move(admins, "OU=Outside,"+e.Base()))
	e.closeUnit("OU=Outside," + e.Base())
	e.must(e.Delete(e.user(0)))
	run, err := e.runner.Run(t.Context(), RunOptions{Full: true})
	if err != nil || run.Deleted != 1 || run.Undecided != 1 {
		t.Errorf("run: %s, error %v", brief(run), err)
	}
	deletions, _, err := e.store.UndecidedDeletions(-1)
	if e.must(err); len(deletions) != 1 || deletions[0].Kind != identity.Role || deletions[0].Reason != UndecidedContainers {
		t.Errorf("undecided %+v", deletions)
	}
}

// TestUnreadableContainersIncomplete checks that absence proves nothing if the search for unreadable
// containers is stopped, or refused by a limit of the server, and that a release ends that only for
// the deletions that are undecided.
func TestUnreadableContainersIncomplete(t *testing.T) {
	t.Parallel()
	const limit = 3
	for name, arrange := range map[string]func(e *env){
		"too many unreadable objects": func(e *env) {
			for n := range limit + 1 {
				dn := fmt.Sprintf("CN=contact%d,%s", n, e.base)
				e.must(e.Server.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{"objectClass": {"contact"}}}))
				e.hideAll(dn)
			}
			e.runner.maxUnreadable = limit
		},
		"too many containers that cannot be listed": func(e *env) { // the objects in them are visible, so they alone cause no doubt
			for n := range limit + 1 {
				unit := fmt.Sprintf("OU=Unit%d,%s", n, e.base)
				e.must(e.Server.Add(domaincontroller.Object{DN: unit, Attributes: map[string][]string{"objectClass": {"organizationalUnit"}, ad.AttributeDescriptor: {domaincontroller.Descriptor(localSystem)}}}))
				e.must(e.Server.Add(domaincontroller.Object{DN: "CN=contact," + unit, Attributes: map[string][]string{"objectClass": {"contact"}}}))
			}
			e.runner.maxUnreadable = limit
		},
		"limit of the server": func(e *env) {
			e.connectThrough(proxy{request: func(_ int, request string) action {
				if strings.Contains(request, "objectClass\x04\x03top") {
					return action{result: ldap.LDAPResultTimeLimitExceeded}
				}
				return action{forward: request}
			}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 5)
			arrange(e)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
			e.must(e.Delete(e.user(0)))
			e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 1}, UndecidedContainers)
			e.expectRemedy("and perhaps more containers")
			e.runResolved(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 1})
			e.must(e.Delete(e.user(1)))
			e.runUndecided(RunOptions{Full: true}, state.Run{Mode: full, Undecided: 1}, UndecidedContainers)
		})
	}
}

// TestMaxListings checks that the containers above the limit of listings count as unreadable.
func TestMaxListings(t *testing.T) {
	t.Parallel()
	containers := make([]string, maxListings+2)
	unreadable := make([]fakeldap.RawEntry, len(containers))
	for i := range containers {
		containers[i] = fmt.Sprintf("OU=unit%d,DC=example,DC=com", i)
		unreadable[i] = fakeldap.NewEntry(containers[i])
	}
	var listings atomic.Int32
	server := fakeldap.Serve(t, nil, fakeldap.DC1.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if r.Filter == directory.FilterUnreadable {
			return fakeldap.Pages(unreadable)(p, r)
		}
		listings.Add(1) // each container shows an object
		return p.Send(fakeldap.NewEntry("CN=user,"+r.Base).Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
	}))
	store, err := state.Options{NoSync: true}.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	r := &reader{store: store, maxUnreadable: len(containers)}
	r.session, r.source = connectTo(t, time.Hour, server), Source{Base: "DC=example,DC=com", Scope: directory.Subtree}
	var found UnreadableContainers
	if err := r.findUnreadableContainers(t.Context(), &found); err != nil || !slices.Equal(found.Found, containers[maxListings:]) || listings.Load() != maxListings {
		t.Errorf("%d listings, found %v, error %v", listings.Load(), found.Found, err)
	}
}

// TestUnreadableContainersFail checks that a busy controller proves neither a deletion nor that a
// container is unreadable.
func TestUnreadableContainersFail(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 5})
	e.must(e.Delete(e.user(0)))
	armed := e.busyOnce(ldap.LDAPResultBusy, "objectClass\x04\x03top")
	e.nextFullSync()
	e.failBusy(armed, fault.Transient, full)
	e.expectNoneDeleted(5)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Deleted: 1})
}

// TestInvocationIDUnreadableReason checks the reason of a full sync.
func TestInvocationIDUnreadableReason(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 1)
	e.replaceInRequests("invocationId", "invocationXX")
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	if reason := e.fullSyncReason(); reason != ReasonInvocationID {
		t.Errorf("reason %q", reason)
	}
}

// TestMayContain checks which objects may be in a container that cannot be listed. If its DN is malformed,
// all objects in the scope may be.
func TestMayContain(t *testing.T) {
	t.Parallel()
	const base = "OU=Staff,DC=corp,DC=example,DC=com"
	for name, c := range map[string]struct {
		container string
		kind      identity.Kind
		scope     directory.Scope
		want      bool
	}{
		"below the base":       {"OU=Inner," + base, identity.User, directory.Subtree, true},
		"outside":              {"OU=Outside,DC=corp,DC=example,DC=com", identity.User, directory.Subtree, false},
		"role, outside":        {"OU=Outside,DC=corp,DC=example,DC=com", identity.Role, directory.Subtree, true},
		"one level":            {"OU=Inner," + base, identity.User, directory.OneLevel, false},
		"malformed DN":         {"Inner", identity.User, directory.Subtree, true},
		"malformed, one level": {"Inner", identity.User, directory.OneLevel, false},
	} {
		r := &reader{reading: reading{source: Source{Base: base, Scope: c.scope}}}
		if got := r.mayContain([]string{c.container}, c.kind, base); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
