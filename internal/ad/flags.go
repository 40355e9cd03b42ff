package ad

import "strconv"

// parseFlags parses 32 flags, which the directory returns as a signed decimal number.
func parseFlags[T ~uint32](value []byte) (T, bool) {
	n, err := strconv.ParseInt(string(value), 10, 32)
	if err != nil { // n may be the nearest number in range
		return 0, false
	}
	return T(n), true
}

// AccountControl has the flags of userAccountControl and msDS-User-Account-Control-Computed
// (MS-ADTS 2.2.16).
type AccountControl uint32

// The flags of AccountControl.
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
	// AccountLocked and AccountPasswordExpired are valid only in the computed attribute.
	AccountLocked          AccountControl = 0x10
	AccountPasswordExpired AccountControl = 0x800000
)

// ParseAccountControl parses a signed decimal number.
func ParseAccountControl(value []byte) (AccountControl, bool) {
	return parseFlags[AccountControl](value)
}

// GroupType has the flags of groupType (MS-ADTS 2.2.12).
type GroupType uint32

// The flags of GroupType.
const (
	GroupSystem      GroupType = 0x1 // builtin, created by the system
	GroupGlobal      GroupType = 0x2
	GroupDomainLocal GroupType = 0x4
	GroupUniversal   GroupType = 0x8
	GroupSecurity    GroupType = 0x80000000 // unset: distribution group
)

// ParseGroupType parses a signed decimal number.
func ParseGroupType(value []byte) (GroupType, bool) { return parseFlags[GroupType](value) }

// EncryptionTypes has the flags of msDS-SupportedEncryptionTypes (MS-KILE 2.2.7). The lower bits
// are Kerberos encryption types, the upper bits are protocol features.
type EncryptionTypes uint32

// The flags of EncryptionTypes.
const (
	EncryptionDESCRC        EncryptionTypes = 0x1
	EncryptionDESMD5        EncryptionTypes = 0x2
	EncryptionRC4           EncryptionTypes = 0x4
	EncryptionAES128        EncryptionTypes = 0x8
	EncryptionAES256        EncryptionTypes = 0x10
	EncryptionAES256Session EncryptionTypes = 0x20
)

// ParseEncryptionTypes parses a signed decimal number.
func ParseEncryptionTypes(value []byte) (EncryptionTypes, bool) {
	return parseFlags[EncryptionTypes](value)
}

// RID is a relative identifier: the last sub-authority of a SID, unique in its domain.
type RID uint32

// ParseRID parses a decimal number, such as primaryGroupID.
func ParseRID(value []byte) (RID, bool) {
	n, err := strconv.ParseUint(string(value), 10, 32)
	if err != nil {
		return 0, false
	}
	return RID(n), true
}
