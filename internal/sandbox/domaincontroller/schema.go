package domaincontroller

import "strings"

// syntax is the syntax of an attribute (MS-ADTS 3.1.1.3.1.1).
type syntax byte

const (
	syntaxText    syntax = iota // case-insensitive
	syntaxInteger               // 32 or 64 bits
	syntaxBoolean               // TRUE or FALSE
	syntaxTime                  // generalized time (X.680)
	syntaxOctets
	syntaxSID
	syntaxDN
	syntaxClass // objectClass and objectCategory: filters can use the name of a class
)

// attributeType is an attribute of the schema.
type attributeType struct {
	name        string
	id          attributeID
	syntax      syntax
	many        bool // multivalued
	system      bool // only the server sets it
	local       bool // not replicated: a change assigns no update sequence number
	constructed bool // computed, returned only if requested by name, and not searchable
}

// attributeID is the index of an attribute in the schema. Stored attributes of an object
// are ordered by it.
type attributeID byte

const (
	attributeObjectClass attributeID = iota
	attributeCN
	attributeOU
	attributeDC
	attributeDistinguishedName
	attributeInstanceType
	attributeWhenCreated
	attributeWhenChanged
	attributeUSNCreated
	attributeUSNChanged
	attributeName
	attributeObjectGUID
	attributeObjectSID
	attributeObjectCategory
	attributeIsDeleted
	attributeMember
	attributeMemberOf
	attributeComputedControl
	attributeCanonicalName
	attributePasswordExpiry
	attributeResultantPSO
	attributeInvocationID
	attributeSAMAccountType // first, because most filters use it
	attributeLastKnownParent
	attributeSAMAccountName
	attributeUserAccountControl
	attributeGroupType
	attributeUserPrincipalName
	attributeSN
	attributeGivenName
	attributeDisplayName
	attributeDescription
	attributeMail
	attributeMobile
	attributeTitle
	attributeDepartment
	attributeCompany
	attributeEmployeeID
	attributeL
	attributeST
	attributeStreetAddress
	attributeC
	attributeCO
	attributeCountryCode
	attributeCodePage
	attributeDNSHostName
	attributeOperatingSystem
	attributeAccountExpires
	attributePwdLastSet
	attributeLockoutTime
	attributePrimaryGroupID
	attributeBadPwdCount
	attributeBadPasswordTime
	attributeLastLogon
	attributeLastLogoff
	attributeLogonCount
	attributeLastLogonTimestamp
	attributeMaxPwdAge
	attributeLockoutDuration
	attributeLockoutThreshold
	attributeOptions
	attributeSystemFlags
	attributeManagedPasswordInterval
	attributeOperatingSystemVersion
	attributeMinPwdLength
	attributePwdHistoryLength
	attributePwdProperties
	attributeMinPwdAge
	attributeLockoutObservationWindow
	attributeMachineAccountQuota
	attributeBehaviorVersion
	attributePSOPrecedence
	attributePSOAppliesTo
	attributePSOMaximumAge
	attributeOptionalFeatureGUID
)

