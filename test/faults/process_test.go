package faults

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"adconnector/internal/syncrun"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

// command describes a connector process.
type command struct {
	settings testenv.Settings
	args     []string
	wrapper  []string // command line prefix, such as a shell that sets limits
	onLine   func(*program.Process, testlog.Line)
}

// start starts a connector with an env file of the settings. When the test ends, its output
// is searched for secrets.
func start(t *testing.T, c command) *program.Process {
	t.Helper()
	var p *program.Process
	t.Cleanup(func() { // runs after the process has ended
		if p != nil {
			secretScan.check(t, "output of the connector", p.Stdout()+p.Stderr())
			secretScan.check(t, "log of the connector", fmt.Sprint(p.Log.Lines()))
		}
	})
	p = program.Start(t, program.Command{
		Args: append(slices.Clone(c.args), "--env-file", program.EnvFile(t, c.settings)), Wrapper: c.wrapper, OnLine: c.onLine,
	})
	return p
}

// run runs a connector to its end.
func run(t *testing.T, settings testenv.Settings, args ...string) program.Outcome {
	t.Helper()
	return start(t, command{settings: settings, args: args}).Wait(t)
}

// finished matches the log line of a run's end with this result.
func finished(result string) func(testlog.Line) bool {
	return func(l testlog.Line) bool {
		return l.Text("message") == syncrun.MsgRunFinished && l.Text("result") == result
	}
}

// enteredState matches the log line of the change to a state.
func enteredState(state string) func(testlog.Line) bool { return testlog.Field("to", state) }

// mustReport fails the test unless the log has exactly one error with a remedy, and its error
// and remedy together contain all names: settings, addresses, statuses and causes.
func mustReport(t *testing.T, o program.Outcome, names ...string) {
	t.Helper()
	var found []testlog.Line
	for _, l := range o.Log {
		if l.Text("level") == "error" {
			found = append(found, l)
		}
	}
	if len(found) != 1 || found[0].Text("remedy") == "" {
		t.Fatalf("want one error with a remedy:\n%s", o.Stderr)
	}
	text := found[0].Text("error") + " " + found[0].Text("remedy")
	if slices.ContainsFunc(names, func(name string) bool { return !strings.Contains(text, name) }) {
		t.Errorf("%q missing in %v", names, found[0])
	}
}
