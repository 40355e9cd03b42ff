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

// command describes a connector to start.
type command struct {
	settings testenv.Settings
	args     []string
	wrapper  []string // words before the program, such as a shell that sets limits
	onLine   func(*program.Process, testlog.Line)
}

// start starts a connector that an env file configures. Its output is searched for secrets.
func start(t *testing.T, c command) *program.Process {
	t.Helper()
	var p *program.Process
	t.Cleanup(func() { // runs after the process has ended
		if p != nil {
			searched.in(t, "a process", p.Stdout()+p.Stderr())
			searched.in(t, "a log", fmt.Sprint(p.Log.Lines()))
		}
	})
	p = program.Start(t, program.Command{
		Args: append(slices.Clone(c.args), "--env-file", program.EnvFile(t, c.settings)), Wrapper: c.wrapper, OnLine: c.onLine,
	})
	return p
}

// run starts a connector and waits until it has ended.
func run(t *testing.T, s testenv.Settings, args ...string) program.Outcome {
	t.Helper()
	return start(t, command{settings: s, args: args}).Wait(t)
}

// finished matches the line that ends a run with this result.
func finished(result string) func(testlog.Line) bool {
	return func(l testlog.Line) bool {
		return l.Text("message") == syncrun.MsgRunFinished && l.Text("result") == result
	}
}

// entered matches the line with which the connector enters a state.
func entered(state string) func(testlog.Line) bool { return testlog.Field("to", state) }

// mustReport fails the test unless the log has one error, which has a remedy and whose error
// or remedy names all of these settings, addresses, statuses and causes.
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
