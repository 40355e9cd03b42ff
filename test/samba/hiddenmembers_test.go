//go:build ad

package samba

import (
	"encoding/json"
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

// The containers that the Samba tests of hidden values change.
const (
	schemaAdmins   = "CN=Schema Admins,CN=Users," + baseDN
	schemaIDMember = "bf9679c0-0de6-11d0-a285-00aa003049e2" // member (MS-ADA2)
)

// denyUntilEnd is deny. It puts the security descriptor back when the test ends, or earlier.
func (d *controller) denyUntilEnd(t *testing.T, dn, schemaID string) (allow func()) {
	t.Helper()
	out, err := d.sambaTool("dsacl", "get", "--objectdn="+dn)
	_, before, found := strings.Cut(out, "O:")
	if err != nil || !found {
		t.Fatal(out, err)
	}
	before, _, _ = strings.Cut("O:"+before, "\n")
	d.deny(t, dn, schemaID)
	allow = sync.OnceFunc(func() {
		var l ldif
		l.replace(dn, "nTSecurityDescriptor", before)
		if err := d.ldb("ldbmodify", l.String()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(allow)
	return allow
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

// TestHiddenMembers denies the account to read the members of groups, and compares its view with that
// of an administrator at another gateway.
func TestHiddenMembers(t *testing.T) {
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
	mustHide := func(t *testing.T, hidden ...string) {
		t.Helper()
		began := time.Now()
		o := run(t, asPlain, "sync", "--full")
		o.MustExit(t, 0)
		t.Logf("%v, %.1f s", o.With(syncrun.MsgMembershipsRead), time.Since(began).Seconds())
		finished := summary(t, o)
		if finished["result"] != syncrun.Partial || finished.Text("level") != "warn" {
			t.Errorf("summary %v", finished)
		}
		mustCount(t, finished, "unreadable", len(hidden))
		if lines := o.With(syncrun.MsgObjectsUnreadable); len(lines) != 1 || lines[0].Text("attributes") != "member" || !strings.Contains(lines[0].Text("remedy"), "dsacls") {
			t.Errorf("log %v", lines)
		}
		got, unreadable := postureAssets(t, plain)
		if want := upload(t, admin, asAdmin); !maps.Equal(got, want) {
			for id := range want {
				if got[id] != want[id] {
					t.Errorf("%s: %.600s, the administrator sees %.600s", id, got[id], want[id])
				}
			}
		}
		for _, dn := range hidden {
			if strings.HasSuffix(dn, postureOU) && !slices.Contains(unreadable[d.sid(t, dn)], "members") {
				t.Errorf("%s is not marked: %v", dn, unreadable)
			}
		}
		for id, names := range unreadable {
			t.Log(id, names)
		}
	}
	hidden := []string{"CN=Backup Operators,CN=Builtin," + baseDN, postureDN("inner"), postureDN("many"), schemaAdmins}
	var allow []func()
	for _, dn := range hidden {
		allow = append(allow, d.denyUntilEnd(t, dn, schemaIDMember))
	}
	mustHide(t, hidden...)

	for i, dn := range hidden {
		if strings.HasSuffix(dn, postureOU) { // Samba is slow to answer, so a first sync may ask only for those of roles
			allow[i]()
		}
	}
	hidden = slices.DeleteFunc(hidden, func(dn string) bool { return strings.HasSuffix(dn, postureOU) })
	other, asOther := connect(d.service)
	t.Run("first sync", func(t *testing.T) {
		plain, asPlain = other, asOther
		mustHide(t, hidden...)
	})
	t.Run("changed", func(t *testing.T) {
		d.changeMember(t, schemaAdmins, "add", postureDN("weak"))
		t.Cleanup(func() { d.changeMember(t, schemaAdmins, "delete", postureDN("weak")) })
		mustHide(t, hidden...)
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
