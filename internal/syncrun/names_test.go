package syncrun

import (
	"fmt"
	"strings"
	"testing"

	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// describeNamed formats a list of principals as name (KIND), and paths with arrows.
func describeNamed(value any) string {
	list, _ := value.([]any)
	texts := make([]string, len(list))
	for i := range list {
		item := list[i].(map[string]any)
		texts[i] = fmt.Sprint(item["name"])
		if item["kind"] != nil {
			texts[i] += fmt.Sprintf(" (%v)", item["kind"])
		}
		if path, ok := item["path"].([]any); ok {
			texts[i] = strings.ReplaceAll(describeNamed(path), ", ", " > ") + " > " + texts[i]
		}
	}
	return strings.Join(texts, ", ")
}

// expectNames expects the value of a list of principals or paths of an object, as describeNamed formats it.
func (e *env) expectNames(dn, key, want string) {
	e.t.Helper()
	posture, _ := e.asset(e.GUID(dn))["posture"].(map[string]any)
	if got := describeNamed(posture[key]); got != want {
		e.t.Errorf("%s of %s: %q, want %q", key, dn, got, want)
	}
}

// Assets name the principals that they mention, except for users in groups and most groups of users,
// and have the paths to privileged groups.
func TestNames(t *testing.T) {
	t.Parallel()
	m := newMembershipDomain(t)
	m.nestInAdmins()
	computer, service := "CN=PC-0042,CN=Computers,"+m.Base(), m.dn("gmsa")
	m.must(m.Add(domaincontroller.Object{DN: computer, Attributes: map[string][]string{"objectClass": {"computer"}}}))
	m.must(m.Add(domaincontroller.Object{DN: service, Attributes: map[string][]string{"objectClass": {"msDS-GroupManagedServiceAccount"}}}))
	addForeign(m.Directory)
	authenticated := "CN=S-1-5-11,CN=ForeignSecurityPrincipals," + m.Base()
	odd := m.addGroup(`Sales\, \"EMEA\"`, m.inner)
	m.set(m.outer, "member", m.inner, computer, service, foreignDN(m.Base()), authenticated, odd)
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10 + postureObjects})
	m.expectNames(m.outer, "principals", `Authenticated Users (WELL_KNOWN), Administrators (GROUP), <nil> (FOREIGN), Domain Admins (GROUP), inner (GROUP), PC-0042 (COMPUTER), gmsa (SERVICE_ACCOUNT), Sales, "EMEA" (GROUP)`)
	m.expectNames(m.outer, "privilegedPaths", "Domain Admins > Administrators")
	m.expectNames(m.inner, "principals", `Administrators (GROUP), Domain Admins (GROUP), outer (GROUP), Sales, "EMEA" (GROUP)`)
	m.expectNames(m.user(0), "principals", "Administrators (GROUP), Domain Admins (GROUP), Domain Users (GROUP)")
	m.expectNames(m.user(0), "privilegedPaths", "inner > outer > Domain Admins > Administrators, inner > outer > Domain Admins")
	m.expectPosture(m.user(0), "distinguishedName", m.user(0))
	m.expectPosture(m.user(0), "samAccountName", m.Object(m.user(0)).Attributes["sAMAccountName"][0])
	role := m.asset(identity.RoleGUID(m.GUID(m.admins)))
	if got, want := describeNamed(role["principals"]), `Authenticated Users (WELL_KNOWN), <nil> (FOREIGN), Administrator (USER), user0 (USER), user1 (USER), inner (GROUP), outer (GROUP), PC-0042 (COMPUTER), gmsa (SERVICE_ACCOUNT), Sales, "EMEA" (GROUP)`; got != want {
		t.Errorf("principals of the role: %q, want %q", got, want)
	}
	m.expectConverged()
}

