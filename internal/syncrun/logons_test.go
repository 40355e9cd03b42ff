package syncrun

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
	"adconnector/test/testenv"
)

// logonDomain is an environment whose full syncs ask the peers of the controller that is read. All
// have the same users.
type logonDomain struct {
	*env
	peers []*testenv.Directory // dc2, dc3, and so on
}

func newLogonDomain(t *testing.T, users, peers int) *logonDomain {
	t.Helper()
	d := &logonDomain{env: newDomainEnv(t, domaincontroller.Options{ReadsDeleted: true}, users)}
	for n := range peers {
		d.addPeer(domaincontroller.Options{Name: fmt.Sprintf("dc%d", n+2), Now: d.clock.Now}, users)
	}
	d.options.LastLogon = LastLogonAllControllers
	d.start()
	return d
}

// addPeer adds a controller.
func (d *logonDomain) addPeer(o domaincontroller.Options, users int) *testenv.Directory {
	d.t.Helper()
	peer := d.NewPeer(d.nextHost(), o)
	addUnits(peer)
	for n := range users {
		peer.AddUser(d.user(n))
	}
	d.peers = append(d.peers, peer)
	return peer
}

// nextHost returns the address of the next controller.
func (d *logonDomain) nextHost() string { return "127.0.0." + strconv.Itoa(2+len(d.peers)) }

// addFake lists a controller that is not there, and returns its listener. With a script,
// it is served.
func (d *logonDomain) addFake(script func(fakeldap.Controller) func(*fakeldap.Peer)) *fakeldap.Listener {
	d.t.Helper()
	host := d.nextHost()
	peer := domaincontroller.New(domaincontroller.Options{Name: fmt.Sprintf("dc%d", len(d.peers)+2), Host: host, Now: d.clock.Now})
	d.must(d.AddPeer(peer))
	d.peers = append(d.peers, nil)
	c := fakeldap.Controller{DNSHostName: host, RootDSE: [][]string{{"currentTime", "20260302100000.0Z"}}}
	for _, o := range peer.Objects("invocationId") {
		if id := o.First("invocationId"); id != "" {
			c.ServiceName, c.InvocationID = o.DN, id
		}
	}
	if script == nil {
		return nil
	}
	return fakeldap.ServeAt(d.t, host+":"+strconv.Itoa(d.Port), script(c))
}

// ago returns a time before now.
func (d *logonDomain) ago(age time.Duration) time.Time {
	return d.clock.Now().Add(-age).Truncate(time.Millisecond)
}

func (d *logonDomain) guid(n int) ad.GUID { return d.GUID(d.user(n)) }

// fullSync performs a full sync.
func (d *logonDomain) fullSync(uploaded int) {
	d.t.Helper()
	d.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: uploaded})
}

// hideControllers hides attributes of the domain controllers from the account. Without attributes, it
// makes them visible again.
func (d *logonDomain) hideControllers(attributes ...string) {
	d.t.Helper()
	for _, o := range d.Objects("invocationId") {
		if o.First("invocationId") != "" {
			d.must(d.Hide(o.DN, attributes...))
		}
	}
}

