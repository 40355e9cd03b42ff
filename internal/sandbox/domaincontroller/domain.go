package domaincontroller

import (
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// domainAge is how long ago the domain was made.
const domainAge = 9 * 365 * 24 * time.Hour

// policy of a fresh domain, in file time; its threshold is ours, to lock out whoever
// binds with a wrong password again and again.
const (
	maxPwdAge        = "-36288000000000" // 42 days
	minPwdAge        = "-864000000000"   // 1 day
	lockoutDuration  = "-18000000000"    // 30 minutes
	lockoutThreshold = "10"
)

// wellKnown is an object that every domain has.
type wellKnown struct {
	name        string
	rid         uint32
	kind        string // groupType, or userAccountControl
	description string
}

var builtinGroups = []wellKnown{
	{"Administrators", 544, "-2147483643", "Administrators have complete and unrestricted access to the computer/domain"},
	{"Users", 545, "-2147483643", "Users are prevented from making accidental or intentional system-wide changes and can run most applications"},
	{"Guests", 546, "-2147483643", "Guests have the same access as members of the Users group by default, except for the Guest account which is further restricted"},
	{"Account Operators", 548, "-2147483643", "Members can administer domain user and group accounts"},
	{"Server Operators", 549, "-2147483643", "Members can administer domain servers"},
	{"Print Operators", 550, "-2147483643", "Members can administer printers installed on domain controllers"},
	{"Backup Operators", 551, "-2147483643", "Backup Operators can override security restrictions for the sole purpose of backing up or restoring files"},
	{"Remote Desktop Users", 555, "-2147483643", "Members in this group are granted the right to logon remotely"},
	{"Event Log Readers", 573, "-2147483643", "Members of this group can read event logs from local machine"},
}

var domainGroups = []wellKnown{
	{"Domain Admins", 512, "-2147483646", "Designated administrators of the domain"},
	{"Domain Users", 513, "-2147483646", "All domain users"},
	{"Domain Guests", 514, "-2147483646", "All domain guests"},
	{"Domain Computers", 515, "-2147483646", "All workstations and servers joined to the domain"},
	{"Domain Controllers", 516, "-2147483646", "All domain controllers in the domain"},
	{"Cert Publishers", 517, "-2147483644", "Members of this group are permitted to publish certificates to the directory"},
	{"Schema Admins", 518, "-2147483640", "Designated administrators of the schema"},
	{"Enterprise Admins", 519, "-2147483640", "Designated administrators of the enterprise"},
	{"Group Policy Creator Owners", 520, "-2147483646", "Members in this group can modify group policy for the domain"},
	{"Protected Users", 525, "-2147483646", "Members of this group are afforded additional protections against authentication security threats"},
	{"DnsAdmins", 1101, "-2147483644", "DNS Administrators Group"},
	{"DnsUpdateProxy", 1102, "-2147483646", "DNS clients who are permitted to perform dynamic updates on behalf of some other clients"},
}

var domainUsers = []wellKnown{
	{"Administrator", 500, "66048", "Built-in account for administering the computer/domain"},
	{"Guest", 501, "66082", "Built-in account for guest access to the computer/domain"},
	{"krbtgt", 502, "514", "Key Distribution Center Service Account"},
}

// found makes what a domain has on its first day.
func (d *Server) found() {
	dn, err := ldap.ParseDN(domainDN)
	if err != nil {
		panic(err) // it is a constant
	}
	born := d.options.Now().Add(-domainAge)
	d.root = &object{class: classes["domaindns"], partition: true, sid: d.domainSID, created: born.Unix(), guid: d.newGUID()}
	for _, part := range dn.RDNs {
		d.root.suffix = append(d.root.suffix, rdnOf(part))
	}
	d.root.rdn = d.root.suffix[0]
	d.root.attributes = record("").with(attributeMaxPwdAge, maxPwdAge).with(attributeLockoutDuration, lockoutDuration).
		with(attributeLockoutThreshold, lockoutThreshold).with(attributeLockoutObservationWindow, lockoutDuration).
		with(attributeMinPwdLength, "7").with(attributePwdHistoryLength, "24").with(attributePwdProperties, "1").with(attributeMinPwdAge, minPwdAge).
		with(attributeMachineAccountQuota, "10").with(attributeBehaviorVersion, "7")
	d.objects = append(d.objects, d.root)
	d.byGUID[d.root.guid] = d.root
	d.raise(d.root)
	d.root.changed, d.root.usnCreated = d.root.created, d.root.usnChanged

	put := func(parent *object, kind, name string) *object {
		o := &object{class: classes[strings.ToLower(kind)], parent: parent}
		o.rdn = rdn{o.class.naming, name}
		d.insert(o, born)
		return o
	}
	d.deleted = put(d.root, "container", "Deleted Objects")
	d.deleted.deleted = true
	for _, name := range []string{"Computers", "ForeignSecurityPrincipals", "Managed Service Accounts"} {
		put(d.root, "container", name)
	}
	d.policies = put(put(d.root, "container", "System"), "msDS-PasswordSettingsContainer", "Password Settings Container")
	controllers := put(d.root, "organizationalUnit", "Domain Controllers")
	builtin := put(d.root, "builtinDomain", "Builtin")
	users := put(d.root, "container", "Users")

	known := func(parent *object, kind string, w wellKnown, sid string) *object {
		o := &object{class: classes[kind], parent: parent, sid: sid, rdn: rdn{"CN", w.name}}
		fillIn(o)
		set := func(id attributeID, value string) { o.attributes = o.attributes.with(id, value) }
		set(attributeSAMAccountName, w.name)
		set(attributeDescription, w.description)
		set(attributeSystemFlags, "-1946157056") // may not be deleted, renamed or moved by administrators
		if kind == "group" {
			n, _ := strconv.ParseInt(w.kind, 10, 64)
			set(attributeGroupType, w.kind)
			set(attributeSAMAccountType, samAccountTypeOf(n))
		} else {
			set(attributeUserAccountControl, w.kind)
			set(attributePwdLastSet, fileTimeOf(born))
		}
		d.insert(o, born)
		return o
	}
	for _, w := range builtinGroups {
		known(builtin, "group", w, sidOf(32, w.rid))
	}
	for _, w := range domainUsers {
		known(users, "user", w, d.account(w.rid))
	}
	for _, w := range domainGroups {
		known(users, "group", w, d.account(w.rid))
	}
	child := func(parent *object, name string) *object { return parent.children[rdn{"CN", name}.key()] }
	setMembers(child(users, "Domain Admins"), []*object{child(users, "Administrator")})
	setMembers(child(builtin, "Administrators"), []*object{child(users, "Administrator"), child(users, "Domain Admins")})
	setMembers(child(builtin, "Users"), []*object{child(users, "Domain Users")})

	controller := known(controllers, "computer", wellKnown{name: "DC1", kind: "532480", description: "Domain controller"}, d.account(1000))
	controller.attributes = controller.attributes.with(attributeDNSHostName, hostName).with(attributeSAMAccountName, "DC1$").
		with(attributeOperatingSystem, "Windows Server 2022 Standard").with(attributePrimaryGroupID, "516").
		with(attributeOperatingSystemVersion, "10.0 (20348)")

	configuration := put(d.root, "configuration", "Configuration")
	configuration.partition = true
	site := put(put(configuration, "sitesContainer", "Sites"), "site", "Default-First-Site-Name")
	server := put(put(site, "serversContainer", "Servers"), "server", "DC1")
	server.attributes = record("").with(attributeDNSHostName, hostName)
	d.settings = put(server, "nTDSDSA", "NTDS Settings")
	d.settings.attributes = record("").with(attributeOptions, "1") // holds the global catalog
	services := put(put(configuration, "container", "Services"), "container", "Windows NT")
	features := put(put(services, "container", "Directory Service"), "container", "Optional Features")
	recycleBin := put(features, "msDS-OptionalFeature", "Recycle Bin Feature")
	recycleBin.attributes = record("").with(attributeOptionalFeatureGUID, // the same everywhere (MS-ADTS 3.1.1.9.1)
		"\xd8\xdc\x6d\x76\xd0\xac\x5e\x44\xf3\xb9\xa7\xf9\xb6\x74\x4f\x2a")
}
