//go:build ad

package samba

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

// The containers that the Samba tests of unreadable values change.
const (
	schemaAdmins   = "CN=Schema Admins,CN=Users," + baseDN
	schemaIDMember = "bf9679c0-0de6-11d0-a285-00aa003049e2" // member (MS-ADA2)
)

// denyUntilEnd is deny. It puts the security descriptor back when the test ends, or earlier.
func (d *controller) denyUntilEnd(t *testing.T, dn, schemaID string) (allow func()) {
	t.Helper()
	allow = d.keepDescriptor(t, dn)
	d.deny(t, dn, schemaID)
	return allow
}

// keepDescriptor puts the security descriptor of an object back when the test ends, or earlier.
func (d *controller) keepDescriptor(t *testing.T, dn string) (restore func()) {
	t.Helper()
	before := d.descriptorText(t, dn)
	restore = sync.OnceFunc(func() {
		var l ldif
		l.replace(dn, "nTSecurityDescriptor", before)
		if err := d.ldb("ldbmodify", l.String()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(restore)
	return restore
}

// descriptorText returns the security descriptor of an object in SDDL.
func (d *controller) descriptorText(t *testing.T, dn string) string {
	t.Helper()
	out, err := d.sambaTool("dsacl", "get", "--objectdn="+dn)
	_, text, found := strings.Cut(out, "O:")
	if err != nil || !found {
		t.Fatal(out, err)
	}
	text, _, _ = strings.Cut("O:"+text, "\n")
	return text
}

// postureAssets returns all assets with security posture at a gateway by their externalAssetId. The
// lists of unreadable values are apart.
func postureAssets(t *testing.T, g *testenv.Gateway) (all map[string]string, unreadable map[string][]string) {
	t.Helper()
	all, unreadable = map[string]string{}, map[string][]string{}
	for _, i := range slices.Concat(g.Users(), g.Groups(), g.Sandbox().Identities(gatewayserver.KindRole)) {
		var asset any
		if err := json.Unmarshal(i.Asset, &asset); err != nil {
			t.Fatal(err)
		}
		var strip func(any)
		strip = func(v any) {
			object, ok := v.(map[string]any)
			if !ok {
				return
			}
			if names, ok := object["unreadable"].([]any); ok {
				for _, name := range names {
					unreadable[i.ExternalAssetID] = append(unreadable[i.ExternalAssetID], name.(string))
				}
				delete(object, "unreadable")
			}
			for _, inner := range object {
				strip(inner)
			}
		}
		strip(asset)
		all[i.ExternalAssetID] = canonicalJSON(t, asset)
	}
	return all, unreadable
}

// cutFacts returns an asset without the facts about its account, and the facts.
func cutFacts(t *testing.T, asset string) (rest string, facts []string) {
	t.Helper()
	var content any
	if err := json.Unmarshal([]byte(asset), &content); err != nil {
		t.Fatal(err)
	}
	object := content.(map[string]any)
	for _, name := range []string{"asset", "assetDetail", "userAssetClass", "posture"} {
		object = object[name].(map[string]any)
	}
	list, _ := object["facts"].([]any)
	for _, fact := range list {
		facts = append(facts, fact.(map[string]any)["fact"].(string))
	}
	delete(object, "facts")
	return canonicalJSON(t, content), facts
}

// TestUnreadableMembers denies the account to read the members of groups, and compares its view with that
// of an administrator at another gateway.
func TestUnreadableMembers(t *testing.T) {
	d := sharedController(t)
	d.addPostureOU(t)
	upload := func(t *testing.T, g *testenv.Gateway, settings testenv.Settings, args ...string) map[string]string {
		t.Helper()
		began := time.Now()
		o := run(t, settings, append([]string{"sync"}, args...)...)
		o.MustExit(t, 0)
		t.Logf("%v, %.1f s", o.With(syncrun.MsgMembershipsRead), time.Since(began).Seconds())
		assets, _ := postureAssets(t, g)
		return assets
	}
	connect := func(account credentials) (*testenv.Gateway, testenv.Settings) {
		connection, profile := d.console("LDAP", postureOU, "SUBTREE")
		profile.Assets = "Identity with security posture"
		connection.Authentication.BindDN, connection.Authentication.Password = account.dn, account.password
		g := newGateway(t, connection, profile)
		return g, newSettings(t, g).With(testenv.Settings{"sync.max-deletes-percent": "100"})
	}
	admin, asAdmin := connect(d.admin)
	plain, asPlain := connect(d.service)
	before := upload(t, plain, asPlain)
	if want := upload(t, admin, asAdmin); !maps.Equal(before, want) {
		t.Fatal("the views differ before")
	}
	mustMatchAdministrator := func(t *testing.T, groups ...string) {
		t.Helper()
		began := time.Now()
		o := run(t, asPlain, "sync", "--full")
		o.MustExit(t, 0)
		t.Logf("%v, %.1f s", o.With(syncrun.MsgMembershipsRead), time.Since(began).Seconds())
		finished := summary(t, o)
		if finished["result"] != syncrun.Partial || finished.Text("level") != "warn" {
			t.Errorf("summary %v", finished)
		}
		mustCount(t, finished, "unreadable", len(groups))
		if lines := o.With(syncrun.MsgObjectsUnreadable); len(lines) != 1 || lines[0].Text("attributes") != "member" || !strings.Contains(lines[0].Text("remedy"), "dsacls") {
			t.Errorf("log %v", lines)
		}
		got, unreadable := postureAssets(t, plain)
		want := upload(t, admin, asAdmin)
		for id := range want {
			if slices.Contains(unreadable[id], "facts") { // those that depend on the members are left out
				var facts, all []string
				got[id], facts = cutFacts(t, got[id])
				want[id], all = cutFacts(t, want[id])
				if slices.ContainsFunc(facts, func(fact string) bool { return !slices.Contains(all, fact) }) {
					t.Errorf("%s: facts %v, the administrator sees %v", id, facts, all)
				}
			}
			if got[id] != want[id] {
				t.Errorf("%s: %s, the administrator sees %s", id, got[id], want[id])
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d objects, the administrator sees %d", len(got), len(want))
		}
		for _, dn := range groups {
			if strings.HasSuffix(dn, postureOU) && !slices.Contains(unreadable[d.sid(t, dn)], "members") {
				t.Errorf("%s is not marked: %v", dn, unreadable)
			}
		}
		for id, names := range unreadable {
			t.Log(id, names)
		}
	}
	groups := []string{"CN=Backup Operators,CN=Builtin," + baseDN, postureDN("inner"), postureDN("many"), schemaAdmins}
	var allow []func()
	for _, dn := range groups {
		allow = append(allow, d.denyUntilEnd(t, dn, schemaIDMember))
	}
	mustMatchAdministrator(t, groups...)

	for i, dn := range groups {
		if strings.HasSuffix(dn, postureOU) { // Samba is slow to answer, so a first sync may ask only for those of roles
			allow[i]()
		}
	}
	groups = slices.DeleteFunc(groups, func(dn string) bool { return strings.HasSuffix(dn, postureOU) })
	other, asOther := connect(d.service)
	t.Run("first sync", func(t *testing.T) {
		plain, asPlain = other, asOther
		mustMatchAdministrator(t, groups...)
	})
	t.Run("changed", func(t *testing.T) {
		d.changeMember(t, schemaAdmins, "add", postureDN("weak"))
		t.Cleanup(func() { d.changeMember(t, schemaAdmins, "delete", postureDN("weak")) })
		mustMatchAdministrator(t, groups...)
	})
	t.Run("readable again", func(t *testing.T) {
		for _, f := range allow {
			f()
		}
		if got, want := upload(t, plain, asPlain, "--full"), upload(t, admin, asAdmin); !maps.Equal(got, want) {
			t.Error("the views differ")
		}
		if _, unreadable := postureAssets(t, plain); len(unreadable) > 0 {
			t.Errorf("unreadable %v", unreadable)
		}
	})
}

const (
	schemaIDPrimaryGroup = "bf967a00-0de6-11d0-a285-00aa003049e2" // primaryGroupID (MS-ADA3)
	schemaIDPasswordSet  = "bf967a0a-0de6-11d0-a285-00aa003049e2" // pwdLastSet (MS-ADA3)
)

// TestUnreadablePrimaryGroup denies the account to read the primary group of a user, and an attribute of the
// domain controller.
func TestUnreadablePrimaryGroup(t *testing.T) {
	d := sharedController(t)
	d.addPostureOU(t)
	connection, profile := d.console("LDAP", postureOU, "SUBTREE")
	profile.Assets = "Identity with security posture"
	g := newGateway(t, connection, profile)
	settings := newSettings(t, g)
	run(t, settings, "sync").MustExit(t, 0)
	before, _ := postureAssets(t, g)
	d.denyUntilEnd(t, postureDN("primary"), schemaIDPrimaryGroup)
	d.denyUntilEnd(t, "CN=DC1,OU=Domain Controllers,"+baseDN, schemaIDPasswordSet)
	d.setAttribute(t, postureDN("primary"), "description", "changed")
	for _, args := range [][]string{{"sync"}, {"sync", "--full"}} {
		o := run(t, settings, args...)
		o.MustExit(t, 0)
		if finished := summary(t, o); finished["result"] != syncrun.Partial {
			t.Errorf("summary %v", finished)
		}
		mustCount(t, summary(t, o), "unreadable", 1)
		if lines := o.With(syncrun.MsgObjectsUnreadable); len(lines) != 1 || lines[0].Text("attributes") != "primaryGroupID" {
			t.Errorf("log %v", lines)
		}
		if after, _ := postureAssets(t, g); !maps.Equal(after, before) {
			t.Errorf("%v: assets changed", args)
		}
	}
	text := string(g.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset)
	if want := `"unreadable":["domainControllers.passwordLastChangedAt","fineGrainedPasswordPolicies"]`; !strings.Contains(text, want) {
		t.Errorf("%s missing in the domain asset: %s", want, text)
	}
}

// TestStaleRoles checks what a delta sync corrects after DnsAdmins was renamed and a nested group was
// deleted.
func TestStaleRoles(t *testing.T) {
	d := sharedController(t)
	d.addPostureOU(t)
	dns := "CN=DnsAdmins,CN=Users," + baseDN
	var l ldif // the fixture has no DNS server
	l.create(dns, "objectClass", "group", "sAMAccountName", "DnsAdmins", "groupType", "-2147483644", "member", postureDN("weak"))
	d.ldapmodify(t, l.String())
	t.Cleanup(func() { d.delete(t, dns) })
	connection, profile := d.console("LDAP", postureOU, "SUBTREE")
	profile.Assets = "Identity with security posture"
	g := newGateway(t, connection, profile)
	settings := newSettings(t, g)
	run(t, settings, "sync").MustExit(t, 0)
	role := d.sid(t, dns) + ":role"
	asset := func(id string) string {
		t.Helper()
		assets, _ := postureAssets(t, g)
		return assets[id]
	}
	weak, trusted := d.sid(t, postureDN("weak")), d.sid(t, postureDN("trusted"))
	if !strings.Contains(asset(role), weak) || !strings.Contains(asset(trusted), "S-1-5-32-551") {
		t.Fatalf("before: role %s, user %s", asset(role), asset(trusted))
	}
	d.setAttribute(t, dns, "sAMAccountName", "NameAdmins")
	d.delete(t, postureDN("inner"))
	o := run(t, settings, "sync")
	o.MustExit(t, 0)
	if finished := summary(t, o); finished["mode"] != "delta" {
		t.Errorf("summary %v", finished)
	}
	if text := asset(role); !strings.Contains(text, `"DELETED"`) {
		t.Errorf("role %s", text)
	}
	privileges := func(sid string) string {
		t.Helper()
		var content struct {
			Asset struct {
				AssetDetail struct {
					UserAssetClass struct {
						Posture struct{ PrivilegedGroups any }
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(asset(sid)), &content); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(content.Asset.AssetDetail.UserAssetClass.Posture.PrivilegedGroups)
	}
	if got := privileges(weak); strings.Contains(got, d.sid(t, dns)) || !strings.Contains(got, "S-1-5-32-551") {
		t.Errorf("privileges %s", got)
	}
	if got := privileges(trusted); strings.Contains(got, "S-1-5-32-551") {
		t.Errorf("privileges %s", got)
	}
	backup := asset("S-1-5-32-551:role")
	if strings.Contains(backup, trusted) || !strings.Contains(backup, weak) {
		t.Errorf("role %s", backup)
	}
	before := [2]string{asset(weak), asset(trusted)}
	run(t, settings, "sync", "--full").MustExit(t, 0)
	if after := [2]string{asset(weak), asset(trusted)}; after != before {
		t.Errorf("full sync: %s, before %s", after, before)
	}
}
