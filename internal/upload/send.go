package upload

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
)

var errNoneAccepted = errors.New("no object accepted")

// sendBatches sends the queued batches and cancels the upload if one of them fails.
func (p *pool) sendBatches(ctx context.Context, cancel context.CancelCauseFunc) {
	for b := range p.queue {
		if ctx.Err() != nil {
			return
		}
		result, err := p.send(ctx, b)
		select {
		case p.buffers <- b.data[:0]:
		default:
		}
		if err != nil {
			cancel(err)
			if len(result.Acknowledged)+len(result.Rejected) == 0 {
				continue // no part of the batch has a result
			}
		}
		result.Batch, result.Complete = b.Number, err == nil
		p.results <- result
	}
}

// send sends a batch. If the gateway does not accept it as a whole, send isolates the
// rejected objects by sending parts. With an error, it also returns the results of the
// parts before it.
func (p *pool) send(ctx context.Context, b *batch) (state.BatchResult, error) {
	if len(b.Objects) > 1 && int64(len(b.data)) > p.batchBytes.Load() { // filled before the limit was reduced
		return p.sendParts(ctx, b, (len(b.Objects)+1)/2)
	}
	answer, err := p.sender.Send(ctx, uuid.NewString(), len(b.Objects), b.data)
	if err != nil {
		return state.BatchResult{}, err
	}
	if answer.Outcome == gateway.PartlyAccepted && !answer.Unattributed {
		if result := b.result(answer.Rejected); len(result.Rejected) == len(answer.Rejected) {
			p.acknowledged.Add(int64(len(result.Acknowledged)))
			return result, nil
		}
	}
	switch {
	case answer.Outcome == gateway.Accepted:
		p.acknowledged.Add(int64(len(b.Objects)))
		return state.BatchResult{Acknowledged: b.Objects}, nil
	case len(b.Objects) == 1:
		return p.rejectSingle(state.RejectedObject{Object: b.Objects[0], Reason: b.reason(answer)})
	case answer.Outcome == gateway.PartlyAccepted: // the rejected objects are unknown
		return p.sendParts(ctx, b, 1)
	case answer.Outcome == gateway.TooLarge:
		p.shrink(len(b.data) / 2)
	}
	return p.sendParts(ctx, b, (len(b.Objects)+1)/2)
}

// sendParts sends a batch in parts of size objects.
func (p *pool) sendParts(ctx context.Context, b *batch, size int) (state.BatchResult, error) {
	var all state.BatchResult
	for from := 0; from < len(b.Objects); from += size {
		part, err := p.send(ctx, b.part(from, min(from+size, len(b.Objects))))
		all.Acknowledged = append(all.Acknowledged, part.Acknowledged...)
		all.Rejected = append(all.Rejected, part.Rejected...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// rejectSingle returns the result of an object that was rejected in a call of its own. It
// returns an error if the gateway never acknowledged an object and rejected too many.
func (p *pool) rejectSingle(r state.RejectedObject) (state.BatchResult, error) {
	result := state.BatchResult{Rejected: []state.RejectedObject{r}}
	if n := p.rejectedSingly.Add(1); p.options.NeverAcknowledged && n >= maxInitialRejections && p.acknowledged.Load() == 0 {
		return result, uploadOperation.Failed(fault.Refused, fmt.Errorf("%w, %d rejected", errNoneAccepted, n),
			"check qualys.customerUuid, qualys.profileUuid, gateway.source, and the reasons in adconnector status")
	}
	return result, nil
}

// shrink reduces the maximum size of later batches of this run, in bytes.
func (p *pool) shrink(size int) {
	for {
		current := p.batchBytes.Load()
		if int64(size) >= current || p.batchBytes.CompareAndSwap(current, int64(size)) {
			return
		}
	}
}
