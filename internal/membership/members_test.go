package membership

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"adconnector/internal/ad"
)

// TestHasMembers checks that listed members and primary groups are told apart, and that those of
// removed groups do not count.
func TestHasMembers(t *testing.T) {
	t.Parallel()
	g := New()
	expect := func(listed, primary bool) {
		t.Helper()
		g.Compute()
		if gotListed, gotPrimary := g.HasMembers(); gotListed != listed || gotPrimary != primary {
			t.Errorf("listed %t, primary %t, want %t, %t", gotListed, gotPrimary, listed, primary)
		}
	}
	expect(false, false)
	users := g.SetGroup(guidOf(1), domainSID(513), true, 0)
	expect(false, false)
	g.SetAccount(guidOf(2), domainSID(1001), 513)
	expect(false, true)
	g.AddMember(users, guidOf(3), domainSID(1002))
	expect(true, true)
	g.Remove(guidOf(2))
	expect(true, false)
	g.Remove(guidOf(1))
	expect(false, false)
}

// TestNesting checks the depth of groups with cycles below them or around them.
func TestNesting(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		edges [][2]int // group, member
		depth []uint32 // by group
		cycle []bool
	}{
		{"no groups below", [][2]int{{0, 9}}, []uint32{0}, []bool{false}},
		{"chain", [][2]int{{0, 1}, {1, 2}}, []uint32{2, 1, 0}, []bool{false, false, false}},
		{"shortcut", [][2]int{{0, 1}, {1, 2}, {0, 2}}, []uint32{2, 1, 0}, []bool{false, false, false}},
		{"member of itself", [][2]int{{0, 0}}, []uint32{0}, []bool{true}},
		{"member of itself with a group below", [][2]int{{0, 0}, {0, 1}}, []uint32{1, 0}, []bool{true, false}},
		{"pair in a cycle", [][2]int{{0, 1}, {1, 0}}, []uint32{0, 0}, []bool{true, true}},
		{"cycle with a group below", [][2]int{{0, 1}, {1, 0}, {1, 2}}, []uint32{1, 1, 0}, []bool{true, true, false}},
		{"group above a cycle", [][2]int{{0, 1}, {1, 2}, {2, 1}}, []uint32{1, 0, 0}, []bool{false, true, true}},
		{"cycle between groups", [][2]int{{0, 1}, {1, 2}, {2, 1}, {2, 3}}, []uint32{2, 1, 1, 0}, []bool{false, true, true, false}},
		{"two cycles", [][2]int{{0, 1}, {1, 0}, {1, 2}, {2, 3}, {3, 2}}, []uint32{1, 1, 0, 0}, []bool{true, true, true, true}},
	} {
		g := New()
		for n := range test.depth {
			group := g.SetGroup(guidOf(n), domainSID(ad.RID(2000+n)), n%2 == 0, 0) // distribution groups count, too
			for _, edge := range test.edges {
				if edge[0] == n {
					g.AddMember(group, guidOf(edge[1]), nil)
				}
			}
		}
		g.Compute()
		var depth []uint32
		var cycle []bool
		for n := range test.depth {
			node, _ := g.Find(guidOf(n))
			nesting, _ := g.Nesting(node)
			depth, cycle = append(depth, nesting.Depth), append(cycle, nesting.InCycle)
		}
		if fmt.Sprint(depth, cycle) != fmt.Sprint(test.depth, test.cycle) {
			t.Errorf("%s: depth %v, in a cycle %v, want %v, %v", test.name, depth, cycle, test.depth, test.cycle)
		}
	}
}

// TestDistributionGroup checks that a distribution group in a role's group neither has privileges
// nor grants them.
func TestDistributionGroup(t *testing.T) {
	t.Parallel()
	g := New()
	admins := g.SetGroup(guidOf(0), domainSID(512), true, RoleOf(domainSID(512), nil))
	g.AddMember(admins, guidOf(1), domainSID(2001))
	g.AddMember(admins, guidOf(2), domainSID(2002))
	list := g.SetGroup(guidOf(1), domainSID(2001), false, 0)
	g.AddMember(list, guidOf(3), domainSID(1000))
	g.AddMember(list, guidOf(4), domainSID(2004))
	g.SetGroup(guidOf(2), domainSID(2002), true, 0)
	g.SetGroup(guidOf(4), domainSID(2004), true, 0)
	g.SetAccount(guidOf(3), domainSID(1000), 513)
	g.Compute()
	if got, want := describeRoles(g), "DOMAIN_ADMINS [] [3]\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for n, want := range map[int]bool{0: false, 1: true, 2: false, 3: false, 4: false} {
		if node, _ := g.Find(guidOf(n)); g.IsDistributionGroup(node) != want {
			t.Errorf("object %d: distribution group %t", n, !want)
		}
	}
	for n, want := range map[int]bool{2: true, 3: false, 4: false} {
		node, _ := g.Find(guidOf(n))
		if p := g.Privileges(g.GroupsOf(node)); p.IsEmpty() == want {
			t.Errorf("object %d: %+v", n, p)
		}
	}
}

