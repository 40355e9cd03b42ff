package domaincontroller

import (
	"fmt"
	"slices"
	"testing"

	"github.com/go-ldap/ldap/v3"
)

// TestHide checks that hidden attributes of the objects below a DN are neither returned nor
// found by a filter, until they are visible again.
func TestHide(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.bound(t)
	unit := "OU=Staff," + d.Base()
	must(t, d.Add(Object{DN: unit, Attributes: map[string][]string{"objectClass": {"organizationalUnit"}}}))
	for _, dn := range []string{"CN=inside," + unit, "CN=outside," + d.Base()} {
		must(t, d.Add(Object{DN: dn, Attributes: map[string][]string{"objectClass": {"user"}, "mail": {"m@corp.example.com"}, "userAccountControl": {"514"}}}))
	}
	// search returns the names of the users that a condition finds, and how many show their mail.
	search := func(condition string) (names []string, shown int) {
		t.Helper()
		result, err := conn.Search(ldap.NewSearchRequest(d.Base(), ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false,
			"(&(|(cn=inside)(cn=outside))"+condition+")", []string{"cn", "MAIL"}, nil))
		must(t, err)
		for _, entry := range result.Entries {
			names = append(names, entry.GetAttributeValue("cn"))
			if entry.GetAttributeValue("mail") != "" {
				shown++
			}
		}
		return names, shown
	}
	expect := func(conditions, absent []string, visible ...string) {
		t.Helper()
		for _, condition := range conditions {
			if names, shown := search(condition); !slices.Equal(names, visible) || shown != len(visible) {
				t.Errorf("%s finds %v, %d with mail", condition, names, shown)
			}
		}
		for _, condition := range absent {
			if names, _ := search(condition); len(names) != 2-len(visible) {
				t.Errorf("%s finds %v", condition, names)
			}
		}
	}
	conditions := []string{"(mail=*)", "(mail=m@corp.example.com)", "(mail=m@*)", "(userAccountControl>=2)", "(userAccountControl<=999)",
		"(userAccountControl:1.2.840.113556.1.4.803:=2)", "(&(mail=*)(userAccountControl=514))"}
	absent := []string{"(!(mail=*))", "(!(userAccountControl=514))"}
	usn := d.highestUSN()
	expect(conditions, absent, "inside", "outside")
	must(t, d.Hide(unit, "mail", "useraccountcontrol"))
	expect(conditions, absent, "outside")
	must(t, d.HideOne(unit, "mail"))
	expect(conditions, absent, "inside", "outside")
	must(t, d.HideOne("CN=inside,"+unit, "mail"))
	expect([]string{"(mail=*)"}, nil, "outside")
	must(t, d.HideOne("CN=inside,"+unit))
	must(t, d.Hide(unit, "objectGUID"))
	expect(conditions, absent, "inside", "outside")
	if names, _ := search("(objectGUID=*)"); !slices.Equal(names, []string{"outside"}) {
		t.Errorf("objectGUID is shown by %v", names)
	}
	must(t, d.Hide(unit, "objectClass"))
	expect([]string{"(objectClass=user)", "(objectClass=top)"}, nil, "outside")
	expect([]string{"(objectClass=*)"}, nil, "inside", "outside")
	must(t, d.Hide(unit))
	expect(append(conditions, "(objectGUID=*)"), absent, "inside", "outside")
	if o, err := d.Object("CN=inside,"+unit, "mail"); err != nil || o.First("mail") == "" || d.highestUSN() != usn {
		t.Errorf("object %v, error %v, USN %d, was %d", o, err, d.highestUSN(), usn)
	}
	if d.Hide(unit, "noSuchAttribute") == nil || d.Hide("OU=Nowhere,"+d.Base(), "mail") == nil {
		t.Error("no error for an unknown attribute or object")
	}
}

// TestDenyListing checks that no search finds the objects directly in a container whose contents the
// account may not list, that the container and objects further below are found, and that all are
// found again afterwards.
func TestDenyListing(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.bound(t)
	unit := "OU=Closed," + d.Base()
	lower := "OU=Lower," + unit
	for _, dn := range []string{unit, lower} {
		must(t, d.Add(Object{DN: dn, Attributes: map[string][]string{"objectClass": {"organizationalUnit"}}}))
	}
	for _, dn := range []string{"CN=inside," + unit, "CN=below," + lower} {
		must(t, d.Add(Object{DN: dn, Attributes: map[string][]string{"objectClass": {"user"}}}))
	}
	guid := func(dn string) string {
		o, err := d.Object(dn, "objectGUID")
		must(t, err)
		return "<GUID=" + fmt.Sprintf("%x", o.First("objectGUID")) + ">"
	}
	inside := guid("CN=inside," + unit)
	cases := []struct {
		base   string
		scope  int
		denied int // entries; -1: no such object
		before int
	}{
		{d.Base(), ldap.ScopeWholeSubtree, 2, 4},
		{unit, ldap.ScopeWholeSubtree, 2, 4},
		{unit, ldap.ScopeSingleLevel, 0, 2},
		{unit, ldap.ScopeBaseObject, 1, 1},
		{lower, ldap.ScopeBaseObject, -1, 1},
		{"CN=inside," + unit, ldap.ScopeBaseObject, -1, 1},
		{inside, ldap.ScopeBaseObject, -1, 1},
		{"CN=below," + lower, ldap.ScopeBaseObject, 1, 1},
	}
	expect := func(denied bool) {
		t.Helper()
		for _, c := range cases {
			want := c.before
			if denied {
				want = c.denied
			}
			got := -1
			result, err := conn.Search(ldap.NewSearchRequest(c.base, c.scope, ldap.NeverDerefAliases, 0, 0, false,
				"(|(ou=Closed)(ou=Lower)(cn=inside)(cn=below))", []string{"1.1"}, nil))
			if !ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
				must(t, err)
				got = len(result.Entries)
			}
			if got != want {
				t.Errorf("denied %t: %s, scope %d: %d entries, want %d", denied, c.base, c.scope, got, want)
			}
		}
	}
	usn := d.highestUSN()
	expect(false)
	must(t, d.DenyListing(unit))
	expect(true)
	must(t, d.AllowListing(unit))
	expect(false)
	if d.highestUSN() != usn {
		t.Errorf("USN %d, was %d", d.highestUSN(), usn)
	}
	if d.DenyListing("OU=Nowhere,"+d.Base()) == nil {
		t.Error("no error for an unknown object")
	}
}
