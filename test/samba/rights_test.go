//go:build ad

package samba

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"adconnector/internal/syncrun"
	"adconnector/test/oracle"
	"adconnector/test/testenv"
)

const (
	rightsOU = "OU=Rights," + baseDN
	deniedOU = "OU=Denied," + rightsOU

	preWindows2000  = "CN=Pre-Windows 2000 Compatible Access,CN=Builtin," + baseDN
	everyAccount    = "CN=S-1-5-11,CN=ForeignSecurityPrincipals," + baseDN // Authenticated Users
	schemaIDControl = "bf967a68-0de6-11d0-a285-00aa003049e2"               // userAccountControl (MS-ADA3)
	schemaIDExpires = "bf967915-0de6-11d0-a285-00aa003049e2"               // accountExpires (MS-ADA1)
	rightsUsers     = 25
	rightsDenied    = 3 // of them in deniedOU
)

// addRightsOU adds disabled users with an expiry, until the test ends.
func (d *controller) addRightsOU(t *testing.T) {
	t.Helper()
	var l ldif
	l.create(rightsOU, "objectClass", "organizationalUnit")
	l.create(deniedOU, "objectClass", "organizationalUnit")
	for n := range rightsUsers {
		parent := rightsOU
		if n < rightsDenied {
			parent = deniedOU
		}
		account := fmt.Sprintf("rights%d", n)
		l.create("CN="+account+","+parent, "objectClass", "user", "sAMAccountName", account, "accountExpires", fileTime(time.Now().AddDate(1, 0, 0)),
			"userAccountControl", strconv.Itoa(uacPlainDisabled))
	}
	d.ldapmodify(t, l.String())
	t.Cleanup(func() {
		if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, rightsOU); err != nil {
			t.Error(err)
		}
	})
}

// deny takes from the connector's account the right to read an attribute of all objects below a
// DN. That has no effect on attributes that the security descriptor of each user allows every
// account to read, such as mail.
func (d *controller) deny(t *testing.T, dn, schemaID string) {
	t.Helper()
	sddl := "(OD;CI;RP;" + schemaID + ";;" + d.sid(t, serviceDN) + ")"
	if out, err := d.sambaTool("dsacl", "set", "--objectdn="+dn, "--sddl="+sddl); err != nil {
		t.Fatal(out, err)
	}
}

// TestRights takes from the account the rights to read attributes of all users, of some users,
// and to read an optional attribute. No value at the gateway may change by that.
func TestRights(t *testing.T) {
	d := sharedController(t)
	d.addRightsOU(t)
	g := newGateway(t, nil, nil)
	scope := searchScope{base: rightsOU}
	settings := d.withConnection(newSettings(t, g), "LDAP").With(testenv.Settings{"profile.baseContext": rightsOU})
	syncAndCompare(t, d, g, settings, scope)

	// sync performs a full sync and expects as many assets to change. Each user stays disabled.
	sync := func(t *testing.T, code, changed int, args ...string) {
		t.Helper()
		before := assets(g)
		o := run(t, settings, append([]string{"sync", "--full"}, args...)...)
		o.MustExit(t, code)
		after, different := assets(g), 0
		for sid, asset := range after {
			if asset != before[sid] {
				different++
			}
			if status := flatten(t, []byte(asset)).Text(oracle.UserClass + "status"); status != "DISABLED" {
				t.Errorf("%s has the status %s", sid, status)
			}
		}
		if different != changed || len(after) != rightsUsers {
			t.Errorf("%d of %d assets changed, want %d", different, len(after), changed)
		}
		if code == 3 {
			return
		}
		finished := summary(t, o)
		if finished["result"] != syncrun.Partial || finished.Text("level") != "warn" {
			t.Errorf("summary %v", finished)
		}
		mustCount(t, finished, "unreadable", rightsDenied)
		if lines := o.With(syncrun.MsgObjectsUnreadable); len(lines) != 1 || lines[0].Text("attributes") != "userAccountControl" {
			t.Errorf("log %v", lines)
		}
	}

	t.Run("no user shows userAccountControl", func(t *testing.T) {
		member := func(operation string) {
			t.Helper()
			d.changeMember(t, preWindows2000, operation, everyAccount)
		}
		member("delete")
		restored := false
		t.Cleanup(func() {
			if !restored {
				member("add")
			}
		})
		sync(t, 3, 0)
		o := run(t, settings, "sync")
		o.MustExit(t, 3)
		mustReport(t, o, "userAccountControl of users below "+rightsOU, `dsacls "`+rightsOU+`"`, serviceAccount)
		member("add")
		restored = true
		syncAndCompare(t, d, g, settings, scope)
	})
	t.Run("userAccountControl of some users unreadable", func(t *testing.T) {
		d.deny(t, deniedOU, schemaIDControl)
		sync(t, 0, 0)
	})
	t.Run("no user shows accountExpires any more", func(t *testing.T) {
		d.deny(t, rightsOU, schemaIDExpires)
		sync(t, 3, 0)
		o := run(t, settings, "sync", "--full")
		mustReport(t, o, "accountExpires of users below "+rightsOU, "--allow-deletes")
		sync(t, 0, rightsUsers-rightsDenied, "--allow-deletes")
	})
}

// assets returns the assets of the users at a gateway, by SID.
func assets(g *testenv.Gateway) map[string]string {
	all := map[string]string{}
	for _, identity := range g.Users() {
		all[identity.ExternalAssetID] = string(identity.Asset)
	}
	return all
}
