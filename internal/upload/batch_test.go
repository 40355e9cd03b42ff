package upload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/gateway"
	"adconnector/internal/identity"
)

func TestBatches(t *testing.T) {
	t.Parallel()
	sizes := func(s ...int) []int { return s }
	cases := map[string]struct {
		options Options
		assets  []int // sizes in bytes
		batches []int // numbers of objects
	}{
		"none":                        {Options{Workers: 1, BatchSize: 3, BatchBytes: 1000}, nil, nil},
		"limit of objects":            {Options{Workers: 1, BatchSize: 3, BatchBytes: 1000}, sizes(50, 50, 50, 50, 50, 50, 50), sizes(3, 3, 1)},
		"limit of bytes with commas":  {Options{Workers: 1, BatchSize: 100, BatchBytes: 152}, sizes(50, 50, 50, 50), sizes(3, 1)},
		"one byte above the limit":    {Options{Workers: 1, BatchSize: 100, BatchBytes: 151}, sizes(50, 50, 50, 50), sizes(2, 2)},
		"large asset is sent alone":   {Options{Workers: 1, BatchSize: 100, BatchBytes: 200}, sizes(50, 50, 900, 50, 50), sizes(2, 1, 2)},
		"two large assets":            {Options{Workers: 1, BatchSize: 100, BatchBytes: 200}, sizes(900, 900), sizes(1, 1)},
		"assets of exactly the limit": {Options{Workers: 1, BatchSize: 100, BatchBytes: 200}, sizes(200, 200), sizes(1, 1)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, recorded := &fakeSender{t: t}, &memoryJournal{}
			totals, err := Run(t.Context(), f, c.options, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
				buffer := make([]byte, 0, 1000)
				for i, size := range c.assets {
					a := asset(i, size)
					a.JSON = append(buffer[:0], a.JSON...) // a mapper reuses its buffer
					if err := add(a); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil || totals.Uploaded != len(c.assets) || !slices.Equal(recorded.uploaded, upTo(len(c.assets))) {
				t.Fatalf("totals %+v, error %v, uploaded %v", totals, err, recorded.uploaded)
			}
			var counts []int
			for _, call := range f.calls {
				counts = append(counts, len(call.numbers))
			}
			if !slices.Equal(counts, c.batches) {
				t.Errorf("batch sizes %v, want %v", counts, c.batches)
			}
		})
	}
}

// TestWindow checks the limits of concurrent calls and of uncommitted batches.
func TestWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := Options{Workers: 3, BatchSize: 1, BatchBytes: 1000}
		release := make(chan struct{})
		var active, maxActive atomic.Int64
		f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
			maxActive.Store(max(maxActive.Load(), active.Add(1)))
			defer active.Add(-1)
			if c.numbers[0] == 0 { // the first call blocks, so that nothing can be committed
				<-release
			}
			return gateway.BatchResponse{}, nil
		}}
		var added atomic.Int64
		recorded := &memoryJournal{}
		var running sync.WaitGroup
		running.Go(func() {
			_, err := Run(t.Context(), f, o, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
				for n := range 100 {
					if err := add(asset(n, 0)); err != nil {
						return err
					}
					added.Add(1)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		// The window is full, and one more full batch waits.
		if want := int64(o.Workers*windowPerWorker) + 1; added.Load() != want {
			t.Errorf("%d added without a commit, want %d", added.Load(), want)
		}
		if len(recorded.uploaded) != 0 {
			t.Errorf("committed %v before the first object", recorded.uploaded)
		}
		close(release)
		running.Wait()
		if maxActive.Load() > int64(o.Workers) {
			t.Errorf("%d concurrent calls, want at most %d", maxActive.Load(), o.Workers)
		}
		if !slices.Equal(recorded.uploaded, upTo(100)) {
			t.Errorf("uploaded %v", recorded.uploaded)
		}
		if recorded.commits >= 100 { // waiting results are committed together
			t.Errorf("%d commits for 100 batches", recorded.commits)
		}
	})
}

// TestCommitOrder checks that results are committed in the order of the objects.
func TestCommitOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSender{t: t, answer: func(context.Context, call) (gateway.BatchResponse, error) {
			time.Sleep(rand.N(time.Second)) // synctest time
			return gateway.BatchResponse{}, nil
		}}
		recorded := &memoryJournal{}
		totals, err := Run(t.Context(), f, Options{Workers: 8, BatchSize: 7, BatchBytes: 1 << 20}, recorded, produce(upTo(1000)...))
		if err != nil || totals.Uploaded != 1000 || !slices.Equal(recorded.uploaded, upTo(1000)) {
			t.Fatalf("totals %+v, error %v", totals, err)
		}
	})
}

