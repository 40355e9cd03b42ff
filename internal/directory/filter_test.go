package directory

import (
	"slices"
	"testing"

	"adconnector/internal/input"
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

func TestFilterMistake(t *testing.T) {
	t.Parallel()
	for filter, want := range map[string]*input.Mistake{
		`(memberOf=CN=Smith\, Bob,DC=corp)`:            FilterBackslash,
		`(&(a=b)(memberOf=CN=R\+D,DC=corp))`:           FilterBackslash,
		`(a=b\2)`:                                      FilterBackslash,
		`(memberOf=CN=Bob (EXT),DC=corp)`:              FilterParenthesis,
		`(memberOf=CN=Bob(EXT),DC=corp)`:               FilterParenthesis,
		`(&(a=b)(memberOf=CN=Bob (EXT),DC=corp)(c=d))`: FilterParenthesis,
		`memberOf=CN=Bob`:                              nil,
		`(&(a=b)(!(c=d))`:                              nil,
		`(&(a=b) (c=d)) (`:                             nil,
		`(memberOf=CN=Smith\5c, Bob \28EXT\29,DC=corp`: nil,
		`(a=b`: nil,
	} {
		if err := CheckFilter(filter); err == nil {
			t.Errorf("%s: valid", filter)
		}
		if got := FilterMistake(filter); got != want {
			t.Errorf("%s: %v, want %v", filter, got, want)
		}
	}
	for _, filter := range []string{`(memberOf=CN=Smith\5c, Bob,DC=corp)`, `(memberOf=CN=Bob \28EXT\29,DC=corp)`} { // the remedies
		if err := CheckFilter(filter); err != nil {
			t.Errorf("%s: %v", filter, err)
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
