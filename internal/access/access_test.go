package access

import (
	"strconv"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/test/sddl"
)

const (
	domainText = "S-1-5-21-1-2-3"
	alice      = domainText + "-1104"
	bob        = domainText + "-1105"
)

var domain = parseSID(domainText)

// parseSID returns the SID with a text form.
func parseSID(text string) ad.SID {
	fields := strings.Split(text, "-")
	authority, err := strconv.ParseUint(fields[2], 10, 8)
	if err != nil {
		panic(err)
	}
	var sub []uint32
	for _, field := range fields[3:] {
		n, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			panic(err)
		}
		sub = append(sub, uint32(n))
	}
	return newSID(byte(authority), sub...)
}

// parse returns the descriptor with a text form.
func parse(t testing.TB, text string) *ad.Descriptor {
	t.Helper()
	parsed, err := sddl.Parse(text, domainText)
	if err != nil {
		t.Fatal(err)
	}
	d := &ad.Descriptor{HasDACL: parsed.HasDACL}
	if parsed.Owner != "" {
		d.Owner = parseSID(parsed.Owner)
	}
	types := map[string]ad.EntryType{
		"A": ad.EntryAllow, "D": ad.EntryDeny, "OA": ad.EntryAllowObject, "OD": ad.EntryDenyObject,
		"XA": ad.EntryAllowConditional, "XD": ad.EntryDenyConditional, "ZA": ad.EntryAllowConditionalObject, "ZD": ad.EntryDenyConditionalObject,
	}
	flags := map[string]ad.EntryFlags{"OI": 1, "CI": 2, "NP": 4, "IO": ad.EntryInheritOnly, "ID": 16}
	for _, e := range parsed.DACL {
		entry := ad.AccessEntry{Type: types[e.Type], Mask: ad.AccessMask(e.Mask), Trustee: parseSID(e.Trustee)}
		for _, flag := range e.Flags {
			entry.Flags |= flags[flag]
		}
		if e.Object != "" {
			entry.ObjectType = guid(e.Object)
		}
		if e.Inherited != "" {
			entry.InheritedObjectType = guid(e.Inherited)
		}
		d.DACL = append(d.DACL, entry)
	}
	return d
}

// describe formats the lists that are not empty. It shortens the SIDs.
func describe(h Holders) string {
	var lists []string
	for right, sids := range h.All() {
		if len(sids) == 0 {
			continue
		}
		text := right.String() + ":"
		for _, sid := range sids {
			text += " " + sid.String()
		}
		lists = append(lists, text)
	}
	return strings.NewReplacer(alice, "alice", bob, "bob", domainText, "domain").Replace(strings.Join(lists, ", "))
}

func TestEvaluate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		class Class
		sddl  string // alice and bob are principals
		want  string
	}{
		{"full control of a user", User, "O:DAD:(A;;GA;;;alice)", "fullControl: alice, resetPassword: alice, writeAllowedToAct: alice, writeDacl: alice, writeKeyCredential: alice, writeOwner: alice"},
		{"owner", Group, "O:aliceD:", "owner: alice, writeDacl: alice"},
	} {
		text := strings.NewReplacer("alice", alice, "bob", bob).Replace(test.sddl)
		if got := describe(Evaluate(parse(t, text), test.class, domain)); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}
