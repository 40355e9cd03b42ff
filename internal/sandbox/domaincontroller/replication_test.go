package domaincontroller

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"
)

// testDomain is a domain of two controllers, of which the second one is the PDC emulator.
type testDomain struct {
	*Domain
	now           time.Time
	first, second *Server
}

func newTestDomain(users int) *testDomain {
	g := &testDomain{now: testNow}
	g.Domain = NewDomain(Options{Users: users, Groups: 3, Password: testPassword, Now: func() time.Time { return g.now }}, "127.0.0.1", "127.0.0.2")
	g.first, g.second = g.Controllers()[0], g.Controllers()[1]
	return g
}

// logonState is the attributes of an account that logons change.
type logonState struct {
	lastLogon, logonCount, badPwdCount, badPasswordTime string
	lastLogonTimestamp, lockoutTime                     string
	changed                                             bool // a USN was assigned
}

// states returns the state of an account on the controllers.
func (g *testDomain) states(t *testing.T, dn string, act func()) (states [2]logonState) {
	t.Helper()
	var before [2]string
	read := func(n int) Object {
		o, err := g.Controllers()[n].Object(dn)
		must(t, err)
		return o
	}
	for n := range before {
		before[n] = read(n).First("uSNChanged")
	}
	act()
	for n := range states {
		o := read(n)
		states[n] = logonState{
			o.First("lastLogon"), o.First("logonCount"), o.First("badPwdCount"), o.First("badPasswordTime"),
			o.First("lastLogonTimestamp"), o.First("lockoutTime"), o.First("uSNChanged") != before[n],
		}
	}
	return states
}

// addAccount adds a user with a password on both controllers.
func (g *testDomain) addAccount(t *testing.T) (dn string) {
	t.Helper()
	dn = "CN=Ann,CN=Users," + g.first.Base()
	must(t, g.Add(Object{dn, map[string][]string{"objectClass": {"user"}, "userAccountControl": {"66048"}}}))
	must(t, g.Change(func(d *Server) error { return d.SetPassword(dn, "p") }))
	return dn
}

// TestLogons: each controller counts logons for itself. lastLogonTimestamp and lockoutTime
// replicate, and the PDC emulator counts the failures of all.
func TestLogons(t *testing.T) {
	t.Parallel()
	g := newTestDomain(0)
	dn := g.addAccount(t)
	at := func() string { return formatFileTime(g.now) }
	bind := func(d *Server, password string, want bindError) func() {
		return func() {
			t.Helper()
			if _, got := d.authenticate(dn, password); got != want {
				t.Errorf("bind error %q, want %q", got, want)
			}
		}
	}
	call := func(f func(string) error) func() {
		return func() { must(t, f(dn)) }
	}
	first, timestamp := at(), at()
	for _, step := range []struct {
		name  string
		after time.Duration
		act   func()
		want  func() [2]logonState
	}{
		{"none", 0, func() {}, func() [2]logonState { return [2]logonState{{"0", "0", "0", "0", "", "", false}, {}} }},
		{"bind", 0, bind(g.first, "p", bindAccepted), func() [2]logonState {
			return [2]logonState{{first, "1", "0", "0", timestamp, "", true}, {"", "", "", "", timestamp, "", true}}
		}},
		{"on the other", time.Hour, call(g.second.Logon), func() [2]logonState {
			return [2]logonState{{first, "1", "0", "0", timestamp, "", false}, {at(), "1", "0", "", timestamp, "", false}}
		}},
		{"timestamp is old", 15 * day, bind(g.second, "p", bindAccepted), func() [2]logonState {
			timestamp = at()
			return [2]logonState{{first, "1", "0", "0", timestamp, "", true}, {at(), "2", "0", "", timestamp, "", true}}
		}},
		{"timestamp is recent", 8 * day, call(g.first.Logon), func() [2]logonState {
			return [2]logonState{{at(), "2", "0", "0", timestamp, "", false}, {formatFileTime(g.now.Add(-8 * day)), "2", "0", "", timestamp, "", false}}
		}},
	} {
		g.now = g.now.Add(step.after)
		if got, want := g.states(t, dn, step.act), step.want(); got != want {
			t.Errorf("%s: %+v, want %+v", step.name, got, want)
		}
	}
}

