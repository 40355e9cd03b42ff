//go:build ad

package adtest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"adconnector/internal/sandbox"
)

// The transformation, written a second time from its description alone, so that
// one misreading is not shared by the code and its test.

// A flat asset has one value for each leaf of its JSON, keyed by the path to it.
// Strings keep their quotes and numbers have none.
type flat map[string]string

// A reading is what the directory showed at one moment: the identities by SID.
type reading struct {
	users  map[string]flat
	groups map[string]flat
}

// A search is what a reading is taken of.
type search struct {
	base   string // the whole domain when empty
	scope  string // sub, one, base; sub when empty
	filter string // narrows the users, nothing when empty
}

var readAttributes = []string{
	"objectClass", "objectSid", "objectGUID", "name", "mail", "givenName", "sn", "displayName", "mobile", "title", "whenCreated",
	"lastLogon", "pwdLastSet", "accountExpires", "badPwdCount", "badPasswordTime", "l", "co", "c", "streetAddress", "st",
	"userAccountControl", "msDS-User-Account-Control-Computed", "description", "groupType",
}

// read asks the server with ldapsearch, as the account that the connector has.
func (d *controller) read(t *testing.T, s search) reading {
	t.Helper()
	r := reading{users: map[string]flat{}, groups: map[string]flat{}}
	now := time.Now()
	take := func(records []record, class string, into map[string]flat, asset func(record, time.Time) map[string]any) {
		for _, rec := range records {
			if kindOf(rec) == class {
				flattened := flatten(t, asset(rec, now))
				into[unquote(flattened["asset.assetHeader.externalAssetId"])] = flattened
			}
		}
	}
	all := d.search(t, s.base, s.scope, "(objectClass=*)", readAttributes...)
	narrowed := all
	if s.filter != "" {
		narrowed = d.search(t, s.base, s.scope, s.filter, readAttributes...)
	}
	take(narrowed, "user", r.users, userAsset)
	take(all, "group", r.groups, groupAsset)
	return r
}

// search runs ldapsearch in pages, over the connection that every server allows.
func (d *controller) search(t *testing.T, base, scope, filter string, attributes ...string) []record {
	t.Helper()
	if base == "" {
		base = baseDN
	}
	if scope == "" {
		scope = "sub"
	}
	out, err := command("", "ldapsearch", append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-E", "pr=1000/noprompt",
		"-H", tlsURL, "-D", d.service.dn, "-y", d.service.file, "-b", base, "-s", scope, filter}, attributes...)...)
	if err != nil {
		t.Fatal(err)
	}
	records, err := parseLDIF(out)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// kindOf tells users and groups from what lives beside them, by class alone: the
// connector goes by sAMAccountType.
func kindOf(r record) string {
	is := func(class string) bool { return slices.Contains(r.values["objectclass"], class) }
	switch {
	case is("group"):
		return "group"
	case is("computer"), is("msDS-ManagedServiceAccount"), is("msDS-GroupManagedServiceAccount"):
		return ""
	case is("user"):
		return "user"
	default:
		return ""
	}
}

func userAsset(r record, now time.Time) map[string]any {
	class := map[string]any{"status": userStatus(r, now)}
	sid := copyHeader(r, class)
	copyStrings(r, class, map[string]string{
		"name": "name", "mail": "email", "givenName": "firstName", "sn": "lastName", "displayName": "displayName",
		"mobile": "phone", "title": "jobTitle",
	})
	address := map[string]any{}
	copyStrings(r, address, map[string]string{"l": "city", "c": "country", "streetAddress": "streetAddress", "st": "state"})
	copyStrings(r, address, map[string]string{"co": "country"}) // over the code
	if len(address) > 0 {
		class["currentAddress"] = address
	}
	if v, ok := r.first("whenCreated"); ok {
		if at, err := time.Parse("20060102150405.0Z", v); err == nil {
			class["activationDate"] = at.Format("2006-01-02T15:04:05.000Z")
		}
	}
	for source, target := range map[string]string{
		"lastLogon": "lastSuccessfulLoginAt", "pwdLastSet": "passwordLastChangedAt", "accountExpires": "accountExpirationAt",
		"badPasswordTime": "lastFailedPasswordAttemptAt",
	} {
		if at, ok := moment(r, source); ok {
			class[target] = at.Format("2006-01-02T15:04:05.000Z")
		}
	}
	if v, ok := r.first("badPwdCount"); ok {
		if n, err := strconv.Atoi(v); err == nil {
			class["failedPasswordAttemptCount"] = n
		}
	}
	return envelope(r, sid, "userAssetClass", class)
}

