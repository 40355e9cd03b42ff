package ad

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const (
	aliceSID  = "0105000000000005150000 00E0DD366E73B2F41068AD5C574F040000"
	adminsSID = "01020000000000052000000020020000"
)

// newDescriptor returns a self-relative security descriptor whose DACL has these entries.
func newDescriptor(entries ...[]byte) []byte {
	d := newHeader(descriptorHeader)
	binary.LittleEndian.PutUint16(d[2:], 0x8004) // self-relative, with a DACL
	binary.LittleEndian.PutUint32(d[daclOffset:], descriptorHeader)
	list := []byte{4, 0, 0, 0, 0, 0, 0, 0}
	for _, entry := range entries {
		list = append(list, entry...)
	}
	binary.LittleEndian.PutUint16(list[2:], uint16(len(list)))
	binary.LittleEndian.PutUint16(list[4:], uint16(len(entries)))
	return append(d, list...)
}

// newHeader returns a descriptor of size zero bytes, except for the revision.
func newHeader(size int) []byte {
	d := make([]byte, size)
	d[0] = descriptorRevision
	return d
}

// newEntry returns an entry with these rights. The body is what follows them.
func newEntry(entryType EntryType, flags EntryFlags, mask AccessMask, body ...byte) []byte {
	entry := binary.LittleEndian.AppendUint32([]byte{byte(entryType), byte(flags), 0, 0}, uint32(mask))
	entry = append(entry, body...)
	binary.LittleEndian.PutUint16(entry[2:], uint16(len(entry)))
	return entry
}

// Example GUIDs of an object entry.
var (
	resetPassword = GUID{1, 2, 3}
	computerClass = GUID{4, 5, 6}
)

// newObjectEntry returns an object entry. Zero GUIDs are left out.
func newObjectEntry(entryType EntryType, mask AccessMask, object, inherited GUID, sid []byte) []byte {
	body := []byte{0, 0, 0, 0}
	if object != (GUID{}) {
		body[0] |= objectTypePresent
		body = append(body, object[:]...)
	}
	if inherited != (GUID{}) {
		body[0] |= inheritedTypePresent
		body = append(body, inherited[:]...)
	}
	return newEntry(entryType, 0, mask, append(body, sid...)...)
}

func texts(sids []SID) string {
	var list []string
	for _, sid := range sids {
		list = append(list, sid.String())
	}
	return strings.Join(list, " ")
}

