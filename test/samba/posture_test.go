//go:build ad

package samba

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/sandbox/gatewayserver"
	"adconnector/test/oracle"
	"adconnector/test/program"
	"adconnector/test/testenv"
)

// exposedOU is what the connector reads in these tests. What makes its users
// privileged is outside of it.
const (
	exposedOU = "OU=Exposed," + baseDN
	stranger  = "S-1-5-21-9-9-9-1000"
)

func exposedDN(name string) string { return "CN=" + name + "," + exposedOU }

// expose makes users and groups of all that the posture shows.
func (d *controller) expose(t *testing.T) {
	t.Helper()
	var l ldif
	add := func(dn string, pairs ...string) {
		l.line("dn", dn)
		l.line("changetype", "add")
		for i := 0; i < len(pairs); i += 2 {
			l.line(pairs[i], pairs[i+1])
		}
		l.WriteByte('\n')
	}
	user := func(name string, control int, pairs ...string) {
		add(exposedDN(name), append([]string{"objectClass", "user", "sAMAccountName", "exp-" + name, "userAccountControl", strconv.Itoa(control)}, pairs...)...)
	}
	group := func(name string, members ...string) {
		pairs := []string{"objectClass", "group", "sAMAccountName", "exp-" + name}
		for _, m := range members {
			pairs = append(pairs, "member", m)
		}
		add(exposedDN(name), pairs...)
	}
	add(exposedOU, "objectClass", "organizationalUnit")
	user("roasted", uacPlain|0x400000, "servicePrincipalName", "http/web.corp.example.com", "servicePrincipalName", "MSSQLSvc/db:1433",
		"msDS-AllowedToDelegateTo", "cifs/file.corp.example.com", "msDS-SupportedEncryptionTypes", "24", "adminCount", "1",
		"userWorkstations", "PC1,PC2", "description", "runs the reports")
	user("trusted", uacPlain|0x80000|0x1000000)
	user("weak", uacNormal|uacNoPassword|0x200000|0x80)
	user("guarded", uacNormal|uacNoPassword|uacSmartcard|0x100000)
	user("primary", uacPlain)
	user("expiring", uacNormal|uacNoPassword)
	group("inner", exposedDN("roasted"), exposedDN("trusted"))
	group("outer", exposedDN("inner"), exposedDN("weak"))
	group("empty")
	group("loop a", exposedDN("guarded"))
	group("loop b", exposedDN("loop a"), exposedDN("empty"))
	group("strangers", "<SID="+stranger+">", "CN=S-1-5-11,CN=ForeignSecurityPrincipals,"+baseDN)
	var many []string
	for _, r := range d.search(t, bulkOU, "", "(sAMAccountType=805306368)", "name")[:3100] {
		many = append(many, r.dn)
	}
	group("many", many...)
	add(exposedDN("gmsa"), "objectClass", "msDS-GroupManagedServiceAccount", "sAMAccountName", "exp-gmsa$", "msDS-ManagedPasswordInterval", "30", "userAccountControl", "4096")
	d.modify(t, l.String())
	t.Cleanup(func() {
		if _, err := d.change("", "ldapdelete", "-x", "-r", "-H", tlsURL, "-D", d.admin.dn, "-y", d.admin.file, exposedOU); err != nil {
			t.Error(err)
		}
	})
	d.set(t, exposedDN("loop a"), "member", exposedDN("loop b"), exposedDN("guarded"))
	d.set(t, exposedDN("outer"), "managedBy", exposedDN("roasted"))
	d.setPassword(t, exposedDN("expiring"), "Pw-1expiring.0")

	// Whoever has a group as the primary one was its member before.
	d.edit(t, "CN=Domain Admins,CN=Users,"+baseDN, "add", exposedDN("primary"))
	d.set(t, exposedDN("primary"), "primaryGroupID", "512")
	d.edit(t, "CN=Backup Operators,CN=Builtin,"+baseDN, "add", exposedDN("outer"))

	// Who may act for it, and who may read its password: descriptors that the tool
	// encodes.
	var sd ldif
	sd.replace(exposedDN("roasted"), "msDS-AllowedToActOnBehalfOfOtherIdentity", "O:BAD:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;"+d.sidOf(t, exposedDN("trusted"))+")(D;;CC;;;AU)")
	sd.replace(exposedDN("gmsa"), "msDS-GroupMSAMembership", "O:BAD:(A;;RP;;;"+d.sidOf(t, exposedDN("inner"))+")(A;;RP;;;BA)")
	if err := d.ldb("ldbmodify", sd.String()); err != nil {
		t.Fatal(err)
	}
	if out, err := d.tool("domain", "passwordsettings", "pso", "create", "Strict", "10", "--min-pwd-length=12", "--max-pwd-age=7"); err != nil {
		t.Fatal(out, err)
	}
	t.Cleanup(func() {
		if out, err := d.tool("domain", "passwordsettings", "pso", "delete", "Strict"); err != nil {
			t.Error(out, err)
		}
	})
	if out, err := d.tool("domain", "passwordsettings", "pso", "apply", "Strict", "exp-expiring"); err != nil {
		t.Fatal(out, err)
	}
}

