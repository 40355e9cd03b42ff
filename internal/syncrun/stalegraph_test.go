package syncrun

import (
	"slices"
	"strings"
	"testing"

	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// membersOfRole returns the members of a role at the gateway, as text.
func (m *membershipDomain) membersOfRole(group string) string {
	m.t.Helper()
	asset := m.gateway.Held()[identity.RoleGUID(m.GUID(group)).String()]
	_, members, _ := strings.Cut(asset, `"members":`)
	return members
}

// TestUnreadablePrimaryGroup checks that an account whose primary group the account of the connector may
// not read keeps its roles: a user in scope, which is not sent, and one outside of it.
func TestUnreadablePrimaryGroup(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	outside := "CN=outside,OU=Outside," + m.Base()
	m.AddUser(outside)
	for _, dn := range []string{m.user(4), outside} {
		m.set(dn, "primaryGroupID", "512")
	}
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	expect := func() {
		t.Helper()
		for _, dn := range []string{m.user(4), outside} {
			if !strings.Contains(m.membersOfRole(m.admins), m.SID(dn)) {
				t.Errorf("%s lost its role: %s", dn, m.membersOfRole(m.admins))
			}
		}
		m.expectPosture(m.user(4), "primaryGroup", m.SID(m.admins))
	}
	expect()
	before := m.gateway.Held()[m.GUID(m.user(4)).String()]
	m.hide(m.user(4), "primaryGroupID")
	m.hide(outside, "primaryGroupID")
	m.runPartial(RunOptions{Full: true}, state.Run{Mode: full}, 1, "primaryGroupID")
	m.set(m.user(4), "title", "Chief")
	m.set(outside, "title", "Chief")
	m.runPartial(RunOptions{}, state.Run{Mode: delta}, 1, "primaryGroupID")
	expect()
	if after := m.gateway.Held()[m.GUID(m.user(4)).String()]; after != before {
		t.Errorf("gateway: %s, before %s", after, before)
	}
	m.hide(m.user(4))
	m.hide(outside)
	m.set(outside, "primaryGroupID", "513")
	m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 4}) // the user, two roles, the domain
	m.expectConverged()
}

// TestListedGroupKeepsMembers checks that a group of which the account can only list the DN keeps its
// members and its place in other groups, outside of the scope too.
func TestListedGroupKeepsMembers(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{full, delta} {
		m := newUnreadableMembersDomain(t)
		helpers := "CN=helpers,OU=Outside," + m.Base()
		m.must(m.Add(domaincontroller.Object{DN: helpers, Attributes: map[string][]string{"objectClass": {"group"}, "member": {m.user(5)}}}))
		m.set(m.administrators, "member", m.admins, helpers)
		m.exceedOverlap()
		m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
		m.hideAll(helpers)
		m.set(m.administrators, "description", "x")
		m.set(m.user(5), "title", "Chief")
		m.expectPartial(RunOptions{Full: mode == full}, mode, 1)
		if members := m.membersOfRole(m.administrators); !strings.Contains(members, m.SID(m.user(5))) || !strings.Contains(members, `"unreadable"`) {
			t.Errorf("%s: role %s", mode, members)
		}
		if got := m.postureOf(m.user(5), "privilegedGroups"); !strings.Contains(got, m.SID(m.administrators)) {
			t.Errorf("%s: privileges %s", mode, got)
		}
		m.hide(helpers)
		if run, err := m.runner.Run(t.Context(), RunOptions{Full: true}); err != nil || run.Result != Processed {
			t.Errorf("run: %s, error %v", brief(run), err)
		}
		m.expectConverged()
	}
}

// TestRenamedRoleEnds checks that the role of DnsAdmins is reported as deleted by the delta sync that
// finds its new name, also if a run fails in between, and comes back with the name.
func TestRenamedRoleEnds(t *testing.T) {
	t.Parallel()
	for _, failing := range []bool{false, true} {
		m := newUnreadableMembersDomain(t)
		dns := "CN=DnsAdmins,CN=Users," + m.Base()
		m.set(dns, "member", m.user(5))
		m.exceedOverlap()
		m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
		m.set(dns, "sAMAccountName", "NameAdmins")
		if failing {
			m.refusedRun(RunOptions{})
		}
		m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2, Deleted: 1}) // the user, the domain
		m.expectPosture(m.user(5), "privilegedGroups")
		m.expectConverged()
		m.exceedOverlap()
		m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
		m.set(dns, "sAMAccountName", "DnsAdmins")
		m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3})
		m.expectConverged()
	}
}

