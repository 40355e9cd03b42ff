package directory

import (
	"context"
	"strings"
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
	const principal, account = "msDS-PrincipalName", "sAMAccountName"
	values, err := s.Read(ctx, dn, principal, account)
	switch {
	case err == nil && len(values.First(principal)) > 0:
		return string(values.First(principal))
	case err == nil && len(values.First(account)) > 0: // implicit user principal name, which every account has
		return string(values.First(account)) + "@" + s.RootDSE.DomainName()
	}
	return bound
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
