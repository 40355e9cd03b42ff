package ad

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSID(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, raw, want string }{
		{"everyone", "01 01 000000000001 00000000", "S-1-1-0"},
		{"administrators", "01 02 000000000005 20000000 20020000", "S-1-5-32-544"},
		{"a domain user", "01 05 000000000005 15000000 E0DD366E 73B2F410 68AD5C57 4F040000", "S-1-5-21-1849089504-284471923-1465691496-1103"},
		{"largest sub-authority", "01 01 000000000005 FFFFFFFF", "S-1-5-4294967295"},
		{"no sub-authority", "01 00 000000000005", "S-1-5"},
		{"authority of 2^32", "01 01 000100000000 01000000", "S-1-0x000100000000-1"},
	} {
		sid, ok := ParseSID(unhex(t, test.raw))
		if !ok || sid.String() != test.want {
			t.Errorf("%s: %v %v, want %s", test.name, sid, ok, test.want)
		}
	}
	for _, test := range []struct{ name, raw string }{
		{"empty", ""},
		{"short header", "01 01 0000000000"},
		{"revision 2", "02 01 000000000001 00000000"},
		{"one byte short", "01 01 000000000001 000000"},
		{"one byte long", "01 01 000000000001 0000000000"},
		{"16 sub-authorities", "01 10 000000000005" + strings.Repeat("00000000", 16)},
	} {
		if sid, ok := ParseSID(unhex(t, test.raw)); ok {
			t.Errorf("%s: accepted as %v", test.name, sid)
		}
	}
}

func TestGUID(t *testing.T) {
	t.Parallel()
	guid, ok := ParseGUID(unhex(t, "b0a92323596cd24b9e86eec4d73a8b8d"))
	if want := "2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d"; !ok || guid.String() != want {
		t.Errorf("got %v %v, want %s", guid, ok, want)
	}
	for _, n := range []int{0, 15, 17} {
		if _, ok := ParseGUID(make([]byte, n)); ok {
			t.Errorf("%d bytes accepted", n)
		}
	}
}

func TestFileTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, raw, want string }{
		{"truncated to milliseconds", "134398063938451234", "2026-11-22T07:33:13.845Z"},
		{"one interval after the epoch", "1", "1601-01-01T00:00:00Z"},
		{"unix epoch", "116444736000000000", "1970-01-01T00:00:00Z"},
		{"end of 9999", "2650467743999999999", "9999-12-31T23:59:59.999Z"},
	} {
		got, ok := ParseFileTime([]byte(test.raw))
		if !ok || got.IsNone() || got.Time().Format(time.RFC3339Nano) != test.want {
			t.Errorf("%s: %v %v, want %s", test.name, got.Time(), ok, test.want)
		}
	}
	for _, raw := range []string{"0", "9223372036854775807"} {
		if got, ok := ParseFileTime([]byte(raw)); !ok || !got.IsNone() {
			t.Errorf("%s: IsNone is false", raw)
		}
	}
	for _, raw := range []string{"", "-1", "x", "1.5", " 1", "9223372036854775808", "9223372036854775806", "2650467744000000000"} {
		if got, ok := ParseFileTime([]byte(raw)); ok {
			t.Errorf("%q accepted as %v", raw, got)
		}
	}
}

