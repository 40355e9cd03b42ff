package identity

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// postureOfUser returns the posture of a user or a service account with these attributes.
func postureOfUser(t *testing.T, kind Kind, dn string, attrs attributes) (posture map[string]any, asset Asset) {
	t.Helper()
	m := NewPostureMapper(kind)
	m.UseGraph(people())
	e := entry(t, m, with(alice, attrs))
	e.DN = []byte(dn)
	asset, err := m.Map(nil, e, now, Logons{})
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Asset struct {
			AssetDetail struct {
				UserAssetClass struct{ Posture map[string]any }
			}
		}
	}
	if err := json.Unmarshal(asset.JSON, &document); err != nil {
		t.Fatal(err)
	}
	return document.Asset.AssetDetail.UserAssetClass.Posture, asset
}

func TestFormOf(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]mappingForm{
		"X509:<I>DC=com,CN=CA<S>CN=alice":          formIssuerSubject,
		"x509:<i>CN=CA<s>CN=alice":                 formIssuerSubject,
		"X509:<S>CN=alice":                         formSubjectOnly,
		"X509:<RFC822>alice@corp.example.com":      formRFC822,
		"X509:<I>DC=com,CN=CA<SR>2b0000000011ac":   formIssuerSerialNumber,
		"X509:<SKI>d1a0c7f3":                       formSubjectKeyIdentifier,
		"X509:<SHA1-PUKEY>50bf88e67522ab8ce093ce5": formPublicKeyHash,
		"Kerberos:alice@MIT.EXAMPLE":               formKerberos,
		"kerberos:alice@MIT.EXAMPLE":               formKerberos,
		"X509:<I>CN=CA":                            formOther,
		"X509:":                                    formOther,
		"X509:<I>":                                 formOther,
		"alice@corp.example.com":                   formOther,
		"":                                         formOther,
	} {
		if got := formOf([]byte(value)); got != want {
			t.Errorf("%q: %b, want %b", value, got, want)
		}
	}
}

