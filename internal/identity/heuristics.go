package identity

import (
	"strconv"

	"adconnector/internal/ad"
)

// dSHeuristics has one switch in each character (MS-ADTS 6.1.1.2.4.1.2). A missing attribute, and a
// missing character, stand for "0". Nothing distinguishes a missing attribute from an unreadable one.
// By default, Authenticated Users can read all attributes of the entry, so the attribute is missing if
// sPNMappings is readable, which every domain has and which no property set contains either.

// The characters, counted from 1.
const (
	heuristicListObject       = 3  // fDoListObject
	heuristicAnonymous        = 7  // fLDAPBlockAnonOps
	heuristicAnonymousNSPI    = 8  // fAllowAnonNSPI
	heuristicUserPassword     = 9  // fUserPwdSupport
	heuristicAdminSDHolder    = 16 // dwAdminSDExMask
	heuristicUniqueness       = 21 // DoNotVerifyUPNAndOrSPNUniqueness
	heuristicAddAuthorization = 28 // AttributeAuthorizationOnLDAPAdd
	heuristicOwnerRights      = 29 // BlockOwnerImplicitRights
)

// heuristic returns a value of one character. The slots are those of dSHeuristics and sPNMappings.
func heuristic(number int, appendValue func(dst []byte, character byte) []byte) value {
	return func(dst []byte, src *source, slots []int) []byte {
		v := src.entry.First(slots[0])
		switch {
		case len(v) >= number:
			return appendValue(dst, v[number-1])
		case len(v) > 0, len(src.entry.First(slots[1])) > 0:
			return appendValue(dst, '0')
		}
		return dst
	}
}

// isSet appends whether a character is not the default.
func isSet(dst []byte, character byte) []byte { return strconv.AppendBool(dst, character != '0') }

// isTwo appends whether a character is 2, the only value that allows anonymous operations.
func isTwo(dst []byte, character byte) []byte { return strconv.AppendBool(dst, character == '2') }

// isPasswordSupport appends whether userPassword is the password. In AD DS, 0 and 2 are no.
func isPasswordSupport(dst []byte, character byte) []byte {
	return strconv.AppendBool(dst, character != '0' && character != '2')
}

// hexFlags appends the names of the bits of a hexadecimal digit. No bits append nothing.
func hexFlags(names []namedFlag[uint32]) func(dst []byte, character byte) []byte {
	return func(dst []byte, character byte) []byte {
		bits, err := strconv.ParseUint(string(rune(character)), 16, 4)
		if err != nil {
			return dst
		}
		return appendNames(dst, uint32(bits), names)
	}
}

var (
	// protectionExclusions are the groups that AdminSDHolder does not protect (MS-ADTS 3.1.1.6.1.4).
	protectionExclusions = []namedFlag[uint32]{
		{1, "ACCOUNT_OPERATORS"}, {2, "SERVER_OPERATORS"}, {4, "PRINT_OPERATORS"}, {8, "BACKUP_OPERATORS"},
	}
	uniquenessExclusions = []namedFlag[uint32]{{1, "USER_PRINCIPAL_NAME"}, {2, "SERVICE_PRINCIPAL_NAME"}}
)

// enforcement appends whether a check of KB5008383 is enforced. With DEFAULT, it depends on the
// updates of the domain controllers.
func enforcement(dst []byte, character byte) []byte {
	switch character {
	case '0':
		return appendEnum(dst, "DEFAULT")
	case '2':
		return appendEnum(dst, "DISABLED")
	default:
		return appendEnum(dst, "ENFORCED")
	}
}

// hasAny reports whether an entry has a value of any attribute.
func hasAny(entry *ad.Entry) bool {
	for _, values := range entry.Values {
		if len(values) > 0 && len(values[0]) > 0 {
			return true
		}
	}
	return false
}

// expirePasswords appends msDS-ExpirePasswordsOnSmartCardOnlyAccounts. The second slot is of an
// attribute that every domain has: if it is readable, the first one is missing, which means false.
func expirePasswords(dst []byte, src *source, slots []int) []byte {
	if len(src.entry.First(slots[0])) == 0 && len(src.entry.First(slots[1])) > 0 {
		return append(dst, "false"...)
	}
	return boolean(dst, src, slots)
}

// privilegedUsers appends the number of users with a privileged role, and of those in Protected Users.
func privilegedUsers(dst []byte, src *source, _ []int) []byte {
	if src.graph == nil {
		return dst
	}
	privileged, protected := src.graph.PrivilegedUsers()
	dst = strconv.AppendInt(append(dst, `{"count":`...), int64(privileged), 10)
	return append(strconv.AppendInt(append(dst, `,"inProtectedUsers":`...), int64(protected), 10), '}')
}

// The attributes of the legacy Microsoft LAPS and of Windows LAPS, for SetLAPS.
const (
	AttributeLegacyLAPS  = "ms-Mcs-AdmPwd"
	AttributeWindowsLAPS = "msLAPS-Password"
)