// edit adds or deletes one member of a group.
func (d *controller) edit(t *testing.T, group, what, member string) {
	t.Helper()
	var l ldif
	l.line("dn", group)
	l.line("changetype", "modify")
	l.line(what, "member")
	l.line("member", member)
	l.WriteString("-\n\n")
	d.modify(t, l.String())
}

func (d *controller) sidOf(t *testing.T, dn string) string {
	t.Helper()
	raw := d.search(t, dn, "base", "(objectClass=*)", "objectSid")[0].values.First("objectSid")
	return oracle.SID(raw)
}

// shown is what ldapsearch shows of the whole domain, by DN.
type shown struct {
	d    *controller
	all  map[string]record
	sids map[string]string // of those that have one
}

func (d *controller) show(t *testing.T) *shown {
	t.Helper()
	s := &shown{d, map[string]record{}, map[string]string{}}
	for _, r := range d.search(t, "", "", "(objectSid=*)", "objectSid", "objectClass", "sAMAccountName", "primaryGroupID", "member", "memberOf") {
		s.all[r.dn] = r
		raw := r.values.First("objectSid")
		s.sids[r.dn] = oracle.SID(raw)
	}
	// What is computed takes the server long, so only of those that are compared.
	for _, r := range d.search(t, exposedOU, "", "(objectSid=*)", "*", "msDS-ResultantPSO", "msDS-UserPasswordExpiryTimeComputed") {
		s.all[r.dn] = r
	}
	return s
}

func (s *shown) dnOf(sid string) string {
	for dn, other := range s.sids {
		if other == sid {
			return dn
		}
	}
	return ""
}

func isGroup(r record) bool { return slices.Contains(r.values["objectclass"], "group") }

// primaryGroup is the SID of an account's primary group.
func (s *shown) primaryGroup(dn string) string {
	rid := s.all[dn].values.First("primaryGroupID")
	if rid == "" {
		return ""
	}
	sid := s.sids[dn]
	return sid[:strings.LastIndex(sid, "-")+1] + rid
}

// groupsAbove are the groups that somebody is in, by way of others too, as memberOf
// shows them.
func (s *shown) groupsAbove(dn string) (sids []string) {
	seen := map[string]bool{}
	next := slices.Clone(s.all[dn].values["memberof"])
	for len(next) > 0 {
		group := next[0]
		if next = next[1:]; !seen[group] {
			seen[group] = true
			sids = append(sids, s.sids[group])
			next = append(next, s.all[group].values["memberof"]...)
		}
	}
	return sids
}

