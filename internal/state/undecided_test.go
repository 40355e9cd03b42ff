package state

import (
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
)

// undecided returns the undecided deletions of the objects from up to, but excluding, to.
func undecided(reason UndecidedReason, from, to int) (deletions []Undecided) {
	for n := from; n < to; n++ {
		deletions = append(deletions, Undecided{GUID: guidOf(n), Reason: reason, Remedy: "resolve " + string(reason)})
	}
	return deletions
}

// undecidedTexts returns the last byte of the GUID, the reason, and the Unix time of all
// undecided deletions.
func undecidedTexts(t testing.TB, s *Store) (texts []string) {
	t.Helper()
	deletions, total, err := s.UndecidedDeletions(-1)
	if must(t, err); total != len(deletions) {
		t.Errorf("total %d of %d undecided deletions", total, len(deletions))
	}
	for _, d := range deletions {
		texts = append(texts, fmt.Sprint(d.GUID[15], " ", d.Reason, " ", d.Since.Unix()))
		if d.Remedy != "resolve "+string(d.Reason) {
			t.Errorf("%v: remedy %q", d.GUID, d.Remedy)
		}
	}
	return texts
}

// transactions returns the number of write transactions since the file was created.
func transactions(t testing.TB, s *Store) (id int) {
	t.Helper()
	must(t, s.db.View(func(tx *bbolt.Tx) error {
		id = tx.ID()
		return nil
	}))
	return id
}

// TestSetUndecidedDeletions checks a sequence of sets: which deletions it contains, since
// when, and that an unchanged set is not written.
func TestSetUndecidedDeletions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	lag, rights := undecided("lag", 0, 9), undecided("rights", 0, 9)
	otherRemedy := Undecided{GUID: guidOf(2), Reason: "lag", Remedy: "wait"}
	for i, step := range []struct {
		name    string
		set     []Undecided
		want    []string
		written bool
	}{
		{"none", nil, nil, false},
		{"first", []Undecided{lag[1], lag[2]}, []string{"1 lag 1", "2 lag 1"}, true},
		{"same, other order", []Undecided{lag[2], lag[1]}, []string{"1 lag 1", "2 lag 1"}, false},
		{"duplicate", []Undecided{lag[2], lag[1], rights[2]}, []string{"1 lag 1", "2 lag 1"}, false},
		{"added before, between and after", []Undecided{lag[5], lag[0], lag[1], lag[2]}, []string{"0 lag 4", "1 lag 1", "2 lag 1", "5 lag 4"}, true},
		{"one decided", []Undecided{lag[0], lag[2], lag[5]}, []string{"0 lag 4", "2 lag 1", "5 lag 4"}, true},
		{"another reason", []Undecided{lag[0], rights[2], lag[5]}, []string{"0 lag 4", "2 rights 1", "5 lag 4"}, true},
		{"replaced", []Undecided{rights[3], rights[2]}, []string{"2 rights 1", "3 rights 7"}, true},
		{"all decided", nil, nil, true},
		{"still none", nil, nil, false},
		{"decided in between", []Undecided{lag[2]}, []string{"2 lag 10"}, true},
		{"another remedy", []Undecided{otherRemedy}, nil, true},
		{"same remedy", []Undecided{otherRemedy}, nil, false},
	} {
		before := transactions(t, s)
		must(t, s.SetUndecidedDeletions(step.set, time.Unix(int64(i), 999)))
		if written := transactions(t, s) > before; written != step.written {
			t.Errorf("%s: written %t", step.name, written)
		}
		if step.want == nil && len(step.set) > 0 {
			if all, _, err := s.UndecidedDeletions(-1); err != nil || len(all) != 1 || all[0].Remedy != "wait" || all[0].Since.Unix() != 10 {
				t.Errorf("%s: %+v, error %v", step.name, all, err)
			}
		} else if got := undecidedTexts(t, s); !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
		s = reopen(t, s, dir)
	}
}

// TestUndecidedCounts checks the numbers and the earliest time of each reason.
func TestUndecidedCounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	if counts := result(s.UndecidedCounts())(t); len(counts) != 0 {
		t.Errorf("without deletions: %+v", counts)
	}
	must(t, s.SetUndecidedDeletions(undecided("rights", 3, 5), time.Unix(60, 0)))
	must(t, s.SetUndecidedDeletions(slices.Concat(undecided("lag", 0, 2), undecided("rights", 2, 6)), time.Unix(120, 0)))
	s = reopen(t, s, dir)
	want := []UndecidedCount{
		{"lag", "resolve lag", 2, time.Unix(120, 0).UTC()},
		{"rights", "resolve rights", 4, time.Unix(60, 0).UTC()},
	}
	if counts := result(s.UndecidedCounts())(t); !reflect.DeepEqual(counts, want) {
		t.Errorf("%+v, want %+v", counts, want)
	}
	must(t, send(s, objects(0, 2, 1))) // the only ones with this reason
	if counts := result(s.UndecidedCounts())(t); !reflect.DeepEqual(counts, want[1:]) {
		t.Errorf("after an acknowledgement: %+v, want %+v", counts, want[1:])
	}
}

