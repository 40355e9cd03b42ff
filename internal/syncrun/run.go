package syncrun

import (
	"context"
	"errors"
	"strings"
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

// runInfo holds the values that do not change during a run.
type runInfo struct {
	id           string
	options      RunOptions
	start        time.Time // the only wall clock reading for decisions in this run
	log          zerolog.Logger
	countsBefore gateway.Counts
	stopwatch    *stopwatch
	certificates *certificates
	contact      *contact
}

// Run performs one run and returns its record. The error is the run's and is already logged.
func (r *Runner) Run(ctx context.Context, options RunOptions) (state.Run, error) {
	info := r.newRunInfo(options)
	ctx = gateway.WithRunID(ctx, info.id)
	started := time.Now()
	stopLog := r.logProgress(info, started)
	result, err := r.sync(ctx, info)
	info.stopwatch.endFailed(info.options.Progress, err)
	stopLog()
	r.pauseBinds(info, err)
	report := newReport(info, result, r.Gateway.Counts(), time.Since(started), err)
	if !options.DryRun {
		if recordErr := r.recordEnd(ctx, report.Run); recordErr != nil {
			err = errors.Join(err, recordErr)
			report.setFailed(err)
		}
		if r.OnEnd != nil {
			r.OnEnd(report)
		}
	}
	r.logEnd(info, report.Run, err)
	return report.Run, err
}

// sync reads the directory and sends the changes. On an error it also returns the result of
// the steps before the error.
func (r *Runner) sync(ctx context.Context, info runInfo) (result runResult, err error) {
	result.mode = full
	if err := r.enterProcessing(ctx, info); err != nil {
		return result, err
	}
	source, session, err := r.openDirectory(ctx, info)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, r.release(session, info, err)) }()
	if err := r.retarget(info); err != nil {
		return result, err
	}
	if err := r.requestResend(info); err != nil {
		return result, err
	}
	stored, err := loadMemberships(r.Store, source, info.log)
	if err != nil {
		return result, err
	}
	snapshot, err := r.takeSnapshot(info, source, session, stored)
	if err != nil {
		return result, err
	}
	r.warnUntrackedFilters(info, snapshot)
	plan := MakePlan(snapshot)
	logPlan(info.log, snapshot, plan)
	result.enterMode(info, plan)
	info.stopwatch.endStage("connect")
	if err := r.recordDoubts(info, snapshot); err != nil {
		return result, err
	}
	rights := r.newRightsCheck(source, session)
	if err := rights.checkRequired(ctx); err != nil {
		return result, err
	}

	tombstones := r.newTombstoneSearch(info, session, plan, snapshot.IndexSize)
	current, plan, err := r.syncMemberships(ctx, r.newMembershipSync(info, source, session, stored, snapshot), plan, tombstones)
	result.enterMode(info, plan)
	if err != nil {
		return result, err
	}
	if err := r.checkOptional(ctx, info, rights, snapshot, plan); err != nil {
		return result, err
	}
	input := reading{source, session, snapshot, plan}
	sweep, err := r.sweepLogons(ctx, info, input)
	if err != nil {
		return result, err
	}
	result, err = r.deliver(ctx, info, r.newReader(info, input, current, sweep.sources(r.LastLogon, snapshot)), tombstones)
	if err != nil || info.options.DryRun {
		return result, err
	}
	info.options.Progress.enter("record")
	defer info.stopwatch.endStage("record")
	return result, errors.Join(r.noteExpiries(ctx, info, session), r.commit(snapshot, plan, session, sweep, result))
}

// enterMode sets the mode of the run.
func (r *runResult) enterMode(info runInfo, p Plan) {
	r.mode = p.Mode
	info.options.Progress.mode.Store(p.Mode)
}

// syncMemberships updates the memberships if the source includes the security posture. It may
// return a plan for a full sync.
func (r *Runner) syncMemberships(ctx context.Context, s *membershipSync, p Plan, tombstones *tombstoneSearch) (memberships, Plan, error) {
	if !s.snapshot.Posture {
		return memberships{}, p, nil
	}
	s.options.Progress.enter("memberships")
	defer s.stopwatch.endStage("memberships")
	return s.run(ctx, p, tombstones)
}

// openDirectory opens the first session of a run.
func (r *Runner) openDirectory(ctx context.Context, info runInfo) (source Source, s *session, err error) {
	if source, err = r.source(ctx, info.log); err != nil {
		return source, nil, err
	}
	if err := r.checkBindPause(info, source); err != nil {
		return source, nil, err
	}
	info.watchCertificates(&source.Directory)
	source.Directory.OnRequest = countPages(source.Directory.OnRequest, info.options.Progress)
	if err := r.chooseController(&source.Directory, info); err != nil {
		return source, nil, err
	}
	if s, err = connect(ctx, source, r.idleLimit, info.log); err != nil {
		info.contact.notConnected(err)
		return source, nil, err
	}
	info.contact.connected(s)
	r.BindPause.accept()
	if err = r.checkServer(ctx, info, source, s); err != nil {
		err = errors.Join(err, r.release(s, info, err))
	}
	return source, s, err
}

