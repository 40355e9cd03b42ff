//go:build ad

package adtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"adconnector/internal/oracle"
)

// asConsole is how the console spells what ldapsearch calls a scope.
var asConsole = map[string]string{"sub": "SUBTREE", "one": "ONE_LEVEL", "base": "BASE"}

// syncEqual runs one sync, which must succeed, and compares all that the gateway
// holds with the directory.
func syncEqual(t *testing.T, d *controller, g *gatewayServer, env settings, s search) (outcome, reading) {
	t.Helper()
	before := d.read(t, s)
	o := run(t, env, "sync")
	o.mustExit(t, 0)
	after := d.read(t, s)
	compare(t, g, before, after)
	summary := o.summary(t)
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
	if len(r.users) < 5000 || len(r.users) < d.users || len(r.groups) < d.groups {
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
	env := g.env(t)

	o, held := syncEqual(t, d, g, env, search{})
	if got, want := g.states(), []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}; !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	uploads, assets := g.uploads()
	if assets != len(held.users)+len(held.groups) {
		t.Errorf("%d assets were sent for %d objects", assets, len(held.users)+len(held.groups))
	}
	summary := o.summary(t)
	if summary["mode"] != "full" {
		t.Errorf("summary: mode is %v, want full", summary["mode"])
	}
	t.Logf("users %v, groups %v, duration_ms %v, requests %v, uploads %d",
		summary["users"], summary["groups"], summary["duration_ms"], summary["requests"], uploads)

	t.Run("a second sync sends nothing", func(t *testing.T) {
		syncEqual(t, d, g, env, search{})
		if again, _ := g.uploads(); again != uploads {
			t.Errorf("%d uploads, %d before", again, uploads)
		}
	})
	t.Run("a sync after changes sends those", func(t *testing.T) { changes(t, d, g, env) })
	t.Run("a dry run sends nothing", func(t *testing.T) {
		fresh := newGateway(t, connection, profile)
		run(t, fresh.env(t), "sync", "--dry-run").mustExit(t, 0)
		if n, _ := fresh.uploads(); n != 0 {
			t.Errorf("%d uploads", n)
		}
	})
}

// changes makes one change of each kind and counts what is sent for them.
func changes(t *testing.T, d *controller, g *gatewayServer, env settings) {
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
		_, before := g.uploads()
		change()
		syncEqual(t, d, g, env, search{})
		if _, after := g.uploads(); after-before != want {
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
			env := d.ldap(g.env(t), protocol).with(settings{"ldap.certificate": d.certificate()})
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
			syncEqual(t, d, g, g.env(t), search{base: puneOU})
		})
		t.Run(protocol+" without a certificate", func(t *testing.T) {
			g := newGateway(t, nil, nil)
			o := run(t, d.ldap(g.env(t), protocol), "sync")
			o.mustExit(t, 3)
			o.mustExplain(t, "ldap.certificate", "dc1."+strings.ToLower(realm)) // the name that it carries
			mustHoldNothing(t, g)
		})
	}
}

func mustHoldNothing(t *testing.T, g *gatewayServer) {
	t.Helper()
	if n, _ := g.uploads(); n != 0 || len(g.Users()) != 0 || len(g.Groups()) != 0 {
		t.Errorf("%d uploads, %d users and %d groups at the gateway", n, len(g.Users()), len(g.Groups()))
	}
	if slices.Contains(g.states(), "PROCESSED") {
		t.Errorf("a run that failed was reported as processed: %v", g.states())
	}
}

func TestRefused(t *testing.T) {
	d := domain(t)
	t.Run("wrong password", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		env := d.ldap(g.env(t), "LDAP")
		wrong := env.with(settings{"ldap.password": "Wr0ng-" + t.Name()})
		keepSecret(wrong["ldap.password"])
		if got := d.value(t, serviceAccount, "badPwdCount"); got != "0" {
			t.Fatalf("badPwdCount is %s before the test", got)
		}
		o := run(t, wrong, "sync")
		o.mustExit(t, 3)
		o.mustExplain(t, "ldap.password")
		if got := d.value(t, serviceAccount, "badPwdCount"); got != "1" {
			t.Errorf("badPwdCount is %s, want 1: one attempt", got)
		}
		mustHoldNothing(t, g)
		syncEqual(t, d, g, env.with(settings{"profile.baseContext": peopleOU}), search{base: peopleOU})
	})
	t.Run("unknown account", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		run(t, d.ldap(g.env(t), "LDAP").with(settings{"ldap.bindDn": "CN=nobody," + baseDN}), "sync").mustExit(t, 3)
		mustHoldNothing(t, g)
	})
	t.Run("account locked out", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		o := run(t, d.ldap(g.env(t), "LDAP").with(settings{"ldap.bindDn": lockedDN}), "sync")
		o.mustExit(t, 3)
		o.mustExplain(t, "locked")
		mustHoldNothing(t, g)
	})
	t.Run("base context that does not exist", func(t *testing.T) {
		const base = "OU=Nowhere," + baseDN
		g := newGateway(t, nil, nil)
		o := run(t, d.ldap(g.env(t), "LDAP").with(settings{"profile.baseContext": base}), "sync")
		o.mustExit(t, 3)
		o.mustExplain(t, base, "profile.baseContext")
		mustHoldNothing(t, g)
	})
}

