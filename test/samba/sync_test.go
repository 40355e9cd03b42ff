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
	"adconnector/test/testlog"
)

// consoleScopes maps the scopes of ldapsearch to those of the console.
var consoleScopes = map[string]string{"sub": "SUBTREE", "one": "ONE_LEVEL", "base": "BASE"}

// syncAndCompare runs one sync, which must succeed, and compares the gateway with the directory.
func syncAndCompare(t *testing.T, d *controller, g *testenv.Gateway, settings testenv.Settings, s searchScope) (program.Outcome, snapshot) {
	t.Helper()
	before, cached := d.cached(s)
	o := run(t, settings, "sync")
	o.MustExit(t, 0)
	after := d.snapshot(t, s)
	if !cached {
		before = after
	}
	compare(t, g, before, after)
	summary := summary(t, o)
	if summary["mode"] == "full" { // a delta sync only counts changed objects
		mustCount(t, summary, "users", len(after.users))
		mustCount(t, summary, "groups", len(after.groups))
	}
	if summary["result"] != "processed" {
		t.Errorf("summary: result is %v, want processed", summary["result"])
	}
	return o, after
}

// TestFixture checks properties of the fixture that other tests depend on.
func TestFixture(t *testing.T) {
	d := sharedController(t)
	began := time.Now()
	r := d.snapshot(t, searchScope{})
	t.Logf("read in %v", time.Since(began).Round(time.Millisecond))
	if len(r.users) < bulkUsers || len(r.users) < d.users || len(r.groups) < d.groups {
		t.Errorf("%d users and %d groups, want at least %d and %d", len(r.users), len(r.groups), d.users, d.groups)
	}
	statuses, kinds := map[string]int{}, map[string]int{}
	for _, user := range r.users {
		statuses[user.Text(oracle.UserClass+"status")]++
	}
	for _, group := range r.groups {
		kinds[group.Text(oracle.GroupClass+"type")+" "+group.Text(oracle.GroupClass+"visibility")]++
	}
	for _, status := range []string{"ACTIVE", "DISABLED", "EXPIRED", "LOCKED", "PASSWORD_EXPIRED"} {
		if statuses[status] == 0 {
			t.Errorf("no user has the status %s: %v", status, statuses)
		}
	}
	if len(kinds) != 4 {
		t.Errorf("%d combinations of group type and visibility, want 4: %v", len(kinds), kinds)
	}
	if got := d.value(t, serviceAccount, "badPwdCount"); got != "0" {
		t.Errorf("badPwdCount of the service account is %s, want 0", got)
	}
	t.Logf("users %v, groups %v", statuses, kinds)
}

func TestFullSync(t *testing.T) {
	d := sharedController(t)
	g := newGateway(t, nil, nil)
	connection, profile := d.console("LDAP", baseDN, "SUBTREE")
	g.SetConnection(connection)
	g.SetProfile(profile)
	settings := newSettings(t, g)

	o, want := syncAndCompare(t, d, g, settings, searchScope{})
	if got, want := states(g), []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}; !slices.Equal(got, want) {
		t.Errorf("states %v, want %v", got, want)
	}
	calls, assets := uploads(g)
	if objects := len(want.users) + len(want.groups); assets != objects {
		t.Errorf("%d assets sent, want %d", assets, objects)
	}
	summary := summary(t, o)
	if summary["mode"] != "full" {
		t.Errorf("summary: mode is %v, want full", summary["mode"])
	}
	t.Logf("users %v, groups %v, duration_ms %v, requests %v, uploads %d",
		summary["users"], summary["groups"], summary["duration_ms"], summary["requests"], calls)

	t.Run("second sync sends nothing", func(t *testing.T) {
		syncAndCompare(t, d, g, settings, searchScope{})
		if total, _ := uploads(g); total != calls {
			t.Errorf("%d uploads, want none", total-calls)
		}
	})
	t.Run("sync after changes sends the changes", func(t *testing.T) { testChanges(t, d, g, settings) })
	t.Run("dry run sends nothing", func(t *testing.T) {
		emptyGateway := newGateway(t, connection, profile)
		run(t, newSettings(t, emptyGateway), "sync", "--dry-run").MustExit(t, 0)
		if n, _ := uploads(emptyGateway); n != 0 {
			t.Errorf("%d uploads, want none", n)
		}
	})
}

