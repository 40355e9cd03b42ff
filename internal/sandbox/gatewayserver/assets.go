package gatewayserver

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"adconnector/internal/gateway"
)

// assetRequest is a body of syncAssets, its parts as they came.
type assetRequest struct {
	MetaData  gateway.MetaData  `json:"connectorMetaData"`
	AssetData []json.RawMessage `json:"assetData"`
}

// assetItem is what the gateway looks at in an item of assetData.
type assetItem struct {
	Asset struct {
		AssetHeader struct {
			ExternalAssetID string `json:"externalAssetId"`
			VendorAssetID   string `json:"vendorAssetId"`
		} `json:"assetHeader"`
		AssetDetail map[string]json.RawMessage `json:"assetDetail"` // the name, and a class by its name
	} `json:"asset"`
}

func (g *Server) syncAssets(op *operation, r *http.Request, body []byte, seen *Request) answer {
	if _, problems := op.check(r, nil, body); len(problems) > 0 {
		return g.violation(r, problems...)
	}
	var request assetRequest
	if err := json.Unmarshal(body, &request); err != nil { // for example 1.0, which a schema accepts as an integer
		return g.violation(r, "body: "+err.Error())
	}
	meta, items := request.MetaData, request.AssetData
	seen.Assets = len(items)

	var problems []string
	if meta.AssetCount != len(items) {
		problems = append(problems, fmt.Sprintf("assetCount is %d, but assetData has %d", meta.AssetCount, len(items)))
	}
	if key := r.Header.Get("Idempotency-Key"); meta.RequestID != key {
		problems = append(problems, fmt.Sprintf("requestId is %s, but Idempotency-Key %s", meta.RequestID, key))
	}
	identities := make([]Identity, len(items))
	for i, raw := range items {
		identity, err := parseIdentity(raw)
		if err != nil {
			problems = append(problems, fmt.Sprintf("assetData %d: %v", i, err))
		}
		identities[i] = identity
	}
	if len(problems) > 0 {
		return g.violation(r, problems...)
	}
	if unknown := g.unknown(meta.CustomerUUID, meta.ConnectorUUID, meta.ProfileUUID); unknown != "" {
		return message(http.StatusNotFound, unknown)
	}
	if !g.take(meta, sha256.Sum256(body), identities) {
		return g.violation(r, fmt.Sprintf("requestId %s was sent before with another body", meta.RequestID))
	}
	return answer{http.StatusAccepted, gateway.AssetResponse{
		Message:      fmt.Sprintf("%d assets published", len(identities)),
		ResponseCode: "SUCCESSFULLY_PUBLISHED",
		AssetsError:  json.RawMessage("{}"),
	}}
}

// parseIdentity parses an item and checks what its schema cannot say.
func parseIdentity(asset json.RawMessage) (Identity, error) {
	var item assetItem
	if err := json.Unmarshal(asset, &item); err != nil {
		return Identity{}, err
	}
	header, detail := item.Asset.AssetHeader, item.Asset.AssetDetail
	kind, raw := kindOf(detail)
	if kind == "" || header.VendorAssetID == "" {
		return Identity{}, fmt.Errorf("no identity")
	}
	var class map[string]json.RawMessage
	if err := json.Unmarshal(raw, &class); err != nil {
		return Identity{}, err
	}
	switch {
	case textValue(class["id"]) != header.ExternalAssetID:
		return Identity{}, fmt.Errorf("id is not externalAssetId %s", header.ExternalAssetID)
	case textValue(class["name"]) != textValue(detail["name"]):
		return Identity{}, fmt.Errorf("the two names of %s differ", header.ExternalAssetID)
	}
	return Identity{ExternalAssetID: header.ExternalAssetID, VendorAssetID: header.VendorAssetID, Kind: kind, Asset: asset}, nil
}

// classes are the classes of assetDetail with the kinds that they stand for.
var classes = []struct{ class, kind string }{
	{"userAssetClass", KindUser},
	{"groupAssetClass", KindGroup},
	{"roleAssetClass", KindRole},
	{"domainAssetClass", KindDomain},
}

// kindOf returns the kind of an assetDetail and the value of its class.
func kindOf(detail map[string]json.RawMessage) (string, json.RawMessage) {
	for _, c := range classes {
		if raw, ok := detail[c.class]; ok {
			return c.kind, raw
		}
	}
	return "", nil
}

// textValue returns a JSON string's content, and other JSON as it is.
func textValue(raw json.RawMessage) string {
	if len(raw) == 0 || raw[0] != '"' {
		return string(raw)
	}
	var text string
	_ = json.Unmarshal(raw, &text) // it has been read before
	return text
}

// take applies a request, once. It reports whether that was the request's only body.
func (g *Server) take(meta gateway.MetaData, body [sha256.Size]byte, identities []Identity) bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	id := strings.ToLower(meta.RequestID)
	if before, ok := g.taken[id]; ok {
		return before == body
	}
	g.taken[id] = body
	g.generation++
	g.source = meta.Source
	for _, identity := range identities {
		if before := g.identities[identity.VendorAssetID]; before != nil {
			identity.Times = before.Times
			g.held[before.Kind]--
		}
		g.held[identity.Kind]++
		identity.Times++
		identity.Source, identity.ReceivedAt = meta.Source, now
		g.identities[identity.VendorAssetID] = &identity
	}
	return true
}
