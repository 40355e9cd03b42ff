package directory

import (
	"slices"
	"testing"
)

func TestFilterAssertions(t *testing.T) {
	t.Parallel()
	const chain = "1.2.840.113556.1.4.1941"
	plain := func(attributes ...string) (list []Assertion) {
		for _, attribute := range attributes {
			list = append(list, Assertion{Attribute: attribute})
		}
		return list
	}
	for filter, want := range map[string][]Assertion{
		"(memberOf=CN=a,DC=corp)":                        plain("memberOf"),
		"(memberOf=*)":                                   plain("memberOf"),
		"(mail=*@corp.example)":                          plain("mail"),
		"(lastLogon>=1)":                                 plain("lastLogon"),
		"(lastLogon<=1)":                                 plain("lastLogon"),
		"(title~=engineer)":                              plain("title"),
		"(MEMBEROF;range=0-1=x)":                         plain("MEMBEROF"),
		"(memberOf;range=0-*=*)":                         plain("memberOf"),
		`(description=\28memberOf=\2a\29)`:               plain("description"),
		"(&(a=1)(|(b=2)(!(c>=3)))(!(d=*e*)))":            plain("a", "b", "c", "d"),
		"(memberOf:" + chain + ":=CN=a)":                 {{"memberOf", chain}},
		"(memberOf:dn:=CN=a)":                            {{"memberOf", ""}},
		"(ou:dn:2.4.6.8:=Sales)":                         {{"ou", "2.4.6.8"}},
		"(:2.4.6.8:=Sales)":                              {{"", "2.4.6.8"}},
		"(userAccountControl:1.2.840.113556.1.4.803:=2)": {{"userAccountControl", "1.2.840.113556.1.4.803"}},
	} {
		if got, err := FilterAssertions(filter); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, error %v, want %v", filter, got, err, want)
		}
	}
	for _, filter := range []string{"", "memberOf", "(memberOf=a", "(&)x", "(a=b)(c=d)"} {
		if got, err := FilterAssertions(filter); err == nil {
			t.Errorf("%s: %v", filter, got)
		}
	}
}

// FuzzFilterAssertions checks that every filter that passes the check of the configuration can be
// examined.
func FuzzFilterAssertions(f *testing.F) {
	for _, filter := range []string{"(a=b)", "(&(a=*)(!(b>=1)))", "(:1.2:=x)", "(a;x:dn:1.2:=*)", "(|)"} {
		f.Add(filter)
	}
	f.Fuzz(func(t *testing.T, filter string) {
		_, err := FilterAssertions(filter)
		if (err == nil) != (CheckFilter(filter) == nil) {
			t.Errorf("%q: %v", filter, err)
		}
	})
}
