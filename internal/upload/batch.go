package upload

import (
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// batch is a batch and the bytes of its assets.
type batch struct {
	state.Batch
	ends []int // where each object's JSON ends in data
	data []byte
}

func (b *batch) add(asset identity.Asset) {
	if len(b.data) > 0 {
		b.data = append(b.data, ',')
	}
	b.data = append(b.data, asset.JSON...)
	b.ends = append(b.ends, len(b.data))
	b.Objects = append(b.Objects, asset.Object())
}

// part is the batch of objects from up to to.
func (b *batch) part(from, to int) *batch {
	start := 0
	if from > 0 {
		start = b.ends[from-1] + 1 // behind the comma
	}
	part := &batch{Batch: state.Batch{Number: b.Number, Objects: b.Objects[from:to]}, data: b.data[start:b.ends[to-1]]}
	for _, end := range b.ends[from:to] {
		part.ends = append(part.ends, end-start)
	}
	return part
}

// sort tells the rejected objects, named by either ID, from the others.
func (b *batch) sort(rejected map[string]string) state.BatchResult {
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

// reason is why the one object of a batch was not taken.
func (b *batch) reason(answer gateway.Answer) string {
	for _, reason := range answer.Rejected {
		return reason
	}
	return answer.Message
}
