package faults

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"adconnector/internal/gateway"
	"adconnector/internal/status"
	"adconnector/internal/syncrun"
	"adconnector/test/oracle"
	"adconnector/test/program"
	"adconnector/test/testenv"
	"adconnector/test/testlog"
)

var soakFlag = flag.Duration("soak", 20*time.Second, "duration of TestSoak")

// soak is a daemon whose environment changes and fails all the time.
type soak struct {
	*environment
	gateway    *faultyGateway
	process    *program.Process
	metricsURL string
	began      time.Time
	results    map[string]int // of runs
	injected   map[string]int // faults of the directory
	blackHoles int
	switches   int // of the controller
}

// TestSoak performs a run every second for the time of the flag -soak. The directory changes all
// the time, security posture is on, and the directory and the gateway fail again and again. It
// passes if memory, descriptors, goroutines and the state directory do not grow, and if the gateway
// then holds what a first sync sends to an empty gateway, field by field.
func TestSoak(t *testing.T) {
	t.Parallel()
	s := newSoak(t)
	ctx, stop := context.WithCancel(t.Context())
	var working sync.WaitGroup
	t.Cleanup(working.Wait)
	working.Go(func() { s.keepChanging(ctx, t) })
	var samples []sample
	working.Go(func() { samples = s.takeSamples(ctx, t) })
	const minRuns = 24 // also on a slow machine
	for runs, line := 0, 0; runs < minRuns || time.Since(s.began) < *soakFlag; runs++ {
		var l testlog.Line
		l, line = s.process.Await(t, line, testlog.Message(syncrun.MsgRunFinished))
		s.results[l.Text("result")]++
		s.gateway.forgetFailures()
		s.injectDirectoryFault()
	}
	stop()
	working.Wait()
	s.Gateway.SetFront(nil)
	s.relay.forwardTo(fmt.Sprintf("127.0.0.1:%d", s.Port))
	s.relay.clear()
	s.finish(t)

	calls, faults := s.gateway.counts()
	logResult(t, "%s: runs: %s; faults of the directory: %s; faults of the gateway in %d calls: %s",
		time.Since(s.began).Round(time.Second), formatCounts(s.results), formatCounts(s.injected), calls, faults)
	if len(samples) < 4 {
		return // takeSamples has failed the test
	}
	t.Logf("%d samples\n%s", len(samples), formatSamples(samples))
	for n, f := range figures {
		if lows := quarterLows(samples, n); !f.isFlat(lows[1], lows[3]) {
			t.Errorf("%s grew from %d in the second quarter to %d in the last one", f.name, lows[1], lows[3])
		}
	}
	if faults == "" || len(s.injected) == 0 {
		t.Error("no faults")
	}
}

func newSoak(t *testing.T) *soak {
	t.Helper()
	options := environmentOptions{users: 300, groups: 20}
	s := &soak{environment: newEnvironment(t, options), results: map[string]int{}, injected: map[string]int{}}
	secondOptions := s.directoryOptions(options, s.Password)
	secondOptions.Name = "dc2"
	s.second = testenv.NewDirectory(t, secondOptions)
	must(t, s.AddPeer(s.second.Server))
	must(t, s.second.AddPeer(s.Server))
	s.posture = true
	s.Gateway.SetProfile(&gateway.Profile{
		ProfileUUID: testenv.ProfileUUID, BaseContext: s.Base(), SearchScope: "SUBTREE", Assets: "IDENTITIES_WITH_SECURITY_POSTURE",
	})
	s.settings = s.settings.With(testenv.Settings{
		"upload.batch-size": "50", "thread-pool.size": "2", "ldap.page-size": "100", "sync.full-interval": "20s",
		"sync.max-deletes": "100000", "sync.max-deletes-percent": "100", // held deletions would not be released
	})
	s.gateway = s.newFaultyGateway(1, 200*time.Millisecond, append(slices.Clone(gatewayFaults), "429")...)
	s.gateway.maxFaults = 2
	s.Gateway.SetFront(s.gateway.serve)
	s.process = start(t, command{settings: s.settings.With(testenv.Settings{
		"service.cron-expression": "* * * * * *", "service.admin.address": "127.0.0.1:0",
	})})
	s.metricsURL = "http://" + s.process.AwaitMessage(t, status.MsgAdminListening).Text("address") + "/metrics"
	s.process.AwaitMessage(t, syncrun.MsgRunFinished)
	s.began = time.Now()
	return s
}

