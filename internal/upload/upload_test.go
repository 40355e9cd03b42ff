package upload

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
)

// asset is the n-th object. Its JSON is padded to size bytes where that is longer.
func asset(n, size int) identity.Asset {
	var guid ad.GUID
	binary.BigEndian.PutUint32(guid[12:], uint32(n))
	sid := binary.LittleEndian.AppendUint32([]byte{1, 1, 0, 0, 0, 0, 0, 5}, uint32(n))
	text := fmt.Sprintf(`{"n":%d,"pad":""}`, n)
	text = strings.Replace(text, `""`, `"`+strings.Repeat("x", max(0, size-len(text)))+`"`, 1)
	return identity.Asset{Kind: identity.User, GUID: guid, SID: sid, Name: []byte(fmt.Sprint("user", n)), JSON: []byte(text)}
}

func number(o Object) int { return int(binary.BigEndian.Uint32(o.GUID[12:])) }

// call is one batch as the gateway sees it.
type call struct {
	numbers []int
	bytes   int
}

// fake is a gateway: it reads every batch and answers as it is told.
type fake struct {
	t      *testing.T
	answer func(ctx context.Context, c call) (gateway.Answer, error)

	mu       sync.Mutex
	calls    []call
	requests map[string]bool
}

func (f *fake) Send(ctx context.Context, request string, count int, assets []byte) (gateway.Answer, error) {
	var items []struct{ N int }
	if err := json.Unmarshal(slices.Concat([]byte("["), assets, []byte("]")), &items); err != nil {
		f.t.Errorf("batch is not JSON: %v", err)
	}
	if len(items) != count || count == 0 {
		f.t.Errorf("batch has %d assets and says %d", len(items), count)
	}
	c := call{bytes: len(assets)}
	for _, item := range items {
		c.numbers = append(c.numbers, item.N)
	}
	f.mu.Lock()
	if f.requests[request] {
		f.t.Errorf("request ID %s is used twice", request)
	}
	if f.requests == nil {
		f.requests = map[string]bool{}
	}
	f.requests[request] = true
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	if f.answer == nil {
		return gateway.Answer{}, nil
	}
	return f.answer(ctx, c)
}

// ledger is what was recorded.
type ledger struct {
	delivered, rejected []int
	reasons             map[int]string
	writes              int
}

func (l *ledger) record(receipts []Receipt) error {
	l.writes++
	for _, receipt := range receipts {
		for _, o := range receipt.Delivered {
			l.delivered = append(l.delivered, number(o))
		}
		for _, r := range receipt.Rejected {
			l.rejected = append(l.rejected, number(r.Object))
			if l.reasons == nil {
				l.reasons = map[int]string{}
			}
			l.reasons[number(r.Object)] = r.Reason
		}
	}
	return nil
}

