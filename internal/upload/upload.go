// Package upload sends assets to the gateway in batches, with a pool of workers.
// Batches are bounded in objects and bytes.
//
// It guarantees:
//   - Every asset is acknowledged or rejected, or Run returns an error.
//   - The journal marks a batch in flight before the batch is sent.
//   - Acknowledged objects are committed even after an error.
//   - Results are committed in the order in which the assets were added.
//   - At most one value of an object is in flight, so that an older value cannot
//     overwrite a newer one.
//   - The number of batches in flight and their bytes bound the memory.
//   - An asset above identity.MaxAssetBytes is rejected without a call.
//
// It does not retry calls: the gateway client does.
package upload

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// sender sends one batch to the gateway.
type sender interface {
	Send(ctx context.Context, requestID string, count int, assets []byte) (gateway.BatchResponse, error)
}

// journal records batches and their results.
type journal interface {
	// MarkInFlight records batches before they are sent.
	MarkInFlight([]state.Batch) error
	// Commit records the results of batches.
	Commit([]state.BatchResult) error
}

// Options are the limits of an upload.
type Options struct {
	Workers    int // concurrent calls
	BatchSize  int // maximum number of objects in a batch
	BatchBytes int // maximum size of the assets of a batch; a larger asset is sent alone
	// NeverAcknowledged means that the gateway has not acknowledged any object before
	// this run. If it then rejects every object, Run returns an error of class Refused.
	NeverAcknowledged bool
	// Usage counts the bytes that Run holds; nil: not counted.
	Usage *Usage

	maxBytes int64 // for tests; 0: see minBytes
}

// Totals counts the assets of a run by their result.
type Totals struct {
	Uploaded, Deleted, Rejected int // Uploaded and Deleted are acknowledged
}

const (
	// windowPerWorker is the number of uncommitted batches per worker. Batches are
	// committed in order, so that a slow one delays those after it.
	windowPerWorker = 4
	// maxNameBytes is the maximum size of the name of a rejected asset that is too large. The
	// name attribute of Active Directory has at most 255 characters.
	maxNameBytes = 1024
)

// uploadOperation is the operation of errors that no call or transaction returns.
var uploadOperation = fault.Operation{Op: "upload"}

// Run sends the assets that produce adds. It records batches and their results in the
// journal, and returns after the last result is recorded.
//
// Run calls produce in the calling goroutine. produce must return when its context is done
// or add returns an error. It may call add concurrently. flush waits until the results of
// all assets added before are committed.
func Run(ctx context.Context, sender sender, o Options, journal journal, produce func(ctx context.Context, add func(identity.Asset) error, flush func() error) error) (Totals, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	windowSize := int64(o.Workers * windowPerWorker)
	p := &pool{
		sender: sender, options: o, journal: journal,
		filled:  make(chan *batch, o.Workers),
		queue:   make(chan *batch),
		results: make(chan state.BatchResult, windowSize),
		window:  semaphore.NewWeighted(windowSize), windowSize: windowSize,
		pending: map[ad.GUID]struct{}{},
		budget:  newByteBudget(cmp.Or(o.maxBytes, MaxBytes(o.BatchBytes)), o.Usage),
	}
	defer o.Usage.set(0)
	p.batchBytes.Store(int64(o.BatchBytes))

	var workers, committer sync.WaitGroup
	for range o.Workers {
		workers.Go(func() { p.sendBatches(ctx, cancel) })
	}
	workers.Go(func() { p.markInFlight(ctx, cancel) })
	committer.Go(func() { p.commitResults(cancel) })

	err := produce(ctx, func(asset identity.Asset) error { return p.add(ctx, asset) }, func() error { return p.flush(ctx) })
	if err == nil {
		err = p.dispatch(ctx)
	}
	close(p.filled)
	workers.Wait()
	close(p.results)
	committer.Wait()
	if err == nil && p.complete == p.batches {
		return p.totals, nil // a cancellation after the last commit has no effect
	}
	// The cause of the cancellation matters, not the resulting error of produce.
	if ctx.Err() != nil && (err == nil || fault.ClassOf(err) == fault.Canceled) {
		err = context.Cause(ctx)
		if _, is := errors.AsType[*fault.Error](err); !is { // the caller canceled ctx
			err = uploadOperation.Failed(fault.ClassOf(err), err, "")
		}
	}
	return p.totals, err
}

