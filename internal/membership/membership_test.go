package membership

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"adconnector/internal/ad"
)

// domainSID returns S-1-5-21-1-2-3-rid.
func domainSID(rid ad.RID) ad.SID {
	authority := []byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}
	return ad.JoinSID(authority, rid)
}

func builtinSID(rid ad.RID) ad.SID {
	return ad.JoinSID([]byte{1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0}, rid)
}

func guidOf(n int) (guid ad.GUID) {
	binary.BigEndian.PutUint64(guid[8:], uint64(n)+1)
	return guid
}

func TestRoleOf(t *testing.T) {
	t.Parallel()
	foreign := ad.JoinSID([]byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0}, 512)
	for _, test := range []struct {
		name    string
		sid     ad.SID
		account string
		want    string
	}{
		{"domain RID", domainSID(512), "Domänen-Admins", "DOMAIN_ADMINS"},
		{"builtin RID", builtinSID(544), "Administratoren", "ADMINISTRATORS"},
		{"account name", domainSID(1101), "dnsadmins", "DNS_ADMINS"},
		{"account name of a builtin group", builtinSID(1101), "DnsAdmins", ""},
		{"builtin RID in the domain", domainSID(544), "x", ""},
		{"domain RID in builtin", builtinSID(512), "x", ""},
		{"domain RID under another authority", foreign, "x", ""},
		{"other group", domainSID(1104), "Domain Admins", ""},
		{"no SID", nil, "DnsAdmins", ""},
	} {
		if got := RoleOf(test.sid, []byte(test.account)).String(); got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if len(roles) > 64 {
		t.Error("more than the 64 roles of a roleSet")
	}
}

// model computes the same as Graph in the simplest way.
type model struct {
	sids     map[int]ad.SID // nil: none
	accounts map[int]ad.RID
	kinds    map[int]Kind // of accounts
	groups   map[int]*modelGroup
	names    map[int]string
}

type modelGroup struct {
	security bool
	role     Role
	members  map[int]bool
}

// addMembers adds members to the group of the last SetGroup, as values of the directory or one by one.
func (m *model) addMembers(g *Graph, group Node, members []int, asValues bool) {
	var values [][]byte
	for _, n := range members {
		if asValues {
			values = append(values, memberValue(guidOf(n), m.sids[n], m.names[n]))
		} else {
			g.SetName(g.AddMember(group, guidOf(n), m.sids[n]), []byte(m.names[n]))
		}
	}
	g.AddMembers(group, values)
}

// memberValue returns a value of member in the form of the extended DN control.
func memberValue(guid ad.GUID, sid ad.SID, name string) []byte {
	value := fmt.Appendf(nil, "<GUID=%x>;", guid[:])
	if sid != nil {
		value = fmt.Appendf(value, "<SID=%x>;", []byte(sid))
	}
	return fmt.Appendf(value, "CN=%s,DC=corp", name)
}

func (m *model) groupsOf(n int) (list []int) {
	for id, g := range m.groups {
		if g.members[n] {
			list = append(list, id)
		}
	}
	return list
}

func (m *model) primaryOf(n int) (int, bool) {
	rid := m.accounts[n]
	prefix, _, ok := m.sids[n].Split()
	if rid == 0 || !ok {
		return 0, false
	}
	for id := range m.groups {
		if string(m.sids[id]) == string(ad.JoinSID(prefix, rid)) {
			return id, true
		}
	}
	return 0, false
}

// above returns the security groups of an access token with these groups.
func (m *model) above(start []int) map[int]bool {
	found := map[int]bool{}
	for len(start) > 0 {
		id := start[0]
		start = start[1:]
		if m.groups[id].security && !found[id] {
			found[id] = true
			start = append(start, m.groupsOf(id)...)
		}
	}
	return found
}

func (m *model) below(id int, seen map[int]bool) {
	for member := range m.groups[id].members {
		if m.groups[member] != nil && !seen[member] {
			seen[member] = true
			m.below(member, seen)
		}
	}
}

func (m *model) inCycle(id int) bool {
	seen := map[int]bool{}
	m.below(id, seen)
	return seen[id]
}

