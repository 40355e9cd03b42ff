package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"adconnector/internal/state"
)

func (p *preflight) stateDirectory(context.Context) Check {
	if err := state.CheckDir(p.StateDir); err != nil {
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
	return ok("%s has %d objects", store.Path(), count)
}

// schedule compares the cron expression with the rate limit of the gateway. The configuration
// check has parsed the expression.
func (p *preflight) schedule(context.Context) Check {
	if p.Next == nil {
		return warn("no cron expression: only the command sync can run, not the daemon",
			"set service.cron-expression, for example to */10 * * * *")
	}
	now := p.now()
	next := p.Next(now)
	found := "next run at " + next.UTC().Format(time.RFC3339)
	hints := p.Gateway.ServerHints()
	if hints.RateLimit == 0 {
		return ok("%s", found)
	}
	runs := 0
	for tick := next; !tick.IsZero() && tick.Before(now.Add(hints.RateWindow)) && runs*minRunRequests <= hints.RateLimit; tick = p.Next(tick) {
		runs++
	}
	limit := fmt.Sprintf("the gateway allows %d requests in %s", hints.RateLimit, hints.RateWindow)
	if runs*minRunRequests > hints.RateLimit {
		return warn(fmt.Sprintf("%s, and %s, of which each run requires at least %d", found, limit, minRunRequests),
			"choose a service.cron-expression with fewer runs, or request a higher limit")
	}
	return ok("%s; %s", found, limit)
}

// minRunRequests is the number of requests of a run without changes: connection, profile, and
// three states.
const minRunRequests = 5
