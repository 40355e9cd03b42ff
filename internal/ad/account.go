package ad

import "strconv"

// parseFlags reads 32 bits in the signed decimal in which the directory writes them.
// What cannot be read is no flags: strconv gives the nearest number otherwise.
func parseFlags[T ~uint32](value []byte) (T, bool) {
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil {
		return 0, false
	}
	return T(n), true
}

// AccountControl is userAccountControl and msDS-User-Account-Control-Computed
// (MS-ADTS 2.2.16).
type AccountControl uint32

const (
	AccountDisabled                  AccountControl = 0x2
	AccountPasswordNotRequired       AccountControl = 0x20
	AccountReversibleEncryption      AccountControl = 0x80
	AccountPasswordNeverExpires      AccountControl = 0x10000
	AccountSmartCardRequired         AccountControl = 0x40000
	AccountTrustedForDelegation      AccountControl = 0x80000
	AccountNotDelegated              AccountControl = 0x100000
	AccountDESOnly                   AccountControl = 0x200000
	AccountNoPreauthentication       AccountControl = 0x400000
	AccountTrustedToAuthForDelegated AccountControl = 0x1000000
	// AccountLocked and AccountPasswordExpired are true only in the computed attribute.
	AccountLocked          AccountControl = 0x10
	AccountPasswordExpired AccountControl = 0x800000
)

// ParseAccountControl reads the decimal in which the directory writes the flags.
func ParseAccountControl(value []byte) (AccountControl, bool) {
	return parseFlags[AccountControl](value)
}

// GroupType is a group's scope and purpose (MS-ADTS 2.2.12).
type GroupType uint32

const (
	GroupSystem      GroupType = 0x1 // created by the system: builtin
	GroupGlobal      GroupType = 0x2
	GroupDomainLocal GroupType = 0x4
	GroupUniversal   GroupType = 0x8
	GroupSecurity    GroupType = 0x80000000 // else distribution
)

// ParseGroupType reads the decimal in which the directory writes the flags.
func ParseGroupType(value []byte) (GroupType, bool) { return parseFlags[GroupType](value) }

// EncryptionTypes is msDS-SupportedEncryptionTypes (MS-KILE 2.2.7): the ciphers of
// Kerberos in the lower bits, features of the protocol above.
type EncryptionTypes uint32

const (
	EncryptionDESCRC        EncryptionTypes = 0x1
	EncryptionDESMD5        EncryptionTypes = 0x2
	EncryptionRC4           EncryptionTypes = 0x4
	EncryptionAES128        EncryptionTypes = 0x8
	EncryptionAES256        EncryptionTypes = 0x10
	EncryptionAES256Session EncryptionTypes = 0x20
)

// ParseEncryptionTypes reads the decimal in which the directory writes the flags.
func ParseEncryptionTypes(value []byte) (EncryptionTypes, bool) {
	return parseFlags[EncryptionTypes](value)
}

// RID is the last part of a SID: what a domain calls one of its accounts.
type RID uint32

// ParseRID reads the decimal of primaryGroupID.
func ParseRID(value []byte) (RID, bool) {
	n, err := strconv.ParseUint(string(value), 10, 32)
	if err != nil {
		return 0, false
	}
	return RID(n), true
}