func (m *model) depth(id int) int {
	depth := 0
	below, peers := map[int]bool{}, []int{id}
	m.below(id, below)
	for other := range below {
		back := map[int]bool{}
		m.below(other, back)
		if back[id] && other != id {
			peers = append(peers, other)
		}
	}
	for _, peer := range peers {
		for member := range m.groups[peer].members {
			if m.groups[member] != nil && !slices.Contains(peers, member) {
				depth = max(depth, m.depth(member)+1)
			}
		}
	}
	return depth
}

// listed formats what the assets show of an object that mention it: its number, name and kind.
func (m *model) listed(n int) string {
	kind := m.kinds[n]
	if m.groups[n] != nil {
		kind = KindGroup
	}
	name := m.names[n]
	if m.sids[n] == nil || kind == KindUser { // users in lists are not named
		name = ""
	}
	return fmt.Sprint(n+1, name, kind)
}

// path returns the shortest path from an object to the group of a role, without that group: of
// several, the one with the lowest SIDs.
func (m *model) path(start []int, role int) []int {
	lower := func(a, b []int) int {
		return slices.CompareFunc(a, b, func(x, y int) int { return m.sids[x].Compare(m.sids[y]) })
	}
	var paths [][]int
	for _, id := range start {
		if m.groups[id].security && id != role {
			paths = append(paths, []int{id})
		}
	}
	for len(paths) > 0 {
		var complete, longer [][]int
		for _, path := range paths {
			for _, above := range m.groupsOf(path[len(path)-1]) {
				if above == role {
					complete = append(complete, path)
				} else if m.groups[above].security && !slices.Contains(path, above) {
					longer = append(longer, append(slices.Clone(path), above))
				}
			}
		}
		if len(complete) > 0 {
			return slices.MinFunc(complete, lower)
		}
		paths = longer
	}
	return nil
}

// noResults is what describe returns for an object without memberships.
const noResults = "[] [] {[] []}"

// describe formats all query results about an object. Accounts do not name their groups, other than the
// primary group and those that grant privileges.
func describe(g *Graph, guid ad.GUID, sid ad.SID, rid ad.RID) string {
	n, ok := g.Find(guid)
	if !ok {
		return noResults
	}
	names := func(nodes []Node) (list []string) {
		for _, n := range nodes {
			id := g.GUID(n)
			name := ""
			if g.Kind(n) != KindUser {
				name = string(g.AppendName(nil, n))
			}
			list = append(list, fmt.Sprint(binary.BigEndian.Uint64(id[8:]), name, g.Kind(n)))
		}
		return list
	}
	direct := g.GroupsOf(n)
	var primary []Node
	if group, ok := g.PrimaryGroup(sid, rid); ok && rid != 0 {
		primary = []Node{group}
	}
	lists := [][]Node{direct, primary}
	p := g.Privileges(lists...)
	var directRoles, nestedRoles []string
	for _, r := range g.DirectRoles(p) {
		directRoles = append(directRoles, fmt.Sprint(r, names([]Node{g.RoleGroup(r)})))
	}
	for _, r := range g.NestedRoles(p) {
		path, _ := g.Path(nil, r, 1000, lists...)
		nestedRoles = append(nestedRoles, fmt.Sprint(r, names(append(path, g.RoleGroup(r)))))
	}
	slices.Sort(directRoles)
	slices.Sort(nestedRoles)
	nesting, isGroup := g.Nesting(n)
	groups := fmt.Sprint(numbers(g, direct))
	if isGroup {
		groups = fmt.Sprint(names(direct))
	}
	text := fmt.Sprintf("%s %v {%v %v}", groups, names(primary), directRoles, nestedRoles)
	if isGroup {
		text += fmt.Sprintf(" %v %+v", names(g.Members(n)), nesting)
	}
	return text
}

