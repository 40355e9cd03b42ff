// Package membership is the graph of who is in what: the groups of a domain, their
// members, and the primary groups of its accounts, which no group lists.
//
// It guarantees that what it says of an object depends on the directory's content
// alone, not on the order in which it was told; that Digests differ wherever that
// has changed; and that memory is some 40 bytes for each object and 8 for each
// membership. It is pure: no I/O, no clock. It trusts that identifiers are those
// of one domain's directory; it does not evaluate access.
package membership

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"adconnector/internal/ad"
)

// Node numbers an object of the graph: a group, an account, or whatever else is a
// member of a group. An object keeps its number for as long as it is in the graph.
type Node uint32

// Graph is who is in what. It is told with SetAccount, SetGroup, AddMember and
// Remove, and asked after Compute. While it is asked only, it serves many goroutines.
type Graph struct {
	guids   []ad.GUID
	sids    []sid
	primary []ad.RID // of the account's primary group; 0: it is no account
	group   []uint32 // place in groups, and one; 0: it is no group
	gone    []bool   // no longer a member of anything, from the next Compute on
	table   []uint32 // the nodes by GUID, and one; open addressing
	free    []Node   // numbers of objects that were forgotten

	authorities []authority
	byAuthority map[string]uint32

	groups  []group
	members []Node // of all groups, one after the other

	// What Compute makes.
	order    []Node // that are there, by SID
	upFrom   []uint32
	up       []Node // the groups of every node, one after the other
	bySID    map[sid]Node
	roleNode [64 + 1]Node
	hasRole  RoleSet

	loaded int               // numbers below are those of the stored graph
	dirty  map[Node]struct{} // of those: the ones whose records have changed
	seen   []bool            // in a reading of everything; nil: there is none
}

// sid is a SID, its authority by number. The zero value is none.
type sid struct {
	authority uint32
	rid       ad.RID
}

type authority struct {
	bytes string
	text  string // with a hyphen at the end
}

type group struct {
	node     Node
	from, to uint32 // in members
	there    bool
	security bool
	role     Role

	stored    uint64  // mark of the stored record; 0: there is none
	grants    RoleSet // what being in it amounts to: its own role and those above
	depth     uint32
	cycle     bool
	primaries uint32 // accounts whose primary group it is
}

// New returns an empty graph.
func New() *Graph {
	return &Graph{
		byAuthority: map[string]uint32{}, authorities: make([]authority, 1),
		table: make([]uint32, 1<<10), dirty: map[Node]struct{}{},
	}
}

// Len returns how many groups and memberships there are.
func (g *Graph) Len() (groups, memberships int) {
	for i := range g.groups {
		if g.groups[i].there {
			groups++
		}
	}
	return groups, len(g.up)
}

// node returns the number of an object, which it gets when it is new.
func (g *Graph) node(guid ad.GUID) Node {
	at, there := g.slot(guid)
	if there {
		return Node(g.table[at] - 1)
	}
	var n Node
	if last := len(g.free) - 1; last >= 0 {
		n, g.free = g.free[last], g.free[:last]
		g.guids[n] = guid
		g.dirty[n] = struct{}{}
	} else {
		n = Node(len(g.guids))
		g.grow()
		g.guids[n] = guid
	}
	g.table[at] = uint32(n) + 1
	if used := len(g.guids) - len(g.free); used*4 > len(g.table)*3 {
		g.rehash(2 * len(g.table))
	}
	return n
}

// grow makes room for one more node. Slices grow by a quarter, as append does.
func (g *Graph) grow() {
	g.guids = append(g.guids, ad.GUID{})
	g.sids = append(g.sids, sid{})
	g.primary = append(g.primary, 0)
	g.group = append(g.group, 0)
	g.gone = append(g.gone, false)
	if g.seen != nil {
		g.seen = append(g.seen, false)
	}
}

// slot returns where in the table a GUID is, or would be. GUIDs are random, but an
// attacker could choose them: all of their bits count.
func (g *Graph) slot(guid ad.GUID) (at uint32, there bool) {
	mask := uint32(len(g.table) - 1)
	h := mix(binary.LittleEndian.Uint64(guid[:8]), binary.LittleEndian.Uint64(guid[8:]))
	for at = uint32(h) & mask; g.table[at] != 0; at = (at + 1) & mask {
		if g.guids[g.table[at]-1] == guid {
			return at, true
		}
	}
	return at, false
}

