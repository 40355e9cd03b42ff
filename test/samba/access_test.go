//go:build ad

package samba

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/access"
	"adconnector/internal/ad"
	"adconnector/test/oracle"
	"adconnector/test/sddl"
)

// classNames has the names of the classes of objects in package sddl.
var classNames = map[access.Class]string{
	access.Domain: "domain", access.AdminSDHolder: "adminSDHolder", access.Container: "container",
	access.User: "user", access.ServiceAccount: "serviceAccount", access.Group: "group",
}

const (
	accessOU      = "OU=Access," + baseDN
	accessUnit    = "OU=Unit," + accessOU
	accessUser    = "CN=Controlled," + accessOU
	accessGroup   = "CN=Controlled Group," + accessOU
	accessParent  = "OU=Parent," + accessOU
	accessChild   = "CN=Child," + accessParent
	adminSDHolder = "CN=AdminSDHolder,CN=System," + baseDN

	// ownerAndDACL is the SD-flags control (MS-ADTS 3.1.1.3.4.1.11) with the flags of the owner and
	// the DACL. Without it, a plain user cannot read the descriptor, because it includes the SACL.
	ownerAndDACL = "1.2.840.113556.1.4.801=::MAMCAQU="

	// someObjects finds all objects but most of the users and groups of the fixture.
	someObjects = "(|(!(sAMAccountName=acct*))(sAMAccountName=acct00*)(sAMAccountName=acct04*))"
)

// descriptors returns the descriptors of objects as the connector's account reads them.
func (d *controller) descriptors(t *testing.T) []record {
	t.Helper()
	out, err := runTool("", "ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-E", "pr=1000/noprompt", "-E", ownerAndDACL,
		"-H", d.url, "-D", d.service.dn, "-y", d.service.file, "-b", baseDN, someObjects, "nTSecurityDescriptor", "objectClass")
	if err != nil {
		t.Fatal(err)
	}
	records, err := parseLDIF(out)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(records, func(r record) bool { return r.values.First("nTSecurityDescriptor") == "" })
}

// readTexts prints the DNs and descriptors of objects in SDDL, as samba-tool dsacl get does. It
// reads the database and not the server.
const readTexts = `
import json, sys
from samba.auth import system_session
from samba.dcerpc import security
from samba.ndr import ndr_unpack
from samba.param import LoadParm
from samba.samdb import SamDB
lp = LoadParm()
lp.load(sys.argv[2])
db = SamDB(sys.argv[1], session_info=system_session(), lp=lp)
domain = security.dom_sid(db.get_domain_sid())
found = db.search(sys.argv[3], expression=sys.argv[4], attrs=["nTSecurityDescriptor"])
print(json.dumps({str(m.dn): ndr_unpack(security.descriptor, m["nTSecurityDescriptor"][0]).as_sddl(domain) for m in found}))
`

func (d *controller) descriptorTexts(t *testing.T) (texts map[string]string) {
	t.Helper()
	options := d.database()
	out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", readTexts, options[1], d.conf(), baseDN, someObjects).Output() // the system's, which has Samba's modules
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out, &texts); err != nil {
		t.Fatal(err)
	}
	return texts
}

// classOf returns the class of an object, by its DN and object classes.
func classOf(r record) access.Class {
	is := func(class string) bool { return slices.Contains(r.values["objectclass"], class) }
	switch {
	case r.dn == adminSDHolder:
		return access.AdminSDHolder
	case is("domainDNS"):
		return access.Domain
	case is("group"):
		return access.Group
	case is("computer"):
		return access.ServiceAccount
	case is("user"):
		return access.User
	}
	return access.Container
}

// binarySID returns the SID with a text form.
func (d *controller) binarySID(t *testing.T, dn string) ad.SID {
	t.Helper()
	sid, ok := ad.ParseSID([]byte(d.ldapsearch(t, dn, "base", "(objectClass=*)", "objectSid")[0].values.First("objectSid")))
	if !ok {
		t.Fatalf("%s has no SID", dn)
	}
	return sid
}

// describeHolders formats the lists that are not empty.
func describeHolders(h access.Holders) string {
	lists := map[string][]string{}
	for right, sids := range h.All() {
		for _, sid := range sids {
			lists[right.String()] = append(lists[right.String()], sid.String())
		}
	}
	return describeLists(lists)
}

