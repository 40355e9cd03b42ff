package syncrun

import (
	"fmt"
	"strings"
	"testing"

	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/internal/state"
)

// domainAsset returns the JSON of the domain at the gateway.
func (e *env) domainAsset() string {
	return string(e.gateway.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset)
}

// TestPresenceOfAttributes checks that a delta sync sends the presence of attributes when they change,
// and never the values.
func TestPresenceOfAttributes(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 2)
	delegated := e.dn("dmsa")
	e.must(e.Add(domaincontroller.Object{DN: delegated, Attributes: map[string][]string{"objectClass": {"msDS-DelegatedManagedServiceAccount"},
		"msDS-ManagedAccountPrecededByLink": {e.user(1)}, "msDS-DelegatedMSAState": {"1"}}}))
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 3 + postureObjects})
	e.expectPosture(delegated, "supersedes", e.SID(e.user(1)))
	e.expectPosture(delegated, "delegatedState", "MIGRATION_IN_PROGRESS")
	for _, change := range []struct {
		dn, attribute string
		values        []string
		key           string
		want          []string
	}{
		{e.user(0), "userPassword", []string{"Pw-1secret"}, "passwordAttributes", []string{"userPassword"}},
		{e.user(0), "unixUserPassword", []string{"Pw-2secret"}, "passwordAttributes", []string{"userPassword", "unixUserPassword"}},
		{e.user(0), "userPassword", nil, "passwordAttributes", []string{"unixUserPassword"}},
		{e.user(0), "msDS-KeyCredentialLink", []string{"B:2:01:" + e.user(0), "B:2:02:" + e.user(0)}, "keyCredentials", []string{"2"}},
		{e.user(0), "homeDirectory", []string{`\\files.other.example\home`}, "pathsOutsideDomain", []string{"homeDirectory"}},
		{e.user(0), "homeDirectory", []string{`\\files.corp.example.com\home`}, "pathsOutsideDomain", nil},
		{e.user(1), "msDS-SupersededManagedAccountLink", []string{delegated}, "supersededBy", []string{e.SID(delegated)}},
		{delegated, "msDS-DelegatedMSAState", []string{"2"}, "delegatedState", []string{"MIGRATED"}},
	} {
		e.exceedOverlap()
		e.must(e.Modify(change.dn, change.attribute, change.values...))
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
		e.expectPosture(change.dn, change.key, change.want...)
	}
	e.must(e.Modify(e.user(0), "altSecurityIdentities", "X509:<I>CN=CA<S>CN=secret", "X509:<SKI>d1a0c7f3"))
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 1})
	asset := e.gateway.Held()[e.GUID(e.user(0)).String()]
	if !strings.Contains(asset, `"alternateIdentities":{"count":2,"forms":["X509_ISSUER_SUBJECT","X509_SKI"],"weakForms":["X509_ISSUER_SUBJECT"]}`) {
		t.Errorf("%s", asset)
	}
	e.expectConverged()
	for _, secret := range []string{"Pw-1secret", "Pw-2secret", "CN=secret", "d1a0c7f3", "files.other"} {
		for _, held := range e.gateway.Held() {
			if strings.Contains(held, secret) {
				t.Errorf("sent: %s", held)
			}
		}
		if strings.Contains(fmt.Sprint(e.log.Lines()), secret) {
			t.Errorf("logged: %s", secret)
		}
	}
}

// TestDomainFacts checks what the domain's asset has of other entries and of the schema, and that each
// change is sent by the next delta sync.
func TestDomainFacts(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 2)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2 + postureObjects})
	expect := func(parts ...string) {
		t.Helper()
		for _, part := range parts {
			if domain := e.domainAsset(); !strings.Contains(domain, part) {
				t.Errorf("%s has no %s", domain, part)
			}
		}
	}
	expect(`"dsHeuristics":{"anonymousAccess":false,`, `"addAuthorization":"DEFAULT"`, `"lapsSchema":{"legacy":false,"windows":true}`,
		`"smartCardPasswordsExpire":false`, `"privilegedUsers":{"count":1,"inProtectedUsers":0}`)
	if strings.Contains(e.domainAsset(), "entraSso") || strings.Contains(e.domainAsset(), "unreadable") {
		t.Errorf("%s", e.domainAsset())
	}
	administrator, protected := "CN=Administrator,CN=Users,"+e.Base(), "CN=Protected Users,CN=Users,"+e.Base()
	for _, change := range []struct {
		uploaded int
		change   func() error
		want     string
	}{
		{1, func() error {
			return e.Modify("CN=Directory Service,CN=Windows NT,CN=Services,CN=Configuration,"+e.Base(), "dSHeuristics", "0000002001000001")
		}, `"anonymousAccess":true,"anonymousNameService":false,"listObjectMode":false,"userPasswordIsPassword":false,"adminSdHolderExclusions":["ACCOUNT_OPERATORS"]`},
		{1, func() error { return e.Modify(e.Base(), "msDS-ExpirePasswordsOnSmartCardOnlyAccounts", "TRUE") }, `"smartCardPasswordsExpire":true`},
		{1, func() error {
			return e.Add(domaincontroller.Object{DN: "CN=AZUREADSSOACC,CN=Computers," + e.Base(), Attributes: map[string][]string{
				"objectClass": {"computer"}, "sAMAccountName": {"AZUREADSSOACC$"}, "pwdLastSet": {"134398063938451234"}}})
		}, `"entraSsoPasswordLastChangedAt":"2026-11-22T07:33:13.845Z"`},
		{2, func() error { return e.Modify(protected, "member", administrator) }, `"privilegedUsers":{"count":1,"inProtectedUsers":1}`}, // also the role
	} {
		e.must(change.change())
		e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: change.uploaded})
		expect(change.want)
		e.expectConverged()
	}
}

