package syncrun

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/upload"
)

// task is what stays the same throughout a run.
type task struct {
	id     string
	mode   Mode
	start  time.Time // the run's only reading of the wall clock for decisions
	log    zerolog.Logger
	before gateway.Counts
	watch  *stopwatch
}

// Run does one run and returns its record. Its error is the run's and is already logged.
func (r *Runner) Run(ctx context.Context, mode Mode) (state.Run, error) {
	t := r.begin(mode)
	began := time.Now()
	done, err := r.sync(gateway.WithRunID(ctx, t.id), t)
	account := makeAccount(t, done, r.Gateway.Counts(), time.Since(began), err)
	if !mode.DryRun {
		if failed := r.conclude(ctx, t, account.Run); failed != nil {
			err = errors.Join(err, failed)
			account.fail(err)
		}
		if r.OnEnd != nil {
			r.OnEnd(account)
		}
	}
	r.logEnd(t, account.Run, err)
	return account.Run, err
}

// sync reads the directory and sends what changed. Whatever was done before an error is
// returned with it.
func (r *Runner) sync(ctx context.Context, t task) (done results, err error) {
	done.mode = full
	if err := r.enterProcessing(ctx, t); err != nil {
		return done, err
	}
	source, err := r.source(ctx, t.log)
	if err != nil {
		return done, err
	}
	session, err := connect(ctx, source, r.patience, t.log)
	if err != nil {
		return done, err
	}
	defer func() { session.Close() }() // whatever replaced it
	if err := r.retarget(t); err != nil {
		return done, err
	}
	stored, err := loadMemberships(r.Store, source, t.log)
	if err != nil {
		return done, err
	}
	snapshot, err := r.takeSnapshot(ctx, t, source, session, stored)
	if err != nil {
		return done, err
	}
	plan := MakePlan(snapshot)
	logPlan(t.log, snapshot, plan)
	done.mode = plan.Mode
	t.watch.lap("connect")

	tombstones := r.tombstones(t, session, plan)
	var known memberships
	if source.Posture {
		known, plan, err = r.membershipSync(t, source, session, stored, snapshot).run(ctx, plan, tombstones)
		done.mode = plan.Mode
		t.watch.lap("memberships")
		if err != nil {
			return done, err
		}
	}
	reader := r.newReader(t, source, session, snapshot, plan, known)
	done, err = r.deliver(ctx, t, reader, tombstones)
	if err != nil || t.mode.DryRun {
		return done, err
	}
	defer t.watch.lap("record")
	return done, r.commit(snapshot, plan, done.found)
}

// begin starts the record of a run.
func (r *Runner) begin(mode Mode) task {
	r.Gateway.BeginRun()
	id := uuid.NewString()
	return task{
		id: id, mode: mode, start: r.now().UTC(), log: r.Log.With().Str("run_id", id).Logger(), before: r.Gateway.Counts(),
		watch: &stopwatch{last: time.Now()},
	}
}

// enterProcessing logs in and enters the state Processing. A dry run only logs in, where it
// needs the gateway.
func (r *Runner) enterProcessing(ctx context.Context, t task) error {
	if t.mode.DryRun {
		if r.Source != nil {
			return nil
		}
		return r.Gateway.Login(ctx)
	}
	if err := r.Register(ctx); err != nil {
		return err
	}
	now, err := r.Store.Connector()
	if err != nil {
		return err
	}
	if now.State != stateScheduled { // of a single run, and where registering failed before
		if err := r.Schedule(ctx, t.start); err != nil {
			return err
		}
	}
	return r.states.enter(ctx, state.Connector{State: stateProcessing, RunID: t.id, At: r.now().UTC()})
}

// retarget forgets the deliveries to another target. A dry run records nothing.
func (r *Runner) retarget(t task) error {
	before, err := r.Store.Target()
	if err != nil || before == r.Target || t.mode.DryRun {
		return err
	}
	if before != "" {
		t.log.Warn().Str("before", before).Str("target", r.Target).Msg(MsgTargetChanged)
	}
	return r.Store.ChangeTarget(r.Target)
}

