// Package membership is the graph of group memberships of one domain: its groups, their
// members, and the primary groups of its accounts, which no group lists as members.
//
// The results depend only on the content of the graph, not on the order of the calls that
// set it. Memory is about 45 bytes and the name for an object, and 8 bytes for a membership. The
// package does no I/O and reads no clock. All identifiers must be from one domain's directory. It
// does not evaluate access.
package membership

import (
	"encoding/binary"
	"slices"

	"adconnector/internal/ad"
)

// Node is the number of an object in the graph: an account, a group, or another member of a
// group. It does not change as long as the object is in the graph.
type Node uint32

// Graph is a graph of group memberships.
//
// SetAccount, SetGroup, AddMember, AddMembers and Remove change it; Compute makes the changes visible to
// the query methods. Queries may run concurrently, but not with changes or Compute. An account that
// is set after Compute has the groups that list it, and its primary group. What groups show of it
// follows with the next Compute.
//
// Nodes are found by a hash table of their own, with open addressing. With 1,000,000 objects,
// it takes 8 MiB and 110 ns a lookup; map[ad.GUID]Node takes 43 MiB and 180 ns, because it
// stores every GUID a second time.
type Graph struct {
	// By node.
	guids      []ad.GUID // zero: the number is free
	sids       []internedSID
	primaryRID []ad.RID // RID of an account's primary group; 0: not an account
	groupIndex []uint32 // index in groups plus one; 0: not a group
	removed    []bool   // Compute removes it from all groups
	kinds      []Kind   // of accounts
	// nameOffsets are the offsets of the names in names; 0: none. A name follows its length.
	nameOffsets []uint32
	names       []byte

	guidTable []uint32 // hash table: nodes by GUID, plus one; 0: empty
	freeNodes []Node   // numbers that new objects reuse

	authorities []authority
	byAuthority map[string]uint32 // index in authorities

	authorityBytes int // memory of authorities and byAuthority

	groups  []group
	members []Node // of all groups, see group.memberStart

	// Results of Compute.
	sorted          []Node   // all nodes, by SID
	ranks           []uint32 // by authority: its position when sorted
	domainAuthority uint32   // of the domain's accounts; 0: unknown
	memberOfOffsets []uint32 // compressed sparse rows: the groups of n are
	memberOf        []Node   // memberOf[memberOfOffsets[n]:memberOfOffsets[n+1]]
	bySID           map[internedSID]Node
	roleGroups      [64 + 1]Node // by role
	presentRoles    roleSet
	distances       []uint32 // see group.distanceStart

	protectionUncertain bool // a group that protects its members may have others
	protectedUsersKnown bool // the members of Protected Users are known

	restored int               // nodes below this number are in the stored graph
	changed  map[Node]struct{} // restored nodes whose records have changed
	seen     []bool            // by node, during a full read; nil: no full read
}

// internedSID is a SID with an interned authority. The zero value is no SID.
type internedSID struct {
	authority uint32 // index in Graph.authorities
	rid       ad.RID
}

type authority struct {
	bytes string // SID without the RID
	text  string // "S-1-…-", with a trailing hyphen
}

type group struct {
	node                   Node
	memberStart, memberEnd uint32 // range in Graph.members
	alive                  bool   // false: the group was removed
	security               bool
	role                   Role
	unreadable             bool // the members are not from the group itself
	knownEmpty             bool // there are no members, readable or not

	storedHash     uint64  // recordHash of the stored record; 0: not stored
	effectiveRoles roleSet // its own role and those of the security groups that it is in
	depth          uint32
	inCycle        bool
	primaryCount   uint32 // accounts that have it as their primary group
	// distanceStart is the index in Graph.distances of its distances from the groups of its effective
	// roles, in the order of the roles.
	distanceStart uint32

	containsUnreadable, inUnreadable bool // see propagateUnreadable
	protects, protectionUnreadable   bool // see propagateProtection
}

// New returns an empty graph.
func New() *Graph {
	return &Graph{
		byAuthority: map[string]uint32{}, authorities: make([]authority, 1), names: make([]byte, 1),
		guidTable: make([]uint32, 1<<10), changed: map[Node]struct{}{},
	}
}

// Len returns the number of groups and of memberships.
func (g *Graph) Len() (groups, memberships int) {
	for i := range g.groups {
		if g.groups[i].alive {
			groups++
		}
	}
	return groups, len(g.memberOf)
}

// The memory of the parts of a graph in bytes, after Compute and Fingerprints.
const (
	nodeSize      = 80
	memberSize    = 12
	groupSize     = 136
	distanceSize  = 4   // for each role
	authoritySize = 128 // and its texts
)

// Size returns the memory of the graph in bytes, as an estimate. It includes what Compute will
// add. It is cheap enough to be called after each change.
func (g *Graph) Size() int {
	return nodeSize*len(g.guids) + memberSize*len(g.members) + (groupSize+distanceSize*len(roles))*len(g.groups) + g.authorityBytes + len(g.names)*5/4
}

