package gateway

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/secret"
)

// The JSON documents of the gateway. openapi.json describes them.

// Connection is the connection to the directory, as entered in the console.
type Connection struct {
	ConnectionUUID string         `json:"connectionUuid"`
	Name           string         `json:"name"`
	Authentication Authentication `json:"authentication"`
}

// Authentication is the address of the directory and the account that reads it.
type Authentication struct {
	Type        string      `json:"type"` // LDAP, LDAPS, STARTTLS
	Host        string      `json:"host"`
	Port        int         `json:"port,omitempty"` // 0: the default port of the type
	BindDN      string      `json:"bindDn"`
	Password    secret.Text `json:"password"`
	Certificate string      `json:"certificate,omitempty"` // PEM, or base64 of DER
}

// UnmarshalJSON also accepts a port as a string. For a field of a wrong type, it returns a
// json.UnmarshalTypeError with the name of the field.
func (a *Authentication) UnmarshalJSON(data []byte) error {
	type fields Authentication
	var document struct {
		fields
		Port     port   `json:"port"`
		Password string `json:"password"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return err
	}
	*a = Authentication(document.fields)
	a.Port, a.Password = int(document.Port), secret.New(document.Password)
	return nil
}

type port uint16

// UnmarshalJSON parses a port from a number or a string.
func (p *port) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	if text = strings.TrimSpace(text); text == "" { // also null
		return nil
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return &json.UnmarshalTypeError{Value: "another value", Type: reflect.TypeFor[port]()}
	}
	*p = port(number)
	return nil
}

// lastField returns the last name in the path of a field.
func lastField(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// describeType returns a description of the JSON values that a type accepts.
func describeType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Uint16:
		return "a number from 0 to 65535"
	case reflect.String:
		return "a string"
	default:
		return "an object"
	}
}

// Profile defines the part of the directory to read, as entered in the console.
type Profile struct {
	ProfileUUID string `json:"profileUuid"`
	Name        string `json:"name"`
	BaseContext string `json:"baseContext"`
	SearchScope string `json:"searchScope"` // SUBTREE, ONE_LEVEL, BASE
	Assets      string `json:"assets"`      // IDENTITIES_ONLY, IDENTITIES_WITH_SECURITY_POSTURE
}

// MetaData is the metadata of a request with assets.
type MetaData struct {
	RequestID     string `json:"requestId"`
	AssetCount    int    `json:"assetCount"`
	Source        string `json:"source"`
	ConnectorUUID string `json:"connectorUuid"`
	CustomerUUID  string `json:"customerUuid"`
	ProfileUUID   string `json:"profileUuid"`
}

// AssetResponse is the response to a request with assets. The schema of AssetsError is not
// published.
type AssetResponse struct {
	Message      string          `json:"message"`
	ResponseCode string          `json:"responseCode"`
	AssetsError  json.RawMessage `json:"assetsError,omitempty"`
}

// ConnectorState is the state of the connector and the result of its last run.
type ConnectorState struct {
	CustomerUUID string     `json:"customerUuid"`
	ProfileUUID  string     `json:"profileUuid"`
	State        string     `json:"state"` // REGISTERED, SCHEDULED, PROCESSING, PROCESSED
	RunID        string     `json:"runId"`
	At           Timestamp  `json:"at"`
	NextRunAt    *Timestamp `json:"nextRunAt"`
	Error        *string    `json:"error"`
	Summary      *Summary   `json:"summary"`
}

// Timestamp is a time in the gateway's format: UTC, with milliseconds.
type Timestamp time.Time

const timestampFormat = "2006-01-02T15:04:05.000Z"

// MarshalText formats the time as required by the contract.
func (t Timestamp) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, timestampFormat), nil
}

// UnmarshalText parses a time in the format of MarshalText.
func (t *Timestamp) UnmarshalText(text []byte) error {
	parsed, err := time.Parse(timestampFormat, string(text))
	*t = Timestamp(parsed)
	return err
}

// Summary contains the counters of a run.
type Summary struct {
	Mode     string `json:"mode"` // full, delta
	Users    int    `json:"users"`
	Groups   int    `json:"groups"`
	Uploaded int    `json:"uploaded"`
	Deleted  int    `json:"deleted"`
	Rejected int    `json:"rejected"`
}
