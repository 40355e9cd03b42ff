package faults

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"adconnector/internal/ad"
	"adconnector/internal/directory"
	"adconnector/internal/fault"
	"adconnector/internal/state"
	"adconnector/internal/syncrun"
	"adconnector/test/testenv"
)

// stateFile is the name of the state file in its directory.
const stateFile = "adconnector.db"

const pageSize = 4096 // of bbolt on the tested platforms

// corrupt returns a damaged copy of a state file and a description of the damage. older is
// the content some transactions earlier.
func corrupt(content, older []byte, random *rand.Rand) (damaged []byte, damage string) {
	damaged = bytes.Clone(content)
	offset := random.IntN(len(damaged))
	if random.IntN(3) == 0 { // page headers, where damage has the largest effect
		offset = offset/pageSize*pageSize + random.IntN(64)
	}
	switch random.IntN(10) {
	case 8, 9: // lost writes: the disk acknowledged pages that it did not write
		n := 1 + random.IntN(20)
		for page := 0; page+pageSize <= min(len(content), len(older)); page += pageSize {
			if random.IntN(n) == 0 {
				copy(damaged[page:page+pageSize], older[page:])
			}
		}
		return damaged, fmt.Sprintf("1 of %d pages not written", n)
	case 0:
		return damaged[:offset], fmt.Sprintf("truncated to %d bytes", offset)
	case 1:
		clear(damaged[offset:min(offset+pageSize, len(damaged))])
		return damaged, fmt.Sprintf("a page of zeros at %d", offset)
	default:
		damaged[offset] ^= 1 << random.IntN(8)
		return damaged, fmt.Sprintf("a flipped bit in byte %d", offset)
	}
}

// TestCorruptStateFile damages the state file of a connector that has delivered everything,
// 1,000 times: a flipped bit, a page of zeros, a truncation or lost writes. It passes if each
// file opens or is set aside, all its content can then be read and written, and it opens
// again. Runs on damaged files must not fail and must cause no false deletion. After a full
// sync, the gateway must match the directory.
func TestCorruptStateFile(t *testing.T) {
	t.Parallel()
	began := time.Now()
	files, runInterval := scaled(60, 1000), scaled(15, 8)
	e := newEnvironment(t, environmentOptions{users: 200, groups: 20})
	dir := t.TempDir()
	content, older, rejected := e.syncedStateFile(t, dir)
	setAside, runs := 0, 0
	for n := range files {
		damaged, damage := corrupt(content, older, e.random)
		damagedDir := filepath.Join(dir, fmt.Sprint(n))
		must(t, os.Mkdir(damagedDir, 0o700))
		must(t, os.WriteFile(filepath.Join(damagedDir, stateFile), damaged, 0o600))
		store, err := noSync.Open(damagedDir)
		if err != nil {
			t.Fatalf("%s: %v", damage, err)
		}
		if store.DamagedFile != nil {
			setAside++
			secretScan.check(t, "error of a damaged state file", store.DamagedFile.Err().Error())
		}
		if n%runInterval == 0 {
			runs++
			e.syncTwice(t, store, damage)
		} else if err := useStore(store); err != nil {
			t.Fatalf("%s: %v", damage, err)
		}
		must(t, store.Close())
		if store, err = noSync.Open(damagedDir); err != nil || store.DamagedFile != nil {
			t.Fatalf("%s: second open: error %v, store %+v", damage, err, store)
		}
		must(t, store.Close())
		must(t, os.RemoveAll(damagedDir))
	}
	logResult(t, "%d damaged files with %d rejections each, %d set aside, %d opened; %d runs, none failed, no false deletion; %s",
		files, rejected, setAside, files-setAside, runs, time.Since(began).Round(time.Millisecond))
}

// syncedStateFile returns the state file of a connector after a full sync, delta syncs, a
// deletion and rejections. older is its content after the first run.
func (e *environment) syncedStateFile(t *testing.T, dir string) (content, older []byte, rejected int) {
	t.Helper()
	store, err := noSync.Open(dir)
	must(t, err)
	defer store.Close()
	r := e.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	e.poison(poison{count: 3})
	run, err := r.runOnce(syncrun.RunOptions{})
	if err != nil || run.Rejected != 3 {
		t.Fatalf("run %+v, error %v\n%s", run, err, r.log.Lines())
	}
	older, err = os.ReadFile(filepath.Join(dir, stateFile))
	must(t, err)
	for range 3 {
		e.mutate(10)
		if _, err := r.runOnce(syncrun.RunOptions{}); err != nil {
			t.Fatalf("%v\n%s", err, r.log.Lines())
		}
	}
	must(t, store.Close())
	e.Gateway.SetFront(nil)
	content, err = os.ReadFile(filepath.Join(dir, stateFile))
	must(t, err)
	return content, older, run.Rejected
}

