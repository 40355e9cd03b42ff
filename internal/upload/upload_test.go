package upload

import (
	"bytes"
	"cmp"
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
	"adconnector/internal/state"
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

func number(o identity.Object) int { return int(binary.BigEndian.Uint32(o.GUID[12:])) }

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

// ledger is what was announced and recorded.
type ledger struct {
	delivered, deleted, rejected []int
	reasons                      map[int]string
	writes                       int

	mu        sync.Mutex      // the senders read
	groups    [][]state.Batch // as they were announced
	announced map[int]int
}

func (l *ledger) Announce(batches []state.Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.announced == nil {
		l.announced = map[int]int{}
	}
	l.groups = append(l.groups, batches)
	for _, batch := range batches {
		for _, o := range batch.Objects {
			l.announced[number(o)] = batch.Number
		}
	}
	return nil
}

// knows reports whether all of these were announced.
func (l *ledger) knows(numbers []int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(numbers, func(n int) bool { _, there := l.announced[n]; return !there })
}

func (l *ledger) Settle(receipts []state.Receipt) error {
	l.writes++
	for _, receipt := range receipts {
		for _, o := range receipt.Delivered {
			if o.Deleted {
				l.deleted = append(l.deleted, number(o))
			} else {
				l.delivered = append(l.delivered, number(o))
			}
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

// hooked is a ledger whose steps can be made to fail, or seen.
type hooked struct {
	*ledger
	announce func([]state.Batch) error
	record   func([]state.Receipt) error
}

func (h hooked) Announce(batches []state.Batch) error {
	if h.announce != nil {
		if err := h.announce(batches); err != nil {
			return err
		}
	}
	return h.ledger.Announce(batches)
}

func (h hooked) Settle(receipts []state.Receipt) error {
	if h.record != nil {
		if err := h.record(receipts); err != nil {
			return err
		}
	}
	return h.ledger.Settle(receipts)
}

func produce(numbers ...int) func(context.Context, func(identity.Asset) error, func() error) error {
	return func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
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
		if err != nil || totals.Delivered != 1000 || !slices.Equal(l.delivered, upTo(1000)) {
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
	t.Parallel()
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
				totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: batch, BatchBytes: 1 << 20}, l, produce(upTo(objects)...))
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
	t.Parallel()
	const limit = 3000
	f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
		if c.bytes > limit {
			return gateway.Answer{Outcome: gateway.TooLarge, Message: "413"}, nil
		}
		return gateway.Answer{}, nil
	}}
	l := &ledger{}
	totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 500, BatchBytes: 10_000}, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
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
	t.Parallel()
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
			totals, err := Run(t.Context(), f, roomy, l, produce(upTo(8)...))
			if err != nil || totals != (Totals{Delivered: 6, Rejected: 2}) || l.reasons[2] != "no" || l.reasons[5] != "no" {
				t.Fatalf("totals %+v, rejected %v, error %v", totals, l.reasons, err)
			}
			if calls := len(f.calls); calls != 1 && !c.oneByOne || calls != 9 && c.oneByOne {
				t.Errorf("%d calls", calls)
			}
		})
	}
}

// TestPartlyOfARole: a role and the group that it is have one SID, and are two objects.
func TestPartlyOfARole(t *testing.T) {
	t.Parallel()
	group, role := asset(1, 0), asset(2, 0)
	group.Kind, role.Kind, role.SID = identity.Group, identity.Role, group.SID
	for rejected, of := range map[string]identity.Asset{group.SID.String(): group, group.SID.String() + ":role": role} {
		f := &fake{t: t, answer: func(context.Context, call) (gateway.Answer, error) {
			return gateway.Answer{Outcome: gateway.Partly, Rejected: map[string]string{rejected: "no"}}, nil
		}}
		l := &ledger{}
		totals, err := Run(t.Context(), f, roomy, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
			return errors.Join(add(group), add(role))
		})
		if err != nil || totals != (Totals{Delivered: 1, Rejected: 1}) || !slices.Equal(l.rejected, []int{number(of.Object())}) {
			t.Errorf("%s: totals %+v, rejected %v, error %v", rejected, totals, l.rejected, err)
		}
	}
}

