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
	"adconnector/test/testlog"
)

// checkReport is the JSON output of the command check.
type checkReport struct {
	OK     bool
	Checks []checkResult
}

type checkResult struct{ Name, Result, Found, Remedy string }

// check runs the command check and writes its results to the test's log.
func check(t *testing.T, s testenv.Settings) (checkReport, program.Outcome) {
	t.Helper()
	o := run(t, s, "check", "--output", "json")
	var report checkReport
	if err := json.Unmarshal([]byte(o.Stdout), &report); err != nil {
		t.Fatalf("%v in %s", err, o.Stdout)
	}
	for _, result := range report.Checks {
		t.Logf("%-4s %-22s %s", result.Result, result.Name, result.Found)
		if result.Remedy != "" {
			t.Logf("%-27s -> %s", "", result.Remedy)
		}
	}
	return report, o
}

// TestCheck misconfigures one setting after the other and checks the results of the command
// check. Results that a case does not name must be ok or skipped.
func TestCheck(t *testing.T) {
	d := sharedController(t)
	g := newGateway(t, nil, nil)
	wholeDomain := d.withConnection(newSettings(t, g), "LDAPS").With(testenv.Settings{"ldap.certificate": d.certificate()})
	pune := wholeDomain.With(testenv.Settings{"profile.baseContext": puneOU}) // has users and a group, and is counted quickly
	const (
		deletions = "see deletions" // warn until the account has read access to Deleted Objects
		operators = "Directory Operators"
	)
	identities := d.snapshot(t, searchScope{})
	counts := strconv.Itoa(len(identities.users)) + " users and " + strconv.Itoa(len(identities.groups)) + " groups"
	dsacls := `dsacls "` + deletedDN + `" /I:T /G "` + serviceAccount + "@corp.example.com" + `:LCRP"`

	type checkCase struct {
		name     string
		settings testenv.Settings
		code     int
		results  map[string]string // by name
		result   string            // the name of a result that contains words
		words    []string
	}
	cases := []checkCase{
		{"whole domain", wholeDomain, 0, nil, "counts", []string{counts}},
		{"plain LDAP", pune.With(testenv.Settings{"ldap.protocol": "LDAP"}), 0, map[string]string{"TLS": "warn"}, "TLS", []string{"ldap.protocol"}},
		{"StartTLS", pune.With(testenv.Settings{"ldap.protocol": "STARTTLS"}), 0, nil, "TLS", []string{"127.0.0.1:389"}},
		{"no read access to Deleted Objects", pune, 0, nil, deletions, []string{dsacls}},
		{"wrong password of the gateway", pune.With(testenv.Settings{"qualys.user.password": "wrong"}), 3, map[string]string{"gateway login": "fail"},
			"gateway login", []string{"qualys.user.username", "qualys.user.password"}},
		{"unknown host", pune.With(testenv.Settings{"ldap.host": "dc1.invalid"}), 1, map[string]string{"directory": "fail"}, "directory", []string{"ldap.host"}},
		{"closed port", pune.With(testenv.Settings{"ldap.port": strconv.Itoa(ports.Refusing(t))}), 1, map[string]string{"directory": "fail"}, "directory", []string{"127.0.0.1"}},
		{"global catalog", pune.With(testenv.Settings{"ldap.port": "3269"}), 3, map[string]string{"directory": "fail"}, "directory", []string{"ldap.port", "389", "636"}},
		{"no certificate", pune.With(testenv.Settings{"ldap.certificate": ""}), 3, map[string]string{"TLS": "fail"}, "TLS", []string{"DC1.", "ldap.certificate"}},
		{"port of another protocol", pune.With(testenv.Settings{"ldap.port": "389"}), 1, map[string]string{"TLS": "fail"}, "TLS", []string{"port 636"}},
		{"locked account", pune.With(testenv.Settings{"ldap.bindDn": lockedDN}), 3, map[string]string{"bind": "fail"}, "bind", []string{lockedDN}},
		{"base context does not exist", pune.With(testenv.Settings{"profile.baseContext": "OU=Nowhere," + baseDN}), 3, map[string]string{"base context": "fail"},
			"base context", []string{"profile.baseContext"}},
		{"no identities in scope", pune.With(testenv.Settings{"profile.searchScope": "BASE"}), 0,
			map[string]string{"read users": "warn", "read groups": "warn", "counts": "warn"}, "read users", []string{`dsacls "` + puneOU + `" /I:T /G "` + serviceAccount + "@corp.example.com:LCRP"}},
		{"page size above the server's limit", pune.With(testenv.Settings{"ldap.page-size": "5000"}), 0, map[string]string{"page size": "warn"}, "page size", []string{"1000", "ldap.page-size"}},
		{"administrator", pune.With(testenv.Settings{"ldap.bindDn": d.admin.dn, "ldap.password": d.admin.password}), 0, map[string]string{"bind account": "warn", deletions: "ok"},
			"bind account", []string{"Administrator@corp.example.com", "Domain Admins", "Enterprise Admins", "Administrators"}},
		{"bind as DOMAIN\\name", pune.With(testenv.Settings{"ldap.bindDn": `CORP\` + serviceAccount}), 0, nil, "bind account", []string{serviceAccount + "@corp.example.com"}},
	}
	test := func(t *testing.T, c checkCase) {
		report, o := check(t, c.settings)
		o.MustExit(t, c.code)
		if report.OK != (c.code == 0) {
			t.Errorf("ok is %t, exit code %d", report.OK, c.code)
		}
		for _, r := range report.Checks {
			want := c.results[r.Name]
			if want == "" && r.Name == deletions {
				want = "warn"
			}
			if r.Result != want && (want != "" || r.Result != "ok") && !strings.HasPrefix(r.Found, "skipped: ") {
				t.Errorf("%s is %s, want %q: %+v", r.Name, r.Result, want, r)
			}
			for _, word := range c.words {
				if r.Name == c.result && !strings.Contains(r.Found+" "+r.Remedy, word) {
					t.Errorf("%q missing in %+v", word, r)
				}
			}
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { test(t, c) })
	}
	t.Run("read access to Deleted Objects", func(t *testing.T) {
		d.grantReadDeleted(t)
		test(t, checkCase{settings: pune, results: map[string]string{deletions: "ok"}})
	})
	t.Run("administrator through a nested group", func(t *testing.T) {
		sambaTool := func(args ...string) {
			t.Helper()
			if _, err := d.sambaTool(args...); err != nil {
				t.Fatal(err)
			}
		}
		sambaTool("group", "add", operators)
		t.Cleanup(func() {
			if _, err := d.sambaTool("group", "delete", operators); err != nil {
				t.Error(err)
			}
		})
		sambaTool("group", "addmembers", operators, serviceAccount)
		sambaTool("group", "addmembers", "Administrators", operators)
		test(t, checkCase{
			settings: pune, results: map[string]string{"bind account": "warn", deletions: "ok"},
			result: "bind account", words: []string{serviceAccount, "Administrators"},
		})
	})
	t.Run("wrong password, one attempt", func(t *testing.T) {
		wrong := pune.With(testenv.Settings{"ldap.password": "Wr0ng-" + strings.Repeat("x", 12)})
		testlog.AddSecret(wrong["ldap.password"])
		before, err := strconv.Atoi(d.value(t, serviceAccount, "badPwdCount"))
		if err != nil {
			t.Fatal(err)
		}
		test(t, checkCase{settings: wrong, code: 3, results: map[string]string{"bind": "fail"}, result: "bind", words: []string{"ldap.password"}})
		if after := d.value(t, serviceAccount, "badPwdCount"); after != strconv.Itoa(before+1) {
			t.Errorf("badPwdCount %s, want %d", after, before+1)
		}
		run(t, pune, "check").MustExit(t, 0) // resets badPwdCount
	})
	if len(states(g)) != 0 {
		t.Errorf("check sent states: %v", states(g))
	}
}
