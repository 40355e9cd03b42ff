package identity

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"adconnector/internal/ad"
	"adconnector/internal/membership"
)

// control returns control characters: six bytes each in JSON.
func control(size int) string { return strings.Repeat("\x01", size) }

// largeGroup returns the graph of one group with members.
func largeGroup(members int) *membership.Graph {
	g := membership.New()
	guid, _ := ad.ParseGUID([]byte(guidBytes))
	group := g.SetGroup(guid, ad.SID(sidBytes), true, 0)
	for n := range members {
		var member ad.GUID
		binary.BigEndian.PutUint32(member[:], uint32(n+1))
		g.AddMember(group, member, ofDomainSID(ad.RID(2000+n)))
	}
	g.Compute()
	return g
}

// TestTooLarge checks that the encoder stops when an asset is too large, in little memory,
// that the result has the object's identifiers, and that its fingerprint is stable.
func TestTooLarge(t *testing.T) {
	values := func(count int) (list []string) {
		for n := range count {
			list = append(list, fmt.Sprintf("HTTP/%06d%s", n, control(50)))
		}
		return list
	}
	for _, test := range []struct {
		name   string
		mapper *Mapper
		attrs  attributes
		change attributes
		graph  *membership.Graph
	}{
		{"control characters", NewMapper(User), attributes{"mail": {control(5 << 20)}}, attributes{"mail": {control(5<<20 + 1)}}, nil},
		{"several values", NewMapper(User), attributes{"mail": {control(1 << 20)}, "l": {control(1 << 20)}, "st": {control(1 << 20)}},
			attributes{"mail": {control(1 << 20)}, "l": {control(1 << 20)}, "st": {control(2 << 20)}}, nil},
		{"invalid UTF-8", NewMapper(User), attributes{"mail": {strings.Repeat("\xff", 8<<20)}}, attributes{"mail": {strings.Repeat("\xfe", 8<<20)}}, nil},
		{"plain text", NewMapper(User), attributes{"mail": {strings.Repeat("x", MaxAssetBytes)}}, attributes{"mail": {strings.Repeat("y", MaxAssetBytes)}}, nil},
		{"name", NewMapper(User), attributes{"name": {control(2 << 20)}}, attributes{"name": {control(2<<20 + 1)}}, nil},
		{"many values", NewPostureMapper(User), attributes{"servicePrincipalName": values(60_000)}, attributes{"servicePrincipalName": values(60_001)}, membership.New()},
		{"many members", NewPostureMapper(Group), nil, attributes{"adminCount": {"1"}}, largeGroup(400_000)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.graph != nil {
				test.graph.Compute()
				test.mapper.UseGraph(test.graph)
			}
			e := entry(t, test.mapper, test.attrs)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			asset, err := test.mapper.Map(nil, e, now, Logons{})
			runtime.ReadMemStats(&after)
			switch {
			case err != nil:
				t.Fatal(err)
			case !asset.TooLarge || len(asset.JSON) > 0:
				t.Fatalf("TooLarge is %t, %d bytes", asset.TooLarge, len(asset.JSON))
			case !bytes.Equal(asset.GUID[:], []byte(guidBytes)) || !bytes.Equal(asset.SID, []byte(sidBytes)) || len(asset.Name) > maxStoredName:
				t.Errorf("identifiers %s %s, name of %d bytes", asset.GUID, asset.SID, len(asset.Name))
			case asset.Fingerprint == Fingerprint{}:
				t.Error("no fingerprint")
			}
			const limit = 8 * MaxAssetBytes // the buffer grows by a quarter at a time
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > limit {
				t.Errorf("%d MiB allocated", allocated>>20)
			}
			if again, _ := test.mapper.Map(nil, entry(t, test.mapper, test.attrs), now, Logons{}); again.Fingerprint != asset.Fingerprint {
				t.Error("equal entries have different fingerprints")
			}
			if changed, _ := test.mapper.Map(nil, entry(t, test.mapper, test.change), now, Logons{}); changed.Fingerprint == asset.Fingerprint || !changed.TooLarge {
				t.Error("a change does not change the fingerprint")
			}
			if test.mapper.kind == User {
				active, _ := test.mapper.Map(nil, entry(t, test.mapper, with(test.attrs, attributes{"lastLogon": {"134398063938451234"}})), now, Logons{})
				if active.Fingerprint == asset.Fingerprint || !active.Fingerprint.SameButActivity(asset.Fingerprint) {
					t.Error("activity is not in the second half of the fingerprint")
				}
			}
			small, err := test.mapper.Map(nil, entry(t, test.mapper, nil), now, Logons{})
			if err != nil || test.mapper.kind == User && (small.TooLarge || len(small.JSON) == 0) {
				t.Errorf("the next asset is too large, too: %v", err)
			}
		})
	}
}

