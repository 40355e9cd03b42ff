package faults

import (
	"io"
	"net"
	"syscall"
	"testing"

	"adconnector/internal/status"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

// TestAdminConnections lets clients of the admin endpoint hold connections of a daemon with a
// limit of 200 file descriptors: idle ones, incomplete requests, and responses that nobody
// reads. It passes if all runs are processed, if the healthcheck succeeds at any time, and if
// memory stays bounded.
func TestAdminConnections(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 200, groups: 20})
	settings := e.settings.With(testenv.Settings{"service.admin.address": "127.0.0.1:0", "service.cron-expression": "* * * * * *"})
	p := start(t, command{settings: settings, wrapper: []string{"sh", "-c", `ulimit -n 200; exec "$@"`, "sh"}})
	address := p.AwaitMessage(t, status.MsgAdminListening).Text("address")
	p.Await(t, 0, finished(syncrun.Processed))
	peak := residentBytes(p)
	attacks := []struct {
		name, text  string
		connections int
	}{
		{"idle", "", 400},
		{"incomplete requests", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", 400},
		{"unread metrics", "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 40},
		{"unread status", "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n", 400},
		{"many", "", scaled(4000, 20_000)},
	}
	for _, attack := range attacks {
		const held = 500
		open := make([]net.Conn, 0, held)
		for n := range attack.connections {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatalf("%s: connection %d: %v", attack.name, n, err)
			}
			_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			_, _ = io.WriteString(conn, attack.text) // an error if it was already closed
			if len(open) == held {
				open[0].Close()
				open = open[1:]
			}
			open = append(open, conn)
			if n%1000 == 500 {
				peak = max(peak, residentBytes(p))
			}
		}
		run(t, settings.With(testenv.Settings{"service.admin.address": address}), "healthcheck").MustExit(t, 0)
		_, next := p.Await(t, len(p.Log.Lines()), finished(syncrun.Processed)) // began before or during the attack
		p.Await(t, next, finished(syncrun.Processed))
		peak = max(peak, residentBytes(p))
		for _, conn := range open {
			conn.Close()
		}
	}
	if failed := p.Log.Find(finished(syncrun.Failed)); len(failed) > 0 {
		t.Errorf("failed runs: %v", failed)
	}
	if peak > 128<<20 {
		t.Errorf("%d MiB resident", peak>>20)
	}
	p.Signal(t, syscall.SIGTERM)
	p.MustExit(t, 0, 130)
	logResult(t, "no run failed and every healthcheck succeeded with %d kinds of connections; at most %d MiB resident", len(attacks), peak>>20)
}
