package syncrun

import (
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

// The connector's states, in the order of a good day.
const (
	stateRegistered = "REGISTERED"
	stateScheduled  = "SCHEDULED"
	stateProcessing = "PROCESSING"
	stateProcessed  = "PROCESSED"
)

// connector is the state machine that operators and the console look at. Each
// change is logged, recorded, and sent; that the gateway does not hear of it
// never fails a run.
type connector struct {
	gateway    *gateway.Client
	store      *state.Store
	log        zerolog.Logger
	registered atomic.Bool // in this process; others look at it
	lastRun    *state.Run

	sending sync.Mutex                // guards what follows: one report at a time, so that the latest comes last
	mute    bool                      // the gateway takes no states
	unsent  map[string]*fault.Repeats // by state: why the gateway does not hear of it
	unheard *gateway.ConnectorState   // the latest one, while the gateway has not heard of it
}

// stateTimeout bounds how long a run waits for the gateway to hear of a state.
const stateTimeout = 30 * time.Second

func (c *connector) enter(ctx context.Context, to state.Connector) error {
	from, err := c.store.Connector()
	if err != nil {
		return err
	}
	to.At = time.Now().UTC()
	unrecorded := c.store.SetConnector(to) // the console hears of it all the same
	c.logChange(from, to)
	c.send(ctx, to)
	return unrecorded
}

// wait records what a connector waits for that the gateway has not let in yet, in
// this process: the next run, and why the last one failed. Who was never let in has
// no state for it. The gateway does not hear of it: that would be one more login.
func (c *connector) wait(to state.Connector) error {
	from, err := c.store.Connector()
	if err != nil {
		return err
	}
	to.State, to.At = from.State, time.Now().UTC()
	if from.State != "" {
		to.State = stateScheduled
	}
	if from.State != to.State {
		c.logChange(from, to)
	}
	return c.store.SetConnector(to)
}

func (c *connector) logChange(from, to state.Connector) {
	event := c.log.Info().Str("from", from.State).Str("to", to.State).Str("run_id", to.RunID)
	if !to.NextRun.IsZero() {
		event = event.Time("next_run", to.NextRun)
	}
	event.Msg(MsgConnectorState)
}

func (c *connector) send(ctx context.Context, to state.Connector) {
	report := gateway.ConnectorState{State: to.State, RunID: to.RunID, At: gateway.Timestamp(to.At)}
	if !to.NextRun.IsZero() {
		next := gateway.Timestamp(to.NextRun)
		report.NextRunAt = &next
	}
	if to.Error != "" {
		report.Error = &to.Error
	}
	if run := c.lastRun; run != nil && run.ID == to.RunID { // another run's is no news
		report.Summary = &gateway.Summary{Mode: run.Mode, Users: run.Users, Groups: run.Groups, Uploaded: run.Uploaded, Deleted: run.Deleted, Rejected: run.Rejected}
	}
	c.sending.Lock()
	defer c.sending.Unlock()
	c.tell(ctx, report, c.log.Warn)
}

// tell sends a report, or keeps it to be sent again, unless it was refused: the next
// run, which may be let in again, has news of its own.
func (c *connector) tell(ctx context.Context, report gateway.ConnectorState, complain func() *zerolog.Event) (heard bool) {
	if c.mute {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	if c.unsent[report.State] == nil {
		c.unsent[report.State] = &fault.Repeats{}
	}
	c.unheard = nil
	switch err := c.gateway.SetState(ctx, report); {
	case err == nil:
		c.unsent[report.State].Gone()
		return true
	case errors.Is(err, gateway.ErrNoStates):
		c.mute = true
		c.log.Warn().Err(err).Msg(MsgStatesUnsupported)
	default:
		if fault.Of(err) != fault.Refused {
			c.unheard = &report
		}
		tell(complain(), c.unsent[report.State].Note(err, time.Now().UTC())).Str("to", report.State).Msg(MsgStateNotSent)
	}
	return false
}

// tellAgain sends the latest report once more, if the gateway has not heard of it.
func (c *connector) tellAgain(ctx context.Context) {
	c.sending.Lock()
	defer c.sending.Unlock()
	if c.unheard == nil {
		return
	}
	if c.tell(ctx, *c.unheard, c.log.Debug) {
		c.log.Info().Msg(MsgStateSentLate)
	}
}

// informEvery is how long the gateway is wrong about the connector's state, once it
// can be told: a gateway that is down, or limits the rate, when a run ends would else
// be wrong until the next one, a week perhaps.
const informEvery = 30 * time.Second

// KeepInformed tells the gateway again of a state that it has not heard of, until ctx
// ends. It may run beside everything else.
func (r *Runner) KeepInformed(ctx context.Context) {
	again := time.NewTicker(r.informEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			r.connector.tellAgain(ctx)
		}
	}
}
