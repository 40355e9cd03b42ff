package membership

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"adconnector/internal/ad"
)

// Compute prepares the graph for queries. It must be called after changes.
func (g *Graph) Compute() {
	g.sortBySID()
	g.buildAdjacency()
	g.propagateRoles()
	g.computeDistances()
	g.computeNesting()
	g.propagateUnreadable()
	g.propagateProtection()
}

// sortBySID sorts all nodes by SID. This is the order of all returned lists.
func (g *Graph) sortBySID() {
	g.ranks = make([]uint32, len(g.authorities))
	sortedAuthorities := make([]uint32, 0, len(g.authorities))
	for i := range g.authorities {
		sortedAuthorities = append(sortedAuthorities, uint32(i))
	}
	slices.SortFunc(sortedAuthorities, func(a, b uint32) int { return cmp.Compare(g.authorities[a].bytes, g.authorities[b].bytes) })
	for rank, i := range sortedAuthorities {
		g.ranks[i] = uint32(rank)
	}
	g.listNodes()
	order := func(a, b Node) int {
		if c := g.compareSIDs(a, b); c != 0 {
			return c
		}
		return cmp.Compare(string(g.guids[a][:]), string(g.guids[b][:]))
	}
	if !slices.IsSortedFunc(g.sorted, order) {
		slices.SortFunc(g.sorted, order)
	}
	g.domainAuthority = 0
	for _, n := range g.sorted { // accounts are read from one domain only
		if g.primaryRID[n] != 0 && g.HasSID(n) {
			g.domainAuthority = g.sids[n].authority
			break
		}
	}
}

// listNodes lists all nodes: first those that are listed already, in their order, which is that of the
// SIDs unless something has changed.
func (g *Graph) listNodes() {
	nodes := make([]Node, 0, len(g.guids))
	listed := make([]bool, len(g.guids))
	for _, n := range g.sorted {
		if g.guids[n] != (ad.GUID{}) {
			nodes = append(nodes, n)
			listed[n] = true
		}
	}
	for n := range g.guids {
		if g.guids[n] != (ad.GUID{}) && !listed[n] {
			nodes = append(nodes, Node(n))
		}
	}
	g.sorted = nodes
}

// compareSIDs orders objects by their SIDs, as ad.SID.Compare does.
func (g *Graph) compareSIDs(a, b Node) int { return g.compareInterned(g.sids[a], g.sids[b]) }

func (g *Graph) compareInterned(x, y internedSID) int {
	return cmp.Or(cmp.Compare(g.rank(x.authority), g.rank(y.authority)), cmp.Compare(x.rid, y.rid))
}

// rank returns the position of an authority. One that was added after Compute is the last.
func (g *Graph) rank(authority uint32) uint32 {
	if int(authority) >= len(g.ranks) {
		return math.MaxUint32
	}
	return g.ranks[authority]
}

// buildAdjacency builds memberOf from members, and then members from memberOf. Both are
// sorted by SID then, and the memory of replaced member lists is released.
func (g *Graph) buildAdjacency() {
	g.dropRemovedMembers()
	g.memberOfOffsets = make([]uint32, len(g.guids)+1)
	total := uint32(0)
	for _, gr := range g.groups {
		for _, member := range g.members[gr.memberStart:gr.memberEnd] {
			g.memberOfOffsets[member+1]++
			total++
		}
	}
	for n := 1; n < len(g.memberOfOffsets); n++ {
		g.memberOfOffsets[n] += g.memberOfOffsets[n-1]
	}
	g.memberOf = reuse(g.memberOf, int(total))
	next := slices.Clone(g.memberOfOffsets) // by node: index in memberOf to fill next
	g.bySID = make(map[internedSID]Node, len(g.groups))
	for _, n := range g.sorted {
		gr := g.aliveGroup(n)
		if gr == nil {
			continue
		}
		g.bySID[g.sids[n]] = n
		for _, member := range g.members[gr.memberStart:gr.memberEnd] {
			g.memberOf[next[member]] = n
			next[member]++
		}
	}
	ends := next[:len(g.groups)] // reuses the memory: there are at least as many nodes as groups
	start := uint32(0)
	for i := range g.groups {
		gr := &g.groups[i]
		count := gr.memberEnd - gr.memberStart
		gr.memberStart, gr.memberEnd = start, start+count
		ends[i] = start
		start += count
	}
	g.members = reuse(g.members, int(total)) // memberOf has all of them
	for _, n := range g.sorted {
		for _, parent := range g.GroupsOf(n) {
			i := g.groupIndex[parent] - 1
			g.members[ends[i]] = n
			ends[i]++
		}
	}
}

