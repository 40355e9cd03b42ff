//go:build ad

package samba

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/oracle"
	"adconnector/test/ports"
	"adconnector/test/program"
	"adconnector/test/testenv"
)

// asConsole is how the console spells what ldapsearch calls a scope.
var asConsole = map[string]string{"sub": "SUBTREE", "one": "ONE_LEVEL", "base": "BASE"}

// syncEqual runs one sync, which must succeed, and compares all that the gateway
// holds with the directory.
func syncEqual(t *testing.T, d *controller, g *testenv.Gateway, env testenv.Settings, s search) (program.Outcome, reading) {
	t.Helper()
	before, known := d.lastRead(s)
	o := run(t, env, "sync")
	o.MustExit(t, 0)
	after := d.read(t, s)
	if !known {
		before = after
	}
	compare(t, g, before, after)
	summary := summary(t, o)
	if summary["mode"] == "full" { // a delta reads what has changed
		mustCount(t, summary, "users", len(after.users))
		mustCount(t, summary, "groups", len(after.groups))
	}
	if summary["result"] != "processed" {
		t.Errorf("summary: result is %v, want processed", summary["result"])
	}
	return o, after
}

// TestDirectory makes sure that the fill is what the other tests take it for.
func TestDirectory(t *testing.T) {
	d := domain(t)
	begin := time.Now()
	r := d.read(t, search{})
	t.Logf("read in %v", time.Since(begin).Round(time.Millisecond))
	if len(r.users) < bulkUsers || len(r.users) < d.users || len(r.groups) < d.groups {
		t.Errorf("the directory shows %d users and %d groups, %d and %d were added", len(r.users), len(r.groups), d.users, d.groups)
	}
	statuses, kinds := map[string]int{}, map[string]int{}
	for _, user := range r.users {
		statuses[user.Text(oracle.OfUser+"status")]++
	}
	for _, group := range r.groups {
		kinds[group.Text(oracle.OfGroup+"type")+" "+group.Text(oracle.OfGroup+"visibility")]++
	}
	for _, status := range []string{"ACTIVE", "DISABLED", "EXPIRED", "LOCKED", "PASSWORD_EXPIRED"} {
		if statuses[status] == 0 {
			t.Errorf("no user is %s: %v", status, statuses)
		}
	}
	if len(kinds) != 4 {
		t.Errorf("kinds of groups: %v", kinds)
	}
	if got := d.value(t, serviceAccount, "badPwdCount"); got != "0" {
		t.Errorf("the service account begins with badPwdCount %s", got)
	}
	t.Logf("users %v, groups %v", statuses, kinds)
}

func TestFullSync(t *testing.T) {
	d := domain(t)
	g := newGateway(t, nil, nil)
	connection, profile := d.console("LDAP", baseDN, "SUBTREE")
	g.SetConnection(connection)
	g.SetProfile(profile)
	env := newSettings(t, g)

	o, held := syncEqual(t, d, g, env, search{})
	if got, want := states(g), []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}; !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	calls, assets := uploads(g)
	if assets != len(held.users)+len(held.groups) {
		t.Errorf("%d assets were sent for %d objects", assets, len(held.users)+len(held.groups))
	}
	summary := summary(t, o)
	if summary["mode"] != "full" {
		t.Errorf("summary: mode is %v, want full", summary["mode"])
	}
	t.Logf("users %v, groups %v, duration_ms %v, requests %v, uploads %d",
		summary["users"], summary["groups"], summary["duration_ms"], summary["requests"], calls)

	t.Run("a second sync sends nothing", func(t *testing.T) {
		syncEqual(t, d, g, env, search{})
		if again, _ := uploads(g); again != calls {
			t.Errorf("%d uploads, %d before", again, calls)
		}
	})
	t.Run("a sync after changes sends those", func(t *testing.T) { changes(t, d, g, env) })
	t.Run("a dry run sends nothing", func(t *testing.T) {
		fresh := newGateway(t, connection, profile)
		run(t, newSettings(t, fresh), "sync", "--dry-run").MustExit(t, 0)
		if n, _ := uploads(fresh); n != 0 {
			t.Errorf("%d uploads", n)
		}
	})
}