func describeLists(lists map[string][]string) (text string) {
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		slices.Sort(lists[name])
		text += fmt.Sprintf("%s: %s\n", name, strings.Join(lists[name], " "))
	}
	return text
}

// addAccessOU adds a user, a group and an organizational unit, until the test ends.
func (d *controller) addAccessOU(t *testing.T) {
	t.Helper()
	var l ldif
	l.create(accessOU, "objectClass", "organizationalUnit")
	l.create(accessUnit, "objectClass", "organizationalUnit")
	l.create(accessParent, "objectClass", "organizationalUnit")
	l.create(accessUser, "objectClass", "user", "sAMAccountName", "controlled")
	l.create(accessChild, "objectClass", "user", "sAMAccountName", "child")
	l.create(accessGroup, "objectClass", "group", "sAMAccountName", "controlledGroup")
	for _, name := range []string{"alice", "bob"} {
		l.create("CN="+name+","+accessOU, "objectClass", "user", "sAMAccountName", "access."+name, "userAccountControl", strconv.Itoa(uacNormal),
			"unicodePwd", unicodePwd(d.service.password))
	}
	d.ldapmodify(t, l.String())
	t.Cleanup(func() {
		if _, err := d.runChange("", "ldapdelete", "-x", "-r", "-H", d.url, "-D", d.admin.dn, "-y", d.admin.file, accessOU); err != nil {
			t.Error(err)
		}
	})
}

// TestAccess compares who controls the objects of the domain, as the connector evaluates the
// descriptors that a plain user reads, with a second evaluation of Samba's text of them.
func TestAccess(t *testing.T) {
	d := sharedController(t)
	d.addAccessOU(t)
	domain := d.binarySID(t, baseDN)
	alice, bob := d.sid(t, "CN=alice,"+accessOU), d.sid(t, "CN=bob,"+accessOU)
	d.compareAccess(t, domain) // of a default domain

	const reset, member, allowedToAct, users = "00299570-246d-11d0-a768-00aa006e0529", "bf9679c0-0de6-11d0-a285-00aa003049e2", "3f78c3e5-f79a-46bd-a0b8-9d18116ddc79", "bf967aba-0de6-11d0-a285-00aa003049e2"
	provoked := []struct{ name, dn, entries, want string }{
		{"replication", baseDN, "(OA;;CR;1131f6aa-9c07-11d1-f79f-00c04fc2dcd2;;ALICE)(OA;;CR;1131f6ad-9c07-11d1-f79f-00c04fc2dcd2;;ALICE)", "replicationRights: ALICE"},
		{"AdminSDHolder", adminSDHolder, "(OA;;CR;" + reset + ";;ALICE)(OA;;WP;" + member + ";;BOB)", "resetPassword: ALICE, writeMembers: BOB"},
		// Each entry is added before the others.
		{"user", accessUser, "(OA;;CR;" + reset + ";;ALICE)(OA;;WP;" + allowedToAct + ";;BOB)(A;;WP;;;ALICE)(OD;;WP;" + allowedToAct + ";;ALICE)",
			"resetPassword: ALICE, writeAllowedToAct: BOB, writeKeyCredential: ALICE"},
		{"group", accessGroup, "(OA;;SW;" + member + ";;ALICE)", "writeMembers: ALICE"},
		{"container", accessUnit, "(OA;;CC;" + users + ";;ALICE)(A;;GA;;;BOB)(D;;SDDT;;;WD)", "createChild: ALICE BOB, fullControl: BOB, writeDacl: BOB, writeOwner: BOB"},
		{"parent", accessParent, "(OA;CIIO;GA;;" + users + ";ALICE)", ""},
		{"child", accessChild, "", "fullControl: ALICE, resetPassword: ALICE, writeAllowedToAct: ALICE, writeDacl: ALICE, writeKeyCredential: ALICE, writeOwner: ALICE"},
	}
	sids, names := strings.NewReplacer("ALICE", alice, "BOB", bob), strings.NewReplacer(alice, "ALICE", bob, "BOB")
	for _, p := range provoked {
		if !strings.HasSuffix(p.dn, accessOU) {
			d.keepDescriptor(t, p.dn)
		}
		if p.entries == "" {
			continue
		}
		if out, err := d.sambaTool("dsacl", "set", "--objectdn="+p.dn, "--sddl="+sids.Replace(p.entries)); err != nil {
			t.Fatal(out, err)
		}
	}
	found := d.compareAccess(t, domain)
	for _, p := range provoked {
		var lists []string
		for line := range strings.Lines(found[p.dn]) {
			name, holders, _ := strings.Cut(line, ": ")
			if list := slices.DeleteFunc(strings.Fields(holders), func(sid string) bool { return sid != alice && sid != bob }); len(list) > 0 {
				lists = append(lists, name+": "+names.Replace(strings.Join(list, " ")))
			}
		}
		if got := strings.Join(lists, ", "); got != p.want {
			t.Errorf("%s: got %s, want %s", p.name, got, p.want)
		}
		text := d.descriptorText(t, p.dn) // of samba-tool itself
		parsed, err := sddl.Parse(text, domain.String())
		if err != nil {
			t.Fatal(err)
		}
		if want := describeLists(parsed.Holders(classNames[classOf(d.entry(t, p.dn))], domain.String())); found[p.dn] != want {
			t.Errorf("%s: %s\ngot\n%swant\n%s", p.name, text, found[p.dn], want)
		}
	}
}