// TestLargestAsset checks that an asset up to the limit is complete, such as the group with
// 100,000 members.
func TestLargestAsset(t *testing.T) {
	m := NewPostureMapper(Group)
	m.UseGraph(largeGroup(100_000))
	asset, err := m.Map(nil, entry(t, m, nil), now, Logons{})
	if err != nil || asset.TooLarge || bytes.Count(asset.JSON, []byte("S-1-5-21-")) < 100_000 {
		t.Errorf("%d bytes, too large: %t, %v", len(asset.JSON), asset.TooLarge, err)
	}
	u := NewMapper(User)
	empty, _ := u.Map(nil, entry(t, u, attributes{"mail": {"x"}}), now, Logons{})
	padding := MaxAssetBytes - len(empty.JSON) + 1
	for extra, want := range map[int]bool{0: false, 1: true} {
		asset, err := u.Map(nil, entry(t, u, attributes{"mail": {strings.Repeat("x", padding+extra)}}), now, Logons{})
		if err != nil || asset.TooLarge != want || !want && len(asset.JSON) != MaxAssetBytes {
			t.Errorf("%d bytes, %d more than the limit: too large is %t, %v", len(asset.JSON), extra, asset.TooLarge, err)
		}
	}
}

// TestStoredName checks that a stored name is cut off between characters, and that the longest
// name of Active Directory is not.
func TestStoredName(t *testing.T) {
	longest := strings.Repeat("😀", 255)
	for name, want := range map[string]string{
		"Alice": "Alice", longest: longest, longest + "x": longest, "x" + longest: "x" + longest[:4*254],
		strings.Repeat("\x80", 2000): strings.Repeat("\x80", maxStoredName-utf8.UTFMax),
	} {
		if got := (Asset{Name: []byte(name)}).Object().Name; got != want {
			t.Errorf("%d bytes of %.20q, want %d", len(got), got, len(want))
		}
	}
}

// TestDomainTooLarge checks that the parts of the domain are bounded together.
func TestDomainTooLarge(t *testing.T) {
	m := NewPostureMapper(Domain)
	c := NewCollector()
	names := &Mapper{Attributes: c.Trusts.Attributes}
	for n := range 1000 {
		c.Trusts.Add(partEntry(t, names, attributes{"trustPartner": {fmt.Sprint(n, control(10_000))}}), now)
	}
	kept := 0
	for _, item := range c.Trusts.items {
		kept += len(item)
	}
	if kept > MaxAssetBytes+100_000 {
		t.Errorf("%d bytes kept", kept)
	}
	asset, err := m.MapDomain(nil, entry(t, m, nil), c, now)
	if err != nil || !asset.TooLarge || len(asset.JSON) > 0 {
		t.Errorf("too large is %t, %d bytes, %v", asset.TooLarge, len(asset.JSON), err)
	}
}

// partEntry returns an entry without identifiers.
func partEntry(t testing.TB, m *Mapper, attrs attributes) *ad.Entry {
	t.Helper()
	e := &ad.Entry{Values: make([][][]byte, len(m.Attributes))}
	for name, values := range attrs {
		for _, v := range values {
			e.Values[m.slot(name)] = append(e.Values[m.slot(name)], []byte(v))
		}
	}
	return e
}
