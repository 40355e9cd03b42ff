package identity

import (
	"adconnector/internal/access"
	"adconnector/internal/ad"
)

// PostureVersion is the version of the posture map, as Version is that of the identities.
const PostureVersion = 4

// entryName is the source of values from the DN of the entry.
const entryName = "(DN)"

// memberships is the source of values that are computed from the membership graph.
const memberships = "(memberships)"

// Prefixes of targets.
const (
	userPosture  = "assetDetail.userAssetClass.posture."
	account      = "assetDetail.userAssetClass."
	groupPosture = "assetDetail.groupAssetClass.posture."
	role         = "assetDetail.roleAssetClass."
	domain       = "assetDetail.domainAssetClass."
)

// posture has the rows that security posture adds to the map. The platform specifies no
// targets for them, so they are defined here.
var posture = map[Kind][]row{
	User: {
		{"sAMAccountName", userPosture + "samAccountName", text},
		{"userPrincipalName", userPosture + "userPrincipalName", text},
		{entryName, userPosture + "distinguishedName", entryDN},
		{"userAccountControl", userPosture + "accountControl", controlNames},
		{"adminCount", userPosture + "adminCount", number},
		{"servicePrincipalName", userPosture + "servicePrincipalNames", texts},
		{"msDS-AllowedToDelegateTo", userPosture + "allowedToDelegateTo", texts},
		{"msDS-AllowedToActOnBehalfOfOtherIdentity", userPosture + "allowedToActOnBehalf", grantedTo(ad.RightControlAccess)},
		{"msDS-SupportedEncryptionTypes", userPosture + "supportedEncryptionTypes", encryptionNames},
		{"sIDHistory", userPosture + "sidHistory", sids},
		{"primaryGroupID", userPosture + "primaryGroup", primaryGroup},
		{"primaryGroupID, " + memberships, userPosture + "groups", completeGraph(directGroups)},
		{"primaryGroupID, " + memberships, userPosture + "privilegedGroups", completeGraph(privilegedGroups)},
		{"lastLogonTimestamp", userPosture + "lastLogonTimestamp", fileTime},
		{"msDS-UserPasswordExpiryTimeComputed", userPosture + "passwordExpiresAt", passwordExpiry},
		{"msDS-UserPasswordExpiryTimeComputed", userPosture + "passwordExpiry", passwordExpiryCase},
		{"msDS-ResultantPSO", userPosture + "passwordPolicy", plainDN},
		{"userWorkstations", userPosture + "logonWorkstations", commaSeparated},
		{"description", userPosture + "hasDescription", present},
		{"userPassword, unixUserPassword, msSFU30Password", userPosture + "passwordAttributes", passwordAttributes},
		{"altSecurityIdentities", userPosture + "alternateIdentities.count", valueCount},
		{"altSecurityIdentities", userPosture + "alternateIdentities.forms", identityForms(^mappingForm(0))},
		{"altSecurityIdentities", userPosture + "alternateIdentities.weakForms", identityForms(weakForms)},
		{"msDS-KeyCredentialLink", userPosture + "keyCredentials", valueCount},
		{"homeDirectory, profilePath, scriptPath", userPosture + "pathsOutsideDomain", outsidePaths},
		{"msDS-SupersededManagedAccountLink", userPosture + "supersededBy", linkedPrincipal},
		{factSources, userPosture + "facts", facts},
		{ad.AttributeDescriptor, userPosture + "controlledBy", controlledBy(access.User)},
		{ad.AttributeDescriptor + ", " + longLists + ", " + memberships, userPosture + "unreadable", uncertainOfUser},
	},
	ServiceAccount: { // in addition to the rows of User
		{"", account + "accountType", serviceAccount},
		{"msDS-GroupMSAMembership", userPosture + "passwordReaders", grantedTo(ad.RightControlAccess)},
		{"msDS-ManagedPasswordInterval", userPosture + "managedPasswordIntervalDays", number},
		{"msDS-ManagedAccountPrecededByLink", userPosture + "supersedes", linkedPrincipal},
		{"msDS-DelegatedMSAState", userPosture + "delegatedState", enumerated(delegatedStates)},
	},
	Group: {
		{"sAMAccountName", groupPosture + "samAccountName", text},
		{entryName, groupPosture + "distinguishedName", entryDN},
		{"adminCount", groupPosture + "adminCount", number},
		{"managedBy", groupPosture + "managedBy", managedBy},
		{memberships, groupPosture + "members", completeGraph(groupMembers)},
		{memberships, groupPosture + "membersWithoutSid", completeGraph(membersWithoutSID)},
		{memberships, groupPosture + "memberOf", completeGraph(memberOf)},
		{memberships, groupPosture + "privilegedGroups", completeGraph(privilegedGroups)},
		{memberships, groupPosture + "nestingDepth", completeGraph(nestingDepth)},
		{memberships, groupPosture + "empty", completeGraph(isEmpty)},
		{memberships, groupPosture + "inCycle", completeGraph(inCycle)},
		{ad.AttributeDescriptor, groupPosture + "controlledBy", controlledBy(access.Group)},
		{ad.AttributeDescriptor + ", " + memberships, groupPosture + "unreadable", uncertainOfGroup},
	},
	Role: { // from the entry of its well-known group
		{"objectSid", "assetHeader.externalAssetId", roleID},
		{"objectGUID", "assetHeader.vendorAssetId", roleGUID},
		{"name", "assetDetail.name", text},
		{"objectSid", role + "id", roleID},
		{"name", role + "name", text},
		{"description", role + "description", text},
		{memberships, role + "role", roleName},
		{memberships, role + "privileged", rolePrivileged},
		{"objectSid", role + "group", sid},
		{memberships, role + "members", completeGraph(roleMembers)},
		{memberships, role + "membersWithoutSid", completeGraph(roleMembersWithoutSID)},
		{memberships, role + "nestedGroups", completeGraph(roleGroups)},
		{memberships, role + "foreignMembers", completeGraph(foreignMembers)},
		{ad.AttributeDescriptor, role + "controlledBy", controlledBy(access.Group)},
		{ad.AttributeDescriptor + ", " + memberships, role + "unreadable", uncertainOfRole},
	},
	Domain: {
		{"objectSid", "assetHeader.externalAssetId", sid},
		{"objectGUID", "assetHeader.vendorAssetId", guid},
		{"name", "assetDetail.name", text},
		{"objectSid", domain + "id", sid},
		{"name", domain + "name", text},
		{collectedNames, domain + "names", collectedFrom(collectedNames)},
		{entryName, domain + "distinguishedName", entryDN},
		{"whenCreated", domain + "createdAt", generalizedTime},
		{"minPwdLength", domain + "passwordPolicy.minimumLength", number},
		{"pwdHistoryLength", domain + "passwordPolicy.historyLength", number},
		{"pwdProperties", domain + "passwordPolicy.complexity", passwordProperty(propertyComplex)},
		{"pwdProperties", domain + "passwordPolicy.reversibleEncryption", passwordProperty(propertyReversible)},
		{"minPwdAge", domain + "passwordPolicy.minimumAgeSeconds", interval},
		{"maxPwdAge", domain + "passwordPolicy.maximumAgeSeconds", interval},
		{"lockoutThreshold", domain + "lockoutPolicy.threshold", number},
		{"lockoutDuration", domain + "lockoutPolicy.durationSeconds", interval},
		{"lockOutObservationWindow", domain + "lockoutPolicy.observationWindowSeconds", interval},
		{"ms-DS-MachineAccountQuota", domain + "machineAccountQuota", number},
		{"msDS-Behavior-Version", domain + "functionalLevel", number},
		{collectedForestLevel, domain + "forestFunctionalLevel", collectedFrom(collectedForestLevel)},
		{collectedKrbtgt, domain + "krbtgtPasswordLastChangedAt", collectedFrom(collectedKrbtgt)},
		{collectedRecycleBin, domain + "recycleBin", collectedFrom(collectedRecycleBin)},
		{collectedPolicies, domain + "fineGrainedPasswordPolicies", collectedFrom(collectedPolicies)},
		{collectedTrusts, domain + "trusts", collectedFrom(collectedTrusts)},
		{collectedControllers, domain + "domainControllers", collectedFrom(collectedControllers)},
		{collectedEntraSSO, domain + "entraSsoPasswordLastChangedAt", collectedFrom(collectedEntraSSO)},
		{attributeExpirePasswords + ", " + alwaysPresent, domain + smartCardPasswordsExpire, expirePasswords},
		{memberships, domain + "privilegedUsers", completeGraph(privilegedUsers)},
		{collectedHeuristics, domain + "dsHeuristics", collectedFrom(collectedHeuristics)},
		{collectedLAPS, domain + "lapsSchema", collectedFrom(collectedLAPS)},
		{ad.AttributeDescriptor, domain + "controlledBy", controlledBy(access.Domain)},
		{collectedAdminSDHolder, domain + "adminSdHolder.controlledBy", collectedFrom(collectedAdminSDHolder)},
		{collectedKrbtgtControl, domain + "krbtgt.controlledBy", collectedFrom(collectedKrbtgtControl)},
		{collectedContainers, domain + "containers", collectedFrom(collectedContainers)},
		{collectedUnreadable, domain + "unreadable", collectedFrom(collectedUnreadable)},
	},
}

