package upload

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"adconnector/internal/gateway"
	"adconnector/internal/identity"
)

func TestIsolateRejectedObjects(t *testing.T) {
	t.Parallel()
	const objects, batch = 10_000, 500
	random := rand.New(rand.NewPCG(1, 2))
	for _, k := range []int{1, 10, 100} {
		for _, spread := range []string{"in one batch", "in all batches"} {
			t.Run(fmt.Sprintf("%d %s", k, spread), func(t *testing.T) {
				bad := map[int]bool{}
				for len(bad) < k {
					n := random.IntN(objects)
					if spread == "in one batch" {
						n = 3*batch + n%batch
					}
					bad[n] = true
				}
				f, recorded := &fakeSender{t: t, answer: rejectBatchesWith(bad)}, &memoryJournal{}
				totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: batch, BatchBytes: 1 << 20}, recorded, produce(upTo(objects)...))
				if err != nil || totals != (Totals{Uploaded: objects - k, Rejected: k}) {
					t.Fatalf("totals %+v, error %v", totals, err)
				}
				for _, n := range recorded.rejected {
					if !bad[n] || recorded.reasons[n] != "400: bad" {
						t.Errorf("object %d rejected with reason %q", n, recorded.reasons[n])
					}
				}
				limit := objects/batch + 2*k*bits.Len(batch)
				t.Logf("%d calls, limit %d", len(f.calls), limit)
				if len(f.calls) > limit {
					t.Errorf("%d calls, want at most %d", len(f.calls), limit)
				}
			})
		}
	}
}

func TestTooLargeReducesBatchBytes(t *testing.T) {
	t.Parallel()
	const limit = 3000
	f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
		if c.bytes > limit {
			return gateway.BatchResponse{Outcome: gateway.TooLarge, Message: "413"}, nil
		}
		return gateway.BatchResponse{}, nil
	}}
	recorded := &memoryJournal{}
	totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 500, BatchBytes: 10_000}, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		for n := range 1000 {
			size := 90
			if n == 500 {
				size = 2 * limit // always too large
			}
			if err := add(asset(n, size)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || totals != (Totals{Uploaded: 999, Rejected: 1}) || !slices.Equal(recorded.rejected, []int{500}) || recorded.reasons[500] != "413" {
		t.Fatalf("totals %+v, rejected %v, error %v", totals, recorded.reasons, err)
	}
	for i, c := range f.calls {
		if i > 20 && c.bytes > limit && !slices.Contains(c.numbers, 500) {
			t.Errorf("call %d has %d bytes, although the limit of %d was detected", i, c.bytes, limit)
		}
	}
}

// TestUnfinishedReducesBatchBytes checks that a batch that was not completed is sent in parts, and that later
// batches have the size of the parts that arrived.
func TestUnfinishedReducesBatchBytes(t *testing.T) {
	t.Parallel()
	const limit = 3000
	timeouts := 0
	f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
		if c.bytes > limit {
			timeouts++
			return gateway.BatchResponse{Outcome: gateway.Unfinished, Message: "no response in time"}, nil
		}
		return gateway.BatchResponse{}, nil
	}}
	totals, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 500, BatchBytes: 10_000}, &memoryJournal{}, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		for n := range 1000 {
			if err := add(asset(n, 90)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || totals != (Totals{Uploaded: 1000}) {
		t.Fatalf("totals %+v, error %v", totals, err)
	}
	if timeouts != 2 { // 10,000 and 5,000 bytes
		t.Errorf("%d timeouts", timeouts)
	}
}

func TestPartly(t *testing.T) {
	t.Parallel()
	guid := func(n int) string { return asset(n, 0).GUID.String() }
	sid := func(n int) string { return asset(n, 0).SID.String() }
	cases := map[string]struct {
		answer   gateway.BatchResponse
		oneByOne bool
	}{
		"by SID":                 {answer: gateway.BatchResponse{Rejected: map[string]string{sid(2): "no", sid(5): "no"}}},
		"by GUID":                {answer: gateway.BatchResponse{Rejected: map[string]string{guid(2): "no", guid(5): "no"}}},
		"by both":                {answer: gateway.BatchResponse{Rejected: map[string]string{guid(2): "no", sid(5): "no"}}},
		"unknown ID":             {answer: gateway.BatchResponse{Rejected: map[string]string{sid(2): "no", "S-1-5-99": "no"}}, oneByOne: true},
		"both IDs of one object": {answer: gateway.BatchResponse{Rejected: map[string]string{guid(2): "no", sid(2): "no"}}, oneByOne: true},
		"unattributed":           {answer: gateway.BatchResponse{Rejected: map[string]string{sid(2): "no"}, Unattributed: true}, oneByOne: true},
		"no object named":        {answer: gateway.BatchResponse{Message: "no", Unattributed: true}, oneByOne: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := &fakeSender{t: t, answer: func(_ context.Context, sent call) (gateway.BatchResponse, error) {
				switch {
				case len(sent.numbers) > 1:
					c.answer.Outcome = gateway.PartlyAccepted
					return c.answer, nil
				case sent.numbers[0] == 2 || sent.numbers[0] == 5:
					return gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Message: "no", Unattributed: true}, nil
				}
				return gateway.BatchResponse{}, nil
			}}
			recorded := &memoryJournal{}
			totals, err := Run(t.Context(), f, defaultOptions, recorded, produce(upTo(8)...))
			if err != nil || totals != (Totals{Uploaded: 6, Rejected: 2}) || recorded.reasons[2] != "no" || recorded.reasons[5] != "no" {
				t.Fatalf("totals %+v, rejected %v, error %v", totals, recorded.reasons, err)
			}
			if calls := len(f.calls); calls != 1 && !c.oneByOne || calls != 9 && c.oneByOne {
				t.Errorf("%d calls", calls)
			}
		})
	}
}

