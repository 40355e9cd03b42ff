package state

import (
	"reflect"
	"testing"
	"time"
)

// TestUnreadable checks which unreadable objects are recorded: a delta sync reads only changed
// objects, so that fewer of them in a delta sync prove nothing.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	start := time.Unix(1_800_000_000, 0).UTC()
	for n, step := range []struct {
		name    string
		run     Run
		objects int
	}{
		{"no run with unreadable objects", Run{Mode: "full"}, 0},
		{"delta sync", Run{Mode: "delta", Unreadable: 2}, 2},
		{"full sync", Run{Mode: "full", Unreadable: 7}, 7},
		{"delta sync without", Run{Mode: "delta"}, 7},
		{"delta sync with fewer", Run{Mode: "delta", Unreadable: 3}, 7},
		{"failed full sync", Run{Mode: "full", Error: "connection reset"}, 7},
		{"delta sync with more", Run{Mode: "delta", Unreadable: 8}, 8},
		{"full sync with fewer", Run{Mode: "full", Unreadable: 1}, 1},
		{"full sync without", Run{Mode: "full"}, 0},
	} {
		step.run.Start = start.Add(time.Duration(n) * time.Minute)
		step.run.MissingRights, step.run.RightsRemedy = []string{step.name}, "grant it"
		must(t, s.RecordRun(step.run, Connector{}))
		got := result(s.Unreadable())(t)
		want := Unreadable{}
		if step.objects > 0 {
			want = got
			want.Objects, want.Remedy = step.objects, "grant it"
		}
		if step.objects > 0 && step.run.Unreadable == step.objects {
			want.Attributes, want.At = step.run.MissingRights, step.run.Start
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", step.name, got, want)
		}
	}
	must(t, s.RecordRun(Run{Mode: "full", Unreadable: 1}, Connector{}))
	must(t, s.ChangeTarget("other"))
	if got := result(s.Unreadable())(t); got.Objects != 0 {
		t.Errorf("%+v after a change of the target", got)
	}
}
