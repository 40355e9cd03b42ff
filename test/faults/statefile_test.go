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

const stateFile = "adconnector.db"

// wreck damages a file in one of the ways in which files get damaged. older is what
// it was some transactions before.
func wreck(content, older []byte, random *rand.Rand) (damaged []byte, how string) {
	damaged = bytes.Clone(content)
	at := random.IntN(len(damaged))
	if random.IntN(3) == 0 { // where it matters most: the heads of pages
		at = at/4096*4096 + random.IntN(64)
	}
	switch random.IntN(10) {
	case 8, 9: // a disk that has said of pages that they are written, and they were not
		some := 1 + random.IntN(20)
		for page := 0; page+4096 <= min(len(content), len(older)); page += 4096 {
			if random.IntN(some) == 0 {
				copy(damaged[page:page+4096], older[page:])
			}
		}
		return damaged, fmt.Sprint("some pages older, one of ", some)
	case 0:
		return damaged[:at], fmt.Sprint("cut at ", at)
	case 1:
		for i := at; i < min(at+4096, len(damaged)); i++ {
			damaged[i] = 0
		}
		return damaged, fmt.Sprint("zeros from ", at)
	default:
		damaged[at] ^= 1 << random.IntN(8)
		return damaged, fmt.Sprint("a bit of byte ", at)
	}
}

// TestStateFile damages the state file of a connector that has delivered everything:
// 1,000 times a bit, a page, its end, or pages that a disk has promised and not written.
// It passes when each time the file opens or
// is set aside, everything in it can then be read and written, and it opens once
// more; when no run on it fails or reports anything as deleted that is there; and
// when after a full one the gateway holds what the directory does.
func TestStateFile(t *testing.T) {
	t.Parallel()
	began := time.Now()
	times, withRun := scaled(60, 1000), scaled(15, 8)
	s := newEnvironment(t, plan{users: 200, groups: 20})
	dir := t.TempDir()
	pristine, older, rejected := s.delivered(t, dir)
	aside, runs := 0, 0
	for n := range times {
		damaged, how := wreck(pristine, older, s.random)
		place := filepath.Join(dir, fmt.Sprint(n))
		must(t, os.Mkdir(place, 0o700))
		must(t, os.WriteFile(filepath.Join(place, stateFile), damaged, 0o600))
		store, err := unsynced.Open(place)
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if store.DamagedFile != nil {
			aside++
			searched.in(t, "a damage", store.DamagedFile.Err().Error())
		}
		if n%withRun == 0 {
			runs++
			s.runOn(t, store, how)
		} else if err := exercise(store); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		must(t, store.Close())
		if store, err = unsynced.Open(place); err != nil || store.DamagedFile != nil {
			t.Fatalf("%s: opened again: %v, %v", how, err, store)
		}
		must(t, store.Close())
		must(t, os.RemoveAll(place))
	}
	figures(t, "%d damages, %d set aside, %d opened as they were; %d runs on them, none failed, nothing falsely deleted; %d rejections among what was damaged; %s",
		times, aside, times-aside, runs, rejected, time.Since(began).Round(time.Millisecond))
}

// delivered is the state file of a connector with a past: full and delta runs, a
// deletion, rejected objects. older is what it was after the first run.
func (s *environment) delivered(t *testing.T, dir string) (content, older []byte, rejected int) {
	t.Helper()
	store, err := unsynced.Open(dir)
	must(t, err)
	defer store.Close()
	r := s.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	bad := map[string]bool{}
	s.poison(bad, poison{k: 3})
	run, err := r.do(syncrun.Mode{})
	if err != nil || run.Rejected != 3 {
		t.Fatalf("%+v, %v\n%s", run, err, r.log.Lines())
	}
	older, err = os.ReadFile(filepath.Join(dir, stateFile))
	must(t, err)
	for range 3 {
		s.mutate(10)
		if _, err := r.do(syncrun.Mode{}); err != nil {
			t.Fatalf("%v\n%s", err, r.log.Lines())
		}
	}
	must(t, store.Close())
	s.Gateway.SetFront(nil)
	content, err = os.ReadFile(filepath.Join(dir, stateFile))
	must(t, err)
	return content, older, run.Rejected
}

