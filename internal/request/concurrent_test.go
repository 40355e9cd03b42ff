package request

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"adconnector/internal/state"
)

// executions counts how often each request was executed.
type executions struct {
	mu    sync.Mutex
	count map[string]int
}

func (e *executions) add(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.count[id]++
}

// serveRequests is a daemon that executes up to limit requests and ends, or ends with ctx. It does not
// respond to the last one: it ends during that run.
func serveRequests(ctx context.Context, t *testing.T, dir string, limit int, executed *executions) {
	s, err := Listen(dir)
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	s.Target, s.Profile = "target", "profile"
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n := 0; ctx.Err() == nil; {
		s.sweep(time.Now())
		job, ok := s.Next()
		if !ok {
			<-tick.C
			continue
		}
		executed.add(job.ID)
		if n++; n == limit {
			return
		}
		job.Respond(Response{Run: &state.Run{ID: job.ID}})
	}
}

// requestFull is a command that requests a run. It is interrupted after it has looked for the response
// patience times; 0: never. id is empty if no daemon accepts requests.
func requestFull(ctx context.Context, dir string, patience int) (id string, response Response, err error) {
	p, err := Submit(dir, Request{Target: "target", Profile: "profile", Options: Options{Full: true}})
	if err != nil {
		return "", response, err
	}
	defer p.Close()
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	looks := 0
	response, err = p.Await(ctx, func(*Progress) {
		if looks++; looks == patience {
			interrupt()
		}
	})
	return p.ID, response, err
}

// TestConcurrentCommands tests that each of the commands that request runs at once gets the outcome of
// its own run, while daemons end and others start: no request is executed twice, and none of which the
// command returns that it was not executed.
func TestConcurrentCommands(t *testing.T) {
	t.Parallel()
	const commands, responses = 12, 4
	dir := t.TempDir()
	executed := executions{count: map[string]int{}}
	ctx, cancel := context.WithCancel(t.Context())
	var serving, requesting sync.WaitGroup
	serving.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			serveRequests(ctx, t, dir, 1+n%4, &executed)
		}
	})
	type result struct {
		id string
		outcome
	}
	results := make([][]result, commands)
	for i := range commands {
		requesting.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for n, done := 0, 0; done < responses && !t.Failed(); n++ {
				var r result
				r.id, r.response, r.err = requestFull(t.Context(), dir, min((i+n)%16, 1)) // most are interrupted at once
				if r.id == "" && errors.Is(r.err, ErrNotServed) {                         // between two daemons
					<-tick.C
					continue
				}
				results[i] = append(results[i], r)
				if r.err == nil {
					done++
				}
			}
		})
	}
	requesting.Wait()
	cancel()
	serving.Wait()
	interrupted := 0
	for i, r := range results {
		for _, got := range r {
			if errors.Is(got.err, ErrWithdrawn) || errors.Is(got.err, ErrContinues) {
				interrupted++
			}
			n, want := executed.count[got.id], 1
			switch {
			case got.err == nil && (got.response.Run == nil || got.response.Run.ID != got.id):
				t.Errorf("command %d: request %s, response %+v", i, got.id, got.response)
			case errors.Is(got.err, ErrNotServed), errors.Is(got.err, ErrWithdrawn):
				want = 0
			case got.err != nil && !errors.Is(got.err, errLost) && !errors.Is(got.err, ErrContinues):
				t.Errorf("command %d: %v", i, got.err)
			}
			if n != want {
				t.Errorf("command %d: executed %d times, error %v", i, n, got.err)
			}
		}
	}
	if interrupted == 0 {
		t.Error("no command was interrupted")
	}
	s := listen(t, dir)
	defer s.Close()
	s.sweep(time.Now().Add(2 * minOrphanAge)) // the responses to commands that were interrupted
	requireEmpty(t, dir)
}
