package syncrun

import (
	"strings"
	"syscall"
	"testing"

	"adconnector/internal/fault"
	"adconnector/test/fakeldap"
)

// TestFullDisk: what is at the gateway and not recorded is sent again.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := newWorldIn(t, dir)
	w.ldap.Users = fakeldap.Users(5000)
	run, err := w.process().Run(t.Context(), Mode{})
	if fault.Of(err) != fault.Transient || !strings.Contains(err.Error(), "free or add space") || run.Result != Failed {
		t.Fatalf("run %+v, error %v", run, err)
	}
	if indexed, held := w.indexed(), w.held(); len(indexed) != run.Uploaded || len(indexed) > len(held) {
		t.Errorf("%d in the index, %d counted, %d at the gateway", len(indexed), run.Uploaded, len(held))
	}
	states := w.gateway.States()
	if last := states[len(states)-1]; last.State != stateScheduled || last.Error == nil {
		t.Errorf("the gateway was told %+v", last)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	w.run(w.process(), Processed, 5000-run.Uploaded)
}
