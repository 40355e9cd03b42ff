package directory

import "testing"

// TestContainers checks which DNs are those of system objects and of containers of accounts.
func TestContainers(t *testing.T) {
	t.Parallel()
	root := RootDSE{DefaultNamingContext: "DC=corp,DC=example,DC=com"}
	for dn, want := range map[string]struct{ system, container bool }{
		"OU=People,DC=corp,DC=example,DC=com":                   {false, true},
		"ou=Lower,OU=People,DC=corp,DC=example,DC=com":          {false, true},
		"CN=Users,DC=corp,DC=example,DC=com":                    {false, true},
		"cn=users,dc=CORP,dc=example,dc=com":                    {false, true},
		"CN=Computers,DC=corp,DC=example,DC=com":                {false, true},
		"CN=Managed Service Accounts,DC=corp,DC=example,DC=com": {false, true},
		"CN=Users,OU=People,DC=corp,DC=example,DC=com":          {false, false},
		"CN=alice,CN=Users,DC=corp,DC=example,DC=com":           {false, false},
		"CN=alice,OU=People,DC=corp,DC=example,DC=com":          {false, false},
		"CN=System,DC=corp,DC=example,DC=com":                   {true, false},
		"CN=Policies,CN=System,DC=corp,DC=example,DC=com":       {true, false},
		"OU=Unit,CN=System,DC=corp,DC=example,DC=com":           {true, false},
		"CN=LostAndFound,DC=corp,DC=example,DC=com":             {true, false},
		"DC=corp,DC=example,DC=com":                             {false, false},
		"OU=":                                                   {false, false},
		"":                                                      {false, false},
	} {
		if system, container := root.IsSystem(dn), root.IsAccountContainer(dn); system != want.system || container != want.container {
			t.Errorf("%s: system %t, container %t, want %+v", dn, system, container, want)
		}
	}
}

// TestNormalizeDN checks that equal DNs have the same form, and different ones do not.
func TestNormalizeDN(t *testing.T) {
	t.Parallel()
	const dn = `OU=Sales\2C Pune,DC=corp,DC=example,DC=com`
	for _, equal := range []string{dn, `ou=sales\, pune,dc=corp,dc=example,dc=com`, `OU=SALES\, Pune , DC=corp, DC=example, DC=com`} {
		if in, ok := InScope(equal, dn, Base); !in || !ok || NormalizeDN(equal) != NormalizeDN(dn) {
			t.Errorf("%s: %s, want %s", equal, NormalizeDN(equal), NormalizeDN(dn))
		}
	}
	for _, other := range []string{`OU=Sales,OU=Pune,DC=corp,DC=example,DC=com`, `CN=Sales\2C Pune,DC=corp,DC=example,DC=com`, "OU"} {
		if NormalizeDN(other) == NormalizeDN(dn) {
			t.Errorf("%s is equal", other)
		}
	}
	for _, equal := range []string{"OU=Köln,DC=a", "ou=KÖLN,dc=A", `OU=K\c3\96ln,DC=a`} {
		if got := NormalizeDN(equal); got != `ou=k\c3\b6ln,dc=a` {
			t.Errorf("%s: %s", equal, got)
		}
	}
	if got := NormalizeDN("No DN"); got != "no dn" {
		t.Errorf("%q", got)
	}
}
