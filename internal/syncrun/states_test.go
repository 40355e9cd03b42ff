package syncrun

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// sentState is the compared part of a state that the gateway received.
type sentState struct {
	state, run, nextRun, failure string
	summary                      bool
}

func (e *env) sentStates() (sent []sentState) {
	for _, s := range e.gateway.States() {
		state := sentState{state: s.State, run: s.RunID, summary: s.Summary != nil}
		if s.NextRunAt != nil {
			state.nextRun = time.Time(*s.NextRunAt).Format(time.RFC3339)
		}
		if s.Error != nil {
			state.failure = *s.Error
		}
		sent = append(sent, state)
	}
	return sent
}

func (e *env) expectStates(want []sentState) {
	e.t.Helper()
	if got := e.sentStates(); !slices.Equal(got, want) {
		e.t.Errorf("sent states\n%+v\nwant\n%+v", got, want)
	}
	lines := e.log.With(MsgConnectorState)
	if len(lines) != len(want) {
		e.t.Fatalf("%d changes logged, want %d", len(lines), len(want))
	}
	from := ""
	for i, line := range lines {
		if line.Text("from") != from || line.Text("to") != want[i].state || line.Text("run_id") != want[i].run {
			e.t.Errorf("line %d: %v", i, line)
		}
		failure := line.Text("error")
		if remedy := line.Text("remedy"); remedy != "" {
			failure += ": " + remedy
		}
		if failure != want[i].failure {
			e.t.Errorf("line %d: %v, want the error %q", i, line, want[i].failure)
		}
		from = want[i].state
	}
}

func TestStatesOfScheduledRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(7), fakeldap.Groups(2)
	nextRun := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	e.must(e.runner.Register(t.Context()))
	e.must(e.runner.Schedule(t.Context(), nextRun))
	run := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 9})
	e.must(e.runner.Schedule(t.Context(), nextRun))
	e.must(e.runner.Schedule(t.Context(), nextRun)) // sent once
	next := nextRun.Format(time.RFC3339)
	e.expectStates([]sentState{
		{state: stateRegistered},
		{state: stateScheduled, nextRun: next},
		{state: stateProcessing, run: run.ID},
		{state: stateProcessed, run: run.ID, summary: true},
		{state: stateScheduled, run: run.ID, nextRun: next, summary: true},
	})
	if summary := e.gateway.States()[3].Summary; *summary != (gateway.Summary{Mode: full, Users: 7, Groups: 2, Uploaded: 9}) {
		t.Errorf("summary %+v", summary)
	}
}

// The gateway may consider the state with the latest time as the current one.
func TestStateTimesIncrease(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.gateway.SetFront(func(*testenv.Exchange) bool {
		e.clock.Advance(time.Second)
		return false
	})
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	states := e.gateway.States()
	if len(states) != 4 || !slices.IsSortedFunc(states, func(a, b gateway.ConnectorState) int { return time.Time(a.At).Compare(time.Time(b.At)) }) {
		t.Errorf("states %+v", states)
	}
}

func TestStatesOfFailedRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(7)
	e.ldap.BeforeEntry = func(int) bool { return false }
	nextRun := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	e.options.NextRun = func(time.Time) time.Time { return nextRun.Add(time.Hour) }
	e.start()
	e.must(e.runner.Register(t.Context()))
	e.must(e.runner.Schedule(t.Context(), nextRun))
	run, err := e.failedRun(RunOptions{})
	e.must(e.runner.Schedule(t.Context(), nextRun.Add(time.Hour)))   // already sent at the end of the run
	e.must(e.runner.Schedule(t.Context(), nextRun.Add(2*time.Hour))) // keeps the error of the run
	timestamp := func(t time.Time) string { return t.Format(time.RFC3339) }
	failure := err.Error() + ": " + fault.Remedy(err)
	e.expectStates([]sentState{
		{state: stateRegistered},
		{state: stateScheduled, nextRun: timestamp(nextRun)},
		{state: stateProcessing, run: run.ID},
		{state: stateScheduled, run: run.ID, nextRun: timestamp(nextRun.Add(time.Hour)), failure: failure, summary: true},
		{state: stateScheduled, run: run.ID, nextRun: timestamp(nextRun.Add(2 * time.Hour)), failure: failure, summary: true},
	})
	if current, err2 := e.store.Connector(); err2 != nil || current.State != stateScheduled || current.RunID != run.ID || current.Error != err.Error() {
		t.Errorf("stored %+v, error %v", current, err2)
	}
}

