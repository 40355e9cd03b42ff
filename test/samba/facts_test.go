//go:build ad

package samba

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/testenv"
)

const bypassPasswordHash = "local_oid:1.3.6.1.4.1.7165.4.3.12:0" // allows times of passwords in the past

// The RIDs of the groups that AdminSDHolder protects, in the domain and in S-1-5-32, as Microsoft lists
// them for Windows Server 2022.
var (
	protectedInDomain  = []string{"512", "516", "518", "519", "521", "526", "527"}
	protectedInBuiltin = []string{"544", "548", "549", "550", "551", "552"}
)

// putFacts sets the expected facts of an account. It reads the entries a second time, without code of the
// connector.
func (s *domainEntries) putFacts(p map[string]any, dn string, privileged bool, now time.Time) {
	r := s.byDN[dn]
	uac := r.values.Flags("userAccountControl")
	enabled := uac&2 == 0
	privileged = privileged && enabled
	isUser := !slices.ContainsFunc(r.values["objectclass"], func(class string) bool { return strings.HasPrefix(class, "msDS-") })
	sources := map[string][]string{}
	set := func(fact string, holds bool, attributes ...string) {
		if holds {
			sources[fact] = attributes
		}
	}
	set("ADMIN_COUNT_WITHOUT_ROLE", r.values.First("adminCount") == "1" && !s.isProtected(dn), "adminCount", "memberships")
	set("ASREP_ROASTABLE_AND_PRIVILEGED", privileged && uac&0x400000 != 0, "memberships", "userAccountControl")
	set("KERBEROASTABLE_AND_PRIVILEGED", privileged && isUser && len(r.values["serviceprincipalname"]) > 0, "memberships", "servicePrincipalName", "userAccountControl")
	set("DELEGATION_TO_DOMAIN_CONTROLLER", enabled && slices.ContainsFunc(r.values["msds-allowedtodelegateto"], s.isOnController),
		"dNSHostName", "msDS-AllowedToDelegateTo", "userAccountControl")
	set("PRIVILEGED_NOT_IN_PROTECTED_USERS", privileged && isUser && !slices.Contains(s.accountToken(dn), s.sids[baseDN]+"-525"), "memberships", "userAccountControl")
	if changed, ok := r.values.FileTime("pwdLastSet"); ok {
		set("PRIVILEGED_WITH_OLD_PASSWORD", privileged && now.Sub(changed) >= 365*24*time.Hour, "memberships", "pwdLastSet", "userAccountControl")
	}
	latest, ok := r.values.FileTime("lastLogon")
	if replicated, ok2 := r.values.FileTime("lastLogonTimestamp"); ok2 && (!ok || replicated.After(latest)) {
		latest, ok = replicated, true
	}
	set("PRIVILEGED_AND_INACTIVE", privileged && ok && now.Sub(latest) >= 90*24*time.Hour,
		"lastLogon", "lastLogonTimestamp", "memberships", "userAccountControl", "whenCreated")
	var list []any
	for _, fact := range slices.Sorted(maps.Keys(sources)) {
		list = append(list, map[string]any{"fact": fact, "attributes": sources[fact]})
	}
	put(p, "facts", list)
}

// accountToken returns the SIDs of the groups in the access token of an account.
func (s *domainEntries) accountToken(dn string) []string {
	primary := s.primaryGroup(dn)
	return append(slices.Concat(s.tokenGroups(dn), s.tokenGroups(s.dnOf(primary))), primary)
}

// isProtected reports whether an account is in a protected group, through groups of any type.
func (s *domainEntries) isProtected(dn string) bool {
	primary := s.primaryGroup(dn)
	groups := append(slices.Concat(s.transitiveGroups(dn), s.transitiveGroups(s.dnOf(primary))), primary)
	return slices.ContainsFunc(groups, func(sid string) bool {
		rid, inDomain := strings.CutPrefix(sid, s.sids[baseDN]+"-")
		builtin, isBuiltin := strings.CutPrefix(sid, "S-1-5-32-")
		return inDomain && slices.Contains(protectedInDomain, rid) || isBuiltin && slices.Contains(protectedInBuiltin, builtin)
	})
}

// isOnController reports whether a service is on the host of a domain controller.
func (s *domainEntries) isOnController(service string) bool {
	host := strings.ToLower(strings.FieldsFunc(strings.Split(service, "/")[1], func(c rune) bool { return c == ':' })[0])
	for _, r := range s.byDN {
		name := strings.ToLower(r.values.First("dNSHostName"))
		if r.values.First("primaryGroupID") == "516" && (host == name || host == strings.Split(name, ".")[0]) {
			return true
		}
	}
	return false
}

