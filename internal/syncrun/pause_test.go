package syncrun

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/secret"
	"adconnector/internal/state"
)

func TestPauseAfter(t *testing.T) {
	t.Parallel()
	for refusals, want := range map[int]time.Duration{
		1: 14 * time.Minute, 2: 29 * time.Minute, 3: 59 * time.Minute, 4: 59 * time.Minute, 1000: 59 * time.Minute,
	} {
		if got := pauseAfter(refusals); got != want {
			t.Errorf("after %d: %s, want %s", refusals, got, want)
		}
	}
}

// TestBindsInObservationWindow checks that an account with a lockout threshold of three in
// half an hour is not locked by any schedule.
func TestBindsInObservationWindow(t *testing.T) {
	t.Parallel()
	refused := fault.Operation{Op: "bind"}.Failed(fault.Refused, directory.ErrInvalidCredentials, "")
	for _, interval := range []time.Duration{time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute, 15 * time.Minute, time.Hour} {
		var pause BindPause
		var binds []time.Time
		start := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
		for now := start; now.Sub(start) < 12*time.Hour; now = now.Add(interval) {
			if _, err := pause.check(accountHash{1}, now); err != nil {
				continue
			}
			binds = append(binds, now)
			pause.refuse(refused, now)
		}
		for i := 2; i < len(binds); i++ {
			if window := binds[i].Sub(binds[i-2]); window < 30*time.Minute {
				t.Errorf("every %s: three binds in %s", interval, window)
			}
		}
		if len(binds) < 11 {
			t.Errorf("every %s: %d binds in 12 hours", interval, len(binds))
		}
	}
}

func TestBindPause(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	refused := fault.Operation{Op: "bind", Object: "CN=svc to dc1:389"}.Failed(fault.Refused, directory.ErrInvalidCredentials, "correct it")
	first, second := accountHash{1}, accountHash{2}
	for _, c := range []struct {
		name     string
		refusals int // at start
		account  accountHash
		after    time.Duration
		resumed  string
		paused   bool
	}{
		{"nothing refused", 0, first, 0, "", false},
		{"at once", 1, first, 0, "", true},
		{"shortly before the end", 1, first, 14*time.Minute - time.Second, "", true},
		{"at the end", 1, first, 14 * time.Minute, ResumedTime, false},
		{"second pause", 2, first, 28 * time.Minute, "", true},
		{"at the end of the second pause", 2, first, 29 * time.Minute, ResumedTime, false},
		{"another account", 3, second, time.Second, ResumedAccount, false},
		{"clock put back", 1, first, -time.Second, ResumedTime, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var pause BindPause
			if _, err := pause.check(first, start); err != nil {
				t.Fatal(err)
			}
			for range c.refusals {
				pause.refuse(refused, start)
			}
			until, refusals := pause.Active(start.Add(c.after))
			if active := !until.IsZero(); active != (c.paused || c.account != first) || active && refusals != c.refusals {
				t.Errorf("until %s after %d", until, refusals)
			}
			resumed, err := pause.check(c.account, start.Add(c.after))
			if resumed != c.resumed || (err != nil) != c.paused {
				t.Fatalf("resumed %q, error %v", resumed, err)
			}
			if err == nil {
				return
			}
			after := map[int]string{1: ", after a refused bind: ", 2: ", after 2 refused binds in a row: "}[c.refusals]
			failed, is := errors.AsType[*fault.Error](err)
			if !is || !strings.Contains(err.Error(), after) || failed.Class != fault.Refused || failed.Op != "bind" || failed.Object != "CN=svc to dc1:389" || !errors.Is(err, directory.ErrBindRefused) ||
				!strings.Contains(err.Error(), until.Format(time.RFC3339)) || !strings.Contains(fault.Remedy(err), "correct it; ") || !strings.Contains(fault.Remedy(err), "restart") {
				t.Errorf("error %v, remedy %s", err, fault.Remedy(err))
			}
		})
	}
}

func TestHashAccount(t *testing.T) {
	t.Parallel()
	o := directory.Options{Protocol: directory.LDAP, Hosts: []string{"dc1", "dc2"}, BindDN: "CN=svc", Password: secret.New("old")}
	same := o
	same.Preferred, same.PageSize, same.PreferFastest = directory.Controller{Host: "dc2"}, 10, true
	if hashAccount(o) != hashAccount(same) {
		t.Error("another controller counts as another account")
	}
	for name, change := range map[string]func(*directory.Options){
		"password":    func(o *directory.Options) { o.Password = secret.New("new") },
		"bind DN":     func(o *directory.Options) { o.BindDN = "CN=other" },
		"host":        func(o *directory.Options) { o.Hosts = []string{"dc1"} },
		"port":        func(o *directory.Options) { o.Port = 3890 },
		"protocol":    func(o *directory.Options) { o.Protocol = directory.LDAPS },
		"server name": func(o *directory.Options) { o.ServerName = "dc1.corp.test" },
	} {
		other := o
		change(&other)
		if hashAccount(o) == hashAccount(other) {
			t.Errorf("%s has no effect", name)
		}
	}
}

