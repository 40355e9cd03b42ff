package identity

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"adconnector/internal/access"
	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// ofDomainSID returns a SID of Alice's domain.
func ofDomainSID(rid ad.RID) ad.SID {
	authority, _, _ := ad.SID(sidBytes).Split()
	return ad.JoinSID(authority, rid)
}

var (
	administrators = ad.SID("\x01\x02\x00\x00\x00\x00\x00\x05\x20\x00\x00\x00\x20\x02\x00\x00")
	authenticated  = ad.SID("\x01\x01\x00\x00\x00\x00\x00\x05\x0b\x00\x00\x00")
	// foreignAuthority is S-1-5-21-9-9-9.
	foreignAuthority = []byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 0}
)

func guidNamed(name byte) (guid ad.GUID) {
	for i := range guid {
		guid[i] = name
	}
	return guid
}

// people returns a graph: Alice is in Team, Team in Domain Admins, Domain Admins in
// Administrators. Nobody is in Protected Users. Club and Inner are members of each other. Inner has a contact, too.
func people() *membership.Graph {
	g := membership.New()
	alice, _ := ad.ParseGUID([]byte(guidBytes))
	g.SetAccount(alice, ad.SID(sidBytes), 513)
	g.SetAccount(guidNamed('b'), ofDomainSID(1104), 512)
	g.SetGroup(guidNamed('U'), ofDomainSID(513), true, 0)
	team := g.SetGroup(guidNamed('T'), ofDomainSID(1200), true, 0)
	g.AddMember(team, alice, ad.SID(sidBytes))
	admins := g.SetGroup(guidNamed('D'), ofDomainSID(512), true, membership.RoleOf(ofDomainSID(512), nil))
	g.AddMember(admins, guidNamed('T'), ofDomainSID(1200))
	all := g.SetGroup(guidNamed('A'), administrators, true, membership.RoleOf(administrators, nil))
	g.AddMember(all, guidNamed('D'), ofDomainSID(512))
	g.AddMember(all, guidNamed('f'), authenticated)
	g.AddMember(all, guidNamed('F'), ad.JoinSID(foreignAuthority, 1000))
	g.AddMember(all, guidNamed('k'), nil)
	club := g.SetGroup(guidNamed('C'), ofDomainSID(1201), true, 0)
	g.AddMember(club, guidNamed('I'), ofDomainSID(1202))
	inner := g.SetGroup(guidNamed('I'), ofDomainSID(1202), false, 0)
	g.AddMember(inner, guidNamed('C'), ofDomainSID(1201))
	g.AddMember(inner, guidNamed('c'), nil)
	g.AddMember(inner, alice, ad.SID(sidBytes))
	g.SetGroup(guidNamed('E'), ofDomainSID(1203), true, 0)
	g.SetGroup(guidNamed('R'), ofDomainSID(525), true, membership.RoleOf(ofDomainSID(525), nil))
	for guid, name := range map[ad.GUID]string{
		alice: "Alice Kovács", guidNamed('b'): "PC-0042", guidNamed('U'): "Domain Users", guidNamed('T'): "Team \"1\"", guidNamed('D'): "Domain Admins",
		guidNamed('A'): "Administratoren", guidNamed('C'): "Club", guidNamed('I'): "Inner", guidNamed('f'): "S-1-5-11", guidNamed('F'): "S-1-5-21-9-9-9-1000",
	} {
		node, _ := g.Find(guid)
		g.SetName(node, []byte(name))
	}
	for guid, kind := range map[ad.GUID]membership.Kind{alice: membership.KindUser, guidNamed('b'): membership.KindComputer} {
		node, _ := g.Find(guid)
		g.SetKind(node, kind)
	}
	g.Compute()
	return g
}

// extended returns an extended DN.
func extended(guid ad.GUID, sid ad.SID, dn string) string {
	text := "<GUID=" + hex.EncodeToString(guid[:]) + ">;"
	if sid != nil {
		text += "<SID=" + hex.EncodeToString(sid) + ">;"
	}
	return text + dn
}

