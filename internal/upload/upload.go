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
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/semaphore"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
)

// Sender is the gateway, as far as batches are concerned.
type Sender interface {
	Send(ctx context.Context, requestID string, count int, assets []byte) (gateway.Answer, error)
}

// Journal is where deliveries are written down.
type Journal interface {
	// Announce is told of batches before they are sent.
	Announce([]Batch) error
	// Record is told what became of them.
	Record([]Receipt) error
}

// Options bound the work.
type Options struct {
	Workers    int // calls at a time
	BatchSize  int // objects in a batch
	BatchBytes int // bytes of a batch's assets; a larger asset goes alone
	// Untried says that the gateway has never taken anything from us: when it
	// rejects one object after the other, the fault is hardly the objects'.
	Untried bool
}

// Object is what is known of an asset once its bytes have been sent.
type Object struct {
	Kind        identity.Kind
	GUID        ad.GUID
	SID         ad.SID
	Name        string
	Fingerprint identity.Fingerprint
	Due         time.Time
	Deleted     bool
}

// Batch is what is sent in one call, unless the gateway wants it in parts.
type Batch struct {
	Number  int // from 0, in the order of their objects
	Objects []Object
}

// Rejection is an object that the gateway does not take, and its words.
type Rejection struct {
	Object Object
	Reason string
}

// Receipt is what became of a batch's objects. Of those that it does not name
// nobody knows: the batch is not complete.
type Receipt struct {
	Batch     int
	Complete  bool
	Delivered []Object
	Rejected  []Rejection
}

