package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
)

// self is the account that binds, as the directory has it.
type self struct {
	dn        string // "": it could not be found
	name      string // for dsacls: DOMAIN\name, name@domain, else the bind DN
	sid       ad.SID
	primary   uint32 // RID of its primary group
	expires   time.Time
	neverEnds bool // its password
	tokens    []ad.SID
}

const (
	passwordEndsSoon = 14 * 24 * time.Hour
	neverExpires     = ad.AccountControl(0x10000) // DONT_EXPIRE_PASSWORD (MS-ADTS 2.2.16)
)

// Groups whose members own the domain, by the last part of their SID (MS-DTYP 2.4.2.4).
var admins = map[uint32]string{512: "Domain Admins", 518: "Schema Admins", 519: "Enterprise Admins"}

const builtinAdministrators = "S-1-5-32-544"

var errNoAccount = errors.New("the account is not found in the directory")

func (i *inspection) account(ctx context.Context) Check {
	if i.session == nil {
		return skipped("there is no bind")
	}
	i.self.name = i.directory.BindDN
	if !i.session.RootDSE.IsDomainController() {
		return ok("not looked at: the server is no domain controller")
	}
	if err := i.readSelf(ctx); err != nil {
		return warn("its groups and its password's age cannot be read: "+deadline(ctx, err).Error(), "see to it yourself that it is a plain domain user")
	}
	groups, err := i.adminGroups(ctx)
	if err != nil {
		return warn("its groups cannot be read: "+deadline(ctx, err).Error(), "see to it yourself that it is a plain domain user")
	}
	if len(groups) > 0 {
		return warn(fmt.Sprintf("%s is a member of %s: whoever gets its password owns the domain", i.self.name, strings.Join(groups, ", ")),
			"use a plain domain user instead, which may read all that is needed")
	}
	switch left := i.self.expires.Sub(i.now()); {
	case i.self.neverEnds || i.self.expires.IsZero():
		return ok("%s, no administrator", i.self.name)
	case left < passwordEndsSoon:
		return warn(fmt.Sprintf("the password of %s expires in %s, on %s", i.self.name, days(left), day(i.self.expires)),
			"set a new one, there and in "+i.setting("ldap.password", "the connection")+", or have it never expire")
	default:
		return ok("%s, no administrator; its password is good until %s", i.self.name, day(i.self.expires))
	}
}

const (
	attributePrincipal = "msDS-PrincipalName"
	attributeExpiry    = "msDS-UserPasswordExpiryTimeComputed"
)

// readSelf reads the account's own entry.
func (i *inspection) readSelf(ctx context.Context) error {
	dn, err := i.ownName(ctx)
	if err != nil {
		return err
	}
	found, err := i.session.Read(ctx, dn, "objectSid", "primaryGroupID", "userAccountControl", "sAMAccountName", attributePrincipal, attributeExpiry, "pwdLastSet", "tokenGroups")
	if err != nil {
		return err
	}
	i.self.dn = dn
	if name := string(found.First(attributePrincipal)); name != "" {
		i.self.name = name
	} else if name := string(found.First("sAMAccountName")); name != "" {
		i.self.name = name + "@" + dnsNameOf(i.session.RootDSE.DefaultNamingContext) // every account has this name, set or not
	}
	i.self.sid, _ = ad.ParseSID(found.First("objectSid"))
	primary, _ := strconv.ParseUint(string(found.First("primaryGroupID")), 10, 32)
	i.self.primary = uint32(primary)
	for _, raw := range found["tokenGroups"] {
		if sid, ok := ad.ParseSID(raw); ok {
			i.self.tokens = append(i.self.tokens, sid)
		}
	}
	control, _ := ad.ParseAccountControl(found.First("userAccountControl"))
	i.self.neverEnds = control&neverExpires != 0
	if end, ok := ad.ParseFileTime(found.First(attributeExpiry)); ok && !end.IsNone() {
		i.self.expires = end.Time()
	} else if i.self.expires, err = i.expiryByPolicy(ctx, found.First("pwdLastSet")); err != nil {
		return err
	}
	return nil
}

