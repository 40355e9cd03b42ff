package identity

import (
	"encoding/json"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

const (
	sidBytes  = "\x01\x05\x00\x00\x00\x00\x00\x05\x15\x00\x00\x00\xe0\xdd\x36\x6e\x73\xb2\xf4\x10\x68\xad\x5c\x57\x4f\x04\x00\x00"
	guidBytes = "\xb0\xa9\x23\x23\x59\x6c\xd2\x4b\x9e\x86\xee\xc4\xd7\x3a\x8b\x8d"
)

// attributes are the values of an entry by attribute. entry adds missing identifiers.
type attributes map[string][]string

func entry(t testing.TB, m *Mapper, attrs attributes) *ad.Entry {
	t.Helper()
	e := &ad.Entry{DN: []byte("CN=x,DC=corp"), Values: make([][][]byte, len(m.Attributes))}
	set := func(name string, values []string) {
		slot := slices.Index(m.Attributes, name)
		if slot < 0 {
			t.Fatalf("%s is not a source of the map", name)
		}
		for _, v := range values {
			e.Values[slot] = append(e.Values[slot], []byte(v))
		}
	}
	for name, values := range (attributes{"objectSid": {sidBytes}, "objectGUID": {guidBytes}}) {
		if _, ok := attrs[name]; !ok {
			set(name, values)
		}
	}
	for name, values := range attrs {
		set(name, values)
	}
	return e
}

var alice = attributes{
	"name": {"Alice Kovács"}, "mail": {"alice@corp.example.com"}, "givenName": {"Alice"}, "sn": {"Kovács"},
	"displayName": {"Alice Kovács"}, "mobile": {"+1 555 0100"}, "title": {"Engineer"},
	"whenCreated": {"20261122072306.0Z"}, "lastLogon": {"0"}, "pwdLastSet": {"134398063938451234"},
	"accountExpires": {"9223372036854775807"}, "badPwdCount": {"0"}, "badPasswordTime": {"0"},
	"l": {"Pune"}, "co": {"India"}, "c": {"IN"}, "st": {"MH"}, "userAccountControl": {"512"},
	"msDS-User-Account-Control-Computed": {"0"},
}

func with(base attributes, changes attributes) attributes {
	out := attributes{}
	for k, v := range base {
		out[k] = v
	}
	for k, v := range changes {
		out[k] = v
	}
	return out
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		kind     Kind
		attrs    attributes
		unparsed int
	}{
		{"user-example", User, alice, 0},
		{"user-every-target", User, with(alice, attributes{
			"lastLogon": {"134398063938451234"}, "accountExpires": {"134500000000000000"}, "badPwdCount": {"3"},
			"badPasswordTime": {"134398063930000000"}, "streetAddress": {"1 Main St\r\nFloor 2\t\"East\" \\ \x01"},
		}), 0},
		{"user-identifiers-only", User, attributes{}, 0},
		{"user-empty-values", User, attributes{"name": {""}, "mail": {""}, "l": {""}, "co": {""}, "badPwdCount": {""}, "lastLogon": {""}, "whenCreated": {""}}, 0},
		{"user-country-code", User, attributes{"c": {"DE"}}, 0},
		{"user-many-values", User, attributes{"mail": {"first@x", "second@x"}, "title": {" kept as it is "}}, 0},
		{"user-scripts", User, attributes{"name": {"李雷 Ünïcødé 🦊 עברית e\u0301 \u2028"}, "sn": {"half \xc3\x28 utf-8 \xff"}}, 0},
		{"user-unreadable-values", User, attributes{
			"whenCreated": {"yesterday"}, "lastLogon": {"-1"}, "pwdLastSet": {"x"}, "accountExpires": {"soon"},
			"badPwdCount": {"many"}, "badPasswordTime": {"1e9"}, "userAccountControl": {"?"}, "name": {"Eve"},
			"msDS-User-Account-Control-Computed": {"?"},
		}, 8},
		{"group-every-target", Group, attributes{
			"name": {"Staff"}, "displayName": {"All Staff"}, "description": {"Everybody", "second"}, "groupType": {"-2147483646"},
		}, 0},
		{"group-identifiers-only", Group, attributes{}, 0},
		{"group-unreadable-type", Group, attributes{"name": {"Odd"}, "groupType": {"security"}}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := NewMapper(test.kind)
			asset, err := m.Map(nil, entry(t, m, test.attrs), now, Logons{})
			if err != nil {
				t.Fatal(err)
			}
			if asset.Unparsed != test.unparsed {
				t.Errorf("%d unparsed values, want %d", asset.Unparsed, test.unparsed)
			}
			golden(t, test.name, asset.JSON)
		})
	}
}

