package access

import (
	"fmt"
	"math/rand/v2"
	"slices"
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

	// Object types as tests name them.
	names = "GET=1131f6aa-9c07-11d1-f79f-00c04fc2dcd2 ALL=1131f6ad-9c07-11d1-f79f-00c04fc2dcd2 FILTERED=89e95b76-444d-4c62-991a-0facbeda640c " +
		"RESET=00299570-246d-11d0-a768-00aa006e0529 CHANGE=ab721a53-1e2f-11d0-9819-00aa0040529b MEMBER=bf9679c0-0de6-11d0-a285-00aa003049e2 " +
		"MEMBERSHIP=bc0ac240-79a9-11d0-9020-00c04fc2d4cf KEY=5b47d60f-6090-40b2-9f37-2a4de88f3063 ACT=3f78c3e5-f79a-46bd-a0b8-9d18116ddc79 " +
		"RESTRICTIONS=4c164200-20c0-11d0-a768-00aa006e0529 USER=bf967aba-0de6-11d0-a285-00aa003049e2 PERSON=4828cc14-1437-45bc-9b07-ad6f015e5f28 " +
		"COMPUTER=bf967a86-0de6-11d0-a285-00aa003049e2 MSA=ce206244-5827-4a86-ba1c-1c0c386c1b64 GMSA=7b8b558a-93a5-4af7-adca-c017e67f1057 " +
		"DMSA=0feb936f-47b3-49f2-9386-1dedc2c23765 GROUP=bf967a9c-0de6-11d0-a285-00aa003049e2 UNIT=bf967aa5-0de6-11d0-a285-00aa003049e2 " +
		"CONTAINER=bf967a8b-0de6-11d0-a285-00aa003049e2 DOMAIN=19195a5b-6da0-11d0-afd3-00c04fd930c9 PUBLIC=e48d0154-bcf8-11d1-8702-00c04fb96050"
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

// expand replaces the names of principals and object types in SDDL.
func expand(text string) string {
	text = strings.NewReplacer("alice", alice, "bob", bob).Replace(text)
	for _, name := range strings.Fields(names) {
		short, long, _ := strings.Cut(name, "=")
		for range 2 { // neighbors share a semicolon
			text = strings.ReplaceAll(text, ";"+short+";", ";"+long+";")
		}
	}
	return text
}

// parse returns the descriptor with a text form.
func parse(t testing.TB, text string) *ad.Descriptor {
	t.Helper()
	parsed, err := sddl.Parse(text, domainText)
	if err != nil {
		t.Fatal(err)
	}
	d := &ad.Descriptor{}
	if !d.Parse(parsed.Binary()) {
		t.Fatalf("%s: malformed", text)
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

// What a principal with all rights over an object has.
const (
	overUser   = "fullControl: alice, resetPassword: alice, writeAllowedToAct: alice, writeDacl: alice, writeKeyCredential: alice, writeOwner: alice"
	overGroup  = "fullControl: alice, writeDacl: alice, writeMembers: alice, writeOwner: alice"
	overUnit   = "createChild: alice, fullControl: alice, writeDacl: alice, writeOwner: alice"
	overDomain = "createChild: alice, fullControl: alice, replicationRights: alice, writeDacl: alice, writeOwner: alice"
	overHolder = "fullControl: alice, resetPassword: alice, writeAllowedToAct: alice, writeDacl: alice, writeKeyCredential: alice, writeMembers: alice, writeOwner: alice"
	partsUser  = "resetPassword: alice, writeAllowedToAct: alice, writeKeyCredential: alice"
)

func TestEvaluate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		class Class
		sddl  string // alice and bob are principals; the names of object types are expanded
		want  string
	}{
		{"full control of a user", User, "O:DAD:(A;;GA;;;alice)", overUser},
		{"full control of a service account", ServiceAccount, "O:DAD:(A;;GA;;;alice)", overUser},
		{"full control of a group", Group, "O:DAD:(A;;GA;;;alice)", overGroup},
		{"full control of a container", Container, "O:DAD:(A;;GA;;;alice)", overUnit},
		{"full control of the domain", Domain, "O:DAD:(A;;GA;;;alice)", overDomain},
		{"full control of AdminSDHolder", AdminSDHolder, "O:DAD:(A;;GA;;;alice)", overHolder},

		{"specific full control", User, "D:(A;;CCDCLCSWRPWPDTLOCRSDRCWDWO;;;alice)", overUser},
		{"full control in two entries", Group, "D:(A;;CCDCLCSWRPWPDT;;;alice)(A;;LOCRSDRCWDWO;;;alice)", overGroup},
		{"full control but deletion", Group, "D:(A;;CCDCLCSWRPWPDTLOCRRCWDWO;;;alice)", "writeDacl: alice, writeMembers: alice, writeOwner: alice"},
		{"full control, protected from deletion", Container, "D:(D;;SDDTDC;;;WD)(A;;GA;;;alice)", overUnit},
		{"full control, another right denied", Group, "D:(D;;LC;;;WD)(A;;GA;;;alice)", "writeDacl: alice, writeMembers: alice, writeOwner: alice"},
		{"full control, a property denied", Group, "D:(OD;;WP;MEMBER;;alice)(OD;;SW;MEMBER;;alice)(A;;GA;;;alice)", "fullControl: alice, writeDacl: alice, writeOwner: alice"},
		{"full control of a property set only", User, "D:(OA;;GA;RESTRICTIONS;;alice)", "writeAllowedToAct: alice"},

		{"generic write of a user", User, "D:(A;;GW;;;alice)", "writeAllowedToAct: alice, writeKeyCredential: alice"},
		{"generic write of a group", Group, "D:(A;;GW;;;alice)", "writeMembers: alice"},
		{"generic read and execute", Group, "D:(A;;GRGX;;;alice)", ""},
		{"full control with generic read", Group, "D:(A;;CCDCSWWPDTCRSDWDWO;;;alice)(A;;GR;;;alice)", overGroup},
		{"full control with generic execute", Group, "D:(A;;CCDCSWRPWPDTLOCRSDWDWO;;;alice)(A;;GX;;;alice)", overGroup},
		{"generic write denied", Group, "D:(D;;GW;;;alice)(A;;WPSW;;;alice)", ""},
		{"generic all denied", Group, "D:(D;;GA;;;alice)(A;;GA;;;alice)", ""},

		{"write the list and the owner", Group, "D:(A;;WD;;;alice)(A;;WO;;;bob)", "writeDacl: alice, writeOwner: bob"},
		{"write the list with an object type", Group, "D:(OA;;WDWO;MEMBER;;alice)", ""},
		{"sorted", Group, "D:(A;;WD;;;bob)(A;;WD;;;WD)(A;;WD;;;alice)(A;;WD;;;bob)(A;;WD;;;AO)", "writeDacl: S-1-1-0 S-1-5-32-548 alice bob"},

		{"reset the password", User, "D:(OA;;CR;RESET;;alice)(OA;;CR;CHANGE;;bob)", "resetPassword: alice"},
		{"all extended rights", User, "D:(A;;CR;;;alice)", "resetPassword: alice"},
		{"reset right without control access", User, "D:(OA;;RPWP;RESET;;alice)", ""},
		{"all extended rights but the reset", User, "D:(OD;;CR;RESET;;alice)(A;;CR;;;alice)", ""},
		{"another extended right denied", User, "D:(OD;;CR;CHANGE;;WD)(A;;CR;;;alice)", "resetPassword: alice"},

		{"write members", Group, "D:(OA;;WP;MEMBER;;alice)(OA;;RP;MEMBER;;bob)", "writeMembers: alice"},
		{"write the property set of members", Group, "D:(OA;;WP;MEMBERSHIP;;alice)", "writeMembers: alice"},
		{"write another property set", Group, "D:(OA;;WP;PUBLIC;;alice)", ""},
		{"write all properties", Group, "D:(A;;WP;;;alice)", "writeMembers: alice"},
		{"add oneself", Group, "D:(OA;;SW;MEMBER;;alice)(A;;SW;;;bob)", "writeMembers: alice bob"},
		{"property set denied", Group, "D:(OD;;WP;MEMBERSHIP;;alice)(OA;;WP;MEMBER;;alice)", ""},
		{"property denied", Group, "D:(OD;;WP;MEMBER;;alice)(OA;;WP;MEMBERSHIP;;alice)", ""},
		{"property set denied last", Group, "D:(OA;;WP;MEMBER;;alice)(OD;;WP;MEMBERSHIP;;alice)", "writeMembers: alice"},
		{"write members but not add oneself", Group, "D:(OD;;SW;MEMBER;;alice)(A;;WPSW;;;alice)", "writeMembers: alice"},
		{"members of a user", User, "D:(OA;;WP;MEMBER;;alice)", ""},

		{"write key credentials", User, "D:(OA;;WP;KEY;;alice)", "writeKeyCredential: alice"},
		{"write allowed to act", ServiceAccount, "D:(OA;;WP;ACT;;alice)(OA;;WP;RESTRICTIONS;;bob)", "writeAllowedToAct: alice bob"},

		{"replication", Domain, "D:(OA;;CR;GET;;alice)(OA;;CR;ALL;;alice)(OA;;CR;GET;;bob)(OA;;CR;FILTERED;;bob)", "replicationRights: alice bob"},
		{"half of replication", Domain, "D:(OA;;CR;GET;;alice)(OA;;CR;ALL;;bob)(OA;;CR;FILTERED;;bob)", ""},
		{"half of replication from all users", Domain, "D:(OA;;CR;GET;;AU)(OA;;CR;ALL;;alice)(OA;;CR;ALL;;AN)(A;;WD;;;bob)", "replicationRights: alice, writeDacl: bob"},
		{"half of replication from Everyone", Domain, "D:(OA;;CR;ALL;;WD)(OA;;CR;GET;;alice)(OA;;CR;GET;;AN)", "replicationRights: S-1-5-7 alice"},
		{"half of replication from all users, denied", Domain, "D:(OD;;CR;GET;;alice)(OA;;CR;GET;;AU)(OA;;CR;ALL;;alice)", ""},
		{"replication with all extended rights", Domain, "D:(A;;CR;;;alice)", "replicationRights: alice"},
		{"replication of a container", Container, "D:(A;;CR;;;alice)", ""},

		{"create users", Container, "D:(OA;;CC;USER;;alice)", "createChild: alice"},
		{"create persons", Container, "D:(OA;;CC;PERSON;;alice)", "createChild: alice"},
		{"create computers", Domain, "D:(OA;;CC;COMPUTER;;alice)", "createChild: alice"},
		{"create managed service accounts", Container, "D:(OA;;CC;MSA;;alice)(OA;;CC;GMSA;;bob)", "createChild: alice bob"},
		{"create delegated managed service accounts", Container, "D:(OA;;CC;DMSA;;alice)", "createChild: alice"},
		{"create anything", Container, "D:(A;;CC;;;alice)", "createChild: alice"},
		{"create anything but users", Container, "D:(OD;;CC;USER;;alice)(A;;CC;;;alice)", "createChild: alice"},
		{"create nothing", Container, "D:(D;;CC;;;alice)(OA;;CC;USER;;alice)", ""},
		{"create groups and units", Container, "D:(OA;;CCDC;GROUP;;alice)(OA;;CCDC;UNIT;;alice)", ""},
		{"delete users", Container, "D:(OA;;DC;USER;;alice)", ""},

		{"owner", Group, "O:aliceD:", "owner: alice, writeDacl: alice"},
		{"owner, denied", Group, "O:aliceD:(D;;GA;;;alice)(D;;GA;;;WD)", "owner: alice, writeDacl: alice"},
		{"owner limited", Group, "O:aliceD:(A;;RC;;;OW)", "owner: alice"},
		{"owner limited by a denial", Group, "O:aliceD:(D;;WD;;;OW)", "owner: alice"},
		{"owner limited on child objects", Group, "O:aliceD:(A;CIIO;RC;;;OW)", "owner: alice, writeDacl: alice"},
		{"owner given more", Group, "O:aliceD:(OA;;WP;MEMBER;;OW)", "owner: alice, writeMembers: alice"},
		{"owner rights without an owner", Group, "D:(A;;GA;;;OW)", ""},
		{"no owner", Group, "D:", ""},

		{"denied first", Group, "D:(D;;WD;;;alice)(A;;WD;;;alice)", ""},
		{"denied last", Group, "D:(A;;WD;;;alice)(D;;WD;;;alice)", "writeDacl: alice"},
		{"inherited denial last", Group, "D:(A;;WD;;;alice)(D;ID;WD;;;alice)(A;ID;WD;;;alice)", "writeDacl: alice"},
		{"another denied", Group, "D:(D;;WD;;;bob)(A;;WD;;;alice)", "writeDacl: alice"},
		{"Everyone denied", Group, "D:(D;;WD;;;WD)(A;;WDWO;;;alice)(A;;WDWO;;;WD)(A;;WD;;;AN)", "writeOwner: S-1-1-0 alice"},
		{"Everyone denied after", Group, "D:(A;;WD;;;alice)(D;;WD;;;WD)(A;;WD;;;bob)", "writeDacl: alice"},
		{"Everyone denied without effect", Group, "D:(A;;WD;;;WD)(D;;WD;;;WD)(A;;WD;;;alice)", "writeDacl: S-1-1-0 alice"},
		{"Everyone denied a part", Group, "D:(OD;;WP;MEMBER;;WD)(A;;WP;;;alice)(A;;SW;;;bob)", "writeMembers: bob"},
		{"Authenticated Users denied", Group, "D:(D;;WD;;;AU)(A;;WD;;;alice)(A;;WD;;;AU)(A;;WD;;;AN)(A;;WD;;;WD)", "writeDacl: S-1-1-0 S-1-5-7"},

		{"inherit-only", Group, "D:(A;CIIO;GA;;;alice)(D;CIIO;WD;;;bob)(A;CI;WD;;;bob)", "writeDacl: bob"},
		{"inherited type of the class", User, "D:(OA;CIID;CR;RESET;USER;alice)", "resetPassword: alice"},
		// As on the head of the domain after an old setup of Exchange.
		{"inherited type of another class", Domain, "D:(OA;CI;WD;;USER;alice)(OA;CIIO;WD;;USER;bob)", "writeDacl: alice"},
		{"object type of the class", User, "D:(OA;;GA;USER;;alice)(OA;;GA;COMPUTER;;bob)", strings.TrimPrefix(overUser, "fullControl: alice, ")},
		{"object type of the class denied", User, "D:(OD;;WP;PERSON;;alice)(A;;WP;;;alice)", "writeAllowedToAct: alice, writeKeyCredential: alice"},
		{"object type of the class of child objects", Container, "D:(OA;;CCDCWD;UNIT;;alice)", "writeDacl: alice"},

		{"condition allows", Group, `D:(XA;;WD;;;alice;(@User.Title=="a"))`, "writeDacl: alice"},
		{"condition denies", Group, `D:(XD;;WD;;;alice;(@User.Title=="a"))(A;;WD;;;alice)`, "writeDacl: alice"},
		{"condition of an object entry", Group, `D:(ZA;;WP;MEMBER;;alice;(@User.Title=="a"))`, "writeMembers: alice"},

		{"empty list", Group, "O:DAD:", ""},
		{"no list", Group, "O:DA", "fullControl: S-1-1-0, writeDacl: S-1-1-0, writeMembers: S-1-1-0, writeOwner: S-1-1-0"},
		{"no list, with an owner", Domain, "O:alice", "createChild: S-1-1-0, fullControl: S-1-1-0, owner: alice, replicationRights: S-1-1-0, writeDacl: S-1-1-0, writeOwner: S-1-1-0"},

		{"administrators", AdminSDHolder, "O:BAD:(A;;GA;;;SY)(A;;GA;;;BA)(A;;GA;;;DA)(A;;GA;;;EA)(A;;GA;;;CO)(A;;GA;;;CG)(A;;GA;;;PS)", ""},
		{"controllers", Domain, "D:(A;;CRWD;;;ED)(A;;CRWO;;;DD)(A;;CR;;;RO)", "replicationRights: domain-498, writeDacl: S-1-5-9, writeOwner: domain-516"},
		{"key administrators", User, "D:(A;;WP;;;KA)(A;;WP;;;EK)", "writeAllowedToAct: domain-526 domain-527"},
		{"operators", Group, "O:SAD:(A;;WP;;;AO)(A;;WD;;;SO)", "owner: domain-518, writeDacl: S-1-5-32-549 domain-518, writeMembers: S-1-5-32-548"},
		{"administrators of another domain", Group, "D:(A;;WD;;;S-1-5-21-9-2-3-512)(A;;WD;;;S-1-5-21-9-2-3-519)(A;;WD;;;S-1-5-32-512)", "writeDacl: S-1-5-32-512 S-1-5-21-9-2-3-512 S-1-5-21-9-2-3-519"},
		{"administrators, denied to all", Group, "D:(D;;WD;;;DA)(A;;WD;;;alice)", "writeDacl: alice"},
	} {
		if got := describe(Evaluate(parse(t, expand(test.sddl)), test.class, Domains{Own: domain})); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
		if got := describeSecond(t, expand(test.sddl), test.class); got != test.want {
			t.Errorf("%s: second evaluation:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestEvaluateUnknownDomain(t *testing.T) {
	t.Parallel()
	got := describe(Evaluate(parse(t, "O:DAD:(A;;WD;;;EA)(A;;WD;;;BA)"), Group, Domains{}))
	if got != "owner: domain-512, writeDacl: domain-512 domain-519" {
		t.Error(got)
	}
}

func TestEvaluateForestRoot(t *testing.T) {
	t.Parallel()
	const root = "S-1-5-21-7-7-7"
	text := expand(strings.ReplaceAll("D:(A;;WD;;;EA)(A;;WD;;;ROOT-512)(A;;WD;;;ROOT-518)(A;;WD;;;ROOT-519)(OA;;WP;KEY;;ROOT-526)(OA;;WP;KEY;;ROOT-527)(A;;WO;;;ROOT-527)", "ROOT", root))
	for _, test := range []struct {
		name    string
		domains Domains
		want    string
	}{
		{"known", Domains{Own: domain, ForestRoot: parseSID(root)}, "writeDacl: root-512 root-518, writeKeyCredential: root-526, writeOwner: root-527"},
		{"unknown", Domains{Own: domain}, "writeDacl: root-512 root-518 root-519, writeKeyCredential: root-526 root-527, writeOwner: root-527"},
		{"only known", Domains{ForestRoot: parseSID(root)}, "writeDacl: domain-519 root-512 root-518, writeKeyCredential: root-526, writeOwner: root-527"},
	} {
		if got := strings.ReplaceAll(describe(Evaluate(parse(t, text), User, test.domains)), root, "root"); got != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, got, test.want)
		}
	}
}

// TestRights checks the names and the order of the rights.
func TestRights(t *testing.T) {
	t.Parallel()
	var names []string
	var h Holders
	for right := range h.All() {
		names = append(names, right.String())
		for range h.All() {
			break // an early end of the loop
		}
	}
	if !slices.IsSorted(names) || len(names) != int(numRights) || slices.Contains(names, "") {
		t.Error(names)
	}
}

// classNames has the names of the classes in package sddl.
var classNames = [numClasses]string{Domain: "domain", AdminSDHolder: "adminSDHolder", Container: "container", User: "user", ServiceAccount: "serviceAccount", Group: "group"}

// describeSecond describes the lists that the second implementation finds.
func describeSecond(t testing.TB, text string, class Class) string {
	t.Helper()
	parsed, err := sddl.Parse(text, domainText)
	if err != nil {
		t.Fatal(err)
	}
	found := parsed.Holders(classNames[class], domainText)
	var h Holders
	for right := range h {
		for _, text := range found[Right(right).String()] {
			h[right] = append(h[right], parseSID(text))
		}
		slices.SortFunc(h[right], ad.SID.Compare)
		delete(found, Right(right).String())
	}
	if len(found) > 0 {
		t.Errorf("unknown rights: %v", found)
	}
	return describe(h)
}

// randomSDDL returns a descriptor of random entries that are about each other: few principals,
// rights and object types.
func randomSDDL(r *rand.Rand) string {
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var types []string
	for _, name := range strings.Fields(names) {
		types = append(types, name[:strings.IndexByte(name, '=')])
	}
	text := pick("", "O:DA", "O:alice") + "D:" + pick("", "P", "AI")
	for range r.IntN(20) {
		kind, object := pick("A", "A", "D"), ""
		if r.IntN(2) == 0 {
			object = pick(types...)
		}
		condition := ""
		switch r.IntN(8) {
		case 0:
			condition = ";(@User.a == 1)"
			kind = map[bool]string{true: "X", false: "Z"}[object == ""] + kind
		default:
			if object != "" {
				kind = "O" + kind
			}
		}
		trustee := pick("alice", "alice", "bob", "bob", "WD", "AU", "AN", "OW", "DA", "KA", "ED", "AO")
		if strings.HasSuffix(kind, "D") && r.IntN(2) == 0 {
			trustee = pick("WD", "AU", "alice")
		}
		rights := ""
		for range 1 + r.IntN(3) {
			rights += pick("GA", "GW", "CR", "WP", "SW", "CC", "WD", "WO", "CCDCLCSWRPWPDT", "LOCRSDRCWDWO")
		}
		text += fmt.Sprintf("(%s;%s;%s;%s;%s;%s%s)", kind, pick("", "", "", "CI", "CIID", "CIIO"), rights, object, pick("", "", "USER"), trustee, condition)
	}
	return expand(text)
}

// TestEvaluateRandom compares the evaluation with the second implementation.
func TestEvaluateRandom(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 24))
	seen := map[string]int{}
	for range 500 {
		text := randomSDDL(r)
		for class := range numClasses {
			got := describe(Evaluate(parse(t, text), class, Domains{Own: domain}))
			if want := describeSecond(t, text, class); got != want {
				t.Fatalf("%s of %s:\ngot  %s\nwant %s", classNames[class], text, got, want)
			}
			for list := range strings.SplitSeq(got, ", ") {
				name, _, _ := strings.Cut(list, ":")
				seen[name]++
			}
		}
	}
	for right := range numRights {
		if seen[right.String()] < 20 {
			t.Errorf("%d lists of %s: the descriptors are not diverse", seen[right.String()], right)
		}
	}
}

