package membership

import (
	"hash/maphash"
	"math/bits"
	"slices"

	"adconnector/internal/ad"
)

// nameSeed is the seed of the hashes of names.
var nameSeed = maphash.MakeSeed()

// fingerprinter computes fingerprints.
type fingerprinter struct {
	*Graph
	listed []uint64 // by node: hash of its SID, name and kind in the assets of other objects
	paths  []uint64 // as Graph.distances: hash of the path to the group of a role, with that group
	groups []uint64 // by group: hash of what is in the assets of all its members
}

// Fingerprints returns, by node, a hash of everything that queries return about it, with the names
// and kinds of the objects in lists. Lists do not contain the names of users, which are assets of their
// own. Lists of accounts contain the names of the primary group and of the groups in paths only. The hash
// is comparable within one process only.
func (g *Graph) Fingerprints() []uint64 {
	f := fingerprinter{g, make([]uint64, len(g.guids)), make([]uint64, len(g.distances)), make([]uint64, len(g.groups))}
	for n := range g.guids {
		h := f.sid(Node(n))
		if kind := g.Kind(Node(n)); kind != KindUser {
			h = mix(mix(maphash.Bytes(nameSeed, g.storedName(Node(n))), uint64(kind)), h)
		}
		f.listed[n] = h
	}
	for i := range g.groups {
		f.addGroup(i)
	}
	return f.fingerprints()
}

// sid returns the hash of a SID. An object can have another SID later.
func (f *fingerprinter) sid(n Node) uint64 {
	return mix(uint64(f.sids[n].authority), uint64(f.sids[n].rid))
}

// addGroup computes the hash of what is in the assets of all members of a group. Its name is in the paths
// only.
func (f *fingerprinter) addGroup(i int) {
	gr := &f.Graph.groups[i]
	h := mix(f.sid(gr.node), uint64(gr.effectiveRoles)<<1|bit(gr.security))
	h = mix(h, bit(gr.inUnreadable)<<1|bit(gr.unreadable))
	h = f.addProtection(h, gr)
	if gr.alive {
		gr.effectiveRoles.each(func(r Role) { h = mix(h, f.path(gr, r)) })
	}
	f.groups[i] = h
}

// path returns the hash of the path from a group to that of a role.
func (f *fingerprinter) path(gr *group, r Role) uint64 {
	index := func(gr *group) int {
		return int(gr.distanceStart) + bits.OnesCount64(uint64(gr.effectiveRoles&(r.set()-1)))
	}
	var chain []*group // not recursive, because directories can nest very deep
	for ; gr != nil && f.paths[index(gr)] == 0; gr = f.nextGroup(gr, r) {
		chain = append(chain, gr)
		if *f.distance(gr, r) == 0 {
			gr = nil
			break
		}
	}
	h := uint64(0)
	if gr != nil {
		h = f.paths[index(gr)]
	}
	for _, gr := range slices.Backward(chain) {
		h = mix(mix(h, uint64(gr.node)), f.listed[gr.node]) | 1
		f.paths[index(gr)] = h
	}
	return h
}

func (f *fingerprinter) fingerprints() []uint64 {
	g := f.Graph
	fingerprints := make([]uint64, len(g.guids))
	for n := range g.guids {
		node := Node(n)
		h := uint64(0)
		for _, parent := range g.GroupsOf(node) {
			h += f.membership(parent, 1)
		}
		if primary, ok := g.primaryGroupOf(node); ok {
			h += f.membership(primary, 2) + f.reference(primary, 6)
		}
		if gr := g.aliveGroup(node); gr != nil {
			for _, parent := range g.GroupsOf(node) {
				h += f.reference(parent, 7)
			}
			for _, member := range g.members[gr.memberStart:gr.memberEnd] {
				h += f.reference(member, 3)
			}
			h += mix(uint64(gr.depth)<<2|bit(gr.inCycle)<<1|bit(gr.primaryCount > 0), 4)
			h += mix(uint64(gr.role)<<1|bit(gr.security), 5)
			h += mix(bit(gr.containsUnreadable)<<1|bit(gr.unreadable), 8)
		}
		fingerprints[n] = h
	}
	return fingerprints
}

// membership returns a hash of a member's relation to a group. seed distinguishes membership and
// primary group.
func (f *fingerprinter) membership(n Node, seed uint64) uint64 {
	return mix(mix(uint64(n), seed), f.groups[f.groupIndex[n]-1])
}

// reference returns a hash of an object in a list of another object. seed distinguishes the lists.
func (f *fingerprinter) reference(n Node, seed uint64) uint64 {
	return mix(mix(uint64(n), seed), f.listed[n])
}

// Affected returns the objects whose fingerprints have changed since previous, including new
// and removed ones.
func (g *Graph) Affected(previous []uint64) (guids []ad.GUID) {
	for n, fingerprint := range g.Fingerprints() {
		before := uint64(0)
		if n < len(previous) {
			before = previous[n]
		}
		if fingerprint != before && g.guids[n] != (ad.GUID{}) {
			guids = append(guids, g.guids[n])
		}
	}
	return guids
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// mix hashes two numbers. Every bit of them affects every bit of the hash.
func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a^0x9e3779b97f4a7c15, (b+1)*0xa0761d6478bd642f|1)
	h := high ^ low ^ a
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>29
}