// keepChanging changes the directory until ctx is done. The number of its objects stays about the same.
func (s *soak) keepChanging(ctx context.Context, t *testing.T) {
	ticks := time.NewTicker(100 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		if err := s.changeOnce(); err != nil {
			t.Error(err)
			return
		}
	}
}

func (s *soak) changeOnce() error {
	s.clock.Advance(time.Since(s.clock.Now()))
	s.mu.Lock()
	defer s.mu.Unlock()
	const average, tolerance = 300, 20
	switch people := len(s.people); {
	case people > average+tolerance:
		return s.deletePerson()
	case people < average-tolerance:
		s.serial++
		return s.addPerson()
	case s.random.IntN(3) == 0:
		return s.changePosture()
	}
	return s.mutateLocked()
}

// changePosture changes what only security posture reads.
func (s *soak) changePosture() error {
	_, person := s.pick(s.people)
	switch s.random.IntN(4) {
	case 0:
		return s.set(person, "servicePrincipalName", "http/"+strconv.Itoa(s.random.IntN(9)))
	case 1:
		return s.set(person, "adminCount", strconv.Itoa(s.random.IntN(2)))
	}
	groups := append(slices.Clone(s.groups), "CN=Domain Admins,CN=Users,"+s.Base(), "CN=Backup Operators,CN=Builtin,"+s.Base())
	_, group := s.pick(groups)
	members := map[string]bool{}
	for range s.random.IntN(10) {
		candidates := s.people
		if s.random.IntN(3) == 0 {
			candidates = s.groups
		}
		if _, member := s.pick(candidates); member != group {
			members[member] = true
		}
	}
	return s.set(group, "member", slices.Sorted(maps.Keys(members))...)
}

// injectDirectoryFault draws a fault for the next connections to the directory.
func (s *soak) injectDirectoryFault() {
	kinds := []string{"cut", "reset", "cut to the server", "refused", "slow", "other controller"}
	n := s.random.IntN(2 * len(kinds))
	if n >= len(kinds) {
		s.relay.clear()
		return
	}
	kind, after := kinds[n], s.random.IntN(30_000)
	r := rule{connection: -1, after: after}
	switch kind {
	case "cut":
		r.action = cut
	case "reset":
		r.action = reset
	case "cut to the server":
		r.toServer, r.action, r.after = true, cut, after/10
	case "refused":
		r.refuse = true
	case "slow":
		r.chunkDelay, r.chunkSize = time.Millisecond, 1400
	case "other controller":
		s.switches++
		target := []*testenv.Directory{s.Directory, s.second}[s.switches%2]
		s.relay.forwardTo(fmt.Sprintf("127.0.0.1:%d", target.Port))
	}
	// The connector waits 130 s for a response.
	if *soakFlag >= 10*time.Minute && time.Since(s.began) > time.Duration(s.blackHoles+1)**soakFlag/4 {
		s.blackHoles++
		kind, r = "black hole", rule{connection: -1, after: after / 10, action: blackhole}
	}
	s.injected[kind]++
	s.relay.set(r)
}