// TestExample checks the example of the specification, byte for byte.
func TestExample(t *testing.T) {
	t.Parallel()
	const want = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-21-1849089504-284471923-1465691496-1103","vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{"name":"Alice Kovács","userAssetClass":{"id":"S-1-5-21-1849089504-284471923-1465691496-1103","name":"Alice Kovács","email":"alice@corp.example.com","firstName":"Alice","lastName":"Kovács","displayName":"Alice Kovács","phone":"+1 555 0100","jobTitle":"Engineer","activationDate":"2026-11-22T07:23:06.000Z","passwordLastChangedAt":"2026-11-22T07:33:13.845Z","failedPasswordAttemptCount":0,"currentAddress":{"city":"Pune","country":"India","state":"MH"},"status":"ACTIVE"}}}}`
	m := NewMapper(User)
	asset, err := m.Map(nil, entry(t, m, alice), now, Logons{})
	if err != nil || string(asset.JSON) != want {
		t.Errorf("%v\n got %s\nwant %s", err, asset.JSON, want)
	}
	if asset.Kind != User || asset.GUID.String() != "2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d" || asset.SID.String() != "S-1-5-21-1849089504-284471923-1465691496-1103" {
		t.Errorf("identifiers %v %v %v", asset.Kind, asset.GUID, asset.SID)
	}
}

func TestUserStatus(t *testing.T) {
	t.Parallel()
	const past, future = "134398000000000000", "134500000000000000"
	for _, test := range []struct {
		name                       string
		control, expires, computed string
		want                       string
	}{
		{"active", "512", "0", "0", "ACTIVE"},
		{"password never expires", "66048", "9223372036854775807", "0", "ACTIVE"},
		{"disabled", "514", "0", "0", "DISABLED"},
		{"disabled before expired", "514", past, "8388624", "DISABLED"},
		{"expired", "512", past, "0", "EXPIRED"},
		{"expired before locked", "512", past, "16", "EXPIRED"},
		{"expires later", "512", future, "0", "ACTIVE"},
		{"locked", "512", "0", "16", "LOCKED"},
		{"locked before password expired", "512", "0", "8388624", "LOCKED"},
		{"password expired", "512", "0", "8388608", "PASSWORD_EXPIRED"},
		{"stored lock flag is ignored", "528", "0", "0", "ACTIVE"},
		{"malformed", "?", "0", "0", ""},
		{"malformed and locked", "?", "0", "16", ""},
		{"malformed, disabled by computed flags", "?", "0", "2", "DISABLED"},
		{"malformed computed flags", "512", "0", "?", ""},
		{"malformed computed flags of a disabled account", "514", "0", "?", "DISABLED"},
		{"malformed expiry", "512", "soon", "0", "ACTIVE"},
		{"stored password flag is ignored", "8389120", "0", "0", "ACTIVE"},
		{"sign bit", "-2147483136", "0", "0", "ACTIVE"},
		{"no values", "", "", "", "ACTIVE"},
		{"out of range", "4294967295", "0", "99999999999", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := NewMapper(User)
			asset, err := m.Map(nil, entry(t, m, attributes{
				"name": {"Alice"}, "userAccountControl": {test.control}, "accountExpires": {test.expires}, "msDS-User-Account-Control-Computed": {test.computed},
			}), now, Logons{})
			want := `"status":"` + test.want + `"`
			if test.want == "" {
				want = `"name":"Alice"}}}}` // the last field
			}
			if err != nil || !strings.Contains(string(asset.JSON), want) {
				t.Errorf("%v %s, want %s", err, asset.JSON, want)
			}
		})
	}
	t.Run("expiry time", func(t *testing.T) {
		m := NewMapper(User)
		e := entry(t, m, attributes{"accountExpires": {future}})
		expires, _ := ad.ParseFileTime([]byte(future))
		for _, test := range []struct {
			now  time.Time
			want string
		}{{expires.Time().Add(-time.Millisecond), "ACTIVE"}, {expires.Time(), "EXPIRED"}} {
			asset, err := m.Map(nil, e, test.now, Logons{})
			if err != nil || !strings.Contains(string(asset.JSON), test.want) {
				t.Errorf("at %v: %v %s, want %s", test.now, err, asset.JSON, test.want)
			}
		}
	})
}

func TestGroupTypes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, groupType, purpose, visibility string }{
		{"global security", "-2147483646", "SECURITY", "PUBLIC"},
		{"domain local security", "-2147483644", "SECURITY", "PRIVATE"},
		{"universal security", "-2147483640", "SECURITY", "PUBLIC"},
		{"builtin", "-2147483643", "SECURITY", "PRIVATE"},
		{"global distribution", "2", "DISTRIBUTION", "PUBLIC"},
		{"domain local distribution", "4", "DISTRIBUTION", "PRIVATE"},
		{"universal distribution", "8", "DISTRIBUTION", "PUBLIC"},
		{"no scope", "-2147483648", "SECURITY", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := NewMapper(Group)
			asset, err := m.Map(nil, entry(t, m, attributes{"groupType": {test.groupType}}), now, Logons{})
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Asset struct {
					AssetDetail struct {
						GroupAssetClass struct{ Type, Visibility string }
					}
				}
			}
			if err := json.Unmarshal(asset.JSON, &got); err != nil {
				t.Fatal(err)
			}
			if c := got.Asset.AssetDetail.GroupAssetClass; c.Type != test.purpose || c.Visibility != test.visibility {
				t.Errorf("got %+v", c)
			}
		})
	}
}

// TestRecheckAt checks that RecheckAt is the next time at which the status changes without a
// change in the directory.
func TestRecheckAt(t *testing.T) {
	t.Parallel()
	const past, justPast, soon, later = "134398000000000000", "134398223990000000", "134500000000000000", "134600000000000000"
	parse := func(text string) time.Time {
		parsed, _ := ad.ParseFileTime([]byte(text))
		return parsed.Time()
	}
	users, accounts := NewMapper(User), NewPostureMapper(ServiceAccount)
	accounts.UseGraph(people())
	for _, test := range []struct {
		name  string
		attrs attributes
		want  time.Time
	}{
		{"no expiry", attributes{}, time.Time{}},
		{"never", attributes{"accountExpires": {"9223372036854775807"}, "msDS-UserPasswordExpiryTimeComputed": {"9223372036854775807"}}, time.Time{}},
		{"account expires", attributes{"accountExpires": {soon}}, parse(soon)},
		{"account expired", attributes{"accountExpires": {past}}, time.Time{}},
		{"password expires", attributes{"msDS-UserPasswordExpiryTimeComputed": {soon}}, parse(soon)},
		{"both expire", attributes{"accountExpires": {later}, "msDS-UserPasswordExpiryTimeComputed": {soon}}, parse(soon)},
		{"account expired, password expires", attributes{"accountExpires": {past}, "msDS-UserPasswordExpiryTimeComputed": {later}}, parse(later)},
		{"password expired", attributes{"msDS-UserPasswordExpiryTimeComputed": {past}}, time.Time{}},
		{"password just expired, flag missing", attributes{"msDS-UserPasswordExpiryTimeComputed": {justPast}}, now.Add(recheckDelay)},
		{"password just expired, flag set", attributes{"msDS-UserPasswordExpiryTimeComputed": {justPast}, "msDS-User-Account-Control-Computed": {"8388608"}}, time.Time{}},
		{"locked", attributes{"msDS-User-Account-Control-Computed": {"16"}, "accountExpires": {soon}}, now.Add(recheckDelay)},
		{"locked for long", attributes{"msDS-User-Account-Control-Computed": {"16"}, "lockoutTime": {past}}, now.Add((now.Sub(parse(past)) - maxFlagDelay) / lockShare)},
	} {
		for _, m := range []*Mapper{users, accounts} {
			asset, err := m.Map(nil, entry(t, m, test.attrs), now, Logons{})
			if err != nil || !asset.RecheckAt.Equal(test.want) {
				t.Errorf("%s, %s: recheck at %v, want %v (%v)", test.name, m.kind, asset.RecheckAt, test.want, err)
			}
		}
	}
}

func TestDeleted(t *testing.T) {
	t.Parallel()
	guid, _ := ad.ParseGUID([]byte(guidBytes))
	sid, _ := ad.ParseSID([]byte(sidBytes))
	const header = `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-21-1849089504-284471923-1465691496-1103","vendorAssetId":"2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"},"assetDetail":{`
	const id = `"id":"S-1-5-21-1849089504-284471923-1465691496-1103",`
	for _, test := range []struct {
		name       string
		kind       Kind
		objectName string
		want       string
	}{
		{"user", User, `A "b"`, `"name":"A \"b\"","userAssetClass":{` + id + `"name":"A \"b\"","status":"DELETED"}}}}`},
		{"group without a name", Group, "", `"groupAssetClass":{` + id + `"status":"DELETED"}}}}`},
	} {
		asset := Object{Kind: test.kind, GUID: guid, SID: sid, Name: test.objectName}.DeletedAsset(nil)
		if want := header + test.want; string(asset.JSON) != want || !asset.Deleted || asset.GUID != guid {
			t.Errorf("%s:\n got %s\nwant %s", test.name, asset.JSON, want)
		}
	}
}

