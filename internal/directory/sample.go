package directory

import "hash/maphash"

// sample detects whether a search makes progress, in bounded memory: it remembers the first
// exactSample entries, and one of sampleRate of the others. A million entries take about
// 4 MB. Whether an entry belongs to the sample depends on its DN alone, so a repeated entry
// is never new.
type sample struct {
	seed maphash.Seed
	seen map[uint64]struct{} // hashes of DNs
}

const (
	exactSample = 1 << 16
	sampleRate  = 16
)

func newSample() sample {
	return sample{seed: maphash.MakeSeed(), seen: map[uint64]struct{}{}}
}

// add reports whether the DN belongs to the sample and was not in it.
func (s *sample) add(dn []byte) bool {
	hash := maphash.Bytes(s.seed, dn)
	if len(s.seen) >= exactSample && hash%sampleRate != 0 {
		return false
	}
	before := len(s.seen)
	s.seen[hash] = struct{}{}
	return len(s.seen) > before
}