func (m *model) describe(n int) string {
	ordered := func(ids []int, format func(int) string) (list []string) {
		slices.SortFunc(ids, func(a, b int) int {
			x, ridX, _ := m.sids[a].Split()
			y, ridY, _ := m.sids[b].Split()
			return cmp.Or(bytes.Compare(x, y), cmp.Compare(ridX, ridY), cmp.Compare(a, b))
		})
		for _, id := range ids {
			list = append(list, format(id))
		}
		return list
	}
	direct := m.groupsOf(n)
	all, primary := slices.Clone(direct), []string{}
	if id, ok := m.primaryOf(n); ok {
		all, primary = append(all, id), []string{m.listed(id)}
	}
	roles, nested := map[string]bool{}, map[string]bool{}
	for _, id := range all {
		if g := m.groups[id]; g.security && g.role.IsPrivileged() {
			roles[fmt.Sprint(g.role, []string{m.listed(id)})] = true
		}
		for above := range m.above([]int{id}) {
			if g := m.groups[above]; above != id && g.role.IsPrivileged() {
				var path []string
				for _, between := range m.path(all, above) {
					path = append(path, m.listed(between))
				}
				nested[fmt.Sprint(g.role, append(path, m.listed(above)))] = true
			}
		}
	}
	format := m.listed
	if m.groups[n] == nil {
		format = func(id int) string { return strconv.Itoa(id + 1) }
	}
	text := fmt.Sprintf("%v %v {%v %v}", ordered(direct, format), primary, slices.Sorted(maps.Keys(roles)), slices.Sorted(maps.Keys(nested)))
	if g := m.groups[n]; g != nil {
		empty := len(g.members) == 0
		for account := range m.accounts {
			if primary, ok := m.primaryOf(account); ok && primary == n {
				empty = false
			}
		}
		text += fmt.Sprintf(" %v %+v", ordered(slices.Collect(maps.Keys(g.members)), m.listed), Nesting{uint32(m.depth(n)), m.inCycle(n), empty})
	}
	return text
}

func (m *model) describeRoles() string {
	type roleMembers struct{ members, groups []int }
	all := map[Role]*roleMembers{}
	for id, g := range m.groups {
		if g.role == 0 || !g.security {
			continue
		}
		role := &roleMembers{}
		all[g.role] = role
		for n := range m.sids {
			start := m.groupsOf(n)
			if primary, ok := m.primaryOf(n); ok {
				start = append(start, primary)
			}
			switch effective := m.above(start)[id]; {
			case effective && m.groups[n] != nil && (n == id || !m.groups[n].security):
			case effective && m.groups[n] != nil:
				role.groups = append(role.groups, n+1)
			case effective && m.groups[n] == nil:
				role.members = append(role.members, n+1)
			}
		}
	}
	text := ""
	for _, role := range slices.Sorted(maps.Keys(all)) {
		slices.Sort(all[role].members)
		slices.Sort(all[role].groups)
		text += fmt.Sprintf("%s %v %v\n", role, all[role].members, all[role].groups)
	}
	return text
}

// numbers returns the numbers that guidOf made the GUIDs of objects from, plus 1.
func numbers(g *Graph, nodes []Node) (list []uint64) {
	for _, n := range nodes {
		guid := g.GUID(n)
		list = append(list, binary.BigEndian.Uint64(guid[8:]))
	}
	return list
}

func describeRoles(g *Graph) string {
	text := ""
	for _, role := range g.RoleMembers() {
		members, groups := numbers(g, role.Members), numbers(g, role.Groups)
		slices.Sort(members)
		slices.Sort(groups)
		text += fmt.Sprintf("%s %v %v\n", role.Role, members, groups)
	}
	return text
}

