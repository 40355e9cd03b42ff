package syncrun

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// newTimeBoundEnv returns an environment in which user0 is a member of Domain Admins, and user1
// a member of inner, which is a member of outer, which is a member of Domain Admins.
func newTimeBoundEnv(t *testing.T) *membershipDomain {
	t.Helper()
	m := &membershipDomain{env: newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 4)}
	m.inner = m.addGroup("inner", m.user(1))
	m.outer = m.addGroup("outer", m.inner, m.user(3))
	m.admins, m.administrators = "CN=Domain Admins,CN=Users,"+m.Base(), "CN=Administrators,CN=Builtin,"+m.Base()
	m.set(m.admins, "member", "CN=Administrator,CN=Users,"+m.Base(), m.user(0), m.outer)
	return m
}

// usns returns the USNs of the groups.
func (m *membershipDomain) usns() (usns []string) {
	for _, dn := range []string{m.inner, m.outer, m.admins, m.administrators} {
		usns = append(usns, m.Object(dn).First("uSNChanged"))
	}
	return usns
}

// A membership ends without a change of the group. The next delta sync finds it if the group has
// a role, or is in such a group.
func TestTimeBoundMembershipEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		group, member func(m *membershipDomain) string
		uploaded      int
		lost          []int // the users that lose their privileges
	}{
		// The user, both roles, and the domain. Domain Admins is outside the profile's base.
		"member of Domain Admins": {
			func(m *membershipDomain) string { return m.admins }, func(m *membershipDomain) string { return m.user(0) }, 4, []int{0},
		},
		// The user, the group, both roles, and the domain.
		"member of a nested group": {
			func(m *membershipDomain) string { return m.inner }, func(m *membershipDomain) string { return m.user(1) }, 5, []int{1},
		},
		// Both groups, both users, both roles, and the domain.
		"group in Domain Admins": {
			func(m *membershipDomain) string { return m.admins }, func(m *membershipDomain) string { return m.outer }, 7, []int{1, 3},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newTimeBoundEnv(t)
			m.must(m.Expire(c.group(m), c.member(m), m.clock.Now().Add(30*time.Minute)))
			m.exceedOverlap()
			m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6 + postureObjects})
			before := m.usns()
			m.clock.Advance(29 * time.Minute)
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			m.clock.Advance(time.Minute)
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: c.uploaded})
			role := fmt.Sprint(m.asset(identity.RoleGUID(m.GUID(m.admins)))["members"])
			for _, n := range c.lost {
				m.expectPosture(m.user(n), "privilegedGroups")
				if strings.Contains(role, m.SID(m.user(n))) {
					t.Errorf("members of the role: %s", role)
				}
			}
			m.expectConverged()
			m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			if after := m.usns(); fmt.Sprint(after) != fmt.Sprint(before) {
				t.Errorf("USNs %v, before %v", after, before)
			}
		})
	}
}

// TestTimeBoundMembershipOfNewRoleGroup checks that the delta sync that finds a group in Domain Admins
// also finds that a membership of this group has ended before, which changed nothing.
func TestTimeBoundMembershipOfNewRoleGroup(t *testing.T) {
	t.Parallel()
	m := newTimeBoundEnv(t)
	team := m.addGroup("team", m.user(2), m.user(3))
	m.must(m.Expire(team, m.user(2), m.clock.Now().Add(time.Minute)))
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	m.clock.Advance(time.Minute)
	m.set(m.admins, "member", "CN=Administrator,CN=Users,"+m.Base(), m.user(0), m.outer, team)
	if run, err := m.runner.Run(t.Context(), RunOptions{}); err != nil || run.Mode != delta || run.Result != Processed {
		t.Errorf("run: %s, error %v", brief(run), err)
	}
	m.expectPosture(m.user(2), "privilegedGroups")
	m.expectConverged()
}

// A domain controller returns at most 1,500 members at once.
func TestTimeBoundMembershipOfLargeGroupEnds(t *testing.T) {
	t.Parallel()
	const many = 1600
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, many)
	admins := "CN=Domain Admins,CN=Users," + e.Base()
	e.must(e.Modify(admins, "member", e.users(many)...))
	e.must(e.Expire(admins, e.user(7), e.clock.Now().Add(time.Minute)))
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: many + postureObjects})
	e.clock.Advance(time.Minute)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 4}) // the user, both roles, the domain
	e.expectConverged()
}

// Delta syncs read the smaller groups up to a limit. In larger ones, a full sync finds the end of
// a membership.
func TestTimeBoundMembershipsAboveLimit(t *testing.T) {
	t.Parallel()
	m := newTimeBoundEnv(t)
	m.addGroup("large", m.users(4)...)
	m.set("CN=Backup Operators,CN=Builtin,"+m.Base(), "member", m.dn("large"))
	end := m.clock.Now().Add(time.Minute)
	m.must(m.Expire(m.dn("large"), m.user(2), end))
	m.must(m.Expire(m.inner, m.user(1), end))
	m.exceedOverlap()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	stored, err := loadMemberships(m.store, Source{Posture: true}, zerolog.Nop())
	m.must(err)
	m.runner.maxExpiring = -2 // so that the largest group is above the limit, also in the second run
	for _, node := range stored.graph.RoleGroups() {
		m.runner.maxExpiring += 1 + len(stored.graph.Members(node))
	}
	m.clock.Advance(time.Minute)
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 4}) // user1, inner, both roles
	m.expectPosture(m.user(2), "privilegedGroups", "map", "nested:", m.SID("CN=Backup Operators,CN=Builtin,"+m.Base()))
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	if lines := m.log.With(MsgExpiringGroupsSkipped); len(lines) != 1 || lines[0].Number("groups") != 1 {
		t.Errorf("log %v", lines)
	}
	m.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 4}) // user2, large, the role, the domain
	m.expectConverged()
}
