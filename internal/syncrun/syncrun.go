// Package syncrun does one run, from its start to its last record. It is the only
// place that knows the order of things.
//
// It guarantees that an object is recorded as delivered only after the gateway
// has acknowledged it, and the watermark moves last, so that a crash anywhere
// repeats work and never skips it; that nothing is reported as deleted without
// proof; that a run which did not read or deliver everything is a failed run; and that
// every run ends with one summary, in the log and in the state file. It does not
// decide when to run.
package syncrun

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/upload"
)

// Options say what a run works with.
type Options struct {
	Gateway *gateway.Client
	Store   *state.Store
	// Target names where deliveries go; what was delivered to another counts for nothing.
	Target string
	// Source is where to read; nil: the gateway's connection and profile say so,
	// anew at every run.
	Source *Source
	Search Search
	Upload upload.Options
	Guard  Guard
	// FullInterval is the age of the last full pass at which the next one is due.
	FullInterval time.Duration
	// Conclude bounds how long the end of a run waits for the gateway to hear of it.
	Conclude time.Duration
	// Next tells when the run after a failed one is; nil: none is planned.
	Next func(after time.Time) time.Time
	// OnEnd is told of every run that is not dry, once it is recorded. Nil: nobody.
	OnEnd func(Account)
	Log   zerolog.Logger
}

// Source is a directory and the part of it that is wanted.
type Source struct {
	Directory directory.Options
	Base      string
	Scope     directory.Scope
	Posture   bool // security posture is asked for besides identities
}

// Search is how to search, whatever the source.
type Search struct {
	UserFilter   string // "": all users
	GroupFilter  string
	PageSize     int
	ServerName   string              // "": the source's
	Certificates []*x509.Certificate // none: the source's
	// Observe is told of the directory's requests; nil: nobody.
	Observe func(request string, class fault.Class, took time.Duration)
}

// Mode says what a single run is to do.
type Mode struct {
	Full         bool // reads everything, whatever was seen before
	DryRun       bool // reads and compares, sends and records nothing
	AllowDeletes bool // releases the deletions that the guard holds
	// Show is told, in a dry run, of everything that would be sent, and of the
	// deletions that would be held.
	Show func(asset identity.Asset, held bool)
	// Progress is kept up to date while the run goes on; nil: nobody watches.
	Progress *Progress
}

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
	connector   connector
	searches    [2]search     // users, groups
	repeats     fault.Repeats // of failed runs
	blindWarned bool          // that deletions are seen at full passes only was said
	now         func() time.Time
	patience    time.Duration
	informEvery time.Duration

	affectedAtMost int
}

// New makes a runner.
func New(o Options) *Runner {
	return &Runner{
		Options:     o,
		connector:   connector{gateway: o.Gateway, store: o.Store, log: o.Log, unsent: map[string]*fault.Repeats{}},
		now:         time.Now,
		patience:    patience,
		informEvery: informEvery,

		affectedAtMost: defaultAffectedAtMost,
		searches: [2]search{
			{kind: identity.User, filter: o.Search.UserFilter, mapper: identity.NewMapper(identity.User)},
			{kind: identity.Group, filter: o.Search.GroupFilter, mapper: identity.NewMapper(identity.Group)},
		},
	}
}

// Register logs in to the gateway and enters the state Registered, once a process.
func (r *Runner) Register(ctx context.Context) error {
	if r.connector.registered.Load() {
		return nil
	}
	if err := r.Gateway.Login(ctx); err != nil {
		return err
	}
	r.connector.registered.Store(true)
	return r.connector.enter(ctx, state.Connector{State: stateRegistered})
}

// Registered reports whether the gateway has accepted the login, in this process.
func (r *Runner) Registered() bool { return r.connector.registered.Load() }

// Schedule enters the state Scheduled. Before Registered, and after a failed run,
// which has said so itself, it says nothing.
func (r *Runner) Schedule(ctx context.Context, next time.Time) error {
	now, err := r.Store.Connector()
	if err != nil || !r.connector.registered.Load() || now.State == stateScheduled && now.NextRun.Equal(next) {
		return err
	}
	return r.connector.enter(ctx, state.Connector{State: stateScheduled, RunID: now.RunID, NextRun: next, Error: now.Error})
}

// Run does one run and returns its account. Its error is the run's, already logged.
func (r *Runner) Run(ctx context.Context, mode Mode) (state.Run, error) {
	now := time.Now()
	account := Account{
		Run:     state.Run{ID: uuid.NewString(), Mode: full, Result: Failed, Start: now.UTC()},
		Objects: map[Outcome]int{}, last: now,
	}
	run := &account.Run
	log := r.Log.With().Str("run_id", run.ID).Logger()
	before := r.Gateway.Counts()
	r.Gateway.BeginRun()

	err := r.run(ctx, mode, &account, log)

	after := r.Gateway.Counts()
	run.Requests, run.Retries = int(after.Requests-before.Requests), int(after.Retries-before.Retries)
	run.Duration = time.Since(run.Start)
	switch {
	case err != nil:
		run.Error, run.Class = err.Error(), string(fault.Of(err))
	case run.Held > 0:
		run.Result = Held
	case run.Rejected > 0:
		run.Result = Partial
	default:
		run.Result = Processed
	}
	if !mode.DryRun {
		if unrecorded := r.conclude(ctx, *run); unrecorded != nil {
			err = errors.Join(err, unrecorded)
			run.Result, run.Error, run.Class = Failed, err.Error(), string(fault.Of(err))
		}
		if r.OnEnd != nil {
			r.OnEnd(account)
		}
	}
	r.summarize(log, *run, mode, err)
	return *run, err
}

