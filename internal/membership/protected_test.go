package membership

import (
	"fmt"
	"slices"
	"testing"

	"adconnector/internal/ad"
)

// protectionGraph is a graph with an account, Domain Admins (512) and Protected Users (525).
type protectionGraph struct{ *Graph }

func newProtectionGraph() protectionGraph {
	g := protectionGraph{New()}
	g.SetAccount(guidOf(1), domainSID(1001), 513)
	g.set(512)
	g.set(525)
	g.Compute()
	return g
}

// set replaces the members of a security group.
func (g protectionGraph) set(rid int, members ...int) Node {
	return g.setGroup(rid, true, members...)
}

func (g protectionGraph) setGroup(rid int, security bool, members ...int) Node {
	n := g.SetGroup(guidOf(rid), domainSID(ad.RID(rid)), security, RoleOf(domainSID(ad.RID(rid)), nil))
	for _, member := range members {
		sid := domainSID(ad.RID(member))
		if member == 1 {
			sid = domainSID(1001)
		}
		g.AddMember(n, guidOf(member), sid)
	}
	return n
}

// TestProtection checks what is known of an account, and that the account is affected by each change.
func TestProtection(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change     func(g protectionGraph)
		protected  string // protected and certain
		restricted string // in Protected Users and certain
		affected   bool
	}{
		"no group":                        {func(protectionGraph) {}, "false true", "false true", false},
		"member":                          {func(g protectionGraph) { g.set(512, 1); g.set(525, 1) }, "true true", "true true", true},
		"nested":                          {func(g protectionGraph) { g.set(512, 1200); g.set(525, 1200); g.set(1200, 1) }, "true true", "true true", true},
		"through a distribution group":    {func(g protectionGraph) { g.set(512, 1200); g.set(525, 1200); g.setGroup(1200, false, 1) }, "true true", "false true", true},
		"of a role that is not protected": {func(g protectionGraph) { g.set(520, 1) }, "false true", "false true", true},
		"unreadable members": {func(g protectionGraph) { g.SetMembersUnreadable(g.set(512)); g.SetMembersUnreadable(g.set(525)) }, "false false", "false false",
			false},
		"member among unreadable ones": {func(g protectionGraph) { g.SetMembersUnreadable(g.set(512, 1)); g.SetMembersUnreadable(g.set(525, 1)) }, "true false",
			"true false", true},
		"members of one group unreadable":            {func(g protectionGraph) { g.SetMembersUnreadable(g.set(512, 1)); g.set(518, 1) }, "true true", "false true", true},
		"distribution group with unreadable members": {func(g protectionGraph) { g.set(512, 1200); g.SetMembersUnreadable(g.setGroup(1200, false, 1)) }, "true false", "false true", true},
		"no Protected Users":                         {func(g protectionGraph) { g.Remove(guidOf(525)) }, "false true", "false false", false},
	} {
		t.Run(name, func(t *testing.T) {
			g := newProtectionGraph()
			before := g.Fingerprints()
			test.change(g)
			g.Compute()
			n, _ := g.Find(guidOf(1))
			if got := fmt.Sprint(g.IsProtected(g.GroupsOf(n))); got != test.protected {
				t.Errorf("protected: %s, want %s", got, test.protected)
			}
			if got := fmt.Sprint(g.InProtectedUsers(g.GroupsOf(n))); got != test.restricted {
				t.Errorf("in Protected Users: %s, want %s", got, test.restricted)
			}
			if affected := g.Affected(before); slices.Contains(affected, guidOf(1)) != test.affected {
				t.Errorf("affected: %v", affected)
			}
		})
	}
}

// TestAffectedByProtection: facts about members change with a group that does not contain them.
func TestAffectedByProtection(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ before, change func(g protectionGraph) }{
		"members of Protected Users unreadable": {func(g protectionGraph) { g.set(512, 1) }, func(g protectionGraph) { g.SetMembersUnreadable(g.set(525)) }},
		"Protected Users appears":               {func(g protectionGraph) { g.set(512, 1); g.Remove(guidOf(525)) }, func(g protectionGraph) { g.set(525) }},
		"distribution group nested": {func(g protectionGraph) { g.setGroup(1200, false, 1) }, func(g protectionGraph) {
			g.set(512, 1200)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newProtectionGraph()
			test.before(g)
			g.Compute()
			before := g.Fingerprints()
			test.change(g)
			g.Compute()
			if affected := g.Affected(before); !slices.Contains(affected, guidOf(1)) {
				t.Errorf("affected: %v", affected)
			}
		})
	}
}