// finish performs runs without faults and compares the gateway with one that receives everything
// from a new connector.
func (s *soak) finish(t *testing.T) {
	t.Helper()
	s.process.Await(t, len(s.process.Log.Lines()), finished(syncrun.Processed))
	s.process.Signal(t, syscall.SIGTERM)
	s.process.MustExit(t, 0, 130) // 130: during a run
	for range 2 {                 // absence after a change of the controller needs two full syncs
		run(t, s.settings, "sync", "--full").MustExit(t, 0)
	}
	s.mustMatchDirectory(t, "after the faults")

	fresh, freshDir := testenv.NewGateway(t, testenv.GatewayOptions{Options: s.Gateway.Options}), s.newStateDir()
	run(t, s.settings.With(testenv.Settings{"connector.api.url": fresh.Server.URL, "service.state-dir": freshDir}), "sync").MustExit(t, 0)
	s.mustHoldSame(t, fresh)
	used, usedByFresh := usedBytes(t, s.settings["service.state-dir"]), usedBytes(t, freshDir)
	// A state file keeps the last 200 runs, and the deletions of 30 days.
	_, deletions := s.monitor.counts()
	if limit := 2*usedByFresh + 200*(2<<10) + int64(deletions)*128; used > limit {
		t.Errorf("%d bytes of the state file in use, want at most %d", used, limit)
	}
	logResult(t, "%d bytes of the state file in use, %d after a first sync; %d deletions", used, usedByFresh, deletions)
}

// usedBytes returns the size of a state file without its free pages.
func usedBytes(t *testing.T, dir string) int64 {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, stateFile), 0, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true})
	must(t, err)
	defer db.Close()
	var used int64
	must(t, db.View(func(tx *bbolt.Tx) error {
		used = tx.Size() - int64(db.Stats().FreePageN*db.Info().PageSize)
		return nil
	}))
	return used
}

// mustHoldSame fails the test for each field that differs at the other gateway. What that one does
// not hold must be deleted.
func (s *soak) mustHoldSame(t *testing.T, fresh *testenv.Gateway) {
	t.Helper()
	want, got := fresh.HeldByKey(), s.Gateway.HeldByKey()
	for key, asset := range want {
		wantFields, err := oracle.Flatten([]byte(asset))
		must(t, err)
		gotFields, err := oracle.Flatten([]byte(got[key]))
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		paths := maps.Clone(wantFields)
		maps.Copy(paths, gotFields)
		for path := range paths {
			if gotFields[path] != wantFields[path] {
				t.Errorf("%s %s: gateway %s, first sync %s", key, path, gotFields[path], wantFields[path])
			}
		}
	}
	for key, asset := range got {
		if want[key] == "" && !testenv.IsDeleted(asset) {
			t.Errorf("%s: not in the directory, not reported as deleted", key)
		}
	}
}

// figure is a quantity of the daemon that must not grow.
type figure struct {
	name      string
	factor    int64 // of the permitted growth, for a quantity that grows in steps
	tolerance int64 // of the permitted growth, in addition
}

// The indices of figures and of the values of a sample.
const (
	anonymous = iota
	heap
	descriptors
	goroutines
	stateFileBytes
	stateDirBytes
)

// The tolerances of descriptors and goroutines are below the number of runs between the second and
// the last quarter of the short form. The state file doubles its size when it is full.
var figures = [...]figure{
	anonymous:      {"anonymous memory", 1, 6 << 20},
	heap:           {"heap", 1, 1 << 20},
	descriptors:    {"descriptors", 1, 5},
	goroutines:     {"goroutines", 1, 6},
	stateFileBytes: {"state file", 2, 256 << 10},
	stateDirBytes:  {"state directory", 2, 256 << 10},
}

// isFlat compares the lowest values of two times. What a run requires while it is active changes
// the other values.
func (f figure) isFlat(before, after int64) bool { return after <= before*f.factor+f.tolerance }

