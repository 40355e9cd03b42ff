package gatewayserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"adconnector/internal/gateway"
)

const (
	customer   = "0b1c4a3e-9a55-4c0e-8f3a-1d2b3c4d5e6f"
	connection = "5f0d7b9a-41f5-4f8e-9d06-7a8b9c0d1e2f"
	profile    = "c3f2a1b0-0a9b-4c8d-8e7f-6a5b4c3d2e1f"
	request    = "11111111-2222-4333-8444-555555555555"
	unknownID  = "99999999-9999-4999-8999-999999999999"

	assetsPath     = "/rest/2.0/am/connector/asset/data/sync"
	connectionPath = "/rest/2.0/am/connector/connection/" + connection
	profilePath    = "/rest/2.0/am/connector/profile/" + profile
	statePath      = connectionPath + "/state"
)

// userAsset is the example of the transformation specification.
const userAsset = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-21-1849019280-284467811-1465672680-1103","vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Alice Kovács","userAssetClass":{"id":"S-1-5-21-1849019280-284467811-1465672680-1103","name":"Alice Kovács","email":"alice@corp.example.com","firstName":"Alice","lastName":"Kovács","displayName":"Alice Kovács","phone":"+1 555 0100","jobTitle":"Engineer","activationDate":"2026-11-22T07:23:06.000Z","passwordLastChangedAt":"2026-11-22T07:33:13.845Z","failedPasswordAttemptCount":0,"currentAddress":{"city":"Pune","country":"India","state":"MH"},"status":"ACTIVE"}}}}`

const groupAsset = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-32-544","vendorAssetId":"1a2b3c4d-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Admins","groupAssetClass":{"id":"S-1-5-32-544","name":"Admins","displayName":"Admins","description":"All of them","type":"SECURITY","visibility":"PRIVATE"}}}}`

const stateBody = `{"customerUuid":"` + customer + `","profileUuid":"` + profile + `","state":"PROCESSING","runId":"` + request + `","at":"2026-11-22T10:00:00.000Z","nextRunAt":null,"error":null,"summary":{"mode":"delta","users":0,"groups":0,"uploaded":0,"deleted":0,"rejected":0}}`

// envelope returns a body of syncAssets with items.
func envelope(id string, items ...string) string {
	return fmt.Sprintf(`{"connectorMetaData":{"requestId":"%s","assetCount":%d,"source":"Microsoft Active Directory","connectorUuid":"%s","customerUuid":"%s","profileUuid":"%s"},"assetData":[%s]}`,
		id, len(items), connection, customer, profile, strings.Join(items, ","))
}

func testOptions() Options {
	return Options{
		CustomerUUID: customer, ConnectionUUID: connection, ProfileUUID: profile,
		Username: "alice", Password: "pass-w0rd&=%", ClientID: "client-7", ClientSecret: "client-s3cret",
		Connection: &Connection{connection, "corp", Authentication{Type: "LDAPS", Host: "dc1.corp.example.com", Port: 636, BindDN: "CN=svc,DC=corp", Password: "bind-s3cret"}},
		Profile:    &gateway.Profile{ProfileUUID: profile, Name: "all", BaseContext: "DC=corp", SearchScope: "SUBTREE", Assets: "IDENTITIES_ONLY"},
	}
}

// call is a request. Its methods return modified copies.
type call struct {
	method, path, body string
	header             http.Header
}

func (c call) with(name, value string) call {
	c.header = c.header.Clone()
	if value == "" {
		c.header.Del(name)
	} else {
		c.header.Set(name, value)
	}
	return c
}

func (c call) to(path string) call   { c.path = path; return c }
func (c call) by(method string) call { c.method = method; return c }

func (c call) replace(text, replacement string) call {
	if !strings.Contains(c.body, text) {
		panic("body does not contain " + text)
	}
	c.body = strings.ReplaceAll(c.body, text, replacement)
	return c
}