// many returns a descriptor with as many entries as fit into a list, each for another principal.
func many() *ad.Descriptor {
	d := &ad.Descriptor{HasDACL: true}
	for n := range 8191 {
		d.DACL = append(d.DACL, ad.AccessEntry{Type: ad.EntryAllow, Mask: maskWriteDACL, Trustee: newSID(5, 21, 1, 2, 3, uint32(20000-n))})
	}
	return d
}

// TestEvaluateMany checks that no principal of many is lost, and that they are sorted.
func TestEvaluateMany(t *testing.T) {
	t.Parallel()
	d := many()
	d.DACL = append(d.DACL, d.DACL...)
	h := Evaluate(d, Group, Domains{Own: domain})
	if list := h[WriteDACL]; len(list) != 8191 || !slices.IsSortedFunc(list, ad.SID.Compare) || len(h[WriteOwner]) > 0 {
		t.Errorf("%d principals", len(list))
	}
}

// TestListsDoNotOverlap checks that one list can be extended without a change of the next.
func TestListsDoNotOverlap(t *testing.T) {
	t.Parallel()
	h := Evaluate(parse(t, expand("D:(A;;WD;;;alice)(A;;WO;;;bob)")), Group, Domains{Own: domain})
	_ = append(h[WriteDACL], domain)
	if got := describe(h); got != "writeDacl: alice, writeOwner: bob" {
		t.Error(got)
	}
}

