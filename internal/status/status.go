// Package status reports the status of the connector: as JSON, as text, as metrics, and as a
// page of the admin endpoint.
//
// The status comes from the state file, so it does not change with a restart. It contains no
// secrets and no attribute values of the directory, except the SIDs of rejected objects and of
// held and undecided deletions, and the gateway's reasons for rejections. Requests change
// nothing. There is no authentication: the listen address of the endpoint determines who has
// access.
package status

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/state"
)

// Report is the JSON document.
type Report struct {
	From         string `json:"from"`                    // FromDaemon or FromFile
	Daemon       string `json:"daemon,omitempty"`        // error of the request to the daemon
	DaemonRemedy string `json:"daemon_remedy,omitempty"` // of that error
	Version      string `json:"version"`
	Instance

	State      string    `json:"state,omitempty"` // absent before the first run
	Since      time.Time `json:"since,omitzero"`
	RunID      string    `json:"run_id,omitempty"`
	NextRun    time.Time `json:"next_run,omitzero"`
	Error      string    `json:"error,omitempty"`
	Remedy     string    `json:"remedy,omitempty"`    // of Error
	Class      string    `json:"class,omitempty"`     // of Error
	WaitsFor   string    `json:"waits_for,omitempty"` // rateLimit or absent
	WaitsUntil time.Time `json:"waits_until,omitzero"`

	BindsPausedUntil time.Time `json:"binds_paused_until,omitzero"` // from the daemon only
	RefusedBinds     int       `json:"refused_binds,omitempty"`     // in a row, while binds are paused
	BindRemedy       string    `json:"binds_remedy,omitempty"`      // of the pause
	// WorkersAllowed is the gateway's limit on concurrent calls, if it is lower than the number
	// of workers; absent without a limit.
	WorkersAllowed int       `json:"workers_allowed,omitempty"`
	WorkersNotedAt time.Time `json:"workers_noted_at,omitzero"` // time of the last refusal, or of the last raise

	Controller string                  `json:"dc,omitempty"`        // directory server that a run read last
	Unreached  []state.UnreachedServer `json:"unreached,omitempty"` // directory servers that the last run did not reach

	LastSuccess  time.Time `json:"last_success,omitzero"` // start of the last run that did not fail
	LastFullSync time.Time `json:"last_full_pass,omitzero"`
	NextFullSync time.Time `json:"next_full_sync,omitzero"` // time from which on a run is a full sync; from the daemon only
	Objects      int       `json:"objects"`                 // in the index: acknowledged or in flight
	StateBytes   int64     `json:"state_bytes"`             // size of the state file

	Held               int               `json:"held"` // number of held deletions
	HeldDeletions      []Held            `json:"held_deletions"`
	Undecided          int               `json:"undecided"` // number of undecided deletions
	UndecidedReasons   []UndecidedReason `json:"undecided_reasons"`
	UndecidedDeletions []Undecided       `json:"undecided_deletions"`
	Rejected           int               `json:"rejected"`
	Rejections         []Rejection       `json:"rejections"`
	Unreadable         state.Unreadable  `json:"unreadable,omitzero"`
	Expiries           []Expiry          `json:"expiries"`         // the earliest first
	Logons             *Logons           `json:"logons,omitempty"` // nil: no other domain controller is asked
	Runs               []state.Run       `json:"runs"`             // the latest first
}

// errNotRegistered is the error of a connector that is not ready.
var errNotRegistered = errors.New("not registered yet: no successful login to the gateway")

// The sources of a report.
const (
	FromDaemon = "daemon"
	FromFile   = "state file"
)

// rateLimit is the value of WaitsFor during a rate limit.
const rateLimit = "rate limit"

// Instance identifies a connector.
type Instance struct {
	ConnectionUUID string `json:"connection_uuid"`
	ProfileUUID    string `json:"profile_uuid"`
	StateDir       string `json:"state_dir"`
}

// Held is a held deletion.
type Held struct {
	Kind  string    `json:"kind"`
	SID   string    `json:"sid"`
	GUID  string    `json:"guid"`
	Since time.Time `json:"since"`
}

// Undecided is an undecided deletion.
type Undecided struct {
	Held
	Reason string `json:"reason"`
}

// UndecidedReason is a reason why deletions are undecided, and what resolves it.
type UndecidedReason struct {
	Reason  string    `json:"reason"`
	Remedy  string    `json:"remedy,omitempty"`
	Objects int       `json:"objects"`
	Since   time.Time `json:"since"` // of the earliest of these deletions
}