// entry returns an object and its classes.
func (d *controller) entry(t *testing.T, dn string) record {
	t.Helper()
	return d.ldapsearch(t, dn, "base", "(objectClass=*)", "objectClass")[0]
}

// compareAccess compares the evaluations of all objects, and returns them by DN.
func (d *controller) compareAccess(t *testing.T, domain ad.SID) map[string]string {
	t.Helper()
	records, texts, found := d.descriptors(t), d.descriptorTexts(t), map[string]string{}
	for _, r := range records {
		var descriptor ad.Descriptor
		if !descriptor.Parse([]byte(r.values.First("nTSecurityDescriptor"))) {
			t.Fatalf("%s: malformed descriptor", r.dn)
		}
		parsed, err := sddl.Parse(texts[r.dn], domain.String())
		if err != nil {
			t.Fatalf("%s: %v", r.dn, err)
		}
		class := classOf(r)
		found[r.dn] = describeHolders(access.Evaluate(&descriptor, class, access.Domains{Own: domain}))
		if want := describeLists(parsed.Holders(classNames[class], domain.String())); found[r.dn] != want {
			t.Errorf("%s: %s\ngot\n%swant\n%s", r.dn, texts[r.dn], found[r.dn], want)
		}
	}
	t.Logf("%d descriptors read of %d", len(found), len(texts))
	if len(found) < 300 {
		t.Errorf("%d descriptors read of %d", len(found), len(texts))
	}
	return found
}