// lastRows has the rows that follow all others of an asset, because they name the principals that the
// others mention.
var lastRows = map[Kind][]row{
	User: {
		{"primaryGroupID, " + memberships, userPosture + "privilegedPaths", completeGraph(privilegedPaths)},
		{memberships, userPosture + "principals", principals},
	},
	Group: {
		{memberships, groupPosture + "privilegedPaths", completeGraph(privilegedPaths)},
		{memberships, groupPosture + "principals", principals},
	},
	Role:   {{memberships, role + "principals", principals}},
	Domain: {{memberships, domain + "principals", principals}},
}

// parts are the maps of the parts of the domain's asset that come from other entries.
var parts = map[string][]row{
	collectedPolicies: {
		{"distinguishedName", "dn", plainDN},
		{"name", "name", text},
		{"msDS-PasswordSettingsPrecedence", "precedence", number},
		{"msDS-PSOAppliesTo", "appliesTo", linkedPrincipals},
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
		{"securityIdentifier, trustPartner", "sid", trustedSID},
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
		{ad.AttributeDescriptor, "controlledBy", controlledBy(access.ServiceAccount)}, // which are computers, too
	},
	collectedNames: {
		{"dnsRoot", "dns", text},
		{"nETBIOSName", "netbios", text},
	},
	collectedKrbtgt:     {{"pwdLastSet", "", fileTime}},
	collectedRecycleBin: {{"msDS-EnabledFeatureBL, msDS-OptionalFeatureGUID", "", enabledFeature}},
	collectedEntraSSO:   {{"pwdLastSet", "", fileTime}},
	collectedHeuristics: {
		{heuristics, "anonymousAccess", heuristic(heuristicAnonymous, isTwo)},
		{heuristics, "anonymousNameService", heuristic(heuristicAnonymousNSPI, isSet)},
		{heuristics, "listObjectMode", heuristic(heuristicListObject, isSet)},
		{heuristics, "userPasswordIsPassword", heuristic(heuristicUserPassword, isPasswordSupport)},
		{heuristics, "adminSdHolderExclusions", heuristic(heuristicAdminSDHolder, hexFlags(protectionExclusions))},
		{heuristics, "uniquenessExclusions", heuristic(heuristicUniqueness, hexFlags(uniquenessExclusions))},
		{heuristics, "addAuthorization", heuristic(heuristicAddAuthorization, enforcement)},
		{heuristics, "ownerRightsBlocked", heuristic(heuristicOwnerRights, enforcement)},
	},
}

