package syncrun

import (
	"testing"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// TestUnreadableGUID checks that an entry with an unreadable objectGUID is not deleted and does not
// prevent the deletion of others.
func TestUnreadableGUID(t *testing.T) {
	t.Parallel()
	for name, attributes := range map[string][]string{"objectGUID": {"objectGUID"}, "objectGUID, objectSid": {"objectGUID", "objectSid"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newDomainEnv(t, domaincontroller.Options{}, 10)
			group := e.addGroup("team")
			e.addGroup("other")
			e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 12})
			e.hide(e.user(0), attributes...)
			e.hide(group, attributes...)
			e.must(e.Delete(e.user(1)))
			if run := e.runPartial(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1}, 2, name); run.Skipped != 2 {
				t.Errorf("%d skipped", run.Skipped)
			}
			e.expectUndecided("", 0)
			lines := e.log.With(MsgEntriesIdentified)
			if len(lines) != 2 || lines[0].Number("objects") != 1 || lines[1].Number("objects") != 1 {
				t.Errorf("log %v", lines)
			}
			e.must(e.Delete(e.user(0)))
			e.runPartial(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1}, 1, name)
			e.hide(group)
			e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Processed})
			e.expectConverged()
		})
	}
}

// TestUnreadableGUIDWithPosture checks that the searches of security posture, which request extended
// DNs anyway, need no further one.
func TestUnreadableGUIDWithPosture(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{}, 10)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10 + postureObjects})
	e.hide(e.user(0), "objectGUID")
	e.must(e.Delete(e.user(1)))
	e.runPartial(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1}, 1, "objectGUID")
	if lines := e.log.With(MsgEntriesIdentified); len(lines) != 0 {
		t.Errorf("log %v", lines)
	}
}

// TestUnreadableGUIDWithoutExtendedDN checks that deletions by absence are undecided on a server that
// does not offer extended DNs.
func TestUnreadableGUIDWithoutExtendedDN(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	e.replaceInRequests("supportedControl", "supportedXontrol")
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	e.hide(e.user(0), "objectGUID")
	e.must(e.Delete(e.user(1)))
	e.must(e.Delete(e.user(2)))
	run := e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Undecided: 2})
	e.expectUndecided(UndecidedUnreadableGUID, 2)
	if run.Unreadable != 1 {
		t.Errorf("%d unreadable", run.Unreadable)
	}
}

// TestReleaseInDoubt checks that a release sends the held deletions that have a tombstone although
// absence proves nothing.
func TestReleaseInDoubt(t *testing.T) {
	t.Parallel()
	e := newGuardEnv(t, domaincontroller.Options{ReadsDeleted: true}, Guard{MaxDeletes: 2, MaxDeletesPercent: 100})
	e.replaceInRequests("supportedControl", "supportedXontrol")
	e.deleteUsers(3)
	e.run(RunOptions{Full: true}, state.Run{Mode: full, Result: Held, Held: 3})
	e.hide(e.user(9), "objectGUID")
	e.runPartial(RunOptions{AllowDeletes: true}, state.Run{Mode: full, Deleted: 3}, 1, "objectGUID")
}

// TestUnreadableGUIDNotInFilters checks that the entries are found on a server that evaluates the
// presence of objectGUID without regard to rights, as Samba does.
func TestUnreadableGUIDNotInFilters(t *testing.T) {
	t.Parallel()
	e := newDomainEnv(t, domaincontroller.Options{}, 10)
	const not = "\xa2\x0c\x87\x0a" // (!(ATTRIBUTE=*)), with 10 characters
	e.replaceInRequests(not+"objectGUID", not+"uSNCreated")
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 10})
	e.hide(e.user(0), "objectGUID")
	e.must(e.Delete(e.user(1)))
	e.runPartial(RunOptions{Full: true}, state.Run{Mode: full, Deleted: 1}, 1, "objectGUID")
	if lines := e.log.With(MsgEntriesIdentified); len(lines) != 1 || lines[0].Number("objects") != 1 {
		t.Errorf("log %v", lines)
	}
}