// TestHopeless: a gateway that has never taken anything is given up, one that has
// is not.
func TestHopeless(t *testing.T) {
	t.Parallel()
	all := map[int]bool{}
	for n := range 10_000 {
		all[n] = true
	}
	untried := roomy
	untried.Untried = true
	f, l := &fake{t: t, answer: poisoned(all)}, &ledger{}
	totals, err := Run(t.Context(), f, untried, l, produce(upTo(10_000)...))
	if fault.Of(err) != fault.Refused || strings.Contains(err.Error(), "400: bad") || !strings.Contains(err.Error(), "adconnector status") || !strings.Contains(err.Error(), "qualys.profileUuid") {
		t.Fatalf("error %v", err)
	}
	if len(f.calls) > 4*hopeless || totals.Rejected < hopeless {
		t.Errorf("%d calls before giving up, totals %+v", len(f.calls), totals)
	}
	one := Options{Workers: 1, BatchSize: 1, BatchBytes: 1000}
	if totals, err := Run(t.Context(), &fake{t: t, answer: poisoned(all)}, one, &ledger{}, produce(upTo(2*hopeless)...)); err != nil || totals.Rejected != 2*hopeless {
		t.Errorf("tried before: totals %+v, error %v", totals, err)
	}
	// One that is taken is a sign of hope.
	delete(all, 0)
	one.Untried = true
	if totals, err := Run(t.Context(), &fake{t: t, answer: poisoned(all)}, one, &ledger{}, produce(upTo(2*hopeless)...)); err != nil || totals.Rejected != 2*hopeless-1 {
		t.Errorf("one taken: totals %+v, error %v", totals, err)
	}
}

// TestAnnouncedBeforeSent: each object once, by batches that are numbered in the
// order of their objects, and none is sent that was not announced.
func TestAnnouncedBeforeSent(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
		if !l.knows(c.numbers) {
			t.Errorf("%v is sent and not announced", c.numbers)
		}
		return gateway.Answer{}, nil
	}}
	if _, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 7, BatchBytes: 1 << 20}, l, produce(upTo(1000)...)); err != nil {
		t.Fatal(err)
	}
	var numbers, objects []int
	for _, batch := range slices.Concat(l.groups...) {
		numbers = append(numbers, batch.Number)
		for _, o := range batch.Objects {
			objects = append(objects, number(o))
		}
	}
	if !slices.Equal(numbers, upTo(143)) || !slices.Equal(objects, upTo(1000)) {
		t.Errorf("announced batches %v with objects %v", numbers, objects)
	}
}

// TestAnnouncedTogether: what piles up behind one announcement makes one more.
func TestAnnouncedTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		journal := hooked{l, func([]state.Batch) error { time.Sleep(time.Second); return nil }, nil}
		f := &fake{t: t}
		o := Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}
		if _, err := Run(t.Context(), f, o, journal, produce(upTo(41)...)); err != nil || len(f.calls) != 41 {
			t.Fatalf("%d calls, error %v", len(f.calls), err)
		}
		if n := len(l.groups); n > 41/o.Workers+2 {
			t.Errorf("%d announcements of 41 batches", n)
		}
	})
}

// TestAnnounceError: nothing is sent that could not be announced.
func TestAnnounceError(t *testing.T) {
	t.Parallel()
	for _, failing := range []int{0, 10, 99} { // among the first, in between, the last
		full := fault.Errorf(fault.Transient, "no space left on device")
		l := &ledger{}
		f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
			if !l.knows(c.numbers) {
				t.Errorf("%v is sent and not announced", c.numbers)
			}
			return gateway.Answer{}, nil
		}}
		journal := hooked{l, func(batches []state.Batch) error {
			if batches[len(batches)-1].Number >= failing {
				return full
			}
			return nil
		}, nil}
		totals, err := Run(t.Context(), f, Options{Workers: 2, BatchSize: 1, BatchBytes: 1000}, journal, produce(upTo(100)...))
		if !errors.Is(err, full) || fault.Of(err) != fault.Transient {
			t.Errorf("%d: error %v", failing, err)
		}
		if totals.Delivered != len(l.delivered) || len(l.delivered) != len(f.calls) || len(f.calls) > failing {
			t.Errorf("%d: %d calls, %d recorded, totals %+v", failing, len(f.calls), len(l.delivered), totals)
		}
	}
}