// TestCampaignHistories applies random changes to a graph and the model, stores and restores
// the graph in between, and compares all query results. Objects that Affected does not return
// must be unchanged.
func TestCampaignHistories(t *testing.T) {
	t.Parallel()
	histories := uint64(1000)
	if testing.Short() {
		histories = 100
	}
	for seed := range histories {
		r := rand.New(rand.NewPCG(seed, 2))
		m := &model{sids: map[int]ad.SID{}, accounts: map[int]ad.RID{}, kinds: map[int]Kind{}, groups: map[int]*modelGroup{}, names: map[int]string{}}
		size := 3 + r.IntN(14)
		isGroup := make([]bool, size)
		wellKnown := []ad.SID{builtinSID(544), domainSID(512), domainSID(525), builtinSID(551)}
		for n := range size {
			isGroup[n] = r.IntN(2) == 0
			switch {
			case isGroup[n] && len(wellKnown) > 0 && r.IntN(2) == 0:
				m.sids[n], wellKnown = wellKnown[0], wellKnown[1:]
			case isGroup[n] || r.IntN(5) > 0:
				m.sids[n] = domainSID(ad.RID(2000 - n))
			default:
				m.sids[n] = nil // a contact
			}
		}
		var g *Graph
		objects, groups := map[uint32][]byte{}, map[uint32][]byte{}
		previous := map[int]string{}
		for step := range 12 {
			if g = New(); step > 0 { // every run restores the graph
				restore(t, g, objects, groups)
				g.Compute()
			}
			before := g.Fingerprints()
			fullRead := r.IntN(4) == 0
			if fullRead {
				g.BeginFullRead()
			}
			var removed []int
			for n := range size {
				if !fullRead && r.IntN(3) > 0 {
					continue
				}
				guid := guidOf(n)
				switch present := r.IntN(5) > 0; {
				case !present:
					delete(m.accounts, n)
					delete(m.kinds, n)
					delete(m.groups, n)
					removed = append(removed, n)
				case isGroup[n]:
					role := RoleOf(m.sids[n], nil)
					mg := &modelGroup{security: role != 0 || r.IntN(4) > 0, role: role, members: map[int]bool{}}
					m.groups[n] = mg
					node := g.SetGroup(guid, m.sids[n], mg.security, role)
					m.names[n] = "group" + strconv.Itoa(r.IntN(5))
					g.SetName(node, []byte(m.names[n]))
					members := r.Perm(size)[:r.IntN(size)]
					for _, member := range members {
						mg.members[member] = true
					}
					m.addMembers(g, node, members, r.IntN(2) == 0)
				case m.sids[n] != nil:
					if r.IntN(4) == 0 {
						m.sids[n] = domainSID(ad.RID(3000 + 100*step + n))
					}
					_, rid, _ := m.sids[r.IntN(size)].Split()
					m.accounts[n] = max(rid, 1)
					node := g.SetAccount(guid, m.sids[n], max(rid, 1))
					m.names[n], m.kinds[n] = "account"+strconv.Itoa(r.IntN(5)), KindUser+Kind(r.IntN(3))
					g.SetName(node, []byte(m.names[n]))
					g.SetKind(node, m.kinds[n])
				}
			}
			if fullRead {
				g.RemoveUnseen()
				removed = nil
			}
			for _, n := range removed {
				g.Remove(guidOf(n))
				for _, group := range m.groups {
					delete(group.members, n)
				}
			}
			g.Compute()
			affected := g.Affected(before)
			for n := range size {
				got, want := describe(g, guidOf(n), m.sids[n], m.accounts[n]), m.describe(n)
				if got != want {
					t.Fatalf("seed %d, step %d, object %d: %s, want %s", seed, step, n, got, want)
				}
				if previous[n] != got && !slices.Contains(affected, guidOf(n)) && got != noResults {
					t.Fatalf("seed %d, step %d: object %d is not affected: %s, was %s", seed, step, n, got, previous[n])
				}
				previous[n] = got
			}
			if got, want := describeRoles(g), m.describeRoles(); got != want {
				t.Fatalf("seed %d, step %d: %s\nwant %s", seed, step, got, want)
			}
			store(g, objects, groups)
		}
	}
}

// TestUnchangedRead checks that reading the same content again changes no record.
func TestUnchangedRead(t *testing.T) {
	t.Parallel()
	stored := large(1000, 50, 5, 1)
	g := New()
	objects, groups := map[uint32][]byte{}, map[uint32][]byte{}
	store(stored, objects, groups)
	restore(t, g, objects, groups)
	g.Compute()
	before := g.Fingerprints()
	g.BeginFullRead()
	fill(g, 1000, 50, 5, 1)
	if unseen := g.Unseen(); len(unseen) > 0 {
		t.Errorf("%d unseen objects, want 0", len(unseen))
	}
	g.Compute()
	changedObjects, changedGroups := changedRecords(g)
	if affected := g.Affected(before); len(changedObjects)+len(changedGroups)+len(affected) > 0 {
		t.Errorf("%d changed objects, %d changed groups, %d affected objects, want 0", len(changedObjects), len(changedGroups), len(affected))
	}
}

// store applies the changed records of a graph to the stored ones.
func store(g *Graph, objects, groups map[uint32][]byte) {
	changedObjects, changedGroups := changedRecords(g)
	for _, change := range []struct {
		records []Record
		stored  map[uint32][]byte
	}{{changedObjects, objects}, {changedGroups, groups}} {
		for _, record := range change.records {
			if change.stored[record.Node] = record.Value; record.Value == nil {
				delete(change.stored, record.Node)
			}
		}
	}
}

