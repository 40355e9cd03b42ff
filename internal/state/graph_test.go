package state

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
)

// graphOf returns a text of the stored graph and the stale objects.
func graphOf(t *testing.T, s *Store) string {
	t.Helper()
	text := ""
	part := func(name string) func(uint32, []byte) error {
		return func(n uint32, value []byte) error { text += fmt.Sprintf("%s%d=%s ", name, n, value); return nil }
	}
	source, found, err := s.ReadGraph(part("o"), part("g"))
	if err != nil {
		t.Fatal(err)
	}
	stale, all, err := s.StaleObjects()
	if err != nil {
		t.Fatal(err)
	}
	for _, guid := range stale {
		text += fmt.Sprintf("!%d ", guid[0])
	}
	return fmt.Sprintf("%t %s %s%t", found, source.Base, text, all)
}

// TestGraphWhileReplaced checks that a graph counts as missing while it is replaced: a process that is
// killed then leaves a part of it.
func TestGraphWhileReplaced(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	found := func() bool {
		ignore := func(uint32, []byte) error { return nil }
		_, found, err := s.ReadGraph(ignore, ignore)
		must(t, err)
		return found
	}
	records := func() iter.Seq[membership.Record] {
		return func(yield func(membership.Record) bool) {
			for node := range uint32(3) {
				if found() {
					t.Errorf("the graph is not missing before record %d", node)
				}
				if !yield(membership.Record{Node: node, Value: make([]byte, graphChunk)}) {
					return
				}
			}
		}
	}
	for range 2 { // a new one, and in place of another one
		must(t, s.UpdateGraph(GraphChange{Replace: true, Objects: records(), Groups: records()}))
		if !found() {
			t.Error("the graph is missing")
		}
	}
}

func TestGraph(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := unsynced.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	step := func(want string, changes ...func() error) {
		t.Helper()
		for _, change := range changes {
			if err := change(); err != nil {
				t.Fatal(err)
			}
		}
		if got := graphOf(t, s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	change := func(c GraphChange) func() error { return func() error { return s.UpdateGraph(c) } }
	record := func(n uint32, value string) membership.Record {
		if value == "" {
			return membership.Record{Node: n}
		}
		return membership.Record{Node: n, Value: []byte(value)}
	}
	source := GraphSource{Base: "DC=a", InvocationID: ad.InvocationID{1}}
	step("false  false")
	step("true DC=a o1=x o256=y g2=z !7 false", change(GraphChange{Source: source,
		Objects: slices.Values([]membership.Record{record(256, "y"), record(1, "x")}), Groups: slices.Values([]membership.Record{record(2, "z")}), Stale: []ad.GUID{{7}}}))
	step("true DC=a o256=w g2=z !7 !8 true", change(GraphChange{Source: source,
		Objects: slices.Values([]membership.Record{record(1, ""), record(256, "w")}), Stale: []ad.GUID{{8}}, AllStale: true}))
	// Objects stay stale until ClearStale.
	step("true DC=a o256=w g2=z !7 !8 true", change(GraphChange{Source: source}), func() error { return s.Advance(Progress{}) },
		s.Close, func() error { s, err = unsynced.Open(dir); return err })
	t.Cleanup(func() { s.Close() })
	step("true DC=a o256=w g2=z false", func() error { return s.Advance(Progress{ClearStale: true}) })
	step("true DC=b o1=n false", change(GraphChange{Source: GraphSource{Base: "DC=b"}, Replace: true, Objects: slices.Values([]membership.Record{record(1, "n")})}))
	bad := errors.New("bad")
	if _, _, err := s.ReadGraph(func(uint32, []byte) error { return bad }, nil); !errors.Is(err, bad) {
		t.Errorf("error %v", err)
	}
	step("false  false", func() error { return s.ChangeTarget("other") })
	step("true DC=c o1=n g2=z !7 false", change(GraphChange{Source: GraphSource{Base: "DC=c"},
		Objects: slices.Values([]membership.Record{record(1, "n")}), Groups: slices.Values([]membership.Record{record(2, "z")}), Stale: []ad.GUID{{7}}}))
	step("false  false", func() error { return s.Advance(Progress{DropGraph: true}) }, func() error { return s.Advance(Progress{DropGraph: true}) })
	step("true DC=c o3=m false", change(GraphChange{Source: GraphSource{Base: "DC=c"}, Objects: slices.Values([]membership.Record{record(3, "m")})}))
}

func TestIndexed(t *testing.T) {
	t.Parallel()
	s, err := unsynced.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	j, err := s.OpenJournal(testView, testStart)
	if err != nil {
		t.Fatal(err)
	}
	var objects []identity.Object
	for n := range byte(5) {
		objects = append(objects, identity.Object{GUID: ad.GUID{n}, Kind: identity.Kind(n), SID: ad.SID("\x01\x01\x00\x00\x00\x00\x00\x05\x0b\x00\x00\x00"), Name: "x"})
	}
	if err := j.MarkInFlight([]Batch{{Objects: objects}}); err != nil {
		t.Fatal(err)
	}
	indexed, err := s.Indexed([]ad.GUID{{9}, {3}, {1}})
	if err != nil || !slices.Equal(indexed, []ad.GUID{{3}, {1}}) {
		t.Errorf("%v, %v", indexed, err)
	}
}

// TestGraphOfOlderFile checks that a file without the graph buckets can be read.
func TestGraphOfOlderFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, s.update("delete buckets", func(c change) error {
		for _, name := range optionalBuckets {
			if err := c.DeleteBucket(name); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Close())
	readOnly := openReadOnly(t, dir)
	if got := graphOf(t, readOnly); got != "false  false" {
		t.Error(got)
	}
	must(t, readOnly.Close())
	if got := graphOf(t, openStore(t, dir)); got != "false  false" {
		t.Error(got)
	}
}
