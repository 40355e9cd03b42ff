package membership

import (
	"math/bits"

	"adconnector/internal/ad"
)

// Fingerprints returns, by node, a hash of everything that queries return about it. The hash
// is comparable within one process only.
func (g *Graph) Fingerprints() []uint64 {
	fingerprints := make([]uint64, len(g.guids))
	for n := range g.guids {
		node := Node(n)
		h := uint64(0)
		for _, parent := range g.GroupsOf(node) {
			h += g.groupFingerprint(parent, 1)
		}
		if primary, ok := g.primaryGroupOf(node); ok {
			h += g.groupFingerprint(primary, 2)
		}
		if gr := g.aliveGroup(node); gr != nil {
			for _, member := range g.members[gr.memberStart:gr.memberEnd] {
				h += mix(mix(uint64(member), 3), g.sidHash(member))
			}
			h += mix(uint64(gr.depth)<<2|bit(gr.inCycle)<<1|bit(gr.primaryCount > 0), 4)
			h += mix(uint64(gr.role)<<1|bit(gr.security), 5)
		}
		fingerprints[n] = h
	}
	return fingerprints
}

// groupFingerprint returns a hash of a member's relation to a group. seed distinguishes
// membership and primary group.
func (g *Graph) groupFingerprint(n Node, seed uint64) uint64 {
	gr := g.aliveGroup(n)
	return mix(mix(mix(uint64(n), seed), g.sidHash(n)), uint64(gr.effectiveRoles)<<1|bit(gr.security))
}

// sidHash returns a hash of a node's SID: queries identify members and groups by it, and an object
// can have another one later.
func (g *Graph) sidHash(n Node) uint64 {
	return mix(uint64(g.sids[n].authority), uint64(g.sids[n].rid))
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