// expectFailed expects the values of failed logons of a user.
func (d *logonDomain) expectFailed(n int, at time.Time, count int) {
	d.t.Helper()
	asset, want := d.asset(d.guid(n)), ""
	if !at.IsZero() {
		want = at.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	got, _ := asset["lastFailedPasswordAttemptAt"].(string)
	if number, _ := asset["failedPasswordAttemptCount"].(float64); got != want || int(number) != count {
		d.t.Errorf("user %d: failed at %q, count %v; want %q, %d", n, got, number, want, count)
	}
}

// sweep returns what is recorded of the controllers, by host.
func (d *logonDomain) sweep() map[string]state.LogonController {
	d.t.Helper()
	sweep, err := d.store.LogonSweep()
	d.must(err)
	controllers := map[string]state.LogonController{}
	for _, c := range sweep.Controllers {
		controllers[c.Host] = c
	}
	return controllers
}

// expectResult expects the result of a controller in the state file.
func (d *logonDomain) expectResult(host string, want state.LogonResult) {
	d.t.Helper()
	c := d.sweep()[host]
	if c.Result != want || (c.Error == "") != (want == state.LogonsAnswered) || (c.Remedy == "") != (want == state.LogonsAnswered) {
		d.t.Errorf("%s: %+v, want %s", host, c, want)
	}
}

// The values of all controllers are merged, and the number of failed attempts is that of the PDC
// emulator. A controller that was asked before returns only what is new.
func TestLogonsOfAllControllers(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 2)
	a, b, c := d.Directory, d.peers[0], d.peers[1]
	for _, o := range []*testenv.Directory{a, b, c} {
		o.SetPDCEmulator("dc2")
	}
	old, late := d.ago(48*time.Hour), d.ago(2*time.Hour)
	d.logOn(a, 0, "lastLogon", old)
	d.logOn(b, 0, "lastLogon", late)
	d.logOn(a, 1, "lastLogon", late)
	d.logOn(c, 1, "lastLogon", old)
	d.logOn(c, 2, "lastLogon", late)
	d.logOn(c, 3, "badPasswordTime", late)
	d.must(a.Modify(d.user(3), "badPwdCount", "7"))
	d.must(b.Modify(d.user(3), "badPwdCount", "2"))
	d.must(a.Modify(d.user(4), "badPwdCount", "7"))
	d.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	for n := range 3 {
		d.expectLastLogon(d.guid(n), late)
	}
	d.expectFailed(3, late, 2)
	d.expectFailed(4, time.Time{}, 0)
	for _, host := range []string{"127.0.0.2", "127.0.0.3"} {
		d.expectResult(host, state.LogonsAnswered)
	}
	if c := d.sweep()["127.0.0.2"]; !c.PDCEmulator || c.InvocationID != b.InvocationID() || c.AskedUntil.IsZero() {
		t.Errorf("recorded %+v", c)
	}

	d.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	before := c.Counters().Entries
	d.fullSync(0)
	overhead := c.Counters().Entries - before // without new logons
	d.clock.Advance(24 * time.Hour)
	d.logOn(c, 5, "lastLogon", d.ago(time.Hour))
	before = c.Counters().Entries
	d.fullSync(1)
	d.expectLastLogon(d.guid(5), d.ago(time.Hour))
	if entries := c.Counters().Entries - before; entries != overhead+1 {
		t.Errorf("%d entries for one logon, %d for none", entries, overhead)
	}
	if lines := d.log.With(MsgLogonsRead); len(lines) != 3 || lines[2].Number("controllers") != 2 || lines[2].Number("answered") != 2 || lines[2].Number("objects") != 1 {
		t.Errorf("log %v", lines)
	}
	if lines := d.log.With(MsgLogonsMissing); len(lines) != 0 {
		t.Errorf("log %v", lines)
	}
}

// If the controller that is read is the PDC emulator, its entries have the numbers. If the PDC
// emulator does not answer, the numbers stay.
func TestNumberOfFailedAttempts(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	a, b := d.Directory, d.peers[0]
	d.must(a.Modify(d.user(1), "badPwdCount", "1"))
	d.must(b.Modify(d.user(1), "badPwdCount", "2"))
	d.fullSync(20)
	d.expectFailed(1, time.Time{}, 1)
	a.SetPDCEmulator("dc2")
	d.fullSync(1)
	d.expectFailed(1, time.Time{}, 2)
	d.must(b.SetPassword(b.BindDN(), "other"))
	d.fullSync(0)
	d.expectResult("127.0.0.2", state.LogonsRefused)
	d.expectFailed(1, time.Time{}, 2)
	d.must(b.SetPassword(b.BindDN(), b.Password))
	d.clock.Advance(pauseAfter(1))
	d.clock.Advance(pauseAfter(1))
	d.must(b.Modify(d.user(1), "badPwdCount", "-1")) // no number of attempts
	d.fullSync(0)
	d.expectFailed(1, time.Time{}, 2)
	d.must(b.Modify(d.user(1), "badPwdCount"))
	d.fullSync(1)
	d.expectFailed(1, time.Time{}, 0)
	a.SetPDCEmulator("dc1")
	d.fullSync(1)
	d.expectFailed(1, time.Time{}, 1)
}