func restore(t *testing.T, g *Graph, objects, groups map[uint32][]byte) {
	t.Helper()
	for _, n := range slices.Sorted(maps.Keys(objects)) {
		if err := g.RestoreObject(n, objects[n]); err != nil {
			t.Fatal(err)
		}
	}
	for n, value := range groups {
		if err := g.RestoreGroup(n, value); err != nil {
			t.Fatal(err)
		}
	}
	g.FinishRestore()
}

func TestDamagedRecords(t *testing.T) {
	t.Parallel()
	object := func(n int) []byte { guid := guidOf(n); return append(guid[:], 0, 0, 0, 0) }
	g := New()
	for _, damaged := range []struct {
		number uint32
		value  []byte
	}{{0, nil}, {0, make([]byte, 20)}, {1 << 30, object(0)}} {
		if err := g.RestoreObject(damaged.number, damaged.value); !errors.Is(err, ErrInvalidRecord) {
			t.Errorf("object %d %x: %v", damaged.number, damaged.value, err)
		}
	}
	if err := g.RestoreObject(3, object(0)); err != nil {
		t.Fatal(err)
	}
	if err := g.RestoreObject(4, object(0)); !errors.Is(err, ErrInvalidRecord) {
		t.Errorf("duplicate GUID: %v", err)
	}
	for _, value := range [][]byte{nil, {0}, {1, 200}, {1, 0, 1}, {1, 0, 2, 0, 0, 0}, {1, 0, 9, 0, 0, 0}} {
		if err := g.RestoreGroup(3, value); !errors.Is(err, ErrInvalidRecord) {
			t.Errorf("group %x: %v", value, err)
		}
	}
	if err := g.RestoreGroup(3, []byte{1, 1, 3, 0, 0, 0}); err != nil {
		t.Error(err)
	}
}

// TestCampaignDeepNesting checks that very deep nesting does not overflow the stack.
func TestCampaignDeepNesting(t *testing.T) {
	t.Parallel()
	depth := 100_000
	if testing.Short() {
		depth = 20_000
	}
	g := New()
	for n := range depth {
		node := g.SetGroup(guidOf(n), domainSID(ad.RID(10_000+n)), true, 0)
		if n+1 < depth {
			g.AddMember(node, guidOf(n+1), domainSID(ad.RID(10_000+n+1)))
		}
	}
	g.Compute()
	top, _ := g.Find(guidOf(0))
	if nesting, _ := g.Nesting(top); int(nesting.Depth) != depth-1 || nesting.InCycle {
		t.Errorf("nesting %+v, want depth %d", nesting, depth-1)
	}
}

// fill adds users, and groups with each user in groupsPerUser of them.
func fill(g *Graph, users, groups, groupsPerUser int, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 3))
	random := func(n int) (guid ad.GUID) {
		binary.BigEndian.PutUint64(guid[:8], mix(uint64(n), 9))
		binary.BigEndian.PutUint64(guid[8:], uint64(n))
		return guid
	}
	for n := range users {
		node := g.SetAccount(random(n), domainSID(ad.RID(100_000+n)), 513)
		g.SetName(node, fmt.Appendf(nil, "Firstname Lastname %06d", n))
		g.SetKind(node, KindUser)
	}
	members := make([][]uint32, groups)
	for n := range users {
		first := r.IntN(groups)
		for i := range groupsPerUser {
			group := (first + i) % groups
			members[group] = append(members[group], uint32(n))
		}
	}
	for i, list := range members {
		node := g.SetGroup(random(users+i), domainSID(ad.RID(5_000_000+i)), true, 0)
		g.SetName(node, fmt.Appendf(nil, "Group of department %05d", i))
		for _, n := range list {
			member := g.AddMember(node, random(int(n)), domainSID(ad.RID(100_000+n)))
			g.SetName(member, fmt.Appendf(nil, "Firstname Lastname %06d", n))
		}
	}
}

func large(users, groups, groupsPerUser int, seed uint64) *Graph {
	g := New()
	fill(g, users, groups, groupsPerUser, seed)
	g.Compute()
	return g
}

