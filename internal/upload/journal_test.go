package upload

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

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
		full := fault.Operation{Op: "record", Object: "state file"}.Failed(fault.Transient, syscall.ENOSPC, "")
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
		if !errors.Is(err, full) || fault.ClassOf(err) != fault.Transient {
			t.Errorf("%d: error %v", failing, err)
		}
		if totals.Uploaded != len(l.delivered) || len(l.delivered) != len(f.calls) || len(f.calls) > failing {
			t.Errorf("%d: %d calls, %d recorded, totals %+v", failing, len(f.calls), len(l.delivered), totals)
		}
	}
}

// TestIncomplete: when a batch that is sent in parts fails at one of them, what
// came before is recorded, and that nobody knows of the rest.
func TestIncomplete(t *testing.T) {
	t.Parallel()
	var receipts []state.BatchResult
	l := &ledger{}
	journal := hooked{l, nil, func(some []state.BatchResult) error {
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
	if !errors.Is(err, errRefused) || totals != (Totals{Uploaded: 5, Rejected: 1}) {
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
	journal := hooked{&ledger{}, nil, func(some []state.BatchResult) error {
		for _, r := range some {
			if !r.Complete || seen[r.Batch] || len(r.Acknowledged)+len(r.Rejected) != 10 {
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
				a.RecheckAt = due
			}
			if err := add(a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || totals != (Totals{Uploaded: 6, Deleted: 2, Rejected: 2}) {
		t.Fatalf("totals %+v, error %v", totals, err)
	}
	if !slices.Equal(l.deleted, []int{0, 2}) || !slices.Equal(l.delivered, []int{3, 5, 6, 7, 8, 9}) {
		t.Errorf("deleted %v, delivered %v", l.deleted, l.delivered)
	}
	for _, o := range l.groups[0][0].Objects {
		if o.Deleted != (number(o) < 3) || o.RecheckAt.Equal(due) == o.Deleted {
			t.Errorf("announced %+v", o)
		}
	}
}

func TestRecordError(t *testing.T) {
	t.Parallel()
	full := fault.Operation{Op: "record", Object: "state file"}.Failed(fault.Transient, syscall.ENOSPC, "")
	f := &fake{t: t}
	writes := 0
	totals, err := Run(t.Context(), f, Options{Workers: 2, BatchSize: 1, BatchBytes: 1000}, hooked{&ledger{}, nil, func([]state.BatchResult) error {
		if writes++; writes == 3 {
			return full
		}
		return nil
	}}, produce(upTo(10_000)...))
	if !errors.Is(err, full) {
		t.Errorf("error %v, want the record's", err)
	}
	if writes != 3 || len(f.calls) > 500 || totals.Uploaded >= len(f.calls) {
		t.Errorf("%d records, %d calls, totals %+v: the run went on", writes, len(f.calls), totals)
	}
}
