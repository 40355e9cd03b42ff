package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"adconnector/internal/fault"
)

// Outcome is the outcome of a batch.
type Outcome int

// The outcomes of a batch.
const (
	Accepted       Outcome = iota // all objects
	PartlyAccepted                // BatchResponse lists the rejected objects, as far as known
	Rejected                      // because of its content
	TooLarge
)

// BatchResponse is the gateway's response to one batch.
type BatchResponse struct {
	Outcome  Outcome
	Message  string            // of the gateway; "" if accepted
	Rejected map[string]string // the reasons, by externalAssetId or vendorAssetId; if partly accepted
	// Unattributed is whether some rejection has no object. Then the rejected objects are only
	// found by sending one by one.
	Unattributed bool
}

const interceptedRemedy = "check that no proxy responds instead of the gateway"

const successfullyPublished = "SUCCESSFULLY_PUBLISHED"

// Send sends one batch: count assets, as JSON objects separated by commas. It returns no error
// only after it has read a complete response. It retries batches with an unknown outcome, with
// the same bytes and the same requestID.
func (c *Client) Send(ctx context.Context, requestID string, count int, assets []byte) (BatchResponse, error) {
	send := fault.Operation{Op: "send assets to", Object: c.options.URL.Host}
	body, err := c.envelope(requestID, count, assets)
	if err != nil {
		return BatchResponse{}, send.Failed(fault.Refused, err, "")
	}
	var batch BatchResponse
	err = c.retry(ctx, send, maxAssetsAttempts, func() error {
		r, err := c.do(ctx, call{Operation: send, method: http.MethodPost, url: c.endpoint(c.options.Paths.Assets), body: body, key: requestID})
		if err != nil {
			return err
		}
		batch, err = parseBatchResponse(send, r)
		return err
	})
	return batch, err
}

// envelope returns the body of a request with assets.
func (c *Client) envelope(requestID string, count int, assets []byte) ([]byte, error) {
	meta, err := json.Marshal(MetaData{
		RequestID: requestID, AssetCount: count, Source: c.options.Source,
		ConnectorUUID: c.options.ConnectionUUID, CustomerUUID: c.options.CustomerUUID, ProfileUUID: c.options.ProfileUUID,
	})
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	const head, middle, tail = `{"connectorMetaData":`, `,"assetData":[`, `]}`
	body := make([]byte, 0, len(head)+len(meta)+len(middle)+len(assets)+len(tail))
	body = append(append(body, head...), meta...)
	body = append(append(body, middle...), assets...)
	return append(body, tail...), nil
}

func parseBatchResponse(o fault.Operation, r response) (BatchResponse, error) {
	switch r.status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return BatchResponse{Outcome: Rejected, Message: statusText(r.status, r.message())}, nil
	case http.StatusRequestEntityTooLarge:
		return BatchResponse{Outcome: TooLarge, Message: statusText(r.status, r.message())}, nil
	case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusMultiStatus:
	case http.StatusNotFound:
		return BatchResponse{}, o.Failed(fault.Refused, r.failed(errNotFound), "check qualys.customerUuid, qualys.connectionUuid, qualys.profileUuid and gateway.path.assets")
	default:
		return BatchResponse{}, r.unexpected(o)
	}
	var document AssetResponse
	if err := json.Unmarshal(r.body, &document); err != nil {
		return BatchResponse{}, o.Failed(fault.Transient, &responseError{r.status, errNoProof, "not complete JSON"}, interceptedRemedy)
	}
	rejected, unattributed := parseRejections(document.AssetsError)
	message := oneLine(document.ResponseCode + " " + document.Message)
	switch {
	case r.status != http.StatusMultiStatus && document.ResponseCode == "":
		return BatchResponse{}, o.Failed(fault.Transient, &responseError{r.status, errNoProof, "no responseCode"}, interceptedRemedy)
	case r.status != http.StatusMultiStatus && document.ResponseCode != successfullyPublished:
		return BatchResponse{Outcome: Rejected, Message: message}, nil
	case len(rejected) > 0 || unattributed:
		return BatchResponse{Outcome: PartlyAccepted, Message: message, Rejected: rejected, Unattributed: unattributed}, nil
	case document.ResponseCode == successfullyPublished:
		return BatchResponse{Outcome: Accepted}, nil
	default: // 207 without a rejected object
		return BatchResponse{Outcome: PartlyAccepted, Message: message, Unattributed: true}, nil
	}
}

// The names of possible fields of an assetsError, whose schema is not published.
var (
	rejectionLists    = []string{"failed", "errors", "rejected"}
	rejectionIDs      = []string{"externalAssetId", "vendorAssetId", "sourceNativeKey", "id"}
	rejectionMessages = []string{"message", "errorMessage", "error", "reason", "description"}
)

// parseRejections parses an assetsError: an object keyed by asset ID, or lists of items with
// an ID. unattributed is whether it contains anything else.
func parseRejections(raw json.RawMessage) (byID map[string]string, unattributed bool) {
	var document any
	if len(raw) == 0 || json.Unmarshal(raw, &document) != nil {
		return nil, len(raw) > 0
	}
	byID = map[string]string{}
	switch document := document.(type) {
	case nil:
	case map[string]any:
		for key, value := range document {
			if !isRejectionList(key) {
				byID[key] = rejectionReason(value)
				continue
			}
			switch value := value.(type) {
			case nil:
			case []any:
				unattributed = addRejections(byID, value) || unattributed
			case map[string]any:
				unattributed = unattributed || len(value) > 0
			case string:
				unattributed = unattributed || value != ""
			default:
				unattributed = true
			}
		}
	case []any:
		unattributed = addRejections(byID, document)
	case string:
		unattributed = document != ""
	default:
		unattributed = true
	}
	return byID, unattributed
}

func isRejectionList(key string) bool {
	for _, name := range rejectionLists {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

// addRejections adds the items that have an ID. It reports whether any item has none.
func addRejections(byID map[string]string, items []any) (unattributed bool) {
	for _, item := range items {
		object, _ := item.(map[string]any)
		id := firstText(object, rejectionIDs)
		if id == "" {
			unattributed = true
			continue
		}
		byID[id] = rejectionReason(item)
	}
	return unattributed
}

const noReason = "no reason given"

// rejectionReason returns the message in a rejection, or else its JSON.
func rejectionReason(value any) string {
	switch value := value.(type) {
	case nil:
		return noReason
	case string:
		return cmp.Or(oneLine(value), noReason)
	case map[string]any:
		if text := firstText(value, rejectionMessages); text != "" {
			return oneLine(text)
		}
	case []any:
		if len(value) > 0 {
			return rejectionReason(value[0])
		}
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return noReason
	}
	return oneLine(string(encoded))
}

// firstText returns the first non-empty string among the named fields.
func firstText(object map[string]any, names []string) string {
	for _, name := range names {
		if text, ok := object[name].(string); ok && text != "" {
			return text
		}
	}
	return ""
}