type pool struct {
	sender  sender
	journal journal
	options Options

	addMu      sync.Mutex   // guards batch and batches; a blocked add blocks the other callers
	batch      *batch       // the batch to which add appends
	batches    int          // number of batches
	batchBytes atomic.Int64 // reduced when a batch is too large for the gateway or the connection

	filled     chan *batch // to be marked in flight
	queue      chan *batch // to be sent
	results    chan state.BatchResult
	window     *semaphore.Weighted // uncommitted batches
	windowSize int64
	budget     *byteBudget // of the batches until they are committed

	mu      sync.Mutex
	pending map[ad.GUID]struct{} // objects of uncommitted batches

	rejections rejectionCount
	totals     Totals
	complete   int // batches whose complete result is committed
}

// add appends an asset to the current batch, which is dispatched first if it is full.
func (p *pool) add(ctx context.Context, asset identity.Asset) error {
	p.addMu.Lock()
	defer p.addMu.Unlock()
	p.mu.Lock()
	_, pending := p.pending[asset.GUID]
	p.mu.Unlock()
	if pending {
		if err := p.flushLocked(ctx); err != nil {
			return err
		}
	}
	tooLarge := asset.TooLarge || len(asset.JSON) > identity.MaxAssetBytes
	if tooLarge {
		asset.JSON, asset.Name = nil, asset.Name[:min(len(asset.Name), maxNameBytes)]
	}
	if b := p.batch; b != nil && (b.size() >= p.options.BatchSize || int64(len(b.data)+len(asset.JSON)+1) > p.batchBytes.Load()) {
		if err := p.dispatch(ctx); err != nil {
			return err
		}
	}
	object := asset.Object()
	if err := p.reserve(ctx, objectBytes(object), len(asset.JSON)); err != nil {
		return err
	}
	if tooLarge {
		p.batch.rejected = append(p.batch.rejected, state.RejectedObject{Object: object, Reason: reasonTooLarge})
	} else {
		p.batch.add(object, asset.JSON)
	}
	p.mu.Lock()
	p.pending[asset.GUID] = struct{}{}
	p.mu.Unlock()
	return nil
}

// reserve takes the bytes of an object from the budget, and makes room for its JSON in the
// current batch. If the budget is used up, it waits for other batches: a batch that is not full would
// take another call. Without other batches, it uses a new one.
func (p *pool) reserve(ctx context.Context, object int64, json int) error {
	need := json + 1 // with the comma
	if b := p.batch; b != nil {
		capacity := grownCapacity(cap(b.data), len(b.data)+need, p.options.BatchBytes)
		need := object + int64(capacity-cap(b.data))
		acquired, err := p.budget.acquire(ctx, need, b.bytes)
		if err != nil {
			return err
		}
		if acquired {
			b.bytes += need
			b.grow(capacity)
			return nil
		}
		// The bytes of a batch are released only after it is dispatched.
		if err := p.dispatch(ctx); err != nil {
			return err
		}
	}
	data := p.budget.reuse()
	if cap(data) < need {
		p.budget.release(int64(cap(data)))
		data = nil
	}
	capacity := grownCapacity(cap(data), need, p.options.BatchBytes)
	if _, err := p.budget.acquire(ctx, object+int64(capacity-cap(data)), 0); err != nil {
		return err
	}
	p.batch = &batch{Batch: state.Batch{Number: p.batches}, data: data, bytes: object + int64(capacity)}
	p.batch.grow(capacity)
	p.batches++
	return nil
}

