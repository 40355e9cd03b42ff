package upload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// TestCampaignModel runs random mixtures of everything a gateway does. Whatever
// happens, what was acknowledged is recorded, nothing is recorded twice or in vain,
// and without an error every object is settled.
func TestCampaignModel(t *testing.T) {
	t.Parallel()
	histories := uint64(1000)
	if testing.Short() {
		histories = 100
	}
	for seed := range histories {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed)
				totals, err := m.run()
				m.expectReceipts(err)
				settled := m.expectRecords(totals)
				m.expectError(err, settled)
			})
		})
	}
}

// model is one random history: a gateway, a journal, and what goes wrong with them.
type model struct {
	t       *testing.T
	random  *rand.Rand
	options Options
	objects int
	adders  int

	bad   map[int]bool // objects that the gateway does not take
	limit int          // bytes of a batch that the gateway takes
	// The call that fails, the call after which the run is canceled, the record and the
	// announcement that fail; -1: none.
	failAt, cancelAt, recordFailsAt, announceFailsAt int
	cancel                                           context.CancelFunc

	ledger
	announcements, records int
	settled                map[int]int // objects of a batch that are settled
	incomplete             []int       // batches

	mu           sync.Mutex
	calls        int
	taken        map[int]int // how often the gateway took an object
	acknowledged map[int]bool
}

var errFull = errors.New("full")

func newModel(t *testing.T, seed uint64) *model {
	random := rand.New(rand.NewPCG(seed, 0))
	m := &model{
		t: t, random: random, objects: random.IntN(600), adders: 1 + random.IntN(3),
		options: Options{Workers: 1 + random.IntN(8), BatchSize: 1 + random.IntN(50), BatchBytes: 100 + random.IntN(3000)},
		bad:     map[int]bool{}, limit: 60 + random.IntN(3000),
		failAt: -1, cancelAt: -1, recordFailsAt: -1, announceFailsAt: -1,
		settled: map[int]int{}, taken: map[int]int{}, acknowledged: map[int]bool{},
	}
	for range random.IntN(40) {
		m.bad[random.IntN(600)] = true
	}
	switch random.IntN(7) {
	case 0:
		m.failAt = random.IntN(40)
	case 1:
		m.cancelAt = random.IntN(40)
	case 2:
		m.recordFailsAt = random.IntN(10)
	case 3:
		m.announceFailsAt = random.IntN(10)
	}
	return m
}

func (m *model) run() (Totals, error) {
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	m.cancel = cancel
	return Run(ctx, &fake{t: m.t, answer: m.answer}, m.options, m, m.produce)
}

// size is the least length of an object's JSON.
func size(n int) int { return 20 + n%200 }

func (m *model) produce(_ context.Context, add func(identity.Asset) error, _ func() error) error {
	var adding sync.WaitGroup
	errs := make([]error, m.adders)
	turn := make(chan struct{}, 1) // the bubble's time stands still while one waits for a mutex
	for i := range m.adders {
		adding.Go(func() {
			for n := i; n < m.objects && errs[i] == nil; n += m.adders {
				a := asset(n, size(n))
				a.Deleted = n%7 == 0
				turn <- struct{}{}
				errs[i] = add(a)
				<-turn
			}
		})
	}
	adding.Wait()
	return cmp.Or(errs...)
}