// TestPendingLogons checks which objects a sweep records to ask for again: each once, and none if they are
// too many, because the next sweep then asks for all.
func TestPendingLogons(t *testing.T) {
	t.Parallel()
	guid := func(n int) ad.GUID { return ad.GUID{byte(n >> 8), byte(n)} }
	for name, c := range map[string]struct {
		unsettled int
		missing   []ad.GUID
		want      int // -1: all are asked for
	}{
		"unsettled":          {2, nil, 2},
		"missing":            {0, []ad.GUID{guid(1)}, 1},
		"both are one":       {2, []ad.GUID{guid(1)}, 2},
		"limit":              {maxPendingLogons, []ad.GUID{guid(1)}, maxPendingLogons},
		"too many unsettled": {maxPendingLogons + 1, nil, -1},
		"too many of both":   {maxPendingLogons, []ad.GUID{guid(maxPendingLogons)}, -1},
	} {
		at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
		sweep := logonSweep{newLogonTable(maxPendingLogons + 1), &state.LogonSweep{Controllers: []state.LogonController{{AskedUntil: at}}}}
		for n := range c.unsettled {
			if err := sweep.table.add(guid(n), identity.Logons{Last: 1}); err != nil {
				t.Fatal(err)
			}
		}
		record := sweep.finish(c.missing)
		if all := c.want < 0; len(record.Pending) != max(c.want, 0) || record.Controllers[0].AskedUntil.IsZero() != all {
			t.Errorf("%s: %d pending, asked until %v", name, len(record.Pending), record.Controllers[0].AskedUntil)
		}
	}
}

// TestAskedUntil checks until when the logons of a domain controller are known.
func TestAskedUntil(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		clock time.Time
		id    ad.InvocationID
		want  time.Time
	}{
		"clock behind":     {now.Add(-time.Minute), ad.InvocationID{1}, now.Add(-time.Minute)},
		"clock ahead":      {now.Add(time.Hour), ad.InvocationID{1}, now},
		"no clock":         {time.Time{}, ad.InvocationID{1}, time.Time{}},
		"no invocation ID": {now, ad.InvocationID{}, time.Time{}},
	} {
		s := &directory.Session{}
		s.RootDSE.CurrentTime, s.Controller.InvocationID = c.clock, c.id
		if got := askedUntil(s, now); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// endless sends accounts without end. Their GUIDs are random.
func endless(p *fakeldap.Peer, r fakeldap.Request) bool {
	for {
		guid := make([]byte, 16)
		_, _ = rand.Read(guid)
		if !p.Send(fakeldap.NewEntry("CN=x,DC=corp,DC=example,DC=com", []string{"objectGUID", string(guid)}, []string{"lastLogon", "1"}).Message(r.ID)) {
			return false
		}
	}
}

// A controller that does not answer makes no run fail, lowers no value, and is logged once until its
// result changes. It is asked again for what it has not returned.
func TestControllerWithoutAnswer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		script func(*logonDomain, fakeldap.Controller) func(*fakeldap.Peer)
		want   state.LogonResult
	}{
		"down": {nil, state.LogonsUnreachable},
		"hanging": {func(*logonDomain, fakeldap.Controller) func(*fakeldap.Peer) {
			return func(p *fakeldap.Peer) { p.Hang() }
		}, state.LogonsSlow},
		"hanging search": {func(_ *logonDomain, c fakeldap.Controller) func(*fakeldap.Peer) {
			return c.Script(func(p *fakeldap.Peer, _ fakeldap.Request) bool { p.Hang(); return false })
		}, state.LogonsSlow},
		"busy": {func(_ *logonDomain, c fakeldap.Controller) func(*fakeldap.Peer) {
			return c.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool { return p.Send(fakeldap.Done(r.ID, 51)) })
		}, state.LogonsIncomplete},
		"search refused": {func(_ *logonDomain, c fakeldap.Controller) func(*fakeldap.Peer) {
			return c.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool { return p.Send(fakeldap.Done(r.ID, 50)) })
		}, state.LogonsRefused},
		"base missing": {func(_ *logonDomain, c fakeldap.Controller) func(*fakeldap.Peer) {
			return c.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool { return p.Send(fakeldap.Done(r.ID, 32)) })
		}, state.LogonsIncomplete},
		"another controller": {func(_ *logonDomain, c fakeldap.Controller) func(*fakeldap.Peer) {
			c.ServiceName = "CN=NTDS Settings,CN=OTHER"
			return c.Script(nil)
		}, state.LogonsUnreachable},
		"another database": {func(_ *logonDomain, c fakeldap.Controller) func(*fakeldap.Peer) {
			c.InvocationID = strings.Repeat("x", 16)
			return c.Script(nil)
		}, state.LogonsUnreachable},
		"endless": {func(_ *logonDomain, c fakeldap.Controller) func(*fakeldap.Peer) {
			return c.Script(endless)
		}, state.LogonsIncomplete},
		"not LDAP": {func(*logonDomain, fakeldap.Controller) func(*fakeldap.Peer) {
			return func(p *fakeldap.Peer) { p.Send([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }
		}, state.LogonsUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newLogonDomain(t, 20, 0)
			if test.want == state.LogonsSlow {
				d.runner.peerTimeouts = peerTimeouts{time.Second, time.Second}
			}
			d.runner.maxObjects.tracked = 1000
			known := d.ago(time.Hour)
			d.logOn(d.Directory, 1, "lastLogon", known)
			host := d.nextHost()
			var serve func(fakeldap.Controller) func(*fakeldap.Peer)
			if test.script != nil {
				serve = func(c fakeldap.Controller) func(*fakeldap.Peer) { return test.script(d, c) }
			}
			d.addFake(serve)
			d.fullSync(20)
			d.expectResult(host, test.want)
			d.must(d.Modify(d.user(1), "lastLogon"))
			d.fullSync(0)
			d.expectResult(host, test.want)
			d.expectLastLogon(d.guid(1), known)
			if c := d.sweep()[host]; !c.AskedUntil.IsZero() || !c.At.Equal(d.clock.Now()) {
				t.Errorf("recorded %+v", c)
			}
			lines := d.log.With(MsgLogonsMissing)
			if len(lines) != 1 || lines[0].Text("level") != "warn" || lines[0].Text("dc") != host || lines[0].Text("result") != string(test.want) ||
				lines[0].Text("error") == "" || lines[0].Text("remedy") == "" {
				t.Errorf("log %v", lines)
			}
			if lines := d.log.With(MsgLogonsRead); len(lines) != 2 || lines[1].Number("controllers") != 1 || lines[1].Number("answered") != 0 {
				t.Errorf("log %v", lines)
			}
		})
	}
}

