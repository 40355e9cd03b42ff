package domaincontroller

import (
	"slices"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
)

func TestFilters(t *testing.T) {
	t.Parallel()
	d := newTestServer(t, Options{})
	conn := d.bound(t)
	base := "OU=Test," + d.Base()
	object := func(name, class string, attributes map[string][]string) string {
		t.Helper()
		attributes["objectClass"] = []string{class}
		must(t, d.Add(Object{"CN=" + name + "," + base, attributes}))
		return "CN=" + name + "," + base
	}
	must(t, d.Add(Object{base, map[string][]string{"objectClass": {"organizationalUnit"}}}))
	a := object("Ann", "user", map[string][]string{"mail": {"ann@example.com"}, "badPwdCount": {"9"}, "accountExpires": {"134398063938451234"}, "title": {"Müllerin (temp)*"}})
	object("Bob", "user", map[string][]string{"mail": {"bob@example.com"}, "badPwdCount": {"10"}, "userAccountControl": {"514"}, "sn": {"Ördög"}})
	object("Cyd", "computer", map[string][]string{"description": {"one", "two"}})
	g := object("Inner", "group", map[string][]string{"member": {a}})
	object("Outer", "group", map[string][]string{"member": {g}, "groupType": {"8"}})
	object("Out", "contact", map[string][]string{"mail": {"out@example.net"}})
	entry := d.find(t, conn, a, 0, "(objectClass=*)", "objectGUID", "objectSid", "whenCreated").Entries[0]
	guid := ldap.EscapeFilter(entry.GetAttributeValue("objectGUID"))
	raw := entry.GetRawAttributeValue("objectSid")
	ann := []string{"Ann"}

	for _, test := range []struct {
		filter string
		want   []string
	}{
		{"(mail=*)", []string{"Ann", "Bob", "Out"}},
		{"(MAIL=ANN@example.com)", ann},
		{"(mail~=ann@example.com)", ann},
		{"(sn=ördög)", []string{"Bob"}},
		{"(!(mail=*))", []string{"Cyd", "Inner", "Outer"}},
		{"(!(mail=ann@example.com))", []string{"Bob", "Cyd", "Inner", "Outer", "Out"}},
		{"(&(objectClass=user)(!(objectClass=computer)))", []string{"Ann", "Bob"}},
		{"(|(cn=ann)(cn=bob))", []string{"Ann", "Bob"}},
		{"(&)", []string{"Ann", "Bob", "Cyd", "Inner", "Outer", "Out"}},
		{"(|)", nil},
		{"(badPwdCount>=10)", []string{"Bob"}},
		{"(badPwdCount>=9)", []string{"Ann", "Bob"}},
		{"(badPwdCount<=9)", []string{"Ann", "Cyd"}},
		{"(badPwdCount=010)", []string{"Bob"}},
		{"(accountExpires<=134398063938451234)", ann},
		{"(&(accountExpires>=1)(!(accountExpires=9223372036854775807)))", ann},
		{"(whenCreated>=20261122115959.0Z)", []string{"Ann", "Bob", "Cyd", "Inner", "Outer", "Out"}},
		{"(whenCreated<=20261122115959.0Z)", nil},
		{"(whenCreated=20261122130000.0+0100)", []string{"Ann", "Bob", "Cyd", "Inner", "Outer", "Out"}},
		{"(cn=A*)", ann},
		{"(cn=*n*)", []string{"Ann", "Inner"}},
		{"(cn=*R)", []string{"Inner", "Outer"}},
		{"(cn=o*t*r)", []string{"Outer"}},
		{"(cn=a*n*n)", ann},
		{"(cn=ann*n)", nil},
		{`(title=MÜLLER*\28temp\29\2a)`, ann},
		{"(badPwdCount=1*)", nil},
		{"(description=TWO)", []string{"Cyd"}},
		{"(objectGUID=" + guid + ")", ann},
		{"(objectSid=" + ldap.EscapeFilter(string(raw)) + ")", ann},
		{"(objectSid=" + sidText(t, raw) + ")", ann},
		{"(sAMAccountType=805306368)", []string{"Ann", "Bob"}},
		{"(objectCategory=person)", []string{"Ann", "Bob", "Out"}},
		{"(objectCategory=user)", []string{"Ann", "Bob", "Out"}},
		{"(objectCategory=cn=person, cn=schema,cn=configuration,dc=corp,dc=example,dc=com)", []string{"Ann", "Bob", "Out"}},
		{"(userAccountControl:1.2.840.113556.1.4.803:=2)", []string{"Bob"}},
		{"(userAccountControl:1.2.840.113556.1.4.803:=514)", []string{"Bob"}},
		{"(userAccountControl:1.2.840.113556.1.4.804:=4098)", []string{"Bob", "Cyd"}},
		{"(userAccountControl:1.2.840.113556.1.4.804:=0)", nil},
		{"(groupType:1.2.840.113556.1.4.803:=2147483648)", []string{"Inner"}},
		{"(groupType=-2147483646)", []string{"Inner"}},
		{"(memberOf=cn=INNER," + base + ")", ann},
		{"(memberOf=CN=Outer," + base + ")", []string{"Inner"}},
		{"(memberOf:1.2.840.113556.1.4.1941:=CN=Outer," + base + ")", []string{"Ann", "Inner"}},
		{"(member=" + a + ")", []string{"Inner"}},
		{"(member:1.2.840.113556.1.4.1941:=" + a + ")", []string{"Inner", "Outer"}},
		{"(memberOf=CN=Nobody," + base + ")", nil},
		{"(distinguishedName=" + a + ")", ann},
		{"(cn:=ANN)", ann},
		{"(isDeleted=FALSE)", nil},
		// Neither an undefined filter nor its negation matches.
		{"(shoeSize=43)", nil},
		{"(!(shoeSize=43))", nil},
		{"(!(shoeSize=*))", nil},
		{"(|(shoeSize=43)(cn=Ann))", ann},
		{"(&(!(shoeSize=43))(cn=Ann))", nil},
		{"(!(&(shoeSize=43)(cn=Nobody)))", []string{"Ann", "Bob", "Cyd", "Inner", "Outer", "Out"}},
		{"(!(badPwdCount=many))", nil},
		{"(!(isDeleted=yes))", nil},
		{"(!(whenCreated>=today))", nil},
		{"(!(cn:1.2.3.4:=Ann))", nil},
	} {
		t.Run(test.filter, func(t *testing.T) {
			var got []string
			for _, entry := range d.find(t, conn, base, ldap.ScopeSingleLevel, test.filter, "cn").Entries {
				got = append(got, entry.GetAttributeValue("cn"))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func sidText(t *testing.T, raw []byte) string {
	t.Helper()
	sid, ok := ad.ParseSID(raw)
	if !ok {
		t.Fatalf("invalid SID %x", raw)
	}
	return sid.String()
}
