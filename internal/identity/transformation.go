package identity

// row is one line of the transformation map. A source "co, c" means co, else c;
// a picker reads all of its sources.
type row struct {
	source string
	target string // below "asset"
	value  value
}

// Version changes with the map: what was sent under another one is read again.
const Version = 1

// transformation is the fixed map. The lines of one JSON object stand together.
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
		{"lastLogon", "assetDetail.userAssetClass.lastSuccessfulLoginAt", fileTime},
		{"pwdLastSet", "assetDetail.userAssetClass.passwordLastChangedAt", fileTime},
		{"accountExpires", "assetDetail.userAssetClass.accountExpirationAt", fileTime},
		{"badPwdCount", "assetDetail.userAssetClass.failedPasswordAttemptCount", number},
		{"badPasswordTime", "assetDetail.userAssetClass.lastFailedPasswordAttemptAt", fileTime},
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

// activity are the sources that every domain controller counts for itself, without
// a new sequence number, and the one that tells the others of it every few days.
// They are sent along with any other change.
var activity = []string{"lastLogon", "badPwdCount", "badPasswordTime", "lastLogonTimestamp"}

// Filter finds the objects of each kind. sAMAccountType is indexed, and
// this value leaves out computers, contacts and managed service accounts.
var Filter = map[Kind]string{
	User:  "(sAMAccountType=805306368)",
	Group: "(objectClass=group)",
	// Managed ones, group-managed ones and those that took another account's place.
	ServiceAccount: "(|(objectClass=msDS-ManagedServiceAccount)(objectClass=msDS-GroupManagedServiceAccount)(objectClass=msDS-DelegatedManagedServiceAccount))",
}

// The enumerations. The platform publishes none, so these are our own.
const (
	statusActive          = "ACTIVE"
	statusDeleted         = "DELETED" // of an object that has gone
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

// visibilityOf looks a group's scope up: public is what can be used outside its domain.
var visibilityOf = map[string]string{
	scopeUniversal:    "PUBLIC",
	scopeGlobal:       "PUBLIC",
	scopeDomainLocal:  "PRIVATE",
	scopeBuiltinLocal: "PRIVATE",
}
