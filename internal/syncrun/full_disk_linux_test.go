package syncrun

import (
	"syscall"
	"testing"

	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// Objects that the gateway accepted but the full disk did not record are sent again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160k"); err != nil {
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	e := newLDAPEnvIn(t, dir, state.Options{})
	e.ldap.Users = fakeldap.Users(2500)
	run, err := e.failedRun(RunOptions{})
	if fault.ClassOf(err) != fault.Transient {
		t.Fatalf("error %v", err)
	}
	if indexed, delivered := len(e.indexed()), len(e.usersAtGateway()); indexed != run.Uploaded || indexed > delivered {
		t.Errorf("%d recorded, %d counted, %d at the gateway", indexed, run.Uploaded, delivered)
	}
	states := e.gateway.States()
	if last := states[len(states)-1]; last.State != stateScheduled || last.Error == nil {
		t.Errorf("last state %+v", last)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.run(RunOptions{}, state.Run{Mode: full, Result: Processed, Uploaded: 2500 - run.Uploaded})
}