func TestNoIdentity(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		attrs attributes
	}{
		{"no SID", attributes{"objectSid": nil}},
		{"no GUID", attributes{"objectGUID": nil}},
		{"short SID", attributes{"objectSid": {sidBytes[:27]}}},
		{"long GUID", attributes{"objectGUID": {guidBytes + "\x00"}}},
	} {
		for _, kind := range []Kind{User, Group} {
			m := NewMapper(kind)
			if _, err := m.Map(nil, entry(t, m, test.attrs), now, Logons{}); !errors.Is(err, ErrNoIdentity) {
				t.Errorf("%s, %s: %v", kind, test.name, err)
			}
		}
	}
}

// TestFingerprint checks that a change of each sent attribute changes the fingerprint, and that
// other changes do not.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	m := NewMapper(User)
	fingerprint := func(attrs attributes) Fingerprint {
		asset, err := m.Map(nil, entry(t, m, attrs), now, Logons{})
		if err != nil {
			t.Fatal(err)
		}
		return asset.Fingerprint
	}
	base := fingerprint(alice)
	if fingerprint(with(alice, nil)) != base {
		t.Error("equal entries have different fingerprints")
	}
	if fingerprint(with(alice, attributes{"c": {"XX"}})) != base {
		t.Error("a change of c changes the fingerprint of an entry with co")
	}
	changed := map[string]string{
		"whenCreated": "20250101000000.0Z", "lastLogon": "134398063938451234", "pwdLastSet": "0", "accountExpires": "134500000000000000",
		"lastLogonTimestamp": "134398063938451234",
		"badPwdCount":        "1", "badPasswordTime": "134398063938451234", "userAccountControl": "514", "msDS-User-Account-Control-Computed": "16",
		"objectGUID": strings.Repeat("g", 16), "objectSid": strings.Replace(sidBytes, "\x4f", "\x50", 1),
	}
	for _, attribute := range m.Attributes {
		if slices.Contains([]string{"c", "msDS-UserPasswordExpiryTimeComputed", "lockoutTime"}, attribute) { // not sent
			continue
		}
		value := changed[attribute]
		if value == "" {
			value = "changed"
		}
		got := fingerprint(with(alice, attributes{attribute: {value}}))
		if got == base {
			t.Errorf("a change of %s does not change the fingerprint", attribute)
		}
		isActivity := slices.Contains(activity, attribute)
		if got.SameButActivity(base) != isActivity {
			t.Errorf("%s: SameButActivity is %t", attribute, !isActivity)
		}
		if isActivity && !fingerprint(with(alice, attributes{attribute: nil})).SameButActivity(base) {
			t.Errorf("the absence of %s does not count as activity", attribute)
		}
	}
}

