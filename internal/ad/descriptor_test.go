package ad

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

const (
	aliceSID  = "0105000000000005150000 00E0DD366E73B2F41068AD5C574F040000"
	adminsSID = "01020000000000052000000020020000"
)

// newDescriptor returns a self-relative security descriptor whose DACL has these ACEs.
func newDescriptor(aces ...[]byte) []byte {
	d := make([]byte, descriptorHeader)
	d[0] = descriptorRevision
	binary.LittleEndian.PutUint16(d[2:], 0x8004) // self-relative, with a DACL
	binary.LittleEndian.PutUint32(d[daclOffset:], descriptorHeader)
	acl := []byte{4, 0, 0, 0, byte(len(aces)), 0, 0, 0}
	for _, ace := range aces {
		acl = append(acl, ace...)
	}
	binary.LittleEndian.PutUint16(acl[2:], uint16(len(acl)))
	return append(d, acl...)
}

func newACE(aceType byte, body ...byte) []byte {
	ace := append([]byte{aceType, 0, 0, 0, 0xff, 1, 0, 0}, body...)
	binary.LittleEndian.PutUint16(ace[2:], uint16(len(ace)))
	return ace
}

func TestAllowedSIDs(t *testing.T) {
	t.Parallel()
	alice, admins := unhex(t, aliceSID), unhex(t, adminsSID)
	object := func(flags byte, guids int, sid []byte) []byte {
		return newACE(aceAllowedObject, append(append([]byte{flags, 0, 0, 0}, make([]byte, 16*guids)...), sid...)...)
	}
	inheritOnly := newACE(0, alice...)
	inheritOnly[1] = 0x0a // inherit only, container inherit
	inherited := newACE(0, admins...)
	inherited[1] = 0x12
	callbackObject := object(1, 1, alice)
	callbackObject[0] = 11
	absent := newDescriptor(newACE(0, alice...))
	absent[2] = 0
	null := newHeader(descriptorHeader)
	null[2] = 4
	for _, test := range []struct {
		name       string
		descriptor []byte
		want       string
	}{
		{"one ACE", newDescriptor(newACE(0, alice...)), "S-1-5-21-1849089504-284471923-1465691496-1103"},
		{"duplicates", newDescriptor(newACE(0, admins...), newACE(0, alice...), newACE(0, admins...)), "S-1-5-32-544 S-1-5-21-1849089504-284471923-1465691496-1103"},
		{"deny ACE", newDescriptor(newACE(1, alice...), newACE(0, admins...)), "S-1-5-32-544"},
		{"object ACEs", newDescriptor(object(0, 0, admins), object(1, 1, alice), object(3, 2, admins)), "S-1-5-32-544 S-1-5-21-1849089504-284471923-1465691496-1103"},
		{"data after the SID", newDescriptor(newACE(0, append(slices.Clone(admins), 1, 2, 3, 4)...)), "S-1-5-32-544"},
		{"unknown ACE type", newDescriptor(newACE(0x11, 1, 2, 3)), ""},
		{"empty DACL", newDescriptor(), ""},
		{"no DACL", newHeader(descriptorHeader), "S-1-1-0"},
		{"null DACL", null, "S-1-1-0"},
		{"DACL flag not set", absent, "S-1-1-0"},
		{"inherit-only ACE", newDescriptor(inheritOnly, inherited), "S-1-5-32-544"},
		{"callback ACEs", newDescriptor(newACE(9, append(slices.Clone(admins), "artx"...)...), callbackObject), "S-1-5-32-544 S-1-5-21-1849089504-284471923-1465691496-1103"},
	} {
		sids, ok := AllowedSIDs(test.descriptor)
		var got []string
		for _, sid := range sids {
			got = append(got, sid.String())
		}
		if !ok || strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v %v, want %s", test.name, got, ok, test.want)
		}
	}
	complete := newDescriptor(newACE(0, alice...), object(3, 2, admins))
	for size := range len(complete) {
		if sids, ok := AllowedSIDs(complete[:size]); ok {
			t.Errorf("truncated to %d of %d bytes: %v", size, len(complete), sids)
		}
	}
}

// newHeader returns a descriptor of size zero bytes, except for the revision.
func newHeader(size int) []byte {
	d := make([]byte, size)
	d[0] = descriptorRevision
	return d
}

func FuzzAllowedSIDs(f *testing.F) {
	f.Add(newDescriptor(newACE(0, unhex(f, aliceSID)...)))
	f.Add(newDescriptor(newACE(5, append([]byte{1, 0, 0, 0}, append(make([]byte, 16), unhex(f, adminsSID)...)...)...)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sids, ok := AllowedSIDs(raw)
		if !ok && sids != nil {
			t.Error("SIDs of a malformed descriptor")
		}
		if len(sids) > len(raw)/(aceHeader+aceMask+sidHeader) {
			t.Errorf("%d SIDs in %d bytes", len(sids), len(raw))
		}
		for _, sid := range sids {
			if _, ok := ParseSID(sid); !ok {
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
