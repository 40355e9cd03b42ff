package upload

import (
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// batch is a batch with its encoded assets.
type batch struct {
	state.Batch
	ends []int  // offset in data after the JSON of each object
	data []byte // JSON of the assets, separated by commas
}

func (b *batch) add(asset identity.Asset) {
	if len(b.data) > 0 {
		b.data = append(b.data, ',')
	}
	b.data = append(b.data, asset.JSON...)
	b.ends = append(b.ends, len(b.data))
	b.Objects = append(b.Objects, asset.Object())
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
		reason, found := rejected[identity.ExternalID(object.Kind, object.SID)]
		if !found {
			reason, found = rejected[object.GUID.String()]
		}
		if found {
			r.Rejected = append(r.Rejected, state.RejectedObject{Object: object, Reason: reason})
		} else {
			r.Acknowledged = append(r.Acknowledged, object)
		}
	}
	return r
}

// reason returns why the gateway rejected a batch of one object.
func (b *batch) reason(answer gateway.BatchResponse) string {
	for _, reason := range answer.Rejected {
		return reason
	}
	return answer.Message
}