func userStatus(r record, now time.Time) string {
	stored, computed := bits(r, "userAccountControl"), bits(r, "msDS-User-Account-Control-Computed")
	expires, limited := moment(r, "accountExpires")
	switch {
	case stored&0x2 != 0:
		return "DISABLED"
	case limited && !expires.After(now):
		return "EXPIRED"
	case computed&0x10 != 0:
		return "LOCKED"
	case computed&0x800000 != 0:
		return "PASSWORD_EXPIRED"
	default:
		return "ACTIVE"
	}
}

func groupAsset(r record, _ time.Time) map[string]any {
	class := map[string]any{}
	sid := copyHeader(r, class)
	copyStrings(r, class, map[string]string{"name": "name", "displayName": "displayName", "description": "description"})
	kind := bits(r, "groupType")
	class["type"] = "DISTRIBUTION"
	if kind&0x80000000 != 0 {
		class["type"] = "SECURITY"
	}
	class["visibility"] = "PUBLIC" // global and universal
	if kind&0x1 != 0 /*builtin*/ || kind&0x4 != 0 /*domain local*/ {
		class["visibility"] = "PRIVATE"
	}
	return envelope(r, sid, "groupAssetClass", class)
}

func envelope(r record, sid, class string, content map[string]any) map[string]any {
	guid, _ := r.first("objectGUID")
	name, _ := r.first("name")
	return map[string]any{"asset": map[string]any{
		"assetHeader": map[string]any{"externalAssetId": sid, "vendorAssetId": guidString(guid)},
		"assetDetail": map[string]any{"name": name, class: content},
	}}
}

func copyHeader(r record, class map[string]any) (sid string) {
	raw, _ := r.first("objectSid")
	sid = sidString(raw)
	class["id"] = sid
	return sid
}

func copyStrings(r record, to map[string]any, names map[string]string) {
	for source, target := range names {
		if v, _ := r.first(source); v != "" {
			to[target] = v
		}
	}
}

// moment reads a count of 100 ns since 1601, of which 0 and the largest mean none.
func moment(r record, name string) (time.Time, bool) {
	v, _ := r.first(name)
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n == 0 || n == math.MaxInt64 {
		return time.Time{}, false
	}
	first := time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC)
	return time.UnixMilli(first.UnixMilli() + n/10_000).UTC(), true
}

func bits(r record, name string) uint32 {
	v, _ := r.first(name)
	n, _ := strconv.ParseInt(v, 10, 64)
	return uint32(n)
}

func sidString(raw string) string {
	if len(raw) < 8 {
		return ""
	}
	authority := uint64(binary.BigEndian.Uint16([]byte(raw[2:4])))<<32 | uint64(binary.BigEndian.Uint32([]byte(raw[4:8])))
	s := fmt.Sprintf("S-%d-%d", raw[0], authority)
	for i := 8; i+4 <= len(raw); i += 4 {
		s += fmt.Sprintf("-%d", binary.LittleEndian.Uint32([]byte(raw[i:i+4])))
	}
	return s
}

