package syncrun

import (
	"maps"
	"slices"
	"time"

	"adconnector/internal/fault"
	"adconnector/internal/gateway"
	"adconnector/internal/identity"
	"adconnector/internal/state"
)

// Report describes a run in more detail than its record in the state file.
type Report struct {
	state.Run
	Stages  []Stage
	Objects map[Outcome]int
}

// Stage is a part of a run and its duration.
type Stage struct {
	Name     string // connect, memberships (with security posture), logons (with LastLogonAllControllers), read, settle, drain, record
	Duration time.Duration
}

// Outcome is a counter's key: a kind of object, and what the run did with such objects.
type Outcome struct {
	Kind identity.Kind
	Name string // read, reread, skipped, unreadable, changed, accepted, deleted, rejected, held, undecided
}

// stopwatch measures consecutive stages of a run.
type stopwatch struct {
	last   time.Time
	stages []Stage
}

// endStage ends a stage, which began at the end of the previous one.
func (s *stopwatch) endStage(name string) {
	now := time.Now()
	s.stages = append(s.stages, Stage{name, now.Sub(s.last)})
	s.last = now
}

// endFailed ends the stage that an error ended.
func (s *stopwatch) endFailed(p *Progress, err error) {
	phase, _ := p.phase.Load().(string)
	if err != nil && !slices.ContainsFunc(s.stages, func(stage Stage) bool { return stage.Name == phase }) {
		s.endStage(phase)
	}
}

// recorded returns the stages as the state file records them.
func (s *stopwatch) recorded() (stages []state.Stage) {
	for _, stage := range s.stages {
		stages = append(stages, state.Stage{Name: stage.Name, DurationMS: stage.Duration.Milliseconds()})
	}
	return stages
}

// newReport returns the report of a run.
func newReport(info runInfo, result runResult, countsAfter gateway.Counts, duration time.Duration, err error) Report {
	report := Report{
		Run: state.Run{
			ID: info.id, Mode: result.mode, Start: info.start, DurationMS: duration.Milliseconds(),
			Users: result.read.countRead(identity.User), Groups: result.read.countRead(identity.Group),
			ServiceAccounts: result.read.countRead(identity.ServiceAccount), Roles: result.read.countRead(identity.Role), Domains: result.read.countRead(identity.Domain),
			Uploaded: result.totals.Uploaded, Deleted: result.totals.Deleted, Rejected: result.totals.Rejected,
			Held: len(result.held), Undecided: len(result.undecided),
			Controller: info.contact.controller, Unreached: info.contact.unreached, Stages: info.stopwatch.recorded(),
			MissingRights: slices.Sorted(maps.Keys(result.read.missing)), RightsRemedy: result.grant,
			Requests: int(countsAfter.Requests - info.countsBefore.Requests), Retries: int(countsAfter.Retries - info.countsBefore.Retries),
		},
		Stages: info.stopwatch.stages, Objects: map[Outcome]int{},
	}
	for kind, n := range result.read.counters {
		report.Changed += n.changed
		report.Reread += n.reread
		report.Skipped += n.skipped
		report.Unreadable += n.unreadable
		report.Objects[Outcome{kind, "read"}] = n.read
		report.Objects[Outcome{kind, "reread"}] = n.reread
		report.Objects[Outcome{kind, "skipped"}] = n.skipped
		report.Objects[Outcome{kind, "unreadable"}] = n.unreadable
		report.Objects[Outcome{kind, "changed"}] = n.changed
	}
	for outcome, n := range result.outcomes {
		report.Objects[outcome] += n
	}
	for _, object := range result.held {
		report.Objects[Outcome{object.Kind, "held"}]++
	}
	for _, object := range result.undecided {
		report.Objects[Outcome{object.Kind, "undecided"}]++
	}
	report.Result = resultOf(report.Run)
	if err != nil {
		report.setFailed(err)
	}
	return report
}

// resultOf returns the result of a run that did not fail. Held takes precedence over Partial.
func resultOf(run state.Run) string {
	switch {
	case run.Held+run.Undecided > 0:
		return Held
	case run.Rejected+run.Unreadable > 0:
		return Partial
	}
	return Processed
}

// setFailed marks the run as failed.
func (r *Report) setFailed(err error) {
	r.Result, r.Error, r.Remedy, r.Class = Failed, err.Error(), fault.Remedy(err), string(fault.ClassOf(err))
}