// testChanges makes one change of each kind and counts the assets that are sent.
func testChanges(t *testing.T, d *controller, g *testenv.Gateway, settings testenv.Settings) {
	const users = 7
	var dns []string
	for i := range users {
		account := "change" + strconv.Itoa(i)
		dns = append(dns, d.addUser(t, "Change "+strconv.Itoa(i), puneOU, account, "title", "Engineer", "l", "Pune"))
		t.Cleanup(func() {
			if d.exists(t, account) {
				d.delete(t, d.ldapsearch(t, "", "", "(sAMAccountName="+account+")", "name")[0].dn)
			}
		})
	}
	step := func(name string, want int, change func()) {
		t.Helper()
		_, before := uploads(g)
		change()
		syncAndCompare(t, d, g, settings, searchScope{})
		if _, after := uploads(g); after-before != want {
			t.Errorf("%s: %d assets sent, want %d", name, after-before, want)
		}
	}
	step("added", users, func() {})
	step("changed", 5, func() {
		d.setAttribute(t, dns[0], "title", "Größe 👩‍🚀")
		d.setAttribute(t, dns[1], "l")
		d.setAttribute(t, dns[2], "userAccountControl", strconv.Itoa(uacPlainDisabled))
		d.setPassword(t, dns[3], "An0ther-"+t.Name())
		dns[4] = d.move(t, dns[4], `CN=Renamed\, Twice`, kolnOU)
		dns[5] = d.move(t, dns[5], "CN=Change 5", peopleOU)         // parent is not sent
		d.setAttribute(t, dns[6], "telephoneNumber", "+1 555 0199") // not mapped
	})
}

func TestTransports(t *testing.T) {
	d := sharedController(t)
	for _, protocol := range []string{"LDAPS", "STARTTLS"} {
		t.Run(protocol+" with certificate from the settings", func(t *testing.T) {
			g := newGateway(t, nil, nil)
			settings := d.withConnection(newSettings(t, g), protocol).With(testenv.Settings{"ldap.certificate": d.certificate()})
			syncAndCompare(t, d, g, settings, searchScope{})
		})
		t.Run(protocol+" with certificate from the console", func(t *testing.T) {
			connection, profile := d.console(protocol, puneOU, "SUBTREE")
			pem, err := os.ReadFile(d.certificate())
			if err != nil {
				t.Fatal(err)
			}
			connection.Authentication.Certificate = string(pem)
			g := newGateway(t, connection, profile)
			syncAndCompare(t, d, g, newSettings(t, g), searchScope{base: puneOU})
		})
		t.Run(protocol+" without a certificate", func(t *testing.T) {
			g := newGateway(t, nil, nil)
			o := run(t, d.withConnection(newSettings(t, g), protocol), "sync")
			o.MustExit(t, 3)
			mustReport(t, o, "ldap.certificate", "dc1."+strings.ToLower(realm)) // the name in the server's certificate
			mustBeEmpty(t, g)
		})
	}
}

// mustBeEmpty fails the test if a gateway received assets or the state PROCESSED.
func mustBeEmpty(t *testing.T, g *testenv.Gateway) {
	t.Helper()
	if n, _ := uploads(g); n != 0 || len(g.Users()) != 0 || len(g.Groups()) != 0 {
		t.Errorf("%d uploads, %d users and %d groups at the gateway", n, len(g.Users()), len(g.Groups()))
	}
	if slices.Contains(states(g), "PROCESSED") {
		t.Errorf("failed run reported as PROCESSED: %v", states(g))
	}
}

