//go:build ad

package samba

import (
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

const (
	openOU      = "OU=Open," + baseDN
	closedOU    = "OU=Closed," + openOU
	closedLower = "OU=Lower," + closedOU
	closedUsers = 4
)

// closedDN returns the DN of a user. The first closedUsers are in closedOU, and the next one is in
// closedLower.
func closedDN(n int) string {
	parent := openOU
	switch {
	case n < closedUsers:
		parent = closedOU
	case n == closedUsers:
		parent = closedLower
	}
	return "CN=closed" + strconv.Itoa(n) + "," + parent
}

// addClosedOU adds ten users until the test ends.
func (d *controller) addClosedOU(t *testing.T) {
	t.Helper()
	var l ldif
	for _, dn := range []string{openOU, closedOU, closedLower} {
		l.create(dn, "objectClass", "organizationalUnit")
	}
	for n := range 10 {
		l.create(closedDN(n), "objectClass", "user", "sAMAccountName", "closed"+strconv.Itoa(n), "userAccountControl", strconv.Itoa(uacPlain))
	}
	d.ldapmodify(t, l.String())
	t.Cleanup(func() {
		if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, openOU); err != nil {
			t.Error(err)
		}
	})
}

// setUnitDescriptor replaces the security descriptor of closedOU.
func (d *controller) setUnitDescriptor(t *testing.T, sddl string) {
	t.Helper()
	var l ldif
	l.replace(closedOU, "nTSecurityDescriptor", sddl)
	if err := d.ldb("ldbmodify", l.String()); err != nil {
		t.Fatal(err)
	}
}

// namesSeen returns the first values of the DNs that a search of the connector's account finds.
func (d *controller) namesSeen(t *testing.T, base, scope, filter string) string {
	t.Helper()
	out, err := runTool("", "ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", d.url, "-D", d.service.dn, "-y", d.service.file,
		"-b", base, "-s", scope, filter, "1.1")
	if err != nil {
		return "error " + strings.TrimSpace(out)
	}
	records, err := parseLDIF(out)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range records {
		name, _, _ := strings.Cut(r.dn, ",")
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// TestClosedUnit takes from the account the rights to read an organizational unit and to list its
// contents. No user in it may be reported as deleted, until an operator accepts that.
func TestClosedUnit(t *testing.T) {
	d := sharedController(t)
	d.addClosedOU(t)
	g := newGateway(t, nil, nil)
	settings := d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"profile.baseContext": openOU, "sync.max-deletes-percent": "100"})
	run(t, settings, "sync").MustExit(t, 0)

	sync := func(code int, result string, undecided, deleted int, args ...string) {
		t.Helper()
		o := run(t, settings, append([]string{"sync", "--full"}, args...)...)
		o.MustExit(t, code)
		finished := summary(t, o)
		if finished["result"] != result {
			t.Errorf("summary %v", finished)
		}
		mustCount(t, finished, "undecided", undecided)
		mustCount(t, finished, "held", 0)
		if lines := o.With(syncrun.MsgDeletionsUndecided); (undecided > 0) != (len(lines) == 1) || undecided > 0 &&
			(lines[0].Text("reason") != string(syncrun.UndecidedContainers) || !strings.Contains(lines[0].Text("remedy"), `: dsacls "`+closedOU+`" /I:T /G "`+serviceAccount+"@corp.example.com:LCRP\";")) {
			t.Errorf("log %v", lines)
		}
		reported := 0
		for _, asset := range assets(g) {
			if testenv.IsDeleted(asset) {
				reported++
			}
		}
		if reported != deleted {
			t.Errorf("%d users are deleted at the gateway, want %d", reported, deleted)
		}
	}
	granted := ownerRights + "(A;CI;LCRP;;;" + d.sid(t, serviceDN) + ")" // as dsacls /I:T
	d.setUnitDescriptor(t, ownerRights)                                  // the user in the lower unit becomes unreadable
	for _, c := range []struct{ base, scope, filter, want string }{
		{openOU, "sub", "(!(objectClass=top))", "OU=Closed"},
		{closedOU, "one", "(objectClass=*)", ""},
		{closedOU, "base", "(objectClass=*)", "OU=Closed"},
		{closedDN(0), "base", "(objectClass=*)", "error"},
		{openOU, "sub", "(sAMAccountName=closed0)", ""},
		{openOU, "sub", "(sAMAccountName=closed4)", "CN=closed4"}, // the lower unit has an entry for all accounts
		{closedLower, "base", "(objectClass=*)", "error"},
	} {
		if got := d.namesSeen(t, c.base, c.scope, c.filter); got != c.want && !(c.want == "error" && strings.HasPrefix(got, "error")) {
			t.Errorf("%s %s %s: %q, want %q", c.base, c.scope, c.filter, got, c.want)
		}
	}
	sync(5, syncrun.Held, closedUsers, 0)
	d.delete(t, closedDN(9))
	sync(5, syncrun.Held, closedUsers+1, 0)
	d.setUnitDescriptor(t, granted)
	sync(0, syncrun.Processed, 0, 1)
	d.setUnitDescriptor(t, ownerRights)
	sync(5, syncrun.Held, closedUsers, 1)
	sync(0, syncrun.Partial, 0, closedUsers+1, "--allow-deletes")
	d.delete(t, closedDN(8))
	sync(0, syncrun.Partial, 0, closedUsers+2)
	d.setUnitDescriptor(t, granted)
	sync(0, syncrun.Processed, 0, 2)
	d.delete(t, closedDN(7))
	sync(0, syncrun.Processed, 0, 3)                     // searches for containers, and so ends the acceptance
	d.setUnitDescriptor(t, ownerRights+"(A;;RPRC;;;AU)") // readable, but not listed
	sync(5, syncrun.Held, closedUsers, 3)
	report, o := check(t, settings)
	o.MustExit(t, 0)
	mustWarn(t, report, "unreadable objects", "the contents of 1 container cannot be listed", `dsacls "`+closedOU+`" /I:T /G "`)
	d.setUnitDescriptor(t, granted)
	sync(0, syncrun.Processed, 0, 3)
}
