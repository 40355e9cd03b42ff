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

// runner is the connector in this process, for tests that need short deadlines or read
// its state.
type runner struct {
	*syncrun.Runner
	t   *testing.T
	log *testlog.Log // searched for secrets when the test ends
}

// unsynced opens state files that need not outlive a power cut.
var unsynced = state.Options{NoSync: true}

// newRunner returns a connector on an open state file that reads from the given servers.
// patience is its deadline to connect and for each answer.
func (s *environment) newRunner(t *testing.T, store *state.Store, patience time.Duration, protocol directory.Protocol, hosts ...string) *runner {
	t.Helper()
	r := &runner{t: t, log: &testlog.Log{}}
	log := zerolog.New(r.log)
	t.Cleanup(func() {
		searched.in(t, "a log", fmt.Sprint(r.log.Lines()))
		for _, line := range r.log.Lines() {
			if err := testlog.CheckContent(line); err != nil {
				t.Errorf("log line %v: %v", line, err)
			}
		}
	})
	options := s.Directory.Options(protocol)
	options.Hosts, options.Port, options.ConnectTimeout, options.ResponseTimeout = hosts, s.relay.port, patience, patience
	r.Runner = syncrun.New(syncrun.Options{
		Gateway: gateway.New(s.Gateway.ClientOptions(log)), Store: store, Target: "here",
		Source: &syncrun.Source{Base: s.Base(), Scope: directory.Subtree, Directory: options},
		Search: syncrun.Search{PageSize: 100},
		Upload: upload.Options{Workers: 4, BatchSize: 50, BatchBytes: 1 << 20},
		Guard:  syncrun.Guard{MaxDeletes: 500, MaxDeletesPercent: 10}, FullInterval: 24 * time.Hour, Conclude: 5 * time.Second, Log: log,
	})
	return r
}

// do does one run and searches its error for secrets.
func (r *runner) do(mode syncrun.Mode) (state.Run, error) {
	r.t.Helper()
	run, err := r.Run(r.t.Context(), mode)
	if err != nil {
		searched.in(r.t, "an error", err.Error())
	}
	return run, err
}