// runOn does what comes after a restart on a state file: a run as it is due, and a
// full one.
func (s *environment) runOn(t *testing.T, store *state.Store, how string) {
	t.Helper()
	s.modify(3) // and no more: the file is older than what other runs have sent
	r := s.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	_, before := s.witness.counts()
	for _, mode := range []syncrun.Mode{{}, {Full: true}} {
		run, err := r.do(mode)
		if err != nil {
			t.Fatalf("%s: %v\n%s", how, err, r.log.Lines())
		}
		if _, deletions := s.witness.counts(); store.DamagedFile != nil && deletions > before {
			t.Errorf("%s: %d deletions from an index that is not there", how, deletions-before)
		}
		if run.Held > 0 {
			t.Errorf("%s: %d deletions held", how, run.Held)
		}
	}
	for _, difference := range s.differences() {
		// Nobody knows of what has gone before the file was set aside.
		if store.DamagedFile == nil || !strings.HasSuffix(difference, hasGone) {
			t.Errorf("%s: %s", how, difference)
		}
	}
}

// TestEndNotRecorded closes the state file right before a run that failed is recorded. It
// passes when the log has the run as failed, when the state file has neither the run nor an end
// state of it, and when the next run delivers everything.
func TestEndNotRecorded(t *testing.T) {
	t.Parallel()
	s := newEnvironment(t, plan{users: 20, groups: 2})
	dir := t.TempDir()
	store, err := unsynced.Open(dir)
	must(t, err)
	r := s.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	s.Gateway.SetFront(testenv.OnAssets(func(x *testenv.Exchange) bool { return x.Status(http.StatusForbidden, "{}") }))
	r.Next = func(after time.Time) time.Time {
		must(t, store.Close())
		return after.Add(time.Hour)
	}
	run, err := r.do(syncrun.Mode{})
	if fault.ClassOf(err) != fault.Refused || run.Result != syncrun.Failed {
		t.Errorf("%+v, %v", run, err)
	}
	lines := r.log.Lines()
	if l := lines[len(lines)-1]; !finished(syncrun.Failed)(l) || l.Text("error") != run.Error || l.Text("run_id") != run.ID {
		t.Errorf("log %v", lines)
	}
	store, err = unsynced.Open(dir)
	must(t, err)
	defer store.Close()
	runs, err := store.Runs()
	must(t, err)
	now, err := store.Connector()
	must(t, err)
	if len(runs) != 0 || now.State != "PROCESSING" || now.RunID != run.ID {
		t.Errorf("runs %+v, state %+v", runs, now)
	}
	for _, l := range r.log.With(syncrun.MsgConnectorState) {
		if l.Text("from") == "PROCESSING" {
			t.Errorf("a change that is not recorded: %v", l)
		}
	}
	s.Gateway.SetFront(nil)
	again := s.newRunner(t, store, time.Minute, directory.LDAP, "127.0.0.1")
	if run, err := again.do(syncrun.Mode{}); err != nil || run.Result != syncrun.Processed {
		t.Errorf("%+v, %v", run, err)
	}
	s.mustBeEqual(t, "with a state file again")
}

// exercise reads and writes everything that a run does.
func exercise(store *state.Store) error {
	if _, err := store.Connector(); err != nil {
		return err
	}
	if _, err := store.Runs(); err != nil {
		return err
	}
	if _, err := store.RateLimit(); err != nil {
		return err
	}
	if _, err := store.Rejections(); err != nil {
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
		if _, _, err := store.Lookup(o.GUID); err != nil {
			return err
		}
	}
	delivery, err := store.OpenJournal(ad.InvocationID{1}, time.Now())
	if err != nil {
		return err
	}
	if err := delivery.MarkInFlight([]state.Batch{{Objects: objects}}); err != nil {
		return err
	}
	if err := delivery.Commit([]state.BatchResult{{Complete: true, Acknowledged: objects}}); err != nil {
		return err
	}
	if err := store.SetHeldDeletions([]ad.GUID{{1}}, time.Now()); err != nil {
		return err
	}
	if err := store.RecordRun(state.Run{ID: "x"}, state.Connector{State: "SCHEDULED"}); err != nil {
		return err
	}
	return store.Advance(state.Progress{FullSync: &state.FullSync{Scope: "x"}})
}
