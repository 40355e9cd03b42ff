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

// assetRequest is the body of syncAssets.
type assetRequest struct {
	MetaData  gateway.MetaData  `json:"connectorMetaData"`
	AssetData []json.RawMessage `json:"assetData"`
}

// assetItem is the part of an item of assetData that the server reads.
type assetItem struct {
	Asset struct {
		AssetHeader struct {
			ExternalAssetID string `json:"externalAssetId"`
			VendorAssetID   string `json:"vendorAssetId"`
		} `json:"assetHeader"`
		AssetDetail map[string]json.RawMessage `json:"assetDetail"` // the name, and the class
	} `json:"asset"`
}

func (s *Server) syncAssets(op *operation, r *http.Request, body []byte, record *Request) response {
	if _, problems := op.check(r, nil, body); len(problems) > 0 {
		return s.violation(r, problems...)
	}
	var request assetRequest
	if err := json.Unmarshal(body, &request); err != nil { // for example 1.0, which a schema accepts as an integer
		return s.violation(r, "body: "+err.Error())
	}
	meta, items := request.MetaData, request.AssetData
	record.Assets = len(items)

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
		return s.violation(r, problems...)
	}
	if unknown := s.unknown(meta.CustomerUUID, meta.ConnectorUUID, meta.ProfileUUID); unknown != "" {
		return message(http.StatusNotFound, unknown)
	}
	if !s.store(meta, sha256.Sum256(body), identities) {
		return s.violation(r, fmt.Sprintf("requestId %s was sent before with another body", meta.RequestID))
	}
	return response{http.StatusAccepted, gateway.AssetResponse{
		Message:      fmt.Sprintf("%d assets published", len(identities)),
		ResponseCode: "SUCCESSFULLY_PUBLISHED",
		AssetsError:  json.RawMessage("{}"),
	}}
}

// parseIdentity parses an item and checks the rules that a schema cannot express.
func parseIdentity(asset json.RawMessage) (Identity, error) {
	var item assetItem
	if err := json.Unmarshal(asset, &item); err != nil {
		return Identity{}, err
	}
	header, detail := item.Asset.AssetHeader, item.Asset.AssetDetail
	kind, raw := kindOf(detail)
	if kind == "" || header.VendorAssetID == "" {
		return Identity{}, fmt.Errorf("vendorAssetId or class is missing")
	}
	var class map[string]json.RawMessage
	if err := json.Unmarshal(raw, &class); err != nil {
		return Identity{}, err
	}
	switch {
	case Text(class["id"]) != header.ExternalAssetID:
		return Identity{}, fmt.Errorf("id differs from externalAssetId %s", header.ExternalAssetID)
	case Text(class["name"]) != Text(detail["name"]):
		return Identity{}, fmt.Errorf("names of %s differ", header.ExternalAssetID)
	}
	return Identity{ExternalAssetID: header.ExternalAssetID, VendorAssetID: header.VendorAssetID, Kind: kind, Asset: asset}, nil
}

// classSuffix follows the kind in the name of a class, as in userAssetClass.
const classSuffix = "AssetClass"

// kindOf returns the kind of an assetDetail and the value of its class.
func kindOf(detail map[string]json.RawMessage) (string, json.RawMessage) {
	for _, kind := range []string{KindUser, KindGroup, KindRole, KindDomain} {
		if raw, ok := detail[kind+classSuffix]; ok {
			return kind, raw
		}
	}
	return "", nil
}

// Fields returns the fields of the asset's class.
func (i Identity) Fields() map[string]json.RawMessage {
	var item assetItem
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(i.Asset, &item) // the server has parsed both before
	_ = json.Unmarshal(item.Asset.AssetDetail[i.Kind+classSuffix], &fields)
	return fields
}

// Text returns the content of a JSON string, and any other JSON unchanged.
func Text(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return string(raw)
	}
	return text
}

// store stores the identities of a request. It does nothing if the request was stored
// before, and reports false if that request had another body.
func (s *Server) store(meta gateway.MetaData, body [sha256.Size]byte, identities []Identity) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	id := strings.ToLower(meta.RequestID)
	if previous, ok := s.bodies[id]; ok {
		return previous == body
	}
	s.bodies[id] = body
	s.generation++
	s.source = meta.Source
	for _, identity := range identities {
		if previous := s.identities[identity.ExternalAssetID]; previous != nil {
			identity.Times = previous.Times
			s.kindCounts[previous.Kind]--
		}
		s.kindCounts[identity.Kind]++
		identity.Times++
		identity.Source, identity.ReceivedAt = meta.Source, now
		s.identities[identity.ExternalAssetID] = &identity
		s.externalID[identity.VendorAssetID] = identity.ExternalAssetID
	}
	return true
}
