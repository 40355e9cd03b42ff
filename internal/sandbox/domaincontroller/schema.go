package domaincontroller

import "strings"

// syntax is how the values of an attribute are written and compared (MS-ADTS 3.1.1.3.1.1).
type syntax byte

const (
	syntaxText    syntax = iota // without regard to case
	syntaxInteger               // 32 or 64 bits, decimal
	syntaxBoolean               // TRUE or FALSE
	syntaxTime                  // generalized time
	syntaxOctets
	syntaxSID
	syntaxDN
	syntaxClass // objectClass and objectCategory: a class can be named instead
)

// attributeType is one attribute of the schema.
type attributeType struct {
	name   string
	id     attributeID
	syntax syntax
	many   bool // has more than one value
	// system attributes belong to the server: nobody sets them.
	system bool
	// local attributes are not replicated: setting one raises no update sequence number.
	local bool
	// constructed attributes are computed when they are asked for by name, and
	// cannot be searched for.
	constructed bool
}

// attributeID is an attribute's place in the schema. Attributes of an object that
// are kept in its record are ordered by it.
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
	attributeLastKnownParent
	attributeMember
	attributeMemberOf
	attributeComputedControl
	attributeCanonicalName
	attributePasswordExpiry
	attributeResultantPSO
	attributeSAMAccountType // the first that is kept in the record: most filters ask for it
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
	attributeTelephoneNumber
	attributeTitle
	attributeDepartment
	attributeCompany
	attributeEmployeeID
	attributeL
	attributeST
	attributeStreetAddress
	attributePostalCode
	attributeC
	attributeCO
	attributeCountryCode
	attributeCodePage
	attributeInfo
	attributeProxyAddresses
	attributeDNSHostName
	attributeServicePrincipalName
	attributeOperatingSystem
	attributeAccountExpires
	attributePwdLastSet
	attributeLockoutTime
	attributePrimaryGroupID
	attributeAdminCount
	attributeBadPwdCount
	attributeBadPasswordTime
	attributeLastLogon
	attributeLastLogoff
	attributeLogonCount
	attributeLastLogonTimestamp
	attributeMaxPwdAge
	attributeLockoutDuration
	attributeLockoutThreshold
	attributeInvocationID
	attributeOptions
	attributeSystemFlags
	attributeManagedPasswordInterval
	attributeSIDHistory
	attributeAllowedToDelegateTo
	attributeAllowedToActOnBehalf
	attributeSupportedEncryptionTypes
	attributeUserWorkstations
	attributeManagedBy
	attributeGroupMSAMembership
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
	attributePSOMinimumLength
	attributePSOHistoryLength
	attributePSOComplexity
	attributePSOReversible
	attributePSOMinimumAge
	attributePSOMaximumAge
	attributePSOLockoutThreshold
	attributePSOLockoutDuration
	attributePSOLockoutWindow
	attributeTrustPartner
	attributeFlatName
	attributeSecurityIdentifier
	attributeTrustDirection
	attributeTrustType
	attributeTrustAttributes
	attributeEnabledFeatureBL
	attributeOptionalFeatureGUID
	attributes // how many there are
)

var schema = [attributes]attributeType{
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
	attributeTelephoneNumber:          {name: "telephoneNumber"},
	attributeTitle:                    {name: "title"},
	attributeDepartment:               {name: "department"},
	attributeCompany:                  {name: "company"},
	attributeEmployeeID:               {name: "employeeID"},
	attributeL:                        {name: "l"},
	attributeST:                       {name: "st"},
	attributeStreetAddress:            {name: "streetAddress"},
	attributePostalCode:               {name: "postalCode"},
	attributeC:                        {name: "c"},
	attributeCO:                       {name: "co"},
	attributeCountryCode:              {name: "countryCode", syntax: syntaxInteger},
	attributeCodePage:                 {name: "codePage", syntax: syntaxInteger},
	attributeInfo:                     {name: "info"},
	attributeProxyAddresses:           {name: "proxyAddresses", many: true},
	attributeDNSHostName:              {name: "dNSHostName"},
	attributeServicePrincipalName:     {name: "servicePrincipalName", many: true},
	attributeOperatingSystem:          {name: "operatingSystem"},
	attributeAccountExpires:           {name: "accountExpires", syntax: syntaxInteger},
	attributePwdLastSet:               {name: "pwdLastSet", syntax: syntaxInteger},
	attributeLockoutTime:              {name: "lockoutTime", syntax: syntaxInteger},
	attributePrimaryGroupID:           {name: "primaryGroupID", syntax: syntaxInteger},
	attributeAdminCount:               {name: "adminCount", syntax: syntaxInteger},
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
	attributeSIDHistory:               {name: "sIDHistory", syntax: syntaxSID, many: true},
	attributeAllowedToDelegateTo:      {name: "msDS-AllowedToDelegateTo", many: true},
	attributeAllowedToActOnBehalf:     {name: "msDS-AllowedToActOnBehalfOfOtherIdentity", syntax: syntaxOctets},
	attributeSupportedEncryptionTypes: {name: "msDS-SupportedEncryptionTypes", syntax: syntaxInteger},
	attributeUserWorkstations:         {name: "userWorkstations"},
	attributeManagedBy:                {name: "managedBy", syntax: syntaxDN},
	attributeGroupMSAMembership:       {name: "msDS-GroupMSAMembership", syntax: syntaxOctets},
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
	attributePSOMinimumLength:         {name: "msDS-MinimumPasswordLength", syntax: syntaxInteger},
	attributePSOHistoryLength:         {name: "msDS-PasswordHistoryLength", syntax: syntaxInteger},
	attributePSOComplexity:            {name: "msDS-PasswordComplexityEnabled", syntax: syntaxBoolean},
	attributePSOReversible:            {name: "msDS-PasswordReversibleEncryptionEnabled", syntax: syntaxBoolean},
	attributePSOMinimumAge:            {name: "msDS-MinimumPasswordAge", syntax: syntaxInteger},
	attributePSOMaximumAge:            {name: "msDS-MaximumPasswordAge", syntax: syntaxInteger},
	attributePSOLockoutThreshold:      {name: "msDS-LockoutThreshold", syntax: syntaxInteger},
	attributePSOLockoutDuration:       {name: "msDS-LockoutDuration", syntax: syntaxInteger},
	attributePSOLockoutWindow:         {name: "msDS-LockoutObservationWindow", syntax: syntaxInteger},
	attributeTrustPartner:             {name: "trustPartner"},
	attributeFlatName:                 {name: "flatName"},
	attributeSecurityIdentifier:       {name: "securityIdentifier", syntax: syntaxSID},
	attributeTrustDirection:           {name: "trustDirection", syntax: syntaxInteger},
	attributeTrustType:                {name: "trustType", syntax: syntaxInteger},
	attributeTrustAttributes:          {name: "trustAttributes", syntax: syntaxInteger},
	attributeEnabledFeatureBL:         {name: "msDS-EnabledFeatureBL", syntax: syntaxDN},
	attributeOptionalFeatureGUID:      {name: "msDS-OptionalFeatureGUID", syntax: syntaxOctets},
}

