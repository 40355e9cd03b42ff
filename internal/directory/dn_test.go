package directory

import "testing"

func TestInScope(t *testing.T) {
	t.Parallel()
	const base = "OU=Staff,DC=corp,DC=example"
	for _, test := range []struct {
		name, dn, base          string
		subtree, oneLevel, self bool
	}{
		{"the base", base, base, true, false, true},
		{"a child", "CN=a," + base, base, true, true, false},
		{"a grandchild", "CN=a,OU=b," + base, base, true, false, false},
		{"the parent", "DC=corp,DC=example", base, false, false, false},
		{"a sibling", "OU=Other,DC=corp,DC=example", base, false, false, false},
		{"below a sibling", "CN=a,OU=Other,DC=corp,DC=example", base, false, false, false},
		{"a name with the same end", "CN=a,OU=My Staff,DC=corp,DC=example", base, false, false, false},
		{"the base as the end of a value", `CN=a\,OU\=Staff,DC=corp,DC=example`, base, false, false, false},
		{"case of types and values", "cn=A,ou=STAFF,dc=Corp,dc=EXAMPLE", base, true, true, false},
		{"case beyond ASCII", "CN=a,OU=ÄRZTE,DC=corp", "OU=ärzte,DC=corp", true, true, false},
		{"spaces around separators", "CN=a , OU=Staff,DC=corp ,  DC=example", base, true, true, false},
		{"an escaped comma", `CN=a,OU=x\, y,DC=corp`, `OU=x\, y,DC=corp`, true, true, false},
		{"another escape of the same comma", `CN=a,OU=x\2C y,DC=corp`, `OU=x\, y,DC=corp`, true, true, false},
		{"escaped UTF-8", `CN=a,OU=K\C3\B6ln,DC=corp`, "OU=Köln,DC=corp", true, true, false},
		{"a quoted plus", `CN=a,OU=R\+D,DC=corp`, `OU=R\2bD,DC=corp`, true, true, false},
	} {
		for scope, want := range map[Scope]bool{Subtree: test.subtree, OneLevel: test.oneLevel, Base: test.self} {
			if in, ok := InScope(test.dn, test.base, scope); in != want || !ok {
				t.Errorf("%s, %s: %t %t, want %t", test.name, scope, in, ok, want)
			}
		}
	}
	for _, test := range [][2]string{{"no DN", base}, {base, "no DN"}, {"", base}, {base, ""}} {
		if in, ok := InScope(test[0], test[1], Subtree); in || ok {
			t.Errorf("%q in %q: %t %t", test[0], test[1], in, ok)
		}
	}
}

func TestParentDN(t *testing.T) {
	t.Parallel()
	for dn, want := range map[string]string{
		"CN=a,OU=b,DC=c":     "OU=b,DC=c",
		`CN=a\, b,DC=c`:      "DC=c",
		`CN=a\2C b\\,DC=c`:   "DC=c",
		`CN=a\2c,OU=x\,y`:    `OU=x\,y`,
		"DC=c":               "",
		"":                   "",
		`CN=ends in \`:       "",
		"CN=a,<GUID=no real": "<GUID=no real",
	} {
		if got := ParentDN(dn); got != want {
			t.Errorf("%q: %q, want %q", dn, got, want)
		}
	}
}
