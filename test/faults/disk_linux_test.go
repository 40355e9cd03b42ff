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

// smallDisk is a file system of its own. It needs root.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs root to mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all but so many bytes of a disk.
func fill(t *testing.T, dir string, free int64) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	var disk syscall.Statfs_t
	must(t, syscall.Statfs(dir, &disk))
	must(t, os.WriteFile(path, make([]byte, max(0, int64(disk.Bavail)*disk.Bsize-free)), 0o600))
	return func() { must(t, os.Remove(path)) }
}

// mustAgree fails the test where the state file has another result of a run than the log, or
// a state that does not follow from it. A run that could not be recorded is not in the file.
func (s *environment) mustAgree(t *testing.T, o program.Outcome) {
	t.Helper()
	summary := o.Summary()
	dir := s.settings["service.state-dir"]
	if _, err := os.Stat(filepath.Join(dir, stateFile)); summary == nil || os.IsNotExist(err) {
		return
	}
	store, err := unsynced.OpenReadOnly(dir)
	must(t, err)
	defer store.Close()
	runs, err := store.Runs()
	must(t, err)
	now, err := store.Connector()
	must(t, err)
	recorded := slices.IndexFunc(runs, func(r state.Run) bool { return r.ID == summary.Text("run_id") })
	switch {
	case recorded < 0 && now.RunID == summary.Text("run_id") && now.State != "PROCESSING":
		t.Errorf("state %+v of a run that is not recorded", now)
	case recorded < 0:
	case runs[recorded].Result != summary.Text("result") || runs[recorded].Error != summary.Text("error") || runs[recorded].Remedy != summary.Text("remedy"):
		t.Errorf("run %+v is logged as %v", runs[recorded], summary)
	case now.State != "SCHEDULED" || now.Error != summary.Text("error") || now.Remedy != summary.Text("remedy"):
		t.Errorf("state %+v after %v", now, summary)
	}
}

// TestDiskFull fills the disk under the state file: before it is made, while it grows,
// under a daemon. It passes when each run on it fails with
// 1 and says so, the daemon lives on, nothing is falsely deleted, and when the first
// run with space again delivers the rest and the gateway holds what the directory does.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: scaled(500, 1000), groups: 20})
	disk := smallDisk(t, "4m")
	s.settings = s.settings.With(testenv.Settings{"service.state-dir": filepath.Join(disk, "state"), "upload.batch-size": "20"})
	full := 0
	for _, free := range scaled([]int64{0, 12 << 10, 40 << 10}, []int64{0, 12 << 10, 40 << 10, 100 << 10, 200 << 10}) {
		remove := fill(t, disk, free)
		o := run(t, s.settings, "sync")
		o.MustExit(t, 1)
		mustReport(t, o, syscall.ENOSPC.Error(), filepath.Join(disk, "state"))
		s.mustAgree(t, o)
		full++
		remove()
	}
	run(t, s.settings, "sync").MustExit(t, 0)
	s.mustBeEqual(t, "with space again")

	s.reinstall()
	remove := fill(t, disk, scaled[int64](40<<10, 100<<10))
	p := start(t, command{settings: s.settings.With(testenv.Settings{"service.cron-expression": "* * * * * *"})})
	n := 0
	for range 2 {
		var l testlog.Line
		l, n = p.Await(t, n, finished("failed"))
		if l.Text("class") != "transient" {
			t.Errorf("%v", l)
		}
		full++
	}
	remove()
	p.Await(t, n, finished("processed"))
	p.Signal(t, syscall.SIGTERM)
	p.MustExit(t, 0, 130)
	s.mustBeEqual(t, "under the daemon")
	figures(t, "%d runs on a full disk failed and said so; all equal with space again", full)
}

// TestFileSizeLimit bounds the state file by a limit on the size of files, which
// ends a write with a signal. It passes when runs fail with 1 and say so, and when
// the next one without it delivers the rest.
func TestFileSizeLimit(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: scaled(500, 1000), groups: 20})
	s.settings["upload.batch-size"] = "20"
	full := 0
	for _, blocks := range scaled([]int{4, 40}, []int{4, 40, 100}) { // of 1 KiB
		limited := []string{"sh", "-c", fmt.Sprintf(`ulimit -f %d; exec "$@"`, blocks*2), "sh"}
		o := start(t, command{settings: s.settings, args: []string{"sync"}, wrapper: limited}).Wait(t)
		o.MustExit(t, 1)
		mustReport(t, o, syscall.EFBIG.Error(), s.StateDir)
		s.mustAgree(t, o)
		full++
	}
	run(t, s.settings, "sync").MustExit(t, 0)
	s.mustBeEqual(t, "without the limit")
	figures(t, "%d runs under a limit on the size of files failed and said so; all equal without it", full)
}

// TestReadOnlyDisk makes the disk under the state file read-only, as the kernel does
// after an error: before the file is made, and after. It passes when a start is
// refused with 2 and says what to do, and when the next run on a disk that takes
// writes again delivers everything.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: 200, groups: 20})
	disk := smallDisk(t, "8m")
	s.settings = s.settings.With(testenv.Settings{"service.state-dir": filepath.Join(disk, "state")})
	remount := func(flags uintptr) { t.Helper(); must(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT|flags, "")) }
	refused := func() {
		t.Helper()
		remount(syscall.MS_RDONLY)
		for _, args := range [][]string{{"sync"}, nil} {
			o := run(t, s.settings, args...)
			o.MustExit(t, 2)
			mustReport(t, o, syscall.EROFS.Error(), "service.state-dir", strconv.Itoa(os.Getuid()))
		}
		remount(0)
	}
	refused()
	run(t, s.settings, "sync").MustExit(t, 0)
	s.mutate(20)
	refused()
	run(t, s.settings, "sync").MustExit(t, 0)
	s.mustBeEqual(t, "on a disk that takes writes")
	figures(t, "4 starts on a read-only disk refused with 2; all equal after")
}
