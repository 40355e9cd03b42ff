package state

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/membership"
)

// graphOf is what the store says of the graph.
func graphOf(t *testing.T, s *Store) string {
	t.Helper()
	text := ""
	part := func(name string) func(uint32, []byte) error {
		return func(n uint32, value []byte) error { text += fmt.Sprintf("%s%d=%s ", name, n, value); return nil }
	}
	source, there, err := s.ReadGraph(part("o"), part("g"))
	if err != nil {
		t.Fatal(err)
	}
	again, all, err := s.StaleObjects()
	if err != nil {
		t.Fatal(err)
	}
	for _, guid := range again {
		text += fmt.Sprintf("!%d ", guid[0])
	}
	return fmt.Sprintf("%t %s %s%t", there, source.Base, text, all)
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
		Objects: []membership.Record{record(256, "y"), record(1, "x")}, Groups: []membership.Record{record(2, "z")}, Stale: []ad.GUID{{7}}}))
	step("true DC=a o256=w g2=z !7 !8 true", change(GraphChange{Source: source,
		Objects: []membership.Record{record(1, ""), record(256, "w")}, Stale: []ad.GUID{{8}}, AllStale: true}))
	// Debts stay until a run says that they are paid, whatever else is recorded.
	step("true DC=a o256=w g2=z !7 !8 true", change(GraphChange{Source: source}), func() error { return s.Advance(Progress{}) },
		s.Close, func() error { s, err = unsynced.Open(dir); return err })
	t.Cleanup(func() { s.Close() })
	step("true DC=a o256=w g2=z false", func() error { return s.Advance(Progress{ClearStale: true}) })
	step("true DC=b o1=n false", change(GraphChange{Source: GraphSource{Base: "DC=b"}, Replace: true, Objects: []membership.Record{record(1, "n")}}))
	bad := errors.New("bad")
	if _, _, err := s.ReadGraph(func(uint32, []byte) error { return bad }, nil); !errors.Is(err, bad) {
		t.Errorf("error %v", err)
	}
	step("false  false", func() error { return s.ChangeTarget("elsewhere") })
}

func TestIndexedAndOfKinds(t *testing.T) {
	t.Parallel()
	s, err := unsynced.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d, err := s.OpenJournal(reader, began)
	if err != nil {
		t.Fatal(err)
	}
	var objects []identity.Object
	for n := range byte(5) {
		objects = append(objects, identity.Object{GUID: ad.GUID{n}, Kind: identity.Kind(n), SID: ad.SID("\x01\x01\x00\x00\x00\x00\x00\x05\x0b\x00\x00\x00"), Name: "x"})
	}
	if err := d.MarkInFlight([]Batch{{Objects: objects}}); err != nil {
		t.Fatal(err)
	}
	known, err := s.Indexed([]ad.GUID{{9}, {3}, {1}})
	if err != nil || !slices.Equal(known, []ad.GUID{{3}, {1}}) {
		t.Errorf("%v, %v", known, err)
	}
	found, err := s.ObjectsOfKinds(2, 4)
	if err != nil || len(found) != 2 || found[0].Kind != 2 || found[1].Kind != 4 {
		t.Errorf("%v, %v", found, err)
	}
}

// TestGraphOfAnOlderFile: a file in which nothing of the kind was ever kept can be
// looked at.
func TestGraphOfAnOlderFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	must(t, s.update("make older", func(c change) error {
		for _, name := range graphBuckets {
			if err := c.DeleteBucket(name); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Close())
	look := openReadOnly(t, dir)
	if got := graphOf(t, look); got != "false  false" {
		t.Error(got)
	}
	must(t, look.Close())
	if got := graphOf(t, openStore(t, dir)); got != "false  false" {
		t.Error(got)
	}
}