// After a refused bind, no other controller is asked: it would count toward the account's lockout.
func TestRefusedBindIsNotRepeated(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 6)
	for _, peer := range d.peers {
		d.must(peer.SetPassword(peer.BindDN(), "other"))
	}
	d.fullSync(20)
	failed := 0
	for _, peer := range d.peers {
		failed += peer.Counters().FailedBinds
	}
	if failed != 1 {
		t.Errorf("%d refused binds", failed)
	}
	results := map[state.LogonResult]int{}
	for _, c := range d.sweep() {
		results[c.Result]++
	}
	if results[state.LogonsRefused] != 1 || results[state.LogonsNotAsked] != 5 {
		t.Errorf("results %v", results)
	}
	d.fullSync(0) // during the pause
	for _, c := range d.sweep() {
		if c.Result != state.LogonsNotAsked || !strings.Contains(c.Remedy, "ends the pause") {
			t.Errorf("during the pause: %+v", c)
		}
	}
	for _, peer := range d.peers {
		d.must(peer.SetPassword(peer.BindDN(), peer.Password))
	}
	d.logOn(d.peers[5], 1, "lastLogon", d.ago(time.Hour))
	d.clock.Advance(pauseAfter(1))
	d.fullSync(1)
	for host := range d.sweep() {
		d.expectResult(host, state.LogonsAnswered)
	}
}

// Binds are sequential, although the controllers are asked at the same time.
func TestSequentialBinds(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 0)
	var asking sync.WaitGroup
	asking.Add(maxAsked)
	var binds atomic.Int32
	for range maxAsked {
		d.addFake(func(c fakeldap.Controller) func(*fakeldap.Peer) {
			return func(p *fakeldap.Peer) {
				for r, ok := p.Receive(); ok; r, ok = p.Receive() {
					if r.Operation == fakeldap.Search {
						p.Send(c.EncodeRootDSE(r.ID), fakeldap.Done(r.ID, 0))
						asking.Done()
						continue
					}
					binds.Add(1)
					asking.Wait() // until all are connected
					p.Send(fakeldap.Result(r.ID, 1, 49, "", ""))
				}
			}
		})
	}
	d.fullSync(20)
	if n := binds.Load(); n != 1 {
		t.Errorf("%d binds", n)
	}
}