// nodeFor returns the node of an object, and adds the object if it is new.
func (g *Graph) nodeFor(guid ad.GUID) Node {
	index, found := g.tableIndex(guid)
	if found {
		return Node(g.guidTable[index] - 1)
	}
	var n Node
	if last := len(g.freeNodes) - 1; last >= 0 {
		n, g.freeNodes = g.freeNodes[last], g.freeNodes[:last]
		g.changed[n] = struct{}{}
	} else {
		n = Node(len(g.guids))
		g.addNode()
	}
	g.guids[n] = guid
	g.guidTable[index] = uint32(n) + 1
	if used := len(g.guids) - len(g.freeNodes); used*4 > len(g.guidTable)*3 {
		g.rehash(2 * len(g.guidTable))
	}
	return n
}

// addNode adds an unused node.
func (g *Graph) addNode() {
	g.guids = append(g.guids, ad.GUID{})
	g.sids = append(g.sids, internedSID{})
	g.primaryRID = append(g.primaryRID, 0)
	g.groupIndex = append(g.groupIndex, 0)
	g.removed = append(g.removed, false)
	g.kinds = append(g.kinds, KindUnknown)
	g.nameOffsets = append(g.nameOffsets, 0)
	if g.seen != nil {
		g.seen = append(g.seen, false)
	}
}

// firstIndex returns the first index in guidTable at which a GUID can be. The hash uses all bits,
// because an attacker can choose GUIDs.
func (g *Graph) firstIndex(guid ad.GUID) uint32 {
	h := mix(binary.LittleEndian.Uint64(guid[:8]), binary.LittleEndian.Uint64(guid[8:]))
	return uint32(h) & uint32(len(g.guidTable)-1)
}

// tableIndex returns the index of a GUID in guidTable, or of the slot to insert it.
func (g *Graph) tableIndex(guid ad.GUID) (index uint32, found bool) {
	mask := uint32(len(g.guidTable) - 1)
	for index = g.firstIndex(guid); g.guidTable[index] != 0; index = (index + 1) & mask {
		if g.guids[g.guidTable[index]-1] == guid {
			return index, true
		}
	}
	return index, false
}

func (g *Graph) rehash(size int) {
	g.guidTable = make([]uint32, size)
	for n, guid := range g.guids {
		if guid == (ad.GUID{}) {
			continue
		}
		index, _ := g.tableIndex(guid)
		g.guidTable[index] = uint32(n) + 1
	}
}

// setSID sets the SID of an object, unless it is nil or has no RID.
func (g *Graph) setSID(n Node, sid ad.SID) {
	prefix, rid, ok := sid.Split()
	if !ok {
		return
	}
	number, known := g.byAuthority[string(prefix)]
	if !known {
		number = uint32(len(g.authorities))
		text := ad.JoinSID(prefix, 0).String()
		g.authorities = append(g.authorities, authority{string(prefix), text[:len(text)-1]})
		g.byAuthority[string(prefix)] = number
		g.authorityBytes += authoritySize + 2*len(prefix) + len(text)
	}
	if interned := (internedSID{number, rid}); g.sids[n] != interned {
		g.sids[n] = interned
		g.markChanged(n)
	}
}

func (g *Graph) markChanged(n Node) {
	if int(n) < g.restored {
		g.changed[n] = struct{}{}
	}
}

func (g *Graph) markSeen(n Node) {
	if g.seen != nil {
		g.seen[n] = true
	}
}

// SetAccount adds or updates an account. primaryGroup is the RID of its primary group.
func (g *Graph) SetAccount(guid ad.GUID, sid ad.SID, primaryGroup ad.RID) Node {
	n := g.nodeFor(guid)
	g.setSID(n, sid)
	if g.primaryRID[n] != primaryGroup {
		g.primaryRID[n] = primaryGroup
		g.markChanged(n)
	}
	if g.domainAuthority == 0 && primaryGroup != 0 {
		g.domainAuthority = g.sids[n].authority
	}
	g.markSeen(n)
	return n
}

// SetGroup adds a group, or removes all members of an existing one. Its members must be added
// with AddMember or AddMembers before the next call of SetGroup.
func (g *Graph) SetGroup(guid ad.GUID, sid ad.SID, security bool, role Role) Node {
	n := g.nodeFor(guid)
	g.setSID(n, sid)
	if g.groupIndex[n] == 0 {
		g.groups = append(g.groups, group{node: n})
		g.groupIndex[n] = uint32(len(g.groups))
	}
	gr := &g.groups[g.groupIndex[n]-1]
	gr.alive, gr.security, gr.role, gr.unreadable, gr.knownEmpty = true, security, role, false, false
	gr.memberStart = uint32(len(g.members))
	gr.memberEnd = gr.memberStart
	g.markSeen(n)
	return n
}

// AddMember adds a member to the group of the last SetGroup. sid is nil for a member without
// one.
func (g *Graph) AddMember(groupNode Node, guid ad.GUID, sid ad.SID) Node {
	n := g.nodeFor(guid)
	g.setSID(n, sid)
	g.members = append(g.members, n)
	gr := &g.groups[g.groupIndex[groupNode]-1]
	gr.memberEnd = uint32(len(g.members))
	return n
}

