package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"adconnector/internal/state"
	"adconnector/internal/status"
	"adconnector/internal/syncrun"
)

// scenario is the sequence of events of a demo.
type scenario struct {
	*program
	*sandboxServers
	events       chan daemonEvent
	changed      chan struct{} // closed after the changes in the directory
	expected     int           // number of objects in the next run; 0: unknown
	hideProgress func()        // of the current run
}

// daemonEvent is the end of a run, or the announcement of the next run.
type daemonEvent struct {
	run  *state.Run
	err  error
	tick time.Time
}

func newScenario(p *program, servers *sandboxServers) *scenario {
	users, groups := servers.identities()
	return &scenario{
		program: p, sandboxServers: servers, events: make(chan daemonEvent, 64), changed: make(chan struct{}),
		expected: len(users) + len(groups),
	}
}

// observer returns the callbacks for the daemon. The second run waits for the changes in the
// directory or for the end of ctx, so that it finds all changes. Events after the end of the
// scenario are dropped.
func (s *scenario) observer(ctx context.Context) daemonObserver {
	runs := 0
	send := func(event daemonEvent) {
		select {
		case s.events <- event:
		default:
		}
	}
	return daemonObserver{
		runStarts: func() (progress *syncrun.Progress) {
			if runs++; runs > 1 {
				select {
				case <-s.changed:
				case <-ctx.Done():
				}
			}
			progress, s.hideProgress = s.showProgress(s.expected)
			s.expected = 0
			return progress
		},
		runFinished: func(run state.Run, err error) {
			s.hideProgress()
			send(daemonEvent{run: &run, err: err})
		},
		runScheduled: func(next time.Time) { send(daemonEvent{tick: next}) },
	}
}

// awaitEvent returns the next event that matches.
func (s *scenario) awaitEvent(ctx context.Context, match func(daemonEvent) bool) (daemonEvent, error) {
	for {
		select {
		case event := <-s.events:
			if match(event) {
				return event, nil
			}
		case <-ctx.Done():
			return daemonEvent{}, context.Cause(ctx)
		}
	}
}

// awaitRun waits for the end of a run. It returns an error unless the run has the expected
// mode and the result processed. The error of the run itself is already logged.
func (s *scenario) awaitRun(ctx context.Context, mode string) (state.Run, error) {
	event, err := s.awaitEvent(ctx, func(event daemonEvent) bool { return event.run != nil })
	switch {
	case err != nil:
		return state.Run{}, err
	case event.err != nil:
		return state.Run{}, exit(exitCodeOf(event.err))
	case event.run.Result != syncrun.Processed || event.run.Mode != mode:
		return state.Run{}, fmt.Errorf("%w: mode %s, result %s, want %s and %s", errUnexpectedRun, event.run.Mode, event.run.Result, mode, syncrun.Processed)
	}
	return *event.run, nil
}

func (s *scenario) play(ctx context.Context, cron string) error {
	users, groups := s.identities()
	others := ""
	for _, ports := range s.ports[1:] {
		others += " and " + ports.host()
	}
	if err := cmp.Or(s.printLine(ctx, "directory", "%s%s, %s and %s", s.addresses()[0], others, count(len(users), "user"), count(len(groups), "group")),
		s.printLine(ctx, "gateway", "%s, empty", s.url()),
		s.printLine(ctx, "connector", "one run at start, then by the cron expression %s", cron)); err != nil {
		return err
	}
	if err := s.playFullSync(ctx); err != nil {
		return err
	}
	changes, err := s.playChanges(ctx)
	if err != nil {
		return err
	}
	if err := s.playDeltaSync(ctx); err != nil {
		return err
	}
	if err := errors.Join(s.printTable(changes), s.verify("delta")); err != nil {
		return err
	}
	users, groups = s.identities()
	return s.printLine(ctx, "verified", "%s and %s are the same at the gateway and in the directory", count(len(users), "user"), count(len(groups), "group"))
}

func (s *scenario) playFullSync(ctx context.Context) error {
	run, err := s.awaitRun(ctx, "full")
	if err != nil {
		return err
	}
	if err := s.verify("full"); err != nil {
		return err
	}
	err = s.printLine(ctx, "full sync", "%s and %s read, %s sent and acknowledged, %s, %s",
		count(run.Users, "user"), count(run.Groups, "group"), status.FormatNumber(run.Uploaded), count(run.Requests, "request"), run.Duration().Round(time.Millisecond))
	if err != nil || len(s.ports) == 1 {
		return err
	}
	return s.printLogons(ctx)
}

// printLogons prints how many users logged on last at another controller than the first, with an
// example.
func (s *scenario) printLogons(ctx context.Context) error {
	users, _ := s.identities()
	all := s.readLogons()
	elsewhere, example := 0, ""
	for _, o := range users {
		known := all[guidOf(o)]
		if known.controller == 0 {
			continue
		}
		elsewhere++
		if example == "" && isPlainAccount(o) {
			example = fmt.Sprintf(", for example %s at %s: %s", o.First("name"), s.ports[known.controller].host(), known.last.text())
		}
	}
	return s.printLine(ctx, "logons", "%s logged on last at another controller than %s%s", count(elsewhere, "user"), s.ports[0].host(), example)
}

// playChanges changes the directory and lets the second run start.
func (s *scenario) playChanges(ctx context.Context) ([]change, error) {
	event, err := s.awaitEvent(ctx, func(event daemonEvent) bool { return !event.tick.IsZero() })
	if err != nil {
		return nil, err
	}
	changes, err := s.changeDirectory()
	if err != nil {
		return nil, err
	}
	err = s.printLine(ctx, "changes", "%d in the directory, the next run is at %s UTC", len(changes), event.tick.Format(time.TimeOnly))
	if err == nil {
		close(s.changed)
	}
	return changes, err
}

func (s *scenario) playDeltaSync(ctx context.Context) error {
	run, err := s.awaitRun(ctx, "delta")
	if err != nil {
		return err
	}
	// Accounts are read again while their status can change with the time: locked ones, for example.
	return s.printLine(ctx, "delta sync", "%s read, %s changed; %s sent, %s deleted, %s, %s",
		count(run.Read(), "object"), status.FormatNumber(run.Changed), status.FormatNumber(run.Uploaded), status.FormatNumber(run.Deleted), count(run.Requests, "request"), run.Duration().Round(time.Millisecond))
}
