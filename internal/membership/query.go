package membership

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"

	"adconnector/internal/ad"
)

// Find returns the node of an object.
func (g *Graph) Find(guid ad.GUID) (Node, bool) {
	index, found := g.tableIndex(guid)
	if !found {
		return 0, false
	}
	return Node(g.guidTable[index] - 1), true
}

// HasGroup reports whether the graph has a group with this GUID.
func (g *Graph) HasGroup(guid ad.GUID) bool {
	n, found := g.Find(guid)
	return found && g.aliveGroup(n) != nil
}

// GUID returns the GUID of a node.
func (g *Graph) GUID(n Node) ad.GUID { return g.guids[n] }

// HasSID reports whether an object has a SID. Contacts, for example, have none.
func (g *Graph) HasSID(n Node) bool { return g.sids[n] != internedSID{} }

// AppendSID appends the S-1-… form of an object's SID.
func (g *Graph) AppendSID(dst []byte, n Node) []byte {
	sid := g.sids[n]
	dst = append(dst, g.authorities[sid.authority].text...)
	return strconv.AppendUint(dst, uint64(sid.rid), 10)
}

// GroupsOf returns the groups that list an object as a member, sorted by SID. Its primary
// group is not among them.
func (g *Graph) GroupsOf(n Node) []Node {
	if int(n)+1 >= len(g.memberOfOffsets) { // added after Compute
		return nil
	}
	return g.memberOf[g.memberOfOffsets[n]:g.memberOfOffsets[n+1]]
}

// Members returns the members of a group sorted by SID. Members without a SID come first.
func (g *Graph) Members(n Node) []Node {
	gr := g.aliveGroup(n)
	if gr == nil {
		return nil
	}
	return g.members[gr.memberStart:gr.memberEnd]
}

// PrimaryGroup returns the group with this RID in the domain of an account.
func (g *Graph) PrimaryGroup(account ad.SID, rid ad.RID) (Node, bool) {
	prefix, _, ok := account.Split()
	if !ok {
		return 0, false
	}
	number, known := g.byAuthority[string(prefix)]
	if !known {
		return 0, false
	}
	n, ok := g.bySID[internedSID{number, rid}]
	return n, ok
}

// IsDistributionGroup reports whether an object is a group that no access token contains. It has no
// privileges, and its members have none through it.
func (g *Graph) IsDistributionGroup(n Node) bool {
	gr := g.aliveGroup(n)
	return gr != nil && !gr.security
}

// HasRole reports whether an object is the group of a role.
func (g *Graph) HasRole(n Node) bool {
	gr := g.aliveGroup(n)
	return gr != nil && gr.role != 0
}

// Privileges are the privileged roles that an object has through its groups.
type Privileges struct{ direct, nested roleSet }

// Privileges returns the privileges of an object that is a member of these groups.
func (g *Graph) Privileges(groupLists ...[]Node) (p Privileges) {
	for _, groups := range groupLists {
		for _, n := range groups {
			gr := g.aliveGroup(n)
			if gr == nil || !gr.security {
				continue
			}
			p.direct |= gr.role.set()
			p.nested |= gr.effectiveRoles &^ gr.role.set()
		}
	}
	p.direct &= privileged
	p.nested &= privileged
	return p
}

// IsEmpty reports whether there are no privileges.
func (p Privileges) IsEmpty() bool { return p.direct|p.nested == 0 }

// DirectRoles and NestedRoles return the roles of the groups that list the object, and of those that
// it is in through other groups, sorted by the SIDs of their groups.
func (g *Graph) DirectRoles(p Privileges) []Role { return g.sortedRoles(p.direct) }

// NestedRoles is described with DirectRoles.
func (g *Graph) NestedRoles(p Privileges) []Role { return g.sortedRoles(p.nested) }

func (g *Graph) sortedRoles(set roleSet) []Role {
	roles := make([]Role, 0, bits.OnesCount64(uint64(set)))
	set.each(func(r Role) { roles = append(roles, r) })
	slices.SortFunc(roles, func(a, b Role) int { return g.compareSIDs(g.roleGroups[a], g.roleGroups[b]) })
	return roles
}

// RoleGroup returns the group of a role that an object of the graph has.
func (g *Graph) RoleGroup(r Role) Node { return g.roleGroups[r] }

// Path appends the groups between an object that is a member of these groups and the group of one of
// its nested roles: each is a member of the next one, and the object is a member of the first one. It
// is the shortest path. Of several, it is the one whose first group has the lowest SID, and so on.
// Beyond limit groups, it returns only how many it omits.
func (g *Graph) Path(dst []Node, r Role, limit int, groupLists ...[]Node) (path []Node, omitted int) {
	var first *group
	for _, groups := range groupLists {
		for _, n := range groups {
			gr := g.aliveGroup(n)
			if gr == nil || gr.effectiveRoles&r.set() == 0 || *g.distance(gr, r) == 0 || *g.distance(gr, r) == unknownDistance {
				continue
			}
			if first == nil || cmp.Or(cmp.Compare(*g.distance(gr, r), *g.distance(first, r)), g.compareSIDs(n, first.node)) < 0 {
				first = gr
			}
		}
	}
	if first == nil {
		return dst, 0
	}
	length := int(*g.distance(first, r))
	shown := min(length, limit)
	for gr := first; shown > 0; shown-- {
		dst = append(dst, gr.node)
		gr = g.nextGroup(gr, r)
	}
	return dst, max(0, length-limit)
}