func (g *Graph) rehash(size int) {
	g.table = make([]uint32, size)
	for n, guid := range g.guids {
		if guid == (ad.GUID{}) {
			continue
		}
		at, _ := g.slot(guid)
		g.table[at] = uint32(n) + 1
	}
}

// setSID notes an object's SID; one that has none keeps none.
func (g *Graph) setSID(n Node, of ad.SID) {
	prefix, rid, ok := of.Split()
	if !ok {
		return
	}
	number, known := g.byAuthority[string(prefix)]
	if !known {
		number = uint32(len(g.authorities))
		text := ad.Join(prefix, 0).String()
		g.authorities = append(g.authorities, authority{string(prefix), text[:len(text)-1]})
		g.byAuthority[string(prefix)] = number
	}
	if now := (sid{number, rid}); g.sids[n] != now {
		g.sids[n] = now
		g.touch(n)
	}
}

func (g *Graph) touch(n Node) {
	if int(n) < g.loaded {
		g.dirty[n] = struct{}{}
	}
}

func (g *Graph) saw(n Node) {
	if g.seen != nil {
		g.seen[n] = true
	}
}

// SetAccount says that there is an account, and which its primary group is.
func (g *Graph) SetAccount(guid ad.GUID, of ad.SID, primary ad.RID) {
	n := g.node(guid)
	g.setSID(n, of)
	if g.primary[n] != primary {
		g.primary[n] = primary
		g.touch(n)
	}
	g.saw(n)
}

// SetGroup says that there is a group, with no members yet: AddMember follows,
// before the next SetGroup.
func (g *Graph) SetGroup(guid ad.GUID, of ad.SID, security bool, role Role) Node {
	n := g.node(guid)
	g.setSID(n, of)
	if g.group[n] == 0 {
		g.groups = append(g.groups, group{node: n})
		g.group[n] = uint32(len(g.groups))
	}
	at := &g.groups[g.group[n]-1]
	at.there, at.security, at.role = true, security, role
	at.from = uint32(len(g.members))
	at.to = at.from
	g.saw(n)
	return n
}

// AddMember adds to the group that was set last. of is nil for what has no SID.
func (g *Graph) AddMember(to Node, guid ad.GUID, of ad.SID) {
	n := g.node(guid)
	g.setSID(n, of)
	g.members = append(g.members, n)
	at := &g.groups[g.group[to]-1]
	at.to = uint32(len(g.members))
}

// Remove says that an object is gone: from the groups that it was in, too. It has
// the last word before Compute.
func (g *Graph) Remove(guid ad.GUID) {
	if at, there := g.slot(guid); there {
		n := Node(g.table[at] - 1)
		g.drop(n)
		g.gone[n] = true
	}
}

func (g *Graph) drop(n Node) {
	if g.primary[n] != 0 {
		g.primary[n] = 0
		g.touch(n)
	}
	if i := g.group[n]; i != 0 {
		g.groups[i-1].there = false
	}
}

// ReadAll begins a reading of everything: what is not set from here on has gone.
func (g *Graph) ReadAll() { g.seen = make([]bool, len(g.guids)) }

// Unseen lists the accounts and groups that a reading of everything did not show.
func (g *Graph) Unseen() (guids []ad.GUID) {
	for n, seen := range g.seen {
		if !seen && g.isPrincipal(Node(n)) {
			guids = append(guids, g.guids[n])
		}
	}
	return guids
}

func (g *Graph) isPrincipal(n Node) bool {
	return g.primary[n] != 0 || g.group[n] != 0 && g.groups[g.group[n]-1].there
}

// DropUnseen drops what Unseen lists. It may be a member of a group all the same:
// that is the group's word.
func (g *Graph) DropUnseen() {
	for n, seen := range g.seen {
		if !seen {
			g.drop(Node(n))
		}
	}
}

// Compute makes everything that is asked for from what was told.
func (g *Graph) Compute() {
	g.sort()
	g.link()
	g.grant()
	g.measure()
}