// deliver reads what the plan asks for, sends what differs from the index, and sends or
// holds deletions.
func (r *Runner) deliver(ctx context.Context, t task, reader *reader, tombstones *tombstones) (done results, err error) {
	done.mode = reader.plan.Mode
	produce := func(ctx context.Context, to sink) (err error) {
		done.found, err = reader.readObjects(ctx, to)
		t.watch.lap("read")
		if err != nil {
			return err
		}
		defer t.watch.lap("settle")
		found, evidence, err := reader.findDeleted(ctx, done.found, tombstones, to)
		done.found = found
		if err != nil {
			return err
		}
		decision := DecideDeletions(evidence, r.Guard)
		done.held = decision.Held
		return reader.applyDeletions(decision, to)
	}
	if t.mode.DryRun {
		return done, produce(ctx, sink{add: t.mode.show, settle: func() error { return nil }})
	}
	delivery, err := r.Store.OpenJournal(reader.snapshot.InvocationID, t.start)
	if err != nil {
		return done, err
	}
	options := r.Upload
	if options.NeverAcknowledged, err = r.Store.NeverAcknowledged(); err != nil {
		return done, err
	}
	journal := &journal{Journal: delivery, log: t.log, progress: t.mode.Progress, outcomes: map[Outcome]int{}}
	done.totals, err = upload.Run(ctx, r.Gateway, options, journal, func(ctx context.Context, add func(identity.Asset) error, settle func() error) error {
		return produce(ctx, sink{add, settle})
	})
	done.answered = journal.outcomes
	t.watch.lap("drain")
	return done, err
}

// commit records how far the run got. The watermark moves last: a crash before this repeats
// work, never skips it.
func (r *Runner) commit(s Snapshot, p Plan, found findings) error {
	if err := r.Store.SetRecheckTimes(found.reschedule); err != nil {
		return err
	}
	return r.Store.Advance(p.progress(s))
}

// conclude records the run and the state that it ends in, in one transaction, and reports
// the state. A run that cannot be recorded has failed. The deadline is its own, since the
// run's context may be what ended it.
func (r *Runner) conclude(ctx context.Context, t task, run state.Run) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Conclude)
	defer cancel()
	from, err := r.Store.Connector()
	to := r.endState(run, from)
	if err == nil {
		err = r.Store.RecordRun(run, to)
	}
	ctx = gateway.WithRunID(ctx, t.id)
	if err == nil {
		r.states.logChange(ctx, from, to)
	} else {
		run.Result, run.Error, run.Remedy = Failed, err.Error(), fault.Remedy(err)
		to = r.endState(run, from)
	}
	r.states.sendEnd(ctx, to, run)
	return err
}

// endState is the state that a run ends in. A connector that the gateway has never accepted
// has none.
func (r *Runner) endState(run state.Run, from state.Connector) state.Connector {
	to := state.Connector{State: stateProcessed, RunID: run.ID, At: r.now().UTC()}
	if run.Result != Failed {
		return to
	}
	to.State, to.Error, to.Remedy = stateScheduled, run.Error, run.Remedy
	if !r.Registered() && from.State == "" {
		to.State = ""
	}
	if r.Next != nil {
		to.NextRun = r.Next(r.now())
	}
	return to
}

// logEnd writes the line that ends every run.
func (r *Runner) logEnd(t task, run state.Run, err error) {
	event := t.log.Info()
	switch {
	case err == nil && run.Held+run.Rejected > 0:
		event = t.log.Warn()
	case err != nil && fault.ClassOf(err) == fault.Canceled:
		event = t.log.Warn().EmbedObject(fault.Fields(err)).Str("class", run.Class)
	case err != nil:
		event = t.log.Error().EmbedObject(fault.Fields(err)).EmbedObject(r.repeats.Count(err, t.start)).Str("class", run.Class)
	}
	if err == nil {
		r.repeats.Reset()
	}
	if t.mode.DryRun {
		event.Bool("dry_run", true)
	}
	event.Str("mode", run.Mode).Str("result", run.Result).Int("users", run.Users).Int("groups", run.Groups).
		Int("changed", run.Changed).Int("uploaded", run.Uploaded).Int("deleted", run.Deleted).Int("held", run.Held).Int("rejected", run.Rejected).
		Int("requests", run.Requests).Int("retries", run.Retries).Int64("duration_ms", run.Duration.Milliseconds()).
		Int("skipped", run.Skipped).Msg(MsgRunFinished)
}