// TestFailedLogons: the PDC emulator counts the failures of all, and a lockout replicates.
func TestFailedLogons(t *testing.T) {
	t.Parallel()
	g := newTestDomain(0)
	dn := g.addAccount(t)
	at := formatFileTime(g.now)
	fail := func(d *Server, times int) func() {
		return func() {
			for range times {
				must(t, d.FailLogon(dn))
			}
		}
	}
	for _, step := range []struct {
		name string
		act  func()
		want [2]logonState
	}{
		{"on the PDC emulator", fail(g.second, 2), [2]logonState{{"0", "0", "0", "0", "", "", false}, {"", "", "2", at, "", "", false}}},
		{"on the other", fail(g.first, 1), [2]logonState{{"0", "0", "1", at, "", "", false}, {"", "", "3", at, "", "", false}}},
		{"success on the other", func() { must(t, g.first.Logon(dn)) }, [2]logonState{{at, "1", "0", at, at, "", true}, {"", "", "0", at, at, "", true}}},
		{"locked", fail(g.first, 10), [2]logonState{{at, "1", "10", at, at, at, true}, {"", "", "10", at, at, at, true}}},
	} {
		if got := g.states(t, dn, step.act); got != step.want {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
	for _, d := range g.Controllers() {
		if _, got := d.authenticate(dn, "p"); got != bindLocked {
			t.Errorf("bind error %q, want %q", got, bindLocked)
		}
	}
	for name, err := range map[string]error{"group": g.first.Logon("CN=Domain Users,CN=Users," + g.first.Base()), "missing": g.first.FailLogon("CN=Bob," + g.first.Base())} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestSpreadLogons: the controllers of a domain have the same population. The latest logons
// are on any of them.
func TestSpreadLogons(t *testing.T) {
	t.Parallel()
	single := NewDomain(Options{Users: 200, Groups: 3, Now: func() time.Time { return testNow }}, "").Controllers()[0]
	g := newTestDomain(200)
	accounts := func(d *Server) map[string]Object {
		all := map[string]Object{}
		for _, o := range d.Objects() {
			if o.First("sAMAccountType") == samUser && o.DN != d.BindDN() {
				all[o.DN] = o
			}
		}
		return all
	}
	truth, first, second := accounts(single), accounts(g.first), accounts(g.second)
	if len(truth) != len(first) || !maps.EqualFunc(first, second, func(a, b Object) bool {
		return a.First("objectGUID") == b.First("objectGUID") && a.First("lastLogonTimestamp") == b.First("lastLogonTimestamp")
	}) {
		t.Fatalf("%d accounts, %d and %d on the controllers", len(truth), len(first), len(second))
	}
	later := map[string]int{}
	number := func(o Object, attribute string) int64 {
		n, _ := strconv.ParseInt(o.First(attribute), 10, 64) // a missing one is 0
		return n
	}
	for dn, o := range truth {
		for _, attribute := range []string{"lastLogon", "badPasswordTime", "badPwdCount"} {
			a, b, want := number(first[dn], attribute), number(second[dn], attribute), number(o, attribute)
			switch {
			case a > b:
				later["first "+attribute]++
			case a < b:
				later["second "+attribute]++
			}
			if max(a, b) != want || attribute == "badPwdCount" && b != want {
				t.Errorf("%s: %s is %d and %d, want %d", dn, attribute, a, b, want)
			}
		}
	}
	for _, want := range []string{"first lastLogon", "second lastLogon", "second badPwdCount", "second badPasswordTime"} {
		if later[want] == 0 {
			t.Errorf("no account with the later value: %s", want)
		}
	}
}

// TestDomain: the controllers list each other with their addresses, and changes reach all.
func TestDomain(t *testing.T) {
	t.Parallel()
	g := newTestDomain(5)
	dn := g.addAccount(t)
	must(t, g.Change(func(d *Server) error { return d.Modify(dn, "title", "Analyst") }))
	if err := g.Change(func(d *Server) error { return d.Modify(dn, "title", "a", "b") }); err == nil {
		t.Error("no error of an invalid change")
	}
	if err := g.Add(Object{dn, map[string][]string{"objectClass": {"user"}}}); err == nil {
		t.Error("no error of an existing object")
	}
	var found [2][]string
	for n, d := range g.Controllers() {
		for _, o := range d.Objects() {
			switch {
			case o.DN == dn:
				found[n] = append(found[n], o.First("objectGUID"), o.First("objectSid"), o.First("whenCreated"), o.First("title"))
			case slices.Contains(o.Attributes["objectClass"], "server"):
				found[n] = append(found[n], o.First("dNSHostName"))
			}
		}
		slices.Sort(found[n])
	}
	if !slices.Equal(found[0], found[1]) || !slices.Contains(found[0], "127.0.0.2") || !slices.Contains(found[0], "Analyst") {
		t.Errorf("controllers %q", found)
	}
}

// TestAuthority: clients that trust the authority of a domain verify each controller by its
// address, and the domain's name is in each certificate.
func TestAuthority(t *testing.T) {
	t.Parallel()
	g := newTestDomain(0)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(g.first.CertificatePEM()) {
		t.Fatal("no certificate")
	}
	for n, d := range g.Controllers() {
		secure := serveTest(t, d).secure
		for name, valid := range map[string]bool{fmt.Sprintf("127.0.0.%d", n+1): true, fmt.Sprintf("127.0.0.%d", 2-n): false, domainName: true} {
			conn, err := net.Dial("tcp", secure)
			must(t, err)
			client := tls.Client(conn, &tls.Config{RootCAs: pool, ServerName: name})
			if err := client.Handshake(); (err == nil) != valid {
				t.Errorf("controller %d as %s: %v", n+1, name, err)
			}
			client.Close()
		}
	}
}

// TestConcurrentLogons: binds at all controllers at the same time do not block each other.
func TestConcurrentLogons(t *testing.T) {
	t.Parallel()
	g := newTestDomain(0)
	dn := g.addAccount(t)
	done := make(chan error)
	const logons = 50
	for _, d := range g.Controllers() {
		go func() {
			var err error
			for n := 0; n < logons && err == nil; n++ {
				if err = d.FailLogon(dn); err == nil {
					err = d.Logon(dn)
				}
			}
			done <- err
		}()
	}
	for range g.Controllers() {
		must(t, <-done)
	}
	o, err := g.second.Object(dn)
	must(t, err)
	if o.First("logonCount") != fmt.Sprint(logons) {
		t.Errorf("logonCount %s, want %d", o.First("logonCount"), logons)
	}
}

// TestReplicatedTimes: the controllers have equal times of what replicates, although the clock goes
// on between their creation.
func TestReplicatedTimes(t *testing.T) {
	t.Parallel()
	now := testNow
	g := NewDomain(Options{Users: 200, Groups: 3, Password: testPassword, Now: func() time.Time {
		now = now.Add(time.Second)
		return now
	}}, "127.0.0.1", "127.0.0.2", "127.0.0.3")
	times := []string{"whenCreated", "pwdLastSet", "accountExpires", "lastLogonTimestamp", "lockoutTime"}
	first := g.Controllers()[0].Objects(times...)
	set := map[string]bool{}
	for _, d := range g.Controllers()[1:] {
		for i, o := range d.Objects(times...) {
			for _, name := range times {
				if got, want := o.First(name), first[i].First(name); o.DN == first[i].DN && got != want {
					t.Errorf("%s: %s %s, want %s", o.DN, name, got, want)
				} else if got != "" {
					set[name] = true
				}
			}
		}
		if d.options.Now().Equal(d.options.Now()) {
			t.Error("the clock of a controller stands still")
		}
	}
	if len(set) != len(times) {
		t.Errorf("only %v are set", set)
	}
}
