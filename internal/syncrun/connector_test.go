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

// sentState is what matters of a state that the gateway took.
type sentState struct {
	state, run, next, failure string
	summary                   bool
}

func (e *env) sentStates() (sent []sentState) {
	for _, s := range e.gateway.States() {
		one := sentState{state: s.State, run: s.RunID, summary: s.Summary != nil}
		if s.NextRunAt != nil {
			one.next = time.Time(*s.NextRunAt).Format(time.RFC3339)
		}
		if s.Error != nil {
			one.failure = *s.Error
		}
		sent = append(sent, one)
	}
	return sent
}

func (e *env) expectStates(want []sentState) {
	e.t.Helper()
	if got := e.sentStates(); !slices.Equal(got, want) {
		e.t.Errorf("sent\n%+v\nwant\n%+v", got, want)
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
		from = want[i].state
	}
}

func TestStatesOfScheduledRun(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(7), fakeldap.Groups(2)
	tick := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	e.must(e.runner.Register(t.Context()))
	e.must(e.runner.Schedule(t.Context(), tick))
	run := e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 9})
	e.must(e.runner.Schedule(t.Context(), tick))
	e.must(e.runner.Schedule(t.Context(), tick)) // is sent once
	next := tick.Format(time.RFC3339)
	e.expectStates([]sentState{
		{state: stateRegistered},
		{state: stateScheduled, next: next},
		{state: stateProcessing, run: run.ID},
		{state: stateProcessed, run: run.ID, summary: true},
		{state: stateScheduled, run: run.ID, next: next, summary: true},
	})
	if summary := e.gateway.States()[3].Summary; *summary != (gateway.Summary{Mode: full, Users: 7, Groups: 2, Uploaded: 9}) {
		t.Errorf("summary %+v", summary)
	}
}

// The gateway may take the latest time for the latest state.
func TestTimesOfStatesAscend(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.gateway.SetFront(func(*testenv.Exchange) bool {
		e.clock.Advance(time.Second)
		return false
	})
	e.run(Mode{}, state.Run{Mode: full, Result: Processed})
	states := e.gateway.States()
	if len(states) != 4 || !slices.IsSortedFunc(states, func(a, b gateway.ConnectorState) int { return time.Time(a.At).Compare(time.Time(b.At)) }) {
		t.Errorf("states %+v", states)
	}
}

func TestStatesOfFailedRun(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.ldap.Users = fakeldap.Users(7)
	e.ldap.Sent = func(int) bool { return false }
	tick := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	e.options.Next = func(time.Time) time.Time { return tick.Add(time.Hour) }
	e.start()
	e.must(e.runner.Register(t.Context()))
	e.must(e.runner.Schedule(t.Context(), tick))
	run, err := e.failedRun(Mode{})
	e.must(e.runner.Schedule(t.Context(), tick.Add(time.Hour)))   // was sent with the end of the run
	e.must(e.runner.Schedule(t.Context(), tick.Add(2*time.Hour))) // keeps the error of the run
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	failure := err.Error() + ": " + fault.Remedy(err)
	e.expectStates([]sentState{
		{state: stateRegistered},
		{state: stateScheduled, next: at(tick)},
		{state: stateProcessing, run: run.ID},
		{state: stateScheduled, run: run.ID, next: at(tick.Add(time.Hour)), failure: failure, summary: true},
		{state: stateScheduled, run: run.ID, next: at(tick.Add(2 * time.Hour)), failure: failure, summary: true},
	})
	if now, err2 := e.store.Connector(); err2 != nil || now.State != stateScheduled || now.RunID != run.ID || now.Error != err.Error() {
		t.Errorf("stored %+v, error %v", now, err2)
	}
}

func TestUnscheduledRunIsScheduledFirst(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed})
	var states []string
	for _, s := range e.gateway.States() {
		states = append(states, s.State)
	}
	if want := []string{stateRegistered, stateScheduled, stateProcessing, stateProcessed}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
}

// A process that the gateway does not let in sends no state: that would be another login.
func TestStateOfRefusedProcessIsRecordedOnly(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.run(Mode{}, state.Run{Mode: full, Result: Processed})
	before := len(e.gateway.States())
	e.password = "wrong"
	e.start()
	run, err := e.failedRun(Mode{})
	if now, err2 := e.store.Connector(); err2 != nil || now.State != stateScheduled || now.RunID != run.ID || now.Error != err.Error() {
		t.Errorf("recorded %+v, error %v", now, err2)
	}
	lines := e.log.With(MsgConnectorState)
	if last := lines[len(lines)-1]; last.Text("from") != stateProcessed || last.Text("to") != stateScheduled {
		t.Errorf("log %v", last)
	}
	if n := len(e.gateway.States()) - before; n != 0 {
		t.Errorf("%d states sent", n)
	}
}

// The end of the run has no time to reach the gateway.
func TestStateOfEndedRunIsSentLate(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.ldap.Users = fakeldap.Users(3)
	e.options.Conclude = time.Nanosecond
	e.start()
	e.runner.reportEvery = time.Millisecond
	run := e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	if lines := e.log.With(MsgStateNotSent); len(lines) != 1 || lines[0].Text("to") != stateProcessed {
		t.Errorf("log %v", lines)
	}
	if n := len(e.gateway.States()); n != 3 {
		t.Errorf("%d states before", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var reporting sync.WaitGroup
	reporting.Go(func() { e.runner.KeepReporting(ctx) })
	e.log.MustAwait(t, testlog.Message(MsgStateSentLate))
	cancel()
	reporting.Wait()
	states := e.gateway.States()
	if last := states[len(states)-1]; len(states) != 4 || last.State != stateProcessed || last.RunID != run.ID || last.Summary == nil || last.Summary.Uploaded != 3 {
		t.Errorf("%d states, the last %+v", len(states), last)
	}
}

func TestOnlyLatestStateIsSentLate(t *testing.T) {
	t.Parallel()
	e := newCanned(t)
	e.must(e.runner.Register(t.Context()))
	s := e.runner.states
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	for _, to := range []string{stateScheduled, stateProcessing, stateProcessed} {
		e.must(s.enter(expired, state.Connector{State: to}))
	}
	s.reportPending(expired) // fails, and stays to be sent
	for range 3 {
		s.reportPending(t.Context())
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

func TestGatewayWithoutStates(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			e := newCanned(t)
			e.ldap.Users = fakeldap.Users(3)
			e.gateway.SetFront(func(x *testenv.Exchange) bool {
				return x.R.URL.Path == testenv.StatePath && x.Status(status, "")
			})
			e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
			e.run(Mode{}, state.Run{Mode: full, Result: Processed})
			if lines, calls := e.log.With(MsgStatesUnsupported), e.gateway.Arrived(testenv.StatePath); len(lines) != 1 || calls != 1 {
				t.Errorf("logged %d times after %d calls", len(lines), calls)
			}
		})
	}
}