// sort puts the objects that matter into the order of their SIDs. Whatever is
// listed comes in that order.
func (g *Graph) sort() {
	ranks := make([]uint32, len(g.authorities))
	byBytes := make([]uint32, 0, len(g.authorities))
	for i := range g.authorities {
		byBytes = append(byBytes, uint32(i))
	}
	slices.SortFunc(byBytes, func(a, b uint32) int { return cmp.Compare(g.authorities[a].bytes, g.authorities[b].bytes) })
	for rank, i := range byBytes {
		ranks[i] = uint32(rank)
	}
	if cap(g.order) < len(g.guids) {
		g.order = make([]Node, 0, len(g.guids))
	}
	g.order = g.order[:0]
	for n := range g.guids {
		if g.guids[n] != (ad.GUID{}) {
			g.order = append(g.order, Node(n))
		}
	}
	slices.SortFunc(g.order, func(a, b Node) int {
		x, y := g.sids[a], g.sids[b]
		if c := cmp.Or(cmp.Compare(ranks[x.authority], ranks[y.authority]), cmp.Compare(x.rid, y.rid)); c != 0 {
			return c
		}
		return cmp.Compare(string(g.guids[a][:]), string(g.guids[b][:]))
	})
}

// link makes the lists of everybody's groups, and from those the groups' lists
// anew: so both are in order, and what was replaced takes no more room.
func (g *Graph) link() {
	g.upFrom = make([]uint32, len(g.guids)+1)
	total := uint32(0)
	for _, at := range g.groups {
		if !at.there {
			continue
		}
		for _, member := range g.members[at.from:at.to] {
			if !g.gone[member] {
				g.upFrom[member+1]++
				total++
			}
		}
	}
	for n := 1; n < len(g.upFrom); n++ {
		g.upFrom[n] += g.upFrom[n-1]
	}
	g.up = make([]Node, total)
	next := slices.Clone(g.upFrom)
	g.bySID = make(map[sid]Node, len(g.groups))
	for _, n := range g.order {
		i := g.group[n]
		if i == 0 || !g.groups[i-1].there {
			continue
		}
		at := g.groups[i-1]
		g.bySID[g.sids[n]] = n
		for _, member := range g.members[at.from:at.to] {
			if !g.gone[member] {
				g.up[next[member]] = n
				next[member]++
			}
		}
	}
	ends := next[:len(g.groups)] // its room is large enough: every group is a node
	begin := uint32(0)
	for i := range g.groups {
		at := &g.groups[i]
		count := uint32(0)
		if at.there {
			for _, member := range g.members[at.from:at.to] {
				if !g.gone[member] {
					count++
				}
			}
		}
		at.from, at.to = begin, begin+count
		ends[i] = begin
		begin += count
	}
	g.members = make([]Node, total)
	for _, n := range g.order {
		for _, up := range g.up[g.upFrom[n]:g.upFrom[n+1]] {
			i := g.group[up] - 1
			g.members[ends[i]] = n
			ends[i]++
		}
	}
	clear(g.gone)
}

// grant passes every role down to the groups below. Only security groups count:
// another kind is in nobody's token.
func (g *Graph) grant() {
	g.roleNode, g.hasRole = [65]Node{}, 0
	for i := range g.groups {
		g.groups[i].grants = 0
	}
	var queue []Node
	for i := range g.groups {
		at := &g.groups[i]
		if !at.there || !at.security || at.role == 0 {
			continue
		}
		role := at.role.set()
		g.roleNode[at.role] = at.node
		g.hasRole |= role
		at.grants |= role
		queue = append(queue[:0], at.node)
		for len(queue) > 0 {
			last := queue[len(queue)-1]
			queue = queue[:len(queue)-1]
			for _, member := range g.Members(last) {
				below := g.groupAt(member)
				if below == nil || !below.security || below.grants&role != 0 {
					continue
				}
				below.grants |= role
				queue = append(queue, member)
			}
		}
	}
	for i := range g.groups {
		g.groups[i].primaries = 0
	}
	for n, rid := range g.primary {
		if rid == 0 {
			continue
		}
		if of, ok := g.bySID[sid{g.sids[n].authority, rid}]; ok {
			g.groupAt(of).primaries++
		}
	}
}

func (g *Graph) groupAt(n Node) *group {
	if i := g.group[n]; i != 0 && g.groups[i-1].there {
		return &g.groups[i-1]
	}
	return nil
}

