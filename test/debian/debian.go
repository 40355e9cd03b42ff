// Package debian has on the machine what tests and the bench run beside the connector,
// and installs it with apt-get where it is missing and the user is root.
//
// It guarantees that one process at a time installs, and that where something cannot
// be had the error says what to install. It does not look at versions, and takes
// nothing away again.
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

// Install makes sure that programs are there, and files by their whole path, if need be
// by installing packages.
func Install(programs []string, packages ...string) error {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "adconnector-test-apt.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and unlocks
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

// Missing are those programs and files that are not there.
func Missing(programs ...string) []string {
	toServers()
	return slices.DeleteFunc(slices.Clone(programs), func(program string) bool {
		if filepath.IsAbs(program) {
			_, err := os.Stat(program)
			return err == nil
		}
		_, err := exec.LookPath(program)
		return err == nil
	})
}

// toServers adds where servers lie to this process's PATH: not every user's leads there.
var toServers = sync.OnceFunc(func() { _ = os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") })
