//go:build ad

package samba

import (
	"bytes"
	"cmp"
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
	"adconnector/test/sddl"
	"adconnector/test/testenv"
)

// The connector reads postureOU in these tests. The privileged groups are outside of it.
const (
	postureOU  = "OU=Posture," + baseDN
	foreignSID = "S-1-5-21-9-9-9-1000"
)

func postureDN(name string) string { return "CN=" + name + "," + postureOU }

// addPostureOU adds users and groups with every attribute of the security posture, until the
// test ends.
func (d *controller) addPostureOU(t *testing.T) {
	t.Helper()
	var l ldif
	user := func(name string, uac int, pairs ...string) {
		l.create(postureDN(name), append([]string{"objectClass", "user", "sAMAccountName", "pos-" + name, "userAccountControl", strconv.Itoa(uac)}, pairs...)...)
	}
	group := func(name string, members ...string) {
		pairs := []string{"objectClass", "group", "sAMAccountName", "pos-" + name}
		for _, m := range members {
			pairs = append(pairs, "member", m)
		}
		l.create(postureDN(name), pairs...)
	}
	l.create(postureOU, "objectClass", "organizationalUnit")
	user("service", uacPlain|0x400000, "servicePrincipalName", "http/web.corp.example.com", "servicePrincipalName", "MSSQLSvc/db:1433",
		"msDS-AllowedToDelegateTo", "cifs/file.corp.example.com", "msDS-SupportedEncryptionTypes", "24", "adminCount", "1",
		"userWorkstations", "PC2, PC1 ", "description", "runs the reports")
	user("trusted", uacPlain|0x80000|0x1000000)
	user("weak", uacNormal|uacNoPassword|0x200000|0x80)
	user("protected", uacNormal|uacNoPassword|uacSmartcard|0x100000)
	user("primary", uacPlain)
	user("expiring", uacNormal|uacNoPassword)
	user("must change", uacNormal|uacNoPassword, "pwdLastSet", "0")
	group("inner", postureDN("service"), postureDN("trusted"))
	group("outer", postureDN("inner"), postureDN("weak"))
	group("empty")
	group("cycle a", postureDN("protected"))
	group("cycle b", postureDN("cycle a"), postureDN("empty"))
	group("self", postureDN("service"))
	l.create(postureDN("list"), "objectClass", "group", "sAMAccountName", "pos-list", "groupType", "2", "member", postureDN("weak"), "member", postureDN("empty"))
	group("foreign", "<SID="+foreignSID+">", "CN=S-1-5-11,CN=ForeignSecurityPrincipals,"+baseDN)
	var bulk []string
	for _, r := range d.ldapsearch(t, bulkOU, "", "(sAMAccountType=805306368)", "name")[:3100] {
		bulk = append(bulk, r.dn)
	}
	group("many", bulk...)
	l.create(postureDN("computer"), "objectClass", "computer", "sAMAccountName", "pos-computer$", "userAccountControl", "4096")
	l.create(postureDN(`Sales\, EMEA`), "objectClass", "group", "sAMAccountName", "pos-sales", "member", postureDN("computer"), "member", postureDN("weak"))
	l.create(postureDN("gmsa"), "objectClass", "msDS-GroupManagedServiceAccount", "sAMAccountName", "pos-gmsa$", "msDS-ManagedPasswordInterval", "30", "userAccountControl", "4096")
	d.ldapmodify(t, l.String())
	t.Cleanup(func() {
		if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, postureOU); err != nil {
			t.Error(err)
		}
	})
	d.setAttribute(t, postureDN("cycle a"), "member", postureDN("cycle b"), postureDN("protected"))
	d.setAttribute(t, postureDN("self"), "member", postureDN("self"), postureDN("service"))
	d.setAttribute(t, postureDN("outer"), "managedBy", postureDN("service"))
	d.setPassword(t, postureDN("expiring"), "Pw-1expiring.0")

	// A group must have a user as a member before it can be the user's primary group.
	d.changeMember(t, "CN=Domain Admins,CN=Users,"+baseDN, "add", postureDN("primary"))
	d.setAttribute(t, postureDN("primary"), "primaryGroupID", "512")
	d.changeMember(t, "CN=Backup Operators,CN=Builtin,"+baseDN, "add", postureDN("outer"))
	const authenticated = "CN=S-1-5-11,CN=ForeignSecurityPrincipals," + baseDN
	for _, member := range []string{postureDN("list"), postureDN("computer"), authenticated} {
		d.changeMember(t, "CN=Backup Operators,CN=Builtin,"+baseDN, "add", member)
	}
	t.Cleanup(func() { d.changeMember(t, "CN=Backup Operators,CN=Builtin,"+baseDN, "delete", authenticated) })

	// ldbmodify encodes these security descriptors.
	var descriptors ldif
	descriptors.replace(postureDN("service"), "msDS-AllowedToActOnBehalfOfOtherIdentity", "O:BAD:"+
		"(D;;CR;;;"+d.sid(t, postureDN("weak"))+")(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;"+d.sid(t, postureDN("weak"))+")"+
		"(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;"+d.sid(t, postureDN("expiring"))+")(A;;RP;;;"+d.sid(t, postureDN("protected"))+")"+
		"(OA;;CR;00299570-246d-11d0-a768-00aa006e0529;;"+d.sid(t, postureDN("primary"))+")(A;OICIIO;CR;;;"+d.sid(t, postureDN("primary"))+")(D;;CC;;;AU)")
	descriptors.replace(postureDN("gmsa"), "msDS-GroupMSAMembership", "O:BAD:(A;;RP;;;"+d.sid(t, postureDN("outer"))+")(A;;CR;;;"+d.sid(t, postureDN("inner"))+")(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;BA)")
	if err := d.ldb("ldbmodify", descriptors.String()); err != nil {
		t.Fatal(err)
	}
	if out, err := d.sambaTool("domain", "passwordsettings", "pso", "create", "Strict", "10", "--min-pwd-length=12", "--max-pwd-age=7"); err != nil {
		t.Fatal(out, err)
	}
	t.Cleanup(func() {
		if out, err := d.sambaTool("domain", "passwordsettings", "pso", "delete", "Strict"); err != nil {
			t.Error(out, err)
		}
	})
	if out, err := d.sambaTool("domain", "passwordsettings", "pso", "apply", "Strict", "pos-expiring"); err != nil {
		t.Fatal(out, err)
	}
}

