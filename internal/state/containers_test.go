package state

import (
	"reflect"
	"testing"

	"adconnector/internal/ad"
)

// TestContainers checks that a run without containers keeps the recorded ones, and that another target
// has none.
func TestContainers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := openStore(t, dir)
	plain := Containers{List: []Container{{ad.GUID{1}, 5}}, InheritedAt: testStart}
	some := Containers{List: []Container{{ad.GUID{1}, 5}, {ad.GUID{2}, 0}}, Incomplete: true}
	inherited := Containers{List: []Container{{ad.GUID{2}, 1 << 63}}, InheritedAt: testStart, Incomplete: true}
	for i, step := range []struct{ put, want *Containers }{
		{nil, &Containers{}}, {&some, &some}, {nil, &some}, {&inherited, &inherited}, {&inherited, &inherited}, {&plain, &plain}, {&Containers{}, &Containers{}}, {&some, &some},
	} {
		if err := store.Advance(Progress{Containers: step.put}); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Containers(); err != nil || !reflect.DeepEqual(got, *step.want) {
			t.Errorf("%d: recorded %+v, error %v, want %+v", i, got, err, *step.want)
		}
	}
	if err := store.ChangeTarget("other"); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Containers(); err != nil || got.List != nil {
		t.Errorf("recorded %+v, error %v", got, err)
	}
}