// protected is the descriptor of AdminSDHolder in a default domain.
const protected = "O:DAG:DAD:PAI(A;;LCRPLORC;;;AU)(A;;CCDCLCSWRPWPLOCRSDRCWDWO;;;BA)(A;;CCLCSWRPWPLOCRRCWDWO;;;DA)(A;;CCLCSWRPWPLOCRRCWDWO;;;EA)(A;;GA;;;SY)" +
	"(OA;;CR;CHANGE;;WD)(OA;;CR;CHANGE;;PS)(OA;;RPWP;bf967a7f-0de6-11d0-a285-00aa003049e2;;CA)(OA;;RP;46a9b11d-60ae-405a-b7e8-ff8a58d456d2;;S-1-5-32-560)" +
	"(OA;;RPWP;6db69a1c-9422-11d1-aebd-0000f80367c1;;S-1-5-32-561)(OA;;RPWP;5805bc62-bdc9-4428-a5e2-856a0f4c185e;;S-1-5-32-561)(A;;LCRPLORC;;;RU)" +
	"(OA;CIIO;RP;RESTRICTIONS;USER;RU)(OA;CIIO;RP;PUBLIC;USER;RU)(OA;CIIO;RP;MEMBERSHIP;USER;RU)(OA;CIIO;LCRPLORC;;GROUP;RU)(OA;CIIO;LCRPLORC;;USER;RU)" +
	"(OA;;RPWP;KEY;;KA)(OA;;RPWP;KEY;;EK)(OA;CIIO;SW;9b026da6-0d3c-465c-8bee-5199d7165cba;COMPUTER;CO)(OA;CIIO;SW;9b026da6-0d3c-465c-8bee-5199d7165cba;COMPUTER;PS)"

