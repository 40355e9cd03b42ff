package upload

import (
	"context"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/test/faulttest"
)

// rejectAll is a gateway that rejects every batch.
func rejectAll(context.Context, call) (gateway.BatchResponse, error) {
	return gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: bad"}, nil
}

// TestEveryObjectRejected checks that an upload ends after a limited number of calls if the
// gateway accepts nothing. It fails only if the gateway never accepted an object.
func TestEveryObjectRejected(t *testing.T) {
	t.Parallel()
	const objects = 9990
	for name, c := range map[string]struct {
		neverAcknowledged bool
		accepted          int // the first batches, which the gateway accepts
		workers           int
		batchSize         int
		fails             bool
	}{
		"gateway never accepted an object":            {true, 0, 10, 500, true},
		"gateway never accepted, one worker":          {true, 0, 1, 500, true},
		"accepted objects in an earlier run":          {false, 0, 10, 500, false},
		"accepted in an earlier run, one worker":      {false, 0, 1, 500, false},
		"accepted objects in this run":                {false, 3, 10, 500, false},
		"accepted the first objects in this run":      {true, 3, 10, 500, false},
		"batches of one object":                       {false, 0, 10, 1, false},
		"batches of ten objects":                      {false, 0, 10, 10, false},
		"batches of 5,000 objects":                    {false, 0, 2, 5000, false},
		"gateway never accepted, batches of ten":      {true, 0, 10, 10, true},
		"gateway never accepted, batches of one each": {true, 0, 10, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeSender{t: t}
			f.answer = func(ctx context.Context, sent call) (gateway.BatchResponse, error) {
				time.Sleep(time.Second) // in synctest time, so that all workers get their responses together
				if sent.numbers[0] < c.accepted*c.batchSize {
					return gateway.BatchResponse{}, nil
				}
				return rejectAll(ctx, sent)
			}
			o := Options{Workers: c.workers, BatchSize: c.batchSize, BatchBytes: 1 << 20, NeverAcknowledged: c.neverAcknowledged}
			var totals Totals
			var err error
			recorded := &memoryJournal{}
			synctest.Test(t, func(t *testing.T) { totals, err = Run(t.Context(), f, o, recorded, produce(upTo(objects)...)) })
			// Each worker halves one batch. All send single objects after that, and then the rests
			// of the parts.
			limit := c.accepted + maxConsecutiveRejections + 2*halvingLimit + 2*o.Workers*(bits.Len(uint(c.batchSize))+1)
			if c.fails {
				faulttest.Check(t, err, fault.Error{Class: fault.Refused, Op: "upload"}, errNoneAccepted,
					"qualys.customerUuid", "qualys.profileUuid", "gateway.source", "adconnector status")
				if strings.Contains(err.Error(), "400: bad") {
					t.Errorf("the reason of the gateway is in %v", err)
				}
				if totals.Uploaded != 0 || totals.Rejected < maxConsecutiveRejections || totals.Rejected > maxConsecutiveRejections+o.Workers*halvingLimit {
					t.Errorf("totals %+v", totals)
				}
			} else {
				uploaded := c.accepted * c.batchSize
				if err != nil || totals != (Totals{Uploaded: uploaded, Rejected: objects - uploaded}) || recorded.reasons[objects-1] != "400: bad" {
					t.Errorf("totals %+v, reason %q, error %v", totals, recorded.reasons[objects-1], err)
				}
				limit += (objects + c.batchSize - 1) / c.batchSize
			}
			if t.Logf("%d calls, limit %d", len(f.calls), limit); len(f.calls) > limit {
				t.Errorf("%d calls, want at most %d", len(f.calls), limit)
			}
		})
	}
}

// TestRejectionsEnd checks that rejected batches are split again after the gateway accepted an
// object, which may be in the rest of a batch that was rejected before.
func TestRejectionsEnd(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]int{"with the rest of a batch": 1200, "with a whole batch": 2000} {
		t.Run(name, func(t *testing.T) {
			bad := map[int]bool{4321: true} // isolated later
			for n := range last {
				bad[n] = true
			}
			f, recorded := &fakeSender{t: t, answer: rejectBatchesWith(bad)}, &memoryJournal{}
			totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 1000, BatchBytes: 1 << 20}, recorded, produce(upTo(5000)...))
			// Batches from 0 to 1999 are rejected as a whole, including valid objects.
			if err != nil || totals != (Totals{Uploaded: 2999, Rejected: 2001}) {
				t.Errorf("totals %+v, error %v", totals, err)
			}
			slices.Sort(recorded.rejected)
			if !slices.Equal(recorded.rejected, append(upTo(2000), 4321)) {
				t.Errorf("%d objects rejected", len(recorded.rejected))
			}
		})
	}
	t.Run("within a batch", func(t *testing.T) {
		bad := map[int]bool{}
		for n := range 500 {
			bad[n] = true
		}
		f := &fakeSender{t: t, answer: rejectBatchesWith(bad)}
		totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 1000, BatchBytes: 1 << 20}, &memoryJournal{}, produce(upTo(2000)...))
		if err != nil || totals != (Totals{Uploaded: 1500, Rejected: 500}) {
			t.Errorf("totals %+v, error %v", totals, err)
		}
	})
}

// TestRejectionsTooLarge checks that batches that are too large are still split while rejected
// ones are not, and that partly accepted ones are sent one by one.
func TestRejectionsTooLarge(t *testing.T) {
	t.Parallel()
	for name, outcome := range map[string]gateway.Outcome{"too large": gateway.TooLarge, "partly accepted": gateway.PartlyAccepted} {
		t.Run(name, func(t *testing.T) {
			f := &fakeSender{t: t, answer: func(ctx context.Context, c call) (gateway.BatchResponse, error) {
				if c.numbers[0] >= 1000 {
					if len(c.numbers) > 1 {
						return gateway.BatchResponse{Outcome: outcome, Unattributed: true}, nil
					}
					return gateway.BatchResponse{}, nil
				}
				return rejectAll(ctx, c)
			}}
			totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 500, BatchBytes: 1 << 20}, &memoryJournal{}, produce(upTo(1500)...))
			if err != nil || totals != (Totals{Uploaded: 500, Rejected: 1000}) {
				t.Errorf("totals %+v, error %v", totals, err)
			}
		})
	}
}

// TestConsecutiveRejections checks that many rejected objects in a row are isolated in fewer
// calls than by halving, and that a single accepted object resets the count.
func TestConsecutiveRejections(t *testing.T) {
	t.Parallel()
	bad := map[int]bool{}
	for n := range 2400 {
		if n%400 != 399 {
			bad[n] = true
		}
	}
	f, recorded := &fakeSender{t: t, answer: rejectBatchesWith(bad)}, &memoryJournal{}
	totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 500, BatchBytes: 1 << 20}, recorded, produce(upTo(5000)...))
	if err != nil || totals != (Totals{Uploaded: 5000 - len(bad), Rejected: len(bad)}) {
		t.Fatalf("totals %+v, error %v", totals, err)
	}
	for _, n := range recorded.rejected {
		if !bad[n] {
			t.Errorf("object %d rejected", n)
		}
	}
	if limit := len(bad) * 5 / 4; len(f.calls) > limit {
		t.Errorf("%d calls, want at most %d", len(f.calls), limit)
	}
}