// ownName finds the account by what was bound with: its DN, its user principal name,
// or DOMAIN\name (MS-ADTS 5.1.1.1.1).
func (i *inspection) ownName(ctx context.Context) (string, error) {
	name := i.directory.BindDN
	filter := ""
	_, short, isShort := strings.Cut(name, `\`)
	before, _, isPrincipal := strings.Cut(name, "@")
	switch {
	case strings.Contains(name, "="):
		return name, nil
	case isShort:
		filter = directory.FilterByValue("sAMAccountName", short)
	case isPrincipal:
		filter = "(|" + directory.FilterByValue("userPrincipalName", name) + directory.FilterByValue("sAMAccountName", before) + ")"
	default:
		return "", errNoAccount
	}
	dn := ""
	query := directory.Search{Base: i.session.RootDSE.DefaultNamingContext, Scope: directory.Subtree, Filter: "(&(objectClass=user)" + filter + ")", Attributes: []string{"objectSid"}}
	_, err := i.session.Search(ctx, query, func(entry *ad.Entry) error {
		dn = string(entry.DN)
		return nil
	})
	if err == nil && dn == "" {
		err = errNoAccount
	}
	return dn, err
}

// expiryByPolicy is for servers that do not compute it: the domain's age of passwords.
func (i *inspection) expiryByPolicy(ctx context.Context, lastSet []byte) (time.Time, error) {
	set, known := ad.ParseFileTime(lastSet)
	if !known || set.IsNone() {
		return time.Time{}, nil
	}
	found, err := i.session.Read(ctx, i.session.RootDSE.DefaultNamingContext, "maxPwdAge")
	if err != nil {
		return time.Time{}, err
	}
	// Of 100 ns, negative; 0 and the smallest value mean for ever (MS-ADA2).
	age, err := strconv.ParseInt(string(found.First("maxPwdAge")), 10, 64)
	const aCentury = -100 * 365 * 24 * int64(time.Hour/100)
	if err != nil || age >= 0 || age < aCentury {
		return time.Time{}, nil
	}
	return set.Time().Add(time.Duration(-age) * 100), nil
}

// adminGroups names the groups of administrators that the account is in, directly,
// by way of other groups, or by its primary group, which member does not show.
func (i *inspection) adminGroups(ctx context.Context) ([]string, error) {
	sids := i.self.tokens
	if len(sids) == 0 { // the server does not compute them, or not for this account
		var err error
		if sids, err = i.groupsOf(ctx); err != nil {
			return nil, err
		}
	}
	var names []string
	for _, sid := range sids {
		if name := adminName(sid); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

func adminName(sid ad.SID) string {
	if sid.String() == builtinAdministrators {
		return "Administrators"
	}
	const domain = "S-1-5-21-"
	if !strings.HasPrefix(sid.String(), domain) {
		return ""
	}
	return admins[binary.LittleEndian.Uint32(sid[len(sid)-4:])]
}

// groupsOf walks up from the account and from its primary group.
func (i *inspection) groupsOf(ctx context.Context) ([]ad.SID, error) {
	var sids []ad.SID
	primary := ""
	read := func(filter string, each func(*ad.Entry)) error {
		query := directory.Search{Base: i.session.RootDSE.DefaultNamingContext, Scope: directory.Subtree,
			Filter: "(&(objectClass=group)" + filter + ")", Attributes: []string{"objectSid"}}
		_, err := i.session.Search(ctx, query, func(entry *ad.Entry) error {
			if sid, ok := ad.ParseSID(entry.First(0)); ok {
				sids = append(sids, append(ad.SID(nil), sid...))
			}
			if each != nil {
				each(entry)
			}
			return nil
		})
		return err
	}
	if err := read(directory.FilterByMember(i.self.dn), nil); err != nil || len(i.self.sid) < 4 || i.self.primary == 0 {
		return sids, err
	}
	group := append(ad.SID(nil), i.self.sid...)
	binary.LittleEndian.PutUint32(group[len(group)-4:], i.self.primary)
	if err := read(directory.FilterByValue("objectSid", string(group)), func(entry *ad.Entry) { primary = string(entry.DN) }); err != nil || primary == "" {
		return sids, err
	}
	return sids, read(directory.FilterByMember(primary), nil)
}

// dnsNameOf makes corp.example.com of DC=corp,DC=example,DC=com.
func dnsNameOf(dn string) string {
	var labels []string
	for part := range strings.SplitSeq(dn, ",") {
		if _, label, is := strings.Cut(strings.TrimSpace(part), "="); is {
			labels = append(labels, label)
		}
	}
	return strings.Join(labels, ".")
}