const (
	heuristics = "dSHeuristics, sPNMappings"
	// alwaysPresent is an attribute of the domain that every domain has, and no property set contains.
	alwaysPresent            = "ms-DS-MachineAccountQuota"
	attributeExpirePasswords = "msDS-ExpirePasswordsOnSmartCardOnlyAccounts"
	smartCardPasswordsExpire = "smartCardPasswordsExpire"
)

// Sources of the parts of the domain's asset.
const (
	collectedForestLevel = "(forestFunctionality of the rootDSE)"
	collectedNames       = "(crossRef)"
	collectedKrbtgt      = "(krbtgt)"
	collectedRecycleBin  = "(Recycle Bin Feature)"
	collectedPolicies    = "(Password Settings Container)"
	collectedTrusts      = "(trusted domains)"
	collectedControllers = "(domain controllers)"
	collectedEntraSSO    = "(AZUREADSSOACC)"
	collectedHeuristics  = "(Directory Service)"
	collectedLAPS        = "(schema)"
	collectedUnreadable  = "(unreadable attributes)"

	// Security descriptors of other objects than the domain's own.
	collectedAdminSDHolder = "(nTSecurityDescriptor of AdminSDHolder)"
	collectedKrbtgtControl = "(nTSecurityDescriptor of krbtgt)"
	collectedContainers    = "(nTSecurityDescriptor of containers)"
)