// factsAtGateway returns the names of the facts of an account at the gateway.
func factsAtGateway(t *testing.T, g *testenv.Gateway, sid string) (names []string) {
	t.Helper()
	for _, i := range g.Sandbox().Identities(gatewayserver.KindUser) {
		if i.ExternalAssetID != sid {
			continue
		}
		var sent struct {
			Asset struct {
				AssetDetail struct {
					UserAssetClass struct {
						Posture struct{ Facts []struct{ Fact string } }
					}
				}
			}
		}
		if err := json.Unmarshal(i.Asset, &sent); err != nil {
			t.Fatal(err)
		}
		for _, fact := range sent.Asset.AssetDetail.UserAssetClass.Posture.Facts {
			names = append(names, fact.Fact)
		}
	}
	return names
}

// TestFacts provokes each fact about an account and takes it back. Delta syncs find both. The account
// CN=service is in a group of Backup Operators.
func TestFacts(t *testing.T) {
	d := sharedController(t)
	d.addPostureOU(t)
	connection, profile := d.console("LDAP", postureOU, "SUBTREE")
	profile.Assets = "Identity with security posture"
	g := newGateway(t, connection, profile)
	settings := newSettings(t, g)
	service := postureDN("service")
	sid := d.sid(t, service)
	set := func(attribute string, values ...string) func() {
		return func() { d.setAttribute(t, service, attribute, values...) }
	}
	ldb := func(control, attribute, value string) func() {
		return func() {
			var l ldif
			l.replace(service, attribute, value)
			if err := d.ldb("ldbmodify", l.String(), "--controls="+control); err != nil {
				t.Fatal(err)
			}
		}
	}
	member := func(group, operation, dn string) func() {
		return func() { d.changeMember(t, group, operation, dn) }
	}
	now := time.Now()
	const roasted = "ASREP_ROASTABLE_AND_PRIVILEGED KERBEROASTABLE_AND_PRIVILEGED PRIVILEGED_NOT_IN_PROTECTED_USERS"
	protectedUsers := "CN=Protected Users,CN=Users," + baseDN
	for n, step := range []struct {
		name   string
		change func()
		want   string
	}{
		{"first", func() {}, roasted},
		{"preauthentication required", set("userAccountControl", strconv.Itoa(uacPlain)), "KERBEROASTABLE_AND_PRIVILEGED PRIVILEGED_NOT_IN_PROTECTED_USERS"},
		{"preauthentication not required", set("userAccountControl", strconv.Itoa(uacPlain|0x400000)), roasted},
		{"disabled", set("userAccountControl", strconv.Itoa(uacPlain|2)), ""},
		{"enabled", set("userAccountControl", strconv.Itoa(uacPlain)), "KERBEROASTABLE_AND_PRIVILEGED PRIVILEGED_NOT_IN_PROTECTED_USERS"},
		{"no service principal name", set("servicePrincipalName"), "PRIVILEGED_NOT_IN_PROTECTED_USERS"},
		{"in Protected Users", member(protectedUsers, "add", service), ""},
		{"not in Protected Users", member(protectedUsers, "delete", service), "PRIVILEGED_NOT_IN_PROTECTED_USERS"},
		{"group in Protected Users", member(protectedUsers, "add", postureDN("self")), ""},
		{"delegation to a controller", set("msDS-AllowedToDelegateTo", "cifs/file", "ldap/DC1.corp.example.com:389/CORP"), "DELEGATION_TO_DOMAIN_CONTROLLER"},
		{"delegation to another host", set("msDS-AllowedToDelegateTo", "cifs/file", "ldap/dc1.other.example.com"), ""},
		{"old password", ldb(bypassPasswordHash, "pwdLastSet", fileTime(now.Add(-366*24*time.Hour))), "PRIVILEGED_WITH_OLD_PASSWORD"},
		{"new password", ldb(bypassPasswordHash, "pwdLastSet", fileTime(now)), ""},
		{"old logon", ldb("relax:0", "lastLogonTimestamp", fileTime(now.Add(-91*24*time.Hour))), "PRIVILEGED_AND_INACTIVE"},
		{"new logon", ldb("relax:0", "lastLogonTimestamp", fileTime(now)), ""},
		{"without role", member(postureDN("outer"), "delete", postureDN("inner")), "ADMIN_COUNT_WITHOUT_ROLE"},
		{"with role", member(postureDN("outer"), "add", postureDN("inner")), ""},
		{"without role again", member(postureDN("outer"), "delete", postureDN("inner")), "ADMIN_COUNT_WITHOUT_ROLE"},
		{"without adminCount", set("adminCount"), ""},
	} {
		step.change()
		o := run(t, settings, "sync")
		o.MustExit(t, 0)
		if mode := fmt.Sprint(summary(t, o)["mode"]); (mode == "full") != (n == 0) {
			t.Errorf("%s: mode %s", step.name, mode)
		}
		if got := strings.Join(factsAtGateway(t, g, sid), " "); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
		comparePosture(t, d, g)
		if t.Failed() {
			t.Fatalf("%s; stderr:\n%.4000s", step.name, o.Stderr)
		}
	}
}