// TestIncomplete: when a batch that is sent in parts fails at one of them, what
// came before is recorded, and that nobody knows of the rest.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	var receipts []state.Receipt
	l := &ledger{}
	journal := hooked{l, nil, func(some []state.Receipt) error {
		receipts = append(receipts, some...)
		return nil
	}}
	f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
		switch {
		case slices.Contains(c.numbers, 6) && len(c.numbers) == 1:
			return gateway.Answer{}, errRefused
		case slices.Contains(c.numbers, 2), slices.Contains(c.numbers, 6):
			return gateway.Answer{Outcome: gateway.NotTaken, Message: "400: bad"}, nil
		}
		return gateway.Answer{}, nil
	}}
	o := Options{Workers: 1, BatchSize: 8, BatchBytes: 1 << 20}
	totals, err := Run(t.Context(), f, o, journal, produce(upTo(16)...))
	if !errors.Is(err, errRefused) || totals != (Totals{Delivered: 5, Rejected: 1}) {
		t.Fatalf("totals %+v, error %v", totals, err)
	}
	if len(receipts) != 1 || receipts[0].Batch != 0 || receipts[0].Complete {
		t.Errorf("receipts %+v", receipts)
	}
	if !slices.Equal(l.delivered, []int{0, 1, 3, 4, 5}) || !slices.Equal(l.rejected, []int{2}) {
		t.Errorf("recorded %v and %v", l.delivered, l.rejected)
	}
}

// TestReceiptsAreWhole: a batch without a failure is complete, whatever its parts.
func TestReceiptsAreWhole(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	journal := hooked{&ledger{}, nil, func(some []state.Receipt) error {
		for _, r := range some {
			if !r.Complete || seen[r.Batch] || len(r.Delivered)+len(r.Rejected) != 10 {
				t.Errorf("receipt %+v", r)
			}
			seen[r.Batch] = true
		}
		return nil
	}}
	f := &fake{t: t, answer: poisoned(map[int]bool{3: true, 4: true, 77: true})}
	if _, err := Run(t.Context(), f, Options{Workers: 3, BatchSize: 10, BatchBytes: 1 << 20}, journal, produce(upTo(100)...)); err != nil || len(seen) != 10 {
		t.Errorf("%d receipts, error %v", len(seen), err)
	}
}