// TestRoleOfDistributionGroupEnds checks that the role ends when its group grants nothing any more.
func TestRoleOfDistributionGroupEnds(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	dns := "CN=DnsAdmins,CN=Users," + m.Base()
	m.set(dns, "member", m.user(5))
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.set(dns, "groupType", "2")
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2, Deleted: 1}) // the user, the domain
	m.expectConverged()
}

// TestDeletedGroupsWithoutTombstones checks which of the facts that depend on a deleted object a delta
// sync corrects if the account may not read deleted objects: privileges, and the members of roles.
func TestDeletedGroupsWithoutTombstones(t *testing.T) {
	t.Parallel()
	for _, above := range []bool{false, true} { // whether the group above the deleted one changes, too
		testDeletedGroups(t, above)
	}
}

func testDeletedGroups(t *testing.T, above bool) {
	t.Helper()
	m := newNestedDomain(t, domaincontroller.Options{})
	dns, computer := "CN=DnsAdmins,CN=Users,"+m.Base(), "CN=pc,OU=Outside,"+m.Base()
	m.must(m.Add(domaincontroller.Object{DN: computer, Attributes: map[string][]string{"objectClass": {"computer"}}}))
	m.set(dns, "member", m.user(5))
	m.set(m.outer, "member", m.inner, m.user(2), computer)
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.must(m.Delete(m.inner))
	if above {
		m.set(m.outer, "description", "x")
	}
	m.must(m.Delete(dns))
	m.must(m.Delete(computer))
	run, err := m.runner.Run(t.Context(), RunOptions{})
	if err != nil || run.Mode != delta || run.Result != Processed {
		t.Fatalf("run: %s, error %v", brief(run), err)
	}
	for _, n := range []int{0, 1, 5} {
		m.expectPosture(m.user(n), "privilegedGroups")
		m.expectPosture(m.user(n), "groups", m.SID("CN=Domain Users,CN=Users,"+m.Base()))
	}
	m.expectPosture(m.outer, "members", m.SID(m.user(2)))
	m.expectPosture(m.outer, "nestingDepth", "0")
	want := []string{m.SID(m.user(2)), m.SID(m.user(3))}
	for _, group := range []string{m.admins, m.administrators} {
		members := m.membersOfRole(group)
		for _, n := range []int{0, 1, 2, 3} {
			if sid := m.SID(m.user(n)); strings.Contains(members, sid) != slices.Contains(want, sid) {
				t.Errorf("%s: %s", group, members)
			}
		}
	}
	m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Deleted: 2}) // inner, the role of DnsAdmins
	m.expectConverged()
}

// TestLostAdminCount checks that a full sync is refused if no object of the domain shows adminCount any
// more, although few had it, and not if it was removed from the objects in scope.
func TestLostAdminCount(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	m.set(m.user(3), "adminCount", "1")
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.hide(m.Base(), "adminCount")
	m.runRefused(RunOptions{Full: true}, "adminCount of users below "+m.base)
	m.hide(m.Base())
	m.set(m.user(3), "adminCount")
	m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
}

// TestLostAdminCountWithoutKrbtgt checks that a full sync is not refused if no object shows adminCount any
// more and the account does not see krbtgt, which has it in every domain.
func TestLostAdminCountWithoutKrbtgt(t *testing.T) {
	t.Parallel()
	m := newUnreadableMembersDomain(t)
	m.set(m.user(3), "adminCount", "1")
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	m.hideAll("CN=krbtgt,CN=Users," + m.Base())
	m.hide(m.Base(), "adminCount")
	if run, err := m.runner.Run(t.Context(), RunOptions{Full: true}); err != nil {
		t.Errorf("run: %s, error %v", brief(run), err)
	}
}
