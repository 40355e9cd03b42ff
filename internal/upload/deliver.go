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

var errNoneAccepted = errors.New("the gateway accepted no object")

// work sends batches until there are no more, or until one of them fails.
func (p *pool) work(ctx context.Context, cancel context.CancelCauseFunc) {
	for b := range p.queue {
		if ctx.Err() != nil {
			return
		}
		receipt, err := p.deliver(ctx, b)
		select {
		case p.spare <- b.data[:0]:
		default:
		}
		if err != nil {
			cancel(err)
			if len(receipt.Acknowledged)+len(receipt.Rejected) == 0 {
				continue // nothing was settled before it
			}
		}
		receipt.Batch, receipt.Complete = b.Number, err == nil
		p.results <- receipt
	}
}

// deliver sends a batch and, where the gateway does not take it whole, its parts.
// With an error it returns what was settled before.
func (p *pool) deliver(ctx context.Context, b *batch) (state.BatchResult, error) {
	if len(b.Objects) > 1 && int64(len(b.data)) > p.batchBytes.Load() { // made before that was found to be too large
		return p.deliverParts(ctx, b, (len(b.Objects)+1)/2)
	}
	answer, err := p.sender.Send(ctx, uuid.NewString(), len(b.Objects), b.data)
	if err != nil {
		return state.BatchResult{}, err
	}
	if answer.Outcome == gateway.Partly && !answer.Unattributed {
		if receipt := b.sort(answer.Rejected); len(receipt.Rejected) == len(answer.Rejected) {
			p.delivered.Add(int64(len(receipt.Acknowledged)))
			return receipt, nil
		}
	}
	switch {
	case answer.Outcome == gateway.Taken:
		p.delivered.Add(int64(len(b.Objects)))
		return state.BatchResult{Acknowledged: b.Objects}, nil
	case len(b.Objects) == 1:
		return p.isolated(state.RejectedObject{Object: b.Objects[0], Reason: b.reason(answer)})
	case answer.Outcome == gateway.Partly: // by somebody whom only sending one by one finds
		return p.deliverParts(ctx, b, 1)
	case answer.Outcome == gateway.TooLarge:
		p.shrink(len(b.data) / 2)
	}
	return p.deliverParts(ctx, b, (len(b.Objects)+1)/2)
}

// deliverParts sends a batch again in parts of so many objects.
func (p *pool) deliverParts(ctx context.Context, b *batch, size int) (state.BatchResult, error) {
	var all state.BatchResult
	for from := 0; from < len(b.Objects); from += size {
		part, err := p.deliver(ctx, b.part(from, min(from+size, len(b.Objects))))
		all.Acknowledged = append(all.Acknowledged, part.Acknowledged...)
		all.Rejected = append(all.Rejected, part.Rejected...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// isolated returns the receipt of an object that was rejected alone. Its error ends a run
// in which an untried gateway accepts nothing.
func (p *pool) isolated(r state.RejectedObject) (state.BatchResult, error) {
	receipt := state.BatchResult{Rejected: []state.RejectedObject{r}}
	if n := p.alone.Add(1); p.options.NeverAcknowledged && n >= hopeless && p.delivered.Load() == 0 {
		return receipt, operation.Failed(fault.Refused, fmt.Errorf("%w, and rejected %d, so the objects are not the cause", errNoneAccepted, n),
			"check qualys.customerUuid, qualys.profileUuid and gateway.source, and the gateway's reasons in adconnector status")
	}
	return receipt, nil
}

// shrink keeps later batches of this run below a size that was too large.
func (p *pool) shrink(size int) {
	for {
		current := p.batchBytes.Load()
		if int64(size) >= current || p.batchBytes.CompareAndSwap(current, int64(size)) {
			return
		}
	}
}
