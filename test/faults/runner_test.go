package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/internal/upload"
	"adconnector/test/testlog"
)

// runner runs syncs in this process, for tests that need short timeouts or access to the
// state file.
type runner struct {
	*syncrun.Runner
	t   *testing.T
	log *testlog.Log // searched for secrets when the test ends
}

// noSync opens state files that need not survive a power failure.
var noSync = state.Options{NoSync: true}

// newRunner returns a runner that reads from the hosts and records in store. timeout applies
// to connecting to the directory and to each of its responses.
func (e *environment) newRunner(t *testing.T, store *state.Store, timeout time.Duration, protocol directory.Protocol, hosts ...string) *runner {
	t.Helper()
	r := &runner{t: t, log: &testlog.Log{}}
	log := zerolog.New(r.log)
	t.Cleanup(func() {
		secretScan.check(t, "log of the runner", fmt.Sprint(r.log.Lines()))
		for _, line := range r.log.Lines() {
			if err := testlog.CheckContent(line); err != nil {
				t.Errorf("log line %v: %v", line, err)
			}
		}
	})
	options := e.Directory.Options(protocol)
	options.Hosts, options.Port, options.ConnectTimeout, options.ResponseTimeout = hosts, e.relay.port, timeout, timeout
	r.Runner = syncrun.New(syncrun.Options{
		Gateway: gateway.New(e.Gateway.ClientOptions(log)), Store: store, Target: "test",
		Source: &syncrun.Source{Base: e.Base(), Scope: directory.Subtree, Directory: options},
		Search: syncrun.SearchOptions{PageSize: 100},
		Upload: upload.Options{Workers: 4, BatchSize: 50, BatchBytes: 1 << 20},
		Guard:  syncrun.Guard{MaxDeletes: 500, MaxDeletesPercent: 10}, FullInterval: 24 * time.Hour, EndTimeout: 5 * time.Second, Log: log,
	})
	return r
}

// runOnce executes one run and searches its error for secrets.
func (r *runner) runOnce(mode syncrun.RunOptions) (state.Run, error) {
	r.t.Helper()
	run, err := r.Run(r.t.Context(), mode)
	if err != nil {
		secretScan.check(r.t, "error of a run", err.Error())
	}
	return run, err
}
