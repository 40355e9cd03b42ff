package check

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"adconnector/internal/schedule"
	"adconnector/internal/state"
)

func (p *preflight) stateDirectory(context.Context) Check {
	if err := state.CheckDir(p.StateDir); err != nil {
		return failed(err, "")
	}
	if err := p.stateOptions.CheckSpace(p.StateDir); err != nil {
		return failed(err, "")
	}
	store, err := p.stateOptions.OpenReadOnly(p.StateDir)
	switch {
	case errors.Is(err, state.ErrLocked):
		return ok("%s is in use, as expected while the daemon runs (%v)", p.StateDir, err)
	case errors.Is(err, state.ErrUnusable):
		return failed(err, "")
	case err != nil:
		return warnOf(err)
	}
	defer func() { _ = store.Close() }()
	count, err := store.IndexSize()
	if err != nil {
		return warnOf(err)
	}
	if err := state.SharedAccess(p.StateDir); err != nil {
		return warnOf(err)
	}
	if store.FileSize() == 0 {
		return ok("%s is writable; the first run creates the state file", p.StateDir)
	}
	found := fmt.Sprintf("%s has %s", store.Path(), quantity(count, "object", "objects"))
	if !store.IsVerified() {
		found += "; too large to be verified here, a run verifies it"
	}
	return ok("%s", found)
}

// listedRuns is the number of runs that the check of the schedule lists.
const listedRuns = 3

// schedule lists the next runs, so that an expression with another meaning than expected is
// noticed, and compares the expression with the rate limit of the gateway. The configuration
// check has parsed the expression.
func (p *preflight) schedule(context.Context) Check {
	if p.Schedule == nil {
		return warn("no cron expression: only the command sync can run, not the daemon",
			"set service.cron-expression, for example to */10 * * * *")
	}
	now := p.now()
	found := nextRuns(p.Schedule, now)
	var remedies []string
	for _, w := range p.Schedule.Warnings {
		found, remedies = found+"; "+w.Reason, append(remedies, w.Remedy)
	}
	if limit, remedy := p.compareRateLimit(now); limit != "" {
		found = found + "; " + limit
		if remedy != "" {
			remedies = append(remedies, remedy)
		}
	}
	if len(remedies) > 0 {
		return warn(found, strings.Join(remedies, "; "))
	}
	return ok("%s", found)
}

// nextRuns describes the next runs in the time zone of the schedule.
func nextRuns(s *schedule.Schedule, now time.Time) string {
	var runs []string
	for next := s.Next(now); !next.IsZero() && len(runs) < listedRuns; next = s.Next(next) {
		runs = append(runs, fmt.Sprintf("%s (in %s)", next.In(cmp.Or(s.Zone, time.UTC)).Format("Mon 2006-01-02 15:04:05 MST"), distance(next.Sub(now))))
	}
	if len(runs) == 0 {
		return "no run within five years"
	}
	return "next runs: " + strings.Join(runs, ", ")
}

// distance returns a duration as text for people. It rounds like the status, so that both show the
// same time until something expires.
func distance(d time.Duration) string {
	count := func(unit time.Duration, name string) string { return quantity(int(d.Round(unit)/unit), name, name+"s") }
	switch {
	case d < 2*time.Minute:
		return count(time.Second, "second")
	case d < 2*time.Hour:
		return count(time.Minute, "minute")
	case d < 48*time.Hour:
		return count(time.Hour, "hour")
	}
	return count(24*time.Hour, "day")
}

// quantity returns a number with the singular or the plural of what it counts.
func quantity(n int, singular, plural string) string {
	if n == 1 {
		plural = singular
	}
	return fmt.Sprintf("%d %s", n, plural)
}

// compareRateLimit describes the rate limit of the gateway, if there is one. The remedy is empty
// if the runs are within it.
func (p *preflight) compareRateLimit(now time.Time) (found, remedy string) {
	hints := p.Gateway.ServerHints()
	if hints.RateLimit == 0 {
		return "", ""
	}
	runs := 0
	for tick := p.Schedule.Next(now); !tick.IsZero() && tick.Before(now.Add(hints.RateWindow)) && runs*minRunRequests <= hints.RateLimit; tick = p.Schedule.Next(tick) {
		runs++
	}
	limit := fmt.Sprintf("the gateway allows %s in %s", quantity(hints.RateLimit, "request", "requests"), hints.RateWindow)
	if runs*minRunRequests > hints.RateLimit {
		return fmt.Sprintf("%s, of which each run requires at least %d", limit, minRunRequests),
			"choose a service.cron-expression with fewer runs, or request a higher limit"
	}
	return limit, ""
}

// minRunRequests is the number of requests of a run without changes: connection, profile, and
// three states.
const minRunRequests = 5
