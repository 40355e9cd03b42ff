//go:build ad

package samba

import (
	"strings"
	"testing"

	"adconnector/test/testenv"
)

// TestBindAccount binds by several forms of the account's name. One of them is also the name of an
// administrator: the check must not take the account for that one.
func TestBindAccount(t *testing.T) {
	d := sharedController(t)
	const principal = "other.name@partner.example"
	other := d.addUser(t, "Other Account", otherOU, "other.name")
	t.Cleanup(func() { d.delete(t, other) })
	d.changeMember(t, "CN=Domain Admins,CN=Users,"+baseDN, "add", other)
	d.setAttribute(t, serviceDN, "userPrincipalName", principal)
	domain := strings.ToLower(realm)
	t.Cleanup(func() { d.setAttribute(t, serviceDN, "userPrincipalName", serviceAccount+"@"+domain) }) // Samba refuses to remove it
	g := newGateway(t, nil, nil)
	settings := d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"profile.baseContext": peopleOU})
	const want = serviceAccount + "@corp.example.com, not an administrator"
	for name, bound := range map[string]string{
		"user principal name": principal, "implicit principal name": serviceAccount + "@" + domain, "account name": `CORP\` + serviceAccount,
		"canonical name": domain + "/Service/" + serviceAccount, "SID": d.sid(t, serviceDN), "DN": serviceDN,
	} {
		t.Run(name, func(t *testing.T) {
			report, o := check(t, settings.With(testenv.Settings{"ldap.bindDn": bound}))
			o.MustExit(t, 0)
			for _, r := range report.Checks {
				if r.Name == "bind account" && (r.Result != "ok" || r.Found != want) {
					t.Errorf("%+v, want %q", r, want)
				}
				if r.Name == "see deletions" && !strings.Contains(r.Remedy, `"`+serviceAccount+"@"+domain+":LCRP\"") {
					t.Errorf("remedy %q", r.Remedy)
				}
			}
		})
	}
	t.Run("member of Protected Users", func(t *testing.T) {
		d.changeMember(t, protectedUsersDN, "add", serviceDN)
		t.Cleanup(func() { d.changeMember(t, protectedUsersDN, "delete", serviceDN) })
		o := run(t, settings, "sync")
		o.MustExit(t, 3)
		mustReport(t, o, "Protected Users", "authentication policies")
	})
}