func (c call) do(g *Server) *httptest.ResponseRecorder {
	r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
	r.Header = c.header
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

func login(path, form string) call {
	return call{"POST", path, form, http.Header{"User-Agent": {"adconnector/test"}, "Content-Type": {mediaForm}}}
}

func basic() call {
	return login("/auth", url.Values{"username": {"alice"}, "password": {"pass-w0rd&=%"}, "token": {"true"}}.Encode())
}

func ownClient(path string) call {
	return login(path, "").with("clientId", "client-7").with("clientSecret", "client-s3cret")
}

func clientCredentials() call {
	return login("/oauth/token", "grant_type=client_credentials&client_id=client-7&client_secret=client-s3cret")
}

func authorized(g *Server, method, path, body string) call {
	c := call{method, path, body, http.Header{"User-Agent": {"adconnector/test"}, "Authorization": {"Bearer " + g.tokens.issue("test")}}}
	if body != "" {
		c = c.with("Content-Type", mediaJSON)
	}
	return c
}

func assets(g *Server, id string, items ...string) call {
	return authorized(g, "POST", assetsPath, envelope(id, items...)).with("Idempotency-Key", id)
}

func TestResponses(t *testing.T) {
	t.Parallel()
	const (
		published = `{"message":"1 assets published","responseCode":"SUCCESSFULLY_PUBLISHED","assetsError":{}}`
		asset     = "body /assetData/0/asset"
		detail    = asset + "/assetDetail"
		user      = detail + "/userAssetClass"
		group     = detail + "/groupAssetClass"
		wrong     = `{"message":"wrong credentials"}`
		recorded  = `{"message":"recorded"}`
	)
	g := New(testOptions())
	good, goodGroup := assets(g, request, userAsset), assets(g, request, groupAsset)
	state := authorized(g, "PUT", statePath, stateBody)
	getConnection := authorized(g, "GET", connectionPath+"?customerUuid="+customer, "")
	getProfile := authorized(g, "GET", profilePath+"?customerUuid="+customer, "")
	const anyBody = `"*"` // the body contains a token

	for _, test := range []struct {
		name   string
		call   call
		status int
		want   string // the body; of a 400 the message
	}{
		{"basic", basic(), 201, anyBody},
		{"basic, wrong password", basic().replace("w0rd", "word"), 401, wrong},
		{"basic, wrong user", basic().replace("alice", "bob"), 401, wrong},
		{"basic, no password", login("/auth", "username=alice&token=true"), 400, `body: validating root: validating /$defs/BasicLogin: required: missing properties: ["password"]`},
		{"basic, empty password", login("/auth", "username=alice&password=&token=true"), 400, `body: validating /$defs/BasicLogin: validating /$defs/BasicLogin/properties/password: minLength: "" contains 0 Unicode code points, fewer than 1`},
		{"basic, token=false", basic().replace("token=true", "token=false"), 400, "body: validating /$defs/BasicLogin: validating /$defs/BasicLogin/properties/token: const: false does not equal true"},
		{"basic, unknown field", basic().replace("token=true", "token=true&permissions=true"), 400, `body: validating root: validating /$defs/BasicLogin: unexpected additional properties ["permissions"]`},
		{"basic, repeated field", basic().replace("token=true", "token=true&token=true"), 400, "body: field token is repeated"},
		{"basic, invalid escape", basic().replace("%26", "%"), 400, "body: malformed form"},
		{"basic, as JSON", basic().with("Content-Type", mediaJSON), 400, "header Content-Type: want application/x-www-form-urlencoded"},
		{"basic, no user agent", basic().with("User-Agent", ""), 400, "header User-Agent: missing"},
		{"basic, GET", basic().by("GET"), 400, "GET /auth is not in the contract"},
		{"own client, user", ownClient("/auth/oidc"), 201, anyBody},
		{"own client, subscription", ownClient("/auth/oauth"), 201, anyBody},
		{"own client, wrong secret", ownClient("/auth/oidc").with("clientSecret", "x"), 401, wrong},
		{"own client, wrong id", ownClient("/auth/oauth").with("clientId", "x"), 401, wrong},
		{"own client, no secret", ownClient("/auth/oidc").with("clientSecret", ""), 400, "header clientSecret: missing"},
		{"own client, form", login("/auth/oidc", "client_secret=client-s3cret").with("clientId", "client-7").with("clientSecret", "client-s3cret"), 400, "body: validating root: validating /$defs/EmptyForm: maxProperties: object has 1 properties, greater than 0"},
		{"client credentials", clientCredentials(), 200, anyBody},
		{"client credentials in the header", login("/oauth/token", "grant_type=client_credentials").with("Authorization", "Basic Y2xpZW50JTJENzpjbGllbnQtczNjcmV0"), 200, anyBody},
		{"client credentials nowhere", login("/oauth/token", "grant_type=client_credentials"), 401, `{"error":"invalid_client","error_description":"wrong credentials"}`},
		{"client credentials, wrong secret", clientCredentials().replace("s3cret", "secret"), 401, `{"error":"invalid_client","error_description":"wrong credentials"}`},
		{"client credentials, other grant", clientCredentials().replace("=client_credentials", "=password"), 400, "body: validating /$defs/ClientCredentials: validating /$defs/ClientCredentials/properties/grant_type: const: password does not equal client_credentials"},

		{"connection", getConnection, 200, `{"connectionUuid":"` + connection + `","name":"corp","authentication":{"type":"LDAPS","host":"dc1.corp.example.com","port":636,"bindDn":"CN=svc,DC=corp","password":"bind-s3cret"}}`},
		{"connection, unknown", getConnection.to("/rest/2.0/am/connector/connection/" + unknownID + "?customerUuid=" + customer), 404, `{"message":"unknown connectionUuid ` + unknownID + `"}`},
		{"connection, unknown customer", getConnection.to(connectionPath + "?customerUuid=" + unknownID), 404, `{"message":"unknown customerUuid ` + unknownID + `"}`},
		{"connection, no customer", getConnection.to(connectionPath), 400, "query customerUuid: missing"},
		{"connection, two customers", getConnection.to(connectionPath + "?customerUuid=" + customer + "&customerUuid=" + customer), 400, "query customerUuid: repeated"},
		{"connection, unknown query parameter", getConnection.to(connectionPath + "?x=1&customerUuid=" + customer), 400, "query x: not in the contract"},
		{"connection, invalid UUID", getConnection.to("/rest/2.0/am/connector/connection/7?customerUuid=" + customer), 400, `path connectionUuid: validating root: validating /$defs/UUID: pattern: "7" does not match regular expression "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"`},
		{"connection, body", authorized(g, "GET", connectionPath+"?customerUuid="+customer, "{}"), 400, "body: not allowed"},
		{"connection, no token", getConnection.with("Authorization", ""), 401, `{"message":"no bearer token"}`},
		{"connection, other scheme", getConnection.with("Authorization", "Basic YTpi"), 401, `{"message":"no bearer token"}`},
		{"connection, not a JWT", getConnection.with("Authorization", "Bearer x"), 401, `{"message":"token is revoked or from another gateway"}`},
		{"connection, foreign token", getConnection.with("Authorization", "Bearer "+newTokens(time.Hour).issue("x")), 401, `{"message":"token is revoked or from another gateway"}`},
		{"connection, no signature", getConnection.with("Authorization", "Bearer e30.e30."), 401, `{"message":"token is revoked or from another gateway"}`},
		{"profile", getProfile, 200, `{"profileUuid":"` + profile + `","name":"all","baseContext":"DC=corp","searchScope":"SUBTREE","assets":"IDENTITIES_ONLY"}`},
		{"profile, unknown", getProfile.to("/rest/2.0/am/connector/profile/" + unknownID + "?customerUuid=" + customer), 404, `{"message":"unknown profileUuid ` + unknownID + `"}`},
		{"profile, wrong user agent", getProfile.with("User-Agent", "Go-http-client/1.1"), 400, `header User-Agent: validating root: pattern: "Go-http-client/1.1" does not match regular expression "^adconnector/"`},
		{"unknown path", getProfile.to("/rest/2.0/am/asset"), 400, "GET /rest/2.0/am/asset is not in the contract"},

		{"assets", good, 202, published},
		{"assets, repeated", good, 202, published},
		{"assets, repeated requestId with another body", good.replace("Engineer", "Director"), 400, "requestId " + request + " was sent before with another body"},
		{"assets, charset", good.with("Content-Type", "application/json; charset=utf-8"), 202, published},
		{"assets, no token", good.with("Authorization", ""), 401, `{"message":"no bearer token"}`},
		{"assets, other charset", good.with("Content-Type", "application/json; charset=latin1"), 400, "header Content-Type: want charset utf-8"},
		{"assets, as text", good.with("Content-Type", "text/plain"), 400, "header Content-Type: want application/json"},
		{"assets, no Idempotency-Key", good.with("Idempotency-Key", ""), 400, "header Idempotency-Key: missing"},
		{"assets, other Idempotency-Key", good.with("Idempotency-Key", unknownID), 400, "requestId is " + request + ", but Idempotency-Key " + unknownID},
		{"assets, wrong count", good.replace(`"assetCount":1`, `"assetCount":2`), 400, "assetCount is 2, but assetData has 1"},
		{"assets, count with a fraction", good.replace(`"assetCount":1`, `"assetCount":1.0`), 400, "body: json: cannot unmarshal number 1.0 into Go struct field MetaData.connectorMetaData.assetCount of type int"},
		{"assets, none", assets(g, request).replace(`"assetCount":0`, `"assetCount":1`), 400, "body: validating /$defs/AssetRequest: validating /$defs/AssetRequest/properties/assetData: minItems: array length 0 is less than 1"},
		{"assets, count of 0", good.replace(`"assetCount":1`, `"assetCount":0`), 400, "body: validating /$defs/AssetRequest/properties/connectorMetaData: validating /$defs/AssetRequest/properties/connectorMetaData/properties/assetCount: minimum: 0/1 is less than 1.000000"},
		{"assets, unknown connection", good.replace(connection, unknownID), 404, `{"message":"unknown connectionUuid ` + unknownID + `"}`},
		{"assets, unknown customer", good.replace(customer, unknownID), 404, `{"message":"unknown customerUuid ` + unknownID + `"}`},
		{"assets, unknown profile", good.replace(profile, unknownID), 404, `{"message":"unknown profileUuid ` + unknownID + `"}`},
		{"assets, no source", good.replace(`"source":"Microsoft Active Directory",`, ""), 400, `body: validating /$defs/AssetRequest: validating /$defs/AssetRequest/properties/connectorMetaData: required: missing properties: ["source"]`},
		{"assets, unknown field", good.replace(`"assetData"`, `"x":1,"assetData"`), 400, `body: validating root: validating /$defs/AssetRequest: unexpected additional properties ["x"]`},
		{"assets, field name in another case", good.replace(`"assetData"`, `"AssetData"`), 400, `body: validating root: validating /$defs/AssetRequest: unexpected additional properties ["AssetData"]`},
		{"assets, invalid JSON", good.replace("]}", "]"), 400, "body: not JSON: unexpected end of JSON input"},
		{"assets, trailing data", assets(g, request, userAsset).replace("]}", "]}{}"), 400, "body: not JSON: invalid character '{' after top-level value"},
		{"assets, invalid UTF-8", good.replace("Engineer", "\xff"), 400, "body: not UTF-8"},

		{"user, null", good.replace(`"Engineer"`, "null"), 400, `body /assetData/0: validating /$defs/UserAssetClass/properties/jobTitle: validating /$defs/Text: type: <invalid reflect.Value> has type "null", want "string"`},
		{"user, empty text", good.replace(`"Engineer"`, `""`), 400, `body /assetData/0: validating /$defs/UserAssetClass/properties/jobTitle: validating /$defs/Text: minLength: "" contains 0 Unicode code points, fewer than 1`},
		{"user, empty address", good.replace(`{"city":"Pune","country":"India","state":"MH"}`, "{}"), 400, "body /assetData/0: validating /$defs/UserAssetClass: validating /$defs/UserAssetClass/properties/currentAddress: minProperties: object has 0 properties, less than 1"},
		{"user, unknown address field", good.replace(`"city"`, `"zip"`), 400, `body /assetData/0: validating /$defs/UserAssetClass: validating /$defs/UserAssetClass/properties/currentAddress: unexpected additional properties ["zip"]`},
		{"user, unknown field", good.replace(`"jobTitle"`, `"title"`), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset/properties/assetDetail/properties/userAssetClass: validating /$defs/UserAssetClass: unexpected additional properties ["title"]`},
		{"user, no id", good.replace(`"id":"S-1-5-21-1849019280-284467811-1465672680-1103",`, ""), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset/properties/assetDetail/properties/userAssetClass: validating /$defs/UserAssetClass: required: missing properties: ["id"]`},
		{"user, unknown status", good.replace("ACTIVE", "Active"), 400, "body /assetData/0: validating /$defs/UserAssetClass: validating /$defs/UserAssetClass/properties/status: enum: Active does not equal any of: [DISABLED EXPIRED LOCKED PASSWORD_EXPIRED ACTIVE DELETED]"},
		{"user, no milliseconds", good.replace("06.000Z", "06Z"), 400, `body /assetData/0: validating /$defs/UserAssetClass/properties/activationDate: validating /$defs/Time: pattern: "2026-11-22T07:23:06Z" does not match regular expression "^[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|[12][0-9]))T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z$"`},
		{"user, invalid day", good.replace("2026-11-22T07:23", "2026-11-31T07:23"), 400, `body /assetData/0: validating /$defs/UserAssetClass/properties/activationDate: validating /$defs/Time: pattern: "2026-11-31T07:23:06.000Z" does not match regular expression "^[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|[12][0-9]))T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z$"`},
		{"user, count as text", good.replace(`Count":0`, `Count":"0"`), 400, `body /assetData/0: validating /$defs/UserAssetClass: validating /$defs/UserAssetClass/properties/failedPasswordAttemptCount: type: 0 has type "string", want "integer"`},
		{"user, negative count", good.replace(`Count":0`, `Count":-1`), 400, "body /assetData/0: validating /$defs/UserAssetClass: validating /$defs/UserAssetClass/properties/failedPasswordAttemptCount: minimum: -1/1 is less than 0.000000"},
		{"user, upper-case GUID", good.replace("2323a9b0", "2323A9B0"), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset/properties/assetHeader/properties/vendorAssetId: validating /$defs/GUID: pattern: "2323A9B0-6c59-4bd2-9e86-eec4d73a8b8d" does not match regular expression "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"`},
		{"user, bad SID", good.replace(`"id":"S-1-5-21-1849019280-284467811-1465672680-1103"`, `"id":"S-1-5"`), 400, `body /assetData/0: validating /$defs/UserAssetClass/properties/id: validating /$defs/SID: pattern: "S-1-5" does not match regular expression "^S-1-(?:0|[1-9][0-9]{0,9}|0x[0-9A-F]{12})(?:-(?:0|[1-9][0-9]{0,9})){1,15}$"`},
		{"user, bad external ID", good.replace(`"externalAssetId":"S-1-5-21-1849019280-284467811-1465672680-1103"`, `"externalAssetId":"S-1-5"`), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset/properties/assetHeader/properties/externalAssetId: validating /$defs/ExternalID: pattern: "S-1-5" does not match regular expression "^S-1-(?:0|[1-9][0-9]{0,9}|0x[0-9A-F]{12})(?:-(?:0|[1-9][0-9]{0,9})){1,15}(?::role)?$"`},
		{"user, two SIDs", good.replace(`"id":"S-1-5-21-1849019280`, `"id":"S-1-5-21-1`), 400, "assetData 0: id differs from externalAssetId S-1-5-21-1849019280-284467811-1465672680-1103"},
		{"user, two names", good.replace(`"assetDetail":{"name":"Alice Kovács"`, `"assetDetail":{"name":"Bob"`), 400, "assetData 0: names of S-1-5-21-1849019280-284467811-1465672680-1103 differ"},
		{"user, no GUID", good.replace(`,"vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"`, ""), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset: validating /$defs/AssetItem/properties/asset/properties/assetHeader: required: missing properties: ["vendorAssetId"]`},
		{"user and group", good.replace(`"userAssetClass"`, `"groupAssetClass":{"id":"S-1-5-32-544"},"userAssetClass"`), 400, "body /assetData/0: validating /$defs/AssetItem/properties/asset: validating /$defs/AssetItem/properties/asset/properties/assetDetail: oneOf: validated against both <anonymous schema> and <anonymous schema>"},
		{"no class", good.replace(`"name":"Alice Kovács","userAssetClass"`, `"userAssetclass"`), 400, "body /assetData/0: validating /$defs/AssetItem/properties/asset: validating /$defs/AssetItem/properties/asset/properties/assetDetail: oneOf: did not validate against any of [<anonymous schema> <anonymous schema> <anonymous schema> <anonymous schema>]"},
		{"user, unknown item field", good.replace(`{"asset":`, `{"x":1,"asset":`), 400, `body /assetData/0: validating root: validating /$defs/AssetItem: unexpected additional properties ["x"]`},

		{"group", assets(g, unknownID, groupAsset), 202, published},
		{"group, type without visibility", assets(g, uuid.NewString(), groupAsset).replace(`,"visibility":"PRIVATE"`, ""), 202, published},
		{"group, unknown type", goodGroup.replace("SECURITY", "Security"), 400, "body /assetData/0: validating /$defs/GroupAssetClass: validating /$defs/GroupAssetClass/properties/type: enum: Security does not equal any of: [SECURITY DISTRIBUTION]"},
		{"group, unknown visibility", goodGroup.replace("PRIVATE", "UNIVERSAL"), 400, "body /assetData/0: validating /$defs/GroupAssetClass: validating /$defs/GroupAssetClass/properties/visibility: enum: UNIVERSAL does not equal any of: [PUBLIC PRIVATE]"},
		{"group, visibility without type", goodGroup.replace(`"type":"SECURITY",`, ""), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset/properties/assetDetail/properties/groupAssetClass: validating /$defs/GroupAssetClass: dependentRequired["visibility"]: missing properties ["type"]`},
		{"group, active", goodGroup.replace(`"type"`, `"status":"ACTIVE","type"`), 400, "body /assetData/0: validating /$defs/GroupAssetClass: validating /$defs/GroupAssetClass/properties/status: const: ACTIVE does not equal DELETED"},
		{"group, user field", goodGroup.replace(`"description"`, `"email"`), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset/properties/assetDetail/properties/groupAssetClass: validating /$defs/GroupAssetClass: unexpected additional properties ["email"]`},
		{"group, empty description", goodGroup.replace("All of them", ""), 400, `body /assetData/0: validating /$defs/GroupAssetClass/properties/description: validating /$defs/Text: minLength: "" contains 0 Unicode code points, fewer than 1`},
		{"group, no id", goodGroup.replace(`"id":"S-1-5-32-544",`, ""), 400, `body /assetData/0: validating /$defs/AssetItem/properties/asset/properties/assetDetail/properties/groupAssetClass: validating /$defs/GroupAssetClass: required: missing properties: ["id"]`},

		{"state", state, 200, recorded},
		{"state, before the first run", state.replace(`"runId":"`+request, `"runId":"`).replace(`{"mode":"delta","users":0,"groups":0,"uploaded":0,"deleted":0,"rejected":0}`, "null"), 200, recorded},
		{"state, next run and error", state.replace(`"nextRunAt":null,"error":null`, `"nextRunAt":"2026-11-22T10:10:00.000Z","error":"bind: refused"`), 200, recorded},
		{"state, unknown connection", state.to("/rest/2.0/am/connector/connection/" + unknownID + "/state"), 404, `{"message":"unknown connectionUuid ` + unknownID + `"}`},
		{"state, unknown state", state.replace("PROCESSING", "Processing"), 400, "body: validating /$defs/ConnectorState: validating /$defs/ConnectorState/properties/state: enum: Processing does not equal any of: [REGISTERED SCHEDULED PROCESSING PROCESSED]"},
		{"state, microseconds", state.replace("00.000Z", "00.000000Z"), 400, `body: validating /$defs/ConnectorState/properties/at: validating /$defs/Time: pattern: "2026-11-22T10:00:00.000000Z" does not match regular expression "^[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|[12][0-9]))T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\\.[0-9]{3}Z$"`},
		{"state, missing field", state.replace(`"error":null,`, ""), 400, `body: validating root: validating /$defs/ConnectorState: required: missing properties: ["error"]`},
		{"state, empty error", state.replace(`"error":null`, `"error":""`), 400, `body: validating /$defs/ConnectorState: validating /$defs/ConnectorState/properties/error: minLength: "" contains 0 Unicode code points, fewer than 1`},
		{"state, unknown summary field", state.replace(`"users"`, `"held":0,"users"`), 400, "body: validating /$defs/ConnectorState: validating /$defs/ConnectorState/properties/summary: anyOf: did not validate against any of [<anonymous schema> <anonymous schema>]:\nvalidating /$defs/ConnectorState/properties/summary/anyOf/0: validating /$defs/Summary: unexpected additional properties [\"held\"]\nvalidating /$defs/ConnectorState/properties/summary/anyOf/1: type: map[deleted:0 groups:0 held:0 mode:delta rejected:0 uploaded:0 users:0] has type \"object\", want \"null\""},
		{"state, POST", state.by("POST"), 400, "POST " + statePath + " is not in the contract"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(g.Violations())
			w := test.call.do(g)
			if w.Code != test.status {
				t.Fatalf("status %d, want %d: %s", w.Code, test.status, w.Body)
			}
			checkResponse(t, g.contract, test.call, w)
			want := test.want
			path, _, _ := strings.Cut(test.call.path, "?")
			if test.status == http.StatusBadRequest {
				violation := test.call.method + " " + path + ": " + want
				if v := g.Violations(); len(v) != before+1 || v[before] != violation {
					t.Errorf("violations %q\nwant       %q", v[before:], violation)
				}
				want = jsonObject("message", want)
				if path == "/oauth/token" {
					want = jsonObject("error", "invalid_request", "error_description", test.want)
				}
			} else if len(g.Violations()) != before {
				t.Errorf("violations %q", g.Violations()[before:])
			}
			if got := strings.TrimSpace(w.Body.String()); want != anyBody && got != want {
				t.Errorf("response %s\nwant     %s", got, want)
			}
		})
	}

	t.Run("records contain no secret", func(t *testing.T) {
		records := fmt.Sprintf("%q %+v %+v %s %s", g.Violations(), g.States(), g.Requests(), g.Users()[0].Asset, g.Groups()[0].Asset)
		for _, secret := range []string{"w0rd", "s3cret", "Bearer", "eyJ"} {
			if strings.Contains(records, secret) {
				t.Errorf("records contain %q", secret)
			}
		}
	})
}

func jsonObject(pairs ...string) string {
	fields := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		fields[pairs[i]] = pairs[i+1]
	}
	var out bytes.Buffer
	_ = json.NewEncoder(&out).Encode(fields)
	return strings.TrimSpace(out.String())
}

func TestTokens(t *testing.T) {
	t.Parallel()
	t.Run("token of each login", func(t *testing.T) {
		for _, wrap := range []bool{false, true} {
			options := testOptions()
			options.WrapToken = wrap
			g := New(options)
			for _, c := range []call{basic(), ownClient("/auth/oidc"), ownClient("/auth/oauth"), clientCredentials()} {
				response := c.do(g)
				token := response.Body.String()
				if wrap || c.path == "/oauth/token" {
					var wrapped struct {
						AccessToken string `json:"access_token"`
					}
					if err := json.Unmarshal(response.Body.Bytes(), &wrapped); err != nil {
						t.Fatalf("%s: %v", c.path, err)
					}
					token = wrapped.AccessToken
				}
				state := authorized(g, "PUT", statePath, stateBody).with("Authorization", "Bearer "+token)
				if w := state.do(g); w.Code != http.StatusOK {
					t.Errorf("%s, wrapped %v: %d %s", c.path, wrap, w.Code, w.Body)
				}
				g.RevokeTokens()
				if w := state.do(g); w.Code != http.StatusUnauthorized {
					t.Errorf("%s: status %d with a revoked token", c.path, w.Code)
				}
			}
		}
	})
	t.Run("expiry", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			options := testOptions()
			options.tokenLifetime = time.Minute
			g := New(options)
			state := authorized(g, "PUT", statePath, stateBody)
			time.Sleep(59 * time.Second)
			if w := state.do(g); w.Code != http.StatusOK {
				t.Errorf("before exp: %d %s", w.Code, w.Body)
			}
			time.Sleep(2 * time.Second)
			if w := state.do(g); w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "token expired") {
				t.Errorf("after exp: %d %s", w.Code, w.Body)
			}
		})
	})
	t.Run("no credentials in the options", func(t *testing.T) {
		g := New(Options{})
		for _, c := range []call{basic(), ownClient("/auth/oidc"), clientCredentials()} {
			if w := c.do(g); w.Code != http.StatusUnauthorized {
				t.Errorf("%s: %d", c.path, w.Code)
			}
		}
	})
}

func TestStoredAssets(t *testing.T) {
	t.Parallel()
	g := New(testOptions())
	first := assets(g, uuid.NewString(), userAsset, groupAsset)
	first.do(g)
	first.do(g) // a repetition changes nothing
	deleted := strings.Replace(userAsset, "ACTIVE", "DELETED", 1)
	if w := assets(g, uuid.NewString(), deleted).do(g); w.Code != http.StatusAccepted {
		t.Fatal(w.Body)
	}
	first.do(g) // a late repetition does not restore the old value

	users, groups := g.Users(), g.Groups()
	if len(users) != 1 || users[0].Times != 2 || users[0].Kind != KindUser || string(users[0].Asset) != deleted {
		t.Errorf("users %+v", users)
	}
	if len(groups) != 1 || groups[0].Times != 1 || groups[0].Kind != KindGroup || groups[0].ExternalAssetID != "S-1-5-32-544" || string(groups[0].Asset) != groupAsset {
		t.Errorf("groups %+v", groups)
	}
	user, ok := g.Identity("2323A9B0-6c59-4bd2-9e86-eec4d73a8b8d")
	if _, unknown := g.Identity(unknownID); !ok || unknown || user.Times != 2 {
		t.Errorf("identity %+v, found %v; unknown identity found %v", user, ok, unknown)
	}
	if g.Count(KindUser) != 1 || g.Count(KindGroup) != 1 || g.Generation() != 2 || g.LastSource() != "Microsoft Active Directory" {
		t.Errorf("%d users, %d groups, generation %d, source %q", g.Count(KindUser), g.Count(KindGroup), g.Generation(), g.LastSource())
	}
	requests := g.Requests()
	if len(requests) != 4 || requests[0].Assets != 2 || requests[0].Status != 202 || requests[0].Bytes != len(first.body) || requests[0].RequestID != first.header.Get("Idempotency-Key") {
		t.Errorf("requests %+v", requests)
	}
	if n := g.Counts()["POST "+assetsPath+" 202"]; n != 4 {
		t.Errorf("count %d, want 4", n)
	}
}

func TestSetConnectionAndProfile(t *testing.T) {
	t.Parallel()
	g := New(testOptions())
	getConnection := authorized(g, "GET", connectionPath+"?customerUuid="+customer, "")
	getProfile := authorized(g, "GET", profilePath+"?customerUuid="+customer, "")
	g.SetConnection(&Connection{ConnectionUUID: connection, Authentication: Authentication{Host: "dc2"}})
	g.SetProfile(&gateway.Profile{ProfileUUID: profile, BaseContext: "OU=x"})
	if w := getConnection.do(g); !strings.Contains(w.Body.String(), `"host":"dc2"`) {
		t.Error(w.Body)
	}
	if w := getProfile.do(g); !strings.Contains(w.Body.String(), `"baseContext":"OU=x"`) {
		t.Error(w.Body)
	}
	g.SetConnection(nil)
	g.SetProfile(nil)
	for _, c := range []call{getConnection, getProfile} {
		if w := c.do(g); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", c.path, w.Code)
		}
	}
}

func TestMaxBody(t *testing.T) {
	t.Parallel()
	body := envelope(request, userAsset)
	for maxBody, status := range map[int]int{len(body): 202, len(body) - 1: 413, 100: 413} {
		options := testOptions()
		options.maxBody = int64(maxBody)
		g := New(options)
		server := httptest.NewServer(g)
		r, _ := http.NewRequest(http.MethodPost, server.URL+assetsPath, strings.NewReader(body))
		r.Header = assets(g, request, userAsset).header
		response, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		server.Close()
		if response.StatusCode != status {
			t.Errorf("maximum %d: status %d, want %d", maxBody, response.StatusCode, status)
		}
	}
}

func TestIntercept(t *testing.T) {
	t.Parallel()
	options := testOptions()
	var calls atomic.Int32
	options.Intercept = func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		switch calls.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		case 2:
			panic(http.ErrAbortHandler)
		default:
			return false
		}
	}
	g := New(options)
	server := httptest.NewServer(g)
	defer server.Close()
	var got []int
	for range 3 {
		c := assets(g, request, userAsset)
		r, _ := http.NewRequest(c.method, server.URL+c.path, strings.NewReader(c.body))
		r.Header = c.header
		r.GetBody = nil // so that the client does not retry
		status := 0
		if response, err := server.Client().Do(r); err == nil {
			status = response.StatusCode
			_ = response.Body.Close()
		}
		got = append(got, status)
	}
	var recorded []int
	for _, r := range g.Requests() {
		recorded = append(recorded, r.Status)
	}
	if want := []int{503, 0, 202}; !slices.Equal(got, want) || !slices.Equal(recorded, want) {
		t.Errorf("responses %v, recorded %v, want %v", got, recorded, want)
	}
}

// TestKey checks that the externalAssetId identifies an asset, whatever its vendorAssetId is.
func TestKey(t *testing.T) {
	t.Parallel()
	g := New(testOptions())
	const guid, otherGUID = "2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d", "00000000-6c59-4bd2-9e86-eec4d73a8b8d"
	send := func(asset string) {
		t.Helper()
		if w := assets(g, uuid.NewString(), asset).do(g); w.Code != http.StatusAccepted {
			t.Fatal(w.Body)
		}
	}
	send(userAsset)
	send(strings.ReplaceAll(userAsset, "-1103", "-1104")) // the object has another SID now
	if user, ok := g.Identity(guid); !ok || !strings.HasSuffix(user.ExternalAssetID, "-1104") || len(g.Users()) != 2 {
		t.Errorf("identity %+v, found %v, %d users", user, ok, len(g.Users()))
	}
	send(strings.NewReplacer("-1103", "-1104", guid, otherGUID).Replace(userAsset)) // the SID has another owner now
	if user, ok := g.Identity(guid); ok || len(g.Users()) != 2 {
		t.Errorf("identity %+v, found %v, %d users", user, ok, len(g.Users()))
	}
	if user, ok := g.Identity(otherGUID); !ok || user.Times != 2 {
		t.Errorf("identity %+v, found %v", user, ok)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	g := New(testOptions())
	var workers sync.WaitGroup
	for worker := range 8 {
		workers.Go(func() {
			item := strings.NewReplacer("2323a9b0", fmt.Sprintf("%08d", worker), "-1103", fmt.Sprintf("-1%d", worker)).Replace(userAsset)
			for range 20 {
				c := assets(g, uuid.NewString(), item, groupAsset)
				c.do(g)
				c.do(g)
				g.Users()
				g.Requests()
				g.Counts()
				g.SetProfile(nil)
				g.Identity("1a2b3c4d-6c59-4bd2-9e86-eec4d73a8b8d")
			}
		})
	}
	workers.Wait()
	if len(g.Users()) != 8 || g.Users()[7].Times != 20 || g.Groups()[0].Times != 160 {
		t.Errorf("%d users, %v", len(g.Users()), g.Groups())
	}
}

func TestRecent(t *testing.T) {
	t.Parallel()
	r := recent[int]{keep: 3}
	for i := range 20 {
		r.add(i)
		if got := r.all(); got[len(got)-1] != i || len(got) != min(i+1, 3) || got[0] != max(0, i-2) {
			t.Fatalf("after %d: %v", i, got)
		}
	}
}

// BenchmarkAssets sends batches of 500 users.
func BenchmarkAssets(b *testing.B) {
	const batch = 500
	g := New(testOptions())
	items := make([]string, batch)
	for i := range items {
		items[i] = strings.NewReplacer("2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d", uuid.NewString(), "-1103", fmt.Sprintf("-%d", i)).Replace(userAsset)
	}
	c := assets(g, request, items...)
	b.SetBytes(int64(len(c.body)))
	b.ReportAllocs()
	for b.Loop() {
		id := uuid.NewString()
		next := c.with("Idempotency-Key", id)
		next.body = strings.Replace(c.body, request, id, 1)
		if w := next.do(g); w.Code != http.StatusAccepted {
			b.Fatal(w.Code, w.Body)
		}
	}
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "assets/s")
}

// TestMaxCalls checks that concurrent calls above the limit are refused, and that logins and later
// calls are not.
func TestMaxCalls(t *testing.T) {
	t.Parallel()
	o := testOptions()
	o.MaxCalls = 1
	entered, leave := make(chan struct{}), make(chan struct{})
	o.Intercept = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == http.MethodPut {
			close(entered)
			<-leave
		}
		return false
	}
	g := New(o)
	first := make(chan int)
	go func() { first <- authorized(g, "PUT", statePath, stateBody).do(g).Code }()
	<-entered
	get := authorized(g, "GET", connectionPath+"?customerUuid="+customer, "")
	if w := get.do(g); w.Code != http.StatusConflict || w.Header().Get("X-Concurrency-Limit-Limit") != "1" {
		t.Errorf("second call: %d %v", w.Code, w.Header())
	}
	if w := basic().do(g); w.Code != http.StatusCreated {
		t.Errorf("login: %d", w.Code)
	}
	close(leave)
	if code := <-first; code != http.StatusOK {
		t.Errorf("first call: %d", code)
	}
	if w := get.do(g); w.Code != http.StatusOK {
		t.Errorf("later call: %d", w.Code)
	}
}
