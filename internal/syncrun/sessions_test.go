package syncrun

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
)

// newBackpressureEnv returns an environment in which any wait for the gateway counts as
// backpressure. Its n-th search for users is lost before the n-th of the given entries.
func newBackpressureEnv(t *testing.T, users int, lostAt ...int) *env {
	t.Helper()
	e := newLDAPEnv(t)
	e.ldap.Users, e.ldap.Groups = fakeldap.Users(users), fakeldap.Groups(5)
	e.options.Upload.Workers, e.options.Upload.BatchSize = 1, 10
	e.idleLimit = time.Nanosecond
	e.loseSearches(lostAt...)
	e.start()
	return e
}

// loseSearches makes the n-th search for users fail before the n-th of the given entries.
func (e *env) loseSearches(lostAt ...int) {
	var mu sync.Mutex
	e.ldap.BeforeEntry = func(n int) bool {
		mu.Lock()
		defer mu.Unlock()
		if len(lostAt) == 0 || n != lostAt[0] {
			return true
		}
		lostAt = lostAt[1:]
		return false
	}
}

func TestSearchRestartsAfterBackpressure(t *testing.T) {
	t.Parallel()
	e := newBackpressureEnv(t, 900, 400, 600, 850)
	name := fakeldap.User(220).Attributes["name"]
	e.gateway.SetFront(rejectAssetsWith(`"` + name + `"`))
	var p Progress
	run := e.run(RunOptions{Progress: &p}, state.Run{Mode: full, Result: Partial, Uploaded: 904, Rejected: 1})
	if read, acknowledged := p.Read.Load(), p.Acknowledged.Load(); read != 905 || acknowledged != 905 {
		t.Errorf("progress: %d read, %d acknowledged", read, acknowledged)
	}
	if run.Users != 900 || run.Groups != 5 || run.Changed != 905 {
		t.Errorf("run %+v", run)
	}
	if n := len(e.log.With(MsgSearchRestarted)); n != 3 {
		t.Errorf("%d restarts", n)
	}
	for _, identity := range e.gateway.Users() {
		if identity.Times != 1 {
			t.Errorf("%s was sent %d times", identity.ExternalAssetID, identity.Times)
		}
	}
	// 905 objects in batches of 10, a short batch for each search at each restart, and at
	// most 8 requests to find the rejected object in its batch.
	if requests := e.assetRequests(); requests > 91+2*3+8 {
		t.Errorf("%d requests", requests)
	}
}

func TestSkippedEntryIsLoggedOnceAfterRestart(t *testing.T) {
	t.Parallel()
	e := newBackpressureEnv(t, 900, 400)
	delete(e.ldap.Users[7].Attributes, "objectSid")
	if run := e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 904}); run.Skipped != 1 || run.Unreadable != 1 {
		t.Errorf("run %+v", run)
	}
	if skipped, restarts := len(e.log.With(MsgEntrySkipped)), len(e.log.With(MsgSearchRestarted)); skipped != 1 || restarts != 1 {
		t.Errorf("%d skipped entries logged, %d restarts", skipped, restarts)
	}
}

func TestRejectedObjectIsSentAgainAfterRestart(t *testing.T) {
	t.Parallel()
	e := newBackpressureEnv(t, 200)
	e.gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool {
		return strings.Contains(string(x.Body), `"user120"`) && x.Status(http.StatusBadRequest, "")
	}))
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 204, Rejected: 1})
	e.clock.Advance(time.Hour)
	e.ldap.Users[5].Attributes["title"] = "Chief"
	e.loseSearches(150)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Partial, Uploaded: 1, Rejected: 1})
	if n := len(e.log.With(MsgSearchRestarted)); n != 1 {
		t.Errorf("%d restarts", n)
	}
}

// A search is not restarted unless it gets further than the previous attempt.
func TestSearchWithoutProgressFailsRun(t *testing.T) {
	t.Parallel()
	e := newBackpressureEnv(t, 900, 400, 400)
	run, err := e.failedRun(RunOptions{})
	if fault.ClassOf(err) != fault.Transient || run.Uploaded < 300 {
		t.Errorf("run %+v, error %v", run, err)
	}
	if last, err := e.store.LastFullSync(); err != nil || last != (state.FullSync{}) {
		t.Errorf("last full sync %+v, error %v", last, err)
	}
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 905 - run.Uploaded})
}