// below is everybody in a group, by way of others too, as member shows them.
func (s *shown) below(dn string) (dns []string) {
	seen := map[string]bool{dn: true}
	next := slices.Clone(s.all[dn].values["member"])
	for len(next) > 0 {
		member := next[0]
		if next = next[1:]; !seen[member] {
			seen[member] = true
			dns = append(dns, member)
			next = append(next, s.all[member].values["member"]...)
		}
	}
	return dns
}

// The well-known groups: identifiers within the domain, and within S-1-5-32.
var (
	domainRoles  = []string{"498", "512", "516", "517", "518", "519", "520", "521", "522", "526", "527"}
	builtinRoles = []string{"544", "548", "549", "550", "551", "552", "556", "557", "578", "580", "582"}
)

func (s *shown) isPrivileged(sid string) bool {
	domain := s.sids[baseDN] + "-"
	rid, inDomain := strings.CutPrefix(sid, domain)
	builtin, isBuiltin := strings.CutPrefix(sid, "S-1-5-32-")
	account := s.all[s.dnOf(sid)].values.First("sAMAccountName")
	return inDomain && slices.Contains(domainRoles, rid) || isBuiltin && slices.Contains(builtinRoles, builtin) || account == "DnsAdmins"
}

func (s *shown) sidsOf(dns []string) (sids []string) {
	for _, dn := range dns {
		if sid := s.sids[dn]; sid != "" {
			sids = append(sids, sid)
		}
	}
	return sids
}

// put adds a list, sorted and each once, or a value, unless there is none.
func put(to map[string]any, key string, value any) {
	switch v := value.(type) {
	case []string:
		if len(v) == 0 {
			return
		}
		v = slices.Clone(v)
		slices.Sort(v)
		value = slices.Compact(v)
	case string:
		if v == "" {
			return
		}
	}
	to[key] = value
}

func (s *shown) privileges(direct, above []string) map[string]any {
	p := map[string]any{}
	put(p, "direct", slices.DeleteFunc(slices.Clone(direct), func(sid string) bool { return !s.isPrivileged(sid) }))
	put(p, "nested", slices.DeleteFunc(slices.Clone(above), func(sid string) bool { return !s.isPrivileged(sid) }))
	return p
}

// aboveOf are the groups above groups, those themselves only where one of them is
// above another.
func (s *shown) aboveOf(groups []string) (above []string) {
	for _, sid := range groups {
		above = append(above, s.groupsAbove(s.dnOf(sid))...)
	}
	return above
}

// userPosture is the map once more, without any code of the connector's.
func (s *shown) userPosture(t *testing.T, dn string) map[string]any {
	t.Helper()
	r, p := s.all[dn], map[string]any{}
	control := r.values.Bits("userAccountControl")
	var names []string
	for bit, name := range map[uint32]string{0x20: "PASSWORD_NOT_REQUIRED", 0x10000: "PASSWORD_NEVER_EXPIRES", 0x80: "REVERSIBLE_ENCRYPTION",
		0x400000: "NO_PREAUTHENTICATION", 0x200000: "DES_ONLY", 0x80000: "TRUSTED_FOR_DELEGATION", 0x1000000: "TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION",
		0x100000: "NOT_DELEGATED", 0x40000: "SMART_CARD_REQUIRED"} {
		if control&bit != 0 {
			names = append(names, name)
		}
	}
	put(p, "accountControl", names)
	var ciphers []string
	for bit, name := range map[uint32]string{1: "DES_CBC_CRC", 2: "DES_CBC_MD5", 4: "RC4_HMAC", 8: "AES128", 16: "AES256"} {
		if r.values.Bits("msDS-SupportedEncryptionTypes")&bit != 0 {
			ciphers = append(ciphers, name)
		}
	}
	put(p, "supportedEncryptionTypes", ciphers)
	put(p, "servicePrincipalNames", r.values["serviceprincipalname"])
	put(p, "allowedToDelegateTo", r.values["msds-allowedtodelegateto"])
	for name, attribute := range map[string]string{"adminCount": "adminCount", "managedPasswordIntervalDays": "msDS-ManagedPasswordInterval"} {
		if text := r.values.First(attribute); text != "" {
			n, _ := strconv.Atoi(text)
			p[name] = float64(n)
		}
	}
	for name, attribute := range map[string]string{"allowedToActOnBehalf": "msDS-AllowedToActOnBehalfOfOtherIdentity", "passwordReaders": "msDS-GroupMSAMembership"} {
		raw := r.values.First(attribute)
		put(p, name, allowedIn(t, raw))
	}
	groups := append(s.sidsOf(r.values["memberof"]), s.primaryGroup(dn))
	put(p, "primaryGroup", s.primaryGroup(dn))
	put(p, "groups", groups)
	if privileges := s.privileges(groups, s.aboveOf(groups)); len(privileges) > 0 {
		p["privilegedGroups"] = privileges
	}
	for name, attribute := range map[string]string{"lastLogonTimestamp": "lastLogonTimestamp", "passwordExpiresAt": "msDS-UserPasswordExpiryTimeComputed"} {
		if at, ok := r.values.Moment(attribute); ok {
			p[name] = at.Format("2006-01-02T15:04:05.000Z")
		}
	}
	policy := r.values.First("msDS-ResultantPSO")
	put(p, "passwordPolicy", policy)
	if text := r.values.First("userWorkstations"); text != "" {
		put(p, "logonWorkstations", strings.Split(text, ","))
	}
	if r.values.First("description") != "" {
		p["hasDescription"] = true
	}
	return p
}