// reuse returns a list of a length, in the memory of a list that is not used any more if that fits.
func reuse(list []Node, length int) []Node {
	if length <= cap(list) && cap(list)-length <= cap(list)/4 {
		return list[:length]
	}
	return make([]Node, length)
}

// dropRemovedMembers removes the objects of Remove from all groups, and the members of removed
// groups.
func (g *Graph) dropRemovedMembers() {
	for i := range g.groups {
		gr := &g.groups[i]
		if !gr.alive {
			gr.memberEnd = gr.memberStart
			continue
		}
		members := g.members[gr.memberStart:gr.memberEnd]
		kept := slices.DeleteFunc(members, func(n Node) bool { return g.removed[n] })
		gr.memberEnd = gr.memberStart + uint32(len(kept))
	}
	clear(g.removed)
}

// propagateRoles adds the role of every group to the effective roles of the groups in it.
// Only security groups count: other groups are not part of an access token.
func (g *Graph) propagateRoles() {
	g.roleGroups, g.presentRoles = [65]Node{}, 0
	for i := range g.groups {
		g.groups[i].effectiveRoles, g.groups[i].primaryCount = 0, 0
	}
	for i := range g.groups {
		gr := &g.groups[i]
		if gr.alive && gr.security && gr.role != 0 {
			g.roleGroups[gr.role] = gr.node
			g.presentRoles |= gr.role.set()
			g.propagateRole(gr)
		}
	}
	for n, rid := range g.primaryRID {
		if rid == 0 {
			continue
		}
		if primary, ok := g.bySID[internedSID{g.sids[n].authority, rid}]; ok {
			g.aliveGroup(primary).primaryCount++
		}
	}
}

// propagateRole adds the role of a group to its effective roles and to those of the security
// groups in it.
func (g *Graph) propagateRole(gr *group) {
	role := gr.role.set()
	gr.effectiveRoles |= role
	queue := []Node{gr.node}
	for len(queue) > 0 {
		last := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, member := range g.Members(last) {
			nested := g.aliveGroup(member)
			if nested == nil || !nested.security || nested.effectiveRoles&role != 0 {
				continue
			}
			nested.effectiveRoles |= role
			queue = append(queue, member)
		}
	}
}

// unknownDistance is the distance of a group from another group than the one of the role: two groups
// can have the same role for a time, for example after one was renamed.
const unknownDistance = math.MaxUint32

// computeDistances computes how many memberships are between each group and the groups of its
// effective roles, along the shortest path through security groups.
func (g *Graph) computeDistances() {
	total := 0
	for i := range g.groups {
		g.groups[i].distanceStart = uint32(total)
		total += bits.OnesCount64(uint64(g.groups[i].effectiveRoles))
	}
	g.distances = slices.Repeat([]uint32{unknownDistance}, total)
	var queue []*group
	g.presentRoles.each(func(r Role) {
		start := g.aliveGroup(g.roleGroups[r])
		*g.distance(start, r) = 0
		queue = append(queue[:0], start)
		for len(queue) > 0 {
			gr := queue[0]
			queue = queue[1:]
			for _, member := range g.Members(gr.node) {
				nested := g.aliveGroup(member)
				if nested == nil || !nested.security || *g.distance(nested, r) != unknownDistance {
					continue
				}
				*g.distance(nested, r) = *g.distance(gr, r) + 1
				queue = append(queue, nested)
			}
		}
	})
}

