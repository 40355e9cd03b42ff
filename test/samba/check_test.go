//go:build ad

package samba

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"adconnector/test/ports"
	"adconnector/test/program"
	"adconnector/test/testenv"
)

// preflight is what check prints for programs.
type preflight struct {
	OK     bool
	Checks []preflightLine
}

type preflightLine struct{ Name, Result, Found, Remedy string }

// check runs the preflight and shows it, as people see it, in the test's log.
func check(t *testing.T, s testenv.Settings) (preflight, program.Outcome) {
	t.Helper()
	o := run(t, s, "check", "--output", "json")
	var p preflight
	if err := json.Unmarshal([]byte(o.Stdout), &p); err != nil {
		t.Fatalf("%v in %s", err, o.Stdout)
	}
	for _, line := range p.Checks {
		t.Logf("%-4s %-22s %s", line.Result, line.Name, line.Found)
		if line.Remedy != "" {
			t.Logf("%-27s -> %s", "", line.Remedy)
		}
	}
	return p, o
}

// TestCheck breaks one thing after the other and looks at what check says of it. Lines
// that are not named must be ok, or skipped.
func TestCheck(t *testing.T) {
	d := domain(t)
	g := newGateway(t, nil, nil)
	everywhere := d.ldap(newSettings(t, g), "LDAPS").With(testenv.Settings{"ldap.certificate": d.certificate()})
	good := everywhere.With(testenv.Settings{"profile.baseContext": puneOU}) // which has users and a group, and is quick to count
	const (
		deleted   = "see deletions" // is a warning until the account is granted the right
		operators = "Directory Operators"
	)
	there := d.read(t, search{})
	counts := strconv.Itoa(len(there.users)) + " users and " + strconv.Itoa(len(there.groups)) + " groups"
	dsacls := `dsacls "` + deletedDN + `" /g "` + serviceAccount + "@corp.example.com" + `:LCRP"`

	cases := []struct {
		name  string
		env   testenv.Settings
		code  int
		lines map[string]string // name: result
		line  string            // of these words
		words []string
	}{
		{"as documented, the whole domain", everywhere, 0, nil, "counts", []string{counts}},
		{"plain LDAP", good.With(testenv.Settings{"ldap.protocol": "LDAP"}), 0, map[string]string{"TLS": "warn"}, "TLS", []string{"ldap.protocol"}},
		{"StartTLS", good.With(testenv.Settings{"ldap.protocol": "STARTTLS"}), 0, nil, "TLS", []string{"127.0.0.1:389"}},
		{"no right to see deletions", good, 0, nil, deleted, []string{dsacls}},
		{"gateway's password", good.With(testenv.Settings{"qualys.user.password": "wrong"}), 3, map[string]string{"gateway login": "fail"},
			"gateway login", []string{"qualys.user.username", "qualys.user.password"}},
		{"no such host", good.With(testenv.Settings{"ldap.host": "dc1.invalid"}), 1, map[string]string{"directory": "fail"}, "directory", []string{"ldap.host"}},
		{"closed port", good.With(testenv.Settings{"ldap.port": strconv.Itoa(ports.Refusing(t))}), 1, map[string]string{"directory": "fail"}, "directory", []string{"127.0.0.1"}},
		{"global catalog", good.With(testenv.Settings{"ldap.port": "3269"}), 0, map[string]string{"directory": "warn"}, "directory", []string{"ldap.port", "389", "636"}},
		{"no certificate", good.With(testenv.Settings{"ldap.certificate": ""}), 3, map[string]string{"TLS": "fail"}, "TLS", []string{"DC1.", "ldap.certificate"}},
		{"another protocol's port", good.With(testenv.Settings{"ldap.port": "389"}), 1, map[string]string{"TLS": "fail"}, "TLS", []string{"port 636"}},
		{"locked account", good.With(testenv.Settings{"ldap.bindDn": lockedDN}), 3, map[string]string{"bind": "fail"}, "bind", []string{lockedDN}},
		{"no such base", good.With(testenv.Settings{"profile.baseContext": "OU=Nowhere," + baseDN}), 3, map[string]string{"base context": "fail"},
			"base context", []string{"profile.baseContext"}},
		{"nothing below the base", good.With(testenv.Settings{"profile.searchScope": "BASE"}), 0,
			map[string]string{"read users": "warn", "read groups": "warn", "counts": "warn"}, "read users", []string{`dsacls "` + puneOU + `" /I:T /G "` + serviceAccount + "@corp.example.com:LCRP"}},
		{"large pages", good.With(testenv.Settings{"ldap.page-size": "5000"}), 0, map[string]string{"page size": "warn"}, "page size", []string{"1000", "ldap.page-size"}},
		{"an administrator", good.With(testenv.Settings{"ldap.bindDn": d.admin.dn, "ldap.password": d.admin.password}), 0, map[string]string{"bind account": "warn", deleted: "ok"},
			"bind account", []string{"Administrator@corp.example.com", "Domain Admins", "Enterprise Admins", "Administrators"}},
		{"as DOMAIN\\name", good.With(testenv.Settings{"ldap.bindDn": `CORP\` + serviceAccount}), 0, nil, "bind account", []string{serviceAccount + "@corp.example.com"}},
	}
	try := func(t *testing.T, env testenv.Settings, code int, lines map[string]string, line string, words []string) {
		p, o := check(t, env)
		o.MustExit(t, code)
		if p.OK != (code == 0) {
			t.Errorf("ok is %t", p.OK)
		}
		for _, l := range p.Checks {
			want := lines[l.Name]
			if want == "" && l.Name == deleted {
				want = "warn"
			}
			if l.Result != want && (want != "" || l.Result != "ok") && !strings.HasPrefix(l.Found, "skipped: ") {
				t.Errorf("%s is %s, want %q: %+v", l.Name, l.Result, want, l)
			}
			for _, word := range words {
				if l.Name == line && !strings.Contains(l.Found+" "+l.Remedy, word) {
					t.Errorf("%q is not in %+v", word, l)
				}
			}
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { try(t, c.env, c.code, c.lines, c.line, c.words) })
	}
	t.Run("deletions in sight", func(t *testing.T) {
		d.grant(t, serviceAccount)
		t.Cleanup(func() { d.grant(t, "") })
		try(t, good, 0, map[string]string{deleted: "ok"}, deleted, []string{"show at the next run"})
	})
	t.Run("an administrator by way of a group", func(t *testing.T) {
		tool := func(args ...string) {
			t.Helper()
			if _, err := d.tool(args...); err != nil {
				t.Fatal(err)
			}
		}
		tool("group", "add", operators)
		t.Cleanup(func() {
			if _, err := d.tool("group", "delete", operators); err != nil {
				t.Error(err)
			}
		})
		tool("group", "addmembers", operators, serviceAccount)
		tool("group", "addmembers", "Administrators", operators)
		try(t, good, 0, map[string]string{"bind account": "warn", deleted: "ok"}, "bind account", []string{"is a member of Administrators", "use a plain domain user instead"})
	})
	t.Run("wrong password, once", func(t *testing.T) {
		wrong := good.With(testenv.Settings{"ldap.password": "Wr0ng-" + strings.Repeat("x", 12)})
		keepSecret(wrong["ldap.password"])
		before := d.value(t, serviceAccount, "badPwdCount")
		try(t, wrong, 3, map[string]string{"bind": "fail"}, "bind", []string{"ldap.password"})
		was, _ := strconv.Atoi(before)
		if after := d.value(t, serviceAccount, "badPwdCount"); after != strconv.Itoa(was+1) {
			t.Errorf("badPwdCount %s, %s before: want one attempt", after, before)
		}
		run(t, good, "check").MustExit(t, 0) // and forgets it
	})
	if len(states(g)) != 0 {
		t.Errorf("states were sent: %v", states(g))
	}
}