// allowedIn finds the SIDs of a descriptor's entries of the simple kind that allow.
func allowedIn(t *testing.T, raw string) (sids []string) {
	t.Helper()
	if raw == "" {
		return nil
	}
	list := raw[binary.LittleEndian.Uint32([]byte(raw[16:])):]
	at := 8
	for range int(list[4]) {
		size := int(binary.LittleEndian.Uint16([]byte(list[at+2:])))
		if list[at] == 0 {
			sids = append(sids, oracle.SID(list[at+8:at+size]))
		}
		at += size
	}
	return sids
}

func (s *shown) groupPosture(dn string) map[string]any {
	r, p := s.all[dn], map[string]any{}
	members := r.values["member"]
	put(p, "members", s.sidsOf(members))
	put(p, "memberOf", s.sidsOf(r.values["memberof"]))
	if without := len(members) - len(s.sidsOf(members)); without > 0 {
		p["membersWithoutSid"] = float64(without)
	}
	manager := r.values.First("managedBy")
	put(p, "managedBy", s.sids[manager])
	groups := s.sidsOf(r.values["memberof"])
	if privileges := s.privileges(groups, s.aboveOf(groups)); len(privileges) > 0 {
		p["privilegedGroups"] = privileges
	}
	p["inCycle"] = slices.Contains(s.groupsAbove(dn), s.sids[dn])
	p["nestingDepth"] = float64(s.depth(dn, nil))
	p["empty"] = len(members) == 0
	for account := range s.all {
		if s.primaryGroup(account) == s.sids[dn] {
			p["empty"] = false
		}
	}
	return p
}

// depth counts levels, and a cycle as one: it is for cycles of two without groups
// below but empty ones.
func (s *shown) depth(dn string, path []string) int {
	depth := 0
	for _, member := range s.all[dn].values["member"] {
		if isGroup(s.all[member]) && !slices.Contains(path, member) && member != dn {
			if slices.Contains(s.all[member].values["member"], dn) { // in each other
				depth = max(depth, 1)
				continue
			}
			depth = max(depth, 1+s.depth(member, append(path, dn)))
		}
	}
	return depth
}

