package membership

import "testing"

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
