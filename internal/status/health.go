package status

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"adconnector/internal/fault"
)

// Pulse detects a process that is stuck.
type Pulse struct {
	// Activity returns a counter that grows while a run makes progress, such as
	// Metrics.Activity.
	Activity func() uint64
	// Waiting returns until when the process has a reason to be idle; zero: it has none.
	Waiting func() time.Time

	mu       sync.Mutex
	last     time.Time // of the last progress; with the monotonic clock, which stops while the machine is suspended
	activity uint64
}

// stuckAfter is how long a process may be idle: without a tick of the loop, without a call
// that ends, without a byte of an answer. Every call that receives no byte ends sooner.
const stuckAfter = 10 * time.Minute

const remedyStuck = "restart the process, and report the last lines of its log"

var errNoProgress = errors.New("no progress")

// Beat records progress.
func (p *Pulse) Beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}

// Stuck returns why the process is not healthy; nil while it is.
func (p *Pulse) Stuck() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	activity, until := p.Activity(), p.Waiting()
	switch {
	case activity != p.activity || p.last.IsZero():
		p.activity, p.last = activity, now
	case until.After(p.last):
		p.last = until // the idle time counts from then on
	}
	if still := now.Sub(p.last); still > stuckAfter {
		return fault.Operation{}.Failed(fault.Transient, fmt.Errorf("%w for %s", errNoProgress, still.Round(time.Second)), remedyStuck)
	}
	return nil
}