var schema = [...]attributeType{
	attributeObjectClass:              {name: "objectClass", syntax: syntaxClass, many: true, system: true},
	attributeCN:                       {name: "cn", system: true},
	attributeOU:                       {name: "ou", system: true},
	attributeDC:                       {name: "dc", system: true},
	attributeDistinguishedName:        {name: "distinguishedName", syntax: syntaxDN, system: true},
	attributeInstanceType:             {name: "instanceType", syntax: syntaxInteger, system: true},
	attributeWhenCreated:              {name: "whenCreated", syntax: syntaxTime, system: true},
	attributeWhenChanged:              {name: "whenChanged", syntax: syntaxTime, system: true},
	attributeUSNCreated:               {name: "uSNCreated", syntax: syntaxInteger, system: true},
	attributeUSNChanged:               {name: "uSNChanged", syntax: syntaxInteger, system: true},
	attributeName:                     {name: "name", system: true},
	attributeObjectGUID:               {name: "objectGUID", syntax: syntaxOctets, system: true},
	attributeObjectSID:                {name: "objectSid", syntax: syntaxSID, system: true},
	attributeObjectCategory:           {name: "objectCategory", syntax: syntaxClass, system: true},
	attributeIsDeleted:                {name: "isDeleted", syntax: syntaxBoolean, system: true},
	attributeLastKnownParent:          {name: "lastKnownParent", syntax: syntaxDN, system: true},
	attributeMember:                   {name: "member", syntax: syntaxDN, many: true},
	attributeMemberOf:                 {name: "memberOf", syntax: syntaxDN, many: true, system: true},
	attributeComputedControl:          {name: "msDS-User-Account-Control-Computed", syntax: syntaxInteger, system: true, constructed: true},
	attributeCanonicalName:            {name: "canonicalName", system: true, constructed: true},
	attributePasswordExpiry:           {name: "msDS-UserPasswordExpiryTimeComputed", syntax: syntaxInteger, system: true, constructed: true},
	attributeResultantPSO:             {name: "msDS-ResultantPSO", syntax: syntaxDN, system: true, constructed: true},
	attributeSAMAccountType:           {name: "sAMAccountType", syntax: syntaxInteger, system: true},
	attributeSAMAccountName:           {name: "sAMAccountName"},
	attributeUserAccountControl:       {name: "userAccountControl", syntax: syntaxInteger},
	attributeGroupType:                {name: "groupType", syntax: syntaxInteger},
	attributeUserPrincipalName:        {name: "userPrincipalName"},
	attributeSN:                       {name: "sn"},
	attributeGivenName:                {name: "givenName"},
	attributeDisplayName:              {name: "displayName"},
	attributeDescription:              {name: "description", many: true},
	attributeMail:                     {name: "mail"},
	attributeMobile:                   {name: "mobile"},
	attributeTitle:                    {name: "title"},
	attributeDepartment:               {name: "department"},
	attributeCompany:                  {name: "company"},
	attributeEmployeeID:               {name: "employeeID"},
	attributeL:                        {name: "l"},
	attributeST:                       {name: "st"},
	attributeStreetAddress:            {name: "streetAddress"},
	attributeC:                        {name: "c"},
	attributeCO:                       {name: "co"},
	attributeCountryCode:              {name: "countryCode", syntax: syntaxInteger},
	attributeCodePage:                 {name: "codePage", syntax: syntaxInteger},
	attributeDNSHostName:              {name: "dNSHostName"},
	attributeOperatingSystem:          {name: "operatingSystem"},
	attributeAccountExpires:           {name: "accountExpires", syntax: syntaxInteger},
	attributePwdLastSet:               {name: "pwdLastSet", syntax: syntaxInteger},
	attributeLockoutTime:              {name: "lockoutTime", syntax: syntaxInteger},
	attributePrimaryGroupID:           {name: "primaryGroupID", syntax: syntaxInteger},
	attributeBadPwdCount:              {name: "badPwdCount", syntax: syntaxInteger, local: true},
	attributeBadPasswordTime:          {name: "badPasswordTime", syntax: syntaxInteger, local: true},
	attributeLastLogon:                {name: "lastLogon", syntax: syntaxInteger, local: true},
	attributeLastLogoff:               {name: "lastLogoff", syntax: syntaxInteger, local: true},
	attributeLogonCount:               {name: "logonCount", syntax: syntaxInteger, local: true},
	attributeLastLogonTimestamp:       {name: "lastLogonTimestamp", syntax: syntaxInteger},
	attributeMaxPwdAge:                {name: "maxPwdAge", syntax: syntaxInteger},
	attributeLockoutDuration:          {name: "lockoutDuration", syntax: syntaxInteger},
	attributeLockoutThreshold:         {name: "lockoutThreshold", syntax: syntaxInteger},
	attributeInvocationID:             {name: "invocationId", syntax: syntaxOctets, system: true},
	attributeOptions:                  {name: "options", syntax: syntaxInteger},
	attributeSystemFlags:              {name: "systemFlags", syntax: syntaxInteger, system: true},
	attributeManagedPasswordInterval:  {name: "msDS-ManagedPasswordInterval", syntax: syntaxInteger},
	attributeOperatingSystemVersion:   {name: "operatingSystemVersion"},
	attributeMinPwdLength:             {name: "minPwdLength", syntax: syntaxInteger},
	attributePwdHistoryLength:         {name: "pwdHistoryLength", syntax: syntaxInteger},
	attributePwdProperties:            {name: "pwdProperties", syntax: syntaxInteger},
	attributeMinPwdAge:                {name: "minPwdAge", syntax: syntaxInteger},
	attributeLockoutObservationWindow: {name: "lockOutObservationWindow", syntax: syntaxInteger},
	attributeMachineAccountQuota:      {name: "ms-DS-MachineAccountQuota", syntax: syntaxInteger},
	attributeBehaviorVersion:          {name: "msDS-Behavior-Version", syntax: syntaxInteger},
	attributePSOPrecedence:            {name: "msDS-PasswordSettingsPrecedence", syntax: syntaxInteger},
	attributePSOAppliesTo:             {name: "msDS-PSOAppliesTo", syntax: syntaxDN, many: true},
	attributePSOMaximumAge:            {name: "msDS-MaximumPasswordAge", syntax: syntaxInteger},
	attributeOptionalFeatureGUID:      {name: "msDS-OptionalFeatureGUID", syntax: syntaxOctets},
	// attributes that no code of this package uses
	{name: "info"},
	{name: "proxyAddresses", many: true},
	{name: "servicePrincipalName", many: true},
	{name: "adminCount", syntax: syntaxInteger},
	{name: "sIDHistory", syntax: syntaxSID, many: true},
	{name: "msDS-AllowedToDelegateTo", many: true},
	{name: "msDS-AllowedToActOnBehalfOfOtherIdentity", syntax: syntaxOctets},
	{name: "msDS-SupportedEncryptionTypes", syntax: syntaxInteger},
	{name: "userWorkstations"},
	{name: "managedBy", syntax: syntaxDN},
	{name: "msDS-GroupMSAMembership", syntax: syntaxOctets},
	{name: "msDS-MinimumPasswordLength", syntax: syntaxInteger},
	{name: "msDS-PasswordHistoryLength", syntax: syntaxInteger},
	{name: "msDS-PasswordComplexityEnabled", syntax: syntaxBoolean},
	{name: "msDS-PasswordReversibleEncryptionEnabled", syntax: syntaxBoolean},
	{name: "msDS-MinimumPasswordAge", syntax: syntaxInteger},
	{name: "msDS-LockoutThreshold", syntax: syntaxInteger},
	{name: "msDS-LockoutDuration", syntax: syntaxInteger},
	{name: "msDS-LockoutObservationWindow", syntax: syntaxInteger},
	{name: "trustPartner"},
	{name: "flatName"},
	{name: "securityIdentifier", syntax: syntaxSID},
	{name: "trustDirection", syntax: syntaxInteger},
	{name: "trustType", syntax: syntaxInteger},
	{name: "trustAttributes", syntax: syntaxInteger},
	{name: "msDS-EnabledFeatureBL", syntax: syntaxDN},
	{name: "telephoneNumber"},
	{name: "postalCode"},
}