// changeMember adds a member to a group or deletes one. operation is add or delete.
func (d *controller) changeMember(t *testing.T, group, operation, member string) {
	t.Helper()
	var l ldif
	l.line("dn", group)
	l.line("changetype", "modify")
	l.line(operation, "member")
	l.line("member", member)
	l.WriteString("-\n\n")
	d.ldapmodify(t, l.String())
}

// sid returns the SID of an object.
func (d *controller) sid(t *testing.T, dn string) string {
	t.Helper()
	return oracle.SID(d.ldapsearch(t, dn, "base", "(objectClass=*)", "objectSid")[0].values.First("objectSid"))
}

// domainEntries are the entries of the whole domain that ldapsearch returns.
type domainEntries struct {
	byDN map[string]record
	sids map[string]string // by DN
	// descriptors are the security descriptors in SDDL, from the database, by DN.
	descriptors map[string]string
}

func (d *controller) domainEntries(t *testing.T) *domainEntries {
	t.Helper()
	s := &domainEntries{map[string]record{}, map[string]string{}, d.descriptorTexts(t)}
	for _, r := range d.ldapsearch(t, "", "", "(objectSid=*)", "objectSid", "objectClass", "name", "sAMAccountName", "groupType", "primaryGroupID", "member", "memberOf", "dNSHostName") {
		s.byDN[r.dn] = r
		s.sids[r.dn] = oracle.SID(r.values.First("objectSid"))
	}
	for _, r := range d.ldapsearch(t, "CN=WellKnown Security Principals,CN=Configuration,"+baseDN, "one", "(objectSid=*)", "objectSid", "objectClass", "name") {
		s.byDN[r.dn], s.sids[r.dn] = r, oracle.SID(r.values.First("objectSid"))
	}
	// Constructed attributes are slow, so only the compared entries are read with them.
	for _, r := range d.ldapsearch(t, postureOU, "", "(objectSid=*)", "*", "msDS-ResultantPSO", "msDS-UserPasswordExpiryTimeComputed") {
		s.byDN[r.dn] = r
	}
	return s
}

// dnOf returns the DN of the object with a SID, "" without one.
func (s *domainEntries) dnOf(sid string) string {
	for dn, other := range s.sids {
		if other == sid {
			return dn
		}
	}
	return ""
}

func isGroup(r record) bool { return slices.Contains(r.values["objectclass"], "group") }

// primaryGroup returns the SID of an account's primary group, "" without one.
func (s *domainEntries) primaryGroup(dn string) string {
	rid := s.byDN[dn].values.First("primaryGroupID")
	if rid == "" {
		return ""
	}
	sid := s.sids[dn]
	return sid[:strings.LastIndex(sid, "-")+1] + rid
}

