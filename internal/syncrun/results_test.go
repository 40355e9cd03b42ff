package syncrun

import (
	"slices"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/identity"
	"adconnector/internal/sandbox/domaincontroller"
)

// TestSeenGUIDs checks the lists of the objects that were seen. The largest list is sorted in place,
// because a full sync has no room for a copy of it.
func TestSeenGUIDs(t *testing.T) {
	t.Parallel()
	guid := func(n byte) ad.GUID { return ad.GUID{n} }
	for _, c := range []struct {
		name string
		seen [][]ad.GUID
		want []ad.GUID
	}{
		{"no search", nil, nil},
		{"no object", [][]ad.GUID{nil, {}}, nil},
		{"one search", [][]ad.GUID{{guid(3), guid(1), guid(2)}}, []ad.GUID{guid(1), guid(2), guid(3)}},
		{"largest search last", [][]ad.GUID{{guid(9)}, {guid(2)}, {guid(8), guid(1), guid(5)}}, []ad.GUID{guid(1), guid(2), guid(5), guid(8), guid(9)}},
		{"objects of several searches", [][]ad.GUID{{guid(1), guid(2)}, {guid(2)}, {guid(1)}}, []ad.GUID{guid(1), guid(1), guid(2), guid(2)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			result := readResult{seen: c.seen}
			lists := result.seenGUIDs()
			all := slices.Concat(lists...)
			slices.SortFunc(all, compareGUIDs)
			if !slices.Equal(all, c.want) || len(lists) > 2 {
				t.Errorf("lists %v, want %v", lists, c.want)
			}
			for _, list := range lists {
				if !slices.IsSortedFunc(list, compareGUIDs) {
					t.Errorf("list %v is not sorted", list)
				}
			}
			for n := range byte(10) {
				if got := lists.contain(guid(n)); got != slices.Contains(c.want, guid(n)) {
					t.Errorf("object %d: %t", n, got)
				}
			}
			if len(c.want) > 0 && !slices.ContainsFunc(c.seen, func(list []ad.GUID) bool { return len(list) > 0 && &list[0] == &lists[0][0] }) {
				t.Error("the largest list was copied")
			}
		})
	}
}

// TestRoomForSeen checks that the list of the users that a full sync sees has room for the objects of the
// index, and does not grow: neither in the first search nor after a restart.
func TestRoomForSeen(t *testing.T) {
	t.Parallel()
	const objects = 10
	e := newDomainEnv(t, domaincontroller.Options{}, objects)
	opened, err := directory.Connect(t.Context(), e.Directory.Options(directory.LDAP))
	e.must(err)
	defer opened.Close()
	s := &session{Session: opened, idleLimit: 1 << 40}
	input := reading{Source{Base: e.base, Scope: directory.Subtree}, s, Snapshot{SameTarget: true, IndexSize: objects}, Plan{Mode: full, TrackSeen: true}}
	reader := e.runner.newReader(e.runner.newRunInfo(RunOptions{}), input, memberships{}, logonSources{})
	result, err := reader.read(t.Context(), s, reader.queries[0], "", sink{add: func(identity.Asset) error { return nil }})
	e.must(err)
	if len(result.seen) != objects || cap(result.seen) != objects {
		t.Errorf("%d objects in a list for %d, want %d", len(result.seen), cap(result.seen), objects)
	}
	c := reader.newComparer(identity.User)
	c.expectIndexed()
	c.trackSeen(ad.GUID{1})
	e.must(c.reset())
	if len(c.result.seen) != 0 || cap(c.result.seen) != objects {
		t.Errorf("after a restart: %d objects in a list for %d", len(c.result.seen), cap(c.result.seen))
	}
}