// descriptor returns a security descriptor with an allow entry for each SID.
func descriptor(sids ...ad.SID) string {
	d := make([]byte, 20)
	d[0], d[2], d[16] = 1, 4, 20
	list := []byte{2, 0, 0, 0, byte(len(sids)), 0, 0, 0}
	for _, sid := range sids {
		list = append(list, 0, 0, byte(8+len(sid)), 0, 0xff, 1, 0xf, 0)
		list = append(list, sid...)
	}
	list[2] = byte(len(list))
	return string(append(d, list...))
}

// domainSID is the SID of Alice's domain.
var domainSID = func() ad.SID {
	sid := slices.Clone(ofDomainSID(0))
	sid[1]--
	return sid[:len(sid)-4]
}()

// ownedBy returns a descriptor with an owner.
func ownedBy(owner ad.SID, descriptor string) string {
	d := []byte(descriptor)
	binary.LittleEndian.PutUint32(d[4:], uint32(len(d)))
	return string(append(d, owner...))
}

// controlled is the descriptor of an object that administrators and others control.
var controlled = ownedBy(ofDomainSID(1104), descriptor(administrators, ofDomainSID(512), ofDomainSID(1200), authenticated))

var exposed = attributes{
	ad.AttributeDescriptor: {controlled},
	"sAMAccountName":       {"alice"}, "userPrincipalName": {"alice@corp.example.com"}, "userAccountControl": {"23658144"}, "adminCount": {"1"}, "servicePrincipalName": {"http/web", "MSSQLSvc/db:1433"},
	"msDS-AllowedToDelegateTo": {"cifs/file"}, "msDS-AllowedToActOnBehalfOfOtherIdentity": {descriptor(ofDomainSID(1500), ofDomainSID(1104), administrators, authenticated, ad.Everyone)},
	"msDS-SupportedEncryptionTypes": {"28"}, "sIDHistory": {string(ofDomainSID(9001)), string(ofDomainSID(9000))},
	"primaryGroupID": {"513"}, "lastLogonTimestamp": {"134398063938451234"}, "msDS-UserPasswordExpiryTimeComputed": {"134500000000000000"},
	"msDS-ResultantPSO": {extended(guidNamed('P'), nil, "CN=Strict,CN=Password Settings Container,CN=System,DC=corp")},
	"userWorkstations":  {"PC2 , PC1,,PC1 "}, "description": {"runs the reports"},
	"userPassword": {"Pw-1secret"}, "unixUserPassword": {"Pw-2secret"}, "msSFU30Password": {"Pw-3secret"},
	"altSecurityIdentities":  {"X509:<SKI>d1a0c7f3", "X509:<I>CN=CA<S>CN=alice"},
	"msDS-KeyCredentialLink": {"B:4:0001:CN=alice,DC=corp", "B:4:0002:CN=alice,DC=corp"},
	"homeDirectory":          {`\\198.51.100.7\home`}, "profilePath": {`\\[fe80::1]\profiles`}, "scriptPath": {`\\evil.example\netlogon\logon.cmd`},
	"msDS-SupersededManagedAccountLink": {extended(guidNamed('q'), ofDomainSID(1700), "CN=dmsa,DC=corp")},
}

