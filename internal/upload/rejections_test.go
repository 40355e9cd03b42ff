package upload

import (
	"context"
	"math/bits"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/test/faulttest"
)

// rejectAll is a gateway that rejects every batch.
func rejectAll(context.Context, call) (gateway.BatchResponse, error) {
	return gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: bad"}, nil
}

// known returns the rejections of objects in an earlier run.
func known(numbers []int) map[ad.GUID]state.Rejection {
	rejections := map[ad.GUID]state.Rejection{}
	for _, n := range numbers {
		a := asset(n, 0)
		rejections[a.GUID] = state.Rejection{GUID: a.GUID, Value: a.Fingerprint[:]}
	}
	return rejections
}

// TestEveryObjectRejected checks that an upload fails after a limited number of calls if the
// gateway accepts nothing, also if it accepted objects before.
func TestEveryObjectRejected(t *testing.T) {
	t.Parallel()
	const objects = 9990
	for name, c := range map[string]struct {
		neverAcknowledged bool
		accepted          int // the first batches, which the gateway accepts
		batchSize         int
		class             fault.Class
		remedies          []string
	}{
		"gateway never accepted an object":       {true, 0, 500, fault.Refused, []string{"qualys.customerUuid", "qualys.profileUuid", "gateway.source", "adconnector status"}},
		"accepted objects in an earlier run":     {false, 0, 500, fault.Transient, []string{"adconnector status", "platform"}},
		"accepted objects in this run":           {false, 3, 500, fault.Transient, []string{"adconnector status", "platform"}},
		"accepted the first objects in this run": {true, 3, 500, fault.Transient, []string{"adconnector status", "platform"}},
		"batches of one object":                  {false, 0, 1, fault.Transient, []string{"adconnector status", "platform"}},
		"batches of ten objects":                 {false, 0, 10, fault.Transient, []string{"adconnector status", "platform"}},
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
			o := Options{Workers: 10, BatchSize: c.batchSize, BatchBytes: 1 << 20, NeverAcknowledged: c.neverAcknowledged}
			var totals Totals
			var err error
			synctest.Test(t, func(t *testing.T) { totals, err = Run(t.Context(), f, o, &memoryJournal{}, produce(upTo(objects)...)) })
			faulttest.Check(t, err, fault.Error{Class: c.class, Op: "upload"}, errNoneAccepted, c.remedies...)
			if strings.Contains(err.Error(), "400: bad") {
				t.Errorf("the reason of the gateway is in %v", err)
			}
			if totals.Uploaded != c.accepted*c.batchSize || totals.Rejected < maxConsecutiveRejections || totals.Rejected > maxConsecutiveRejections+o.Workers*halvingLimit {
				t.Errorf("totals %+v", totals)
			}
			// Each worker halves one batch, and all send single objects after that.
			limit := c.accepted + maxConsecutiveRejections + 2*halvingLimit + 2*o.Workers*(bits.Len(uint(c.batchSize))+1)
			if t.Logf("%d calls, limit %d", len(f.calls), limit); len(f.calls) > limit {
				t.Errorf("%d calls", len(f.calls))
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

// TestKnownRejections checks that objects that were rejected in an earlier run do not fail the
// upload, and that batches of such objects are not isolated again if the gateway accepts nothing.
func TestKnownRejections(t *testing.T) {
	t.Parallel()
	const objects = 3000
	o := Options{Workers: 1, BatchSize: 500, BatchBytes: 1 << 20, Rejections: known(upTo(objects))}
	t.Run("unchanged", func(t *testing.T) {
		f, recorded := &fakeSender{t: t, answer: rejectAll}, &memoryJournal{}
		totals, err := Run(t.Context(), f, o, recorded, produce(upTo(objects)...))
		if err != nil || totals != (Totals{Rejected: objects}) || recorded.reasons[objects-1] != "400: bad" {
			t.Errorf("totals %+v, error %v", totals, err)
		}
		if limit := maxConsecutiveRejections + 3*halvingLimit + objects/o.BatchSize; len(f.calls) > limit {
			t.Errorf("%d calls, want at most %d", len(f.calls), limit)
		}
	})
	t.Run("with accepted ones", func(t *testing.T) {
		bad := map[int]bool{}
		for n := range objects {
			bad[n] = n != 1600 // accepted now
		}
		f, recorded := &fakeSender{t: t, answer: rejectBatchesWith(bad)}, &memoryJournal{}
		some := o
		some.Rejections = known(slices.Delete(upTo(objects), 1600, 1601))
		totals, err := Run(t.Context(), f, some, recorded, produce(upTo(objects)...))
		if err != nil || totals != (Totals{Uploaded: 1, Rejected: objects - 1}) {
			t.Errorf("totals %+v, error %v", totals, err)
		}
	})
	for name, change := range map[string]func(*Options, *identity.Asset){
		"changed":                          func(_ *Options, a *identity.Asset) { a.Fingerprint[0]++ },
		"gateway never accepted an object": func(o *Options, _ *identity.Asset) { o.NeverAcknowledged = true },
	} {
		t.Run(name, func(t *testing.T) {
			f, o := &fakeSender{t: t, answer: rejectAll}, o
			change(&o, &identity.Asset{})
			_, err := Run(t.Context(), f, o, &memoryJournal{}, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
				for n := range objects {
					a := asset(n, 0)
					change(&o, &a)
					if err := add(a); err != nil {
						return err
					}
				}
				return nil
			})
			if class := fault.ClassOf(err); class != fault.Transient && class != fault.Refused || len(f.calls) > 2*maxConsecutiveRejections {
				t.Errorf("%d calls, error %v", len(f.calls), err)
			}
		})
	}
}