// membersAtOnce is the number of members that AddMembers looks up at once.
const membersAtOnce = 64

// AddMembers adds the members of the group of the last SetGroup that have these extended DNs, with
// their names, as AddMember and SetName do. It returns how many values have no GUID: those are not
// added. It looks up many members at once: the time of a lookup is mostly that of cache misses, and the
// processor overlaps those of independent lookups.
func (g *Graph) AddMembers(groupNode Node, values [][]byte) (unidentified int) {
	var buffer [membersAtOnce]ad.ExtendedDN
	for chunk := range slices.Chunk(values, membersAtOnce) {
		members := parseMembers(buffer[:0], chunk)
		unidentified += len(chunk) - len(members)
		start := len(g.members)
		g.appendNodes(members)
		for i, n := range g.members[start:] {
			sid, _ := members[i].SID()
			g.setSID(n, sid)
			g.SetName(n, ad.RelativeName(members[i].DN))
		}
	}
	g.groups[g.groupIndex[groupNode]-1].memberEnd = uint32(len(g.members))
	return unidentified
}

// parseMembers parses the values that have a GUID into the memory of buffer.
func parseMembers(buffer []ad.ExtendedDN, values [][]byte) []ad.ExtendedDN {
	for _, value := range values {
		n := len(buffer)
		if buffer = buffer[:n+1]; !buffer[n].Parse(value) {
			buffer = buffer[:n]
		}
	}
	return buffer
}

// appendNodes appends the nodes of at most membersAtOnce members to members.
func (g *Graph) appendNodes(members []ad.ExtendedDN) {
	var candidates [membersAtOnce]uint32 // as in guidTable: most members are at their first index
	for i := range members {
		candidates[i] = g.guidTable[g.firstIndex(members[i].GUID)]
	}
	for i := range members {
		if c := candidates[i]; c != 0 && g.guids[c-1] == members[i].GUID {
			g.members = append(g.members, Node(c-1))
		} else {
			g.members = append(g.members, g.nodeFor(members[i].GUID))
		}
	}
}

// Remove removes an object, also from the groups that it is a member of. No call may add it
// again before Compute.
func (g *Graph) Remove(guid ad.GUID) {
	if index, found := g.tableIndex(guid); found {
		n := Node(g.guidTable[index] - 1)
		g.clearPrincipal(n)
		g.removed[n] = true
	}
}

// clearPrincipal removes the account or group of a node. The node can still be a member.
func (g *Graph) clearPrincipal(n Node) {
	if g.primaryRID[n] != 0 {
		g.primaryRID[n] = 0
		g.markChanged(n)
	}
	g.SetKind(n, KindUnknown)
	if i := g.groupIndex[n]; i != 0 {
		g.groups[i-1].alive = false
	}
}

// BeginFullRead starts to record which accounts and groups are set, for Unseen.
func (g *Graph) BeginFullRead() { g.seen = make([]bool, len(g.guids)) }

// Unseen returns the accounts and groups that were not set since BeginFullRead.
func (g *Graph) Unseen() (guids []ad.GUID) {
	for n, seen := range g.seen {
		if !seen && g.isPrincipal(Node(n)) {
			guids = append(guids, g.guids[n])
		}
	}
	return guids
}

// UnseenGroups returns the groups of Unseen.
func (g *Graph) UnseenGroups() (guids []ad.GUID) {
	for i := range g.groups {
		if gr := &g.groups[i]; gr.alive && !g.isSeen(gr.node) {
			guids = append(guids, g.guids[gr.node])
		}
	}
	return guids
}

// isSeen reports whether an object is as the current full read found it, or no full read is active.
func (g *Graph) isSeen(n Node) bool { return g.seen == nil || g.seen[n] }

// IsPending reports whether a full read may still set the account with a SID: what the graph has
// about it may be out of date or incomplete. It reads no account of another domain.
func (g *Graph) IsPending(sid ad.SID) bool {
	if g.seen == nil {
		return false
	}
	authority, _, ok := sid.Split()
	if number, known := g.byAuthority[string(authority)]; !ok || !known || number != g.domainAuthority {
		return false
	}
	n, found := g.FindSID(sid)
	return !found || !g.seen[n]
}

func (g *Graph) isPrincipal(n Node) bool {
	return g.primaryRID[n] != 0 || g.groupIndex[n] != 0 && g.groups[g.groupIndex[n]-1].alive
}

// RemoveUnseen removes the accounts and groups of Unseen, and ends the full read. They stay members
// of groups that list them.
func (g *Graph) RemoveUnseen() {
	for n, seen := range g.seen {
		if !seen {
			g.clearPrincipal(Node(n))
		}
	}
	g.seen = nil
}

// RemoveUnseenGroups removes the groups of UnseenGroups.
func (g *Graph) RemoveUnseenGroups() {
	for i := range g.groups {
		if node := g.groups[i].node; g.groups[i].alive && !g.isSeen(node) {
			g.clearPrincipal(node)
		}
	}
}
