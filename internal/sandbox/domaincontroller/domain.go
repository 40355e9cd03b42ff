package domaincontroller

import (
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
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

// createDomain creates the objects of a new domain.
func (d *Server) createDomain() {
	created := d.options.Now().Add(-domainAge)
	d.defaultDescriptor = d.newDefaultDescriptor()
	d.createRoot(created)

	d.deleted = d.create(d.root, "container", "Deleted Objects", created)
	d.deleted.deleted = true
	for _, name := range []string{"Computers", "Managed Service Accounts"} {
		d.create(d.root, "container", name, created)
	}
	foreign := d.create(d.root, "container", "ForeignSecurityPrincipals", created)
	system := d.create(d.root, "container", "System", created)
	d.create(system, "container", "AdminSDHolder", created)
	d.policies = d.create(system, "msDS-PasswordSettingsContainer", "Password Settings Container", created)
	controllers := d.create(d.root, "organizationalUnit", "Domain Controllers", created)
	builtin := d.create(d.root, "builtinDomain", "Builtin", created)
	users := d.create(d.root, "container", "Users", created)

	wellKnown := loadSchema()
	for _, w := range wellKnown.BuiltinGroups {
		d.createWellKnown(builtin, "group", w, newSID(32, w.RID), created)
	}
	for _, w := range wellKnown.DomainUsers {
		d.createWellKnown(users, "user", w, d.accountSID(w.RID), created)
	}
	for _, w := range wellKnown.DomainGroups {
		d.createWellKnown(users, "group", w, d.accountSID(w.RID), created)
	}
	child := func(parent *object, name string) *object { return parent.children[rdn{"CN", name}.key()] }
	setMembers(child(users, "Domain Admins"), []*object{child(users, "Administrator")})
	setMembers(child(builtin, "Administrators"), []*object{child(users, "Administrator"), child(users, "Domain Admins")})
	setMembers(child(builtin, "Users"), []*object{child(users, "Domain Users")})
	setMembers(child(builtin, "Pre-Windows 2000 Compatible Access"), []*object{d.createForeign(foreign, newSID(11), created)})

	d.createConfiguration(created)
	d.identity = d.newIdentity()
	d.settings = d.createController(controllers, d.identity, created)
	d.root.set("fSMORoleOwner", "CN=NTDS Settings,CN="+strings.ToUpper(defaultName)+","+d.servers.dn())
}

// createRoot creates the object of the domain with its password policy.
func (d *Server) createRoot(created time.Time) {
	dn, err := ldap.ParseDN(domainDN)
	if err != nil {
		panic(err) // it is a constant
	}
	d.root = &object{class: classByName("domainDNS"), partition: true, sid: d.domainSID, created: created.Unix(), guid: newGUID(d.random)}
	for _, part := range dn.RDNs {
		d.suffix = append(d.suffix, newRDN(part))
	}
	d.root.rdn = d.suffix[0]
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
	d.servers = create(configuration, "sitesContainer", "Sites", "site", "Default-First-Site-Name", "serversContainer", "Servers")
	reference := create(configuration, "crossRefContainer", "Partitions", "crossRef", netBIOSName)
	reference.set("nCName", d.root.dn())
	reference.set("dnsRoot", domainName)
	reference.set("nETBIOSName", netBIOSName)
	schema := create(configuration, "dMD", "Schema")
	schema.partition = true
	for _, a := range loadSchema().Attributes {
		create(schema, "attributeSchema", a.Name).set("lDAPDisplayName", a.Name)
	}
	d.configured = create(configuration, "container", "Services", "container", "Windows NT", "container", "Directory Service")
	d.configured.set("sPNMappings", "host=alerter,appmgmt,cisvc")
	recycleBin := create(d.configured, "container", "Optional Features", "msDS-OptionalFeature", "Recycle Bin Feature")
	recycleBin.set("msDS-OptionalFeatureGUID", // a constant (MS-ADTS 3.1.1.9.1)
		"\xd8\xdc\x6d\x76\xd0\xac\x5e\x44\xf3\xb9\xa7\xf9\xb6\x74\x4f\x2a")
}

// create creates an object without attributes of its own.
func (d *Server) create(parent *object, className, name string, created time.Time) *object {
	return d.createWithGUID(parent, className, name, ad.GUID{}, created)
}

// createForeign creates the object of a principal from elsewhere, such as Authenticated Users.
func (d *Server) createForeign(parent *object, sid string, created time.Time) *object {
	o := &object{class: classByName("foreignSecurityPrincipal"), parent: parent, sid: sid, rdn: rdn{"CN", ad.SID(sid).String()}}
	d.insert(o, created)
	return o
}

// createWithGUID is create with a GUID. The zero GUID stands for a new one.
func (d *Server) createWithGUID(parent *object, className, name string, guid ad.GUID, created time.Time) *object {
	o := &object{class: classByName(className), parent: parent, guid: guid}
	o.rdn = rdn{o.class.RDNAttribute, name}
	d.insert(o, created)
	return o
}

// protectedRIDs has the RIDs of the well-known accounts and groups that are protected, so that
// they have adminCount (MS-ADTS 3.1.1.6.1.2).
var protectedRIDs = map[uint32]bool{
	500: true, 502: true, // Administrator, krbtgt
	512: true, 516: true, 518: true, 519: true, 521: true, // Domain, Schema and Enterprise Admins, domain controllers
	544: true, 548: true, 549: true, 550: true, 551: true, 552: true, // Administrators, the operators, Replicator
}

func (d *Server) createWellKnown(parent *object, className string, w wellKnownObject, sid string, created time.Time) *object {
	o := &object{class: classByName(className), parent: parent, sid: sid, guid: w.guid, rdn: rdn{"CN", w.Name}}
	setDefaults(o)
	o.set("description", w.Description)
	o.set("systemFlags", "-1946157056") // administrators cannot delete, rename or move it
	if className == "group" {
		o.set("groupType", w.Kind)
		o.set("sAMAccountType", samAccountTypeOf(o.attributes.integer("groupType")))
	} else {
		o.set("userAccountControl", w.Kind)
		o.set("pwdLastSet", formatFileTime(created))
	}
	if protectedRIDs[w.RID] {
		o.set("adminCount", "1")
	}
	d.insert(o, created)
	return o
}
