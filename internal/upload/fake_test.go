package upload

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

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

func (l *ledger) MarkInFlight(batches []state.Batch) error {
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

func (l *ledger) Commit(receipts []state.BatchResult) error {
	l.writes++
	for _, receipt := range receipts {
		for _, o := range receipt.Acknowledged {
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
	record   func([]state.BatchResult) error
}

func (h hooked) MarkInFlight(batches []state.Batch) error {
	if h.announce != nil {
		if err := h.announce(batches); err != nil {
			return err
		}
	}
	return h.ledger.MarkInFlight(batches)
}

func (h hooked) Commit(receipts []state.BatchResult) error {
	if h.record != nil {
		if err := h.record(receipts); err != nil {
			return err
		}
	}
	return h.ledger.Commit(receipts)
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

var errRefused = fault.Operation{Op: "send assets", Object: "gateway"}.Failed(fault.Refused, errors.New("403"), "")
