package syncrun

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
)

// The connector's states, in the order of a good day.
const (
	Registered  = "REGISTERED"
	Scheduled   = "SCHEDULED"
	Processing  = "PROCESSING"
	AllReceived = "PROCESSED"
)

// connector is the state machine that operators and the console look at. Each
// change is logged, recorded, and sent; that the gateway does not hear of it
// never fails a run.
type connector struct {
	gateway    *gateway.Client
	store      *state.Store
	log        zerolog.Logger
	registered atomic.Bool // in this process; others look at it
	mute       bool        // the gateway takes no states
	lastRun    *state.Run
	unsent     map[string]*fault.Repeats // by state: why the gateway does not hear of it
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
	event := c.log.Info().Str("from", from.State).Str("to", to.State).Str("run_id", to.RunID)
	if !to.NextRun.IsZero() {
		event = event.Time("next_run", to.NextRun)
	}
	event.Msg("connector state")
	c.send(ctx, to)
	return unrecorded
}

func (c *connector) send(ctx context.Context, to state.Connector) {
	if c.mute {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
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
	if c.unsent[to.State] == nil {
		c.unsent[to.State] = &fault.Repeats{}
	}
	switch err := c.gateway.SetState(ctx, report); {
	case err == nil:
		c.unsent[to.State].Gone()
	case errors.Is(err, gateway.ErrNoStates):
		c.mute = true
		c.log.Warn().Err(err).Msg("connector states are not sent")
	default:
		tell(c.log.Warn(), c.unsent[to.State].Note(err, time.Now().UTC())).Str("to", to.State).Msg("connector state not sent")
	}
}
