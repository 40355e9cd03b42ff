package access

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"adconnector/internal/ad"
)

// Bits of an access mask (MS-ADTS 5.1.3.2).
const (
	maskCreateChild   ad.AccessMask = 0x1
	maskDeleteChild   ad.AccessMask = 0x2
	maskListContents  ad.AccessMask = 0x4
	maskSelf          ad.AccessMask = 0x8 // validated write
	maskReadProperty  ad.AccessMask = 0x10
	maskWriteProperty ad.AccessMask = 0x20
	maskDeleteTree    ad.AccessMask = 0x40
	maskListObject    ad.AccessMask = 0x80
	maskControl                     = ad.RightControlAccess
	maskDelete        ad.AccessMask = 0x10000
	maskReadControl   ad.AccessMask = 0x20000
	maskWriteDACL     ad.AccessMask = 0x40000
	maskWriteOwner    ad.AccessMask = 0x80000
	maskFull          ad.AccessMask = 0xf01ff // all of the above

	maskGenericAll     ad.AccessMask = 0x10000000
	maskGenericExecute ad.AccessMask = 0x20000000
	maskGenericWrite   ad.AccessMask = 0x40000000
	maskGenericRead    ad.AccessMask = 0x80000000
)

// specific maps the generic rights of a mask to specific ones (MS-ADTS 5.1.3.2).
func specific(mask ad.AccessMask) ad.AccessMask {
	if mask&maskGenericAll != 0 {
		mask |= maskFull
	}
	if mask&maskGenericExecute != 0 {
		mask |= maskReadControl | maskListContents
	}
	if mask&maskGenericWrite != 0 {
		mask |= maskReadControl | maskSelf | maskWriteProperty
	}
	if mask&maskGenericRead != 0 {
		mask |= maskReadControl | maskListContents | maskReadProperty | maskListObject
	}
	return mask & maskFull
}

// grants is a set of elementary rights. Each of them is decided by the first entry that has it. The
// bits up to maskFull are those of an access mask, over the whole object.
type grants uint64

// Elementary rights that depend on an object type, and ownership.
const (
	getChanges grants = 1 << (20 + iota)
	getChangesAll
	getChangesFiltered
	forcePasswordChange
	writeMember
	addSelf
	writeKeyCredential
	writeAllowedToAct
	createUser
	createPerson
	createComputer
	createStandalone
	createGroupManaged
	createDelegated
	owns

	createAccount = createUser | createPerson | createComputer | createStandalone | createGroupManaged | createDelegated
)

// typedGrants has the right and the object type of each elementary right that depends on an object
// type. The GUIDs are those of the schema (schemaIDGUID) and of the extended rights (rightsGuid).
var typedGrants = [...]struct {
	grant  grants
	mask   ad.AccessMask
	object ad.GUID // a property, an extended right, a validated write, or a class of child objects
	set    ad.GUID // the property set that has the property (attributeSecurityGUID), or zero
}{
	{grant: getChanges, mask: maskControl, object: guid("1131f6aa-9c07-11d1-f79f-00c04fc2dcd2")},         // DS-Replication-Get-Changes
	{grant: getChangesAll, mask: maskControl, object: guid("1131f6ad-9c07-11d1-f79f-00c04fc2dcd2")},      // DS-Replication-Get-Changes-All
	{grant: getChangesFiltered, mask: maskControl, object: guid("89e95b76-444d-4c62-991a-0facbeda640c")}, // DS-Replication-Get-Changes-In-Filtered-Set
	{grant: forcePasswordChange, mask: maskControl, object: guid("00299570-246d-11d0-a768-00aa006e0529")},
	{grant: writeMember, mask: maskWriteProperty, object: memberGUID, set: membershipSet},
	{grant: addSelf, mask: maskSelf, object: memberGUID, set: membershipSet}, // Self-Membership has the GUID of member
	{grant: writeKeyCredential, mask: maskWriteProperty, object: guid("5b47d60f-6090-40b2-9f37-2a4de88f3063")},
	{grant: writeAllowedToAct, mask: maskWriteProperty, object: guid("3f78c3e5-f79a-46bd-a0b8-9d18116ddc79"), set: guid("4c164200-20c0-11d0-a768-00aa006e0529")}, // User-Account-Restrictions
	{grant: createUser, mask: maskCreateChild, object: userClass},
	{grant: createPerson, mask: maskCreateChild, object: personClass},
	{grant: createComputer, mask: maskCreateChild, object: computerClass},
	{grant: createStandalone, mask: maskCreateChild, object: standaloneClass},
	{grant: createGroupManaged, mask: maskCreateChild, object: groupManagedClass},
	{grant: createDelegated, mask: maskCreateChild, object: delegatedClass},
}

