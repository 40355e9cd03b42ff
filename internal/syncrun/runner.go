// Package syncrun performs one sync run: it reads the directory, sends changed objects to the
// gateway, and records the progress. Run in run.go shows the order of the steps.
//
// The package guarantees:
//   - An object is recorded as delivered only after the gateway has acknowledged it.
//   - The watermark moves last. A crash at any point repeats work and never skips it.
//   - No deletion is sent without proof.
//   - A run that did not read or deliver everything is a failed run.
//   - Every run ends with one summary, in the log and in the state file.
//
// The package does not decide when to run.
package syncrun

import (
	"cmp"
	"crypto/x509"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/upload"
)

// Options configure a Runner.
type Options struct {
	Gateway *gateway.Client
	Store   *state.Store
	// Target names the destination of deliveries, and Profile is the UUID of their profile.
	// Deliveries to another target or under another profile do not count.
	Target, Profile string
	// Source is the directory to read. If nil, each run gets connection and profile from the
	// gateway.
	Source *Source
	Search SearchOptions
	Upload upload.Options
	Guard  Guard
	// FullInterval is the age of the last full sync at which the next one is due.
	FullInterval time.Duration
	LastLogon    LastLogon
	// EndTimeout limits how long the end of a run waits for the gateway to accept its state.
	EndTimeout time.Duration
	// NextRun returns the time of the next run; nil: no run is scheduled.
	NextRun func(after time.Time) time.Time
	// BindPause has the refused binds of the process; nil: none yet.
	BindPause *BindPause
	// OnEnd is called after each run that is not a dry run, once it is recorded; nil: no call.
	OnEnd func(Report)
	Log   zerolog.Logger
}

// Source is a directory and the part of it to read.
type Source struct {
	Directory directory.Options
	Base      string
	Scope     directory.Scope
	Posture   bool // also read the security posture
}

// SearchOptions are the search settings that apply to any source.
type SearchOptions struct {
	UserFilter   string // "": all users
	GroupFilter  string // "": all groups
	PageSize     int
	ServerName   string              // "": the source's
	Certificates []*x509.Certificate // empty: the source's
	// Observe is called after each directory request; nil: no call.
	Observe func(request string, class fault.Class, duration time.Duration)
	// OnProgress is called when a directory search makes progress; nil: no call.
	OnProgress func()
}

// RunOptions configure a single run.
type RunOptions struct {
	Full         bool // force a full sync
	DryRun       bool // read and compare only; send and record nothing
	AllowDeletes bool // release the deletions that the guard holds
	// Resend forces a full sync that sends every object, even if its value is known to be
	// delivered. If the run fails, later runs send the rest.
	Resend bool
	// Requested means that a person asks for the run. It binds once, even if binds are paused.
	Requested bool
	// Show is called in a dry run with each asset that a real run would send, and with each
	// deletion that it would hold.
	Show func(asset identity.Asset, held bool)
	// ShowUndecided is called in a dry run with each object whose deletion is undecided; nil:
	// no call.
	ShowUndecided func(object identity.Object, reason state.UndecidedReason)
	// Progress is updated during the run; nil: no updates.
	Progress *Progress
}

// show passes an asset to Show as one that a real run would send.
func (o RunOptions) show(asset identity.Asset) error {
	if o.Show != nil {
		o.Show(asset, false)
	}
	return nil
}

// The recorded modes of a run.
const (
	full  = "full"
	delta = "delta"
)

// The results of a run.
const (
	Processed = "processed" // everything was delivered
	Partial   = "partial"   // the gateway rejected some objects, or some are unreadable
	Held      = "held"      // everything was delivered except deletions that are held or undecided
	Failed    = "failed"
)

// Runner performs runs, one at a time.
type Runner struct {
	Options
	states     *states
	repeats    fault.RepeatCounter // of failed runs
	tombstones tombstoneState
	peerPause  BindPause // of the other domain controllers, which may refuse an account that the first one accepts
	// warnedFilters is set after the warning of filters that delta syncs cannot follow, and
	// warnedServer after that of a kind of server that lacks attributes.
	warnedFilters, warnedServer bool
	// loggedExpiring is set after the message that full syncs find the expiries of large groups.
	loggedExpiring  bool
	loggedUnchecked bool // as loggedExpiring, of groups without visible members
	// logonsLogged has the last logged results of other domain controllers, by host. The key "" has the
	// error that these are not known.
	logonsLogged map[string]string
	// warnedMistakes is the text of the mistakes in the console's values that the log contains.
	warnedMistakes string

	now            func() time.Time
	idleLimit      time.Duration
	logInterval    time.Duration
	resendInterval time.Duration
	maxAffected    int
	maxReread      int
	maxUnreadable  int
	maxExpiring    int
	emptyChecks    emptyChecks
	maxLocated     int // see defaultMaxLocated
	emptyGroups    emptyGroups
	maxGraphSize   maxGraphSize
	maxObjects     objectLimits
	maxSweepTime   time.Duration
	peerTimeouts   peerTimeouts
}

// New returns a runner.
func New(o Options) *Runner {
	o.BindPause = cmp.Or(o.BindPause, &BindPause{})
	o.Upload.Usage = cmp.Or(o.Upload.Usage, &upload.Usage{})
	return &Runner{
		Options:        o,
		states:         &states{gateway: o.Gateway, store: o.Store, log: o.Log, failures: map[string]*fault.RepeatCounter{}},
		now:            time.Now,
		idleLimit:      defaultIdleLimit,
		logInterval:    defaultLogInterval,
		resendInterval: defaultResendInterval,
		maxAffected:    defaultMaxAffected,
		maxReread:      maxReread,
		maxUnreadable:  defaultMaxUnreadable,
		maxExpiring:    maxExpiringMembers,
		emptyChecks:    defaultEmptyChecks,
		maxLocated:     defaultMaxLocated,
		maxGraphSize:   defaultMaxGraphSize,
		maxObjects:     defaultMaxObjects,
		maxSweepTime:   maxSweepTime,
		peerTimeouts:   defaultPeerTimeouts,
	}
}

// UploadBudget returns the bytes that the upload of the current run holds, and their limit.
func (r *Runner) UploadBudget() (used, limit int64) {
	return r.Upload.Usage.Bytes(), upload.MaxBytes(r.Upload.BatchBytes)
}