// changes makes one change of each kind and counts what is sent for them.
func changes(t *testing.T, d *controller, g *testenv.Gateway, env testenv.Settings) {
	const names = 7
	var dns []string
	for i := range names {
		account := "change" + strconv.Itoa(i)
		dns = append(dns, d.addUser(t, "Change "+strconv.Itoa(i), puneOU, account, "title", "Engineer", "l", "Pune"))
		t.Cleanup(func() {
			if d.exists(t, account) {
				d.remove(t, d.search(t, "", "", "(sAMAccountName="+account+")", "name")[0].dn)
			}
		})
	}
	step := func(name string, want int, change func()) {
		t.Helper()
		_, before := uploads(g)
		change()
		syncEqual(t, d, g, env, search{})
		if _, after := uploads(g); after-before != want {
			t.Errorf("%s: %d assets were sent, want %d", name, after-before, want)
		}
	}
	step("added", names, func() {})
	step("changed", 5, func() {
		d.set(t, dns[0], "title", "Größe 👩‍🚀")
		d.set(t, dns[1], "l")
		d.set(t, dns[2], "userAccountControl", strconv.Itoa(uacPlainDisabled))
		d.setPassword(t, dns[3], "An0ther-"+t.Name())
		dns[4] = d.move(t, dns[4], `CN=Renamed\, Twice`, kolnOU)
		dns[5] = d.move(t, dns[5], "CN=Change 5", peopleOU) // nothing of it is sent
		d.set(t, dns[6], "telephoneNumber", "+1 555 0199")  // neither is this
	})
}

func TestTransports(t *testing.T) {
	d := domain(t)
	for _, protocol := range []string{"LDAPS", "STARTTLS"} {
		t.Run(protocol+" with the pinned certificate", func(t *testing.T) {
			g := newGateway(t, nil, nil)
			env := d.ldap(newSettings(t, g), protocol).With(testenv.Settings{"ldap.certificate": d.certificate()})
			syncEqual(t, d, g, env, search{})
		})
		t.Run(protocol+" with the console's certificate", func(t *testing.T) {
			connection, profile := d.console(protocol, puneOU, "SUBTREE")
			pem, err := os.ReadFile(d.certificate())
			if err != nil {
				t.Fatal(err)
			}
			connection.Authentication.Certificate = string(pem)
			g := newGateway(t, connection, profile)
			syncEqual(t, d, g, newSettings(t, g), search{base: puneOU})
		})
		t.Run(protocol+" without a certificate", func(t *testing.T) {
			g := newGateway(t, nil, nil)
			o := run(t, d.ldap(newSettings(t, g), protocol), "sync")
			o.MustExit(t, 3)
			mustExplain(t, o, "ldap.certificate", "dc1."+strings.ToLower(realm)) // the name that it carries
			mustHoldNothing(t, g)
		})
	}
}

func mustHoldNothing(t *testing.T, g *testenv.Gateway) {
	t.Helper()
	if n, _ := uploads(g); n != 0 || len(g.Users()) != 0 || len(g.Groups()) != 0 {
		t.Errorf("%d uploads, %d users and %d groups at the gateway", n, len(g.Users()), len(g.Groups()))
	}
	if slices.Contains(states(g), "PROCESSED") {
		t.Errorf("a run that failed was reported as processed: %v", states(g))
	}
}

