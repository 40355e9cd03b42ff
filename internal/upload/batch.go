package upload

import (
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// batch is a batch with its encoded assets.
type batch struct {
	state.Batch
	ends     []int                  // offset in data after the JSON of each object
	data     []byte                 // JSON of the assets, separated by commas
	rejected []state.RejectedObject // too large, not sent
	bytes    int64                  // taken from the budget
}

// add appends an object and its JSON.
func (b *batch) add(object identity.Object, json []byte) {
	if len(b.data) > 0 {
		b.data = append(b.data, ',')
	}
	b.data = append(b.data, json...)
	b.ends = append(b.ends, len(b.data))
	b.Objects = append(b.Objects, object)
}

// size is the number of objects.
func (b *batch) size() int { return len(b.Objects) + len(b.rejected) }

// minBuffer is the size of the first buffer of a batch, except for a larger asset.
const minBuffer = 64 << 10

// grownCapacity returns the capacity of a buffer for need bytes. A buffer is doubled, but not
// beyond limit, which is the maximum size of a batch.
func grownCapacity(capacity, need, limit int) int {
	if need <= capacity {
		return capacity
	}
	return max(need, min(max(2*capacity, minBuffer), limit))
}

// grow moves the data to a buffer of a capacity, unless it has that capacity already.
func (b *batch) grow(capacity int) {
	if capacity > cap(b.data) {
		b.data = append(make([]byte, 0, capacity), b.data...)
	}
}

// objectOverhead is the approximate memory of an object until it is committed, except for its
// name: the object, its entries in slices and maps, and the reason of a rejection.
const objectOverhead = 512

func objectBytes(o identity.Object) int64 {
	return objectOverhead + int64(len(o.Name)+len(o.SID))
}

// part returns a batch of the objects from index from up to, but excluding, index to. It
// shares the data of b.
func (b *batch) part(from, to int) *batch {
	start := 0
	if from > 0 {
		start = b.ends[from-1] + 1 // after the comma
	}
	part := &batch{Batch: state.Batch{Number: b.Number, Objects: b.Objects[from:to]}, data: b.data[start:b.ends[to-1]]}
	for _, end := range b.ends[from:to] {
		part.ends = append(part.ends, end-start)
	}
	return part
}

// result returns the result of a batch from which the gateway rejected some objects. The
// keys of rejected are external IDs or GUIDs, the values are reasons.
func (b *batch) result(rejected map[string]string) state.BatchResult {
	var r state.BatchResult
	for _, object := range b.Objects {
		if reason, found := reasonOf(object, rejected); found {
			r.Rejected = append(r.Rejected, state.RejectedObject{Object: object, Reason: reason})
		} else {
			r.Acknowledged = append(r.Acknowledged, object)
		}
	}
	return r
}

// reasonOf returns why the gateway rejected an object.
func reasonOf(object identity.Object, rejected map[string]string) (reason string, found bool) {
	if reason, found = rejected[identity.ExternalID(object.Kind, object.SID)]; !found {
		reason, found = rejected[object.GUID.String()]
	}
	return reason, found
}

// rejectAll returns the result of a batch that the gateway rejected and that is not split.
func (b *batch) rejectAll(response gateway.BatchResponse) (result state.BatchResult) {
	for _, object := range b.Objects {
		reason, found := reasonOf(object, response.Rejected)
		if !found {
			reason = response.Message
		}
		result.Rejected = append(result.Rejected, state.RejectedObject{Object: object, Reason: reason})
	}
	return result
}

// reason returns why the gateway rejected a batch of one object. If it accepted a part, that is none,
// so any reason in the response is that of the object.
func (b *batch) reason(response gateway.BatchResponse) string {
	if response.Outcome == gateway.PartlyAccepted {
		for _, reason := range response.Rejected {
			return reason
		}
	}
	return b.rejectAll(response).Rejected[0].Reason
}
