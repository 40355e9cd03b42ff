package domaincontroller

import (
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"
)

const domainAge = 9 * 365 * 24 * time.Hour

// Default password policy of a new domain, in file time. The lockout threshold is our own,
// so that wrong passwords lock an account.
const (
	maxPwdAge        = "-36288000000000" // 42 days
	minPwdAge        = "-864000000000"   // 1 day
	lockoutDuration  = "-18000000000"    // 30 minutes
	lockoutThreshold = "10"
)

// wellKnownObject is a group or user of every domain.
type wellKnownObject struct {
	name        string
	rid         uint32
	kind        string // groupType, or userAccountControl
	description string
}

var builtinGroups = []wellKnownObject{
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

var domainGroups = []wellKnownObject{
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

var domainUsers = []wellKnownObject{
	{"Administrator", 500, "66048", "Built-in account for administering the computer/domain"},
	{"Guest", 501, "66082", "Built-in account for guest access to the computer/domain"},
	{"krbtgt", 502, "514", "Key Distribution Center Service Account"},
}

// createDomain creates the objects of a new domain.
func (d *Server) createDomain() {
	created := d.options.Now().Add(-domainAge)
	d.createRoot(created)

	d.deleted = d.create(d.root, "container", "Deleted Objects", created)
	d.deleted.deleted = true
	for _, name := range []string{"Computers", "ForeignSecurityPrincipals", "Managed Service Accounts"} {
		d.create(d.root, "container", name, created)
	}
	system := d.create(d.root, "container", "System", created)
	d.policies = d.create(system, "msDS-PasswordSettingsContainer", "Password Settings Container", created)
	controllers := d.create(d.root, "organizationalUnit", "Domain Controllers", created)
	builtin := d.create(d.root, "builtinDomain", "Builtin", created)
	users := d.create(d.root, "container", "Users", created)

	for _, w := range builtinGroups {
		d.createWellKnown(builtin, "group", w, newSID(32, w.rid), created)
	}
	for _, w := range domainUsers {
		d.createWellKnown(users, "user", w, d.accountSID(w.rid), created)
	}
	for _, w := range domainGroups {
		d.createWellKnown(users, "group", w, d.accountSID(w.rid), created)
	}
	child := func(parent *object, name string) *object { return parent.children[rdn{"CN", name}.key()] }
	setMembers(child(users, "Domain Admins"), []*object{child(users, "Administrator")})
	setMembers(child(builtin, "Administrators"), []*object{child(users, "Administrator"), child(users, "Domain Admins")})
	setMembers(child(builtin, "Users"), []*object{child(users, "Domain Users")})

	controller := d.createWellKnown(controllers, "computer", wellKnownObject{name: "DC1", kind: "532480", description: "Domain controller"}, d.accountSID(1000), created)
	controller.set("dNSHostName", hostName)
	controller.set("sAMAccountName", "DC1$")
	controller.set("operatingSystem", "Windows Server 2022 Standard")
	controller.set("operatingSystemVersion", "10.0 (20348)")
	controller.set("primaryGroupID", "516")
	d.createConfiguration(created)
}

// createRoot creates the object of the domain with its password policy.
func (d *Server) createRoot(created time.Time) {
	dn, err := ldap.ParseDN(domainDN)
	if err != nil {
		panic(err) // it is a constant
	}
	d.root = &object{class: classes["domaindns"], partition: true, sid: d.domainSID, created: created.Unix(), guid: d.newGUID()}
	for _, part := range dn.RDNs {
		d.root.suffix = append(d.root.suffix, newRDN(part))
	}
	d.root.rdn = d.root.suffix[0]
	d.root.set("maxPwdAge", maxPwdAge)
	d.root.set("minPwdAge", minPwdAge)
	d.root.set("minPwdLength", "7")
	d.root.set("pwdHistoryLength", "24")
	d.root.set("pwdProperties", "1")
	d.root.set("lockoutDuration", lockoutDuration)
	d.root.set("lockOutObservationWindow", lockoutDuration)
	d.root.set("lockoutThreshold", lockoutThreshold)
	d.root.set("ms-DS-MachineAccountQuota", "10")
	d.root.set("msDS-Behavior-Version", "7")
	d.objects = append(d.objects, d.root)
	d.byGUID[d.root.guid] = d.root
	d.recordChange(d.root)
	d.root.changed, d.root.usnCreated = d.root.created, d.root.usnChanged
}

// createConfiguration creates the configuration naming context.
func (d *Server) createConfiguration(created time.Time) {
	// create creates nested objects: classes and names in turn.
	create := func(parent *object, path ...string) *object {
		for i := 0; i < len(path); i += 2 {
			parent = d.create(parent, path[i], path[i+1], created)
		}
		return parent
	}
	configuration := create(d.root, "configuration", "Configuration")
	configuration.partition = true
	server := create(configuration, "sitesContainer", "Sites", "site", "Default-First-Site-Name", "serversContainer", "Servers", "server", "DC1")
	server.set("dNSHostName", hostName)
	d.settings = create(server, "nTDSDSA", "NTDS Settings")
	d.settings.set("options", "1") // global catalog
	recycleBin := create(configuration, "container", "Services", "container", "Windows NT", "container", "Directory Service",
		"container", "Optional Features", "msDS-OptionalFeature", "Recycle Bin Feature")
	recycleBin.set("msDS-OptionalFeatureGUID", // a constant (MS-ADTS 3.1.1.9.1)
		"\xd8\xdc\x6d\x76\xd0\xac\x5e\x44\xf3\xb9\xa7\xf9\xb6\x74\x4f\x2a")
}

// create creates an object without attributes of its own.
func (d *Server) create(parent *object, className, name string, created time.Time) *object {
	o := &object{class: classes[strings.ToLower(className)], parent: parent}
	o.rdn = rdn{o.class.rdnAttribute, name}
	d.insert(o, created)
	return o
}

func (d *Server) createWellKnown(parent *object, className string, w wellKnownObject, sid string, created time.Time) *object {
	o := &object{class: classes[className], parent: parent, sid: sid, rdn: rdn{"CN", w.name}}
	setDefaults(o)
	o.set("description", w.description)
	o.set("systemFlags", "-1946157056") // administrators cannot delete, rename or move it
	if className == "group" {
		o.set("groupType", w.kind)
		o.set("sAMAccountType", samAccountTypeOf(o.attributes.integer("groupType")))
	} else {
		o.set("userAccountControl", w.kind)
		o.set("pwdLastSet", formatFileTime(created))
	}
	d.insert(o, created)
	return o
}
