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

// longLists are attributes of accounts with any number of values, in the order in which uncertainOfUser
// gets their slots. A server returns at most 1,500 of the values (MS-ADTS 2.2.20).
const longLists = "altSecurityIdentities, msDS-AllowedToDelegateTo, msDS-KeyCredentialLink, servicePrincipalName, sIDHistory"

// uncertainOfUser also lists facts, which may depend on memberships that the graph lacks, and what is
// derived from values of which the server has returned only some. Otherwise, who can add so many values
// could hide one. The slots are those of the security descriptor and of longLists.
func uncertainOfUser(dst []byte, src *source, slots []int) []byte {
	hidden, u := src.hidesDescriptor(slots[0]), src.uncertainMembers()
	if !hidden && !src.factsUnknown && u == (membership.Uncertain{}) && len(src.entry.Partial) == 0 {
		return dst
	}
	incomplete := func(slot int) bool { return slices.Contains(src.entry.Partial, slot) }
	return uncertainTargets{
		{incomplete(slots[2]), []string{"allowedToDelegateTo"}}, {incomplete(slots[1]), []string{"alternateIdentities"}}, {hidden, []string{"controlledBy"}},
		{src.factsUnknown, []string{"facts"}}, {u.Groups, []string{"groups"}}, {incomplete(slots[3]), []string{"keyCredentials"}},
		{u.Privileges, []string{"privilegedGroups", "privilegedPaths"}}, {incomplete(slots[4]), []string{"servicePrincipalNames"}}, {incomplete(slots[5]), []string{"sidHistory"}},
	}.append(dst)
}

func uncertainOfGroup(dst []byte, src *source, slots []int) []byte {
	u := src.uncertainMembers()
	return uncertainTargets{
		{src.hidesDescriptor(slots[0]), []string{"controlledBy"}}, {u.Members, []string{"empty"}}, {u.Nesting, []string{"inCycle"}}, {u.Groups, []string{"memberOf"}},
		{u.Members, []string{"members", "membersWithoutSid"}}, {u.Nesting, []string{"nestingDepth"}}, {u.Privileges, []string{"privilegedGroups", "privilegedPaths"}},
	}.append(dst)
}

func uncertainOfRole(dst []byte, src *source, slots []int) []byte {
	uncertain := src.roleMembers.Uncertain && !src.partial
	return uncertainTargets{{src.hidesDescriptor(slots[0]), []string{"controlledBy"}}, {uncertain, []string{"foreignMembers", "members", "membersWithoutSid", "nestedGroups"}}}.append(dst)
}
