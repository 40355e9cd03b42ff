package directory

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
)

// AttributePasswordExpiry is the time at which the password of an account expires, as the domain
// controller computes it (MS-ADTS 3.1.1.4.5.36).
const AttributePasswordExpiry = "msDS-UserPasswordExpiryTimeComputed"

// ErrNoAccount means that the account of the bind was not found in the directory.
var ErrNoAccount = errors.New("account not found in the directory")

// BindName returns the name that the session was bound with.
func (s *Session) BindName() string { return s.options.BindDN }

// BindDN finds the DN of the account by what was bound with: its DN, its user principal name, or
// DOMAIN\name (MS-ADTS 5.1.1.1.1).
func (s *Session) BindDN(ctx context.Context) (string, error) {
	name := s.options.BindDN
	filter := ""
	_, accountName, hasDomain := strings.Cut(name, `\`)
	prefix, _, isPrincipal := strings.Cut(name, "@")
	switch {
	case strings.Contains(name, "="):
		return name, nil
	case hasDomain:
		filter = FilterByValue("sAMAccountName", accountName)
	case isPrincipal:
		filter = "(|" + FilterByValue("userPrincipalName", name) + FilterByValue("sAMAccountName", prefix) + ")"
	default:
		return "", ErrNoAccount
	}
	dn := ""
	query := Search{Base: s.RootDSE.DefaultNamingContext, Scope: Subtree, Filter: "(&(objectClass=user)" + filter + ")", Attributes: []string{"objectSid"}}
	_, err := s.Search(ctx, query, func(entry *ad.Entry) error {
		dn = string(entry.DN)
		return nil
	})
	if err == nil && dn == "" {
		err = ErrNoAccount
	}
	return dn, err
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