func TestRefusals(t *testing.T) {
	d := sharedController(t)
	t.Run("wrong password", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		settings := d.withConnection(newSettings(t, g), "LDAP")
		wrong := settings.With(testenv.Settings{"ldap.password": "Wr0ng-" + t.Name()})
		testlog.AddSecret(wrong["ldap.password"])
		if got := d.value(t, serviceAccount, "badPwdCount"); got != "0" {
			t.Fatalf("badPwdCount is %s before the test", got)
		}
		o := run(t, wrong, "sync")
		o.MustExit(t, 3)
		mustReport(t, o, "ldap.password")
		if got := d.value(t, serviceAccount, "badPwdCount"); got != "1" {
			t.Errorf("badPwdCount is %s, want 1", got)
		}
		mustBeEmpty(t, g)
		syncAndCompare(t, d, g, settings.With(testenv.Settings{"profile.baseContext": peopleOU}), searchScope{base: peopleOU})
	})
	t.Run("unknown account", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		run(t, d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.bindDn": "CN=nobody," + baseDN}), "sync").MustExit(t, 3)
		mustBeEmpty(t, g)
	})
	t.Run("locked account", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		o := run(t, d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.bindDn": lockedDN}), "sync")
		o.MustExit(t, 3)
		mustReport(t, o, lockedDN)
		mustBeEmpty(t, g)
	})
	t.Run("base context does not exist", func(t *testing.T) {
		const base = "OU=Nowhere," + baseDN
		g := newGateway(t, nil, nil)
		o := run(t, d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"profile.baseContext": base}), "sync")
		o.MustExit(t, 3)
		mustReport(t, o, base, "profile.baseContext")
		mustBeEmpty(t, g)
	})
}

func TestUnreachable(t *testing.T) {
	d := sharedController(t)
	t.Run("closed port", func(t *testing.T) {
		port := strconv.Itoa(ports.Refusing(t))
		g := newGateway(t, nil, nil)
		o := run(t, d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.port": port}), "sync")
		o.MustExit(t, 1)
		mustReport(t, o, port)
		mustBeEmpty(t, g)
	})
	t.Run("first host refuses connections", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		settings := d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.host": "127.0.0.2,127.0.0.1", "profile.baseContext": puneOU})
		syncAndCompare(t, d, g, settings, searchScope{base: puneOU})
	})
}

func TestScopes(t *testing.T) {
	d := sharedController(t)
	user := "CN=Everything," + puneOU
	cases := []struct {
		name          string
		scope         searchScope
		users, groups int // at least
	}{
		{"subtree, DN with escapes", searchScope{base: kolnOU, scope: "sub"}, 10, 0},
		{"subtree, DN in another script", searchScope{base: tokyoOU, scope: "sub"}, 10, 0},
		{"one level", searchScope{base: peopleOU, scope: "one"}, 10, 0},
		{"one level below the domain", searchScope{base: baseDN, scope: "one"}, 1, 0},
		{"one level, more than a page", searchScope{base: bulkOU, scope: "one"}, 1001, 300},
		{"base is a user", searchScope{base: user, scope: "base"}, 1, 0},
		{"base is a group", searchScope{base: "CN=Nested," + groupsOU, scope: "base"}, 0, 1},
		{"base is an organizational unit", searchScope{base: puneOU, scope: "base"}, 0, 0},
		{"other objects: contacts, computers, service accounts", searchScope{base: otherOU, scope: "sub"}, 1, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			connection, profile := d.console("LDAP", c.scope.base, consoleScopes[c.scope.scope])
			g := newGateway(t, connection, profile)
			_, got := syncAndCompare(t, d, g, newSettings(t, g), c.scope)
			if len(got.users) < c.users || len(got.groups) < c.groups {
				t.Errorf("%d users and %d groups, want at least %d and %d", len(got.users), len(got.groups), c.users, c.groups)
			}
			if c.scope.scope == "base" && len(got.users)+len(got.groups) != c.users+c.groups {
				t.Errorf("%d users and %d groups, want %d and %d", len(got.users), len(got.groups), c.users, c.groups)
			}
		})
	}
}

