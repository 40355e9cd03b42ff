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
		assets  []int // their sizes
		batches []int // their counts
	}{
		"none":                        {Options{Workers: 1, BatchSize: 3, BatchBytes: 1000}, nil, nil},
		"by count":                    {Options{Workers: 1, BatchSize: 3, BatchBytes: 1000}, sizes(50, 50, 50, 50, 50, 50, 50), sizes(3, 3, 1)},
		"by bytes, commas counted":    {Options{Workers: 1, BatchSize: 100, BatchBytes: 152}, sizes(50, 50, 50, 50), sizes(3, 1)},
		"by bytes, one too many":      {Options{Workers: 1, BatchSize: 100, BatchBytes: 151}, sizes(50, 50, 50, 50), sizes(2, 2)},
		"an oversize one goes alone":  {Options{Workers: 1, BatchSize: 100, BatchBytes: 200}, sizes(50, 50, 900, 50, 50), sizes(2, 1, 2)},
		"oversize ones, each alone":   {Options{Workers: 1, BatchSize: 100, BatchBytes: 200}, sizes(900, 900), sizes(1, 1)},
		"one that fits exactly alone": {Options{Workers: 1, BatchSize: 100, BatchBytes: 200}, sizes(200, 200), sizes(1, 1)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, l := &fake{t: t}, &ledger{}
			totals, err := Run(t.Context(), f, c.options, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
				buffer := make([]byte, 0, 1000)
				for i, size := range c.assets {
					a := asset(i, size)
					a.JSON = append(buffer[:0], a.JSON...) // a mapper writes over its buffer
					if err := add(a); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil || totals.Uploaded != len(c.assets) || !slices.Equal(l.delivered, upTo(len(c.assets))) {
				t.Fatalf("totals %+v, error %v, recorded %v", totals, err, l.delivered)
			}
			var counts []int
			for _, call := range f.calls {
				counts = append(counts, len(call.numbers))
			}
			if !slices.Equal(counts, c.batches) {
				t.Errorf("batches of %v, want %v", counts, c.batches)
			}
		})
	}
}

func TestWorkersAndWindowAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := Options{Workers: 3, BatchSize: 1, BatchBytes: 1000}
		release := make(chan struct{})
		var under, most atomic.Int64
		f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			if c.numbers[0] == 0 { // the first one is slow, so nothing can be recorded
				<-release
			}
			return gateway.Answer{}, nil
		}}
		var added atomic.Int64
		l := &ledger{}
		var running sync.WaitGroup
		running.Go(func() {
			_, err := Run(t.Context(), f, o, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
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
		// The window's batches are dispatched, one more is full and waits.
		if want := int64(o.Workers*windowPerWorker) + 1; added.Load() != want {
			t.Errorf("%d added while nothing is recorded, want %d", added.Load(), want)
		}
		if len(l.delivered) != 0 {
			t.Errorf("recorded %v before the first", l.delivered)
		}
		close(release)
		running.Wait()
		if most.Load() > int64(o.Workers) {
			t.Errorf("%d calls at a time, want at most %d", most.Load(), o.Workers)
		}
		if !slices.Equal(l.delivered, upTo(100)) {
			t.Errorf("recorded %v", l.delivered)
		}
		if l.writes >= 100 { // what piled up behind the first went in together
			t.Errorf("%d records for 100 batches", l.writes)
		}
	})
}

func TestRecordsInOrderWhateverCompletesFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, answer: func(context.Context, call) (gateway.Answer, error) {
			time.Sleep(rand.N(time.Second)) // of the bubble's time
			return gateway.Answer{}, nil
		}}
		l := &ledger{}
		totals, err := Run(t.Context(), f, Options{Workers: 8, BatchSize: 7, BatchBytes: 1 << 20}, l, produce(upTo(1000)...))
		if err != nil || totals.Uploaded != 1000 || !slices.Equal(l.delivered, upTo(1000)) {
			t.Fatalf("totals %+v, error %v", totals, err)
		}
	})
}

func TestOneObjectIsNeverUnderWayTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		under := map[int]bool{}
		var mu sync.Mutex
		var values []string // of object 1, as they arrived
		f := &fake{t: t}
		f.answer = func(_ context.Context, c call) (gateway.Answer, error) {
			mu.Lock()
			for _, n := range c.numbers {
				if under[n] {
					t.Errorf("object %d is under way twice", n)
				}
				under[n] = true
			}
			if slices.Contains(c.numbers, 1) {
				values = append(values, fmt.Sprint(c.bytes))
			}
			mu.Unlock()
			time.Sleep(rand.N(time.Second))
			mu.Lock()
			for _, n := range c.numbers {
				delete(under, n)
			}
			mu.Unlock()
			return gateway.Answer{}, nil
		}
		l := &ledger{}
		_, err := Run(t.Context(), f, Options{Workers: 8, BatchSize: 1, BatchBytes: 1 << 20}, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
			for i := range 10 {
				for _, a := range []identity.Asset{asset(1, 100+i), asset(100+i, 0), asset(200+i, 0)} {
					if err := add(a); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil || len(l.delivered) != 30 {
			t.Fatalf("recorded %d, error %v", len(l.delivered), err)
		}
		if len(values) != 10 || !slices.IsSorted(values) {
			t.Errorf("values of one object arrived in the order %v", values)
		}
	})
}

// TestAddFromSeveral: none is lost or mixed up, and of one object only one value is
// under way.
func TestAddFromSeveral(t *testing.T) {
	t.Parallel()
	const adders, each = 8, 500
	var mu sync.Mutex
	under := map[int]bool{}
	f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range c.numbers {
			if under[n] {
				t.Errorf("object %d is under way twice", n)
			}
			under[n] = true
		}
		mu.Unlock()
		runtime.Gosched() // the others' turn
		mu.Lock()
		for _, n := range c.numbers {
			delete(under, n)
		}
		return gateway.Answer{}, nil
	}}
	l := &ledger{}
	totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 13, BatchBytes: 2000}, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		var adding sync.WaitGroup
		errs := make([]error, adders)
		for i := range adders {
			adding.Go(func() {
				for n := range each {
					id := i*each + n
					if n%100 == 99 {
						id = 1_000_000 // which all of them have
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
	times := map[int]int{}
	for _, n := range l.delivered {
		times[n]++
	}
	if len(times) != adders*(each-5)+1 || times[1_000_000] != 5*adders {
		t.Errorf("%d objects, the common one %d times", len(times), times[1_000_000])
	}
}

func TestDataOfPartsStaysWhole(t *testing.T) {
	t.Parallel()
	b := &batch{}
	for n := range 9 {
		b.add(asset(n, n*7))
	}
	parts := [][]byte{b.part(0, 4).data, b.part(4, 9).part(0, 2).data, b.part(4, 9).part(2, 5).data}
	if joined := bytes.Join(parts, []byte(",")); !bytes.Equal(joined, b.data) {
		t.Errorf("parts make\n%s\nof\n%s", joined, b.data)
	}
}

// TestSettle: what was added before is in the journal when settle returns, and what
// comes after it is sent as well.
func TestSettle(t *testing.T) {
	t.Parallel()
	f, l := &fake{t: t}, &ledger{}
	totals, err := Run(t.Context(), f, Options{Workers: 3, BatchSize: 4, BatchBytes: 1 << 20}, l, func(_ context.Context, add func(identity.Asset) error, settle func() error) error {
		for n := range 30 {
			if err := add(asset(n, 0)); err != nil {
				return err
			}
			if n%7 != 6 {
				continue
			}
			if err := settle(); err != nil {
				return err
			}
			if got := len(l.delivered); got != n+1 {
				t.Errorf("%d in the journal after %d", got, n+1)
			}
		}
		return settle()
	})
	if err != nil || totals.Uploaded != 30 {
		t.Errorf("%+v, %v", totals, err)
	}
}
