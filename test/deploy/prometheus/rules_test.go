// Package prometheus tests the alert rules under deploy/prometheus with promtool, and scrapes a daemon with
// Prometheus.
//
// The tests install the Debian package prometheus with apt-get, as root, and fail without it.
// Run them with `make test-deploy`.
package prometheus

import (
	"os/exec"
	"testing"

	"adconnector/test/debian"
)

// TestRules checks the syntax of the rules and runs their unit tests.
func TestRules(t *testing.T) {
	if err := debian.Install([]string{"promtool"}, "prometheus"); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = "../../../deploy/prometheus"
		output, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, output)
		}
		t.Logf("%s", output)
	}
}