// TestSearchEndsWithoutProgress checks that a search that is lost during backpressure is restarted only
// as long as each attempt gets further than all before it.
func TestSearchEndsWithoutProgress(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lostAfter []int // pages with one entry, of each attempt
		restarts  int
		lost      bool
		result    int // 0: the connection is closed
	}{
		"further each time": {[]int{1, 2, 3}, 3, false, 0},
		"as far":            {[]int{2, 2, 3}, 1, true, 0},
		"less far":          {[]int{1, 3, 2, 4}, 2, true, 0},
		"nothing":           {[]int{0, 1}, 0, true, 0},
		"partial result":    {[]int{1, 2}, 2, false, ldap.LDAPResultTimeLimitExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			attempt, page, restarts, flushes := 0, 0, 0, 0
			entry := fakeldap.NewEntry("CN=user,DC=example,DC=com")
			server := fakeldap.Serve(t, nil, fakeldap.DC1.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if page++; len(r.Cookie) == 0 {
					attempt, page = attempt+1, 1
				}
				switch {
				case attempt > len(c.lostAfter):
					return p.Send(fakeldap.Done(r.ID, 0, fakeldap.Paging("")))
				case page > c.lostAfter[attempt-1]:
					return c.result != 0 && p.Send(fakeldap.Done(r.ID, c.result))
				}
				return p.Send(entry.Message(r.ID), fakeldap.Done(r.ID, 0, fakeldap.Paging("more")))
			}))
			s := connectTo(t, time.Hour, server)
			_, err := s.search(t.Context(), directory.Search{Base: "DC=example,DC=com", Filter: "(objectClass=*)"},
				func(*ad.Entry) (time.Duration, error) { return s.idleLimit, nil },
				func() error { flushes++; return nil },
				func() error { restarts++; return nil })
			if (err != nil) != c.lost || restarts != c.restarts || flushes != restarts {
				t.Errorf("%d restarts, %d flushes, error %v", restarts, flushes, err)
			}
			if failed := s.failed.Load(); failed != c.lost {
				t.Errorf("the server has failed: %t", failed)
			}
		})
	}
}

func TestLostSearchWithoutBackpressureFailsRun(t *testing.T) {
	t.Parallel()
	e := newBackpressureEnv(t, 900, 400)
	e.runner.idleLimit = time.Hour
	if _, err := e.failedRun(RunOptions{}); fault.ClassOf(err) != fault.Transient {
		t.Errorf("error %v", err)
	}
	if lines := e.log.With(MsgSearchRestarted); len(lines) != 0 {
		t.Errorf("log %v", lines)
	}
}

func TestIdleSessionIsReplacedBeforeUse(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, 1)
	e.runner.idleLimit = time.Nanosecond // each session counts as idle
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	before := e.Counters().Binds
	e.deleteUsers(1)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Deleted: 1})
	// Both sessions, a reconnect of each before its search, and reconnects of the first one before
	// the search for tombstones and before the questions about rights: does a user show all
	// attributes, are there other users, and the same for groups.
	if binds := e.Counters().Binds - before; binds != 5+3+2 {
		t.Errorf("%d binds", binds)
	}
}

// TestReconnectClosesSession checks that the session that is replaced is closed: a server limits the
// number of connections.
func TestReconnectClosesSession(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 1)
	opened, err := directory.Connect(t.Context(), e.Directory.Options(directory.LDAP))
	e.must(err)
	s := &session{Session: opened}
	e.must(s.reconnect(t.Context()))
	defer s.Close()
	search := directory.Search{Base: e.user(0), Filter: "(objectClass=*)"}
	if found, err := s.Exists(t.Context(), search); err != nil || !found {
		t.Errorf("found %t, error %v", found, err)
	}
	if _, err := opened.Exists(t.Context(), search); err == nil {
		t.Error("the former session is open")
	}
}

// connectTo connects a session, as a run does.
func connectTo(t *testing.T, idleLimit time.Duration, servers ...*fakeldap.Listener) *session {
	t.Helper()
	o := directory.Options{
		Port: servers[0].Port, BindDN: fakeldap.BindDN, Password: secret.New(fakeldap.Password),
		OnRequest: func(string, fault.Class, time.Duration) {},
	}
	for _, server := range servers {
		o.Hosts = append(o.Hosts, server.Host)
	}
	s, err := connect(t.Context(), Source{Directory: o}, idleLimit, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// connectMovable connects a session to an address that leads to another domain controller while
// moved is set.
func connectMovable(t *testing.T) (s *session, moved *atomic.Bool) {
	t.Helper()
	first, second := fakeldap.DC1, fakeldap.DC1
	first.InvocationID, second.InvocationID = strings.Repeat("a", 16), strings.Repeat("b", 16)
	moved = &atomic.Bool{}
	server := fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
		if moved.Load() {
			second.Script(nil)(p)
			return
		}
		first.Script(nil)(p)
	})
	return connectTo(t, 0, server), moved
}

