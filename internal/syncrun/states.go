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

// defaultResendInterval is how often a state that the gateway did not accept is sent again.
// Otherwise the gateway would show a wrong state until the next run, perhaps for a week.
const defaultResendInterval = 30 * time.Second

// states is the connector's state machine. It logs and records each change, and sends it to
// the gateway. A state that cannot be sent never fails a run.
type states struct {
	gateway    *gateway.Client
	store      *state.Store
	log        zerolog.Logger
	registered atomic.Bool // in this process
	lastRun    *state.Run  // of this process; its summary is sent with the states after it

	mu          sync.Mutex // guards the following fields, and keeps states in order
	unsupported bool       // the gateway does not accept states
	failures    map[string]*fault.RepeatCounter
	pending     *gateway.ConnectorState // the latest state, if the gateway has not accepted it
}

// Register logs in to the gateway and enters the state Registered, once per process.
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

// Registered reports whether the gateway has accepted a login of this process.
func (r *Runner) Registered() bool { return r.states.registered.Load() }

// Schedule enters the state Scheduled. It does nothing before Register, or if the connector
// is already scheduled for that time, as after a failed run.
func (r *Runner) Schedule(ctx context.Context, nextRun time.Time) error {
	current, err := r.Store.Connector()
	if err != nil || !r.Registered() || current.State == stateScheduled && current.NextRun.Equal(nextRun) {
		return err
	}
	to := state.Connector{State: stateScheduled, RunID: current.RunID, At: r.now().UTC(), NextRun: nextRun, Error: current.Error, Remedy: current.Remedy}
	if last := r.states.lastRun; last != nil && last.ID == current.RunID && last.Result == Failed { // its end may not be recorded
		to.Error, to.Remedy = last.Error, last.Remedy
	}
	return r.states.enter(ctx, to)
}

// ResendStates periodically sends the latest state again if the gateway has not accepted it.
// It returns when ctx ends. It is safe for use concurrently with all other methods.
func (r *Runner) ResendStates(ctx context.Context) {
	ticker := time.NewTicker(r.resendInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.states.resendPending(ctx)
		}
	}
}

// enter records, logs and sends a state. A state that cannot be recorded is only sent.
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

// sendRunEnd sends the state after a run. If the gateway has not accepted a login of this
// process, it sends nothing, because that would cause another login.
func (s *states) sendRunEnd(ctx context.Context, to state.Connector, run state.Run) {
	s.lastRun = &run
	if s.registered.Load() {
		s.send(ctx, to)
	}
}

// logger returns a logger with the run ID of the context, or else with the given one.
func (s *states) logger(ctx context.Context, runID string) *zerolog.Logger {
	log := s.log
	if id := cmp.Or(gateway.RunID(ctx), runID); id != "" {
		log = log.With().Str("run_id", id).Logger()
	}
	return &log
}

// logChange logs a change of the state. A connector that is not registered in this process
// may enter the same state again, which is not logged.
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
	if to.Error != "" { // the state after a failed run carries its error
		event.Str("error", to.Error)
	}
	if to.Remedy != "" {
		event.Str("remedy", to.Remedy)
	}
	event.Msg(MsgConnectorState)
}

// send sends a state to the gateway.
func (s *states) send(ctx context.Context, to state.Connector) {
	message := gateway.ConnectorState{State: to.State, RunID: to.RunID, At: gateway.Timestamp(to.At)}
	if !to.NextRun.IsZero() {
		nextRun := gateway.Timestamp(to.NextRun)
		message.NextRunAt = &nextRun
	}
	if to.Error != "" { // the contract has one field for error and remedy
		text := to.Error
		if to.Remedy != "" {
			text += ": " + to.Remedy
		}
		message.Error = &text
	}
	if run := s.lastRun; run != nil && run.ID == to.RunID {
		message.Summary = &gateway.Summary{Mode: run.Mode, Users: run.Users + run.ServiceAccounts, Groups: run.Groups, Uploaded: run.Uploaded, Deleted: run.Deleted, Rejected: run.Rejected}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trySend(ctx, message, zerolog.WarnLevel)
}

// trySend sends a state and logs a failure at the given level. The state becomes pending
// unless the gateway accepts or refuses it. A refused state is not sent again, because the
// next run has a state of its own.
func (s *states) trySend(ctx context.Context, message gateway.ConnectorState, level zerolog.Level) (accepted bool) {
	if s.unsupported {
		return false
	}
	if s.failures[message.State] == nil {
		s.failures[message.State] = &fault.RepeatCounter{}
	}
	s.pending = nil
	switch err := s.gateway.SetState(ctx, message); {
	case err == nil:
		s.failures[message.State].Reset()
		return true
	case errors.Is(err, gateway.ErrStatesUnsupported):
		s.unsupported = true
		s.logger(ctx, message.RunID).Warn().EmbedObject(fault.Fields(err)).Msg(MsgStatesUnsupported)
	default:
		if fault.ClassOf(err) != fault.Refused {
			s.pending = &message
		}
		s.logger(ctx, message.RunID).WithLevel(level).EmbedObject(fault.Fields(err)).
			EmbedObject(s.failures[message.State].Count(err, time.Now().UTC())).Str("to", message.State).Msg(MsgStateNotSent)
	}
	return false
}

// resendPending sends the pending state, if any.
func (s *states) resendPending(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending == nil {
		return
	}
	message := *s.pending
	if message.RunID != "" {
		ctx = gateway.WithRunID(ctx, message.RunID)
	}
	if s.trySend(ctx, message, zerolog.DebugLevel) {
		s.logger(ctx, message.RunID).Info().Str("to", message.State).Msg(MsgStateSentLate)
	}
}
