//go:build ad

package samba

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

const (
	configurationDN    = "CN=Configuration," + baseDN
	directoryServiceDN = "CN=Directory Service,CN=Windows NT,CN=Services," + configurationDN
	compatibleDN       = "CN=Pre-Windows 2000 Compatible Access,CN=Builtin," + baseDN
	protectedUsersDN   = "CN=Protected Users,CN=Users," + baseDN
)

// mappingForms has the forms of altSecurityIdentities (KB5014754), the weak ones first.
var mappingForms = []struct {
	name string
	form *regexp.Regexp
}{
	{"X509_ISSUER_SUBJECT", regexp.MustCompile(`(?i)^X509:<I>.*<S>`)},
	{"X509_SUBJECT_ONLY", regexp.MustCompile(`(?i)^X509:<S>`)},
	{"X509_RFC822", regexp.MustCompile(`(?i)^X509:<RFC822>`)},
	{"X509_ISSUER_SERIAL_NUMBER", regexp.MustCompile(`(?i)^X509:<I>.*<SR>`)},
	{"X509_SKI", regexp.MustCompile(`(?i)^X509:<SKI>`)},
	{"X509_SHA1_PUBLIC_KEY", regexp.MustCompile(`(?i)^X509:<SHA1-PUKEY>`)},
	{"KERBEROS", regexp.MustCompile(`(?i)^Kerberos:`)},
}

var uncPath = regexp.MustCompile(`^[\\/]{2}([^\\/@]+)`)

// putPresence sets the expected values that show which attributes have values.
func putPresence(p map[string]any, r record) {
	var passwords, forms, weak, outside []string
	for _, attribute := range []string{"userPassword", "unixUserPassword", "msSFU30Password"} {
		if r.values.First(attribute) != "" {
			passwords = append(passwords, attribute)
		}
	}
	put(p, "passwordAttributes", passwords)
	identities := r.values["altsecurityidentities"]
	for _, identity := range identities {
		i := slices.IndexFunc(mappingForms, func(f struct {
			name string
			form *regexp.Regexp
		}) bool {
			return f.form.MatchString(identity)
		})
		switch {
		case i < 0:
			forms = append(forms, "OTHER")
		case i < 3:
			weak = append(weak, mappingForms[i].name)
			fallthrough
		default:
			forms = append(forms, mappingForms[i].name)
		}
	}
	if len(identities) > 0 {
		alternate := map[string]any{"count": float64(len(identities))}
		put(alternate, "forms", forms)
		put(alternate, "weakForms", weak)
		p["alternateIdentities"] = alternate
	}
	if n := len(r.values["msds-keycredentiallink"]); n > 0 {
		p["keyCredentials"] = float64(n)
	}
	for _, attribute := range []string{"homeDirectory", "profilePath", "scriptPath"} {
		match := uncPath.FindStringSubmatch(r.values.First(attribute))
		if match == nil {
			continue
		}
		host := strings.ToLower(match[1])
		_, err := netip.ParseAddr(host)
		if err == nil || strings.Contains(host, ".") && !strings.HasSuffix("."+host, "."+strings.ToLower(realm)) {
			outside = append(outside, attribute)
		}
	}
	put(p, "pathsOutsideDomain", outside)
}

