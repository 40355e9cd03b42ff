package identity

import (
	"strings"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// unreadableMembers returns the graph of people in which the members of Team are unreadable.
func unreadableMembers() *membership.Graph {
	g := people()
	team := g.SetGroup(guidNamed('T'), ofDomainSID(1200), true, 0)
	g.SetMembersUnreadable(team)
	for _, guid := range []byte{'b', 'C'} {
		g.AddMember(team, guidNamed(guid), nil)
	}
	g.Compute()
	return g
}

// TestUncertainGolden checks the assets that depend on a group whose members are unreadable: the
// group, its role, a member, and groups below and above it.
func TestUncertainGolden(t *testing.T) {
	t.Parallel()
	group := func(guid byte, attrs attributes) attributes {
		return with(attrs, attributes{"objectGUID": {strings.Repeat(string(guid), 16)}})
	}
	for name, test := range map[string]struct {
		kind  Kind
		attrs attributes
	}{
		"posture-user-in-unreadable":     {User, group('b', attributes{"objectSid": {string(ofDomainSID(1104))}, "primaryGroupID": {"512"}})},
		"posture-group-unreadable":       {Group, group('T', attributes{"objectSid": {string(ofDomainSID(1200))}})},
		"posture-group-above-unreadable": {Group, group('D', attributes{"objectSid": {string(ofDomainSID(512))}})},
		"posture-group-in-unreadable":    {Group, group('C', attributes{"objectSid": {string(ofDomainSID(1201))}})},
		"posture-role-above-unreadable":  {Role, group('A', attributes{"objectSid": {string(administrators)}, "name": {"x"}})},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := NewPostureMapper(test.kind)
			m.UseGraph(unreadableMembers())
			asset, err := m.Map(nil, entry(t, m, test.attrs), now, Logons{})
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, asset.JSON)
		})
	}
}

// TestKindOfPrincipalOutsideOfGraph checks that a principal of another domain has its kind even if
// nothing in the graph mentions it.
func TestKindOfPrincipalOutsideOfGraph(t *testing.T) {
	t.Parallel()
	foreign := ad.JoinSID([]byte{1, 5, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0}, 1234)
	m := NewPostureMapper(User)
	m.UseGraph(people())
	asset, err := m.Map(nil, entry(t, m, attributes{
		"objectGUID": {strings.Repeat("b", 16)}, "objectSid": {string(ofDomainSID(1104))},
		"sIDHistory": {string(foreign), string(ofDomainSID(9999)), string(ad.Everyone)},
	}), now, Logons{})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		`{"sid":"S-1-5-21-7-7-7-1234","kind":"FOREIGN"}`:          true,
		`{"sid":"S-1-1-0","name":"Everyone","kind":"WELL_KNOWN"}`: true,
		`{"sid":"` + ofDomainSID(9999).String():                   false, // of the domain, and unknown
	} {
		if got := strings.Contains(string(asset.JSON), text); got != want {
			t.Errorf("%s: %t in %s", text, got, asset.JSON)
		}
	}
}