func TestEvaluateDefaults(t *testing.T) {
	d := parse(t, expand(protected))
	for class := range numClasses {
		if got := describe(Evaluate(d, class, Domains{Own: domain})); got != "" {
			t.Errorf("%s: %s", classNames[class], got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { Evaluate(d, AdminSDHolder, Domains{Own: domain}) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	typical := parse(b, expand(protected+strings.Repeat("(OA;CIID;RP;PUBLIC;USER;RU)", 30)+"(A;;GA;;;alice)(A;;WD;;;bob)"))
	for name, d := range map[string]*ad.Descriptor{"typical": typical, "many": many()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Evaluate(d, AdminSDHolder, Domains{Own: domain})
			}
		})
	}
}

// FuzzEvaluate checks what holds for all descriptors.
func FuzzEvaluate(f *testing.F) {
	r := rand.New(rand.NewPCG(2, 24))
	for range 20 {
		parsed, err := sddl.Parse(randomSDDL(r), domainText)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(parsed.Binary())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d ad.Descriptor
		if !d.Parse(raw) {
			return
		}
		for class := range numClasses {
			h := Evaluate(&d, class, Domains{Own: domain})
			for right, sids := range h.All() {
				checkList(t, right, class, sids)
			}
			for _, sid := range h[FullControl] {
				if !contains(h[WriteDACL], sid) || !contains(h[WriteOwner], sid) {
					t.Errorf("%s: full control, but not in all lists", sid)
				}
			}
			if len(d.DACL) > 100 { // each principal takes one evaluation
				continue
			}
			for _, sid := range slices.Concat(h[WriteDACL], h[WriteOwner], h[WriteMembers], h[WriteAllowedToAct], h[CreateChild]) {
				checkDenied(t, d, class, sid)
			}
		}
	})
}