// compareExposed holds what is at the gateway against what ldapsearch shows.
func compareExposed(t *testing.T, d *controller, g *testenv.Gateway) {
	t.Helper()
	s := d.show(t)
	compared := 0
	check := func(what, class string, i gatewayserver.Identity, want map[string]any) {
		t.Helper()
		var item struct {
			Asset struct{ AssetDetail map[string]map[string]any }
		}
		detail := struct {
			Asset struct {
				AssetDetail map[string]json.RawMessage
			}
		}{}
		if err := json.Unmarshal(i.Asset, &detail); err != nil {
			t.Fatal(err)
		}
		item.Asset.AssetDetail = map[string]map[string]any{}
		var content map[string]any
		if err := json.Unmarshal(detail.Asset.AssetDetail[class], &content); err != nil {
			t.Fatalf("%s: %v: %s", what, err, i.Asset)
		}
		got, _ := content["posture"].(map[string]any)
		if class == "roleAssetClass" {
			got = content
		}
		compared++
		for key := range maps.Keys(union(got, want)) {
			if a, b := canonicalJSON(t, got[key]), canonicalJSON(t, want[key]); a != b {
				t.Errorf("%s: %s is %.300s, the directory shows %.300s", what, key, a, b)
			}
		}
	}
	for _, i := range g.Users() {
		if dn := s.dnOf(i.ExternalAssetID); strings.HasSuffix(dn, exposedOU) {
			check(dn, "userAssetClass", i, s.userPosture(t, dn))
		}
	}
	for _, i := range g.Groups() {
		if dn := s.dnOf(i.ExternalAssetID); strings.HasSuffix(dn, exposedOU) {
			check(dn, "groupAssetClass", i, s.groupPosture(dn))
		}
	}
	roles := 0
	for dn, r := range s.all {
		if sid := s.sids[dn]; isGroup(r) && s.isPrivileged(sid) {
			roles++
			found := false
			for _, i := range g.Sandbox().Roles() {
				if i.ExternalAssetID == sid+":role" {
					found = true
					check("role "+dn, "roleAssetClass", i, s.role(t, dn, i))
				}
			}
			if !found {
				t.Errorf("there is no role of %s", dn)
			}
		}
	}
	if roles < 12 || compared < 12+roles {
		t.Errorf("%d roles and %d objects were compared", roles, compared)
	}
}

// role is what a role must be, but for its names.
func (s *shown) role(t *testing.T, dn string, i gatewayserver.Identity) map[string]any {
	t.Helper()
	var is struct {
		Asset struct {
			AssetDetail struct{ RoleAssetClass map[string]any }
		}
	}
	if err := json.Unmarshal(i.Asset, &is); err != nil {
		t.Fatal(err)
	}
	p := map[string]any{}
	for _, key := range []string{"id", "name", "description", "role", "privileged"} {
		put(p, key, is.Asset.AssetDetail.RoleAssetClass[key])
		if p[key] == nil {
			delete(p, key)
		}
	}
	p["group"] = s.sids[dn]
	var members, groups []string
	within := map[string]bool{s.sids[dn]: true}
	for _, member := range s.below(dn) {
		if sid := s.sids[member]; isGroup(s.all[member]) {
			groups = append(groups, sid)
			within[sid] = true
		} else {
			members = append(members, sid)
		}
	}
	for account := range s.all {
		if within[s.primaryGroup(account)] {
			members = append(members, s.sids[account])
		}
	}
	put(p, "members", members)
	put(p, "nestedGroups", groups)
	return p
}

// canonicalJSON writes a value with its lists sorted: they are sets.
func canonicalJSON(t *testing.T, value any) string {
	t.Helper()
	if value == nil {
		return "absent"
	}
	encoded, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var generic any
	if err := json.Unmarshal(encoded, &generic); err != nil {
		t.Fatal(err)
	}
	var sorted func(any)
	sorted = func(v any) {
		switch v := v.(type) {
		case []any:
			slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		case map[string]any:
			for _, inner := range v {
				sorted(inner)
			}
		}
	}
	sorted(generic)
	encoded, _ = json.Marshal(generic)
	return string(encoded)
}