func TestPostureGolden(t *testing.T) {
	t.Parallel()
	// Who may only read the attribute of the password does not get it.
	readable := []byte(descriptor(ofDomainSID(1299), ofDomainSID(1300)))
	const firstMask, readProperty = 20 + 8 + 4, 0x10
	binary.LittleEndian.PutUint32(readable[firstMask:], readProperty)
	for _, test := range []struct {
		name     string
		kind     Kind
		attrs    attributes
		unparsed int
	}{
		{"posture-user-every-target", User, with(alice, exposed), 0},
		{"posture-user-plain", User, with(alice, attributes{"primaryGroupID": {"513"}, "msDS-UserPasswordExpiryTimeComputed": {"9223372036854775807"}}), 0},
		{"posture-user-by-primary-group", User, attributes{"objectGUID": {strings.Repeat("b", 16)}, "objectSid": {string(ofDomainSID(1104))}, "primaryGroupID": {"512"},
			"msDS-UserPasswordExpiryTimeComputed": {"0"}}, 0},
		{"posture-user-unknown-to-the-graph", User, attributes{"objectGUID": {strings.Repeat("?", 16)}, "primaryGroupID": {"513"}}, 0},
		{"posture-user-unreadable-values", User, attributes{
			"adminCount": {"x"}, "msDS-AllowedToActOnBehalfOfOtherIdentity": {"x"}, "msDS-SupportedEncryptionTypes": {"x"}, "sIDHistory": {"x"}, "primaryGroupID": {"x"},
			"msDS-SupersededManagedAccountLink": {"CN=dmsa,DC=corp"},
		}, 6},
		{"posture-service-account", ServiceAccount, with(alice, attributes{
			ad.AttributeDescriptor: {controlled}, "primaryGroupID": {"515"}, "msDS-GroupMSAMembership": {string(readable)}, "msDS-ManagedPasswordInterval": {"30"},
			"msDS-ManagedAccountPrecededByLink": {extended(guidNamed('r'), ofDomainSID(1701), "CN=old,DC=corp")}, "msDS-DelegatedMSAState": {"2"},
		}), 0},
		{"posture-group-in-admins", Group, attributes{"name": {"Team"}, "sAMAccountName": {"team"}, "groupType": {"-2147483646"}, "objectGUID": {strings.Repeat("T", 16)}, "objectSid": {string(ofDomainSID(1200))},
			ad.AttributeDescriptor: {controlled}, "adminCount": {"1"}, "managedBy": {extended(guidNamed('m'), ofDomainSID(1600), "CN=M,DC=corp")}}, 0},
		{"posture-group-in-cycle", Group, attributes{"objectGUID": {strings.Repeat("I", 16)}, "objectSid": {string(ofDomainSID(1202))}}, 0},
		{"posture-group-empty", Group, attributes{"objectGUID": {strings.Repeat("E", 16)}, "objectSid": {string(ofDomainSID(1203))}}, 0},
		{"posture-group-of-primaries", Group, attributes{"objectGUID": {strings.Repeat("U", 16)}, "objectSid": {string(ofDomainSID(513))}}, 0},
		{"posture-role", Role, attributes{"name": {"Administratoren"}, "objectGUID": {strings.Repeat("A", 16)}, "objectSid": {string(administrators)}, "description": {"all of it"},
			ad.AttributeDescriptor: {controlled}}, 0},
		{"posture-user-unreadable-descriptor", User, with(alice, attributes{"primaryGroupID": {"513"}, ad.AttributeDescriptor: {""}}), 0},
		{"posture-group-unreadable-descriptor", Group, attributes{"objectGUID": {strings.Repeat("E", 16)}, "objectSid": {string(ofDomainSID(1203))}, ad.AttributeDescriptor: {"x"}}, 1},
		{"posture-role-unreadable-descriptor", Role, attributes{"objectGUID": {strings.Repeat("A", 16)}, "objectSid": {string(administrators)}, ad.AttributeDescriptor: {""}}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := NewPostureMapper(test.kind)
			m.UseGraph(people())
			m.UseControllers(controllerHosts("DC1", "dc1.corp.example.com"))
			m.UseDescriptors(test.attrs[ad.AttributeDescriptor] != nil, access.Domains{Own: domainSID})
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

func golden(t *testing.T, name string, asset []byte) {
	t.Helper()
	if !utf8.Valid(asset) {
		t.Errorf("not UTF-8: %q", asset)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, asset, "", "  "); err != nil {
		t.Fatalf("%v: %s", err, asset)
	}
	got.WriteByte('\n')
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
	}
}

// TestManagedByUser checks that the asset of a group does not name users, which have assets of their own.
func TestManagedByUser(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(Group)
	m.UseGraph(people())
	alice, _ := ad.ParseGUID([]byte(guidBytes))
	for _, test := range []struct {
		manager ad.GUID
		sid     ad.SID
		want    bool
	}{{alice, ad.SID(sidBytes), false}, {guidNamed('b'), ofDomainSID(1104), true}} {
		asset, err := m.Map(nil, entry(t, m, attributes{"objectGUID": {strings.Repeat("E", 16)}, "objectSid": {string(ofDomainSID(1203))},
			"managedBy": {extended(test.manager, test.sid, "CN=x,DC=corp")}}), now, Logons{})
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(asset.JSON, []byte(`{"sid":"`+test.sid.String()+`"`)) != test.want || !bytes.Contains(asset.JSON, []byte(`"managedBy":"`+test.sid.String()+`"`)) {
			t.Errorf("named: want %t: %s", test.want, asset.JSON)
		}
	}
}

// TestPostureOnlyAdds checks that posture adds one JSON object and changes nothing else.
func TestPostureOnlyAdds(t *testing.T) {
	t.Parallel()
	for kind, attrs := range map[Kind]attributes{User: with(alice, exposed), Group: {"name": {"x"}, "groupType": {"8"}}} {
		m, p := NewMapper(kind), NewPostureMapper(kind)
		p.UseGraph(people())
		sent := m.Attributes
		for slices.Contains([]string{"whenCreated", "msDS-UserPasswordExpiryTimeComputed", "lockoutTime"}, sent[len(sent)-1]) {
			sent = sent[:len(sent)-1]
		}
		if len(p.Attributes) < len(sent) || !slices.Equal(p.Attributes[:len(sent)], sent) {
			t.Errorf("%s: %v", kind, p.Attributes)
		}
		plain := attributes{}
		for name, values := range attrs {
			if slices.Contains(m.Attributes, name) {
				plain[name] = values
			}
		}
		identity, err := m.Map(nil, entry(t, m, plain), now, Logons{})
		if err != nil {
			t.Fatal(err)
		}
		withPosture, err := p.Map(nil, entry(t, p, attrs), now, Logons{})
		if err != nil {
			t.Fatal(err)
		}
		before, _, ok := bytes.Cut(withPosture.JSON, []byte(`,"posture":{`))
		if !ok || string(before)+"}}}}" != string(identity.JSON) {
			t.Errorf("%s: %s\nand %s", kind, withPosture.JSON, identity.JSON)
		}
	}
}

// TestPostureOrder checks that multi-valued attributes are sorted, and left out if incomplete.
func TestPostureOrder(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(User)
	m.UseGraph(people())
	var before []byte
	for _, names := range [][]string{{"a", "b", "c"}, {"c", "a", "b"}} {
		asset, err := m.Map(nil, entry(t, m, with(alice, attributes{"servicePrincipalName": names})), now, Logons{})
		if err != nil {
			t.Fatal(err)
		}
		if before != nil && !bytes.Equal(before, asset.JSON) {
			t.Errorf("%s and %s", before, asset.JSON)
		}
		before = asset.JSON
	}
	e := entry(t, m, with(alice, attributes{"servicePrincipalName": {"a"}}))
	e.Partial = []int{slices.Index(m.Attributes, "servicePrincipalName")}
	if asset, err := m.Map(nil, e, now, Logons{}); err != nil || asset.Unparsed != 1 || bytes.Contains(asset.JSON, []byte(`"servicePrincipalNames":`)) {
		t.Errorf("incomplete list: %s, %v", asset.JSON, err)
	}
}

func TestPostureFingerprint(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(User)
	m.UseGraph(people())
	m.UseDescriptors(true, access.Domains{Own: domainSID})
	fingerprint := func(attrs attributes) Fingerprint {
		asset, err := m.Map(nil, entry(t, m, attrs), now, Logons{})
		if err != nil {
			t.Fatal(err)
		}
		return asset.Fingerprint
	}
	base := fingerprint(with(alice, exposed))
	for attribute, value := range exposed {
		got := fingerprint(with(with(alice, exposed), attributes{attribute: nil}))
		if got == base {
			t.Errorf("%s %q does not change the fingerprint", attribute, value)
		}
		if got.SameButActivity(base) != (attribute == "lastLogonTimestamp") {
			t.Errorf("%s: SameButActivity is %t", attribute, got.SameButActivity(base))
		}
	}
	other := membership.New()
	other.Compute()
	m.UseGraph(other)
	if fingerprint(with(alice, exposed)).SameButActivity(base) {
		t.Error("a change of memberships does not change the fingerprint")
	}
}

func TestRoleIdentifiers(t *testing.T) {
	t.Parallel()
	group, _ := ad.ParseGUID([]byte(guidBytes))
	role := RoleGUID(group)
	if role != RoleGUID(group) || role == group || role == RoleGUID(guidNamed('x')) {
		t.Errorf("%s of %s", role, group)
	}
	if text := role.String(); text[14] != '5' || !strings.ContainsRune("89ab", rune(text[19])) {
		t.Errorf("%s is not a UUID of version 5", text)
	}
	asset := Object{Kind: Role, GUID: role, SID: administrators, Name: "Administrators"}.DeletedAsset(nil)
	want := `{"asset":{"assetHeader":{"externalAssetId":"S-1-5-32-544:role","vendorAssetId":"` + role.String() +
		`"},"assetDetail":{"name":"Administrators","roleAssetClass":{"id":"S-1-5-32-544:role","name":"Administrators","status":"DELETED"}}}}`
	if string(asset.JSON) != want {
		t.Errorf("got %s\nwant %s", asset.JSON, want)
	}
}

func TestDomainGolden(t *testing.T) {
	t.Parallel()
	domain := attributes{
		"name": {"corp"}, "objectSid": {string(ofDomainSID(0))[:24]}, "whenCreated": {"20170101000000.0Z"}, "minPwdLength": {"7"}, "pwdHistoryLength": {"24"},
		"pwdProperties": {"1"}, "minPwdAge": {"-864000000000"}, "maxPwdAge": {"-36288000000000"}, "lockoutThreshold": {"0"},
		"lockoutDuration": {"-18000000000"}, "lockOutObservationWindow": {"-18000000000"}, "ms-DS-MachineAccountQuota": {"10"}, "msDS-Behavior-Version": {"7"},
		"msDS-ExpirePasswordsOnSmartCardOnlyAccounts": {"TRUE"},
	}
	domain["objectSid"][0] = "\x01\x04" + domain["objectSid"][0][2:]
	add := addToPart
	for _, test := range []struct {
		name  string
		attrs attributes
		fill  func(*Collector)
	}{
		{"posture-domain", with(domain, attributes{ad.AttributeDescriptor: {controlled}}), func(c *Collector) {
			c.SetForestLevel("7")
			c.UseDescriptors(access.Domains{Own: domainSID})
			c.AddAdminSDHolder([]byte(controlled))
			c.AddKrbtgt([]byte(controlled))
			c.AddContainer("OU=Staff,DC=corp", []byte(controlled))
			c.AddContainer("CN=Users,DC=corp", []byte(controlled))
			c.AddContainer("CN=System,DC=corp", []byte(descriptor(administrators)))
			add(c.Names, attributes{"dnsRoot": {"corp.example.com"}, "nETBIOSName": {"CORP"}})
			add(c.Krbtgt, attributes{"pwdLastSet": {"134398063938451234"}})
			add(c.RecycleBin, attributes{"msDS-EnabledFeatureBL": {"CN=Partitions"}})
			add(c.EntraSSO, attributes{"pwdLastSet": {"134398063938451234"}})
			add(c.Heuristics, attributes{"dSHeuristics": {"00100021100000090002300000012"}})
			c.SetLAPS(false, true)
			add(c.Policies, attributes{"distinguishedName": {extended(guidNamed('P'), nil, "CN=Strict,CN=Password Settings Container")}, "name": {"Strict"},
				"msDS-PasswordSettingsPrecedence": {"10"}, "msDS-PSOAppliesTo": {extended(guidNamed('D'), ofDomainSID(512), "CN=Domain Admins"), extended(guidNamed('n'), nil, "CN=x")},
				"msDS-MinimumPasswordLength": {"14"}, "msDS-PasswordComplexityEnabled": {"TRUE"}, "msDS-PasswordReversibleEncryptionEnabled": {"FALSE"},
				"msDS-MaximumPasswordAge": {"-9223372036854775808"}, "msDS-MinimumPasswordAge": {"0"}, "msDS-LockoutThreshold": {"5"}, "msDS-LockoutDuration": {"-18000000000"},
				"msDS-PasswordHistoryLength": {"24"}, "msDS-LockoutObservationWindow": {"-18000000000"}})
			add(c.Trusts, attributes{"trustPartner": {"partner.example"}, "flatName": {"PARTNER"}, "trustDirection": {"3"}, "trustType": {"2"}, "trustAttributes": {"72"},
				"securityIdentifier": {string(ofDomainSID(0))}})
			add(c.Trusts, attributes{"trustPartner": {"old.example"}, "trustDirection": {"2"}, "trustType": {"1"}, "trustAttributes": {"260"}})
			add(c.Trusts, attributes{"trustPartner": {"trusting.example"}, "trustDirection": {"1"}, "trustType": {"2"}, "trustAttributes": {"8"}})
			add(c.Controllers, attributes{"name": {"DC2"}, "operatingSystem": {"Windows Server 2019"}, "primaryGroupID": {"521"}, ad.AttributeDescriptor: {descriptor(administrators)},
				"objectSid": {string(ofDomainSID(1002))}, "pwdLastSet": {"134398063938451234"}})
			add(c.Controllers, attributes{ad.AttributeDescriptor: {controlled}, "name": {"DC1"}, "dNSHostName": {"dc1.corp"}, "operatingSystem": {"Windows Server 2022"}, "operatingSystemVersion": {"10.0 (20348)"}, "primaryGroupID": {"516"},
				"objectSid": {string(ofDomainSID(1001))}, "pwdLastSet": {"134398063938451234"}})
		}},
		{"posture-domain-unreadable", with(domain, attributes{"minPwdLength": nil, "pwdProperties": nil, "lockoutThreshold": nil}), func(c *Collector) {
			add(c.Trusts, attributes{"trustPartner": {"partner.example"}, "trustDirection": {"3"}, "trustType": {"2"}})
			c.AddUnreadable("fineGrainedPasswordPolicies")
			c.UseDescriptors(access.Domains{Own: domainSID})
			c.AddAdminSDHolder(nil)
			c.AddKrbtgt(nil)
			c.AddContainer("OU=Staff,DC=corp", nil)
			add(c.RecycleBin, attributes{"msDS-OptionalFeatureGUID": {"x"}})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, c := NewPostureMapper(Domain), NewCollector()
			m.UseGraph(people())
			test.fill(c)
			asset, err := m.MapDomain(nil, entry(t, m, test.attrs), c, now)
			if err != nil || asset.Unparsed != 0 {
				t.Fatalf("%d unparsed, %v", asset.Unparsed, err)
			}
			golden(t, test.name, asset.JSON)
			// A server can return the domain's entry more than once.
			again, err := m.MapDomain(nil, entry(t, m, test.attrs), c, now)
			if err != nil || string(again.JSON) != string(asset.JSON) {
				t.Errorf("mapped again: %s, %v", again.JSON, err)
			}
		})
	}
}

// TestRecycleBinUnreadable checks that an unreadable feature is not reported as disabled.
func TestRecycleBinUnreadable(t *testing.T) {
	t.Parallel()
	part := NewCollector().RecycleBin
	if part.Add(&ad.Entry{Values: make([][][]byte, len(part.Attributes))}, now) || len(part.items) > 0 {
		t.Errorf("%s", part.items)
	}
}

// TestPartialGraph checks that membership targets are left out for a partial graph.
func TestPartialGraph(t *testing.T) {
	t.Parallel()
	for kind, test := range map[Kind]struct {
		attrs attributes
		keys  []string
	}{
		User:  {with(alice, attributes{"primaryGroupID": {"512"}}), []string{"groups", "privilegedGroups"}},
		Group: {attributes{"objectGUID": {strings.Repeat("I", 16)}, "objectSid": {string(ofDomainSID(1202))}}, []string{"members", "membersWithoutSid", "memberOf", "nestingDepth", "empty", "inCycle"}},
		Role:  {attributes{"name": {"x"}, "objectGUID": {strings.Repeat("A", 16)}, "objectSid": {string(administrators)}}, []string{"members", "nestedGroups"}},
	} {
		m := NewPostureMapper(kind)
		for _, use := range []struct {
			setGraph func(*membership.Graph)
			want     bool
		}{{m.UsePartialGraph, false}, {m.UseGraph, true}} {
			use.setGraph(people())
			asset, err := m.Map(nil, entry(t, m, test.attrs), now, Logons{})
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range test.keys {
				if bytes.Contains(asset.JSON, []byte(`"`+key+`":`)) != use.want {
					t.Errorf("%s, %s: want %t: %s", kind, key, use.want, asset.JSON)
				}
			}
		}
	}
}

func TestPostureMapAllocatesLittle(t *testing.T) {
	m := NewPostureMapper(User)
	m.UseGraph(people())
	e := entry(t, m, with(alice, exposed))
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := m.Map(buf, e, now, Logons{}); err != nil {
			t.Fatal(err)
		}
	}); n > 8 { // the SIDs of a descriptor, of sIDHistory, of a link and of the primary group, the roles of privileged groups
		t.Errorf("%v allocations an entry, want at most 8", n)
	}
}

