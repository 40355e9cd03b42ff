//go:build ad

package samba

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

const (
	absenceOU    = "OU=Absence," + baseDN
	lockedOU     = "OU=Locked," + absenceOU
	lockedUsers  = 4
	absenceUsers = 10 // lockedUsers of them in lockedOU

	schemaIDGUID = "bf9679e7-0de6-11d0-a285-00aa003049e2" // objectGUID (MS-ADA3)

	// ownerRights is a security descriptor that does not inherit. It lets administrators do
	// everything, and others nothing.
	ownerRights = "O:DAG:DAD:PAI(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;SY)(A;;RPWPCRCCDCLCLORCWOWDSDDTSW;;;DA)"
	everyRight  = "(A;;RPLCLORC;;;AU)" // as an addition to ownerRights: every account may read
)

func absenceDN(n int) string {
	if n < lockedUsers {
		return "CN=absence" + strconv.Itoa(n) + "," + lockedOU
	}
	return "CN=absence" + strconv.Itoa(n) + "," + absenceOU
}

// addAbsenceOU adds users in two units until the test ends.
func (d *controller) addAbsenceOU(t *testing.T) {
	t.Helper()
	var l ldif
	l.create(absenceOU, "objectClass", "organizationalUnit")
	l.create(lockedOU, "objectClass", "organizationalUnit")
	for n := range absenceUsers {
		l.create(absenceDN(n), "objectClass", "user", "sAMAccountName", fmt.Sprintf("absence%d", n), "userAccountControl", strconv.Itoa(uacPlain))
	}
	d.ldapmodify(t, l.String())
	t.Cleanup(func() {
		if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, absenceOU); err != nil {
			t.Error(err)
		}
	})
}

// setDescriptor replaces the security descriptors of users.
func (d *controller) setDescriptor(t *testing.T, sddl string, users ...int) {
	t.Helper()
	var l ldif
	for _, n := range users {
		l.replace(absenceDN(n), "nTSecurityDescriptor", sddl)
	}
	if err := d.ldb("ldbmodify", l.String()); err != nil {
		t.Fatal(err)
	}
}

// TestAbsence makes users unreadable in two ways: the account may only list them, or it may not
// read their objectGUID. Neither may be reported as deleted, and others that are deleted must be.
func TestAbsence(t *testing.T) {
	d := sharedController(t)
	d.addAbsenceOU(t)
	g := newGateway(t, nil, nil)
	settings := d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"profile.baseContext": absenceOU})
	run(t, settings, "sync").MustExit(t, 0)

	// sync performs a full sync, and expects as many users to be unreadable and to be deleted at the
	// gateway in total.
	sync := func(t *testing.T, result string, unreadable, deleted int, args ...string) {
		t.Helper()
		o := run(t, settings, append([]string{"sync", "--full"}, args...)...)
		o.MustExit(t, 0)
		finished := summary(t, o)
		if finished["result"] != result {
			t.Errorf("summary %v", finished)
		}
		for field, want := range map[string]int{"unreadable": unreadable, "held": 0, "undecided": 0} {
			mustCount(t, finished, field, want)
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
	locked := []int{0, 1, 2, 3}

	t.Run("listed but not readable", func(t *testing.T) {
		d.setDescriptor(t, ownerRights, locked...)
		sync(t, syncrun.Partial, lockedUsers, 0)
		sync(t, syncrun.Partial, lockedUsers, 0, "--allow-deletes")
		report, o := check(t, settings)
		o.MustExit(t, 0)
		mustWarn(t, report, "unreadable objects", "4 objects", `dsacls "`+lockedOU+`" /I:T /G "`+serviceAccount+"@corp.example.com:LCRP")
		d.delete(t, absenceDN(0))
		sync(t, syncrun.Partial, lockedUsers-1, 1)
		d.setDescriptor(t, ownerRights+everyRight, locked[1:]...)
		sync(t, syncrun.Processed, 0, 1)
	})
	t.Run("unreadable objectGUID", func(t *testing.T) {
		d.setDescriptor(t, strings.Replace(ownerRights, "PAI", "PAI(OD;;RP;"+schemaIDGUID+";;"+d.sid(t, serviceDN)+")", 1)+everyRight, 1)
		d.delete(t, absenceDN(absenceUsers-1))
		sync(t, syncrun.Partial, 1, 2)
		report, o := check(t, settings)
		o.MustExit(t, 0)
		mustWarn(t, report, "read users", "objectGUID of 1 of", "their extended DNs identify them", `dsacls "`+lockedOU+`" /I:T /G "`)
		d.setDescriptor(t, ownerRights+everyRight, 1)
		sync(t, syncrun.Processed, 0, 2)
	})
}

// mustWarn expects a check to be a warning that contains words.
func mustWarn(t *testing.T, report checkReport, name string, words ...string) {
	t.Helper()
	for _, r := range report.Checks {
		if r.Name != name {
			continue
		}
		if r.Result != "warn" {
			t.Errorf("%+v", r)
		}
		for _, word := range words {
			if !strings.Contains(r.Found+" "+r.Remedy, word) {
				t.Errorf("%q missing in %+v", word, r)
			}
		}
		return
	}
	t.Errorf("no check %s", name)
}