// chooseController sets which domain controller to prefer if a name stands for several.
func (r *Runner) chooseController(o *directory.Options, info runInfo) error {
	last, failed, err := r.Store.LastServers()
	if err != nil {
		return err
	}
	lastFull, err := r.Store.LastFullSync()
	o.Preferred, o.Avoided = directory.Controller(last), directory.Controller(failed)
	o.PreferFastest = info.options.Full || info.start.Sub(lastFull.At) >= r.FullInterval
	return err
}

// release closes the session of a run. If the directory made the run fail, later runs try
// this server last.
func (r *Runner) release(s *session, info runInfo, runErr error) error {
	s.Close()
	if runErr == nil || info.options.DryRun || !s.failed.Load() {
		return nil
	}
	return r.Store.SetFailedServer(state.Server(s.Controller))
}

// newRunInfo starts a run.
func (r *Runner) newRunInfo(options RunOptions) runInfo {
	r.Gateway.BeginRun()
	id := uuid.NewString()
	if options.Progress == nil {
		options.Progress = &Progress{}
	}
	options.Progress.mode.Store(full)
	options.Progress.enter("connect")
	return runInfo{
		id: id, options: options, start: r.now().UTC(), log: r.Log.With().Str("run_id", id).Logger(), countsBefore: r.Gateway.Counts(),
		stopwatch: &stopwatch{last: time.Now()}, contact: &contact{}, certificates: &certificates{},
	}
}

// enterProcessing logs in and enters the state Processing. A dry run only logs in, and only
// if it needs the gateway.
func (r *Runner) enterProcessing(ctx context.Context, info runInfo) error {
	if info.options.DryRun {
		if r.Source != nil {
			return nil
		}
		return r.Gateway.Login(ctx)
	}
	if err := r.Register(ctx); err != nil {
		return err
	}
	current, err := r.Store.Connector()
	if err != nil {
		return err
	}
	if current.State != stateScheduled { // in a single run, or if an earlier registration failed
		if err := r.Schedule(ctx, info.start); err != nil {
			return err
		}
	}
	return r.states.enter(ctx, state.Connector{State: stateProcessing, RunID: info.id, At: r.now().UTC()})
}

// retarget deletes the records of deliveries to another target. A dry run records nothing.
func (r *Runner) retarget(info runInfo) error {
	before, err := r.Store.Target()
	target := r.recordedTarget()
	switch {
	case err != nil || before == target || info.options.DryRun:
		return err
	case before == r.Target: // version 1.0.0 did not record the profile
		return r.Store.AdoptTarget(target)
	case before != "":
		info.log.Warn().Str("before", before).Str("target", target).Msg(MsgTargetChanged)
	}
	return r.Store.ChangeTarget(target)
}

// recordedTarget returns the target as the state file records it.
func (r *Runner) recordedTarget() string { return strings.TrimSuffix(r.Target+" "+r.Profile, " ") }

// recordDoubts records before anything is delivered that the domain controller was put back to
// an earlier state, because what it showed before does not count any more, or that its clock may
// be wrong.
func (r *Runner) recordDoubts(info runInfo, s Snapshot) error {
	if info.options.DryRun {
		return nil
	}
	if s.USNDecreased {
		if err := r.Store.RecordRollback(s.View.InvocationID); err != nil {
			return err
		}
	}
	return r.recordLeadingClock(s)
}

