package syncrun

import (
	"fmt"
	"hash/maphash"
	"sync"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
)

// logonTable has the logons that other domain controllers show, by object: the latest of all of
// them. It is safe for concurrent use, and takes about 42 bytes an object. The zero value is not
// valid; a nil table has no logons.
type logonTable struct {
	limit int // objects
	seed  maphash.Seed

	mu     sync.Mutex
	counts failedCounts
	size   int
	slots  []uint32 // by hash: 1 + the number of the object's row; 0: free
	chunks []*logonChunk
}

// failedCounts is which numbers of failed attempts the PDC emulator has returned.
type failedCounts int

const (
	countsUnknown failedCounts = iota // those of some accounts at most
	countsChanged                     // all that differ from the index
	countsAll
)

// logonChunk has rows of a logonTable. So the table grows without a copy of the rows.
type logonChunk struct {
	guids        [logonRows]ad.GUID
	last, failed [logonRows]ad.FileTime
	attempts     [logonRows]uint32
	counted      [logonRows]bool // attempts is the number of failed attempts
	settled      [logonRows]bool
}

// logonRows is the number of rows of a chunk, a power of two.
const logonRows = 1 << 11

func newLogonTable(limit int) *logonTable {
	return &logonTable{limit: limit, seed: maphash.MakeSeed(), slots: make([]uint32, 2*logonRows)}
}

// add merges the logons of an object. It returns an error if there are too many objects.
func (t *logonTable) add(guid ad.GUID, logons identity.Logons) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot, found := t.slotOf(guid)
	if !found {
		if t.size == t.limit {
			return fault.Operation{Op: "read", Object: "logons"}.Failed(fault.Incomplete, fmt.Errorf("%w: more than %d", errTooManyObjects, t.limit),
				"check the domain controllers")
		}
		slot = t.insert(guid)
	}
	chunk, row := t.row(slot)
	chunk.last[row] = max(chunk.last[row], logons.Last)
	chunk.failed[row] = max(chunk.failed[row], logons.LastFailed)
	if logons.HasFailed {
		chunk.attempts[row], chunk.counted[row] = logons.Failed, true
	}
	return nil
}

// setCounts records which numbers of failed attempts are known.
func (t *logonTable) setCounts(c failedCounts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts = c
}

// merge returns the logons of an object, merged with those that were sent before.
func (t *logonTable) merge(guid ad.GUID, sent identity.Logons) identity.Logons {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found identity.Logons
	if slot, ok := t.slotOf(guid); ok {
		chunk, row := t.row(slot)
		found = identity.Logons{Last: chunk.last[row], LastFailed: chunk.failed[row], Failed: chunk.attempts[row], HasFailed: chunk.counted[row]}
	}
	// An account without failed attempts is not returned.
	if t.counts == countsAll || t.counts == countsChanged && !sent.HasFailed {
		found.HasFailed = true
	}
	return sent.Merge(found)
}

// settle records that the state file has the logons of an object: they were sent, or they do not
// differ from what was sent.
func (t *logonTable) settle(guid ad.GUID) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if slot, found := t.slotOf(guid); found {
		chunk, row := t.row(slot)
		chunk.settled[row] = true
	}
}

// len returns the number of objects.
func (t *logonTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size
}

// unsettled returns objects that are not settled, up to a limit. more is true if there are others.
func (t *logonTable) unsettled(limit int) (guids []ad.GUID, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range t.size {
		chunk, row := t.chunks[n/logonRows], n%logonRows
		switch {
		case chunk.settled[row]:
		case len(guids) == limit:
			return guids, true
		default:
			guids = append(guids, chunk.guids[row])
		}
	}
	return guids, false
}

// slotOf returns the slot of an object, or the free one to use for it.
func (t *logonTable) slotOf(guid ad.GUID) (slot int, found bool) {
	mask := len(t.slots) - 1
	for slot = int(maphash.Bytes(t.seed, guid[:])) & mask; t.slots[slot] != 0; slot = (slot + 1) & mask {
		if chunk, row := t.row(slot); chunk.guids[row] == guid {
			return slot, true
		}
	}
	return slot, false
}

// row returns the row to which a used slot leads.
func (t *logonTable) row(slot int) (chunk *logonChunk, row int) {
	n := int(t.slots[slot]) - 1
	return t.chunks[n/logonRows], n % logonRows
}

// insert adds a row for an object that has none, and returns its slot.
func (t *logonTable) insert(guid ad.GUID) (slot int) {
	if t.size%logonRows == 0 {
		t.chunks = append(t.chunks, new(logonChunk))
	}
	t.chunks[t.size/logonRows].guids[t.size%logonRows] = guid
	t.size++
	if t.size > len(t.slots)/4*3 {
		t.slots = make([]uint32, 2*len(t.slots))
		for n := range t.size - 1 {
			slot, _ := t.slotOf(t.chunks[n/logonRows].guids[n%logonRows])
			t.slots[slot] = uint32(n + 1)
		}
	}
	slot, _ = t.slotOf(guid)
	t.slots[slot] = uint32(t.size)
	return slot
}