// TestIdleSessionBehindLoadBalancer checks that an idle session is used on if the address leads
// to another domain controller by then.
func TestIdleSessionBehindLoadBalancer(t *testing.T) {
	t.Parallel()
	s, moved := connectMovable(t)
	opened := s.Session
	moved.Store(true)
	if err := s.reconnectIfIdle(t.Context()); err != nil || s.Session != opened {
		t.Errorf("error %v, same session %t", err, s.Session == opened)
	}
	if _, err := s.Read(t.Context(), "", "dnsHostName"); err != nil {
		t.Errorf("session unusable: %v", err)
	}
	moved.Store(false)
	if err := s.reconnectIfIdle(t.Context()); err != nil || s.Session == opened {
		t.Errorf("error %v, same session %t", err, s.Session == opened)
	}
}

// TestRunSequentially checks that two functions run one after the other in the same session if
// there is no second one, and that the first error ends them.
func TestRunSequentially(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	for name, c := range map[string]struct {
		first, second, want error
		calls               string
	}{
		"no error":        {nil, nil, nil, "first second"},
		"error of first":  {failed, nil, failed, "first"},
		"error of second": {nil, failed, failed, "first second"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, moved := connectMovable(t)
			moved.Store(true) // a second session would be on the other domain controller
			var calls []string
			call := func(name string, result error) func(context.Context, *session) error {
				return func(_ context.Context, in *session) error {
					if in != s {
						t.Errorf("%s: in another session", name)
					}
					calls = append(calls, name)
					return result
				}
			}
			err := s.runConcurrently(t.Context(), call("first", c.first), call("second", c.second))
			if !errors.Is(err, c.want) || strings.Join(calls, " ") != c.calls {
				t.Errorf("calls %v, error %v", calls, err)
			}
			if s.failed.Load() {
				t.Error("the refused second session counts as a failure of the server")
			}
		})
	}
}

// TestServerWithOneSession checks that a second session that the server does not open is no failure of
// the server, and that an earlier failure of it is not forgotten.
func TestServerWithOneSession(t *testing.T) {
	t.Parallel()
	for _, failed := range []bool{false, true} {
		var connections atomic.Int32
		s := connectTo(t, time.Hour, fakeldap.Serve(t, nil, func(p *fakeldap.Peer) {
			if connections.Add(1) == 1 { // others are closed
				fakeldap.DC1.Script(nil)(p)
			}
		}))
		s.failed.Store(failed)
		calls := 0
		call := func(context.Context, *session) error { calls++; return nil }
		if err := s.runConcurrently(t.Context(), call, call); err != nil || calls != 2 || s.failed.Load() != failed {
			t.Errorf("%d calls, error %v, the server has failed: %t, before: %t", calls, err, s.failed.Load(), failed)
		}
	}
}

// TestUnreachedServerHasNotFailed checks that the failure of another server does not count for the one
// to which a session was opened.
func TestUnreachedServerHasNotFailed(t *testing.T) {
	t.Parallel()
	second := fakeldap.Serve(t, nil, fakeldap.DC1.Script(nil))
	first := fakeldap.ServeAt(t, net.JoinHostPort("127.0.0.2", strconv.Itoa(second.Port)), func(*fakeldap.Peer) {}) // closes each connection
	s := connectTo(t, time.Hour, first, second)
	if len(s.Unreached) != 1 || s.failed.Load() {
		t.Errorf("unreached %v, the server has failed: %t", s.Unreached, s.failed.Load())
	}
}

// TestRunConcurrently checks that an error of one of two functions is returned, and that it cancels
// the other one, which can use its session until it returns.
func TestRunConcurrently(t *testing.T) {
	t.Parallel()
	s, _ := connectMovable(t)
	failed := errors.New("failed")
	started := make(chan struct{}, 1)
	ended := false
	succeed := func(context.Context, *session) error { return nil }
	fail := func(context.Context, *session) error { return failed }
	failLate := func(context.Context, *session) error {
		<-started
		return failed
	}
	block := func(ctx context.Context, in *session) error {
		started <- struct{}{}
		<-ctx.Done()
		_, err := in.Read(t.Context(), "", "dnsHostName")
		ended = err == nil
		return err
	}
	for _, c := range []struct { // each can block if the code fails the cases before it
		name          string
		first, second func(context.Context, *session) error
		want          error
		blocks        bool
	}{
		{"no error", succeed, succeed, nil, false},
		{"error of first", fail, succeed, failed, false},
		{"error of second", succeed, fail, failed, false},
		{"error of first, second canceled", failLate, block, failed, true},
		{"error of second, first canceled", block, failLate, failed, true},
	} {
		ended = false
		err := s.runConcurrently(t.Context(), c.first, c.second)
		if !errors.Is(err, c.want) || ended != c.blocks {
			t.Fatalf("%s: error %v, ended with a usable session %t", c.name, err, ended)
		}
	}
}