// With a pinned certificate, only its controller can be reached.
func TestCertificateOfOtherController(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 2)
	d.auth = d.Authentication("LDAPS")
	d.auth.Certificate += string(d.peers[0].CertificatePEM())
	d.setConsole()
	d.logOn(d.peers[0], 1, "lastLogon", d.ago(time.Hour))
	d.fullSync(20)
	d.expectLastLogon(d.guid(1), d.ago(time.Hour))
	d.expectResult("127.0.0.2", state.LogonsAnswered)
	d.expectResult("127.0.0.3", state.LogonsCertificate)
	if n := d.peers[1].Counters().Binds; n != 0 {
		t.Errorf("%d binds", n)
	}
}

// cutScript returns a script that returns one user per page, and closes the connection after the
// first page while cut is set.
func cutScript(c fakeldap.Controller, cut *atomic.Bool, users []ad.GUID, at time.Time) func(*fakeldap.Peer) {
	var pages [][]fakeldap.RawEntry
	for _, guid := range users {
		pages = append(pages, []fakeldap.RawEntry{fakeldap.NewEntry("CN=x", []string{"objectGUID", string(guid[:])}, []string{"lastLogon", fileTime(at)})})
	}
	return c.Script(func(p *fakeldap.Peer, r fakeldap.Request) bool {
		if len(r.Cookie) > 0 && cut.Load() {
			return false
		}
		return fakeldap.Pages(pages...)(p, r)
	})
}

// What a controller returned before it failed counts. It is asked again from the earlier time.
func TestCutAnswerOfController(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 0)
	late, host := d.ago(time.Hour), d.nextHost()
	var cut atomic.Bool
	cut.Store(true)
	d.addFake(func(c fakeldap.Controller) func(*fakeldap.Peer) {
		return cutScript(c, &cut, []ad.GUID{d.guid(1), d.guid(2)}, late)
	})
	d.fullSync(20)
	d.expectResult(host, state.LogonsIncomplete)
	d.expectLastLogon(d.guid(1), late)
	if got := d.lastLogon(d.guid(2)); got != "" || !d.sweep()[host].AskedUntil.IsZero() {
		t.Errorf("last logon %s, recorded %+v", got, d.sweep()[host])
	}
	cut.Store(false)
	d.fullSync(1)
	d.expectResult(host, state.LogonsAnswered)
	d.expectLastLogon(d.guid(2), late)
	if d.sweep()[host].AskedUntil.IsZero() {
		t.Errorf("recorded %+v", d.sweep()[host])
	}
}

// A failed run records nothing: the next one asks for the same logons.
func TestLogonsAfterFailedRun(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	d.fullSync(20)
	d.clock.Advance(24 * time.Hour)
	late := d.ago(2 * time.Hour)
	d.logOn(d.peers[0], 1, "lastLogon", late)
	asked := d.sweep()["127.0.0.2"].AskedUntil
	d.refusedRun(RunOptions{Full: true})
	if got := d.sweep()["127.0.0.2"].AskedUntil; !got.Equal(asked) {
		t.Errorf("asked until %s, want %s", got, asked)
	}
	d.clock.Advance(24 * time.Hour)
	d.fullSync(1)
	d.expectLastLogon(d.guid(1), late)
}

// A controller is asked for all logons if what was returned before is in doubt. The logon is earlier
// than the last question.
func TestAllLogonsAskedAgain(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(d *logonDomain)
		found  bool
	}{
		"nothing changed": {func(*logonDomain) {}, false},
		"controller restored": {func(d *logonDomain) {
			d.peers[0].Restore(domaincontroller.Restoration{})
			d.must(d.AddPeer(d.peers[0].Server))
		}, true},
		"scope changed": {func(d *logonDomain) {
			d.options.Search.UserFilter = "(mail=*)"
			d.start()
		}, true},
		"another scope in between": {func(d *logonDomain) {
			d.hideControllers("objectClass") // so that no controller was asked
			d.options.Search.UserFilter = "(mail=user2@*)"
			d.start()
			if _, err := d.runner.Run(d.t.Context(), RunOptions{Full: true}); err != nil {
				d.t.Error(err)
			}
			d.hideControllers()
			d.options.Search.UserFilter = ""
			d.start()
		}, true},
		"target changed": {func(d *logonDomain) {
			d.options.Target = "other"
			d.start()
		}, true},
		"state lost": {func(d *logonDomain) {
			d.must(d.store.Close())
			d.stateDir = d.t.TempDir()
			store, err := state.Options{NoSync: true}.Open(d.stateDir)
			d.must(err)
			d.store = store
			d.start()
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newLogonDomain(t, 20, 1)
			d.fullSync(20)
			d.logOn(d.peers[0], 1, "lastLogon", d.ago(2*time.Hour))
			test.change(d)
			if _, err := d.runner.Run(t.Context(), RunOptions{Full: true}); err != nil {
				t.Error(err)
			}
			if got := d.lastLogon(d.guid(1)); (got != "") != test.found {
				t.Errorf("last logon %q", got)
			}
		})
	}
}

