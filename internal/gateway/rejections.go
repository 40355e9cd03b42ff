package gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
)

// The names of possible fields of an assetsError, whose schema is not published.
var (
	rejectionLists    = []string{"failed", "errors", "rejected"}
	rejectionIDs      = []string{"externalAssetId", "vendorAssetId", "sourceNativeKey", "id"}
	rejectionMessages = []string{"message", "errorMessage", "error", "reason", "description"}
)

const noReason = "no reason given"

// rejections are the rejections in an assetsError.
type rejections struct {
	byID         map[string]string // the reasons
	unattributed bool              // the document contains anything else
	left         int               // IDs and items without an ID that may be added
}

// parseRejections parses an assetsError: an object keyed by asset ID, or lists of items with
// an ID. unattributed is whether it contains anything else, or more than limit IDs. The reason
// of an ID is that of its first item. parseRejections decodes one item at a time, because a tree
// of empty objects takes more than fifty times the memory of its text.
func parseRejections(raw json.RawMessage, limit int) (byID map[string]string, unattributed bool) {
	if len(raw) == 0 || !json.Valid(raw) {
		return nil, len(raw) > 0
	}
	r := rejections{byID: map[string]string{}, left: limit}
	decoder := newDecoder(raw)
	switch token := nextToken(decoder); token {
	case json.Delim('{'):
		r.addObject(decoder)
	case json.Delim('['):
		r.addList(decoder)
	default:
		r.unattributed = !namesNothing(token)
	}
	return r.byID, r.unattributed
}

// take reports whether another ID or item without an ID may be added.
func (r *rejections) take() bool {
	if r.left == 0 {
		r.unattributed = true
		return false
	}
	r.left--
	return true
}

func (r *rejections) contains(id string) bool {
	_, found := r.byID[id]
	return found
}

// addObject adds the members of an object, of which the decoder has read the opening brace.
func (r *rejections) addObject(decoder *json.Decoder) {
	var value json.RawMessage
	for decoder.More() {
		key, _ := nextToken(decoder).(string)
		if decoder.Decode(&value) != nil {
			return
		}
		switch {
		case isRejectionList(key):
			list := newDecoder(value)
			switch token := nextToken(list); token {
			case json.Delim('['):
				r.addList(list)
			case json.Delim('{'):
				r.unattributed = r.unattributed || list.More()
			default:
				r.unattributed = r.unattributed || !namesNothing(token)
			}
		case r.contains(key), isZero(value):
		case !r.take():
			return
		default:
			r.byID[key], _ = parseItem(value)
		}
	}
}

// addList adds the items of a list, of which the decoder has read the opening bracket.
func (r *rejections) addList(decoder *json.Decoder) {
	var item json.RawMessage
	for decoder.More() {
		if decoder.Decode(&item) != nil {
			return
		}
		reason, id := parseItem(item)
		attributed := item[0] == '{' && id != ""
		switch {
		case attributed && r.contains(id):
		case !r.take():
			return
		case attributed:
			r.byID[id] = reason
		default:
			r.unattributed = true
		}
	}
}

// namesNothing reports whether a scalar in place of an object or a list names no rejection.
func namesNothing(token json.Token) bool {
	return token == nil || token == "" || token == false || token == json.Number("0")
}

// isZero reports whether the value of a member is a count of 0 or false. Neither is a reason.
func isZero(value json.RawMessage) bool {
	text := string(bytes.TrimSpace(value))
	return text == "0" || text == "false"
}

func isRejectionList(key string) bool {
	for _, name := range rejectionLists {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

// parseItem returns the reason in an item, or else its JSON, and the ID in an object. The
// reason in a list is that of its first item.
func parseItem(item json.RawMessage) (reason, id string) {
	decoder := newDecoder(item)
	token := nextToken(decoder)
	for token == json.Delim('[') {
		if !decoder.More() {
			return "[]", ""
		}
		token = nextToken(decoder)
	}
	switch token := token.(type) {
	case nil:
		return noReason, ""
	case string:
		return cmp.Or(oneLine(token), noReason), ""
	case json.Delim: // the beginning of an object
		start := decoder.InputOffset() - 1
		fields := readTexts(decoder)
		if message := firstText(fields, rejectionMessages); message != "" {
			return cmp.Or(oneLine(message), noReason), firstText(fields, rejectionIDs)
		}
		return jsonLine(item[start:decoder.InputOffset()]), firstText(fields, rejectionIDs)
	default: // a number or a boolean
		return oneLine(fmt.Sprint(token)), ""
	}
}

// readTexts returns the texts with a name of rejectionIDs or rejectionMessages in an object, of
// which the decoder has read the opening brace.
func readTexts(decoder *json.Decoder) map[string]string {
	fields := map[string]string{}
	for _, name := range rejectionIDs {
		fields[name] = ""
	}
	for _, name := range rejectionMessages {
		fields[name] = ""
	}
	var value json.RawMessage
	for decoder.More() {
		key, _ := nextToken(decoder).(string)
		if decoder.Decode(&value) != nil {
			return fields
		}
		if _, wanted := fields[key]; wanted {
			var text string
			_ = json.Unmarshal(value, &text) // not a text: ""
			fields[key] = text
		}
	}
	_ = nextToken(decoder) // the closing brace
	return fields
}

// firstText returns the first non-empty text among the named fields.
func firstText(fields map[string]string, names []string) string {
	for _, name := range names {
		if text := fields[name]; text != "" {
			return text
		}
	}
	return ""
}

// jsonLine returns JSON for a log line, without escapes of printable characters: redact does
// not find an escaped token. It omits JSON of more than maxErrorBytes, to limit memory.
func jsonLine(raw []byte) string {
	var value any
	if len(raw) > maxErrorBytes || json.Unmarshal(raw, &value) != nil {
		return noReason
	}
	var plain strings.Builder
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	if encoder.Encode(value) != nil {
		return noReason
	}
	return oneLine(plain.String())
}

func newDecoder(raw []byte) *json.Decoder {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	return decoder
}

// nextToken returns the next token of valid JSON; nil for null.
func nextToken(decoder *json.Decoder) json.Token {
	token, err := decoder.Token()
	if err != nil {
		return nil
	}
	return token
}