// The GUIDs of a property set, an attribute and classes.
var (
	membershipSet     = guid("bc0ac240-79a9-11d0-9020-00c04fc2d4cf")
	memberGUID        = guid("bf9679c0-0de6-11d0-a285-00aa003049e2")
	userClass         = guid("bf967aba-0de6-11d0-a285-00aa003049e2")
	personClass       = guid("4828cc14-1437-45bc-9b07-ad6f015e5f28") // inetOrgPerson
	computerClass     = guid("bf967a86-0de6-11d0-a285-00aa003049e2")
	standaloneClass   = guid("ce206244-5827-4a86-ba1c-1c0c386c1b64") // msDS-ManagedServiceAccount
	groupManagedClass = guid("7b8b558a-93a5-4af7-adca-c017e67f1057") // msDS-GroupManagedServiceAccount
	delegatedClass    = guid("0feb936f-47b3-49f2-9386-1dedc2c23765") // msDS-DelegatedManagedServiceAccount
	groupClass        = guid("bf967a9c-0de6-11d0-a285-00aa003049e2")
	containerClass    = guid("bf967a8b-0de6-11d0-a285-00aa003049e2")
	unitClass         = guid("bf967aa5-0de6-11d0-a285-00aa003049e2") // organizationalUnit
	domainClass       = guid("19195a5b-6da0-11d0-afd3-00c04fd930c9") // domainDNS
)

// ownClasses has the classes that an object of each class can have.
var ownClasses = [numClasses][]ad.GUID{
	Domain:         {domainClass},
	AdminSDHolder:  {containerClass, userClass, personClass, computerClass, standaloneClass, groupManagedClass, delegatedClass, groupClass},
	Container:      {containerClass, unitClass},
	User:           {userClass, personClass},
	ServiceAccount: {computerClass, standaloneClass, groupManagedClass, delegatedClass},
	Group:          {groupClass},
}

// grantsOf returns the elementary rights of the mask over an object, or over the part of it that
// has this object type. The zero GUID is the whole object.
func grantsOf(mask ad.AccessMask, object ad.GUID) (set grants) {
	whole := object == ad.GUID{}
	if whole {
		set = grants(mask)
	}
	for i := range typedGrants {
		typed := &typedGrants[i]
		if mask&typed.mask != 0 && (whole || object == typed.object || object == typed.set) {
			set |= typed.grant
		}
	}
	return set
}

// rights returns the rights that follow from a set of elementary rights. world are those that
// everybody has. Replication needs two of them, so one of these can come from world.
func (g grants) rights(world grants) (set rightSet) {
	const changes = getChangesAll | getChangesFiltered
	replication := g & (getChanges | changes)
	if replication != 0 {
		replication |= world
	}
	for _, c := range [...]struct {
		right Right
		held  bool
	}{
		{CreateChild, g&createAccount != 0},
		{FullControl, g&grants(maskFull) == grants(maskFull)},
		{Owner, g&owns != 0},
		{ReplicationRights, replication&getChanges != 0 && replication&changes != 0},
		{ResetPassword, g&forcePasswordChange != 0},
		{WriteAllowedToAct, g&writeAllowedToAct != 0},
		{WriteDACL, g&grants(maskWriteDACL) != 0},
		{WriteKeyCredential, g&writeKeyCredential != 0},
		{WriteMembers, g&(writeMember|addSelf) != 0},
		{WriteOwner, g&grants(maskWriteOwner) != 0},
	} {
		if c.held {
			set |= setOf(c.right)
		}
	}
	return set
}

// guid returns the GUID with a text form. It panics if the text is not a GUID.
func guid(text string) (g ad.GUID) {
	if _, err := hex.Decode(g[:], []byte(strings.ReplaceAll(text, "-", ""))); err != nil {
		panic(err)
	}
	binary.LittleEndian.PutUint32(g[0:], binary.BigEndian.Uint32(g[0:]))
	binary.LittleEndian.PutUint16(g[4:], binary.BigEndian.Uint16(g[4:]))
	binary.LittleEndian.PutUint16(g[6:], binary.BigEndian.Uint16(g[6:]))
	return g
}