// domainValues returns the expected values of the domain, of those that putPresence has for accounts.
func (d *controller) domainValues(t *testing.T, s *domainEntries) map[string]any {
	t.Helper()
	service := d.ldapsearch(t, directoryServiceDN, "base", "(objectClass=*)", "dSHeuristics")[0].values.First("dSHeuristics")
	character := func(number int) string {
		if len(service) < number {
			return "0"
		}
		return service[number-1 : number]
	}
	check := func(number int) string {
		return map[string]string{"0": "DEFAULT", "1": "ENFORCED", "2": "DISABLED"}[character(number)]
	}
	heuristics := map[string]any{
		"anonymousAccess": character(7) == "2", "anonymousNameService": character(8) != "0", "listObjectMode": character(3) != "0",
		"userPasswordIsPassword": character(9) == "1", "addAuthorization": check(28), "ownerRightsBlocked": check(29),
	}
	put(heuristics, "adminSdHolderExclusions", map[string][]string{
		"1": {"ACCOUNT_OPERATORS"}, "9": {"ACCOUNT_OPERATORS", "BACKUP_OPERATORS"},
	}[character(16)])
	put(heuristics, "uniquenessExclusions", map[string][]string{"3": {"SERVICE_PRINCIPAL_NAME", "USER_PRINCIPAL_NAME"}}[character(21)])
	head := d.ldapsearch(t, baseDN, "base", "(objectClass=*)", "msDS-ExpirePasswordsOnSmartCardOnlyAccounts")[0].values
	inSchema := func(name string) bool {
		return len(d.ldapsearch(t, "CN=Schema,"+configurationDN, "one", "(lDAPDisplayName="+name+")", "cn")) > 0
	}
	users, protected := 0, 0
	for dn, r := range s.byDN {
		if _, kind := s.name(s.sids[dn]); kind != "USER" || r.values.First("primaryGroupID") == "" {
			continue
		}
		groups := append(s.tokenGroups(dn), s.primaryGroup(dn))
		groups = append(groups, s.tokenGroups(s.dnOf(s.primaryGroup(dn)))...)
		if !slices.ContainsFunc(groups, s.isPrivileged) {
			continue
		}
		users++
		if slices.Contains(groups, s.sids[baseDN]+"-525") {
			protected++
		}
	}
	want := map[string]any{
		"dsHeuristics":             heuristics,
		"smartCardPasswordsExpire": head.First("msDS-ExpirePasswordsOnSmartCardOnlyAccounts") == "TRUE",
		"lapsSchema":               map[string]any{"legacy": inSchema("ms-Mcs-AdmPwd"), "windows": inSchema("msLAPS-Password")},
		"privilegedUsers":          map[string]any{"count": float64(users), "inProtectedUsers": float64(protected)},
	}
	for _, r := range d.ldapsearch(t, "", "", "(sAMAccountName=AZUREADSSOACC$)", "pwdLastSet") {
		if at, ok := r.values.FileTime("pwdLastSet"); ok {
			want["entraSsoPasswordLastChangedAt"] = at.Format("2006-01-02T15:04:05.000Z")
		}
	}
	return want
}

// compareDomainValues compares these values with those at the gateway.
func compareDomainValues(t *testing.T, d *controller, g *testenv.Gateway, s *domainEntries) {
	t.Helper()
	var actual struct {
		Asset struct {
			AssetDetail struct{ DomainAssetClass map[string]any }
		}
	}
	if err := json.Unmarshal(g.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset, &actual); err != nil {
		t.Fatal(err)
	}
	want := d.domainValues(t, s)
	for _, key := range []string{"dsHeuristics", "smartCardPasswordsExpire", "lapsSchema", "privilegedUsers", "entraSsoPasswordLastChangedAt"} {
		if a, b := canonicalJSON(t, actual.Asset.AssetDetail.DomainAssetClass[key]), canonicalJSON(t, want[key]); a != b {
			t.Errorf("domain: %s is %s, want %s", key, a, b)
		}
	}
}

