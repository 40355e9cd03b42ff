package gateway

import "sync"

// budget bounds how often calls are repeated within a run. As long as most of them
// are answered, a call is repeated as often as its tries allow; where hardly any is,
// the run ends and the next tick begins anew, in place of a run that drags on for days
// with five repeats for each call.
type budget struct {
	mu   sync.Mutex
	left int
}

// repeatsEach is how many repeats a run has for each connection before anything is
// answered: more than those that are under way can use up by themselves.
const repeatsEach = 10

func (b *budget) reset(connections int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = repeatsEach * max(connections, 1)
}

// earn is for a call that was answered.
func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left++
}

// spend is for a repeat. It reports whether there was one left.
func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}

// BeginRun gives the client a new budget of repeats: a run may repeat as many calls as
// were answered in it, and a few for each connection. A login that was refused before
// may be tried again, once.
func (c *Client) BeginRun() {
	c.budget.reset(c.options.Connections)
	c.session.forgive()
}
