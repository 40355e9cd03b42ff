//go:build ad

package samba

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/ad"
)

// decodeSDDL prints a JSON document for each line of SDDL: the binary security descriptor, its
// parts as Samba decodes them, and the trustees that pass its access check for each right. Each of
// them is in Everyone and Authenticated Users.
const decodeSDDL = `
import json, sys
from samba import security as check
from samba.dcerpc import security
from samba.ndr import ndr_pack
domain = security.dom_sid("S-1-5-21-1-2-3")
groups = [security.dom_sid("S-1-1-0"), security.dom_sid("S-1-5-11")]
def passes(descriptor, sid, right):
    token = security.token()
    token.sids = [security.dom_sid(sid)] + groups
    token.num_sids = 1 + len(groups)
    try:
        check.access_check(descriptor, token, right)
        return True
    except Exception:
        return False
def guid(ace, flag, name):
    is_object = ace.type in (5, 6)
    return str(getattr(ace.object, name)) if is_object and ace.object.flags & flag else ""
for line in sys.stdin:
    d = security.descriptor.from_sddl(line.strip(), domain)
    aces = d.dacl.aces if d.dacl else []
    trustees = {str(a.trustee) for a in aces if str(a.trustee) not in ("S-1-1-0", "S-1-5-11")}
    print(json.dumps({
        "descriptor": ndr_pack(d).hex(), "owner": str(d.owner_sid), "group": str(d.group_sid),
        "entries": ["%d %d %#x %s %s %s" % (a.type, a.flags, a.access_mask & 0xffffffff, guid(a, 1, "type"), guid(a, 2, "inherited_type"), a.trustee) for a in aces],
        "control": sorted(s for s in trustees if passes(d, s, 0x100)),
        "read": sorted(s for s in trustees if passes(d, s, 0x10)),
    }))
`

// randomSDDL returns a security descriptor with entries of all types that Samba decodes. Without
// objects, it has only entries that Samba's access check for files evaluates, and allows only
// single principals, so that each principal is allowed by its own entries.
func randomSDDL(r *rand.Rand, objects bool) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	principal := func() string { return fmt.Sprintf("S-1-5-21-1-2-3-%d", 1000+r.IntN(4)) }
	text := "O:" + pick("BA", "SY", principal()) + "G:" + pick("BA", "DU") + "D:" + pick("", "P", "AI", "PAI")
	for range r.IntN(9) {
		flags, rights := pick("", "", "", "CI", "CIIO", "ID", "CIID", "OICIIO"), ""
		for range 1 + r.IntN(3) {
			rights += pick("CR", "RP", "WP", "LC", "SD", "RC", "CCDCLCSWRPWPDTLOCRSDRCWDWO")
		}
		trustee := principal()
		kind := pick("A", "A", "D")
		if kind == "D" {
			trustee = pick(trustee, trustee, "WD", "AU")
		}
		if !objects {
			text += "(" + kind + ";" + flags + ";" + rights + ";;;" + trustee + ")"
			continue
		}
		rights += pick("", "", "GA", "GR")
		object, inherited := pick("", "00299570-246d-11d0-a768-00aa006e0529", "bf9679c0-0de6-11d0-a285-00aa003049e2"), pick("", "bf967aba-0de6-11d0-a285-00aa003049e2")
		if object+inherited != "" {
			kind = "O" + kind
		}
		text += "(" + kind + ";" + flags + ";" + rights + ";" + object + ";" + inherited + ";" + trustee + ")"
	}
	return text
}

// TestDescriptors compares the connector's reading of security descriptors, and its evaluation of
// rights, with Samba's.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	const count, readProperty = 400, 0x10
	r := rand.New(rand.NewPCG(1, 7))
	var lines []string
	for n := range count {
		lines = append(lines, randomSDDL(r, n%2 == 1))
	}
	python := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", decodeSDDL) // the system's, which has Samba's modules
	python.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	output, err := python.Output()
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(strings.NewReader(string(output)))
	granted := 0
	for n, sddl := range lines {
		var want struct {
			Descriptor, Owner, Group string
			Entries, Control, Read   []string
		}
		if err := decoder.Decode(&want); err != nil {
			t.Fatal(err)
		}
		raw, err := hex.DecodeString(want.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		var d ad.Descriptor
		if !d.Parse(raw) || d.Owner.String() != want.Owner || d.Group.String() != want.Group {
			t.Fatalf("%s: %+v", sddl, d)
		}
		if got := describeEntries(d); strings.Join(got, "\n") != strings.Join(want.Entries, "\n") {
			t.Errorf("%s: entries %q, want %q", sddl, got, want.Entries)
		}
		if n%2 == 1 {
			continue
		}
		for right, sids := range map[ad.AccessMask][]string{ad.RightControlAccess: want.Control, readProperty: want.Read} {
			var got []string
			for _, sid := range d.Granted(right) {
				got = append(got, sid.String())
			}
			if slices.Sort(got); !slices.Equal(got, sids) {
				t.Errorf("%s: right %#x is granted to %v, want %v", sddl, right, got, sids)
			}
			granted += len(got)
		}
	}
	if granted < count/2 {
		t.Errorf("%d rights granted: the descriptors are not diverse", granted)
	}
}

// describeEntries formats entries as decodeSDDL does.
func describeEntries(d ad.Descriptor) (list []string) {
	text := func(guid ad.GUID) string {
		if guid == (ad.GUID{}) {
			return ""
		}
		return guid.String()
	}
	for _, e := range d.DACL {
		list = append(list, fmt.Sprintf("%d %d %#x %s %s %s", e.Type, e.Flags, uint32(e.Mask), text(e.ObjectType), text(e.InheritedObjectType), e.Trustee))
	}
	return list
}