// TestOneValueInFlight checks that two values of an object are never in flight at once.
func TestOneValueInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		inFlight := map[int]bool{}
		var mu sync.Mutex
		var values []string // of object 1, in order of arrival
		f := &fakeSender{t: t}
		f.answer = func(_ context.Context, c call) (gateway.BatchResponse, error) {
			mu.Lock()
			for _, n := range c.numbers {
				if inFlight[n] {
					t.Errorf("object %d is in flight twice", n)
				}
				inFlight[n] = true
			}
			if slices.Contains(c.numbers, 1) {
				values = append(values, fmt.Sprint(c.bytes))
			}
			mu.Unlock()
			time.Sleep(rand.N(time.Second))
			mu.Lock()
			for _, n := range c.numbers {
				delete(inFlight, n)
			}
			mu.Unlock()
			return gateway.BatchResponse{}, nil
		}
		recorded := &memoryJournal{}
		_, err := Run(t.Context(), f, Options{Workers: 8, BatchSize: 1, BatchBytes: 1 << 20}, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
			for i := range 10 {
				for _, a := range []identity.Asset{asset(1, 100+i), asset(100+i, 0), asset(200+i, 0)} {
					if err := add(a); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil || len(recorded.uploaded) != 30 {
			t.Fatalf("uploaded %d, error %v", len(recorded.uploaded), err)
		}
		if len(values) != 10 || !slices.IsSorted(values) {
			t.Errorf("values of object 1 arrived in the order %v", values)
		}
	})
}

// TestConcurrentAdd checks that concurrent calls of add lose no asset, and that only one
// value of an object is in flight.
func TestConcurrentAdd(t *testing.T) {
	t.Parallel()
	const adders, each = 8, 500
	var mu sync.Mutex
	inFlight := map[int]bool{}
	f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range c.numbers {
			if inFlight[n] {
				t.Errorf("object %d is in flight twice", n)
			}
			inFlight[n] = true
		}
		mu.Unlock()
		runtime.Gosched() // let other calls run
		mu.Lock()
		for _, n := range c.numbers {
			delete(inFlight, n)
		}
		return gateway.BatchResponse{}, nil
	}}
	recorded := &memoryJournal{}
	totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 13, BatchBytes: 2000}, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		var adding sync.WaitGroup
		errs := make([]error, adders)
		for i := range adders {
			adding.Go(func() {
				for n := range each {
					id := i*each + n
					if n%100 == 99 {
						id = 1_000_000 // an object that all goroutines add
					}
					if err := add(asset(id, 30+n%50)); err != nil {
						errs[i] = err
						return
					}
				}
			})
		}
		adding.Wait()
		return errors.Join(errs...)
	})
	if err != nil || totals.Uploaded != adders*each {
		t.Fatalf("totals %+v, error %v", totals, err)
	}
	counts := map[int]int{}
	for _, n := range recorded.uploaded {
		counts[n]++
	}
	if len(counts) != adders*(each-5)+1 || counts[1_000_000] != 5*adders {
		t.Errorf("%d objects, the shared one %d times", len(counts), counts[1_000_000])
	}
}

func TestPartData(t *testing.T) {
	t.Parallel()
	b := &batch{}
	for n := range 9 {
		a := asset(n, n*7)
		b.add(a.Object(), a.JSON)
	}
	parts := [][]byte{b.part(0, 4).data, b.part(4, 9).part(0, 2).data, b.part(4, 9).part(2, 5).data}
	if joined := bytes.Join(parts, []byte(",")); !bytes.Equal(joined, b.data) {
		t.Errorf("joined parts:\n%s\nwant\n%s", joined, b.data)
	}
}

// TestFlush checks that all assets added before are committed when flush returns, and that
// assets can be added after it.
func TestFlush(t *testing.T) {
	t.Parallel()
	f, recorded := &fakeSender{t: t}, &memoryJournal{}
	totals, err := Run(t.Context(), f, Options{Workers: 3, BatchSize: 4, BatchBytes: 1 << 20}, recorded, func(_ context.Context, add func(identity.Asset) error, flush func() error) error {
		for n := range 30 {
			if err := add(asset(n, 0)); err != nil {
				return err
			}
			if n%7 != 6 {
				continue
			}
			if err := flush(); err != nil {
				return err
			}
			if got := len(recorded.uploaded); got != n+1 {
				t.Errorf("%d committed after %d assets", got, n+1)
			}
		}
		return flush()
	})
	if err != nil || totals.Uploaded != 30 {
		t.Errorf("%+v, %v", totals, err)
	}
}