func TestOutsidePath(t *testing.T) {
	t.Parallel()
	const dn = "CN=Alice,OU=Staff,DC=corp,DC=example,DC=com"
	for path, want := range map[string]bool{
		`\\files\home\alice`:                    false, // resolved within the domain
		`\\files.corp.example.com\home`:         false,
		`\\FILES.Corp.Example.Com.\home`:        false,
		`\\corp.example.com\dfs`:                false,
		`\\sub.files.corp.example.com\home`:     false,
		`\\notcorp.example.com\home`:            true,
		`\\example.com\home`:                    true,
		`\\files.other.example\home`:            true,
		`\\corp.example.com.other.example\home`: true,
		`//files.other.example/home`:            true,
		`\/files.other.example/home`:            true,
		`\\files.other.example`:                 true,
		` "\\files.other.example\home"`:         true,
		`\\files.other.example@SSL\DavWWWRoot`:  true,
		`\\files@SSL@8443\DavWWWRoot`:           false,
		`\\files.corp.example.com@80\x`:         false,
		`\\?\UNC\files.other.example\home`:      true,
		`\\?\unc\files\home`:                    false,
		`\\.\UNC\files.other.example\home`:      true,
		`\\?\C:\home.other.example`:             false,
		`\\.\pipe\x.y`:                          false,
		`\\198.51.100.7\home`:                   true,
		`\\3325256711\home`:                     true,
		`\\0xC6336407\home`:                     true,
		`\\[2001:db8::7]\home`:                  true,
		`\\2001-db8--7.ipv6-literal.net\home`:   true,
		`C:\home.other.example\alice`:           false,
		`logon.cmd`:                             false,
		`scripts\logon.other.example.cmd`:       false,
		`\home.other.example`:                   false,
		`\\`:                                    false,
		`\\?\`:                                  false,
		`\\?\UNC`:                               false,
		`\\\`:                                   false,
		``:                                      false,
	} {
		host := uncHost([]byte(path))
		if got := len(host) > 0 && isOutside(host, []byte(dn)); got != want {
			t.Errorf("%q with host %q: %t", path, host, got)
		}
	}
	if isOutside([]byte("files"), nil) || !isOutside([]byte("files.corp"), nil) {
		t.Error("without a domain, a name with dots must be outside, and a single label not")
	}
}

// FuzzUNCHost checks that no path makes the parser panic or return a separator.
func FuzzUNCHost(f *testing.F) {
	f.Add([]byte(`\\?\UNC\host@SSL\x`), []byte("CN=x,DC=corp"))
	f.Fuzz(func(t *testing.T, path, dn []byte) {
		if host := uncHost(path); bytes.ContainsAny(host, `\/`) {
			t.Errorf("%q", host)
		} else {
			isOutside(host, dn)
		}
		formOf(path)
	})
}

func TestPresence(t *testing.T) {
	t.Parallel()
	link := extended(guidNamed('q'), ofDomainSID(1700), "CN=dmsa,DC=corp")
	for name, c := range map[string]struct {
		kind Kind
		attributes
		key  string
		want any
	}{
		"no password attribute":   {User, nil, "passwordAttributes", nil},
		"empty password":          {User, attributes{"userPassword": {""}}, "passwordAttributes", nil},
		"userPassword":            {User, attributes{"userPassword": {"x"}}, "passwordAttributes", []any{"userPassword"}},
		"unixUserPassword":        {User, attributes{"unixUserPassword": {"x"}}, "passwordAttributes", []any{"unixUserPassword"}},
		"msSFU30Password":         {ServiceAccount, attributes{"msSFU30Password": {"x", "y"}}, "passwordAttributes", []any{"msSFU30Password"}},
		"no alternate identities": {User, nil, "alternateIdentities", nil},
		"strong mapping": {User, attributes{"altSecurityIdentities": {"X509:<SKI>1"}}, "alternateIdentities",
			map[string]any{"count": 1.0, "forms": []any{"X509_SKI"}}},
		"weak mapping": {User, attributes{"altSecurityIdentities": {"X509:<S>a", "X509:<RFC822>a", "Kerberos:a"}}, "alternateIdentities",
			map[string]any{"count": 3.0, "forms": []any{"X509_SUBJECT_ONLY", "X509_RFC822", "KERBEROS"}, "weakForms": []any{"X509_SUBJECT_ONLY", "X509_RFC822"}}},
		"key credentials":       {User, attributes{"msDS-KeyCredentialLink": {"B:2:01:CN=a", "B:2:02:CN=a", "B:2:03:CN=a"}}, "keyCredentials", 3.0},
		"superseded":            {User, attributes{"msDS-SupersededManagedAccountLink": {link}}, "supersededBy", ofDomainSID(1700).String()},
		"link of a user":        {User, attributes{"msDS-ManagedAccountPrecededByLink": {link}}, "supersedes", nil},
		"supersedes":            {ServiceAccount, attributes{"msDS-ManagedAccountPrecededByLink": {link}}, "supersedes", ofDomainSID(1700).String()},
		"state unknown":         {ServiceAccount, attributes{"msDS-DelegatedMSAState": {"0"}}, "delegatedState", "UNKNOWN"},
		"migration in progress": {ServiceAccount, attributes{"msDS-DelegatedMSAState": {"1"}}, "delegatedState", "MIGRATION_IN_PROGRESS"},
		"standalone":            {ServiceAccount, attributes{"msDS-DelegatedMSAState": {"3"}}, "delegatedState", "STANDALONE"},
		"unknown state":         {ServiceAccount, attributes{"msDS-DelegatedMSAState": {"4"}}, "delegatedState", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attrs := attributes{}
			for attribute, values := range c.attributes {
				if !(c.kind == User && attribute == "msDS-ManagedAccountPrecededByLink") { // not requested for users
					attrs[attribute] = values
				}
			}
			posture, _ := postureOfUser(t, c.kind, "CN=Alice,DC=corp", attrs)
			got, _ := json.Marshal(posture[c.key])
			want, _ := json.Marshal(c.want)
			if string(got) != string(want) {
				t.Errorf("%s, want %s", got, want)
			}
		})
	}
}

// TestSecretsAreNotSent checks that no value of a password attribute reaches an asset or the input of a
// fingerprint, not even that of an asset that is too large.
func TestSecretsAreNotSent(t *testing.T) {
	t.Parallel()
	secret := func(value string) attributes {
		attrs := attributes{}
		for _, name := range secrets {
			attrs[name] = []string{value}
		}
		return attrs
	}
	_, first := postureOfUser(t, User, "CN=Alice,DC=corp", secret("Pw-1secret"))
	_, second := postureOfUser(t, User, "CN=Alice,DC=corp", secret("another"))
	if bytes.Contains(first.JSON, []byte("Pw-1secret")) || first.Fingerprint != second.Fingerprint {
		t.Errorf("%s", first.JSON)
	}
	large := func(attrs attributes) Fingerprint {
		m := NewPostureMapper(User)
		m.UseGraph(people())
		asset, err := m.Map(nil, entry(t, m, with(attrs, attributes{"mail": {strings.Repeat("x", MaxAssetBytes)}})), now, Logons{})
		if err != nil || !asset.TooLarge {
			t.Fatalf("too large: %t, %v", asset.TooLarge, err)
		}
		return asset.Fingerprint
	}
	if large(secret("Pw-1secret")) != large(secret("another")) {
		t.Error("the value changes the fingerprint of an asset that is too large")
	}
	if large(secret("Pw-1secret")) == large(nil) {
		t.Error("the presence does not change the fingerprint of an asset that is too large")
	}
}

// TestIncompleteLists checks that a list of which the server has returned only a part is not taken for
// an empty one.
func TestIncompleteLists(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(User)
	m.UseGraph(people())
	e := entry(t, m, with(alice, attributes{
		"altSecurityIdentities": {"X509:<SKI>d1a0c7f3"}, "msDS-AllowedToDelegateTo": {"cifs/dc1"}, "msDS-KeyCredentialLink": {"B:2:01:CN=a"},
		"servicePrincipalName": {"http/a"}, "sIDHistory": {string(ofDomainSID(9001))},
	}))
	for name := range strings.SplitSeq(longLists, ", ") {
		e.Partial = append(e.Partial, slices.Index(m.Attributes, name))
	}
	asset, err := m.Map(nil, e, now, Logons{})
	if err != nil {
		t.Fatal(err)
	}
	for _, absent := range []string{`"keyCredentials":`, `"count":`, `"allowedToDelegateTo":`, `"servicePrincipalNames":`, `"sidHistory":`} {
		if bytes.Contains(asset.JSON, []byte(absent)) {
			t.Errorf("%s in %s", absent, asset.JSON)
		}
	}
	const want = `"unreadable":["allowedToDelegateTo","alternateIdentities","facts","keyCredentials","servicePrincipalNames","sidHistory"]`
	if asset.Unparsed != 5 || !bytes.Contains(asset.JSON, []byte(want)) {
		t.Errorf("%d unparsed: %s", asset.Unparsed, asset.JSON)
	}
}

func TestHeuristics(t *testing.T) {
	t.Parallel()
	const defaults = `{"anonymousAccess":false,"anonymousNameService":false,"listObjectMode":false,"userPasswordIsPassword":false,"addAuthorization":"DEFAULT","ownerRightsBlocked":"DEFAULT"}`
	for name, c := range map[string]struct{ value, mappings, want string }{
		"unreadable":             {"", "", ""},
		"absent":                 {"", "host=alerter", defaults},
		"without other evidence": {"0", "", defaults},
		"anonymous access":       {"0000002", "x", strings.Replace(defaults, `Access":false`, `Access":true`, 1)},
		"another value":          {"0000001", "x", defaults},
		"address book":           {"00000001", "x", strings.Replace(defaults, `NameService":false`, `NameService":true`, 1)},
		"list object":            {"001", "x", strings.Replace(defaults, `listObjectMode":false`, `listObjectMode":true`, 1)},
		"userPassword":           {"000000001", "x", strings.Replace(defaults, `IsPassword":false`, `IsPassword":true`, 1)},
		"userPassword off":       {"000000002", "x", defaults},
		"operators": {"000000000100000f", "x", strings.Replace(defaults, `,"addAuthorization"`,
			`,"adminSdHolderExclusions":["ACCOUNT_OPERATORS","SERVER_OPERATORS","PRINT_OPERATORS","BACKUP_OPERATORS"],"addAuthorization"`, 1)},
		"no digit":            {"000000000100000x", "x", defaults},
		"uniqueness":          {"000000000100000000021", "x", strings.Replace(defaults, `,"addAuthorization"`, `,"uniquenessExclusions":["USER_PRINCIPAL_NAME"],"addAuthorization"`, 1)},
		"enforced":            {"00000000010000000002000000011", "x", strings.ReplaceAll(defaults, "DEFAULT", "ENFORCED")},
		"disabled":            {"00000000010000000002000000022", "x", strings.ReplaceAll(defaults, "DEFAULT", "DISABLED")},
		"end of the string":   {"0000000001000000000200000001", "x", strings.Replace(defaults, "DEFAULT", "ENFORCED", 1)},
		"more than is known":  {"0000000001000000000200000000031", "x", defaults},
		"value of other type": {"\x00\xff", "x", defaults},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			part := NewCollector().Heuristics
			e := &ad.Entry{Values: make([][][]byte, len(part.Attributes))}
			for slot, value := range []string{c.value, c.mappings} {
				if value != "" {
					e.Values[slot] = [][]byte{[]byte(value)}
				}
			}
			readable := part.Add(e, now)
			if got := string(bytes.Join(part.items, nil)); got != c.want || readable != (c.want != "") {
				t.Errorf("%s, readable %t, want %s", got, readable, c.want)
			}
		})
	}
}

// domainOf returns the JSON of the domain with these attributes of its entry.
func domainOf(t *testing.T, attrs attributes, graph *membership.Graph) string {
	t.Helper()
	m := NewPostureMapper(Domain)
	m.UseGraph(graph)
	asset, err := m.MapDomain(nil, entry(t, m, attrs), NewCollector(), now)
	if err != nil {
		t.Fatal(err)
	}
	return string(asset.JSON)
}

func TestSmartCardPasswords(t *testing.T) {
	t.Parallel()
	const listed = `"smartCardPasswordsExpire"`
	for name, c := range map[string]struct {
		value, quota string
		want         string
	}{
		"true":               {"TRUE", "10", listed + ":true"},
		"false":              {"FALSE", "10", listed + ":false"},
		"absent":             {"", "10", listed + ":false"},
		"unreadable":         {"", "", listed + ","}, // in the list of unreadable values
		"only that readable": {"TRUE", "", listed + ":true"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			attrs := attributes{"objectSid": {string(administrators)}}
			for attribute, value := range map[string]string{attributeExpirePasswords: c.value, alwaysPresent: c.quota} {
				if value != "" {
					attrs[attribute] = []string{value}
				}
			}
			if got := domainOf(t, attrs, people()); strings.Count(got, listed) != 1 || !strings.Contains(got+",", strings.TrimSuffix(c.want, ",")) || strings.Contains(got, listed+":") != strings.Contains(c.want, ":") {
				t.Errorf("%s has no %s", got, c.want)
			}
		})
	}
}

func TestPrivilegedUsers(t *testing.T) {
	t.Parallel()
	graph := people()
	if got := domainOf(t, attributes{}, graph); !strings.Contains(got, `"privilegedUsers":{"count":1,"inProtectedUsers":0}`) {
		t.Errorf("%s", got)
	}
	alice, _ := ad.ParseGUID([]byte(guidBytes))
	protected := graph.SetGroup(guidNamed('P'), ofDomainSID(525), true, membership.RoleOf(ofDomainSID(525), nil))
	graph.AddMember(protected, alice, ad.SID(sidBytes))
	graph.Compute()
	if got := domainOf(t, attributes{}, graph); !strings.Contains(got, `"privilegedUsers":{"count":1,"inProtectedUsers":1}`) {
		t.Errorf("%s", got)
	}
	graph.Keep(guidNamed('T')) // its members are unreadable
	graph.Compute()
	if got := domainOf(t, attributes{}, graph); !strings.Contains(got, `"privilegedUsers"`+"]") && !strings.Contains(got, `"privilegedUsers",`) {
		t.Errorf("not listed as unreadable: %s", got)
	}
}