func TestGranted(t *testing.T) {
	t.Parallel()
	alice, admins := unhex(t, aliceSID), unhex(t, adminsSID)
	const control, read, fullControl = RightControlAccess, AccessMask(0x10), AccessMask(0xf01ff)
	const aliceText, adminsText = "S-1-5-21-1849089504-284471923-1465691496-1103", "S-1-5-32-544"
	allow := func(mask AccessMask, sid []byte) []byte { return newEntry(EntryAllow, 0, mask, sid...) }
	deny := func(mask AccessMask, sid []byte) []byte { return newEntry(EntryDeny, 0, mask, sid...) }
	null := newHeader(descriptorHeader)
	null[2] = 4
	unset := newDescriptor(allow(control, alice))
	unset[2] = 0
	for _, test := range []struct {
		name       string
		descriptor []byte
		control    string // who is granted control access
		read       string // who is granted read property
	}{
		{"full control", newDescriptor(allow(fullControl, alice)), aliceText, aliceText},
		{"only control access", newDescriptor(allow(control, alice)), aliceText, ""},
		{"only read property", newDescriptor(allow(read, alice)), "", aliceText},
		{"every right but these", newDescriptor(allow(fullControl&^(control|read), alice)), "", ""},
		{"generic all", newDescriptor(allow(rightGenericAll, alice)), aliceText, aliceText},
		{"other generic rights", newDescriptor(allow(0xe0000000, alice)), "", ""},
		{"duplicates", newDescriptor(allow(control, admins), allow(control, alice), allow(fullControl, admins)), adminsText + " " + aliceText, adminsText},

		{"denied first", newDescriptor(deny(control, alice), allow(fullControl, alice)), "", aliceText},
		{"denied last", newDescriptor(allow(fullControl, alice), deny(fullControl, alice)), aliceText, aliceText},
		{"denied in parts", newDescriptor(allow(read, alice), deny(fullControl, alice), allow(fullControl, alice)), "", aliceText},
		{"generic all denied", newDescriptor(deny(rightGenericAll, alice), allow(fullControl, alice)), "", ""},
		{"another principal denied", newDescriptor(deny(fullControl, alice), allow(fullControl, admins)), adminsText, adminsText},
		{"Everyone denied", newDescriptor(deny(control, Everyone), allow(fullControl, alice), allow(fullControl, Everyone)), "", aliceText + " S-1-1-0"},
		{"Authenticated Users denied", newDescriptor(deny(control, AuthenticatedUsers), allow(control, alice), allow(control, AnonymousLogon), allow(control, Everyone)), "S-1-5-7 S-1-1-0", ""},
		{"Authenticated Users denied after", newDescriptor(allow(control, alice), deny(control, AuthenticatedUsers), allow(control, admins)), aliceText, ""},

		{"object entry for a right", newDescriptor(newObjectEntry(EntryAllowObject, control, resetPassword, GUID{}, alice)), "", ""},
		{"object entry for all rights", newDescriptor(newObjectEntry(EntryAllowObject, control, GUID{}, GUID{}, alice)), aliceText, ""},
		{"object entry with an inherited type", newDescriptor(newObjectEntry(EntryAllowObject, read, GUID{}, computerClass, alice)), "", aliceText},
		{"object entry denies a right", newDescriptor(newObjectEntry(EntryDenyObject, control, resetPassword, computerClass, alice), allow(control, alice)), aliceText, ""},
		{"object entry denies all rights", newDescriptor(newObjectEntry(EntryDenyObject, control, GUID{}, GUID{}, alice), allow(control, alice)), "", ""},

		{"inherit-only allow", newDescriptor(newEntry(EntryAllow, EntryInheritOnly|2, control, alice...), newEntry(EntryAllow, 0x12, control, admins...)), adminsText, ""},
		{"inherit-only deny", newDescriptor(newEntry(EntryDeny, EntryInheritOnly|2, control, alice...), allow(control, alice)), aliceText, ""},
		{"condition allows", newDescriptor(newEntry(EntryAllowConditional, 0, control, append(slices.Clone(alice), "artx"...)...)), aliceText, ""},
		{"condition denies", newDescriptor(newEntry(EntryDenyConditional, 0, control, append(slices.Clone(alice), "artx"...)...), allow(control, alice)), aliceText, ""},
		{"condition of an object entry", newDescriptor(newObjectEntry(EntryAllowConditionalObject, control, GUID{}, GUID{}, alice)), aliceText, ""},

		{"unknown type of entry", newDescriptor(newEntry(0x11, 0, control, alice...), []byte{2, 0, 4, 0}), "", ""},
		{"empty DACL", newDescriptor(), "", ""},
		{"no DACL", newHeader(descriptorHeader), "S-1-1-0", "S-1-1-0"},
		{"null DACL", null, "S-1-1-0", "S-1-1-0"},
		{"DACL flag not set", unset, "S-1-1-0", "S-1-1-0"},
	} {
		var d Descriptor
		if !d.Parse(test.descriptor) {
			t.Errorf("%s: malformed", test.name)
		}
		if got := texts(d.Granted(control)); got != test.control {
			t.Errorf("%s: control access granted to %q, want %q", test.name, got, test.control)
		}
		if got := texts(d.Granted(read)); got != test.read {
			t.Errorf("%s: read property granted to %q, want %q", test.name, got, test.read)
		}
	}
}

