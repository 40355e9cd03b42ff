package gateway

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/secret"
)

// The gateway's documents, as openapi.json describes them.

// Connection is how the console says the directory is reached.
type Connection struct {
	ConnectionUUID string         `json:"connectionUuid"`
	Name           string         `json:"name"`
	Authentication Authentication `json:"authentication"`
}

// Authentication is the address of the directory and the account to read it with.
type Authentication struct {
	Type        string      `json:"type"` // LDAP, LDAPS, STARTTLS
	Host        string      `json:"host"`
	Port        int         `json:"port,omitempty"` // 0: the protocol's own
	BindDN      string      `json:"bindDn"`
	Password    secret.Text `json:"password"`
	Certificate string      `json:"certificate,omitempty"` // PEM, or base64 of DER
}

// UnmarshalJSON also takes a port that is written as text. A field of a wrong type
// is a json.UnmarshalTypeError that names it, the password too.
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

func (p *port) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) != nil {
		text = string(data)
	}
	if text = strings.TrimSpace(text); text == "" { // null, too
		return nil
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return &json.UnmarshalTypeError{Value: "another value", Type: reflect.TypeFor[port]()}
	}
	*p = port(number)
	return nil
}

// lastField is the name at the end of a field's path.
func lastField(path string) string { return path[strings.LastIndexByte(path, '.')+1:] }

// wanted says what a field of a type must be, in the words of JSON.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Uint16:
		return "a number from 0 to 65535"
	case reflect.String:
		return "a text"
	default:
		return "an object"
	}
}

// Profile is which part of the directory is read.
type Profile struct {
	ProfileUUID string `json:"profileUuid"`
	Name        string `json:"name"`
	BaseContext string `json:"baseContext"`
	SearchScope string `json:"searchScope"` // SUBTREE, ONE_LEVEL, BASE
	Assets      string `json:"assets"`      // IDENTITIES_ONLY, IDENTITIES_WITH_SECURITY_POSTURE
}

// MetaData heads each request that carries assets.
type MetaData struct {
	RequestID     string `json:"requestId"`
	AssetCount    int    `json:"assetCount"`
	Source        string `json:"source"`
	ConnectorUUID string `json:"connectorUuid"`
	CustomerUUID  string `json:"customerUuid"`
	ProfileUUID   string `json:"profileUuid"`
}

// AssetAnswer answers a request that carried assets. The shape of AssetsError
// is not published.
type AssetAnswer struct {
	Message      string          `json:"message"`
	ResponseCode string          `json:"responseCode"`
	AssetsError  json.RawMessage `json:"assetsError,omitempty"`
}

// ConnectorState is one step of the connector: what it does, and how its last run went.
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

// Timestamp is a moment as the gateway writes it: UTC, with milliseconds.
type Timestamp time.Time

const timestampFormat = "2006-01-02T15:04:05.000Z"

// MarshalText writes the one form that the contract knows.
func (t Timestamp) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, timestampFormat), nil
}

// UnmarshalText reads it.
func (t *Timestamp) UnmarshalText(text []byte) error {
	parsed, err := time.Parse(timestampFormat, string(text))
	*t = Timestamp(parsed)
	return err
}

// Summary counts what a run did.
type Summary struct {
	Mode     string `json:"mode"` // full, delta
	Users    int    `json:"users"`
	Groups   int    `json:"groups"`
	Uploaded int    `json:"uploaded"`
	Deleted  int    `json:"deleted"`
	Rejected int    `json:"rejected"`
}
