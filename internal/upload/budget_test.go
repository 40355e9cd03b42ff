package upload

import (
	"bytes"
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// TestByteBudget checks that bytes are taken, returned and kept for reuse.
func TestByteBudget(t *testing.T) {
	t.Parallel()
	b := newByteBudget(100, nil)
	if !b.tryAcquire(60) || b.tryAcquire(41) || !b.tryAcquire(40) {
		t.Errorf("%d bytes left", b.free)
	}
	b.recycle(make([]byte, 7, 60), 60)
	if got := b.reuse(); cap(got) != 60 || len(got) != 0 || b.free != 0 || b.reuse() != nil {
		t.Errorf("buffer of %d bytes, %d left", cap(got), b.free)
	}
	b.recycle(make([]byte, 0, 60), 60)
	if !b.tryAcquire(10) || b.free != 50 || b.reuse() != nil { // the buffer is dropped
		t.Errorf("%d bytes left", b.free)
	}
	b.recycle(make([]byte, 0, 50), 49) // too large to keep
	if b.free != 100 || b.reuse() != nil {
		t.Errorf("%d bytes left", b.free)
	}
	if !b.tryAcquire(1) || b.tryAcquire(101) {
		t.Error("more than the bound while bytes are taken")
	}
	b.release(1)
	if !b.tryAcquire(150) || b.tryAcquire(1) { // alone
		t.Errorf("%d bytes left", b.free)
	}
	b.release(150)
	if b.free != 100 {
		t.Errorf("%d bytes left", b.free)
	}
}

// TestByteBudgetWait checks that a waiting caller continues as soon as bytes are returned or a
// buffer is kept for reuse, or its context ends.
func TestByteBudgetWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(*byteBudget, context.CancelFunc){
			"release": func(b *byteBudget, _ context.CancelFunc) { b.release(100) },
			"recycle": func(b *byteBudget, _ context.CancelFunc) { b.recycle(make([]byte, 0, 100), 100) },
			"cancel":  func(_ *byteBudget, cancel context.CancelFunc) { cancel() },
		} {
			b := newByteBudget(100, nil)
			b.tryAcquire(100)
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() {
				_, err := b.acquire(ctx, 80, 99) // another caller has a byte
				result <- err
			}()
			synctest.Wait()
			b.recycle(nil, 100) // without bytes
			synctest.Wait()
			select {
			case err := <-result:
				t.Fatalf("%s: did not wait: %v", name, err)
			default:
			}
			end(b, cancel)
			if err := <-result; (name == "cancel") != (fault.ClassOf(err) == fault.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			cancel()
		}
	})
}

// TestBytesInFlight checks that the bytes of uncommitted batches are bounded, and that add sends
// the current batch before it waits for bytes.
func TestBytesInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const assetBytes, assets = 1000, 50
		var inFlight, maxInFlight, maxUsed atomic.Int64
		usage := &Usage{}
		f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
			maxInFlight.Store(max(maxInFlight.Load(), inFlight.Add(int64(c.bytes))))
			maxUsed.Store(max(maxUsed.Load(), usage.Bytes()))
			time.Sleep(time.Second) // synctest time
			inFlight.Add(-int64(c.bytes))
			return gateway.BatchResponse{}, nil
		}}
		o := Options{Workers: 8, BatchSize: 100, BatchBytes: 10 * assetBytes, maxBytes: 20 * assetBytes, Usage: usage}
		recorded := &memoryJournal{}
		totals, err := Run(t.Context(), f, o, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
			for n := range assets {
				size := assetBytes
				if n%10 == 9 {
					size = 12 * assetBytes // sent alone
				}
				if err := add(asset(n, size)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || totals.Uploaded != assets || !slices.Equal(recorded.uploaded, upTo(assets)) {
			t.Fatalf("totals %+v, error %v", totals, err)
		}
		if got := maxInFlight.Load(); got > o.maxBytes || got < 12*assetBytes {
			t.Errorf("%d bytes in flight, want at most %d", got, o.maxBytes)
		}
		if got := maxUsed.Load(); got > o.maxBytes || got < maxInFlight.Load() || usage.Bytes() != 0 {
			t.Errorf("%d bytes used during the run and %d after it, want at most %d and 0", got, usage.Bytes(), o.maxBytes)
		}
	})
}

// TestFullBatchesWithinBudget checks that add waits for bytes, instead of sending a batch that is not
// full.
func TestFullBatchesWithinBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const assetBytes, assets, batchSize = 1000, 100, 10
		var calls atomic.Int64
		f := &fakeSender{t: t, answer: func(context.Context, call) (gateway.BatchResponse, error) {
			calls.Add(1)
			time.Sleep(time.Second) // synctest time
			return gateway.BatchResponse{}, nil
		}}
		o := Options{Workers: 4, BatchSize: batchSize, BatchBytes: 1 << 20, maxBytes: 3*minBuffer + 25*objectOverhead}
		totals, err := Run(t.Context(), f, o, &memoryJournal{}, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
			for n := range assets {
				if err := add(asset(n, assetBytes)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || totals.Uploaded != assets || calls.Load() != assets/batchSize {
			t.Errorf("%d calls, totals %+v, error %v", calls.Load(), totals, err)
		}
	})
}

