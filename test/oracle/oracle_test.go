package oracle

import (
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var changed = time.Date(2026, 11, 22, 7, 33, 13, 845_999_900, time.UTC)

// fileTime returns a time as 100 ns intervals since 1601.
func fileTime(t time.Time) string {
	epoch := time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC)
	return strconv.FormatInt((t.Unix()-epoch.Unix())*10_000_000+int64(t.Nanosecond()/100), 10)
}

// alice returns the user of the specification's example.
func alice() Entry {
	sid := "\x01\x05\x00\x00\x00\x00\x00\x05"
	for _, n := range []uint32{21, 1849019280, 284467811, 1465672680, 1103} {
		sid = string(binary.LittleEndian.AppendUint32([]byte(sid), n))
	}
	e := Entry{"objectclass": {"top", "person", "user"}}
	for name, value := range map[string]string{
		"objectSid": sid, "objectGUID": "\xb0\xa9\x23\x23\x59\x6c\xd2\x4b\x9e\x86\xee\xc4\xd7\x3a\x8b\x8d",
		"name": "Alice Kovács", "mail": "alice@corp.example.com", "givenName": "Alice", "sn": "Kovács", "displayName": "Alice Kovács",
		"mobile": "+1 555 0100", "title": "Engineer", "whenCreated": "20261122072306.0Z", "lastLogon": "0", "pwdLastSet": fileTime(changed),
		"accountExpires": "9223372036854775807", "badPwdCount": "0", "badPasswordTime": "0", "l": "Pune", "co": "India", "c": "IN", "st": "MH",
		"userAccountControl": "512", "msDS-User-Account-Control-Computed": "0",
	} {
		e[strings.ToLower(name)] = []string{value}
	}
	return e
}

// TestExample compares the asset with the specification's example.
func TestExample(t *testing.T) {
	t.Parallel()
	want, err := Flatten([]byte(`{"asset":{"assetHeader":{"externalAssetId":"S-1-5-21-1849019280-284467811-1465672680-1103","vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Alice Kovács","userAssetClass":{"id":"S-1-5-21-1849019280-284467811-1465672680-1103","name":"Alice Kovács","email":"alice@corp.example.com","firstName":"Alice","lastName":"Kovács","displayName":"Alice Kovács","phone":"+1 555 0100","jobTitle":"Engineer","activationDate":"2026-11-22T07:23:06.000Z","passwordLastChangedAt":"2026-11-22T07:33:13.845Z","failedPasswordAttemptCount":0,"currentAddress":{"city":"Pune","country":"India","state":"MH"},"status":"ACTIVE"}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := alice().Asset(changed); !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	for override, want := range map[string]string{
		"userAccountControl=514":                                    "DISABLED",
		"userAccountControl=4294967298":                             "ACTIVE",
		"accountExpires=1234":                                       "EXPIRED",
		"accountExpires=0":                                          "ACTIVE",
		"msDS-User-Account-Control-Computed=16":                     "LOCKED",
		"msDS-User-Account-Control-Computed=8388608":                "PASSWORD_EXPIRED",
		"msDS-User-Account-Control-Computed=8388624":                "LOCKED",
		"accountExpires=" + fileTime(changed.AddDate(0, 0, 1)):      "ACTIVE",
		"accountExpires=" + fileTime(changed.Add(-time.Nanosecond)): "EXPIRED",
	} {
		name, value, _ := strings.Cut(override, "=")
		e := alice()
		e[strings.ToLower(name)] = []string{value}
		if got := e.Asset(changed).Text(UserClass + "status"); got != want {
			t.Errorf("%s: got %s, want %s", override, got, want)
		}
	}
}

func TestGroupType(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"-2147483646": "SECURITY PUBLIC", "-2147483644": "SECURITY PRIVATE", "-2147483640": "SECURITY PUBLIC",
		"2": "DISTRIBUTION PUBLIC", "4": "DISTRIBUTION PRIVATE", "8": "DISTRIBUTION PUBLIC", "-2147483643": "SECURITY PRIVATE",
	} {
		e := alice()
		e["objectclass"], e["grouptype"] = []string{"group"}, []string{value}
		delete(e, "useraccountcontrol")
		f := e.Asset(changed)
		if got := f.Text(GroupClass+"type") + " " + f.Text(GroupClass+"visibility"); got != want {
			t.Errorf("groupType %s: got %s, want %s", value, got, want)
		}
	}
}

// TestUnreadable checks that an entry without an attribute that every object of its kind has has
// no asset, and that other attributes can be missing.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	for kind, every := range map[string][]string{
		User:  {"objectsid", "objectguid", "name", "whencreated", "useraccountcontrol"},
		Group: {"objectsid", "objectguid", "name", "whencreated", "grouptype"},
	} {
		whole := alice()
		whole["objectclass"], whole["grouptype"] = []string{"top", kind}, []string{"2"}
		for attribute := range whole {
			e := maps.Clone(whole)
			delete(e, attribute)
			if attribute == "objectclass" {
				continue
			}
			if has := e.Asset(changed) != nil; has == slices.Contains(every, attribute) {
				t.Errorf("%s without %s has an asset: %t", kind, attribute, has)
			}
		}
	}
}

func TestKind(t *testing.T) {
	t.Parallel()
	for classes, want := range map[string]string{
		"top person user": User, "top group": Group, "top person user computer": Other, "top user computer msDS-GroupManagedServiceAccount": Other,
		"top person contact": Other, "": Other,
	} {
		e := Entry{"objectclass": strings.Fields(classes)}
		if got := e.Kind(); got != want {
			t.Errorf("%s: got %q, want %q", classes, got, want)
		}
		e["isdeleted"] = []string{"TRUE"}
		if got := e.Kind(); got != Other {
			t.Errorf("%s, deleted: got %q", classes, got)
		}
	}
}