func TestUserFilter(t *testing.T) {
	d := sharedController(t)
	// The filter also matches a contact, which must not be sent.
	const filter = "(l=Pune)"
	g := newGateway(t, nil, nil)
	_, got := syncAndCompare(t, d, g, d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.user-filter": filter}), searchScope{filter: filter})
	if len(got.users) < bulkUsers/5 || len(got.users) > bulkUsers/5+100 || len(got.groups) < bulkGroups {
		t.Errorf("%d users and %d groups", len(got.users), len(got.groups))
	}
}

func TestPageSize(t *testing.T) {
	d := sharedController(t)
	g := newGateway(t, nil, nil)
	settings := d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"ldap.page-size": "7", "profile.baseContext": kolnOU, "upload.batch-size": "3"})
	syncAndCompare(t, d, g, settings, searchScope{base: kolnOU})
}

// TestStrongAuth configures the server to refuse simple binds without TLS, which is the default
// of new domain controllers.
func TestStrongAuth(t *testing.T) {
	d := sharedController(t)
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
		o := run(t, d.withConnection(newSettings(t, g), "LDAP"), "sync")
		o.MustExit(t, 3)
		mustReport(t, o, "ldap.protocol")
		mustBeEmpty(t, g)
	})
	t.Run("STARTTLS is accepted", func(t *testing.T) {
		g := newGateway(t, nil, nil)
		settings := d.withConnection(newSettings(t, g), "STARTTLS").With(testenv.Settings{"ldap.certificate": d.certificate(), "profile.baseContext": peopleOU})
		syncAndCompare(t, d, g, settings, searchScope{base: peopleOU})
	})
}

func TestDaemon(t *testing.T) {
	d := sharedController(t)
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
	// await checks a condition after each call of the connector until it holds.
	await := func(condition string, holds func() bool) {
		t.Helper()
		for !holds() {
			select {
			case <-called:
			case <-p.Ended:
				t.Fatalf("daemon exited before: %s\n%s", condition, p.Stderr())
			}
		}
	}
	await("first run processed", func() bool { return slices.Contains(states(g), "PROCESSED") })
	const account = "newuser"
	if _, err := d.sambaTool("user", "create", account, "--random-password", "--userou=OU=People"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.delete(t, "CN="+account+","+peopleOU) })
	await("added user at the gateway", func() bool {
		return slices.ContainsFunc(g.Users(), func(i gatewayserver.Identity) bool { return strings.Contains(string(i.Asset), strconv.Quote(account)) })
	})
	var before []string
	await("end of that run", func() bool {
		before = states(g)
		return before[len(before)-1] == "SCHEDULED"
	})
	p.Signal(t, syscall.SIGTERM)
	p.MustExit(t, 0, 130)

	sent := states(g)
	if len(sent) < 6 || !slices.Equal(sent[:4], []string{"REGISTERED", "SCHEDULED", "PROCESSING", "PROCESSED"}) {
		t.Errorf("states %v", sent)
	}
	// On a slow machine, the stop may interrupt the next run, whose state is then the last.
	if last := sent[len(sent)-1]; last == "PROCESSING" || last != "SCHEDULED" && len(sent) == len(before) {
		t.Errorf("last state is %s: %v", last, sent)
	}
	after := d.snapshot(t, searchScope{})
	compare(t, g, after, after)
}

// TestStateDirectory checks that the files of the state directory contain neither secrets nor
// the connection.
func TestStateDirectory(t *testing.T) {
	d := sharedController(t)
	connection, profile := d.console("LDAP", puneOU, "SUBTREE")
	g := newGateway(t, connection, profile)
	settings := newSettings(t, g)
	run(t, settings, "sync").MustExit(t, 0)
	err := filepath.WalkDir(settings["service.state-dir"], func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, value := range map[string]string{"LDAP password": d.service.password, "gateway password": gatewayPassword, "bind DN": d.service.dn} {
			if strings.Contains(string(content), value) {
				t.Errorf("%s contains the %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
