package state

import (
	"fmt"
	"reflect"
	"testing"
)

// TestHiddenContainers checks what is recorded, the limit of the lists, that nothing is written
// without a change, and that a change of the target deletes the record.
func TestHiddenContainers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	many := make([]string, maxHiddenContainers+1)
	for i := range many {
		many[i] = fmt.Sprintf("%04d", i)
	}
	for _, step := range []struct {
		name      string
		set, want HiddenContainers
		written   bool
	}{
		{"none", HiddenContainers{}, HiddenContainers{}, false},
		{"seen", HiddenContainers{Seen: []string{"a", "b"}}, HiddenContainers{Seen: []string{"a", "b"}}, true},
		{"the same", HiddenContainers{Seen: []string{"a", "b"}}, HiddenContainers{Seen: []string{"a", "b"}}, false},
		{"accepted", HiddenContainers{Seen: []string{"a", "b"}, Accepted: []string{"a"}}, HiddenContainers{Seen: []string{"a", "b"}, Accepted: []string{"a"}}, true},
		{"too many", HiddenContainers{many, many}, HiddenContainers{many[:maxHiddenContainers], many[:maxHiddenContainers]}, true},
		{"none any more", HiddenContainers{Seen: []string{}}, HiddenContainers{}, true},
		{"before the change of the target", HiddenContainers{Accepted: []string{"a"}}, HiddenContainers{Accepted: []string{"a"}}, true},
	} {
		before := transactions(t, s)
		must(t, s.SetHiddenContainers(step.set))
		if written := transactions(t, s) > before; written != step.written {
			t.Errorf("%s: written %t", step.name, written)
		}
		s = reopen(t, s, dir)
		if got := result(s.HiddenContainers())(t); !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
	must(t, s.ChangeTarget("another"))
	if got := result(s.HiddenContainers())(t); !reflect.DeepEqual(got, HiddenContainers{}) {
		t.Errorf("after a change of the target: %+v", got)
	}
}
