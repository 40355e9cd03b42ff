package syncrun

import (
	"slices"
	"testing"

	"adconnector/internal/sandbox/domaincontroller"
	"adconnector/internal/state"
)

// TestCountsAddUp tests that the objects read by kind add up to those changed and uploaded in a first
// sync, that a run without changes reads only the roles and the domain, and that objects read again
// because of the overlap are counted apart, privileged ones (which are read twice) included.
func TestCountsAddUp(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 6)
	e.addGroup("team", e.user(0))
	e.must(e.Modify("CN=Backup Operators,CN=Builtin,"+e.Base(), "member", e.user(1)))
	e.must(e.Modify(e.user(1), "adminCount", "1"))
	first := e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 7 + postureObjects})
	if first.Users != 6 || first.Groups != 1 || first.Roles+first.Domains != postureObjects || first.Domains != 1 || first.Reread != 0 ||
		first.Read() != first.Changed || first.Changed != first.Uploaded {
		t.Errorf("first run %+v", first)
	}
	want := state.Run{Roles: first.Roles, Domains: 1, Reread: 7}
	expect := func(name string, want state.Run, options RunOptions) {
		t.Helper()
		before := len(e.log.With(MsgRunFinished))
		run, err := e.runner.Run(t.Context(), options)
		e.must(err)
		got := state.Run{Users: run.Users, Groups: run.Groups, ServiceAccounts: run.ServiceAccounts, Roles: run.Roles, Domains: run.Domains, Reread: run.Reread, Changed: run.Changed}
		if got.Read() != want.Read() || brief(got) != brief(want) || got.Reread != want.Reread || got.Users != want.Users || got.Changed != want.Changed {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		line := e.log.With(MsgRunFinished)[before]
		for key, n := range map[string]int{"users": got.Users, "groups": got.Groups, "service_accounts": got.ServiceAccounts, "roles": got.Roles, "domains": got.Domains, "reread": got.Reread} {
			if line.Number(key) != n {
				t.Errorf("%s: %s is %d, want %d", name, key, line.Number(key), n)
			}
		}
	}
	expect("no change", want, RunOptions{})
	e.must(e.Modify(e.user(2), "title", "Changed"))
	expect("a change", state.Run{Users: 1, Roles: first.Roles, Domains: 1, Reread: 6, Changed: 1}, RunOptions{})
	e.exceedOverlap()
	e.run(RunOptions{}, state.Run{Mode: delta, Result: Processed})
	expect("beyond the overlap", state.Run{Roles: first.Roles, Domains: 1}, RunOptions{})
	expect("full", state.Run{Users: 6, Groups: 1, Roles: first.Roles, Domains: 1}, RunOptions{Full: true})
}

// TestIdleRunLogsLittle tests that a delta sync without changes has no lines at the level info about
// what it has read.
func TestIdleRunLogsLittle(t *testing.T) {
	t.Parallel()
	e := newPostureEnv(t, domaincontroller.Options{ReadsDeleted: true}, 6)
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 6 + postureObjects})
	infos := func() (messages []string) {
		from := len(e.log.Lines())
		_, err := e.runner.Run(t.Context(), RunOptions{})
		e.must(err)
		for _, l := range e.log.Lines()[from:] {
			if l.Text("level") != "debug" && l.Text("level") != "trace" {
				messages = append(messages, l.Text("message"))
			}
		}
		return messages
	}
	idle := []string{MsgConnectorState, MsgConnectorState, MsgDirectoryConnected, MsgSyncPlanned, MsgConnectorState, MsgRunFinished}
	if got := infos(); !slices.Equal(got, idle) {
		t.Errorf("without changes: %q", got)
	}
	e.must(e.Modify(e.user(2), "title", "Changed"))
	if got := infos(); !slices.Contains(got, MsgDirectoryRead) || !slices.Contains(got, MsgBatchesAcknowledged) {
		t.Errorf("with a change: %q", got)
	}
}
