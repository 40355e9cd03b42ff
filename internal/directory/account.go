package directory

import (
	"context"
	"strings"
)

// AccountName returns the name of the account that is bound, in a form that administrative tools
// accept: DOMAIN\name or name@domain. If only the DN of the account is known and its entry is
// unreadable, AccountName returns the DN.
func (s *Session) AccountName(ctx context.Context) string {
	bound := s.options.BindDN
	if !strings.Contains(bound, "=") {
		return bound
	}
	const principal, account = "msDS-PrincipalName", "sAMAccountName"
	values, err := s.Read(ctx, bound, principal, account)
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