// TestGrantedToMany checks that many entries take little time, and none is lost.
// TestAllows checks the access of an account that is in a group.
func TestAllows(t *testing.T) {
	t.Parallel()
	alice, admins := unhex(t, aliceSID), unhex(t, adminsSID)
	token := []SID{alice, Everyone, AuthenticatedUsers}
	const list, read = RightListContents, AccessMask(0x10)
	allow := func(mask AccessMask, sid []byte) []byte { return newEntry(EntryAllow, 0, mask, sid...) }
	deny := func(mask AccessMask, sid []byte) []byte { return newEntry(EntryDeny, 0, mask, sid...) }
	null := newHeader(descriptorHeader)
	for name, c := range map[string]struct {
		descriptor []byte
		want       bool
	}{
		"to the account":                 {newDescriptor(allow(list, alice)), true},
		"to its group":                   {newDescriptor(allow(list|read, AuthenticatedUsers)), true},
		"to others":                      {newDescriptor(allow(list, admins)), false},
		"another right":                  {newDescriptor(allow(read, alice)), false},
		"all rights":                     {newDescriptor(allow(rightGenericAll, alice)), true},
		"denied first":                   {newDescriptor(deny(list, Everyone), allow(list, alice)), false},
		"denied last":                    {newDescriptor(allow(list, alice), deny(list, Everyone)), true},
		"another right denied":           {newDescriptor(deny(read, alice), allow(list, alice)), true},
		"denied to others":               {newDescriptor(deny(list, admins), allow(list, alice)), true},
		"inherit-only":                   {newDescriptor(newEntry(EntryAllow, EntryInheritOnly|2, list, alice...)), false},
		"for an object type":             {newDescriptor(newObjectEntry(EntryAllowObject, list, computerClass, GUID{}, alice)), false},
		"object entry without a type":    {newDescriptor(newObjectEntry(EntryAllowObject, list, GUID{}, computerClass, alice)), true},
		"denied under a condition":       {newDescriptor(newEntry(EntryDenyConditional, 0, list, alice...), allow(list, alice)), true},
		"allowed under a condition":      {newDescriptor(newEntry(EntryAllowConditional, 0, list, alice...)), true},
		"empty list":                     {newDescriptor(), false},
		"no list, which allows everyone": {null, true},
	} {
		t.Run(name, func(t *testing.T) {
			var d Descriptor
			if !d.Parse(c.descriptor) {
				t.Fatal("malformed")
			}
			if got := d.Allows(token, list); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}

func TestGrantedToMany(t *testing.T) {
	t.Parallel()
	const count = 3000
	var entries [][]byte
	for n := range count {
		sid := JoinSID([]byte{1, 1, 0, 0, 0, 0, 0, 5}, RID(n%(count/2)))
		entries = append(entries, newEntry(EntryAllow, 0, RightControlAccess, sid...))
	}
	var d Descriptor
	if !d.Parse(newDescriptor(entries...)) {
		t.Fatal("malformed")
	}
	if granted := d.Granted(RightControlAccess); len(granted) != count/2 {
		t.Errorf("%d principals, want %d", len(granted), count/2)
	}
}

func TestDescriptor(t *testing.T) {
	alice, admins := unhex(t, aliceSID), unhex(t, adminsSID)
	complete := newDescriptor(newEntry(EntryAllow, 0, 1, alice...), newObjectEntry(EntryDenyObject, 2, resetPassword, computerClass, admins))
	end := len(complete)
	binary.LittleEndian.PutUint32(complete[ownerOffset:], uint32(end))
	binary.LittleEndian.PutUint32(complete[groupOffset:], uint32(end+len(admins)))
	complete = append(append(complete, admins...), alice...)
	var d Descriptor
	want := []AccessEntry{
		{Type: EntryAllow, Mask: 1, Trustee: alice},
		{Type: EntryDenyObject, Mask: 2, ObjectType: resetPassword, InheritedObjectType: computerClass, Trustee: admins},
	}
	for range 2 { // a descriptor can be parsed into again
		if !d.Parse(complete) || !d.HasDACL || d.Owner.String() != "S-1-5-32-544" || !bytes.Equal(d.Group, alice) || !reflect.DeepEqual(d.DACL, want) {
			t.Errorf("%+v", d)
		}
	}
	if n := testing.AllocsPerRun(10, func() { d.Parse(complete) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	for size := range len(complete) {
		if d.Parse(complete[:size]) || d.Owner != nil || d.HasDACL || len(d.DACL) > 0 {
			t.Errorf("truncated to %d of %d bytes: %+v", size, len(complete), d)
		}
	}
	// The last byte of the fixed part, and of each length, must be checked.
	for _, change := range []struct {
		name     string
		position int
		value    byte
	}{
		{"revision", 0, 2}, {"owner beyond the end", ownerOffset + 1, 0xff}, {"list beyond the end", daclOffset + 1, 0xff},
		{"too small list", descriptorHeader + 2, 7}, {"too many entries", descriptorHeader + 4, 3},
		{"too small entry", descriptorHeader + aclHeader + 2, 3}, {"entry beyond the list", descriptorHeader + aclHeader + 3, 0xff},
		{"SID beyond the entry", descriptorHeader + aclHeader + 9, 15}, {"revision of a SID", descriptorHeader + aclHeader + 8, 2},
	} {
		damaged := slices.Clone(complete)
		damaged[change.position] = change.value
		if d.Parse(damaged) {
			t.Errorf("%s: %+v", change.name, d)
		}
	}
}

func FuzzDescriptor(f *testing.F) {
	f.Add(newDescriptor(newEntry(EntryAllow, 0, 0x100, unhex(f, aliceSID)...)))
	f.Add(newDescriptor(newEntry(EntryDeny, 0, 0x100, Everyone...), newObjectEntry(EntryAllowObject, 0x10, resetPassword, computerClass, unhex(f, adminsSID))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d Descriptor
		if !d.Parse(raw) {
			if d.Owner != nil || d.Group != nil || d.HasDACL || len(d.DACL) > 0 {
				t.Errorf("malformed, but %+v", d)
			}
			return
		}
		if len(d.DACL) > len(raw)/entryHeader {
			t.Errorf("%d entries in %d bytes", len(d.DACL), len(raw))
		}
		trustees := []SID{d.Owner, d.Group}
		for _, entry := range d.DACL {
			trustees = append(trustees, entry.Trustee)
		}
		granted := d.Granted(RightControlAccess)
		if d.HasDACL && len(granted) > len(d.DACL) {
			t.Errorf("granted to %d principals by %d entries", len(granted), len(d.DACL))
		}
		for _, sid := range append(trustees, granted...) {
			if _, ok := ParseSID(sid); !ok && sid != nil {
				t.Errorf("%x is not a SID", []byte(sid))
			}
		}
	})
}

func TestExtendedDN(t *testing.T) {
	t.Parallel()
	const guid, dn = "b0a92323596cd24b9e86eec4d73a8b8d", "CN=a\\,b <x>;y,DC=corp"
	for _, test := range []struct{ name, value, want string }{
		{"with a SID", "<GUID=" + guid + ">;<SID=" + adminsSID + ">;" + dn, "2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d S-1-5-32-544 " + dn},
		{"without a SID", "<GUID=" + strings.ToUpper(guid) + ">;" + dn, "2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d  " + dn},
		{"plain", dn, ""},
		{"only a SID", "<SID=" + adminsSID + ">;" + dn, ""},
		{"GUID with hyphens", "<GUID=2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d>;" + dn, ""},
		{"not hexadecimal", "<GUID=" + guid[:31] + "x>;" + dn, ""},
		{"short SID", "<GUID=" + guid + ">;<SID=0102>;" + dn, ""},
		{"long SID", "<GUID=" + guid + ">;<SID=" + strings.Repeat("01", 100) + ">;" + dn, ""},
		{"unterminated SID", "<GUID=" + guid + ">;<SID=" + adminsSID, ""},
		{"SID with an odd number of digits", "<GUID=" + guid + ">;<SID=" + adminsSID + "0>;" + dn, ""},
		{"empty", "", ""},
	} {
		var parsed ExtendedDN
		got := ""
		if parsed.Parse([]byte(test.value)) {
			sid, _ := parsed.SID()
			text := ""
			if len(sid) > 0 {
				text = sid.String()
			}
			got = parsed.GUID.String() + " " + text + " " + string(parsed.DN)
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
		if plain := string(PlainDN([]byte(test.value))); strings.HasSuffix(test.value, dn) && plain != dn {
			t.Errorf("%s: plain DN %q", test.name, plain)
		}
	}
}

func TestRelativeName(t *testing.T) {
	t.Parallel()
	for dn, want := range map[string]string{
		"CN=Alice,OU=x,DC=corp":                "Alice",
		"CN=Alice":                             "Alice",
		`CN=Kovács\, Alice,DC=corp`:            "Kovács, Alice",
		`CN=\ a\+b\\c\ ,DC=corp`:               ` a+b\c `,
		`CN=Sales\0ACNF:7b0d,CN=Users,DC=corp`: "Sales\nCNF:7b0d",
		`CN=\C3\A4\"\`:                         "ä\"\\",
		"CN=a=b,DC=corp":                       "a=b",
		"OU=a+CN=b,DC=corp":                    "a",
		"CN=,DC=corp":                          "",
		"":                                     "",
		"Alice":                                "",
	} {
		if got := string(RelativeName([]byte(dn))); got != want {
			t.Errorf("%s: %q, want %q", dn, got, want)
		}
	}
}

func FuzzRelativeName(f *testing.F) {
	f.Add([]byte(`CN=Kovács\, Alice\0A,DC=corp`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if name := RelativeName(raw); len(name) > len(raw) {
			t.Errorf("%q", name)
		}
	})
}

func TestWellKnownNames(t *testing.T) {
	t.Parallel()
	for want, sid := range map[string]SID{
		"Everyone": Everyone, "Authenticated Users": AuthenticatedUsers, "Anonymous Logon": AnonymousLogon,
		"Interactive":         JoinSID([]byte{1, 1, 0, 0, 0, 0, 0, 5}, 4),
		"NTLM Authentication": JoinSID([]byte{1, 2, 0, 0, 0, 0, 0, 5, 64, 0, 0, 0}, 10),
		"Claims Valid":        JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 497),
	} {
		if got := sid.WellKnownName(); got != want {
			t.Errorf("%s: %q, want %q", sid, got, want)
		}
	}
	for _, sid := range []SID{nil, SID(unhex(t, aliceSID)), SID(unhex(t, adminsSID)), {1, 0, 0, 0, 0, 0, 0, 5}} {
		if got := sid.WellKnownName(); got != "" {
			t.Errorf("%x: %q", []byte(sid), got)
		}
	}
}

func FuzzExtendedDN(f *testing.F) {
	f.Add([]byte("<GUID=b0a92323596cd24b9e86eec4d73a8b8d>;<SID=" + adminsSID + ">;CN=x"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var parsed ExtendedDN
		if !parsed.Parse(raw) {
			return
		}
		if sid, ok := parsed.SID(); ok {
			if _, ok := ParseSID(sid); !ok {
				t.Errorf("%x is not a SID", []byte(sid))
			}
		}
		if string(PlainDN(raw)) != string(parsed.DN) {
			t.Errorf("plain DN %q, want %q", PlainDN(raw), parsed.DN)
		}
	})
}

func TestCompareSIDs(t *testing.T) {
	t.Parallel()
	authority, _, _ := SID(unhex(t, aliceSID)).Split()
	sorted := []SID{{1, 0, 0, 0, 0, 0, 0, 3}, {1, 0, 0, 0, 0, 0, 0, 5}, Everyone, AuthenticatedUsers, SID(unhex(t, adminsSID)), JoinSID(authority, 512), JoinSID(authority, 1000), JoinSID(authority, 66000)}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := a.Compare(b); got != cmp.Compare(i, j) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
	}
}

func TestSplitSID(t *testing.T) {
	t.Parallel()
	sid, _ := ParseSID(unhex(t, aliceSID))
	authority, rid, ok := sid.Split()
	if !ok || rid != 1103 || JoinSID(authority, 512).String() != "S-1-5-21-1849089504-284471923-1465691496-512" {
		t.Errorf("%x %d %v", authority, rid, ok)
	}
	if _, _, ok := SID(unhex(t, "0100000000000005")).Split(); ok {
		t.Error("a SID without sub-authorities has no RID")
	}
}