// measure finds cycles and depths: Tarjan's algorithm, which comes to a strongly
// connected component after all that is below it. Its stack is its own, since a
// directory may nest deeper than a goroutine should.
func (g *Graph) measure() {
	const unvisited = 0
	index := make([]uint32, len(g.groups)) // from 1, in the order of visits
	low := make([]uint32, len(g.groups))
	component := make([]uint32, len(g.groups)) // named by one of its groups, and one; 0: not known yet
	type visit struct {
		group uint32
		next  uint32 // in members
	}
	var visits []visit
	var stack []uint32
	count := uint32(0)
	enter := func(i uint32) {
		count++
		index[i], low[i] = count, count
		stack = append(stack, i)
		visits = append(visits, visit{i, g.groups[i].from})
	}
	for root := range g.groups {
		if !g.groups[root].there || index[root] != unvisited {
			continue
		}
		enter(uint32(root))
		for len(visits) > 0 {
			v := &visits[len(visits)-1]
			at := &g.groups[v.group]
			descended := false
			for v.next < at.to {
				below := g.groupAt(g.members[v.next])
				v.next++
				if below == nil {
					continue
				}
				b := g.group[below.node] - 1
				if index[b] == unvisited {
					enter(b)
					descended = true
					break
				}
				if component[b] == 0 {
					low[v.group] = min(low[v.group], index[b])
				}
			}
			if descended {
				continue
			}
			i := v.group
			visits = visits[:len(visits)-1]
			if len(visits) > 0 {
				above := visits[len(visits)-1].group
				low[above] = min(low[above], low[i])
			}
			if low[i] == index[i] {
				from := len(stack)
				for done := false; !done; done = stack[from] == i {
					from--
					component[stack[from]] = i + 1
				}
				g.settle(stack[from:], component)
				stack = stack[:from]
			}
		}
	}
}

// settle sets the depth of groups that are all in each other, or of a single one.
// What is below them has its depth already. A cycle counts as one level.
func (g *Graph) settle(together, component []uint32) {
	depth, cycle := uint32(0), len(together) > 1
	for _, i := range together {
		for _, member := range g.members[g.groups[i].from:g.groups[i].to] {
			below := g.groupAt(member)
			switch {
			case below == nil:
			case component[g.group[member]-1] == component[i]:
				cycle = true
			default:
				depth = max(depth, below.depth+1)
			}
		}
	}
	if cycle {
		depth = max(depth, 1)
	}
	for _, i := range together {
		g.groups[i].depth, g.groups[i].cycle = depth, cycle
	}
}

// Find returns the number of an object.
func (g *Graph) Find(guid ad.GUID) (Node, bool) {
	at, there := g.slot(guid)
	if !there {
		return 0, false
	}
	return Node(g.table[at] - 1), true
}

// HasGroup reports whether there is such a group.
func (g *Graph) HasGroup(guid ad.GUID) bool {
	n, there := g.Find(guid)
	return there && g.groupAt(n) != nil
}

// GUID returns whose number it is.
func (g *Graph) GUID(n Node) ad.GUID { return g.guids[n] }

// HasSID reports whether an object has a SID: a contact has none.
func (g *Graph) HasSID(n Node) bool { return g.sids[n] != sid{} }

// AppendSID appends the S-1-… form of an object's SID.
func (g *Graph) AppendSID(dst []byte, n Node) []byte {
	of := g.sids[n]
	return appendDecimal(append(dst, g.authorities[of.authority].text...), of.rid)
}

// GroupsOf lists the groups that an object is a member of, by SID: its primary
// group is not among them.
func (g *Graph) GroupsOf(n Node) []Node { return g.up[g.upFrom[n]:g.upFrom[n+1]] }

// Members lists the members of a group, by SID, those without one first.
func (g *Graph) Members(n Node) []Node {
	at := g.groupAt(n)
	if at == nil {
		return nil
	}
	return g.members[at.from:at.to]
}

// Primary returns the group of an account's domain with this identifier.
func (g *Graph) Primary(account ad.SID, rid ad.RID) (Node, bool) {
	prefix, _, ok := account.Split()
	if !ok {
		return 0, false
	}
	number, known := g.byAuthority[string(prefix)]
	if !known {
		return 0, false
	}
	n, ok := g.bySID[sid{number, rid}]
	return n, ok
}

// Privileges are the privileged groups that somebody is in: as a member, and by
// way of another group.
type Privileges struct{ direct, nested RoleSet }

// Privileges returns those of an object in these groups.
func (g *Graph) Privileges(groups ...[]Node) (p Privileges) {
	for _, some := range groups {
		for _, n := range some {
			at := g.groupAt(n)
			if at == nil || !at.security {
				continue
			}
			p.direct |= at.role.set()
			p.nested |= at.grants &^ at.role.set()
		}
	}
	p.direct &= privileged
	p.nested &= privileged
	return p
}

// IsEmpty reports whether there are none.
func (p Privileges) IsEmpty() bool { return p.direct|p.nested == 0 }

