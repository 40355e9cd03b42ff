package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"adconnector/internal/fault"
)

// ErrStatesUnsupported is the error of a gateway without connector states.
var ErrStatesUnsupported = errors.New("connector states unsupported by the gateway")

// SetState sends the connector's state. It sets CustomerUUID and ProfileUUID. It returns within
// stateTimeout, so that a slow gateway does not delay a run because of its state.
func (c *Client) SetState(ctx context.Context, state ConnectorState) error {
	send := fault.Operation{Op: "send state", Object: state.State}
	state.CustomerUUID, state.ProfileUUID = c.options.CustomerUUID, c.options.ProfileUUID
	body, err := json.Marshal(state)
	if err != nil {
		return send.Failed(fault.Refused, err, "")
	}
	ctx, cancel := context.WithTimeout(ctx, stateTimeout)
	defer cancel()
	return c.retry(ctx, send, maxStateAttempts, func() error {
		r, err := c.do(ctx, call{Operation: send, method: http.MethodPut, url: c.endpoint(c.options.Paths.State), body: [][]byte{body}, maxResponse: maxStateBytes})
		switch {
		case r.status == http.StatusNotFound:
			return send.Failed(fault.Refused, &responseError{Status: r.status, Reason: ErrStatesUnsupported}, "check qualys.connectionUuid, or ignore this if the gateway has no such API")
		case r.status == http.StatusNotImplemented, r.status == http.StatusMethodNotAllowed:
			return send.Failed(fault.Refused, &responseError{Status: r.status, Reason: ErrStatesUnsupported}, "")
		case err != nil:
			return err
		case r.status/100 != 2:
			return r.unexpected(send)
		}
		return nil
	})
}