func TestPrivilegedGroupsAreSorted(t *testing.T) {
	t.Parallel()
	g := New()
	sids := []ad.SID{builtinSID(544), builtinSID(551), domainSID(498), domainSID(512), domainSID(518), domainSID(519)}
	for n, sid := range slices.Backward(sids) {
		node := g.SetGroup(guidOf(n), sid, true, RoleOf(sid, nil))
		g.AddMember(node, guidOf(100+n%2), domainSID(ad.RID(1000+n%2)))
	}
	g.SetGroup(guidOf(100), domainSID(1000), true, 0)
	g.AddMember(g.SetGroup(guidOf(101), domainSID(1001), true, 0), guidOf(102), domainSID(1002))
	g.Compute()
	for n, want := range map[int]string{100: "[0 2 4] []", 101: "[1 3 5] []", 102: "[] [1 3 5]"} {
		node, _ := g.Find(guidOf(n))
		p := g.Privileges(g.GroupsOf(node))
		numbers := func(roles []Role) []int {
			list := []int{}
			for _, r := range roles {
				guid := g.GUID(g.RoleGroup(r))
				list = append(list, int(binary.BigEndian.Uint64(guid[8:]))-1)
			}
			return list
		}
		if got := fmt.Sprint(numbers(g.DirectRoles(p)), numbers(g.NestedRoles(p))); got != want {
			t.Errorf("object %d: %s, want %s", n, got, want)
		}
	}
}

// TestUncertain checks which objects depend on a group whose members are unreadable, also in a graph
// that was restored from its records, and that all of them are affected when the group is readable
// again.
func TestUncertain(t *testing.T) {
	t.Parallel()
	g := New()
	add := func(n int, members ...int) Node {
		node := g.SetGroup(guidOf(n), domainSID(ad.RID(2000+n)), true, RoleOf(builtinSID(ad.RID(500+n)), nil))
		for _, member := range members {
			g.AddMember(node, guidOf(member), domainSID(ad.RID(2000+member)))
		}
		return node
	}
	g.SetAccount(guidOf(6), domainSID(2006), 2003)
	add(44, 2) // Administrators
	add(1, 5)
	unreadable := add(2, 3, 4)
	g.SetMembersUnreadable(unreadable)
	add(3, 5)
	g.Compute()
	expect := func(g *Graph, want map[int]Uncertain, role bool) {
		t.Helper()
		for n, want := range want {
			node, _ := g.Find(guidOf(n))
			if got := g.Uncertain(node); got != want {
				t.Errorf("%d: %+v, want %+v", n, got, want)
			}
		}
		if roles := g.RoleMembers(); len(roles) != 1 || roles[0].Uncertain != role {
			t.Errorf("%+v", roles)
		}
	}
	uncertain := map[int]Uncertain{
		1: {}, 2: {Members: true, Nesting: true}, 3: {Groups: true, Privileges: true}, 4: {Groups: true, Privileges: true},
		5: {Privileges: true}, 6: {Privileges: true}, 44: {Nesting: true},
	}
	expect(g, uncertain, true)
	if listed, _ := g.HasMembers(); !listed {
		t.Error("the other groups have members")
	}
	restored := New()
	objects, groups := changedRecords(g)
	for _, r := range objects {
		if err := restored.RestoreObject(r.Node, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range groups {
		if err := restored.RestoreGroup(r.Node, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	restored.FinishRestore()
	restored.Compute()
	expect(restored, uncertain, true)
	before := g.Fingerprints()
	add(2, 3, 4)
	g.Compute()
	expect(g, map[int]Uncertain{1: {}, 2: {}, 3: {}, 4: {}, 5: {}, 6: {}, 44: {}}, false)
	if affected := g.Affected(before); len(affected) != 6 {
		t.Errorf("affected %v", affected)
	}
	if _, groups := changedRecords(g); len(groups) == 0 {
		t.Error("no record has changed")
	}
}

// TestUncertainThroughDistributionGroups checks that privileges do not depend on members of
// distribution groups, with unreadable members or not, and that nesting does.
func TestUncertainThroughDistributionGroups(t *testing.T) {
	t.Parallel()
	const security, list, inList, user, unreadableList, userOfUnreadableList = 1, 2, 3, 4, 5, 6
	g := New()
	add := func(n int, isSecurity bool, members ...int) Node {
		node := g.SetGroup(guidOf(n), domainSID(ad.RID(2000+n)), isSecurity, 0)
		for _, member := range members {
			g.AddMember(node, guidOf(member), domainSID(ad.RID(2000+member)))
		}
		return node
	}
	g.SetMembersUnreadable(add(security, true, list))
	add(list, false, inList)
	add(inList, true, user)
	g.SetMembersUnreadable(add(unreadableList, false, userOfUnreadableList))
	add(7, true, unreadableList)
	g.Compute()
	for n, want := range map[int]Uncertain{
		security: {Members: true, Nesting: true}, list: {Groups: true}, inList: {}, user: {},
		unreadableList: {Members: true, Nesting: true}, userOfUnreadableList: {Groups: true}, 7: {Nesting: true},
	} {
		node, _ := g.Find(guidOf(n))
		if got := g.Uncertain(node); got != want {
			t.Errorf("%d: %+v, want %+v", n, got, want)
		}
	}
}
