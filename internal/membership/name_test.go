package membership

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/ad"
)

func TestKinds(t *testing.T) {
	t.Parallel()
	foreign := ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0}, 1000)
	g := New()
	group := g.SetGroup(guidOf(0), domainSID(2000), true, 0)
	g.SetName(group, []byte("Team"))
	for n, member := range []struct {
		sid  ad.SID
		name string
	}{
		{domainSID(1001), "Alice"}, {domainSID(1002), "PC"}, {domainSID(1003), "gmsa"}, {domainSID(2000), "Team"},
		{ad.Everyone, "S-1-1-0"}, {foreign, foreign.String()}, {domainSID(1007), "unknown"}, {nil, "contact"}, {ad.JoinSID([]byte{1, 1, 0, 0, 0, 0, 0, 5}, 99), "S-1-5-99"},
		{ad.JoinSID(foreign[:24], 1001), "Bob"},
	} {
		guid := guidOf(n + 1)
		if n == 3 {
			guid = guidOf(0)
		}
		g.SetName(g.AddMember(group, guid, member.sid), []byte(member.name))
	}
	for n, kind := range map[int]Kind{1: KindUser, 2: KindComputer, 3: KindServiceAccount} {
		g.SetKind(g.SetAccount(guidOf(n), domainSID(ad.RID(1000+n)), 513), kind)
	}
	// The first one is the contact: an object without a SID is in no list, so it has no name.
	const want = ": ; Everyone: WELL_KNOWN; : ; Alice: USER; PC: COMPUTER; gmsa: SERVICE_ACCOUNT; unknown: ; Team: GROUP; : FOREIGN; Bob: FOREIGN"
	describe := func(g *Graph) string {
		group, _ := g.Find(guidOf(0))
		var texts []string
		for _, n := range g.Members(group) {
			texts = append(texts, fmt.Sprintf("%s: %s", g.AppendName(nil, n), g.Kind(n)))
		}
		return strings.Join(texts, "; ")
	}
	g.Compute()
	if got := describe(g); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	objects, groups := map[uint32][]byte{}, map[uint32][]byte{}
	store(g, objects, groups)
	restored := New()
	restore(t, restored, objects, groups)
	restored.Compute()
	if got := describe(restored); got != want {
		t.Errorf("restored: %s, want %s", got, want)
	}
	for n, sid := range map[int]ad.SID{0: domainSID(2000), 1: domainSID(1001), 5: ad.Everyone, 6: foreign} {
		if node, found := restored.FindSID(sid); !found || restored.GUID(node) != guidOf(n) {
			t.Errorf("%s: found %t, %s", sid, found, restored.GUID(node))
		}
	}
	for _, sid := range []ad.SID{domainSID(1), builtinSID(544), {1, 0, 0, 0, 0, 0, 0, 5}, nil} {
		if _, found := restored.FindSID(sid); found {
			t.Errorf("%s found", sid)
		}
	}
}

func TestAccountKind(t *testing.T) {
	t.Parallel()
	for classes, want := range map[string]Kind{
		"top person organizationalPerson user":               KindUser,
		"top person organizationalPerson user inetOrgPerson": KindUser,
		"top person organizationalPerson user computer":      KindComputer,
		"computer user": KindComputer,
		"top person organizationalPerson user computer msDS-GroupManagedServiceAccount": KindServiceAccount,
		"MSDS-MANAGEDSERVICEACCOUNT Computer":                                           KindServiceAccount,
		"top group":                                                                     KindUnknown,
		"top foreignSecurityPrincipal":                                                  KindUnknown,
		"":                                                                              KindUnknown,
	} {
		var values [][]byte
		for class := range strings.FieldsSeq(classes) {
			values = append(values, []byte(class))
		}
		if got := AccountKind(values); got != want {
			t.Errorf("%s: %s, want %s", classes, got, want)
		}
	}
}

// TestRecordWithoutName checks that a record of version 1.0.0 is read, and is written with the name.
func TestRecordWithoutName(t *testing.T) {
	t.Parallel()
	guid := guidOf(1)
	old := append(append(guid[:], 1, 2, 0, 0), domainSID(1001)...)
	g := New()
	if err := g.RestoreObject(0, old); err != nil {
		t.Fatal(err)
	}
	g.FinishRestore()
	g.Compute()
	n, found := g.FindSID(domainSID(1001))
	if !found || g.Kind(n) != KindUnknown || len(g.AppendName(nil, n)) > 0 {
		t.Fatalf("found %t, kind %s", found, g.Kind(n))
	}
	if objects, _ := changedRecords(g); len(objects) != 0 {
		t.Errorf("unchanged, but %v", objects)
	}
	g.SetName(n, []byte("Alice"))
	g.SetKind(n, KindUser)
	objects, _ := changedRecords(g)
	if want := string(old) + "\x01Alice"; len(objects) != 1 || string(objects[0].Value) != want {
		t.Errorf("%v, want %q", objects, want)
	}
}

