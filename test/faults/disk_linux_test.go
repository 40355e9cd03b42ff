package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"adconnector/internal/state"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// mountTmpfs mounts a file system of this size and returns its path. It skips the test without
// root.
func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs root to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillDisk leaves so many bytes free on a disk. remove frees the rest again.
func fillDisk(t *testing.T, dir string, free int64) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	var stat syscall.Statfs_t
	must(t, syscall.Statfs(dir, &stat))
	must(t, os.WriteFile(path, make([]byte, max(0, int64(stat.Bavail)*stat.Bsize-free)), 0o600))
	return func() { must(t, os.Remove(path)) }
}

// mustMatchLog fails the test if the state file has a different result of the last run than
// the log, or a connector state that contradicts it. The state file need not have the run,
// because recording may fail.
func (e *environment) mustMatchLog(t *testing.T, o program.Outcome) {
	t.Helper()
	summary := o.Summary()
	dir := e.settings["service.state-dir"]
	if _, err := os.Stat(filepath.Join(dir, stateFile)); summary == nil || os.IsNotExist(err) {
		return
	}
	store, err := noSync.OpenReadOnly(dir)
	must(t, err)
	defer store.Close()
	runs, err := store.Runs()
	must(t, err)
	connector, err := store.Connector()
	must(t, err)
	recorded := slices.IndexFunc(runs, func(r state.Run) bool { return r.ID == summary.Text("run_id") })
	switch {
	case recorded < 0 && connector.RunID == summary.Text("run_id") && connector.State != "PROCESSING":
		t.Errorf("connector %+v of a run that is not recorded", connector)
	case recorded < 0:
	case runs[recorded].Result != summary.Text("result") || runs[recorded].Error != summary.Text("error") || runs[recorded].Remedy != summary.Text("remedy"):
		t.Errorf("recorded run %+v, log %v", runs[recorded], summary)
	case connector.State != "SCHEDULED" || connector.Error != summary.Text("error") || connector.Remedy != summary.Text("remedy"):
		t.Errorf("connector %+v, log %v", connector, summary)
	}
}

// TestDiskFull fills the disk of the state file: before the file exists, while it grows, and
// while a daemon runs. It passes if each run on the full disk fails with 1 and reports the
// cause, the daemon keeps running, and there is no false deletion. The first run with free
// space must deliver the rest.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: scaled(500, 1000), groups: 20})
	disk := mountTmpfs(t, "4m")
	e.settings = e.settings.With(testenv.Settings{"service.state-dir": filepath.Join(disk, "state"), "upload.batch-size": "20"})
	failed := 0
	for _, free := range scaled([]int64{0, 12 << 10, 40 << 10}, []int64{0, 12 << 10, 40 << 10, 100 << 10, 200 << 10}) {
		remove := fillDisk(t, disk, free)
		o := run(t, e.settings, "sync")
		o.MustExit(t, 1)
		mustReport(t, o, syscall.ENOSPC.Error(), filepath.Join(disk, "state"))
		e.mustMatchLog(t, o)
		failed++
		remove()
	}
	run(t, e.settings, "sync").MustExit(t, 0)
	e.mustMatchDirectory(t, "with free space")

	e.reinstall()
	remove := fillDisk(t, disk, scaled[int64](40<<10, 100<<10))
	p := start(t, command{settings: e.settings.With(testenv.Settings{"service.cron-expression": "* * * * * *"})})
	n := 0
	for range 2 {
		var l testlog.Line
		l, n = p.Await(t, n, finished("failed"))
		if l.Text("class") != "transient" {
			t.Errorf("failed run %v, want class transient", l)
		}
		failed++
	}
	remove()
	p.Await(t, n, finished("processed"))
	p.Signal(t, syscall.SIGTERM)
	p.MustExit(t, 0, 130)
	e.mustMatchDirectory(t, "daemon with free space")
	logResult(t, "%d runs on a full disk failed and reported it; gateway matches with free space", failed)
}

// TestFileSizeLimit limits the size of the state file with ulimit, which sends SIGXFSZ to a
// process that writes more. It passes if runs fail with 1 and report the cause, and the next
// run without the limit delivers the rest.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: scaled(500, 1000), groups: 20})
	e.settings["upload.batch-size"] = "20"
	failed := 0
	for _, blocks := range scaled([]int{4, 40}, []int{4, 40, 100}) { // of 1 KiB
		wrapper := []string{"sh", "-c", fmt.Sprintf(`ulimit -f %d; exec "$@"`, blocks*2), "sh"}
		o := start(t, command{settings: e.settings, args: []string{"sync"}, wrapper: wrapper}).Wait(t)
		o.MustExit(t, 1)
		mustReport(t, o, syscall.EFBIG.Error(), e.StateDir)
		e.mustMatchLog(t, o)
		failed++
	}
	run(t, e.settings, "sync").MustExit(t, 0)
	e.mustMatchDirectory(t, "without the limit")
	logResult(t, "%d runs with a file size limit failed and reported it; gateway matches without the limit", failed)
}

// TestReadOnlyFileSystem remounts the file system of the state file read-only, as the kernel
// does after an error: before the file exists, and after. It passes if the connector exits
// with 2 and a remedy, and the next run with write access delivers everything.
func TestReadOnlyFileSystem(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 200, groups: 20})
	disk := mountTmpfs(t, "8m")
	e.settings = e.settings.With(testenv.Settings{"service.state-dir": filepath.Join(disk, "state")})
	remount := func(flags uintptr) { t.Helper(); must(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT|flags, "")) }
	mustRefuse := func() {
		t.Helper()
		remount(syscall.MS_RDONLY)
		for _, args := range [][]string{{"sync"}, nil} {
			o := run(t, e.settings, args...)
			o.MustExit(t, 2)
			mustReport(t, o, syscall.EROFS.Error(), "service.state-dir", strconv.Itoa(os.Getuid()))
		}
		remount(0)
	}
	mustRefuse()
	run(t, e.settings, "sync").MustExit(t, 0)
	e.mutate(20)
	mustRefuse()
	run(t, e.settings, "sync").MustExit(t, 0)
	e.mustMatchDirectory(t, "with write access")
	logResult(t, "4 starts on a read-only file system exited with 2; gateway matches with write access")
}
