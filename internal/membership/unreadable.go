package membership

import "adconnector/internal/ad"

// A group whose members are unreadable has those that the caller has from elsewhere: from the
// members themselves, or from an earlier reading. What depends on its members may be incomplete or
// out of date.

// SetMembersUnreadable marks the members of the group of the last SetGroup as unreadable.
func (g *Graph) SetMembersUnreadable(n Node) { g.aliveGroup(n).unreadable = true }

// MembersUnreadable reports whether an object is a group whose members are unreadable.
func (g *Graph) MembersUnreadable(n Node) bool {
	gr := g.aliveGroup(n)
	return gr != nil && gr.unreadable
}

// SetKnownEmpty records that the group of the last SetGroup has no members, whatever the caller may
// read.
func (g *Graph) SetKnownEmpty(n Node) { g.aliveGroup(n).knownEmpty = true }

// KnownEmpty reports whether an object is a group of which SetKnownEmpty was recorded.
func (g *Graph) KnownEmpty(n Node) bool {
	gr := g.aliveGroup(n)
	return gr != nil && gr.knownEmpty
}

// InRoles returns the direct and nested members of the groups of roles. It does not require Compute.
func (g *Graph) InRoles() (nodes []Node) {
	found := make([]bool, len(g.guids))
	var queue []Node
	for i := range g.groups {
		if gr := &g.groups[i]; gr.alive && gr.role != 0 {
			queue = append(queue, gr.node)
		}
	}
	for len(queue) > 0 {
		last := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, member := range g.Members(last) {
			if !found[member] {
				found[member] = true
				nodes, queue = append(nodes, member), append(queue, member)
			}
		}
	}
	return nodes
}

// Uncertain are the facts about an object that depend on groups whose members are unreadable.
type Uncertain struct {
	Members bool // it is such a group
	Nesting bool // it is such a group, or contains one, also nested
	Groups  bool // it is a member of such a group
	// Privileges: it is a member of such a security group, also through security groups or by its primary
	// group. A distribution group has no privileges.
	Privileges bool
}

// Uncertain returns the uncertain facts about an object.
func (g *Graph) Uncertain(n Node) (u Uncertain) {
	if gr := g.aliveGroup(n); gr != nil {
		u.Members, u.Nesting = gr.unreadable, gr.containsUnreadable
	}
	for _, parent := range g.GroupsOf(n) {
		gr := g.aliveGroup(parent)
		u.Groups = u.Groups || gr.unreadable
		u.Privileges = u.Privileges || gr.inUnreadable
	}
	if primary, ok := g.primaryGroupOf(n); ok {
		u.Privileges = u.Privileges || g.aliveGroup(primary).inUnreadable
	}
	u.Privileges = u.Privileges && !g.IsDistributionGroup(n)
	return u
}

// propagateUnreadable marks the groups that contain groups with unreadable members, and the security
// groups in security groups with unreadable members: a distribution group passes on no privileges.
func (g *Graph) propagateUnreadable() {
	var below, above []Node
	for i := range g.groups {
		gr := &g.groups[i]
		gr.containsUnreadable = gr.alive && gr.unreadable
		gr.inUnreadable = gr.containsUnreadable && gr.security
		if gr.containsUnreadable {
			above = append(above, gr.node)
		}
		if gr.inUnreadable {
			below = append(below, gr.node)
		}
	}
	all, security := func(*group) bool { return true }, func(gr *group) bool { return gr.security }
	g.markReachable(below, g.Members, security, func(gr *group) *bool { return &gr.inUnreadable })
	g.markReachable(above, g.GroupsOf, all, func(gr *group) *bool { return &gr.containsUnreadable })
}

// markReachable sets a mark of the groups that are reached from the groups in the queue, through groups
// that follow selects.
func (g *Graph) markReachable(queue []Node, next func(Node) []Node, follow func(*group) bool, mark func(*group) *bool) {
	for len(queue) > 0 {
		last := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, n := range next(last) {
			if gr := g.aliveGroup(n); gr != nil && follow(gr) && !*mark(gr) {
				*mark(gr) = true
				queue = append(queue, n)
			}
		}
	}
}

// uncertainRoles returns the roles whose members depend on a group whose members are
// unreadable.
func (g *Graph) uncertainRoles() (set roleSet) {
	for i := range g.groups {
		if gr := &g.groups[i]; gr.alive && gr.unreadable {
			set |= gr.effectiveRoles
		}
	}
	return set
}

// PrivilegedUsersUncertain reports whether PrivilegedUsers depends on a group whose members are
// unreadable.
func (g *Graph) PrivilegedUsersUncertain() bool {
	return g.uncertainRoles()&(privileged|protectedUsers) != 0
}

// RoleGroupGUIDs returns the GUIDs of the groups of roles.
func (g *Graph) RoleGroupGUIDs() (guids []ad.GUID) {
	g.presentRoles.each(func(r Role) { guids = append(guids, g.guids[g.roleGroups[r]]) })
	return guids
}

// PrimaryRID returns the RID of an account's primary group, or 0.
func (g *Graph) PrimaryRID(guid ad.GUID) ad.RID {
	n, found := g.Find(guid)
	if !found {
		return 0
	}
	return g.primaryRID[n]
}

// Keep keeps an account or a group as it is, although the caller cannot read it any more. The members
// of a group are unreadable.
func (g *Graph) Keep(guid ad.GUID) {
	n, found := g.Find(guid)
	if !found {
		return
	}
	g.markSeen(n)
	if gr := g.aliveGroup(n); gr != nil {
		gr.unreadable, gr.knownEmpty = true, false
	}
}

// IsGroup reports whether an object is a group.
func (g *Graph) IsGroup(n Node) bool { return g.aliveGroup(n) != nil }
