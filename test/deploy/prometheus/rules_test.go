// Package prometheus has promtool run the tests of the alert rules.
package prometheus

import (
	"os/exec"
	"testing"

	"adconnector/test/debian"
)

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
