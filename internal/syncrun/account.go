package syncrun

import (
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/internal/upload"
)

// Account is what a run did, with more than its record keeps.
type Account struct {
	state.Run
	Stages  []Stage
	Objects map[Outcome]int
}

// Stage is a part of a run, and how long it took.
type Stage struct {
	Name string // connect, memberships (with security posture), read, settle, drain, record
	Took time.Duration
}

// Outcome is what became of an object of a kind.
type Outcome struct {
	Kind identity.Kind
	What string // read, skipped, changed, delivered, deleted, rejected, held
}

// stopwatch measures the stages of a run, one after the other.
type stopwatch struct {
	last   time.Time
	stages []Stage
}

// lap ends a stage, which began where the one before it ended.
func (s *stopwatch) lap(stage string) {
	now := time.Now()
	s.stages = append(s.stages, Stage{stage, now.Sub(s.last)})
	s.last = now
}

// results are what the steps of a run return.
type results struct {
	mode     string
	found    findings
	totals   upload.Totals
	answered map[Outcome]int // delivered, deleted, rejected
	held     []identity.Object
}

// makeAccount assembles the account of a run.
func makeAccount(t task, done results, after gateway.Counts, took time.Duration, err error) Account {
	a := Account{
		Run: state.Run{
			ID: t.id, Mode: done.mode, Result: Processed, Start: t.start, Duration: took,
			Users: done.found.read(identity.User, identity.ServiceAccount), Groups: done.found.read(identity.Group),
			Uploaded: done.totals.Uploaded, Deleted: done.totals.Deleted, Rejected: done.totals.Rejected, Held: len(done.held),
			Requests: int(after.Requests - t.before.Requests), Retries: int(after.Retries - t.before.Retries),
		},
		Stages: t.watch.stages, Objects: map[Outcome]int{},
	}
	for kind, n := range done.found.counts {
		a.Changed += n.changed
		a.Skipped += n.skipped
		a.Objects[Outcome{kind, "read"}] = n.read
		a.Objects[Outcome{kind, "skipped"}] = n.skipped
		a.Objects[Outcome{kind, "changed"}] = n.changed
	}
	for key, n := range done.answered {
		a.Objects[key] += n
	}
	for _, object := range done.held {
		a.Objects[Outcome{object.Kind, "held"}]++
	}
	switch {
	case err != nil:
		a.fail(err)
	case a.Held > 0:
		a.Result = Held
	case a.Rejected > 0:
		a.Result = Partial
	}
	return a
}

// fail makes the account that of a failed run.
func (a *Account) fail(err error) {
	a.Result, a.Error, a.Remedy, a.Class = Failed, err.Error(), fault.Remedy(err), string(fault.ClassOf(err))
}