// TestPartlyRole checks that a group and its role, which have the same SID, are distinguished.
func TestPartlyRole(t *testing.T) {
	t.Parallel()
	group, role := asset(1, 0), asset(2, 0)
	group.Kind, role.Kind, role.SID = identity.Group, identity.Role, group.SID
	for rejected, want := range map[string]identity.Asset{group.SID.String(): group, group.SID.String() + ":role": role} {
		f := &fakeSender{t: t, answer: func(context.Context, call) (gateway.BatchResponse, error) {
			return gateway.BatchResponse{Outcome: gateway.PartlyAccepted, Rejected: map[string]string{rejected: "no"}}, nil
		}}
		recorded := &memoryJournal{}
		totals, err := Run(t.Context(), f, defaultOptions, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
			return errors.Join(add(group), add(role))
		})
		if err != nil || totals != (Totals{Uploaded: 1, Rejected: 1}) || !slices.Equal(recorded.rejected, []int{number(want.Object())}) {
			t.Errorf("%s: totals %+v, rejected %v, error %v", rejected, totals, recorded.rejected, err)
		}
	}
}

// TestReasonOfRejectedObject checks that an object in a rejected batch of one has its own reason, and
// otherwise the message of the batch.
func TestReasonOfRejectedObject(t *testing.T) {
	t.Parallel()
	second := asset(2, 1)
	for name, c := range map[string]struct {
		rejected map[string]string
		want     string
	}{
		"by SID":            {map[string]string{second.SID.String(): "bad name"}, "bad name"},
		"by GUID":           {map[string]string{second.GUID.String(): "bad name"}, "bad name"},
		"no reasons":        {nil, "400: invalid"},
		"of something else": {map[string]string{"code": "E12"}, "400: invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fakeSender{t: t, answer: func(_ context.Context, sent call) (gateway.BatchResponse, error) {
				if !slices.Contains(sent.numbers, 2) {
					return gateway.BatchResponse{}, nil
				}
				return gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: invalid", Rejected: c.rejected}, nil
			}}
			recorded := &memoryJournal{}
			totals, err := Run(t.Context(), f, defaultOptions, recorded, produce(upTo(8)...))
			if err != nil || totals != (Totals{Uploaded: 7, Rejected: 1}) || recorded.reasons[2] != c.want {
				t.Errorf("totals %+v, rejected %v, error %v", totals, recorded.reasons, err)
			}
		})
	}
}

// TestReasonsOfUnsplitBatch checks that each object of a rejected batch that is not split has its own
// reason, if the response has one.
func TestReasonsOfUnsplitBatch(t *testing.T) {
	t.Parallel()
	first, second := asset(1, 1), asset(2, 1)
	b := &batch{}
	b.Objects = []identity.Object{{Kind: first.Kind, GUID: first.GUID, SID: first.SID}, {Kind: second.Kind, GUID: second.GUID, SID: second.SID}}
	got := b.rejectAll(gateway.BatchResponse{Outcome: gateway.Rejected, Message: "400: invalid", Rejected: map[string]string{second.SID.String(): "bad name"}})
	if len(got.Rejected) != 2 || got.Rejected[0].Reason != "400: invalid" || got.Rejected[1].Reason != "bad name" {
		t.Errorf("%+v", got.Rejected)
	}
}
