package upload

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// reasonTooLarge is the reason of an object that is rejected without a call.
var reasonTooLarge = fmt.Sprintf("larger than %d MiB, not sent", identity.MaxAssetBytes>>20)

const (
	// maxConsecutiveRejections is the number of consecutive rejected objects after which the
	// upload fails. Isolating every object of a directory would cost up to two calls per object.
	maxConsecutiveRejections = 500
	// halvingLimit is the number of consecutive rejected objects after which rejected batches
	// are sent one by one. Halving costs two calls per object if every object is rejected.
	halvingLimit = 32
)

var errNoneAccepted = errors.New("no object accepted")

// rejectionCount counts the objects that were rejected in a call of their own since the gateway
// last accepted an object. Many of them are a sign that the gateway rejects every object.
type rejectionCount struct {
	mu           sync.Mutex
	consecutive  int
	first        int  // consecutive, without objects that were rejected in an earlier run
	acknowledged bool // the gateway accepted an object in this run
}

// accept resets the count, because the gateway accepted an object.
func (c *rejectionCount) accept() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consecutive, c.first, c.acknowledged = 0, 0, true
}

// add counts a rejected object. known is whether it was rejected in an earlier run.
func (c *rejectionCount) add(known bool) (first int, acknowledged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consecutive++
	if !known {
		c.first++
	}
	return c.first, c.acknowledged
}

func (c *rejectionCount) current() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.consecutive
}

// isKnown reports whether the gateway rejected this value of an object in an earlier run. It
// does not count as a sign that the gateway rejects every object. Otherwise, a directory with
// more than maxConsecutiveRejections unacceptable objects would fail each full sync. If the
// gateway never accepted any object, every rejection counts.
func (p *pool) isKnown(o identity.Object) bool {
	r, found := p.options.Rejections[o.GUID]
	return found && !p.options.NeverAcknowledged && bytes.HasPrefix(r.Value, o.Fingerprint[:len(o.Fingerprint)/2])
}

// rejectSingle returns the result of an object that was rejected in a call of its own. It
// returns an error if the gateway rejected too many in a row.
func (p *pool) rejectSingle(r state.RejectedObject) (state.BatchResult, error) {
	result := state.BatchResult{Rejected: []state.RejectedObject{r}}
	n, acknowledged := p.rejections.add(p.isKnown(r.Object))
	if n < maxConsecutiveRejections {
		return result, nil
	}
	err := fmt.Errorf("%w, %d rejected", errNoneAccepted, n)
	if p.options.NeverAcknowledged && !acknowledged {
		return result, uploadOperation.Failed(fault.Refused, err,
			"check qualys.customerUuid, qualys.profileUuid, gateway.source, and the reasons in adconnector status")
	}
	return result, uploadOperation.Failed(fault.Transient, fmt.Errorf("%w in a row", err),
		"check the reasons in adconnector status, and whether the platform has changed")
}

// rejectKnown returns the result of a rejected batch that is not worth another call: the gateway
// accepts nothing now, and rejected each of the objects in an earlier run.
func (p *pool) rejectKnown(b *batch, reason string) (result state.BatchResult, ok bool) {
	if p.rejections.current() < maxConsecutiveRejections {
		return result, false
	}
	for _, object := range b.Objects {
		if !p.isKnown(object) {
			return state.BatchResult{}, false
		}
		result.Rejected = append(result.Rejected, state.RejectedObject{Object: object, Reason: reason})
	}
	return result, true
}
