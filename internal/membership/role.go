package membership

import (
	"encoding/binary"
	"math/bits"
	"strings"

	"adconnector/internal/ad"
)

// Role is the role of a well-known group. The zero value is no role.
type Role byte

// roleSet is a set of roles.
type roleSet uint64

// The graph stores the position of a role, so new ones must be appended. Roles are identified by SID,
// because group names depend on the domain's language (MS-DTYP 2.4.2.4). Only DnsAdmins has no
// well-known RID. Its account name is not translated.
var roles = []struct {
	name       string
	builtin    ad.RID // within S-1-5-32
	domain     ad.RID // within the domain
	account    string // sAMAccountName
	privileged bool   // membership is a privilege
}{
	{name: "ADMINISTRATORS", builtin: 544, privileged: true},
	{name: "DOMAIN_ADMINS", domain: 512, privileged: true},
	{name: "ENTERPRISE_ADMINS", domain: 519, privileged: true},
	{name: "SCHEMA_ADMINS", domain: 518, privileged: true},
	{name: "ACCOUNT_OPERATORS", builtin: 548, privileged: true},
	{name: "SERVER_OPERATORS", builtin: 549, privileged: true},
	{name: "PRINT_OPERATORS", builtin: 550, privileged: true},
	{name: "BACKUP_OPERATORS", builtin: 551, privileged: true},
	{name: "REPLICATOR", builtin: 552, privileged: true},
	{name: "NETWORK_CONFIGURATION_OPERATORS", builtin: 556, privileged: true},
	{name: "INCOMING_FOREST_TRUST_BUILDERS", builtin: 557, privileged: true},
	{name: "HYPER_V_ADMINISTRATORS", builtin: 578, privileged: true},
	{name: "REMOTE_MANAGEMENT_USERS", builtin: 580, privileged: true},
	{name: "STORAGE_REPLICA_ADMINISTRATORS", builtin: 582, privileged: true},
	{name: "DOMAIN_CONTROLLERS", domain: 516, privileged: true},
	{name: "READ_ONLY_DOMAIN_CONTROLLERS", domain: 521, privileged: true},
	{name: "ENTERPRISE_READ_ONLY_DOMAIN_CONTROLLERS", domain: 498, privileged: true},
	{name: "CLONEABLE_DOMAIN_CONTROLLERS", domain: 522, privileged: true},
	{name: "CERT_PUBLISHERS", domain: 517, privileged: true},
	{name: "GROUP_POLICY_CREATOR_OWNERS", domain: 520, privileged: true},
	{name: "KEY_ADMINS", domain: 526, privileged: true},
	{name: "ENTERPRISE_KEY_ADMINS", domain: 527, privileged: true},
	{name: "DNS_ADMINS", account: "DnsAdmins", privileged: true},
	{name: "PROTECTED_USERS", domain: 525}, // restricts its members
	// It may read all users and groups, except for confidential attributes, and change nothing.
	{name: "PRE_WINDOWS_2000_COMPATIBLE_ACCESS", builtin: 554},
}

// privileged is the set of privileged roles.
var privileged = func() (set roleSet) {
	for i, r := range roles {
		if r.privileged {
			set |= Role(i + 1).set()
		}
	}
	return set
}()

// RoleOf returns the role of a group by its SID and account name, or 0.
func RoleOf(sid ad.SID, account []byte) Role {
	authority, rid, ok := sid.Split()
	if !ok {
		return 0
	}
	builtin, domain := isBuiltin(authority), isDomain(authority)
	for i, r := range roles {
		switch {
		case r.builtin != 0 && builtin && rid == r.builtin,
			r.domain != 0 && domain && rid == r.domain,
			r.account != "" && domain && strings.EqualFold(string(account), r.account):
			return Role(i + 1)
		}
	}
	return 0
}

// RoleGroups returns the SIDs of the groups of roles in a domain, and the account names of those without a
// well-known SID. Without the SID of the domain, only those of the built-in groups are known.
func RoleGroups(domain ad.SID) (sids []ad.SID, accounts []string) {
	for _, r := range roles {
		switch {
		case r.builtin != 0:
			sids = append(sids, builtinDomain.Child(r.builtin))
		case r.domain != 0 && len(domain) > 0:
			sids = append(sids, domain.Child(r.domain))
		case r.account != "":
			accounts = append(accounts, r.account)
		}
	}
	return sids, accounts
}

// builtinDomain is the domain of the built-in groups: S-1-5-32.
var builtinDomain = ad.SID{1, 1, 0, 0, 0, 0, 0, ntAuthority, subBuiltin, 0, 0, 0}

func (r Role) String() string {
	if r == 0 || int(r) > len(roles) {
		return ""
	}
	return roles[r-1].name
}

// IsPrivileged reports whether membership in the group is a privilege.
func (r Role) IsPrivileged() bool { return r.set()&privileged != 0 }

func (r Role) set() roleSet {
	if r == 0 {
		return 0
	}
	return 1 << (r - 1)
}

// each calls f with every role of the set.
func (s roleSet) each(f func(Role)) {
	for ; s != 0; s &= s - 1 {
		f(Role(bits.TrailingZeros64(uint64(s)) + 1))
	}
}

const (
	subBuiltin  = 32
	subDomain   = 21
	sidHeader   = 8
	ntAuthority = 5
)

// isBuiltin reports whether a SID without its RID is S-1-5-32.
func isBuiltin(authority []byte) bool {
	return isNTAuthority(authority, 2) && binary.LittleEndian.Uint32(authority[sidHeader:]) == subBuiltin
}

// isDomain reports whether a SID without its RID is a domain's: S-1-5-21-x-y-z.
func isDomain(authority []byte) bool {
	return isNTAuthority(authority, 5) && binary.LittleEndian.Uint32(authority[sidHeader:]) == subDomain
}

func isNTAuthority(authority []byte, subAuthorities int) bool {
	return len(authority) == sidHeader+4*(subAuthorities-1) && int(authority[1]) == subAuthorities && authority[7] == ntAuthority &&
		string(authority[2:7]) == "\x00\x00\x00\x00\x00"
}