// dispatch queues the current batch once the window has room for it.
func (p *pool) dispatch(ctx context.Context) error {
	if p.batch == nil {
		return nil
	}
	if err := p.window.Acquire(ctx, 1); err != nil {
		return canceled(ctx)
	}
	select {
	case p.filled <- p.batch:
		p.batch = nil
		return nil
	case <-ctx.Done():
		return canceled(ctx)
	}
}

// flush waits until the results of all added assets are committed.
func (p *pool) flush(ctx context.Context) error {
	p.addMu.Lock()
	defer p.addMu.Unlock()
	return p.flushLocked(ctx)
}

// flushLocked is flush for a caller that holds addMu.
func (p *pool) flushLocked(ctx context.Context) error {
	if err := p.dispatch(ctx); err != nil {
		return err
	}
	if err := p.window.Acquire(ctx, p.windowSize); err != nil {
		return canceled(ctx)
	}
	p.window.Release(p.windowSize)
	return nil
}

func canceled(ctx context.Context) error {
	return uploadOperation.Failed(fault.Canceled, ctx.Err(), "")
}

// markInFlight marks the filled batches in flight and then queues them for the workers.
// It records all waiting batches in one transaction.
func (p *pool) markInFlight(ctx context.Context, cancel context.CancelCauseFunc) {
	defer close(p.queue)
	for b := range p.filled {
		batches := p.appendFilled([]*batch{b})
		inFlight := make([]state.Batch, len(batches))
		for i, b := range batches {
			inFlight[i] = b.Batch
		}
		if ctx.Err() != nil {
			return
		}
		if err := p.journal.MarkInFlight(inFlight); err != nil {
			cancel(err)
			return
		}
		for _, b := range batches {
			select {
			case p.queue <- b:
			case <-ctx.Done():
				return
			}
		}
	}
}

// appendFilled appends the filled batches that are available without waiting.
func (p *pool) appendFilled(batches []*batch) []*batch {
	for {
		select {
		case b, open := <-p.filled:
			if !open {
				return batches
			}
			batches = append(batches, b)
		default:
			return batches
		}
	}
}

// commitResults commits the results in the order of their batches. It commits all
// consecutive results that are available in one transaction.
func (p *pool) commitResults(cancel context.CancelCauseFunc) {
	pending := map[int]state.BatchResult{}
	next := 0
	failed := false
	commit := func(ready []state.BatchResult) {
		if len(ready) == 0 || failed {
			return
		}
		if err := p.journal.Commit(ready); err != nil {
			failed = true
			cancel(err)
			return
		}
		for _, result := range ready {
			p.release(result)
		}
	}
	for result := range p.results {
		pending[result.Batch] = result
		if len(p.results) > 0 {
			continue
		}
		var ready []state.BatchResult
		for result, found := pending[next]; found; result, found = pending[next] {
			ready = append(ready, result)
			delete(pending, next)
			next++
		}
		commit(ready)
	}
	// After a failure some batches have no result. The results of later batches are
	// committed nevertheless.
	var ready []state.BatchResult
	for _, number := range slices.Sorted(maps.Keys(pending)) {
		ready = append(ready, pending[number])
	}
	commit(ready)
}

// release counts a committed result and frees its place in the window and its bytes.
func (p *pool) release(result state.BatchResult) {
	bytes := int64(0)
	p.mu.Lock()
	for _, object := range result.Acknowledged {
		bytes += objectBytes(object)
		delete(p.pending, object.GUID)
		if object.Deleted {
			p.totals.Deleted++
		} else {
			p.totals.Uploaded++
		}
	}
	for _, rejected := range result.Rejected {
		bytes += objectBytes(rejected.Object)
		delete(p.pending, rejected.Object.GUID)
	}
	p.mu.Unlock()
	p.totals.Rejected += len(result.Rejected)
	if result.Complete {
		p.complete++
	}
	p.budget.release(bytes)
	p.window.Release(1)
}