// groupOf returns a graph with one group, Alice's GUID and SID, and its members. The last member is a
// computer, the others are of the given kind.
func groupOf(members int, kind membership.Kind, name string, role membership.Role) *membership.Graph {
	g := membership.New()
	guid, _ := ad.ParseGUID([]byte(guidBytes))
	group := g.SetGroup(guid, ad.SID(sidBytes), true, role)
	for n := range members {
		var member ad.GUID
		binary.BigEndian.PutUint32(member[:], uint32(n+1))
		sid, kind, name := ofDomainSID(ad.RID(2000+n)), kind, name
		if n == members-1 {
			kind, name = membership.KindComputer, "PC-0042"
		}
		node := g.AddMember(group, member, sid)
		g.SetAccount(member, sid, 513)
		g.SetName(node, []byte(name))
		g.SetKind(node, kind)
	}
	g.Compute()
	return g
}

// TestLongLists checks that all members are listed by SID, that long lists have fewer names, and that
// names never make an asset too large.
func TestLongLists(t *testing.T) {
	t.Parallel()
	const computer = `,"name":"PC-0042","kind":"COMPUTER"}]`
	longName := strings.Repeat("x", 200)
	for _, test := range []struct {
		name     string
		kind     Kind
		members  int
		of       membership.Kind
		called   string
		named    int // the number of principals
		hasLast  bool
		maxBytes int
	}{
		{"group of users", Group, 1000, membership.KindUser, "Bob", 1, true, 60_000},
		{"group of very many users", Group, 250_000, membership.KindUser, longName, 1, true, 12_600_000},
		{"group of computers", Group, 20_000, membership.KindComputer, "PC-0001", 20_000, true, 3 << 20},
		{"group of very many computers", Group, 100_000, membership.KindComputer, "PC-0001", maxMentions, false, 10 << 20},
		{"group of very many computers with long names", Group, 250_000, membership.KindComputer, longName, 10_000, false, MaxAssetBytes},
		{"role", Role, maxNamedUsers, membership.KindUser, "Bob", maxNamedUsers, true, 2 << 20},
		{"role of very many users", Role, maxNamedUsers + 1, membership.KindUser, "Bob", 1, true, 600_000},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := NewPostureMapper(test.kind)
			m.UseGraph(groupOf(test.members, test.of, test.called, membership.RoleOf(ofDomainSID(512), nil)))
			asset, err := m.Map(nil, entry(t, m, nil), now, Logons{})
			if err != nil || asset.TooLarge || len(asset.JSON) > test.maxBytes {
				t.Fatalf("%d bytes, too large %t, %v", len(asset.JSON), asset.TooLarge, err)
			}
			_, list, _ := bytes.Cut(asset.JSON, []byte(`"members":[`))
			list, _, _ = bytes.Cut(list, []byte{']'})
			if got := bytes.Count(list, []byte(",")) + 1; got != test.members || bytes.Contains(list, []byte("{")) {
				t.Errorf("%d members: %.100s", got, list)
			}
			if got := bytes.Count(asset.JSON, []byte(`{"sid":`)); got < test.named || test.hasLast && got > test.named {
				t.Errorf("%d principals, want %d", got, test.named)
			}
			if bytes.Contains(asset.JSON, []byte(computer)) != test.hasLast {
				t.Errorf("the computer is named: want %t", test.hasLast)
			}
		})
	}
}

