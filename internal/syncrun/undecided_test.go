package syncrun

import (
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"adconnector/internal/ad"
	"adconnector/internal/identity"
	"adconnector/internal/state"
	"adconnector/test/testlog"
)

// undecidedUsers returns n users.
func undecidedUsers(n int) []identity.Object {
	users := make([]identity.Object, n)
	for i := range users {
		users[i] = identity.Object{GUID: ad.GUID{15: byte(i)}, Kind: identity.User, SID: ad.SID{1, 1, 0, 0, 0, 0, 0, 5, byte(i), 0, 0, 0}, Name: "user"}
	}
	return users
}

// undecidedGroups returns two groups with objects, and one without.
func undecidedGroups() []undecidedGroup {
	all := undecidedUsers(maxLoggedObjects + 10)
	return []undecidedGroup{
		{"lag", "wait", all[:maxLoggedObjects-5]},
		{"scope", "run a full sync", nil},
		{"rights", "grant access", all[maxLoggedObjects-5:]},
	}
}

// TestLogUndecided checks the warning of each group, and how many objects are logged.
func TestLogUndecided(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	groups := undecidedGroups()
	logUndecided(zerolog.New(log), nil, groups)
	warnings := log.With(MsgDeletionsUndecided)
	if len(warnings) != 2 {
		t.Fatalf("%d warnings, want one for each group with objects", len(warnings))
	}
	for i, group := range []undecidedGroup{groups[0], groups[2]} {
		if l := warnings[i]; l.Text("level") != "warn" || l.Number("undecided") != len(group.Objects) ||
			l.Text("reason") != string(group.Reason) || l.Text("remedy") != group.Remedy {
			t.Errorf("%v of %s", l, group.Reason)
		}
	}
	logged := log.With(MsgDeletionUndecided)
	if len(logged) != maxLoggedObjects {
		t.Fatalf("%d objects, want %d", len(logged), maxLoggedObjects)
	}
	for i, object := range undecidedUsers(maxLoggedObjects) {
		reason := "lag"
		if i >= len(groups[0].Objects) {
			reason = "rights"
		}
		if l := logged[i]; l.Text("kind") != object.Kind.String() || l.Text("guid") != object.GUID.String() || l.Text("reason") != reason {
			t.Errorf("object %d: %v", i, l)
		}
	}
	for _, l := range log.Lines() {
		if err := testlog.CheckContent(l); err != nil {
			t.Errorf("%v: %v", l, err)
		}
	}
}

// TestShowUndecided checks that a dry run shows all objects and logs none.
func TestShowUndecided(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	var shown []state.Undecided
	show := func(object identity.Object, reason state.UndecidedReason) {
		shown = append(shown, state.Undecided{GUID: object.GUID, Reason: reason})
	}
	logUndecided(zerolog.New(log), show, undecidedGroups())
	var want []state.Undecided
	for _, group := range undecidedGroups() {
		for _, object := range group.Objects {
			want = append(want, state.Undecided{GUID: object.GUID, Reason: group.Reason})
		}
	}
	if !slices.Equal(shown, want) || len(shown) != maxLoggedObjects+10 {
		t.Errorf("shown %v, want %v", shown, want)
	}
	if warnings, logged := log.With(MsgDeletionsUndecided), log.With(MsgDeletionUndecided); len(warnings) != 2 || len(logged) != 0 {
		t.Errorf("%d warnings, %d objects logged", len(warnings), len(logged))
	}
}

// TestUndecidedInSummary checks the last line of a run with undecided deletions or unreadable
// objects.
func TestUndecidedInSummary(t *testing.T) {
	t.Parallel()
	log := &testlog.Log{}
	(&Runner{}).logEnd(runInfo{log: zerolog.New(log)}, state.Run{Unreadable: 2}, nil)
	if l := log.Lines()[0]; l.Number("unreadable") != 2 || l.Text("level") != "warn" {
		t.Errorf("%v", l)
	}
	for undecided, level := range map[int]string{0: "info", 3: "warn"} {
		log := &testlog.Log{}
		(&Runner{}).logEnd(runInfo{log: zerolog.New(log)}, state.Run{Undecided: undecided}, nil)
		l := log.Lines()[0]
		if n, ok := l["undecided"]; !ok || n != float64(undecided) || l.Text("level") != level {
			t.Errorf("%d undecided: %v", undecided, l)
		}
	}
}