// A delta sync that finds a renamed object sends the objects that name it or have it in a path, and no
// others.
func TestRenamedObjectInDeltaSync(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rename   func(m *membershipDomain) (dn string)
		uploaded int
		expect   func(m *membershipDomain)
	}{
		"group in a path": {
			rename:   func(m *membershipDomain) string { return m.outer },
			uploaded: 6, // outer, inner, both users, both roles
			expect: func(m *membershipDomain) {
				m.expectNames(m.user(0), "privilegedPaths", "inner > renamed > Domain Admins > Administrators, inner > renamed > Domain Admins")
				m.expectNames(m.inner, "principals", "Administrators (GROUP), Domain Admins (GROUP), renamed (GROUP)")
			},
		},
		"privileged group": {
			rename:   func(m *membershipDomain) string { return m.admins },
			uploaded: 6, // outer, inner, both users, both roles; the group is out of scope
			expect: func(m *membershipDomain) {
				m.expectNames(m.user(0), "privilegedPaths", "inner > outer > renamed > Administrators, inner > outer > renamed")
				m.expectNames(m.outer, "principals", "Administrators (GROUP), renamed (GROUP), inner (GROUP)")
			},
		},
		"member": {
			rename:   func(m *membershipDomain) string { return m.user(0) },
			uploaded: 3, // the user, both roles; groups do not name users
			expect: func(m *membershipDomain) {
				role := m.asset(identity.RoleGUID(m.GUID(m.admins)))
				if got, want := describeNamed(role["principals"]), "Administrator (USER), renamed (USER), user1 (USER), inner (GROUP), outer (GROUP)"; got != want {
					t.Errorf("principals of the role: %q, want %q", got, want)
				}
			},
		},
		"computer out of scope": {
			rename:   func(m *membershipDomain) string { return "CN=PC-0042,CN=Computers," + m.Base() },
			uploaded: 1,
			expect:   func(m *membershipDomain) { m.expectNames(m.dn("club"), "principals", "renamed (COMPUTER)") },
		},
		"group without privileges": {
			rename:   func(m *membershipDomain) string { return m.dn("club") },
			uploaded: 1, // the group; its member does not name it
			expect: func(m *membershipDomain) {
				m.expectPosture(m.user(5), "groups", m.sid("CN=Domain Users,CN=Users,"+m.Base()).String(), m.sid(m.dn("renamed")).String())
				m.expectNames(m.user(5), "principals", "Domain Users (GROUP)")
			},
		},
		"primary group": {
			rename:   func(m *membershipDomain) string { return "CN=Domain Users,CN=Users," + m.Base() },
			uploaded: 6, // all users
			expect:   func(m *membershipDomain) { m.expectNames(m.user(5), "principals", "renamed (GROUP)") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMembershipDomain(t)
			m.nestInAdmins()
			m.must(m.Add(domaincontroller.Object{DN: "CN=PC-0042,CN=Computers," + m.Base(), Attributes: map[string][]string{"objectClass": {"computer"}}}))
			m.addGroup("club", "CN=PC-0042,CN=Computers,"+m.Base(), m.user(5))
			m.exceedOverlap()
			m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 9 + postureObjects})
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			m.must(m.Rename(c.rename(m), "renamed"))
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: c.uploaded})
			c.expect(m)
			m.expectConverged()
			m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
		})
	}
}

// A renamed organizational unit changes the DNs of the objects in it, but not the objects. A full sync
// sends them.
func TestRenamedUnit(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 1)
	e.base = e.Base()
	e.start()
	e.setPosture(true)
	e.exceedOverlap()
	first, err := e.runner.Run(t.Context(), RunOptions{})
	e.must(err)
	user := e.GUID("CN=user0,OU=Staff," + e.Base())
	e.must(e.Rename("OU=Staff,"+e.Base(), "People"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	dn := func() any { return e.asset(user)["posture"].(map[string]any)["distinguishedName"] }
	if got := dn(); got != "CN=user0,OU=Staff,"+e.Base() {
		t.Errorf("after the delta sync: %v", got)
	}
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	if got := dn(); got != "CN=user0,OU=People,"+e.Base() {
		t.Errorf("after the full sync: %v, first %s", got, brief(first))
	}
	e.expectConverged()
}
