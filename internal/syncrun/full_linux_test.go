package syncrun

import (
	"syscall"
	"testing"

	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/test/fakeldap"
)

// What the gateway took and the full disk could not record is sent again.
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
	e := newCannedIn(t, dir, state.Options{})
	e.ldap.Users = fakeldap.Users(2500)
	run, err := e.failedRun(Mode{})
	if fault.ClassOf(err) != fault.Transient {
		t.Fatalf("error %v", err)
	}
	if indexed, held := len(e.indexed()), len(e.inventory()); indexed != run.Uploaded || indexed > held {
		t.Errorf("%d recorded, %d counted, %d at the gateway", indexed, run.Uploaded, held)
	}
	states := e.gateway.States()
	if last := states[len(states)-1]; last.State != stateScheduled || last.Error == nil {
		t.Errorf("last state %+v", last)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	e.start()
	e.run(Mode{}, state.Run{Mode: full, Result: Processed, Uploaded: 2500 - run.Uploaded})
}
