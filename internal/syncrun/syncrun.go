// Package syncrun does one run: it reads the directory, sends what changed, and records how
// far it got. run.go shows the order.
//
// It guarantees that an object is recorded as delivered only after the gateway has
// acknowledged it, and that the watermark moves last, so that a crash anywhere repeats work
// and never skips it; that nothing is reported as deleted without proof; that a run which
// did not read or deliver everything is a failed run; and that every run ends with one
// summary, in the log and in the state file. It does not decide when to run.
package syncrun

import (
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
	// Target names where objects are delivered. Deliveries to another target do not count.
	Target string
	// Source is where to read; nil: the gateway's connection and profile, read at every run.
	Source *Source
	Search Search
	Upload upload.Options
	Guard  Guard
	// FullInterval is the age of the last full sync at which the next one is due.
	FullInterval time.Duration
	// Conclude bounds how long the end of a run waits for the gateway to accept its state.
	Conclude time.Duration
	// Next returns the time of the next run; nil: none is planned.
	Next func(after time.Time) time.Time
	// OnEnd is called with every run that is not dry, once it is recorded; nil: nothing.
	OnEnd func(Account)
	Log   zerolog.Logger
}

// Source is a directory and the part of it that is read.
type Source struct {
	Directory directory.Options
	Base      string
	Scope     directory.Scope
	Posture   bool // security posture is read, too
}

// Search is how to search, whatever the source.
type Search struct {
	UserFilter   string // "": all users
	GroupFilter  string
	PageSize     int
	ServerName   string              // "": the source's
	Certificates []*x509.Certificate // none: the source's
	// Observe is called with each of the directory's requests; nil: nothing.
	Observe func(request string, class fault.Class, took time.Duration)
	// Received is called with the number of bytes whenever some arrive from the directory;
	// nil: nothing.
	Received func(bytes int)
}

// Mode is what a single run does.
type Mode struct {
	Full         bool // reads everything
	DryRun       bool // reads and compares, sends and records nothing
	AllowDeletes bool // releases the deletions that the guard holds
	// Show is called, in a dry run, with everything that would be sent, and with the
	// deletions that would be held.
	Show func(asset identity.Asset, held bool)
	// Progress is updated during the run; nil: nothing.
	Progress *Progress
}

// show passes on an asset that a dry run would send.
func (m Mode) show(asset identity.Asset) error {
	if m.Show != nil {
		m.Show(asset, false)
	}
	return nil
}

// The modes of a run, as it is recorded.
const (
	full  = "full"
	delta = "delta"
)

// The results of a run.
const (
	Processed = "processed" // everything was delivered
	Partial   = "partial"   // the gateway rejected some objects
	Held      = "held"      // everything was delivered but deletions that the guard holds
	Failed    = "failed"
)

// Runner does runs, one at a time.
type Runner struct {
	Options
	states  *states
	repeats fault.RepeatCounter // of failed runs
	// warnedBlind is set once the log has the warning that the account may not see deletions.
	warnedBlind bool

	now            func() time.Time
	patience       time.Duration
	reportEvery    time.Duration
	affectedAtMost int
}

// New makes a runner.
func New(o Options) *Runner {
	return &Runner{
		Options:        o,
		states:         &states{gateway: o.Gateway, store: o.Store, log: o.Log, unsent: map[string]*fault.RepeatCounter{}},
		now:            time.Now,
		patience:       patience,
		reportEvery:    reportEvery,
		affectedAtMost: defaultAffectedAtMost,
	}
}
