// Package status shows how the connector is: as a document for programs, as text
// for a terminal, and over HTTP at the admin endpoint.
//
// It guarantees that what is shown comes from the state file, so that it is the
// same before and after a restart; that neither secrets nor attribute values of
// the directory are shown, but the SIDs of rejected and held objects and what the
// gateway said of them; and that looking changes nothing. It asks nobody who they
// are: who may look is decided by the address on which the endpoint listens.
package status

import (
	"errors"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// Report is the document.
type Report struct {
	From         string `json:"from"`                    // FromDaemon or FromFile
	Daemon       string `json:"daemon,omitempty"`        // why the daemon's own report is missing
	DaemonRemedy string `json:"daemon_remedy,omitempty"` // of that error
	Version      string `json:"version"`
	Instance

	State      string    `json:"state,omitempty"` // absent: nothing has run yet
	Since      time.Time `json:"since,omitzero"`
	RunID      string    `json:"run_id,omitempty"`
	NextRun    time.Time `json:"next_run,omitzero"`
	Error      string    `json:"error,omitempty"`
	Remedy     string    `json:"remedy,omitempty"`    // of the error
	WaitsFor   string    `json:"waits_for,omitempty"` // rateLimit, while it lasts
	WaitsUntil time.Time `json:"waits_until,omitzero"`

	LastSuccess  time.Time `json:"last_success,omitzero"` // start of the last run that did not fail
	LastFullPass time.Time `json:"last_full_pass,omitzero"`
	Objects      int       `json:"objects"`     // that the index holds: sent, if not acknowledged
	StateBytes   int64     `json:"state_bytes"` // size of the state file

	Held          int         `json:"held"` // deletions
	HeldDeletions []Held      `json:"held_deletions"`
	Rejected      int         `json:"rejected"`
	Rejections    []Rejection `json:"rejections"`
	Runs          []state.Run `json:"runs"` // the latest first
}

// errNotRegistered is the cause of a connector that is not ready.
var errNotRegistered = errors.New("not registered yet, because the gateway has not accepted the login")

// Where a report comes from.
const (
	FromDaemon = "daemon"
	FromFile   = "state file"
)

// rateLimit is what the connector waits for when the gateway has limited its calls.
const rateLimit = "rate limit"

// Instance tells connectors apart.
type Instance struct {
	ConnectionUUID string `json:"connection_uuid"`
	ProfileUUID    string `json:"profile_uuid"`
	StateDir       string `json:"state_dir"`
}

// Held is a deletion that the guard holds.
type Held struct {
	Kind  string    `json:"kind"`
	SID   string    `json:"sid"`
	GUID  string    `json:"guid"`
	Since time.Time `json:"since"`
}

// Rejection is an object that the gateway does not take.
type Rejection struct {
	Kind     string    `json:"kind"`
	SID      string    `json:"sid"`
	GUID     string    `json:"guid"`
	Reason   string    `json:"reason"` // the gateway's words
	Attempts int       `json:"attempts"`
	At       time.Time `json:"at"` // of the last attempt
}

// most is how many held deletions and rejections a report names, of each.
const most = 1000

// Read makes a report of what the state file holds.
func Read(store *state.Store, now time.Time) (Report, error) {
	r := Report{StateBytes: store.FileSize(), HeldDeletions: []Held{}, Rejections: []Rejection{}, Runs: []state.Run{}}
	connector, err := store.Connector()
	if err != nil {
		return r, err
	}
	r.State, r.Since, r.RunID, r.NextRun = connector.State, connector.At, connector.RunID, connector.NextRun
	r.Error, r.Remedy = connector.Error, connector.Remedy
	limit, err := store.RateLimit()
	if err != nil {
		return r, err
	}
	if limit.After(now) {
		r.WaitsFor, r.WaitsUntil = rateLimit, limit.UTC()
	}
	full, err := store.LastFullSync()
	if err != nil {
		return r, err
	}
	r.LastFullPass = full.At
	if r.Objects, err = store.IndexSize(); err != nil {
		return r, err
	}
	if err := r.readObjects(store); err != nil {
		return r, err
	}
	runs, err := store.Runs()
	if err != nil {
		return r, err
	}
	r.Runs = append(r.Runs, runs...)
	r.LastSuccess, err = store.LastSuccess()
	return r, err
}

func (r *Report) readObjects(store *state.Store) error {
	held, total, err := store.HeldDeletions(most)
	if err != nil {
		return err
	}
	r.Held = total
	for _, h := range held {
		r.HeldDeletions = append(r.HeldDeletions, Held{h.Kind.String(), h.SID.String(), h.GUID.String(), h.Since})
	}
	rejections, total, err := store.Rejections(most)
	if err != nil {
		return err
	}
	r.Rejected = total
	for _, j := range rejections {
		r.Rejections = append(r.Rejections, Rejection{j.Kind.String(), j.SID, j.GUID.String(), j.Reason, j.Attempts, j.At})
	}
	return nil
}

// interrupted reports whether somebody ended the last run. It has not failed: nothing
// needs to be done, and the next one goes on with it.
func (r *Report) interrupted() bool { return len(r.Runs) > 0 && outcome(r.Runs[0]) == "interrupted" }

const interrupted = "The last run was interrupted."

// outcome is a run's result as people read it.
func outcome(run state.Run) string {
	if run.Class == string(fault.Canceled) {
		return "interrupted"
	}
	return run.Result
}

// refused returns why the last run was refused; nil when it was not.
func (r *Report) refused() error {
	if len(r.Runs) > 0 && r.Runs[0].Class == string(fault.Refused) {
		return fault.Operation{}.Failed(fault.Refused, errors.New(r.Runs[0].Error), r.Runs[0].Remedy)
	}
	return nil
}

// Unready returns why the connector is not ready: it is not registered, or the last run was
// refused; nil when it is ready.
func (r *Report) Unready(registered bool) error {
	if !registered {
		return fault.Operation{}.Failed(fault.Transient, errNotRegistered, "")
	}
	return r.refused()
}