// attributesByName has the schema under its names in lower case.
var attributesByName = func() map[string]*attributeType {
	byName := make(map[string]*attributeType, len(schema))
	for id := range schema {
		schema[id].id = attributeID(id)
		byName[strings.ToLower(schema[id].name)] = &schema[id]
	}
	return byName
}()

// class is a class of objects that can be in the directory.
type class struct {
	name       string
	ancestors  []string // from top down to the class itself, as objectClass has them
	category   string   // common name of objectCategory in the schema
	naming     string   // attribute of the relative name
	rdn        attributeID
	samAccount string // sAMAccountType; "": no security principal
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
		{ancestors: []string{"top", "person", "organizationalPerson", "user"}, category: "Person", samAccount: samUser},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "inetOrgPerson"}, category: "Person", samAccount: samUser},
		{ancestors: []string{"top", "person", "organizationalPerson", "contact"}, category: "Person"},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "computer"}, category: "Computer", samAccount: samMachine},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "computer", "msDS-GroupManagedServiceAccount"},
			category: "ms-DS-Group-Managed-Service-Account", samAccount: samMachine},
		{ancestors: []string{"top", "person", "organizationalPerson", "user", "computer", "msDS-ManagedServiceAccount"},
			category: "ms-DS-Managed-Service-Account", samAccount: samMachine},
		{ancestors: []string{"top", "group"}, category: "Group", samAccount: samGroup},
		{ancestors: []string{"top", "organizationalUnit"}, category: "Organizational-Unit", naming: "OU", rdn: attributeOU},
		{ancestors: []string{"top", "container"}, category: "Container"},
		{ancestors: []string{"top", "foreignSecurityPrincipal"}, category: "Foreign-Security-Principal"},
		{ancestors: []string{"top", "msDS-PasswordSettingsContainer"}, category: "ms-DS-Password-Settings-Container"},
		{ancestors: []string{"top", "msDS-PasswordSettings"}, category: "ms-DS-Password-Settings"},
		{ancestors: []string{"top", "leaf", "trustedDomain"}, category: "Trusted-Domain"},
		{ancestors: []string{"top", "msDS-OptionalFeature"}, category: "ms-DS-Optional-Feature"},
		{ancestors: []string{"top", "builtinDomain"}, category: "Builtin-Domain"},
		{ancestors: []string{"top", "domain", "domainDNS"}, category: "Domain-DNS", naming: "DC", rdn: attributeDC},
		{ancestors: []string{"top", "configuration"}, category: "Configuration"},
		{ancestors: []string{"top", "sitesContainer"}, category: "Sites-Container"},
		{ancestors: []string{"top", "site"}, category: "Site"},
		{ancestors: []string{"top", "serversContainer"}, category: "Servers-Container"},
		{ancestors: []string{"top", "server"}, category: "Server"},
		{ancestors: []string{"top", "applicationSettings", "nTDSDSA"}, category: "NTDS-DSA"},
	} {
		if c.naming == "" {
			c.naming, c.rdn = "CN", attributeCN
		}
		c.name = c.ancestors[len(c.ancestors)-1]
		byName[strings.ToLower(c.name)] = c
	}
	return byName
}()

// categoryOf is the objectCategory by which a class is found when a filter names
// the class: (objectCategory=user) is (objectCategory=person).
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
