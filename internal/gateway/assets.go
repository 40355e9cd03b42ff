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

// Outcome is what became of a batch.
type Outcome int

const (
	Taken    Outcome = iota // whole
	Partly                  // some objects were not taken: Answer says which, where it can
	NotTaken                // because of something in it
	TooLarge
)

// Answer is the gateway's word on one batch.
type Answer struct {
	Outcome  Outcome
	Message  string            // the gateway's words, unless taken
	Rejected map[string]string // partly: why, by externalAssetId or vendorAssetId
	// Unattributed: some rejection names no object, so only sending one by one tells.
	Unattributed bool
}

const noGateway = "check that no proxy answers in the gateway's place"

const successfullyPublished = "SUCCESSFULLY_PUBLISHED"

// Send delivers one batch: count assets, as JSON objects separated by commas. It
// returns nil only after an answer was read whole, and repeats what may not have
// arrived, with the same bytes and the same requestID.
func (c *Client) Send(ctx context.Context, requestID string, count int, assets []byte) (Answer, error) {
	send := fault.Operation{Op: "send assets to", Object: c.options.URL.Host}
	body, err := c.envelope(requestID, count, assets)
	if err != nil {
		return Answer{}, send.Failed(fault.Refused, err, "")
	}
	var result Answer
	err = c.retry(ctx, send, assetsTries, func() error {
		got, err := c.do(ctx, call{Operation: send, method: http.MethodPost, url: c.address(c.options.Paths.Assets), body: body, key: requestID})
		if err != nil {
			return err
		}
		result, err = assetAnswer(send, got)
		return err
	})
	return result, err
}

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

func assetAnswer(o fault.Operation, got answer) (Answer, error) {
	switch got.status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return Answer{Outcome: NotTaken, Message: statusText(got.status, got.words())}, nil
	case http.StatusRequestEntityTooLarge:
		return Answer{Outcome: TooLarge, Message: statusText(got.status, got.words())}, nil
	case http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusMultiStatus:
	case http.StatusNotFound:
		return Answer{}, o.Failed(fault.Refused, got.because(errNotFound), "check qualys.customerUuid, qualys.connectionUuid, qualys.profileUuid and gateway.path.assets")
	default:
		return Answer{}, got.unexpected(o)
	}
	var document AssetAnswer
	if err := json.Unmarshal(got.body, &document); err != nil {
		return Answer{}, o.Failed(fault.Transient, &answerError{got.status, errNoProof, "not complete JSON"}, noGateway)
	}
	rejected, unattributed := rejections(document.AssetsError)
	message := oneLine(document.ResponseCode + " " + document.Message)
	switch {
	case got.status != http.StatusMultiStatus && document.ResponseCode == "":
		return Answer{}, o.Failed(fault.Transient, &answerError{got.status, errNoProof, "no responseCode"}, noGateway)
	case got.status != http.StatusMultiStatus && document.ResponseCode != successfullyPublished:
		return Answer{Outcome: NotTaken, Message: message}, nil
	case len(rejected) > 0 || unattributed:
		return Answer{Outcome: Partly, Message: message, Rejected: rejected, Unattributed: unattributed}, nil
	case document.ResponseCode == successfullyPublished:
		return Answer{Outcome: Taken}, nil
	default: // 207 that names nobody
		return Answer{Outcome: Partly, Message: message, Unattributed: true}, nil
	}
}

// Where the parts of an assetsError whose shape is not published may stand.
var (
	rejectionLists    = []string{"failed", "errors", "rejected"}
	rejectionIDs      = []string{"externalAssetId", "vendorAssetId", "sourceNativeKey", "id"}
	rejectionMessages = []string{"message", "errorMessage", "error", "reason", "description"}
)

// rejections reads an assetsError: an object keyed by an asset's ID, or lists of
// items that carry one. unattributed means that something else was in it.
func rejections(raw json.RawMessage) (byID map[string]string, unattributed bool) {
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
				byID[key] = messageOf(value)
				continue
			}
			switch value := value.(type) {
			case nil:
			case []any:
				unattributed = rejectionItems(value, byID) || unattributed
			case map[string]any:
				unattributed = unattributed || len(value) > 0
			case string:
				unattributed = unattributed || value != ""
			default:
				unattributed = true
			}
		}
	case []any:
		unattributed = rejectionItems(document, byID)
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

func rejectionItems(items []any, byID map[string]string) (unattributed bool) {
	for _, item := range items {
		object, _ := item.(map[string]any)
		id := firstText(object, rejectionIDs)
		if id == "" {
			unattributed = true
			continue
		}
		byID[id] = messageOf(item)
	}
	return unattributed
}

const noReason = "no reason was given"

// messageOf finds the words in the value of a rejection, or takes the value as its own words.
func messageOf(value any) string {
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
			return messageOf(value[0])
		}
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		return noReason
	}
	return oneLine(string(encoded))
}

func firstText(object map[string]any, names []string) string {
	for _, name := range names {
		if text, ok := object[name].(string); ok && text != "" {
			return text
		}
	}
	return ""
}