func contains(sids []ad.SID, sid ad.SID) bool {
	return slices.ContainsFunc(sids, func(other ad.SID) bool { return other.Compare(sid) == 0 })
}

// checkList checks that a list is sorted, has no duplicates, is of a right that exists, and has no
// administrator.
func checkList(t *testing.T, right Right, class Class, sids []ad.SID) {
	if len(sids) > 0 && !rightsOf[class].has(right) {
		t.Errorf("%s does not exist", right)
	}
	for i, sid := range sids {
		if i > 0 && sids[i-1].Compare(sid) >= 0 {
			t.Errorf("%s before %s", sids[i-1], sid)
		}
		if leftOut(sid, Domains{Own: domain}).has(right) {
			t.Errorf("%s: left out", sid)
		}
	}
}

// checkDenied checks that an entry at the beginning that denies a principal everything removes it
// from all lists, except for the rights of an owner.
func checkDenied(t *testing.T, d ad.Descriptor, class Class, sid ad.SID) {
	if !d.HasDACL {
		return
	}
	d.DACL = slices.Insert(slices.Clone(d.DACL), 0, ad.AccessEntry{Type: ad.EntryDeny, Mask: maskGenericAll, Trustee: sid})
	h := Evaluate(&d, class, Domains{Own: domain})
	isOwner := d.Owner != nil && d.Owner.Compare(sid) == 0
	for right, sids := range h.All() {
		if contains(sids, sid) && (!isOwner || right != Owner && right != WriteDACL) {
			t.Errorf("%s: denied, but holds %s", sid, right)
		}
	}
}