const (
	attributeCount = attributeID(len(schema))
	firstStored    = attributeSAMAccountType // values of the attributes before it are computed
)

// attributesByName is the schema by lower-case name.
var attributesByName = func() map[string]*attributeType {
	byName := make(map[string]*attributeType, len(schema))
	for id := range schema {
		schema[id].id = attributeID(id)
		byName[strings.ToLower(schema[id].name)] = &schema[id]
	}
	return byName
}()

// class is an object class.
type class struct {
	name           string
	ancestors      []string // values of objectClass: from top to the class itself
	category       string   // common name of objectCategory in the schema
	rdnAttribute   string   // CN, OU or DC
	rdn            attributeID
	samAccountType string // empty: not a security principal
}

const (
	samUser        = "805306368"
	samMachine     = "805306369"
	samGroup       = "268435456"
	samNonSecurity = "268435457"
	samAlias       = "536870912"
	samNonSecAlias = "536870913"
)

var classes = func() map[string]*class {
	byName := map[string]*class{}
	for _, c := range []*class{
		{ancestors: []string{"top", "person", "organizationalPerson", "user"}, category: "Person", samAccountType: samUser},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "inetOrgPerson"}, category: "Person", samAccountType: samUser},
		{ancestors: []string{"top", "person", "organizationalPerson", "contact"}, category: "Person"},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "computer"}, category: "Computer", samAccountType: samMachine},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "computer", "msDS-GroupManagedServiceAccount"},
			category: "ms-DS-Group-Managed-Service-Account", samAccountType: samMachine},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "computer", "msDS-ManagedServiceAccount"},
			category: "ms-DS-Managed-Service-Account", samAccountType: samMachine},
		{ancestors: []string{"top", "group"}, category: "Group", samAccountType: samGroup},
		{ancestors: []string{"top", "organizationalUnit"}, category: "Organizational-Unit", rdnAttribute: "OU", rdn: attributeOU},
		{ancestors: []string{"top", "container"}, category: "Container"},
		{ancestors: []string{"top", "foreignSecurityPrincipal"}, category: "Foreign-Security-Principal"},
		{ancestors: []string{"top", "msDS-PasswordSettingsContainer"}, category: "ms-DS-Password-Settings-Container"},
		{ancestors: []string{"top", "msDS-PasswordSettings"}, category: "ms-DS-Password-Settings"},
		{ancestors: []string{"top", "leaf", "trustedDomain"}, category: "Trusted-Domain"},
		{ancestors: []string{"top", "msDS-OptionalFeature"}, category: "ms-DS-Optional-Feature"},
		{ancestors: []string{"top", "builtinDomain"}, category: "Builtin-Domain"},
		{ancestors: []string{"top", "domain", "domainDNS"}, category: "Domain-DNS", rdnAttribute: "DC", rdn: attributeDC},
		{ancestors: []string{"top", "configuration"}, category: "Configuration"},
		{ancestors: []string{"top", "sitesContainer"}, category: "Sites-Container"},
		{ancestors: []string{"top", "site"}, category: "Site"},
		{ancestors: []string{"top", "serversContainer"}, category: "Servers-Container"},
		{ancestors: []string{"top", "server"}, category: "Server"},
		{ancestors: []string{"top", "applicationSettings", "nTDSDSA"}, category: "NTDS-DSA"},
	} {
		if c.rdnAttribute == "" {
			c.rdnAttribute, c.rdn = "CN", attributeCN
		}
		c.name = c.ancestors[len(c.ancestors)-1]
		byName[strings.ToLower(c.name)] = c
	}
	return byName
}()

// categoryOf returns the objectCategory that a filter with the name of a class matches:
// (objectCategory=user) is (objectCategory=person).
func categoryOf(name string) (string, bool) {
	switch name = strings.ToLower(name); name {
	case "person", "organizationalperson":
		return "Person", true
	}
	c := classes[name]
	if c == nil {
		return "", false
	}
	return c.category, true
}
