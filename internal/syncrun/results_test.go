package syncrun

import (
	"slices"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/state"
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

// TestExpectIndexed checks that the list of the objects that a full sync sees does not grow, also after a
// restart of the search.
func TestExpectIndexed(t *testing.T) {
	t.Parallel()
	const objects = 1000
	store, err := state.Options{}.OpenReadOnly(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := &comparer{runInfo: runInfo{options: RunOptions{Progress: &Progress{}}}, store: store, budget: &objectBudget{limit: 2 * objects}, plan: Plan{TrackSeen: true}, snapshot: Snapshot{IndexSize: objects}}
	c.expectIndexed()
	first := c.result.seen[:1]
	for range 2 {
		for n := range objects {
			if _, err := c.count(ad.GUID{byte(n), byte(n >> 8)}); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.result.seen) != objects || &c.result.seen[0] != &first[0] {
			t.Errorf("%d objects in a list that has grown", len(c.result.seen))
		}
		if err := c.reset(); err != nil {
			t.Fatal(err)
		}
	}
}
