//go:build ad

package samba

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

const controlOU = "OU=Control," + baseDN

func controlDN(name string) string { return "CN=" + name + "," + controlOU }

// addControlOU adds accounts, one of them privileged, until the test ends.
func (d *controller) addControlOU(t *testing.T) {
	t.Helper()
	var l ldif
	l.create(controlOU, "objectClass", "organizationalUnit")
	for _, name := range []string{"admin", "plain", "alice"} {
		l.create(controlDN(name), "objectClass", "user", "sAMAccountName", "control."+name, "userAccountControl", strconv.Itoa(uacNormal),
			"unicodePwd", unicodePwd(d.service.password))
	}
	d.ldapmodify(t, l.String())
	d.changeMember(t, "CN=Backup Operators,CN=Builtin,"+baseDN, "add", controlDN("admin"))
	t.Cleanup(func() {
		if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, controlOU); err != nil {
			t.Error(err)
		}
	})
}

// setAccess adds entries before the others of an object's access control list.
func (d *controller) setAccess(t *testing.T, dn, entries string) {
	t.Helper()
	if out, err := d.sambaTool("dsacl", "set", "--objectdn="+dn, "--sddl="+entries); err != nil {
		t.Fatal(out, err)
	}
}

// usnOf returns the update sequence number of an object.
func (d *controller) usnOf(t *testing.T, dn string) int {
	t.Helper()
	usn, err := strconv.Atoi(d.ldapsearch(t, dn, "base", "(objectClass=*)", "uSNChanged")[0].values.First("uSNChanged"))
	if err != nil {
		t.Fatal(err)
	}
	return usn
}

// classOfAsset returns the fields of an asset's class.
func classOfAsset(t *testing.T, i gatewayserver.Identity, class string) map[string]any {
	t.Helper()
	var document struct {
		Asset struct {
			AssetDetail map[string]json.RawMessage // also has a name
		}
	}
	if err := json.Unmarshal(i.Asset, &document); err != nil {
		t.Fatal(err)
	}
	content := map[string]any{}
	if err := json.Unmarshal(document.Asset.AssetDetail[class], &content); err != nil {
		t.Fatalf("%v: %s", err, i.Asset)
	}
	return content
}

// TestControl provokes each change of who controls an object, and checks that the delta sync of a
// plain user finds it.
func TestControl(t *testing.T) {
	d := sharedController(t)
	d.addControlOU(t)
	for _, dn := range []string{baseDN, adminSDHolder} {
		d.keepDescriptor(t, dn)
	}
	alice, account := d.sid(t, controlDN("alice")), d.sid(t, d.service.dn)
	connection, profile := d.console("LDAP", controlOU, "SUBTREE")
	profile.Assets = "Identity with security posture"
	g := newGateway(t, connection, profile)
	settings := newSettings(t, g).With(testenv.Settings{"sync.max-deletes-percent": "100"})
	admin := func() map[string]any {
		for _, i := range g.Users() {
			if i.ExternalAssetID == d.sid(t, controlDN("admin")) {
				posture, _ := classOfAsset(t, i, "userAssetClass")["posture"].(map[string]any)
				return posture
			}
		}
		t.Fatal("no asset")
		return nil
	}
	domain := func() map[string]any {
		return classOfAsset(t, g.Sandbox().Identities(gatewayserver.KindDomain)[0], "domainAssetClass")
	}
	holds := func(object any, right string) bool {
		object, _ = object.(map[string]any)["controlledBy"]
		lists, _ := object.(map[string]any)
		list, _ := lists[right].([]any)
		return slices.Contains(list, any(alice))
	}
	const reset = "00299570-246d-11d0-a768-00aa006e0529"
	replaced := strings.NewReplacer("ALICE", alice, "SERVICE", account)
	for _, step := range []struct {
		name, dn, entries string
		check             func() bool
		unreadable        int // security descriptors
	}{
		{name: "first", check: func() bool { return !holds(admin(), "resetPassword") && !holds(domain(), "replicationRights") }},
		{"own descriptor", controlDN("admin"), "(OA;;CR;" + reset + ";;ALICE)", func() bool { return holds(admin(), "resetPassword") }, 0},
		{"inherited", controlOU, "(A;CI;GA;;;ALICE)", func() bool {
			containers, _ := domain()["containers"].([]any)
			return holds(admin(), "fullControl") && slices.ContainsFunc(containers, func(c any) bool {
				return c.(map[string]any)["distinguishedName"] == controlOU && holds(c, "fullControl") && holds(c, "createChild")
			})
		}, 0},
		{"replication", baseDN, "(OA;;CR;1131f6aa-9c07-11d1-f79f-00c04fc2dcd2;;ALICE)(OA;;CR;1131f6ad-9c07-11d1-f79f-00c04fc2dcd2;;ALICE)", func() bool { return holds(domain(), "replicationRights") }, 0},
		{"AdminSDHolder", adminSDHolder, "(OA;;CR;" + reset + ";;ALICE)", func() bool { return holds(domain()["adminSdHolder"], "resetPassword") }, 0},
		{"unreadable", controlDN("admin"), "(D;;RC;;;SERVICE)", func() bool {
			return admin()["controlledBy"] == nil && fmt.Sprint(admin()["unreadable"]) == "[controlledBy]"
		}, 1},
		{"unreadable AdminSDHolder", adminSDHolder, "(D;;RC;;;SERVICE)", func() bool {
			report, o := check(t, settings)
			o.MustExit(t, 0)
			mustWarn(t, report, "read permissions", ad.AttributeDescriptor+" of 1 of ", adminSDHolder, `dsacls "`+adminSDHolder+`" /G "`+serviceAccount+`@corp.example.com:RC"`)
			return domain()["adminSdHolder"] == nil && strings.Contains(fmt.Sprint(domain()["unreadable"]), "adminSdHolder.controlledBy")
		}, 2}, // with the user
	} {
		before := d.usnOf(t, controlDN("admin"))
		mode := "full"
		if step.dn != "" {
			mode = "delta"
			d.setAccess(t, step.dn, replaced.Replace(step.entries))
			t.Logf("%s: uSNChanged of the privileged user %d, before %d", step.name, d.usnOf(t, controlDN("admin")), before)
			var l ldif // exceeds the overlap of delta syncs
			for n := range 220 {
				l.replace("CN=Guest,CN=Users,"+baseDN, "description", strconv.Itoa(n))
			}
			if step.dn == controlOU { // not the user, which only inherits
				d.ldapmodify(t, l.String())
			}
		}
		o := run(t, settings, "sync")
		o.MustExit(t, 0)
		finished := summary(t, o)
		if got := finished["mode"]; got != mode || !step.check() {
			t.Fatalf("%s: mode %v; user %v; domain %v", step.name, got, admin(), domain())
		}
		mustCount(t, finished, "unreadable", step.unreadable)
		if want := map[bool]string{false: syncrun.Processed, true: syncrun.Partial}[step.unreadable > 0]; finished["result"] != want {
			t.Errorf("%s: %v, want %s", step.name, finished, want)
		}
	}
	for _, i := range g.Users() {
		if i.ExternalAssetID == d.sid(t, controlDN("plain")) && strings.Contains(string(i.Asset), "controlledBy") {
			t.Errorf("%s", i.Asset)
		}
	}
}
