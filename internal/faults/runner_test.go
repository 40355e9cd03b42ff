package faults

import (
	"bytes"
	"context"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"adconnector/internal/directory"
	"adconnector/internal/gateway"
	"adconnector/internal/secret"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/internal/upload"
)

// runner is the connector in this process, where a test needs what no setting says:
// deadlines that are short, and a look into its state.
type runner struct {
	*syncrun.Runner
	t   *testing.T
	log *journal
}

// journal is a log that is searched for secrets in the end.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// runnerOn makes a connector on an open state file that reads from the given servers,
// which it waits for so long.
func (s *site) runnerOn(t *testing.T, store *state.Store, patience time.Duration, protocol directory.Protocol, hosts ...string) *runner {
	t.Helper()
	base, err := url.Parse(s.server.URL)
	must(t, err)
	j := &journal{}
	log := zerolog.New(j)
	t.Cleanup(func() { searched.in(t, "a log", j.String()) })
	certificates, err := directory.ParseCertificates(s.directory.CertificatePEM())
	must(t, err)
	return &runner{t: t, log: j, Runner: syncrun.New(syncrun.Options{
		Gateway: gateway.New(gateway.Options{
			URL: base, CustomerUUID: customerUUID, ConnectionUUID: connectionUUID, ProfileUUID: profileUUID,
			Login: gateway.Login{Username: s.options.Username, Password: secret.New(s.options.Password)}, Version: "test", Connections: 4, Log: log,
		}),
		Store: store, Target: "here",
		Source: &syncrun.Source{Base: s.directory.Base(), Scope: directory.Subtree, Directory: directory.Options{
			Protocol: protocol, Hosts: hosts, Port: s.relay.port, BindDN: s.directory.BindDN(), Password: secret.New(s.password), Certificates: certificates,
			ConnectTimeout: patience, ResponseTimeout: patience,
		}},
		Search: syncrun.Search{PageSize: 100},
		Upload: upload.Options{Workers: 4, BatchSize: 50, BatchBytes: 1 << 20},
		Guard:  syncrun.Guard{MaxDeletes: 500, MaxDeletesPercent: 10}, FullInterval: 24 * time.Hour, Conclude: 5 * time.Second, Log: log,
	})}
}

// do does one run, bounded, and searches what it says for secrets.
func (r *runner) do(mode syncrun.Mode) (state.Run, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), syncWithin)
	defer cancel()
	run, err := r.Run(ctx, mode)
	if err != nil {
		searched.in(r.t, "an error", err.Error())
	}
	return run, err
}