func TestGeneralizedTime(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ raw, want string }{
		{"20261122072306.0Z", "2026-11-22T07:23:06Z"},
		{"20261122072306Z", "2026-11-22T07:23:06Z"},
		{"20261122072306.845Z", "2026-11-22T07:23:06.845Z"},
		{"20261122072306,5Z", "2026-11-22T07:23:06.5Z"},
		{"202611220723Z", "2026-11-22T07:23:00Z"},
		{"202611220723.5Z", "2026-11-22T07:23:30Z"},
		{"2026112207.25Z", "2026-11-22T07:15:00Z"},
		{"20261122072306+0530", "2026-11-22T01:53:06Z"},
		{"20261122072306-02", "2026-11-22T09:23:06Z"},
		{"20240229000000.0Z", "2024-02-29T00:00:00Z"},
	} {
		got, ok := ParseGeneralizedTime([]byte(test.raw))
		if !ok || got.Format(time.RFC3339Nano) != test.want {
			t.Errorf("%s: %v %v, want %s", test.raw, got, ok, test.want)
		}
	}
	for _, raw := range []string{
		"", "Z", "20261122", "20261122Z", "20261122072306", "20261122072306.Z", "20261122072306.0", "20261122072306.0ZZ",
		"20261322072306Z", "20260230000000Z", "20261122240000Z", "20261122076000Z", "20261122072360Z",
		"20261122072306+5", "20261122072306+2400", "202611220723061Z", "2026-11-22", "0000010100+01", "99991231235959-01",
	} {
		if got, ok := ParseGeneralizedTime([]byte(raw)); ok {
			t.Errorf("%q accepted as %v", raw, got)
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	if got, ok := ParseGroupType([]byte("-2147483646")); !ok || got != GroupSecurity|GroupGlobal {
		t.Errorf("group type %#x %v", got, ok)
	}
	if got, ok := ParseAccountControl([]byte("8388624")); !ok || got != AccountLocked|AccountPasswordExpired {
		t.Errorf("account control %#x %v", got, ok)
	}
	if got, ok := ParseUSN([]byte("12345")); !ok || got != 12345 {
		t.Errorf("USN %d %v", got, ok)
	}
	for _, raw := range []string{"", "x", "4294967296", "0x2", " 2"} {
		if got, ok := ParseGroupType([]byte(raw)); ok {
			t.Errorf("group type %q accepted as %#x", raw, got)
		} else if got != 0 {
			t.Errorf("malformed group type %q: %#x, want 0", raw, got)
		}
		if got, ok := ParseAccountControl([]byte(raw)); ok || got != 0 {
			t.Errorf("account control %q: %#x %v, want 0 false", raw, got, ok)
		}
		if got, ok := ParseEncryptionTypes([]byte(raw)); ok || got != 0 {
			t.Errorf("encryption types %q: %#x %v, want 0 false", raw, got, ok)
		}
	}
	for _, raw := range []string{"", "x", "-1", "9223372036854775808"} {
		if got, ok := ParseUSN([]byte(raw)); ok {
			t.Errorf("USN %q accepted as %d", raw, got)
		}
	}
}

func FuzzSID(f *testing.F) {
	f.Add(unhex(f, "0105000000000005150000 00E0DD366E73B2F41068AD5C574F040000"))
	f.Add(unhex(f, "010100010000000001000000"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sid, ok := ParseSID(raw)
		if !ok {
			return
		}
		text := sid.String()
		if want := int(raw[1]) + 2; strings.Count(text, "-") != want {
			t.Errorf("%x: %s, want %d hyphens", raw, text, want)
		}
		if !bytes.Equal(sid, raw) {
			t.Errorf("%x: SID %x", raw, []byte(sid))
		}
	})
}

func FuzzGUID(f *testing.F) {
	f.Add(unhex(f, "b0a92323596cd24b9e86eec4d73a8b8d"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		guid, ok := ParseGUID(raw)
		if ok != (len(raw) == 16) {
			t.Fatalf("%x: %v", raw, ok)
		}
		if !ok {
			return
		}
		// RFC 4122 has the same text form, with big-endian fields.
		parsed, err := uuid.Parse(guid.String())
		if err != nil {
			t.Fatal(err)
		}
		swapped := []byte{raw[3], raw[2], raw[1], raw[0], raw[5], raw[4], raw[7], raw[6]}
		if !bytes.Equal(parsed[:], append(swapped, raw[8:]...)) {
			t.Errorf("%x: %s", raw, guid)
		}
	})
}

func FuzzTimes(f *testing.F) {
	f.Add([]byte("20261122072306.0Z"))
	f.Add([]byte("2026112207+0530"))
	f.Add([]byte("134398063938451234"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, ok := ParseGeneralizedTime(raw); ok {
			// Every accepted time can be formatted as RFC 3339.
			parsed, err := time.Parse(time.RFC3339Nano, got.Format(time.RFC3339Nano))
			if err != nil || !parsed.Equal(got) {
				t.Errorf("%q: %v, %v", raw, got, err)
			}
		}
		if got, ok := ParseFileTime(raw); ok && !got.IsNone() {
			if year := got.Time().Year(); year < 1601 || year > 9999 {
				t.Errorf("%q: year %d", raw, year)
			}
		}
	})
}

func TestAppendDNSName(t *testing.T) {
	t.Parallel()
	for dn, want := range map[string]string{
		"CN=Alice,OU=Staff,DC=corp,DC=example,DC=com": "corp.example.com",
		"dc=corp":                  "corp",
		"DC=odd,CN=Alice,DC=corp":  "corp",
		"DC=odd,CN=Alice":          "",
		`CN=Alice\,DC=x,DC=corp`:   "corp",
		`CN=Alice\\,DC=x,DC=corp`:  "x.corp",
		"CN=Configuration,DC=corp": "corp",
		"CN=Alice":                 "", "": "", ",": "", "DC=": "", "DC=,DC=": "",
	} {
		if got := string(AppendDNSName(nil, []byte(dn))); got != want {
			t.Errorf("%q: %q, want %q", dn, got, want)
		}
	}
}