// A controller's clock was ahead, or is set back. No logon is missed.
func TestClockOfOtherController(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ before, after time.Duration }{
		"ahead, then corrected": {26 * time.Hour, 0}, "set back": {0, -72 * time.Hour}, "behind": {-26 * time.Hour, -26 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newLogonDomain(t, 20, 0)
			var offset atomic.Int64
			offset.Store(int64(test.before))
			clock := func() time.Time { return d.clock.Now().Add(time.Duration(offset.Load())) }
			peer := d.addPeer(domaincontroller.Options{Name: "dc2", Now: clock}, 20)
			d.fullSync(20)
			offset.Store(int64(test.after))
			d.clock.Advance(24 * time.Hour)
			at := clock().Add(-2 * time.Hour).Truncate(time.Millisecond) // the first one
			d.logOn(peer, 1, "lastLogon", at)
			d.clock.Advance(24 * time.Hour)
			d.fullSync(1)
			d.expectLastLogon(d.guid(1), at)
		})
	}
}

// A time in the future is no logon: it would stay forever.
func TestLogonInTheFuture(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	d.logOn(d.peers[0], 1, "lastLogon", d.clock.Now().Add(2*time.Hour))
	d.logOn(d.peers[0], 1, "badPasswordTime", d.ago(time.Hour))
	d.must(d.peers[0].Modify(d.user(2), "lastLogon", never))
	d.fullSync(20)
	d.expectFailed(1, d.ago(time.Hour), 0)
	for n := range 3 {
		if got := d.lastLogon(d.guid(n)); got != "" {
			t.Errorf("last logon %s", got)
		}
	}
}

// An object that is not yet replicated, or that moves into the scope, gets the logons that were
// returned before.
func TestLogonsOfNewObjects(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	a, b := d.Directory, d.peers[0]
	d.clock.Advance(time.Hour)
	d.moveOut(1)
	d.must(b.Move(d.user(1), "OU=Outside,"+b.Base()))
	late := d.ago(2 * time.Hour)
	d.must(b.Modify(d.outside(1), "lastLogon", fileTime(late)))
	b.AddUser(d.user(20))
	d.logOn(b, 20, "lastLogon", late)
	guid := b.GUID(d.user(20))
	d.fullSync(19)
	d.clock.Advance(24 * time.Hour)
	d.must(a.Move(d.outside(1), d.base))
	d.must(b.Move(d.outside(1), d.base))
	a.AddUser(d.user(20))
	if d.guid(20) != guid {
		t.Fatal("other identifiers")
	}
	d.fullSync(2)
	d.expectLastLogon(guid, late)
	d.clock.Advance(24 * time.Hour)
	d.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	d.expectLastLogon(d.guid(1), late)
}

// A read-only controller counts logons too.
func TestLogonsOfReadOnlyController(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 0)
	peer := d.addPeer(domaincontroller.Options{Name: "rodc1", ReadOnly: true, Now: d.clock.Now}, 20)
	d.logOn(peer, 1, "lastLogon", d.ago(time.Hour))
	d.fullSync(20)
	d.expectLastLogon(d.guid(1), d.ago(time.Hour))
	if c := d.sweep()["127.0.0.2"]; !c.ReadOnly {
		t.Errorf("recorded %+v", c)
	}
}

