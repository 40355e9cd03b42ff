package identity

import (
	"slices"

	"adconnector/internal/membership"
)

// The lists of unreadable values name targets, relative to the object that has the list. A value in
// the list may be incomplete or out of date, or is missing.

// uncertainTargets are targets that depend on the members of groups, and whether they are uncertain.
type uncertainTargets []struct {
	uncertain bool
	names     []string // sorted
}

// append appends the names of the uncertain targets.
func (t uncertainTargets) append(dst []byte) []byte {
	l := list{dst: dst}
	for _, part := range t {
		for _, name := range part.names {
			if part.uncertain && l.next() {
				l.dst = appendEnum(l.dst, name)
			}
		}
	}
	return l.end()
}

// uncertainMembers returns the uncertain facts about the object that depend on memberships. They are
// left out if the graph lacks memberships.
func (src *source) uncertainMembers() (u membership.Uncertain) {
	if src.inGraph && !src.partial {
		u = src.graph.Uncertain(src.node)
	}
	return u
}

// longLists are attributes of accounts with any number of values. A server can return only a part of
// the values in one response (MS-ADTS 3.1.1.3.1.3.3).
const longLists = "altSecurityIdentities, msDS-AllowedToDelegateTo, msDS-KeyCredentialLink, servicePrincipalName, sIDHistory"

// uncertainOfUser also lists facts, which may depend on memberships that the graph lacks, and the targets
// of incomplete longLists. Otherwise, an attacker who adds enough values to a list could hide one. The
// first slot is that of the security descriptor.
func uncertainOfUser(dst []byte, src *source, slots []int) []byte {
	unreadable, u := src.lacksDescriptor(slots[0]), src.uncertainMembers()
	if !unreadable && !src.factsUnknown && u == (membership.Uncertain{}) && len(src.entry.Partial) == 0 {
		return dst
	}
	incomplete := func(attribute string) bool {
		return slices.ContainsFunc(src.entry.Partial, func(slot int) bool { return src.attributes[slot] == attribute })
	}
	return uncertainTargets{
		{incomplete("msDS-AllowedToDelegateTo"), []string{"allowedToDelegateTo"}}, {incomplete("altSecurityIdentities"), []string{"alternateIdentities"}}, {unreadable, []string{"controlledBy"}},
		{src.factsUnknown, []string{"facts"}}, {u.Groups, []string{"groups"}}, {incomplete("msDS-KeyCredentialLink"), []string{"keyCredentials"}},
		{u.Privileges, []string{"privilegedGroups", "privilegedPaths"}}, {incomplete("servicePrincipalName"), []string{"servicePrincipalNames"}}, {incomplete("sIDHistory"), []string{"sidHistory"}},
	}.append(dst)
}

func uncertainOfGroup(dst []byte, src *source, slots []int) []byte {
	u := src.uncertainMembers()
	return uncertainTargets{
		{src.lacksDescriptor(slots[0]), []string{"controlledBy"}}, {u.Members, []string{"empty"}}, {u.Nesting, []string{"inCycle"}}, {u.Groups, []string{"memberOf"}},
		{u.Members, []string{"members", "membersWithoutSid"}}, {u.Nesting, []string{"nestingDepth"}}, {u.Privileges, []string{"privilegedGroups", "privilegedPaths"}},
	}.append(dst)
}

func uncertainOfRole(dst []byte, src *source, slots []int) []byte {
	uncertain := src.roleMembers.Uncertain && !src.partial
	return uncertainTargets{{src.lacksDescriptor(slots[0]), []string{"controlledBy"}}, {uncertain, []string{"foreignMembers", "members", "membersWithoutSid", "nestedGroups"}}}.append(dst)
}
