package domaincontroller

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestShowcase checks that a domain of the default size has what security posture shows, as many groups as
// it should have, and that all of it depends on the seed only.
func TestShowcase(t *testing.T) {
	t.Parallel()
	options := Options{Users: minShowcaseUsers, Groups: minShowcaseGroups, Seed: 7, Now: func() time.Time { return testNow }}
	d := New(options)
	objects := map[string]Object{}
	for _, o := range d.Objects() {
		objects[o.DN] = o
	}
	group := func(name string) string { return "CN=" + name + ",OU=Groups," + d.Base() }
	member := func(dn, of string) {
		t.Helper()
		if !slices.Contains(objects[of].Attributes["member"], dn) {
			t.Errorf("%s is not a member of %s", dn, of)
		}
	}
	admins := "CN=Domain Admins,CN=Users," + d.Base()
	member(group("Operations on call"), group("Server administrators"))
	member(group("Server administrators"), admins)
	for dn, attribute := range map[string]string{
		"CN=Administrators,CN=Password Settings Container,CN=System," + d.Base(): "msDS-PSOAppliesTo",
		"CN=partner.example.net,CN=System," + d.Base():                           "securityIdentifier",
		"CN=gmsa-sql,CN=Managed Service Accounts," + d.Base():                    "msDS-GroupMSAMembership",
	} {
		if objects[dn].First(attribute) == "" {
			t.Errorf("%s has no %s", dn, attribute)
		}
	}
	for _, dn := range []string{d.Base(), admins, "CN=AdminSDHolder,CN=System," + d.Base()} {
		if d.descriptor(d.lookup(dn)) == d.defaultDescriptor {
			t.Errorf("%s has the default security descriptor", dn)
		}
	}
	kerberoastable, groups := 0, 0
	for _, o := range objects {
		if strings.HasSuffix(o.DN, ",OU=Groups,"+d.Base()) {
			groups++
		}
		if o.First("servicePrincipalName") != "" && slices.Contains(o.Attributes["memberOf"], group("Operations on call")) {
			kerberoastable++
		}
	}
	if kerberoastable != 1 || groups != options.Groups {
		t.Errorf("%d administrators with service principal names, %d groups", kerberoastable, groups)
	}
	if again := New(options).Objects(); !reflect.DeepEqual(again, d.Objects()) {
		t.Error("the same seed has other objects")
	}

	options.Users--
	for _, o := range New(options).Objects() {
		if strings.Contains(o.DN, "partner.example.net") {
			t.Errorf("a small domain has %s", o.DN)
		}
	}
}
