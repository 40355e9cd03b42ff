package identity

// PostureVersion changes with the lines below, as Version does with those of the
// identities.
const PostureVersion = 2

// memberships stands for a source that is no attribute of the entry: the graph of
// who is in what.
const memberships = "(memberships)"

// The objects that the posture adds to.
const (
	ofUser    = "assetDetail.userAssetClass.posture."
	ofAccount = "assetDetail.userAssetClass."
	ofGroup   = "assetDetail.groupAssetClass.posture."
	ofRole    = "assetDetail.roleAssetClass."
	ofDomain  = "assetDetail.domainAssetClass."
)

// posture is what the option "with security posture" adds to the map, beside all
// that stands in it. The platform publishes no place for it, so that all of these
// targets are our own.
var posture = map[Kind][]row{
	User: {
		{"userAccountControl", ofUser + "accountControl", controlNames},
		{"adminCount", ofUser + "adminCount", number},
		{"servicePrincipalName", ofUser + "servicePrincipalNames", texts},
		{"msDS-AllowedToDelegateTo", ofUser + "allowedToDelegateTo", texts},
		{"msDS-AllowedToActOnBehalfOfOtherIdentity", ofUser + "allowedToActOnBehalf", allowedSIDs},
		{"msDS-SupportedEncryptionTypes", ofUser + "supportedEncryptionTypes", encryptionNames},
		{"sIDHistory", ofUser + "sidHistory", sids},
		{"primaryGroupID", ofUser + "primaryGroup", primaryGroup},
		{"primaryGroupID, " + memberships, ofUser + "groups", whole(directGroups)},
		{"primaryGroupID, " + memberships, ofUser + "privilegedGroups", whole(privilegedGroups)},
		{"lastLogonTimestamp", ofUser + "lastLogonTimestamp", fileTime},
		{"msDS-UserPasswordExpiryTimeComputed", ofUser + "passwordExpiresAt", passwordExpiry},
		{"msDS-ResultantPSO", ofUser + "passwordPolicy", plainDN},
		{"userWorkstations", ofUser + "logonWorkstations", commaSeparated},
		{"description", ofUser + "hasDescription", present},
	},
	ServiceAccount: { // and all of a user's
		{"", ofAccount + "accountType", serviceAccount},
		{"msDS-GroupMSAMembership", ofUser + "passwordReaders", allowedSIDs},
		{"msDS-ManagedPasswordInterval", ofUser + "managedPasswordIntervalDays", number},
	},
	Group: {
		{"adminCount", ofGroup + "adminCount", number},
		{"managedBy", ofGroup + "managedBy", sidOfDN},
		{memberships, ofGroup + "members", whole(groupMembers)},
		{memberships, ofGroup + "membersWithoutSid", whole(membersWithoutSID)},
		{memberships, ofGroup + "memberOf", whole(memberOf)},
		{memberships, ofGroup + "privilegedGroups", whole(privilegedGroups)},
		{memberships, ofGroup + "nestingDepth", whole(nestingDepth)},
		{memberships, ofGroup + "empty", whole(isEmpty)},
		{memberships, ofGroup + "inCycle", whole(inCycle)},
	},
	Role: { // of the well-known group that it is
		{"objectSid", "assetHeader.externalAssetId", roleID},
		{"objectGUID", "assetHeader.vendorAssetId", roleGUID},
		{"name", "assetDetail.name", text},
		{"objectSid", ofRole + "id", roleID},
		{"name", ofRole + "name", text},
		{"description", ofRole + "description", text},
		{memberships, ofRole + "role", roleName},
		{memberships, ofRole + "privileged", rolePrivileged},
		{"objectSid", ofRole + "group", sid},
		{memberships, ofRole + "members", whole(holders)},
		{memberships, ofRole + "membersWithoutSid", whole(holdersWithoutSID)},
		{memberships, ofRole + "nestedGroups", whole(holdingGroups)},
	},
	Domain: {
		{"objectSid", "assetHeader.externalAssetId", sid},
		{"objectGUID", "assetHeader.vendorAssetId", guid},
		{"name", "assetDetail.name", text},
		{"objectSid", ofDomain + "id", sid},
		{"name", ofDomain + "name", text},
		{"whenCreated", ofDomain + "createdAt", generalizedTime},
		{"minPwdLength", ofDomain + "passwordPolicy.minimumLength", number},
		{"pwdHistoryLength", ofDomain + "passwordPolicy.historyLength", number},
		{"pwdProperties", ofDomain + "passwordPolicy.complexity", passwordProperty(propertyComplex)},
		{"pwdProperties", ofDomain + "passwordPolicy.reversibleEncryption", passwordProperty(propertyReversible)},
		{"minPwdAge", ofDomain + "passwordPolicy.minimumAgeSeconds", interval},
		{"maxPwdAge", ofDomain + "passwordPolicy.maximumAgeSeconds", interval},
		{"lockoutThreshold", ofDomain + "lockoutPolicy.threshold", number},
		{"lockoutDuration", ofDomain + "lockoutPolicy.durationSeconds", interval},
		{"lockOutObservationWindow", ofDomain + "lockoutPolicy.observationWindowSeconds", interval},
		{"ms-DS-MachineAccountQuota", ofDomain + "machineAccountQuota", number},
		{"msDS-Behavior-Version", ofDomain + "functionalLevel", number},
		{collectedForestLevel, ofDomain + "forestFunctionalLevel", collectedFrom(collectedForestLevel)},
		{collectedKrbtgt, ofDomain + "krbtgtPasswordLastChangedAt", collectedFrom(collectedKrbtgt)},
		{collectedRecycleBin, ofDomain + "recycleBin", collectedFrom(collectedRecycleBin)},
		{collectedPolicies, ofDomain + "fineGrainedPasswordPolicies", collectedFrom(collectedPolicies)},
		{collectedTrusts, ofDomain + "trusts", collectedFrom(collectedTrusts)},
		{collectedControllers, ofDomain + "domainControllers", collectedFrom(collectedControllers)},
		{collectedUnreadable, ofDomain + "unreadable", collectedFrom(collectedUnreadable)},
	},
}

