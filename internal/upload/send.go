package upload

import (
	"context"

	"github.com/google/uuid"

	"adconnector/internal/gateway"
	"adconnector/internal/state"
)

// sendBatches sends the queued batches and cancels the upload if one of them fails.
func (p *pool) sendBatches(ctx context.Context, cancel context.CancelCauseFunc) {
	for b := range p.queue {
		if ctx.Err() != nil {
			return
		}
		var result state.BatchResult
		var err error
		if len(b.Objects) > 0 {
			result, err = p.send(ctx, b)
		}
		result.Rejected = append(result.Rejected, b.rejected...)
		p.budget.recycle(b.data, p.options.BatchBytes)
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
			if len(result.Acknowledged) > 0 {
				p.rejections.accept()
			}
			return result, nil
		}
	}
	switch {
	case answer.Outcome == gateway.Accepted:
		p.rejections.accept()
		return state.BatchResult{Acknowledged: b.Objects}, nil
	case len(b.Objects) == 1:
		return p.rejectSingle(state.RejectedObject{Object: b.Objects[0], Reason: b.reason(answer)})
	case answer.Outcome == gateway.PartlyAccepted: // the rejected objects are unknown
		return p.sendParts(ctx, b, 1)
	case answer.Outcome == gateway.TooLarge:
		p.shrink(len(b.data) / 2)
	default:
		if result, ok := p.rejectKnown(b, answer.Message); ok {
			return result, nil
		}
	}
	return p.sendParts(ctx, b, (len(b.Objects)+1)/2)
}

// sendParts sends a batch in parts of size objects, or one by one after halvingLimit
// consecutive rejections.
func (p *pool) sendParts(ctx context.Context, b *batch, size int) (state.BatchResult, error) {
	var all state.BatchResult
	for from, to := 0, 0; from < len(b.Objects); from = to {
		if to = min(from+size, len(b.Objects)); p.rejections.current() >= halvingLimit {
			to = from + 1
		}
		part, err := p.send(ctx, b.part(from, to))
		all.Acknowledged = append(all.Acknowledged, part.Acknowledged...)
		all.Rejected = append(all.Rejected, part.Rejected...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
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
