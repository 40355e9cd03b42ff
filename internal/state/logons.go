package state

import (
	"time"

	"adconnector/internal/ad"
)

// LogonResult is how a domain controller responded when it was asked for the logons that only it
// counts.
type LogonResult string

// The results.
const (
	LogonsAnswered    LogonResult = "answered"
	LogonsUnreachable LogonResult = "unreachable"
	LogonsRefused     LogonResult = "refused"     // the bind or the search
	LogonsCertificate LogonResult = "certificate" // not accepted
	LogonsSlow        LogonResult = "slow"        // no response in time
	LogonsIncomplete  LogonResult = "incomplete"
	LogonsNotAsked    LogonResult = "not_asked" // another one refused the bind, the time was over, or the list was unreadable
)

// LogonResults has all results.
var LogonResults = []LogonResult{LogonsAnswered, LogonsUnreachable, LogonsRefused, LogonsCertificate, LogonsSlow, LogonsIncomplete, LogonsNotAsked}

// LogonController is a domain controller that was asked for logons.
type LogonController struct {
	Host         string          `json:"host"`
	InvocationID ad.InvocationID `json:"invocation_id"` // zero: not readable
	ReadOnly     bool            `json:"read_only,omitempty"`
	PDCEmulator  bool            `json:"pdc_emulator,omitempty"`
	At           time.Time       `json:"at"` // of the last attempt
	Result       LogonResult     `json:"result"`
	Error        string          `json:"error,omitempty"`
	Remedy       string          `json:"remedy,omitempty"`
	// AskedUntil is until when all its logons are known, by its own clock; zero: none are. It is
	// valid only for the scope.
	AskedUntil time.Time `json:"asked_until,omitzero"`
	// Counted is whether the numbers of failed attempts are known too, up to AskedUntil.
	Counted bool   `json:"counted,omitempty"`
	Scope   string `json:"scope,omitempty"`
}

// LogonSweep is the last full sync that asked the other domain controllers for logons. The zero
// value means that none did.
type LogonSweep struct {
	At time.Time `json:"at"`
	// Error is why the domain controllers are not known, and Remedy what to do. Controllers are then
	// those of the sweep before, with the result LogonsNotAsked.
	Error       string            `json:"error,omitempty"`
	Remedy      string            `json:"remedy,omitempty"`
	Controllers []LogonController `json:"controllers,omitempty"`
	// PDCEmulator counts the failed attempts at all domain controllers. Zero: unknown.
	PDCEmulator ad.InvocationID `json:"pdc_emulator,omitzero"`
	// Pending are objects for which a domain controller returned logons, and which the domain
	// controller that was read did not show.
	Pending []ad.GUID `json:"pending,omitempty"`
}

// LogonSweep returns the last sweep, or the zero value.
func (s *Store) LogonSweep() (LogonSweep, error) {
	return readMeta[LogonSweep](s, "read logon sweep", keyLogonSweep)
}

// putLogonSweep records the sweep of a full sync; nil: there was none.
func putLogonSweep(c change, sweep *LogonSweep) error {
	if sweep == nil {
		return c.delete(bucketMeta, keyLogonSweep)
	}
	return c.putJSON(bucketMeta, keyLogonSweep, sweep)
}
