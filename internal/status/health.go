package status

import (
	"fmt"
	"sync"
	"time"
)

// Pulse tells a process that works or waits from one that is stuck.
type Pulse struct {
	// Activity counts what the process gets done; it grows while a run goes on.
	Activity func() uint64
	// Waiting is until when the process has reason to do nothing; zero: it has none.
	Waiting func() time.Time

	mu       sync.Mutex
	last     time.Time // of a sign of life; with the monotonic clock, which a suspended machine stops
	activity uint64
}

// stuckAfter is how long nothing at all happens in a process that works: no tick of
// the loop, no entry read, no call answered or given up. A call gives up sooner.
const stuckAfter = 10 * time.Minute

// Beat is a sign of life.
func (p *Pulse) Beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = time.Now()
}

// Stuck says why the process is not healthy; nil while it is.
func (p *Pulse) Stuck() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	activity, until := p.Activity(), p.Waiting()
	switch {
	case activity != p.activity || p.last.IsZero():
		p.activity, p.last = activity, now
	case until.After(p.last):
		p.last = until // it has its time from then on
	}
	if still := now.Sub(p.last); still > stuckAfter {
		return fmt.Errorf("nothing has happened for %s: restart the process, and report what its log said last", still.Round(time.Second))
	}
	return nil
}