// TestTooLarge checks that an asset above the limit is rejected without a call, in its place
// among the others, and that it is not marked in flight.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	huge := make([]byte, identity.MaxAssetBytes+1)
	for name, large := range map[string]func(*identity.Asset){
		"detected by the mapper": func(a *identity.Asset) { a.TooLarge, a.JSON = true, nil },
		"detected by its size":   func(a *identity.Asset) { a.JSON = huge },
	} {
		t.Run(name, func(t *testing.T) {
			var results []state.BatchResult
			recorded := &memoryJournal{}
			journal := hookedJournal{recorded, nil, func(some []state.BatchResult) error { results = append(results, some...); return nil }}
			f := &fakeSender{t: t}
			o := Options{Workers: 2, BatchSize: 4, BatchBytes: 1 << 20}
			totals, err := Run(t.Context(), f, o, journal, func(_ context.Context, add func(identity.Asset) error, flush func() error) error {
				for n := range 20 {
					a := asset(n, 0)
					a.Fingerprint[0] = byte(n)
					if n%3 == 1 || n >= 12 {
						large(&a)
						a.Name = bytes.Repeat([]byte("n"), 5<<20)
					}
					if err := add(a); err != nil {
						return err
					}
				}
				return flush()
			})
			if err != nil || totals != (Totals{Uploaded: 8, Rejected: 12}) || !slices.Equal(recorded.uploaded, []int{0, 2, 3, 5, 6, 8, 9, 11}) ||
				!slices.Equal(recorded.rejected, []int{1, 4, 7, 10, 12, 13, 14, 15, 16, 17, 18, 19}) {
				t.Fatalf("totals %+v, uploaded %v, rejected %v, error %v", totals, recorded.uploaded, recorded.rejected, err)
			}
			for _, n := range recorded.rejected {
				if recorded.reasons[n] != "larger than 16 MiB, not sent" || recorded.isInFlight([]int{n}) {
					t.Errorf("object %d: reason %q, in flight %v", n, recorded.reasons[n], recorded.isInFlight([]int{n}))
				}
			}
			for _, result := range results {
				for _, r := range result.Rejected {
					if int(r.Object.Fingerprint[0]) != number(r.Object) || len(r.Object.Name) > maxNameBytes {
						t.Errorf("fingerprint %x, name of %d bytes", r.Object.Fingerprint, len(r.Object.Name))
					}
				}
			}
			if len(f.calls) != 3 {
				t.Errorf("%d calls", len(f.calls))
			}
		})
	}
}

// TestLargestAsset checks that an asset of the maximum size is sent with the default budget, after
// smaller ones that use it up.
func TestLargestAsset(t *testing.T) {
	t.Parallel()
	f := &fakeSender{t: t}
	totals, err := Run(t.Context(), f, Options{Workers: 2, BatchSize: 500, BatchBytes: 8 << 20}, &memoryJournal{}, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		for n := range 12 {
			if err := add(asset(n, 5<<20)); err != nil {
				return err
			}
		}
		return add(asset(100, identity.MaxAssetBytes))
	})
	if err != nil || totals != (Totals{Uploaded: 13}) {
		t.Errorf("totals %+v, error %v", totals, err)
	}
}

// TestMemory checks the peak of the heap with the largest assets and a slow gateway. The test is
// not parallel, because it measures the heap.
func TestMemory(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	for _, c := range []struct {
		name                   string
		assets, size, tooLarge int
	}{
		{"30 assets of 15 MiB", 30, 15 << 20, 0},
		{"30 assets above the limit among small ones", 20_000, 600, 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := asset(0, c.size).JSON
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			before := m.HeapAlloc
			var mu sync.Mutex
			peak := before
			sample := func() {
				mu.Lock()
				defer mu.Unlock()
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
			run := func(ctx context.Context, sender sender) (Totals, error) {
				return Run(ctx, sender, Options{Workers: 10, BatchSize: 500, BatchBytes: 1 << 20}, discard{}, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
					for n := range c.assets {
						a := asset(n, 0)
						if a.JSON = data; n < c.tooLarge {
							a.TooLarge, a.JSON = true, nil
						}
						if err := add(a); err != nil {
							return err
						}
					}
					return nil
				})
			}
			// In synctest time, a call ends only when add waits for it.
			sender := senderFunc(func() { time.Sleep(time.Second); sample() })
			var totals Totals
			var err error
			synctest.Test(t, func(t *testing.T) { totals, err = run(t.Context(), sender) })
			sample()
			if err != nil || totals != (Totals{Uploaded: c.assets - c.tooLarge, Rejected: c.tooLarge}) {
				t.Errorf("totals %+v, error %v", totals, err)
			}
			growth := peak - before
			if t.Logf("peak %d MiB", growth>>20); growth > max(uint64(MaxBytes(1<<20)), identity.MaxAssetBytes)+identity.MaxAssetBytes { // one buffer is garbage at times
				t.Errorf("peak of %d bytes", growth)
			}
		})
	}
}

// senderFunc is a gateway that accepts everything, and calls a function before that.
type senderFunc func()

func (f senderFunc) Send(context.Context, string, int, []byte) (gateway.BatchResponse, error) {
	f()
	return gateway.BatchResponse{}, nil
}

// discard is a journal without a record.
type discard struct{}

func (discard) MarkInFlight([]state.Batch) error { return nil }
func (discard) Commit([]state.BatchResult) error { return nil }
