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

// descriptorOf builds a self-relative descriptor whose list has these entries.
func descriptorOf(entries ...[]byte) []byte {
	d := make([]byte, descriptorHeader)
	d[0] = descriptorRevision
	binary.LittleEndian.PutUint16(d[2:], 0x8004) // self-relative, with a discretionary list
	binary.LittleEndian.PutUint32(d[daclOffset:], descriptorHeader)
	list := []byte{4, 0, 0, 0, byte(len(entries)), 0, 0, 0}
	for _, e := range entries {
		list = append(list, e...)
	}
	binary.LittleEndian.PutUint16(list[2:], uint16(len(list)))
	return append(d, list...)
}

func entryOf(kind byte, body ...byte) []byte {
	e := append([]byte{kind, 0, 0, 0, 0xff, 1, 0, 0}, body...)
	binary.LittleEndian.PutUint16(e[2:], uint16(len(e)))
	return e
}

func TestAllowedBy(t *testing.T) {
	t.Parallel()
	alice, admins := unhex(t, aliceSID), unhex(t, adminsSID)
	object := func(flags byte, guids int, sid []byte) []byte {
		return entryOf(entryAllowedObject, append(append([]byte{flags, 0, 0, 0}, make([]byte, 16*guids)...), sid...)...)
	}
	inheritOnly := entryOf(0, alice...)
	inheritOnly[1] = 0x0a // and for containers
	inherited := entryOf(0, admins...)
	inherited[1] = 0x12
	callbackObject := object(1, 1, alice)
	callbackObject[0] = 11
	absent := descriptorOf(entryOf(0, alice...))
	absent[2] = 0
	null := headerOf(descriptorHeader)
	null[2] = 4
	for _, test := range []struct {
		name       string
		descriptor []byte
		want       string
	}{
		{"one entry", descriptorOf(entryOf(0, alice...)), "S-1-5-21-1849089504-284471923-1465691496-1103"},
		{"several, once each", descriptorOf(entryOf(0, admins...), entryOf(0, alice...), entryOf(0, admins...)), "S-1-5-32-544 S-1-5-21-1849089504-284471923-1465691496-1103"},
		{"a denial", descriptorOf(entryOf(1, alice...), entryOf(0, admins...)), "S-1-5-32-544"},
		{"object entries", descriptorOf(object(0, 0, admins), object(1, 1, alice), object(3, 2, admins)), "S-1-5-32-544 S-1-5-21-1849089504-284471923-1465691496-1103"},
		{"bytes after the SID", descriptorOf(entryOf(0, append(slices.Clone(admins), 1, 2, 3, 4)...)), "S-1-5-32-544"},
		{"an unknown kind", descriptorOf(entryOf(0x11, 1, 2, 3)), ""},
		{"an empty list", descriptorOf(), ""},
		{"no list", headerOf(descriptorHeader), "S-1-1-0"},
		{"a null list", null, "S-1-1-0"},
		{"a list that is not there", absent, "S-1-1-0"},
		{"for what is below only", descriptorOf(inheritOnly, inherited), "S-1-5-32-544"},
		{"callbacks", descriptorOf(entryOf(9, append(slices.Clone(admins), "artx"...)...), callbackObject), "S-1-5-32-544 S-1-5-21-1849089504-284471923-1465691496-1103"},
	} {
		sids, ok := AllowedBy(test.descriptor)
		var got []string
		for _, sid := range sids {
			got = append(got, sid.String())
		}
		if !ok || strings.Join(got, " ") != test.want {
			t.Errorf("%s: %v %v, want %s", test.name, got, ok, test.want)
		}
	}
	whole := descriptorOf(entryOf(0, alice...), object(3, 2, admins))
	for cut := range len(whole) {
		if sids, ok := AllowedBy(whole[:cut]); ok {
			t.Errorf("%d bytes of %d: %v", cut, len(whole), sids)
		}
	}
}

// headerOf is a header alone, of the right revision.
func headerOf(size int) []byte {
	d := make([]byte, size)
	d[0] = descriptorRevision
	return d
}

func FuzzAllowedBy(f *testing.F) {
	f.Add(descriptorOf(entryOf(0, unhex(f, aliceSID)...)))
	f.Add(descriptorOf(entryOf(5, append([]byte{1, 0, 0, 0}, append(make([]byte, 16), unhex(f, adminsSID)...)...)...)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		sids, ok := AllowedBy(raw)
		if !ok && sids != nil {
			t.Error("SIDs of what is no descriptor")
		}
		if len(sids) > len(raw)/(entryHeader+entryMask+sidHeader) {
			t.Errorf("%d SIDs in %d bytes", len(sids), len(raw))
		}
		for _, sid := range sids {
			if _, ok := ParseSID(sid); !ok {
				t.Errorf("%x is no SID", []byte(sid))
			}
		}
	})
}

func TestExtendedDN(t *testing.T) {
	t.Parallel()
	const guid, dn = "b0a92323596cd24b9e86eec4d73a8b8d", "CN=a\\,b <x>;y,DC=corp"
	for _, test := range []struct{ name, value, want string }{
		{"a principal", "<GUID=" + guid + ">;<SID=" + adminsSID + ">;" + dn, "2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d S-1-5-32-544 " + dn},
		{"without a SID", "<GUID=" + strings.ToUpper(guid) + ">;" + dn, "2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d  " + dn},
		{"plain", dn, ""},
		{"only a SID", "<SID=" + adminsSID + ">;" + dn, ""},
		{"a GUID with hyphens", "<GUID=2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d>;" + dn, ""},
		{"not hexadecimal", "<GUID=" + guid[:31] + "x>;" + dn, ""},
		{"a short SID", "<GUID=" + guid + ">;<SID=0102>;" + dn, ""},
		{"a long SID", "<GUID=" + guid + ">;<SID=" + strings.Repeat("01", 100) + ">;" + dn, ""},
		{"an open SID", "<GUID=" + guid + ">;<SID=" + adminsSID, ""},
		{"an odd SID", "<GUID=" + guid + ">;<SID=" + adminsSID + "0>;" + dn, ""},
		{"nothing", "", ""},
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
			t.Errorf("%s: plain %q", test.name, plain)
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
		if sid, there := parsed.SID(); there {
			if _, ok := ParseSID(sid); !ok {
				t.Errorf("%x is no SID", []byte(sid))
			}
		}
		if string(PlainDN(raw)) != string(parsed.DN) {
			t.Errorf("%q and %q", PlainDN(raw), parsed.DN)
		}
	})
}

func TestSplitSID(t *testing.T) {
	t.Parallel()
	sid, _ := ParseSID(unhex(t, aliceSID))
	authority, rid, ok := sid.Split()
	if !ok || rid != 1103 || Join(authority, 512).String() != "S-1-5-21-1849089504-284471923-1465691496-512" {
		t.Errorf("%x %d %v", authority, rid, ok)
	}
	if _, _, ok := SID(unhex(t, "0100000000000005")).Split(); ok {
		t.Error("a SID without sub-authorities has no RID")
	}
}