func produce(numbers ...int) func(context.Context, func(identity.Asset) error) error {
	return func(_ context.Context, add func(identity.Asset) error) error {
		for _, n := range numbers {
			if err := add(asset(n, 0)); err != nil {
				return err
			}
		}
		return nil
	}
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

var roomy = Options{Workers: 4, BatchSize: 500, BatchBytes: 1 << 20}

func TestBatches(t *testing.T) {
	sizes := func(s ...int) []int { return s }
	cases := map[string]struct {
		options Options
		assets  []int // their sizes
		batches []int // their counts
	}{
		"none":                        {Options{1, 3, 1000}, nil, nil},
		"by count":                    {Options{1, 3, 1000}, sizes(50, 50, 50, 50, 50, 50, 50), sizes(3, 3, 1)},
		"by bytes, commas counted":    {Options{1, 100, 152}, sizes(50, 50, 50, 50), sizes(3, 1)},
		"by bytes, one too many":      {Options{1, 100, 151}, sizes(50, 50, 50, 50), sizes(2, 2)},
		"an oversize one goes alone":  {Options{1, 100, 200}, sizes(50, 50, 900, 50, 50), sizes(2, 1, 2)},
		"oversize ones, each alone":   {Options{1, 100, 200}, sizes(900, 900), sizes(1, 1)},
		"one that fits exactly alone": {Options{1, 100, 200}, sizes(200, 200), sizes(1, 1)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f, l := &fake{t: t}, &ledger{}
			totals, err := Run(t.Context(), f, c.options, l.record, func(_ context.Context, add func(identity.Asset) error) error {
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
			if err != nil || totals.Delivered != len(c.assets) || !slices.Equal(l.delivered, upTo(len(c.assets))) {
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
			_, err := Run(t.Context(), f, o, l.record, func(_ context.Context, add func(identity.Asset) error) error {
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
	synctest.Test(t, func(t *testing.T) {
		f := &fake{t: t, answer: func(context.Context, call) (gateway.Answer, error) {
			time.Sleep(rand.N(time.Second)) // of the bubble's time
			return gateway.Answer{}, nil
		}}
		l := &ledger{}
		totals, err := Run(t.Context(), f, Options{Workers: 8, BatchSize: 7, BatchBytes: 1 << 20}, l.record, produce(upTo(1000)...))
		if err != nil || totals.Delivered != 1000 || !slices.Equal(l.delivered, upTo(1000)) {
			t.Fatalf("totals %+v, error %v", totals, err)
		}
	})
}

func TestOneObjectIsNeverUnderWayTwice(t *testing.T) {
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
		_, err := Run(t.Context(), f, Options{Workers: 8, BatchSize: 1, BatchBytes: 1 << 20}, l.record, func(_ context.Context, add func(identity.Asset) error) error {
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

// poisoned answers NotTaken for every batch with one of these objects in it.
func poisoned(bad map[int]bool) func(context.Context, call) (gateway.Answer, error) {
	return func(_ context.Context, c call) (gateway.Answer, error) {
		for _, n := range c.numbers {
			if bad[n] {
				return gateway.Answer{Outcome: gateway.NotTaken, Message: "400: bad"}, nil
			}
		}
		return gateway.Answer{}, nil
	}
}

func TestSplittingFindsExactlyThePoisoned(t *testing.T) {
	const objects, batch = 10_000, 500
	random := rand.New(rand.NewPCG(1, 2))
	for _, k := range []int{1, 10, 100} {
		for _, where := range []string{"in one batch", "spread"} {
			t.Run(fmt.Sprintf("%d %s", k, where), func(t *testing.T) {
				bad := map[int]bool{}
				for len(bad) < k {
					n := random.IntN(objects)
					if where == "in one batch" {
						n = 3*batch + n%batch
					}
					bad[n] = true
				}
				f, l := &fake{t: t, answer: poisoned(bad)}, &ledger{}
				totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: batch, BatchBytes: 1 << 20}, l.record, produce(upTo(objects)...))
				if err != nil || totals != (Totals{Delivered: objects - k, Rejected: k}) {
					t.Fatalf("totals %+v, error %v", totals, err)
				}
				for _, n := range l.rejected {
					if !bad[n] || l.reasons[n] != "400: bad" {
						t.Errorf("object %d is rejected: %s", n, l.reasons[n])
					}
				}
				bound := objects/batch + 2*k*bits.Len(batch)
				t.Logf("%d calls, bound %d", len(f.calls), bound)
				if len(f.calls) > bound {
					t.Errorf("%d calls, want at most %d", len(f.calls), bound)
				}
			})
		}
	}
}

func TestTooLargeShrinksLaterBatches(t *testing.T) {
	const limit = 3000
	f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
		if c.bytes > limit {
			return gateway.Answer{Outcome: gateway.TooLarge, Message: "413"}, nil
		}
		return gateway.Answer{}, nil
	}}
	l := &ledger{}
	totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 500, BatchBytes: 10_000}, l.record, func(_ context.Context, add func(identity.Asset) error) error {
		for n := range 1000 {
			size := 90
			if n == 500 {
				size = 2 * limit // cannot be taken at all
			}
			if err := add(asset(n, size)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || totals != (Totals{Delivered: 999, Rejected: 1}) || !slices.Equal(l.rejected, []int{500}) || l.reasons[500] != "413" {
		t.Fatalf("totals %+v, rejected %v, error %v", totals, l.reasons, err)
	}
	for i, c := range f.calls {
		if i > 20 && c.bytes > limit && !slices.Contains(c.numbers, 500) {
			t.Errorf("call %d of %d bytes, after a limit of %d was met", i, c.bytes, limit)
		}
	}
}

func TestPartly(t *testing.T) {
	guid := func(n int) string { return asset(n, 0).GUID.String() }
	sid := func(n int) string { return asset(n, 0).SID.String() }
	cases := map[string]struct {
		answer   gateway.Answer
		oneByOne bool
	}{
		"by SID":          {answer: gateway.Answer{Rejected: map[string]string{sid(2): "no", sid(5): "no"}}},
		"by GUID":         {answer: gateway.Answer{Rejected: map[string]string{guid(2): "no", guid(5): "no"}}},
		"by both":         {answer: gateway.Answer{Rejected: map[string]string{guid(2): "no", sid(5): "no"}}},
		"an unknown ID":   {answer: gateway.Answer{Rejected: map[string]string{sid(2): "no", "S-1-5-99": "no"}}, oneByOne: true},
		"one object, IDs": {answer: gateway.Answer{Rejected: map[string]string{guid(2): "no", sid(2): "no"}}, oneByOne: true},
		"unattributed":    {answer: gateway.Answer{Rejected: map[string]string{sid(2): "no"}, Unattributed: true}, oneByOne: true},
		"nobody named":    {answer: gateway.Answer{Message: "no", Unattributed: true}, oneByOne: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := &fake{t: t, answer: func(_ context.Context, sent call) (gateway.Answer, error) {
				switch {
				case len(sent.numbers) > 1:
					c.answer.Outcome = gateway.Partly
					return c.answer, nil
				case sent.numbers[0] == 2 || sent.numbers[0] == 5:
					return gateway.Answer{Outcome: gateway.Partly, Message: "no", Unattributed: true}, nil
				}
				return gateway.Answer{}, nil
			}}
			l := &ledger{}
			totals, err := Run(t.Context(), f, roomy, l.record, produce(upTo(8)...))
			if err != nil || totals != (Totals{Delivered: 6, Rejected: 2}) || l.reasons[2] != "no" || l.reasons[5] != "no" {
				t.Fatalf("totals %+v, rejected %v, error %v", totals, l.reasons, err)
			}
			if calls := len(f.calls); calls != 1 && !c.oneByOne || calls != 9 && c.oneByOne {
				t.Errorf("%d calls", calls)
			}
		})
	}
}

func TestHopeless(t *testing.T) {
	all := map[int]bool{}
	for n := range 10_000 {
		all[n] = true
	}
	f, l := &fake{t: t, answer: poisoned(all)}, &ledger{}
	_, err := Run(t.Context(), f, roomy, l.record, produce(upTo(10_000)...))
	if fault.Of(err) != fault.Refused || !strings.Contains(err.Error(), "400: bad") || !strings.Contains(err.Error(), "qualys.profileUuid") {
		t.Fatalf("error %v", err)
	}
	if len(f.calls) > 4*hopeless {
		t.Errorf("%d calls before giving up", len(f.calls))
	}
	// One that is taken is a sign of hope.
	delete(all, 0)
	l = &ledger{}
	totals, err := Run(t.Context(), &fake{t: t, answer: poisoned(all)}, Options{Workers: 1, BatchSize: 1, BatchBytes: 1000}, l.record, produce(upTo(2*hopeless)...))
	if err != nil || totals.Rejected != 2*hopeless-1 {
		t.Errorf("totals %+v, error %v", totals, err)
	}
}

var errRefused = fault.Errorf(fault.Refused, "403")

func TestFailingWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var acknowledged []int
		var mu sync.Mutex
		f := &fake{t: t, answer: func(ctx context.Context, c call) (gateway.Answer, error) {
			switch n := c.numbers[0]; {
			case n == 2: // leaves a gap
				time.Sleep(time.Second)
				return gateway.Answer{}, errRefused
			case n < 8:
				time.Sleep(time.Duration(n) * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				acknowledged = append(acknowledged, n)
				return gateway.Answer{}, nil
			default:
				<-ctx.Done()
				return gateway.Answer{}, fault.Errorf(fault.Canceled, "send: %w", ctx.Err())
			}
		}}
		l := &ledger{}
		totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, l.record, produce(upTo(100)...))
		if !errors.Is(err, errRefused) || fault.Of(err) != fault.Refused {
			t.Errorf("error %v, want the refusal", err)
		}
		slices.Sort(acknowledged)
		if !slices.Equal(l.delivered, acknowledged) || totals.Delivered != len(acknowledged) || !slices.Contains(l.delivered, 7) {
			t.Errorf("recorded %v, acknowledged %v, totals %+v", l.delivered, acknowledged, totals)
		}
	})
}

func TestFailureStopsTheProducer(t *testing.T) {
	f := &fake{t: t, answer: func(context.Context, call) (gateway.Answer, error) { return gateway.Answer{}, errRefused }}
	l := &ledger{}
	_, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 1, BatchBytes: 1000}, l.record, func(ctx context.Context, add func(identity.Asset) error) error {
		if err := errors.Join(add(asset(1, 0)), add(asset(2, 0))); err != nil {
			return err
		}
		<-ctx.Done() // nothing more to add, but still busy
		return fault.New(fault.Canceled, ctx.Err())
	})
	if !errors.Is(err, errRefused) {
		t.Errorf("error %v", err)
	}
	if l.writes != 0 {
		t.Errorf("%d records of nothing", l.writes)
	}
}

func TestRecordError(t *testing.T) {
	full := fault.Errorf(fault.Transient, "no space left on device")
	f := &fake{t: t}
	writes := 0
	totals, err := Run(t.Context(), f, Options{Workers: 2, BatchSize: 1, BatchBytes: 1000}, func([]Receipt) error {
		if writes++; writes == 3 {
			return full
		}
		return nil
	}, produce(upTo(10_000)...))
	if !errors.Is(err, full) {
		t.Errorf("error %v, want the record's", err)
	}
	if writes != 3 || len(f.calls) > 500 || totals.Delivered >= len(f.calls) {
		t.Errorf("%d records, %d calls, totals %+v: the run went on", writes, len(f.calls), totals)
	}
}

func TestCancellation(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var acknowledged atomic.Int64
	f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
		if c.numbers[0] == 50 {
			cancel()
		}
		acknowledged.Add(1) // calls under way are answered all the same
		return gateway.Answer{}, nil
	}}
	l := &ledger{}
	totals, err := Run(ctx, f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, l.record, produce(upTo(10_000)...))
	if fault.Of(err) != fault.Canceled || !strings.Contains(err.Error(), "upload") {
		t.Errorf("error %v", err)
	}
	if int64(len(l.delivered)) != acknowledged.Load() || totals.Delivered != len(l.delivered) || len(l.delivered) > 200 {
		t.Errorf("recorded %d, acknowledged %d", len(l.delivered), acknowledged.Load())
	}
}

func TestProduceError(t *testing.T) {
	lost := fault.Errorf(fault.Transient, "the connection was lost")
	l := &ledger{}
	_, err := Run(t.Context(), &fake{t: t}, Options{Workers: 2, BatchSize: 3, BatchBytes: 1000}, l.record, func(_ context.Context, add func(identity.Asset) error) error {
		for n := range 8 {
			if err := add(asset(n, 0)); err != nil {
				return err
			}
		}
		return lost
	})
	if !errors.Is(err, lost) {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(l.delivered, upTo(6)) { // the last batch was never full
		t.Errorf("recorded %v", l.delivered)
	}
}

// TestModel runs random mixtures of everything a gateway does. Whatever happens,
// what was acknowledged is recorded, nothing is recorded twice or in vain, and
// without an error every object is settled.
func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { model(t, seed) })
		})
	}
}

