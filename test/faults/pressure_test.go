package faults

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"adconnector/internal/syncrun"
	"adconnector/test/program"
	"adconnector/test/testenv"
)

// residentBytes returns the resident memory of a process, 0 after its end.
func residentBytes(p *program.Process) int64 { return memoryBytes(p, "VmRSS:") }

// memoryBytes returns the memory of a process in a line of /proc/[pid]/status, 0 after its end.
func memoryBytes(p *program.Process, name string) (size int64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	for l := range strings.Lines(string(text)) {
		if kilobytes, ok := strings.CutPrefix(l, name); ok {
			size, _ = strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kilobytes), "kB")), 10, 64)
		}
	}
	return size << 10
}

// TestSlowGateway delays each batch at the gateway. It passes if the connector reads ahead of
// the accepted objects by no more than its buffers hold, if memory stays flat after the first
// tenth of the batches, and if everything is delivered.
func TestSlowGateway(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: scaled(1600, 20_000), groups: 20})
	const batchSize, workers, pageSize = 20, 4, 100
	e.settings = e.settings.With(testenv.Settings{
		"upload.batch-size": strconv.Itoa(batchSize), "thread-pool.size": strconv.Itoa(workers), "ldap.page-size": strconv.Itoa(pageSize),
	})
	objects := len(expectedAssets(e.Directory.Server, time.Now()))
	// Batches sent and not recorded, batches on the way to the workers, and the read buffers:
	// four chunks of 64 KiB with entries of at least 400 bytes, and two pages.
	const readAheadLimit = batchSize*(4*workers+workers+2) + 4*(64<<10)/400 + 2*pageSize
	var mu sync.Mutex
	p := make(chan *program.Process, 1)
	readAhead, firstRSS, maxRSS, batches := 0, int64(0), int64(0), 0
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if !x.HasAssets() {
			return false
		}
		<-time.After(scaled(10*time.Millisecond, 50*time.Millisecond))
		accepted, _ := e.monitor.counts()
		mu.Lock()
		defer mu.Unlock()
		read := e.Directory.Counters().Entries
		readAhead = max(readAhead, read-accepted)
		if batches++; batches*batchSize < objects/10 {
			return false
		}
		running := <-p
		p <- running
		now := residentBytes(running)
		if firstRSS == 0 {
			firstRSS = now
		}
		maxRSS = max(maxRSS, now)
		return false
	})
	p <- start(t, command{settings: e.settings, args: []string{"sync"}})
	running := <-p
	p <- running
	running.MustExit(t, 0)
	e.mustMatchDirectory(t, "with a slow gateway")
	if readAhead > readAheadLimit {
		t.Errorf("read %d objects ahead of the gateway, want at most %d", readAhead, readAheadLimit)
	}
	if maxRSS-firstRSS > 16<<20 {
		t.Errorf("memory grew from %d to %d MiB, want at most 16 MiB more", firstRSS>>20, maxRSS>>20)
	}
	logResult(t, "%d objects: read at most %d ahead of the gateway, memory from %d to %d MiB", objects, readAhead, firstRSS>>20, maxRSS>>20)
}

// TestSearchLostDuringBackpressure rate-limits the gateway for longer than the idle timeout
// of the directory. It passes if one run restarts its searches and delivers everything, and
// nothing is sent twice.
func TestSearchLostDuringBackpressure(t *testing.T) {
	if testing.Short() {
		t.Skip("needs waits of 12 s; package syncrun tests the short form")
	}
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 3000, groups: 20})
	e.settings = e.settings.With(testenv.Settings{"upload.batch-size": "10", "thread-pool.size": "2", "ldap.page-size": "100"})
	e.relay.set(rule{connection: -1, idle: 6 * time.Second})
	var mu sync.Mutex
	var until time.Time
	batches, waits := 0, 0
	e.Gateway.SetFront(func(x *testenv.Exchange) bool {
		if !x.HasAssets() {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if time.Now().After(until) {
			if batches++; batches%100 != 0 {
				return false
			}
			until = time.Now().Add(12 * time.Second)
			waits++
		}
		x.W.Header().Set("Retry-After", "12")
		return x.Status(http.StatusTooManyRequests, "")
	})
	o := run(t, e.settings, "sync")
	o.MustExit(t, 0)
	e.mustMatchDirectory(t, "after the waits")
	restarts := len(o.With(syncrun.MsgSearchRestarted))
	if restarts == 0 {
		t.Errorf("no search was restarted:\n%s", o.Stderr)
	}
	for _, identity := range e.Gateway.Users() {
		if identity.Times != 1 {
			t.Errorf("%s was sent %d times", identity.VendorAssetID, identity.Times)
		}
	}
	logResult(t, "%d waits of 12 s, idle timeout of the directory 6 s: %d searches restarted, gateway matches after one run", waits, restarts)
}