// distance returns the distance of a group from the group of one of its effective roles.
func (g *Graph) distance(gr *group, r Role) *uint32 {
	before := gr.effectiveRoles & (r.set() - 1)
	return &g.distances[int(gr.distanceStart)+bits.OnesCount64(uint64(before))]
}

// aliveGroup returns the group of a node, or nil.
func (g *Graph) aliveGroup(n Node) *group {
	if i := g.groupIndex[n]; i != 0 && g.groups[i-1].alive {
		return &g.groups[i-1]
	}
	return nil
}

// computeNesting computes the depth of all groups and detects cycles.
func (g *Graph) computeNesting() {
	s := componentSearch{
		Graph: g,
		index: make([]uint32, len(g.groups)), low: make([]uint32, len(g.groups)), component: make([]uint32, len(g.groups)),
	}
	for root := range g.groups {
		if !g.groups[root].alive || s.index[root] != 0 {
			continue
		}
		s.enter(uint32(root))
		for len(s.visits) > 0 {
			if !s.descend() {
				s.leave()
			}
		}
	}
}

// componentSearch is Tarjan's algorithm for strongly connected components. It completes a
// component after all components below it. Groups are identified by their index in
// Graph.groups.
type componentSearch struct {
	*Graph
	index     []uint32 // by group: order of the visit, from 1; 0: not visited
	low       []uint32 // by group
	component []uint32 // by group: one group of its component, plus one; 0: not complete
	visits    []visit  // call stack; not recursive, because directories can nest very deep
	stack     []uint32 // visited groups without a complete component
	count     uint32
}

// visit is the visit of one group.
type visit struct {
	group uint32
	next  uint32 // next member, index in Graph.members
}

func (s *componentSearch) enter(i uint32) {
	s.count++
	s.index[i], s.low[i] = s.count, s.count
	s.stack = append(s.stack, i)
	s.visits = append(s.visits, visit{i, s.groups[i].memberStart})
}

// descend enters the next unvisited group in the current one. It returns false if there is none.
func (s *componentSearch) descend() bool {
	v := &s.visits[len(s.visits)-1]
	for v.next < s.groups[v.group].memberEnd {
		nested := s.aliveGroup(s.members[v.next])
		v.next++
		if nested == nil {
			continue
		}
		i := s.groupIndex[nested.node] - 1
		if s.index[i] == 0 {
			s.enter(i)
			return true
		}
		if s.component[i] == 0 {
			s.low[v.group] = min(s.low[v.group], s.index[i])
		}
	}
	return false
}

// leave ends the visit of the current group, and completes its component if it is the
// component's first one.
func (s *componentSearch) leave() {
	i := s.visits[len(s.visits)-1].group
	s.visits = s.visits[:len(s.visits)-1]
	if len(s.visits) > 0 {
		parent := s.visits[len(s.visits)-1].group
		s.low[parent] = min(s.low[parent], s.low[i])
	}
	if s.low[i] != s.index[i] {
		return
	}
	start := len(s.stack)
	for done := false; !done; done = s.stack[start] == i {
		start--
		s.component[s.stack[start]] = i + 1
	}
	s.setNesting(s.stack[start:])
	s.stack = s.stack[:start]
}

// setNesting sets the depth of the groups of one component. A cycle counts as one group.
func (s *componentSearch) setNesting(groups []uint32) {
	depth, inCycle := uint32(0), len(groups) > 1
	for _, i := range groups {
		for _, member := range s.members[s.groups[i].memberStart:s.groups[i].memberEnd] {
			nested := s.aliveGroup(member)
			switch {
			case nested == nil:
			case s.component[s.groupIndex[member]-1] == s.component[i]:
				inCycle = true
			default:
				depth = max(depth, nested.depth+1)
			}
		}
	}
	for _, i := range groups {
		s.groups[i].depth, s.groups[i].inCycle = depth, inCycle
	}
}
