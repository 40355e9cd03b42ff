package directory

import (
	"cmp"
	"context"
	"strings"

	"adconnector/internal/ad"
)

// AccountName returns the name of the account that is bound, in a form that administrative tools
// accept: DOMAIN\name or name@domain. If the account was bound by another form of name, and its
// entry is not found or unreadable, AccountName returns that name.
func (s *Session) AccountName(ctx context.Context) string {
	bound := s.options.BindDN
	if !strings.Contains(bound, "=") && strings.ContainsAny(bound, `\@`) {
		return bound
	}
	dn, err := s.BindDN(ctx)
	if err != nil {
		return bound
	}
	values, err := s.Read(ctx, dn, ad.AttributePrincipal, attributeAccount)
	if err != nil {
		return bound
	}
	return cmp.Or(s.RootDSE.AccountName(values), bound)
}

const attributeAccount = "sAMAccountName"

// AccountName returns the name of an account of the domain from its attributes, as commands accept it,
// or "".
func (r RootDSE) AccountName(values Attributes) string {
	if name := values.First(ad.AttributePrincipal); len(name) > 0 {
		return string(name)
	}
	if name := values.First(attributeAccount); len(name) > 0 { // implicit user principal name, which every account has
		return string(name) + "@" + r.DomainName()
	}
	return ""
}

// DomainName returns the DNS name of the default naming context: corp.example.com for
// DC=corp,DC=example,DC=com.
func (r RootDSE) DomainName() string {
	var labels []string
	for part := range strings.SplitSeq(r.DefaultNamingContext, ",") {
		if _, label, ok := strings.Cut(strings.TrimSpace(part), "="); ok {
			labels = append(labels, label)
		}
	}
	return strings.Join(labels, ".")
}