func TestRefused(t *testing.T) {
	d := domain(t)
	t.Run("wrong password", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		env := d.ldap(newSettings(t, g), "LDAP")
		wrong := env.With(testenv.Settings{"ldap.password": "Wr0ng-" + t.Name()})
		keepSecret(wrong["ldap.password"])
		if got := d.value(t, serviceAccount, "badPwdCount"); got != "0" {
			t.Fatalf("badPwdCount is %s before the test", got)
		}
		o := run(t, wrong, "sync")
		o.MustExit(t, 3)
		mustExplain(t, o, "ldap.password")
		if got := d.value(t, serviceAccount, "badPwdCount"); got != "1" {
			t.Errorf("badPwdCount is %s, want 1: one attempt", got)
		}
		mustHoldNothing(t, g)
		syncEqual(t, d, g, env.With(testenv.Settings{"profile.baseContext": peopleOU}), search{base: peopleOU})
	})
	t.Run("unknown account", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		run(t, d.ldap(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.bindDn": "CN=nobody," + baseDN}), "sync").MustExit(t, 3)
		mustHoldNothing(t, g)
	})
	t.Run("account locked out", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		o := run(t, d.ldap(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.bindDn": lockedDN}), "sync")
		o.MustExit(t, 3)
		mustExplain(t, o, lockedDN)
		mustHoldNothing(t, g)
	})
	t.Run("base context that does not exist", func(t *testing.T) {
		const base = "OU=Nowhere," + baseDN
		g := newGateway(t, nil, nil)
		o := run(t, d.ldap(newSettings(t, g), "LDAP").With(testenv.Settings{"profile.baseContext": base}), "sync")
		o.MustExit(t, 3)
		mustExplain(t, o, base, "profile.baseContext")
		mustHoldNothing(t, g)
	})
}

func TestUnreachable(t *testing.T) {
	d := domain(t)
	t.Run("closed port", func(t *testing.T) {
		port := strconv.Itoa(ports.Refusing(t))
		g := newGateway(t, nil, nil)
		o := run(t, d.ldap(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.port": port}), "sync")
		o.MustExit(t, 1)
		mustExplain(t, o, port)
		mustHoldNothing(t, g)
	})
	t.Run("first host of the list refuses", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		env := d.ldap(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.host": "127.0.0.2,127.0.0.1", "profile.baseContext": puneOU})
		syncEqual(t, d, g, env, search{base: puneOU})
	})
}

func TestScopes(t *testing.T) {
	d := domain(t)
	everything := "CN=Everything," + puneOU
	cases := []struct {
		name          string
		search        search
		users, groups int // that there are at least
	}{
		{"subtree of a name with escapes", search{base: kolnOU, scope: "sub"}, 10, 0},
		{"subtree of a name in another script", search{base: tokyoOU, scope: "sub"}, 10, 0},
		{"one level", search{base: peopleOU, scope: "one"}, 10, 0},
		{"one level below the domain", search{base: baseDN, scope: "one"}, 1, 0},
		{"one level of a large unit", search{base: bulkOU, scope: "one"}, 1001, 300},
		{"base of a user", search{base: everything, scope: "base"}, 1, 0},
		{"base of a group", search{base: "CN=Nested," + groupsOU, scope: "base"}, 0, 1},
		{"base of a unit", search{base: puneOU, scope: "base"}, 0, 0},
		{"beside contacts, computers and service accounts", search{base: besideOU, scope: "sub"}, 1, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			connection, profile := d.console("LDAP", c.search.base, asConsole[c.search.scope])
			g := newGateway(t, connection, profile)
			_, got := syncEqual(t, d, g, newSettings(t, g), c.search)
			if len(got.users) < c.users || len(got.groups) < c.groups {
				t.Errorf("%d users and %d groups, want at least %d and %d", len(got.users), len(got.groups), c.users, c.groups)
			}
			if c.search.scope == "base" && len(got.users)+len(got.groups) != c.users+c.groups {
				t.Errorf("%d users and %d groups, want %d and %d", len(got.users), len(got.groups), c.users, c.groups)
			}
		})
	}
}

func TestUserFilter(t *testing.T) {
	d := domain(t)
	// It also matches a contact and is meant to narrow what users are.
	const filter = "(l=Pune)"
	g := newGateway(t, nil, nil)
	_, got := syncEqual(t, d, g, d.ldap(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.user-filter": filter}), search{filter: filter})
	if len(got.users) < bulkUsers/5 || len(got.users) > bulkUsers/5+100 || len(got.groups) < bulkGroups {
		t.Errorf("%d users and %d groups", len(got.users), len(got.groups))
	}
}

func TestPageSize(t *testing.T) {
	d := domain(t)
	g := newGateway(t, nil, nil)
	env := d.ldap(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.page-size": "7", "profile.baseContext": kolnOU, "upload.batch-size": "3"})
	syncEqual(t, d, g, env, search{base: kolnOU})
}

// TestStrongAuth has a server that refuses simple binds without TLS, as new domain
// controllers do.
func TestStrongAuth(t *testing.T) {
	d := domain(t)
	if err := d.restart(refusePlainBinds); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.restart(allowPlainBinds); err != nil {
			t.Error(err)
		}
	})
	t.Run("LDAP is refused", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		o := run(t, d.ldap(newSettings(t, g), "LDAP"), "sync")
		o.MustExit(t, 3)
		mustExplain(t, o, "ldap.protocol")
		mustHoldNothing(t, g)
	})
	t.Run("STARTTLS is taken", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		env := d.ldap(newSettings(t, g), "STARTTLS").With(testenv.Settings{"ldap.certificate": d.certificate(), "profile.baseContext": peopleOU})
		syncEqual(t, d, g, env, search{base: peopleOU})
	})
}

func TestDaemon(t *testing.T) {
	d := domain(t)
	connection, profile := d.console("LDAP", baseDN, "SUBTREE")
	g := newGateway(t, connection, profile)
	called := make(chan struct{}, 1)
	g.SetMiddleware(func(_ *testenv.Exchange, deliver func() *httptest.ResponseRecorder) *httptest.ResponseRecorder {
		answer := deliver()
		select {
		case called <- struct{}{}:
		default:
		}
		return answer
	})
	p := start(t, newSettings(t, g).With(testenv.Settings{"service.cron-expression": "*/3 * * * * *"}), "run")
	// until waits for calls of the connector until a condition holds.
	until := func(what string, met func() bool) {
		t.Helper()
		for !met() {
			select {
			case <-called:
			case <-p.Ended:
				t.Fatalf("the daemon ended before %s:\n%s", what, p.Stderr())
			}
		}
	}
	until("a first run", func() bool { return slices.Contains(states(g), "PROCESSED") })
	const account = "newcomer"
	if _, err := d.tool("user", "create", account, "--random-password", "--userou=OU=People"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.remove(t, "CN="+account+","+peopleOU) })
	until("the user that was added", func() bool {
		return slices.ContainsFunc(g.Users(), func(i gatewayserver.Identity) bool { return strings.Contains(string(i.Asset), strconv.Quote(account)) })
	})
	var before []string
	until("the end of that run", func() bool {
		before = states(g)
		return before[len(before)-1] == "SCHEDULED"
	})
	p.Signal(t, syscall.SIGTERM)
	p.MustExit(t, 0, 130)

	sent := states(g)
	if len(sent) < 6 || !slices.Equal(sent[:4], []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}) {
		t.Errorf("states %v", sent)
	}
	// On a slow machine, the stop falls into the next run and ends with that run's state.
	if last := sent[len(sent)-1]; last == "PROCESSING" || last != "SCHEDULED" && len(sent) == len(before) {
		t.Errorf("the last state is %s: %v", last, sent)
	}
	after := d.read(t, search{})
	compare(t, g, after, after)
}

// TestStateDirectory looks at what a sync leaves on disk: neither secret nor
// connection.
func TestStateDirectory(t *testing.T) {
	d := domain(t)
	connection, profile := d.console("LDAP", puneOU, "SUBTREE")
	g := newGateway(t, connection, profile)
	env := newSettings(t, g)
	run(t, env, "sync").MustExit(t, 0)
	err := filepath.WalkDir(env["service.state-dir"], func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range []string{d.service.password, gatewayPassword, d.service.dn} {
			if strings.Contains(string(content), s) {
				t.Errorf("%s contains what belongs to the connection", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