// TestRefusedBindsPause checks that a daemon does not repeat a refused bind until something has
// changed or a growing pause is over.
func TestRefusedBindsPause(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	e.options.NextRun = func(after time.Time) time.Time { return after.Add(time.Minute) }
	e.start()
	expectFailure := func(binds int) {
		t.Helper()
		run, err := e.failedRun(RunOptions{})
		if fault.ClassOf(err) != fault.Refused || run.Class != string(fault.Refused) || !errors.Is(err, directory.ErrInvalidCredentials) {
			t.Errorf("class %s, error %v", run.Class, err)
		}
		if got := e.Counters().FailedBinds; got != binds {
			t.Fatalf("%d refused binds, want %d (error %v)", got, binds, err)
		}
		states := e.gateway.States()
		if last := states[len(states)-1]; last.State != stateScheduled || last.Error == nil || !strings.Contains(*last.Error, "wrong password") {
			t.Errorf("state at the gateway %+v", last)
		}
	}
	wrong := func(a *gatewayserver.Authentication) { a.Password = "wrong" }
	e.gateway.SetConnection(e.connection(wrong))
	expectFailure(1)
	expectFailure(1)
	e.clock.Advance(14 * time.Minute)
	expectFailure(2)
	e.clock.Advance(14 * time.Minute)
	expectFailure(2)
	if until, refusals := e.runner.BindPause.Active(e.clock.Now()); refusals != 2 || until.Sub(e.clock.Now()) != 15*time.Minute {
		t.Errorf("paused until %s after %d", until, refusals)
	}

	// Another wrong password is another account: the pause begins again.
	e.gateway.SetConnection(e.connection(func(a *gatewayserver.Authentication) { a.Password = "wrong too" }))
	expectFailure(3)
	expectFailure(3)
	e.clock.Advance(14 * time.Minute)
	expectFailure(4)

	// The right password ends it, and an accepted bind resets it.
	e.setConsole()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3})
	if _, refusals := e.runner.BindPause.Active(e.clock.Now()); refusals != 0 {
		t.Errorf("paused after %d", refusals)
	}
	e.must(e.SetPassword(e.BindDN(), "rotated"))
	expectFailure(5)
	e.clock.Advance(14 * time.Minute)
	expectFailure(6)
	e.clock.Advance(14 * time.Minute)
	expectFailure(6)

	// The same password, after it was corrected in the directory.
	e.must(e.SetPassword(e.BindDN(), e.auth.Password))
	expectFailure(6)
	e.clock.Advance(15 * time.Minute)
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})

	paused, resumed := e.log.With(MsgBindPaused), e.log.With(MsgBindResumed)
	if len(paused) != 6 || paused[1].Number("attempt") != 2 || paused[1].Text("until") == "" || paused[1].Text("remedy") == "" {
		t.Errorf("pauses %v", paused)
	}
	var reasons []string
	for _, line := range resumed {
		reasons = append(reasons, line.Text("reason"))
	}
	if want := []string{ResumedTime, ResumedAccount, ResumedTime, ResumedAccount, ResumedTime, ResumedTime}; strings.Join(reasons, ", ") != strings.Join(want, ", ") {
		t.Errorf("resumed %q", reasons)
	}
	for n, line := range e.log.With(MsgRunFinished) {
		if line.Text("class") == string(fault.Refused) && line.Text("remedy") == "" {
			t.Errorf("run %d: %v", n, line)
		}
	}
}

// TestRestartEndsBindPause checks that the pause is in memory only.
func TestRestartEndsBindPause(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 1)
	e.gateway.SetConnection(e.connection(func(a *gatewayserver.Authentication) { a.Password = "wrong" }))
	for restart := range 2 {
		e.failedRun(RunOptions{})
		e.failedRun(RunOptions{})
		if got := e.Counters().FailedBinds; got != restart+1 {
			t.Errorf("%d refused binds", got)
		}
		e.restart()
	}
	if lines := e.log.With(MsgBindPaused); len(lines) != 0 {
		t.Errorf("pause of a single run in the log: %v", lines)
	}
}

// TestRefusedSecondSession checks that a run whose second session is refused with wrong credentials
// ends, because each further session would be refused too.
func TestRefusedSecondSession(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 3)
	rotate := sync.OnceFunc(func() { e.must(e.SetPassword(e.BindDN(), "rotated")) })
	e.OnAnswer(func([]byte) { rotate() })
	_, err := e.failedRun(RunOptions{})
	if !errors.Is(err, directory.ErrInvalidCredentials) || e.Counters().FailedBinds != 1 {
		t.Errorf("%d refused binds, error %v", e.Counters().FailedBinds, err)
	}
	if _, refusals := e.runner.BindPause.Active(e.clock.Now()); refusals != 1 {
		t.Errorf("paused after %d", refusals)
	}
	e.failedRun(RunOptions{})
	if n := e.Counters().FailedBinds; n != 1 {
		t.Errorf("%d refused binds after the next run", n)
	}
}
