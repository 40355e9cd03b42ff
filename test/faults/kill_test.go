package faults

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/syncrun"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// killing is a moment at which a connector is killed.
type killing struct {
	name string
	// arm prepares it and returns a function for each line of the log, or nil.
	arm func(s *environment, kill func()) func(*program.Process, testlog.Line)
	// after is the time from the start; 0: arm decides.
	after time.Duration
}

// killings are the named points: every call at its arrival, each batch once the
// gateway has it and once the answer is out, every line of the log, and bytes of the
// directory's answers, which are so many as a whole.
func (s *environment) killings(whole int) []killing {
	var all []killing
	add := func(name string, arm func(s *environment, kill func()) func(*program.Process, testlog.Line)) {
		all = append(all, killing{name: name, arm: arm})
	}
	for _, n := range []int{1, 2, 3, 4, 6, 9} {
		add(fmt.Sprint("call ", n, " arrives"), func(s *environment, kill func()) func(*program.Process, testlog.Line) {
			calls := 0
			s.Gateway.SetFront(func(x *testenv.Exchange) bool {
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
	batch := func(name string, n int, do func(x *testenv.Exchange, kill func())) {
		add(fmt.Sprint("batch ", n, name), func(s *environment, kill func()) func(*program.Process, testlog.Line) {
			batches := 0
			s.Gateway.SetFront(func(x *testenv.Exchange) bool {
				if !x.HasAssets() {
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
		batch(" arrives", n, func(_ *testenv.Exchange, kill func()) { kill() })
		batch(" is taken", n, func(x *testenv.Exchange, kill func()) { x.Deliver(); kill() })
		batch(" is answered", n, func(x *testenv.Exchange, kill func()) { x.Answer(x.Deliver()); kill() })
	}
	add("a deletion is taken", func(s *environment, kill func()) func(*program.Process, testlog.Line) {
		s.Gateway.SetFront(func(x *testenv.Exchange) bool {
			for _, i := range itemsOf(x.Body) {
				if i.isDeleted() {
					x.Deliver()
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
			add(fmt.Sprint("line ", nth, " of ", message), func(s *environment, _ func()) func(*program.Process, testlog.Line) {
				seen := 0
				return func(p *program.Process, l testlog.Line) {
					if l.Text("message") == message {
						if seen++; seen == nth {
							p.Signal(s.t, syscall.SIGKILL)
						}
					}
				}
			})
		}
	}
	for _, share := range []float64{0.1, 0.5, 0.9} {
		add(fmt.Sprint("at ", share, " of what the directory sends"), func(s *environment, kill func()) func(*program.Process, testlog.Line) {
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
	t.Parallel()
	for lane := range scaled(1, 4) { // each in an environment of its own
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			killAgain(t, scaled(12, 50))
		})
	}
}

func killAgain(t *testing.T, kills int) {
	t.Helper()
	s := newEnvironment(t, plan{users: scaled(200, 1000), groups: 50})
	s.settings = s.settings.With(testenv.Settings{"upload.batch-size": "10", "thread-pool.size": "4", "ldap.page-size": "100",
		"sync.max-deletes-percent": "100"}) // several kills in a row add up
	daemon := s.settings.With(testenv.Settings{"service.cron-expression": "* * * * * *"})
	began := time.Now()
	run(t, s.settings, "sync").MustExit(t, 0)
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
			usual = usual/2 + 1
		}
		if s.random.IntN(2) == 0 && killed < kills {
			continue // nobody looks after it before it is killed again
		}
		runs++
		run(t, s.settings, "sync").MustExit(t, 0)
		if fresh {
			// What has gone before the first full pass was complete is settled by the
			// next one, as absence proves nothing before.
			run(t, s.settings, "sync", "--full").MustExit(t, 0)
			fresh = false
		}
		s.mustBeEqual(t, fmt.Sprintf("kill %d, %s", n+1, k.name))
	}
	taken, deletions := s.witness.counts()
	figures(t, "%d kills (%v, %d too late), %d runs left alone, all equal; %d objects taken, %d of them deletions, none false; %s",
		kills, hit, late, runs, taken, deletions, time.Since(began).Round(time.Millisecond))
}

// kill starts a connector and kills it at a moment. It reports whether the connector was
// still alive then.
func (s *environment) kill(t *testing.T, c command, k killing) bool {
	t.Helper()
	started := make(chan *program.Process, 1)
	if k.arm != nil {
		c.onLine = k.arm(s, func() {
			p := <-started
			started <- p
			p.Kill()
		})
	}
	p := start(t, c)
	started <- p
	if k.after > 0 {
		select {
		case <-p.Ended:
		case <-time.After(k.after):
		}
	} else if _, _, over := p.Log.Await(0, testlog.Message(syncrun.MsgRunFinished), p.Ended); over {
		select { // a daemon need not reach the named point
		case <-p.Ended:
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.Kill()
	s.Gateway.SetFront(nil)
	s.relay.clear()
	o := p.Wait(t)
	if o.Code > 0 {
		t.Errorf("%s: ended by itself with %d:\n%s", k.name, o.Code, o.Stderr)
	}
	return o.Code == -1
}