// TestDeleted are counted apart, and known as such to the journal.
func TestDeleted(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	due := time.Unix(1_700_000_000, 0)
	f := &fake{t: t, answer: poisoned(map[int]bool{1: true, 4: true})}
	totals, err := Run(t.Context(), f, roomy, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		for n := range 10 {
			a := asset(n, 0)
			if a.Deleted = n < 3; !a.Deleted {
				a.Due = due
			}
			if err := add(a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || totals != (Totals{Delivered: 6, Deleted: 2, Rejected: 2}) {
		t.Fatalf("totals %+v, error %v", totals, err)
	}
	if !slices.Equal(l.deleted, []int{0, 2}) || !slices.Equal(l.delivered, []int{3, 5, 6, 7, 8, 9}) {
		t.Errorf("deleted %v, delivered %v", l.deleted, l.delivered)
	}
	for _, o := range l.groups[0][0].Objects {
		if o.Deleted != (number(o) < 3) || o.Due.Equal(due) == o.Deleted {
			t.Errorf("announced %+v", o)
		}
	}
}

// TestStopAfterTheEnd: whoever stops what is done already came too late.
func TestStopAfterTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	l := &ledger{}
	totals, err := Run(ctx, &fake{t: t}, roomy, hooked{l, nil, func([]state.Receipt) error { cancel(); return nil }}, produce(upTo(100)...))
	if err != nil || totals.Delivered != 100 || len(l.delivered) != 100 {
		t.Errorf("totals %+v, error %v", totals, err)
	}
	// With something left to send it is an error.
	totals, err = Run(ctx, &fake{t: t}, roomy, &ledger{}, produce(1))
	if fault.Of(err) != fault.Canceled || totals != (Totals{}) {
		t.Errorf("totals %+v, error %v", totals, err)
	}
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
		time.Sleep(0) // the others' turn
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
	if err != nil || totals.Delivered != adders*each {
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

var errRefused = fault.Errorf(fault.Refused, "403")

func TestFailingWorker(t *testing.T) {
	t.Parallel()
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
		totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, l, produce(upTo(100)...))
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
	t.Parallel()
	f := &fake{t: t, answer: func(context.Context, call) (gateway.Answer, error) { return gateway.Answer{}, errRefused }}
	l := &ledger{}
	_, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 1, BatchBytes: 1000}, l, func(ctx context.Context, add func(identity.Asset) error, _ func() error) error {
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
	t.Parallel()
	full := fault.Errorf(fault.Transient, "no space left on device")
	f := &fake{t: t}
	writes := 0
	totals, err := Run(t.Context(), f, Options{Workers: 2, BatchSize: 1, BatchBytes: 1000}, hooked{&ledger{}, nil, func([]state.Receipt) error {
		if writes++; writes == 3 {
			return full
		}
		return nil
	}}, produce(upTo(10_000)...))
	if !errors.Is(err, full) {
		t.Errorf("error %v, want the record's", err)
	}
	if writes != 3 || len(f.calls) > 500 || totals.Delivered >= len(f.calls) {
		t.Errorf("%d records, %d calls, totals %+v: the run went on", writes, len(f.calls), totals)
	}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
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
	totals, err := Run(ctx, f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, l, produce(upTo(10_000)...))
	if fault.Of(err) != fault.Canceled || !strings.Contains(err.Error(), "upload") {
		t.Errorf("error %v", err)
	}
	if int64(len(l.delivered)) != acknowledged.Load() || totals.Delivered != len(l.delivered) || len(l.delivered) > 200 {
		t.Errorf("recorded %d, acknowledged %d", len(l.delivered), acknowledged.Load())
	}
}

func TestProduceError(t *testing.T) {
	t.Parallel()
	lost := fault.Errorf(fault.Transient, "the connection was lost")
	l := &ledger{}
	_, err := Run(t.Context(), &fake{t: t}, Options{Workers: 2, BatchSize: 3, BatchBytes: 1000}, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
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
	t.Parallel()
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
	failAt, cancelAt, fullAt, mutedAt := -1, -1, -1, -1
	switch random.IntN(7) {
	case 0:
		failAt = random.IntN(40)
	case 1:
		cancelAt = random.IntN(40)
	case 2:
		fullAt = random.IntN(10)
	case 3:
		mutedAt = random.IntN(10)
	}
	adders := 1 + random.IntN(3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var mu sync.Mutex
	calls := 0
	taken, acknowledged := map[int]int{}, map[int]bool{}
	f, l := &fake{t: t}, &ledger{}
	f.answer = func(ctx context.Context, c call) (gateway.Answer, error) {
		if !l.knows(c.numbers) {
			t.Errorf("%v is sent and not announced", c.numbers)
		}
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
	writes, announcements := 0, 0
	batchOf := map[int]int{} // how many of its objects are settled
	var incomplete []int
	journal := hooked{l, func([]state.Batch) error {
		if announcements++; announcements-1 == mutedAt {
			return full
		}
		return nil
	}, func(receipts []state.Receipt) error {
		if writes++; writes-1 == fullAt {
			return full
		}
		for _, r := range receipts {
			if _, twice := batchOf[r.Batch]; twice {
				t.Errorf("batch %d is recorded twice", r.Batch)
			}
			if batchOf[r.Batch] = len(r.Delivered) + len(r.Rejected); !r.Complete {
				incomplete = append(incomplete, r.Batch)
			}
		}
		return nil
	}}
	totals, err := Run(ctx, f, o, journal, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		var adding sync.WaitGroup
		errs := make([]error, adders)
		turn := make(chan struct{}, 1) // the bubble's time stands still while one waits for a mutex
		for i := range adders {
			adding.Go(func() {
				for n := i; n < objects && errs[i] == nil; n += adders {
					a := asset(n, 20+n%200)
					a.Deleted = n%7 == 0
					turn <- struct{}{}
					errs[i] = add(a)
					<-turn
				}
			})
		}
		adding.Wait()
		return cmp.Or(errs...)
	})

	for _, batch := range slices.Concat(l.groups...) {
		settled, recorded := batchOf[batch.Number]
		if recorded && settled != len(batch.Objects) && !slices.Contains(incomplete, batch.Number) {
			t.Fatalf("batch %d of %d objects is complete with %d", batch.Number, len(batch.Objects), settled)
		}
	}
	if len(incomplete) > 0 && err == nil {
		t.Fatalf("batches %v are incomplete, and there is no error", incomplete)
	}
	seen := map[int]bool{}
	for _, n := range slices.Concat(l.delivered, l.deleted, l.rejected) {
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
	for _, n := range slices.Concat(l.delivered, l.deleted) {
		if taken[n] == 0 {
			t.Fatalf("object %d is recorded as delivered and was not taken", n)
		}
	}
	if totals != (Totals{len(l.delivered), len(l.deleted), len(l.rejected)}) {
		t.Fatalf("totals %+v, recorded %d, %d and %d", totals, len(l.delivered), len(l.deleted), len(l.rejected))
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
	case errors.Is(err, errRefused) && failAt >= 0, errors.Is(err, full) && (fullAt >= 0 || mutedAt >= 0), fault.Of(err) == fault.Canceled && cancelAt >= 0:
	default:
		t.Fatalf("error %v", err)
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
	if err != nil || totals.Delivered != 30 {
		t.Errorf("%+v, %v", totals, err)
	}
}