func TestMapAllocatesNothing(t *testing.T) {
	m := NewMapper(User)
	m.DomainController = true
	buf := make([]byte, 0, 4096)
	for want, e := range map[error]*ad.Entry{nil: entry(t, m, alice), ErrUnreadable: entry(t, m, with(alice, attributes{"userAccountControl": nil}))} {
		if n := testing.AllocsPerRun(100, func() {
			if _, err := m.Map(buf, e, now, Logons{}); !errors.Is(err, want) {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations an entry, want 0", n)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte("a\"b\\c\n\r\t\x00\x1f\x7f é 🦊 \xff \xc3"))
	f.Fuzz(func(t *testing.T, v []byte) {
		var got string
		if err := json.Unmarshal(appendString(nil, v), &got); err != nil {
			t.Fatalf("%q: %v", v, err)
		}
		std, err := json.Marshal(string(v))
		if err != nil {
			t.Fatal(err)
		}
		var want string
		if err := json.Unmarshal(std, &want); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%q: %q, want %q as from encoding/json", v, got, want)
		}
	})
}

func BenchmarkMap(b *testing.B) {
	m := NewMapper(User)
	e := entry(b, m, alice)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Map(buf, e, now, Logons{}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestSourceAttributes(t *testing.T) {
	t.Parallel()
	identities, posture := SourceAttributes(false), SourceAttributes(true)
	for _, attribute := range []string{"mobile", "groupType", "msDS-User-Account-Control-Computed"} {
		if !slices.Contains(identities, attribute) || !slices.Contains(posture, attribute) {
			t.Errorf("%s missing", attribute)
		}
	}
	for _, attribute := range []string{"managedBy", "sIDHistory", "msDS-GroupMSAMembership"} {
		if slices.Contains(identities, attribute) || !slices.Contains(posture, attribute) {
			t.Errorf("%s of posture: %v, %v", attribute, identities, posture)
		}
	}
	if slices.Contains(posture, "trustPartner") || !slices.IsSorted(posture) {
		t.Errorf("%v", posture)
	}
}

// TestKey checks that objects have the same Key if and only if they have the same ExternalID.
func TestKey(t *testing.T) {
	t.Parallel()
	administrators := ad.SID{1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 32, 2, 0, 0}
	var all []Object
	for kind := User; kind <= Domain; kind++ {
		all = append(all, Object{Kind: kind, SID: ad.SID(sidBytes)}, Object{Kind: kind, SID: administrators, GUID: ad.GUID{1}})
	}
	for _, a := range all {
		for _, b := range all {
			if (a.Key() == b.Key()) != (ExternalID(a.Kind, a.SID) == ExternalID(b.Kind, b.SID)) {
				t.Errorf("%s %s and %s %s: keys %v and %v", a.Kind, a.SID, b.Kind, b.SID, a.Key(), b.Key())
			}
		}
		if want := (a.Kind == Group || a.Kind == Role) && a.SID.String() == "S-1-5-32-544"; a.IsBuiltin() != want {
			t.Errorf("%s %s: builtin %t", a.Kind, a.SID, a.IsBuiltin())
		}
	}
}
