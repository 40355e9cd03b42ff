package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"adconnector/internal/fault"
)

// ErrNoStates is returned by a gateway that takes no connector states.
var ErrNoStates = fault.New(fault.Refused, errors.New("this gateway takes no connector states"))

// SetState reports the connector's state. CustomerUUID and ProfileUUID are filled in.
// It takes no longer than a few seconds, whatever the gateway does: a report is not
// worth holding up a run for.
func (c *Client) SetState(ctx context.Context, state ConnectorState) error {
	what := "report state " + state.State
	state.CustomerUUID, state.ProfileUUID = c.options.CustomerUUID, c.options.ProfileUUID
	body, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	return c.retry(ctx, what, stateTries, func() error {
		got, err := c.do(ctx, call{what: what, method: http.MethodPut, url: c.address(c.options.Paths.State), body: body})
		switch {
		case got.status == http.StatusNotFound:
			return fmt.Errorf("%s: %w (404; a wrong qualys.connectionUuid answers the same)", what, ErrNoStates)
		case got.status == http.StatusNotImplemented, got.status == http.StatusMethodNotAllowed:
			return fmt.Errorf("%s: %w (%d)", what, ErrNoStates, got.status)
		case err != nil:
			return err
		case got.status/100 != 2:
			return got.unexpected(what)
		}
		return nil
	})
}