func TestPosture(t *testing.T) {
	d := domain(t)
	d.grant(t, serviceAccount)
	t.Cleanup(func() { d.grant(t, "") })
	d.expose(t)
	connection, profile := d.console("LDAP", exposedOU, "SUBTREE")
	profile.Assets = "Identity with security posture"
	g := newGateway(t, connection, profile)
	env := newSettings(t, g).With(testenv.Settings{"sync.max-deletes-percent": "100"})
	sync := func(what, mode string, args ...string) program.Outcome {
		t.Helper()
		begin := time.Now()
		o := run(t, env, append([]string{"sync"}, args...)...)
		o.MustExit(t, 0)
		if got := summary(t, o)["mode"]; got != mode {
			t.Errorf("%s: mode %v, want %s", what, got, mode)
		}
		compareExposed(t, d, g)
		if t.Failed() {
			t.Fatalf("%s; standard error:\n%.6000s", what, o.Stderr)
		}
		t.Logf("%s: %v uploaded in %.1f s", what, summary(t, o)["uploaded"], time.Since(begin).Seconds())
		return o
	}
	sync("first", "full")
	domainAsset := string(g.Sandbox().Domains()[0].Asset)
	for _, want := range []string{`"id":"` + d.sidOf(t, baseDN) + `"`, `"threshold":` + strconv.Itoa(lockoutThreshold), `"minimumLength":7`, `"recycleBin":"DISABLED"`,
		`"machineAccountQuota":10`, `"krbtgtPasswordLastChangedAt":`, `"operatingSystem":"Samba"`, `"unreadable":["fineGrainedPasswordPolicies"]`} {
		if !strings.Contains(domainAsset, want) {
			t.Errorf("the domain has no %s: %s", want, domainAsset)
		}
	}
	mustCount(t, summary(t, sync("nothing", "delta")), "uploaded", 0)

	// More numbers than deltas overlap, so that nothing is read again for that.
	pass := func() {
		t.Helper()
		var l ldif
		for n := range 220 {
			l.replace("CN=Guest,CN=Users,"+baseDN, "description", strconv.Itoa(n))
		}
		d.modify(t, l.String())
	}
	pass()
	sync("others' changes", "delta")
	d.edit(t, exposedDN("outer"), "delete", exposedDN("inner"))
	mustCount(t, summary(t, sync("inner leaves outer", "delta")), "uploaded", 5) // both, the two below, the role
	pass()
	d.edit(t, "CN=Administrators,CN=Builtin,"+baseDN, "add", exposedDN("loop a"))
	sync("a loop becomes privileged", "delta")
	pass()
	d.remove(t, exposedDN("trusted")) // which changes no group
	sync("a member is deleted", "delta")
	pass()
	d.edit(t, "CN=Administrators,CN=Builtin,"+baseDN, "delete", exposedDN("loop a"))
	d.edit(t, exposedDN("many"), "delete", d.search(t, bulkOU, "", "(sAMAccountType=805306368)", "name")[7].dn)
	sync("two groups at once", "delta")

	// An account that may read them sees the policies, too.
	connection.Authentication.BindDN, connection.Authentication.Password = d.admin.dn, d.admin.password
	g.SetConnection(connection)
	sync("as administrator", "delta")
	if text := string(g.Sandbox().Domains()[0].Asset); !strings.Contains(text, `"name":"Strict","precedence":10,"appliesTo":["`+d.sidOf(t, exposedDN("expiring"))+`"],"minimumLength":12`) || strings.Contains(text, "unreadable") {
		t.Errorf("the domain: %s", text)
	}

	// And back to identities only.
	profile.Assets = "IDENTITIES_ONLY"
	g.SetProfile(profile)
	run(t, env, "sync").MustExit(t, 0)
	for _, i := range slices.Concat(g.Sandbox().Roles(), g.Sandbox().Domains()) {
		if !strings.Contains(string(i.Asset), `"status":"DELETED"`) {
			t.Errorf("still there: %s", i.Asset)
		}
	}
	for _, i := range g.Users() {
		if strings.Contains(string(i.Asset), "posture") {
			t.Errorf("still with posture: %s", i.Asset)
		}
	}
}