// TestAddMembers checks that AddMembers adds the same as AddMember and SetName.
func TestAddMembers(t *testing.T) {
	t.Parallel()
	const pool = 3000
	r := rand.New(rand.NewPCG(1, 1))
	one, many := New(), New()
	for group, size := range []int{0, 1, membersAtOnce - 1, membersAtOnce, membersAtOnce + 1, 1000, 1000} {
		guid := guidOf(pool + group)
		groupOfOne, groupOfMany := one.SetGroup(guid, nil, true, 0), many.SetGroup(guid, nil, true, 0)
		var values [][]byte
		for range size {
			n := r.IntN(pool) // most are new, and some occur twice
			sid, name := domainSID(ad.RID(n+1)), fmt.Sprint("member ", n)
			one.SetName(one.AddMember(groupOfOne, guidOf(n), sid), []byte(name))
			values = append(values, memberValue(guidOf(n), sid, name))
		}
		const plain = 2
		for range plain {
			values = slices.Insert(values, r.IntN(len(values)+1), []byte("CN=plain,DC=corp"))
		}
		if got := many.AddMembers(groupOfMany, values); got != plain {
			t.Errorf("%d members: %d unidentified, want %d", size, got, plain)
		}
	}
	one.Compute()
	many.Compute()
	describe := func(g *Graph) (text string) {
		for n := range g.guids {
			text += fmt.Sprint(g.guids[n], g.sids[n], string(g.storedName(Node(n))), g.Members(Node(n)), "\n")
		}
		return text
	}
	if got, want := describe(many), describe(one); got != want {
		t.Error("the graphs differ")
	}
}

// TestCampaignMemory checks that 1,000,000 memberships take at most 64 MiB. It is not parallel,
// because it measures the heap of the process.
func TestCampaignMemory(t *testing.T) {
	divisor := 1
	if testing.Short() {
		divisor = 10
	}
	if got, limit := heapOf(100_000/divisor, 10_000/divisor, 10), uint64(64<<20/divisor); got > limit {
		t.Errorf("%.1f MiB, want at most %.1f", float64(got)/(1<<20), float64(limit)/(1<<20))
	}
}

// heapOf returns the memory of a graph after Compute, in bytes.
func heapOf(users, groups, groupsPerUser int) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	g := large(users, groups, groupsPerUser, 1)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(g)
	return after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc)
}

func BenchmarkMillion(b *testing.B) {
	for _, size := range []struct{ users, groups, groupsPerUser int }{{100_000, 10_000, 10}, {1_000_000, 100_000, 1}} {
		b.Run(fmt.Sprintf("%d users, %d groups each", size.users, size.groupsPerUser), func(b *testing.B) {
			for b.Loop() {
				large(size.users, size.groups, size.groupsPerUser, 1)
			}
			b.ReportMetric(float64(heapOf(size.users, size.groups, size.groupsPerUser))/(1<<20), "MiB")
		})
	}
}

// TestSize checks that Size is close to the memory of a graph, and an upper bound of the part
// that an attacker controls: many SIDs with different authorities.
func TestSize(t *testing.T) {
	const accounts, groups, memberships = 100_000, 1000, 500
	for _, test := range []struct {
		name string
		sid  func(n int) ad.SID
	}{
		{"one domain", func(n int) ad.SID { return sidOf(1, n) }},
		{"many domains", func(n int) ad.SID { return sidOf(n, n) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			guid := func(n int) (guid ad.GUID) {
				binary.BigEndian.PutUint32(guid[4:], uint32(n+1))
				return guid
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			g := New()
			for n := range accounts {
				g.SetName(g.SetAccount(guid(n), test.sid(n), 513), fmt.Appendf(nil, "Firstname Lastname %d", n))
			}
			for n := range groups {
				group := g.SetGroup(guid(accounts+n), test.sid(accounts+n), true, 0)
				for m := range memberships {
					g.AddMember(group, guid((n*memberships+m)%accounts), nil)
				}
			}
			estimate := g.Size()
			g.Compute()
			fingerprints, again := g.Fingerprints(), g.Fingerprints()
			runtime.GC()
			runtime.ReadMemStats(&after)
			size := int(after.HeapAlloc - before.HeapAlloc)
			t.Logf("%d KiB, estimate %d KiB", size>>10, estimate>>10)
			if size > estimate*5/4 || size < estimate/2 {
				t.Errorf("%d KiB, estimate %d KiB", size>>10, estimate>>10)
			}
			runtime.KeepAlive(g)
			runtime.KeepAlive(fingerprints)
			runtime.KeepAlive(again)
		})
	}
}

// sidOf returns a SID of a domain.
func sidOf(domain, rid int) ad.SID {
	prefix := []byte{1, 4, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0}
	prefix = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(prefix, uint32(domain)), 7)
	return ad.JoinSID(prefix, ad.RID(rid+1))
}