// TestPresence provokes values of accounts and the domain, and compares the gateway with the second
// reading after each delta sync. The schema of the domain lacks some of the attributes that the
// connector reads: msDS-KeyCredentialLink, those of delegated managed service accounts, and
// msDS-ExpirePasswordsOnSmartCardOnlyAccounts.
func TestPresence(t *testing.T) {
	d := sharedController(t)
	d.grantReadDeleted(t)
	d.addPostureOU(t)
	connection, profile := d.console("LDAP", postureOU, "SUBTREE")
	profile.Assets = "Identity with security posture"
	g := newGateway(t, connection, profile)
	settings := newSettings(t, g).With(testenv.Settings{"sync.max-deletes-percent": "100"})
	secrets := []string{testlog.AddSecret("Pw-1facts.0"), testlog.AddSecret("Pw-2facts.0")}
	sync := func(step, mode string) {
		t.Helper()
		o := run(t, settings, "sync")
		o.MustExit(t, 0)
		if got := summary(t, o)["mode"]; got != mode {
			t.Errorf("%s: mode %v, want %s", step, got, mode)
		}
		comparePosture(t, d, g)
		for _, i := range g.Users() {
			for _, secret := range append(secrets, "CN=secret") {
				if strings.Contains(string(i.Asset), secret) {
					t.Errorf("sent: %s", i.Asset)
				}
			}
		}
		if t.Failed() {
			t.Fatalf("%s; stderr:\n%.6000s", step, o.Stderr)
		}
	}
	sync("defaults", "full")
	usn := func(dn string) string {
		return d.ldapsearch(t, dn, "base", "(objectClass=*)", "uSNChanged")[0].values.First("uSNChanged")
	}
	change := func(dn, attribute string, values ...string) {
		t.Helper()
		before := usn(dn)
		var l ldif
		l.replace(dn, attribute, values...)
		if err := d.ldb("ldbmodify", l.String()); err != nil {
			t.Fatal(err)
		}
		if usn(dn) == before {
			t.Errorf("%s raises no update sequence number", attribute)
		}
	}
	expect := func(want string) {
		t.Helper()
		if asset := d.userAsset(t, g, postureDN("weak")); !strings.Contains(asset, want) {
			t.Errorf("%s has no %s", asset, want)
		}
	}
	user := postureDN("weak")
	change(user, "userPassword", secrets[0])
	change(user, "unixUserPassword", secrets[1])
	change(user, "altSecurityIdentities", "X509:<I>DC=com,CN=CA<S>CN=secret", "X509:<SKI>d1a0c7f3", "X509:<RFC822>weak@corp.example.com", "Kerberos:weak@MIT.EXAMPLE")
	change(user, "homeDirectory", `\\198.51.100.7\home`)
	change(user, "profilePath", `\\files.other.example@SSL\DavWWWRoot`)
	change(user, "scriptPath", `//files.corp.example.com/netlogon/logon.cmd`)
	change(postureDN("gmsa"), "homeDirectory", `\\files\home`)
	t.Cleanup(func() { d.setAttribute(t, directoryServiceDN, "dSHeuristics") })
	change(directoryServiceDN, "dSHeuristics", "0010002101000009000230000001")
	t.Cleanup(func() { d.setAttribute(t, protectedUsersDN, "member") })
	change(protectedUsersDN, "member", postureDN("primary"), postureDN("must change"))
	sync("values of a user and the domain", "delta")
	expect(`"passwordAttributes":["userPassword"]`)
	expect(`"alternateIdentities":{"count":4,"forms":["X509_ISSUER_SUBJECT","X509_RFC822","X509_SKI","KERBEROS"],"weakForms":["X509_ISSUER_SUBJECT","X509_RFC822"]}`)
	expect(`"pathsOutsideDomain":["homeDirectory","profilePath"]`)
	change(user, "userPassword")
	change(user, "altSecurityIdentities", "X509:<I>DC=com,CN=CA<SR>2b0000000011ac", "X509:<SHA1-PUKEY>50bf88e67522ab8c")
	change(directoryServiceDN, "dSHeuristics", "00000000010000000002")

	const entra = "CN=AZUREADSSOACC,CN=Computers," + baseDN
	var l ldif
	l.create(entra, "objectClass", "computer", "sAMAccountName", "AZUREADSSOACC$", "userAccountControl", "4096")
	d.ldapmodify(t, l.String())
	t.Cleanup(func() { d.delete(t, entra) })
	// Samba has no foreign security principals for these members, but refers to its well-known ones.
	changeCompatible := func(operation string) {
		t.Helper()
		var l ldif
		l.line("dn", compatibleDN)
		l.line("changetype", "modify")
		for _, sid := range []string{"S-1-5-7", "S-1-1-0"} {
			l.line(operation, "member")
			l.line("member", "<SID="+sid+">")
			l.WriteString("-\n")
		}
		l.WriteByte('\n')
		if err := d.ldb("ldbmodify", l.String()); err != nil {
			t.Fatal(err)
		}
	}
	changeCompatible("add")
	t.Cleanup(func() { changeCompatible("delete") })
	const backupDN = "CN=Backup Operators,CN=Builtin," + baseDN
	d.changeMember(t, backupDN, "add", postureDN("foreign"))
	sync("account of Entra, anonymous access, foreign member", "delta")
	role := d.roleAsset(t, g, compatibleDN)
	for _, want := range []string{`{"sid":"S-1-5-7","name":"Anonymous Logon","kind":"WELL_KNOWN"}`, `{"sid":"S-1-1-0","name":"Everyone","kind":"WELL_KNOWN"}`, `"role":"PRE_WINDOWS_2000_COMPATIBLE_ACCESS","privileged":false`} {
		if !strings.Contains(role, want) {
			t.Errorf("%s has no %s", role, want)
		}
	}
	if role := d.roleAsset(t, g, backupDN); !strings.Contains(role, `"foreignMembers":["`+foreignSID+`"]`) {
		t.Errorf("%s", role)
	}
}

// userAsset returns the asset of a user.
func (d *controller) userAsset(t *testing.T, g *testenv.Gateway, dn string) string {
	t.Helper()
	sid := d.sid(t, dn)
	for _, i := range g.Users() {
		if i.ExternalAssetID == sid {
			return string(i.Asset)
		}
	}
	t.Fatalf("no asset for %s", dn)
	return ""
}

// roleAsset returns the asset of a group's role.
func (d *controller) roleAsset(t *testing.T, g *testenv.Gateway, dn string) string {
	t.Helper()
	id := d.sid(t, dn) + ":role"
	for _, i := range g.Sandbox().Identities(gatewayserver.KindRole) {
		if i.ExternalAssetID == id {
			return string(i.Asset)
		}
	}
	t.Fatalf("no role for %s", dn)
	return ""
}
