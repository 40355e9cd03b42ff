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

// TestCampaignModel runs random uploads to a gateway that answers randomly. It checks that
// acknowledged objects are committed once, and that nothing else is committed. Unless Run
// returns an error, every object has a result.
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
				m.checkResults(err)
				count := m.checkCommits(totals)
				m.checkError(err, count)
			})
		})
	}
}

// model is one random history: a gateway, a journal, and their failures.
type model struct {
	t       *testing.T
	random  *rand.Rand
	options Options
	objects int
	adders  int

	bad   map[int]bool // objects that the gateway rejects
	limit int          // maximum size of a batch in bytes
	// Indexes of the call that fails, the call that cancels the run, and the calls of Commit
	// and MarkInFlight that fail; -1: none.
	failAt, cancelAt, commitFailsAt, markFailsAt int
	cancel                                       context.CancelFunc

	memoryJournal
	marks, commitCalls int
	results            map[int]int // number of objects in the result of a batch
	incomplete         []int       // batches

	mu           sync.Mutex
	calls        int
	accepted     map[int]int // number of times the gateway accepted an object
	acknowledged map[int]bool
}

var errFull = errors.New("full")

func newModel(t *testing.T, seed uint64) *model {
	random := rand.New(rand.NewPCG(seed, 0))
	m := &model{
		t: t, random: random, objects: random.IntN(600), adders: 1 + random.IntN(3),
		options: Options{Workers: 1 + random.IntN(8), BatchSize: 1 + random.IntN(50), BatchBytes: 100 + random.IntN(3000)},
		bad:     map[int]bool{}, limit: 60 + random.IntN(3000),
		failAt: -1, cancelAt: -1, commitFailsAt: -1, markFailsAt: -1,
		results: map[int]int{}, accepted: map[int]int{}, acknowledged: map[int]bool{},
	}
	m.options.maxBytes = int64(m.options.BatchBytes + 2*objectOverhead + random.IntN(30_000)) // a leak of bytes blocks the upload
	for range random.IntN(40) {
		m.bad[random.IntN(600)] = true
	}
	switch random.IntN(7) {
	case 0:
		m.failAt = random.IntN(40)
	case 1:
		m.cancelAt = random.IntN(40)
	case 2:
		m.commitFailsAt = random.IntN(10)
	case 3:
		m.markFailsAt = random.IntN(10)
	}
	return m
}

func (m *model) run() (Totals, error) {
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	m.cancel = cancel
	return Run(ctx, &fakeSender{t: m.t, answer: m.answer}, m.options, m, m.produce)
}

// size returns the minimum length of the JSON of object n.
func size(n int) int { return 20 + n%200 }

func (m *model) produce(_ context.Context, add func(identity.Asset) error, _ func() error) error {
	var adding sync.WaitGroup
	errs := make([]error, m.adders)
	turn := make(chan struct{}, 1) // synctest time does not advance while a goroutine waits for a mutex
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

// answer is the gateway: it waits, fails or cancels at the chosen call, and rejects bad
// objects in one of several ways.
func (m *model) answer(_ context.Context, c call) (gateway.BatchResponse, error) {
	if !m.isInFlight(c.numbers) {
		m.t.Errorf("%v sent without being marked in flight", c.numbers)
	}
	m.mu.Lock()
	delay, shape, index := time.Duration(m.random.IntN(1000)), m.random.IntN(4), m.calls
	m.calls++
	m.mu.Unlock()
	time.Sleep(delay * time.Millisecond)
	if index == m.cancelAt {
		m.cancel()
	}
	switch {
	case index == m.failAt:
		return gateway.BatchResponse{}, errRefused
	case c.bytes > m.limit:
		return gateway.BatchResponse{Outcome: gateway.TooLarge, Message: "413"}, nil
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
		return gateway.BatchResponse{Outcome: gateway.Rejected, Message: "bad"}, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range good {
		m.accepted[n]++
		if len(bad) == 0 {
			m.acknowledged[n] = true
		}
	}
	if len(bad) == 0 {
		return gateway.BatchResponse{}, nil
	}
	answer := gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Message: "bad", Rejected: map[string]string{}, Unattributed: shape == 1}
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
	m.marks++
	if m.marks-1 == m.markFailsAt {
		return errFull
	}
	return m.memoryJournal.MarkInFlight(batches)
}

func (m *model) Commit(results []state.BatchResult) error {
	m.commitCalls++
	if m.commitCalls-1 == m.commitFailsAt {
		return errFull
	}
	for _, r := range results {
		if _, twice := m.results[r.Batch]; twice {
			m.t.Errorf("batch %d is committed twice", r.Batch)
		}
		if m.results[r.Batch] = len(r.Acknowledged) + len(r.Rejected); !r.Complete {
			m.incomplete = append(m.incomplete, r.Batch)
		}
	}
	return m.memoryJournal.Commit(results)
}

// checkResults checks that a complete result contains all objects of its batch, and that
// Run returns an error if a result is incomplete.
func (m *model) checkResults(err error) {
	for _, batch := range slices.Concat(m.groups...) {
		count, committed := m.results[batch.Number]
		if committed && count != len(batch.Objects) && !slices.Contains(m.incomplete, batch.Number) {
			m.t.Fatalf("batch %d of %d objects has a complete result with %d", batch.Number, len(batch.Objects), count)
		}
	}
	if len(m.incomplete) > 0 && err == nil {
		m.t.Fatalf("batches %v are incomplete, but there is no error", m.incomplete)
	}
}

// checkCommits checks the committed results and returns the number of their objects.
func (m *model) checkCommits(totals Totals) int {
	seen := map[int]bool{}
	for _, n := range slices.Concat(m.uploaded, m.deleted, m.rejected) {
		if seen[n] {
			m.t.Fatalf("object %d is committed twice", n)
		}
		seen[n] = true
	}
	for n := range m.acknowledged {
		if !seen[n] && m.commitFailsAt < 0 {
			m.t.Fatalf("object %d was acknowledged but not committed", n)
		}
	}
	for _, n := range slices.Concat(m.uploaded, m.deleted) {
		if m.accepted[n] == 0 {
			m.t.Fatalf("object %d is committed as acknowledged but was not accepted", n)
		}
	}
	for _, n := range m.rejected {
		if !m.bad[n] && len(asset(n, size(n)).JSON) <= m.limit {
			m.t.Fatalf("object %d is rejected but valid", n)
		}
	}
	if totals != (Totals{len(m.uploaded), len(m.deleted), len(m.rejected)}) {
		m.t.Fatalf("totals %+v, committed %d, %d and %d", totals, len(m.uploaded), len(m.deleted), len(m.rejected))
	}
	return len(seen)
}

// checkError checks that an error has a cause in the history, and that all objects have a
// result if there is no error.
func (m *model) checkError(err error, count int) {
	switch {
	case err == nil:
		if count != m.objects {
			m.t.Fatalf("%d of %d objects have a result, but there is no error", count, m.objects)
		}
	case errors.Is(err, errRefused) && m.failAt >= 0,
		errors.Is(err, errFull) && (m.commitFailsAt >= 0 || m.markFailsAt >= 0),
		fault.ClassOf(err) == fault.Canceled && m.cancelAt >= 0:
	default:
		m.t.Fatalf("error %v", err)
	}
}