// syncTwice executes the runs after a restart: a scheduled run and a full sync.
func (e *environment) syncTwice(t *testing.T, store *state.Store, damage string) {
	t.Helper()
	e.modify(3) // no other changes, because earlier runs on newer files have sent those
	r := e.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	_, before := e.monitor.counts()
	for _, mode := range []syncrun.RunOptions{{}, {Full: true}} {
		run, err := r.runOnce(mode)
		if err != nil {
			t.Fatalf("%s: %v\n%s", damage, err, r.log.Lines())
		}
		if _, deletions := e.monitor.counts(); store.DamagedFile != nil && deletions > before {
			t.Errorf("%s: %d deletions without an index", damage, deletions-before)
		}
		if run.Held > 0 {
			t.Errorf("%s: %d deletions held", damage, run.Held)
		}
	}
	for _, difference := range e.differences() {
		// A new index lacks objects that were deleted before the file was set aside.
		if store.DamagedFile == nil || !strings.HasSuffix(difference, notReportedDeleted) {
			t.Errorf("%s: %s", damage, difference)
		}
	}
}

// TestRunEndNotRecorded closes the state file just before the end of a failed run is recorded.
// It passes if the log reports the run as failed, the state file has neither the run nor a
// connector state of its end, and the next run delivers everything.
func TestRunEndNotRecorded(t *testing.T) {
	t.Parallel()
	e := newEnvironment(t, environmentOptions{users: 20, groups: 2})
	dir := t.TempDir()
	store, err := noSync.Open(dir)
	must(t, err)
	r := e.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	e.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "{}") }))
	r.NextRun = func(after time.Time) time.Time {
		must(t, store.Close())
		return after.Add(time.Hour)
	}
	run, err := r.runOnce(syncrun.RunOptions{})
	if fault.ClassOf(err) != fault.Refused || run.Result != syncrun.Failed {
		t.Errorf("run %+v, error %v, want a refusal", run, err)
	}
	lines := r.log.Lines()
	if l := lines[len(lines)-1]; !finished(syncrun.Failed)(l) || l.Text("error") != run.Error || l.Text("run_id") != run.ID {
		t.Errorf("log %v, want the failed run at its end", lines)
	}
	store, err = noSync.Open(dir)
	must(t, err)
	defer store.Close()
	runs, err := store.Runs()
	must(t, err)
	connector, err := store.Connector()
	must(t, err)
	if len(runs) != 0 || connector.State != "PROCESSING" || connector.RunID != run.ID {
		t.Errorf("recorded runs %+v, connector %+v", runs, connector)
	}
	for _, l := range r.log.With(syncrun.MsgConnectorState) {
		if l.Text("from") == "PROCESSING" {
			t.Errorf("state change logged but not recorded: %v", l)
		}
	}
	e.Gateway.SetFront(nil)
	next := e.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	if run, err := next.runOnce(syncrun.RunOptions{}); err != nil || run.Result != syncrun.Processed {
		t.Errorf("next run %+v, error %v", run, err)
	}
	e.mustMatchDirectory(t, "after the next run")
}

// useStore calls every method of the store that a run calls, and returns the first error.
func useStore(store *state.Store) error {
	if _, err := store.Connector(); err != nil {
		return err
	}
	if _, err := store.Runs(); err != nil {
		return err
	}
	if _, err := store.RateLimit(); err != nil {
		return err
	}
	if _, _, err := store.Rejections(-1); err != nil {
		return err
	}
	if _, err := store.LastFullSync(); err != nil {
		return err
	}
	if _, err := store.InFlightObjects(); err != nil {
		return err
	}
	if _, err := store.DueForRecheck(time.Now().Add(24 * 365 * time.Hour)); err != nil {
		return err
	}
	objects, err := store.Missing(nil)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if _, _, err := store.Lookup(o.GUID, nil); err != nil {
			return err
		}
	}
	journal, err := store.OpenJournal(state.View{InvocationID: ad.InvocationID{1}, Scope: "x"}, time.Now())
	if err != nil {
		return err
	}
	if err := journal.MarkInFlight([]state.Batch{{Objects: objects}}); err != nil {
		return err
	}
	if err := journal.Commit([]state.BatchResult{{Complete: true, Acknowledged: objects}}); err != nil {
		return err
	}
	if err := store.SetHeldDeletions([]ad.GUID{{1}}, time.Now()); err != nil {
		return err
	}
	if err := store.RecordRun(state.Run{ID: "x"}, state.Connector{State: "SCHEDULED"}); err != nil {
		return err
	}
	return store.Advance(state.Progress{View: state.View{InvocationID: ad.InvocationID{1}, Scope: "x"}, FullSync: true})
}
