package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"adconnector/internal/state"
)

func (i *inspection) stateDirectory(context.Context) Check {
	if err := state.Usable(i.StateDir); err != nil {
		return failed(err, "set service.state-dir to a directory that can be made and written")
	}
	store, err := i.stateOptions.OpenReadOnly(i.StateDir)
	switch {
	case errors.Is(err, state.ErrLocked): // by a daemon, which stands in nobody's way here
		found, _ := split(err)
		return ok("%s: a daemon runs, which is fine", found)
	case errors.Is(err, state.ErrUnusable):
		return failed(err, "set service.state-dir to a directory that can be made and written")
	case err != nil:
		return warn(err.Error(), "let the next run do so, or put a copy of the file back")
	}
	defer store.Close()
	known, err := store.Size()
	switch {
	case err != nil:
		return warn(err.Error(), "let the next run set the file aside, or put a copy of it back")
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
	found := "the next run would be at " + next.UTC().Format(time.RFC3339)
	heard := i.Gateway.Heard()
	if heard.Calls == 0 {
		return ok("%s", found)
	}
	runs := 0
	for at := next; !at.IsZero() && at.Before(now.Add(heard.Window)) && runs*callsOfARun <= heard.Calls; at = i.Next(at) {
		runs++
	}
	limit := fmt.Sprintf("the gateway allows %d calls in %s", heard.Calls, heard.Window)
	if runs*callsOfARun > heard.Calls {
		return warn(fmt.Sprintf("%s, and %s, of which each run needs %d at least", found, limit, callsOfARun),
			"have service.cron-expression run less often, or have the limit raised")
	}
	return ok("%s; %s", found, limit)
}

// callsOfARun is how often a run calls the gateway that finds nothing to send:
// connection, profile, and three states.
const callsOfARun = 5
