package upload

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/test/faulttest"
)

// TestStopAfterTheEnd: whoever stops what is done already came too late.
func TestStopAfterTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	l := &ledger{}
	totals, err := Run(ctx, &fake{t: t}, roomy, hooked{l, nil, func([]state.BatchResult) error { cancel(); return nil }}, produce(upTo(100)...))
	if err != nil || totals.Uploaded != 100 || len(l.delivered) != 100 {
		t.Errorf("totals %+v, error %v", totals, err)
	}
	// With something left to send it is an error.
	totals, err = Run(ctx, &fake{t: t}, roomy, &ledger{}, produce(1))
	if fault.ClassOf(err) != fault.Canceled || totals != (Totals{}) {
		t.Errorf("totals %+v, error %v", totals, err)
	}
}

func TestFailingWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var acknowledged []int
		var mu sync.Mutex
		f := &fake{t: t, answer: func(ctx context.Context, c call) (gateway.Answer, error) {
			switch n := c.numbers[0]; {
			case n == 2: // leaves a gap
				time.Sleep(time.Second)
				return gateway.Answer{}, errRefused
			case n < 8:
				time.Sleep(time.Duration(n) * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				acknowledged = append(acknowledged, n)
				return gateway.Answer{}, nil
			default:
				<-ctx.Done()
				return gateway.Answer{}, fault.Operation{Op: "send"}.Failed(fault.Canceled, ctx.Err(), "")
			}
		}}
		l := &ledger{}
		totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, l, produce(upTo(100)...))
		if !errors.Is(err, errRefused) || fault.ClassOf(err) != fault.Refused {
			t.Errorf("error %v, want the refusal", err)
		}
		slices.Sort(acknowledged)
		if !slices.Equal(l.delivered, acknowledged) || totals.Uploaded != len(acknowledged) || !slices.Contains(l.delivered, 7) {
			t.Errorf("recorded %v, acknowledged %v, totals %+v", l.delivered, acknowledged, totals)
		}
	})
}

func TestFailureStopsTheProducer(t *testing.T) {
	t.Parallel()
	f := &fake{t: t, answer: func(context.Context, call) (gateway.Answer, error) { return gateway.Answer{}, errRefused }}
	l := &ledger{}
	_, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 1, BatchBytes: 1000}, l, func(ctx context.Context, add func(identity.Asset) error, _ func() error) error {
		if err := errors.Join(add(asset(1, 0)), add(asset(2, 0))); err != nil {
			return err
		}
		<-ctx.Done() // nothing more to add, but still busy
		return fault.Operation{Op: "read"}.Failed(fault.Canceled, ctx.Err(), "")
	})
	if !errors.Is(err, errRefused) {
		t.Errorf("error %v", err)
	}
	if l.writes != 0 {
		t.Errorf("%d records of nothing", l.writes)
	}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var acknowledged atomic.Int64
	f := &fake{t: t, answer: func(_ context.Context, c call) (gateway.Answer, error) {
		if c.numbers[0] == 50 {
			cancel()
		}
		acknowledged.Add(1) // calls under way are answered all the same
		return gateway.Answer{}, nil
	}}
	l := &ledger{}
	totals, err := Run(ctx, f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, l, produce(upTo(10_000)...))
	faulttest.Check(t, err, fault.Error{Class: fault.Canceled, Op: "upload"}, context.Canceled)
	if int64(len(l.delivered)) != acknowledged.Load() || totals.Uploaded != len(l.delivered) || len(l.delivered) > 200 {
		t.Errorf("recorded %d, acknowledged %d", len(l.delivered), acknowledged.Load())
	}
}

// TestOutOfTime: when the caller's time is up, the error may be temporary.
func TestOutOfTime(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	_, err := Run(ctx, &fake{t: t}, roomy, &ledger{}, produce(upTo(10)...))
	faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "upload"}, context.DeadlineExceeded)
}

func TestProduceError(t *testing.T) {
	t.Parallel()
	lost := fault.Operation{Op: "search"}.Failed(fault.Transient, errors.New("the connection was lost"), "")
	l := &ledger{}
	_, err := Run(t.Context(), &fake{t: t}, Options{Workers: 2, BatchSize: 3, BatchBytes: 1000}, l, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
		for n := range 8 {
			if err := add(asset(n, 0)); err != nil {
				return err
			}
		}
		return lost
	})
	if !errors.Is(err, lost) {
		t.Errorf("error %v", err)
	}
	if !slices.Equal(l.delivered, upTo(6)) { // the last batch was never full
		t.Errorf("recorded %v", l.delivered)
	}
}
