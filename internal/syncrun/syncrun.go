// Package syncrun does one run, from its start to its last record. It is the only
// place that knows the order of things.
//
// It guarantees that an object is recorded as delivered only after the gateway
// has acknowledged it, so that a crash anywhere repeats work and never skips it;
// that a run which did not read or deliver everything is a failed run; and that
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

	"adconnector/internal/ad"
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
	// Source is where to read; nil: the gateway's connection and profile say so,
	// anew at every run.
	Source *Source
	Search Search
	Upload upload.Options
	// Next tells when the run after a failed one is; nil: none is planned.
	Next func(after time.Time) time.Time
	Log  zerolog.Logger
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
}

// Mode says what a single run is to do.
type Mode struct {
	DryRun bool // reads and compares, sends and records nothing
}

// The results of a run.
const (
	Processed = "processed" // everything was delivered
	Partial   = "partial"   // the gateway rejected some objects
	Failed    = "failed"
)

const modeFull = "full"

// Runner does runs, one at a time.
type Runner struct {
	Options
	connector connector
	searches  []search
}

// search is how the objects of one kind are found and mapped.
type search struct {
	kind   identity.Kind
	filter string // the operator's; "": none
	mapper *identity.Mapper
}

// filterOn narrows the kind's own filter by the operator's. A server that is no
// domain controller need not have the attributes of the kind's own filter: there
// the operator's stands alone.
func (s search) filterOn(root directory.RootDSE) string {
	own := identity.Filter[s.kind]
	switch {
	case s.filter == "":
		return own
	case root.IsDomainController():
		return "(&" + own + s.filter + ")"
	default:
		return s.filter
	}
}

// New makes a runner.
func New(o Options) *Runner {
	return &Runner{
		Options:   o,
		connector: connector{gateway: o.Gateway, store: o.Store, log: o.Log},
		searches: []search{
			{identity.User, o.Search.UserFilter, identity.NewMapper(identity.User)},
			{identity.Group, o.Search.GroupFilter, identity.NewMapper(identity.Group)},
		},
	}
}

// Register logs in to the gateway and enters the state Registered, once a process.
func (r *Runner) Register(ctx context.Context) error {
	if r.connector.registered {
		return nil
	}
	if err := r.Gateway.Login(ctx); err != nil {
		return err
	}
	r.connector.registered = true
	return r.connector.enter(ctx, state.Connector{State: Registered})
}

// Schedule enters the state Scheduled. Before Registered, and after a failed run,
// which has said so itself, it says nothing.
func (r *Runner) Schedule(ctx context.Context, next time.Time) error {
	now, err := r.Store.Connector()
	if err != nil || !r.connector.registered || now.State == Scheduled && now.NextRun.Equal(next) {
		return err
	}
	return r.connector.enter(ctx, state.Connector{State: Scheduled, RunID: now.RunID, NextRun: next, Error: now.Error})
}

// Run does one run and returns its account. Its error is the run's, already logged.
func (r *Runner) Run(ctx context.Context, mode Mode) (state.Run, error) {
	run := state.Run{ID: uuid.NewString(), Mode: modeFull, Result: Failed, Start: time.Now().UTC()}
	log := r.Log.With().Str("run_id", run.ID).Logger()
	before := r.Gateway.Counts()

	err := r.run(ctx, mode, &run, log)

	after := r.Gateway.Counts()
	run.Requests, run.Retries = int(after.Requests-before.Requests), int(after.Retries-before.Retries)
	run.Duration = time.Since(run.Start)
	switch {
	case err != nil:
		run.Error = err.Error()
	case run.Rejected > 0:
		run.Result = Partial
	default:
		run.Result = Processed
	}
	if !mode.DryRun {
		if unrecorded := r.conclude(ctx, run); unrecorded != nil {
			err = errors.Join(err, unrecorded)
			run.Result, run.Error = Failed, err.Error()
		}
	}
	summarize(log, run, mode, err)
	return run, err
}

func (r *Runner) run(ctx context.Context, mode Mode, run *state.Run, log zerolog.Logger) error {
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
		} else if now.State != Scheduled {
			if err := r.Schedule(ctx, run.Start); err != nil {
				return err
			}
		}
		if err := r.connector.enter(ctx, state.Connector{State: Processing, RunID: run.ID}); err != nil {
			return err
		}
	}
	source, err := r.source(ctx)
	if err != nil {
		return err
	}
	if source.Posture {
		log.Warn().Msg("the profile asks for security posture, which this version does not collect: identities only are sent")
	}
	session, err := directory.Connect(ctx, source.Directory)
	if err != nil {
		return err
	}
	defer session.Close()
	log.Info().Str("dc", session.Address).Str("dns_host_name", session.RootDSE.DNSHostName).
		Bool("domain_controller", session.RootDSE.IsDomainController()).Msg("directory connected")
	return r.pass(ctx, mode, session, source, run, log)
}

// pass reads everything in scope and delivers what differs from the index.
func (r *Runner) pass(ctx context.Context, mode Mode, session *directory.Session, source Source, run *state.Run, log zerolog.Logger) error {
	p := &pass{run: run, log: log, now: time.Now(), store: r.Store}
	read := func(ctx context.Context, add func(identity.Asset) error) error {
		for _, s := range r.searches {
			if err := p.read(ctx, session, source, s, add); err != nil {
				return err
			}
		}
		return nil
	}
	if mode.DryRun {
		return read(ctx, func(identity.Asset) error { return nil })
	}
	record := func(receipts []upload.Receipt) error { return r.record(receipts, log) }
	totals, err := upload.Run(ctx, r.Gateway, r.Upload, record, read)
	run.Uploaded, run.Rejected = totals.Delivered, totals.Rejected
	return err
}