// TestRenamedMembers checks that a renamed member affects the groups that name it: those of users do
// not.
func TestRenamedMembers(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]int{KindUser: 0, KindComputer: 1, KindServiceAccount: 1, KindUnknown: 1} {
		g := New()
		member := g.SetAccount(guidOf(1), domainSID(1001), 513)
		g.SetKind(member, kind)
		g.SetName(member, []byte("before"))
		g.AddMember(g.SetGroup(guidOf(2), domainSID(2000), true, 0), guidOf(1), domainSID(1001))
		g.Compute()
		before := g.Fingerprints()
		g.SetName(member, []byte("after"))
		g.Compute()
		if affected := g.Affected(before); len(affected) != want || want == 1 && affected[0] != guidOf(2) {
			t.Errorf("%s: affected %v, want %d", kind, affected, want)
		}
	}
}

// TestRenamedGroups checks that a renamed group affects the objects that name it: its own groups and
// members that are groups, accounts of which it is the primary group, and those with it in a path.
func TestRenamedGroups(t *testing.T) {
	t.Parallel()
	const account, primary, above, other, below, admins = 1, 2, 3, 4, 5, 6
	members := map[int][]int{other: {account, below}, above: {other}, admins: {above}}
	for _, test := range []struct {
		name    string
		renamed int
		role    bool // of admins, in which the group above is
		want    []int
	}{
		{"group of an account", other, false, []int{above, below}},
		{"its group", above, false, []int{other, admins}},
		{"primary group", primary, false, []int{account}},
		{"group of an account, in a path", other, true, []int{account, below, above}},
		{"its group, in a path", above, true, []int{account, below, other, admins}},
		{"privileged group", admins, true, []int{account, below, other, above}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			g := New()
			g.SetKind(g.SetAccount(guidOf(account), domainSID(account), primary), KindUser)
			for n := primary; n <= admins; n++ {
				var role Role
				if n == admins && test.role {
					role = RoleOf(domainSID(512), nil)
				}
				group := g.SetGroup(guidOf(n), domainSID(ad.RID(n)), true, role)
				g.SetName(group, []byte("before"))
				for _, member := range members[n] {
					g.AddMember(group, guidOf(member), domainSID(ad.RID(member)))
				}
			}
			g.Compute()
			before := g.Fingerprints()
			renamed, _ := g.Find(guidOf(test.renamed))
			g.SetName(renamed, []byte("after"))
			g.Compute()
			var want []ad.GUID
			for _, n := range test.want {
				want = append(want, guidOf(n))
			}
			got := g.Affected(before)
			for _, guids := range [][]ad.GUID{got, want} {
				slices.SortFunc(guids, func(a, b ad.GUID) int { return bytes.Compare(a[:], b[:]) })
			}
			if !slices.Equal(got, want) {
				t.Errorf("affected: %v, want %v", got, want)
			}
		})
	}
}

func TestLongName(t *testing.T) {
	t.Parallel()
	g := New()
	n := g.SetAccount(guidOf(1), domainSID(1001), 513)
	g.SetName(n, []byte(strings.Repeat("ä", maxName)))
	if got := string(g.AppendName(nil, n)); got != strings.Repeat("ä", maxName/2) {
		t.Errorf("%d bytes", len(got))
	}
	g.SetName(n, []byte("x"+strings.Repeat("ä", maxName)))
	if got := string(g.AppendName(nil, n)); got != "x"+strings.Repeat("ä", maxName/2-1) {
		t.Errorf("%d bytes", len(got))
	}
	size := g.Size()
	g.SetName(n, []byte("x"+strings.Repeat("ä", maxName)))
	if g.Size() != size {
		t.Error("the same name takes memory again")
	}
	g.SetName(n, nil)
	if len(g.AppendName(nil, n)) == 0 {
		t.Error("an empty name removed the name")
	}
}

// TestFindSIDAfterCompute checks that objects are found by their SIDs although an account got a SID of an
// unknown domain after Compute.
func TestFindSIDAfterCompute(t *testing.T) {
	t.Parallel()
	foreign := ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0}, 1000)
	g := New()
	for n := range 3 {
		g.SetAccount(guidOf(n), domainSID(ad.RID(1000+n)), 513)
	}
	g.Compute()
	g.SetAccount(guidOf(2), foreign, 513)
	if node, found := g.FindSID(domainSID(1001)); !found || g.GUID(node) != guidOf(1) {
		t.Errorf("found %t", found)
	}
	for _, sid := range []ad.SID{domainSID(1002), foreign} {
		if _, found := g.FindSID(sid); found {
			t.Errorf("%s: found before Compute", sid)
		}
	}
	g.Compute()
	if node, found := g.FindSID(foreign); !found || g.GUID(node) != guidOf(2) {
		t.Errorf("found %t after Compute", found)
	}
}