// TestUnreadableDomainFacts checks that what the account may not read is listed.
func TestUnreadableDomainFacts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hide func(e *env)
		want string
	}{
		"settings of the forest": {func(e *env) {
			e.hide("CN=Directory Service,CN=Windows NT,CN=Services,CN=Configuration,"+e.Base(), "dSHeuristics", "sPNMappings")
		}, "dsHeuristics"},
		"schema": {func(e *env) { e.replaceInRequests("lDAPDisplayName", "lDAPDisplayNamX") }, "lapsSchema"},
		"account of Entra": {func(e *env) {
			dn := "CN=AZUREADSSOACC,CN=Computers," + e.Base()
			e.must(e.Add(domaincontroller.Object{DN: dn, Attributes: map[string][]string{"objectClass": {"computer"}, "sAMAccountName": {"AZUREADSSOACC$"}, "pwdLastSet": {"134398063938451234"}}}))
			e.hide(dn, "pwdLastSet")
		}, "entraSsoPasswordLastChangedAt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 0)
			c.hide(e)
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: postureObjects})
			if domain := e.domainAsset(); !strings.Contains(domain, `"unreadable":["`+c.want+`"]`) || strings.Contains(domain, `"`+c.want+`":`) {
				t.Errorf("%s", domain)
			}
		})
	}
	t.Run("account of Entra without a password", func(t *testing.T) {
		t.Parallel()
		e := newPostureEnv(t, domaincontroller.Options{}, 0)
		e.must(e.Add(domaincontroller.Object{DN: "CN=AZUREADSSOACC,CN=Computers," + e.Base(), Attributes: map[string][]string{"objectClass": {"computer"}, "sAMAccountName": {"AZUREADSSOACC$"}, "pwdLastSet": {"0"}}}))
		e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: postureObjects})
		if strings.Contains(e.domainAsset(), "entraSso") {
			t.Errorf("%s", e.domainAsset())
		}
	})
	t.Run("members of a privileged group", func(t *testing.T) {
		t.Parallel()
		m := newUnreadableMembersDomain(t)
		m.hide(m.admins, "member")
		m.expectPartial(RunOptions{}, full, 1)
		if domain := m.domainAsset(); !strings.Contains(domain, `"unreadable":["privilegedUsers"]`) {
			t.Errorf("%s", domain)
		}
	})
}

// TestCompatibleAccess checks that the members of Pre-Windows 2000 Compatible Access are those of a
// role, and named.
func TestCompatibleAccess(t *testing.T) {
	t.Parallel()
	m := newMembershipDomain(t)
	const container = ",CN=ForeignSecurityPrincipals,"
	group, anonymous := "CN=Pre-Windows 2000 Compatible Access,CN=Builtin,"+m.Base(), "CN=S-1-5-7"+container+m.Base()
	m.must(m.Add(domaincontroller.Object{DN: anonymous, Attributes: map[string][]string{"objectClass": {"foreignSecurityPrincipal"}}}))
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	expect := func(want string) {
		t.Helper()
		role := m.asset(identity.RoleGUID(m.GUID(group)))
		if got := describeNamed(role["principals"]); role["role"] != "PRE_WINDOWS_2000_COMPATIBLE_ACCESS" || role["privileged"] != false || got != want {
			t.Errorf("%v, principals %s, want %s", role, got, want)
		}
	}
	expect("Authenticated Users (WELL_KNOWN)")
	m.set(group, "member", "CN=S-1-5-11"+container+m.Base(), anonymous, m.user(0))
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 2}) // also the groups of the user
	expect("Anonymous Logon (WELL_KNOWN), Authenticated Users (WELL_KNOWN), user0 (USER)")
	m.expectPosture(m.user(0), "privilegedGroups")
	m.expectConverged()
}

// TestForeignMembers checks that the members of a role from other domains are marked.
func TestForeignMembers(t *testing.T) {
	t.Parallel()
	m := newMembershipDomain(t)
	addForeign(m.Directory)
	m.set(m.inner, "member", m.user(0), foreignDN(m.Base()), "CN=S-1-5-11,CN=ForeignSecurityPrincipals,"+m.Base())
	m.nestInAdmins()
	m.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 8 + postureObjects})
	for _, dn := range []string{m.admins, m.administrators} {
		role := m.asset(identity.RoleGUID(m.GUID(dn)))
		if list, _ := role["foreignMembers"].([]any); len(list) != 1 || list[0] != foreignSID {
			t.Errorf("%s: %v", dn, role)
		}
	}
	m.set(m.inner, "member", m.user(0))
	m.run(RunOptions{}, state.Run{Mode: delta, Result: Processed, Uploaded: 3}) // both roles and the group
	if role := m.asset(identity.RoleGUID(m.GUID(m.admins))); role["foreignMembers"] != nil {
		t.Errorf("%v", role)
	}
	m.expectConverged()
}