// nextGroup returns the group after gr on the shortest path to the group of a role, from which it must
// have a distance.
func (g *Graph) nextGroup(gr *group, r Role) *group {
	for _, n := range g.GroupsOf(gr.node) {
		above := g.aliveGroup(n)
		if above.effectiveRoles&r.set() != 0 && *g.distance(above, r)+1 == *g.distance(gr, r) {
			return above
		}
	}
	return nil // cannot happen: the distance comes from such a group
}

// HasMembers reports whether any group has members: listed ones that were readable, and accounts of
// which it is the primary group.
func (g *Graph) HasMembers() (listed, primary bool) {
	for i := range g.groups {
		if gr := &g.groups[i]; gr.alive {
			listed = listed || !gr.unreadable && gr.memberStart < gr.memberEnd
			primary = primary || gr.primaryCount > 0
		}
	}
	return listed, primary
}

// Nesting describes the content of a group.
type Nesting struct {
	// Depth is the number of groups in the longest chain below the group. The groups of a cycle count
	// as one group, so a cycle without groups below it has depth 0.
	Depth   uint32
	InCycle bool // the group is a direct or nested member of itself
	Empty   bool // no members, and not the primary group of any account
}

// Nesting returns the nesting of a group. It returns false if the node is no group.
func (g *Graph) Nesting(n Node) (Nesting, bool) {
	gr := g.aliveGroup(n)
	if gr == nil {
		return Nesting{}, false
	}
	return Nesting{gr.depth, gr.inCycle, gr.memberStart == gr.memberEnd && gr.primaryCount == 0}, true
}

// RoleGroups returns the groups of roles and the security groups in them.
func (g *Graph) RoleGroups() (nodes []Node) {
	for i := range g.groups {
		if g.groups[i].alive && g.groups[i].effectiveRoles != 0 {
			nodes = append(nodes, g.groups[i].node)
		}
	}
	return nodes
}

// RoleMembers are the effective members of a role's group: Members are those that are no
// groups, Groups are the nested security groups.
type RoleMembers struct {
	Role    Role
	Group   Node
	Members []Node
	Groups  []Node
	// Uncertain is whether they depend on a group whose members are unreadable.
	Uncertain bool
}

// RoleMembers returns the effective members of all roles that exist in the domain, in the
// order of the roles.
func (g *Graph) RoleMembers() []RoleMembers {
	list := make([]RoleMembers, 0, bits.OnesCount64(uint64(g.presentRoles)))
	index, uncertain := map[Role]int{}, g.uncertainRoles()
	g.presentRoles.each(func(r Role) {
		index[r] = len(list)
		list = append(list, RoleMembers{Role: r, Group: g.roleGroups[r], Uncertain: uncertain&r.set() != 0})
	})
	for _, n := range g.sorted {
		gr := g.aliveGroup(n)
		g.effectiveRoles(n).each(func(r Role) {
			role := &list[index[r]]
			switch {
			case gr == nil:
				role.Members = append(role.Members, n)
			case gr.security && n != role.Group:
				role.Groups = append(role.Groups, n)
			}
		})
	}
	return list
}

// PrivilegedUsers returns how many users have a privileged role, and how many of them are members of
// Protected Users. Disabled users count.
func (g *Graph) PrivilegedUsers() (privilegedCount, protectedCount int) {
	for n, kind := range g.kinds {
		if kind != KindUser {
			continue
		}
		roles := g.effectiveRoles(Node(n))
		if roles&privileged == 0 {
			continue
		}
		privilegedCount++
		if roles&protectedUsers != 0 {
			protectedCount++
		}
	}
	return privilegedCount, protectedCount
}

// effectiveRoles returns the roles of an object through the groups that list it and its primary group.
func (g *Graph) effectiveRoles(n Node) (set roleSet) {
	for _, parent := range g.GroupsOf(n) {
		set |= g.aliveGroup(parent).effectiveRoles
	}
	if primary, ok := g.primaryGroupOf(n); ok {
		set |= g.aliveGroup(primary).effectiveRoles
	}
	return set
}

func (g *Graph) primaryGroupOf(n Node) (Node, bool) {
	if g.primaryRID[n] == 0 {
		return 0, false
	}
	primary, ok := g.bySID[internedSID{g.sids[n].authority, g.primaryRID[n]}]
	return primary, ok
}
