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

// TestCancelAfterLastCommit checks that a cancellation after the last commit has no effect.
func TestCancelAfterLastCommit(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	recorded := &memoryJournal{}
	totals, err := Run(ctx, &fakeSender{t: t}, defaultOptions, hookedJournal{recorded, nil, func([]state.BatchResult) error { cancel(); return nil }}, produce(upTo(100)...))
	if err != nil || totals.Uploaded != 100 || len(recorded.uploaded) != 100 {
		t.Errorf("totals %+v, error %v", totals, err)
	}
	// With an asset left to send, the cancellation is an error.
	totals, err = Run(ctx, &fakeSender{t: t}, defaultOptions, &memoryJournal{}, produce(1))
	if fault.ClassOf(err) != fault.Canceled || totals != (Totals{}) {
		t.Errorf("totals %+v, error %v", totals, err)
	}
}

// TestSendError checks that results after a failed batch are committed.
func TestSendError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var acknowledged []int
		var mu sync.Mutex
		f := &fakeSender{t: t, answer: func(ctx context.Context, c call) (gateway.BatchResponse, error) {
			switch n := c.numbers[0]; {
			case n == 2: // a gap in the order of results
				time.Sleep(time.Second)
				return gateway.BatchResponse{}, errRefused
			case n < 8:
				time.Sleep(time.Duration(n) * time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				acknowledged = append(acknowledged, n)
				return gateway.BatchResponse{}, nil
			default:
				<-ctx.Done()
				return gateway.BatchResponse{}, fault.Operation{Op: "send"}.Failed(fault.Canceled, ctx.Err(), "")
			}
		}}
		recorded := &memoryJournal{}
		totals, err := Run(t.Context(), f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, recorded, produce(upTo(100)...))
		if !errors.Is(err, errRefused) || fault.ClassOf(err) != fault.Refused {
			t.Errorf("error %v, want %v", err, errRefused)
		}
		slices.Sort(acknowledged)
		if !slices.Equal(recorded.uploaded, acknowledged) || totals.Uploaded != len(acknowledged) || !slices.Contains(recorded.uploaded, 7) {
			t.Errorf("uploaded %v, acknowledged %v, totals %+v", recorded.uploaded, acknowledged, totals)
		}
	})
}

// TestSendErrorCancelsProduce checks that an error of Send cancels the context of produce.
func TestSendErrorCancelsProduce(t *testing.T) {
	t.Parallel()
	f := &fakeSender{t: t, answer: func(context.Context, call) (gateway.BatchResponse, error) { return gateway.BatchResponse{}, errRefused }}
	recorded := &memoryJournal{}
	_, err := Run(t.Context(), f, Options{Workers: 1, BatchSize: 1, BatchBytes: 1000}, recorded, func(ctx context.Context, add func(identity.Asset) error, _ func() error) error {
		if err := errors.Join(add(asset(1, 0)), add(asset(2, 0))); err != nil {
			return err
		}
		<-ctx.Done() // add is not called, but produce has not returned
		return fault.Operation{Op: "read"}.Failed(fault.Canceled, ctx.Err(), "")
	})
	if !errors.Is(err, errRefused) {
		t.Errorf("error %v", err)
	}
	if recorded.commits != 0 {
		t.Errorf("%d commits without a result", recorded.commits)
	}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var acknowledged atomic.Int64
	f := &fakeSender{t: t, answer: func(_ context.Context, c call) (gateway.BatchResponse, error) {
		if c.numbers[0] == 50 {
			cancel()
		}
		acknowledged.Add(1) // active calls complete after the cancellation
		return gateway.BatchResponse{}, nil
	}}
	recorded := &memoryJournal{}
	totals, err := Run(ctx, f, Options{Workers: 4, BatchSize: 1, BatchBytes: 1000}, recorded, produce(upTo(10_000)...))
	faulttest.Check(t, err, fault.Error{Class: fault.Canceled, Op: "upload"}, context.Canceled)
	if int64(len(recorded.uploaded)) != acknowledged.Load() || totals.Uploaded != len(recorded.uploaded) || len(recorded.uploaded) > 200 {
		t.Errorf("uploaded %d, acknowledged %d", len(recorded.uploaded), acknowledged.Load())
	}
}

// TestDeadline checks that an exceeded deadline is a transient error.
func TestDeadline(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	_, err := Run(ctx, &fakeSender{t: t}, defaultOptions, &memoryJournal{}, produce(upTo(10)...))
	faulttest.Check(t, err, fault.Error{Class: fault.Transient, Op: "upload"}, context.DeadlineExceeded)
}

func TestProduceError(t *testing.T) {
	t.Parallel()
	lost := fault.Operation{Op: "search"}.Failed(fault.Transient, errors.New("connection reset"), "")
	recorded := &memoryJournal{}
	_, err := Run(t.Context(), &fakeSender{t: t}, Options{Workers: 2, BatchSize: 3, BatchBytes: 1000}, recorded, func(_ context.Context, add func(identity.Asset) error, _ func() error) error {
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
	if !slices.Equal(recorded.uploaded, upTo(6)) { // the last batch was not full
		t.Errorf("uploaded %v", recorded.uploaded)
	}
}