// The state after a run is sent although the run ended with its context.
func TestStateOfCanceledRun(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(7)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e.ldap.BeforeEntry = func(int) bool { cancel(); return true }
	run, err := e.runner.Run(ctx, RunOptions{})
	states := e.gateway.States()
	if last := states[len(states)-1]; fault.ClassOf(err) != fault.Canceled || last.State != stateScheduled || last.RunID != run.ID || last.Error == nil {
		t.Errorf("last state %+v, error %v", last, err)
	}
}

func TestUnscheduledRunIsScheduledFirst(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	var states []string
	for _, s := range e.gateway.States() {
		states = append(states, s.State)
	}
	if want := []string{stateRegistered, stateScheduled, stateProcessing, stateProcessed}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
}

// A process whose login is refused sends no state, because that would cause another login.
func TestStateAfterRefusedLoginIsRecordedOnly(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
	before := len(e.gateway.States())
	e.password = "wrong"
	e.start()
	run, err := e.failedRun(RunOptions{})
	if current, err2 := e.store.Connector(); err2 != nil || current.State != stateScheduled || current.RunID != run.ID || current.Error != err.Error() {
		t.Errorf("recorded %+v, error %v", current, err2)
	}
	lines := e.log.With(MsgConnectorState)
	if last := lines[len(lines)-1]; last.Text("from") != stateProcessed || last.Text("to") != stateScheduled {
		t.Errorf("log %v", last)
	}
	if n := len(e.gateway.States()) - before; n != 0 {
		t.Errorf("%d states sent", n)
	}
}

// EndTimeout is too short to send the final state.
func TestFinalStateIsSentLate(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.ldap.Users = fakeldap.Users(3)
	e.options.EndTimeout = time.Nanosecond
	e.start()
	e.runner.resendInterval = time.Millisecond
	run := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	if lines := e.log.With(MsgStateNotSent); len(lines) != 1 || lines[0].Text("to") != stateProcessed {
		t.Errorf("log %v", lines)
	}
	if n := len(e.gateway.States()); n != 3 {
		t.Errorf("%d states before resending", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var resending sync.WaitGroup
	resending.Go(func() { e.runner.ResendStates(ctx) })
	e.log.MustAwait(t, testlog.Message(MsgStateSentLate))
	cancel()
	resending.Wait()
	states := e.gateway.States()
	if last := states[len(states)-1]; len(states) != 4 || last.State != stateProcessed || last.RunID != run.ID || last.Summary == nil || last.Summary.Uploaded != 3 {
		t.Errorf("%d states, the last %+v", len(states), last)
	}
}

func TestOnlyLatestStateIsSentLate(t *testing.T) {
	t.Parallel()
	e := newLDAPEnv(t)
	e.must(e.runner.Register(t.Context()))
	s := e.runner.states
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for _, to := range []string{stateScheduled, stateProcessing, stateProcessed} {
		e.must(s.enter(expired, state.Connector{State: to}))
	}
	s.resendPending(expired) // fails, and the state stays pending
	for range 3 {
		s.resendPending(t.Context())
	}
	var states []string
	for _, s := range e.gateway.States() {
		states = append(states, s.State)
	}
	if want := []string{stateRegistered, stateProcessed}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
	if lines := e.log.With(MsgStateSentLate); len(lines) != 1 {
		t.Errorf("log %v", lines)
	}
}

func TestStatesUnsupportedByGateway(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			e := newLDAPEnv(t)
			e.ldap.Users = fakeldap.Users(3)
			e.gateway.SetFront(func(x *testenv.Exchange) bool {
				return x.R.URL.Path == testenv.StatePath && x.Status(status, "")
			})
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed})
			if lines, requests := e.log.With(MsgStatesUnsupported), e.gateway.Arrived(testenv.StatePath); len(lines) != 1 || requests != 1 {
				t.Errorf("logged %d times after %d requests", len(lines), requests)
			}
		})
	}
}