// Totals counts what became of a run's assets.
type Totals struct {
	Delivered, Deleted, Rejected int // each asset is one of them
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
		results: make(chan Receipt, size),
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
	if ctx.Err() != nil && (err == nil || fault.Of(err) == fault.Canceled) {
		err = fmt.Errorf("upload: %w", context.Cause(ctx))
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
	results chan Receipt
	window  *semaphore.Weighted // batches that are not recorded yet
	size    int64
	spare   chan []byte // data of batches that were sent, to be filled again

	mu      sync.Mutex
	pending map[ad.GUID]struct{} // objects of those batches

	delivered, alone atomic.Int64 // objects taken; objects rejected when sent alone
	totals           Totals
	complete         int // batches that are recorded whole
}

type batch struct {
	number  int
	objects []Object
	ends    []int // where each object's JSON ends in data
	data    []byte
}

func (p *pool) add(ctx context.Context, asset identity.Asset) error {
	p.adding.Lock()
	defer p.adding.Unlock()
	if p.isPending(asset.GUID) {
		if err := p.drain(ctx); err != nil {
			return err
		}
	}
	if b := p.batch; b != nil && (len(b.objects) >= p.options.BatchSize || int64(len(b.data)+len(asset.JSON)+1) > p.batchBytes.Load()) {
		if err := p.dispatch(ctx); err != nil {
			return err
		}
	}
	if p.batch == nil {
		p.batch = &batch{number: p.batches}
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

func (b *batch) add(asset identity.Asset) {
	if len(b.data) > 0 {
		b.data = append(b.data, ',')
	}
	b.data = append(b.data, asset.JSON...)
	b.ends = append(b.ends, len(b.data))
	b.objects = append(b.objects, Object{
		Kind: asset.Kind, GUID: asset.GUID, SID: append(ad.SID(nil), asset.SID...), Name: string(asset.Name), Fingerprint: asset.Fingerprint,
		Due: asset.Due, Deleted: asset.Deleted,
	})
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
	return fault.Errorf(fault.Canceled, "upload: %w", ctx.Err())
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
		announced := make([]Batch, len(batches))
		for i, b := range batches {
			announced[i] = Batch{b.number, b.objects}
		}
		if ctx.Err() != nil {
			return
		}
		if err := p.journal.Announce(announced); err != nil {
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
			if len(receipt.Delivered)+len(receipt.Rejected) == 0 {
				continue // nothing was settled before it
			}
		}
		receipt.Batch, receipt.Complete = b.number, err == nil
		p.results <- receipt
	}
}

// deliver sends a batch and, where the gateway does not take it whole, its parts.
// With an error it returns what was settled before.
func (p *pool) deliver(ctx context.Context, b *batch) (Receipt, error) {
	if len(b.objects) > 1 && int64(len(b.data)) > p.batchBytes.Load() { // made before that was found to be too large
		return p.deliverParts(ctx, b, (len(b.objects)+1)/2)
	}
	answer, err := p.sender.Send(ctx, uuid.NewString(), len(b.objects), b.data)
	if err != nil {
		return Receipt{}, fmt.Errorf("batch %d: %w", b.number, err)
	}
	if answer.Outcome == gateway.Partly && !answer.Unattributed {
		if receipt := b.sort(answer.Rejected); len(receipt.Rejected) == len(answer.Rejected) {
			p.delivered.Add(int64(len(receipt.Delivered)))
			return receipt, nil
		}
	}
	switch {
	case answer.Outcome == gateway.Taken:
		p.delivered.Add(int64(len(b.objects)))
		return Receipt{Delivered: b.objects}, nil
	case len(b.objects) == 1:
		return p.isolated(Rejection{b.objects[0], b.reason(answer)})
	case answer.Outcome == gateway.Partly: // by somebody whom only sending one by one finds
		return p.deliverParts(ctx, b, 1)
	case answer.Outcome == gateway.TooLarge:
		p.shrink(len(b.data) / 2)
	}
	return p.deliverParts(ctx, b, (len(b.objects)+1)/2)
}

// deliverParts sends a batch again in parts of so many objects.
func (p *pool) deliverParts(ctx context.Context, b *batch, size int) (Receipt, error) {
	var all Receipt
	for from := 0; from < len(b.objects); from += size {
		part, err := p.deliver(ctx, b.part(from, min(from+size, len(b.objects))))
		all.Delivered = append(all.Delivered, part.Delivered...)
		all.Rejected = append(all.Rejected, part.Rejected...)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// isolated takes note of an object that was rejected alone, and ends a run in
// which an untried gateway takes nothing at all.
func (p *pool) isolated(r Rejection) (Receipt, error) {
	receipt := Receipt{Rejected: []Rejection{r}}
	if n := p.alone.Add(1); p.options.Untried && n >= hopeless && p.delivered.Load() == 0 {
		return receipt, fault.Errorf(fault.Refused, "the gateway rejected the first %d objects one by one and took none, so the fault is not theirs: check qualys.customerUuid, qualys.profileUuid and gateway.source, and what it says of them (adconnector status)", n)
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

// part is the batch of objects from up to to.
func (b *batch) part(from, to int) *batch {
	start := 0
	if from > 0 {
		start = b.ends[from-1] + 1 // behind the comma
	}
	part := &batch{number: b.number, objects: b.objects[from:to], data: b.data[start:b.ends[to-1]]}
	for _, end := range b.ends[from:to] {
		part.ends = append(part.ends, end-start)
	}
	return part
}

// sort tells the rejected objects, named by either ID, from the others.
func (b *batch) sort(rejected map[string]string) Receipt {
	var r Receipt
	for _, object := range b.objects {
		reason, found := rejected[identity.ExternalID(object.Kind, object.SID)]
		if !found {
			reason, found = rejected[object.GUID.String()]
		}
		if found {
			r.Rejected = append(r.Rejected, Rejection{object, reason})
		} else {
			r.Delivered = append(r.Delivered, object)
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

// record passes receipts on in the order of their batches, as many at a time as
// are there: one transaction then takes them all.
func (p *pool) record(cancel context.CancelCauseFunc) {
	waiting := map[int]Receipt{}
	next := 0
	failed := false
	write := func(ready []Receipt) {
		if len(ready) == 0 || failed {
			return
		}
		if err := p.journal.Record(ready); err != nil {
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
		var ready []Receipt
		for receipt, there := waiting[next]; there; receipt, there = waiting[next] {
			ready = append(ready, receipt)
			delete(waiting, next)
			next++
		}
		write(ready)
	}
	// After a failure some numbers never come. What was acknowledged behind them
	// counts all the same.
	var ready []Receipt
	for _, number := range slices.Sorted(maps.Keys(waiting)) {
		ready = append(ready, waiting[number])
	}
	write(ready)
}

// release makes room in the window for what is recorded, and counts it.
func (p *pool) release(receipt Receipt) {
	p.mu.Lock()
	for _, object := range receipt.Delivered {
		delete(p.pending, object.GUID)
		if object.Deleted {
			p.totals.Deleted++
		} else {
			p.totals.Delivered++
		}
	}
	for _, rejection := range receipt.Rejected {
		delete(p.pending, rejection.Object.GUID)
	}
	p.mu.Unlock()
	p.totals.Rejected += len(receipt.Rejected)
	if receipt.Complete {
		p.complete++
	}
	p.window.Release(1)
}
