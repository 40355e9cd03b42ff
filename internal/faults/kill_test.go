package faults

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/syncrun"
)

// killing is when a connector is killed.
type killing struct {
	name string
	// arm prepares it, and returns what is told of the log's lines.
	arm func(s *site, kill func()) func(*process, line)
	// after is a moment by the clock; 0: what arm says.
	after time.Duration
}

// killings are the named points: every call at its arrival, each batch once the
// gateway has it and once the answer is out, every line of the log, and bytes of the
// directory's answers, which are so many as a whole.
func (s *site) killings(whole int) []killing {
	var all []killing
	add := func(name string, arm func(s *site, kill func()) func(*process, line)) {
		all = append(all, killing{name: name, arm: arm})
	}
	for _, n := range []int{1, 2, 3, 4, 6, 9} {
		add(fmt.Sprint("call ", n, " arrives"), func(s *site, kill func()) func(*process, line) {
			calls := 0
			s.facing(func(x *exchange) bool {
				s.mu.Lock()
				calls++
				now := calls == n
				s.mu.Unlock()
				if now {
					kill()
				}
				return now
			})
			return nil
		})
	}
	batch := func(name string, n int, do func(x *exchange, kill func())) {
		add(fmt.Sprint("batch ", n, name), func(s *site, kill func()) func(*process, line) {
			batches := 0
			s.facing(func(x *exchange) bool {
				if !x.isBatch() {
					return false
				}
				s.mu.Lock()
				batches++
				now := batches == n
				s.mu.Unlock()
				if now {
					do(x, kill)
				}
				return now
			})
			return nil
		})
	}
	for _, n := range []int{1, 2, 4, 7} {
		batch(" arrives", n, func(_ *exchange, kill func()) { kill() })
		batch(" is taken", n, func(x *exchange, kill func()) { x.deliver(); kill() })
		batch(" is answered", n, func(x *exchange, kill func()) { x.answer(x.deliver()); kill() })
	}
	add("a deletion is taken", func(s *site, kill func()) func(*process, line) {
		s.facing(func(x *exchange) bool {
			for _, i := range x.assets() {
				if i.isDeleted() {
					x.deliver()
					kill()
					return true
				}
			}
			return false
		})
		return nil
	})
	for _, message := range []string{syncrun.MsgDirectoryConnected, syncrun.MsgSyncPlanned, syncrun.MsgDirectoryRead, syncrun.MsgBatchesAcknowledged, syncrun.MsgConnectorState, syncrun.MsgRunFinished} {
		for _, nth := range []int{1, 2} {
			add(fmt.Sprint("line ", nth, " of ", message), func(_ *site, _ func()) func(*process, line) {
				seen := 0
				return func(p *process, l line) {
					if l.text("message") == message {
						if seen++; seen == nth {
							_ = p.cmd.Process.Kill()
						}
					}
				}
			})
		}
	}
	for _, share := range []float64{0.1, 0.5, 0.9} {
		add(fmt.Sprint("at ", share, " of what the directory sends"), func(s *site, kill func()) func(*process, line) {
			s.relay.set(rule{connection: -1, after: int(share * float64(whole)), hook: kill})
			return nil
		})
	}
	return all
}

// TestKill kills the connector, as `sync` and as the daemon, with SIGKILL: at named
// points in turn and at random moments, a changing directory between, now and then
// where nothing was sent yet. It passes when every run after it that is left
// alone ends with 0 and the gateway then holds what the directory does, field by
// field, with nothing missing; and when nothing that is in the directory was ever
// reported as deleted, nor an older value taken after a newer one.
func TestKill(t *testing.T) {
	for lane := range scaled(1, 4) { // each on a site of its own
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			killAgain(t, scaled(12, 50))
		})
	}
}

func killAgain(t *testing.T, kills int) {
	t.Helper()
	s := newSite(t, plan{users: scaled(200, 1000), groups: 50})
	s.settings = s.settings.with(settings{"upload.batch-size": "10", "thread-pool.size": "4", "ldap.page-size": "100"})
	daemon := s.settings.with(settings{"service.cron-expression": "* * * * * *"})
	began := time.Now()
	run(t, s.settings, "sync").mustExit(t, 0)
	usual := time.Since(began)
	s.mustBeEqual(t, "first run")

	whole := 0
	for _, n := range s.relay.bytes() {
		whole += n
	}
	named := s.killings(whole)
	s.random.Shuffle(len(named), func(i, j int) { named[i], named[j] = named[j], named[i] })
	hit, late, runs := map[string]int{}, 0, 1
	killed, fresh := 0, false
	for n := 0; killed < kills; n++ {
		if n == 3*kills {
			t.Fatalf("%d of %d met it alive", killed, n)
		}
		k := killing{name: "random", after: time.Duration(s.random.Int64N(int64(usual)/3) + 1)} // the first run had the most to do
		if n%2 == 0 {
			k = named[n/2%len(named)]
		}
		if n%20 == 19 {
			s.reinstall()
			fresh = true
		}
		s.mutate(60)
		c := command{settings: s.settings, args: []string{"sync"}}
		if s.random.IntN(4) == 0 || strings.HasPrefix(k.name, "at ") {
			c.args = append(c.args, "--full")
		}
		if n%3 == 0 {
			c.settings, c.args = daemon, nil
		}
		if s.kill(t, c, k) {
			kind, _, _ := strings.Cut(k.name, " ")
			hit[kind]++
			killed++
		} else {
			late++ // it had ended before
		}
		if s.random.IntN(2) == 0 && killed < kills {
			continue // nobody looks after it before it is killed again
		}
		runs++
		run(t, s.settings, "sync").mustExit(t, 0)
		if fresh {
			// What has gone before the first full pass was complete is settled by the
			// next one, as absence proves nothing before.
			run(t, s.settings, "sync", "--full").mustExit(t, 0)
			fresh = false
		}
		s.mustBeEqual(t, fmt.Sprintf("kill %d, %s", n+1, k.name))
	}
	taken, deletions := s.witness.counts()
	figures(t, "%d kills (%v, %d too late), %d runs left alone, all equal; %d objects taken, %d of them deletions, none false; %s",
		kills, hit, late, runs, taken, deletions, time.Since(began).Round(time.Millisecond))
}

// kill starts a connector and kills it at a moment. It reports whether that met it
// alive.
func (s *site) kill(t *testing.T, c command, k killing) bool {
	t.Helper()
	started := make(chan *process, 1)
	if k.arm != nil {
		c.onLine = k.arm(s, func() {
			p := <-started
			started <- p
			p.kill()
		})
	}
	over, onLine := make(chan struct{}), c.onLine
	var once sync.Once
	c.onLine = func(p *process, l line) {
		if onLine != nil {
			onLine(p, l)
		}
		if l.text("message") == "run finished" {
			once.Do(func() { close(over) })
		}
	}
	p := start(t, c)
	started <- p
	deadline := syncWithin
	if k.after > 0 {
		deadline = k.after
	}
	select {
	case <-p.finished:
	case <-time.After(deadline):
	case <-over: // a daemon need not have come by the named point
		select {
		case <-p.finished:
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.kill()
	s.facing(nil)
	s.relay.clear()
	o := p.wait(t, syncWithin)
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !o.killed && o.code != 0 {
		t.Errorf("%s: ended by itself with %d:\n%s", k.name, o.code, o.text)
	}
	return status.Signaled()
}
