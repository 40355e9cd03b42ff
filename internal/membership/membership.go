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
	"encoding/binary"

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
	hasRole  roleSet

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
	grants    roleSet // what being in it amounts to: its own role and those above
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