func guidString(raw string) string {
	if len(raw) != 16 {
		return ""
	}
	b := []byte(raw)
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

// flatten brings an asset, or its JSON, to one value a leaf. An empty object is a
// leaf: it must not be there.
func flatten(t *testing.T, asset any) flat {
	t.Helper()
	text, ok := asset.(json.RawMessage)
	if !ok {
		var err error
		if text, err = json.Marshal(asset); err != nil {
			t.Fatal(err)
		}
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	out := flat{}
	var walk func(path string, node any)
	walk = func(path string, node any) {
		if m, ok := node.(map[string]any); ok && len(m) > 0 {
			for key, child := range m {
				walk(strings.TrimPrefix(path+"."+key, "."), child)
			}
			return
		}
		leaf, err := json.Marshal(node)
		if err != nil {
			t.Fatal(err)
		}
		out[path] = string(leaf)
	}
	walk("", tree)
	return out
}

func unquote(s string) string {
	var v string
	if json.Unmarshal([]byte(s), &v) != nil {
		return s
	}
	return v
}

// compare reports each difference between what a gateway holds and what the
// directory showed before and after the run.
func compare(t *testing.T, g *gatewayServer, before, after reading) {
	t.Helper()
	found := append(
		differences(t, "user", g.Users(), before.users, after.users),
		differences(t, "group", g.Groups(), before.groups, after.groups)...)
	const most = 40
	for _, d := range found[:min(most, len(found))] {
		t.Error(d)
	}
	if len(found) > most {
		t.Errorf("and %d more differences", len(found)-most)
	}
}

// differences has one line for each field that is not as it should be. Where the
// two readings agree there is one right value; what moved meanwhile may be either.
func differences(t *testing.T, kind string, held []sandbox.Identity, before, after map[string]flat) (found []string) {
	t.Helper()
	report := func(sid, format string, args ...any) {
		found = append(found, kind+" "+sid+": "+fmt.Sprintf(format, args...))
	}
	got := map[string]flat{}
	for _, identity := range held {
		sid, asset := identity.ExternalAssetID, flatten(t, identity.Asset)
		if got[sid] != nil {
			report(sid, "held twice")
		}
		if vendor := unquote(asset["asset.assetHeader.vendorAssetId"]); identity.VendorAssetID != vendor {
			report(sid, "filed under vendorAssetId %q, not %q", identity.VendorAssetID, vendor)
		}
		got[sid] = asset
	}
	all := union(before, after, got)
	for _, sid := range slices.Sorted(maps.Keys(all)) {
		was, is, have := before[sid], after[sid], got[sid]
		switch {
		case have == nil:
			if was != nil && is != nil {
				report(sid, "%s: missing at the gateway", all[sid]["asset.assetDetail.name"])
			}
			continue
		case was == nil && is == nil:
			report(sid, "%s: at the gateway, but not in the directory", all[sid]["asset.assetDetail.name"])
			continue
		case was == nil:
			was = is
		case is == nil:
			is = was
		}
		for _, path := range slices.Sorted(maps.Keys(union(was, is, have))) {
			if have[path] != was[path] && have[path] != is[path] {
				report(sid, "%s: gateway has %s, directory has %s", path, orAbsent(have[path]), orAbsent(is[path]))
			}
		}
	}
	return found
}

func union[M ~map[string]V, V any](parts ...M) M {
	all := M{}
	for _, part := range parts {
		maps.Copy(all, part)
	}
	return all
}

func orAbsent(value string) string {
	if value == "" {
		return "nothing"
	}
	return value
}

// TestOracle holds the second implementation against the example that the
// transformation's description gives.
func TestOracle(t *testing.T) {
	const when = "2026-11-22T07:33:13.8459999Z"
	changed, err := time.Parse(time.RFC3339Nano, when)
	if err != nil {
		t.Fatal(err)
	}
	sid := "\x01\x05\x00\x00\x00\x00\x00\x05" + littleEndian(21, 1849019280, 284467811, 1465672680, 1103)
	guid := "\xb0\xa9\x23\x23\x59\x6c\xd2\x4b\x9e\x86\xee\xc4\xd7\x3a\x8b\x8d"
	alice := func(extra string) record {
		t.Helper()
		records, err := parseLDIF("dn: CN=x\nobjectClass: user\nobjectSid:: " + base64Of(sid) + "\nobjectGUID:: " + base64Of(guid) +
			"\nname:: " + base64Of("Alice Kovács") + "\nmail: alice@corp.example.com\ngivenName: Alice\nsn:: " + base64Of("Kovács") +
			"\ndisplayName:: " + base64Of("Alice Kovács") + "\nmobile: +1 555 0100\ntitle: Engineer\nwhenCreated: 20261122072306.0Z" +
			"\nlastLogon: 0\npwdLastSet: " + fileTime(changed) + "\naccountExpires: 9223372036854775807\nbadPwdCount: 0\nbadPasswordTime: 0" +
			"\nl: Pune\nco: India\nc: IN\nst: MH\nuserAccountControl: 512\nmsDS-User-Account-Control-Computed: 0\n" + extra + "\n")
		if err != nil || len(records) != 1 {
			t.Fatal(records, err)
		}
		return records[0]
	}
	want := json.RawMessage(`{"asset":{"assetHeader":{"externalAssetId":"S-1-5-21-1849019280-284467811-1465672680-1103","vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Alice Kovács","userAssetClass":{"id":"S-1-5-21-1849019280-284467811-1465672680-1103","name":"Alice Kovács","email":"alice@corp.example.com","firstName":"Alice","lastName":"Kovács","displayName":"Alice Kovács","phone":"+1 555 0100","jobTitle":"Engineer","activationDate":"2026-11-22T07:23:06.000Z","passwordLastChangedAt":"2026-11-22T07:33:13.845Z","failedPasswordAttemptCount":0,"currentAddress":{"city":"Pune","country":"India","state":"MH"},"status":"ACTIVE"}}}}`)
	if got := flatten(t, userAsset(alice(""), changed)); !maps.Equal(got, flatten(t, want)) {
		t.Errorf("got  %v\nwant %v", got, flatten(t, want))
	}

	statuses := map[string]string{ // an override of the record, and what it comes to
		"userAccountControl=514":                                    "DISABLED",
		"accountExpires=1234":                                       "EXPIRED",
		"accountExpires=0":                                          "ACTIVE",
		"msDS-User-Account-Control-Computed=16":                     "LOCKED",
		"msDS-User-Account-Control-Computed=8388608":                "PASSWORD_EXPIRED",
		"msDS-User-Account-Control-Computed=8388624":                "LOCKED",
		"accountExpires=" + fileTime(changed.AddDate(0, 0, 1)):      "ACTIVE",
		"accountExpires=" + fileTime(changed.Add(-time.Nanosecond)): "EXPIRED",
	}
	for override, status := range statuses {
		name, value, _ := strings.Cut(override, "=")
		r := alice("")
		r.values[strings.ToLower(name)] = []string{value}
		if got := userStatus(r, changed); got != status {
			t.Errorf("%s: got %s, want %s", override, got, status)
		}
	}

	groups := map[string]string{
		"-2147483646": "SECURITY PUBLIC", "-2147483644": "SECURITY PRIVATE", "-2147483640": "SECURITY PUBLIC",
		"2": "DISTRIBUTION PUBLIC", "4": "DISTRIBUTION PRIVATE", "8": "DISTRIBUTION PUBLIC", "-2147483643": "SECURITY PRIVATE",
	}
	for value, want := range groups {
		class := flatten(t, groupAsset(record{values: map[string][]string{"grouptype": {value}}}, changed))
		const prefix = "asset.assetDetail.groupAssetClass."
		if got := unquote(class[prefix+"type"]) + " " + unquote(class[prefix+"visibility"]); got != want {
			t.Errorf("groupType %s: got %s, want %s", value, got, want)
		}
	}
}

func TestDifferences(t *testing.T) {
	identity := func(sid, detail string) sandbox.Identity {
		return sandbox.Identity{ExternalAssetID: sid, VendorAssetID: "g" + sid, Asset: json.RawMessage(
			`{"asset":{"assetHeader":{"externalAssetId":"` + sid + `","vendorAssetId":"g` + sid + `"},"assetDetail":` + detail + `}}`)}
	}
	of := func(identities ...sandbox.Identity) map[string]flat {
		m := map[string]flat{}
		for _, i := range identities {
			m[i.ExternalAssetID] = flatten(t, i.Asset)
		}
		return m
	}
	same := identity("1", `{"name":"a","n":0}`)
	moving := []sandbox.Identity{identity("2", `{"n":1}`), identity("2", `{"n":2}`), identity("2", `{"n":3}`)}
	cases := []struct {
		name          string
		held          []sandbox.Identity
		before, after map[string]flat
		want          int
	}{
		{"equal", []sandbox.Identity{same}, of(same), of(same), 0},
		{"missing", nil, of(same), of(same), 1},
		{"extra", []sandbox.Identity{same}, nil, nil, 1},
		{"twice", []sandbox.Identity{same, same}, of(same), of(same), 1},
		{"number and string", []sandbox.Identity{identity("1", `{"name":"a","n":"0"}`)}, of(same), of(same), 1},
		{"null and an empty object", []sandbox.Identity{identity("1", `{"name":"a","n":0,"x":null,"y":{}}`)}, of(same), of(same), 2},
		{"field missing", []sandbox.Identity{identity("1", `{"name":"a"}`)}, of(same), of(same), 1},
		{"moved, the older value", moving[:1], of(moving[0]), of(moving[1]), 0},
		{"moved, the newer value", moving[1:2], of(moving[0]), of(moving[1]), 0},
		{"moved, another value", moving[2:], of(moving[0]), of(moving[1]), 1},
		{"came meanwhile", moving[:1], nil, of(moving[0]), 0},
		{"went meanwhile", nil, of(moving[0]), nil, 0},
	}
	for _, c := range cases {
		if got := differences(t, "user", c.held, c.before, c.after); len(got) != c.want {
			t.Errorf("%s: got %q, want %d", c.name, got, c.want)
		}
	}
}

func littleEndian(numbers ...uint32) string {
	var b []byte
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return string(b)
}