func TestQuarterLows(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		value func(n int) int64
		lows  [4]int64
		flat  bool
	}{
		"constant":        {func(int) int64 { return 20 }, [4]int64{20, 20, 20, 20}, true},
		"active and idle": {func(n int) int64 { return 20 + int64(n%2)*30 }, [4]int64{20, 20, 20, 20}, true},
		"warm-up":         {func(n int) int64 { return int64(min(n, 10)) }, [4]int64{0, 10, 10, 10}, true},
		"one more":        {func(n int) int64 { return int64(n / 60) }, [4]int64{0, 0, 0, 1}, true},
		"a slow leak":     {func(n int) int64 { return int64(n / 5) }, [4]int64{0, 4, 8, 12}, false},
		"a hidden leak":   {func(n int) int64 { return int64(n/5) + int64(n%7)*9 }, [4]int64{0, 4, 8, 12}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var samples []sample
			for n := range 80 {
				samples = append(samples, sample{goroutines: c.value(n)})
			}
			lows := quarterLows(samples, goroutines)
			if flat := figures[goroutines].isFlat(lows[1], lows[3]); lows != c.lows || flat != c.flat {
				t.Errorf("lows %v, flat %t, want %v, %t", lows, flat, c.lows, c.flat)
			}
		})
	}
}

// sample is the values of all figures at a time.
type sample [len(figures)]int64

// quarterLows returns the lowest value of a figure in each quarter of the samples, which are at
// least four.
func quarterLows(samples []sample, figure int) (lows [4]int64) {
	for quarter := range lows {
		from, to := quarter*len(samples)/4, (quarter+1)*len(samples)/4
		lows[quarter] = samples[from][figure]
		for _, s := range samples[from:to] {
			lows[quarter] = min(lows[quarter], s[figure])
		}
	}
	return lows
}

// takeSamples takes samples until ctx is done.
func (s *soak) takeSamples(ctx context.Context, t *testing.T) []sample {
	ticks := time.NewTicker(min(*soakFlag/200, 2*time.Second))
	defer ticks.Stop()
	var samples []sample
	var failed int
	var lastErr error
	for {
		select {
		case <-ctx.Done():
			if failed > len(samples) || len(samples) < 4 {
				t.Errorf("%d samples, %d failed: %v", len(samples), failed, lastErr)
			}
			return samples
		case <-ticks.C:
		}
		// The admin endpoint closes the connection of a client that does not send its request
		// within 3 s, which happens on a busy machine.
		if taken, err := s.sample(); err != nil {
			failed, lastErr = failed+1, err
		} else {
			samples = append(samples, taken)
		}
	}
}

func (s *soak) sample() (taken sample, err error) {
	taken[anonymous] = memoryBytes(s.process, "RssAnon:")
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.process.PID()))
	if err != nil {
		return taken, err
	}
	taken[descriptors] = int64(len(open))
	files, err := os.ReadDir(s.settings["service.state-dir"])
	if err != nil {
		return taken, err
	}
	for _, f := range files {
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // a temporary file
		}
		if err != nil {
			return taken, err
		}
		taken[stateDirBytes] += info.Size()
		if f.Name() == stateFile {
			taken[stateFileBytes] = info.Size()
		}
	}
	metrics, err := s.metrics()
	taken[heap], taken[goroutines] = int64(metrics["go_memstats_heap_alloc_bytes"]), int64(metrics["go_goroutines"])
	return taken, err
}

// metrics returns the metrics without labels.
func (s *soak) metrics() (map[string]float64, error) {
	response, err := http.Get(s.metricsURL)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	values := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		if name, text, ok := strings.Cut(lines.Text(), " "); ok {
			if value, err := strconv.ParseFloat(text, 64); err == nil {
				values[name] = value
			}
		}
	}
	return values, lines.Err()
}

// formatSamples returns a table: the values at the start, after each quarter of the time and at the
// end, and the lowest values of each quarter.
func formatSamples(samples []sample) string {
	var table strings.Builder
	for n, f := range figures {
		fmt.Fprintf(&table, "%-17s", f.name)
		for quarter := range 5 {
			fmt.Fprintf(&table, " %11d", samples[quarter*(len(samples)-1)/4][n])
		}
		fmt.Fprintf(&table, "   lowest in each quarter:")
		for _, low := range quarterLows(samples, n) {
			fmt.Fprintf(&table, " %11d", low)
		}
		table.WriteByte('\n')
	}
	return table.String()
}