// TestAccessLive checks that a principal is in the lists of a group exactly if the server lets it
// change the group. Each group has one descriptor, and alice adds herself or replaces the
// descriptor. There are no entries for OWNER RIGHTS: Samba 4.17 evaluates them for files only.
func TestAccessLive(t *testing.T) {
	d := sharedController(t)
	d.addAccessOU(t)
	domain := d.binarySID(t, baseDN)
	aliceDN := "CN=alice," + accessOU
	alice := d.sid(t, aliceDN)
	const (
		member, membership = "bf9679c0-0de6-11d0-a285-00aa003049e2", "bc0ac240-79a9-11d0-9020-00c04fc2d4cf"
		users, groups      = "bf967aba-0de6-11d0-a285-00aa003049e2", "bf967a9c-0de6-11d0-a285-00aa003049e2"
		description        = "bf967950-0de6-11d0-a285-00aa003049e2"
	)
	for n, test := range []struct {
		name    string
		owner   string
		entries string
		right   access.Right
		holds   bool
	}{
		{"no entry", "DA", "", access.WriteMembers, false},
		{"property", "DA", "(OA;;WP;" + member + ";;ALICE)", access.WriteMembers, true},
		{"property set", "DA", "(OA;;WP;" + membership + ";;ALICE)", access.WriteMembers, true},
		{"another property", "DA", "(OA;;WP;" + description + ";;ALICE)", access.WriteMembers, false},
		{"all properties", "DA", "(A;;WP;;;ALICE)", access.WriteMembers, true},
		{"generic write", "DA", "(A;;GW;;;ALICE)", access.WriteMembers, true},
		{"add oneself", "DA", "(OA;;SW;" + member + ";;ALICE)", access.WriteMembers, true},
		{"property set denied", "DA", "(OD;;WP;" + membership + ";;ALICE)(OA;;WP;" + member + ";;ALICE)", access.WriteMembers, false},
		{"denied last", "DA", "(OA;;WP;" + member + ";;ALICE)(OD;;WP;" + membership + ";;ALICE)", access.WriteMembers, true},
		{"denied to all users", "DA", "(D;;WPSW;;;AU)(A;;WPSW;;;ALICE)", access.WriteMembers, false},
		{"denied to another", "DA", "(D;;WPSW;;;AO)(A;;WPSW;;;ALICE)", access.WriteMembers, true},
		{"inherit-only", "DA", "(A;CIIO;WPSW;;;ALICE)", access.WriteMembers, false},
		{"inherited type of another class", "DA", "(OA;CI;WP;;" + users + ";ALICE)", access.WriteMembers, true},
		{"class of the object", "DA", "(OA;;WP;" + groups + ";;ALICE)", access.WriteMembers, true},
		{"owner", "ALICE", "", access.WriteMembers, false},
		{"write the list", "DA", "(A;;WD;;;ALICE)", access.WriteDACL, true},
		{"list of the owner", "ALICE", "(D;;WD;;;ALICE)", access.WriteDACL, true},
		{"list with the inherited type of another class", "DA", "(OA;CI;WD;;" + users + ";ALICE)", access.WriteDACL, true},
		{"list denied to all", "DA", "(D;;WD;;;WD)(A;;GA;;;ALICE)", access.WriteDACL, false},
	} {
		dn := fmt.Sprintf("CN=Live %d,%s", n, accessOU)
		text := strings.ReplaceAll("O:"+test.owner+"G:DAD:P"+test.entries+"(A;;RPLCLORC;;;AU)(A;;GA;;;SY)", "ALICE", alice)
		var l ldif
		l.add(dn, "objectClass", "group", "sAMAccountName", fmt.Sprintf("live%d", n), "nTSecurityDescriptor", text)
		if err := d.ldb("ldbadd", l.String()); err != nil {
			t.Fatal(err)
		}
		parsed, err := sddl.Parse(text, domain.String())
		if err != nil {
			t.Fatal(err)
		}
		var descriptor ad.Descriptor
		descriptor.Parse(parsed.Binary())
		holders := access.Evaluate(&descriptor, access.Group, access.Domains{Own: domain})
		listed := slices.ContainsFunc(holders[test.right], func(sid ad.SID) bool { return sid.String() == alice })
		if allowed := d.tries(t, aliceDN, dn, test.right); listed != test.holds || allowed != test.holds {
			t.Errorf("%s: listed %v, allowed by the server %v, want %v", test.name, listed, allowed, test.holds)
		}
	}
}

// tries uses a right over a group, and returns whether the server allows it. WriteMembers adds the
// principal itself; WriteDACL replaces the list.
func (d *controller) tries(t *testing.T, principal, group string, right access.Right) bool {
	t.Helper()
	const modify, onlyDACL = "changetype: modify\n", "control: 1.2.840.113556.1.4.801 true:: MAMCAQQ=\n"
	change := "dn: " + group + "\n"
	switch right {
	case access.WriteMembers:
		change += modify + "add: member\nmember: " + principal + "\n"
	case access.WriteDACL:
		descriptor, err := sddl.Parse("D:P(A;;GA;;;AU)", "")
		if err != nil {
			t.Fatal(err)
		}
		change += onlyDACL + modify + "replace: nTSecurityDescriptor\nnTSecurityDescriptor:: " + base64.StdEncoding.EncodeToString(descriptor.Binary()) + "\n"
	}
	_, err := d.runChange(change, "ldapmodify", "-x", "-H", d.url, "-D", principal, "-y", d.service.file)
	if err != nil && !strings.Contains(err.Error(), "Insufficient access") {
		t.Fatal(err)
	}
	return err == nil
}