// Named returns the groups that privileges are, in the order of the roles.
func (g *Graph) Named(p Privileges) (direct, nested []Node) {
	p.direct.each(func(r Role) { direct = append(direct, g.roleNode[r]) })
	p.nested.each(func(r Role) { nested = append(nested, g.roleNode[r]) })
	return direct, nested
}

// Shape is what nesting makes of a group.
type Shape struct {
	Depth   uint32 // levels of groups below it; a cycle counts as one
	InCycle bool
	Empty   bool // nobody is a member, and nobody's primary group is it
}

// Shape returns that of a group.
func (g *Graph) Shape(n Node) (Shape, bool) {
	at := g.groupAt(n)
	if at == nil {
		return Shape{}, false
	}
	return Shape{at.depth, at.cycle, at.from == at.to && at.primaries == 0}, true
}

// Holders are who has a role: the effective members of its group, without groups,
// and the groups through which some of them have it.
type Holders struct {
	Role    Role
	Group   Node
	Members []Node
	Groups  []Node
}

// Holders returns those of all the roles that the domain has, in the order of the roles.
func (g *Graph) Holders() []Holders {
	list := make([]Holders, 0, bits.OnesCount64(uint64(g.hasRole)))
	place := map[Role]int{}
	g.hasRole.each(func(r Role) {
		place[r] = len(list)
		list = append(list, Holders{Role: r, Group: g.roleNode[r]})
	})
	for _, n := range g.order {
		set := RoleSet(0)
		for _, up := range g.GroupsOf(n) {
			set |= g.groupAt(up).grants
		}
		if of, ok := g.primaryOf(n); ok {
			set |= g.groupAt(of).grants
		}
		isGroup := g.groupAt(n) != nil
		set.each(func(r Role) {
			holders := &list[place[r]]
			switch {
			case isGroup && n != holders.Group:
				holders.Groups = append(holders.Groups, n)
			case !isGroup:
				holders.Members = append(holders.Members, n)
			}
		})
	}
	return list
}

func (g *Graph) primaryOf(n Node) (Node, bool) {
	if g.primary[n] == 0 {
		return 0, false
	}
	of, ok := g.bySID[sid{g.sids[n].authority, g.primary[n]}]
	return of, ok
}

// RoleOf returns the role that a group is.
func (g *Graph) RoleOf(n Node) Role {
	if at := g.groupAt(n); at != nil {
		return at.role
	}
	return 0
}

// Digests returns, for every node, a number that changes with whatever the graph
// says of it. They are for comparing within one process.
func (g *Graph) Digests() []uint64 {
	digests := make([]uint64, len(g.guids))
	for n := range g.guids {
		node := Node(n)
		h := uint64(0)
		for _, up := range g.GroupsOf(node) {
			h += g.digestOfGroup(up, 1)
		}
		if of, ok := g.primaryOf(node); ok {
			h += g.digestOfGroup(of, 2)
		}
		if at := g.groupAt(node); at != nil {
			for _, member := range g.members[at.from:at.to] {
				h += mix(uint64(member), 3)
			}
			h += mix(uint64(at.depth)<<2|flag(at.cycle)<<1|flag(at.primaries > 0), 4)
			h += mix(uint64(at.role)<<1|flag(at.security), 5)
		}
		digests[n] = h
	}
	return digests
}

func (g *Graph) digestOfGroup(n Node, as uint64) uint64 {
	at := g.groupAt(n)
	return mix(mix(uint64(n), as), uint64(at.grants)<<1|flag(at.security))
}

// Affected lists the objects whose digests differ from before. Those that the graph
// did not have then, or has no longer, are among them.
func (g *Graph) Affected(before []uint64) (guids []ad.GUID) {
	for n, now := range g.Digests() {
		if was := digestAt(before, n); was != now && g.guids[n] != (ad.GUID{}) {
			guids = append(guids, g.guids[n])
		}
	}
	return guids
}

func digestAt(digests []uint64, n int) uint64 {
	if n < len(digests) {
		return digests[n]
	}
	return 0
}

func flag(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// mix makes one number of two, any bit of which may change every bit of it.
func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a^0x9e3779b97f4a7c15, (b+1)*0xa0761d6478bd642f|1)
	h := high ^ low ^ a
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>29
}

func appendDecimal(dst []byte, rid ad.RID) []byte {
	var digits [10]byte
	at := len(digits)
	for {
		at--
		digits[at] = '0' + byte(rid%10)
		if rid /= 10; rid == 0 {
			return append(dst, digits[at:]...)
		}
	}
}

// ErrRecord is returned for records that this room has not written.
var ErrRecord = errors.New("unreadable record of memberships")
