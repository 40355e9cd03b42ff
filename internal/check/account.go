package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/state"
)

// bindAccount is the account that binds, read from the directory.
type bindAccount struct {
	dn      string // empty: not found
	name    string // for dsacls: DOMAIN\name, name@domain or the bind DN
	sid     ad.SID
	primary ad.RID    // of its primary group
	expires time.Time // its password; zero: never
	tokens  []ad.SID
}

// adminGroups maps the RIDs of administrative groups to their names (MS-DTYP 2.4.2.4).
var adminGroups = map[ad.RID]string{512: "Domain Admins", 518: "Schema Admins", 519: "Enterprise Admins"}

const builtinAdministrators = "S-1-5-32-544"

func (p *preflight) account(ctx context.Context) Check {
	if p.session == nil {
		return skipped("not bound")
	}
	p.bound.name = p.directory.BindDN
	if !p.session.RootDSE.IsDomainController() {
		return ok("not checked: the server is not a domain controller")
	}
	if err := p.readBindAccount(ctx); err != nil {
		return warn("groups and password expiry are not readable: "+asTransient(ctx, err).Error(), "make sure that the account is a plain user of this domain")
	}
	groups, err := p.findAdminGroups(ctx)
	if err != nil {
		return warn("groups are not readable: "+asTransient(ctx, err).Error(), "make sure that the account is a plain user of this domain")
	}
	if len(groups) > 0 {
		return warn(fmt.Sprintf("%s is a member of %s: its password gives control of the domain", p.bound.name, strings.Join(groups, ", ")),
			"use a plain domain user, whose rights are sufficient")
	}
	remedy := "set a new password in the directory and in " + p.setting("ldap.password", "the connection") + ", or let it never expire"
	found := fmt.Sprintf("the password of %s expires in %s, on %s", p.bound.name, distance(p.bound.expires.Sub(p.now())), day(p.bound.expires))
	switch urgency := state.UrgencyOf(p.bound.expires, p.now()); {
	case p.bound.expires.IsZero():
		return ok("%s, not an administrator", p.bound.name)
	case urgency == state.ExpiryWarning:
		return warn(found, remedy)
	case urgency == state.ExpiryNotice:
		return ok("%s; not an administrator", found)
	default:
		return ok("%s, not an administrator; its password expires on %s", p.bound.name, day(p.bound.expires))
	}
}

// readBindAccount reads the entry of the account that binds.
func (p *preflight) readBindAccount(ctx context.Context) error {
	dn, err := p.session.BindDN(ctx)
	if err != nil {
		return err
	}
	found, err := p.session.Read(ctx, dn, "objectSid", "primaryGroupID", "userAccountControl", "sAMAccountName", ad.AttributePrincipal, directory.AttributePasswordExpiry, "pwdLastSet", ad.AttributeTokenGroups)
	if err != nil {
		return err
	}
	p.bound.dn = dn
	if name := p.session.RootDSE.AccountName(found); name != "" {
		p.bound.name = name
	}
	p.bound.sid, _ = ad.ParseSID(found.First("objectSid"))
	p.bound.primary, _ = ad.ParseRID(found.First("primaryGroupID"))
	for _, raw := range found[ad.AttributeTokenGroups] {
		if sid, ok := ad.ParseSID(raw); ok {
			p.bound.tokens = append(p.bound.tokens, sid)
		}
	}
	p.bound.expires, err = p.session.PasswordExpiryOf(ctx, found)
	return err
}

// findAdminGroups returns the names of the administrative groups of the account: direct
// groups, nested groups, and its primary group, which the attribute member does not contain.
func (p *preflight) findAdminGroups(ctx context.Context) ([]string, error) {
	sids := p.bound.tokens
	if len(sids) == 0 { // the server does not compute tokenGroups, or not for this account
		var err error
		if sids, err = p.searchGroups(ctx); err != nil {
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
	_, rid, ok := sid.Split()
	if !ok || !strings.HasPrefix(sid.String(), domain) {
		return ""
	}
	return adminGroups[rid]
}

// searchGroups searches for the groups of the account and of its primary group.
func (p *preflight) searchGroups(ctx context.Context) ([]ad.SID, error) {
	var sids []ad.SID
	primary := ""
	search := func(filter string, visit func(*ad.Entry)) error {
		query := directory.Search{Base: p.session.RootDSE.DefaultNamingContext, Scope: directory.Subtree,
			Filter: "(&(objectClass=group)" + filter + ")", Attributes: []string{"objectSid"}}
		_, err := p.session.Search(ctx, query, func(entry *ad.Entry) error {
			if sid, ok := ad.ParseSID(entry.First(0)); ok && adminName(sid) != "" { // others do not matter
				sids = append(sids, slices.Clone(sid))
			}
			if visit != nil {
				visit(entry)
			}
			return nil
		})
		return err
	}
	domain, _, ok := p.bound.sid.Split()
	if err := search(directory.FilterByMember(p.bound.dn), nil); err != nil || !ok || p.bound.primary == 0 {
		return sids, err
	}
	primarySID := ad.JoinSID(domain, p.bound.primary)
	if err := search(directory.FilterByValue("objectSid", string(primarySID)), func(entry *ad.Entry) { primary = string(entry.DN) }); err != nil || primary == "" {
		return sids, err
	}
	return sids, search(directory.FilterByMember(primary), nil)
}