// TestAccessSchema checks the GUIDs of classes, attributes, property sets and extended rights
// against the schema and the extended rights of the domain: an entry with the GUID grants the
// right. Samba's schema does not have msDS-KeyCredentialLink and the class
// msDS-DelegatedManagedServiceAccount.
func TestAccessSchema(t *testing.T) {
	d := sharedController(t)
	domain := d.binarySID(t, baseDN)
	const configuration = "CN=Configuration," + baseDN
	guid := func(base, filter, attribute string) string {
		t.Helper()
		records := d.ldapsearch(t, base+","+configuration, "sub", filter, attribute)
		if len(records) != 1 || records[0].values.First(attribute) == "" {
			t.Fatalf("%s of %s: %v", attribute, filter, records)
		}
		value := records[0].values.First(attribute)
		if attribute == "rightsGuid" { // a text
			return value
		}
		return oracle.GUID(value)
	}
	schema := func(name, attribute string) string { return guid("CN=Schema", "(lDAPDisplayName="+name+")", attribute) }
	extended := func(name string) string { return guid("CN=Extended-Rights", "(cn="+name+")", "rightsGuid") }
	changes := "(OA;;CR;" + extended("DS-Replication-Get-Changes") + ";;AO)"
	for _, test := range []struct {
		class   access.Class
		right   access.Right
		entries string
	}{
		{access.Domain, access.ReplicationRights, changes + "(OA;;CR;" + extended("DS-Replication-Get-Changes-All") + ";;AO)"},
		{access.Domain, access.ReplicationRights, changes + "(OA;;CR;" + extended("DS-Replication-Get-Changes-In-Filtered-Set") + ";;AO)"},
		{access.User, access.ResetPassword, "(OA;;CR;" + extended("User-Force-Change-Password") + ";;AO)"},
		{access.Group, access.WriteMembers, "(OA;;WP;" + schema("member", "schemaIDGUID") + ";;AO)"},
		{access.Group, access.WriteMembers, "(OA;;WP;" + schema("member", "attributeSecurityGUID") + ";;AO)"},
		{access.Group, access.WriteMembers, "(OA;;SW;" + extended("Self-Membership") + ";;AO)"},
		{access.User, access.WriteAllowedToAct, "(OA;;WP;" + schema("msDS-AllowedToActOnBehalfOfOtherIdentity", "schemaIDGUID") + ";;AO)"},
		{access.User, access.WriteAllowedToAct, "(OA;;WP;" + schema("msDS-AllowedToActOnBehalfOfOtherIdentity", "attributeSecurityGUID") + ";;AO)"},
		{access.Container, access.CreateChild, "(OA;;CC;" + schema("user", "schemaIDGUID") + ";;AO)"},
		{access.Container, access.CreateChild, "(OA;;CC;" + schema("inetOrgPerson", "schemaIDGUID") + ";;AO)"},
		{access.Container, access.CreateChild, "(OA;;CC;" + schema("computer", "schemaIDGUID") + ";;AO)"},
		{access.Container, access.CreateChild, "(OA;;CC;" + schema("msDS-ManagedServiceAccount", "schemaIDGUID") + ";;AO)"},
		{access.Container, access.CreateChild, "(OA;;CC;" + schema("msDS-GroupManagedServiceAccount", "schemaIDGUID") + ";;AO)"},
		// Classes of the object itself.
		{access.User, access.WriteDACL, "(OA;;WD;" + schema("user", "schemaIDGUID") + ";;AO)"},
		{access.User, access.WriteDACL, "(OA;;WD;" + schema("inetOrgPerson", "schemaIDGUID") + ";;AO)"},
		{access.Group, access.WriteDACL, "(OA;;WD;" + schema("group", "schemaIDGUID") + ";;AO)"},
		{access.Container, access.WriteDACL, "(OA;;WD;" + schema("organizationalUnit", "schemaIDGUID") + ";;AO)"},
		{access.Container, access.WriteDACL, "(OA;;WD;" + schema("container", "schemaIDGUID") + ";;AO)"},
		{access.Domain, access.WriteDACL, "(OA;;WD;" + schema("domainDNS", "schemaIDGUID") + ";;AO)"},
	} {
		parsed, err := sddl.Parse("D:"+test.entries, domain.String())
		if err != nil {
			t.Fatal(err)
		}
		var descriptor ad.Descriptor
		descriptor.Parse(parsed.Binary())
		if got := describeHolders(access.Evaluate(&descriptor, test.class, access.Domains{Own: domain})); got != test.right.String()+": S-1-5-32-548\n" {
			t.Errorf("%s: got\n%swant %s", test.entries, got, test.right)
		}
	}
}
