package membership

import (
	"math/bits"

	"adconnector/internal/ad"
)

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
type Privileges struct{ direct, nested roleSet }

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
		set := roleSet(0)
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