// transitiveGroups returns the SIDs of the direct and indirect groups of an object, from
// memberOf.
func (s *domainEntries) transitiveGroups(dn string) (sids []string) {
	seen := map[string]bool{}
	next := slices.Clone(s.byDN[dn].values["memberof"])
	for len(next) > 0 {
		group := next[0]
		if next = next[1:]; !seen[group] {
			seen[group] = true
			sids = append(sids, s.sids[group])
			next = append(next, s.byDN[group].values["memberof"]...)
		}
	}
	return sids
}

// transitiveMembers returns the DNs of the direct and indirect members of a group, from member.
func (s *domainEntries) transitiveMembers(dn string) (dns []string) {
	seen := map[string]bool{dn: true}
	next := slices.Clone(s.byDN[dn].values["member"])
	for len(next) > 0 {
		member := next[0]
		if next = next[1:]; !seen[member] {
			seen[member] = true
			dns = append(dns, member)
			next = append(next, s.byDN[member].values["member"]...)
		}
	}
	return dns
}

// tokenMembers returns the DNs of the direct members of a group, and of those through security
// groups.
func (s *domainEntries) tokenMembers(dn string) (dns []string) {
	seen := map[string]bool{dn: true}
	next := slices.Clone(s.byDN[dn].values["member"])
	for len(next) > 0 {
		member := next[0]
		if next = next[1:]; !seen[member] {
			seen[member] = true
			dns = append(dns, member)
			if isSecurityGroup(s.byDN[member]) {
				next = append(next, s.byDN[member].values["member"]...)
			}
		}
	}
	return dns
}

// The RIDs of the privileged groups in the domain and in S-1-5-32 (MS-DTYP 2.4.2.4).
var (
	domainRoles  = []string{"498", "512", "516", "517", "518", "519", "520", "521", "522", "526", "527"}
	builtinRoles = []string{"544", "548", "549", "550", "551", "552", "556", "557", "578", "580", "582"}
)

// isRole reports whether the SID is that of a privileged group, of Protected Users, or of Pre-Windows
// 2000 Compatible Access.
func (s *domainEntries) isRole(sid string) bool {
	return s.isPrivileged(sid) || sid == s.sids[baseDN]+"-525" || sid == "S-1-5-32-554"
}

// isPrivileged reports whether the SID is that of a privileged group.
func (s *domainEntries) isPrivileged(sid string) bool {
	domain := s.sids[baseDN] + "-"
	rid, inDomain := strings.CutPrefix(sid, domain)
	builtin, isBuiltin := strings.CutPrefix(sid, "S-1-5-32-")
	account := s.byDN[s.dnOf(sid)].values.First("sAMAccountName")
	return inDomain && slices.Contains(domainRoles, rid) || isBuiltin && slices.Contains(builtinRoles, builtin) || account == "DnsAdmins"
}

// sidsOf returns the SIDs of objects, without those that have none.
func (s *domainEntries) sidsOf(dns []string) (sids []string) {
	for _, dn := range dns {
		if sid := s.sids[dn]; sid != "" {
			sids = append(sids, sid)
		}
	}
	return sids
}

// wellKnown has the names of the well-known principals in a new Samba domain, and of those that the
// tests add.
var wellKnown = map[string]string{
	"S-1-5-4": "Interactive", "S-1-5-9": "Enterprise Domain Controllers", "S-1-5-11": "Authenticated Users", "S-1-5-17": "IUSR", "S-1-1-0": "Everyone", "S-1-5-7": "Anonymous Logon",
}

// name returns the expected name and kind of the principal with a SID.
func (s *domainEntries) name(sid string) (name, kind string) {
	r := s.byDN[s.dnOf(sid)]
	hasClass := func(class string) bool { return slices.Contains(r.values["objectclass"], class) }
	name = r.values.First("name")
	switch {
	case isGroup(r):
		kind = "GROUP"
	case hasClass("msDS-GroupManagedServiceAccount"):
		kind = "SERVICE_ACCOUNT"
	case hasClass("computer"):
		kind = "COMPUTER"
	case hasClass("user"):
		kind = "USER"
	case wellKnown[sid] != "":
		kind, name = "WELL_KNOWN", wellKnown[sid]
	case strings.HasPrefix(sid, "S-1-5-21-") && !strings.HasPrefix(sid, s.sids[baseDN]):
		kind, name = "FOREIGN", ""
	}
	return name, kind
}

// principals returns the expected list of the principals with these SIDs.
func (s *domainEntries) principals(sids []string) (list []any) {
	sids = slices.Clone(sids)
	slices.SortFunc(sids, compareSIDs)
	for _, sid := range slices.Compact(sids) {
		name, kind := s.name(sid)
		item := map[string]any{"sid": sid}
		put(item, "name", name)
		put(item, "kind", kind)
		if len(item) > 1 {
			list = append(list, item)
		}
	}
	return list
}

