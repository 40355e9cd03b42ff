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

// killPoint is a point in time at which a test kills the connector.
type killPoint struct {
	name string
	// arm makes the environment call kill. It may return a function that receives each log
	// line and kills the process itself.
	arm func(e *environment, kill func()) func(*program.Process, testlog.Line)
	// after is the delay from the start; 0: arm is used.
	after time.Duration
}

// killPoints returns the named points: the arrival of a call, a batch before acceptance,
// after acceptance and after the answer, the log lines, and shares of directoryBytes, the
// number of bytes that the directory sends in a full sync.
func (e *environment) killPoints(directoryBytes int) []killPoint {
	var points []killPoint
	add := func(name string, arm func(e *environment, kill func()) func(*program.Process, testlog.Line)) {
		points = append(points, killPoint{name: name, arm: arm})
	}
	for _, n := range []int{1, 2, 3, 4, 6, 9} {
		add(fmt.Sprint("call ", n, " arrives"), func(e *environment, kill func()) func(*program.Process, testlog.Line) {
			e.onNthCall(n, func(*testenv.Exchange) bool { return true }, func(*testenv.Exchange) { kill() })
			return nil
		})
	}
	batch := func(event string, n int, handle func(x *testenv.Exchange, kill func())) {
		add(fmt.Sprint("batch ", n, " ", event), func(e *environment, kill func()) func(*program.Process, testlog.Line) {
			e.onNthCall(n, (*testenv.Exchange).HasAssets, func(x *testenv.Exchange) { handle(x, kill) })
			return nil
		})
	}
	for _, n := range []int{1, 2, 4, 7} {
		batch("arrives", n, func(_ *testenv.Exchange, kill func()) { kill() })
		batch("is accepted", n, func(x *testenv.Exchange, kill func()) { x.Deliver(); kill() })
		batch("is answered", n, func(x *testenv.Exchange, kill func()) { x.Answer(x.Deliver()); kill() })
	}
	add("a deletion is accepted", func(e *environment, kill func()) func(*program.Process, testlog.Line) {
		e.Gateway.SetFront(func(x *testenv.Exchange) bool {
			for _, i := range parseItems(x.Body) {
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
			add(fmt.Sprint("line ", nth, " of ", message), func(e *environment, _ func()) func(*program.Process, testlog.Line) {
				seen := 0
				return func(p *program.Process, l testlog.Line) {
					if l.Text("message") == message {
						if seen++; seen == nth {
							p.Signal(e.t, syscall.SIGKILL)
						}
					}
				}
			})
		}
	}
	for _, share := range []float64{0.1, 0.5, 0.9} {
		add(fmt.Sprint("at ", share, " of the directory's bytes"), func(e *environment, kill func()) func(*program.Process, testlog.Line) {
			e.relay.set(rule{connection: -1, after: int(share * float64(directoryBytes)), hook: kill})
			return nil
		})
	}
	return points
}

// onNthCall lets handle answer the n-th call to the gateway that matches.
func (e *environment) onNthCall(n int, match func(*testenv.Exchange) bool, handle func(*testenv.Exchange)) {
	calls := 0
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if !match(x) {
			return false
		}
		e.mu.Lock()
		calls++
		nth := calls == n
		e.mu.Unlock()
		if nth {
			handle(x)
		}
		return nth
	})
}

// TestKill kills the connector with SIGKILL, as `sync` and as the daemon, at named points
// and at random times. The directory changes in between, and some kills hit an empty state
// file. It passes if every later run that is not killed exits with 0 and the gateway then
// matches the directory. At no time may the gateway accept a false deletion, or an older
// value after a newer one.
func TestKill(t *testing.T) {
	t.Parallel()
	for n := range scaled(1, 4) {
		t.Run(fmt.Sprint("environment ", n), func(t *testing.T) {
			t.Parallel()
			killRepeatedly(t, scaled(12, 50))
		})
	}
}

func killRepeatedly(t *testing.T, kills int) {
	t.Helper()
	e := newEnvironment(t, environmentOptions{users: scaled(200, 1000), groups: 50})
	e.settings = e.settings.With(testenv.Settings{"upload.batch-size": "10", "thread-pool.size": "4", "ldap.page-size": "100",
		"sync.max-deletes-percent": "100"}) // the deletions between two completed runs add up
	daemon := e.settings.With(testenv.Settings{"service.cron-expression": "* * * * * *"})
	began := time.Now()
	run(t, e.settings, "sync").MustExit(t, 0)
	runTime := time.Since(began)
	e.mustMatchDirectory(t, "first run")

	directoryBytes := 0
	for _, n := range e.relay.bytes() {
		directoryBytes += n
	}
	points := e.killPoints(directoryBytes)
	e.random.Shuffle(len(points), func(i, j int) { points[i], points[j] = points[j], points[i] })
	killedAt, late, completed := map[string]int{}, 0, 1
	killed, reinstalled := 0, false
	for n := 0; killed < kills; n++ {
		if n == 3*kills {
			t.Fatalf("killed %d of %d processes, the others had ended before", killed, n)
		}
		point := killPoint{name: "random", after: time.Duration(e.random.Int64N(int64(runTime)/3) + 1)} // later runs are shorter than the first
		if n%2 == 0 {
			point = points[n/2%len(points)]
		}
		if n%20 == 19 {
			e.reinstall()
			reinstalled = true
		}
		e.mutate(60)
		c := command{settings: e.settings, args: []string{"sync"}}
		if e.random.IntN(4) == 0 || strings.HasPrefix(point.name, "at ") {
			c.args = append(c.args, "--full")
		}
		if n%3 == 0 {
			c.settings, c.args = daemon, nil
		}
		if e.kill(t, c, point) {
			kind, _, _ := strings.Cut(point.name, " ")
			killedAt[kind]++
			killed++
		} else {
			late++
			runTime = runTime/2 + 1
		}
		if e.random.IntN(2) == 0 && killed < kills {
			continue // kill the next run, too
		}
		completed++
		run(t, e.settings, "sync").MustExit(t, 0)
		if reinstalled {
			// Absence proves nothing before the first complete full sync. Deletions of that
			// time are found by the next full sync.
			run(t, e.settings, "sync", "--full").MustExit(t, 0)
			reinstalled = false
		}
		e.mustMatchDirectory(t, fmt.Sprintf("kill %d, %s", n+1, point.name))
	}
	accepted, deletions := e.monitor.counts()
	logResult(t, "%d kills (%v, %d too late), %d completed runs, gateway matches after each; %d objects accepted, %d of them deletions, none false; %s",
		kills, killedAt, late, completed, accepted, deletions, time.Since(began).Round(time.Millisecond))
}

// kill starts a connector and kills it at a point. It reports whether the connector was
// still running.
func (e *environment) kill(t *testing.T, c command, point killPoint) bool {
	t.Helper()
	started := make(chan *program.Process, 1)
	if point.arm != nil {
		c.onLine = point.arm(e, func() {
			p := <-started
			started <- p
			p.Kill()
		})
	}
	p := start(t, c)
	started <- p
	if point.after > 0 {
		select {
		case <-p.Ended:
		case <-time.After(point.after):
		}
	} else if _, _, found := p.Log.Await(0, testlog.Message(syncrun.MsgRunFinished), p.Ended); found {
		select { // a daemon may not reach the named point
		case <-p.Ended:
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.Kill()
	e.Gateway.SetFront(nil)
	e.relay.clear()
	o := p.Wait(t)
	if o.Code > 0 {
		t.Errorf("%s: exit code %d before the kill:\n%s", point.name, o.Code, o.Stderr)
	}
	return o.Code == -1
}
