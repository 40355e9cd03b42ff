package ad

import "testing"

func TestIsUntracked(t *testing.T) {
	t.Parallel()
	for _, attribute := range []string{
		"memberOf", "MEMBEROF", "directReports", "managedObjects", "tokenGroups", "tokenGroupsGlobalAndUniversal", "tokenGroupsNoGCAcceptable",
		"msDS-User-Account-Control-Computed", "msDS-UserPasswordExpiryTimeComputed", "primaryGroupToken", "canonicalName", "msds-memberOfTransitive",
		"lastLogon", "lastLogoff", "badPwdCount", "badPasswordTime", "logonCount",
	} {
		if !IsUntracked(attribute) {
			t.Errorf("%s is tracked", attribute)
		}
	}
	for _, attribute := range []string{
		"", "member", "manager", "managedBy", "cn", "mail", "title", "userAccountControl", "lastLogonTimestamp", "lockoutTime", "pwdLastSet", "accountExpires",
		"objectClass", "objectGUID", "whenChanged", "uSNChanged", "distinguishedName", "extensionAttribute1", "memberOfX",
	} {
		if IsUntracked(attribute) {
			t.Errorf("%s is untracked", attribute)
		}
	}
}