// pass is the reading side of one run.
type pass struct {
	run   *state.Run
	log   zerolog.Logger
	now   time.Time
	store *state.Store
	json  []byte
}

// read streams the objects of one kind through the map, and adds those that
// changed.
func (p *pass) read(ctx context.Context, session *directory.Session, source Source, s search, add func(identity.Asset) error) error {
	start := time.Now()
	count := &p.run.Users
	if s.kind == identity.Group {
		count = &p.run.Groups
	}
	unmapped, unparsed := 0, 0
	query := directory.Search{Base: source.Base, Scope: source.Scope, Filter: s.filterOn(session.RootDSE), Attributes: s.mapper.Attributes}
	pages, err := session.Search(ctx, query, func(entry *ad.Entry) error {
		asset, err := s.mapper.Map(p.json, entry, p.now)
		if err != nil {
			if unmapped == 0 {
				p.log.Warn().Str("kind", s.kind.String()).Str("dn_hash", hash(entry.DN)).Err(err).Msg("entry skipped")
			}
			unmapped++
			return nil
		}
		p.json = asset.JSON
		*count++
		unparsed += asset.Unparsed
		known, there, err := p.store.Fingerprint(asset.GUID)
		if err != nil {
			return err
		}
		if there && known == state.Fingerprint(asset.Fingerprint) {
			return nil
		}
		p.run.Changed++
		return add(asset)
	})
	if err != nil {
		return err
	}
	p.log.Info().Str("kind", s.kind.String()).Str("dc", session.Address).Str("base_dn", source.Base).Int("page", pages).Int("objects", *count).
		Int("skipped", unmapped).Int("unparsed", unparsed).Int64("duration_ms", time.Since(start).Milliseconds()).Msg("directory read")
	return nil
}

// record writes what the gateway has acknowledged. It runs beside the reading,
// and an object is in the index only from here on.
func (r *Runner) record(receipts []upload.Receipt, log zerolog.Logger) error {
	var delivered []state.Object
	var rejected []ad.GUID
	for _, receipt := range receipts {
		for _, o := range receipt.Delivered {
			delivered = append(delivered, state.Object{GUID: o.GUID, Kind: byte(o.Kind), Fingerprint: state.Fingerprint(o.Fingerprint), SID: o.SID, Name: o.Name})
		}
		for _, rejection := range receipt.Rejected {
			rejected = append(rejected, rejection.Object.GUID)
			log.Warn().Str("kind", rejection.Object.Kind.String()).Stringer("sid", rejection.Object.SID).Stringer("guid", rejection.Object.GUID).
				Str("reason", rejection.Reason).Msg("object rejected by the gateway")
		}
	}
	if err := r.Store.Acknowledge(delivered, rejected); err != nil {
		return err
	}
	log.Info().Int("batch", len(receipts)).Int("objects", len(delivered)).Int("rejected", len(rejected)).Msg("batches acknowledged")
	return nil
}

// conclude ends a run: its account first, then the connector's state. It goes on
// under a context of its own, since the run's may be what ended it.
func (r *Runner) conclude(ctx context.Context, run state.Run) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), concludeTimeout)
	defer cancel()
	unrecorded := r.Store.AddRun(run)
	if !r.connector.registered {
		return unrecorded
	}
	if unrecorded != nil {
		run.Result, run.Error = Failed, unrecorded.Error()
	}
	r.connector.lastRun = &run
	next := state.Connector{State: AllReceived, RunID: run.ID}
	if run.Result == Failed {
		next = state.Connector{State: Scheduled, RunID: run.ID, Error: run.Error}
		if r.Next != nil {
			next.NextRun = r.Next(time.Now())
		}
	}
	if err := r.connector.enter(ctx, next); unrecorded == nil {
		return err
	}
	return unrecorded
}

// concludeTimeout bounds how long the end of a run waits for the gateway to hear
// of it. It fits into what the gateway's client leaves of the default grace.
const concludeTimeout = 5 * time.Second

// summarize writes the one line that ends every run, and the error in full.
func summarize(log zerolog.Logger, run state.Run, mode Mode, err error) {
	event := log.Info()
	switch {
	case err != nil && fault.Of(err) == fault.Canceled:
		event = log.Warn().Err(err)
	case err != nil:
		event = log.Error().Err(err).Str("class", string(fault.Of(err)))
	case run.Rejected > 0:
		event = log.Warn()
	}
	if mode.DryRun {
		event = event.Bool("dry_run", true)
	}
	event.Str("mode", run.Mode).Str("result", run.Result).Int("users", run.Users).Int("groups", run.Groups).
		Int("changed", run.Changed).Int("uploaded", run.Uploaded).Int("deleted", run.Deleted).Int("held", run.Held).Int("rejected", run.Rejected).
		Int("requests", run.Requests).Int("retries", run.Retries).Int64("duration_ms", run.Duration.Milliseconds()).Msg("run finished")
}