// deliver reads the objects of the plan, sends those that differ from the index, and sends or
// holds deletions.
func (r *Runner) deliver(ctx context.Context, info runInfo, reader *reader, tombstones *tombstoneSearch) (result runResult, err error) {
	result.mode = reader.plan.Mode
	if result.mode == full {
		if err := r.Store.Verify(); err != nil {
			return result, err
		}
	}
	info.options.Progress.enter("read")
	produce := func(ctx context.Context, to sink) (err error) {
		result.read, err = reader.readObjects(ctx, to)
		info.stopwatch.endStage("read")
		if err != nil {
			return err
		}
		info.options.Progress.enter("settle")
		defer info.options.Progress.enter("drain")
		defer info.stopwatch.endStage("settle")
		read, evidence, err := reader.findDeleted(ctx, result.read, tombstones, to)
		result.read = read
		if err != nil {
			return err
		}
		result.grant = reader.warnUnreadable(ctx, result.read)
		decision := DecideDeletions(evidence, r.Guard)
		result.held, result.undecided, result.notShown = decision.Held, objectsOf(decision.Undecided), notShown(evidence)
		for _, c := range evidence.Candidates {
			result.missing = append(result.missing, c.GUID)
		}
		sent, err := reader.settle(ctx, evidence, decision, to)
		result.read.add(sent)
		result.containers = reader.descriptors.result(info.start)
		return err
	}
	if info.options.DryRun {
		return result, produce(ctx, sink{add: info.options.show, flush: func() error { return nil }})
	}
	stored, err := r.Store.OpenJournal(reader.snapshot.View, info.start)
	if err != nil {
		return result, err
	}
	result.number = stored.Run()
	options := r.Upload
	if options.NeverAcknowledged, err = r.Store.NeverAcknowledged(); err != nil {
		return result, err
	}
	journal := &journal{Journal: stored, log: info.log, progress: info.options.Progress, outcomes: map[Outcome]int{}}
	result.totals, err = upload.Run(ctx, r.Gateway, options, journal, func(ctx context.Context, add func(identity.Asset) error, flush func() error) error {
		return produce(ctx, sink{add, flush, stored.Drop})
	})
	result.outcomes = journal.outcomes
	info.stopwatch.endStage("drain")
	return result, err
}

// commit records the progress of the run. The watermark moves last: a crash before this
// repeats work and never skips it.
func (r *Runner) commit(s Snapshot, p Plan, session *session, sweep logonSweep, result runResult) error {
	if err := r.forgetLeadingClock(s, p); err != nil {
		return err
	}
	missing, err := r.Store.Indexed(result.missing)
	if err != nil {
		return err
	}
	progress := p.progress(s)
	progress.Run, progress.Unseen, progress.Server = result.number, result.notShown, state.Server(session.Controller)
	progress.RecheckTimes, progress.Containers = result.read.recheckTimes, result.containers
	progress.Readable, progress.Logons = readableAttributes(s, session, result.read), sweep.finish(missing)
	return r.Store.Advance(progress)
}

// recordEnd records the run and its final state in one transaction, and sends the state to
// the gateway. A run that cannot be recorded has failed. recordEnd has its own deadline,
// because the run may have ended with its context.
func (r *Runner) recordEnd(ctx context.Context, run state.Run) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.EndTimeout)
	defer cancel()
	from, err := r.Store.Connector()
	to := r.finalState(run, from)
	if err == nil {
		err = r.Store.RecordRun(run, to)
	}
	if err == nil {
		r.states.logChange(ctx, from, to)
	} else {
		run.Result, run.Error, run.Remedy = Failed, err.Error(), fault.Remedy(err)
		to = r.finalState(run, from)
	}
	r.states.sendRunEnd(ctx, to, run)
	return err
}

// finalState returns the connector state after a run. A connector that the gateway has never
// accepted has no state.
func (r *Runner) finalState(run state.Run, from state.Connector) state.Connector {
	to := state.Connector{State: stateProcessed, RunID: run.ID, At: r.now().UTC()}
	if run.Result != Failed {
		return to
	}
	to.State, to.Error, to.Remedy = stateScheduled, run.Error, run.Remedy
	if !r.Registered() && from.State == "" {
		to.State = ""
	}
	if r.NextRun != nil {
		to.NextRun = r.NextRun(r.now())
	}
	return to
}

// logEnd logs the summary of a run.
func (r *Runner) logEnd(info runInfo, run state.Run, err error) {
	event := info.log.Info()
	switch {
	case err == nil && run.Held+run.Undecided+run.Rejected+run.Unreadable > 0:
		event = info.log.Warn()
	case err != nil && fault.ClassOf(err) == fault.Canceled:
		event = info.log.Warn().EmbedObject(fault.Fields(err)).Str("class", run.Class)
	case err != nil:
		event = info.log.Error().EmbedObject(fault.Fields(err)).EmbedObject(r.repeats.Count(err, info.start)).Str("class", run.Class)
	}
	if err == nil {
		r.repeats.Reset()
	}
	if info.options.DryRun {
		event.Bool("dry_run", true)
	}
	event.Str("mode", run.Mode).Str("result", run.Result).Int("users", run.Users).Int("groups", run.Groups).
		Int("service_accounts", run.ServiceAccounts).Int("roles", run.Roles).Int("domains", run.Domains).Int("reread", run.Reread).
		Int("changed", run.Changed).Int("uploaded", run.Uploaded).Int("deleted", run.Deleted).Int("held", run.Held).
		Int("undecided", run.Undecided).Int("rejected", run.Rejected).
		Int("requests", run.Requests).Int("retries", run.Retries).Int64("duration_ms", run.Duration().Milliseconds()).
		Int("skipped", run.Skipped).Int("unreadable", run.Unreadable).Msg(MsgRunFinished)
}