func (r *Runner) run(ctx context.Context, mode Mode, account *Account, log zerolog.Logger) error {
	if mode.DryRun {
		if r.Source == nil {
			if err := r.Gateway.Login(ctx); err != nil {
				return err
			}
		}
	} else {
		if err := r.Register(ctx); err != nil {
			return err
		}
		// A run of its own, and one before which nobody could register, is due now.
		if now, err := r.Store.Connector(); err != nil {
			return err
		} else if now.State != stateScheduled {
			if err := r.Schedule(ctx, account.Start); err != nil {
				return err
			}
		}
		if err := r.connector.enter(ctx, state.Connector{State: stateProcessing, RunID: account.ID}); err != nil {
			return err
		}
	}
	source, err := r.source(ctx)
	if err != nil {
		return err
	}
	session, err := directory.Connect(ctx, source.Directory)
	if err != nil {
		return err
	}
	l := newLine(session)
	defer func() { l.Close() }() // the session that it leads to then
	log.Info().Str("dc", session.Address).Str("dns_host_name", session.RootDSE.DNSHostName).
		Bool("domain_controller", session.RootDSE.IsDomainController()).Msg(MsgDirectoryConnected)
	if err := r.retarget(mode, log); err != nil {
		return err
	}
	p := &pass{Runner: r, source: source, session: session, line: l, now: r.now(), mode: mode, log: log, account: account}
	if err := p.decide(ctx); err != nil {
		return err
	}
	account.Mode = p.kind
	account.end("connect")
	if source.Posture {
		err := p.learn(ctx)
		account.Mode = p.kind
		account.end("memberships")
		if err != nil {
			return err
		}
	}
	err = p.deliver(ctx)
	p.fillIn()
	return err
}

// retarget starts anew when the deliveries recorded so far went elsewhere. A dry
// run records nothing, not even this.
func (r *Runner) retarget(mode Mode, log zerolog.Logger) error {
	before, err := r.Store.Target()
	if err != nil || before == r.Target || mode.DryRun {
		return err
	}
	if before != "" {
		log.Warn().Str("before", before).Str("target", r.Target).Msg(MsgTargetChanged)
	}
	return r.Store.Retarget(r.Target)
}

// conclude ends a run: its account first, then the connector's state. It goes on
// under a context of its own, since the run's may be what ended it.
func (r *Runner) conclude(ctx context.Context, run state.Run) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Conclude)
	defer cancel()
	unrecorded := r.Store.AddRun(run)
	if unrecorded != nil {
		run.Result, run.Error = Failed, unrecorded.Error()
	}
	r.connector.lastRun = &run
	next := state.Connector{State: stateProcessed, RunID: run.ID}
	if run.Result == Failed {
		next = state.Connector{State: stateScheduled, RunID: run.ID, Error: run.Error}
		if r.Next != nil {
			next.NextRun = r.Next(time.Now())
		}
	}
	enter := func() error { return r.connector.enter(ctx, next) }
	if !r.connector.registered.Load() {
		enter = func() error { return r.connector.wait(next) }
	}
	if err := enter(); unrecorded == nil {
		return err
	}
	return unrecorded
}

// tell puts an error into a line of the log.
func tell(event *zerolog.Event, said fault.Repetition) *zerolog.Event {
	event.Str("error", said.Text)
	if said.Times > 1 {
		event.Int("repeated", said.Times).Time("failing_since", said.Since)
	}
	return event
}

// summarize writes the one line that ends every run. An error that was there at the
// run before is not told in full again.
func (r *Runner) summarize(log zerolog.Logger, run state.Run, mode Mode, err error) {
	event := log.Info()
	if err == nil {
		r.repeats.Gone()
	}
	switch {
	case err != nil && fault.Of(err) == fault.Canceled:
		event = log.Warn().Str("error", "interrupted: "+err.Error())
	case err != nil:
		event = tell(log.Error(), r.repeats.Note(err, r.now().UTC())).Str("class", string(fault.Of(err)))
	case run.Held > 0, run.Rejected > 0:
		event = log.Warn()
	}
	if mode.DryRun {
		event = event.Bool("dry_run", true)
	}
	event.Str("mode", run.Mode).Str("result", run.Result).Int("users", run.Users).Int("groups", run.Groups).
		Int("changed", run.Changed).Int("uploaded", run.Uploaded).Int("deleted", run.Deleted).Int("held", run.Held).Int("rejected", run.Rejected).
		Int("requests", run.Requests).Int("retries", run.Retries).Int64("duration_ms", run.Duration.Milliseconds()).
		Int("skipped", run.Skipped).Msg(MsgRunFinished)
}
