package directory

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/input"
)

func TestCheckBase(t *testing.T) {
	t.Parallel()
	for _, base := range []string{
		"DC=corp,DC=example,DC=com", "dc=corp, dc=example", `OU=Sales\, EMEA,DC=corp`, `OU="Sales, EMEA",DC=corp`, "OID.2.5.4.10=x", "2.5.4.10=x",
		"<GUID=2323a9b0-6c59-4bd2-9e86-eec4d73a8b8d>", "o=x;c=y", " DC=corp ", "OU=Zoë,DC=corp",
	} {
		if err := CheckBase(base); err != nil {
			t.Errorf("%q: %v", base, err)
		}
	}
	for base, want := range map[string]struct {
		cause   error
		allowed string
	}{
		"corp":                        {ErrNotDN, "DC=corp,DC=example,DC=com"},
		"ad.example.org":              {ErrNotDN, "DC=ad,DC=example,DC=org"},
		"":                            {ErrNotDN, "DC=corp"},
		"DC=corp,DC=com\n":            {input.EndsWithFeed, "DC=corp"},
		"DC=corp,DC=com\r":            {input.EndsWithReturn, "DC=corp"},
		"\"DC=corp,DC=com\"":          {input.InQuotes, "DC=corp"},
		"“DC=corp,DC=com”":            {input.InQuotes, "DC=corp"},
		"LDAP://DC=corp,DC=com":       {ErrNotDN, "DC=corp"},
		"DC=corp,DC=com,":             {ErrNotDN, "DC=corp"},
		"DC=corp,example,com":         {ErrNotDN, "DC=corp"},
		"dn: DC=corp,DC=com":          {ErrNotDN, "DC=corp"},
		"ＤＣ=corp":                     {input.HasFullWidth, "DC=corp"},
		"\ufeffDC=corp,DC=com":        {input.BeginsWithMark, "DC=corp"},
		"DC%3Dcorp":                   {input.PercentEncoded, "DC=corp"},
		"profile.baseContext=DC=corp": {ErrNotDN, "DC=corp"},
	} {
		err := CheckBase(base)
		refused, is := errors.AsType[*input.ValueError](err)
		if !is || !errors.Is(err, want.cause) || !strings.Contains(refused.Allowed, want.allowed) {
			t.Errorf("%q: %v, want %v and %s", base, err, want.cause, want.allowed)
		}
	}
}

func TestNameMistakes(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]error{
		"CN=svc,OU=Service,DC=corp":    nil,
		`CN=Kov\, Zoë,DC=corp`:         nil,
		`CN="Kov, Zoë",DC=corp`:        nil,
		"svc@corp.example.com":         nil,
		`CORP\svc`:                     nil,
		"CN=Kov, Zoë,DC=corp":          {CommaNotEscaped},
		"CN=svc,DC=corp.example.com":   {DomainInComponent},
		`CORP\\svc`:                    {DoubleBackslash},
		"CORP/svc":                     {SlashForBackslash},
		"svc":                          {NoAccountForm},
		"svc@corp.example.com\r":       {input.EndsWithReturn},
		`"CN=svc,DC=corp"`:             {input.InQuotes},
		"CN=svc,DC=corp # the service": {input.HasComment},
		"":                             nil,
	} {
		if got := AccountMistakes(name); !slices.Equal(got, want) {
			t.Errorf("account %q: %v, want %v", name, got, want)
		}
	}
	for base, want := range map[string][]error{
		"DC=corp,DC=example":  nil,
		"DC=corp.example.com": {DomainInComponent},
		"DC=corp DC=example":  {DomainInComponent},
		"DC=corp,DC=example ": {input.EndsWithSpace},
		"OU=a.b c,DC=corp":    nil,
	} {
		if got := BaseMistakes(base); !slices.Equal(got, want) {
			t.Errorf("base %q: %v, want %v", base, got, want)
		}
	}
}