// Rejection is an object that the gateway rejects.
type Rejection struct {
	Kind     string    `json:"kind"`
	SID      string    `json:"sid"`
	GUID     string    `json:"guid"`
	Reason   string    `json:"reason"` // from the gateway
	Attempts int       `json:"attempts"`
	At       time.Time `json:"at"` // of the last attempt
}

// Expiry is when a certificate or a password expires on which the connector depends.
type Expiry struct {
	Subject string    `json:"subject"`          // directory certificate, gateway certificate, bind password
	Name    string    `json:"name,omitempty"`   // address of the certificate's server
	Issuer  string    `json:"issuer,omitempty"` // of the certificate
	Expires time.Time `json:"expires"`
	Remedy  string    `json:"remedy"`
}

// Logons is how the other domain controllers answered when a full sync asked them for logons.
type Logons struct {
	At          time.Time         `json:"at"` // of the last full sync that asked
	Answered    int               `json:"answered"`
	Error       string            `json:"error,omitempty"` // why the domain controllers are not known
	Remedy      string            `json:"remedy,omitempty"`
	Controllers []LogonController `json:"controllers"` // those that did not answer first
}

// LogonController is how one domain controller answered.
type LogonController struct {
	Host        string    `json:"host"`
	Result      string    `json:"result"`
	ReadOnly    bool      `json:"read_only,omitempty"`
	PDCEmulator bool      `json:"pdc_emulator,omitempty"`
	At          time.Time `json:"at,omitzero"`          // of the last attempt
	AskedUntil  time.Time `json:"asked_until,omitzero"` // until when all its logons are known
	Error       string    `json:"error,omitempty"`
	Remedy      string    `json:"remedy,omitempty"`
}

// maxListed is the maximum number of held deletions, of undecided deletions, and of rejections
// in a report.
const maxListed = 1000

// Read returns a report of the state file. It leaves out the limits of another upload target
// than target.
func Read(store *state.Store, target string, now time.Time) (Report, error) {
	r := Report{
		StateBytes: store.FileSize(), HeldDeletions: []Held{}, UndecidedReasons: []UndecidedReason{}, UndecidedDeletions: []Undecided{},
		Rejections: []Rejection{}, Expiries: []Expiry{}, Runs: []state.Run{},
	}
	connector, err := store.Connector()
	if err != nil {
		return r, err
	}
	r.State, r.Since, r.RunID, r.NextRun = connector.State, connector.At, connector.RunID, connector.NextRun
	r.Error, r.Remedy = connector.Error, connector.Remedy
	if err := r.readLimits(store, target, now); err != nil {
		return r, err
	}
	full, err := store.LastFullSync()
	if err != nil {
		return r, err
	}
	r.LastFullSync = full.At
	if r.Objects, err = store.IndexSize(); err != nil {
		return r, err
	}
	if err := r.readObjects(store); err != nil {
		return r, err
	}
	if err := r.readLogons(store); err != nil {
		return r, err
	}
	if err := r.readExpiries(store); err != nil {
		return r, err
	}
	runs, err := store.Runs()
	if err != nil {
		return r, err
	}
	r.Runs = append(r.Runs, runs...)
	if r.Error != "" && len(runs) > 0 && runs[0].ID == r.RunID {
		r.Class = runs[0].Class
	}
	r.readContact()
	if r.Unreadable, err = store.Unreadable(); err != nil {
		return r, err
	}
	r.LastSuccess, err = store.LastSuccess()
	return r, err
}

func (r *Report) readLimits(store *state.Store, target string, now time.Time) error {
	limit, err := store.RateLimit()
	if err != nil {
		return err
	}
	if until := limit.End(target, now); !until.IsZero() {
		r.WaitsFor, r.WaitsUntil = rateLimit, until.UTC()
	}
	concurrency, err := store.ConcurrencyLimit()
	if err != nil {
		return err
	}
	if r.WorkersAllowed = concurrency.CallsTo(target, now); r.WorkersAllowed > 0 {
		r.WorkersNotedAt = concurrency.NotedAt.UTC()
	}
	return nil
}

// readContact sets the directory servers from the runs.
func (r *Report) readContact() {
	if len(r.Runs) > 0 {
		r.Unreached = r.Runs[0].Unreached
	}
	if read := slices.IndexFunc(r.Runs, func(run state.Run) bool { return run.Controller != "" }); read >= 0 {
		r.Controller = r.Runs[read].Controller
	}
}

