// Package debian installs the Debian packages that tests and the benchmark need, with apt-get.
// Installing requires root.
//
// Only one process installs at a time. An error names the packages to install. The package
// does not check versions and uninstalls nothing.
package debian

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Install installs the packages if a program is missing. A program is a name in PATH or an
// absolute path of a file.
func Install(programs []string, packages ...string) error {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "adconnector-test-apt.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // releases the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	missing := Missing(programs...)
	if len(missing) == 0 {
		return nil
	}
	remedy := "install them with: apt-get install " + strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("missing: %s; %s", strings.Join(missing, ", "), remedy)
	}
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("missing: %s; %s: %w: %s", strings.Join(missing, ", "), remedy, err, output)
		}
	}
	if missing = Missing(programs...); len(missing) > 0 {
		return fmt.Errorf("still missing after apt-get install: %s; %s", strings.Join(missing, ", "), remedy)
	}
	return nil
}

// Missing returns the programs that are not installed.
func Missing(programs ...string) []string {
	addServerPath()
	return slices.DeleteFunc(slices.Clone(programs), func(program string) bool {
		if filepath.IsAbs(program) {
			_, err := os.Stat(program)
			return err == nil
		}
		_, err := exec.LookPath(program)
		return err == nil
	})
}

// addServerPath adds the directories of servers to PATH, which the PATH of many users lacks.
var addServerPath = sync.OnceFunc(func() { _ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") })
