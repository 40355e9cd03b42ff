package state

import (
	"fmt"
	"reflect"
	"testing"

	"go.etcd.io/bbolt"
)

// TestUnreadableContainers checks what is recorded, the limit of the lists, that nothing is written
// without a change, and that a change of the target deletes the record.
func TestUnreadableContainers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	many := make([]string, maxUnreadableContainers+1)
	for i := range many {
		many[i] = fmt.Sprintf("%04d", i)
	}
	for _, step := range []struct {
		name      string
		set, want UnreadableContainers
		written   bool
	}{
		{"none", UnreadableContainers{}, UnreadableContainers{}, false},
		{"seen", UnreadableContainers{Seen: []string{"a", "b"}}, UnreadableContainers{Seen: []string{"a", "b"}}, true},
		{"the same", UnreadableContainers{Seen: []string{"a", "b"}}, UnreadableContainers{Seen: []string{"a", "b"}}, false},
		{"accepted", UnreadableContainers{Seen: []string{"a", "b"}, Accepted: []string{"a"}}, UnreadableContainers{Seen: []string{"a", "b"}, Accepted: []string{"a"}}, true},
		{"too many", UnreadableContainers{many, many}, UnreadableContainers{many[:maxUnreadableContainers], many[:maxUnreadableContainers]}, true},
		{"none any more", UnreadableContainers{Seen: []string{}}, UnreadableContainers{}, true},
		{"before the change of the target", UnreadableContainers{Accepted: []string{"a"}}, UnreadableContainers{Accepted: []string{"a"}}, true},
	} {
		before := transactions(t, s)
		must(t, s.SetUnreadableContainers(step.set))
		if written := transactions(t, s) > before; written != step.written {
			t.Errorf("%s: written %t", step.name, written)
		}
		s = reopen(t, s, dir)
		if got := result(s.UnreadableContainers())(t); !reflect.DeepEqual(got, step.want) {
			t.Errorf("%s: %+v, want %+v", step.name, got, step.want)
		}
	}
	must(t, s.view("", func(tx *bbolt.Tx) error { // the name in state files of other versions
		if got := string(get(tx, bucketMeta, []byte("hidden containers"))); got != `{"accepted":["a"]}` {
			t.Errorf("recorded %q", got)
		}
		return nil
	}))
	must(t, s.ChangeTarget("another"))
	if got := result(s.UnreadableContainers())(t); !reflect.DeepEqual(got, UnreadableContainers{}) {
		t.Errorf("after a change of the target: %+v", got)
	}
}
