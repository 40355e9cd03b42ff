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
		return p.sendParts(ctx, b, gateway.TooLarge)
	}
	response, err := p.sender.Send(ctx, uuid.NewString(), len(b.Objects), b.data)
	if err != nil {
		return state.BatchResult{}, err
	}
	if response.Outcome == gateway.PartlyAccepted && !response.Unattributed {
		if result := b.result(response.Rejected); len(result.Rejected) == len(response.Rejected) {
			if len(result.Acknowledged) > 0 {
				p.rejections.accept()
			}
			return result, nil
		}
	}
	switch {
	case response.Outcome == gateway.Accepted:
		p.rejections.accept()
		return state.BatchResult{Acknowledged: b.Objects}, nil
	case len(b.Objects) == 1:
		return p.rejectSingle(state.RejectedObject{Object: b.Objects[0], Reason: b.reason(response)})
	case response.Outcome == gateway.TooLarge, response.Outcome == gateway.Unfinished:
		p.shrink(len(b.data) / 2)
	case response.Outcome == gateway.Rejected && p.rejectsWhole():
		return b.rejectAll(response), nil
	}
	return p.sendParts(ctx, b, response.Outcome)
}

// sendParts sends a batch with an outcome in halves. It sends the objects one by one if the
// rejected ones are unknown, or after halvingLimit consecutive rejections. While rejected batches
// are not split, it sends the rest of a rejected batch at once.
func (p *pool) sendParts(ctx context.Context, b *batch, outcome gateway.Outcome) (state.BatchResult, error) {
	var all state.BatchResult
	for from, to := 0, 0; from < len(b.Objects); from = to {
		to = min(from+(len(b.Objects)+1)/2, len(b.Objects))
		consecutive, _ := p.rejections.current()
		switch whole := p.rejectsWhole(); {
		case outcome == gateway.PartlyAccepted:
			to = from + 1
		case outcome == gateway.Rejected && whole && from > 0: // a part is smaller than its batch
			to = len(b.Objects)
		case consecutive >= halvingLimit && !whole:
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
