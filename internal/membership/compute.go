package membership

import (
	"cmp"
	"slices"

	"adconnector/internal/ad"
)

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
