package syncrun

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// tally counts what one search found.
type tally struct {
	read, changed, skipped, unparsed int
	nameless                         int       // of the skipped: without a readable GUID
	seen                             []ad.GUID // read or skipped
	reschedule                       map[ad.GUID]time.Time
}

// counts are the objects of one kind.
type counts struct{ read, changed, skipped int }

// findings are what all searches of a run found. The zero value is nothing.
type findings struct {
	counts     map[identity.Kind]counts
	nameless   int
	seen       [][]ad.GUID
	reschedule map[ad.GUID]time.Time
}

// count adds one search.
func (f *findings) count(kind identity.Kind, t tally) {
	f.add(findings{
		counts:   map[identity.Kind]counts{kind: {t.read, t.changed, t.skipped}},
		nameless: t.nameless, seen: [][]ad.GUID{t.seen}, reschedule: t.reschedule,
	})
}

// add adds the findings of other searches.
func (f *findings) add(others findings) {
	if f.counts == nil {
		f.counts = map[identity.Kind]counts{}
	}
	for kind, n := range others.counts {
		sum := f.counts[kind]
		f.counts[kind] = counts{sum.read + n.read, sum.changed + n.changed, sum.skipped + n.skipped}
	}
	f.nameless += others.nameless
	f.seen = append(f.seen, others.seen...)
	if f.reschedule == nil {
		f.reschedule = others.reschedule
	} else {
		maps.Copy(f.reschedule, others.reschedule)
	}
}

// allSeen returns the objects that were seen, sorted.
func (f *findings) allSeen() []ad.GUID {
	all := slices.Concat(f.seen...)
	slices.SortFunc(all, byBytes)
	return all
}

// unseen returns those of the objects that were not seen, sorted, each once.
func (f *findings) unseen(guids []ad.GUID) []ad.GUID {
	if len(guids) == 0 {
		return nil
	}
	seen := f.allSeen()
	guids = slices.Clone(guids)
	slices.SortFunc(guids, byBytes)
	return slices.DeleteFunc(slices.Compact(guids), func(guid ad.GUID) bool {
		_, there := slices.BinarySearchFunc(seen, guid, byBytes)
		return there
	})
}

// read returns how many objects of some kinds were read.
func (f *findings) read(kinds ...identity.Kind) int {
	n := 0
	for _, kind := range kinds {
		n += f.counts[kind].read
	}
	return n
}

func byBytes(a, b ad.GUID) int { return bytes.Compare(a[:], b[:]) }
