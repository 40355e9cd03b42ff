package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"adconnector/internal/state"
)

func (i *inspection) stateDirectory(context.Context) Check {
	if err := state.CheckDir(i.StateDir); err != nil {
		return failed(err, "")
	}
	store, err := i.stateOptions.OpenReadOnly(i.StateDir)
	switch {
	case errors.Is(err, state.ErrLocked):
		return ok("%s is in use, which is fine while the daemon runs (%v)", i.StateDir, err)
	case errors.Is(err, state.ErrUnusable):
		return failed(err, "")
	case err != nil:
		return warnOf(err)
	}
	defer store.Close()
	known, err := store.IndexSize()
	switch {
	case err != nil:
		return warnOf(err)
	case store.FileSize() == 0:
		return ok("%s can be written; the first run makes the state file", i.StateDir)
	}
	return ok("%s knows %d objects", store.Path(), known)
}

// schedule looks at the cron expression, of which the configuration has proven that
// it can be read.
func (i *inspection) schedule(context.Context) Check {
	if i.Next == nil {
		return warn("there is no cron expression, without which only sync runs, not the daemon",
			"set service.cron-expression, for example to */10 * * * *")
	}
	now := i.now()
	next := i.Next(now)
	found := "next run at " + next.UTC().Format(time.RFC3339)
	hints := i.Gateway.ServerHints()
	if hints.RateLimit == 0 {
		return ok("%s", found)
	}
	runs := 0
	for at := next; !at.IsZero() && at.Before(now.Add(hints.RateWindow)) && runs*callsOfARun <= hints.RateLimit; at = i.Next(at) {
		runs++
	}
	limit := fmt.Sprintf("the gateway allows %d calls in %s", hints.RateLimit, hints.RateWindow)
	if runs*callsOfARun > hints.RateLimit {
		return warn(fmt.Sprintf("%s, and %s, of which each run needs %d at least", found, limit, callsOfARun),
			"have service.cron-expression run less often, or have the limit raised")
	}
	return ok("%s; %s", found, limit)
}

// callsOfARun is how often a run calls the gateway that finds nothing to send:
// connection, profile, and three states.
const callsOfARun = 5