func (r *Report) readObjects(store *state.Store) error {
	held, total, err := store.HeldDeletions(maxListed)
	if err != nil {
		return err
	}
	r.Held = total
	for _, h := range held {
		r.HeldDeletions = append(r.HeldDeletions, Held{h.Kind.String(), h.SID.String(), h.GUID.String(), h.Since})
	}
	if err := r.readUndecided(store); err != nil {
		return err
	}
	rejections, total, err := store.Rejections(maxListed)
	if err != nil {
		return err
	}
	r.Rejected = total
	for _, j := range rejections {
		r.Rejections = append(r.Rejections, Rejection{j.Kind.String(), j.SID, j.GUID.String(), j.Reason, j.Attempts, j.At})
	}
	return nil
}

func (r *Report) readExpiries(store *state.Store) error {
	expiries, err := store.Expiries()
	for _, e := range expiries {
		if e.Subject == state.BindPassword {
			e.Name = ""
		}
		if !e.At.IsZero() {
			r.Expiries = append(r.Expiries, Expiry{e.Subject, e.Name, e.Issuer, e.At, e.Remedy})
		}
	}
	return err
}

// describe returns what expires and when, without control characters, which a certificate can contain.
func (e Expiry) describe(at string, now time.Time) string {
	text := e.Subject
	if e.Name != "" {
		text += " of " + OneLine(e.Name)
	}
	if e.Issuer != "" {
		text += ", issued by " + OneLine(e.Issuer)
	}
	verb := "expires"
	if e.Expires.Before(now) {
		verb = "expired"
	}
	return text + ", " + verb + " " + relativeTime(e.Expires.Sub(now)) + ", on " + at
}

// urgent returns the expiries that are urgent, the earliest first.
func (r *Report) urgent(now time.Time) (urgent []Expiry) {
	for _, e := range r.Expiries {
		if state.UrgencyOf(e.Expires, now) != state.NotUrgent {
			urgent = append(urgent, e)
		}
	}
	return urgent
}

func (r *Report) readLogons(store *state.Store) error {
	sweep, err := store.LogonSweep()
	if err != nil || sweep.At.IsZero() {
		return err
	}
	r.Logons = &Logons{At: sweep.At, Error: sweep.Error, Remedy: sweep.Remedy, Controllers: []LogonController{}}
	slices.SortStableFunc(sweep.Controllers, func(a, b state.LogonController) int {
		failed := cmp.Compare(boolValue(a.Result == state.LogonsAnswered), boolValue(b.Result == state.LogonsAnswered))
		return cmp.Or(failed, cmp.Compare(a.Host, b.Host))
	})
	for _, c := range sweep.Controllers {
		if c.Result == state.LogonsAnswered {
			r.Logons.Answered++
		}
		r.Logons.Controllers = append(r.Logons.Controllers, LogonController{c.Host, string(c.Result), c.ReadOnly, c.PDCEmulator, c.At, c.AskedUntil, c.Error, c.Remedy})
	}
	return nil
}

// LogonsMissing reports whether the logons of some domain controllers are missing.
func (r *Report) LogonsMissing() bool {
	return r.Logons != nil && (r.Logons.Error != "" || r.Logons.Answered < len(r.Logons.Controllers))
}

func (r *Report) readUndecided(store *state.Store) error {
	counts, err := store.UndecidedCounts()
	if err != nil {
		return err
	}
	for _, c := range counts {
		r.UndecidedReasons = append(r.UndecidedReasons, UndecidedReason{string(c.Reason), c.Remedy, c.Objects, c.Since})
	}
	undecided, total, err := store.UndecidedDeletions(maxListed)
	if err != nil {
		return err
	}
	r.Undecided = total
	for _, u := range undecided {
		r.UndecidedDeletions = append(r.UndecidedDeletions, Undecided{Held{u.Kind.String(), u.SID.String(), u.GUID.String(), u.Since}, string(u.Reason)})
	}
	return nil
}

// interrupted reports whether the last run was interrupted. That is not a failure: the next run
// continues.
func (r *Report) interrupted() bool { return len(r.Runs) > 0 && outcome(r.Runs[0]) == "interrupted" }

const (
	interrupted = "The last run was interrupted."
	killed      = "The last run was killed before its end. The next run continues."
)

// outcome returns the result of a run as shown to users.
func outcome(run state.Run) string {
	if run.Class == string(fault.Canceled) {
		return "interrupted"
	}
	return run.Result
}

// refused returns the error of the last run if it was refused.
func (r *Report) refused() error {
	if len(r.Runs) > 0 && r.Runs[0].Class == string(fault.Refused) {
		return fault.Operation{}.Failed(fault.Refused, errors.New(r.Runs[0].Error), r.Runs[0].Remedy)
	}
	return nil
}

// CheckReady returns an error if the connector is not registered, or if the last run was
// refused.
func (r *Report) CheckReady(registered bool) error {
	if !registered {
		return fault.Operation{}.Failed(fault.Transient, errNotRegistered, "")
	}
	return r.refused()
}
