// Package oracle is the transformation written a second time, from its description
// alone and with none of the connector's code, so that one misreading is not shared
// by the code and its tests. Tests that run the built connector hold what a gateway
// has against it.
//
// It covers the fields that every asset has, of users and of groups, for entries as
// any server of LDAP shows them. It does not cover the security posture.
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

// Entry is what a directory shows of an object: values by attribute, whose name is in
// lower case.
type Entry map[string][]string

// First is the first value of an attribute, "" without one.
func (e Entry) First(attribute string) string {
	if values := e[strings.ToLower(attribute)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Bits are those of a signed number of 32 bits; of anything else none is set.
func (e Entry) Bits(attribute string) uint32 {
	n, err := strconv.ParseInt(e.First(attribute), 10, 64)
	if err != nil || n < math.MinInt32 || n > math.MaxInt32 {
		return 0
	}
	return uint32(n)
}

// Moment reads a count of 100 ns since 1601, of which 0 and the largest mean none.
func (e Entry) Moment(attribute string) (time.Time, bool) {
	n, err := strconv.ParseInt(e.First(attribute), 10, 64)
	if err != nil || n == 0 || n == math.MaxInt64 {
		return time.Time{}, false
	}
	first := time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC)
	return time.UnixMilli(first.UnixMilli() + n/10_000).UTC(), true
}

// The kinds of entries.
const (
	User  = "user"
	Group = "group"
	Other = ""
)

// Kind tells users and groups from what lives beside them, by class alone: the
// connector goes by sAMAccountType.
func (e Entry) Kind() string {
	is := func(class string) bool { return slices.Contains(e["objectclass"], class) }
	switch {
	case e.First("isDeleted") != "":
		return Other
	case is("group"):
		return Group
	case is("computer"), is("msDS-ManagedServiceAccount"), is("msDS-GroupManagedServiceAccount"):
		return Other
	case is("user"):
		return User
	}
	return Other
}

// Flat is an asset with one value for each leaf of its JSON, keyed by the path to it.
// Strings keep their quotes and numbers have none.
type Flat map[string]string

// Text is a string without its quotes, "" where there is none.
func (f Flat) Text(path string) string {
	var text string
	_ = json.Unmarshal([]byte(f[path]), &text)
	return text
}

// set takes a text, unless it is empty.
func (f Flat) set(path, text string) {
	if text != "" {
		quoted, _ := json.Marshal(text) // of a text it cannot fail
		f[path] = string(quoted)
	}
}

// Where in an asset its fields are.
const (
	externalID = "asset.assetHeader.externalAssetId"
	VendorID   = "asset.assetHeader.vendorAssetId"
	Name       = "asset.assetDetail.name"
	OfUser     = "asset.assetDetail.userAssetClass."
	OfGroup    = "asset.assetDetail.groupAssetClass."
)

// Asset is what a gateway has to hold of a user or a group at a time.
func (e Entry) Asset(now time.Time) Flat {
	f, class := Flat{}, OfGroup
	if e.Kind() == User {
		class = OfUser
		e.user(f, now)
	} else {
		e.group(f)
	}
	sid := SID(e.First("objectSid"))
	f.set(externalID, sid)
	f.set(VendorID, GUID(e.First("objectGUID")))
	f.set(Name, e.First("name"))
	f.set(class+"id", sid)
	f.set(class+"name", e.First("name"))
	f.set(class+"displayName", e.First("displayName"))
	return f
}

const stamp = "2006-01-02T15:04:05.000Z"

func (e Entry) user(f Flat, now time.Time) {
	for source, target := range map[string]string{
		"mail": "email", "givenName": "firstName", "sn": "lastName", "mobile": "phone", "title": "jobTitle",
		"l": "currentAddress.city", "c": "currentAddress.country", "streetAddress": "currentAddress.streetAddress", "st": "currentAddress.state",
	} {
		f.set(OfUser+target, e.First(source))
	}
	f.set(OfUser+"currentAddress.country", e.First("co")) // over the code
	if at, err := time.Parse("20060102150405.0Z", e.First("whenCreated")); err == nil {
		f.set(OfUser+"activationDate", at.Format(stamp))
	}
	for source, target := range map[string]string{
		"lastLogon": "lastSuccessfulLoginAt", "pwdLastSet": "passwordLastChangedAt", "accountExpires": "accountExpirationAt",
		"badPasswordTime": "lastFailedPasswordAttemptAt",
	} {
		if at, is := e.Moment(source); is {
			f.set(OfUser+target, at.Format(stamp))
		}
	}
	if n, err := strconv.Atoi(e.First("badPwdCount")); err == nil {
		f[OfUser+"failedPasswordAttemptCount"] = strconv.Itoa(n)
	}
	f.set(OfUser+"status", e.status(now))
}

func (e Entry) status(now time.Time) string {
	stored, computed := e.Bits("userAccountControl"), e.Bits("msDS-User-Account-Control-Computed")
	expires, limited := e.Moment("accountExpires")
	switch {
	case stored&0x2 != 0:
		return "DISABLED"
	case limited && !expires.After(now):
		return "EXPIRED"
	case computed&0x10 != 0:
		return "LOCKED"
	case computed&0x800000 != 0:
		return "PASSWORD_EXPIRED"
	}
	return "ACTIVE"
}

func (e Entry) group(f Flat) {
	bits := e.Bits("groupType")
	kind, visibility := "DISTRIBUTION", "PUBLIC" // global and universal
	if bits&0x80000000 != 0 {
		kind = "SECURITY"
	}
	if bits&(0x1|0x4) != 0 { // builtin, domain local
		visibility = "PRIVATE"
	}
	f.set(OfGroup+"description", e.First("description"))
	f.set(OfGroup+"type", kind)
	f.set(OfGroup+"visibility", visibility)
}

// SID writes a security identifier out; "" when it is none.
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

// GUID writes one out; "" when it is none.
func GUID(raw string) string {
	if len(raw) != 16 {
		return ""
	}
	b := []byte(raw)
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

// Flatten brings the JSON of an asset to one value a leaf. An empty object is a leaf:
// it must not be there.
func Flatten(asset []byte) (Flat, error) {
	decoder := json.NewDecoder(bytes.NewReader(asset))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("%w in %s", err, asset)
	}
	leaves := Flat{}
	var walk func(path string, node any)
	walk = func(path string, node any) {
		if object, is := node.(map[string]any); is && len(object) > 0 {
			for key, child := range object {
				walk(strings.TrimPrefix(path+"."+key, "."), child)
			}
			return
		}
		leaf, _ := json.Marshal(node) // it was JSON before
		leaves[path] = string(leaf)
	}
	walk("", tree)
	return leaves, nil
}
