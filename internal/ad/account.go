package ad

import "strconv"

// AccountControl is userAccountControl and msDS-User-Account-Control-Computed
// (MS-ADTS 2.2.16).
type AccountControl uint32

const (
	AccountDisabled AccountControl = 0x2
	// AccountLocked and AccountPasswordExpired are true only in the computed attribute.
	AccountLocked          AccountControl = 0x10
	AccountPasswordExpired AccountControl = 0x800000
)

// ParseAccountControl reads the signed decimal in which the directory writes the flags.
func ParseAccountControl(value []byte) (AccountControl, bool) {
	n, err := strconv.ParseInt(string(value), 10, 32)
	return AccountControl(n), err == nil
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

// ParseGroupType reads the signed decimal in which the directory writes the flags.
func ParseGroupType(value []byte) (GroupType, bool) {
	n, err := strconv.ParseInt(string(value), 10, 32)
	return GroupType(n), err == nil
}