// TestLongPath checks that a path of very many groups is cut off.
func TestLongPath(t *testing.T) {
	t.Parallel()
	const length = maxPath + 5
	g := membership.New()
	admins := g.SetGroup(guidNamed('D'), ofDomainSID(512), true, membership.RoleOf(ofDomainSID(512), nil))
	g.AddMember(admins, benchGUID(length), ofDomainSID(ad.RID(2000+length)))
	for n := length; n > 0; n-- {
		group := g.SetGroup(benchGUID(n), ofDomainSID(ad.RID(2000+n)), true, 0)
		g.AddMember(group, benchGUID(n-1), ofDomainSID(ad.RID(2000+n-1)))
	}
	alice, _ := ad.ParseGUID([]byte(guidBytes))
	first := g.SetGroup(benchGUID(0), ofDomainSID(2000), true, 0)
	g.AddMember(first, alice, ad.SID(sidBytes))
	g.Compute()
	for guid, want := range map[ad.GUID]string{
		alice:         `"path":[{"sid":"` + ofDomainSID(2000).String() + `"},{"sid":"` + ofDomainSID(2001).String(),
		benchGUID(5):  `{"sid":"` + ofDomainSID(2000+length).String() + `"}]}]`,
		benchGUID(4):  `],"pathOmits":1}]`,
		benchGUID(24): `"path":[{"sid":"` + ofDomainSID(2000+length).String() + `"}]}]`,
	} {
		m := NewPostureMapper(User)
		m.UseGraph(g)
		asset, err := m.Map(nil, entry(t, m, attributes{"objectGUID": {string(guid[:])}}), now, Logons{})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(asset.JSON, []byte(want)) {
			t.Errorf("%s\nhas no %s", asset.JSON, want)
		}
		if items := bytes.Count(asset.JSON, []byte(`{"sid"`)); items > maxPath+2 { // the role in paths and principals
			t.Errorf("%d items", items)
		}
	}
}
