package syncrun

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
)

// The connector's states.
const (
	stateRegistered = "REGISTERED"
	stateScheduled  = "SCHEDULED"
	stateProcessing = "PROCESSING"
	stateProcessed  = "PROCESSED"
)

// reportEvery is how often a state that the gateway did not accept is sent again. Without
// that, the gateway would show a wrong state until the next run, perhaps for a week.
const reportEvery = 30 * time.Second

// states is the connector's state machine. Each change is logged, recorded, and reported to
// the gateway. A failed report never fails a run.
type states struct {
	gateway    *gateway.Client
	store      *state.Store
	log        zerolog.Logger
	registered atomic.Bool // in this process
	lastRun    *state.Run  // of this process; its summary goes with the states that follow it

	reporting sync.Mutex                      // guards what follows: one report at a time, the latest last
	mute      bool                            // the gateway accepts no states
	unsent    map[string]*fault.RepeatCounter // failures by state
	pending   *gateway.ConnectorState         // the latest report, while the gateway has not accepted it
}

// Register logs in to the gateway and enters the state Registered, once a process.
func (r *Runner) Register(ctx context.Context) error {
	if r.Registered() {
		return nil
	}
	if err := r.Gateway.Login(ctx); err != nil {
		return err
	}
	r.states.registered.Store(true)
	return r.states.enter(ctx, state.Connector{State: stateRegistered, At: r.now().UTC()})
}

// Registered reports whether the gateway has accepted the login, in this process.
func (r *Runner) Registered() bool { return r.states.registered.Load() }

// Schedule enters the state Scheduled. It does nothing before Registered, and after a failed
// run, which has entered it.
func (r *Runner) Schedule(ctx context.Context, next time.Time) error {
	now, err := r.Store.Connector()
	if err != nil || !r.Registered() || now.State == stateScheduled && now.NextRun.Equal(next) {
		return err
	}
	to := state.Connector{State: stateScheduled, RunID: now.RunID, At: r.now().UTC(), NextRun: next, Error: now.Error, Remedy: now.Remedy}
	if last := r.states.lastRun; last != nil && last.ID == now.RunID && last.Result == Failed { // its end may not be recorded
		to.Error, to.Remedy = last.Error, last.Remedy
	}
	return r.states.enter(ctx, to)
}

// KeepReporting reports the latest state again until the gateway has accepted it, until ctx
// ends. It may run concurrently with everything else.
func (r *Runner) KeepReporting(ctx context.Context) {
	again := time.NewTicker(r.reportEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			r.states.reportPending(ctx)
		}
	}
}

// enter records, logs and reports a state. A state that cannot be recorded is reported only.
func (s *states) enter(ctx context.Context, to state.Connector) error {
	from, err := s.store.Connector()
	if err != nil {
		return err
	}
	if err = s.store.SetConnector(to); err == nil {
		s.logChange(ctx, from, to)
	}
	s.send(ctx, to)
	return err
}

// sendEnd reports the state that a run ended in. A connector that the gateway has not
// accepted, in this process, reports nothing: that would be one more login.
func (s *states) sendEnd(ctx context.Context, to state.Connector, run state.Run) {
	s.lastRun = &run
	if s.registered.Load() {
		s.send(ctx, to)
	}
}

// logger returns the logger of lines about a state. Their run is that of the context, else
// the one that the state refers to.
func (s *states) logger(ctx context.Context, runID string) *zerolog.Logger {
	log := s.log
	if id := cmp.Or(gateway.RunID(ctx), runID); id != "" {
		log = log.With().Str("run_id", id).Logger()
	}
	return &log
}

// logChange logs a change of the state. A connector that the gateway has not accepted, in
// this process, may stay in its state.
func (s *states) logChange(ctx context.Context, from, to state.Connector) {
	if from.State == to.State && !s.registered.Load() {
		return
	}
	event := s.logger(ctx, to.RunID).Info()
	if from.State != "" {
		event.Str("from", from.State)
	}
	event.Str("to", to.State)
	if !to.NextRun.IsZero() {
		event.Time("next_run", to.NextRun.UTC())
	}
	event.Msg(MsgConnectorState)
}

// send reports a state.
func (s *states) send(ctx context.Context, to state.Connector) {
	report := gateway.ConnectorState{State: to.State, RunID: to.RunID, At: gateway.Timestamp(to.At)}
	if !to.NextRun.IsZero() {
		next := gateway.Timestamp(to.NextRun)
		report.NextRunAt = &next
	}
	if to.Error != "" { // the contract has one field for both
		text := to.Error
		if to.Remedy != "" {
			text += ": " + to.Remedy
		}
		report.Error = &text
	}
	if run := s.lastRun; run != nil && run.ID == to.RunID {
		report.Summary = &gateway.Summary{Mode: run.Mode, Users: run.Users, Groups: run.Groups, Uploaded: run.Uploaded, Deleted: run.Deleted, Rejected: run.Rejected}
	}
	s.reporting.Lock()
	defer s.reporting.Unlock()
	s.report(ctx, report, zerolog.WarnLevel)
}

// report sends a report, and keeps it to be sent again unless it is refused: the next run,
// which may be accepted again, has a state of its own.
func (s *states) report(ctx context.Context, report gateway.ConnectorState, complain zerolog.Level) (accepted bool) {
	if s.mute {
		return false
	}
	if s.unsent[report.State] == nil {
		s.unsent[report.State] = &fault.RepeatCounter{}
	}
	s.pending = nil
	switch err := s.gateway.SetState(ctx, report); {
	case err == nil:
		s.unsent[report.State].Reset()
		return true
	case errors.Is(err, gateway.ErrNoStates):
		s.mute = true
		s.logger(ctx, report.RunID).Warn().EmbedObject(fault.Fields(err)).Msg(MsgStatesUnsupported)
	default:
		if fault.ClassOf(err) != fault.Refused {
			s.pending = &report
		}
		s.logger(ctx, report.RunID).WithLevel(complain).EmbedObject(fault.Fields(err)).
			EmbedObject(s.unsent[report.State].Count(err, time.Now().UTC())).Str("to", report.State).Msg(MsgStateNotSent)
	}
	return false
}

// reportPending sends the latest report again, if the gateway has not accepted it.
func (s *states) reportPending(ctx context.Context) {
	s.reporting.Lock()
	defer s.reporting.Unlock()
	if s.pending == nil {
		return
	}
	report := *s.pending
	if report.RunID != "" {
		ctx = gateway.WithRunID(ctx, report.RunID)
	}
	if s.report(ctx, report, zerolog.DebugLevel) {
		s.logger(ctx, report.RunID).Info().Str("to", report.State).Msg(MsgStateSentLate)
	}
}
