package directory

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// AttributePasswordExpiry is the time at which the password of an account expires, as the domain
// controller computes it (MS-ADTS 3.1.1.4.5.36).
const AttributePasswordExpiry = "msDS-UserPasswordExpiryTimeComputed"

var (
	// ErrNoAccount means that the account of the bind was not found in the directory.
	ErrNoAccount = errors.New("account not found in the directory")
	// ErrForeignAccount means that the account of the bind belongs to another domain, or may not read
	// its own entry.
	ErrForeignAccount = errors.New("account of another domain, or not readable")
)

// BindName returns the name that the session was bound with.
func (s *Session) BindName() string { return s.options.BindDN }

// BindDN finds the DN of the account of the bind, unless that was bound by its DN. A bind accepts
// many forms of names, which can also be those of other accounts: DOMAIN\name of another domain, or
// a user principal name whose first part is another account's name (MS-ADTS 5.1.1.1.1). Therefore
// the SIDs of the session identify the account. If the server does not return them, the name does.
func (s *Session) BindDN(ctx context.Context) (string, error) {
	name := s.options.BindDN
	if strings.Contains(name, "=") {
		return name, nil
	}
	token, err := s.Token(ctx)
	if err != nil {
		return "", err
	}
	const ofDomains = "S-1-5-21-"
	token = slices.DeleteFunc(token, func(sid ad.SID) bool { return !strings.HasPrefix(sid.String(), ofDomains) })
	if len(token) > 0 {
		return s.tokenAccount(ctx, token)
	}
	return s.namedAccount(ctx, name)
}

// Token returns the SIDs of the account of the session and of its groups, also of those that every
// account is in. It returns none if the server does not return them.
func (s *Session) Token(ctx context.Context) (sids []ad.SID, err error) {
	found, err := s.Read(ctx, "", ad.AttributeTokenGroups)
	if err != nil && fault.ClassOf(err) != fault.Refused {
		return nil, err
	}
	for _, raw := range found[ad.AttributeTokenGroups] {
		if sid, ok := ad.ParseSID(raw); ok {
			sids = append(sids, sid)
		}
	}
	return sids, nil
}

// sidsPerFilter is the number of SIDs that one search asks for.
const sidsPerFilter = 100

// tokenAccount returns the DN of the account of a token. All other SIDs are those of groups. It
// returns ErrForeignAccount if the account is not in the domain.
func (s *Session) tokenAccount(ctx context.Context, sids []ad.SID) (dn string, err error) {
	for chunk := range slices.Chunk(sids, sidsPerFilter) {
		filter := ""
		for _, sid := range chunk {
			filter += FilterByValue("objectSid", string(sid))
		}
		_, err = s.searchAccounts(ctx, "(|"+filter+")", func(entry *ad.Entry) { dn = string(entry.DN) })
		if err != nil || dn != "" {
			return dn, err
		}
	}
	return "", ErrForeignAccount
}

// namedAccount returns the DN of the account with a user principal name, or of the form DOMAIN\name.
func (s *Session) namedAccount(ctx context.Context, name string) (dn string, err error) {
	_, accountName, hasDomain := strings.Cut(name, `\`)
	prefix, _, isPrincipal := strings.Cut(name, "@")
	filter := ""
	switch {
	case hasDomain:
		filter = FilterByValue("sAMAccountName", accountName)
	case isPrincipal:
		filter = "(|" + FilterByValue(attributeUPN, name) + FilterByValue("sAMAccountName", prefix) + ")"
	default:
		return "", ErrNoAccount
	}
	found, err := s.searchAccounts(ctx, filter, func(entry *ad.Entry) {
		if dn == "" || strings.EqualFold(string(entry.First(0)), name) { // explicit names precede implicit ones
			dn = string(entry.DN)
		}
	})
	if err == nil && found == 0 {
		err = ErrNoAccount
	}
	return dn, err
}

const attributeUPN = "userPrincipalName"

// searchAccounts calls visit with the attribute userPrincipalName of each account that matches a
// filter. It returns the number of accounts.
func (s *Session) searchAccounts(ctx context.Context, filter string, visit func(*ad.Entry)) (found int, err error) {
	query := Search{Base: s.RootDSE.DefaultNamingContext, Scope: Subtree, Filter: "(&(objectClass=user)" + filter + ")", Attributes: []string{attributeUPN}}
	_, err = s.Search(ctx, query, func(entry *ad.Entry) error {
		found++
		visit(entry)
		return nil
	})
	return found, err
}

// PasswordExpiry returns when the password of the account expires. The zero time means never, or
// that the account may not read it.
func (s *Session) PasswordExpiry(ctx context.Context) (time.Time, error) {
	dn, err := s.BindDN(ctx)
	if err != nil {
		return time.Time{}, err
	}
	found, err := s.Read(ctx, dn, AttributePasswordExpiry, "userAccountControl", "pwdLastSet")
	if err != nil {
		return time.Time{}, err
	}
	return s.PasswordExpiryOf(ctx, found)
}

// PasswordExpiryOf returns when the password of an account expires, by AttributePasswordExpiry or,
// on servers that do not compute it, by pwdLastSet and the domain's maximum password age. The zero
// time means never, or unknown.
func (s *Session) PasswordExpiryOf(ctx context.Context, account Attributes) (time.Time, error) {
	if control, _ := ad.ParseAccountControl(account.First("userAccountControl")); control&ad.AccountPasswordNeverExpires != 0 {
		return time.Time{}, nil
	}
	if end, ok := ad.ParseFileTime(account.First(AttributePasswordExpiry)); ok {
		if end.IsNone() {
			return time.Time{}, nil
		}
		return end.Time(), nil
	}
	set, ok := ad.ParseFileTime(account.First("pwdLastSet"))
	if !ok || set.IsNone() {
		return time.Time{}, nil
	}
	found, err := s.Read(ctx, s.RootDSE.DefaultNamingContext, "maxPwdAge")
	if err != nil {
		return time.Time{}, err
	}
	// In units of 100 ns, negative. 0 and the smallest value mean never (MS-ADA2).
	age, _ := strconv.ParseInt(string(found.First("maxPwdAge")), 10, 64) // 0 if it is not readable
	const oneCentury = -100 * 365 * 24 * int64(time.Hour/100)
	if age >= 0 || age < oneCentury {
		return time.Time{}, nil
	}
	return set.Time().Add(time.Duration(-age) * 100), nil
}