// noUsers returns the SIDs of those principals that are no users.
func (s *domainEntries) noUsers(sids []string) []string {
	return slices.DeleteFunc(slices.Clone(sids), func(sid string) bool {
		_, kind := s.name(sid)
		return kind == "USER"
	})
}

// step returns the expected item of a path.
func (s *domainEntries) step(sid string) map[string]any {
	item := map[string]any{"sid": sid}
	name, _ := s.name(sid)
	put(item, "name", name)
	return item
}

// compareSIDs compares everything before the last number as in binary SIDs, and then that number.
func compareSIDs(a, b string) int {
	split := func(sid string) (binaryPrefix []byte, last uint64) {
		parts := strings.Split(sid, "-")[2:]
		binaryPrefix = append(binaryPrefix, byte(len(parts)), parts[0][0])
		for _, part := range parts[1 : len(parts)-1] {
			n, _ := strconv.ParseUint(part, 10, 32)
			binaryPrefix = binary.LittleEndian.AppendUint32(binaryPrefix, uint32(n))
		}
		last, _ = strconv.ParseUint(parts[len(parts)-1], 10, 32)
		return binaryPrefix, last
	}
	prefixA, lastA := split(a)
	prefixB, lastB := split(b)
	return cmp.Or(bytes.Compare(prefixA, prefixB), cmp.Compare(lastA, lastB))
}

// put sets a key unless the value is empty. It sorts lists and removes duplicates.
func put(object map[string]any, key string, value any) {
	switch v := value.(type) {
	case []string:
		if len(v) == 0 {
			return
		}
		v = slices.Clone(v)
		slices.Sort(v)
		value = slices.Compact(v)
	case []any:
		if len(v) == 0 {
			return
		}
	case string:
		if v == "" {
			return
		}
	}
	object[key] = value
}

// isSecurityGroup reports whether access tokens contain a group.
func isSecurityGroup(r record) bool {
	return isGroup(r) && r.values.Flags("groupType")&0x80000000 != 0
}

// privileges returns the privileged groups among direct groups, and among those that they are in.
// Distribution groups grant nothing.
func (s *domainEntries) privileges(groups []string) (direct, nested []string) {
	for _, sid := range groups {
		if !isSecurityGroup(s.byDN[s.dnOf(sid)]) {
			continue
		}
		if s.isPrivileged(sid) {
			direct = append(direct, sid)
		}
		for _, above := range s.tokenGroups(s.dnOf(sid)) {
			if s.isPrivileged(above) {
				nested = append(nested, above)
			}
		}
	}
	slices.SortFunc(nested, compareSIDs)
	return direct, slices.Compact(nested)
}

// putPrivileges sets what depends on the groups of an account or group, and adds the privileged groups
// to the mentioned SIDs.
func (s *domainEntries) putPrivileges(p map[string]any, groups, mentioned []string) (all []string) {
	direct, nested := s.privileges(groups)
	privileges, paths := map[string]any{}, []any{}
	for _, sid := range nested {
		item := s.step(sid)
		item["path"] = s.path(groups, sid)
		paths = append(paths, item)
	}
	put(privileges, "direct", direct)
	put(privileges, "nested", nested)
	if len(privileges) > 0 {
		p["privilegedGroups"] = privileges
	}
	put(p, "privilegedPaths", paths)
	return slices.Concat(mentioned, direct, nested)
}

// path returns the shortest path from one of the groups to another one through security groups. Of
// several, it is the one with the lowest SIDs.
func (s *domainEntries) path(groups []string, target string) (list []any) {
	var paths [][]string
	for _, sid := range groups {
		if sid != target && isSecurityGroup(s.byDN[s.dnOf(sid)]) {
			paths = append(paths, []string{sid})
		}
	}
	for len(paths) > 0 && list == nil {
		slices.SortFunc(paths, func(a, b []string) int { return slices.CompareFunc(a, b, compareSIDs) })
		var longer [][]string
		for _, path := range paths {
			above := s.sidsOf(s.byDN[s.dnOf(path[len(path)-1])].values["memberof"])
			if slices.Contains(above, target) {
				for _, sid := range path {
					list = append(list, s.step(sid))
				}
				return list
			}
			for _, sid := range above {
				if isSecurityGroup(s.byDN[s.dnOf(sid)]) && !slices.Contains(path, sid) {
					longer = append(longer, append(slices.Clone(path), sid))
				}
			}
		}
		paths = longer
	}
	return nil
}

