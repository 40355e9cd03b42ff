package upload

import (
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
	// maxConsecutiveRejections is the number of consecutive rejected objects after which rejected
	// batches are not split. If the gateway never accepted an object, the upload fails. Isolating
	// every object of a directory would cost up to two calls per object.
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
	acknowledged bool // the gateway accepted an object in this run
}

// accept resets the count, because the gateway accepted an object.
func (c *rejectionCount) accept() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consecutive, c.acknowledged = 0, true
}

// add counts a rejected object.
func (c *rejectionCount) add() (consecutive int, acknowledged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consecutive++
	return c.consecutive, c.acknowledged
}

func (c *rejectionCount) current() (consecutive int, acknowledged bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.consecutive, c.acknowledged
}

// rejectSingle returns the result of an object that was rejected in a call of its own. It
// returns an error if the gateway rejected many in a row and never accepted an object.
func (p *pool) rejectSingle(r state.RejectedObject) (state.BatchResult, error) {
	result := state.BatchResult{Rejected: []state.RejectedObject{r}}
	n, acknowledged := p.rejections.add()
	if n < maxConsecutiveRejections || acknowledged || !p.options.NeverAcknowledged {
		return result, nil
	}
	return result, uploadOperation.Failed(fault.Refused, fmt.Errorf("%w, %d rejected", errNoneAccepted, n),
		"check qualys.customerUuid, qualys.profileUuid, gateway.source, and the reasons in adconnector status")
}

// rejectsWhole reports whether a rejected batch is not split: the gateway accepted objects
// before, but rejected many in a row since. The next accepted object ends this.
func (p *pool) rejectsWhole() bool {
	n, acknowledged := p.rejections.current()
	return n >= maxConsecutiveRejections && (acknowledged || !p.options.NeverAcknowledged)
}