// parts are the maps of what the domain's asset collects from other entries.
var parts = map[string][]row{
	collectedPolicies: {
		{"distinguishedName", "dn", plainDN},
		{"name", "name", text},
		{"msDS-PasswordSettingsPrecedence", "precedence", number},
		{"msDS-PSOAppliesTo", "appliesTo", sidsOfDNs},
		{"msDS-MinimumPasswordLength", "minimumLength", number},
		{"msDS-PasswordHistoryLength", "historyLength", number},
		{"msDS-PasswordComplexityEnabled", "complexity", boolean},
		{"msDS-PasswordReversibleEncryptionEnabled", "reversibleEncryption", boolean},
		{"msDS-MinimumPasswordAge", "minimumAgeSeconds", interval},
		{"msDS-MaximumPasswordAge", "maximumAgeSeconds", interval},
		{"msDS-LockoutThreshold", "lockoutThreshold", number},
		{"msDS-LockoutDuration", "lockoutDurationSeconds", interval},
		{"msDS-LockoutObservationWindow", "lockoutObservationWindowSeconds", interval},
	},
	collectedTrusts: {
		{"trustPartner", "partner", text},
		{"flatName", "flatName", text},
		{"securityIdentifier", "sid", optionalSID},
		{"trustDirection", "direction", enumerated(trustDirections)},
		{"trustType", "type", enumerated(trustTypes)},
		{"trustAttributes", "attributes", trustAttributes},
		{"trustAttributes, trustDirection", "sidFiltering", sidFiltering},
	},
	collectedControllers: {
		{"name", "name", text},
		{"dNSHostName", "hostName", text},
		{"objectSid", "sid", optionalSID},
		{"operatingSystem", "operatingSystem", text},
		{"operatingSystemVersion", "operatingSystemVersion", text},
		{"primaryGroupID", "readOnly", readOnlyController},
		{"pwdLastSet", "passwordLastChangedAt", fileTime},
	},
	collectedKrbtgt:     {{"pwdLastSet", "", fileTime}},
	collectedRecycleBin: {{"msDS-EnabledFeatureBL, msDS-OptionalFeatureGUID", "", enabledFeature}},
}

// What the domain's asset is collected from.
const (
	collectedForestLevel = "(forestFunctionality of the rootDSE)"
	collectedKrbtgt      = "(krbtgt)"
	collectedRecycleBin  = "(Recycle Bin Feature)"
	collectedPolicies    = "(Password Settings Container)"
	collectedTrusts      = "(trusted domains)"
	collectedControllers = "(domain controllers)"
	collectedUnreadable  = "(what the account may not read)"
)