// TestRoleGroups checks that each SID and account name is that of a role, and that none is missing.
func TestRoleGroups(t *testing.T) {
	t.Parallel()
	authority, _, _ := domainSID(512).Split()
	domain := ad.SID(slices.Clone(authority))
	domain[1]--
	for _, test := range []struct {
		name   string
		domain ad.SID
		want   int
	}{{"known domain", domain, len(roles)}, {"unknown domain", nil, 13}} {
		sids, accounts := RoleGroups(test.domain)
		found := map[Role]bool{}
		for _, sid := range sids {
			found[RoleOf(sid, nil)] = true
		}
		for _, account := range accounts {
			found[RoleOf(domainSID(1101), []byte(account))] = true
		}
		if len(found) != test.want || found[0] {
			t.Errorf("%s: roles %v, want %d", test.name, found, test.want)
		}
	}
}

// TestRoleNumbers checks that no role has changed its number, which the state file contains.
func TestRoleNumbers(t *testing.T) {
	t.Parallel()
	for number, name := range map[Role]string{1: "ADMINISTRATORS", 2: "DOMAIN_ADMINS", 9: "REPLICATOR", 15: "DOMAIN_CONTROLLERS", 23: "DNS_ADMINS",
		24: "PROTECTED_USERS", 25: "PRE_WINDOWS_2000_COMPATIBLE_ACCESS", Role(len(roles) + 1): ""} {
		if number.String() != name {
			t.Errorf("role %d is %q, want %q", number, number, name)
		}
	}
	if Role(24).IsPrivileged() || Role(25).IsPrivileged() {
		t.Error("a role that is no privilege counts as one")
	}
}

// TestPrivilegedUsers checks which users count as privileged and as protected.
func TestPrivilegedUsers(t *testing.T) {
	t.Parallel()
	g := New()
	domain := func(rid ad.RID) ad.SID {
		return ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}, rid)
	}
	guid := func(n byte) ad.GUID { return ad.GUID{n} }
	user := func(n byte, primary ad.RID) { g.SetKind(g.SetAccount(guid(n), domain(ad.RID(n)), primary), KindUser) }
	group := func(n byte, rid ad.RID, members ...byte) {
		node := g.SetGroup(guid(n), domain(rid), true, RoleOf(domain(rid), nil))
		for _, m := range members {
			sid := domain(ad.RID(m))
			g.AddMember(node, guid(m), sid)
		}
	}
	for n := byte(1); n <= 5; n++ {
		user(n, 513)
	}
	user(6, 512) // by the primary group
	g.SetKind(g.SetAccount(guid(7), domain(7), 515), KindComputer)
	group(100, 512, 1, 7, 101)  // Domain Admins, with a computer
	group(101, 101, 2)          // nested
	group(102, 525, 1, 3, 103)  // Protected Users
	group(103, 103, 6)          // nested
	group(104, 104, 4)          // no role
	group(105, 513, 1, 2, 3, 4) // Domain Users
	g.Compute()
	if privileged, protected := g.PrivilegedUsers(); privileged != 3 || protected != 2 || g.PrivilegedUsersUncertain() {
		t.Errorf("%d privileged users, %d protected", privileged, protected)
	}
	g.Keep(guid(104))
	g.Compute()
	if g.PrivilegedUsersUncertain() {
		t.Error("a group without a role makes the number uncertain")
	}
	g.Keep(guid(103))
	g.Compute()
	if !g.PrivilegedUsersUncertain() {
		t.Error("a group in Protected Users does not make the number uncertain")
	}
}

// changedRecords returns the records of ChangedRecords as lists.
func changedRecords(g *Graph) (objects, groups []Record) {
	o, gr := g.ChangedRecords()
	return slices.Collect(o), slices.Collect(gr)
}