// TestUndecidedDeletionsObject checks that an undecided deletion contains the object of the
// index, and only the GUID if there is none.
func TestUndecidedDeletionsObject(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	all := objects(0, 1, 1)
	must(t, send(s, all))
	must(t, s.SetUndecidedDeletions(undecided("lag", 0, 2), time.Unix(1, 0)))
	got, total, err := s.UndecidedDeletions(-1)
	want := []UndecidedDeletion{
		{Object: all[0], Reason: "lag", Remedy: "resolve lag", Since: time.Unix(1, 0).UTC()},
		{Object: identity.Object{GUID: guidOf(1)}, Reason: "lag", Remedy: "resolve lag", Since: time.Unix(1, 0).UTC()},
	}
	if err != nil || total != 2 || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v of %d, error %v, want %+v", got, total, err, want)
	}
}

// TestUndecidedShownBy checks that the controllers that have shown an object are recorded,
// and that a change of them alone keeps the time.
func TestUndecidedShownBy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	a, b := ad.InvocationID{0xa}, ad.InvocationID{0xb}
	for i, ids := range [][]ad.InvocationID{{b}, {b, a, b}, {a, b}, nil} {
		set := NewControllerSet(ids...)
		before := transactions(t, s)
		must(t, s.SetUndecidedDeletions([]Undecided{{GUID: guidOf(1), Reason: "lag", Remedy: "wait", ShownBy: set}}, time.Unix(int64(i), 0)))
		if written := transactions(t, s) > before; written != (i != 2) {
			t.Errorf("%v: written %t", ids, written)
		}
		s = reopen(t, s, dir)
		got, _, err := s.UndecidedDeletions(-1)
		if err != nil || len(got) != 1 || got[0].ShownBy != set || got[0].Since.Unix() != 0 {
			t.Errorf("%v: %+v, error %v", ids, got, err)
		}
	}
	if got, want := NewControllerSet(b, a, b).IDs(), []ad.InvocationID{a, b}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, text := range []string{"0", "00", "xx"} {
		var set ControllerSet
		if err := set.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

// TestUndecidedWhileCommitting checks that a batch that is committed between the comparison
// and the write does not leave a wrong set.
func TestUndecidedWhileCommitting(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	must(t, s.SetUndecidedDeletions(undecided("lag", 0, 3), time.Unix(1, 0)))
	done := make(chan error, 1)
	s.writeMu.Lock() // as another write does
	comparisons := s.db.Stats().TxN
	go func() { done <- s.SetUndecidedDeletions(undecided("lag", 0, 4), time.Unix(2, 0)) }()
	for stats := s.db.Stats(); stats.TxN == comparisons || stats.OpenTxN > 0; stats = s.db.Stats() {
		runtime.Gosched()
	}
	must(t, s.db.Update(func(tx *bbolt.Tx) error {
		c := change{tx, map[string]uint64{}, nil}
		guid := guidOf(1)
		if err := c.delete(bucketUndecided, guid[:]); err != nil {
			return err
		}
		return c.writeChecksums()
	}))
	s.writeMu.Unlock()
	must(t, <-done)
	if got, want := undecidedTexts(t, s), []string{"0 lag 1", "1 lag 2", "2 lag 1", "3 lag 2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// BenchmarkSetUndecidedDeletions measures a first, an unchanged, and an empty set.
func BenchmarkSetUndecidedDeletions(b *testing.B) {
	const size = 100_000
	s := openStore(b, b.TempDir())
	set := undecided("not shown by this domain controller", 0, size)
	empty := func() { must(b, s.SetUndecidedDeletions(nil, time.Unix(0, 0))) }
	fill := func() { must(b, s.SetUndecidedDeletions(set, time.Unix(0, 0))) }
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			empty()
			b.StartTimer()
			fill()
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		fill()
		for b.Loop() {
			fill()
		}
	})
	b.Run("counts", func(b *testing.B) {
		fill()
		for b.Loop() {
			if counts, err := s.UndecidedCounts(); err != nil || len(counts) != 1 {
				b.Fatal(counts, err)
			}
		}
	})
	b.Run("decided", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			fill()
			b.StartTimer()
			empty()
		}
	})
}
