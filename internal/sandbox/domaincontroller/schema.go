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
	syntax      syntax
	many        bool // multivalued
	system      bool // only the server sets it
	local       bool // not replicated: a change assigns no update sequence number
	constructed bool // computed, returned only if requested by name, and not searchable
}

// schema is the attributes that objects can have.
var schema = []attributeType{
	{name: "objectClass", syntax: syntaxClass, many: true, system: true},
	{name: "cn", system: true},
	{name: "ou", system: true},
	{name: "dc", system: true},
	{name: "distinguishedName", syntax: syntaxDN, system: true},
	{name: "instanceType", syntax: syntaxInteger, system: true},
	{name: "whenCreated", syntax: syntaxTime, system: true},
	{name: "whenChanged", syntax: syntaxTime, system: true},
	{name: "uSNCreated", syntax: syntaxInteger, system: true},
	{name: "uSNChanged", syntax: syntaxInteger, system: true},
	{name: "name", system: true},
	{name: "objectGUID", syntax: syntaxOctets, system: true},
	{name: "objectSid", syntax: syntaxSID, system: true},
	{name: "objectCategory", syntax: syntaxClass, system: true},
	{name: "isDeleted", syntax: syntaxBoolean, system: true},
	{name: "lastKnownParent", syntax: syntaxDN, system: true},
	{name: "member", syntax: syntaxDN, many: true},
	{name: "memberOf", syntax: syntaxDN, many: true, system: true},
	{name: "msDS-User-Account-Control-Computed", syntax: syntaxInteger, system: true, constructed: true},
	{name: "canonicalName", system: true, constructed: true},
	{name: "msDS-UserPasswordExpiryTimeComputed", syntax: syntaxInteger, system: true, constructed: true},
	{name: "msDS-ResultantPSO", syntax: syntaxDN, system: true, constructed: true},
	{name: "sAMAccountType", syntax: syntaxInteger, system: true},
	{name: "sAMAccountName"},
	{name: "userAccountControl", syntax: syntaxInteger},
	{name: "groupType", syntax: syntaxInteger},
	{name: "userPrincipalName"},
	{name: "sn"},
	{name: "givenName"},
	{name: "displayName"},
	{name: "description", many: true},
	{name: "mail"},
	{name: "mobile"},
	{name: "title"},
	{name: "department"},
	{name: "company"},
	{name: "employeeID"},
	{name: "l"},
	{name: "st"},
	{name: "streetAddress"},
	{name: "c"},
	{name: "co"},
	{name: "countryCode", syntax: syntaxInteger},
	{name: "codePage", syntax: syntaxInteger},
	{name: "dNSHostName"},
	{name: "operatingSystem"},
	{name: "accountExpires", syntax: syntaxInteger},
	{name: "pwdLastSet", syntax: syntaxInteger},
	{name: "lockoutTime", syntax: syntaxInteger},
	{name: "primaryGroupID", syntax: syntaxInteger},
	{name: "badPwdCount", syntax: syntaxInteger, local: true},
	{name: "badPasswordTime", syntax: syntaxInteger, local: true},
	{name: "lastLogon", syntax: syntaxInteger, local: true},
	{name: "lastLogoff", syntax: syntaxInteger, local: true},
	{name: "logonCount", syntax: syntaxInteger, local: true},
	{name: "lastLogonTimestamp", syntax: syntaxInteger},
	{name: "maxPwdAge", syntax: syntaxInteger},
	{name: "lockoutDuration", syntax: syntaxInteger},
	{name: "lockoutThreshold", syntax: syntaxInteger},
	{name: "invocationId", syntax: syntaxOctets, system: true},
	{name: "options", syntax: syntaxInteger},
	{name: "systemFlags", syntax: syntaxInteger, system: true},
	{name: "msDS-ManagedPasswordInterval", syntax: syntaxInteger},
	{name: "operatingSystemVersion"},
	{name: "minPwdLength", syntax: syntaxInteger},
	{name: "pwdHistoryLength", syntax: syntaxInteger},
	{name: "pwdProperties", syntax: syntaxInteger},
	{name: "minPwdAge", syntax: syntaxInteger},
	{name: "lockOutObservationWindow", syntax: syntaxInteger},
	{name: "ms-DS-MachineAccountQuota", syntax: syntaxInteger},
	{name: "msDS-Behavior-Version", syntax: syntaxInteger},
	{name: "msDS-PasswordSettingsPrecedence", syntax: syntaxInteger},
	{name: "msDS-PSOAppliesTo", syntax: syntaxDN, many: true},
	{name: "msDS-MaximumPasswordAge", syntax: syntaxInteger},
	{name: "msDS-OptionalFeatureGUID", syntax: syntaxOctets},
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

// attributesByName is the schema by lower-case name.
var attributesByName = func() map[string]*attributeType {
	byName := make(map[string]*attributeType, len(schema))
	for i := range schema {
		byName[strings.ToLower(schema[i].name)] = &schema[i]
	}
	return byName
}()

// class is an object class.
type class struct {
	name           string
	ancestors      []string // values of objectClass: from top to the class itself
	category       string   // common name of objectCategory in the schema
	rdnAttribute   string   // CN, OU or DC
	samAccountType string   // empty: not a security principal
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
		{ancestors: []string{"top", "organizationalUnit"}, category: "Organizational-Unit", rdnAttribute: "OU"},
		{ancestors: []string{"top", "container"}, category: "Container"},
		{ancestors: []string{"top", "foreignSecurityPrincipal"}, category: "Foreign-Security-Principal"},
		{ancestors: []string{"top", "msDS-PasswordSettingsContainer"}, category: "ms-DS-Password-Settings-Container"},
		{ancestors: []string{"top", "msDS-PasswordSettings"}, category: "ms-DS-Password-Settings"},
		{ancestors: []string{"top", "leaf", "trustedDomain"}, category: "Trusted-Domain"},
		{ancestors: []string{"top", "msDS-OptionalFeature"}, category: "ms-DS-Optional-Feature"},
		{ancestors: []string{"top", "builtinDomain"}, category: "Builtin-Domain"},
		{ancestors: []string{"top", "domain", "domainDNS"}, category: "Domain-DNS", rdnAttribute: "DC"},
		{ancestors: []string{"top", "configuration"}, category: "Configuration"},
		{ancestors: []string{"top", "sitesContainer"}, category: "Sites-Container"},
		{ancestors: []string{"top", "site"}, category: "Site"},
		{ancestors: []string{"top", "serversContainer"}, category: "Servers-Container"},
		{ancestors: []string{"top", "server"}, category: "Server"},
		{ancestors: []string{"top", "applicationSettings", "nTDSDSA"}, category: "NTDS-DSA"},
	} {
		if c.rdnAttribute == "" {
			c.rdnAttribute = "CN"
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
