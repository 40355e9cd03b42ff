// Package upload delivers assets to the gateway: it makes batches, bounded in
// objects and in bytes, and sends them with a pool of workers.
//
// It guarantees that every asset ends up delivered or rejected, or that Run
// returns an error; that a batch is announced to the journal before it is sent,
// and that what was acknowledged is recorded even after an error; that records
// come in the order in which assets were added; that two values of one
// object are never under way together, so an older one cannot overtake a newer
// one; and that memory is bounded by the batches under way. It does not repeat
// calls whose outcome is unknown: the gateway's client does.
package upload

import (
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

// Sender is the gateway, as far as batches are concerned.
type Sender interface {
	Send(ctx context.Context, requestID string, count int, assets []byte) (gateway.Answer, error)
}

// Journal is where deliveries are written down.
type Journal interface {
	// MarkInFlight is told of batches before they are sent.
	MarkInFlight([]state.Batch) error
	// Commit is told what became of them.
	Commit([]state.BatchResult) error
}

// Options bound the work.
type Options struct {
	Workers    int // calls at a time
	BatchSize  int // objects in a batch
	BatchBytes int // bytes of a batch's assets; a larger asset goes alone
	// NeverAcknowledged says that the gateway has never taken anything from us: when it
	// rejects one object after the other, the fault is hardly the objects'.
	NeverAcknowledged bool
}

// Totals counts what became of a run's assets.
type Totals struct {
	Uploaded, Deleted, Rejected int // each asset is one of them
}

const (
	// windowPerWorker bounds the batches that are sent and not yet recorded,
	// because an earlier one is still under way.
	windowPerWorker = 4
	// hopeless is how many objects an untried gateway rejects before it has taken
	// one: splitting a whole directory into single objects would cost two calls for
	// each.
	hopeless = 500
)

// operation is that of errors that no single call or record causes.
var operation = fault.Operation{Op: "upload"}

// Run sends what produce adds, from one goroutine or from several. It tells the
// journal of batches and, in their order, of receipts, and returns after the last
// of them. Produce runs in the calling goroutine and must return when its context
// has ended or add returns an error. Its settle waits until the journal has the
// receipts of everything that was added before.
func Run(ctx context.Context, sender Sender, o Options, journal Journal, produce func(ctx context.Context, add func(identity.Asset) error, settle func() error) error) (Totals, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	size := int64(o.Workers * windowPerWorker)
	p := &pool{
		sender: sender, options: o, journal: journal,
		filled:  make(chan *batch, o.Workers),
		queue:   make(chan *batch),
		results: make(chan state.BatchResult, size),
		window:  semaphore.NewWeighted(size), size: size,
		pending: map[ad.GUID]struct{}{},
		spare:   make(chan []byte, o.Workers),
	}
	p.batchBytes.Store(int64(o.BatchBytes))

	var workers, recorder sync.WaitGroup
	for range o.Workers {
		workers.Go(func() { p.work(ctx, cancel) })
	}
	workers.Go(func() { p.announce(ctx, cancel) })
	recorder.Go(func() { p.record(cancel) })

	err := produce(ctx, func(asset identity.Asset) error { return p.add(ctx, asset) }, func() error { return p.settle(ctx) })
	if err == nil {
		err = p.dispatch(ctx)
	}
	close(p.filled)
	workers.Wait()
	close(p.results)
	recorder.Wait()
	if err == nil && p.complete == p.batches {
		return p.totals, nil // whoever wanted to stop it then came too late
	}
	// What stopped the pool is the cause; that produce was stopped follows from it.
	if ctx.Err() != nil && (err == nil || fault.ClassOf(err) == fault.Canceled) {
		err = context.Cause(ctx)
		if _, is := errors.AsType[*fault.Error](err); !is { // whoever called Run ended it
			err = operation.Failed(fault.ClassOf(err), err, "")
		}
	}
	return p.totals, err
}

type pool struct {
	sender  Sender
	journal Journal
	options Options

	adding     sync.Mutex // guards the two below; whoever waits with it holds the others up
	batch      *batch     // being filled
	batches    int
	batchBytes atomic.Int64 // shrinks when the gateway finds a batch too large

	filled  chan *batch // to be announced
	queue   chan *batch // to be sent
	results chan state.BatchResult
	window  *semaphore.Weighted // batches that are not recorded yet
	size    int64
	spare   chan []byte // data of batches that were sent, to be filled again

	mu      sync.Mutex
	pending map[ad.GUID]struct{} // objects of those batches

	delivered, alone atomic.Int64 // objects taken; objects rejected when sent alone
	totals           Totals
	complete         int // batches that are recorded whole
}

func (p *pool) add(ctx context.Context, asset identity.Asset) error {
	p.adding.Lock()
	defer p.adding.Unlock()
	if p.isPending(asset.GUID) {
		if err := p.drain(ctx); err != nil {
			return err
		}
	}
	if b := p.batch; b != nil && (len(b.Objects) >= p.options.BatchSize || int64(len(b.data)+len(asset.JSON)+1) > p.batchBytes.Load()) {
		if err := p.dispatch(ctx); err != nil {
			return err
		}
	}
	if p.batch == nil {
		p.batch = &batch{Batch: state.Batch{Number: p.batches}}
		p.batches++
		select {
		case p.batch.data = <-p.spare:
		default:
		}
	}
	p.batch.add(asset)
	p.mu.Lock()
	p.pending[asset.GUID] = struct{}{}
	p.mu.Unlock()
	return nil
}

func (p *pool) isPending(guid ad.GUID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, pending := p.pending[guid]
	return pending
}

// dispatch hands the batch at hand on, once the window has room for it.
func (p *pool) dispatch(ctx context.Context) error {
	if p.batch == nil {
		return nil
	}
	if err := p.window.Acquire(ctx, 1); err != nil {
		return stopped(ctx)
	}
	select {
	case p.filled <- p.batch:
		p.batch = nil
		return nil
	case <-ctx.Done():
		return stopped(ctx)
	}
}

// settle is drain for whoever does not add at the moment.
func (p *pool) settle(ctx context.Context) error {
	p.adding.Lock()
	defer p.adding.Unlock()
	return p.drain(ctx)
}

// drain waits until everything added so far is recorded.
func (p *pool) drain(ctx context.Context) error {
	if err := p.dispatch(ctx); err != nil {
		return err
	}
	if err := p.window.Acquire(ctx, p.size); err != nil {
		return stopped(ctx)
	}
	p.window.Release(p.size)
	return nil
}

func stopped(ctx context.Context) error {
	return operation.Failed(fault.Canceled, ctx.Err(), "")
}

// announce passes batches on to the workers once the journal has them, as many at
// a time as are there: one transaction then takes them all.
func (p *pool) announce(ctx context.Context, cancel context.CancelCauseFunc) {
	defer close(p.queue)
	for b := range p.filled {
		batches := []*batch{b}
		for more := true; more; {
			select {
			case b, more = <-p.filled:
				if more {
					batches = append(batches, b)
				}
			default:
				more = false
			}
		}
		announced := make([]state.Batch, len(batches))
		for i, b := range batches {
			announced[i] = b.Batch
		}
		if ctx.Err() != nil {
			return
		}
		if err := p.journal.MarkInFlight(announced); err != nil {
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

// record passes receipts on in the order of their batches, as many at a time as
// are there: one transaction then takes them all.
func (p *pool) record(cancel context.CancelCauseFunc) {
	waiting := map[int]state.BatchResult{}
	next := 0
	failed := false
	write := func(ready []state.BatchResult) {
		if len(ready) == 0 || failed {
			return
		}
		if err := p.journal.Commit(ready); err != nil {
			failed = true
			cancel(err)
			return
		}
		for _, receipt := range ready {
			p.release(receipt)
		}
	}
	for receipt := range p.results {
		waiting[receipt.Batch] = receipt
		if len(p.results) > 0 {
			continue
		}
		var ready []state.BatchResult
		for receipt, there := waiting[next]; there; receipt, there = waiting[next] {
			ready = append(ready, receipt)
			delete(waiting, next)
			next++
		}
		write(ready)
	}
	// After a failure some numbers never come. What was acknowledged behind them
	// counts all the same.
	var ready []state.BatchResult
	for _, number := range slices.Sorted(maps.Keys(waiting)) {
		ready = append(ready, waiting[number])
	}
	write(ready)
}

// release makes room in the window for what is recorded, and counts it.
func (p *pool) release(receipt state.BatchResult) {
	p.mu.Lock()
	for _, object := range receipt.Acknowledged {
		delete(p.pending, object.GUID)
		if object.Deleted {
			p.totals.Deleted++
		} else {
			p.totals.Uploaded++
		}
	}
	for _, rejected := range receipt.Rejected {
		delete(p.pending, rejected.Object.GUID)
	}
	p.mu.Unlock()
	p.totals.Rejected += len(receipt.Rejected)
	if receipt.Complete {
		p.complete++
	}
	p.window.Release(1)
}
