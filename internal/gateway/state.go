package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"adconnector/internal/fault"
)

// ErrNoStates is returned by a gateway that takes no connector states.
var ErrNoStates = errors.New("this gateway accepts no connector states")

// SetState reports the connector's state. CustomerUUID and ProfileUUID are filled in.
// It takes no longer than a few seconds, whatever the gateway does: a report is not
// worth holding up a run for.
func (c *Client) SetState(ctx context.Context, state ConnectorState) error {
	report := fault.Operation{Op: "report state", Object: state.State}
	state.CustomerUUID, state.ProfileUUID = c.options.CustomerUUID, c.options.ProfileUUID
	body, err := json.Marshal(state)
	if err != nil {
		return report.Failed(fault.Refused, err, "")
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	return c.retry(ctx, report, stateTries, func() error {
		got, err := c.do(ctx, call{Operation: report, method: http.MethodPut, url: c.address(c.options.Paths.State), body: body})
		switch {
		case got.status == http.StatusNotFound:
			return report.Failed(fault.Refused, &answerError{Status: got.status, Reason: ErrNoStates}, "none needed if this gateway has no such API; a wrong qualys.connectionUuid has the same answer")
		case got.status == http.StatusNotImplemented, got.status == http.StatusMethodNotAllowed:
			return report.Failed(fault.Refused, &answerError{Status: got.status, Reason: ErrNoStates}, "")
		case err != nil:
			return err
		case got.status/100 != 2:
			return got.unexpected(report)
		}
		return nil
	})
}
