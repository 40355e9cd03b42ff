package domaincontroller

import (
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
)

// Numbers of objects of a domain that gets a showcase. Smaller domains stay simple for tests. In larger
// ones, the policy would be computed for each user that is read.
const (
	minShowcaseUsers  = 100
	maxShowcaseUsers  = 5_000
	minShowcaseGroups = 10

	showcaseGroupCount = 3 // of the groups of the options
)

func (o Options) hasShowcase() bool {
	return o.Users >= minShowcaseUsers && o.Users <= maxShowcaseUsers && o.Groups >= minShowcaseGroups
}

// showcase gives the domain privileged accounts, nested groups, a policy, trusts and permissions that
// security posture shows: the usual mistakes, and one account as it should be. It uses no random numbers,
// so that it does not depend on them.
func (g *generator) showcase() {
	if !g.d.options.hasShowcase() {
		return
	}
	const first = 30 // the users before it cover all states of accounts
	users := g.users[first:]
	groups := g.showcaseGroups(users)
	g.showcaseAccounts(users)
	g.showcasePolicies(groups.admins, users)
	g.showcaseTrusts()
	g.showcasePermissions(groups, users)
}

// showcaseGroups are the groups of a showcase.
type showcaseGroups struct{ admins, servers, helpdesk *object }

func (g *generator) showcaseGroups(users []*object) showcaseGroups {
	parent := g.unit(g.d.root, "Groups")
	add := func(name, description string, members ...*object) *object {
		b := record{"groupType": groupTypes[0], "sAMAccountName": name, "description": description, "sAMAccountType": samGroup}
		o := g.addPrincipal("group", parent, name, b, g.now.Add(-domainAge/2))
		setMembers(o, members)
		return o
	}
	onCall := add("Operations on call", "Administers servers out of hours", users[0], users[1])
	servers := add("Server administrators", "Administers servers", onCall, users[2])
	helpdesk := add("Helpdesk", "Resets passwords", users[6], users[7])
	servers.set("managedBy", users[2].dn())
	join := func(group *object, members ...*object) {
		setMembers(group, slices.Concat(group.members, members))
	}
	admins := g.wellKnown("Users", "Domain Admins")
	join(admins, servers, users[5])
	join(g.wellKnown("Builtin", "Account Operators"), users[3])
	join(g.wellKnown("Builtin", "Server Operators"), servers)
	join(g.wellKnown("Users", "Protected Users"), users[5])
	return showcaseGroups{admins, servers, helpdesk}
}

// wellKnown returns a group of every domain.
func (g *generator) wellKnown(container, name string) *object {
	return g.d.root.children[rdn{"CN", container}.key()].children[rdn{"CN", name}.key()]
}

func (g *generator) showcaseAccounts(users []*object) {
	const (
		normal         = 0x200
		neverExpires   = 0x10000
		notDelegated   = 0x100000
		noPreauth      = 0x400000
		protocolChange = 0x1000000 // TRUSTED_TO_AUTH_FOR_DELEGATION
	)
	set := func(user *object, control int, password, logon time.Duration) {
		user.set("userAccountControl", strconv.Itoa(normal|control))
		user.set("accountExpires", "0")
		user.set("lockoutTime")
		user.set("pwdLastSet", g.ago(password))
		user.set("lastLogon", g.ago(logon))
		user.set("lastLogonTimestamp", g.ago(logon))
	}
	controller := strings.ToLower(g.d.options.Name) + "." + domainName
	set(users[0], neverExpires, 800*day, 2*day)
	users[0].set("servicePrincipalName", "MSSQLSvc/sql1."+domainName+":1433", "MSSQLSvc/sql1."+domainName)
	users[0].set("msDS-SupportedEncryptionTypes", "4") // RC4
	set(users[1], 0, 20*day, 200*day)
	set(users[2], 0, 10*day, day)
	set(users[3], noPreauth, 5*day, day)
	set(users[4], protocolChange, 30*day, day)
	users[4].set("servicePrincipalName", "HTTP/intranet."+domainName)
	users[4].set("msDS-AllowedToDelegateTo", "cifs/"+controller, "ldap/"+controller)
	set(users[5], notDelegated, 3*day, day)
	users[5].set("msDS-SupportedEncryptionTypes", "24") // AES
	set(users[8], 0, 40*day, day)
	users[8].set("sIDHistory", newSID(21, 9, 9, 9, 1500))
	users[8].set("userWorkstations", "DE-0004,DE-0005")
	for _, user := range []*object{users[0], users[1], users[2], users[3], users[5], users[8]} {
		user.set("adminCount", "1") // users[8] is in no role any more
	}
}

