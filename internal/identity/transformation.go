package identity

// row is one row of the transformation map. A source can be several attributes: with text,
// the first non-empty one is used; other values use all of them.
type row struct {
	source string
	target string // below "asset"
	value  value
}

// Version is the version of the map. A new version causes a full sync that deletes nothing.
const Version = 2

// transformation is the fixed map. The rows of one JSON object must be consecutive.
var transformation = map[Kind][]row{
	User: {
		{"objectSid", "assetHeader.externalAssetId", sid},
		{"objectGUID", "assetHeader.vendorAssetId", guid},
		{"name", "assetDetail.name", text},
		{"objectSid", "assetDetail.userAssetClass.id", sid},
		{"name", "assetDetail.userAssetClass.name", text},
		{"mail", "assetDetail.userAssetClass.email", text},
		{"givenName", "assetDetail.userAssetClass.firstName", text},
		{"sn", "assetDetail.userAssetClass.lastName", text},
		{"displayName", "assetDetail.userAssetClass.displayName", text},
		{"mobile", "assetDetail.userAssetClass.phone", text},
		{"title", "assetDetail.userAssetClass.jobTitle", text},
		{"whenCreated", "assetDetail.userAssetClass.activationDate", generalizedTime},
		{"lastLogon, lastLogonTimestamp", "assetDetail.userAssetClass.lastSuccessfulLoginAt", lastLogon},
		{"pwdLastSet", "assetDetail.userAssetClass.passwordLastChangedAt", fileTime},
		{"accountExpires", "assetDetail.userAssetClass.accountExpirationAt", fileTime},
		{"badPwdCount", "assetDetail.userAssetClass.failedPasswordAttemptCount", failedLogons},
		{"badPasswordTime", "assetDetail.userAssetClass.lastFailedPasswordAttemptAt", lastFailedLogon},
		{"l", "assetDetail.userAssetClass.currentAddress.city", text},
		{"co, c", "assetDetail.userAssetClass.currentAddress.country", text},
		{"streetAddress", "assetDetail.userAssetClass.currentAddress.streetAddress", text},
		{"st", "assetDetail.userAssetClass.currentAddress.state", text},
		{"userAccountControl, accountExpires, msDS-User-Account-Control-Computed",
			"assetDetail.userAssetClass.status", userStatus},
	},
	Group: {
		{"objectSid", "assetHeader.externalAssetId", sid},
		{"objectGUID", "assetHeader.vendorAssetId", guid},
		{"name", "assetDetail.name", text},
		{"objectSid", "assetDetail.groupAssetClass.id", sid},
		{"name", "assetDetail.groupAssetClass.name", text},
		{"displayName", "assetDetail.groupAssetClass.displayName", text},
		{"description", "assetDetail.groupAssetClass.description", text},
		{"groupType", "assetDetail.groupAssetClass.type", groupPurpose},
		{"groupType", "assetDetail.groupAssetClass.visibility", groupVisibility},
	},
}

// activity lists the sources whose changes are not sent by themselves, only together with
// another change. Each domain controller updates them locally, without a new update sequence
// number, except for lastLogonTimestamp, which is replicated every few days. A delta sync sends an
// account whose lastLogonTimestamp is later than what was sent.
var activity = []string{"lastLogon", "badPwdCount", "badPasswordTime", "lastLogonTimestamp"}

// Filter has the LDAP filter of each kind. sAMAccountType is indexed; 805306368 excludes
// computers, contacts and managed service accounts.
var Filter = map[Kind]string{
	User:  "(sAMAccountType=805306368)",
	Group: "(objectClass=group)",
	// Standalone, group and delegated managed service accounts.
	ServiceAccount: "(|(objectClass=msDS-ManagedServiceAccount)(objectClass=msDS-GroupManagedServiceAccount)(objectClass=msDS-DelegatedManagedServiceAccount))",
}

// The enumerations. The platform specifies none, so they are defined here.
const (
	statusActive          = "ACTIVE"
	statusDeleted         = "DELETED"
	statusDisabled        = "DISABLED"
	statusExpired         = "EXPIRED"
	statusLocked          = "LOCKED"
	statusPasswordExpired = "PASSWORD_EXPIRED"

	accountTypeService = "SERVICE"

	groupSecurity     = "SECURITY"
	groupDistribution = "DISTRIBUTION"

	scopeBuiltinLocal = "BUILTIN_LOCAL"
	scopeDomainLocal  = "DOMAIN_LOCAL"
	scopeGlobal       = "GLOBAL"
	scopeUniversal    = "UNIVERSAL"
)

// scopeVisibility maps group scopes to visibility. Groups that can be used outside of their
// domain are public.
var scopeVisibility = map[string]string{
	scopeUniversal:    "PUBLIC",
	scopeGlobal:       "PUBLIC",
	scopeDomainLocal:  "PRIVATE",
	scopeBuiltinLocal: "PRIVATE",
}
