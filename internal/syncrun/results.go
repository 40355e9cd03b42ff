package syncrun

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/upload"
)

// counters count the objects of one kind.
type counters struct{ read, changed, skipped int }

// searchResult is the result of one search.
type searchResult struct {
	counters
	unparsed     int
	withoutGUID  int                   // skipped entries without a readable GUID
	seen         []ad.GUID             // read or skipped
	recheckTimes map[ad.GUID]time.Time // new due times of unchanged objects
}

// readResult is the combined result of all searches of a run. Its zero value is empty.
type readResult struct {
	counters     map[identity.Kind]counters
	withoutGUID  int
	seen         [][]ad.GUID
	recheckTimes map[ad.GUID]time.Time
}

// runResult is the combined result of the steps of a run.
type runResult struct {
	mode     string
	read     readResult
	totals   upload.Totals
	outcomes map[Outcome]int // delivered, deleted, rejected
	held     []identity.Object
	// undecided are the objects of which the run cannot tell whether they were deleted.
	undecided []identity.Object
	notShown  []ad.GUID // indexed objects that the server has not shown, sorted
	number    uint64    // of the run in the state file
}

// addSearch adds the result of one search.
func (r *readResult) addSearch(kind identity.Kind, search searchResult) {
	r.add(readResult{
		counters:    map[identity.Kind]counters{kind: search.counters},
		withoutGUID: search.withoutGUID, seen: [][]ad.GUID{search.seen}, recheckTimes: search.recheckTimes,
	})
}

// add adds the results of other searches.
func (r *readResult) add(other readResult) {
	if r.counters == nil {
		r.counters = map[identity.Kind]counters{}
	}
	for kind, n := range other.counters {
		sum := r.counters[kind]
		r.counters[kind] = counters{sum.read + n.read, sum.changed + n.changed, sum.skipped + n.skipped}
	}
	r.withoutGUID += other.withoutGUID
	r.seen = append(r.seen, other.seen...)
	if r.recheckTimes == nil {
		r.recheckTimes = other.recheckTimes
	} else {
		maps.Copy(r.recheckTimes, other.recheckTimes)
	}
}

// seenGUIDs returns the objects that were seen, sorted.
func (r *readResult) seenGUIDs() []ad.GUID {
	seen := slices.Concat(r.seen...)
	slices.SortFunc(seen, compareGUIDs)
	return seen
}

// notSeen returns the given objects that were not seen, sorted and without duplicates.
func (r *readResult) notSeen(guids []ad.GUID) []ad.GUID {
	if len(guids) == 0 {
		return nil
	}
	seen := r.seenGUIDs()
	guids = slices.Clone(guids)
	slices.SortFunc(guids, compareGUIDs)
	return slices.DeleteFunc(slices.Compact(guids), func(guid ad.GUID) bool {
		_, found := slices.BinarySearchFunc(seen, guid, compareGUIDs)
		return found
	})
}

// countRead returns how many objects of the given kinds were read.
func (r *readResult) countRead(kinds ...identity.Kind) int {
	n := 0
	for _, kind := range kinds {
		n += r.counters[kind].read
	}
	return n
}

func compareGUIDs(a, b ad.GUID) int { return bytes.Compare(a[:], b[:]) }