func TestUnreachable(t *testing.T) {
	d := domain(t)
	t.Run("closed port", func(t *testing.T) {
		port := strconv.Itoa(closedPort(t))
		g := newGateway(t, nil, nil)
		o := run(t, d.ldap(g.env(t), "LDAP").with(settings{"ldap.port": port}), "sync")
		o.mustExit(t, 1)
		o.mustExplain(t, port)
		mustHoldNothing(t, g)
	})
	t.Run("first host of the list refuses", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		env := d.ldap(g.env(t), "LDAP").with(settings{"ldap.host": "127.0.0.2,127.0.0.1", "profile.baseContext": puneOU})
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
			_, got := syncEqual(t, d, g, g.env(t), c.search)
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
	_, got := syncEqual(t, d, g, d.ldap(g.env(t), "LDAP").with(settings{"ldap.user-filter": filter}), search{filter: filter})
	if len(got.users) < 1000 || len(got.users) > 1100 || len(got.groups) < bulkGroups {
		t.Errorf("%d users and %d groups", len(got.users), len(got.groups))
	}
}

func TestPageSize(t *testing.T) {
	d := domain(t)
	g := newGateway(t, nil, nil)
	env := d.ldap(g.env(t), "LDAP").with(settings{"ldap.page-size": "7", "profile.baseContext": kolnOU, "upload.batch-size": "3"})
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
		o := run(t, d.ldap(g.env(t), "LDAP"), "sync")
		o.mustExit(t, 3)
		o.mustExplain(t, "LDAPS", "STARTTLS")
		mustHoldNothing(t, g)
	})
	t.Run("STARTTLS is taken", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		env := d.ldap(g.env(t), "STARTTLS").with(settings{"ldap.certificate": d.certificate(), "profile.baseContext": peopleOU})
		syncEqual(t, d, g, env, search{base: peopleOU})
	})
}

func TestDaemon(t *testing.T) {
	d := domain(t)
	connection, profile := d.console("LDAP", baseDN, "SUBTREE")
	g := newGateway(t, connection, profile)
	p := start(t, g.env(t).with(settings{"service.cron-expression": "*/2 * * * * *"}), "run")

	alive := func() error {
		select {
		case <-p.finished:
			return permanent{errors.New("the daemon ended")}
		default:
			return nil
		}
	}
	must := func(what string, met func() bool) {
		t.Helper()
		err := poll(syncWithin, func() error {
			if err := alive(); err != nil {
				return err
			}
			if !met() {
				return errNotYet
			}
			return nil
		})
		if err != nil {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
			t.Fatalf("%s: %v; standard error:\n%s", what, err, p.wait(t, syncWithin).stderr)
		}
	}

	must("a first run", func() bool { return slices.Contains(g.states(), "PROCESSED") })
	const account = "newcomer"
	if _, err := d.tool("user", "create", account, "--random-password", "--userou=OU=People"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.remove(t, "CN="+account+","+peopleOU) })
	must("the user that was added", func() bool {
		for _, user := range g.Users() {
			if strings.Contains(string(user.Asset), fmt.Sprintf("%q", account)) {
				return true
			}
		}
		return false
	})
	// A stop within a run ends with that run's state.
	must("the end of that run", func() bool { states := g.states(); return states[len(states)-1] == "SCHEDULED" })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	o := p.wait(t, 35*time.Second)
	o.mustExit(t, 0)

	states := g.states()
	if len(states) < 6 || !slices.Equal(states[:4], []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}) {
		t.Errorf("states %v", states)
	}
	if last := states[len(states)-1]; last != "SCHEDULED" {
		t.Errorf("the last state is %s: %v", last, states)
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
	env := g.env(t)
	run(t, env, "sync").mustExit(t, 0)
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