// The option takes effect with the next run, which is a full sync. Without the option, what was
// recorded is deleted.
func TestSwitchToAllControllers(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	d.logOn(d.peers[0], 1, "lastLogon", d.ago(time.Hour))
	d.options.LastLogon = LastLogonReplicated
	d.start()
	d.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	if n := d.peers[0].Counters().Binds; n != 0 || len(d.log.With(MsgLogonsRead)) != 0 {
		t.Errorf("%d binds", n)
	}
	d.options.LastLogon = LastLogonAllControllers
	d.restart()
	d.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	if reason := d.fullSyncReason(); reason != ReasonLogons {
		t.Errorf("reason %q", reason)
	}
	d.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	d.options.LastLogon = LastLogonReplicated
	d.restart()
	d.fullSync(0)
	if got, err := d.store.LogonSweep(); err != nil || !got.At.IsZero() {
		t.Errorf("recorded %+v, error %v", got, err)
	}
}

// A domain of one controller has no other one, and the domain of a controller whose configuration
// partition is unreadable is unknown. Neither needs a full sync for it.
func TestNoOtherControllers(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string]bool{"one controller": false, "unreadable": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newLogonDomain(t, 20, 0)
			if hide {
				d.hideControllers("objectClass")
			}
			d.fullSync(20)
			d.fullSync(0)
			d.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
			sweep, err := d.store.LogonSweep()
			d.must(err)
			lines := d.log.With(MsgLogonControllers)
			if hide != (sweep.Error != "") || hide != (sweep.Remedy != "") || hide != (len(lines) == 1) || len(lines) > 1 {
				t.Errorf("recorded %+v, log %v", sweep, lines)
			}
		})
	}
}

// A controller that answered before is not shown as one that answers if the list becomes unreadable.
// What is known of it stays.
func TestListOfControllersUnreadable(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	d.fullSync(20)
	asked := d.sweep()["127.0.0.2"].AskedUntil
	d.hideControllers("objectClass")
	d.fullSync(0)
	d.expectResult("127.0.0.2", state.LogonsNotAsked)
	if got := d.sweep()["127.0.0.2"].AskedUntil; asked.IsZero() || !got.Equal(asked) {
		t.Errorf("asked until %s, want %s", got, asked)
	}
}

// The time for all controllers is limited. The end of the run ends the questions.
func TestTimeForControllers(t *testing.T) {
	t.Parallel()
	hang := func(c fakeldap.Controller, asked func()) func(*fakeldap.Peer) {
		return c.Script(func(p *fakeldap.Peer, _ fakeldap.Request) bool { asked(); p.Hang(); return false })
	}
	t.Run("limit", func(t *testing.T) {
		t.Parallel()
		d := newLogonDomain(t, 20, 0)
		for range maxAsked + 1 {
			d.addFake(func(c fakeldap.Controller) func(*fakeldap.Peer) { return hang(c, func() {}) })
		}
		d.runner.maxSweepTime = time.Second
		d.fullSync(20)
		results := map[state.LogonResult]int{}
		for _, c := range d.sweep() {
			results[c.Result]++
			if asked := c.Result != state.LogonsNotAsked; asked != !c.At.IsZero() { // else its turn would never come
				t.Errorf("result %s, last asked %s", c.Result, c.At)
			}
		}
		if results[state.LogonsNotAsked] < 1 || results[state.LogonsSlow]+results[state.LogonsNotAsked] != maxAsked+1 {
			t.Errorf("results %v", results)
		}
	})
	t.Run("end of the run", func(t *testing.T) {
		t.Parallel()
		d := newLogonDomain(t, 20, 0)
		ctx, cancel := context.WithCancel(t.Context())
		d.addFake(func(c fakeldap.Controller) func(*fakeldap.Peer) { return hang(c, cancel) })
		run, err := d.runner.Run(ctx, RunOptions{Full: true})
		if run.Result != Failed || fault.ClassOf(err) != fault.Canceled {
			t.Errorf("run %s, error %v", brief(run), err)
		}
	})
}

