// Package debian installs the tools that tests need, with apt-get, one test at a time.
package debian

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Install makes sure that tools are there, if need be by installing packages.
func Install(tools []string, packages ...string) error {
	remedy := "install them with: apt-get install " + strings.Join(packages, " ")
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "adconnector-test-apt.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close() // and unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	if len(missing(tools)) == 0 {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing: %q; %s", missing(tools), remedy)
	}
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)} {
		cmd := exec.Command("apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("missing: %q; %s: %w: %s", missing(tools), remedy, err, output)
		}
	}
	if lacking := missing(tools); len(lacking) > 0 {
		return errors.New("still missing after apt-get install: " + strings.Join(lacking, ", "))
	}
	return nil
}

func missing(tools []string) []string {
	return slices.DeleteFunc(slices.Clone(tools), func(tool string) bool {
		_, err := exec.LookPath(tool)
		return err == nil
	})
}
