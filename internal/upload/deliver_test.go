package upload

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/test/faulttest"
)

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
				if err != nil || totals != (Totals{Uploaded: objects - k, Rejected: k}) {
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
	if err != nil || totals != (Totals{Uploaded: 999, Rejected: 1}) || !slices.Equal(l.rejected, []int{500}) || l.reasons[500] != "413" {
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
			if err != nil || totals != (Totals{Uploaded: 6, Rejected: 2}) || l.reasons[2] != "no" || l.reasons[5] != "no" {
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
		if err != nil || totals != (Totals{Uploaded: 1, Rejected: 1}) || !slices.Equal(l.rejected, []int{number(of.Object())}) {
			t.Errorf("%s: totals %+v, rejected %v, error %v", rejected, totals, l.rejected, err)
		}
	}
}

// TestHopeless: a run in which an untried gateway takes nothing is given up.
func TestHopeless(t *testing.T) {
	t.Parallel()
	const objects = 10_000
	bad := map[int]bool{}
	for n := range objects {
		bad[n] = true
	}
	untried := roomy
	untried.NeverAcknowledged = true
	f := &fake{t: t, answer: poisoned(bad)}
	totals, err := Run(t.Context(), f, untried, &ledger{}, produce(upTo(objects)...))
	faulttest.Check(t, err, fault.Error{Class: fault.Refused, Op: "upload"}, errNoneAccepted,
		"qualys.customerUuid", "qualys.profileUuid", "gateway.source", "adconnector status")
	if strings.Contains(err.Error(), "400: bad") {
		t.Errorf("the gateway's words are in %v", err)
	}
	if len(f.calls) > 4*hopeless || totals.Rejected < hopeless {
		t.Errorf("%d calls before giving up, totals %+v", len(f.calls), totals)
	}
}

// TestNotHopeless: a gateway that has ever taken an object is not given up.
func TestNotHopeless(t *testing.T) {
	t.Parallel()
	const objects = 2 * hopeless
	for name, c := range map[string]struct {
		untried bool
		taken   int // the first objects, which the gateway takes
	}{"before this run": {false, 0}, "in this run": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			bad := map[int]bool{}
			for n := c.taken; n < objects; n++ {
				bad[n] = true
			}
			options := Options{Workers: 1, BatchSize: 1, BatchBytes: 1000, NeverAcknowledged: c.untried}
			totals, err := Run(t.Context(), &fake{t: t, answer: poisoned(bad)}, options, &ledger{}, produce(upTo(objects)...))
			if err != nil || totals != (Totals{Uploaded: c.taken, Rejected: objects - c.taken}) {
				t.Errorf("totals %+v, error %v", totals, err)
			}
		})
	}
}
