package membership

import (
	"math/bits"

	"adconnector/internal/ad"
)

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
