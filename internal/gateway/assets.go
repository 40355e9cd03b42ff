package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
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
	Unfinished // unknown after maxUnfinished attempts; smaller batches may be accepted
)

// BatchResponse is the gateway's response to one batch.
type BatchResponse struct {
	Outcome  Outcome
	Message  string            // of the gateway; "" if accepted
	Rejected map[string]string // the reasons, by externalAssetId or vendorAssetId; if partly accepted or rejected
	// Unattributed is whether some rejection has no object, or the response is too large. Then
	// the rejected objects are only found by sending one by one.
	Unattributed bool
}

const interceptedRemedy = "check that no proxy responds instead of the gateway"

var separators = strings.NewReplacer(" ", "", "-", "", "_", "")

// isPublished reports whether a responseCode is SUCCESSFULLY_PUBLISHED, regardless of case,
// spaces, hyphens and underscores.
func isPublished(code string) bool {
	return strings.EqualFold(separators.Replace(strings.TrimSpace(code)), "successfullyPublished")
}

// Send sends one batch: count assets, as JSON objects separated by commas. It returns no error
// only after it has read a complete response. It retries batches with an unknown outcome, with
// the same bytes and the same requestID. It does not retry a batch of several assets in two cases:
// after maxUnfinished timeouts and lost connections of large requests, and if a successful response
// is too large. Such a batch is partly accepted and unattributed.
func (c *Client) Send(ctx context.Context, requestID string, count int, assets []byte) (BatchResponse, error) {
	send := fault.Operation{Op: "send assets to", Object: c.options.URL.Host}
	head, err := c.envelopeHead(requestID, count)
	if err != nil {
		return BatchResponse{}, send.Failed(fault.Refused, err, "")
	}
	call := call{
		Operation: send, method: http.MethodPost, url: c.endpoint(c.options.Paths.Assets), key: requestID,
		body: [][]byte{head, assets, []byte(envelopeTail)}, maxResponse: maxAssetsBytes,
	}
	var batch BatchResponse
	unfinished := 0
	err = c.retry(ctx, send, maxAssetsAttempts, func() error {
		r, err := c.do(ctx, call)
		if r.tooLarge && count > 1 {
			// A response to fewer objects is smaller.
			batch = BatchResponse{Outcome: PartlyAccepted, Message: statusText(r.status, errResponseTooLarge.Error()), Unattributed: true}
			return nil
		}
		if r.mayBeTooLarge {
			unfinished++
		}
		// Halving is a retry of the run, so that it ends if the gateway never responds.
		if unfinished == maxUnfinished && r.mayBeTooLarge && count > 1 && ctx.Err() == nil && c.budget.take() {
			batch = BatchResponse{Outcome: Unfinished, Message: err.Error()}
			log := c.log(ctx)
			log.Warn().EmbedObject(fault.Fields(err)).Int("objects", count).Int("sent_bytes", len(head)+len(assets)+len(envelopeTail)).Msg(MsgBatchHalved)
			return nil
		}
		if err != nil {
			return err
		}
		c.parseMu.Lock()
		defer c.parseMu.Unlock()
		batch, err = parseBatchResponse(send, r, count)
		return err
	})
	return batch, err
}

// maxUnfinished is the number of timeouts and lost connections after which a batch is too large for
// the connection or the server.
const maxUnfinished = 2

const envelopeTail = `]}`

// envelopeHead returns the body of a request with assets up to the assets.
func (c *Client) envelopeHead(requestID string, count int) ([]byte, error) {
	meta, err := json.Marshal(MetaData{
		RequestID: requestID, AssetCount: count, Source: c.options.Source,
		ConnectorUUID: c.options.ConnectionUUID, CustomerUUID: c.options.CustomerUUID, ProfileUUID: c.options.ProfileUUID,
	})
	if err != nil {
		return nil, fmt.Errorf("encode metadata: %w", err)
	}
	return slices.Concat([]byte(`{"connectorMetaData":`), meta, []byte(`,"assetData":[`)), nil
}

// parseBatchResponse returns the outcome of a batch of count assets.
func parseBatchResponse(o fault.Operation, r response, count int) (BatchResponse, error) {
	switch r.status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		var document AssetResponse
		_ = json.Unmarshal(r.body, &document) // without assetsError if it is no such document
		return BatchResponse{Outcome: Rejected, Message: statusText(r.status, r.message()), Rejected: r.reasons(document, count)}, nil
	case http.StatusRequestEntityTooLarge:
		return BatchResponse{Outcome: TooLarge, Message: statusText(r.status, r.message())}, nil
	case http.StatusNotFound:
		return BatchResponse{}, o.Failed(fault.Refused, r.failed(errNotFound), "check qualys.customerUuid, qualys.connectionUuid, qualys.profileUuid and gateway.path.assets")
	}
	if r.status/100 != 2 {
		return BatchResponse{}, r.unexpected(o)
	}
	return parseAssetResponse(o, r, count)
}

// parseAssetResponse returns the outcome of a batch of count assets with a successful response.
// The proof of success is responseCode, with any status from 200 to 299. A status that the
// contract does not contain is unexpected without one.
func parseAssetResponse(o fault.Operation, r response, count int) (BatchResponse, error) {
	var document AssetResponse
	missing := ""
	switch err := json.Unmarshal(r.body, &document); {
	case err != nil && r.header.Get("Content-Encoding") != "": // the transport removes gzip
		missing = "unsupported Content-Encoding"
	case err != nil && len(bytes.TrimSpace(r.body)) == 0:
		missing = "empty response"
	case err != nil:
		missing = "not complete JSON"
	case r.status != http.StatusMultiStatus && document.ResponseCode == "":
		missing = "no responseCode"
	}
	switch {
	case missing == "":
	case slices.Contains([]int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusMultiStatus}, r.status):
		return BatchResponse{}, o.Failed(fault.Transient, &responseError{Status: r.status, Reason: errNoProof, Message: missing}, interceptedRemedy)
	default:
		return BatchResponse{}, r.unexpected(o)
	}
	published := isPublished(document.ResponseCode)
	rejected, unattributed := r.rejections(document, count)
	message := r.oneLine(document.ResponseCode + " " + document.Message)
	switch {
	case r.status != http.StatusMultiStatus && !published:
		return BatchResponse{Outcome: Rejected, Message: message, Rejected: r.reasons(document, count)}, nil
	case len(rejected) > 0 || unattributed:
		return BatchResponse{Outcome: PartlyAccepted, Message: message, Rejected: rejected, Unattributed: unattributed}, nil
	case published:
		return BatchResponse{Outcome: Accepted}, nil
	default: // 207 without a rejected object
		return BatchResponse{Outcome: PartlyAccepted, Message: message, Unattributed: true}, nil
	}
}

// rejections returns the rejections in a response without the secrets of the client, like
// parseRejections.
func (r response) rejections(document AssetResponse, count int) (byID map[string]string, unattributed bool) {
	byID, unattributed = parseRejections(document.AssetsError, count)
	for id, reason := range byID {
		byID[id] = r.redact(reason)
	}
	return byID, unattributed
}

// reasons returns the reasons in the response to a rejected batch. An object without one has the
// message of the batch.
func (r response) reasons(document AssetResponse, count int) map[string]string {
	byID, _ := r.rejections(document, count)
	maps.DeleteFunc(byID, func(_, reason string) bool { return reason == noReason })
	return byID
}
