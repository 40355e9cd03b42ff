package directory

import (
	"context"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"adconnector/internal/ad"
	"adconnector/internal/fault"
)

// FilterUnreadable finds, on a domain controller, the objects of which the account can list the DN
// only. Every object has the class top, and in a filter, an attribute that the account cannot read
// does not exist (MS-ADTS 3.1.1.3.1.3.1).
const FilterUnreadable = "(!(objectClass=top))"

// systemContainers have no users and groups. A plain user of a new domain cannot read all of the
// objects in them.
var systemContainers = []string{"System", "NTDS Quotas", "LostAndFound", "Program Data", "Infrastructure", "Keys", "TPM Devices"}

// accountContainers are the containers of a new domain in which accounts are created by default.
var accountContainers = []string{"Users", "Computers", "Managed Service Accounts"}

// IsSystem reports whether an object belongs to a system container of the domain.
func (r RootDSE) IsSystem(dn string) bool {
	return slices.ContainsFunc(systemContainers, func(name string) bool {
		in, _ := InScope(dn, "CN="+name+","+r.DefaultNamingContext, Subtree)
		return in
	})
}

// IsAccountContainer reports whether an object is a container of users and groups, by its DN. Its
// class may be unreadable.
func (r RootDSE) IsAccountContainer(dn string) bool {
	if IsUnit(dn) {
		return !r.IsSystem(dn)
	}
	return slices.ContainsFunc(accountContainers, func(name string) bool {
		in, _ := InScope(dn, "CN="+name+","+r.DefaultNamingContext, Base)
		return in
	})
}

// AdminSDHolder returns the DN of AdminSDHolder in a domain. Its security descriptor is copied to the
// objects that it protects (MS-ADTS 3.1.1.6.1.1).
func AdminSDHolder(domain string) string { return "CN=AdminSDHolder,CN=System," + domain }

// IsUnit reports whether a DN is that of an organizational unit.
func IsUnit(dn string) bool {
	const prefix = "OU="
	return len(dn) > len(prefix) && strings.EqualFold(dn[:len(prefix)], prefix)
}

// NormalizeDN returns a form of a DN that is the same for all DNs that InScope considers equal. It
// returns an invalid DN in lower case.
func NormalizeDN(dn string) string {
	parsed, err := ldap.ParseDN(dn)
	if err != nil {
		return strings.ToLower(dn)
	}
	for _, rdn := range parsed.RDNs { // before String, which escapes what is not ASCII
		for _, a := range rdn.Attributes {
			a.Type, a.Value = strings.ToLower(a.Type), strings.ToLower(a.Value)
		}
	}
	return parsed.String()
}

// UnlistedContainers returns the containers of users and groups whose security descriptor does not
// allow the account to list their contents: at most limit of them, and whether there are more. It
// finds those that the account can read, also if their objects are visible because each of them allows
// it (dSHeuristics, fDoListObject). It finds none if the server returns no descriptors, or not the SIDs
// of the session.
func (s *Session) UnlistedContainers(ctx context.Context, base string, scope Scope, limit int) (dns []string, more bool, err error) {
	if !s.RootDSE.Descriptors {
		return nil, false, nil
	}
	token, err := s.Token(ctx)
	if err != nil || len(token) == 0 {
		return nil, false, err
	}
	names := ""
	for _, name := range accountContainers {
		names += "(cn=" + name + ")"
	}
	query := Search{
		Base: base, Scope: scope, Filter: "(|(objectClass=organizationalUnit)(&(objectClass=container)(|" + names + ")))",
		Attributes: []string{ad.AttributeDescriptor}, Descriptors: true,
	}
	var descriptor ad.Descriptor
	_, err = s.Search(ctx, query, func(entry *ad.Entry) error {
		dn := string(entry.DN)
		switch {
		case !descriptor.Parse(entry.First(0)) || descriptor.Allows(token, ad.RightListContents) || !s.RootDSE.IsAccountContainer(dn):
		case len(dns) == limit:
			more = true // the search goes on: a session cannot be used after one that was stopped
		default:
			dns = append(dns, dn)
		}
		return nil
	})
	if fault.ClassOf(err) == fault.Refused { // a proxy can refuse the control
		return nil, false, nil
	}
	return dns, more, err
}

// EmptyContainers returns those of the containers in which the account sees no object: they are empty,
// or the account may not list their contents. With an error, it returns those found before.
func (s *Session) EmptyContainers(ctx context.Context, containers []string) (empty []string, err error) {
	for _, dn := range containers {
		visible, err := s.Exists(ctx, Search{Base: dn, Scope: OneLevel, Filter: "(objectClass=*)"})
		if err != nil && fault.ClassOf(err) != fault.Refused { // refused: it may not list them
			return empty, err
		}
		if !visible {
			empty = append(empty, dn)
		}
	}
	return empty, nil
}
