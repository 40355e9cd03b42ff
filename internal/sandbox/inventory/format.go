package inventory

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// number returns a number with commas between groups of three digits: 1,141.
func number[T int | int64](n T) string {
	text := strconv.FormatInt(int64(n), 10)
	for end := len(text) - 3; end > 0 && text[end-1] != '-'; end -= 3 {
		text = text[:end] + "," + text[end:]
	}
	return text
}

// count returns a number with its unit: 1 day, 42 days.
func count(n int64, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return number(n) + " " + unit
}

// units are the units of durations in seconds, the largest first.
var units = []struct {
	name    string
	seconds int64
}{{"day", 24 * 60 * 60}, {"hour", 60 * 60}, {"minute", 60}, {"second", 1}}

// interval returns a number of seconds in its two largest units: 42 days, 1 day 12 hours.
func interval(seconds int64) string {
	if seconds <= 0 {
		return "0 seconds"
	}
	var parts []string
	for _, unit := range units {
		if n := seconds / unit.seconds; n > 0 {
			parts = append(parts, count(n, unit.name))
			seconds %= unit.seconds
		} else if len(parts) > 0 {
			break
		}
		if len(parts) == 2 {
			break
		}
	}
	return strings.Join(parts, " ")
}

// age returns how long ago a time was, or how far ahead it is, in its largest unit.
func age(t, now time.Time) string {
	seconds, format := now.Unix()-t.Unix(), "%s ago"
	if seconds < 0 {
		seconds, format = -seconds, "in %s"
	}
	for _, unit := range units {
		if n := seconds / unit.seconds; n > 0 {
			return fmt.Sprintf(format, count(n, unit.name))
		}
	}
	return "now"
}

// lasted returns a duration between two states.
func lasted(d time.Duration) string {
	if d < time.Minute {
		return d.Round(time.Millisecond).String()
	}
	return interval(int64(d / time.Second))
}

// functionalLevels are the names of the functional levels of domains and forests (MS-ADTS 6.1.4.2,
// 6.1.4.3 and 6.1.4.4). The levels 8 and 9 do not exist.
var functionalLevels = map[int64]string{
	0: "Windows 2000", 1: "Windows Server 2003 interim", 2: "Windows Server 2003", 3: "Windows Server 2008", 4: "Windows Server 2008 R2",
	5: "Windows Server 2012", 6: "Windows Server 2012 R2", 7: "Windows Server 2016", 10: "Windows Server 2025",
}

func functionalLevel(n int64) string {
	return cmp.Or(functionalLevels[n], "Unknown level "+strconv.FormatInt(n, 10))
}

// labels are the texts of values that would be wrong as words in lower case.
var labels = map[string]string{
	"ADMIN_COUNT_WITHOUT_ROLE":          "adminCount without a protected role",
	"ASREP_ROASTABLE_AND_PRIVILEGED":    "AS-REP roastable and privileged",
	"PRIVILEGED_NOT_IN_PROTECTED_USERS": "Not in Protected Users",
	"PRIVILEGED_WITH_OLD_PASSWORD":      "Privileged with an old password",

	"SERVICE":            "Service account",
	"DES_ONLY":           "DES only",
	"DES_CBC_CRC":        "DES-CBC-CRC",
	"DES_CBC_MD5":        "DES-CBC-MD5",
	"RC4_HMAC":           "RC4-HMAC",
	"AES128":             "AES-128",
	"AES256":             "AES-256",
	"AES256_SESSION_KEY": "AES-256 session keys",

	"X509_ISSUER_SUBJECT":       "X.509 issuer and subject",
	"X509_SUBJECT_ONLY":         "X.509 subject only",
	"X509_RFC822":               "X.509 e-mail address",
	"X509_ISSUER_SERIAL_NUMBER": "X.509 issuer and serial number",
	"X509_SKI":                  "X.509 subject key identifier",
	"X509_SHA1_PUBLIC_KEY":      "X.509 SHA-1 hash of the public key",

	"MIT":                                  "MIT Kerberos",
	"DCE":                                  "DCE",
	"ENTRA_ID":                             "Entra ID",
	"USES_RC4_ENCRYPTION":                  "Uses RC4 encryption",
	"USES_AES_KEYS":                        "Uses AES keys",
	"PIM_TRUST":                            "PIM trust",
	"CROSS_ORGANIZATION_NO_TGT_DELEGATION": "Cross-organization, no TGT delegation",
	"CROSS_ORGANIZATION_ENABLE_TGT_DELEGATION": "Cross-organization, TGT delegation enabled",
	"CROSS_ORGANIZATION":                       "Cross-organization",
	"NON_TRANSITIVE":                           "Non-transitive",

	"USER_PRINCIPAL_NAME":                     "User principal name",
	"WELL_KNOWN":                              "Well-known",
	"DNS_ADMINS":                              "DNS admins",
	"HYPER_V_ADMINISTRATORS":                  "Hyper-V administrators",
	"READ_ONLY_DOMAIN_CONTROLLERS":            "Read-only domain controllers",
	"ENTERPRISE_READ_ONLY_DOMAIN_CONTROLLERS": "Enterprise read-only domain controllers",
	"PRE_WINDOWS_2000_COMPATIBLE_ACCESS":      "Pre-Windows 2000 compatible access",
}

// label returns a value such as PASSWORD_EXPIRED as text: Password expired.
func label(value string) string {
	return cmp.Or(labels[value], capitalize(strings.ToLower(strings.ReplaceAll(value, "_", " "))))
}

// titleOf returns the name of a field as words: nestingDepth is Nesting depth.
func titleOf(path string) string {
	var words strings.Builder
	for n, r := range path {
		switch {
		case r == '.':
			words.WriteString(" › ")
		case unicode.IsUpper(r) && n > 0:
			words.WriteString(" " + string(unicode.ToLower(r)))
		default:
			words.WriteRune(r)
		}
	}
	return capitalize(words.String())
}

func capitalize(text string) string {
	r, size := utf8.DecodeRuneInString(text)
	if size == 0 {
		return ""
	}
	return string(unicode.ToUpper(r)) + text[size:]
}

// Lengths of the longest words that a line is not broken in.
const (
	maxWord       = 44
	maxIdentifier = 24 // of SIDs, DNs and other identifiers
)

// breakable splits a text with words longer than the limit after characters at which a line can be broken
// if there is no room: those between the parts of an address, a DN or a SID.
func breakable(text string, limit int) []string {
	if !hasLongWord(text, limit) {
		return []string{text}
	}
	var parts []string
	start := 0
	for n, r := range text {
		if end := n + 1; r < utf8.RuneSelf && strings.ContainsRune("@.,-_/\\=:;", r) && end < len(text) {
			parts = append(parts, text[start:end])
			start = end
		}
	}
	return append(parts, text[start:])
}

func hasLongWord(text string, limit int) bool {
	for word := range strings.FieldsSeq(text) {
		if len(word) > limit && utf8.RuneCountInString(word) > limit {
			return true
		}
	}
	return false
}
