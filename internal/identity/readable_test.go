package identity

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/membership"
)

// complete are the attributes that every object has, for any kind.
var complete = attributes{
	"name": {"x"}, "whenCreated": {"20261122072306.0Z"}, "userAccountControl": {"514"}, "groupType": {"-2147483646"}, "mail": {"x@example.com"},
	"primaryGroupID": {"513"},
}

// completeFor returns the attributes of complete that the map of a kind has.
func completeFor(m *Mapper) attributes {
	attrs := attributes{}
	for name, values := range complete {
		if slices.Contains(m.Attributes, name) {
			attrs[name] = values
		}
	}
	return attrs
}

// TestMissingAttributeIsUnreadable checks which missing attributes mean that the account may not
// read an object, and that this applies to domain controllers only.
func TestMissingAttributeIsUnreadable(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind][]string{
		User:           {"name", "objectGUID", "objectSid", "userAccountControl", "whenCreated"},
		ServiceAccount: {"name", "objectGUID", "objectSid", "userAccountControl", "whenCreated"},
		Group:          {"groupType", "name", "objectGUID", "objectSid", "whenCreated"},
		Role:           {"name", "objectGUID", "objectSid"},
		Domain:         {"name", "objectGUID", "objectSid", "whenCreated"},
	} {
		for _, newMapper := range []func(Kind) *Mapper{NewMapper, NewPostureMapper} {
			if (newMapper(kind).Attributes == nil) || len(transformation[kind]) == 0 && !newMapper(kind).ExtendedDN {
				continue // exists only with posture
			}
			m := newMapper(kind)
			m.UseGraph(membership.New())
			var unreadable []string
			for _, attribute := range m.Attributes {
				m.DomainController = true
				if _, err := m.Map(nil, entry(t, m, with(completeFor(m), attributes{attribute: nil})), now, Logons{}); err != nil {
					unreadable = append(unreadable, attribute)
					isIdentifier := strings.HasPrefix(attribute, "object")
					if !errors.Is(err, ErrUnreadable) || errors.Is(err, ErrNoIdentity) != isIdentifier {
						t.Errorf("%s without %s: %v", kind, attribute, err)
					}
					m.DomainController = false
					if _, err := m.Map(nil, entry(t, m, with(completeFor(m), attributes{attribute: nil})), now, Logons{}); (err != nil) != isIdentifier || errors.Is(err, ErrUnreadable) {
						t.Errorf("%s of another server without %s: %v", kind, attribute, err)
					}
				}
			}
			want := slices.Clone(want)
			if m.ExtendedDN && (kind == User || kind == ServiceAccount) {
				want = slices.Insert(want, 3, "primaryGroupID")
			}
			if slices.Sort(unreadable); !slices.Equal(unreadable, want) {
				t.Errorf("%s: %v, want %v", kind, unreadable, want)
			}
		}
	}
}

// TestMalformedIdentifierIsReadable checks that a malformed identifier does not count as a
// missing right.
func TestMalformedIdentifierIsReadable(t *testing.T) {
	t.Parallel()
	m := NewMapper(User)
	m.DomainController = true
	if _, err := m.Map(nil, entry(t, m, with(alice, attributes{"objectSid": {"short"}})), now, Logons{}); !errors.Is(err, ErrNoIdentity) || errors.Is(err, ErrUnreadable) {
		t.Errorf("error %v", err)
	}
	if missing := m.Missing(); len(missing) != 0 {
		t.Errorf("missing %v", missing)
	}
}

// TestRequiredAttributes checks that the map of each kind contains the required attributes, and
// that a search can find them.
func TestRequiredAttributes(t *testing.T) {
	t.Parallel()
	for kind := User; kind <= Domain; kind++ {
		m := NewPostureMapper(kind)
		for _, attribute := range RequiredAttributes(kind, true) {
			if !slices.Contains(m.Attributes, attribute) && attribute != "sAMAccountType" {
				t.Errorf("%s: %s is not in the map", kind, attribute)
			}
		}
		if hasType := slices.Contains(RequiredAttributes(kind, true), "sAMAccountType"); hasType != strings.Contains(Filter[kind], "sAMAccountType") {
			t.Errorf("%s: sAMAccountType is required: %t", kind, hasType)
		}
	}
}

// TestCounts checks the counts of attributes: which are counted, from which entries, and that
// they can be reset.
func TestCounts(t *testing.T) {
	t.Parallel()
	m := NewMapper(User)
	m.DomainController = true
	for _, attrs := range []attributes{
		alice, with(alice, attributes{"mail": nil}), with(alice, attributes{"userAccountControl": nil}),
		with(alice, attributes{"userAccountControl": nil, "objectSid": nil}),
	} {
		_, _ = m.Map(nil, entry(t, m, attrs), now, Logons{})
	}
	want := map[string]int{
		"mail": 3, "givenName": 4, "sn": 4, "displayName": 4, "mobile": 4, "title": 4, "pwdLastSet": 4, "accountExpires": 4, "l": 4, "co": 4, "c": 4, "st": 4,
	}
	if got := m.Readable(); !maps.Equal(got, want) {
		t.Errorf("readable %v, want %v", got, want)
	}
	if got := m.Missing(); !maps.Equal(got, map[string]int{"userAccountControl": 2, "objectSid": 1}) {
		t.Errorf("missing %v", got)
	}
	m.ResetCounts()
	if len(m.Readable())+len(m.Missing()) != 0 {
		t.Errorf("after reset: %v, %v", m.Readable(), m.Missing())
	}
}

// TestGUIDOfRole checks that the GUID of a role is that of its asset, also if it is not mapped.
func TestGUIDOfRole(t *testing.T) {
	t.Parallel()
	m := NewPostureMapper(Role)
	m.UseGraph(membership.New())
	e := entry(t, m, attributes{"name": {"Domain Admins"}})
	asset, err := m.Map(nil, e, now, Logons{})
	if guid, ok := m.GUID(e); err != nil || !ok || guid != asset.GUID {
		t.Errorf("GUID %v, asset %v, error %v", guid, asset.GUID, err)
	}
}