func model(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	objects := random.IntN(600)
	o := Options{Workers: 1 + random.IntN(8), BatchSize: 1 + random.IntN(50), BatchBytes: 100 + random.IntN(3000)}
	limit := 60 + random.IntN(3000)
	bad := map[int]bool{}
	for range random.IntN(40) {
		bad[random.IntN(600)] = true
	}
	failAt, cancelAt, fullAt := -1, -1, -1
	switch random.IntN(6) {
	case 0:
		failAt = random.IntN(40)
	case 1:
		cancelAt = random.IntN(40)
	case 2:
		fullAt = random.IntN(10)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var mu sync.Mutex
	calls := 0
	taken, acknowledged := map[int]int{}, map[int]bool{}
	f := &fake{t: t}
	f.answer = func(ctx context.Context, c call) (gateway.Answer, error) {
		mu.Lock()
		pause, shape, at := time.Duration(random.IntN(1000)), random.IntN(4), calls
		calls++
		mu.Unlock()
		time.Sleep(pause * time.Millisecond)
		if at == cancelAt {
			cancel()
		}
		switch {
		case at == failAt:
			return gateway.Answer{}, errRefused
		case c.bytes > limit:
			return gateway.Answer{Outcome: gateway.TooLarge, Message: "413"}, nil
		}
		var worst []int
		for _, n := range c.numbers {
			if bad[n] {
				worst = append(worst, n)
			}
		}
		if len(worst) > 0 && shape == 0 {
			return gateway.Answer{Outcome: gateway.NotTaken, Message: "bad"}, nil
		}
		mu.Lock()
		for _, n := range c.numbers {
			if !bad[n] {
				taken[n]++
			}
		}
		if len(worst) == 0 {
			for _, n := range c.numbers {
				acknowledged[n] = true
			}
		}
		mu.Unlock()
		if len(worst) == 0 {
			return gateway.Answer{}, nil
		}
		answer := gateway.Answer{Outcome: gateway.Partly, Message: "bad", Rejected: map[string]string{}, Unattributed: shape == 1}
		for _, n := range worst {
			id := asset(n, 0).SID.String()
			if shape == 2 {
				id = asset(n, 0).GUID.String()
			}
			answer.Rejected[id] = "bad"
		}
		return answer, nil
	}
	full := errors.New("full")
	l, writes := &ledger{}, 0
	totals, err := Run(ctx, f, o, func(receipts []Receipt) error {
		if writes++; writes-1 == fullAt {
			return full
		}
		return l.record(receipts)
	}, func(_ context.Context, add func(identity.Asset) error) error {
		for n := range objects {
			if err := add(asset(n, 20+n%200)); err != nil {
				return err
			}
		}
		return nil
	})

	seen := map[int]bool{}
	for _, n := range slices.Concat(l.delivered, l.rejected) {
		if seen[n] {
			t.Fatalf("object %d is recorded twice", n)
		}
		seen[n] = true
	}
	for n := range acknowledged {
		if !seen[n] && fullAt < 0 {
			t.Fatalf("object %d was acknowledged and is not recorded", n)
		}
	}
	for _, n := range l.delivered {
		if taken[n] == 0 {
			t.Fatalf("object %d is recorded as delivered and was not taken", n)
		}
	}
	if totals != (Totals{Delivered: len(l.delivered), Rejected: len(l.rejected)}) {
		t.Fatalf("totals %+v, recorded %d and %d", totals, len(l.delivered), len(l.rejected))
	}
	for _, n := range l.rejected {
		if !bad[n] && 20+n%200 <= limit-1 && len(asset(n, 20+n%200).JSON) <= limit {
			t.Fatalf("object %d is rejected without a reason", n)
		}
	}
	switch {
	case err == nil:
		if len(seen) != objects {
			t.Fatalf("%d of %d objects are settled, and there is no error", len(seen), objects)
		}
	case errors.Is(err, errRefused) && failAt >= 0, errors.Is(err, full) && fullAt >= 0, fault.Of(err) == fault.Canceled && cancelAt >= 0:
	default:
		t.Fatalf("error %v", err)
	}
}

func TestDataOfPartsStaysWhole(t *testing.T) {
	b := &batch{}
	for n := range 9 {
		b.add(asset(n, n*7))
	}
	parts := [][]byte{b.part(0, 4).data, b.part(4, 9).part(0, 2).data, b.part(4, 9).part(2, 5).data}
	if joined := bytes.Join(parts, []byte(",")); !bytes.Equal(joined, b.data) {
		t.Errorf("parts make\n%s\nof\n%s", joined, b.data)
	}
}
