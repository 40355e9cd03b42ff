package syncrun

import (
	"errors"
	"fmt"
	"sync/atomic"

	"adconnector/internal/fault"
)

// objectLimits limit the objects that a run reads: a server could invent objects without end.
type objectLimits struct {
	total int // of any run
	// If the plan tracks the objects seen, each takes 16 bytes, and 16 more when they are
	// sorted at the end. Then the limit is tracked plus trackedPerIndexed for each indexed
	// object. So it allows a directory to multiply between two runs.
	tracked, trackedPerIndexed int
}

// defaultMaxObjects allows 2,004,000 tracked objects after a complete sync of 1,000 objects,
// which take 31 MB, and 6,000,000 after one of 1,000,000, which take 92 MB. A first sync tracks
// no objects.
var defaultMaxObjects = objectLimits{total: 10_000_000, tracked: 2_000_000, trackedPerIndexed: 4}

// limit returns the limit of a run.
func (l objectLimits) limit(p Plan, indexSize int) int {
	if !p.TrackSeen {
		return l.total
	}
	return min(l.total, l.tracked+l.trackedPerIndexed*indexSize)
}

var errTooManyObjects = errors.New("too many objects")

// objectBudget counts the objects that a run reads. It is safe for concurrent use.
type objectBudget struct {
	limit int
	count atomic.Int64
}

// take counts an object, and returns an error if there are too many.
func (b *objectBudget) take() error {
	if b.count.Add(1) <= int64(b.limit) {
		return nil
	}
	return fault.Operation{Op: "read", Object: "directory"}.Failed(fault.Incomplete, fmt.Errorf("%w: more than %d", errTooManyObjects, b.limit),
		"check the directory server, or narrow profile.baseContext, or the profile in the console; if the directory did grow so much, sync it in parts")
}

// giveBack subtracts objects that are read again.
func (b *objectBudget) giveBack(objects int) { b.count.Add(-int64(objects)) }