func TestLogonsSince(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	asked := state.LogonController{AskedUntil: until, Scope: "s"}
	for name, test := range map[string]struct {
		previous state.LogonController
		clock    time.Time
		want     ad.FileTime
	}{
		"asked before":    {asked, until.Add(time.Minute), ad.NewFileTime(until.Add(-logonOverlap))},
		"same time":       {asked, until, ad.NewFileTime(until.Add(-logonOverlap))},
		"never asked":     {state.LogonController{Scope: "s"}, until, anyLogon},
		"another scope":   {state.LogonController{AskedUntil: until, Scope: "t"}, until, anyLogon},
		"clock set back":  {asked, until.Add(-time.Second), anyLogon},
		"clock not known": {asked, time.Time{}, anyLogon},
	} {
		if got := logonsSince(test.previous, "s", test.clock); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestOrderControllers(t *testing.T) {
	t.Parallel()
	e := newClock()
	recorded := []state.LogonController{
		{Host: "old-name", InvocationID: ad.InvocationID{1}, At: e.Now()}, {Host: "B", At: e.Now().Add(-time.Hour), Scope: "b"}, {Host: "gone", At: e.Now()},
	}
	list, previous := orderControllers(controllersNamed("a", "b", "c", "d"), recorded)
	var hosts []string
	for i, c := range list {
		hosts = append(hosts, c.Host+previous[i].Scope)
	}
	if want := []string{"c", "d", "bb", "a"}; !slices.Equal(hosts, want) {
		t.Errorf("order %v, want %v", hosts, want)
	}
}

// A delta sync sends the number of failed attempts that the PDC emulator counts: as it is now if
// it is read, and otherwise as of the last full sync.
func TestFailedLogonsInDeltaSync(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	a, b := d.Directory, d.peers[0]
	use := func(o *testenv.Directory) {
		d.auth.Host = o.Host
		d.connectTo(o.Port)
	}
	count := func(o *testenv.Directory, attempts string) { d.must(o.Modify(d.user(3), "badPwdCount", attempts)) }
	for _, o := range []*testenv.Directory{a, b} {
		o.SetPDCEmulator("dc1")
	}
	count(a, "2")
	count(b, "7")
	d.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 20})
	d.expectFailed(3, time.Time{}, 2)

	count(a, "3")
	d.must(a.Modify(d.user(3), "title", "a"))
	d.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.expectFailed(3, time.Time{}, 3)

	use(b)
	d.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 1})
	d.expectFailed(3, time.Time{}, 3)
	d.must(b.Modify(d.user(3), "title", "b"))
	d.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	d.expectFailed(3, time.Time{}, 3)
}

// The PDC emulator returns the numbers of failed attempts that changed, and no others. A number
// changes to 0 without a time.
func TestChangedNumbersOfFailedAttempts(t *testing.T) {
	t.Parallel()
	d := newLogonDomain(t, 20, 1)
	pdc := d.peers[0]
	d.SetPDCEmulator("dc2")
	set := func(n int, count string, at time.Time) {
		d.must(pdc.Modify(d.user(n), "badPwdCount", count))
		d.logOn(pdc, n, "badPasswordTime", at)
	}
	early := d.ago(10 * 24 * time.Hour)
	for n := range 10 {
		set(n, "2", early)
	}
	d.fullSync(20)
	before := pdc.Counters().Entries
	d.fullSync(0)
	overhead := pdc.Counters().Entries - before // without changes
	if overhead > 8 {
		t.Errorf("%d entries without changes", overhead)
	}
	d.clock.Advance(48 * time.Hour)
	late := d.ago(time.Hour)
	set(0, "3", late)
	set(15, "1", late)
	d.must(pdc.Modify(d.user(1), "badPwdCount", "0"))
	d.must(pdc.Modify(d.user(2), "badPwdCount"))
	before = pdc.Counters().Entries
	d.fullSync(4)
	if entries := pdc.Counters().Entries - before; entries != overhead+4 {
		t.Errorf("%d entries for 4 changes, %d without", entries, overhead)
	}
	d.expectFailed(0, late, 3)
	d.expectFailed(1, early, 0)
	d.expectFailed(2, early, 0)
	d.expectFailed(3, early, 2)
	d.expectFailed(15, late, 1)
	d.fullSync(0)

	// Another controller becomes the PDC emulator: all its numbers are new.
	third := d.addPeer(domaincontroller.Options{Name: "dc3", Now: d.clock.Now}, 20)
	d.must(third.Modify(d.user(4), "badPwdCount", "9"))
	d.fullSync(0)
	d.SetPDCEmulator("dc3")
	d.fullSync(9)
	d.expectFailed(4, early, 9)
	d.expectFailed(3, early, 0)
}