// answer is the gateway: it takes its time, fails or cancels when its call has come,
// and rejects bad objects in one of several ways.
func (m *model) answer(_ context.Context, c call) (gateway.Answer, error) {
	if !m.knows(c.numbers) {
		m.t.Errorf("%v is sent and not announced", c.numbers)
	}
	m.mu.Lock()
	pause, shape, at := time.Duration(m.random.IntN(1000)), m.random.IntN(4), m.calls
	m.calls++
	m.mu.Unlock()
	time.Sleep(pause * time.Millisecond)
	if at == m.cancelAt {
		m.cancel()
	}
	switch {
	case at == m.failAt:
		return gateway.Answer{}, errRefused
	case c.bytes > m.limit:
		return gateway.Answer{Outcome: gateway.TooLarge, Message: "413"}, nil
	}
	var bad, good []int
	for _, n := range c.numbers {
		if m.bad[n] {
			bad = append(bad, n)
		} else {
			good = append(good, n)
		}
	}
	if len(bad) > 0 && shape == 0 {
		return gateway.Answer{Outcome: gateway.NotTaken, Message: "bad"}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range good {
		m.taken[n]++
		if len(bad) == 0 {
			m.acknowledged[n] = true
		}
	}
	if len(bad) == 0 {
		return gateway.Answer{}, nil
	}
	answer := gateway.Answer{Outcome: gateway.Partly, Message: "bad", Rejected: map[string]string{}, Unattributed: shape == 1}
	for _, n := range bad {
		id := asset(n, 0).SID.String()
		if shape == 2 {
			id = asset(n, 0).GUID.String()
		}
		answer.Rejected[id] = "bad"
	}
	return answer, nil
}

func (m *model) MarkInFlight(batches []state.Batch) error {
	m.announcements++
	if m.announcements-1 == m.announceFailsAt {
		return errFull
	}
	return m.ledger.MarkInFlight(batches)
}

func (m *model) Commit(receipts []state.BatchResult) error {
	m.records++
	if m.records-1 == m.recordFailsAt {
		return errFull
	}
	for _, r := range receipts {
		if _, twice := m.settled[r.Batch]; twice {
			m.t.Errorf("batch %d is recorded twice", r.Batch)
		}
		if m.settled[r.Batch] = len(r.Acknowledged) + len(r.Rejected); !r.Complete {
			m.incomplete = append(m.incomplete, r.Batch)
		}
	}
	return m.ledger.Commit(receipts)
}

// expectReceipts: a complete receipt names all of its batch, and one that is not
// complete comes with an error.
func (m *model) expectReceipts(err error) {
	for _, batch := range slices.Concat(m.groups...) {
		settled, recorded := m.settled[batch.Number]
		if recorded && settled != len(batch.Objects) && !slices.Contains(m.incomplete, batch.Number) {
			m.t.Fatalf("batch %d of %d objects is complete with %d", batch.Number, len(batch.Objects), settled)
		}
	}
	if len(m.incomplete) > 0 && err == nil {
		m.t.Fatalf("batches %v are incomplete, and there is no error", m.incomplete)
	}
}

// expectRecords returns how many objects are settled, each of them once and for a reason.
func (m *model) expectRecords(totals Totals) int {
	seen := map[int]bool{}
	for _, n := range slices.Concat(m.delivered, m.deleted, m.rejected) {
		if seen[n] {
			m.t.Fatalf("object %d is recorded twice", n)
		}
		seen[n] = true
	}
	for n := range m.acknowledged {
		if !seen[n] && m.recordFailsAt < 0 {
			m.t.Fatalf("object %d was acknowledged and is not recorded", n)
		}
	}
	for _, n := range slices.Concat(m.delivered, m.deleted) {
		if m.taken[n] == 0 {
			m.t.Fatalf("object %d is recorded as delivered and was not taken", n)
		}
	}
	for _, n := range m.rejected {
		if !m.bad[n] && len(asset(n, size(n)).JSON) <= m.limit {
			m.t.Fatalf("object %d is rejected without a reason", n)
		}
	}
	if totals != (Totals{len(m.delivered), len(m.deleted), len(m.rejected)}) {
		m.t.Fatalf("totals %+v, recorded %d, %d and %d", totals, len(m.delivered), len(m.deleted), len(m.rejected))
	}
	return len(seen)
}

// expectError: an error has a cause in the history, and without one all is settled.
func (m *model) expectError(err error, settled int) {
	switch {
	case err == nil:
		if settled != m.objects {
			m.t.Fatalf("%d of %d objects are settled, and there is no error", settled, m.objects)
		}
	case errors.Is(err, errRefused) && m.failAt >= 0,
		errors.Is(err, errFull) && (m.recordFailsAt >= 0 || m.announceFailsAt >= 0),
		fault.ClassOf(err) == fault.Canceled && m.cancelAt >= 0:
	default:
		m.t.Fatalf("error %v", err)
	}
}
