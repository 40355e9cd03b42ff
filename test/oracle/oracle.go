// Package oracle is an independent second implementation of the transformation, written from
// its specification without the connector's code. Tests compare the assets that the built
// connector sends with it, so that a wrong reading of the specification is detected.
//
// It covers the identities of users and groups, from entries of a domain controller. It does not
// cover the security posture.
package oracle

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Entry has the values of an object by attribute. Attribute names are in lower case.
type Entry map[string][]string

// First returns the first value of an attribute, or "".
func (e Entry) First(attribute string) string {
	if values := e[strings.ToLower(attribute)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Flags returns the flags of a signed 32-bit decimal number, or 0 for any other value.
func (e Entry) Flags(attribute string) uint32 {
	n, err := strconv.ParseInt(e.First(attribute), 10, 64)
	if err != nil || n < math.MinInt32 || n > math.MaxInt32 {
		return 0
	}
	return uint32(n)
}

// FileTime returns a time stored as 100 ns intervals since 1601. It returns false for 0 and the
// maximum, which mean none.
func (e Entry) FileTime(attribute string) (time.Time, bool) {
	n, err := strconv.ParseInt(e.First(attribute), 10, 64)
	if err != nil || n == 0 || n == math.MaxInt64 {
		return time.Time{}, false
	}
	epoch := time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC)
	return time.UnixMilli(epoch.UnixMilli() + n/10_000).UTC(), true
}

// The kinds of entries.
const (
	User  = "user"
	Group = "group"
	Other = ""
)

// Kind returns the kind of an entry by its object classes. The connector uses sAMAccountType
// instead.
func (e Entry) Kind() string {
	hasClass := func(class string) bool { return slices.Contains(e["objectclass"], class) }
	switch {
	case e.First("isDeleted") != "":
		return Other
	case hasClass("group"):
		return Group
	case hasClass("computer"), hasClass("msDS-ManagedServiceAccount"), hasClass("msDS-GroupManagedServiceAccount"):
		return Other
	case hasClass("user"):
		return User
	}
	return Other
}

// FlatAsset maps the paths of an asset's leaves to their JSON values.
type FlatAsset map[string]string

// Text returns the string at a path without quotes, or "".
func (f FlatAsset) Text(path string) string {
	var text string
	_ = json.Unmarshal([]byte(f[path]), &text)
	return text
}

// set sets the string at a path, unless the text is empty.
func (f FlatAsset) set(path, text string) {
	if text != "" {
		quoted, _ := json.Marshal(text) // a string cannot fail
		f[path] = string(quoted)
	}
}

// Paths of an asset's fields, and prefixes of those of its class.
const (
	ExternalID = "asset.assetHeader.externalAssetId"
	VendorID   = "asset.assetHeader.vendorAssetId"
	Name       = "asset.assetDetail.name"
	UserClass  = "asset.assetDetail.userAssetClass."
	GroupClass = "asset.assetDetail.groupAssetClass."
)

// Readable reports whether the account that read a user or group may read all attributes that
// every one has on a domain controller. Otherwise the connector must not send it: the gateway
// keeps what it has.
func (e Entry) Readable() bool {
	every := []string{"objectSid", "objectGUID", "name", "whenCreated", "groupType"}
	if e.Kind() == User {
		every[4] = "userAccountControl"
	}
	return !slices.ContainsFunc(every, func(attribute string) bool { return e.First(attribute) == "" })
}

// Asset returns the expected asset of a user or group, or nil if it is not readable. now
// determines a user's status.
func (e Entry) Asset(now time.Time) FlatAsset {
	if !e.Readable() {
		return nil
	}
	f, class := FlatAsset{}, GroupClass
	if e.Kind() == User {
		class = UserClass
		e.user(f, now)
	} else {
		e.group(f)
	}
	sid := SID(e.First("objectSid"))
	f.set(ExternalID, sid)
	f.set(VendorID, GUID(e.First("objectGUID")))
	f.set(Name, e.First("name"))
	f.set(class+"id", sid)
	f.set(class+"name", e.First("name"))
	f.set(class+"displayName", e.First("displayName"))
	return f
}

const timeFormat = "2006-01-02T15:04:05.000Z"

func (e Entry) user(f FlatAsset, now time.Time) {
	for source, target := range map[string]string{
		"mail": "email", "givenName": "firstName", "sn": "lastName", "mobile": "phone", "title": "jobTitle",
		"l": "currentAddress.city", "c": "currentAddress.country", "streetAddress": "currentAddress.streetAddress", "st": "currentAddress.state",
	} {
		f.set(UserClass+target, e.First(source))
	}
	f.set(UserClass+"currentAddress.country", e.First("co")) // overwrites c
	if created, err := time.Parse("20060102150405.0Z", e.First("whenCreated")); err == nil {
		f.set(UserClass+"activationDate", created.Format(timeFormat))
	}
	for source, target := range map[string]string{
		"pwdLastSet": "passwordLastChangedAt", "accountExpires": "accountExpirationAt",
		"badPasswordTime": "lastFailedPasswordAttemptAt",
	} {
		if t, ok := e.FileTime(source); ok {
			f.set(UserClass+target, t.Format(timeFormat))
		}
	}
	var latest time.Time
	for _, source := range []string{"lastLogon", "lastLogonTimestamp"} {
		if t, ok := e.FileTime(source); ok && t.After(latest) {
			latest = t
			f.set(UserClass+"lastSuccessfulLoginAt", t.Format(timeFormat))
		}
	}
	if n, err := strconv.Atoi(e.First("badPwdCount")); err == nil {
		f[UserClass+"failedPasswordAttemptCount"] = strconv.Itoa(n)
	}
	f.set(UserClass+"status", e.status(now))
}

func (e Entry) status(now time.Time) string {
	stored, computed := e.Flags("userAccountControl"), e.Flags("msDS-User-Account-Control-Computed")
	expires, hasExpiry := e.FileTime("accountExpires")
	switch {
	case (stored|computed)&0x2 != 0:
		return "DISABLED"
	case hasExpiry && !expires.After(now):
		return "EXPIRED"
	case computed&0x10 != 0:
		return "LOCKED"
	case computed&0x800000 != 0:
		return "PASSWORD_EXPIRED"
	}
	return "ACTIVE"
}

func (e Entry) group(f FlatAsset) {
	bits := e.Flags("groupType")
	kind, visibility := "DISTRIBUTION", "PUBLIC" // global and universal
	if bits&0x80000000 != 0 {
		kind = "SECURITY"
	}
	if bits&(0x1|0x4) != 0 { // builtin, domain local
		visibility = "PRIVATE"
	}
	f.set(GroupClass+"description", e.First("description"))
	f.set(GroupClass+"type", kind)
	f.set(GroupClass+"visibility", visibility)
}

// SID returns the text form of a binary security identifier, or "" if it is too short.
func SID(raw string) string {
	if len(raw) < 8 {
		return ""
	}
	authority := uint64(binary.BigEndian.Uint16([]byte(raw[2:4])))<<32 | uint64(binary.BigEndian.Uint32([]byte(raw[4:8])))
	text := fmt.Sprintf("S-%d-%d", raw[0], authority)
	for i := 8; i+4 <= len(raw); i += 4 {
		text += fmt.Sprintf("-%d", binary.LittleEndian.Uint32([]byte(raw[i:i+4])))
	}
	return text
}

// GUID returns the text form of a binary GUID, or "" if its length is wrong.
func GUID(raw string) string {
	if len(raw) != 16 {
		return ""
	}
	b := []byte(raw)
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

// Flatten returns the leaves of an asset's JSON. An empty object is a leaf, because assets must
// not have any.
func Flatten(asset []byte) (FlatAsset, error) {
	decoder := json.NewDecoder(bytes.NewReader(asset))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("%w in %s", err, asset)
	}
	flat := FlatAsset{}
	var walk func(path string, node any)
	walk = func(path string, node any) {
		if object, ok := node.(map[string]any); ok && len(object) > 0 {
			for key, child := range object {
				walk(strings.TrimPrefix(path+"."+key, "."), child)
			}
			return
		}
		leaf, _ := json.Marshal(node) // decoded JSON cannot fail
		flat[path] = string(leaf)
	}
	walk("", tree)
	return flat, nil
}
