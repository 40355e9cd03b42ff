//go:build ad

package samba

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestReusedRID puts the controller back to a copy of its files, so that a new user gets the SID
// of one that the copy lacks.
func TestReusedRID(t *testing.T) {
	d := sharedController(t)
	d.addDeltaOU(t, 3)
	c := newDeltaConnector(t, d, deltaOU)
	c.deliver(t, "before the snapshot", syncCounts{mode: "full"})

	dir, err := workDir()
	if err != nil {
		t.Fatal(err)
	}
	current, aside, snapshot := d.dir, filepath.Join(dir, "current"), filepath.Join(dir, "snapshot")
	whileStopped := func(change func() error) {
		t.Helper()
		if err := errors.Join(d.stop(), change(), d.start()); err != nil {
			t.Fatal(err)
		}
	}
	whileStopped(func() error {
		_, err := runTool("", "cp", "-a", current, snapshot)
		return err
	})
	before := d.sid(t, d.addUser(t, "Before 1", deltaOU, "before1"))
	d.exceedOverlap(t)
	c.deliver(t, "after the snapshot", syncCounts{mode: "delta"})

	whileStopped(func() error { return errors.Join(os.Rename(current, aside), os.Rename(snapshot, current)) })
	t.Cleanup(func() {
		whileStopped(func() error { return errors.Join(os.RemoveAll(current), os.Rename(aside, current)) })
	})
	if after := d.sid(t, d.addUser(t, "After 1", deltaOU, "after1")); after != before {
		t.Fatalf("SID %s, before %s", after, before)
	}
	c.deliver(t, "snapshot restored", syncCounts{mode: "full"})
	c.mustHaveStatus(t, "After 1", "ACTIVE")
	c.deliver(t, "next full sync", syncCounts{mode: "full"}, "--full")
	c.mustHaveStatus(t, "After 1", "ACTIVE")
}