// tokenGroups returns the SIDs of the direct and indirect groups of an object that are in its access
// token: security groups, through security groups.
func (s *domainEntries) tokenGroups(dn string) (sids []string) {
	seen := map[string]bool{}
	next := slices.Clone(s.byDN[dn].values["memberof"])
	for len(next) > 0 {
		group := next[0]
		if next = next[1:]; !seen[group] && isSecurityGroup(s.byDN[group]) {
			seen[group] = true
			sids = append(sids, s.sids[group])
			next = append(next, s.byDN[group].values["memberof"]...)
		}
	}
	return sids
}

// userPosture returns the expected posture of a user. It implements the transformation a second
// time, without code of the connector.
func (s *domainEntries) userPosture(t *testing.T, dn string) map[string]any {
	t.Helper()
	r, p := s.byDN[dn], map[string]any{}
	uac := r.values.Flags("userAccountControl")
	var flags []string
	for bit, name := range map[uint32]string{0x20: "PASSWORD_NOT_REQUIRED", 0x10000: "PASSWORD_NEVER_EXPIRES", 0x80: "REVERSIBLE_ENCRYPTION",
		0x400000: "NO_PREAUTHENTICATION", 0x200000: "DES_ONLY", 0x80000: "TRUSTED_FOR_DELEGATION", 0x1000000: "TRUSTED_TO_AUTHENTICATE_FOR_DELEGATION",
		0x100000: "NOT_DELEGATED", 0x40000: "SMART_CARD_REQUIRED"} {
		if uac&bit != 0 {
			flags = append(flags, name)
		}
	}
	put(p, "accountControl", flags)
	var ciphers []string
	for bit, name := range map[uint32]string{1: "DES_CBC_CRC", 2: "DES_CBC_MD5", 4: "RC4_HMAC", 8: "AES128", 16: "AES256"} {
		if r.values.Flags("msDS-SupportedEncryptionTypes")&bit != 0 {
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
	put(p, "samAccountName", r.values.First("sAMAccountName"))
	put(p, "userPrincipalName", r.values.First("userPrincipalName"))
	put(p, "distinguishedName", r.dn)
	allowed := allowedSIDs(t, r.values.First("msDS-AllowedToActOnBehalfOfOtherIdentity"))
	readers := allowedSIDs(t, r.values.First("msDS-GroupMSAMembership"))
	put(p, "allowedToActOnBehalf", allowed)
	put(p, "passwordReaders", readers)
	primary := s.primaryGroup(dn)
	groups := append(s.sidsOf(r.values["memberof"]), primary)
	put(p, "primaryGroup", primary)
	put(p, "groups", groups)
	mentioned := s.putPrivileges(p, groups, slices.Concat([]string{primary}, allowed, readers))
	put(p, "principals", s.principals(s.putControl(t, p, dn, mentioned)))
	s.putFacts(p, dn, p["privilegedGroups"] != nil, time.Now())
	for name, attribute := range map[string]string{"lastLogonTimestamp": "lastLogonTimestamp", "passwordExpiresAt": "msDS-UserPasswordExpiryTimeComputed"} {
		if at, ok := r.values.FileTime(attribute); ok {
			p[name] = at.Format("2006-01-02T15:04:05.000Z")
		}
	}
	put(p, "passwordExpiry", map[string]string{"0": "MUST_CHANGE", "9223372036854775807": "NEVER"}[r.values.First("msDS-UserPasswordExpiryTimeComputed")])
	put(p, "passwordPolicy", r.values.First("msDS-ResultantPSO"))
	put(p, "logonWorkstations", strings.FieldsFunc(r.values.First("userWorkstations"), func(c rune) bool { return c == ' ' || c == ',' }))
	if r.values.First("description") != "" {
		p["hasDescription"] = true
	}
	putPresence(p, r)
	return p
}

// allowedSIDs returns the trustees whose first ACCESS_ALLOWED_ACE or ACCESS_DENIED_ACE with control
// access is an ACCESS_ALLOWED_ACE, in a self-relative security descriptor (MS-DTYP 2.4.6). Inherit-only
// entries are ignored.
func allowedSIDs(t *testing.T, descriptor string) (sids []string) {
	t.Helper()
	if descriptor == "" {
		return nil
	}
	const allowed, denied, inheritOnly, controlAccess = 0, 1, 8, 0x100
	first := map[string]byte{}
	dacl := descriptor[binary.LittleEndian.Uint32([]byte(descriptor[16:])):]
	offset := 8
	for range int(dacl[4]) {
		ace := dacl[offset : offset+int(binary.LittleEndian.Uint16([]byte(dacl[offset+2:])))]
		offset += len(ace)
		sid := oracle.SID(ace[8:])
		_, decided := first[sid]
		if (ace[0] == allowed || ace[0] == denied) && ace[1]&inheritOnly == 0 && binary.LittleEndian.Uint32([]byte(ace[4:]))&controlAccess != 0 && !decided {
			first[sid] = ace[0]
		}
	}
	for sid, kind := range first {
		if kind == allowed {
			sids = append(sids, sid)
		}
	}
	return sids
}

// groupPosture returns the expected posture of a group.
func (s *domainEntries) groupPosture(t *testing.T, dn string) map[string]any {
	t.Helper()
	r, p := s.byDN[dn], map[string]any{}
	members := r.values["member"]
	put(p, "samAccountName", r.values.First("sAMAccountName"))
	put(p, "distinguishedName", r.dn)
	memberOf := s.sidsOf(r.values["memberof"])
	put(p, "members", s.sidsOf(members))
	put(p, "memberOf", memberOf)
	if withoutSID := len(members) - len(s.sidsOf(members)); withoutSID > 0 {
		p["membersWithoutSid"] = float64(withoutSID)
	}
	managers := s.sidsOf(r.values["managedby"])
	put(p, "managedBy", strings.Join(managers, ""))
	mentioned := slices.Concat(memberOf, s.noUsers(s.sidsOf(members)), s.noUsers(managers))
	if isSecurityGroup(r) {
		mentioned = s.putPrivileges(p, memberOf, mentioned)
	}
	if text := r.values.First("adminCount"); text != "" {
		n, _ := strconv.Atoi(text)
		p["adminCount"] = float64(n)
	}
	put(p, "principals", s.principals(s.putControl(t, p, dn, mentioned)))
	p["inCycle"] = slices.Contains(s.transitiveGroups(dn), s.sids[dn])
	p["nestingDepth"] = float64(s.depth(dn))
	p["empty"] = len(members) == 0
	for account := range s.byDN {
		if s.primaryGroup(account) == s.sids[dn] {
			p["empty"] = false
		}
	}
	return p
}

// depth returns the number of groups in the longest chain of groups below a group, of which those
// of a cycle count as one.
func (s *domainEntries) depth(dn string) int {
	peers, depth := map[string]bool{dn: true}, 0
	for _, below := range s.transitiveMembers(dn) {
		if isGroup(s.byDN[below]) && slices.Contains(s.transitiveMembers(below), dn) {
			peers[below] = true
		}
	}
	for peer := range peers {
		for _, member := range s.byDN[peer].values["member"] {
			if isGroup(s.byDN[member]) && !peers[member] {
				depth = max(depth, 1+s.depth(member))
			}
		}
	}
	return depth
}

// comparePosture compares the posture, the roles and the groups at the gateway with the
// directory.
func comparePosture(t *testing.T, d *controller, g *testenv.Gateway) {
	t.Helper()
	s := d.domainEntries(t)
	compared := 0
	compareAsset := func(dn, class string, i gatewayserver.Identity, want map[string]any) {
		t.Helper()
		var detail struct {
			Asset struct {
				AssetDetail map[string]json.RawMessage
			}
		}
		if err := json.Unmarshal(i.Asset, &detail); err != nil {
			t.Fatal(err)
		}
		var content map[string]any
		if err := json.Unmarshal(detail.Asset.AssetDetail[class], &content); err != nil {
			t.Fatalf("%s: %v: %s", dn, err, i.Asset)
		}
		got, _ := content["posture"].(map[string]any)
		if class == "roleAssetClass" {
			got = content
		}
		compared++
		for key := range maps.Keys(union(got, want)) {
			if a, b := canonicalJSON(t, got[key]), canonicalJSON(t, want[key]); a != b {
				t.Errorf("%s: %s is %.300s, want %.300s", dn, key, a, b)
			}
		}
	}
	for _, i := range g.Users() {
		if dn := s.dnOf(i.ExternalAssetID); strings.HasSuffix(dn, postureOU) {
			compareAsset(dn, "userAssetClass", i, s.userPosture(t, dn))
		}
	}
	for _, i := range g.Groups() {
		if dn := s.dnOf(i.ExternalAssetID); strings.HasSuffix(dn, postureOU) {
			compareAsset(dn, "groupAssetClass", i, s.groupPosture(t, dn))
		}
	}
	roles := 0
	for dn, r := range s.byDN {
		if sid := s.sids[dn]; isGroup(r) && s.isRole(sid) {
			roles++
			found := false
			for _, i := range g.Sandbox().Identities(gatewayserver.KindRole) {
				if i.ExternalAssetID == sid+":role" {
					found = true
					compareAsset("role "+dn, "roleAssetClass", i, s.role(t, dn, i))
				}
			}
			if !found {
				t.Errorf("no role for %s", dn)
			}
		}
	}
	compareDomainValues(t, d, g, s)
	if roles < 14 || compared < 12+roles {
		t.Errorf("compared %d roles and %d assets, want more", roles, compared)
	}
}

// role returns the expected role of a group. The names and the description are those of the
// asset, because the directory does not have them.
func (s *domainEntries) role(t *testing.T, dn string, i gatewayserver.Identity) map[string]any {
	t.Helper()
	var actual struct {
		Asset struct {
			AssetDetail struct{ RoleAssetClass map[string]any }
		}
	}
	if err := json.Unmarshal(i.Asset, &actual); err != nil {
		t.Fatal(err)
	}
	p := map[string]any{}
	for _, key := range []string{"id", "name", "description", "role", "privileged"} {
		put(p, key, actual.Asset.AssetDetail.RoleAssetClass[key])
		if p[key] == nil {
			delete(p, key)
		}
	}
	p["group"] = s.sids[dn]
	var members, groups []string
	groupSIDs := map[string]bool{s.sids[dn]: true}
	for _, member := range s.tokenMembers(dn) {
		switch sid := s.sids[member]; {
		case isSecurityGroup(s.byDN[member]):
			groups = append(groups, sid)
			groupSIDs[sid] = true
		case !isGroup(s.byDN[member]):
			members = append(members, sid)
		}
	}
	for account := range s.byDN {
		if groupSIDs[s.primaryGroup(account)] {
			members = append(members, s.sids[account])
		}
	}
	put(p, "members", members)
	put(p, "nestedGroups", groups)
	put(p, "foreignMembers", slices.DeleteFunc(slices.Clone(members), func(sid string) bool {
		_, kind := s.name(sid)
		return kind != "FOREIGN"
	}))
	holders, controlling := s.holders(t, dn, "group")
	put(p, "controlledBy", holders)
	put(p, "principals", s.principals(slices.Concat(members, groups, controlling)))
	return p
}

// putControl puts who controls a privileged account or group, and returns who is mentioned by then.
func (s *domainEntries) putControl(t *testing.T, p map[string]any, dn string, mentioned []string) []string {
	t.Helper()
	if p["privilegedGroups"] == nil && p["adminCount"] == nil {
		return mentioned
	}
	class := "user"
	switch r := s.byDN[dn]; {
	case isGroup(r):
		class = "group"
	case slices.Contains(r.values["objectclass"], "computer"):
		class = "serviceAccount"
	}
	holders, controlling := s.holders(t, dn, class)
	put(p, "controlledBy", holders)
	return append(mentioned, controlling...)
}

// holders returns who controls an object by the second evaluation of its descriptor, and all of these
// principals.
func (s *domainEntries) holders(t *testing.T, dn, class string) (holders any, all []string) {
	t.Helper()
	parsed, err := sddl.Parse(s.descriptors[dn], s.sids[baseDN])
	if err != nil {
		t.Fatalf("%s: %v", dn, err)
	}
	lists := map[string]any{}
	for right, sids := range parsed.Holders(class, s.sids[baseDN]) {
		put(lists, right, sids)
		all = append(all, sids...)
	}
	if len(lists) == 0 {
		return nil, nil
	}
	return lists, all
}

// canonicalJSON encodes a value with sorted lists of strings, because the second reading has them in
// another order.
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
	var sortLists func(any)
	sortLists = func(v any) {
		switch v := v.(type) {
		case []any:
			if len(v) > 0 {
				if _, isText := v[0].(string); isText {
					slices.SortFunc(v, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
				}
			}
			for _, inner := range v {
				sortLists(inner)
			}
		case map[string]any:
			for _, inner := range v {
				sortLists(inner)
			}
		}
	}
	sortLists(generic)
	encoded, _ = json.Marshal(generic)
	return string(encoded)
}

// TestPosture compares the security posture at the gateway with the directory after a full sync,
// delta syncs, and a change back to identities only.
func TestPosture(t *testing.T) {
	d := sharedController(t)
	d.grantReadDeleted(t)
	d.addPostureOU(t)
	connection, profile := d.console("LDAP", postureOU, "SUBTREE")
	profile.Assets = "Identity with security posture"
	g := newGateway(t, connection, profile)
	settings := newSettings(t, g).With(testenv.Settings{"sync.max-deletes-percent": "100"})
	sync := func(step, mode string, args ...string) program.Outcome {
		t.Helper()
		began := time.Now()
		o := run(t, settings, append([]string{"sync"}, args...)...)
		o.MustExit(t, 0)
		if got := summary(t, o)["mode"]; got != mode {
			t.Errorf("%s: mode %v, want %s", step, got, mode)
		}
		comparePosture(t, d, g)
		if t.Failed() {
			t.Fatalf("%s; stderr:\n%.6000s", step, o.Stderr)
		}
		t.Logf("%s: %v uploaded in %.1f s", step, summary(t, o)["uploaded"], time.Since(began).Seconds())
		return o
	}
	sync("first", "full")
	domainAsset := string(g.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset)
	for _, want := range []string{`"id":"` + d.sid(t, baseDN) + `"`, `"names":{"dns":"corp.example.com","netbios":"CORP"}`, `"distinguishedName":"` + baseDN + `"`, `"threshold":` + strconv.Itoa(lockoutThreshold), `"minimumLength":7`, `"recycleBin":"DISABLED"`,
		`"machineAccountQuota":10`, `"krbtgtPasswordLastChangedAt":`, `"operatingSystem":"Samba"`, `"unreadable":["fineGrainedPasswordPolicies"]`} {
		if !strings.Contains(domainAsset, want) {
			t.Errorf("%s missing in the domain asset: %s", want, domainAsset)
		}
	}
	mustCount(t, summary(t, sync("no changes", "delta")), "uploaded", 0)

	// The changes exceed the USN overlap of delta syncs, so that no object is read again because
	// of the overlap.
	exceedOverlap := func() {
		t.Helper()
		var l ldif
		for n := range 220 {
			l.replace("CN=Guest,CN=Users,"+baseDN, "description", strconv.Itoa(n))
		}
		d.ldapmodify(t, l.String())
	}
	exceedOverlap()
	sync("changes outside of the scope", "delta")
	d.changeMember(t, postureDN("outer"), "delete", postureDN("inner"))
	mustCount(t, summary(t, sync("nested group removed", "delta")), "uploaded", 6) // two groups, two users, one role, the domain
	exceedOverlap()
	d.changeMember(t, "CN=Administrators,CN=Builtin,"+baseDN, "add", postureDN("cycle a"))
	sync("cycle becomes privileged", "delta")
	exceedOverlap()
	d.move(t, d.move(t, postureDN("cycle a"), "CN=cycle c", postureOU), "CN=cycle a", postureOU)
	d.move(t, postureDN("outer"), `CN=outer\, renamed`, postureOU)
	sync("group in a path renamed", "delta")
	d.move(t, `CN=outer\, renamed,`+postureOU, "CN=outer", postureOU)
	d.move(t, postureDN("computer"), "CN=computer 2", postureOU)
	sync("member of a role renamed", "delta")
	exceedOverlap()
	d.delete(t, postureDN("trusted")) // changes no group entry
	sync("member deleted", "delta")
	exceedOverlap()
	d.changeMember(t, "CN=Administrators,CN=Builtin,"+baseDN, "delete", postureDN("cycle a"))
	d.changeMember(t, postureDN("many"), "delete", d.ldapsearch(t, bulkOU, "", "(sAMAccountType=805306368)", "name")[7].dn)
	sync("two groups changed", "delta")

	// An administrator can also read the fine-grained password policies.
	connection.Authentication.BindDN, connection.Authentication.Password = d.admin.dn, d.admin.password
	g.SetConnection(connection)
	sync("as administrator", "delta")
	if text := string(g.Sandbox().Identities(gatewayserver.KindDomain)[0].Asset); !strings.Contains(text, `"name":"Strict","precedence":10,"appliesTo":["`+d.sid(t, postureDN("expiring"))+`"],"minimumLength":12`) || !strings.Contains(text, `{"sid":"`+d.sid(t, postureDN("expiring"))+`","name":"expiring","kind":"USER"}`) || strings.Contains(text, "unreadable") {
		t.Errorf("password policy missing in the domain asset: %s", text)
	}

	profile.Assets = "IDENTITIES_ONLY"
	g.SetProfile(profile)
	run(t, settings, "sync").MustExit(t, 0)
	for _, i := range slices.Concat(g.Sandbox().Identities(gatewayserver.KindRole), g.Sandbox().Identities(gatewayserver.KindDomain)) {
		if !strings.Contains(string(i.Asset), `"status":"DELETED"`) {
			t.Errorf("not deleted without posture: %s", i.Asset)
		}
	}
	for _, i := range g.Users() {
		if strings.Contains(string(i.Asset), "posture") {
			t.Errorf("posture not removed: %s", i.Asset)
		}
	}
}
