package domaincontroller

import (
	"slices"
	"testing"
	"time"
)

// TestExpire: a time-bound membership ends at its time, at both ends of the link, and without a
// change of the group.
func TestExpire(t *testing.T) {
	t.Parallel()
	now := testNow
	d := New(Options{Now: func() time.Time { return now }})
	group, user := "CN=Domain Admins,CN=Users,"+d.Base(), "CN=Administrator,CN=Users,"+d.Base()
	expect := func(isMember bool) {
		t.Helper()
		g, err := d.Object(group)
		must(t, err)
		u, err := d.Object(user)
		must(t, err)
		if slices.Contains(g.Attributes["member"], user) != isMember || slices.Contains(u.Attributes["memberOf"], group) != isMember {
			t.Errorf("member %q, memberOf %q", g.Attributes["member"], u.Attributes["memberOf"])
		}
	}
	usn := func() string { g, _ := d.Object(group); return g.First("uSNChanged") }
	if err := d.Expire("CN=Domain Guests,CN=Users,"+d.Base(), user, now); err == nil {
		t.Error("the membership does not exist")
	}
	before := usn()
	must(t, d.Expire(group, user, now.Add(time.Minute)))
	limited := usn()
	if limited == before {
		t.Error("the new limit is no change")
	}
	snapshot := d.Snapshot()
	now = now.Add(time.Minute - 1)
	expect(true)
	now = now.Add(1)
	expect(false)
	if usn() != limited {
		t.Error("the end is a change")
	}
	d.Restore(Restoration{Snapshot: snapshot})
	expect(false) // the time has passed
	must(t, d.Modify(group, "member", user))
	now = now.Add(time.Hour)
	expect(true) // not time-bound any more
}
