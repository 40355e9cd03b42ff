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

// TestMarkInFlightBeforeSend checks that each object is marked in flight once, before it is
// sent, and that batch numbers follow the order of the objects.
func TestMarkInFlightBeforeSend(t *testing.T) {
	t.Parallel()
	recorded := &memoryJournal{}
	f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
		if !recorded.isInFlight(c.numbers) {
			t.Errorf("%v sent without being marked in flight", c.numbers)
		}
		return gateway.BatchResponse{}, nil
	}}
	if _, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 7, BatchBytes: 1 << 20}, recorded, produce(upTo(1000)...)); err != nil {
		t.Fatal(err)
	}
	var numbers, objects []int
	for _, batch := range slices.Concat(recorded.groups...) {
		numbers = append(numbers, batch.Number)
		for _, o := range batch.Objects {
			objects = append(objects, number(o))
		}
	}
	if !slices.Equal(numbers, upTo(143)) || !slices.Equal(objects, upTo(1000)) {
		t.Errorf("batches %v with objects %v", numbers, objects)
	}
}

// TestMarkInFlightGroupsBatches checks that waiting batches are marked in one call.
func TestMarkInFlightGroupsBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		recorded := &memoryJournal{}
		journal := hookedJournal{recorded, func([]state.Batch) error { time.Sleep(time.Second); return nil }, nil}
		f := &fakeSender{t: t}
		o := Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}
		if _, err := Run(t.Context(), f, o, journal, produce(upTo(41)...)); err != nil || len(f.calls) != 41 {
			t.Fatalf("%d calls, error %v", len(f.calls), err)
		}
		if n := len(recorded.groups); n > 41/o.Workers+2 {
			t.Errorf("%d calls of MarkInFlight for 41 batches", n)
		}
	})
}

// TestMarkInFlightError checks that a batch is not sent if MarkInFlight fails.
func TestMarkInFlightError(t *testing.T) {
	t.Parallel()
	for _, failing := range []int{0, 10, 99} { // the first, a middle, and the last batch
		full := fault.Operation{Op: "record", Object: "state file"}.Failed(fault.Transient, syscall.ENOSPC, "")
		recorded := &memoryJournal{}
		f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
			if !recorded.isInFlight(c.numbers) {
				t.Errorf("%v sent without being marked in flight", c.numbers)
			}
			return gateway.BatchResponse{}, nil
		}}
		journal := hookedJournal{recorded, func(batches []state.Batch) error {
			if batches[len(batches)-1].Number >= failing {
				return full
			}
			return nil
		}, nil}
		totals, err := Run(t.Context(), f, Options{Workers: 2, BatchSize: 1, BatchBytes: 1000}, journal, produce(upTo(100)...))
		if !errors.Is(err, full) || fault.ClassOf(err) != fault.Transient {
			t.Errorf("%d: error %v", failing, err)
		}
		if totals.Uploaded != len(recorded.uploaded) || len(recorded.uploaded) != len(f.calls) || len(f.calls) > failing {
			t.Errorf("%d: %d calls, %d committed, totals %+v", failing, len(f.calls), len(recorded.uploaded), totals)
		}
	}
}

// TestIncompleteResult checks that the results of parts are committed when a later part of
// the batch fails. The result of the batch is then incomplete.
func TestIncompleteResult(t *testing.T) {
	t.Parallel()
	var results []state.BatchResult
	recorded := &memoryJournal{}
	journal := hookedJournal{recorded, nil, func(some []state.BatchResult) error {
		results = append(results, some...)
		return nil
	}}
	f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
		switch {
		case slices.Contains(c.numbers, 6) && len(c.numbers) == 1:
			return gateway.BatchResponse{}, errRefused
		case slices.Contains(c.numbers, 2), slices.Contains(c.numbers, 6):
			return gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: bad"}, nil
		}
		return gateway.BatchResponse{}, nil
	}}
	o := Options{Workers: 1, BatchSize: 8, BatchBytes: 1 << 20}
	totals, err := Run(t.Context(), f, o, journal, produce(upTo(16)...))
	if !errors.Is(err, errRefused) || totals != (Totals{Uploaded: 5, Rejected: 1}) {
		t.Fatalf("totals %+v, error %v", totals, err)
	}
	if len(results) != 1 || results[0].Batch != 0 || results[0].Complete {
		t.Errorf("results %+v", results)
	}
	if !slices.Equal(recorded.uploaded, []int{0, 1, 3, 4, 5}) || !slices.Equal(recorded.rejected, []int{2}) {
		t.Errorf("uploaded %v, rejected %v", recorded.uploaded, recorded.rejected)
	}
}

// TestCompleteResults checks that the result of a batch that is sent in parts is complete.
func TestCompleteResults(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	journal := hookedJournal{&memoryJournal{}, nil, func(some []state.BatchResult) error {
		for _, r := range some {
			if !r.Complete || seen[r.Batch] || len(r.Acknowledged)+len(r.Rejected) != 10 {
				t.Errorf("result %+v", r)
			}
			seen[r.Batch] = true
		}
		return nil
	}}
	f := &fakeSender{t: t, answer: rejectBatchesWith(map[int]bool{3: true, 4: true, 77: true})}
	if _, err := Run(t.Context(), f, Options{Workers: 3, BatchSize: 10, BatchBytes: 1 << 20}, journal, produce(upTo(100)...)); err != nil || len(seen) != 10 {
		t.Errorf("%d results, error %v", len(seen), err)
	}
}

// TestDeletedObjects checks that deletions are counted separately and reach the journal.
func TestDeletedObjects(t *testing.T) {
	t.Parallel()
	recorded := &memoryJournal{}
	recheckAt := time.Unix(1_700_000_000, 0)
	f := &fakeSender{t: t, answer: rejectBatchesWith(map[int]bool{1: true, 4: true})}
	totals, err := Run(t.Context(), f, defaultOptions, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		for n := range 10 {
			a := asset(n, 0)
			if a.Deleted = n < 3; !a.Deleted {
				a.RecheckAt = recheckAt
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
	if !slices.Equal(recorded.deleted, []int{0, 2}) || !slices.Equal(recorded.uploaded, []int{3, 5, 6, 7, 8, 9}) {
		t.Errorf("deleted %v, uploaded %v", recorded.deleted, recorded.uploaded)
	}
	for _, o := range recorded.groups[0][0].Objects {
		if o.Deleted != (number(o) < 3) || o.RecheckAt.Equal(recheckAt) == o.Deleted {
			t.Errorf("object in flight %+v", o)
		}
	}
}

// TestCommitError checks that an error of Commit ends the upload.
func TestCommitError(t *testing.T) {
	t.Parallel()
	full := fault.Operation{Op: "record", Object: "state file"}.Failed(fault.Transient, syscall.ENOSPC, "")
	f := &fakeSender{t: t}
	commits := 0
	totals, err := Run(t.Context(), f, Options{Workers: 2, BatchSize: 1, BatchBytes: 1000}, hookedJournal{&memoryJournal{}, nil, func([]state.BatchResult) error {
		if commits++; commits == 3 {
			return full
		}
		return nil
	}}, produce(upTo(10_000)...))
	if !errors.Is(err, full) {
		t.Errorf("error %v, want the error of Commit", err)
	}
	if commits != 3 || len(f.calls) > 500 || totals.Uploaded >= len(f.calls) {
		t.Errorf("%d commits, %d calls, totals %+v: upload continued", commits, len(f.calls), totals)
	}
}
