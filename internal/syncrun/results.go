package syncrun

import (
	"bytes"
	"slices"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/upload"
)

// counters count the objects of one kind.
type counters struct {
	read, changed int
	// reread objects were read again only because of the overlap, and had not changed. They are not
	// among the read ones.
	reread      int
	skipped     int // entries without an SID or a GUID
	unreadable  int // objects that the account may not read completely
	withoutGUID int // entries whose GUID is unknown
}

func (c counters) add(other counters) counters {
	return counters{
		c.read + other.read, c.changed + other.changed, c.reread + other.reread, c.skipped + other.skipped, c.unreadable + other.unreadable, c.withoutGUID + other.withoutGUID,
	}
}

// searchResult is the result of one search.
type searchResult struct {
	counters
	unparsed     int
	unmapped     int                   // skipped or unreadable entries
	seen         []ad.GUID             // read or skipped
	recheckTimes map[ad.GUID]time.Time // new due times of unchanged objects
	missing      map[string]int        // unreadable objects by the attribute that is missing
	readable     map[string]int        // objects by optional attribute, if the search found all objects of the kind
	// unreadableGUIDs are the unreadable objects of a delta sync.
	unreadableGUIDs []ad.GUID
	changedSIDs     []ad.GUID // objects whose SID differs from that in the index
	keys            []liveKey // that the index may lack
	pending         []ad.GUID // objects that are to be read again, see identity.Asset
}

// hasNews reports whether the search found changes, or objects that cannot be sent completely.
func (r *searchResult) hasNews() bool { return r.changed+r.skipped+r.unreadable+r.unparsed > 0 }

// readResult is the combined result of all searches of a run. Its zero value is empty.
type readResult struct {
	counters     map[identity.Kind]counters
	seen         [][]ad.GUID
	recheckTimes map[ad.GUID]time.Time
	missing      map[string]int // unreadable objects by attribute
	// withoutDescriptor is how many objects are unreadable only because of their security descriptor.
	withoutDescriptor int
	readable          map[identity.Kind]map[string]int // objects by optional attribute
	// unreadableGUIDs are the unreadable objects of a delta sync.
	unreadableGUIDs []ad.GUID
	changedSIDs     []ad.GUID // objects whose SID differs from that in the index
	keys            []liveKey // that the index may lack
}

// runResult is the combined result of the steps of a run.
type runResult struct {
	mode     string
	read     readResult
	totals   upload.Totals
	outcomes map[Outcome]int // accepted, deleted, rejected
	held     []identity.Object
	// undecided are the objects of which the run cannot tell whether they were deleted.
	undecided []identity.Object
	notShown  []ad.GUID // indexed objects that the server has not shown, sorted
	missing   []ad.GUID // indexed objects that the run did not find
	number    uint64    // of the run in the state file
	// containers are those of privileged objects; nil: the recorded ones stay.
	containers *state.Containers
	grant      string // remedy for the unreadable objects
}

// addSearch adds the result of one search.
func (r *readResult) addSearch(kind identity.Kind, search searchResult) {
	result := readResult{
		counters: map[identity.Kind]counters{kind: search.counters},
		seen:     [][]ad.GUID{search.seen}, recheckTimes: search.recheckTimes,
		missing: search.missing, unreadableGUIDs: search.unreadableGUIDs, changedSIDs: search.changedSIDs, keys: search.keys,
	}
	if search.readable != nil {
		result.readable = map[identity.Kind]map[string]int{kind: search.readable}
	}
	r.add(result)
}

// add adds the results of other searches.
func (r *readResult) add(other readResult) {
	r.counters = merge(r.counters, other.counters, counters.add)
	r.missing = merge(r.missing, other.missing, func(a, b int) int { return a + b })
	r.withoutDescriptor += other.withoutDescriptor
	r.seen = append(r.seen, other.seen...)
	r.unreadableGUIDs = append(r.unreadableGUIDs, other.unreadableGUIDs...)
	r.changedSIDs = append(r.changedSIDs, other.changedSIDs...)
	r.keys = append(r.keys, other.keys...)
	latest := func(_, b time.Time) time.Time { return b }
	r.recheckTimes = merge(r.recheckTimes, other.recheckTimes, latest)
	r.readable = merge(r.readable, other.readable, func(_, b map[string]int) map[string]int { return b })
}

// merge adds the entries of another map, which it may return. It joins the values of keys that
// both have.
func merge[K comparable, V any](m, other map[K]V, join func(a, b V) V) map[K]V {
	if m == nil {
		return other
	}
	for key, value := range other {
		if before, found := m[key]; found {
			value = join(before, value)
		}
		m[key] = value
	}
	return m
}

// seenLists are sorted lists of the objects that were seen.
type seenLists [][]ad.GUID

func (l seenLists) contain(guid ad.GUID) bool {
	return slices.ContainsFunc(l, func(list []ad.GUID) bool {
		_, found := slices.BinarySearchFunc(list, guid, compareGUIDs)
		return found
	})
}

// seenGUIDs returns the objects that were seen in at most two lists. It sorts the largest list of r in
// place: after a full sync, a copy would take the memory of most objects once more. It must not be
// called while searches add to r.
func (r *readResult) seenGUIDs() seenLists {
	largest := -1
	for i, list := range r.seen {
		if largest < 0 || len(list) > len(r.seen[largest]) {
			largest = i
		}
	}
	if largest < 0 {
		return nil
	}
	lists := seenLists{r.seen[largest], slices.Concat(slices.Concat(r.seen[:largest], r.seen[largest+1:])...)}
	for _, list := range lists {
		slices.SortFunc(list, compareGUIDs)
	}
	return lists
}

// notSeen returns the given objects that were not seen, sorted and without duplicates.
func (r *readResult) notSeen(guids []ad.GUID) []ad.GUID {
	if len(guids) == 0 {
		return nil
	}
	seen := r.seenGUIDs()
	guids = slices.Clone(guids)
	slices.SortFunc(guids, compareGUIDs)
	return slices.DeleteFunc(slices.Compact(guids), seen.contain)
}

// unreadableOf returns the given objects that a delta sync found unreadable.
func (r *readResult) unreadableOf(guids []ad.GUID) []ad.GUID {
	if len(r.unreadableGUIDs) == 0 {
		return nil
	}
	unreadable := make(map[ad.GUID]struct{}, len(r.unreadableGUIDs))
	for _, guid := range r.unreadableGUIDs {
		unreadable[guid] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(guids), func(guid ad.GUID) bool {
		_, found := unreadable[guid]
		return !found
	})
}

// countUnreadable returns how many objects the account may not read completely.
func (r *readResult) countUnreadable() (n int) {
	for _, c := range r.counters {
		n += c.unreadable
	}
	return n
}

// countWithoutGUID returns how many entries have an unknown GUID.
func (r *readResult) countWithoutGUID() (n int) {
	for _, c := range r.counters {
		n += c.withoutGUID
	}
	return n
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
