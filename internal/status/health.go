package status

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"adconnector/internal/fault"
)

// Watchdog detects a process that makes no progress.
type Watchdog struct {
	// Activity returns a counter that increases while a run makes progress, like
	// Metrics.Activity.
	Activity func() uint64
	// Waiting returns the end of a rate limit, or zero. Until then the process can be idle.
	Waiting func() time.Time

	mu       sync.Mutex
	last     time.Time // last progress; the monotonic clock stops while the host is suspended
	activity uint64
}

// stuckAfter is the time without progress after which a process is unhealthy. Progress is an
// iteration of the schedule loop, a new entry or a page of a directory search, the end of a
// search, or the end of another request; the run bounds how many of those fail. Many
// consecutive pages without a new entry are no progress, and neither are received bytes: the
// other side can send them without end.
const stuckAfter = 10 * time.Minute

const remedyStuck = "restart the process, and report the last lines of its log"

var errNoProgress = errors.New("no progress")

// Beat records progress.
func (w *Watchdog) Beat() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = time.Now()
}

// Check returns an error if the process is stuck.
func (w *Watchdog) Check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	activity, waitEnd := w.Activity(), w.Waiting()
	switch {
	case activity != w.activity || w.last.IsZero():
		w.activity, w.last = activity, now
	case waitEnd.After(w.last):
		w.last = waitEnd // idle time counts from then on
	}
	if idle := now.Sub(w.last); idle > stuckAfter {
		return fault.Operation{}.Failed(fault.Transient, fmt.Errorf("%w for %s", errNoProgress, idle.Round(time.Second)), remedyStuck)
	}
	return nil
}