func (g *generator) showcasePolicies(admins *object, users []*object) {
	d := g.d
	add := func(name string, precedence, length, maximumAge int, targets ...string) {
		const tick = int64(time.Second / 100) // 100 ns in file time
		policy := d.create(d.policies, "msDS-PasswordSettings", name, g.now.Add(-domainAge/3))
		age := func(days int) string { return strconv.FormatInt(-int64(days)*int64(day/time.Second)*tick, 10) }
		for attribute, value := range map[string]string{
			"msDS-PasswordSettingsPrecedence": strconv.Itoa(precedence), "msDS-MinimumPasswordLength": strconv.Itoa(length),
			"msDS-PasswordHistoryLength": "24", "msDS-PasswordComplexityEnabled": "TRUE", "msDS-PasswordReversibleEncryptionEnabled": "FALSE",
			"msDS-MinimumPasswordAge": age(1), "msDS-MaximumPasswordAge": age(maximumAge), "msDS-LockoutThreshold": "5",
			"msDS-LockoutDuration": lockoutDuration, "msDS-LockoutObservationWindow": lockoutDuration,
		} {
			policy.set(attribute, value)
		}
		policy.set("msDS-PSOAppliesTo", targets...)
	}
	add("Administrators", 10, 15, 180, admins.dn())
	add("Service accounts", 20, 25, 365, users[0].dn(), users[4].dn())
}

func (g *generator) showcaseTrusts() {
	system := g.d.root.children[rdn{"CN", "System"}.key()]
	add := func(partner, flat, direction, attributes string, sid string) {
		trust := g.d.create(system, "trustedDomain", partner, g.now.Add(-domainAge/2))
		trust.set("trustPartner", partner)
		trust.set("flatName", flat)
		trust.set("trustDirection", direction)
		trust.set("trustType", "2") // Active Directory
		trust.set("trustAttributes", attributes)
		trust.set("securityIdentifier", sid)
	}
	const forestTransitive, quarantined, treatAsExternal = 0x8, 0x4, 0x40
	add("partner.example.net", "PARTNER", "3", strconv.Itoa(forestTransitive|treatAsExternal), newSID(21, 9, 9, 9))
	add("lab.example.org", "LAB", "2", strconv.Itoa(quarantined), newSID(21, 8, 8, 8))
}

// Rights of access entries (MS-ADTS 5.1.3.2) and the objects that limit them.
const (
	rightControl       = 0x100
	rightWriteProperty = 0x20
	rightWriteDACL     = 0x40000
	fullControl        = 0xf01ff

	getChanges    = "1131f6aa-9c07-11d1-f79f-00c04fc2dcd2"
	getChangesAll = "1131f6ad-9c07-11d1-f79f-00c04fc2dcd2"
	resetPassword = "00299570-246d-11d0-a768-00aa006e0529"
	memberGUID    = "bf9679c0-0de6-11d0-a285-00aa003049e2"
)

func (g *generator) showcasePermissions(groups showcaseGroups, users []*object) {
	d := g.d
	grant := func(o *object, entries ...AccessEntry) {
		o.set(ad.AttributeDescriptor, Descriptor(d.accountSID(ridDomainAdmins), append(d.defaultEntries(), entries...)...))
	}
	replicator := users[9].sid
	grant(d.root, AccessEntry{replicator, rightControl, binaryGUID(getChanges)}, AccessEntry{replicator, rightControl, binaryGUID(getChangesAll)})
	system := d.root.children[rdn{"CN", "System"}.key()]
	grant(system.children[rdn{"CN", "AdminSDHolder"}.key()], AccessEntry{users[10].sid, rightWriteDACL, ""})
	grant(groups.admins, AccessEntry{groups.helpdesk.sid, rightWriteProperty, binaryGUID(memberGUID)})
	grant(users[0], AccessEntry{groups.helpdesk.sid, rightControl, binaryGUID(resetPassword)}, AccessEntry{users[4].sid, fullControl, ""})

	readers := Descriptor(d.accountSID(ridDomainAdmins), AccessEntry{groups.servers.sid, rightControl, ""})
	managed := d.root.children[rdn{"CN", "Managed Service Accounts"}.key()]
	managed.children[rdn{"CN", "gmsa-sql"}.key()].set("msDS-GroupMSAMembership", readers)
}

// binaryGUID returns a GUID as bytes (MS-DTYP 2.3.4.2): its first three parts are little endian.
func binaryGUID(text string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil {
		panic(err) // it is a constant
	}
	binary.LittleEndian.PutUint32(b, binary.BigEndian.Uint32(b))
	binary.LittleEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:]))
	binary.LittleEndian.PutUint16(b[6:], binary.BigEndian.Uint16(b[6:]))
	return string(b)
}
