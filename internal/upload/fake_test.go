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

// asset returns object n. Its JSON has at least size bytes.
func asset(n, size int) identity.Asset {
	var guid ad.GUID
	binary.BigEndian.PutUint32(guid[12:], uint32(n))
	sid := binary.LittleEndian.AppendUint32([]byte{1, 1, 0, 0, 0, 0, 0, 5}, uint32(n))
	text := fmt.Sprintf(`{"n":%d,"pad":""}`, n)
	text = strings.Replace(text, `""`, `"`+strings.Repeat("x", max(0, size-len(text)))+`"`, 1)
	return identity.Asset{Kind: identity.User, GUID: guid, SID: sid, Name: []byte(fmt.Sprint("user", n)), JSON: []byte(text)}
}

// number returns the n of an object that asset made.
func number(o identity.Object) int { return int(binary.BigEndian.Uint32(o.GUID[12:])) }

// call is one call of Send.
type call struct {
	numbers []int
	bytes   int
}

// fakeSender is a sender that checks and records its calls.
type fakeSender struct {
	t      *testing.T
	answer func(ctx context.Context, c call) (gateway.BatchResponse, error)

	mu       sync.Mutex
	calls    []call
	requests map[string]bool
}

func (f *fakeSender) Send(ctx context.Context, request string, count int, assets []byte) (gateway.BatchResponse, error) {
	var items []struct{ N int }
	if err := json.Unmarshal(slices.Concat([]byte("["), assets, []byte("]")), &items); err != nil {
		f.t.Errorf("batch is not JSON: %v", err)
	}
	if len(items) != count || count == 0 {
		f.t.Errorf("batch with %d assets, count %d", len(items), count)
	}
	c := call{bytes: len(assets)}
	for _, item := range items {
		c.numbers = append(c.numbers, item.N)
	}
	f.mu.Lock()
	if f.requests[request] {
		f.t.Errorf("duplicate request ID %s", request)
	}
	if f.requests == nil {
		f.requests = map[string]bool{}
	}
	f.requests[request] = true
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	if f.answer == nil {
		return gateway.BatchResponse{}, nil
	}
	return f.answer(ctx, c)
}

// memoryJournal is a journal in memory.
type memoryJournal struct {
	uploaded, deleted, rejected []int // objects
	reasons                     map[int]string
	commits                     int

	mu       sync.Mutex      // senders read what follows
	groups   [][]state.Batch // the arguments of MarkInFlight
	inFlight map[int]int     // object → batch
}

func (m *memoryJournal) MarkInFlight(batches []state.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inFlight == nil {
		m.inFlight = map[int]int{}
	}
	m.groups = append(m.groups, batches)
	for _, batch := range batches {
		for _, o := range batch.Objects {
			m.inFlight[number(o)] = batch.Number
		}
	}
	return nil
}

// isInFlight reports whether all objects were marked in flight.
func (m *memoryJournal) isInFlight(numbers []int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !slices.ContainsFunc(numbers, func(n int) bool { _, found := m.inFlight[n]; return !found })
}

func (m *memoryJournal) Commit(results []state.BatchResult) error {
	m.commits++
	for _, result := range results {
		for _, o := range result.Acknowledged {
			if o.Deleted {
				m.deleted = append(m.deleted, number(o))
			} else {
				m.uploaded = append(m.uploaded, number(o))
			}
		}
		for _, r := range result.Rejected {
			m.rejected = append(m.rejected, number(r.Object))
			if m.reasons == nil {
				m.reasons = map[int]string{}
			}
			m.reasons[number(r.Object)] = r.Reason
		}
	}
	return nil
}

// hookedJournal is a memoryJournal with hooks that run before its methods and can fail.
type hookedJournal struct {
	*memoryJournal
	markInFlight func([]state.Batch) error
	commit       func([]state.BatchResult) error
}

func (h hookedJournal) MarkInFlight(batches []state.Batch) error {
	if h.markInFlight != nil {
		if err := h.markInFlight(batches); err != nil {
			return err
		}
	}
	return h.memoryJournal.MarkInFlight(batches)
}

func (h hookedJournal) Commit(results []state.BatchResult) error {
	if h.commit != nil {
		if err := h.commit(results); err != nil {
			return err
		}
	}
	return h.memoryJournal.Commit(results)
}

// produce returns a function for Run that adds these objects.
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

// upTo returns the numbers from 0 to n-1.
func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

var defaultOptions = Options{Workers: 4, BatchSize: 500, BatchBytes: 1 << 20}

// rejectBatchesWith returns NotTaken for every batch that contains one of these objects.
func rejectBatchesWith(bad map[int]bool) func(context.Context, call) (gateway.BatchResponse, error) {
	return func(_ context.Context, c call) (gateway.BatchResponse, error) {
		for _, n := range c.numbers {
			if bad[n] {
				return gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: bad"}, nil
			}
		}
		return gateway.BatchResponse{}, nil
	}
}

var errRefused = fault.Operation{Op: "send assets", Object: "gateway"}.Failed(fault.Refused, errors.New("403"), "")
